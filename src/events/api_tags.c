/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tags in: one, or a batch of lines of which each stands alone. The good lines of a batch are one
 * group in the journal: after a crash all of them are there or none.
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

/* ---- One ---- */

static unsigned render_nothing(struct http_request *r UNUSED,
                               enum http_write_outcome outcome UNUSED, struct buffer *body UNUSED) {
    return 204;
}

void event_post_tag(void *api, struct http_request *r) {
    struct event_write w;
    struct event_failure failure;
    lsn_t first, last;
    event_write_init(&w, api, r);
    failure.result = event_write_tag(&w, http_json_parser(r), http_body(r), &failure.fault);
    if (!failure.result)
        failure.result = event_write_append(&w, http_header(r, key_header), "/user_tags",
                                            http_body(r), &first, &last, &failure);
    if (failure.result)
        event_api_fail(r, &failure);
    else
        await(r, first, last, render_nothing);
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
    event_write_init(&b.write, api, r);
    b.write.known_only = known_only;
    int result = take_lines(&b, http_json_parser(r), http_body(r));
    if (!result)
        result = prepare_answer(&b, r);
    if (!result)
        result = event_write_append(&b.write, http_header(r, key_header), "/user_tags/batch",
                                    http_body(r), ret_first, ret_last, failure);
    buffer_deinit(&b.list);
    return error_trace(result);
}

/* When the dictionary has no room for the values that are new, nothing was appended: the lines with
 * such values are bad ones then, and the others are taken. Not with a key: what it stands for is
 * the whole body, and its answer when it comes again says that all of it was taken. */
void event_post_tags(void *api, struct http_request *r) {
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
