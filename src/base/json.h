/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON in: a parser that checks the whole text (syntax, UTF-8, numbers, depth) before the first
 * value is looked at, so that a field nobody reads is still refused when it is malformed. It is
 * simdjson's DOM behind a C face (json_parser.cc is the one C++ file that knows it). One parser
 * belongs to one thread; its values are valid until its next parse. Large arrays are not handed to
 * it whole: json_split.h cuts them into elements first, which bounds its memory by one element.
 *
 * JSON out: appends to a struct buffer, never fails by itself (see buffer_check).
 */
#ifndef MILLRACE_BASE_JSON_H
#define MILLRACE_BASE_JSON_H

#include "base/bytes.h"

struct json_parser;

enum {
    JSON_PADDING = 64,   /* readable bytes the text must have behind its end */
    JSON_DEPTH_MAX = 64, /* nesting of arrays and objects */
};

enum {
    _JSON_E_SUCCESS,
    JSON_E_SYNTAX,    /* not JSON: its punctuation, or bytes after the value */
    JSON_E_EMPTY,     /* nothing, or only space */
    JSON_E_QUOTE,     /* a string without its end */
    JSON_E_STRING,    /* a wrong escape, or a control character that is not escaped */
    JSON_E_WORD,      /* what is not true, false, null or a number, as nul or 01 */
    JSON_E_UTF8,      /* a string that is not UTF-8 */
    JSON_E_NUMBER,    /* a number no 64-bit integer or finite double holds, as 1e999 or 2^70 */
    JSON_E_DEPTH,     /* nested deeper than JSON_DEPTH_MAX */
    JSON_E_TOO_LARGE, /* longer than the parser's max_bytes */
};

/* One sentence fragment for a JSON_E_…, as "is not valid JSON: it is empty". Never NULL. */
const char *json_error_text(int condition);

enum json_type {
    JSON_NULL,
    JSON_BOOL,
    JSON_INT,  /* fits int64_t */
    JSON_UINT, /* above INT64_MAX, fits uint64_t */
    JSON_DOUBLE,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT,
};

/* A place in a parsed document, passed by value. */
struct json_value {
    const void *doc;
    size_t at;
};

int json_parser_new(size_t max_bytes, struct json_parser **ret_parser) MUST_USE;
struct json_parser *json_parser_free(struct json_parser *p);
/* Parses text, which must have JSON_PADDING readable bytes behind it (their value is ignored).
 * JSON_E_…, or -ENOMEM. */
int json_parse(struct json_parser *p, struct bytes text, struct json_value *ret_root) MUST_USE;
/* The same, several times faster when text is an object whose member key is a long array of
 * numbers, or, for NULL, is such an array: they are read straight as floats (json_floats.h). Of
 * that array only json_type_of, json_size and json_get_floats may be asked. */
int json_parse_vector(struct json_parser *p, struct bytes text, const char *key,
                      struct json_value *ret_root) MUST_USE;
/* Its fast half alone, which takes little memory however long the text is. False: text is not of
 * that form, or is long beside the array; nothing is said of what is wrong with it. */
bool json_parse_lifted(struct json_parser *p, struct bytes text, const char *key,
                       struct json_value *ret_root) MUST_USE;

enum json_type json_type_of(struct json_value v);
/* Each returns false, and leaves ret alone, when the value is not of that type (or out of the
 * range, for the integers: a JSON_DOUBLE is never taken for an integer). */
bool json_get_bool(struct json_value v, bool *ret);
bool json_get_i64(struct json_value v, int64_t *ret);
bool json_get_u64(struct json_value v, uint64_t *ret);
/* Any number. */
bool json_get_double(struct json_value v, double *ret);
/* The unescaped string, not NUL-terminated, may hold NULs; valid until the next parse. */
bool json_get_string(struct json_value v, struct bytes *ret);

/* The number of elements or members; 0 for other types. Counts by walking past 16M. */
size_t json_size(struct json_value v);

/* An object without members that belongs to no parser: for what may be left out. */
struct json_value json_empty_object(void);

/* Walks the elements of an array or the members of an object, in order, duplicates included:
 *   struct json_iterator it = json_iterate(v);
 *   while (json_next(&it, &key, &value)) …
 * key is empty for arrays, and may be NULL. Nothing is iterated for other types. */
struct json_iterator {
    const void *doc;
    size_t at;
    size_t end;
    bool object;
};
struct json_iterator json_iterate(struct json_value v);
bool json_next(struct json_iterator *it, struct bytes *key, struct json_value *value);
/* The last member named key, as most readers of JSON take a duplicate; false when there is none. */
bool json_find(struct json_value object, const char *key, struct json_value *ret);

enum {
    JSON_FLOATS_E_TYPE = 1, /* not an array of numbers */
    JSON_FLOATS_E_LENGTH,   /* more than max numbers */
    JSON_FLOATS_E_RANGE,    /* a number that is not finite as a float */
};
/* Copies an array of numbers as floats, the hot path of every upsert; ret_count is set on success.
 * Handles also JSON_FLOATS_E_LENGTH by setting ret_count to the array's length. */
int json_get_floats(struct json_value v, float *out, size_t max, size_t *ret_count) MUST_USE;

/* Appends the value as JSON text without white space; of duplicate members only the last is kept.
 */
void json_append_value(struct buffer *out, struct json_value v);
/* Appends "…" with the escapes JSON needs. text is taken as UTF-8; bytes that are not become
 * U+FFFD. */
void json_append_string(struct buffer *out, struct bytes text);
void json_append_cstring(struct buffer *out, const char *text);
/* Whether json_append_string keeps every byte of it. */
bool json_is_utf8(struct bytes text);
void json_append_u64(struct buffer *out, uint64_t v);
void json_append_i64(struct buffer *out, int64_t v);
/* The shortest text that reads back as the same value; null for what JSON cannot say. */
void json_append_double(struct buffer *out, double v);
void json_append_float(struct buffer *out, float v);

#endif
