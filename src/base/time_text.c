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
