/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Housekeeping: a thread a store persists it when enough is new or old enough; the first of them
 * also writes a log line whenever a part falls ill or recovers; an API counts the dead letters that
 * processes share, and looks whether others apply what it appends. A checkpoint that fails changes
 * nothing (the old one stands); it is tried again a second later.
 */
#include "serve/internal.h"

#include <stdio.h>

enum {
    TURN_MS = 100,
    PRESSED_MS = 250,
    RETRY_MS = 1000,
    WANTED_MS = 2000,
    BEHIND_MS = 5000,
#ifdef MILLRACE_TINY
    COUNT_MS = 1000,
    LOOK_MS = 500,
#else
    COUNT_MS = 30000,
    LOOK_MS = 5000,
#endif
};

static uint64_t now_ns(const struct serve *s) {
    return os_monotonic_ns(s->os);
}

static struct work *work_of(const struct keeper *k) {
    return k->serve->data->stores[k->kind].work;
}

/* Half of what the journal may be kept for: time to let go of it (invariant 6). */
static bool is_pinning(const struct keeper *k, const struct work_status *status) {
    const struct data *d = k->serve->data;
    const struct journal_options *o = &d->options.journal;
    enum journal_kind kind = d->stores[k->kind].ops->work->kind;
    return (o->pin_bytes_max[kind] && status->pinned_bytes > o->pin_bytes_max[kind] / 2) ||
           (o->pin_ms_max[kind] && status->pinned_ms > o->pin_ms_max[kind] / 2);
}

/* Only points have a part of the budget that a checkpoint gives back; and others look at the tasks
 * that a Redis keeps. */
static bool is_pressed(const struct keeper *k) {
    const struct data *d = k->serve->data;
    return k->kind == DATA_POINTS ? points_store_pressed(d->points)
                                  : k->kind == DATA_TASKS && d->tasks_remote;
}

static bool is_due(const struct keeper *k, uint64_t interval_ms, uint64_t dirty_max_bytes) {
    uint64_t age_ms = (now_ns(k->serve) - k->checked_ns) / 1000000;
    uint64_t dirty = data_dirty_bytes(k->serve->data, k->kind);
    struct work_status status;
    if (k->failing)
        return age_ms >= RETRY_MS;
    if (!work_of(k)) /* a share persists what it applies: only how far is to be noted, or seen */
        return (k->serve->shares[k->kind] || k->kind == DATA_TASKS) && age_ms >= RETRY_MS;
    work_status(work_of(k), &status);
    bool wanted = data_wants_checkpoint(k->serve->data, k->kind);
    /* A store that has no room until it was persisted asks its workers to try again. */
    if (dirty >= dirty_max_bytes || ((dirty > 0 || wanted) && status.lanes_retrying > 0))
        return true;
    if (wanted && age_ms >= WANTED_MS) /* merges go on while nobody writes */
        return true;
    if (dirty > 0 && is_pressed(k))
        return age_ms >= PRESSED_MS;
    /* Records may also pass without leaving bytes: positions alone are worth persisting. */
    bool moved = dirty > 0 || work_visible_lsn(work_of(k)) > k->persisted;
    return moved && age_ms >= (is_pinning(k, &status) ? RETRY_MS : interval_ms);
}

/* One that is due waits a while for a store that is behind; the last one, at the stop, does not. */
static bool may_begin(struct keeper *k) {
    uint64_t now = now_ns(k->serve);
    if (!data_is_behind(k->serve->data, k->kind))
        return true;
    if (k->due_ns == 0)
        k->due_ns = now;
    return (now - k->due_ns) / 1000000 >= BEHIND_MS;
}

static void count_checkpoint(const struct keeper *k, const char *result, uint64_t begin_ns) {
    struct serve *s = k->serve;
    const char *store = s->data->stores[k->kind].ops->work->name;
    uint64_t us = (now_ns(s) - begin_ns) / 1000;
    metric_add(metrics_series(s->metrics, METRIC_CHECKPOINTS, store, result), 1);
    metric_observe(metrics_series(s->metrics, METRIC_CHECKPOINT_SECONDS, store), us);
    log_line(s->log, LOG_DEBUG, "checkpoint", LOG_TEXT("store", store), LOG_TEXT("result", result),
             LOG_NUMBER("us", us));
}

static void log_change(const struct keeper *k, bool failed, lsn_t visible) {
    struct serve *s = k->serve;
    const char *store = s->data->stores[k->kind].ops->work->name;
    char trace[256];
    error_trace_text(trace, sizeof trace);
    if (failed)
        log_line(s->log, LOG_ERROR, "a checkpoint failed; the last one stands, it is tried again",
                 LOG_TEXT("store", store), LOG_TEXT("error", trace));
    else
        log_line(s->log, LOG_INFO, "checkpoints work again", LOG_TEXT("store", store),
                 LOG_NUMBER("lsn", visible));
}

static void checkpoint(struct keeper *k) {
    struct serve *s = k->serve;
    uint64_t begin_ns = now_ns(s);
    lsn_t visible = work_of(k) ? work_visible_lsn(work_of(k)) : 0;
    int r = data_checkpoint(s->data, k->kind);
    if ((r != 0) != k->failing)
        log_change(k, r != 0, visible);
    count_checkpoint(k, r ? "failed" : "ok", begin_ns);
    if (!r)
        k->persisted = visible;
    k->failing = r != 0;
    k->due_ns = 0;
    k->checked_ns = now_ns(s);
}

/* Letters that processes share are counted by those that show the number; not while it is known
 * that nobody answers, as a stop would wait for it. */
static void count_letters(struct keeper *k) {
    const struct data *d = k->serve->data;
    bool shows = d->shared && d->options.roles & DATA_ROLE_API &&
                 journal_state(d->stores[k->kind].journal) == JOURNAL_OK;
    if (!shows || now_ns(k->serve) - k->counted_ns < COUNT_MS * UINT64_C(1000000))
        return;
    data_count_letters(k->serve->data, k->kind);
    k->counted_ns = now_ns(k->serve);
}

/* Not while it is known that the engine does not answer, for the same reason. */
static void look_for_workers(struct keeper *k) {
    struct serve *s = k->serve;
    struct backlog *backlog = s->backlogs[k->kind];
    struct backlog_status status;
    char text[BACKLOG_TEXT_MAX];
    if (!backlog || journal_state(s->data->stores[k->kind].journal) != JOURNAL_OK ||
        now_ns(s) - k->looked_ns < LOOK_MS * UINT64_C(1000000))
        return;
    backlog_look(backlog);
    k->looked_ns = now_ns(s);
    backlog_status(backlog, &status);
    bool warn = backlog_warning(&status, text);
    if (warn && !k->warned)
        log_line(s->log, LOG_WARN, "records wait", LOG_TEXT("store", data_store_names[k->kind]),
                 LOG_TEXT("says", text));
    k->warned = warn;
}

/* That it joins its groups is no complaint, but a part of its start. */
static bool is_joining(struct serve *s) {
    for (int i = 0; i < DATA_STORES; i++) {
        struct share_status status = {.joined = true};
        if (s->shares[i])
            share_status(s->shares[i], &status);
        if (!status.joined && !status.journal_reason[0])
            return true;
    }
    return false;
}

static void watch_health(struct serve *s) {
    struct housekeeper *h = &s->housekeeper;
    if (is_joining(s))
        return;
    char reason[256] = "";
    const char *part = health_complaint(s, reason, sizeof reason);
    if (part == h->complaining)
        return;
    if (part)
        log_line(s->log, LOG_ERROR, "a part is not ready", LOG_TEXT("part", part),
                 LOG_TEXT("reason", reason));
    else
        log_line(s->log, LOG_INFO, "all parts are ready again", LOG_TEXT("part", h->complaining));
    h->complaining = part;
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
    struct keeper *k = argument;
    struct serve *s = k->serve;
    uint64_t interval_ms;
    uint64_t dirty_max_bytes;
    k->checked_ns = now_ns(s);
    while (next_turn(s, &interval_ms, &dirty_max_bytes)) {
        if (k->watches && atomic_load(&s->state) == SERVE_READY)
            watch_health(s);
        if (is_due(k, interval_ms, dirty_max_bytes) && may_begin(k))
            checkpoint(k);
        count_letters(k);
        look_for_workers(k);
    }
}

void housekeeper_init(struct housekeeper *h, const struct serve_options *options) {
    mutex_init(&h->lock, LOCK_RANK_SERVE);
    condition_init(&h->wake);
    h->interval_ms = options->checkpoint_interval_ms;
    h->dirty_max_bytes = options->checkpoint_bytes;
}

int housekeeper_start(struct serve *s) {
    bool first = true;
    for (int i = 0; i < DATA_STORES; i++) {
        struct keeper *k = &s->housekeeper.keepers[i];
        char name[16];
        if (!s->data->stores[i].ops)
            continue;
        *k = (struct keeper){.serve = s, .kind = (enum data_store_kind)i, .watches = first};
        first = false;
        snprintf(name, sizeof name, "keep-%.10s", s->data->stores[i].ops->work->name);
        int r = os_thread_start(s->os, name, keep_house, k, &k->thread);
        if (r)
            return error_trace(r);
    }
    return 0;
}

void housekeeper_stop(struct serve *s) {
    struct housekeeper *h = &s->housekeeper;
    mutex_lock(&h->lock);
    h->stopping = true;
    condition_broadcast(&h->wake);
    mutex_unlock(&h->lock);
    for (int i = 0; i < DATA_STORES; i++) {
        os_thread_join(s->os, h->keepers[i].thread);
        h->keepers[i].thread = NULL;
    }
}

void housekeeper_deinit(struct housekeeper *h) {
    condition_deinit(&h->wake);
    mutex_deinit(&h->lock);
}
