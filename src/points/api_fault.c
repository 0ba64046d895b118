/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults, and the reading of fields that sets them. One table says how each kind of fault is
 * answered: on Qdrant's routes with its status and its prefix, on ours with a code.
 */
#include "points/api_parts.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

enum {
    UNCOUNTED_BYTES = 256 << 10, /* of JSON that is parsed as a whole */
    PARSED_SHARE = 14,           /* bytes of memory for one of JSON (base/README.md) */
};

static const struct fault_row {
    enum http_error qdrant;
    const char *qdrant_prefix;
    enum http_error ours;
} fault_rows[] = {
    [API_FAULT_SYNTAX] = {HTTP_ERROR_MALFORMED_JSON,
                          "Format error in JSON body: ", HTTP_ERROR_MALFORMED_JSON},
    [API_FAULT_MISSING] = {HTTP_ERROR_MALFORMED_JSON,
                           "Format error in JSON body: ", HTTP_ERROR_MISSING_FIELD},
    [API_FAULT_FORMAT] = {HTTP_ERROR_MALFORMED_JSON,
                          "Format error in JSON body: ", HTTP_ERROR_INVALID_FIELD},
    [API_FAULT_RANGE] = {HTTP_ERROR_INVALID_FIELD,
                         "Validation error in JSON body: ", HTTP_ERROR_INVALID_FIELD},
    [API_FAULT_DIMENSION] = {HTTP_ERROR_WRONG_DIMENSION,
                             "Wrong input: ", HTTP_ERROR_WRONG_DIMENSION},
    [API_FAULT_INPUT] = {HTTP_ERROR_BAD_REQUEST, "Wrong input: ", HTTP_ERROR_BAD_REQUEST},
    [API_FAULT_EMPTY] = {HTTP_ERROR_BAD_REQUEST, "Bad request: ", HTTP_ERROR_BAD_REQUEST},
};
_Static_assert(ARRAY_LENGTH(fault_rows) == API_FAULT_KINDS, "a row for each kind");

int api_fault_set(struct api_fault *f, enum api_fault_kind kind, const char *field,
                  const char *format, ...) {
    va_list args;
    f->kind = kind;
    f->field = field;
    va_start(args, format);
    vsnprintf(f->sentence, sizeof f->sentence, format, args);
    va_end(args);
    return API_E_FAULT;
}

int api_fault_missing(struct api_fault *f, const char *field) {
    return api_fault_set(f, API_FAULT_MISSING, field, "missing field `%s`", field);
}

int api_fault_json(struct api_fault *f, int r, const char *what) {
    if (r < 0)
        return error_trace(r);
    return api_fault_set(f, API_FAULT_SYNTAX, NULL, "%s %s", what, json_error_text(r));
}

int api_fault_split(struct api_fault *f, int r, const char *what) {
    if (r < 0)
        return error_trace(r);
    return api_fault_set(f, API_FAULT_SYNTAX, NULL, "%s is not valid JSON%s", what,
                         r == JSON_SPLIT_E_MORE ? ": it ends too early" : "");
}

static void fail_fatal(struct http_request *r, int result) {
    if (result == -ENOMEM)
        http_fail(r, HTTP_ERROR_OVERLOADED, NULL, "memory is short; try again later");
    else
        http_fail(r, HTTP_ERROR_INTERNAL, NULL, NULL);
}

void api_fail(struct http_request *r, int result, const struct api_fault *f) {
    if (result < 0) {
        fail_fatal(r, result);
        return;
    }
    const struct fault_row *row = &fault_rows[f->kind];
    if (http_style_of(r) == HTTP_STYLE_QDRANT)
        http_fail(r, row->qdrant, f->field, "%s%s", row->qdrant_prefix, f->sentence);
    else
        http_fail(r, row->ours, f->field, "%s", f->sentence);
}

struct api_text api_text_of(struct bytes b) {
    struct api_text t;
    size_t n = b.size < sizeof t.text ? b.size : sizeof t.text - 1;
    for (size_t i = 0; i < n; i++)
        t.text[i] = b.data[i] < 0x20 || b.data[i] == 0x7f ? '?' : (char)b.data[i];
    t.text[n] = '\0';
    return t;
}

void api_fail_collection(struct http_request *r, struct bytes name) {
    struct api_text text = api_text_of(name);
    if (http_style_of(r) == HTTP_STYLE_QDRANT)
        http_fail(r, HTTP_ERROR_UNKNOWN_COLLECTION, NULL,
                  "Not found: Collection `%s` doesn't exist!", text.text);
    else
        http_fail(r, HTTP_ERROR_UNKNOWN_COLLECTION, NULL, "no collection `%s`; create it first",
                  text.text);
}

/* ---- Fields ---- */

bool api_given(struct json_value object, const char *key, struct json_value *ret) {
    struct json_value v;
    if (!json_find(object, key, &v) || json_type_of(v) == JSON_NULL)
        return false;
    *ret = v;
    return true;
}

int api_get_size(struct json_value object, const char *key, uint64_t least, uint64_t most,
                 uint64_t *ret, struct api_fault *f) {
    struct json_value v;
    uint64_t number;
    if (!api_given(object, key, &v))
        return 0;
    if (!json_get_u64(v, &number))
        return api_fault_set(f, API_FAULT_FORMAT, key, "`%s` must be an unsigned integer", key);
    if (number < least)
        return api_fault_set(f, API_FAULT_RANGE, key,
                             "[%s: value %llu invalid, must be %llu or larger]", key,
                             (unsigned long long)number, (unsigned long long)least);
    if (number > most)
        return api_fault_set(
            f, API_FAULT_RANGE, key, "[%s: value %llu invalid, must be from %llu to %llu]", key,
            (unsigned long long)number, (unsigned long long)least, (unsigned long long)most);
    *ret = number;
    return 0;
}

int api_get_flag(struct json_value object, const char *key, bool *ret, struct api_fault *f) {
    struct json_value v;
    if (!api_given(object, key, &v) || json_get_bool(v, ret))
        return 0;
    return api_fault_set(f, API_FAULT_FORMAT, key, "`%s` must be a boolean", key);
}

int api_get_text(struct json_value object, const char *key, struct bytes *ret,
                 struct api_fault *f) {
    struct json_value v;
    struct bytes text;
    if (!api_given(object, key, &v))
        return api_fault_missing(f, key);
    if (!json_get_string(v, &text) || text.size == 0)
        return api_fault_set(f, API_FAULT_FORMAT, key, "`%s` must be a string that is not empty",
                             key);
    *ret = text;
    return 0;
}

/* Parsing a long body takes much memory: asks for it, or says how long a body may be. */
static int take_parsing(struct http_request *r, struct api_fault *f) {
    size_t size = http_body(r).size;
    uint64_t max = http_memory_max(r) / PARSED_SHARE;
    if (size <= UNCOUNTED_BYTES)
        return 0;
    if (size > max)
        return api_fault_set(f, API_FAULT_INPUT, NULL,
                             "the body may have at most %llu KiB here; send several",
                             (unsigned long long)(max >> 10));
    return http_take_memory(r, size * PARSED_SHARE) ? 0 : error_origin(-ENOMEM);
}

int api_parse_object(struct http_request *r, struct json_value *ret, struct api_fault *f) {
    struct json_value root = {0};
    int result = take_parsing(r, f);
    if (result)
        return error_trace(result);
    result = json_parse(http_json_parser(r), http_body(r), &root);
    if (result)
        return api_fault_json(f, result, "the body");
    if (json_type_of(root) != JSON_OBJECT)
        return api_fault_set(f, API_FAULT_FORMAT, NULL, "the body must be an object");
    *ret = root;
    return 0;
}

int api_parse_point(struct http_request *r, struct json_value *ret, struct api_fault *f) {
    if (json_parse_lifted(http_json_parser(r), http_body(r), "vector", ret))
        return 0;
    return error_trace(api_parse_object(r, ret, f));
}

/* Conditions of a filter are lists, or one condition. */
static bool filter_empty(struct json_value filter) {
    struct json_iterator it = json_iterate(filter);
    struct json_value v;
    while (json_next(&it, NULL, &v))
        if (json_type_of(v) != JSON_NULL && (json_type_of(v) != JSON_ARRAY || json_size(v) > 0))
            return false;
    return true;
}

int api_check_filter(struct json_value object, struct api_fault *f) {
    struct json_value filter;
    if (!api_given(object, "filter", &filter))
        return 0;
    if (json_type_of(filter) != JSON_OBJECT)
        return api_fault_set(f, API_FAULT_FORMAT, "filter", "`filter` must be an object");
    if (!filter_empty(filter))
        return api_fault_set(f, API_FAULT_INPUT, "filter",
                             "filters are not supported yet; leave `filter` out");
    return 0;
}

int api_get_id(struct json_value v, struct point_id *ret, struct api_fault *f) {
    if (point_id_from_json(v, ret))
        return 0;
    CLEANUP(buffer_deinit) struct buffer text = BUFFER_INIT;
    json_append_value(&text, v);
    return api_fault_set(f, API_FAULT_FORMAT, "id",
                         "value %s is not a valid point ID, valid values are either an unsigned "
                         "integer or a UUID",
                         api_text_of(buffer_bytes(&text)).text);
}

int api_get_timeout_ms(struct http_request *r, uint64_t *ret, struct api_fault *f) {
    struct bytes text;
    struct point_id seconds; /* has the same digits */
    if (!http_query_parameter(r, "timeout", &text)) {
        *ret = 0;
        return 0;
    }
    if (!point_id_from_text(text, &seconds) || seconds.uuid || seconds.low == 0 ||
        seconds.low > 86400)
        return api_fault_set(f, API_FAULT_RANGE, "timeout",
                             "[timeout: must be a number of seconds from 1 to 86400]");
    *ret = seconds.low * 1000;
    return 0;
}

void api_collection_unref(struct points_collection **c) {
    points_collection_unref(*c);
}
