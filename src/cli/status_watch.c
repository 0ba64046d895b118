/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The watch: ask, show, wait, again. Keys, signals and the window's size are looked at while it
 * waits for an answer too, so a server that hangs does not take the terminal with it.
 *
 *   asking ──▶ known ──▶ waiting ──▶ asking
 *     └─ no answer ──▶ unreachable ──▶ waiting     what was known stays on the screen
 */
#include "cli/client.h"
#include "cli/status.h"

#include "os/process.h"
#include "os/terminal.h"

enum { ASK_TIMEOUT_MS = 2000, COLUMNS_DEFAULT = 80, ROWS_DEFAULT = 24 };

enum {
    _WATCH_E_SUCCESS,
    WATCH_E_QUIT = 64, /* beside the conditions of client.h */
    WATCH_E_NO_MILLRACE,
};

struct watch {
    const struct cli *cli;
    struct client client;
    struct terminal *terminal;
    bool screen;
    bool json;
    struct status_view view;
    struct status_sample before; /* of the last answer, when there was one without a gap */
    bool comparable;
    uint64_t shown; /* lines or objects */
};

/* ---- Showing ---- */

static void put(struct buffer *out) {
    if (buffer_check(out) == 0)
        fwrite(out->data, 1, out->size, stdout);
    fflush(stdout);
    buffer_deinit(out);
}

static void show_screen(struct watch *w) {
    struct buffer out = BUFFER_INIT;
    struct status_screen size = {.columns = COLUMNS_DEFAULT,
                                 .rows = ROWS_DEFAULT,
                                 .color = cli_color(stdout),
                                 .unicode = cli_unicode()};
    (void)terminal_size(fileno(stdout), &size.columns, &size.rows);
    status_show_screen(&out, &w->view, &size);
    put(&out);
}

/* A first answer tells no rates: for a line it is worth waiting for the second. */
static void show(struct watch *w) {
    struct buffer out = BUFFER_INIT;
    bool first = !w->view.unreachable && w->view.rates.seconds <= 0 && !w->view.restarted;
    if (first && !w->screen)
        return;
    w->shown++;
    if (w->screen) {
        show_screen(w);
        return;
    }
    if (w->json)
        status_show_json(&out, &w->view);
    else
        status_show_line(&out, &w->view);
    put(&out);
}

/* ---- Waiting ---- */

static bool ends(const struct watch *w, enum terminal_event event, char key) {
    if (event == TERMINAL_STOP)
        return true;
    return event == TERMINAL_KEY && w->screen &&
           (key == 'q' || key == 'Q' || key == TERMINAL_CTRL_C);
}

/* Waits for fd (-1: only for the time). WATCH_E_QUIT, CLIENT_E_TIMEOUT when the time is over. */
static int wait_for(struct watch *w, int fd, short events, uint64_t deadline_ns) {
    char key = 0;
    for (;;) {
        enum terminal_event event = terminal_wait(w->terminal, fd, events, deadline_ns, &key);
        if (event == TERMINAL_READY)
            return 0;
        if (event == TERMINAL_TIME)
            return CLIENT_E_TIMEOUT;
        if (ends(w, event, key))
            return WATCH_E_QUIT;
        if (event == TERMINAL_RESIZED && w->screen)
            show_screen(w);
    }
}

/* ---- Asking ---- */

static int ask_once(struct watch *w, const char *path, struct client_answer *ret_answer) {
    uint64_t deadline = os_monotonic_ns(w->cli->os) + (uint64_t)ASK_TIMEOUT_MS * 1000000;
    char request[128];
    snprintf(request, sizeof request,
             "GET %s HTTP/1.1\r\nHost: millrace\r\nContent-Length: 0\r\n\r\n", path);
    int r = client_begin(&w->client, bytes_of_string(request));
    if (r)
        return error_trace(r);
    do {
        r = wait_for(w, w->client.fd, client_events(&w->client), deadline);
        if (!r)
            r = client_step(&w->client, ret_answer);
        else
            client_close(&w->client);
    } while (r == CLIENT_E_MORE);
    return r < 0 ? error_trace(r) : r;
}

/* A connection that was kept may be closed by now. */
static int ask(struct watch *w, const char *path, struct client_answer *ret_answer) {
    bool kept = w->client.state == CLIENT_IDLE;
    int r = ask_once(w, path, ret_answer);
    if (r == CLIENT_E_CLOSED && kept)
        r = ask_once(w, path, ret_answer);
    return r < 0 ? error_trace(r) : r;
}

static int read_sample(struct watch *w, struct status_sample *s) {
    struct client_answer answer;
    int r = ask(w, "/healthz", &answer);
    if (r)
        return r < 0 ? error_trace(r) : r;
    if (!status_read_health(s, answer.body))
        return WATCH_E_NO_MILLRACE;
    r = ask(w, "/metrics", &answer);
    if (r)
        return r < 0 ? error_trace(r) : r;
    s->at_ns = os_monotonic_ns(w->cli->os);
    status_read_metrics(s, answer.body);
    return 0;
}

static void remember(struct status_view *view) {
    const struct status_rates *rates = &view->rates;
    status_remember(&view->requests, rates->requests);
    status_remember(&view->latency, rates->latency_p99);
    for (size_t i = 0; i < view->sample.n_kinds; i++) {
        status_remember(&view->appended[i], rates->appended[i]);
        status_remember(&view->applied[i], rates->applied[i]);
    }
}

static void take_sample(struct watch *w, const struct status_sample *s) {
    struct status_view *view = &w->view;
    view->restarted = view->known && status_restarted(&view->sample, s);
    view->unreachable = NULL;
    if (s->n_kinds != view->sample.n_kinds) { /* another version: what was kept is of others */
        memset(view->appended, 0, sizeof view->appended);
        memset(view->applied, 0, sizeof view->applied);
    }
    view->sample = *s;
    view->known = true;
    if (w->comparable && !view->restarted)
        status_rates(&w->before, s, &view->rates);
    else
        status_rates_unknown(&view->rates);
    w->before = *s;
    w->comparable = true;
    remember(view);
}

/* WATCH_E_QUIT. That there is no answer is shown, not an error. */
static int ask_all(struct watch *w) {
    struct status_sample sample = {0};
    int r = read_sample(w, &sample);
    if (r == WATCH_E_QUIT)
        return r;
    w->view.wall_us = (int64_t)os_wall_us(w->cli->os);
    if (!r) {
        take_sample(w, &sample);
        return 0;
    }
    w->view.unreachable =
        r == WATCH_E_NO_MILLRACE ? "what answers is not a millrace" : client_reason(r);
    w->view.restarted = false;
    w->comparable = false;
    status_rates_unknown(&w->view.rates);
    if (w->view.known)
        remember(&w->view);
    return 0;
}

/* ---- The whole ---- */

static void watch_loop(struct watch *w) {
    uint64_t interval_ns = w->view.interval_ms * 1000000;
    uint64_t count = options_number(w->cli->options, OPTION_WATCH_COUNT);
    uint64_t due = os_monotonic_ns(w->cli->os);
    for (;;) {
        if (ask_all(w) == WATCH_E_QUIT)
            return;
        show(w);
        if (ferror(stdout) || (count > 0 && w->shown >= count))
            return;
        uint64_t now = os_monotonic_ns(w->cli->os);
        due = due + interval_ns > now ? due + interval_ns : now + interval_ns;
        if (wait_for(w, -1, 0, due) == WATCH_E_QUIT)
            return;
    }
}

/* The screen of its own: what was there comes back at the end. */
static void screen_begin(void) {
    fputs("\033[?1049h\033[?25l\033[2J", stdout);
}

static void screen_end(void) {
    fputs("\033[?25h\033[?1049l", stdout);
    fflush(stdout);
}

int status_watch(const struct cli *cli, const struct socket_address *address) {
    struct watch w = {.cli = cli, .json = options_flag(cli->options, OPTION_JSON)};
    w.screen = !w.json && process_is_terminal(fileno(stdout));
    w.view.address = options_text(cli->options, OPTION_METRICS_LISTEN);
    w.view.interval_ms = options_number(cli->options, OPTION_INTERVAL);
    status_rates_unknown(&w.view.rates);
    if (terminal_open(w.screen && process_is_terminal(fileno(stdin)), &w.terminal))
        return cli_fail(CLI_FAILED, "the terminal cannot be watched");
    client_init(&w.client, address);
    if (w.screen)
        screen_begin();
    watch_loop(&w);
    if (w.screen)
        screen_end();
    client_deinit(&w.client);
    terminal_close(w.terminal);
    bool ready = !w.view.unreachable && strcmp(w.view.sample.state, "ok") == 0;
    return ready ? CLI_OK : CLI_FAILED;
}
