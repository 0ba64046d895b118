/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lane: a queue of deals, applied by at most one thread at a time.
 *
 *                work_lane_queue          work_lane_take
 *     LANE_IDLE ────────────────▶ LANE_QUEUED ─────────▶ LANE_APPLYING
 *         ▲                        ▲   ▲                   │  │  │
 *         │        work_lanes_due  │   │ more is queued    │  │  │ retry, down
 *         │   LANE_WAITING ────────┘   └───────────────────┘  │  └──────▶ LANE_WAITING
 *         └───────────────────────────────────────────────────┘
 *                            queue empty, all passed
 *
 *   1. One key is one lane and one lane is one thread at a time: a key's records apply in order.
 *   2. visible[lane] is just below the oldest record queued, or `dispatched` when none is (read_to,
 *      while it straggles: straggler.c). It never moves back, and moves only after what it covers
 *      was applied or is a dead letter.
 *   3. A rejection takes one record; those around it are applied. A record that the store can
 *      neither apply nor put among its dead letters leaves the lane down.
 *   4. Only retry and down make a lane wait, and only that lane.
 */
#include "base/hash.h"
#include "work/internal.h"

#include <assert.h>
#include <stdlib.h>

static const uint64_t TURN_NS = UINT64_C(5000000000);

static void ready_push(struct work *w, struct lane *lane) {
    lane->state = LANE_QUEUED;
    lane->progress_ns = work_now(w);
    lane->next_ready = NULL;
    if (w->ready_tail)
        w->ready_tail->next_ready = lane;
    else
        w->ready_head = lane;
    w->ready_tail = lane;
    w->n_ready++;
}

void work_lane_queue(struct work *w, struct lane *lane, struct deal *deal) {
    deal->next = NULL;
    if (lane->tail)
        lane->tail->next = deal;
    else
        lane->head = deal;
    lane->tail = deal;
    if (lane->state == LANE_IDLE)
        ready_push(w, lane);
}

/* Copies the pointers of the next batch out of the queue, where they stay until they are applied.
 */
static void take_batch(struct work *w, struct lane *lane) {
    lane->n_taken = 0;
    for (struct deal *deal = lane->head; deal; deal = deal->next)
        for (size_t i = deal->applied; i < deal->n; i++) {
            if (lane->n_taken == w->options.batch_records_max)
                return;
            lane->taken[lane->n_taken++] = deal->records[i];
        }
}

struct lane *work_lane_take(struct work *w) {
    struct lane *lane = w->ready_head;
    if (!lane)
        return NULL;
    w->ready_head = lane->next_ready;
    if (!w->ready_head)
        w->ready_tail = NULL;
    w->n_ready--;
    assert(lane->state == LANE_QUEUED && (lane->head || lane->straggles));
    lane->state = LANE_APPLYING;
    return lane;
}

void work_lane_consume(struct work *w, struct lane *lane, size_t n, struct run **done) {
    while (n > 0) {
        struct deal *deal = lane->head;
        assert(deal);
        size_t part = n < deal->n - deal->applied ? n : deal->n - deal->applied;
        deal->applied += part;
        n -= part;
        if (deal->applied < deal->n)
            return;
        lane->head = deal->next;
        if (!lane->head)
            lane->tail = NULL;
        struct run *run = deal->run;
        if (--run->open > 0)
            continue;
        w->queued_bytes -= run->bytes;
        run->next = *done;
        *done = run;
    }
}

/* What came of a batch. */
struct outcome {
    enum work_outcome trouble; /* WORK_OK: all of it is dealt with */
    size_t done;               /* applied or rejected */
    size_t rejected;
    int error;
    const char *reason;
};

/* Puts one record among the dead letters. False: the store could not. */
static bool reject(struct work *w, struct lane *lane, struct outcome *o, const char *reason) {
    const struct journal_record *record = lane->taken[o->done];
    int r = w->ops->reject(w->store, lane->number, record, reason);
    if (r) {
        o->trouble = WORK_DOWN;
        o->error = r < 0 ? error_fold(r) : 0;
        o->reason =
            r == WORK_LETTER_E_FULL ? work_letters_full : "the store cannot keep a dead letter";
        return false;
    }
    rejections_add(&w->rejections, record->lsn, reason);
    o->done++;
    o->rejected += !(record->flags & JOURNAL_LETTER); /* that one stays a letter */
    return true;
}

/* Hands the batch taken to the store, going on behind each record it rejects; when that takes long,
 * what is left of it is taken again, so that what was done shows. */
static struct outcome apply(struct work *w, struct lane *lane) {
    struct outcome o = {.trouble = WORK_OK};
    uint64_t begun_ns = work_now(w);
    while (o.done < lane->n_taken) {
        size_t n = lane->n_taken - o.done;
        struct work_verdict verdict = {.outcome = WORK_OK};
        int r = w->ops->apply(w->store, lane->number, lane->taken + o.done, n, &verdict);
        if (r) {
            o.trouble = WORK_DOWN;
            o.error = error_fold(r);
            o.reason = "the store failed";
            break;
        }
        assert(verdict.outcome == WORK_OK ? verdict.applied == n : verdict.applied < n);
        o.done += verdict.applied;
        const char *reason = verdict.reason ? verdict.reason : "";
        if (verdict.outcome == WORK_REJECT) {
            if (!reject(w, lane, &o, reason))
                break;
            if (work_now(w) - begun_ns >= TURN_NS)
                lane->n_taken = o.done;
        } else if (verdict.outcome != WORK_OK) {
            o.trouble = verdict.outcome;
            o.reason = reason;
            break;
        }
    }
    return o;
}

static void count(struct work *w, const struct outcome *o) {
    if (o->done > 0)
        metric_observe(w->metrics.batch, o->done);
    metric_add(w->metrics.applied, o->done - o->rejected);
    if (o->rejected > 0)
        metric_add(w->metrics.dead_letters, o->rejected);
    if (o->trouble == WORK_RETRY)
        metric_add(w->metrics.retries, 1);
}

/* Moves the lane's visible position to just below its oldest record queued, or to `dispatched`.
 * Returns it. */
static lsn_t lane_advance(struct work *w, struct lane *lane) {
    lsn_t reached = lane->straggles ? lane->read_to : w->dispatched;
    if (lane->head)
        reached = lane->head->records[lane->head->applied]->lsn - 1;
    if (reached > atomic_load(&w->visible[lane->number]))
        atomic_store(&w->visible[lane->number], reached);
    return reached;
}

uint64_t work_backoff_ns(struct work *w, unsigned attempts) {
    uint64_t ms = WORK_RETRY_MAX_MS;
    if (attempts < 16 && ((uint64_t)WORK_RETRY_FIRST_MS << attempts) < ms)
        ms = (uint64_t)WORK_RETRY_FIRST_MS << attempts;
    return hash64_u64(w->jitter++) % (ms * NS_PER_MS + 1);
}

/* Lets the lane wait: after a retry with backoff, when it is down until the next probe. */
static void lane_wait(struct work *w, struct lane *lane, const struct outcome *o) {
    uint64_t now = work_now(w);
    uint64_t wait_ns = WORK_PROBE_MS * NS_PER_MS;
    if (lane->trouble == WORK_OK || o->done > 0) {
        lane->attempts = 0;
        lane->trouble_ns = now;
    }
    if (o->trouble == WORK_RETRY)
        wait_ns = work_backoff_ns(w, lane->attempts++);
    lane->trouble = o->trouble;
    lane->error = o->error;
    lane->due_ns = now + wait_ns;
    lane->state = LANE_WAITING;
    w->n_waiting++;
    work_set_reason(w, o->reason);
}

/* Tells the store, and those who wait, how far the lane has come without records of its own; then
 * makes it idle, or ready if records came meanwhile. Gives up the lock around the calls. */
static void lane_release(struct work *w, struct lane *lane) {
    while (!lane->head && !lane->straggles && lane->passed < w->dispatched) {
        lsn_t upto = lane_advance(w, lane);
        mutex_unlock(&w->pool);
        lane->passed = upto;
        w->ops->passed(w->store, lane->number, upto);
        work_notify(w, upto);
        mutex_lock(&w->pool);
    }
    if (lane->head || lane->straggles)
        ready_push(w, lane);
    else
        lane->state = LANE_IDLE;
}

/* Lets a straggler read on. False: there is nothing to apply for now. */
static bool lane_read(struct work *w, struct lane *lane) {
    int r = work_straggler_read(w, lane);
    if (r) {
        struct outcome o = {.trouble = WORK_RETRY, .error = r, .reason = "the journal fails"};
        lane_wait(w, lane, &o);
        return false;
    }
    if (lane->head)
        return true;
    lane_release(w, lane); /* it may have records now, but it is no longer ours */
    return false;
}

/* Books what came of the batch, but for letting go of the lane. Returns the position reached. */
static lsn_t lane_settle(struct work *w, struct lane *lane, const struct outcome *o,
                         struct run **done) {
    work_lane_consume(w, lane, o->done, done);
    w->unapplied_records -= o->done;
    if (o->done > 0)
        lane->progress_ns = work_now(w);
    lsn_t reached = lane_advance(w, lane);
    if (o->trouble != WORK_OK) {
        lane_wait(w, lane, o);
        return reached;
    }
    lane->trouble = WORK_OK;
    lane->attempts = 0;
    lane->passed = lane->taken[lane->n_taken - 1]->lsn;
    return reached;
}

void work_lane_apply(struct work *w, struct lane *lane) {
    if (lane->straggles && !lane->head && !lane_read(w, lane))
        return;
    take_batch(w, lane);
    mutex_unlock(&w->pool);
    struct outcome o = apply(w, lane);
    count(w, &o);

    struct run *done = NULL;
    mutex_lock(&w->pool);
    lsn_t reached = lane_settle(w, lane, &o, &done);
    mutex_unlock(&w->pool);
    work_notify(w, reached);
    work_runs_free(done);
    mutex_lock(&w->pool);
    if (o.trouble == WORK_OK)
        lane_release(w, lane);
}

void work_lanes_due(struct work *w, uint64_t now_ns) {
    for (unsigned i = 0; w->n_waiting > 0 && i < w->options.lanes; i++) {
        struct lane *lane = &w->lanes[i];
        if (lane->state != LANE_WAITING || lane->due_ns > now_ns)
            continue;
        w->n_waiting--;
        ready_push(w, lane);
    }
}

uint64_t work_lanes_next_due(const struct work *w) {
    uint64_t next = UINT64_MAX;
    for (unsigned i = 0; w->n_waiting > 0 && i < w->options.lanes; i++)
        if (w->lanes[i].state == LANE_WAITING && w->lanes[i].due_ns < next)
            next = w->lanes[i].due_ns;
    return next;
}

void work_lane_deinit(struct lane *lane) {
    for (struct deal *deal = lane->head; deal;) {
        struct deal *next = deal->next;
        if (--deal->run->open == 0)
            work_runs_free(deal->run);
        deal = next;
    }
    work_straggler_deinit(lane);
    free(lane->taken);
}
