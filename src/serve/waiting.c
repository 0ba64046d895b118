/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Before the engines of all parts have been reached there is nothing to serve yet, and whoever
 * looks after this process must be able to see that it lives, and why it is not ready: two side
 * servers stand in on its addresses and answer the questions of health, until the engines are
 * there. They begin before the first is asked, as one that hangs takes seconds to be known.
 */
#include "serve/internal.h"

#include "base/json.h"

#include <stdio.h>

#define TRY_AGAIN_NS UINT64_C(500000000)

void waiting_init(struct waiting *w, struct os *os, struct log *log,
                  const struct serve_options *options) {
    *w = (struct waiting){.os = os, .log = log, .options = options, .part = ""};
    mutex_init(&w->lock, LOCK_RANK_SERVE);
}

void waiting_end(struct waiting *w) {
    for (size_t i = 0; i < WAITING_SIDES; i++)
        w->sides[i] = http_side_free(w->sides[i]);
}

void waiting_deinit(struct waiting *w) {
    waiting_end(w);
    mutex_deinit(&w->lock);
}

/* ---- what is answered meanwhile ---- */

static unsigned answer(struct waiting *w, struct buffer *body, const char **ret_type,
                       unsigned status) {
    char reason[PROBLEM_TEXT_MAX];
    mutex_lock(&w->lock);
    const char *part = w->part;
    snprintf(reason, sizeof reason, "%s", w->reason);
    mutex_unlock(&w->lock);
    *ret_type = "application/json";
    buffer_append_format(body,
                         "{\"status\":\"not ready\",\"version\":\"" MILLRACE_VERSION
                         "\",\"parts\":{\"server\":{\"ready\":false,\"reason\":\"starting%s%s\"}",
                         *part ? ": waits for the " : "", part);
    if (*part) {
        buffer_append_format(body, ",\"%s\":{\"ready\":false,\"reason\":", part);
        json_append_cstring(body, reason);
        buffer_append_u8(body, '}');
    }
    buffer_append_string(body, "}}\n");
    return status;
}

static unsigned answer_alive(void *waiting, struct buffer *body, const char **ret_type) {
    return answer(waiting, body, ret_type, 200);
}

static unsigned answer_ready(void *waiting, struct buffer *body, const char **ret_type) {
    return answer(waiting, body, ret_type, 503);
}

/* Whoever comes with something else is to come again. */
static unsigned answer_later(void *waiting UNUSED, struct buffer *body, const char **ret_type) {
    *ret_type = "application/json";
    buffer_append_string(body, "{\"error\":{\"code\":\"unavailable\",\"message\":\"the server is "
                               "starting: /readyz says what it waits for\"}}");
    return 503;
}

static int stand_in(struct waiting *w, struct problem *problem) {
    const struct serve_options *o = w->options;
    const struct socket_address *const addresses[WAITING_SIDES] = {&o->metrics_listen,
                                                                   &o->http.listen};
    const char *const flags[WAITING_SIDES] = {"--metrics-listen", "--listen"};
    const char *const texts[WAITING_SIDES] = {o->metrics_listen_text, o->listen_text};
    const struct http_side_route routes[WAITING_ROUTES] = {{"/healthz", answer_alive, w},
                                                           {"/health", answer_alive, w},
                                                           {"/livez", answer_alive, w},
                                                           {"/readyz", answer_ready, w},
                                                           {NULL, answer_later, w}};
    memcpy(w->routes, routes, sizeof routes);
    size_t n = serve_has_api(o) ? WAITING_SIDES : 1;
    for (size_t i = 0; i < n; i++) {
        int r = http_side_new(w->os, addresses[i], w->routes, WAITING_ROUTES, &w->sides[i]);
        if (r)
            return serve_cannot_listen(problem, flags[i], texts[i], r);
    }
    return 0;
}

/* ---- what the opening calls ---- */

void waiting_hear(void *waiting, const char *part, const char *sentence) {
    struct waiting *w = waiting;
    mutex_lock(&w->lock);
    bool new = strcmp(w->part, part) != 0 || strcmp(w->reason, sentence) != 0;
    w->part = part;
    snprintf(w->reason, sizeof w->reason, "%s", sentence);
    mutex_unlock(&w->lock);
    if (new)
        log_line(w->log, LOG_WARN, "an engine says", LOG_TEXT("part", part),
                 LOG_TEXT("says", sentence));
}

void waiting_hear_journal(void *waiting, const char *sentence) {
    waiting_hear(waiting, "journal", sentence);
}

int waiting_locked(void *waiting, struct problem *problem) {
    struct waiting *w = waiting;
    const struct data_options *data = &w->options->data;
    bool engines = data->journal.url || data->events_url || data->tasks_url;
    int r = serve_try_addresses(w->options, problem);
    return r || !engines ? r : stand_in(w, problem);
}

int waiting_again(void *waiting, const char *part, const char *why,
                  struct problem *problem UNUSED) {
    struct waiting *w = waiting;
    waiting_hear(w, part, why);
    if (w->options->replaying) /* it also looks whether it is time to stop */
        w->options->replaying(w->options->context, 0, 0);
    os_sleep_ns(w->os, TRY_AGAIN_NS);
    return 0;
}
