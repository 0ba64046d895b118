/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A UUID is two numbers here, the text's digits in their order: high holds the first 16, low the
 * last 16. Pure functions, thread-safe.
 */
#ifndef MILLRACE_BASE_UUID_H
#define MILLRACE_BASE_UUID_H

#include "base/bytes.h"

enum { UUID_TEXT_BYTES = 36 };

/* Accepts 123e4567-e89b-12d3-a456-426614174000, also in braces or behind urn:uuid:, and the 32
 * digits without hyphens; letters in either case. False, with the outputs untouched, for anything
 * else. */
bool uuid_parse(struct bytes text, uint64_t *ret_high, uint64_t *ret_low) MUST_USE;
/* Lower case, hyphenated, NUL-terminated. */
void uuid_format(uint64_t high, uint64_t low, char out[UUID_TEXT_BYTES + 1]);

#endif
