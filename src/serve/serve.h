/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server as a library: puts the parts together, starts them in order and stops them in order.
 *
 *            serve_start                                          serve_stop
 *   (none) ──▶ starting ── data opened, ports bound, replayed ──▶ ready ──▶ stopping ──▶ (none)
 *
 * Started and stopped by one thread, the one that reads the signals; serve_reload may be called by
 * that thread too. The options' texts and the log must outlive the server.
 */
#ifndef MILLRACE_SERVE_SERVE_H
#define MILLRACE_SERVE_SERVE_H

#include "http/http.h"
#include "serve/data.h"
#include "tasks/runner.h"

struct serve_options {
    struct data_options data;
    struct http_options http;
    struct socket_address metrics_listen;
    const char *listen_text; /* as given, for sentences */
    const char *metrics_listen_text;
    struct tasks_runner_options tasks; /* workers; what handlers are told */
    bool insecure;                     /* listening wider than loopback without a key is wanted */
    uint64_t checkpoint_interval_ms;
    uint64_t checkpoint_bytes;
    uint64_t stop_timeout_ms;
    struct bytes settings;     /* what GET /settings answers, as JSON; copied */
    uint64_t memory_max_bytes; /* 0: half of what the machine or the cgroup has */
    /* Told from time to time while the journal is replayed; may be NULL. */
    void (*replaying)(void *context, lsn_t at, lsn_t end);
    /* Told when serve_stop cannot end because a call of the system does not return, a disk that
     * hangs: only the end of the process helps. By a thread of its own; may be NULL. */
    void (*stuck)(void *context);
    void *context;
};

/* What serve_reload can change. */
struct serve_settings {
    const char *api_key; /* copied; NULL: none */
    uint64_t checkpoint_interval_ms;
    uint64_t checkpoint_bytes;
    struct bytes settings; /* copied */
};

struct serve;
/* Returns once requests are answered. SERVE_E_PROBLEM; nothing was logged before the ports were
 * bound. */
int serve_start(struct os *os, const struct serve_options *options, struct log *log,
                struct serve **ret_serve, struct problem *problem) MUST_USE;
/* Refuses new connections, finishes what is under way, persists, closes. Takes NULL. */
struct serve *serve_stop(struct serve *s);
/* -ENOMEM, and SERVE_E_PROBLEM when the key may not go: nothing was changed. */
int serve_reload(struct serve *s, const struct serve_settings *settings,
                 struct problem *problem) MUST_USE;

/* 0: this process is no API. */
uint16_t serve_port(const struct serve *s);
uint16_t serve_metrics_port(const struct serve *s);

#endif
