/* SPDX-License-Identifier: Apache-2.0 */
/* A task from JSON; each refusal names the field and says what would be right. */
#include "tasks/api_parts.h"

#include "base/time_text.h"
#include "base/uuid.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>

enum {
    PRIORITY_DEFAULT = 5,
    RETRIES_MAX = 1000,
    TIMEOUT_MAX_S = 30 * 24 * 3600,
    PAST_MAX_S = 60, /* clocks differ */
};

/* ---- Faults ---- */
int task_fault_set(struct task_fault *f, enum http_error error, const char *field,
                   const char *format, ...) {
    va_list arguments;
    f->error = error;
    f->field = field;
    va_start(arguments, format);
    vsnprintf(f->sentence, sizeof f->sentence, format, arguments);
    va_end(arguments);
    return TASKS_API_E_FAULT;
}

int task_fault_json(struct task_fault *f, int r) {
    if (r < 0)
        return error_trace(r);
    return task_fault_set(f, HTTP_ERROR_MALFORMED_JSON, NULL, "the body %s", json_error_text(r));
}

void task_fail(struct http_request *r, int result, const struct task_fault *f) {
    switch (result) {
    case TASKS_API_E_FAULT:
        http_fail(r, f->error, f->field, "%s", f->sentence);
        break;
    case TASKS_E_FULL:
        http_fail(r, HTTP_ERROR_FULL, NULL,
                  "as many tasks are queued as --tasks-queued-max allows; try again later");
        break;
    case TASKS_E_UNAVAILABLE:
        http_fail(r, HTTP_ERROR_UNREACHABLE, NULL,
                  "the Redis that keeps the tasks does not answer; try again");
        break;
    case TASKS_E_NOT_FOUND:
        http_fail(r, HTTP_ERROR_NOT_FOUND, "id", "no such task");
        break;
    case -ENOMEM:
        http_fail(r, HTTP_ERROR_OVERLOADED, NULL, "memory is short; try again later");
        break;
    default:
        http_fail(r, HTTP_ERROR_INTERNAL, NULL, NULL);
    }
}

/* ---- Fields ---- */
/* The member, unless it is missing or null. */
static bool given(struct json_value object, const char *key, struct json_value *ret) {
    return json_find(object, key, ret) && json_type_of(*ret) != JSON_NULL;
}

static int parse_u64(struct json_value object, const char *key, uint64_t most, uint64_t *ret,
                     struct task_fault *f) {
    struct json_value v;
    uint64_t number;
    if (!given(object, key, &v))
        return 0;
    if (!json_get_u64(v, &number) || number > most)
        return task_fault_set(f, HTTP_ERROR_INVALID_FIELD, key,
                              "`%s` must be an integer from 0 to %llu", key,
                              (unsigned long long)most);
    *ret = number;
    return 0;
}

static int append_types(const struct task_settings *settings, struct buffer *out) {
    for (size_t i = 0; i < task_handlers_n; i++)
        if (task_handler_is_offered(task_handlers[i], settings))
            buffer_append_format(out, "%s%s", out->size ? ", " : "", task_handlers[i]->type);
    buffer_append_u8(out, 0);
    return buffer_check(out);
}

/* what: is wrong with it; the types that there are follow. */
static int fault_type(struct task_fault *f, enum http_error error, const char *what,
                      const struct task_settings *settings) {
    CLEANUP(buffer_deinit) struct buffer types = BUFFER_INIT;
    int r = append_types(settings, &types);
    if (r < 0)
        return r;
    return task_fault_set(f, error, "type", "`type` %s: %s", what, (const char *)types.data);
}

static int parse_type(struct json_value object, const struct task_settings *settings,
                      const struct task_handler **ret_handler, struct task_fault *f) {
    struct json_value v;
    struct bytes type;
    if (!given(object, "type", &v))
        return fault_type(f, HTTP_ERROR_MISSING_FIELD, "is missing; it must be one of", settings);
    if (!json_get_string(v, &type) || !(*ret_handler = task_handler_find(type)))
        return fault_type(f, HTTP_ERROR_INVALID_FIELD, "must be one of", settings);
    return 0;
}

static int parse_args(struct json_value object, const struct task_handler *handler,
                      const struct task_settings *settings, struct buffer *args,
                      struct task_fault *f) {
    struct json_value v;
    char sentence[192];
    if (!given(object, "args", &v))
        v = json_empty_object();
    if (json_type_of(v) != JSON_OBJECT)
        return task_fault_set(f, HTTP_ERROR_INVALID_FIELD, "args", "`args` must be an object");
    json_append_value(args, v);
    if (args->size > TASK_ARGS_MAX)
        return task_fault_set(f, HTTP_ERROR_TOO_LARGE, "args",
                              "`args` are %zu bytes of JSON; a task takes at most %d", args->size,
                              TASK_ARGS_MAX);
    if (!handler->check(v, settings, sentence, sizeof sentence))
        return task_fault_set(f, HTTP_ERROR_INVALID_FIELD, "args", "%s", sentence);
    return buffer_check(args);
}

static bool time_of(struct json_value v, double *ret_s) {
    struct bytes text;
    int64_t ms;
    if (json_get_double(v, ret_s))
        return *ret_s >= 0 && *ret_s <= (double)TIME_TEXT_LAST_MS / 1000;
    if (!json_get_string(v, &text) || !time_from_text(text, TIME_FORM_RFC3339, &ms))
        return false;
    *ret_s = (double)ms / 1000;
    return true;
}

static int parse_run_at(struct json_value object, uint64_t now_us, uint64_t *ret_us,
                        struct task_fault *f) {
    struct json_value v;
    double at_s;
    if (!given(object, "run_at", &v))
        return 0;
    if (!time_of(v, &at_s))
        return task_fault_set(f, HTTP_ERROR_INVALID_FIELD, "run_at",
                              "`run_at` must be a time, as 2026-01-02T03:04:05Z, or seconds since "
                              "1970");
    if (at_s + PAST_MAX_S < (double)now_us / 1e6)
        return task_fault_set(f, HTTP_ERROR_INVALID_FIELD, "run_at",
                              "`run_at` is in the past; leave it out to run at once");
    *ret_us = (uint64_t)(at_s * 1e6);
    return 0;
}

static int parse_timeout(struct json_value object, uint64_t *ret_ms, struct task_fault *f) {
    struct json_value v;
    double seconds;
    if (!given(object, "timeout", &v))
        return 0;
    if (!json_get_double(v, &seconds) || !(seconds >= 0.001) || seconds > TIMEOUT_MAX_S)
        return task_fault_set(f, HTTP_ERROR_INVALID_FIELD, "timeout",
                              "`timeout` must be seconds, above 0 and at most %d", TIMEOUT_MAX_S);
    *ret_ms = (uint64_t)ceil(seconds * 1000);
    return 0;
}

static int parse_key(struct json_value object, struct bytes *ret_key, struct task_fault *f) {
    struct json_value v;
    struct bytes key;
    if (!given(object, "idempotency_key", &v))
        return 0;
    if (!json_get_string(v, &key) || key.size < 1 || key.size > TASK_KEY_MAX)
        return task_fault_set(f, HTTP_ERROR_INVALID_FIELD, "idempotency_key",
                              "`idempotency_key` must be a string of 1 to %d bytes", TASK_KEY_MAX);
    *ret_key = key;
    return 0;
}

int task_parse_request(struct json_value v, uint64_t now_us, const struct task_settings *settings,
                       struct buffer *args, struct task_request *ret_request,
                       struct task_fault *f) {
    const struct task_handler *handler;
    struct task_request q = {0};
    uint64_t priority = PRIORITY_DEFAULT, retries = 0;
    if (json_type_of(v) != JSON_OBJECT)
        return task_fault_set(f, HTTP_ERROR_BAD_REQUEST, NULL, "a task must be a JSON object");
    int r = parse_type(v, settings, &handler, f);
    if (!r)
        r = parse_u64(v, "priority", TASK_PRIORITIES - 1, &priority, f);
    if (!r)
        r = parse_u64(v, "max_retries", RETRIES_MAX, &retries, f);
    if (!r)
        r = parse_timeout(v, &q.timeout_ms, f);
    if (!r)
        r = parse_run_at(v, now_us, &q.run_at_us, f);
    if (!r)
        r = parse_key(v, &q.idempotency_key, f);
    if (!r)
        r = parse_args(v, handler, settings, args, f);
    if (r)
        return error_trace(r);
    q.type = bytes_of_string(handler->type);
    q.args = buffer_bytes(args);
    q.priority = (uint8_t)priority;
    q.max_retries = (uint32_t)retries;
    *ret_request = q;
    return 0;
}

bool task_parse_id(struct bytes text, struct task_id *ret_id) {
    return text.size == UUID_TEXT_BYTES && uuid_parse(text, &ret_id->key, &ret_id->low);
}
