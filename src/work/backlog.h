/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether anybody applies what an API process appends to a journal that is shared, and what waits:
 * seen by how far the store has come; where Kafka keeps the journal, how far the group has. What
 * waits are messages, whoever wrote them, where the engine can tell (journal/progress.h, watch.h).
 * Else only what this process has written is known to wait: what became durable since the positions
 * last moved.
 *
 * One thread looks, which blocks; the status is for any.
 */
#ifndef MILLRACE_WORK_BACKLOG_H
#define MILLRACE_WORK_BACKLOG_H

#include "journal/group.h"

struct backlog;
struct backlog_options {
    const struct service_url *url; /* of the journal; borrowed until free */
    const char *name;              /* as of struct journal_options */
    struct journal *journal;
    /* As of struct group_options; needed only where the engine keeps no positions. */
    int (*position)(void *store, unsigned partition, lsn_t *ret_lsn);
    void *store;
};
/* Connects to nothing. JOURNAL_E_REFUSED: why says it; -ENOMEM. */
int backlog_new(struct os *os, const struct backlog_options *options, struct backlog **ret_backlog,
                char why[GROUP_WHY_MAX]) MUST_USE;
/* Takes NULL. */
struct backlog *backlog_free(struct backlog *b);

/* To be called every few seconds, for the first time before anything is appended. */
void backlog_look(struct backlog *b);

struct backlog_status {
    bool known;        /* the last look was answered; else the rest is as the one before saw it */
    bool messages;     /* all that wait are counted, in messages; else this process's records */
    uint64_t waiting;  /* so many, at least */
    uint64_t still_ms; /* for so long something has waited, and nothing was applied */
};
void backlog_status(struct backlog *b, struct backlog_status *ret_status);

/* What is to be said when nobody has applied anything for long; false: nothing is. */
enum { BACKLOG_TEXT_MAX = 128 };
bool backlog_warning(const struct backlog_status *status, char out[BACKLOG_TEXT_MAX]);

#endif
