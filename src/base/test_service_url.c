/* SPDX-License-Identifier: Apache-2.0 */
/* URLs of parts: what is taken, what is refused, what may be shown. */
#include "base/service_url.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void test_parts(void **state UNUSED) {
    struct service_url u;
    const char *why;
    assert_true(service_url_parse("kafka://us%65r:p%40ss:w@one:9092,[::1]:9093,three/a%2Fb"
                                  "?topic-prefix=mill%20&replication=3&tls",
                                  &u, &why));
    assert_string_equal(u.scheme, "kafka");
    assert_string_equal(u.user, "user");
    assert_string_equal(u.password, "p@ss:w");
    assert_int_equal(u.n_hosts, 3);
    assert_string_equal(u.hosts[0].name, "one");
    assert_int_equal(u.hosts[0].port, 9092);
    assert_string_equal(u.hosts[1].name, "::1");
    assert_int_equal(u.hosts[1].port, 9093);
    assert_string_equal(u.hosts[2].name, "three");
    assert_int_equal(u.hosts[2].port, 0);
    assert_string_equal(u.path, "a/b");
    assert_string_equal(service_url_parameter(&u, "topic-prefix"), "mill ");
    assert_string_equal(service_url_parameter(&u, "tls"), "");
    assert_null(service_url_parameter(&u, "replicatio"));
}

static void test_numbers_and_flags(void **state UNUSED) {
    struct service_url u;
    const char *why;
    uint64_t n = 7;
    bool flag = true;
    assert_true(service_url_parse("redis://h?a=12&b=x&c=99999999999999999999999&d=no&e=maybe&f=-1",
                                  &u, &why));
    assert_true(service_url_parameter_number(&u, "none", 1, 20, &n));
    assert_int_equal(n, 7);
    assert_true(service_url_parameter_number(&u, "a", 12, 12, &n));
    assert_int_equal(n, 12);
    assert_false(service_url_parameter_number(&u, "a", 13, 20, &n));
    assert_false(service_url_parameter_number(&u, "a", 1, 11, &n));
    assert_false(service_url_parameter_number(&u, "b", 0, 20, &n));
    assert_false(service_url_parameter_number(&u, "c", 0, UINT64_MAX, &n));
    assert_false(service_url_parameter_number(&u, "f", 0, UINT64_MAX, &n));
    assert_int_equal(n, 12);
    assert_true(service_url_parameter_flag(&u, "none", &flag));
    assert_true(flag);
    assert_true(service_url_parameter_flag(&u, "d", &flag));
    assert_false(flag);
    assert_false(service_url_parameter_flag(&u, "e", &flag));
    assert_string_equal(
        service_url_parameter_unknown(&u, (const char *const[]){"a", "b", "d", "e", "f", NULL}),
        "c");
    assert_null(service_url_parameter_unknown(
        &u, (const char *const[]){"a", "b", "c", "d", "e", "f", NULL}));
}

static void test_refused(void **state UNUSED) {
    static const char *const bad[] = {"",
                                      "kafka",
                                      "://h",
                                      "kafka://",
                                      "kafka://:9092",
                                      "kafka://h:",
                                      "kafka://h:0",
                                      "kafka://h:65536",
                                      "kafka://h:9x",
                                      "kafka://h:900000",
                                      "kafka://a,,b",
                                      "kafka://[::1",
                                      "kafka://[::1]x",
                                      "kafka://user:12/34@h",
                                      "kafka://h/%zz",
                                      "kafka://h?a=%2",
                                      "kafka://%00@h",
                                      "kafka://h?a=%00"};
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        struct service_url u;
        const char *why = NULL;
        assert_false(service_url_parse(bad[i], &u, &why));
        assert_non_null(why);
    }
    char text[SERVICE_TEXT_MAX + 1];
    struct service_url u;
    const char *why;
    memset(text, 'h', sizeof text - 1);
    memcpy(text, "kafka://", 8);
    text[sizeof text - 1] = '\0';
    assert_false(service_url_parse(text, &u, &why));
    text[sizeof text - 2] = '\0';
    assert_true(service_url_parse(text, &u, &why));
}

/* Nothing secret is shown, whatever else is. */
static void test_public(void **state UNUSED) {
    struct buffer out CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct service_url u;
    const char *why;
    assert_true(service_url_parse("qdrant://me:secret@[::1]:1,b/p?api_key=secret&tls=1&"
                                  "sasl-password=secret",
                                  &u, &why));
    service_url_append_public(&out, &u);
    buffer_append_u8(&out, 0);
    assert_int_equal(buffer_check(&out), 0);
    assert_string_equal((const char *)out.data,
                        "qdrant://[::1]:1,b/p?api_key=***&tls=1&sasl-password=***");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_numbers_and_flags),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_public),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
