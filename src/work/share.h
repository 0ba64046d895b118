/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker process's share of a journal that many processes write and many read: it applies the
 * partitions that the group gives it (journal/group.h) to a store that all of them share. Each
 * partition is a lane of the store; lsns grow within a lane and mean nothing between lanes.
 *
 *   group ──batch of a partition──▶ apply ──▶ position of the partition
 *     ▲                              ├ retry, down: the member stays in the group, and waits
 *     └──── taken away meanwhile ────┘ reject: one record, to the store's dead letters
 *
 * The store is one that persists what it applies with its position, before apply returns, and
 * refuses what lies behind that position: a process that was stopped, and wakes when others have
 * its partitions, changes nothing then. One that keeps no positions is applied to again from the
 * one that the group knows, and is told until when it may send what it is given (`until`).
 *
 * One thread, as a partition is one order and a process can be started many times. Functions are
 * for the owner's thread, but for share_status.
 */
#ifndef MILLRACE_WORK_SHARE_H
#define MILLRACE_WORK_SHARE_H

#include "journal/group.h"
#include "work/work.h"

struct share;
struct share_options {
    const struct service_url *url;    /* of the journal; borrowed */
    const struct work_store_ops *ops; /* the journal has the name of the store */
    void *store;
    /* As of struct group_options; the context is the store. Any lsn that the store has persisted.
     */
    int (*position)(void *store, unsigned partition, lsn_t *ret_lsn);
    /* As of struct group_options, likewise. */
    int (*number)(void *store, unsigned partition, struct group_numbers *numbers);
    /* For a store that keeps no positions: said before each apply, what it sends from then on may
     * be another's to send. */
    void (*until)(void *store, uint64_t monotonic_ns);
    void (*tell)(void *context, const char *sentence); /* may be NULL */
    void *context;
};
/* Starts the thread, which joins once the journal's engine is there. The rest is borrowed until
 * share_free. -ENOMEM, -EAGAIN. */
int share_start(struct os *os, const struct share_options *options, struct metrics *metrics,
                struct share **ret_share) MUST_USE;
/* Says that it is to stop, and does not wait: several leave an engine that hangs together. Takes
 * NULL. */
void share_end(struct share *s);
/* Lets the batch at work end, and leaves the group; its status can still be asked for. Takes NULL.
 */
void share_stop(struct share *s);
/* Of one that was stopped. Nothing may render the metrics afterwards. Takes NULL. */
struct share *share_free(struct share *s);

struct share_status {
    bool joined;                        /* it was, at least once */
    bool reachable;                     /* the journal's engine */
    char journal_reason[GROUP_WHY_MAX]; /* as `why` of struct group_status */
    unsigned partitions;
    uint64_t lag_messages;      /* of those partitions, not yet applied */
    uint64_t strange_messages;  /* passed over: not written by millrace */
    uint64_t lost_messages;     /* gone from the journal before they were applied */
    uint64_t lag_ms;            /* age of the oldest record of the batch at work; 0: none is */
    bool waiting;               /* the store asked to wait, or is down */
    bool stalled;               /* the thread has not gone round for half a minute */
    char reason[GROUP_WHY_MAX]; /* why the store made it wait; "" */
};
void share_status(struct share *s, struct share_status *ret_status);

#endif
