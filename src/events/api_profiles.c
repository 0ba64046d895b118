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

static const char *const list_names[EVENT_ACTIONS] = {
#define EVENT_ACTION(id, list) list,
#include "events/schema.def"
};

static int answer_profile(struct events_api *api, struct http_request *r,
                          const struct profile_query *q) {
    struct event_profile profile = {.arena = http_arena(r)};
    struct buffer *out = http_scratch(r);
    int result =
        events_store_profile(api->store, q->cookie, q->from_ms, q->to_ms, q->limit, &profile);
    if (result)
        return error_trace(result);
    buffer_append_string(out, "{\"cookie\":");
    json_append_string(out, q->cookie);
    for (size_t i = 0; i < EVENT_ACTIONS; i++) {
        buffer_append_format(out, ",\"%s\":[", list_names[i]);
        append_list(out, &profile.lists[i], q->cookie, api->dictionary);
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
        failure.result = answer_profile(context, r, &q);
    if (failure.result)
        event_api_fail(r, &failure);
}

void event_get_profile(void *api, struct http_request *r) {
    http_offload(r, profile_job, api);
}

/* ---- DELETE ---- */

static unsigned render_erased(struct http_request *r UNUSED, enum http_write_outcome outcome UNUSED,
                              struct buffer *body UNUSED) {
    return 204;
}

/* Durable is enough: the store shows nothing older any more. */
static void await_erased(struct events_api *api, struct http_request *r, uint64_t key_hash,
                         lsn_t first, lsn_t last) {
    const struct http_write write = {.first = first, .last = last, .render = render_erased};
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
    if (!events_store_takes_erasure(api->store, *ret_hash))
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
