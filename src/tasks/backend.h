/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A task store as the routes and the runner see it: a table of functions, one for each store. They
 * do what the functions of store.h of the same names do.
 *
 *   tasks_embedded(store)   the one of this process (store.h): what it knows is told to listeners
 *   tasks_shared_backend()  the one that many processes share (shared.h): its calls wait for a
 *                           network, so they are not for a loop's thread, and TASKS_E_UNAVAILABLE
 *                           may come from each. It tells nobody anything: what an attempt is worth
 *                           is asked of it, again and again
 */
#ifndef MILLRACE_TASKS_BACKEND_H
#define MILLRACE_TASKS_BACKEND_H

#include "tasks/store.h"

/* A runner's workers. */
struct tasks_at_work {
    unsigned workers;
    unsigned busy;
};

/* What a runner has in hand, and wants to keep. */
struct tasks_renewal {
    struct task_id id;
    uint32_t attempt;
    uint64_t current, total;
    bool moved; /* the progress, since the last time */
    enum tasks_worth {
        TASKS_WORTH_ITSELF,
        TASKS_WORTH_NOTHING,   /* it is not the task's attempt any more */
        TASKS_WORTH_CANCELLED, /* likewise, as the task was cancelled */
    } worth;                   /* set */
};

/* An idempotency key that a request brings. */
struct tasks_claim {
    struct bytes key;
    struct task_id id; /* of the task to be; becomes the one that the key has */
    bool is_new;       /* set: that task is not there yet: its CREATE is to be appended, with id */
};

struct tasks_backend_ops {
    struct task_id (*new_id)(void *store, uint64_t wall_us);
    int (*admit)(void *store, uint64_t n) MUST_USE;
    int (*get)(void *store, struct task_id id, bool with_args, struct task_ref *ret_ref) MUST_USE;
    int (*list)(void *store, const struct tasks_filter *filter,
                bool (*each)(void *context, const struct task *task), void *context) MUST_USE;

    int (*take)(void *store, uint64_t now_us, size_t n, struct task_ref *ret_refs,
                size_t *ret_n) MUST_USE;
    void (*give_back)(void *store, const struct task_ref *ref);
    uint64_t (*next_due_us)(void *store);
    void (*listen)(void *store, struct tasks_listener *listener);

    /* Of the embedded one alone; else NULL. */
    int (*once)(void *store, struct bytes key, struct task_id id, int (*append)(void *context),
                void *context, struct task_id *ret_id, bool *ret_new) MUST_USE;
    int (*each_running)(void *store, void (*each)(void *context, const struct task *task),
                        void *context) MUST_USE;

    /* Of the shared one alone; else NULL. */
    /* Binds keys to ids, durably, or learns what they are bound to. */
    int (*claim)(void *store, struct tasks_claim *claims, size_t n) MUST_USE;
    /* Keeps what a runner has in hand for another lease, and says what it is worth. at_work NULL:
     * the runner ends. */
    int (*renew)(void *store, const struct tasks_at_work *at_work, struct tasks_renewal *renewals,
                 size_t n) MUST_USE;
    /* Calls each for some tasks that run, and whose lease ran out: whoever had them is dead, or
     * asleep. Others are not told of them for another lease. */
    int (*each_expired)(void *store, void (*each)(void *context, const struct task *task),
                        void *context) MUST_USE;
};

struct tasks_backend {
    const struct tasks_backend_ops *ops;
    void *store;
};

struct tasks_backend tasks_embedded(struct tasks_store *store);

#endif
