/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workers: what brings records from the journal into a store. One struct work serves one store (one
 * kind): it reads the journal once, in order, and deals the records to the store's lanes by key
 * hash; a lane is applied by at most one thread at a time, so a key's records apply in order
 * (invariant 4). Threads take whichever lane is ready; their number follows the lag.
 *
 * The store answers ok, retry, reject or down, record by record (invariant 5): retry backs off in
 * its lane with jitter, down stops the lane until a probe succeeds, reject puts one record among
 * the dead letters through the store itself, so that letter and position stay one atomic write.
 *
 * Positions (invariant 3): visible is moved here after every batch; persisted is moved by the
 * store's checkpoint and passed on to the journal's retention by work_persisted().
 *
 *      ┌──── read ◀── journal (by whichever worker finds the queues low)
 *   idle ─▶ queued ─▶ applying ─▶ idle            a lane's states
 *              ▲          ├─ retry: waits until retry_at ─▶ queued
 *              └──────────┴─ down: waits for a probe ─────▶ queued
 *
 * All functions are thread-safe.
 */
#ifndef MILLRACE_WORK_WORK_H
#define MILLRACE_WORK_WORK_H

#include "base/hash.h"
#include "journal/journal.h"
#include "observe/metrics.h"
#include "work/letters.h"

enum { WORK_LANES_MAX = 64 };

enum work_outcome { WORK_OK, WORK_RETRY, WORK_REJECT, WORK_DOWN };

/* What a store says of a batch: the first `applied` records are applied; the one after them, if
 * any, met `outcome` for `reason` (static storage or the store's own until its next call). */
struct work_verdict {
    enum work_outcome outcome;
    size_t applied;
    const char *reason;
};

/* A store, as workers see it. */
struct work_store_ops {
    const char *name; /* "points": label of the metrics, name of the threads */
    enum journal_kind kind;
    /* Applies n records of one lane, in order, and moves the lane's position with them. At most one
     * thread a lane. Negative: the store is broken, counts as WORK_DOWN. */
    int (*apply)(void *store, unsigned lane, const struct journal_record *const *records, size_t n,
                 struct work_verdict *ret_verdict) MUST_USE;
    /* A JOURNAL_CONTROL record: applied before any later record is dealt. */
    int (*control)(void *store, const struct journal_record *record) MUST_USE;
    /* Keeps the record among the dead letters, with the lane's position; one with JOURNAL_LETTER
     * only moves the position (letters.h). WORK_LETTER_E_FULL: there is no room for it. */
    int (*reject)(void *store, unsigned lane, const struct journal_record *record,
                  const char *reason) MUST_USE;
    /* Says that the lane has seen everything up to lsn (records of other lanes in between). */
    void (*passed)(void *store, unsigned lane, lsn_t lsn);
    /* Which letters there are, also those whose checkpoint is to come. NULL, and so is the next:
     * processes share them (struct letter_box). */
    struct work_letters *(*letters)(void *store);
    /* Calls each for those of n letters, by descending lsn, that are there; what it is given is
     * valid during the call. Any thread; may do I/O. -EBADMSG, -ENOMEM. */
    int (*read_letters)(void *store, const lsn_t *lsns, size_t n,
                        void (*each)(void *context, const struct work_letter *letter),
                        void *context) MUST_USE;
};

struct work_options {
    unsigned lanes;       /* 1 to WORK_LANES_MAX; fixed for a data directory */
    unsigned threads_min; /* at least 1 */
    unsigned threads_max;
    size_t batch_records_max; /* 0: 512 (debug builds: 3) */
    size_t queue_bytes_max;   /* journal kept in memory by what is dealt and not applied, over all
                                 lanes; a batch may go past it. 0: 16 MiB (debug builds: 4 KiB) */
    uint64_t stall_ms;        /* a lane that makes no progress for so long is stalled; 0: 30 000 */
};

enum {
    _WORK_E_SUCCESS,
    WORK_E_DOWN, /* the store is down, or asked for retries only for stall_ms */
};

struct work;
/* Starts nothing yet. positions[lane] is the persisted position of each lane: records at or below
 * it are not dealt to it again. The journal, store, os and metrics must outlive it. */
int work_new(struct os *os, struct journal *j, const struct work_store_ops *ops, void *store,
             const lsn_t *positions, const struct work_options *options, struct metrics *metrics,
             struct work **ret_work) MUST_USE;
/* Replays the journal until everything that was durable at the call is applied, in the calling
 * thread, while no others run: recovery, and deterministic tests. progress (may be NULL) is told
 * the visible lsn after every round, also between retries: it may checkpoint the store.
 * WORK_E_DOWN; negative: the store or the journal failed. In each case what was applied stays
 * applied, and work_start or another work_catch_up goes on from there. */
int work_catch_up(struct work *w, void (*progress)(void *context, lsn_t at, lsn_t end),
                  void *context) MUST_USE;
int work_start(struct work *w) MUST_USE;
/* Lets running batches end, ends the threads. What was dealt and not applied stays in the journal,
 * and work_start goes on with it. Start, stop and free are for one thread, the owner's. */
void work_stop(struct work *w);
/* Stops and frees. Nothing may render the metrics afterwards. Takes NULL. */
struct work *work_free(struct work *w);

/* Which of so many lanes the records of a key go to. Part of what a data directory means (a lane's
 * position covers its keys): never changed. Mixed again, because stores pick slots by the hash. */
static inline unsigned work_lane_of_hash(uint64_t key_hash, unsigned lanes) {
    return (unsigned)(((hash64_u64(key_hash) >> 32) * lanes) >> 32);
}
unsigned work_lane_of(const struct work *w, uint64_t key_hash);

/* Invariant 9: what wait=true waits for. True once every lane of the mask (bit i: lane i) has
 * applied everything up to lsn. Lock-free. */
bool work_visible(const struct work *w, uint64_t lane_mask, lsn_t lsn);
/* The largest lsn that every lane has applied. */
lsn_t work_visible_lsn(const struct work *w);
/* Called after the visible position of some lane reached `wanted`; no lock held, by any worker,
 * must not block. A call is asked for by lowering wanted and then checking work_visible (both
 * sequentially consistent, as plain assignment to an _Atomic is); it is made once: wanted is set
 * back to UINT64_MAX before. Registered before work_start, removed never. */
struct work_listener {
    void (*visible)(struct work_listener *listener);
    _Atomic lsn_t wanted;
    struct work_listener *next;
};
void work_listen(struct work *w, struct work_listener *listener);
/* If a record with first ≤ lsn ≤ last was rejected lately (the newest 1,024 are remembered), copies
 * the reason, cut at size, and returns true. */
bool work_rejection(struct work *w, lsn_t first, lsn_t last, char *reason, size_t size);

/* The store's checkpoint persisted these positions (one a lane): retention may follow. */
void work_persisted(struct work *w, const lsn_t *positions);

struct work_status {
    uint64_t lag_records;  /* of this kind as far as the journal was read, then all */
    uint64_t lag_ms;       /* age of the oldest durable record not applied */
    uint64_t pinned_bytes; /* of journal, and for how long */
    uint64_t pinned_ms;
    unsigned threads;
    unsigned busy; /* of them, those that do not sleep */
    unsigned lanes_retrying;
    unsigned lanes_down;
    bool stalled;     /* turns liveness red */
    char reason[160]; /* of the last retry or down; "" */
};
void work_status(struct work *w, struct work_status *ret_status);

#endif
