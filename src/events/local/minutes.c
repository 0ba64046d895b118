/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sorted array: a day has 1,440 minutes, tags come in nearly ascending order, and the watermark
 * is found by walking back from the newest. It is looked for only when EVENT_WATERMARK_TAGS tags
 * have come beyond the present one, and then moves by at least a minute.
 */
#include "events/local/minutes.h"

#include <errno.h>
#include <stdlib.h>

enum { SAMPLE_S = 60, HOUR_S = 3600 };
static const uint64_t ns_per_s = 1000000000;

/* ---- Totals ---- */
void minute_totals_deinit(struct minute_totals *t) {
    free(t->list);
    *t = (struct minute_totals){0};
}

/* The place of the first minute that is not below. */
static size_t place_of(const struct minute_totals *t, int64_t minute) {
    size_t low = 0, high = t->n;
    if (high > 0 && t->list[high - 1].minute < minute)
        return high;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (t->list[middle].minute < minute)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct minute_total *minute_totals_find(const struct minute_totals *t, int64_t minute) {
    size_t i = place_of(t, minute);
    return i < t->n && t->list[i].minute == minute ? &t->list[i] : NULL;
}

struct minute_total *minute_totals_at(struct minute_totals *t, int64_t minute) {
    size_t i = place_of(t, minute);
    if (i < t->n && t->list[i].minute == minute)
        return &t->list[i];
    if (t->n == t->capacity) {
        size_t capacity = t->capacity ? 2 * t->capacity : 64;
        struct minute_total *grown = realloc(t->list, capacity * sizeof *grown);
        if (!grown)
            return NULL;
        t->list = grown;
        t->capacity = capacity;
    }
    memmove(&t->list[i + 1], &t->list[i], (t->n - i) * sizeof *t->list);
    t->list[i] = (struct minute_total){.minute = minute};
    t->n++;
    return &t->list[i];
}

int minute_totals_copy(const struct minute_totals *from, struct minute_totals *ret_to) {
    struct minute_totals to = {.n = from->n, .capacity = from->n};
    if (from->n > 0) {
        to.list = malloc(from->n * sizeof *to.list);
        if (!to.list)
            return error_origin(-ENOMEM);
        memcpy(to.list, from->list, from->n * sizeof *to.list);
    }
    *ret_to = to;
    return 0;
}

void minute_totals_cut(struct minute_totals *t, int64_t floor) {
    size_t i = place_of(t, floor);
    if (i == 0)
        return;
    memmove(t->list, t->list + i, (t->n - i) * sizeof *t->list);
    t->n -= i;
}

/* ---- Minutes ---- */
void minutes_init(struct minutes *m) {
    *m = (struct minutes){.floor = INT64_MIN};
    mutex_init(&m->lock, LOCK_RANK_EVENT_MINUTES);
    atomic_init(&m->watermark, INT64_MIN);
    atomic_init(&m->reach, INT64_MIN);
}

void minutes_deinit(struct minutes *m) {
    minute_totals_deinit(&m->totals);
    mutex_deinit(&m->lock);
}

static uint64_t tags_of(const struct minute_total *t) {
    uint64_t n = 0;
    for (size_t i = 0; i < EVENT_ACTIONS; i++)
        n += t->of[i].count;
    return n;
}

/* Moves the watermark to the newest minute that enough tags are in or after. */
static void advance(struct minutes *m) {
    uint64_t tags = 0;
    for (size_t i = m->totals.n; i > 0; i--) {
        const struct minute_total *t = &m->totals.list[i - 1];
        tags += tags_of(t);
        if (tags < EVENT_WATERMARK_TAGS)
            continue;
        m->beyond = tags - tags_of(t);
        atomic_store_explicit(&m->watermark, t->minute, memory_order_relaxed);
        atomic_store_explicit(&m->reach, t->minute - EVENT_REACH_MINUTES, memory_order_relaxed);
        return;
    }
}

void minutes_restore(struct minutes *m, struct minute_totals *totals, int64_t floor) {
    mutex_lock(&m->lock);
    minute_totals_deinit(&m->totals);
    m->totals = *totals;
    *totals = (struct minute_totals){0};
    m->floor = floor;
    for (size_t i = 0; i < m->totals.n; i++)
        m->beyond += tags_of(&m->totals.list[i]);
    advance(m);
    mutex_unlock(&m->lock);
}

static int admit(struct minutes *m, int64_t minute, bool *ret_admitted) {
    bool admitted = minute >= m->floor;
    if (admitted && m->totals.n >= EVENT_MINUTES_MAX)
        admitted = minute_totals_find(&m->totals, minute) != NULL;
    else if (admitted && !minute_totals_at(&m->totals, minute))
        return error_origin(-ENOMEM);
    *ret_admitted = admitted;
    return 0;
}

int minutes_admit(struct minutes *m, struct minute_row *rows, size_t n) {
    const struct minute_row *last = NULL;
    int r = 0;
    mutex_lock(&m->lock);
    for (size_t i = 0; r == 0 && i < n; i++) {
        if (!rows[i].counts || (last && last->minute == rows[i].minute))
            continue;
        r = admit(m, rows[i].minute, &rows[i].counts);
        if (r == 0 && rows[i].counts)
            last = &rows[i];
    }
    mutex_unlock(&m->lock);
    return error_trace(r);
}

void minutes_count(struct minutes *m, const struct minute_row *rows, size_t n) {
    struct minute_total *t = NULL;
    mutex_lock(&m->lock);
    for (size_t i = 0; i < n; i++) {
        if (!rows[i].counts)
            continue;
        if (!t || t->minute != rows[i].minute)
            t = minute_totals_find(&m->totals, rows[i].minute);
        if (!t) /* the floor passed it meanwhile */
            continue;
        t->of[rows[i].action].count++;
        t->of[rows[i].action].sum += rows[i].measure;
        if (t->minute > atomic_load_explicit(&m->watermark, memory_order_relaxed) &&
            ++m->beyond >= EVENT_WATERMARK_TAGS)
            advance(m);
    }
    mutex_unlock(&m->lock);
}

void minutes_read(struct minutes *m, int64_t first, size_t n, enum event_action action,
                  struct event_aggregate *out) {
    mutex_lock(&m->lock);
    for (size_t i = 0; i < n; i++) {
        const struct minute_total *t = minute_totals_find(&m->totals, first + (int64_t)i);
        out[i] = t ? t->of[action] : (struct event_aggregate){0};
    }
    mutex_unlock(&m->lock);
}

size_t minutes_number(struct minutes *m) {
    mutex_lock(&m->lock);
    size_t n = m->totals.n;
    mutex_unlock(&m->lock);
    return n;
}

int64_t minutes_floor(struct minutes *m) {
    mutex_lock(&m->lock);
    int64_t floor = m->floor;
    mutex_unlock(&m->lock);
    return floor;
}

/* ---- The floor ---- */
static void sample(struct minutes *m, uint64_t now_ns, int64_t watermark) {
    if (m->n_samples > 0 && now_ns - m->samples[m->n_samples - 1].at_ns < SAMPLE_S * ns_per_s)
        return;
    if (m->n_samples == MINUTES_SAMPLES) {
        memmove(m->samples, m->samples + 1, (MINUTES_SAMPLES - 1) * sizeof *m->samples);
        m->n_samples--;
    }
    m->samples[m->n_samples++] = (struct minutes_sample){now_ns, watermark};
}

/* The floor when so many minutes are kept that those to come may find no room (days of tags loaded
 * within an hour): what is out of reach makes it, without its hour. */
static int64_t pressed_floor(const struct minutes *m) {
    int64_t reach = atomic_load_explicit(&m->reach, memory_order_relaxed);
    bool pressed = m->totals.n > EVENT_MINUTES_MAX / 2;
    return pressed && reach > m->floor ? reach : m->floor;
}

int64_t minutes_floor_next(struct minutes *m, uint64_t now_ns) {
    mutex_lock(&m->lock);
    int64_t floor = pressed_floor(m);
    for (size_t i = 0; i < m->n_samples; i++) {
        int64_t watermark = m->samples[i].watermark;
        if (now_ns - m->samples[i].at_ns >= HOUR_S * ns_per_s && watermark != INT64_MIN &&
            watermark - EVENT_REACH_MINUTES > floor)
            floor = watermark - EVENT_REACH_MINUTES;
    }
    sample(m, now_ns, atomic_load_explicit(&m->watermark, memory_order_relaxed));
    mutex_unlock(&m->lock);
    return floor;
}

void minutes_floor_move(struct minutes *m, int64_t floor) {
    mutex_lock(&m->lock);
    if (floor > m->floor) {
        m->floor = floor;
        minute_totals_cut(&m->totals, floor);
    }
    mutex_unlock(&m->lock);
}
