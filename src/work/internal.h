/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of this room share: the struct work, its lanes and what is dealt to them.
 *
 *   dispatch.c    reads the journal and deals runs of records to the lanes
 *   run.c         a run of records, laid out by lane
 *   lane.c        one lane: take a batch, apply it, act on the verdict, publish the position
 *   straggler.c   lanes that wait for so long that they read the journal for themselves
 *   pool.c        the threads: what each does next, sleeping and waking, how many there are
 *   elsewhere.c   lanes that other processes apply
 *   rejections.c  the newest rejections, for those who wait for their write
 *   work.c        the life of a struct work, positions, listeners, status, catching up
 *
 * Who may touch what:
 *   the pool lock    every field below it in struct work and every field of a lane but `start`,
 *                    which never changes; except that
 *   the dispatcher   (whoever set `dispatching`) alone owns the cursor and the batch under way, and
 *                    `passed` of idle lanes: nobody else can make an idle lane busy;
 *   a lane's worker  (whoever made it LANE_APPLYING) alone owns the lane's `taken`, `passed` and
 * its own cursor and batch. The pool lock is never held while the store, the journal or a listener
 * is called; the journal's lock-free journal_durable() is the exception.
 */
#ifndef MILLRACE_WORK_INTERNAL_H
#define MILLRACE_WORK_INTERNAL_H

#include "os/sync.h"
#include "work/rejections.h"
#include "work/work.h"

#ifdef MILLRACE_TINY
enum {
    WORK_BATCH_RECORDS = 3,
    WORK_QUEUE_BYTES = 4 << 10,
    WORK_RETRY_FIRST_MS = 1,
    WORK_RETRY_MAX_MS = 16,
    WORK_PROBE_MS = 20,
    WORK_CROWDED_MS = 2,
    WORK_RETIRE_MS = 200,
    WORK_STRAGGLE_MS = 20,
    WORK_PASS_MS = 20,
};
#else
enum {
    WORK_BATCH_RECORDS = 512,
    WORK_QUEUE_BYTES = 16 << 20,
    WORK_RETRY_FIRST_MS = 10, /* doubled with each further try, with full jitter */
    WORK_RETRY_MAX_MS = 5000,
    WORK_PROBE_MS = 1000,    /* how often a lane that is down tries again */
    WORK_CROWDED_MS = 10,    /* ready lanes found no thread for so long: one more */
    WORK_RETIRE_MS = 5000,   /* not all threads were needed at once for so long: one fewer */
    WORK_STRAGGLE_MS = 1000, /* in trouble for so long, and the queues full: reads for itself */
    WORK_PASS_MS = 1000,     /* records of other kinds alone are passed so often: nobody waits */
};
#endif

enum { WORK_STALL_MS = 30000, WORK_REASON_SIZE = sizeof(((struct work_status *)0)->reason) };

static const uint64_t NS_PER_MS = 1000000;

struct run;

/* The records that one run brought to one lane. */
struct deal {
    struct deal *next;
    struct lane *lane;
    struct run *run;
    const struct journal_record **records;
    size_t n;
    size_t applied;
};

/* A stretch of a journal batch between two control records, with one deal a lane that it has
 * records for. One allocation; holds a reference to the batch until all its deals are applied. */
struct run {
    struct run *next; /* of those to free */
    struct journal_batch *batch;
    size_t bytes;  /* of all its records, also those of other kinds: what it keeps in memory */
    unsigned open; /* deals not yet applied */
    unsigned n_deals;
    struct deal deals[];
};

enum lane_state {
    LANE_IDLE,     /* nothing queued */
    LANE_QUEUED,   /* in the list of ready lanes */
    LANE_APPLYING, /* one thread has it */
    LANE_WAITING,  /* until due_ns: after a retry, or down until the next probe */
};

struct lane {
    unsigned number;
    enum lane_state state;
    enum work_outcome trouble; /* WORK_OK, or WORK_RETRY or WORK_DOWN since the last try */
    unsigned attempts;         /* retries in a row without a record applied */
    int error;                 /* what the store returned, when it is down for that */
    struct lane *next_ready;
    struct deal *head; /* the queue, oldest first */
    struct deal *tail;
    lsn_t start;  /* persisted when we began: nothing up to it is dealt */
    lsn_t passed; /* what the store knows the lane has seen, by apply or passed */
    uint64_t due_ns;
    uint64_t trouble_ns;  /* since when nothing was applied, while in trouble */
    uint64_t progress_ns; /* became ready, or applied something */
    size_t n_taken;
    const struct journal_record **taken; /* the batch being applied */

    bool straggles; /* straggler.c; the rest is its own reading */
    lsn_t read_to;
    uint64_t oldest_wall_us; /* of what it has not applied, or older */
    struct journal_cursor *cursor;
    struct journal_batch *batch;
    size_t batch_at;
};

struct worker {
    struct work *work;
    struct os_thread *thread; /* to be joined, also when it has ended; NULL: none */
    bool running;
};

struct work {
    struct os *os;
    struct journal *journal;
    struct journal_consumer *consumer;
    const struct work_store_ops *ops;
    void *store;
    struct work_options options;
    struct {
        struct metric_series *applied, *retries, *dead_letters, *batch;
    } metrics;
    struct metrics_source source;
    struct journal_listener listener;
    _Atomic(struct work_listener *) listeners;
    struct rejections rejections;
    void (*asked)(void *context); /* elsewhere.h; NULL: the lanes are ours */
    void *asked_context;

    /* The dispatcher's: */
    struct journal_cursor *cursor;
    struct journal_batch *batch; /* being dealt, NULL between two */
    size_t batch_at;

    /* Everything up to here is applied in the lane. Written under the pool lock. */
    _Atomic lsn_t visible[WORK_LANES_MAX];

    struct mutex pool;
    struct condition wake;
    atomic_uint sleepers;
    atomic_bool stopping;
    bool dispatching;
    unsigned dispatch_attempts; /* failures in a row */
    uint64_t dispatch_due_ns;   /* not before this, after a failure */
    uint64_t pass_due_ns;       /* not before this, for records of other kinds alone */
    uint64_t dispatch_progress_ns;
    uint64_t
        undealt_wall_us; /* of the first record not dealt since dispatching fails; 0: it does not */
    lsn_t dispatched;    /* dealt or passed over */
    size_t queued_bytes; /* of runs that are not wholly applied */
    size_t unapplied_records; /* up to dispatched */
    struct lane *ready_head;
    struct lane *ready_tail;
    unsigned n_ready;
    unsigned n_waiting;
    unsigned n_threads;
    uint64_t crowded_ns; /* since when ready lanes find no thread; 0: they do */
    uint64_t full_ns;    /* when all threads were last busy at once */
    uint64_t jitter;
    char reason[WORK_REASON_SIZE];
    struct worker *workers; /* threads_max of them */
    struct lane lanes[WORK_LANES_MAX];
};

/* ---- work.c ---- */
uint64_t work_now(const struct work *w);
/* Calls the listeners that wait for an lsn up to reached. No lock held. */
void work_notify(struct work *w, lsn_t reached);
/* Keeps the reason for work_status. Pool lock held. */
void work_set_reason(struct work *w, const char *reason);

/* ---- run.c: no lock held ---- */
/* Makes the run of records [at, end) of a batch, of all lanes or only of one; *ret_run is NULL when
 * none of them is to be dealt. -ENOMEM. */
int work_run_new(struct work *w, struct journal_batch *batch, size_t at, size_t end,
                 const struct lane *only, struct run **ret_run) MUST_USE;
void work_runs_free(struct run *runs);

/* ---- dispatch.c: pool lock held, given up inside work_dispatch ---- */
bool work_dispatch_wanted(const struct work *w, uint64_t now_ns);
/* Reads and deals until the queues are full or the journal is at its end. Negative: the journal or
 * the store's control failed; it is tried again from that place, not before dispatch_due_ns. */
int work_dispatch(struct work *w) MUST_USE;

/* ---- lane.c: pool lock held ---- */
void work_lane_queue(struct work *w, struct lane *lane, struct deal *deal);
/* Takes the first ready lane out of the list and makes it LANE_APPLYING, or NULL. */
struct lane *work_lane_take(struct work *w);
/* Applies one batch of a lane taken; gives up the lock meanwhile. */
void work_lane_apply(struct work *w, struct lane *lane);
/* Unlinks the first n records of the queue; adds the runs that nobody needs any more to done. */
void work_lane_consume(struct work *w, struct lane *lane, size_t n, struct run **done);
/* Makes the waiting lanes ready whose time has come. */
void work_lanes_due(struct work *w, uint64_t now_ns);
/* When the next waiting lane is due; UINT64_MAX: none waits. */
uint64_t work_lanes_next_due(const struct work *w);
/* 10 ms · 2^attempts, capped, times a random number from 0 to 1. */
uint64_t work_backoff_ns(struct work *w, unsigned attempts);
void work_lane_deinit(struct lane *lane);

/* ---- straggler.c: pool lock held, given up inside ---- */
/* When the queues are full: lets go of the queues of lanes that wait for too long. */
void work_stragglers_let_go(struct work *w, uint64_t now_ns);
/* Reads until the straggler's queue has records, or it is a straggler no more, or the threads are
 * to stop. Negative: the journal cannot be read. */
int work_straggler_read(struct work *w, struct lane *lane) MUST_USE;
void work_straggler_deinit(struct lane *lane); /* no lock held */

/* ---- pool.c ---- */
/* Wakes a sleeping thread if more lanes are ready than the caller will take. Pool lock held. */
void work_pool_wake(struct work *w, unsigned mine);
/* The journal's listener. */
void work_pool_durable(struct journal_listener *listener, lsn_t durable);

#endif
