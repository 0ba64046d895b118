/* SPDX-License-Identifier: Apache-2.0 */
/* The trace of an error on its way up. */
#include "base/error.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

static void test_trace(void **state) {
    (void)state;
    char text[200];
    error_trace_text(text, sizeof text);
    assert_string_equal(text, "");
    assert_int_equal(error_mark_origin(-EIO, "../src/a.c", 10), -EIO);
    assert_int_equal(error_mark_trace(-EIO, "b.c", 20), -EIO);
    assert_int_equal(error_mark_trace(0, "c.c", 30), 0);
    error_trace_text(text, sizeof text);
    assert_string_equal(text, "EIO at src/a.c:10 < b.c:20");
    error_mark_origin(-ENOSPC, "d.c", 1);
    error_trace_text(text, sizeof text);
    assert_string_equal(text, "ENOSPC at d.c:1");
}

static void test_fold(void **state) {
    (void)state;
    char text[200];
    assert_int_equal(error_mark_fold(0, "a.c", 1), 0);
    assert_int_equal(error_mark_trace(3, "a.c", 2), 3);
    error_trace_text(text, sizeof text);
    assert_string_equal(text, "condition 3 at a.c:2");
    assert_int_equal(error_mark_fold(3, "b.c", 3), -ENOTRECOVERABLE);
    error_trace_text(text, sizeof text);
    assert_string_equal(text, "ENOTRECOVERABLE at a.c:2 < b.c:3");
    assert_int_equal(error_mark_fold(-EIO, "c.c", 4), -EIO);
}

static void test_bounds(void **state) {
    (void)state;
    char text[2000], small[9];
    error_mark_origin(-EIO, "a.c", 1);
    for (int i = 0; i < 1000; i++)
        (void)error_mark_trace(-EIO, "b.c", 2);
    error_trace_text(text, sizeof text);
    assert_non_null(strstr(text, "EIO at a.c:1 < b.c:2"));
    assert_non_null(strstr(text, "< 985 more"));
    error_trace_text(small, sizeof small);
    assert_string_equal(small, "EIO at a");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trace),
        cmocka_unit_test(test_fold),
        cmocka_unit_test(test_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
