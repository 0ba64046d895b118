/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many messages of a shared journal wait, asked by who is none of its readers, and knows how
 * far the store has come. Where Kafka keeps the journal the group's positions say more
 * (journal/progress.h).
 *
 * One thread; the calls block for at most timeout_ms.
 */
#ifndef MILLRACE_JOURNAL_WATCH_H
#define MILLRACE_JOURNAL_WATCH_H

#include "journal/group.h"

struct group_watch;
/* Connects to nothing. *ret_watch is NULL where the engine cannot tell cheaply. -ENOMEM. */
int group_watch_new(struct os *os, const struct service_url *url, const char *name,
                    uint64_t timeout_ms, struct group_watch **ret_watch) MUST_USE;
/* Takes NULL. */
struct group_watch *group_watch_free(struct group_watch *w);

/* Those behind the positions, a lsn a partition that the store has persisted; all of the message in
 * which it lies counts as such. JOURNAL_E_UNAVAILABLE, -ENOMEM. */
int group_watch_count(struct group_watch *w, const lsn_t *positions,
                      uint64_t *ret_messages) MUST_USE;

#endif
