/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds where a JSON value ends, in steps: inside this room only, for json_split.c. Both paths of
 * the look through nested values are declared, for the test that compares them.
 */
#ifndef MILLRACE_BASE_JSON_SCAN_H
#define MILLRACE_BASE_JSON_SCAN_H

#include "base/json_split.h"

/* Goes on at text[*at]. 0: the value ends before text[*at]. JSON_SPLIT_E_MORE: all of text was
 * looked at, *at is its size; call again with a longer text, or with what follows and *at 0.
 * JSON_SPLIT_E_SYNTAX: no value starts like this. */
int json_scan_value(struct json_scan *s, struct bytes text, size_t *at) MUST_USE;

/* Goes on inside brackets; true: the last one is closed before text[*at]. */
bool json_scan_nested(struct json_scan *s, struct bytes text, size_t *at);
bool json_scan_nested_portable(struct json_scan *s, struct bytes text, size_t *at);

/* The index of the first byte from at on that is not JSON's white space. */
size_t json_skip_space(struct bytes text, size_t at);

#endif
