/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dispatcher: whichever thread finds the queues low reads the journal on behalf of all lanes.
 *
 * A batch of the journal is cut at its control records into runs. A run is dealt as a whole:
 * counted by lane, then one allocation holds a deal for each lane that has records in it, then the
 * deals go to the lanes' queues and `dispatched` moves to the run's end, both under the pool lock.
 * So:
 *
 *   1. A lane with an empty queue has seen everything up to `dispatched`.
 *   2. A control record is applied before any later record is dealt, and after every earlier one
 *      was dealt (not: applied).
 *   3. A record is dealt to the lane of its key exactly once, in order, if it is above the position
 *      the lane began with.
 *
 * A failure (the journal cannot be read, memory is out, the store refuses a control record) leaves
 * the batch where it is; dealing goes on from there at the next try.
 */
#include "work/internal.h"

#include <assert.h>

/* The index of the store's next control record at or after `at`, or the batch's end. */
static size_t run_end(const struct work *w, const struct journal_batch *batch, size_t at) {
    while (at < batch->n && !(batch->records[at].kind == w->ops->kind &&
                              (batch->records[at].flags & JOURNAL_CONTROL)))
        at++;
    return at;
}

/* Puts the deals of a run into the lanes' queues, but for stragglers, which read for themselves.
 * Returns the run if nobody wants it. */
static struct run *run_queue(struct work *w, struct run *run) {
    for (unsigned i = 0; i < run->n_deals; i++) {
        struct deal *deal = &run->deals[i];
        w->unapplied_records += deal->n;
        if (deal->lane->straggles)
            run->open--;
        else
            work_lane_queue(w, deal->lane, deal);
    }
    if (run->open == 0)
        return run;
    w->queued_bytes += run->bytes;
    return NULL;
}

/* Moves the visible position of the idle lanes; returns which they are. */
static uint64_t lanes_advance_idle(struct work *w) {
    uint64_t idle = 0;
    for (unsigned i = 0; i < w->options.lanes; i++) {
        if (w->lanes[i].state != LANE_IDLE || atomic_load(&w->visible[i]) >= w->dispatched)
            continue;
        atomic_store(&w->visible[i], w->dispatched);
        idle |= UINT64_C(1) << i;
    }
    return idle;
}

/* Tells the store what its idle lanes have seen. They stay idle meanwhile: only a dispatcher can
 * change that, and we are it. */
static void lanes_passed(struct work *w, uint64_t idle, lsn_t upto) {
    for (unsigned i = 0; i < w->options.lanes; i++)
        if ((idle >> i & 1) && w->lanes[i].passed < upto) {
            w->lanes[i].passed = upto;
            w->ops->passed(w->store, i, upto);
        }
}

/* Deals a run (NULL: nothing to deal) and with it all lsns up to `upto`. No lock held. */
static void publish(struct work *w, struct run *run, lsn_t upto) {
    mutex_lock(&w->pool);
    struct run *unwanted = run ? run_queue(w, run) : NULL;
    if (upto > w->dispatched)
        w->dispatched = upto;
    else
        upto = w->dispatched;
    uint64_t idle = lanes_advance_idle(w);
    work_pool_wake(w, journal_durable(w->journal) > upto ? 0 : 1);
    mutex_unlock(&w->pool);
    work_runs_free(unwanted);
    lanes_passed(w, idle, upto);
    if (idle)
        work_notify(w, upto);
}

/* Deals the rest of the batch under way. Negative: batch_at is where to go on. */
static int deal_batch(struct work *w) {
    struct journal_batch *batch = w->batch;
    for (;;) {
        size_t end = run_end(w, batch, w->batch_at);
        struct run *run = NULL;
        int r = work_run_new(w, batch, w->batch_at, end, NULL, &run);
        if (r)
            return error_trace(r);
        publish(w, run, (end < batch->n ? batch->records[end].lsn : batch->next_lsn) - 1);
        w->batch_at = end;
        if (end == batch->n)
            return 0;
        r = w->ops->control(w->store, &batch->records[end]);
        if (r)
            return error_fold(r);
        w->batch_at = end + 1;
    }
}

/* Whether anything not dealt yet is of our kind. Asked after the durable lsn was read. */
static bool has_ours(const struct work *w) {
    return w->batch || journal_newest(w->journal, w->ops->kind) > w->dispatched;
}

/* Reads and deals one batch. JOURNAL_E_END, or negative. */
static int dispatch_batch(struct work *w, size_t *bytes) {
    if (!w->batch) {
        lsn_t durable = journal_durable(w->journal);
        if (!has_ours(w)) {
            journal_cursor_skip(w->cursor, durable + 1);
            publish(w, NULL, durable);
            return JOURNAL_E_END;
        }
        int r = journal_read(w->cursor, &w->batch);
        if (r == JOURNAL_E_END) {
            publish(w, NULL, durable); /* whatever is durable and not there is a gap */
            return r;
        }
        if (r)
            return error_fold(r);
        w->batch_at = 0;
        for (size_t i = 0; i < w->batch->n; i++)
            *bytes += w->batch->records[i].payload.size;
    }
    int r = deal_batch(w);
    if (r)
        return error_trace(r);
    w->batch = journal_batch_unref(w->batch);
    return 0;
}

static bool journal_has_more(const struct work *w) {
    return w->batch || journal_durable(w->journal) > w->dispatched;
}

bool work_dispatch_wanted(const struct work *w, uint64_t now_ns) {
    return !w->dispatching && w->queued_bytes <= w->options.queue_bytes_max / 2 &&
           now_ns >= w->dispatch_due_ns && journal_has_more(w) &&
           (has_ours(w) || now_ns >= w->pass_due_ns);
}

/* A control record that the store refuses is the store being down; anything else is tried again
 * soon. */
static void dispatch_failed(struct work *w) {
    bool control =
        w->batch && w->batch_at < w->batch->n && run_end(w, w->batch, w->batch_at) == w->batch_at;
    uint64_t wait_ns =
        control ? WORK_PROBE_MS * NS_PER_MS : work_backoff_ns(w, w->dispatch_attempts);
    w->dispatch_attempts++;
    w->dispatch_due_ns = work_now(w) + wait_ns;
    if (w->undealt_wall_us == 0)
        w->undealt_wall_us = w->batch && w->batch_at < w->batch->n
                                 ? w->batch->records[w->batch_at].wall_us
                                 : os_wall_us(w->os);
    work_set_reason(w, control ? "the store does not take a control record"
                               : "the journal cannot be read");
}

int work_dispatch(struct work *w) {
    assert(!w->dispatching);
    w->dispatching = true;
    size_t bytes = 0; /* read in this step: those of other kinds must not keep us for ever */
    int r = 0;
    while (r == 0 && journal_has_more(w) && !atomic_load(&w->stopping) &&
           w->queued_bytes < w->options.queue_bytes_max && bytes < w->options.queue_bytes_max) {
        w->dispatch_progress_ns = work_now(w);
        mutex_unlock(&w->pool);
        r = dispatch_batch(w, &bytes);
        mutex_lock(&w->pool);
    }
    w->dispatching = false;
    w->pass_due_ns = work_now(w) + WORK_PASS_MS * NS_PER_MS;
    if (r < 0) {
        dispatch_failed(w);
        return error_trace(r);
    }
    w->dispatch_attempts = 0;
    w->undealt_wall_us = 0;
    return 0;
}
