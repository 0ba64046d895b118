/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The values of queries. A time that is taken is the text of that time; a range is its two times; a
 * range of minutes is a range; a number is its digits.
 */
#include "fuzz.h"

#include "base/time_text.h"
#include "events/parse.h"

static void check_time(struct bytes text, enum time_form form) {
    char again[TIME_TEXT_BYTES + 1];
    int64_t ms;
    if (!time_from_text(text, form, &ms))
        return;
    FUZZ_CHECK(ms >= TIME_TEXT_FIRST_MS && ms <= TIME_TEXT_LAST_MS);
    time_text(ms * 1000, again);
    FUZZ_CHECK(text.size <= TIME_TEXT_BYTES && memcmp(text.data, again, text.size) == 0);
}

static void check_range(struct bytes text) {
    struct event_fault fault = {0};
    char from_text[TIME_TEXT_BYTES + 1];
    int64_t from, to, first;
    unsigned minutes;
    bool is_range = event_parse_range(text, &from, &to, &fault) == 0;
    if (is_range) {
        FUZZ_CHECK(from <= to);
        time_text(from * 1000, from_text);
        FUZZ_CHECK(memcmp(text.data, from_text, strlen("2022-03-22T12:15:00")) == 0);
    } else {
        FUZZ_CHECK(*fault.sentence);
    }
    if (event_parse_minutes(text, &first, &minutes, &fault) == 0) {
        FUZZ_CHECK(is_range && minutes <= EVENT_RANGE_MINUTES_MAX);
        FUZZ_CHECK(first * EVENT_MINUTE_MS == from && from + minutes * EVENT_MINUTE_MS == to);
    }
}

static void check_number(struct bytes text) {
    struct event_fault fault;
    unsigned number;
    if (event_parse_number(text, "limit", EVENT_PROFILE_KEEP, &number, &fault))
        return;
    FUZZ_CHECK(number <= EVENT_PROFILE_KEEP && text.size > 0);
    for (size_t i = text.size; i-- > 0; number /= 10)
        FUZZ_CHECK(text.data[i] == '0' + number % 10);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct bytes text = bytes_of(data, size);
    check_time(text, TIME_FORM_INSTANT);
    check_time(text, TIME_FORM_DATETIME);
    check_range(text);
    check_number(text);
    return 0;
}
