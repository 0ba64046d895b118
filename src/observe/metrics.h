/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metrics, in Prometheus' text form. One row a metric in metrics.def: name, type, help, the names
 * of its labels. A series is looked up or made once (by row and label values), then counted without
 * a lock by whoever holds the pointer. The registry owns every series until it is freed.
 * Thread-safe.
 */
#ifndef MILLRACE_OBSERVE_METRICS_H
#define MILLRACE_OBSERVE_METRICS_H

#include "base/bytes.h"
#include "base/error.h"

#include <stdatomic.h>

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

enum metric {
#define METRIC(id, type, name, labels, help) METRIC_##id,
#include "observe/metrics.def"
#undef METRIC
    METRICS
};

struct metric_row {
    enum metric_type type;
    const char *name;   /* millrace_… with the unit last; counters end in _total */
    const char *labels; /* names, comma-separated; "" for none */
    const char *help;
};
extern const struct metric_row metric_rows[METRICS];

enum { HISTOGRAM_BUCKETS = 26 }; /* 1 us · 2^i: up to 33 s and +Inf; for sizes 1 · 2^i */

struct metric_series {
    _Atomic uint64_t value; /* counters and gauges; of seconds: in microseconds, as histograms */
    _Atomic uint64_t buckets[HISTOGRAM_BUCKETS + 1];
    _Atomic uint64_t sum;
};

struct metrics;
int metrics_new(struct metrics **ret_metrics) MUST_USE;
struct metrics *metrics_free(struct metrics *m);

/* The series of a row with these label values, in the order of the row's label names (as many
 * const char * as the row has labels). Made when it is new; never NULL: past the bound of 4,096
 * series, or without memory, a series that nobody sees is returned. */
struct metric_series *metrics_series(struct metrics *m, enum metric row, ...);

static inline void metric_add(struct metric_series *s, uint64_t n) {
    atomic_fetch_add_explicit(&s->value, n, memory_order_relaxed);
}
static inline void metric_set(struct metric_series *s, uint64_t v) {
    atomic_store_explicit(&s->value, v, memory_order_relaxed);
}
/* Everything of a row named …_seconds or …_seconds_total is kept in microseconds and printed in
 * seconds; anything else is kept as the thing itself. */
void metric_observe(struct metric_series *s, uint64_t v);

/* Gauges that are cheaper to ask for than to keep: called before every rendering. */
struct metrics_source {
    void (*collect)(struct metrics_source *source, struct metrics *m);
    struct metrics_source *next;
};
void metrics_add_source(struct metrics *m, struct metrics_source *source);

/* Has the sources set their gauges: metrics_render does it, metrics_sum does not. */
void metrics_refresh(struct metrics *m);

/* A row's series added up. Seconds are in microseconds, as they are kept. */
struct metric_sum {
    uint64_t value;
    uint64_t buckets[HISTOGRAM_BUCKETS + 1];
    uint64_t sum;
};
/* Of those whose labels, as /metrics prints them, hold this text; NULL: of all. */
struct metric_sum metrics_sum(struct metrics *m, enum metric row, const char *labels);
/* Whether the row is one of seconds. */
bool metric_is_seconds(enum metric row);

/* Appends everything in the text format 0.0.4. */
void metrics_render(struct metrics *m, struct buffer *out);

#endif
