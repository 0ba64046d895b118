/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams of server-sent events.
 *
 *     http_respond_events ──▶ looked after at each tick ──▶ over ──▶ closed; the connection ends
 *
 *     a tick:  has the client hung up? ─▶ write what is left ─▶ all gone: next ─▶ write, keep the
 * rest
 *
 * libmicrohttpd's ways do not fit. A callback that has nothing to give (0) leaves its connection
 * among the ready ones: it is asked again in every turn, and the loop spins. To suspend it in
 * between means a resume for every look, and nobody notices a hang-up. So a stream's connection is
 * suspended once, for good: this file writes to its socket and reads from it, and in the end
 * resumes it only to be closed. What is left of a suspended connection is a step in the list that a
 * resume walks: some nanoseconds.
 *
 * Ticks are multiples of TICK_MS for all streams, so that a thousand of them wake the loop no more
 * often than some. A stream holds no memory of its own but what its socket did not take
 * (PENDING_MAX at most, counted in BUDGET_ANSWERS); a client that takes longer for that than a body
 * may is cut.
 *
 * In HTTP/1.1 the stream is chunked: one that was cut has no last chunk. In 1.0 the end of the
 * connection is all there is.
 */
#include "http/internal.h"

#include <assert.h>
#include <stdio.h>

#define MS UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)

enum {
    INTERVAL_MS = 250,
    TICK_MS = 25,
    PENDING_MAX = 256 << 10,
    OUT_KEEP_MAX = 64 << 10, /* a longer buffer of the loop is given back */
    CHUNK_HEAD_BYTES = 10,   /* eight digits and a line break */
};

static const char sse_headers[] = "Content-Type: text/event-stream\r\n"
                                  "Cache-Control: no-store\r\n"
                                  "X-Accel-Buffering: no\r\n"
                                  "Connection: close\r\n";

/* ---- Events ---- */

static void append_field(struct buffer *out, const char *name, struct bytes value) {
    buffer_append_string(out, name);
    buffer_append_string(out, ": ");
    buffer_append_bytes(out, value);
    buffer_append_u8(out, '\n');
}

static size_t line_length(struct bytes text) {
    size_t n = 0;
    while (n < text.size && text.data[n] != '\n' && text.data[n] != '\r')
        n++;
    return n;
}

void http_event_append(struct buffer *out, const char *event, const char *id, struct bytes data) {
    if (event)
        append_field(out, "event", bytes_of(event, strcspn(event, "\r\n")));
    if (id)
        append_field(out, "id", bytes_of(id, strcspn(id, "\r\n")));
    for (;;) {
        size_t n = line_length(data);
        append_field(out, "data", bytes_of(data.data, n));
        if (n == data.size)
            break;
        n += data.size - n > 1 && data.data[n] == '\r' && data.data[n + 1] == '\n' ? 2 : 1;
        data = bytes_of(data.data + n, data.size - n);
    }
    buffer_append_u8(out, '\n');
}

/* ---- The socket ---- */

/* Nothing more is expected from the client: what comes is thrown away. */
static bool hung_up(const struct http_request *r) {
    uint8_t thrown[1024];
    size_t n = 0;
    int e = socket_read(r->connection->fd, thrown, sizeof thrown, &n);
    return e && e != OS_E_AGAIN;
}

/* As much as the socket takes now; false when the client is gone. */
static bool write_some(const struct http_request *r, struct bytes data, size_t *ret_written) {
    size_t done = 0;
    while (done < data.size) {
        size_t n = 0;
        int e = socket_write(r->connection->fd, data.data + done, data.size - done, &n);
        if (e == OS_E_AGAIN)
            break;
        if (e)
            return false;
        done += n;
    }
    *ret_written = done;
    return true;
}

static bool is_pending(const struct http_request *r) {
    return r->answer.copy.size > 0;
}

static void pending_free(struct http_request *r) {
    r->sse.sent = 0;
    buffer_deinit(&r->answer.copy);
    http_answer_release(r);
}

/* False when it is too much, or there is no memory for it. */
static bool pending_keep(struct http_request *r, struct bytes rest) {
    struct http_answer *a = &r->answer;
    if (rest.size > PENDING_MAX ||
        !budget_take(r->loop->server->options.budget, BUDGET_ANSWERS, rest.size))
        return false;
    a->charged_bytes = rest.size;
    r->sse.stuck_ns = r->loop->now_ns;
    buffer_append_bytes(&a->copy, rest);
    return !buffer_check(&a->copy);
}

/* False when the client is gone, or has not read for too long. */
static bool pending_send(struct http_request *r) {
    struct http_sse *s = &r->sse;
    const struct buffer *copy = &r->answer.copy;
    size_t n = 0;
    if (!is_pending(r))
        return true;
    if (!write_some(r, bytes_of(copy->data + s->sent, copy->size - s->sent), &n))
        return false;
    s->sent += n;
    if (s->sent == copy->size)
        pending_free(r);
    return !is_pending(r) ||
           r->loop->now_ns - s->stuck_ns < r->loop->server->options.body_timeout_s * SECOND;
}

static bool sse_send(struct http_request *r, const struct buffer *out) {
    size_t n = 0;
    if (buffer_check(out) || !write_some(r, buffer_bytes(out), &n))
        return false;
    return n == out->size || pending_keep(r, bytes_of(out->data + n, out->size - n));
}

/* ---- What is sent ---- */

static bool is_head(const struct http_request *r) {
    return strcmp(r->method_text, "HEAD") == 0;
}

static void append_head(struct http_request *r, struct buffer *out) {
    http_answer_head(r, out);
    buffer_append_string(out, sse_headers);
    if (!r->http10)
        buffer_append_string(out, "Transfer-Encoding: chunked\r\n");
    buffer_append_string(out, "\r\n");
}

static bool is_old(const struct http_request *r) {
    const struct http_options *o = &r->loop->server->options;
    return r->loop->now_ns - r->sse.began_ns >= o->events_age_max_ms * MS;
}

static bool is_silent(const struct http_request *r) {
    const struct http_options *o = &r->loop->server->options;
    return r->loop->now_ns - r->sse.spoke_ns >= o->events_keep_alive_ms * MS;
}

/* The stream's next piece, if there is any. */
static void append_piece(struct http_request *r, struct buffer *out) {
    struct http_sse *s = &r->sse;
    struct http_worker *w = r->worker;
    size_t start = out->size;
    http_worker_begin(w);
    s->ended = !s->events.next(r->entry->context, r, out);
    http_worker_end(w);
    if (out->size == start && !s->ended && is_silent(r))
        buffer_append_string(out, ": keep-alive\n\n");
    if (out->size > start)
        s->spoke_ns = r->loop->now_ns;
    metric_add(r->loop->server->out_bytes, out->size - start);
}

/* The piece's size stands before it and is known after it: it has always as many digits. */
static void append_chunk(struct http_request *r, struct buffer *out) {
    size_t start = out->size;
    buffer_append_string(out, "00000000\r\n");
    append_piece(r, out);
    if (out->failed)
        return;
    size_t n = out->size - start - CHUNK_HEAD_BYTES;
    if (n == 0) {
        out->size = start;
        return;
    }
    for (size_t at = start + CHUNK_HEAD_BYTES - 2, left = n; at-- > start; left >>= 4)
        out->data[at] = (uint8_t) "0123456789abcdef"[left & 15];
    buffer_append_string(out, "\r\n");
}

static void append_next(struct http_request *r, struct buffer *out, bool stopping) {
    struct http_sse *s = &r->sse;
    if (s->began_ns == 0) {
        s->began_ns = s->spoke_ns = r->loop->now_ns;
        append_head(r, out);
        s->ended = is_head(r);
        if (s->ended)
            return;
    }
    if (stopping || is_old(r))
        s->ended = true;
    else if (r->http10)
        append_piece(r, out);
    else
        append_chunk(r, out);
    if (s->ended && !r->http10)
        buffer_append_string(out, "0\r\n\r\n");
}

/* ---- Life ---- */

/* False when the stream is over. */
static bool sse_tick(struct http_request *r, bool stopping) {
    struct http_sse *s = &r->sse;
    struct buffer *out = &r->loop->sse_out;
    if (hung_up(r) || !pending_send(r))
        return false;
    if (is_pending(r) || s->ended)
        return is_pending(r) && !stopping;
    append_next(r, out, stopping);
    bool sent = sse_send(r, out);
    buffer_clear(out);
    if (out->capacity > OUT_KEEP_MAX)
        buffer_deinit(out);
    return sent && !stopping && (!s->ended || is_pending(r));
}

static void sse_closed(struct http_request *r, const struct http_events *e) {
    if (e->closed)
        e->closed(r->entry->context, r);
}

static void sse_over(struct http_request *r) {
    struct http_server *s = r->loop->server;
    atomic_fetch_sub(&s->n_sse, 1);
    metric_add(s->sse_gauge, -UINT64_C(1));
    pending_free(r);
    sse_closed(r, &r->sse.events);
    r->state = REQUEST_LINGER; /* libmicrohttpd's next call is told to close it */
    r->deadline_ns = r->loop->now_ns + HTTP_LINGER_S * SECOND;
    http_loop_resume(r);
}

static uint64_t tick_after(const struct http_request *r) {
    uint64_t due_ns = r->loop->now_ns + r->sse.events.interval_ms * MS;
    return due_ns - due_ns % (TICK_MS * MS);
}

uint64_t http_sse_turn(struct http_loop *l) {
    bool stopping = atomic_load_explicit(&l->server->phase, memory_order_relaxed) != HTTP_SERVING;
    if (l->now_ns < l->sse_due_ns && !stopping)
        return l->sse_due_ns;
    uint64_t due_ns = UINT64_MAX;
    for (struct http_request **at = &l->sse, *r; (r = *at);) {
        if (stopping || r->sse.due_ns <= l->now_ns) {
            if (!sse_tick(r, stopping)) {
                *at = r->sse.next;
                sse_over(r);
                continue;
            }
            r->sse.due_ns = tick_after(r);
        }
        due_ns = r->sse.due_ns < due_ns ? r->sse.due_ns : due_ns;
        at = &r->sse.next;
    }
    l->sse_due_ns = due_ns;
    return due_ns;
}

/* Takes one of the server's streams, or answers that there is none. */
static bool sse_admit(struct http_request *r) {
    struct http_server *s = r->loop->server;
    if (atomic_load_explicit(&s->phase, memory_order_relaxed) != HTTP_SERVING) {
        http_fail(r, HTTP_ERROR_STOPPING, NULL, NULL); /* nobody would look after it any more */
        return false;
    }
    if (atomic_fetch_add(&s->n_sse, 1) < s->options.events_max)
        return true;
    atomic_fetch_sub(&s->n_sse, 1);
    http_fail(r, HTTP_ERROR_OVERLOADED, NULL, "%u streams of events are open; close some, or poll",
              s->options.events_max);
    return false;
}

void http_respond_events(struct http_request *r, const struct http_events *e) {
    struct http_loop *l = r->loop;
    assert(r->state == REQUEST_RUNNING && !http_request_answered(r));
    assert(r->entry->route->flags & HTTP_ROUTE_EVENTS);
    assert(e->next);
    if (!sse_admit(r)) {
        sse_closed(r, e);
        return;
    }
    metric_add(l->server->sse_gauge, 1);
    (void)http_answer_begin(r, 200);
    http_answer_count(r);
    http_body_release(r);
    buffer_deinit(&r->body);
    r->state = REQUEST_EVENTS;
    r->sse = (struct http_sse){.events = *e, .due_ns = l->now_ns, .next = l->sse};
    unsigned interval_ms = e->interval_ms ? e->interval_ms : INTERVAL_MS;
    r->sse.events.interval_ms = interval_ms < TICK_MS ? TICK_MS : interval_ms;
    l->sse = r;
    l->sse_due_ns = l->now_ns;
}
