/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Gregorian calendar repeats every 400 years, which are 146,097 days. Counting years from 1
 * March puts the leap day at a year's end, so that the months' lengths follow one linear formula.
 */
#include "base/time_text.h"

static const int64_t MS_PER_DAY = 86400000;
static const int64_t DAYS_PER_ERA = 146097; /* 400 years */
static const int64_t DAYS_TO_1970 = 719468; /* from 0000-03-01 */

struct date {
    int64_t year, month, day;
};

static int64_t floor_div(int64_t a, int64_t b) {
    return a / b - (a % b < 0);
}

static struct date date_of(int64_t days_since_1970) {
    int64_t days = days_since_1970 + DAYS_TO_1970;
    int64_t era = floor_div(days, DAYS_PER_ERA);
    int64_t day = days - era * DAYS_PER_ERA; /* 0 to 146,096 */
    /* Takes the leap days out: one every 4 years, none every 100, one every 400. */
    int64_t year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
    day -= 365 * year + year / 4 - year / 100; /* 0 to 365, from 1 March */
    int64_t month = (5 * day + 2) / 153;       /* 0 is March; five months have 153 days */
    struct date d = {.year = era * 400 + year, .day = day - (153 * month + 2) / 5 + 1};
    d.month = month < 10 ? month + 3 : month - 9;
    d.year += d.month <= 2;
    return d;
}

static char *put(char *out, int64_t value, int digits, char behind) {
    for (int i = digits; i-- > 0; value /= 10)
        out[i] = (char)('0' + value % 10);
    out[digits] = behind;
    return out + digits + 1;
}

void time_text(int64_t wall_us, char out[TIME_TEXT_BYTES + 1]) {
    int64_t ms = floor_div(wall_us, 1000);
    ms = ms < TIME_TEXT_FIRST_MS  ? TIME_TEXT_FIRST_MS
         : ms > TIME_TEXT_LAST_MS ? TIME_TEXT_LAST_MS
                                  : ms;
    int64_t days = floor_div(ms, MS_PER_DAY);
    int64_t of_day = ms - days * MS_PER_DAY;
    struct date d = date_of(days);
    out = put(out, d.year, 4, '-');
    out = put(out, d.month, 2, '-');
    out = put(out, d.day, 2, 'T');
    out = put(out, of_day / 3600000, 2, ':');
    out = put(out, of_day / 60000 % 60, 2, ':');
    out = put(out, of_day / 1000 % 60, 2, '.');
    out = put(out, of_day % 1000, 3, 'Z');
    *out = '\0';
}

static int64_t days_since_1970(struct date d) {
    int64_t year = d.year - (d.month <= 2);
    int64_t month = d.month > 2 ? d.month - 3 : d.month + 9;
    int64_t era = floor_div(year, 400);
    int64_t of_era = year - era * 400; /* 0 to 399 */
    int64_t day = (153 * month + 2) / 5 + d.day - 1;
    day += 365 * of_era + of_era / 4 - of_era / 100;
    return era * DAYS_PER_ERA + day - DAYS_TO_1970;
}

static int days_of_month(int64_t year, int64_t month) {
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if (month == 2)
        return leap ? 29 : 28;
    return month == 4 || month == 6 || month == 9 || month == 11 ? 30 : 31;
}

/* Each 0 of the pattern stands for a digit, every other character for itself. */
static bool matches(const uint8_t *text, const char *pattern, size_t size) {
    bool good = true;
    for (size_t i = 0; i < size; i++) {
        bool is_digit = (uint8_t)(text[i] - '0') <= 9;
        good &= pattern[i] == '0' ? is_digit : text[i] == (uint8_t)pattern[i];
    }
    return good;
}

static int64_t digits(const uint8_t *text, size_t n) {
    int64_t number = 0;
    for (size_t i = 0; i < n; i++)
        number = number * 10 + (text[i] - '0');
    return number;
}

enum { SECONDS_BYTES = 19, NO_ZONE_BYTES = TIME_TEXT_BYTES - 1 };
static const char time_pattern[] = "0000-00-00T00:00:00.000Z";

static bool has_form(struct bytes text, enum time_form form) {
    bool sized = form == TIME_FORM_INSTANT
                     ? text.size == TIME_TEXT_BYTES
                     : text.size == SECONDS_BYTES || text.size == NO_ZONE_BYTES;
    return sized && matches(text.data, time_pattern, text.size);
}

static bool from_fixed(struct bytes text, int64_t *ret_ms) {
    const uint8_t *at = text.data;
    struct date d = {.year = digits(at, 4), .month = digits(at + 5, 2), .day = digits(at + 8, 2)};
    int64_t hour = digits(at + 11, 2), minute = digits(at + 14, 2), second = digits(at + 17, 2);
    int64_t ms = text.size > 20 ? digits(at + 20, 3) : 0;
    if (d.month < 1 || d.month > 12 || d.day < 1 || d.day > days_of_month(d.year, d.month) ||
        hour > 23 || minute > 59 || second > 59)
        return false;
    *ret_ms = days_since_1970(d) * MS_PER_DAY + ((hour * 60 + minute) * 60 + second) * 1000 + ms;
    return true;
}

/* What stands behind the seconds: a fraction, which is cut to milliseconds, and the zone. */
static bool from_rest(struct bytes rest, int64_t *ret_ms) {
    const uint8_t *at = rest.data, *end = at + rest.size;
    int64_t fraction = 0, unit = 1000;
    if (at < end && *at == '.') {
        const uint8_t *first = ++at;
        for (; at < end && (uint8_t)(*at - '0') <= 9; at++, unit = unit > 1 ? unit / 10 : 0)
            fraction += unit / 10 * (*at - '0');
        if (at == first)
            return false;
    }
    struct bytes zone = bytes_of(at, (size_t)(end - at));
    *ret_ms = fraction;
    if (zone.size == 1)
        return *at == 'Z' || *at == 'z';
    if (zone.size != 6 || (*at != '+' && *at != '-') || !matches(at + 1, "00:00", 5))
        return false;
    int64_t hours = digits(at + 1, 2), minutes = digits(at + 4, 2);
    int64_t ahead = (hours * 60 + minutes) * 60000;
    *ret_ms += *at == '+' ? -ahead : ahead;
    return hours < 24 && minutes < 60;
}

static bool from_rfc3339(struct bytes text, int64_t *ret_ms) {
    int64_t seconds, rest;
    if (text.size <= SECONDS_BYTES || !matches(text.data, time_pattern, SECONDS_BYTES) ||
        !from_fixed(bytes_of(text.data, SECONDS_BYTES), &seconds) ||
        !from_rest(bytes_of(text.data + SECONDS_BYTES, text.size - SECONDS_BYTES), &rest))
        return false;
    *ret_ms = seconds + rest;
    return true;
}

bool time_from_text(struct bytes text, enum time_form form, int64_t *ret_ms) {
    if (form == TIME_FORM_RFC3339)
        return from_rfc3339(text, ret_ms);
    return has_form(text, form) && from_fixed(text, ret_ms);
}
