/* SPDX-License-Identifier: Apache-2.0 */
/* From what went wrong to the answer that says so. */
#include "events/api_parts.h"

#include "base/error.h"

static const enum http_error fault_errors[EVENT_FAULT_KINDS] = {
    [EVENT_FAULT_JSON] = HTTP_ERROR_MALFORMED_JSON,
    [EVENT_FAULT_MISSING] = HTTP_ERROR_MISSING_FIELD,
    [EVENT_FAULT_INVALID] = HTTP_ERROR_INVALID_FIELD,
};

static void fail_fault(struct http_request *r, const struct event_fault *f) {
    http_fail(r, fault_errors[f->kind], *f->field ? f->field : NULL, "%s", f->sentence);
}

void event_api_fail(struct http_request *r, const struct event_failure *failure) {
    switch (failure->result) {
    case EVENT_E_FAULT:
        fail_fault(r, &failure->fault);
        break;
    case EVENTS_E_JOURNAL:
        http_fail_journal(r, failure->condition);
        break;
    case EVENTS_E_FULL:
        http_fail(r, HTTP_ERROR_FULL, NULL,
                  "the dictionary is full: no value that was never seen is taken; raise "
                  "--dictionary-size, or --memory-limit if its part is smaller");
        break;
    case EVENTS_REDIS_E_DOWN:
        http_fail(r, HTTP_ERROR_UNREACHABLE, NULL,
                  "the Redis Cluster that keeps the events does not answer: %s; try again",
                  failure->why);
        break;
    case EVENTS_REDIS_E_FULL:
        http_fail(r, HTTP_ERROR_FULL, NULL, "the collection has as many elements as ids");
        break;
    case EVENT_API_E_KEYS_FULL:
        http_fail(r, HTTP_ERROR_FULL, "Idempotency-Key",
                  "as many keys are kept as --idempotency-max and --memory-limit allow; try again "
                  "later, or send without one");
        break;
    case EVENT_API_E_BEHIND:
        http_fail(r, HTTP_ERROR_TOO_FAR_BEHIND, NULL, NULL);
        break;
    case EVENT_API_E_KEY_REUSED:
        http_fail(r, HTTP_ERROR_KEY_REUSED, "Idempotency-Key", NULL);
        break;
    case -EBADMSG:
        http_fail(
            r, HTTP_ERROR_INTERNAL, NULL,
            "what is stored of this is damaged; `millrace check` says more of what is on disk");
        break;
    case -ENOMEM:
        http_fail(r, HTTP_ERROR_OVERLOADED, NULL, "memory is short; try again later");
        break;
    default:
        http_fail(r, HTTP_ERROR_INTERNAL, NULL, NULL);
    }
}

int event_api_cookie(const struct http_request *r, struct bytes *ret_cookie,
                     struct event_fault *f) {
    struct bytes cookie = http_path_parameter(r, "cookie");
    if (cookie.size == 0 || cookie.size > EVENT_TEXT_MAX || !json_is_utf8(cookie))
        return event_fault_set(f, EVENT_FAULT_INVALID, "cookie",
                               "`cookie` must be 1 to %d bytes of UTF-8, percent-encoded",
                               EVENT_TEXT_MAX);
    *ret_cookie = cookie;
    return 0;
}

int event_api_parameter(const struct http_request *r, const char *name, const char *right,
                        struct bytes *ret_value, struct event_fault *f) {
    if (http_query_parameter(r, name, ret_value))
        return 0;
    return event_fault_set(f, EVENT_FAULT_MISSING, name,
                           "the query parameter `%s` is missing; it must be %s", name, right);
}
