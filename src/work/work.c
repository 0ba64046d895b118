/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a struct work, its positions as others see them, and catching up without threads.
 *
 * Positions: visible[lane] is written under the pool lock and read without. Whoever waits writes
 * `wanted` and then reads visible; whoever applies writes visible and then reads `wanted`; all four
 * are sequentially consistent, so at least one of the two sees the other.
 */
#include "base/hash.h"
#include "work/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

uint64_t work_now(const struct work *w) {
    return os_monotonic_ns(w->os);
}

void work_set_reason(struct work *w, const char *reason) {
    size_t n = strnlen(reason, sizeof w->reason - 1);
    memcpy(w->reason, reason, n);
    w->reason[n] = '\0';
}

/* ---- Life ---- */
static lsn_t lowest(const lsn_t *positions, unsigned n) {
    lsn_t low = positions[0];
    for (unsigned i = 1; i < n; i++)
        if (positions[i] < low)
            low = positions[i];
    return low;
}

static struct work_options with_defaults(const struct work_options *options) {
    struct work_options o = *options;
    assert(o.lanes >= 1 && o.lanes <= WORK_LANES_MAX && o.threads_min >= 1);
    if (o.threads_max < o.threads_min)
        o.threads_max = o.threads_min;
    if (o.batch_records_max == 0)
        o.batch_records_max = WORK_BATCH_RECORDS;
    if (o.queue_bytes_max == 0)
        o.queue_bytes_max = WORK_QUEUE_BYTES;
    if (o.stall_ms == 0)
        o.stall_ms = WORK_STALL_MS;
    return o;
}

static int lanes_init(struct work *w, const lsn_t *positions) {
    for (unsigned i = 0; i < w->options.lanes; i++) {
        struct lane *lane = &w->lanes[i];
        *lane = (struct lane){.number = i, .start = positions[i], .passed = positions[i]};
        lane->taken = calloc(w->options.batch_records_max, sizeof(lane->taken[0]));
        if (!lane->taken)
            return error_origin(-ENOMEM);
        atomic_init(&w->visible[i], positions[i]);
    }
    return 0;
}

static void collect(struct metrics_source *source, struct metrics *m) {
    struct work *w = CONTAINER_OF(source, struct work, source);
    const char *name = w->ops->name;
    struct work_status status;
    work_status(w, &status);
    metric_set(metrics_series(m, METRIC_WORK_LAG_RECORDS, name), status.lag_records);
    metric_set(metrics_series(m, METRIC_WORK_LAG_SECONDS, name), status.lag_ms * 1000);
    metric_set(metrics_series(m, METRIC_WORK_THREADS, name), status.threads);
    metric_set(metrics_series(m, METRIC_WORK_BUSY, name), status.busy);
    metric_set(metrics_series(m, METRIC_WORK_PINNED, name), status.pinned_bytes);
    metric_set(metrics_series(m, METRIC_WORK_PINNED_SECONDS, name), status.pinned_ms * 1000);
}

static void metrics_init(struct work *w, struct metrics *m) {
    const char *name = w->ops->name;
    w->metrics.applied = metrics_series(m, METRIC_WORK_APPLIED, name);
    w->metrics.retries = metrics_series(m, METRIC_WORK_RETRIES, name);
    w->metrics.dead_letters = metrics_series(m, METRIC_WORK_DEAD_LETTERS, name);
    w->metrics.batch = metrics_series(m, METRIC_WORK_BATCH, name);
    w->source.collect = collect;
    metrics_add_source(m, &w->source);
}

/* What can fail, in an order that work_free can undo. */
static int work_init(struct work *w, const lsn_t *positions) {
    mutex_init(&w->pool, LOCK_RANK_WORK_POOL);
    condition_init(&w->wake);
    w->workers = calloc(w->options.threads_max, sizeof w->workers[0]);
    if (!w->workers)
        return error_origin(-ENOMEM);
    int r = lanes_init(w, positions);
    if (!r)
        r = rejections_init(&w->rejections);
    if (!r)
        r = os_random(w->os, &w->jitter, sizeof w->jitter);
    if (!r)
        r = journal_cursor_new(w->journal, w->dispatched + 1, &w->cursor);
    if (!r)
        r = journal_consumer_new(w->journal, w->ops->name, w->ops->kind, w->dispatched,
                                 &w->consumer);
    return r ? error_fold(r) : 0;
}

int work_new(struct os *os, struct journal *j, const struct work_store_ops *ops, void *store,
             const lsn_t *positions, const struct work_options *options, struct metrics *metrics,
             struct work **ret_work) {
    struct work *w = calloc(1, sizeof *w);
    if (!w)
        return error_origin(-ENOMEM);
    w->os = os;
    w->journal = j;
    w->ops = ops;
    w->store = store;
    w->options = with_defaults(options);
    w->dispatched = lowest(positions, w->options.lanes);
    int r = work_init(w, positions);
    if (r) {
        work_free(w);
        return error_trace(r);
    }
    metrics_init(w, metrics);
    w->listener.durable = work_pool_durable;
    journal_listen(j, &w->listener);
    *ret_work = w;
    return 0;
}

struct work *work_free(struct work *w) {
    if (!w)
        return NULL;
    if (w->listener.durable)
        journal_unlisten(w->journal, &w->listener);
    if (w->workers)
        work_stop(w);
    for (unsigned i = 0; i < w->options.lanes; i++)
        work_lane_deinit(&w->lanes[i]);
    if (w->batch)
        journal_batch_unref(w->batch);
    if (w->cursor)
        journal_cursor_free(w->cursor);
    rejections_deinit(&w->rejections);
    free(w->workers);
    condition_deinit(&w->wake);
    mutex_deinit(&w->pool);
    free(w);
    return NULL;
}

/* ---- Positions ---- */
unsigned work_lane_of(const struct work *w, uint64_t key_hash) {
    return work_lane_of_hash(key_hash, w->options.lanes);
}

bool work_visible(const struct work *w, uint64_t lane_mask, lsn_t lsn) {
    for (; lane_mask != 0; lane_mask &= lane_mask - 1)
        if (atomic_load(&w->visible[__builtin_ctzll(lane_mask)]) < lsn)
            break;
    if (lane_mask && w->asked)
        w->asked(w->asked_context);
    return lane_mask == 0;
}

lsn_t work_visible_lsn(const struct work *w) {
    lsn_t low = UINT64_MAX;
    for (unsigned i = 0; i < w->options.lanes; i++) {
        lsn_t lsn = atomic_load(&w->visible[i]);
        low = lsn < low ? lsn : low;
    }
    return low;
}

void work_listen(struct work *w, struct work_listener *listener) {
    mutex_lock(&w->pool);
    listener->next = atomic_load(&w->listeners);
    atomic_store(&w->listeners, listener);
    mutex_unlock(&w->pool);
}

void work_notify(struct work *w, lsn_t reached) {
    for (struct work_listener *l = atomic_load(&w->listeners); l; l = l->next) {
        lsn_t wanted = atomic_load(&l->wanted);
        while (wanted <= reached)
            if (atomic_compare_exchange_weak(&l->wanted, &wanted, UINT64_MAX)) {
                l->visible(l);
                break;
            }
    }
}

bool work_rejection(struct work *w, lsn_t first, lsn_t last, char *reason, size_t size) {
    return rejections_find(&w->rejections, first, last, reason, size);
}

void work_persisted(struct work *w, const lsn_t *positions) {
    journal_consumer_persisted(w->consumer, lowest(positions, w->options.lanes));
}

/* ---- Status ---- */
static bool lane_stalled(const struct lane *lane, uint64_t now_ns, uint64_t stall_ns) {
    return (lane->state == LANE_QUEUED || lane->state == LANE_APPLYING) &&
           now_ns > lane->progress_ns && now_ns - lane->progress_ns > stall_ns;
}

/* The wall clock time of the oldest record in a queue or held by the dispatcher; or now. */
static uint64_t oldest_wall_us(const struct work *w, uint64_t now_us) {
    uint64_t oldest = now_us;
    for (unsigned i = 0; i < w->options.lanes; i++) {
        const struct lane *lane = &w->lanes[i];
        const struct deal *deal = lane->head;
        uint64_t wall_us = deal              ? deal->records[deal->applied]->wall_us
                           : lane->straggles ? lane->oldest_wall_us
                                             : now_us;
        oldest = wall_us < oldest ? wall_us : oldest;
    }
    if (w->undealt_wall_us != 0 && w->undealt_wall_us < oldest)
        oldest = w->undealt_wall_us;
    return oldest;
}

static void status_of_lanes(const struct work *w, struct work_status *status) {
    uint64_t now = work_now(w);
    uint64_t stall_ns = w->options.stall_ms * NS_PER_MS;
    for (unsigned i = 0; i < w->options.lanes; i++) {
        const struct lane *lane = &w->lanes[i];
        status->lanes_retrying += lane->trouble == WORK_RETRY;
        status->lanes_down += lane->trouble == WORK_DOWN;
        status->stalled |= lane_stalled(lane, now, stall_ns);
    }
    status->stalled |= w->dispatching && now - w->dispatch_progress_ns > stall_ns;
}

void work_status(struct work *w, struct work_status *ret_status) {
    if (w->asked) {
        *ret_status = (struct work_status){0};
        return;
    }
    struct work_status status = {.pinned_bytes = journal_consumer_pinned_bytes(w->consumer),
                                 .pinned_ms = journal_consumer_pinned_ms(w->consumer)};
    uint64_t wall_us = os_wall_us(w->os);
    lsn_t durable = journal_durable(w->journal);
    mutex_lock(&w->pool);
    status.lag_records = w->unapplied_records;
    if (durable > w->dispatched && journal_newest(w->journal, w->ops->kind) > w->dispatched)
        status.lag_records += durable - w->dispatched;
    status.lag_ms = (wall_us - oldest_wall_us(w, wall_us)) / 1000;
    status.threads = w->n_threads;
    unsigned sleepers = atomic_load(&w->sleepers);
    status.busy = sleepers < w->n_threads ? w->n_threads - sleepers : 0;
    status_of_lanes(w, &status);
    memcpy(status.reason, w->reason, sizeof status.reason);
    mutex_unlock(&w->pool);
    *ret_status = status;
}

/* ---- Catching up ---- */
/* Applies one batch of every lane that is ready now. */
static void apply_round(struct work *w) {
    for (unsigned n = w->n_ready; n > 0; n--)
        work_lane_apply(w, work_lane_take(w));
}

/* Whether all that is left belongs to lanes that are down: the store's error, or WORK_E_DOWN. */
static int round_trouble(const struct work *w) {
    int trouble = 0;
    if (w->n_ready > 0 || work_dispatch_wanted(w, work_now(w)))
        return 0;
    for (unsigned i = 0; i < w->options.lanes; i++) {
        const struct lane *lane = &w->lanes[i];
        if (lane->trouble == WORK_DOWN && lane->error < 0)
            return error_trace(lane->error);
        if (lane->trouble == WORK_DOWN)
            trouble = WORK_E_DOWN;
    }
    return trouble;
}

/* Reads, applies a batch a lane, and when only waiting lanes are left sleeps until the first is
 * due. */
static int catch_up_round(struct work *w) {
    uint64_t now = work_now(w);
    w->dispatch_due_ns = 0;
    w->pass_due_ns = 0;
    int r = 0;
    if (work_dispatch_wanted(w, now))
        r = work_dispatch(w);
    work_lanes_due(w, now);
    if (r == 0 && w->n_ready == 0 && w->n_waiting > 0) {
        uint64_t due = work_lanes_next_due(w);
        mutex_unlock(&w->pool);
        os_sleep_ns(w->os, due > now ? due - now : 0);
        mutex_lock(&w->pool);
    }
    apply_round(w);
    work_stragglers_let_go(w, work_now(w));
    return r ? error_trace(r) : round_trouble(w);
}

static bool lanes_are_ready(struct work *w) {
    mutex_lock(&w->pool);
    bool ready = w->n_ready > 0;
    mutex_unlock(&w->pool);
    return ready;
}

int work_catch_up(struct work *w, void (*progress)(void *context, lsn_t at, lsn_t end),
                  void *context) {
    lsn_t end = journal_durable(w->journal);
    lsn_t before = 0;
    uint64_t progress_ns = work_now(w);
    mutex_lock(&w->pool);
    work_lanes_due(w, UINT64_MAX);
    mutex_unlock(&w->pool);
    for (;;) {
        lsn_t at = work_visible_lsn(w);
        if (progress)
            progress(context, at < end ? at : end, end);
        if (at >= end && !lanes_are_ready(w)) /* a straggler may have to come up still */
            return 0;
        if (at != before)
            progress_ns = work_now(w);
        else if (work_now(w) - progress_ns > w->options.stall_ms * NS_PER_MS)
            return WORK_E_DOWN;
        before = at;
        mutex_lock(&w->pool);
        assert(w->n_threads == 0);
        int r = catch_up_round(w);
        mutex_unlock(&w->pool);
        if (r)
            return r < 0 ? error_trace(r) : r;
    }
}
