/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies: limits, encodings, bombs, streams and pauses. */
#include "http/test_support.h"

#include <zlib.h>
#include <zstd.h>

enum { BODY_MAX = 200 << 10 };

static struct site site;

static int start_with(struct http_options options) {
    options.body_max_bytes = BODY_MAX;
    options.header_max_bytes = 8 << 10;
    site_start(&site, options);
    return 0;
}

static int start(void **state) {
    (void)state;
    return start_with((struct http_options){.body_timeout_s = 300, .idle_timeout_s = 300});
}

static int start_impatient(void **state) {
    (void)state;
    return start_with((struct http_options){.body_timeout_s = 1, .idle_timeout_s = 2});
}

static int stop(void **state) {
    (void)state;
    site_stop(&site);
    return 0;
}

/* size bytes that neither zlib nor zstd makes much of. */
static uint8_t *noise(size_t size) {
    uint8_t *data = malloc(size);
    assert_non_null(data);
    uint64_t x = 88172645463325252u;
    for (size_t i = 0; i < size; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        data[i] = (uint8_t)x;
    }
    return data;
}

static size_t pack_zlib(const void *data, size_t size, int bits, uint8_t *out, size_t room) {
    z_stream z = {0};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, bits, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (Bytef *)(uintptr_t)data;
    z.avail_in = (uInt)size;
    z.next_out = out;
    z.avail_out = (uInt)room;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    size_t n = room - z.avail_out;
    deflateEnd(&z);
    return n;
}

static size_t pack_gzip(const void *data, size_t size, uint8_t *out, size_t room) {
    return pack_zlib(data, size, 16 + MAX_WBITS, out, room);
}

static void test_sizes(void **state) {
    (void)state;
    uint8_t *data = noise(BODY_MAX + 1);
    static const size_t sizes[] = {0, 1, 100, 65536, BODY_MAX};
    for (size_t i = 0; i < ARRAY_LENGTH(sizes); i++) {
        struct answer a = post(&site.address, "/echo", "", data, sizes[i]);
        assert_int_equal(a.status, 200);
        assert_int_equal(a.size, sizes[i]);
        size_t shown = a.size < sizeof a.body - 1 ? a.size : sizeof a.body - 1;
        assert_memory_equal(a.body, data, shown);
    }
    struct answer a = post(&site.address, "/echo", "", data, BODY_MAX + 1);
    assert_int_equal(a.status, 413);
    assert_non_null(strstr(a.body, "too_large"));
    free(data);
}

/* A refused body of moderate size is read to its end, and the connection serves on. */
static void test_too_large_keeps_the_connection(void **state) {
    (void)state;
    uint8_t *data = noise(BODY_MAX + 10);
    int fd = dial(&site.address);
    send_post(fd, "/echo", "", data, BODY_MAX + 10);
    unsigned status = read_answer(fd).status;
    assert_int_equal(status, 413);
#ifndef MILLRACE_TINY
    send_text(fd, "GET /empty HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(read_answer(fd).status, 204);
#endif
    socket_close(fd);
    free(data);
}

/* One of 64 MB is answered before it ends, and before any time is over. */
static void test_huge_is_answered_before_its_end(void **state) {
    (void)state;
    struct site patient;
    site_start(&patient, (struct http_options){.body_max_bytes = BODY_MAX});
    uint8_t *data = noise(1 << 20);
    int fd = dial(&patient.address);
    send_text(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 64000000\r\n\r\n");
    bool open = true;
    for (unsigned i = 0; i < 3 && open; i++)
        open = send_bytes(fd, data, 1 << 20);
    assert_int_equal(read_answer(fd).status, 413);
    assert_true(ends(fd));
    socket_close(fd);
    free(data);
    site_stop(&patient);
}

static void test_chunked_over_the_limit(void **state) {
    (void)state;
    uint8_t *data = noise(64 << 10);
    int fd = dial(&site.address);
    send_text(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    bool open = true;
    for (unsigned i = 0; i < 4 && open; i++) {
        send_text(fd, "10000\r\n");
        open = send_bytes(fd, data, 64 << 10) && send_text(fd, "\r\n");
    }
    send_text(fd, "0\r\n\r\n");
    assert_int_equal(read_answer(fd).status, 413);
    socket_close(fd);
    free(data);
}

static void test_expect_continue(void **state) {
    (void)state;
    int fd = dial(&site.address);
    send_text(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
                  "Content-Length: 2\r\n\r\n");
    struct answer a;
    assert_true(read_head(fd, &a));
    assert_int_equal(a.status, 100);
    send_text(fd, "ok");
    assert_string_equal(read_answer(fd).body, "ok");
    socket_close(fd);
    /* Refused before a byte of it is sent. */
    static const char *const refused[] = {
        "POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9000000\r\n\r\n",
        "POST /nope HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
        ("POST /stream?refuse=1 HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
         "Content-Length: 9\r\n\r\n"),
    };
    static const unsigned statuses[] = {413, 404, 404};
    for (size_t i = 0; i < ARRAY_LENGTH(refused); i++) {
        fd = dial(&site.address);
        send_text(fd, refused[i]);
        assert_true(read_head(fd, &a));
        assert_int_equal(a.status, statuses[i]); /* no 100 in front of it */
        assert_true(ends(fd));
        socket_close(fd);
    }
}

static void test_encodings(void **state) {
    (void)state;
    static const char text[] = "{\"a\":[1,2,3],\"b\":\"some text, some text, some text\"}";
    uint8_t packed[512];
    size_t n = pack_gzip(text, sizeof text - 1, packed, sizeof packed);
    assert_string_equal(post(&site.address, "/echo", "Content-Encoding: gzip\r\n", packed, n).body,
                        text);
    n = pack_zlib(text, sizeof text - 1, MAX_WBITS, packed, sizeof packed);
    assert_string_equal(
        post(&site.address, "/echo", "Content-Encoding: deflate\r\n", packed, n).body, text);
    n = ZSTD_compress(packed, sizeof packed, text, sizeof text - 1, 3);
    assert_string_equal(post(&site.address, "/echo", "Content-Encoding: ZSTD\r\n", packed, n).body,
                        text);
    assert_string_equal(
        post(&site.address, "/echo", "Content-Encoding: identity\r\n", text, sizeof text - 1).body,
        text);
    assert_int_equal(post(&site.address, "/echo", "Content-Encoding: br\r\n", "x", 1).status, 415);
    assert_int_equal(
        post(&site.address, "/echo", "Content-Encoding: gzip, gzip\r\n", "x", 1).status, 415);
    /* Two members are one stream; a body of no bytes is one too. */
    n = pack_gzip("abc", 3, packed, sizeof packed);
    n += pack_gzip("def", 3, packed + n, sizeof packed - n);
    assert_string_equal(post(&site.address, "/echo", "Content-Encoding: gzip\r\n", packed, n).body,
                        "abcdef");
    assert_int_equal(post(&site.address, "/echo", "Content-Encoding: gzip\r\n", "", 0).status, 200);
}

/* What comes out of one piece is many times what a decoder gives at once. */
static void test_highly_compressed(void **state) {
    (void)state;
    uint8_t *zeros = calloc(1, BODY_MAX);
    assert_non_null(zeros);
    uint8_t packed[4096];
    for (size_t size = BODY_MAX - 3; size <= BODY_MAX; size++) {
        size_t n = pack_gzip(zeros, size, packed, sizeof packed);
        struct answer a = post(&site.address, "/echo", "Content-Encoding: gzip\r\n", packed, n);
        assert_int_equal(a.status, 200);
        assert_int_equal(a.size, size);
        n = ZSTD_compress(packed, sizeof packed, zeros, size, 3);
        a = post(&site.address, "/echo", "Content-Encoding: zstd\r\n", packed, n);
        assert_int_equal(a.size, size);
    }
    free(zeros);
}

static void test_broken_encodings(void **state) {
    (void)state;
    uint8_t packed[512];
    size_t n = pack_gzip("abcdefgh", 8, packed, sizeof packed);
    assert_int_equal(
        post(&site.address, "/echo", "Content-Encoding: gzip\r\n", packed, n - 3).status, 400);
    packed[n - 6] ^= 1; /* its checksum */
    assert_int_equal(post(&site.address, "/echo", "Content-Encoding: gzip\r\n", packed, n).status,
                     400);
    assert_int_equal(post(&site.address, "/echo", "Content-Encoding: gzip\r\n", "plain", 5).status,
                     400);
    assert_int_equal(post(&site.address, "/echo", "Content-Encoding: zstd\r\n", "plain", 5).status,
                     400);
    n = ZSTD_compress(packed, sizeof packed, "abcdefgh", 8, 3);
    assert_int_equal(
        post(&site.address, "/echo", "Content-Encoding: zstd\r\n", packed, n - 2).status, 400);
    struct answer a = post(&site.address, "/stream", "Content-Encoding: zstd\r\n", packed, n - 2);
    assert_int_equal(a.status, 400);
    assert_non_null(strstr(a.body, "bad_encoding"));
    until(&site.closed, 1);
}

static void test_bombs(void **state) {
    (void)state;
    size_t size = 50 << 20;
    uint8_t *zeros = calloc(1, size);
    uint8_t *packed = malloc(1 << 20);
    assert_non_null(zeros);
    assert_non_null(packed);
    size_t n = pack_gzip(zeros, size, packed, 1 << 20);
    assert_int_equal(post(&site.address, "/echo", "Content-Encoding: gzip\r\n", packed, n).status,
                     413);
    /* Streamed, it comes in small pieces and is no bomb. */
    assert_string_equal(
        post(&site.address, "/stream", "Content-Encoding: gzip\r\n", packed, n).body, "52428800");
    n = ZSTD_compress(packed, 1 << 20, zeros, size, 3);
    assert_int_equal(post(&site.address, "/echo", "Content-Encoding: zstd\r\n", packed, n).status,
                     413);
    assert_string_equal(
        post(&site.address, "/stream", "Content-Encoding: zstd\r\n", packed, n).body, "52428800");
    free(zeros);
    free(packed);
}

static void test_ignored_body(void **state) {
    (void)state;
    assert_int_equal(post(&site.address, "/ignore", "", "whatever", 8).status, 204);
    assert_int_equal(
        post(&site.address, "/ignore", "Content-Encoding: gzip\r\n", "no gzip", 7).status, 204);
    uint8_t *data = noise(BODY_MAX + 1);
    assert_int_equal(post(&site.address, "/ignore", "", data, BODY_MAX + 1).status, 413);
    free(data);
}

static void test_headers_too_large(void **state) {
    (void)state;
    char *request = calloc(1, 40 << 10);
    assert_non_null(request);
    (void)snprintf(request, 64, "GET /empty HTTP/1.1\r\nHost: x\r\nA: ");
    memset(request + strlen(request), 'a', 20 << 10);
    (void)snprintf(request + strlen(request), 8, "\r\n\r\n");
    struct answer a = ask(&site.address, request);
    assert_true(a.status == 431 || a.status == 413);
    (void)snprintf(request, 16, "GET /");
    memset(request + 5, 'a', 20 << 10);
    (void)snprintf(request + 5 + (20 << 10), 32, " HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(ask(&site.address, request).status, 414);
    free(request);
}

static void test_stream(void **state) {
    (void)state;
    uint8_t *data = noise(1000000);
    assert_string_equal(post(&site.address, "/stream", "", data, 1000000).body, "1000000");
    assert_string_equal(post(&site.address, "/stream", "", "", 0).body, "0");
    assert_int_equal(post(&site.address, "/stream?refuse=1", "", data, 1000).status, 404);
    struct answer a = post(&site.address, "/stream?stop=1", "", data, 100000);
    assert_int_equal(a.status, 422);
    assert_non_null(strstr(a.body, "\"field\":\"line 1\""));
    assert_int_equal(atomic_load(&site.closed), 0);
    free(data);
}

static void test_stream_client_gone(void **state) {
    (void)state;
    int fd = dial(&site.address);
    send_text(fd, "POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc");
    UNTIL(atomic_load(&site.streamed) >= 3);
    socket_close(fd);
    until(&site.closed, 1);
}

/* Also when the end comes together with the last bytes, which libmicrohttpd misses. */
static void test_stream_client_gone_at_once(void **state) {
    (void)state;
    enum { CLIENTS = 200 };
    for (unsigned i = 0; i < CLIENTS; i++) {
        int fd = dial(&site.address);
        send_text(fd, "POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc");
        socket_close(fd);
    }
    until(&site.closed, CLIENTS);
}

/* Who ends its direction early is answered, and then let go. */
static void test_half_closed_at_once(void **state) {
    (void)state;
    for (unsigned i = 0; i < 50; i++) {
        int fd = dial(&site.address);
        send_text(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi");
        socket_shutdown(fd, false);
        assert_string_equal(read_answer(fd).body, "hi");
        assert_true(ends(fd));
        socket_close(fd);
    }
}

static void test_pause(void **state) {
    (void)state;
    size_t size = 200000;
    uint8_t *data = noise(size);
    uint8_t *packed = malloc(size * 2);
    assert_non_null(packed);
    size_t n = pack_gzip(data, size, packed, size * 2);
    assert_string_equal(post(&site.address, "/stream?nap=1", "", data, size).body, "200000");
    assert_string_equal(post(&site.address, "/stream?nap=1&late=1", "", data, size).body, "200000");
    assert_string_equal(
        post(&site.address, "/stream?nap=1", "Content-Encoding: gzip\r\n", packed, n).body,
        "200000");
    memset(data, 0, size); /* all of it comes out of the decoder's last piece */
    n = pack_gzip(data, size, packed, size * 2);
    assert_string_equal(
        post(&site.address, "/stream?nap=1&late=1", "Content-Encoding: gzip\r\n", packed, n).body,
        "200000");
    struct answer a = ask(&site.address, "POST /stream?nap=1 HTTP/1.1\r\nHost: x\r\n"
                                         "Transfer-Encoding: chunked\r\n\r\n"
                                         "3\r\nabc\r\n3\r\ndef\r\n3\r\nghi\r\n0\r\n\r\n");
    assert_string_equal(a.body, "9");
    free(data);
    free(packed);
}

static void test_a_stream_that_waits_before_its_body(void **state) {
    (void)state;
    static char data[200000];
    uint8_t packed[2000];
    size_t n = pack_gzip((const uint8_t *)data, sizeof data, packed, sizeof packed);
    struct answer a = post(&site.address, "/stream?wait=1", "", data, sizeof data);
    assert_string_equal(a.body, "200000");
    a = post(&site.address, "/stream?wait=1", "Content-Encoding: gzip\r\n", packed, n);
    assert_string_equal(a.body, "200000");
    assert_string_equal(post(&site.address, "/stream?wait=1", "", "", 0).body, "0");
    static const char chunks[] = "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n"
                                 "0\r\n\r\n";
    static const struct {
        const char *query;
        unsigned status;
    } rows[] = {{"wait=1", 200}, {"wait=1&fail=1", 404}, {"wait=1&refuse=1", 404}};
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
        char request[200];
        (void)snprintf(request, sizeof request, "POST /stream?%s HTTP/1.1\r\nHost: x\r\n%s",
                       rows[i].query, chunks);
        assert_int_equal(ask(&site.address, request).status, rows[i].status);
        (void)snprintf(request, sizeof request, "/stream?%s", rows[i].query);
        assert_int_equal(post(&site.address, request, "", data, sizeof data).status,
                         rows[i].status);
        assert_int_equal(post(&site.address, request, "", "", 0).status, rows[i].status);
    }
}

struct silence {
    const char *said; /* what came before it */
    unsigned status;  /* 0: the connection ends without an answer */
};

/* All at once, as each takes its time. */
static void expect_timeouts(const struct silence *silences, size_t n) {
    int fds[4];
    assert_true(n <= ARRAY_LENGTH(fds));
    for (size_t i = 0; i < n; i++) {
        fds[i] = dial(&site.address);
        send_text(fds[i], silences[i].said);
    }
    for (size_t i = 0; i < n; i++) {
        unsigned status = read_answer(fds[i]).status;
        if (status != silences[i].status)
            fail_msg("\"%s\": %u, not %u", silences[i].said, status, silences[i].status);
        assert_true(ends(fds[i]));
        socket_close(fds[i]);
    }
}

static void test_slow_bodies(void **state) {
    (void)state;
    static const struct silence silences[] = {
        {"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf", 408},
        {"POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf", 408},
        {"POST /nope HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf", 404},
    };
    expect_timeouts(silences, ARRAY_LENGTH(silences));
    until(&site.closed, 1);
}

static void test_idle_connections_end(void **state) {
    (void)state;
    static const struct silence silences[] = {
        {"", 0}, {"GET /empty HTT", 0}, {"GET /empty HTTP/1.1\r\nHost", 408}};
    expect_timeouts(silences, ARRAY_LENGTH(silences));
}

static void test_bodies_together_are_bounded(void **state) {
    (void)state;
    enum { SIZE = 600 << 10 };
    struct site small;
    struct budget budget;
    budget_init(&budget, 12 << 20); /* bodies: 1.5 MiB */
    site_start(&small, (struct http_options){
                           .body_max_bytes = 4 << 20, .budget = &budget, .body_timeout_s = 300});
    uint8_t *data = noise(SIZE);
    int held = dial(&small.address);
    send_text(held, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 614401\r\n\r\n");
    send_bytes(held, data, SIZE);
    UNTIL(budget_used(&budget, BUDGET_BODIES) >= SIZE);
    struct answer a = post(&small.address, "/echo", "", data, SIZE);
    assert_int_equal(a.status, 503);
    assert_non_null(strstr(a.body, "overloaded"));
    /* What a request held is given back just after its answer left. */
    UNTIL(budget_used(&budget, BUDGET_BODIES) < SIZE + (256 << 10));
    send_text(held, "!");
    assert_int_equal(read_answer(held).status, 200);
    socket_close(held);
    UNTIL(budget_used(&budget, BUDGET_BODIES) == 0);
    assert_int_equal(post(&small.address, "/echo", "", data, SIZE).status, 200);
    free(data);
    site_stop(&small);
}

#define HTTP_TEST(f) cmocka_unit_test_setup_teardown(f, start, stop)
#define TIMEOUT_TEST(f) cmocka_unit_test_setup_teardown(f, start_impatient, stop)

int main(void) {
    const struct CMUnitTest tests[] = {
        HTTP_TEST(test_sizes),
        HTTP_TEST(test_too_large_keeps_the_connection),
        HTTP_TEST(test_huge_is_answered_before_its_end),
        HTTP_TEST(test_chunked_over_the_limit),
        HTTP_TEST(test_expect_continue),
        HTTP_TEST(test_encodings),
        HTTP_TEST(test_highly_compressed),
        HTTP_TEST(test_broken_encodings),
        HTTP_TEST(test_bombs),
        HTTP_TEST(test_ignored_body),
        HTTP_TEST(test_headers_too_large),
        HTTP_TEST(test_stream),
        HTTP_TEST(test_stream_client_gone),
        HTTP_TEST(test_stream_client_gone_at_once),
        HTTP_TEST(test_half_closed_at_once),
        HTTP_TEST(test_pause),
        HTTP_TEST(test_a_stream_that_waits_before_its_body),
        TIMEOUT_TEST(test_slow_bodies),
        TIMEOUT_TEST(test_idle_connections_end),
        HTTP_TEST(test_bodies_together_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
