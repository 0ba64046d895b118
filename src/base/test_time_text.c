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

static bool parses(const char *text, enum time_form form, int64_t *ret_ms) {
    return time_from_text(bytes_of_string(text), form, ret_ms);
}

/* Every day of the calendar, and a time of it, there and back. */
static void test_there_and_back(void **state) {
    (void)state;
    char text[TIME_TEXT_BYTES + 1];
    int64_t ms, read;
    for (ms = TIME_TEXT_FIRST_MS; ms <= TIME_TEXT_LAST_MS; ms += 86400000 - 7777) {
        time_text(ms * 1000, text);
        assert_true(parses(text, TIME_FORM_INSTANT, &read));
        assert_true(read == ms);
        text[TIME_TEXT_BYTES - 1] = '\0';
        assert_true(parses(text, TIME_FORM_DATETIME, &read));
        assert_true(read == ms);
        text[TIME_TEXT_BYTES - 5] = '\0';
        assert_true(parses(text, TIME_FORM_DATETIME, &read));
        assert_true(read == ms - ((ms % 1000 + 1000) % 1000));
    }
}

static void test_refused(void **state) {
    (void)state;
    static const char *const instants[] = {
        "",
        "2022-03-22T12:15:00.000",
        "2022-03-22T12:15:00Z",
        "2022-03-22T12:15:00.00Z",
        "2022-03-22T12:15:00.0000Z",
        "2022-03-22T12:15:00.000z",
        "2022-03-22 12:15:00.000Z",
        "2022-03-22T12:15:00,000Z",
        " 022-03-22T12:15:00.000Z",
        "-022-03-22T12:15:00.000Z",
        "+022-03-22T12:15:00.000Z",
        "2022-00-22T12:15:00.000Z",
        "2022-13-22T12:15:00.000Z",
        "2022-03-00T12:15:00.000Z",
        "2022-03-32T12:15:00.000Z",
        "2022-04-31T12:15:00.000Z",
        "2022-02-29T12:15:00.000Z",
        "1900-02-29T12:15:00.000Z",
        "2022-03-22T24:00:00.000Z",
        "2022-03-22T12:60:00.000Z",
        "2016-12-31T23:59:60.000Z",
        "2022-03-22T12:15:00.000+00:00",
        "2022-03-22T1x:15:00.000Z",
    };
    static const char *const datetimes[] = {
        "2022-03-22T12:15",         "2022-03-22T12:15:00Z", "2022-03-22T12:15:00.000Z",
        "2022-03-22T12:15:00.0000", "2022-03-22T12:15:00.", "2022-03-22T12:15:00.00",
        "2022-02-29T12:15:00",      "2022-03-22T12:15:60",  "",
    };
    int64_t ms = 5;
    for (size_t i = 0; i < ARRAY_LENGTH(instants); i++)
        assert_false(parses(instants[i], TIME_FORM_INSTANT, &ms));
    for (size_t i = 0; i < ARRAY_LENGTH(datetimes); i++)
        assert_false(parses(datetimes[i], TIME_FORM_DATETIME, &ms));
    assert_int_equal(ms, 5);
    assert_true(parses("2000-02-29T23:59:59.999Z", TIME_FORM_INSTANT, &ms));
    assert_true(ms == 951868799999);
}

static void assert_rfc3339(const char *text, const char *wanted) {
    char written[TIME_TEXT_BYTES + 1];
    int64_t ms;
    assert_true(parses(text, TIME_FORM_RFC3339, &ms));
    time_text(ms * 1000, written);
    assert_string_equal(written, wanted);
}

static void test_rfc3339(void **state) {
    (void)state;
    static const char *const wrong[] = {
        "",
        "2026-01-02",
        "2026-01-02T03:04:05",
        "2026-01-02T03:04:05.Z",
        "2026-01-02T03:04:05.5",
        "2026-13-02T03:04:05Z",
        "2026-01-02T03:04:05+0200",
        "2026-01-02T03:04:05+02:60",
        "2026-01-02T03:04:05+24:00",
        "2026-01-02T03:04:05Zx",
        "2026-01-02 03:04:05Z",
    };
    int64_t ms;
    assert_rfc3339("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000Z");
    assert_rfc3339("2026-01-02T03:04:05.6z", "2026-01-02T03:04:05.600Z");
    assert_rfc3339("2026-01-02T03:04:05.678999999Z", "2026-01-02T03:04:05.678Z");
    assert_rfc3339("2026-01-02T01:04:05.25+02:30", "2026-01-01T22:34:05.250Z");
    assert_rfc3339("2025-12-31T23:59:59-00:01", "2026-01-01T00:00:59.000Z");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(parses(wrong[i], TIME_FORM_RFC3339, &ms));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known),          cmocka_unit_test(test_against_libc),
        cmocka_unit_test(test_there_and_back), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_rfc3339),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
