/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wall-clock time as RFC 3339 text in UTC, without the C library's calendar, which looks at the
 * locale and the time zone files. Pure, thread-safe.
 */
#ifndef MILLRACE_BASE_TIME_TEXT_H
#define MILLRACE_BASE_TIME_TEXT_H

#include <stdint.h>

enum { TIME_TEXT_BYTES = 24 };

/* 0000-01-01T00:00:00.000Z and 9999-12-31T23:59:59.999Z, in milliseconds since 1970. */
#define TIME_TEXT_FIRST_MS INT64_C(-62167219200000)
#define TIME_TEXT_LAST_MS INT64_C(253402300799999)

/* "2026-01-02T03:04:05.678Z" and a NUL, from microseconds since 1970, cut to milliseconds. Times
 * outside the years 0000 to 9999 are shown as the nearest one inside. */
void time_text(int64_t wall_us, char out[TIME_TEXT_BYTES + 1]);

#endif
