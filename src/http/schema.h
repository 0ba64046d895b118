/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON Schemas written short, so that a row of a route table says what its bodies look like in a
 * line that a person reads:
 *
 *   {id!: Id, vector!: [number] | <[number]>, payload: object?}
 *
 *   any  string  integer  uint  number  boolean  object  uuid  time      a type
 *   1..65536                     an integer of that range
 *   'Cosine' | 'Dot'             one of these strings
 *   Id                           a schema of the tables, by its name (a capital letter first)
 *   [X]                          an array of X
 *   <X>                          an object of any keys whose values are X
 *   {a!: X, b: Y = 3}            an object; a must be there; 3 is an example of b, as JSON
 *   X | Y                        either
 *   X?                           X or null
 *
 * Pure; thread-safe.
 */
#ifndef MILLRACE_HTTP_SCHEMA_H
#define MILLRACE_HTTP_SCHEMA_H

#include "base/bytes.h"

/* A schema that others name. */
struct http_schema {
    const char *name;
    const char *text;
};

/* Appends the JSON Schema of text. The texts are the program's own: one that is malformed is a
 * mistake in it, and asserted. */
void http_schema_append(struct buffer *out, const char *text);

#endif
