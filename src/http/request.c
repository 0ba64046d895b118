/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request from its first line to its recycling. libmicrohttpd calls http_on_request once when the
 * headers are in, once for every piece of the body, once at its end, and once more after every
 * resume. An answer can be given to it in the first call (which closes the connection: the body was
 * refused) or at the end of the body, never in between.
 */
#include "http/internal.h"

#include "base/hash.h"

#include <assert.h>
#include <stdlib.h>
#include <strings.h>

enum {
    ARENA_SLACK = 1 << 20,
    SPARES_MAX = 1024,
    TARGET_KEEP_MAX = 64 << 10, /* a longer buffer is given back */
    SCRATCH_KEEP_MAX = 4 << 20, /* so is that of a thread */
};

/* ---- Life ---- */

/* Everything to zero but what is reused: the memory of the buffers and of the arena. */
static void request_reset(struct http_request *r, struct http_loop *l) {
    struct buffer target = r->target;
    struct buffer body = r->body;
    struct buffer copy = r->answer.copy;
    struct arena arena = r->arena;
    memset(r, 0, sizeof *r);
    r->target = target;
    r->body = body;
    r->answer.copy = copy;
    r->arena = arena;
    buffer_clear(&r->target);
    buffer_clear(&r->body);
    buffer_clear(&r->answer.copy);
    r->loop = l;
    r->worker = &l->worker;
}

static size_t request_memory(const struct http_request *r) {
    return r->target.capacity + r->body.capacity + r->answer.copy.capacity;
}

void http_request_free(struct http_request *r) {
    buffer_deinit(&r->target);
    buffer_deinit(&r->body);
    buffer_deinit(&r->answer.copy);
    arena_deinit(&r->arena);
    free(r);
}

static struct http_request *request_new(struct http_loop *l) {
    struct http_request *r = l->spares;
    if (r) {
        l->spares = r->spare_next;
        l->n_spares--;
        l->spare_bytes -= request_memory(r);
    } else {
        r = calloc(1, sizeof *r);
        if (!r)
            return NULL;
        r->arena = ARENA_INIT(4 * l->server->options.body_max_bytes + ARENA_SLACK);
    }
    request_reset(r, l);
    return r;
}

static void request_give_back(struct http_request *r) {
    struct http_loop *l = r->loop;
    if (l->n_spares == SPARES_MAX) {
        http_request_free(r);
        return;
    }
    arena_reset(&r->arena);
    if (r->target.capacity > TARGET_KEEP_MAX)
        buffer_deinit(&r->target);
    if (l->spare_bytes + request_memory(r) > l->server->spare_bytes_max) {
        buffer_deinit(&r->body);
        buffer_deinit(&r->answer.copy);
    }
    l->spare_bytes += request_memory(r);
    l->n_spares++;
    r->spare_next = l->spares;
    l->spares = r;
}

struct http_request *http_request_take(struct http_loop *l, const char *target) {
    struct http_request *r = request_new(l);
    if (!r)
        return NULL;
    buffer_append_string(&r->target, target);
    if (buffer_check(&r->target)) {
        request_give_back(r);
        return NULL;
    }
    uint64_t number = atomic_fetch_add_explicit(&l->server->ids, 1, memory_order_relaxed);
    r->id = hash64_u64(l->server->id_seed + number);
    r->started_ns = os_monotonic_ns(l->server->os);
    r->heard_ns = r->started_ns;
    http_target_parse(r);
    return r;
}

/* A streaming handler that was promised an end and gets none. */
static void request_abandon(struct http_request *r) {
    if (!r->began)
        return;
    r->began = false;
    if (r->entry->route->closed)
        r->entry->route->closed(r->entry->context, r);
}

void http_request_recycle(struct http_request *r) {
    assert(!http_request_waits(r));
    request_abandon(r);
    http_request_unpause(r);
    http_body_release(r);
    http_answer_release(r);
    if (r->wire_bytes)
        metric_add(r->loop->server->in_bytes, r->wire_bytes);
    request_give_back(r);
}

/* ---- The calls of libmicrohttpd ---- */

static void request_suspend(struct http_request *r) {
    if (r->suspended)
        return;
    r->suspended = true;
    MHD_suspend_connection(r->mhd);
}

/* Runs a handler of the route; afterwards the request is answered, waits, or (streaming) goes on.
 */
static void request_run(struct http_request *r, http_handler handler) {
    struct http_worker *w = r->worker;
    http_worker_begin(w);
    r->state = REQUEST_RUNNING;
    handler(r->entry->context, r);
    http_worker_end(w);
}

/* A refused body is drained so that the client reads the answer. When the client asked before
 * sending, or nobody knows where the body ends, the answer goes at once and the connection with it.
 */
static bool refuse_at_once(struct http_request *r) {
    if (r->unframed)
        return true;
    const char *expect = http_header(r, "Expect");
    return r->content_length != 0 && expect && strcasecmp(expect, "100-continue") == 0;
}

void http_request_stream_on(struct http_request *r) {
    bool waits = http_request_waits(r); /* then a query thread may be writing the answer */
    r->began = !waits && !http_request_answered(r);
    if (!waits)
        r->state = r->began ? REQUEST_BODY : REQUEST_DRAIN;
}

static enum MHD_Result request_begin(struct http_request *r, const char *method) {
    r->method_text = method;
    r->state = REQUEST_BODY;
    http_admit(r);
    if (!http_request_answered(r))
        http_body_begin(r);
    if (!http_request_answered(r) && http_request_streams(r)) {
        r->began = true;
        request_run(r, r->entry->route->handler);
        http_request_stream_on(r);
    }
    r->begins = http_request_waits(r);
    if (r->begins)
        request_suspend(r);
    if (r->begins || !http_request_answered(r))
        return MHD_YES;
    r->state = REQUEST_DRAIN;
    return refuse_at_once(r) ? http_answer_queue(r) : MHD_YES;
}

/* The first call comes again, once who suspended it goes on. */
static enum MHD_Result request_begun(struct http_request *r) {
    r->begins = false;
    return http_request_answered(r) && refuse_at_once(r) ? http_answer_queue(r) : MHD_YES;
}

/* Throws a piece away. Past a bound the answer goes out by force, and past another the connection
 * is closed: whoever still sends then does not read. */
static enum MHD_Result request_drain(struct http_request *r, size_t n) {
    r->drained_bytes += n;
    if (r->state == REQUEST_DRAIN && r->drained_bytes > HTTP_DRAIN_MAX) {
        http_answer_force(r, false);
        r->state = REQUEST_LINGER;
        r->deadline_ns = r->loop->now_ns + HTTP_LINGER_S * UINT64_C(1000000000);
    }
    return r->drained_bytes > HTTP_DRAIN_MAX + HTTP_LINGER_MAX ? MHD_NO : MHD_YES;
}

static enum MHD_Result request_piece(struct http_request *r, const char *data, size_t *size) {
    r->heard_ns = r->loop->now_ns;
    if (r->state == REQUEST_DRAIN || r->state == REQUEST_LINGER) {
        size_t n = *size;
        r->wire_bytes += n;
        *size = 0;
        return request_drain(r, n);
    }
    assert(r->state == REQUEST_BODY);
    if (!http_request_paused(r)) {
        size_t left = 0;
        http_body_receive(r, bytes_of(data, *size), &left);
        r->wire_bytes += *size - left;
        *size = left;
    }
    if (http_request_answered(r)) {
        request_abandon(r);
        r->state = REQUEST_DRAIN;
        *size = 0;
    } else if (http_request_paused(r)) {
        request_suspend(r);
    }
    return MHD_YES;
}

/* The body is whole: the handler's turn. A streaming one may pause and be asked again. */
static void request_complete(struct http_request *r) {
    bool stream = http_request_streams(r);
    request_run(r, stream ? r->entry->route->end : r->entry->route->handler);
    if (!http_request_waits(r) && http_request_paused(r) && !http_request_answered(r)) {
        r->state = REQUEST_BODY;
        return;
    }
    r->began = false;
    /* In this order: while it waits, a query thread may be writing the answer. */
    assert(http_request_waits(r) || http_request_answered(r));
}

static enum MHD_Result request_end(struct http_request *r) {
    if (r->state == REQUEST_BODY && !http_request_paused(r)) {
        r->received = r->received || http_body_end(r);
        if (r->received)
            request_complete(r);
        else if (http_request_answered(r))
            request_abandon(r);
    }
    if (!http_request_waits(r) && http_request_answered(r))
        return http_answer_queue(r);
    request_suspend(r);
    return MHD_YES;
}

enum MHD_Result http_on_request(void *loop, struct MHD_Connection *mhd, const char *url,
                                const char *method, const char *version, const char *data,
                                size_t *size, void **request) {
    (void)loop;
    (void)mhd;
    (void)url;
    struct http_request *r = *request;
    if (!r)
        return MHD_NO; /* there was no memory for it */
    if (r->state == REQUEST_HEADERS) {
        r->http10 = strcmp(version, MHD_HTTP_VERSION_1_0) == 0;
        return request_begin(r, method);
    }
    if (r->begins)
        return request_begun(r);
    if (r->state == REQUEST_LINGER && *size == 0)
        return MHD_NO; /* its answer went out by force */
    return *size > 0 ? request_piece(r, data, size) : request_end(r);
}

/* ---- What handlers ask ---- */

enum http_method http_method_of(const struct http_request *r) {
    return r->method;
}

struct bytes http_path_parameter(const struct http_request *r, const char *name) {
    const struct router_entry *e = r->entry;
    struct bytes wanted = bytes_of_string(name);
    for (size_t i = 0; e && i < e->n_parameters; i++)
        if (bytes_equal(e->parameters[i].name, wanted))
            return r->path.segments[e->parameters[i].segment];
    return BYTES_LITERAL("");
}

bool http_query_parameter_at(const struct http_request *r, const char *name, size_t index,
                             struct bytes *ret_value) {
    struct bytes wanted = bytes_of_string(name);
    for (size_t i = 0; i < r->n_query; i++) {
        if (bytes_equal(r->query[i].name, wanted) && index-- == 0) {
            *ret_value = r->query[i].value;
            return true;
        }
    }
    return false;
}

bool http_query_parameter(const struct http_request *r, const char *name, struct bytes *ret_value) {
    return http_query_parameter_at(r, name, 0, ret_value);
}

bool http_query_flag(const struct http_request *r, const char *name, bool fallback) {
    struct bytes value;
    if (!http_query_parameter(r, name, &value))
        return fallback;
    if (value.size == 0 || bytes_equal(value, BYTES_LITERAL("true")) ||
        bytes_equal(value, BYTES_LITERAL("1")))
        return true;
    if (bytes_equal(value, BYTES_LITERAL("false")) || bytes_equal(value, BYTES_LITERAL("0")))
        return false;
    return fallback;
}

const char *http_header(const struct http_request *r, const char *name) {
    return MHD_lookup_connection_value(r->mhd, MHD_HEADER_KIND, name);
}

struct bytes http_body(const struct http_request *r) {
    return buffer_bytes(&r->body);
}

struct arena *http_arena(struct http_request *r) {
    return &r->arena;
}

struct json_parser *http_json_parser(struct http_request *r) {
    return r->worker->parser;
}

struct buffer *http_scratch(struct http_request *r) {
    return &r->worker->scratch;
}

double http_elapsed(const struct http_request *r) {
    return (double)(os_monotonic_ns(r->loop->server->os) - r->started_ns) / 1e9;
}

enum http_style http_style_of(const struct http_request *r) {
    if (r->entry)
        return r->entry->route->style;
    return r->area ? r->area->style : HTTP_STYLE_MILLRACE;
}

void http_set_state(struct http_request *r, void *state) {
    r->user = state;
}

void *http_state(const struct http_request *r) {
    return r->user;
}

void http_request_unpause(struct http_request *r) {
    if (!http_request_paused(r))
        return;
    r->pause_until_ns = 0;
    struct http_request **at = &r->loop->timed;
    while (*at != r)
        at = &(*at)->timed_next;
    *at = r->timed_next;
}

void http_pause_body_ms(struct http_request *r, uint64_t ms) {
    assert(http_request_streams(r));
    if (http_request_paused(r))
        return;
    r->pause_until_ns = os_monotonic_ns(r->loop->server->os) + ms * UINT64_C(1000000);
    r->timed_next = r->loop->timed;
    r->loop->timed = r;
}

/* ---- What a thread needs to run handlers ---- */

void http_worker_begin(struct http_worker *w) {
    buffer_clear(&w->scratch);
}

void http_worker_end(struct http_worker *w) {
    if (w->scratch.capacity > SCRATCH_KEEP_MAX)
        buffer_deinit(&w->scratch);
}

int http_worker_init(struct http_worker *w, uint64_t body_max_bytes) {
    w->scratch = BUFFER_INIT;
    w->parser = NULL;
    int r = json_parser_new(body_max_bytes, &w->parser);
    return r ? error_trace(r) : 0;
}

void http_worker_deinit(struct http_worker *w) {
    w->parser = json_parser_free(w->parser);
    buffer_deinit(&w->scratch);
}
