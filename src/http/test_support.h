/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the tests of this room: a journal and a store whose positions a test moves by hand (they take
 * the place of the real ones at link time), a table of routes, and a server on a free port of
 * loopback.
 */
#ifndef MILLRACE_HTTP_TEST_SUPPORT_H
#define MILLRACE_HTTP_TEST_SUPPORT_H

#include "http/http.h"
#include "http/test_client.h"
#include "os/sync.h"

/* ---- The journal and the store, by hand ---- */

struct journal {
    struct mutex lock;
    _Atomic lsn_t appended;
    _Atomic lsn_t durable;
    _Atomic lsn_t unknown;
    struct journal_listener *listeners;
};

struct work {
    _Atomic lsn_t visible;
    struct work_listener *_Atomic listeners;
    struct mutex lock;
    _Atomic lsn_t rejected; /* 0: none */
};

lsn_t journal_durable(const struct journal *j) {
    return atomic_load(&j->durable);
}
lsn_t journal_unknown(const struct journal *j) {
    return atomic_load(&j->unknown);
}
void journal_listen(struct journal *j, struct journal_listener *listener) {
    mutex_lock(&j->lock);
    listener->next = j->listeners;
    j->listeners = listener;
    mutex_unlock(&j->lock);
}
void journal_unlisten(struct journal *j, struct journal_listener *listener) {
    mutex_lock(&j->lock);
    for (struct journal_listener **at = &j->listeners; *at; at = &(*at)->next) {
        if (*at == listener) {
            *at = listener->next;
            break;
        }
    }
    mutex_unlock(&j->lock);
}
const char *journal_state_text(const struct journal *j) {
    (void)j;
    return "No space left on device";
}
void work_listen(struct work *w, struct work_listener *listener) {
    mutex_lock(&w->lock);
    listener->next = atomic_load(&w->listeners);
    atomic_store(&w->listeners, listener);
    mutex_unlock(&w->lock);
}
bool work_visible(const struct work *w, uint64_t lane_mask, lsn_t lsn) {
    (void)lane_mask;
    return atomic_load(&w->visible) >= lsn;
}
bool work_rejection(struct work *w, lsn_t first, lsn_t last, char *reason, size_t size) {
    lsn_t rejected = atomic_load(&w->rejected);
    if (rejected < first || rejected > last)
        return false;
    (void)snprintf(reason, size, "the store does not want record %llu",
                   (unsigned long long)rejected);
    return true;
}

static UNUSED void commit(struct journal *j, lsn_t lsn) {
    atomic_store(&j->durable, lsn);
    struct journal_listener *first = j->listeners;
    for (struct journal_listener *l = first; l; l = l->next)
        l->durable(l, lsn);
}

static UNUSED void make_visible(struct work *w, lsn_t lsn) {
    atomic_store(&w->visible, lsn);
    for (struct work_listener *l = atomic_load(&w->listeners); l; l = l->next) {
        lsn_t wanted = atomic_load(&l->wanted);
        if (wanted <= lsn && atomic_compare_exchange_strong(&l->wanted, &wanted, UINT64_MAX))
            l->visible(l);
    }
}

/* ---- The routes ---- */

struct site {
    struct journal journal;
    struct journal other; /* of the second table */
    struct work work;
    struct metrics *metrics;
    struct http_server *server;
    struct socket_address address;
    _Atomic unsigned writes; /* runs of the handler of /write */
    _Atomic unsigned closed; /* calls of closed of /stream */
    _Atomic uint64_t streamed;
    _Atomic unsigned hold; /* /held waits until it is 0 */
    _Atomic unsigned held;
};

static void on_empty(void *site, struct http_request *r) {
    (void)site;
    http_respond(r, 204, NULL, BYTES_LITERAL(""));
}

static void on_name(void *site, struct http_request *r) {
    (void)site;
    struct bytes name = http_path_parameter(r, "name");
    struct bytes q = BYTES_LITERAL("");
    (void)http_query_parameter(r, "q", &q);
    struct buffer *out = http_scratch(r);
    buffer_append_bytes(out, name);
    buffer_append_string(out, "|");
    buffer_append_bytes(out, q);
    buffer_append_string(out, http_query_flag(r, "flag", false) ? "|yes" : "|no");
    http_respond(r, 200, "text/plain", buffer_bytes(out));
}

static void on_echo(void *site, struct http_request *r) {
    (void)site;
    struct bytes body = http_body(r);
    uint8_t sum = 0;
    for (size_t i = 0; i < JSON_PADDING; i++) /* must be readable */
        sum |= (uint8_t)(body.data ? body.data[body.size + i] : 0);
    (void)sum;
    http_respond(r, 200, "application/octet-stream", body);
}

static void on_search(void *site, struct http_request *r) {
    (void)site;
    http_respond(r, 200, "text/plain", BYTES_LITERAL("search"));
}

static void on_missing(void *site, struct http_request *r) {
    (void)site;
    http_fail(r, HTTP_ERROR_NOT_FOUND, "name", "Not found: Collection `%s` doesn't exist!", "x");
}

static unsigned render_write(struct http_request *r, enum http_write_outcome outcome,
                             struct buffer *body) {
    (void)r;
    buffer_append_string(body, outcome == HTTP_WRITE_VISIBLE ? "visible" : "durable");
    return 201;
}

/* ?wait=true waits for visibility, ?timeout_ms bounds it, ?full=1 finds the journal full,
 * ?nothing=1 appends nothing. */
static void on_write(void *context, struct http_request *r) {
    struct site *site = context;
    atomic_fetch_add(&site->writes, 1);
    if (http_query_flag(r, "full", false)) {
        http_fail_journal(r, JOURNAL_E_UNAVAILABLE);
        return;
    }
    if (http_query_flag(r, "nothing", false)) {
        http_await_write(r, &(struct http_write){.render = render_write});
        return;
    }
    struct bytes timeout;
    uint64_t timeout_ms = 0;
    if (http_query_parameter(r, "timeout_ms", &timeout))
        for (size_t i = 0; i < timeout.size; i++)
            timeout_ms = timeout_ms * 10 + (timeout.data[i] - '0');
    lsn_t lsn = atomic_fetch_add(&site->journal.appended, 1) + 1;
    const struct http_write write = {
        .first = lsn,
        .last = lsn,
        .lane_mask = 1,
        .work = &site->work,
        .wait_visible = http_query_flag(r, "wait", false),
        .timeout_ms = timeout_ms,
        .render = render_write,
    };
    http_await_write(r, &write);
}

static void job_echo(void *context, struct http_request *r) {
    struct site *site = context;
    atomic_fetch_add(&site->held, 1);
    while (atomic_load(&site->hold))
        os_sleep_ns(os_real(), 1000000);
    struct buffer *out = http_scratch(r);
    buffer_append_bytes(out, http_body(r));
    http_respond(r, 200, "text/plain", buffer_bytes(out));
}

static void on_offload(void *site, struct http_request *r) {
    http_offload(r, job_echo, site);
}

/* Waits elsewhere, and then writes. */
static void job_resume(void *context, struct http_request *r) {
    struct site *site = context;
    atomic_fetch_add(&site->held, 1);
    while (atomic_load(&site->hold))
        os_sleep_ns(os_real(), 1000000);
    http_resume(r, on_write, site);
}

static void on_wait(void *site, struct http_request *r) {
    http_offload_waiting(r, job_resume, site);
}

static void on_stream_begin(void *site, struct http_request *r);

static void job_begin(void *context, struct http_request *r) {
    struct site *site = context;
    atomic_fetch_add(&site->held, 1);
    while (atomic_load(&site->hold))
        os_sleep_ns(os_real(), 1000000);
    if (http_query_flag(r, "fail", false))
        http_fail(r, HTTP_ERROR_UNKNOWN_COLLECTION, NULL, NULL);
    else
        http_resume(r, on_stream_begin, site);
}

/* ?wait=1 waits elsewhere before the body is read; &fail=1 is refused there. */
static void on_stream_begin(void *site, struct http_request *r) {
    if (http_query_flag(r, "wait", false) && !http_state(r)) {
        http_set_state(r, site);
        http_offload_waiting(r, job_begin, site);
        return;
    }
    if (http_query_flag(r, "refuse", false)) {
        http_fail(r, HTTP_ERROR_UNKNOWN_COLLECTION, NULL, NULL);
        return;
    }
    uint64_t *count = arena_calloc(http_arena(r), 3, sizeof *count);
    assert_non_null(count);
    http_set_state(r, count);
}

/* ?pause=1 pauses for longer than a test, ?nap=1 for a moment at every piece; ?stop=1 fails. */
static void on_stream_chunk(void *context, struct http_request *r, struct bytes chunk) {
    struct site *site = context;
    uint64_t *count = http_state(r);
    count[0] += chunk.size;
    count[1] = count[1] > chunk.size ? count[1] : chunk.size;
    atomic_fetch_add(&site->streamed, chunk.size);
    if (http_query_flag(r, "stop", false)) {
        http_fail(r, HTTP_ERROR_INVALID_FIELD, "line 1", "it is bad");
    } else if (http_query_flag(r, "pause", false)) {
        http_pause_body_ms(r, 60000);
    } else if (http_query_flag(r, "nap", false) && chunk.size == 0) {
        count[2] = 0; /* the turn that a nap ends with */
    } else if (http_query_flag(r, "nap", false)) {
        assert_int_equal(count[2], 0); /* nothing comes during a nap */
        count[2] = 1;
        http_pause_body_ms(r, 5);
    }
}

static void on_stream_end(void *site, struct http_request *r) {
    (void)site;
    uint64_t *count = http_state(r);
    if (http_query_flag(r, "late", false) && count[0] < (UINT64_C(3) << 60)) {
        count[0] += UINT64_C(1) << 60; /* asks to be called three times more */
        http_pause_body_ms(r, 2);
        return;
    }
    struct buffer *out = http_scratch(r);
    buffer_append_format(out, "%llu", (unsigned long long)(count[0] & ((UINT64_C(1) << 60) - 1)));
    http_respond(r, 200, "text/plain", buffer_bytes(out));
}

static void on_stream_closed(void *context, struct http_request *r) {
    struct site *site = context;
    assert_non_null(http_state(r));
    atomic_fetch_add(&site->closed, 1);
}

static void on_static(void *site, struct http_request *r) {
    (void)site;
    http_respond_static(r, "text/css", BYTES_LITERAL("body{}"), "\"v1\"");
}

static const struct http_route site_routes[] = {
    {.method = HTTP_GET, .path = "/", .handler = on_search, .flags = HTTP_ROUTE_OPEN, .query = ""},
    {.method = HTTP_GET, .path = "/empty", .handler = on_empty, .query = ""},
    {.method = HTTP_GET,
     .path = "/open",
     .handler = on_empty,
     .flags = HTTP_ROUTE_OPEN,
     .query = ""},
    {.method = HTTP_GET, .path = "/names/{name}", .handler = on_name, .query = "q,flag"},
    {.method = HTTP_DELETE, .path = "/names/{name}", .handler = on_echo, .query = ""},
    {.method = HTTP_POST, .path = "/names/search", .handler = on_search, .query = ""},
    {.method = HTTP_GET,
     .path = "/missing",
     .handler = on_missing,
     .style = HTTP_STYLE_QDRANT,
     .query = ""},
    {.method = HTTP_GET, .path = "/missing/here", .handler = on_missing, .query = ""},
    {.method = HTTP_GET, .path = "/static", .handler = on_static, .query = ""},
    {.method = HTTP_POST, .path = "/echo", .handler = on_echo, .query = ""},
    {.method = HTTP_POST,
     .path = "/ignore",
     .handler = on_empty,
     .flags = HTTP_ROUTE_ANY_BODY,
     .query = ""},
    {.method = HTTP_POST,
     .path = "/write",
     .handler = on_write,
     .flags = HTTP_ROUTE_WRITES,
     .query = "wait"},
    {.method = HTTP_POST, .path = "/offload", .handler = on_offload, .query = ""},
    {.method = HTTP_POST,
     .path = "/wait",
     .handler = on_wait,
     .flags = HTTP_ROUTE_WRITES,
     .query = ""},
    {.method = HTTP_POST,
     .path = "/stream",
     .handler = on_stream_begin,
     .flags = HTTP_ROUTE_STREAM,
     .query = "",
     .chunk = on_stream_chunk,
     .end = on_stream_end,
     .closed = on_stream_closed},
};

static const struct http_area site_area = {.segment = "missing",
                                           .style = HTTP_STYLE_QDRANT,
                                           .unsupported = "only the other server has it"};

/* The other server's part: the whole target, encoded again. */
static void on_beyond(void *site, struct http_request *r) {
    (void)site;
    struct buffer *out = http_scratch(r);
    buffer_append_format(out, "%s ", http_method_name(http_method_of(r)));
    http_target_append(r, out);
    http_respond(r, 200, "text/plain", buffer_bytes(out));
}

/* A table whose records are another journal's. */
static void on_other(void *context, struct http_request *r) {
    struct site *site = context;
    lsn_t lsn = atomic_fetch_add(&site->other.appended, 1) + 1;
    http_await_write(r, &(struct http_write){.first = lsn, .last = lsn, .render = render_write});
}
static const struct http_route other_routes[] = {{.method = HTTP_POST,
                                                  .path = "/other",
                                                  .handler = on_other,
                                                  .flags = HTTP_ROUTE_WRITES,
                                                  .query = ""}};

static const struct http_route site_fallback = {
    .method = HTTP_GET, .path = "(beyond)", .handler = on_beyond, .query = ""};
static const struct http_area site_beyond = {
    .segment = "beyond", .style = HTTP_STYLE_QDRANT, .unsupported = "", .fallback = &site_fallback};

static UNUSED void site_start_with(struct site *site, struct http_options options,
                                   const struct http_route *routes, size_t n) {
    memset(site, 0, sizeof *site);
    mutex_init(&site->journal.lock, LOCK_RANK_JOURNAL);
    mutex_init(&site->other.lock, LOCK_RANK_JOURNAL);
    mutex_init(&site->work.lock, LOCK_RANK_JOURNAL);
    if (!options.threads)
        options.threads = 2;
    if (!options.query_threads)
        options.query_threads = 1;
    options.waiting_threads = 1;
    assert_int_equal(socket_address_parse("127.0.0.1:0", &options.listen), 0);
    assert_int_equal(metrics_new(&site->metrics), 0);
    const struct http_route_table tables[] = {
        {.routes = routes, .n = n, .context = site, .journal = &site->journal, .area = &site_area},
        {.routes = other_routes,
         .n = ARRAY_LENGTH(other_routes),
         .context = site,
         .journal = &site->other,
         .area = &site_beyond},
    };
    assert_int_equal(
        http_server_new(os_real(), &options, tables, 2, site->metrics, NULL, &site->server), 0);
    assert_int_equal(http_server_start(site->server), 0);
    char text[32];
    (void)snprintf(text, sizeof text, "127.0.0.1:%u", http_server_port(site->server));
    assert_int_equal(socket_address_parse(text, &site->address), 0);
}

static UNUSED void site_start(struct site *site, struct http_options options) {
    site_start_with(site, options, site_routes, ARRAY_LENGTH(site_routes));
}

static UNUSED void site_stop(struct site *site) {
    site->server = http_server_free(site->server);
    site->metrics = metrics_free(site->metrics);
    mutex_deinit(&site->journal.lock);
    mutex_deinit(&site->other.lock);
    mutex_deinit(&site->work.lock);
}

#endif
