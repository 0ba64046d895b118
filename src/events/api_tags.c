/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tags in: one, or a batch of lines of which each stands alone. The good lines of a batch are one
 * group in the journal: after a crash all of them are there or none.
 *
 * On a cluster a request with an Idempotency-Key asks first whether the key is for its body, on a
 * thread that may wait; then it is like others.
 */
#include "events/api_parts.h"

#include "base/error.h"

static const char key_header[] = "Idempotency-Key";

static void await(struct http_request *r, lsn_t first, lsn_t last,
                  unsigned (*render)(struct http_request *r, enum http_write_outcome outcome,
                                     struct buffer *body)) {
    const struct http_write write = {.first = first, .last = last, .render = render};
    http_await_write(r, &write);
}

/* ---- Idempotency keys on a cluster ---- */

static const char tag_route[] = "/user_tags", tags_route[] = "/user_tags/batch";

/* NULL: none, or the group's own record stands for it. */
static const char *cluster_key(const struct events_api *api, const struct http_request *r) {
    return api->redis ? http_header(r, key_header) : NULL;
}

static int begin(struct event_write *w, struct events_api *api, struct http_request *r,
                 const char *route) {
    const char *key = cluster_key(api, r);
    event_write_init(w, api, r);
    return key ? error_trace(event_write_key(w, key, route, http_body(r))) : 0;
}

static void claim(struct events_api *api, struct http_request *r, const char *route,
                  http_handler go_on) {
    struct event_failure failure;
    if (event_write_claim(api, cluster_key(api, r), route, http_body(r), &failure))
        event_api_fail(r, &failure);
    else
        http_resume(r, go_on, api);
}

/* ---- One ---- */

static unsigned render_nothing(struct http_request *r UNUSED,
                               enum http_write_outcome outcome UNUSED, struct buffer *body UNUSED) {
    return 204;
}

static void append_tag(void *api, struct http_request *r) {
    struct event_write w;
    struct event_failure failure;
    lsn_t first, last;
    failure.result = begin(&w, api, r, tag_route);
    if (!failure.result)
        failure.result = event_write_tag(&w, http_json_parser(r), http_body(r), &failure.fault);
    if (!failure.result)
        failure.result = event_write_append(&w, http_header(r, key_header), tag_route, http_body(r),
                                            &first, &last, &failure);
    if (failure.result)
        event_api_fail(r, &failure);
    else
        await(r, first, last, render_nothing);
}

static void claim_for_tag(void *api, struct http_request *r) {
    claim(api, r, tag_route, append_tag);
}

/* A key is not used up by what is no tag. */
static void check_then_claim(struct events_api *api, struct http_request *r) {
    struct event_input input;
    struct event_failure failure;
    failure.result = event_write_check_key(cluster_key(api, r), &failure.fault);
    if (!failure.result)
        failure.result = event_parse_tag(http_json_parser(r), http_body(r), &input, &failure.fault);
    if (failure.result)
        event_api_fail(r, &failure);
    else
        http_offload_waiting(r, claim_for_tag, api);
}

void event_post_tag(void *api, struct http_request *r) {
    if (cluster_key(api, r))
        check_then_claim(api, r);
    else
        append_tag(api, r);
}

/* ---- A batch ---- */

#ifdef MILLRACE_TINY
enum { LISTED_MAX = 100 };
#else
enum { LISTED_MAX = 10000 }; /* rejected lines that an answer names; of the others, the number */
#endif

struct batch {
    struct event_write write;
    uint64_t line; /* from 1, blank ones too */
    uint64_t accepted;
    uint64_t rejected;
    struct buffer list; /* the rejected, as JSON without the brackets */
};

static bool is_blank(struct bytes line) {
    for (size_t i = 0; i < line.size; i++)
        if (line.data[i] != ' ' && line.data[i] != '\t' && line.data[i] != '\r')
            return false;
    return true;
}

static void reject(struct batch *b, const struct event_fault *f) {
    if (b->rejected++ >= LISTED_MAX)
        return;
    buffer_append_string(&b->list, b->rejected > 1 ? ",{\"line\":" : "{\"line\":");
    json_append_u64(&b->list, b->line);
    buffer_append_string(&b->list, ",\"error\":");
    json_append_cstring(&b->list, f->sentence);
    buffer_append_u8(&b->list, '}');
}

/* 0 also when the line was rejected. */
static int take_line(struct batch *b, struct json_parser *parser, struct bytes line) {
    struct event_fault f;
    b->line++;
    if (is_blank(line))
        return 0;
    int r = event_write_tag(&b->write, parser, line, &f);
    if (r == EVENT_E_FAULT)
        reject(b, &f);
    else if (r)
        return error_trace(r);
    else
        b->accepted++;
    return 0;
}

/* Behind each line there are others or the padding of the body, so they are parsed where they are.
 */
static int take_lines(struct batch *b, struct json_parser *parser, struct bytes body) {
    const uint8_t *at = body.data, *end = at + body.size;
    while (at < end) {
        const uint8_t *newline = memchr(at, '\n', (size_t)(end - at));
        const uint8_t *line_end = newline ? newline : end;
        int r = take_line(b, parser, bytes_of(at, (size_t)(line_end - at)));
        if (r)
            return error_trace(r);
        at = newline ? newline + 1 : end;
    }
    return buffer_check(&b->list);
}

static unsigned render_batch(struct http_request *r, enum http_write_outcome outcome UNUSED,
                             struct buffer *body) {
    buffer_append_string(body, http_state(r));
    return 200;
}

/* The answer is ready before anything is appended: it must not fail afterwards. */
static int prepare_answer(struct batch *b, struct http_request *r) {
    struct buffer *list = &b->list;
    buffer_append_string(list, "]");
    if (b->rejected > LISTED_MAX) {
        buffer_append_string(list, ",\"rejected_unlisted\":");
        json_append_u64(list, b->rejected - LISTED_MAX);
    }
    buffer_append_string(list, "}");
    int result = buffer_check(list);
    if (result)
        return error_trace(result);
    char *answer =
        arena_format(http_arena(r), "{\"accepted\":%llu,\"rejected\":[%.*s",
                     (unsigned long long)b->accepted, (int)list->size, (const char *)list->data);
    if (!answer)
        return error_origin(-ENOMEM);
    http_set_state(r, answer);
    return 0;
}

static int take_batch(struct events_api *api, struct http_request *r, bool known_only,
                      lsn_t *ret_first, lsn_t *ret_last, struct event_failure *failure) {
    struct batch b = {.list = BUFFER_INIT};
    int result = begin(&b.write, api, r, tags_route);
    b.write.known_only = known_only;
    if (!result)
        result = take_lines(&b, http_json_parser(r), http_body(r));
    if (!result)
        result = prepare_answer(&b, r);
    if (!result)
        result = event_write_append(&b.write, http_header(r, key_header), tags_route, http_body(r),
                                    ret_first, ret_last, failure);
    buffer_deinit(&b.list);
    return error_trace(result);
}

/* When the dictionary has no room for the values that are new, nothing was appended: the lines with
 * such values are bad ones then, and the others are taken. Not with a key: what it stands for is
 * the whole body, and its answer when it comes again says that all of it was taken. */
static void append_tags(void *api, struct http_request *r) {
    struct event_failure failure;
    lsn_t first = 0, last = 0;
    failure.result = take_batch(api, r, false, &first, &last, &failure);
    if (failure.result == EVENTS_E_FULL && !http_header(r, key_header)) {
        buffer_clear(http_scratch(r));
        failure.result = take_batch(api, r, true, &first, &last, &failure);
    }
    if (failure.result)
        event_api_fail(r, &failure);
    else
        await(r, first, last, render_batch);
}

static void claim_for_tags(void *api, struct http_request *r) {
    claim(api, r, tags_route, append_tags);
}

void event_post_tags(void *api, struct http_request *r) {
    struct event_failure failure;
    const char *key = cluster_key(api, r);
    if (!key)
        append_tags(api, r);
    else if ((failure.result = event_write_check_key(key, &failure.fault)))
        event_api_fail(r, &failure);
    else
        http_offload_waiting(r, claim_for_tags, api);
}
