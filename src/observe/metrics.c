/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registry: a hash table from (row, label text) to a series, and a list of series a row, in the
 * order they were made. The lock guards both; the numbers inside a series are counted without it.
 * A label text is kept as it is printed, `route="/a",status="200"`, and is the key of the table.
 */
#include "observe/metrics.h"

#include "base/hash.h"
#include "os/sync.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    METRICS_SERIES_MAX = 4096,
    METRICS_SLOTS = 2 * METRICS_SERIES_MAX, /* a power of two: at most half full */
    METRICS_LABELS_BYTES = 1024,            /* one series' label text; longer values are cut */
};

const struct metric_row metric_rows[METRICS] = {
#define METRIC(id, type, name, labels, help) [METRIC_##id] = {METRIC_##type, name, labels, help},
#include "observe/metrics.def"
#undef METRIC
};

struct metrics_entry {
    struct metric_series series;
    struct metrics_entry *next; /* of the same row */
    enum metric row;
    char labels[]; /* as printed between the braces, "" for none */
};

struct metrics {
    struct mutex lock;
    struct metrics_entry *slots[METRICS_SLOTS];
    struct metrics_entry *first[METRICS];
    struct metrics_entry *last[METRICS];
    size_t n;
    struct metrics_source *sources; /* newest first */
    struct metric_series unseen;    /* what is counted past the bound */
};

int metrics_new(struct metrics **ret_metrics) {
    struct metrics *m = calloc(1, sizeof *m);
    if (!m)
        return error_origin(-ENOMEM);
    mutex_init(&m->lock, LOCK_RANK_METRICS);
    *ret_metrics = m;
    return 0;
}

struct metrics *metrics_free(struct metrics *m) {
    if (!m)
        return NULL;
    for (size_t i = 0; i < METRICS_SLOTS; i++)
        free(m->slots[i]);
    mutex_deinit(&m->lock);
    free(m);
    return NULL;
}

/* ---- Label texts ---- */

struct text {
    char at[METRICS_LABELS_BYTES];
    size_t size;
};

/* Cuts rather than fails: a label is never worth an error. */
static void text_add(struct text *t, const char *s, size_t n) {
    size_t room = sizeof t->at - 1 - t->size;
    if (n > room)
        n = room;
    memcpy(t->at + t->size, s, n);
    t->size += n;
    t->at[t->size] = '\0';
}

/* The format knows three escapes inside a value. */
static void text_add_value(struct text *t, const char *value) {
    for (; *value && t->size + 8 < sizeof t->at; value++) {
        if (*value == '\\' || *value == '"')
            text_add(t, "\\", 1);
        if (*value == '\n')
            text_add(t, "\\n", 2);
        else
            text_add(t, value, 1);
    }
}

static void labels_text(struct text *t, const char *names, va_list values) {
    t->size = 0;
    t->at[0] = '\0';
    while (*names) {
        size_t n = strcspn(names, ",");
        const char *value = va_arg(values, const char *);
        if (t->size + n + 16 < sizeof t->at) { /* never leave half a pair */
            if (t->size > 0)
                text_add(t, ",", 1);
            text_add(t, names, n);
            text_add(t, "=\"", 2);
            text_add_value(t, value);
            text_add(t, "\"", 1);
        }
        names += n;
        if (*names == ',')
            names++;
    }
}

/* ---- Lookup ---- */

static size_t slot_of(const struct metrics *m, enum metric row, const struct text *t) {
    size_t at = (hash64(t->at, t->size) + hash64_u64((uint64_t)row)) & (METRICS_SLOTS - 1);
    for (;; at = (at + 1) & (METRICS_SLOTS - 1)) {
        const struct metrics_entry *e = m->slots[at];
        if (!e || (e->row == row && strcmp(e->labels, t->at) == 0))
            return at;
    }
}

static struct metrics_entry *entry_add(struct metrics *m, size_t slot, enum metric row,
                                       const struct text *t) {
    struct metrics_entry *e = calloc(1, sizeof *e + t->size + 1);
    if (!e)
        return NULL;
    e->row = row;
    memcpy(e->labels, t->at, t->size + 1);
    m->slots[slot] = e;
    m->n++;
    if (m->last[row])
        m->last[row]->next = e;
    else
        m->first[row] = e;
    m->last[row] = e;
    return e;
}

struct metric_series *metrics_series(struct metrics *m, enum metric row, ...) {
    assert(row < METRICS);
    struct text t;
    va_list values;
    va_start(values, row);
    labels_text(&t, metric_rows[row].labels, values);
    va_end(values);

    mutex_lock(&m->lock);
    size_t slot = slot_of(m, row, &t);
    struct metrics_entry *e = m->slots[slot];
    if (!e && m->n < METRICS_SERIES_MAX)
        e = entry_add(m, slot, row, &t);
    mutex_unlock(&m->lock);
    return e ? &e->series : &m->unseen;
}

/* The first bucket whose bound, 2^i, is not below v; the last one is +Inf. */
static unsigned bucket_of(uint64_t v) {
    if (v <= 1)
        return 0;
    unsigned i = 64 - (unsigned)__builtin_clzll(v - 1);
    return i < HISTOGRAM_BUCKETS ? i : HISTOGRAM_BUCKETS;
}

void metric_observe(struct metric_series *s, uint64_t v) {
    atomic_fetch_add_explicit(&s->buckets[bucket_of(v)], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->sum, v, memory_order_relaxed);
}

void metrics_add_source(struct metrics *m, struct metrics_source *source) {
    mutex_lock(&m->lock);
    source->next = m->sources;
    m->sources = source;
    mutex_unlock(&m->lock);
}

/* ---- The text form ---- */

static bool ends_with(const char *name, const char *suffix) {
    size_t n = strlen(name), m = strlen(suffix);
    return n >= m && strcmp(name + n - m, suffix) == 0;
}

static bool row_is_seconds(const struct metric_row *row) {
    return ends_with(row->name, "_seconds") || ends_with(row->name, "_seconds_total");
}

static void render_number(struct buffer *out, uint64_t v, bool seconds) {
    if (seconds)
        buffer_append_format(out, "%.15g", (double)v / 1e6);
    else
        buffer_append_format(out, "%llu", (unsigned long long)v);
}

static void render_plain(struct buffer *out, const char *name, const char *suffix,
                         const char *labels) {
    buffer_append_format(out, labels[0] ? "%s%s{%s} " : "%s%s%s ", name, suffix, labels);
}

static void render_histogram(struct buffer *out, const struct metric_row *row,
                             struct metrics_entry *e) {
    bool seconds = row_is_seconds(row);
    uint64_t count = 0;
    for (unsigned i = 0; i <= HISTOGRAM_BUCKETS; i++) {
        count += atomic_load_explicit(&e->series.buckets[i], memory_order_relaxed);
        buffer_append_format(out, "%s_bucket{%s%sle=\"", row->name, e->labels,
                             e->labels[0] ? "," : "");
        if (i < HISTOGRAM_BUCKETS)
            render_number(out, UINT64_C(1) << i, seconds);
        else
            buffer_append_string(out, "+Inf");
        buffer_append_format(out, "\"} %llu\n", (unsigned long long)count);
    }
    render_plain(out, row->name, "_sum", e->labels);
    render_number(out, atomic_load_explicit(&e->series.sum, memory_order_relaxed), seconds);
    buffer_append_string(out, "\n");
    render_plain(out, row->name, "_count", e->labels);
    buffer_append_format(out, "%llu\n", (unsigned long long)count);
}

static void render_row(struct buffer *out, enum metric id, struct metrics_entry *e) {
    static const char *const types[] = {
        [METRIC_COUNTER] = "counter", [METRIC_GAUGE] = "gauge", [METRIC_HISTOGRAM] = "histogram"};
    const struct metric_row *row = &metric_rows[id];
    buffer_append_format(out, "# HELP %s %s\n# TYPE %s %s\n", row->name, row->help, row->name,
                         types[row->type]);
    for (; e; e = e->next) {
        if (row->type == METRIC_HISTOGRAM) {
            render_histogram(out, row, e);
            continue;
        }
        render_plain(out, row->name, "", e->labels);
        render_number(out, atomic_load_explicit(&e->series.value, memory_order_relaxed),
                      row_is_seconds(row));
        buffer_append_string(out, "\n");
    }
}

void metrics_refresh(struct metrics *m) {
    mutex_lock(&m->lock);
    struct metrics_source *sources = m->sources;
    mutex_unlock(&m->lock);
    /* Without the lock: a source looks its series up. Sources are only ever put in front. */
    for (struct metrics_source *s = sources; s; s = s->next)
        s->collect(s, m);
}

void metrics_render(struct metrics *m, struct buffer *out) {
    metrics_refresh(m);
    mutex_lock(&m->lock);
    for (unsigned row = 0; row < METRICS; row++)
        render_row(out, row, m->first[row]);
    mutex_unlock(&m->lock);
}

/* ---- Sums ---- */

static void add_series(struct metric_sum *sum, const struct metric_series *s) {
    sum->value += atomic_load_explicit(&s->value, memory_order_relaxed);
    sum->sum += atomic_load_explicit(&s->sum, memory_order_relaxed);
    for (unsigned i = 0; i <= HISTOGRAM_BUCKETS; i++)
        sum->buckets[i] += atomic_load_explicit(&s->buckets[i], memory_order_relaxed);
}

struct metric_sum metrics_sum(struct metrics *m, enum metric row, const char *labels) {
    struct metric_sum sum = {0};
    assert(row < METRICS);
    mutex_lock(&m->lock);
    for (const struct metrics_entry *e = m->first[row]; e; e = e->next)
        if (!labels || strstr(e->labels, labels))
            add_series(&sum, &e->series);
    mutex_unlock(&m->lock);
    return sum;
}

bool metric_is_seconds(enum metric row) {
    return row_is_seconds(&metric_rows[row]);
}
