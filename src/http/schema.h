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
 *   {a!: X, b: Y}                an object; a must be there
 *   X | Y                        either
 *   X?                           X or null
 *   X = 3                        of a member, or at the end: 3 is an example, as JSON
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

/* Finds what a schema names; NULL when there is none of that name. */
struct http_schema_names {
    const struct http_schema *(*find)(const void *context, struct bytes name);
    const void *context;
};

/* Appends the JSON Schema of text. The texts are the program's own: one that is malformed is a
 * mistake in it, and asserted. */
void http_schema_append(struct buffer *out, const char *text);
/* The same for one member out of a list of them, "a!: X = 3, b: Y", where ": X" may lack for a
 * string; returns what follows it and its comma. */
struct http_schema_member {
    struct bytes name;
    bool required;
    const char *text; /* from X on; "string" when it lacks */
};
const char *http_schema_next(const char *members, struct http_schema_member *ret_member);
void http_schema_append_member(struct buffer *out, const struct http_schema_member *member);
void http_schema_example_member(struct buffer *out, const struct http_schema_member *member,
                                const struct http_schema_names *names);
/* Appends a value that text describes: the examples in it, the first of each choice, every member.
 */
void http_schema_example(struct buffer *out, const char *text,
                         const struct http_schema_names *names);

#endif
