/* SPDX-License-Identifier: Apache-2.0 */
/* Streams of server-sent events: their text, every way in which they end, and their bounds. */
#include "http/sse.h"
#include "http/test_support.h"

#include <sys/resource.h>

enum { STREAMS_MAX = 1024, PIECE = 100 << 10, HUGE_PIECE = 64 << 20 };

static struct site site;
static struct budget budget;

/* ---- The route: numbers ---- */

struct counting {
    uint64_t at;
    uint64_t end;   /* the last event; 0: none, while site.hold is set */
    uint64_t bytes; /* of padding in each */
    bool silent;
};

static uint64_t number_of(const struct http_request *r, const char *name) {
    struct bytes text;
    char copy[32];
    if (!http_query_parameter(r, name, &text))
        return 0;
    (void)snprintf(copy, sizeof copy, "%.*s", (int)text.size, (const char *)text.data);
    return strtoull(copy, NULL, 10);
}

static void append_number(struct buffer *out, const struct counting *c) {
    char id[32];
    struct buffer data CLEANUP(buffer_deinit) = BUFFER_INIT;
    (void)snprintf(id, sizeof id, "%llu", (unsigned long long)c->at);
    buffer_append_string(&data, "x");
    uint8_t *padding = buffer_reserve(&data, c->bytes);
    assert_non_null(padding);
    memset(padding, '.', c->bytes);
    data.size += c->bytes;
    http_event_append(out, "number", id, buffer_bytes(&data));
}

static bool on_next(void *context, struct http_request *r, struct buffer *out) {
    struct site *s = context;
    struct counting *c = http_state(r);
    if (c->silent)
        return true;
    c->at++;
    append_number(out, c);
    return c->end ? c->at < c->end : atomic_load(&s->hold) != 0;
}

static void on_closed(void *context, struct http_request *r) {
    struct site *s = context;
    assert_non_null(http_state(r));
    http_set_state(r, NULL);
    atomic_fetch_add(&s->closed, 1);
}

static void on_events(void *context, struct http_request *r) {
    (void)context;
    struct counting *c = arena_calloc(http_arena(r), 1, sizeof *c);
    assert_non_null(c);
    const char *last = http_header(r, "Last-Event-ID");
    c->at = last ? strtoull(last, NULL, 10) : 0;
    c->end = number_of(r, "end");
    c->bytes = number_of(r, "bytes");
    c->silent = http_query_flag(r, "silent", false);
    http_set_state(r, c);
    http_set_header(r, "X-Mine", "yes");
    http_respond_events(
        r, &(struct http_events){.next = on_next, .closed = on_closed, .interval_ms = 1});
}

static const struct http_route routes[] = {
    {.method = HTTP_GET,
     .path = "/events",
     .handler = on_events,
     .flags = HTTP_ROUTE_EVENTS,
     .query = "end,bytes,silent"},
    {.method = HTTP_GET, .path = "/empty", .handler = on_empty, .query = ""},
};

static void begin(struct http_options options) {
    budget_init(&budget, UINT64_C(4) << 30);
    options.connections_max = 4000;
    options.budget = &budget;
    site_start_with(&site, options, routes, ARRAY_LENGTH(routes));
    atomic_store(&site.hold, 1);
}

static int start(void **state) {
    (void)state;
    begin((struct http_options){.body_timeout_s = 600});
    return 0;
}

static int stop(void **state) {
    (void)state;
    site_stop(&site);
    assert_int_equal(budget_used(&budget, BUDGET_ANSWERS), 0);
    return 0;
}

static uint64_t open_streams(void) {
    return atomic_load(&metrics_series(site.metrics, METRIC_HTTP_EVENT_STREAMS)->value);
}

/* ---- The client ---- */

static int open_stream(const char *request) {
    int fd = dial(&site.address);
    assert_true(send_text(fd, request));
    return fd;
}

static int open_events(const char *query) {
    char request[256];
    (void)snprintf(request, sizeof request, "GET /events?%s HTTP/1.1\r\nHost: x\r\n\r\n", query);
    return open_stream(request);
}

static struct answer head_of(int fd) {
    struct answer a;
    assert_true(read_head(fd, &a));
    return a;
}

/* Everything up to the end of the connection, which comes. */
static char *read_to_end(int fd) {
    struct buffer all = BUFFER_INIT;
    uint64_t begin_ns = os_monotonic_ns(os_real());
    for (;;) {
        size_t n = 0;
        uint8_t *room = buffer_reserve(&all, 65536);
        assert_non_null(room);
        int e = socket_read(fd, room, 65535, &n);
        if (e == OS_E_AGAIN) {
            wait_for(fd, POLLIN);
            continue;
        }
        if (e)
            break;
        all.size += n;
        assert_true(os_monotonic_ns(os_real()) - begin_ns < WAIT_MS * UINT64_C(1000000));
    }
    all.data[all.size] = '\0';
    return (char *)all.data;
}

/* Takes the chunks out of the text, in place; false when there is no last one. */
static bool unchunk(char *text) {
    char *to = text;
    for (char *at = text;;) {
        char *line = strstr(at, "\r\n");
        if (!line)
            return false;
        size_t n = strtoull(at, NULL, 16);
        if (n == 0)
            break;
        memmove(to, line + 2, n);
        to += n;
        assert_memory_equal(line + 2 + n, "\r\n", 2);
        at = line + 2 + n + 2;
    }
    *to = '\0';
    return true;
}

static void read_until(int fd, const char *wanted) {
    char text[512] = "";
    for (size_t n = 0; n + 1 < sizeof text && !strstr(text, wanted); n++)
        assert_true(read_byte(fd, &text[n]));
    assert_non_null(strstr(text, wanted));
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* ---- Their text ---- */

static void assert_event(const char *event, const char *id, const char *data, const char *text) {
    struct buffer out CLEANUP(buffer_deinit) = BUFFER_INIT;
    http_event_append(&out, event, id, bytes_of_string(data));
    assert_true(bytes_equal(buffer_bytes(&out), bytes_of_string(text)));
}

static void test_event_text(void **state) {
    (void)state;
    assert_event("progress", "7", "{}", "event: progress\nid: 7\ndata: {}\n\n");
    assert_event(NULL, NULL, "", "data: \n\n");
    assert_event(NULL, NULL, "a\nb\r\nc\rd", "data: a\ndata: b\ndata: c\ndata: d\n\n");
    assert_event(NULL, NULL, "a\r", "data: a\ndata: \n\n");
    assert_event("x\ndata: forged", "1\r2", "a", "event: x\nid: 1\ndata: a\n\n");
}

static const char three_events[] = "event: number\nid: 1\ndata: x\n\n"
                                   "event: number\nid: 2\ndata: x\n\n"
                                   "event: number\nid: 3\ndata: x\n\n";

static void test_chunked(void **state) {
    (void)state;
    int fd = dial(&site.address);
    send_text(fd, "GET /empty HTTP/1.1\r\nHost: x\r\n\r\n"); /* a used connection does too */
    assert_int_equal(read_answer(fd).status, 204);
    send_text(fd, "GET /events?end=3 HTTP/1.1\r\nHost: x\r\n\r\nwhat nobody reads");
    struct answer a = head_of(fd);
    assert_int_equal(a.status, 200);
    assert_string_equal(header_of(&a, "Content-Type:"), "text/event-stream");
    assert_string_equal(header_of(&a, "Cache-Control:"), "no-store");
    assert_string_equal(header_of(&a, "X-Accel-Buffering:"), "no");
    assert_string_equal(header_of(&a, "Transfer-Encoding:"), "chunked");
    assert_string_equal(header_of(&a, "Connection:"), "close");
    assert_string_equal(header_of(&a, "X-Mine:"), "yes");
    assert_non_null(header_of(&a, "X-Request-Id:"));
    char *text = read_to_end(fd);
    assert_true(ends_with(text, "0\r\n\r\n"));
    assert_true(unchunk(text));
    assert_string_equal(text, three_events);
    free(text);
    socket_close(fd);
    until(&site.closed, 1);
    assert_int_equal(open_streams(), 0);
}

static void test_http10(void **state) {
    (void)state;
    int fd = open_stream("GET /events?end=3 HTTP/1.0\r\nHost: x\r\n\r\n");
    struct answer a = head_of(fd);
    assert_int_equal(a.status, 200);
    assert_null(header_of(&a, "Transfer-Encoding:"));
    char *text = read_to_end(fd);
    assert_string_equal(text, three_events);
    free(text);
    socket_close(fd);
}

static void test_head(void **state) {
    (void)state;
    int fd = open_stream("HEAD /events?end=3 HTTP/1.1\r\nHost: x\r\n\r\n");
    struct answer a = head_of(fd);
    assert_int_equal(a.status, 200);
    assert_string_equal(header_of(&a, "Content-Type:"), "text/event-stream");
    char *text = read_to_end(fd);
    assert_string_equal(text, "");
    free(text);
    socket_close(fd);
    until(&site.closed, 1);
}

static void test_last_event_id(void **state) {
    (void)state;
    int fd = open_stream("GET /events?end=9 HTTP/1.1\r\nHost: x\r\nLast-Event-ID: 8\r\n\r\n");
    assert_int_equal(head_of(fd).status, 200);
    char *text = read_to_end(fd);
    assert_true(unchunk(text));
    assert_string_equal(text, "event: number\nid: 9\ndata: x\n\n");
    free(text);
    socket_close(fd);
}

/* ---- How they end ---- */

static void test_hang_up(void **state) {
    (void)state;
    int silent = open_events("silent");
    int loud = open_events("");
    assert_int_equal(head_of(silent).status, 200);
    read_until(loud, "id: 5\n");
    assert_int_equal(open_streams(), 2);
    socket_close(silent);
    until(&site.closed, 1);
    socket_close(loud);
    until(&site.closed, 2);
    UNTIL(open_streams() == 0);
}

/* Waits until the stream holds what its client does not read. */
static int open_stuck(void) {
    char query[32];
    (void)snprintf(query, sizeof query, "bytes=%d", PIECE);
    int fd = open_events(query);
    UNTIL(budget_used(&budget, BUDGET_ANSWERS) > 0);
    assert_true(budget_used(&budget, BUDGET_ANSWERS) <= 2 * PIECE);
    return fd;
}

/* Whoever reads late gets every event whole. */
static void test_late_reader(void **state) {
    (void)state;
    int fd = open_stuck();
    atomic_store(&site.hold, 0);
    assert_int_equal(head_of(fd).status, 200);
    char *text = read_to_end(fd);
    assert_true(unchunk(text));
    unsigned events = 0;
    for (const char *at = text; *at; events++) {
        char head[64];
        (void)snprintf(head, sizeof head, "event: number\nid: %u\ndata: x", events + 1);
        assert_memory_equal(at, head, strlen(head));
        at += strlen(head);
        assert_int_equal(strspn(at, "."), PIECE);
        assert_memory_equal(at + PIECE, "\n\n", 2);
        at += PIECE + 2;
    }
    assert_true(events > 1);
    free(text);
    socket_close(fd);
    until(&site.closed, 1);
}

static void test_slow_reader_is_cut(void **state) {
    (void)state;
    site_stop(&site);
    begin((struct http_options){.body_timeout_s = 1});
    int fd = open_stuck();
    until(&site.closed, 1);
    assert_int_equal(budget_used(&budget, BUDGET_ANSWERS), 0);
    assert_int_equal(head_of(fd).status, 200);
    char *text = read_to_end(fd);
    assert_false(ends_with(text, "0\r\n\r\n")); /* it can tell that something is missing */
    free(text);
    socket_close(fd);
}

static void test_too_much_at_once(void **state) {
    (void)state;
    char query[32];
    (void)snprintf(query, sizeof query, "bytes=%d", HUGE_PIECE);
    int fd = open_events(query);
    until(&site.closed, 1);
    free(read_to_end(fd)); /* it ends */
    socket_close(fd);
}

static void test_no_memory_to_wait(void **state) {
    (void)state;
    uint64_t part = budget_part(&budget, BUDGET_ANSWERS);
    char query[32];
    (void)snprintf(query, sizeof query, "bytes=%d", PIECE);
    assert_true(budget_take(&budget, BUDGET_ANSWERS, part));
    int fd = open_events(query);
    until(&site.closed, 1);
    assert_int_equal(budget_used(&budget, BUDGET_ANSWERS), part);
    budget_give(&budget, BUDGET_ANSWERS, part);
    free(read_to_end(fd)); /* it ends */
    socket_close(fd);
}

static void test_keep_alive(void **state) {
    (void)state;
    site_stop(&site);
    begin((struct http_options){.events_keep_alive_ms = 50});
    int fd = open_events("silent");
    assert_int_equal(head_of(fd).status, 200);
    read_until(fd, "0000000e\r\n: keep-alive\n\n\r\n");
    read_until(fd, "0000000e\r\n: keep-alive\n\n\r\n");
    assert_int_equal(open_streams(), 1);
    socket_close(fd);
}

static void test_age(void **state) {
    (void)state;
    site_stop(&site);
    begin((struct http_options){.events_age_max_ms = 100});
    int fd = open_events("silent");
    assert_int_equal(head_of(fd).status, 200);
    char *text = read_to_end(fd);
    assert_string_equal(text, "0\r\n\r\n");
    free(text);
    socket_close(fd);
    until(&site.closed, 1);
}

struct stopper {
    struct http_server *server;
    _Atomic unsigned done;
};

static void stop_thread(void *argument) {
    struct stopper *stopper = argument;
    http_server_stop(stopper->server, UINT64_C(10) * WAIT_MS);
    atomic_store(&stopper->done, 1);
}

/* The stop waits for what is in flight, but not for streams, whatever they are doing. */
static void test_stop(void **state) {
    (void)state;
    int silent = open_events("silent");
    int loud = open_events("");
    assert_int_equal(head_of(silent).status, 200);
    assert_int_equal(head_of(loud).status, 200);
    int stuck = open_stuck();
    struct stopper stopper = {.server = site.server};
    struct os_thread *thread = NULL;
    assert_int_equal(os_thread_start(os_real(), "stop", stop_thread, &stopper, &thread), 0);
    until(&stopper.done, 1);
    os_thread_join(os_real(), thread);
    until(&site.closed, 3);
    assert_int_equal(open_streams(), 0);
    char *text = read_to_end(silent);
    assert_string_equal(text, "0\r\n\r\n");
    free(text);
    text = read_to_end(loud);
    assert_true(ends_with(text, "0\r\n\r\n"));
    free(text);
    free(read_to_end(stuck)); /* it ends */
    socket_close(silent);
    socket_close(loud);
    socket_close(stuck);
}

/* ---- How many there are ---- */

static void test_too_many(void **state) {
    (void)state;
    static int fds[STREAMS_MAX];
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_cur < 2 * STREAMS_MAX + 1024)
        skip(); /* both ends are ours */
    for (size_t i = 0; i < STREAMS_MAX; i++) {
        fds[i] = open_events("silent");
        assert_int_equal(head_of(fds[i]).status, 200);
    }
    assert_int_equal(open_streams(), STREAMS_MAX);
    struct answer a = get(&site.address, "/events?silent");
    assert_int_equal(a.status, 503);
    assert_non_null(strstr(a.body, "\"overloaded\""));
    assert_string_equal(header_of(&a, "Retry-After:"), "1");
    until(&site.closed, 1); /* told as for a stream that was */
    assert_int_equal(get(&site.address, "/empty").status, 204);
    socket_close(fds[7]); /* and one that goes makes room */
    until(&site.closed, 2);
    fds[7] = open_events("silent");
    assert_int_equal(head_of(fds[7]).status, 200);
    for (size_t i = 0; i < STREAMS_MAX; i++)
        socket_close(fds[i]);
    UNTIL(open_streams() == 0);
    until(&site.closed, STREAMS_MAX + 2);
}

#define SSE_TEST(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_event_text),
        SSE_TEST(test_chunked),
        SSE_TEST(test_http10),
        SSE_TEST(test_head),
        SSE_TEST(test_last_event_id),
        SSE_TEST(test_hang_up),
        SSE_TEST(test_late_reader),
        SSE_TEST(test_slow_reader_is_cut),
        SSE_TEST(test_too_much_at_once),
        SSE_TEST(test_no_memory_to_wait),
        SSE_TEST(test_keep_alive),
        SSE_TEST(test_age),
        SSE_TEST(test_stop),
        SSE_TEST(test_too_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
