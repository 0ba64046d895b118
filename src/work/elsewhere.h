/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A struct work without lanes of its own: other processes apply the records (work/share.h), and
 * somebody here hears how far they have come. So who waits for a write waits for it the same way,
 * whoever applies it: work_visible, work_listen, work_rejection and work_lane_of are as ever, and
 * work_status says nothing. The rest of work.h is not for it, but for work_free.
 */
#ifndef MILLRACE_WORK_ELSEWHERE_H
#define MILLRACE_WORK_ELSEWHERE_H

#include "work/work.h"

/* asked: somebody wants to know of what is not visible yet; any thread, must not block. -ENOMEM. */
int work_new_elsewhere(struct os *os, unsigned lanes, void (*asked)(void *context), void *context,
                       struct work **ret_work) MUST_USE;
/* All up to lsn is applied in the lane. One thread at a time, as what follows. */
void work_reached(struct work *w, unsigned lane, lsn_t lsn);
/* Whether anybody waits. */
bool work_is_awaited(struct work *w);

#endif
