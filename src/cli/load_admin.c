/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocking requests: each is a path, a body, and one value out of the answer.
 */
#include "cli/load_admin.h"

#include <errno.h>
#include <stdarg.h>

enum { ASK_TIMEOUT_MS = 60000, PARSE_MAX_BYTES = 1 << 20, ATTEMPTS = 3 };

int admin_init(struct admin *a, const struct load_plan *plan) {
    *a = (struct admin){.plan = plan};
    client_init(&a->client, &plan->address);
    int r = json_parser_new(PARSE_MAX_BYTES, &a->parser);
    return r ? error_trace(r) : 0;
}

void admin_deinit(struct admin *a) {
    client_deinit(&a->client);
    json_parser_free(a->parser);
    buffer_deinit(&a->request);
}

static int PRINTF_LIKE(2, 3) fail(struct admin *a, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(a->error, sizeof a->error, format, args);
    va_end(args);
    return ADMIN_E_FAILED;
}

/* A kept connection may have been closed by the server meanwhile, so the first loss says nothing.
 */
static int ask(struct admin *a, const char *method, const char *path, struct bytes body,
               struct client_answer *ret_answer) {
    const struct client_target *target = &a->plan->target;
    int r = CLIENT_E_CLOSED;
    buffer_clear(&a->request);
    client_append_head(&a->request, target, method, path, body.size);
    buffer_append_bytes(&a->request, body);
    if (buffer_check(&a->request))
        return fail(a, "out of memory");
    for (int i = 0; i < ATTEMPTS && r == CLIENT_E_CLOSED; i++)
        r = client_ask(&a->client, a->plan->os, buffer_bytes(&a->request), ASK_TIMEOUT_MS,
                       ret_answer);
    if (r)
        return fail(a, "http://%s:%u: %s; is `millrace serve` running there?", target->url.host,
                    (unsigned)target->url.port, client_reason(r));
    return 0;
}

static int unexpected(struct admin *a, const char *what, const struct client_answer *answer) {
    return fail(a, "%s: the server answers %u: %.*s", what, answer->status,
                (int)(answer->body.size < 300 ? answer->body.size : 300),
                (const char *)answer->body.data);
}

/* path holds the text of a path of the collection, NUL-terminated. */
static int collection_path(struct admin *a, struct buffer *path, const char *rest) {
    buffer_append_string(path, "/collections/");
    load_append_segment(path, a->plan->source->collection);
    buffer_append_string(path, rest);
    buffer_append_u8(path, 0);
    return buffer_check(path) ? fail(a, "out of memory") : 0;
}

static int create(struct admin *a, const char *path) {
    char body[128];
    struct client_answer answer;
    snprintf(body, sizeof body, "{\"vectors\":{\"size\":%u,\"distance\":\"Cosine\"}}",
             a->plan->source->dimension);
    int r = ask(a, "PUT", path, bytes_of_string(body), &answer);
    if (r)
        return r;
    bool there = answer.status == 200 || answer.status == 409; /* another was faster */
    return there ? 0 : unexpected(a, "creating the collection", &answer);
}

int admin_ensure_collection(struct admin *a) {
    struct buffer path CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct client_answer answer;
    int r = collection_path(a, &path, "");
    if (!r)
        r = ask(a, "GET", (const char *)path.data, bytes_of(NULL, 0), &answer);
    if (r)
        return r;
    if (answer.status == 404)
        return create(a, (const char *)path.data);
    return answer.status == 200 ? 0 : unexpected(a, "looking for the collection", &answer);
}

/* The answer's body as JSON. */
static int parse(struct admin *a, const struct client_answer *answer, struct json_value *ret) {
    struct buffer *copy = &a->request; /* its request is answered */
    buffer_clear(copy);
    buffer_append_bytes(copy, answer->body);
    if (!buffer_reserve(copy, JSON_PADDING))
        return fail(a, "out of memory");
    int r = json_parse(a->parser, buffer_bytes(copy), ret);
    return r ? fail(a, "the server's answer %s", r > 0 ? json_error_text(r) : strerror(-r)) : 0;
}

int admin_count(struct admin *a, uint64_t *ret_count) {
    struct buffer path CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct client_answer answer;
    struct json_value value;
    int r = collection_path(a, &path, "/points/count");
    if (!r)
        r = ask(a, "POST", (const char *)path.data, BYTES_LITERAL("{\"exact\":true}"), &answer);
    if (r)
        return r;
    if (answer.status != 200)
        return unexpected(a, "counting the points", &answer);
    r = parse(a, &answer, &value);
    if (r)
        return r;
    if (!json_find(value, "result", &value) || !json_find(value, "count", &value) ||
        !json_get_u64(value, ret_count))
        return unexpected(a, "counting the points", &answer);
    return 0;
}

int admin_repeat(struct admin *a, uint64_t first, uint64_t n) {
    struct buffer path CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct buffer body CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct client_answer answer;
    int r = collection_path(a, &path, "/points?wait=true");
    load_append_body(a->plan->source, first, n, &body);
    if (!r && buffer_check(&body))
        r = fail(a, "out of memory");
    if (!r)
        r = ask(a, "PUT", (const char *)path.data, buffer_bytes(&body), &answer);
    if (r)
        return r;
    bool visible =
        answer.status == 200 && memmem(answer.body.data, answer.body.size, "\"completed\"", 11);
    return visible ? 0 : unexpected(a, "waiting until all is visible", &answer);
}

int admin_task_ended(struct admin *a, const char *id, bool *ret_ended) {
    char path[128];
    struct client_answer answer;
    struct json_value value;
    struct bytes status;
    snprintf(path, sizeof path, "/tasks/%.80s", id);
    int r = ask(a, "GET", path, bytes_of(NULL, 0), &answer);
    if (r)
        return r;
    if (answer.status ==
        404) { /* forgotten: there are 10,000 newer ones, which are looked at next */
        *ret_ended = true;
        return 0;
    }
    if (answer.status != 200)
        return unexpected(a, "looking for a task", &answer);
    r = parse(a, &answer, &value);
    if (r)
        return r;
    if (!json_find(value, "status", &value) || !json_get_string(value, &status))
        return unexpected(a, "looking for a task", &answer);
    bool ended = bytes_equal(status, BYTES_LITERAL("succeeded"));
    if (!ended && !bytes_equal(status, BYTES_LITERAL("running")) &&
        !bytes_equal(status, BYTES_LITERAL("queued")))
        return unexpected(a, "a task did not succeed", &answer);
    *ret_ended = ended;
    return 0;
}
