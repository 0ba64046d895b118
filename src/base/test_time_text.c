/* SPDX-License-Identifier: Apache-2.0 */
/* Time as text, against the C library's calendar. */
#include "base/time_text.h"

#include "base/bytes.h"
#include "base/hash.h"

#include <stdio.h>
#include <time.h>

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

static void assert_time(int64_t wall_us, const char *wanted) {
    char text[TIME_TEXT_BYTES + 1];
    time_text(wall_us, text);
    assert_string_equal(text, wanted);
}

static void test_known(void **state) {
    (void)state;
    assert_time(0, "1970-01-01T00:00:00.000Z");
    assert_time(-1, "1969-12-31T23:59:59.999Z");
    assert_time(1767323045678999, "2026-01-02T03:04:05.678Z");
    assert_time(951782400000000, "2000-02-29T00:00:00.000Z");
    assert_time(4107542400000000, "2100-03-01T00:00:00.000Z");
    assert_time(INT64_MIN, "0000-01-01T00:00:00.000Z");
    assert_time(INT64_MAX, "9999-12-31T23:59:59.999Z");
}

static void test_against_libc(void **state) {
    (void)state;
    for (uint64_t i = 0; i < 20000; i++) {
        int64_t ms = (int64_t)(hash64_u64(i) % 315569519999999) - 62167219200000;
        time_t seconds = (ms - ((ms % 1000 + 1000) % 1000)) / 1000;
        struct tm tm;
        char date[40], wanted[50];
        assert_non_null(gmtime_r(&seconds, &tm));
        snprintf(date, sizeof date, "%04d-%02d-%02dT%02d:%02d:%02d", tm.tm_year + 1900,
                 tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
        snprintf(wanted, sizeof wanted, "%.20s.%03dZ", date, (int)(ms - seconds * 1000));
        assert_time(ms * 1000, wanted);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known),
        cmocka_unit_test(test_against_libc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
