/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which hosts a list allows, and which lists are none.
 */
#include "http/hosts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const char list[] = "files.example.org, *.cdn.example ,127.0.0.1:8080,[::1]:9,[::2]";

static void test_what_is_allowed(void **state) {
    (void)state;
    assert_true(hosts_allow(list, "files.example.org", 443, true));
    assert_true(hosts_allow(list, "FILES.example.ORG", 80, true));
    assert_true(hosts_allow(list, "a.cdn.example", 443, true));
    assert_true(hosts_allow(list, "a.b.cdn.example", 443, true));
    assert_true(hosts_allow(list, "127.0.0.1", 8080, false));
    assert_true(hosts_allow(list, "[::1]", 9, false));
    assert_true(hosts_allow(list, "[::2]", 80, true));
    assert_true(hosts_allow("a:80", "a", 80, true));
}

static void test_what_is_not(void **state) {
    (void)state;
    assert_false(hosts_allow(list, "files.example.org", 8080, false));
    assert_false(hosts_allow(list, "evil-files.example.org", 443, true));
    assert_false(hosts_allow(list, "files.example.org.evil", 443, true));
    assert_false(hosts_allow(list, "files.example.org.", 443, true));
    assert_false(hosts_allow(list, "cdn.example", 443, true));
    assert_false(hosts_allow(list, ".cdn.example", 443, true));
    assert_false(hosts_allow(list, "evilcdn.example", 443, true));
    assert_false(hosts_allow(list, "127.0.0.1", 80, true));
    assert_false(hosts_allow(list, "127.0.0.1", 8081, false));
    assert_false(hosts_allow(list, "[::1]", 80, true));
    assert_false(hosts_allow(list, "", 80, true));
    assert_false(hosts_allow("", "a", 80, true));
    assert_false(hosts_allow("", "", 80, true));
    assert_false(hosts_allow("*", "a", 80, true));
}

static void test_what_is_no_list(void **state) {
    (void)state;
    static const char *const wrong[] = {
        "https://a", "a,",   ",a",  "a b", "a:",  "a:0", "a:65536", "a:x", "*",       "*a.b",
        "a.*",       "[::1", "::1", "a/b", "u@a", "*.",  " ",       ":80", "a:8080 9"};
    struct bytes entry;
    assert_true(hosts_check(list, &entry));
    assert_true(hosts_check("", &entry));
    for (size_t i = 0; i < ARRAY_LENGTH(wrong); i++)
        if (hosts_check(wrong[i], &entry))
            fail_msg("taken: %s", wrong[i]);
    assert_false(hosts_check("good, b@d ,good", &entry));
    assert_true(bytes_equal(entry, BYTES_LITERAL("b@d")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_allowed),
        cmocka_unit_test(test_what_is_not),
        cmocka_unit_test(test_what_is_no_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
