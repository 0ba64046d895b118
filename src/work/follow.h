/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an API process knows of the workers that apply its records, with a journal that is shared
 * and whose positions Kafka keeps (journal/progress.h): how far they have come, asked for only
 * while somebody waits for it.
 *
 *   durable here: all up to lsn ──ends──▶ so far in each partition ──▶ the group has come up to it:
 *                                                        visible in that lane up to lsn
 *
 * Lanes are partitions. Thread-safe.
 */
#ifndef MILLRACE_WORK_FOLLOW_H
#define MILLRACE_WORK_FOLLOW_H

#include "journal/progress.h"
#include "work/work.h"

struct follow;
/* Follows the group of the journal j, whose URL and name those are. What is borrowed outlives it.
 * JOURNAL_E_REFUSED: why says it; -ENOMEM. */
int follow_new(struct os *os, struct journal *j, const struct service_url *url, const char *name,
               struct follow **ret_follow, char why[GROUP_WHY_MAX]) MUST_USE;
/* Starts its thread. -ENOMEM, -EAGAIN. */
int follow_start(struct follow *f) MUST_USE;
/* Ends the thread; who waits for what is visible is told no more. Takes NULL. */
void follow_stop(struct follow *f);
/* Stops and frees. Takes NULL. */
struct follow *follow_free(struct follow *f);

/* To wait with, as elsewhere.h says; it lives as long as f. */
struct work *follow_work(struct follow *f);
/* Waits until all that is in the journal by now, from whomever, is persisted. JOURNAL_E_TIMEOUT: it
 * was not by the deadline, or before stopped said so. JOURNAL_E_UNAVAILABLE: the engine did not say
 * until then. */
int follow_settle(struct follow *f, uint64_t deadline_ns, bool (*stopped)(const void *context),
                  const void *context) MUST_USE;

#endif
