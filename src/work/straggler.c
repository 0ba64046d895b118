/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stragglers. All lanes share one reader and one bound of memory, so a lane that waits for long
 * would in the end hold up the others: the queues are full of its records. Then its queue is let
 * go, and it becomes a straggler: the dispatcher passes it over, and it reads the journal for
 * itself, one batch at a time, from where it stood, until it has come up with the dispatcher.
 *
 *            queues full, waits for WORK_STRAGGLE_MS, some other lane is well
 *     dealt ──────────────────────────────────────────────────────────────────▶ straggles
 *       ▲                                                                          │
 *       └──────── read_to == dispatched, seen under the pool lock ─────────────────┘
 *
 *   1. A straggler's queue holds only what it read itself, up to read_to, and read_to never passes
 *      `dispatched`. So when the two are equal nothing is missing and nothing will come twice: a
 * run is dealt, and `dispatched` moved, under the same lock.
 *   2. While all lanes are in trouble nobody becomes a straggler: reading on would help nobody.
 */
#include "work/internal.h"

static bool must_go(const struct lane *lane, uint64_t now_ns) {
    return lane->state == LANE_WAITING && lane->head && !lane->straggles &&
           now_ns - lane->trouble_ns >= WORK_STRAGGLE_MS * NS_PER_MS;
}

static bool some_lane_is_well(const struct work *w) {
    for (unsigned i = 0; i < w->options.lanes; i++)
        if (w->lanes[i].trouble == WORK_OK)
            return true;
    return false;
}

/* What it had still counts as not applied: it will read it again. */
static void let_go(struct work *w, struct lane *lane, struct run **done) {
    const struct journal_record *oldest = lane->head->records[lane->head->applied];
    lane->straggles = true;
    lane->read_to = oldest->lsn - 1;
    lane->oldest_wall_us = oldest->wall_us;
    size_t n = 0;
    for (const struct deal *deal = lane->head; deal; deal = deal->next)
        n += deal->n - deal->applied;
    work_lane_consume(w, lane, n, done);
}

void work_stragglers_let_go(struct work *w, uint64_t now_ns) {
    if (w->n_waiting == 0 || w->queued_bytes <= w->options.queue_bytes_max / 2 ||
        journal_durable(w->journal) <= w->dispatched || !some_lane_is_well(w))
        return;
    struct run *done = NULL;
    for (unsigned i = 0; i < w->options.lanes; i++)
        if (must_go(&w->lanes[i], now_ns))
            let_go(w, &w->lanes[i], &done);
    mutex_unlock(&w->pool);
    work_runs_free(done);
    mutex_lock(&w->pool);
}

void work_straggler_deinit(struct lane *lane) {
    if (lane->batch)
        lane->batch = journal_batch_unref(lane->batch);
    if (lane->cursor)
        lane->cursor = journal_cursor_free(lane->cursor);
}

/* Makes sure that there is a batch to go on with. JOURNAL_E_END, or negative. */
static int next_batch(struct work *w, struct lane *lane) {
    if (lane->batch)
        return 0;
    int r = 0;
    if (!lane->cursor)
        r = journal_cursor_new(w->journal, lane->read_to + 1, &lane->cursor);
    if (r)
        return error_fold(r);
    lane->batch_at = 0;
    r = journal_read(lane->cursor, &lane->batch);
    return r == JOURNAL_E_END ? r : error_fold(r);
}

/* Reads what the lane has in one batch of the journal, no further than upto. ret_run: NULL if that
 * is nothing; ret_read_to: how far that was. No lock held. */
static int read_some(struct work *w, struct lane *lane, lsn_t upto, struct run **ret_run,
                     lsn_t *ret_read_to) {
    *ret_read_to = upto;
    int r = next_batch(w, lane);
    if (r)
        return r == JOURNAL_E_END ? 0 : error_trace(r);
    struct journal_batch *batch = lane->batch;
    size_t end = lane->batch_at;
    while (end < batch->n && batch->records[end].lsn <= upto)
        end++;
    r = work_run_new(w, batch, lane->batch_at, end, lane, ret_run);
    if (r)
        return error_trace(r);
    lane->batch_at = end;
    if (end < batch->n)
        return 0;
    if (batch->next_lsn - 1 < upto)
        *ret_read_to = batch->next_lsn - 1;
    lane->batch = journal_batch_unref(batch);
    return 0;
}

/* Reads one batch and queues what the lane has in it. Gives up the lock. */
static int straggler_step(struct work *w, struct lane *lane) {
    lsn_t upto = w->dispatched, read_to;
    struct run *run = NULL;
    mutex_unlock(&w->pool);
    int r = read_some(w, lane, upto, &run, &read_to);
    mutex_lock(&w->pool);
    if (r)
        return error_trace(r);
    lane->read_to = read_to;
    if (run) {
        w->queued_bytes += run->bytes;
        lane->oldest_wall_us = run->deals[0].records[0]->wall_us;
        work_lane_queue(w, lane, &run->deals[0]);
    }
    return 0;
}

int work_straggler_read(struct work *w, struct lane *lane) {
    while (!lane->head && lane->read_to < w->dispatched && !atomic_load(&w->stopping)) {
        int r = straggler_step(w, lane);
        if (r)
            return error_trace(r);
    }
    if (lane->head || lane->read_to < w->dispatched)
        return 0;
    lane->straggles = false;
    mutex_unlock(&w->pool);
    work_straggler_deinit(lane);
    mutex_lock(&w->pool);
    return 0;
}
