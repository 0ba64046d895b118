/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arrays of numbers read straight as floats, without a document between: a vector is nine tenths of
 * an upsert's bytes. It takes what it knows to be right to the last bit, that is any usual
 * spelling, and leaves all else to json_parse (json_lift.c): it never says what is wrong with a
 * text. Inside this room, and for points that come as arrays of vectors.
 */
#ifndef MILLRACE_BASE_JSON_FLOATS_H
#define MILLRACE_BASE_JSON_FLOATS_H

#include "base/bytes.h"

/* Reads the array that starts at text.data[*at]; text has JSON_PADDING readable bytes behind it.
 * True: it is an array of 1 to max numbers, each in out as json_get_floats would give it, and *at
 * is behind its end. False: it may be anything; *at is as before, what is in out means nothing. */
bool json_floats_read(struct bytes text, size_t *at, float *out, size_t max,
                      size_t *ret_count) MUST_USE;
/* The same without vector instructions, for machines that have none and for the tests. */
bool json_floats_read_portable(struct bytes text, size_t *at, float *out, size_t max,
                               size_t *ret_count) MUST_USE;

#endif
