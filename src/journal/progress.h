/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far the group has come that reads a shared journal (journal/group.h), asked by who is none of
 * its members. Only of a journal on Kafka, which keeps such positions.
 *
 * Thread-safe; the calls block for at most timeout_ms.
 */
#ifndef MILLRACE_JOURNAL_PROGRESS_H
#define MILLRACE_JOURNAL_PROGRESS_H

#include "journal/group.h"

struct progress;
/* Connects to nothing that would have to be there. JOURNAL_E_REFUSED: why says it; -ENOMEM. */
int progress_open(struct os *os, const struct service_url *url, const char *name,
                  uint64_t timeout_ms, struct progress **ret_progress,
                  char why[GROUP_WHY_MAX]) MUST_USE;
/* No call may be under way. Takes NULL. */
struct progress *progress_close(struct progress *p);
unsigned progress_partitions(const struct progress *p);

/* Of each partition: the offset behind the newest message that was durable at the call, and the one
 * behind which the group goes on. What was appended is persisted once the latter has come up to
 * the former. JOURNAL_E_UNAVAILABLE. */
int progress_ends(struct progress *p, uint64_t ret_offsets[GROUP_PARTITIONS_MAX]) MUST_USE;
int progress_positions(struct progress *p, uint64_t ret_offsets[GROUP_PARTITIONS_MAX]) MUST_USE;

#endif
