/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `millrace status --watch`: a server at a glance, again and again. status_sample.c reads what the
 * server says (/metrics, /healthz), status_rates.c makes rates of two readings and keeps the last
 * minute, status_show.c shows them (a screen, a line, an object), status_watch.c asks and waits.
 * Plain values of one thread.
 */
#ifndef MILLRACE_CLI_STATUS_H
#define MILLRACE_CLI_STATUS_H

#include "cli/cli.h"

enum {
    STATUS_KINDS_MAX = 8,
    STATUS_PARTS_MAX = 12,
    STATUS_NAME_MAX = 24,
    STATUS_REASON_MAX = 160,
    STATUS_URL_MAX = 160,
    STATUS_BUCKETS_MAX = 64,
    STATUS_HISTORY = 60, /* intervals that the sparklines show */
};

/* ---- One reading ---- */

/* What is counted of one kind of record, by the consumer's name. */
struct status_kind {
    char name[STATUS_NAME_MAX];
    double appended;
    double applied;
    double lag_records;
    double lag_seconds;
    double threads;
    double busy;
    double dead_letters; /* kept now */
};

/* Cumulative counts, as Prometheus has them: counts[i] values were at most bounds[i]. */
struct status_histogram {
    double bounds[STATUS_BUCKETS_MAX];
    double counts[STATUS_BUCKETS_MAX];
    size_t n;
};

struct status_part {
    char name[STATUS_NAME_MAX];
    bool ready;
    char reason[STATUS_REASON_MAX];  /* "" when it is ready */
    char url[STATUS_URL_MAX];        /* of the engine behind it; "" when there is none */
    bool reachable;                  /* that engine */
    char warning[STATUS_REASON_MAX]; /* "" when there is none */
};

struct status_sample {
    uint64_t at_ns;
    double started; /* seconds since 1970 */
    double requests;
    double errors; /* of them, answered 5xx */
    double connections;
    double durable_lsn;
    double journal_bytes;
    double resident;
    double memory_limit;
    double disk_free;
    struct status_histogram latency; /* seconds, over all routes */
    struct status_histogram sync;
    struct status_kind kinds[STATUS_KINDS_MAX];
    size_t n_kinds;
    char state[STATUS_NAME_MAX]; /* "ok", "not ready", "stalled" */
    char version[STATUS_NAME_MAX];
    struct status_part parts[STATUS_PARTS_MAX];
    size_t n_parts;
};

/* Adds what /metrics says. Series it does not know, and kinds past the bound, are left out. */
void status_read_metrics(struct status_sample *s, struct bytes text);
/* Adds what /healthz says; false when that is not what a millrace says. */
bool status_read_health(struct status_sample *s, struct bytes text) MUST_USE;

/* ---- What happened between two ---- */

/* Negative: not known. */
struct status_rates {
    double seconds;
    double requests; /* a second, as all of these */
    double errors;
    double latency_p50; /* seconds; negative when there was none */
    double latency_p99;
    double sync_p50;
    double sync_p99;
    double appended[STATUS_KINDS_MAX]; /* in the order of the newer sample's kinds */
    double applied[STATUS_KINDS_MAX];
};

/* True when the server was started anew in between. */
bool status_restarted(const struct status_sample *before, const struct status_sample *now);
void status_rates(const struct status_sample *before, const struct status_sample *now,
                  struct status_rates *ret_rates);
/* Rates of which nothing is known. */
void status_rates_unknown(struct status_rates *ret_rates);
/* The value that the part q of those counted between the two does not exceed, interpolated within
 * its bucket; negative when none were. */
double status_quantile(const struct status_histogram *before, const struct status_histogram *now,
                       double q);

/* The last values of something, oldest first. */
struct status_history {
    double values[STATUS_HISTORY];
    size_t n;
};
void status_remember(struct status_history *h, double value);

/* ---- How it is shown ---- */

struct status_view {
    const char *address;
    uint64_t interval_ms;
    int64_t wall_us;
    bool known;              /* there is a sample, of now or from before the server went away */
    bool restarted;          /* since the sample before */
    const char *unreachable; /* why there is no answer; NULL: there is */
    struct status_sample sample;
    struct status_rates rates;
    struct status_history requests;
    struct status_history latency;
    struct status_history appended[STATUS_KINDS_MAX];
    struct status_history applied[STATUS_KINDS_MAX];
};

struct status_screen {
    unsigned columns;
    unsigned rows;
    bool color;
    bool unicode;
};

/* Appends the whole screen, each line cut at its width. */
void status_show_screen(struct buffer *out, const struct status_view *view,
                        const struct status_screen *size);
/* Appends one line for people, or one object. */
void status_show_line(struct buffer *out, const struct status_view *view);
void status_show_json(struct buffer *out, const struct status_view *view);

/* status_watch.c: until it is asked to end, or --count is reached. The exit status: CLI_OK when the
 * last answer was that of a server that is ready. */
int status_watch(const struct cli *cli, const struct socket_address *address) MUST_USE;

#endif
