/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The housekeeper's thread: persists the stores when enough is new or old enough, and writes a log
 * line whenever a part falls ill or recovers. A checkpoint that fails changes nothing (the old one
 * stands); it is tried again a second later.
 */
#include "serve/internal.h"

#include <stdio.h>

enum { TURN_MS = 100, RETRY_MS = 1000 };

/* What the thread remembers from turn to turn. */
struct turns {
    uint64_t checked_ns;     /* when the last checkpoint ended, or was tried */
    lsn_t persisted;         /* what was visible when the last one was begun */
    bool failing;            /* the last one failed */
    const char *complaining; /* the part that the log last complained of, or NULL */
};

static uint64_t now_ns(const struct serve *s) {
    return os_monotonic_ns(s->os);
}

/* A store that has no room for more until it was persisted asks its workers to try again. */
static bool is_waited_for(struct serve *s) {
    struct work_status status;
    work_status(s->data->work, &status);
    return status.lanes_retrying > 0;
}

static bool is_due(struct serve *s, const struct turns *turns, uint64_t interval_ms,
                   uint64_t dirty_max_bytes) {
    uint64_t age_ms = (now_ns(s) - turns->checked_ns) / 1000000;
    uint64_t dirty = points_store_dirty_bytes(s->data->points);
    if (turns->failing)
        return age_ms >= RETRY_MS;
    if (dirty >= dirty_max_bytes || (dirty > 0 && is_waited_for(s)))
        return true;
    /* Records may also pass without leaving bytes: positions alone are worth persisting. */
    bool moved = dirty > 0 || work_visible_lsn(s->data->work) > turns->persisted;
    return moved && age_ms >= interval_ms;
}

static void count_checkpoint(struct serve *s, const char *result, uint64_t begin_ns) {
    uint64_t us = (now_ns(s) - begin_ns) / 1000;
    metric_add(metrics_series(s->metrics, METRIC_POINTS_CHECKPOINTS, result), 1);
    metric_observe(metrics_series(s->metrics, METRIC_POINTS_CHECKPOINT_SECONDS), us);
    log_line(s->log, LOG_DEBUG, "checkpoint", LOG_TEXT("result", result), LOG_NUMBER("us", us));
}

static void checkpoint(struct serve *s, struct turns *turns) {
    uint64_t begin_ns = now_ns(s);
    lsn_t visible = work_visible_lsn(s->data->work);
    int r = data_checkpoint(s->data);
    count_checkpoint(s, r ? "failed" : "ok", begin_ns);
    if (r && !turns->failing) {
        char trace[256];
        error_trace_text(trace, sizeof trace);
        log_line(s->log, LOG_ERROR, "a checkpoint failed; the last one stands, it is tried again",
                 LOG_TEXT("error", trace));
    }
    if (!r && turns->failing)
        log_line(s->log, LOG_INFO, "checkpoints work again", LOG_NUMBER("lsn", visible));
    if (!r)
        turns->persisted = visible;
    turns->failing = r != 0;
    turns->checked_ns = now_ns(s);
}

static void watch_health(struct serve *s, struct turns *turns) {
    char reason[256] = "";
    const char *part = health_complaint(s, reason, sizeof reason);
    if (part == turns->complaining)
        return;
    if (part)
        log_line(s->log, LOG_ERROR, "a part is not ready", LOG_TEXT("part", part),
                 LOG_TEXT("reason", reason));
    else
        log_line(s->log, LOG_INFO, "all parts are ready again",
                 LOG_TEXT("part", turns->complaining));
    turns->complaining = part;
}

/* Waits for the next turn; false when it is time to end. Copies what serve_reload may change. */
static bool next_turn(struct serve *s, uint64_t *interval_ms, uint64_t *dirty_max_bytes) {
    struct housekeeper *h = &s->housekeeper;
    mutex_lock(&h->lock);
    if (!h->stopping)
        (void)condition_wait_until(&h->wake, &h->lock,
                                   now_ns(s) + (uint64_t)TURN_MS * 1000000); /* a turn either way */
    bool go_on = !h->stopping;
    *interval_ms = h->interval_ms;
    *dirty_max_bytes = h->dirty_max_bytes;
    mutex_unlock(&h->lock);
    return go_on;
}

static void keep_house(void *argument) {
    struct serve *s = argument;
    struct turns turns = {.checked_ns = now_ns(s)};
    uint64_t interval_ms;
    uint64_t dirty_max_bytes;
    while (next_turn(s, &interval_ms, &dirty_max_bytes)) {
        if (atomic_load(&s->state) == SERVE_READY)
            watch_health(s, &turns);
        if (is_due(s, &turns, interval_ms, dirty_max_bytes))
            checkpoint(s, &turns);
    }
}

void housekeeper_init(struct housekeeper *h, const struct serve_options *options) {
    mutex_init(&h->lock, LOCK_RANK_SERVE);
    condition_init(&h->wake);
    h->interval_ms = options->checkpoint_interval_ms;
    h->dirty_max_bytes = options->checkpoint_bytes;
}

int housekeeper_start(struct serve *s) {
    int r = os_thread_start(s->os, "housekeeper", keep_house, s, &s->housekeeper.thread);
    return r ? error_trace(r) : 0;
}

void housekeeper_stop(struct serve *s) {
    struct housekeeper *h = &s->housekeeper;
    mutex_lock(&h->lock);
    h->stopping = true;
    condition_signal(&h->wake);
    mutex_unlock(&h->lock);
    os_thread_join(s->os, h->thread);
    h->thread = NULL;
}

void housekeeper_deinit(struct housekeeper *h) {
    condition_deinit(&h->wake);
    mutex_deinit(&h->lock);
}
