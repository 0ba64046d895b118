/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wall-clock time as RFC 3339 text in UTC, without the C library's calendar, which looks at the
 * locale and the time zone files. Pure, thread-safe.
 */
#ifndef MILLRACE_BASE_TIME_TEXT_H
#define MILLRACE_BASE_TIME_TEXT_H

#include "base/bytes.h"

enum { TIME_TEXT_BYTES = 24 };

/* 0000-01-01T00:00:00.000Z and 9999-12-31T23:59:59.999Z, in milliseconds since 1970. */
#define TIME_TEXT_FIRST_MS INT64_C(-62167219200000)
#define TIME_TEXT_LAST_MS INT64_C(253402300799999)

/* "2026-01-02T03:04:05.678Z" and a NUL, from microseconds since 1970, cut to milliseconds. Times
 * outside the years 0000 to 9999 are shown as the nearest one inside. */
void time_text(int64_t wall_us, char out[TIME_TEXT_BYTES + 1]);

enum time_form {
    TIME_FORM_INSTANT,  /* 2026-01-02T03:04:05.678Z, and nothing else */
    TIME_FORM_DATETIME, /* 2026-01-02T03:04:05 or …05.678; no zone, UTC is meant */
    TIME_FORM_RFC3339,  /* 2026-01-02T03:04:05Z, …05.678901+02:00: any fraction, and a zone */
};
/* Milliseconds since 1970 of a whole text of that form; false when it is no date of the calendar
 * (no leap seconds, no 24:00). */
bool time_from_text(struct bytes text, enum time_form form, int64_t *ret_ms);

#endif
