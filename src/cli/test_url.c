/* SPDX-License-Identifier: Apache-2.0 */
/*
 * URLs of our own client: good ones with their parts, bad ones with their condition.
 */
#include "cli/url.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

struct good {
    const char *text;
    const char *authority;
    const char *path;
};
static const struct good good[] = {
    {"http://localhost", "localhost:80", ""},
    {"http://127.0.0.1:8000", "127.0.0.1:8000", ""},
    {"http://127.0.0.1:8000/", "127.0.0.1:8000", ""},
    {"http://[::1]:65535/a/b//", "[::1]:65535", "/a/b"},
    {"http://example.test/v1", "example.test:80", "/v1"},
};

struct bad {
    const char *text;
    int condition;
};
static const struct bad bad[] = {
    {"", URL_E_SCHEME},
    {"localhost:8000", URL_E_SCHEME},
    {"https://localhost", URL_E_SCHEME},
    {"http://", URL_E_INVALID},
    {"http://:80", URL_E_INVALID},
    {"http://[::1", URL_E_INVALID},
    {"http://a:", URL_E_INVALID},
    {"http://a:0", URL_E_INVALID},
    {"http://a:65536", URL_E_INVALID},
    {"http://a:123456", URL_E_INVALID},
    {"http://a:80x", URL_E_INVALID},
    {"http://a?q=1", URL_E_INVALID},
    {"http://a/b?q=1", URL_E_INVALID},
    {"http://a/b c", URL_E_INVALID},
    {"http://user@a/", URL_E_INVALID},
};

static void test_good(void **state UNUSED) {
    for (size_t i = 0; i < ARRAY_LENGTH(good); i++) {
        char authority[URL_HOST_MAX + 8];
        struct url url;
        assert_int_equal(url_parse(good[i].text, &url), 0);
        url_authority(&url, authority);
        assert_string_equal(authority, good[i].authority);
        assert_string_equal(url.path, good[i].path);
    }
}

static void test_bad(void **state UNUSED) {
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        struct url url;
        assert_int_equal(url_parse(bad[i].text, &url), bad[i].condition);
    }
}

static void test_too_long(void **state UNUSED) {
    char text[1024];
    struct url url;
    snprintf(text, sizeof text, "http://%0300d/", 0);
    assert_int_equal(url_parse(text, &url), URL_E_INVALID);
    snprintf(text, sizeof text, "http://a/%0600d", 0);
    assert_int_equal(url_parse(text, &url), URL_E_INVALID);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_good), cmocka_unit_test(test_bad),
                                       cmocka_unit_test(test_too_long)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
