/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wall-clock time as RFC 3339 text in UTC, without the C library's calendar, which looks at the
 * locale and the time zone files. Pure, thread-safe.
 */
#ifndef MILLRACE_BASE_TIME_TEXT_H
#define MILLRACE_BASE_TIME_TEXT_H

#include <stdint.h>

enum { TIME_TEXT_BYTES = 24 };

/* "2026-01-02T03:04:05.678Z" and a NUL, from microseconds since 1970, cut to milliseconds. Times
 * outside the years 0000 to 9999 are shown as the nearest one inside. */
void time_text(int64_t wall_us, char out[TIME_TEXT_BYTES + 1]);

#endif
