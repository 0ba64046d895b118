/* SPDX-License-Identifier: Apache-2.0 */
/* Routes, methods, keys, framing and answers, over real sockets. */
#include "http/test_support.h"

static struct site site;

static int start(void **state) {
    (void)state;
    site_start(&site, (struct http_options){.api_key = NULL, .body_max_bytes = 1 << 20});
    return 0;
}

static int stop(void **state) {
    (void)state;
    site_stop(&site);
    return 0;
}

static void test_paths(void **state) {
    (void)state;
    static const struct {
        const char *target;
        unsigned status;
        const char *body;
    } rows[] = {
        {"/", 200, "search"},
        {"/empty", 204, ""},
        {"/names/ann", 200, "ann||no"},
        {"/names/a%2Fb", 200, "a/b||no"},
        {"/names/%C3%A9?q=a%26b+c&flag=true", 200, "\xC3\xA9|a&b c|yes"},
        {"/names/x?q=1&q=2&flag", 200, "x|1|yes"},
        {"/names/x?&&q", 200, "x||no"},
        {"/names/x?flag=maybe", 200, "x||no"},
        {"/names/search", 200, "search||no"}, /* the literal takes only POST */
        {"http://host:80/names/abs?q=1", 200, "abs|1|no"},
        {"/names/", 404, NULL},
        {"/names", 404, NULL},
        {"/names/x/y", 404, NULL},
        {"/empty/", 404, NULL},
        {"//empty", 404, NULL},
        {"/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17/18", 404, NULL},
        {"/names/%zz", 400, NULL},
        {"/names/%4", 400, NULL},
        {"/names/x?q=%", 400, NULL},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
        struct answer a = get(&site.address, rows[i].target);
        if (a.status != rows[i].status)
            fail_msg("%s: %u, not %u", rows[i].target, a.status, rows[i].status);
        if (rows[i].body)
            assert_string_equal(a.body, rows[i].body);
        assert_int_equal(strlen(header_of(&a, "X-Request-Id:")), 16);
    }
    struct answer a = get(&site.address, "/names/a%00b");
    assert_int_equal(a.size, 7);
    assert_memory_equal(a.body, "a\0b||no", 7);
}

static void test_methods(void **state) {
    (void)state;
    struct answer a =
        ask(&site.address, "PUT /names/x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert_int_equal(a.status, 405);
    assert_string_equal(header_of(&a, "Allow:"), "GET, HEAD, DELETE");
    a = ask(&site.address, "BREW /names/search HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(a.status, 405);
    assert_string_equal(header_of(&a, "Allow:"), "GET, HEAD, POST, DELETE");
    assert_int_equal(ask(&site.address, "BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n").status, 404);
    a = ask(&site.address, "OPTIONS /empty HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(a.status, 405);
    a = ask(&site.address, "POST /names/search HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert_string_equal(a.body, "search");
    a = ask(&site.address, "DELETE /names/x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi");
    assert_string_equal(a.body, "hi");
}

/* Of an area with a fallback, what no row takes goes there, as it came. */
static void test_fallback(void **state) {
    (void)state;
    struct answer a = get(&site.address, "/beyond/a%2fb/%20?x=1+2&y=%26&x");
    assert_int_equal(a.status, 200);
    assert_string_equal(a.body, "GET /beyond/a%2Fb/%20?x=1%202&y=%26&x=");
    a = ask(&site.address, "PATCH /beyond HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi");
    assert_int_equal(a.status, 200);
    assert_string_equal(a.body, "PATCH /beyond");
    assert_int_equal(get(&site.address, "/beyon").status, 404);
}

static void test_head(void **state) {
    (void)state;
    int fd = dial(&site.address);
    send_text(fd,
              "HEAD /names/ann HTTP/1.1\r\nHost: x\r\n\r\nGET /empty HTTP/1.1\r\nHost: x\r\n\r\n");
    struct answer a = read_answer_of(fd, true);
    assert_int_equal(a.status, 200);
    assert_string_equal(header_of(&a, "Content-Length:"), "7");
    assert_int_equal(read_answer(fd).status, 204); /* nothing in between */
    socket_close(fd);
}

static void test_error_forms(void **state) {
    (void)state;
    struct answer a = get(&site.address, "/missing");
    assert_int_equal(a.status, 404);
    static const char start_of_body[] =
        "{\"status\":{\"error\":\"Not found: Collection `x` doesn't exist!\"},\"time\":0.";
    assert_memory_equal(a.body, start_of_body, sizeof start_of_body - 1);
    a = get(&site.address, "/missing/here");
    assert_string_equal(
        a.body, "{\"error\":{\"code\":\"not_found\",\"message\":\"Not found: Collection `x` "
                "doesn't exist!\",\"field\":\"name\"}}");
    a = get(&site.address, "/none");
    assert_non_null(strstr(a.body, "\"code\":\"unknown_path\""));
    assert_string_equal(header_of(&a, "Content-Type:"), "application/json");
    static const char unsupported[] = "{\"status\":{\"error\":\"only the other server has it\"}";
    a = get(&site.address, "/missing/there");
    assert_int_equal(a.status, 404);
    assert_memory_equal(a.body, unsupported, sizeof unsupported - 1);
    a = post(&site.address, "/missing", "", NULL, 0);
    assert_int_equal(a.status, 405);
    assert_memory_equal(a.body, unsupported, sizeof unsupported - 1);
    a = get(&site.address, "/missing/there?%x");
    assert_int_equal(a.status, 400);
    assert_memory_equal(a.body, "{\"status\":", 10);
}

static void test_keep_alive_and_pipelining(void **state) {
    (void)state;
    int fd = dial(&site.address);
    send_text(fd, "GET /names/1 HTTP/1.1\r\nHost: x\r\n\r\n"
                  "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\ntwo"
                  "GET /names/3 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_string_equal(read_answer(fd).body, "1||no");
    assert_string_equal(read_answer(fd).body, "two");
    assert_string_equal(read_answer(fd).body, "3||no");
    send_text(fd, "GET /names/4 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_string_equal(read_answer(fd).body, "4||no");
    assert_true(ends(fd));
    socket_close(fd);
}

static void test_http_1_0(void **state) {
    (void)state;
    int fd = dial(&site.address);
    send_text(fd, "GET /names/old HTTP/1.0\r\n\r\n");
    assert_string_equal(read_answer(fd).body, "old||no");
    assert_true(ends(fd));
    socket_close(fd);
}

static void test_a_byte_at_a_time(void **state) {
    (void)state;
    static const char text[] = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nslow";
    int fd = dial(&site.address);
    for (size_t i = 0; i < sizeof text - 1; i++) {
        send_bytes(fd, text + i, 1);
        os_sleep_ns(os_real(), 200000);
    }
    assert_string_equal(read_answer(fd).body, "slow");
    socket_close(fd);
}

static void test_chunked(void **state) {
    (void)state;
    struct answer a =
        ask(&site.address, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                           "3\r\nabc\r\n5;x=y\r\ndefgh\r\n0\r\n\r\n");
    assert_string_equal(a.body, "abcdefgh");
    a = ask(&site.address,
            "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n");
    assert_int_equal(a.status, 400);
}

static void test_contradictory_framing(void **state) {
    (void)state;
    static const char *const headers[] = {
        "Content-Length: 3\r\nContent-Length: 5\r\n",
        "Content-Length: 3\r\nContent-Length: 3\r\n",
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 3x\r\n",
    };
    for (size_t i = 0; i < ARRAY_LENGTH(headers); i++) {
        char request[512];
        (void)snprintf(request, sizeof request, "POST /echo HTTP/1.1\r\nHost: x\r\n%s\r\nabc",
                       headers[i]);
        int fd = dial(&site.address);
        send_text(fd, request);
        assert_int_equal(read_answer(fd).status, 400);
        assert_true(ends(fd)); /* nobody knows where the next request would start */
        socket_close(fd);
    }
}

static void test_malformed_request_lines(void **state) {
    (void)state;
    static const char *const lines[] = {"\x01\x02\x03\r\n\r\n", "GET\r\n\r\n",
                                        "GET / HTTP/9.9\r\n\r\n",
                                        "GET / HTTP/1.1\r\nno colon\r\n\r\n"};
    for (size_t i = 0; i < ARRAY_LENGTH(lines); i++) {
        int fd = dial(&site.address);
        send_text(fd, lines[i]);
        unsigned status = read_answer(fd).status;
        assert_true(status == 0 || status >= 400 || i == 1); /* "GET" alone is HTTP/0.9 to some */
        socket_close(fd);
    }
    assert_int_equal(get(&site.address, "/empty").status, 204);
}

/* Valid requests with bytes changed, cut or doubled: whatever the answer, the server lives. */
static void test_damaged_requests(void **state) {
    (void)state;
    static const char request[] =
        "POST /names/a%20b?q=1&flag=x HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\n"
        "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    uint64_t x = 0x2545f4914f6cdd1d;
    for (unsigned round = 0; round < 300; round++) {
        char text[sizeof request];
        memcpy(text, request, sizeof request);
        for (unsigned i = 0; i < 1 + round % 5; i++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            text[(x >> 33) % (sizeof request - 1)] = (char)(x >> 56);
        }
        int fd = dial(&site.address);
        (void)send_bytes(fd, text, round % 3 ? sizeof request - 1 : (x >> 40) % sizeof request);
        if (round % 4 == 0)
            os_sleep_ns(os_real(), 1000000);
        socket_close(fd);
    }
    assert_int_equal(get(&site.address, "/empty").status, 204);
}

static void test_many_query_parameters(void **state) {
    (void)state;
    char target[512] = "/names/x?";
    for (unsigned i = 0; i < 65; i++)
        strncat(target, "a&", sizeof target - strlen(target) - 1);
    assert_int_equal(get(&site.address, target).status, 400);
}

static void test_static(void **state) {
    (void)state;
    struct answer a = get(&site.address, "/static");
    assert_string_equal(a.body, "body{}");
    assert_string_equal(header_of(&a, "ETag:"), "\"v1\"");
    assert_string_equal(header_of(&a, "Content-Type:"), "text/css");
    assert_non_null(header_of(&a, "Cache-Control:"));
    a = ask(&site.address, "GET /static HTTP/1.1\r\nHost: x\r\nIf-None-Match: \"v1\"\r\n\r\n");
    assert_int_equal(a.status, 304);
    assert_int_equal(a.size, 0);
}

static void test_metrics(void **state) {
    (void)state;
    assert_int_equal(get(&site.address, "/names/a").status, 200);
    assert_int_equal(get(&site.address, "/no/such").status, 404);
    assert_int_equal(post(&site.address, "/echo", "", "12345", 5).status, 200);
    struct buffer text = BUFFER_INIT;
    metrics_render(site.metrics, &text);
    buffer_append_u8(&text, 0);
    const char *t = (const char *)text.data;
    assert_non_null(strstr(t, "millrace_http_requests_total{route=\"/names/{name}\",method=\"GET\","
                              "status=\"200\"} "));
    assert_non_null(
        strstr(t, "millrace_http_requests_total{route=\"none\",method=\"other\",status=\"404\"} "));
    assert_non_null(strstr(t, "millrace_http_request_seconds_count{route=\"/names/{name}\"} "));
    assert_non_null(strstr(t, "\nmillrace_http_received_bytes_total "));
    assert_null(strstr(t, "millrace_http_received_bytes_total 0\n"));
    assert_null(strstr(t, "millrace_http_sent_bytes_total 0\n"));
    buffer_deinit(&text);
}

static void test_keys(void **state) {
    (void)state;
    struct site closed;
    site_start(&closed, (struct http_options){
                            .api_key = "s3cret", .own_key = "own", .cors_origin = "https://a.b"});
    static const struct {
        const char *target;
        const char *header;
        unsigned status;
    } rows[] = {
        {"/empty", "", 401},
        {"/empty", "api-key: s3cret\r\n", 204},
        {"/empty", "API-Key: s3cret\r\n", 204},
        {"/empty", "Authorization: Bearer s3cret\r\n", 204},
        {"/empty", "Authorization: bearer   s3cret\r\n", 204},
        {"/empty", "api-key: s3cre\r\n", 403},
        {"/empty", "api-key: s3cret1\r\n", 403},
        {"/empty", "api-key: s3crets3cret\r\n", 403},
        {"/empty", "api-key: \r\n", 403},
        {"/empty", "Authorization: Basic s3cret\r\n", 401},
        {"/empty", "api-key: own\r\n", 204},
        {"/empty", "api-key: ow\r\n", 403},
        {"/empty", "api-key: ownown\r\n", 403},
        {"/open", "", 204},
        {"/none", "", 404},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
        char request[256];
        (void)snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n",
                       rows[i].target, rows[i].header);
        struct answer a = ask(&closed.address, request);
        if (a.status != rows[i].status)
            fail_msg("%s with %s: %u, not %u", rows[i].target, rows[i].header, a.status,
                     rows[i].status);
        assert_string_equal(header_of(&a, "Access-Control-Allow-Origin:"), "https://a.b");
    }
    static const char *const known[] = {"/empty", "/beyond/a/b"}; /* by a row, by an area */
    for (size_t i = 0; i < ARRAY_LENGTH(known); i++) {
        char request[256];
        (void)snprintf(request, sizeof request, "OPTIONS %s HTTP/1.1\r\nHost: x\r\n\r\n", known[i]);
        struct answer a = ask(&closed.address, request);
        assert_int_equal(a.status, 204);
        assert_non_null(header_of(&a, "Access-Control-Allow-Methods:"));
    }
    struct answer a = ask(&closed.address, "OPTIONS /missing/b HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(a.status, 404);
    site_stop(&closed);
}

static void test_offload(void **state) {
    (void)state;
    struct answer a = post(&site.address, "/offload", "", "a query", 7);
    assert_int_equal(a.status, 200);
    assert_string_equal(a.body, "a query");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_methods),
        cmocka_unit_test(test_fallback),
        cmocka_unit_test(test_head),
        cmocka_unit_test(test_error_forms),
        cmocka_unit_test(test_keep_alive_and_pipelining),
        cmocka_unit_test(test_http_1_0),
        cmocka_unit_test(test_a_byte_at_a_time),
        cmocka_unit_test(test_chunked),
        cmocka_unit_test(test_contradictory_framing),
        cmocka_unit_test(test_malformed_request_lines),
        cmocka_unit_test(test_damaged_requests),
        cmocka_unit_test(test_many_query_parameters),
        cmocka_unit_test(test_static),
        cmocka_unit_test(test_metrics),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_offload),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
