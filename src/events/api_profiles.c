/* SPDX-License-Identifier: Apache-2.0 */
/* A user's latest tags, and the forgetting of a user. */
#include "events/api_parts.h"

#include "base/error.h"

/* ---- GET, POST ---- */

struct profile_query {
    struct bytes cookie;
    int64_t from_ms;
    int64_t to_ms;
    unsigned limit;
};

static int parse_query(const struct http_request *r, struct profile_query *q,
                       struct event_fault *f) {
    struct bytes text;
    int result = event_api_cookie(r, &q->cookie, f);
    if (!result)
        result = event_api_parameter(r, "time_range", "<datetime>_<datetime>", &text, f);
    if (!result)
        result = event_parse_range(text, &q->from_ms, &q->to_ms, f);
    if (result)
        return error_trace(result);
    q->limit = EVENT_PROFILE_KEEP;
    if (!http_query_parameter(r, "limit", &text))
        return 0;
    return event_parse_number(text, "limit", EVENT_PROFILE_KEEP, &q->limit, f);
}

static struct bytes text_of(const void *dictionary, uint32_t collection, uint32_t id) {
    return event_dictionary_text(dictionary, collection, id);
}

static void append_list(struct buffer *out, const struct event_list *list, struct bytes cookie,
                        const struct event_dictionary *d) {
    for (size_t i = 0; i < list->n; i++) {
        if (i > 0)
            buffer_append_u8(out, ',');
        event_append_tag(out, &list->tags[i], cookie, text_of, d);
    }
}

static void append_full_list(struct buffer *out, const struct events_redis_list *list,
                             struct bytes cookie) {
    for (size_t i = 0; i < list->n; i++) {
        if (i > 0)
            buffer_append_u8(out, ',');
        event_append_tag(out, &list->tags[i].tag, cookie, event_full_text, list->tags[i].texts);
    }
}

static const char *const list_names[EVENT_ACTIONS] = {
#define EVENT_ACTION(id, list) list,
#include "events/schema.def"
};

/* What is found of a profile, wherever it is kept. */
struct found {
    struct event_profile local;
    struct events_redis_profile redis;
};

static int find_profile(struct events_api *api, struct http_request *r,
                        const struct profile_query *q, struct found *found,
                        struct event_failure *failure) {
    found->local.arena = found->redis.arena = http_arena(r);
    if (api->redis)
        return events_redis_profile(api->redis, q->cookie, q->from_ms, q->to_ms, q->limit,
                                    &found->redis, failure->why);
    return events_store_profile(api->store, q->cookie, q->from_ms, q->to_ms, q->limit,
                                &found->local);
}

static int answer_profile(struct events_api *api, struct http_request *r,
                          const struct profile_query *q, struct event_failure *failure) {
    struct found found = {0};
    struct buffer *out = http_scratch(r);
    int result = find_profile(api, r, q, &found, failure);
    if (result)
        return error_trace(result);
    buffer_append_string(out, "{\"cookie\":");
    json_append_string(out, q->cookie);
    for (size_t i = 0; i < EVENT_ACTIONS; i++) {
        buffer_append_format(out, ",\"%s\":[", list_names[i]);
        append_list(out, &found.local.lists[i], q->cookie, api->dictionary);
        append_full_list(out, &found.redis.lists[i], q->cookie);
        buffer_append_u8(out, ']');
    }
    buffer_append_u8(out, '}');
    result = buffer_check(out);
    if (result)
        return error_trace(result);
    http_respond(r, 200, NULL, buffer_bytes(out));
    return 0;
}

/* On a query thread. */
static void profile_job(void *context, struct http_request *r) {
    struct profile_query q;
    struct event_failure failure;
    failure.result = parse_query(r, &q, &failure.fault);
    if (!failure.result)
        failure.result = answer_profile(context, r, &q, &failure);
    if (failure.result)
        event_api_fail(r, &failure);
}

void event_get_profile(void *api, struct http_request *r) {
    event_api_offload(api, r, profile_job);
}

/* ---- DELETE ---- */

static unsigned render_erased(struct http_request *r UNUSED, enum http_write_outcome outcome UNUSED,
                              struct buffer *body UNUSED) {
    return 204;
}

static bool takes_erasure(struct events_api *api, uint64_t key_hash) {
    if (api->shared)
        return true;
    return api->redis ? events_redis_takes_erasure(api->redis, key_hash)
                      : events_store_takes_erasure(api->store, key_hash);
}

/* Durable is enough: the store shows nothing older any more. (One that several processes write
 * shows it until one of them has applied the erasure.) */
static void await_erased(struct events_api *api, struct http_request *r, uint64_t key_hash,
                         lsn_t first, lsn_t last) {
    const struct http_write write = {.first = first, .last = last, .render = render_erased};
    if (api->redis && !api->shared)
        events_redis_erased(api->redis, key_hash, last);
    else if (!api->redis)
        events_store_erased(api->store, key_hash, last);
    http_await_write(r, &write);
}

static int erase(struct events_api *api, struct http_request *r, uint64_t *ret_hash,
                 lsn_t *ret_first, lsn_t *ret_last, struct event_failure *failure) {
    struct event_write w;
    struct bytes cookie;
    event_write_init(&w, api, r);
    int result = event_api_cookie(r, &cookie, &failure->fault);
    if (result)
        return error_trace(result);
    *ret_hash = event_key_hash(cookie);
    if (!takes_erasure(api, *ret_hash))
        return EVENT_API_E_BEHIND;
    result = event_write_erase(&w, cookie);
    if (result)
        return error_trace(result);
    return event_write_append(&w, NULL, "", (struct bytes){0}, ret_first, ret_last, failure);
}

void event_delete_profile(void *api, struct http_request *r) {
    struct event_failure failure;
    uint64_t hash = 0;
    lsn_t first = 0, last = 0;
    failure.result = erase(api, r, &hash, &first, &last, &failure);
    if (failure.result)
        event_api_fail(r, &failure);
    else
        await_erased(api, r, hash, first, last);
}
