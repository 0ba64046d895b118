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

/* The text as numbers of the digits that the pattern's 0s stand for; its other characters must be
 * there as they are. */
static bool scan(const uint8_t *text, const char *pattern, int64_t *numbers) {
    bool in_number = false;
    int64_t *number = numbers - 1;
    for (; *pattern; pattern++, text++) {
        if (*pattern != '0') {
            if (*text != (uint8_t)*pattern)
                return false;
            in_number = false;
            continue;
        }
        unsigned digit = (unsigned)*text - '0';
        if (digit > 9)
            return false;
        if (!in_number)
            *++number = 0;
        in_number = true;
        *number = *number * 10 + digit;
    }
    return true;
}

bool time_from_text(struct bytes text, enum time_form form, int64_t *ret_ms) {
    static const char whole[] = "0000-00-00T00:00:00.000Z";
    static const char no_zone[] = "0000-00-00T00:00:00.000";
    static const char seconds[] = "0000-00-00T00:00:00";
    int64_t n[7] = {0}; /* year, month, day, hour, minute, second, millisecond */
    const char *pattern = form == TIME_FORM_INSTANT         ? whole
                          : text.size == sizeof no_zone - 1 ? no_zone
                                                            : seconds;
    if (text.size != strlen(pattern) || !scan(text.data, pattern, n))
        return false;
    if (n[1] < 1 || n[1] > 12 || n[2] < 1 || n[2] > days_of_month(n[0], n[1]) || n[3] > 23 ||
        n[4] > 59 || n[5] > 59)
        return false;
    struct date d = {.year = n[0], .month = n[1], .day = n[2]};
    *ret_ms = days_since_1970(d) * MS_PER_DAY + ((n[3] * 60 + n[4]) * 60 + n[5]) * 1000 + n[6];
    return true;
}
