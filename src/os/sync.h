/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locks with a rank: a thread may only take a lock of a higher rank than all it holds, which is
 * asserted at every lock, so that no order of events can deadlock. Ranks stand in one enum, lowest
 * (outermost) first. Condition variables wait on the monotonic clock. event: a counter that poll
 * can wait for (eventfd), to wake a thread that sits in poll.
 */
#ifndef MILLRACE_OS_SYNC_H
#define MILLRACE_OS_SYNC_H

#include "base/compiler.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum lock_rank {
    LOCK_RANK_SERVE = 1,
    LOCK_RANK_CHECKPOINT,   /* one checkpoint at a time */
    LOCK_RANK_APPEND,       /* points: who appends to a lane, against a checkpoint that spills */
    LOCK_RANK_KEPT_LETTERS, /* where dead letters beside a shared journal lie, while it is followed
                             */
    LOCK_RANK_CATALOG,      /* points: names and incarnations; held across validate + append */
    LOCK_RANK_WORK_POOL,    /* lanes, their queues, who reads the journal for a store; a backlog */
    LOCK_RANK_WORK_REJECTIONS,
    LOCK_RANK_IDMAP,            /* points: a lane's maps of ids, against two who change them */
    LOCK_RANK_SHARD,            /* points: a lane of a collection */
    LOCK_RANK_BUILDER,          /* points: what is to be built, and what was */
    LOCK_RANK_QDRANT_CLUSTER,   /* points: what is known of a cluster behind us */
    LOCK_RANK_BULK,             /* bulk tasks */
    LOCK_RANK_EVENT_ONCE,       /* events: idempotency keys; held across decision + append */
    LOCK_RANK_EVENT_DICTIONARY, /* events: held across new ids + append */
    LOCK_RANK_EVENT_LANE,       /* events: a lane's generations */
    LOCK_RANK_EVENT_MINUTES,    /* events: how many tags each minute has */
    LOCK_RANK_TASK_RUNNER,      /* tasks: what the runner is told, and the progress it tells */
    LOCK_RANK_TASK_WORKER,      /* tasks: a worker process's queue and what it has to say */
    LOCK_RANK_TASK_ONCE,        /* tasks: idempotency keys; held across decision + append */
    LOCK_RANK_TASK_STORE,       /* tasks: generations, queue, counts */
    LOCK_RANK_DATABASE,         /* keyed: which opened RocksDB is the current one */
    LOCK_RANK_LETTER_FILE,      /* points: which bytes of the file of letters there are */
    LOCK_RANK_LETTERS,          /* a store's index of its dead letters */
    LOCK_RANK_QDRANT,           /* points: a client's connections */
    LOCK_RANK_REDIS,            /* a cluster's nodes, their connections, who serves which slot */
    LOCK_RANK_HTTP,             /* a loop's queue of completions */
    LOCK_RANK_JOURNAL,          /* the window of the journal */
    LOCK_RANK_JOURNAL_FILES,    /* the list of its segments */
    LOCK_RANK_METRICS,
    LOCK_RANK_LOG,
    LOCK_RANK_SIM, /* the simulated system, in tests */
    LOCK_RANK_COUNT,
};

struct mutex {
    pthread_mutex_t lock;
    enum lock_rank rank;
};
void mutex_init(struct mutex *m, enum lock_rank rank);
void mutex_deinit(struct mutex *m);
void mutex_lock(struct mutex *m);
bool mutex_trylock(struct mutex *m) MUST_USE;
void mutex_unlock(struct mutex *m);

struct rwlock {
    pthread_rwlock_t lock;
    enum lock_rank rank;
};
void rwlock_init(struct rwlock *l, enum lock_rank rank);
void rwlock_deinit(struct rwlock *l);
void rwlock_read(struct rwlock *l);
void rwlock_write(struct rwlock *l);
void rwlock_unlock(struct rwlock *l);

struct condition {
    pthread_cond_t cond;
};
void condition_init(struct condition *c);
void condition_deinit(struct condition *c);
void condition_wait(struct condition *c, struct mutex *m);
/* False when deadline_ns of the monotonic clock passed. */
bool condition_wait_until(struct condition *c, struct mutex *m, uint64_t deadline_ns);
void condition_signal(struct condition *c);
void condition_broadcast(struct condition *c);

struct event {
    int fd; /* readable while signalled */
};
int event_init(struct event *e) MUST_USE;
void event_deinit(struct event *e);
/* May be called from any thread and from a signal handler. */
void event_signal(struct event *e);
/* Makes it not readable again. */
void event_clear(struct event *e);

#endif
