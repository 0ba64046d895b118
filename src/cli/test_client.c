/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parsing answers: whole ones, and every prefix of them must ask for more.
 */
#include "cli/client.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct answer_case {
    const char *text;
    int r; /* of the whole text, on a connection that stays open */
    unsigned status;
    const char *body;
    uint64_t retry_after_ms;
    bool last;
};
static const struct answer_case cases[] = {
    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 0, 200, "hello", 0, false},
    {"HTTP/1.1 204 No Content\r\n\r\n", 0, 204, "", 0, false},
    {"HTTP/1.1 503 Service Unavailable\r\nretry-AFTER: 3\r\nConnection: Close\r\ncontent-length: "
     "0\r\n\r\n",
     0, 503, "", 3000, true},
    {"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", 0, 200, "x", 0, true},
    {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nab", 0, 201,
     "ab", 0, false},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nA;x=y\r\n "
     "world1234\r\n0\r\n\r\n",
     0, 200, "hello world1234", 0, false},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", CLIENT_E_PROTOCOL, 0, NULL, 0,
     false},
    {"SSH-2.0-OpenSSH_9\r\n\r\n", CLIENT_E_PROTOCOL, 0, NULL, 0, false},
    {"HTTP/1.1 999 What\r\n\r\n", CLIENT_E_PROTOCOL, 0, NULL, 0, false},
};

static void check_whole(const struct answer_case *c) {
    struct buffer chunks CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct client_answer answer = {0};
    bool last = false;
    int r = client_parse(bytes_of_string(c->text), false, &chunks, &answer, &last);
    assert_int_equal(r, c->r);
    if (r)
        return;
    assert_int_equal(answer.status, c->status);
    assert_true(bytes_equal(answer.body, bytes_of_string(c->body)));
    assert_int_equal(answer.retry_after_ms, c->retry_after_ms);
    assert_int_equal(last, c->last);
}

static void check_prefixes(const struct answer_case *c) {
    struct buffer chunks CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct client_answer answer;
    bool last;
    for (size_t size = 0; size < strlen(c->text); size++)
        assert_int_equal(client_parse(bytes_of(c->text, size), false, &chunks, &answer, &last),
                         CLIENT_E_MORE);
}

static void test_answers(void **state UNUSED) {
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        check_whole(&cases[i]);
        if (cases[i].r == 0)
            check_prefixes(&cases[i]);
    }
}

static void test_body_until_the_connection_closes(void **state UNUSED) {
    struct buffer chunks CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct bytes text = BYTES_LITERAL("HTTP/1.1 200 OK\r\n\r\nall of it");
    struct client_answer answer;
    bool last;
    assert_int_equal(client_parse(text, false, &chunks, &answer, &last), CLIENT_E_MORE);
    assert_int_equal(client_parse(text, true, &chunks, &answer, &last), 0);
    assert_true(bytes_equal(answer.body, BYTES_LITERAL("all of it")));
}

static void test_head(void **state UNUSED) {
    struct buffer out CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct client_target target = {.api_key = "k"};
    assert_int_equal(url_parse("http://h:1/p", &target.url), 0);
    client_append_head(&out, &target,
                       &(struct client_head){.method = "PUT", .path = "/x", .body_size = 7});
    assert_true(bytes_equal(buffer_bytes(&out),
                            BYTES_LITERAL("PUT /p/x HTTP/1.1\r\nHost: h:1\r\napi-key: k\r\n"
                                          "Content-Type: application/json\r\n"
                                          "Content-Length: 7\r\n\r\n")));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_answers),
                                       cmocka_unit_test(test_body_until_the_connection_closes),
                                       cmocka_unit_test(test_head)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
