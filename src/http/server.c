/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server: what its loops share, its start and its ordered stop.
 *
 *                    ┌──────────── loop 0 (accepts) ─┐            ┌─ query thread
 *   clients ──tcp──▶ │   deals connections out to    │─ offload ─▶│      …
 *                    └▶ loop 1 … loop n ─────────────┘◀─ post ────┴─ query thread
 *                          │ append        ▲ durable, visible (wake)
 *                          ▼               │
 *                       journal ───────▶ works
 *
 * Stop: SERVING → DRAINING (no new connections, idle ones closed, new requests get 503, what is in
 * flight goes on) → ENDING (what still waits is answered; the threads end).
 */
#include "http/internal.h"
#include "os/process.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#define MS UINT64_C(1000000)

enum {
    BODY_MAX_BYTES = 32 << 20,
    HEADER_MAX_BYTES = 32 << 10,
    CONNECTIONS_MAX = 16384,
    DESCRIPTORS_KEPT = 512, /* for the journal, the stores and ourselves */
    IDLE_TIMEOUT_S = 75,
    BODY_TIMEOUT_S = 60,
    COMMIT_TIMEOUT_MS = 5000,
    EVENTS_MAX = 1024,
    EVENTS_KEEP_ALIVE_MS = 15000,
    EVENTS_AGE_MAX_MS = 3600000,
    STALL_S = 10,
};

/* However many connect, the journal and the stores can still open their files. */
static unsigned connections_possible(void) {
    uint64_t all = process_descriptors();
    uint64_t possible = all - (all / 2 < DESCRIPTORS_KEPT ? all / 2 : DESCRIPTORS_KEPT);
    return possible < UINT_MAX ? (unsigned)possible : UINT_MAX - 1;
}

static void bound_connections(struct http_server *s) {
    struct http_options *o = &s->options;
    unsigned possible = connections_possible();
    if (o->connections_max <= possible)
        return;
    o->connections_max = possible;
    if (s->log)
        log_line(s->log, LOG_WARN,
                 "the limit of open files (ulimit -Hn) allows fewer connections than asked for",
                 LOG_NUMBER("connections", possible));
}

static void options_default(struct http_options *o) {
    o->threads = o->threads ? o->threads : process_cores();
    o->query_threads = o->query_threads ? o->query_threads : process_cores();
    o->body_max_bytes = o->body_max_bytes ? o->body_max_bytes : BODY_MAX_BYTES;
    o->header_max_bytes = o->header_max_bytes ? o->header_max_bytes : HEADER_MAX_BYTES;
    o->connections_max = o->connections_max ? o->connections_max : CONNECTIONS_MAX;
    o->idle_timeout_s = o->idle_timeout_s ? o->idle_timeout_s : IDLE_TIMEOUT_S;
    o->body_timeout_s = o->body_timeout_s ? o->body_timeout_s : BODY_TIMEOUT_S;
    o->commit_timeout_ms = o->commit_timeout_ms ? o->commit_timeout_ms : COMMIT_TIMEOUT_MS;
    o->events_max = o->events_max ? o->events_max : EVENTS_MAX;
    if (!o->events_keep_alive_ms)
        o->events_keep_alive_ms = EVENTS_KEEP_ALIVE_MS;
    o->events_age_max_ms = o->events_age_max_ms ? o->events_age_max_ms : EVENTS_AGE_MAX_MS;
}

/* Bodies to come get at most an eighth of what bodies may have. */
static size_t spare_bytes_for(const struct http_options *o) {
    uint64_t share = budget_part(o->budget, BUDGET_BODIES) / 8 / o->threads;
    return share < HTTP_SPARE_BYTES_MAX ? (size_t)share : HTTP_SPARE_BYTES_MAX;
}

/* Everything but the loops. */
static int server_prepare(struct http_server *s, const struct http_route_table *tables,
                          size_t n_tables) {
    int r = os_random(s->os, &s->id_seed, sizeof s->id_seed);
    if (r)
        return error_fold(r);
    r = router_new(tables, n_tables, &s->router);
    if (r)
        return error_trace(r);
    s->loops = calloc(s->options.threads, sizeof *s->loops);
    if (!s->loops)
        return error_origin(-ENOMEM);
    s->spare_bytes_max = spare_bytes_for(&s->options);
    s->in_bytes = metrics_series(s->metrics, METRIC_HTTP_IN_BYTES);
    s->out_bytes = metrics_series(s->metrics, METRIC_HTTP_OUT_BYTES);
    s->connections_gauge = metrics_series(s->metrics, METRIC_HTTP_CONNECTIONS);
    s->refused_total = metrics_series(s->metrics, METRIC_HTTP_REFUSED);
    s->sse_gauge = metrics_series(s->metrics, METRIC_HTTP_EVENT_STREAMS);
    return 0;
}

static int server_init(struct http_server *s, const struct http_route_table *tables,
                       size_t n_tables) {
    /* First what the user can get wrong. */
    int r = socket_listen(&s->options.listen, &s->listener, &s->port);
    if (r)
        return error_trace(r);
    r = server_prepare(s, tables, n_tables);
    if (r)
        return error_trace(r);
    while (s->n_loops < s->options.threads) {
        size_t index = s->n_loops++; /* counted before: a half made one is taken down too */
        r = http_loop_init(&s->loops[index], s, (unsigned)index);
        if (r)
            return error_trace(r);
    }
    return 0;
}

int http_server_new(struct os *os, const struct http_options *options,
                    const struct http_route_table *tables, size_t n_tables, struct metrics *metrics,
                    struct log *log, struct http_server **ret_server) {
    struct http_server *s = calloc(1, sizeof *s);
    if (!s)
        return error_origin(-ENOMEM);
    s->os = os;
    s->options = *options;
    options_default(&s->options);
    atomic_init(&s->api_key, options->api_key);
    s->metrics = metrics;
    s->log = log;
    s->listener = -1;
    bound_connections(s);
    http_pool_init(&s->pool);
    http_pool_init(&s->waiting);
    int r = server_init(s, tables, n_tables);
    if (r) {
        http_server_free(s);
        return error_trace(r);
    }
    *ret_server = s;
    return 0;
}

int http_server_start(struct http_server *s) {
    assert(!s->started);
    for (size_t i = 0; i < s->n_loops; i++)
        atomic_store(&s->loops[i].turned_ns, os_monotonic_ns(s->os));
    s->started = true;
    int r = http_pool_start(&s->pool, s, "query", s->options.query_threads);
    if (!r)
        r = http_pool_start(&s->waiting, s, "waiting", s->options.waiting_threads);
    if (r)
        return error_trace(r);
    for (size_t i = 0; i < s->n_loops; i++) {
        r = os_thread_start(s->os, "http", http_loop_run, &s->loops[i], &s->loops[i].thread);
        if (r)
            return error_fold(r);
    }
    return 0;
}

void http_server_set_api_key(struct http_server *s, const char *key) {
    atomic_store(&s->api_key, key);
}

uint16_t http_server_port(const struct http_server *s) {
    return s->port;
}

static bool has_requests(const struct http_server *s) {
    for (size_t i = 0; i < s->n_loops; i++)
        if (atomic_load_explicit(&s->loops[i].n_requests, memory_order_relaxed))
            return true;
    return false;
}

static void enter_phase(struct http_server *s, enum http_phase phase) {
    atomic_store(&s->phase, phase);
    for (size_t i = 0; i < s->n_loops; i++)
        event_signal(&s->loops[i].wake);
}

void http_server_stop(struct http_server *s, uint64_t timeout_ms) {
    if (!s->started || s->stopped)
        return;
    s->stopped = true;
    enter_phase(s, HTTP_DRAINING);
    uint64_t deadline = os_monotonic_ns(s->os) + timeout_ms * MS;
    while (has_requests(s) && os_monotonic_ns(s->os) < deadline)
        os_sleep_ns(s->os, 2 * MS);
    http_pool_stop(&s->waiting, s);
    http_pool_stop(&s->pool, s); /* a job that runs is let end: its request cannot go before it */
    enter_phase(s, HTTP_ENDING);
    for (size_t i = 0; i < s->n_loops; i++) {
        os_thread_join(s->os, s->loops[i].thread);
        s->loops[i].thread = NULL;
    }
    /* Loop 0 may have dealt a connection to a loop that had just ended. */
    for (size_t i = 0; i < s->n_loops; i++)
        http_loop_close_arrived(&s->loops[i]);
    http_refused_sweep(s, 0, true);
    socket_close(s->listener);
    s->listener = -1;
}

struct http_server *http_server_free(struct http_server *s) {
    if (!s)
        return NULL;
    http_server_stop(s, 0);
    for (size_t i = 0; i < s->n_loops; i++)
        http_loop_deinit(&s->loops[i]);
    if (s->listener >= 0)
        socket_close(s->listener);
    free(s->loops);
    router_free(s->router);
    http_pool_deinit(&s->waiting);
    http_pool_deinit(&s->pool);
    free(s);
    return NULL;
}

bool http_server_stalled(const struct http_server *s) {
    uint64_t now = os_monotonic_ns(s->os);
    for (size_t i = 0; s->started && !s->stopped && i < s->n_loops; i++) {
        uint64_t turned = atomic_load_explicit(&s->loops[i].turned_ns, memory_order_relaxed);
        if (now > turned && now - turned > STALL_S * UINT64_C(1000000000))
            return true;
    }
    return false;
}
