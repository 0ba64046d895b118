/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ids of elements. An id is answered once its record is durable, whoever created it: after a crash
 * it means the same.
 */
#include "events/api_parts.h"

#include "base/error.h"

#include <errno.h>

struct question {
    struct bytes collection;
    struct bytes element;
    bool create;
};

static int take_text(struct json_value body, const char *name, size_t least, struct bytes *ret,
                     struct event_fault *f) {
    struct json_value v;
    struct bytes text;
    if (!json_find(body, name, &v))
        return event_fault_set(f, EVENT_FAULT_MISSING, name, "`%s` is missing; it must be a string",
                               name);
    if (!json_get_string(v, &text) || text.size < least || text.size > EVENT_TEXT_MAX)
        return event_fault_set(f, EVENT_FAULT_INVALID, name,
                               "`%s` must be a string of %zu to %d bytes", name, least,
                               EVENT_TEXT_MAX);
    *ret = text;
    return 0;
}

static int take_flag(struct json_value body, const char *name, bool *ret, struct event_fault *f) {
    struct json_value v;
    if (!json_find(body, name, &v))
        return event_fault_set(f, EVENT_FAULT_MISSING, name,
                               "`%s` is missing; it must be true or false", name);
    if (!json_get_bool(v, ret))
        return event_fault_set(f, EVENT_FAULT_INVALID, name, "`%s` must be true or false", name);
    return 0;
}

static int parse_question(struct http_request *r, struct question *q, struct event_fault *f) {
    struct json_value body;
    int result = json_parse(http_json_parser(r), http_body(r), &body);
    if (result)
        return event_fault_json(f, result, "the body");
    if (json_type_of(body) != JSON_OBJECT)
        return event_fault_set(f, EVENT_FAULT_INVALID, NULL, "the body must be an object");
    result = take_text(body, "collection_name", 1, &q->collection, f);
    if (!result)
        result = take_text(body, "element", 0, &q->element, f);
    if (!result)
        result = take_flag(body, "create_missing", &q->create, f);
    return error_trace(result);
}

static unsigned render_id(struct http_request *r, enum http_write_outcome outcome UNUSED,
                          struct buffer *body) {
    const uint32_t *id = http_state(r);
    buffer_append_format(body, "{\"id\":%u}", *id);
    return 200;
}

/* An id that is 0 is none. */
static int find_or_create(struct events_api *api, const struct question *q, uint32_t *ret_id,
                          lsn_t *ret_lsn, struct event_failure *failure) {
    struct event_newcomer one = {.collection = q->collection, .element = q->element};
    lsn_t first, last;
    uint32_t collection = event_dictionary_collection(api->dictionary, q->collection);
    one.id = event_dictionary_find(api->dictionary, collection, q->element, &one.lsn);
    if (!one.id && q->create) {
        int r = event_dictionary_append(api->dictionary, api->journal, &one, 1, NULL, NULL, NULL, 0,
                                        &first, &last, &failure->condition);
        if (r)
            return error_trace(r);
    }
    if (!one.id && event_dictionary_lost(api->dictionary) > 0)
        return error_origin(-EBADMSG); /* it may be one of those lost to damage */
    *ret_id = one.id;
    *ret_lsn = one.lsn;
    return 0;
}

static void fail_absent(struct http_request *r) {
    http_fail(r, HTTP_ERROR_NOT_FOUND, "element",
              "the collection has no such element; send create_missing as true to create it");
}

static void await_id(struct http_request *r, lsn_t lsn) {
    const struct http_write write = {.first = lsn, .last = lsn, .render = render_id};
    http_await_write(r, &write);
}

static int answer(struct events_api *api, struct http_request *r, const struct question *q,
                  struct event_failure *failure) {
    lsn_t lsn = 0;
    uint32_t *id = arena_calloc(http_arena(r), 1, sizeof *id);
    int result = id ? find_or_create(api, q, id, &lsn, failure) : error_origin(-ENOMEM);
    if (result)
        return error_trace(result);
    http_set_state(r, id);
    if (*id == 0)
        fail_absent(r);
    else
        await_id(r, lsn);
    return 0;
}

/* ---- Kept by a cluster: there it is durable, and nothing is appended ---- */

static void answer_known(void *api UNUSED, struct http_request *r) {
    await_id(r, 0);
}

static int ask(struct events_api *api, struct http_request *r, struct event_failure *failure) {
    struct question q = {.create = false};
    uint32_t *id = arena_calloc(http_arena(r), 1, sizeof *id);
    int result = id ? parse_question(r, &q, &failure->fault) : error_origin(-ENOMEM);
    if (!result)
        result = events_redis_id(api->redis, q.collection, q.element, q.create, id, failure->why);
    if (result)
        return error_trace(result);
    http_set_state(r, id);
    if (*id == 0)
        fail_absent(r);
    else
        http_resume(r, answer_known, api);
    return 0;
}

static void ask_job(void *api, struct http_request *r) {
    struct event_failure failure;
    failure.result = ask(api, r, &failure);
    if (failure.result)
        event_api_fail(r, &failure);
}

static void find_here(void *api, struct http_request *r) {
    struct question q = {.create = false};
    struct event_failure failure;
    failure.result = parse_question(r, &q, &failure.fault);
    if (!failure.result)
        failure.result = answer(api, r, &q, &failure);
    if (failure.result)
        event_api_fail(r, &failure);
}

void event_post_id(void *api, struct http_request *r) {
    if (((struct events_api *)api)->redis)
        http_offload_waiting(r, ask_job, api);
    else
        find_here(api, r);
}
