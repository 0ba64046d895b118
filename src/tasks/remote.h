/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who keeps the tasks when the data directory does not (redis.h): all pairs of the store's database
 * (local/FORMAT.md), and the number of the checkpoint that they are of. The database in the
 * directory is then a copy, and the one that is read: it gives lists and queries a snapshot, and
 * stays where it is while the remote is away.
 *
 *   opening       own ─▶ read all ─▶ a new database in place of the old one
 *   a checkpoint  begin ─▶ put, remove … ─▶ finish ─▶ then the same is ingested here
 *
 * A checkpoint is there as a whole or not at all, and durable as the remote promises it once finish
 * has returned 0. One owner: who owned it before is refused with TASKS_REMOTE_E_FENCED, for good.
 *
 * One thread at a time. Calls block, for some seconds at most. Results are TASKS_REMOTE_E_… with a
 * sentence in why, and -ENOMEM.
 */
#ifndef MILLRACE_TASKS_REMOTE_H
#define MILLRACE_TASKS_REMOTE_H

#include "base/bytes.h"
#include "base/error.h"

enum {
    _TASKS_REMOTE_E_SUCCESS,
    TASKS_REMOTE_E_UNAVAILABLE, /* not now. After finish it is not known whether it is done: the
                                   same checkpoint is begun again */
    TASKS_REMOTE_E_REFUSED,     /* it will go no better the next time */
    TASKS_REMOTE_E_FENCED,      /* another process owns it */
    TASKS_REMOTE_E_LOST,        /* it has lost checkpoints that were finished: it wants the whole */
};
enum { TASKS_REMOTE_WHY_MAX = 256 };

struct tasks_remote {
    const struct tasks_remote_ops *ops;
    char why[TASKS_REMOTE_WHY_MAX];
};

struct tasks_remote_ops {
    /* Becomes the owner. *ret_number: of the last checkpoint; 0: it has none. */
    int (*own)(struct tasks_remote *r, uint64_t *ret_number) MUST_USE;
    /* Calls each for all pairs, in any order, some perhaps twice, until it returns other than 0,
     * which is passed on. */
    int (*read)(struct tasks_remote *r,
                int (*each)(void *context, struct bytes key, struct bytes value),
                void *context) MUST_USE;
    /* Whether this process still owns it, and it has checkpoint `number`, or the one after it. */
    int (*look)(struct tasks_remote *r, uint64_t number) MUST_USE;
    /* Begins checkpoint `number`, of what has changed since the one before; or, whole, of all that
     * there is, whatever was there. One that was begun and not finished is dropped. */
    int (*begin)(struct tasks_remote *r, uint64_t number, bool whole) MUST_USE;
    /* A key comes once in a checkpoint. Failures are kept until finish. */
    void (*put)(struct tasks_remote *r, struct bytes key, struct bytes value);
    void (*remove)(struct tasks_remote *r, struct bytes key);
    int (*finish)(struct tasks_remote *r) MUST_USE;
};

#endif
