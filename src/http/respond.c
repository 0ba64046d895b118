/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers: put together by handlers, handed to libmicrohttpd (or, by force, to the socket), counted
 * and logged. Invariant 1 is kept here: an answer below 300 on a route that writes is refused by an
 * assertion unless acknowledge.c, which stands behind durability, has marked it.
 */
#include "http/internal.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

enum {
    RETRY_AFTER_S = 1,
    MESSAGE_MAX = 1024,
    LOG_LINES_MAX = 10,       /* a second */
    COPIED_MAX = 64 << 10,    /* a longer answer's memory is taken over, not copied */
    CHARGE_FREE = 16 << 10,   /* a shorter one is not counted */
    ENVELOPE_BYTES_MAX = 128, /* of Qdrant's, around the result */
};

static const char qdrant_prefix[] = "{\"result\":";
static const char qdrant_suffix[] = ",\"status\":\"ok\",\"time\":%.9f}";

const struct http_error_row http_error_rows[HTTP_ERRORS] = {
#define HTTP_ERROR(id, status, code, message) [HTTP_ERROR_##id] = {status, code, message},
#include "http/errors.def"
#undef HTTP_ERROR
};

/* ---- Making ---- */

struct http_answer *http_answer_begin(struct http_request *r, unsigned status) {
    struct http_answer *a = &r->answer;
    assert(status >= 200 && status < 600);
    assert(a->status == 0);
    assert(status >= 300 || a->acknowledged || !http_request_writes(r));
    a->status = status;
    a->content_type = "application/json";
    buffer_clear(&a->copy);
    a->body = bytes_of(NULL, 0);
    return a;
}

/* Slow readers may hold it for long (invariant 6), so it is counted from here on; whoever makes a
 * large one has asked for the memory before. */
void http_answer_charge(struct http_request *r) {
    struct http_answer *a = &r->answer;
    if (a->copy.size <= CHARGE_FREE || a->charged_bytes)
        return;
    a->charged_bytes = a->copy.size;
    budget_add(r->loop->server->options.budget, BUDGET_ANSWERS, a->charged_bytes);
}

void http_answer_release(struct http_request *r) {
    budget_give(r->loop->server->options.budget, BUDGET_ANSWERS, r->answer.charged_bytes);
    r->answer.charged_bytes = 0;
}

/* Without memory for its body, an answer is at least a status that says so. */
static void answer_take_copy(struct http_request *r) {
    struct http_answer *a = &r->answer;
    if (a->copy.failed) {
        a->status = a->acknowledged ? a->status : 503;
        buffer_clear(&a->copy);
    }
    a->body = buffer_bytes(&a->copy);
    http_answer_charge(r);
}

void http_respond(struct http_request *r, unsigned status, const char *content_type,
                  struct bytes body) {
    struct http_answer *a = http_answer_begin(r, status);
    if (content_type)
        a->content_type = content_type;
    buffer_append_bytes(&a->copy, body);
    answer_take_copy(r);
}

void http_respond_taking(struct http_request *r, unsigned status, const char *content_type,
                         struct buffer *body) {
    struct http_answer *a = http_answer_begin(r, status);
    if (content_type)
        a->content_type = content_type;
    struct buffer former = a->copy;
    a->copy = *body;
    *body = former;
    answer_take_copy(r);
}

void http_respond_static(struct http_request *r, const char *content_type, struct bytes body,
                         const char *etag) {
    if (etag) {
        http_set_header(r, "ETag", etag);
        http_set_header(r, "Cache-Control", "no-cache");
    }
    const char *known = etag ? http_header(r, "If-None-Match") : NULL;
    bool same = known && strstr(known, etag);
    struct http_answer *a = http_answer_begin(r, same ? 304 : 200);
    if (content_type)
        a->content_type = content_type;
    if (!same)
        a->body = body;
}

void http_respond_qdrant(struct http_request *r, struct bytes result_json) {
    struct http_answer *a = http_answer_begin(r, 200);
    buffer_append_string(&a->copy, qdrant_prefix);
    buffer_append_bytes(&a->copy, result_json);
    buffer_append_format(&a->copy, qdrant_suffix, http_elapsed(r));
    answer_take_copy(r);
}

void http_respond_qdrant_taking(struct http_request *r, struct buffer *result_json) {
    size_t prefix = sizeof qdrant_prefix - 1;
    if (result_json->size <= COPIED_MAX || !buffer_reserve(result_json, ENVELOPE_BYTES_MAX)) {
        http_respond_qdrant(r, buffer_bytes(result_json));
        return;
    }
    memmove(result_json->data + prefix, result_json->data, result_json->size);
    memcpy(result_json->data, qdrant_prefix, prefix);
    result_json->size += prefix;
    buffer_append_format(result_json, qdrant_suffix, http_elapsed(r));
    http_respond_taking(r, 200, NULL, result_json);
}

void http_set_header(struct http_request *r, const char *name, const char *value) {
    struct http_answer *a = &r->answer;
    assert(a->n_headers < HTTP_HEADERS_MAX);
    /* A value from the outside must not start a header of its own. */
    char *copy = arena_copy_string(&r->arena, bytes_of(value, strcspn(value, "\r\n")));
    if (!copy)
        return; /* a header is worth less than the answer */
    a->headers[a->n_headers].name = name;
    a->headers[a->n_headers++].value = copy;
}

void http_fail_style(struct buffer *out, enum http_style style, enum http_error error,
                     const char *field, const char *message, double elapsed) {
    if (style == HTTP_STYLE_QDRANT) {
        buffer_append_string(out, "{\"status\":{\"error\":");
        json_append_cstring(out, message);
        buffer_append_format(out, "},\"time\":%.9f}", elapsed);
        return;
    }
    buffer_append_format(out,
                         "{\"error\":{\"code\":\"%s\",\"message\":", http_error_rows[error].code);
    json_append_cstring(out, message);
    if (field) {
        buffer_append_string(out, ",\"field\":");
        json_append_cstring(out, field);
    }
    buffer_append_string(out, "}}");
}

void http_fail(struct http_request *r, enum http_error error, const char *field, const char *format,
               ...) {
    const struct http_error_row *row = &http_error_rows[error];
    char message[MESSAGE_MAX];
    if (format) {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(message, sizeof message, format, args); /* cut is fine */
        va_end(args);
    }
    struct http_answer *a = http_answer_begin(r, row->status);
    if (row->status == 429 || row->status == 503)
        a->retry_after_s = RETRY_AFTER_S;
    http_fail_style(&a->copy, http_style_of(r), error, field, format ? message : row->message,
                    http_elapsed(r));
    answer_take_copy(r);
}

void http_fail_journal(struct http_request *r, int condition) {
    switch (condition) {
    case JOURNAL_E_OVERLOAD:
        http_fail(r, HTTP_ERROR_OVERLOADED, NULL, NULL);
        break;
    case JOURNAL_E_PINNED:
        http_fail(r, HTTP_ERROR_TOO_FAR_BEHIND, NULL, NULL);
        break;
    case JOURNAL_E_UNAVAILABLE:
        http_fail(r, HTTP_ERROR_UNAVAILABLE, NULL, "writes are not taken now: %s",
                  journal_state_text(r->entry->journal));
        break;
    case JOURNAL_E_TOO_LARGE:
        http_fail(r, HTTP_ERROR_TOO_LARGE, NULL, "one write takes at most %d MiB; send several",
                  JOURNAL_GROUP_MAX_BYTES >> 20);
        break;
    default:
        http_fail(r, HTTP_ERROR_INTERNAL, NULL, NULL);
    }
}

/* ---- Counting ---- */

enum { ID_TEXT = 17 };

/* On the hot path: a tenth of printf's time. */
static void id_text(uint64_t id, char out[ID_TEXT]) {
    for (size_t i = ID_TEXT - 1; i-- > 0; id >>= 4)
        out[i] = "0123456789abcdef"[id & 15];
    out[ID_TEXT - 1] = '\0';
}

static struct metric_series *status_series(struct http_request *r, struct http_route_series *s,
                                           const char *path) {
    unsigned status = r->answer.status;
    const char *method = r->entry ? r->method_text : "other"; /* bounded, and static below */
    for (size_t i = 0; i < s->n; i++)
        if (s->statuses[i].status == status && strcmp(s->statuses[i].method, method) == 0)
            return s->statuses[i].series;
    if (r->entry)
        method = strcmp(method, "HEAD") == 0 ? "HEAD" : http_method_name(r->method);
    char text[8];
    (void)snprintf(text, sizeof text, "%u", status);
    struct metric_series *series =
        metrics_series(r->loop->server->metrics, METRIC_HTTP_REQUESTS, path, method, text);
    if (s->n < HTTP_STATUSES_MAX) {
        s->statuses[s->n].status = status;
        s->statuses[s->n].method = method;
        s->statuses[s->n++].series = series;
    }
    return series;
}

/* An answer of 5xx is an error of ours, but a storm of them must not become one of log lines. */
static bool may_log(struct http_loop *l, enum log_level level) {
    if (level != LOG_ERROR)
        return true;
    uint64_t second = l->now_ns / UINT64_C(1000000000);
    if (second != l->log_second)
        l->log_lines = 0;
    l->log_second = second;
    return l->log_lines++ < LOG_LINES_MAX;
}

static void log_answer(struct http_request *r, const char *path, uint64_t us) {
    struct log *log = r->loop->server->log;
    enum log_level level = r->answer.status >= 500 ? LOG_ERROR : LOG_DEBUG;
    if (!log || level < log_level_of(log) || !may_log(r->loop, level))
        return;
    char id[ID_TEXT];
    id_text(r->id, id);
    log_line(log, level, "request", LOG_TEXT("request_id", id), LOG_TEXT("method", r->method_text),
             LOG_TEXT("route", path), LOG_NUMBER("status", r->answer.status),
             LOG_NUMBER("microseconds", us), LOG_NUMBER("received_bytes", r->wire_bytes),
             LOG_NUMBER("sent_bytes", r->answer.body.size));
}

void http_answer_count(struct http_request *r) {
    struct http_server *s = r->loop->server;
    size_t index = r->entry ? r->entry->index : router_size(s->router);
    const char *path = r->entry ? r->entry->route->path : "none";
    struct http_route_series *series = &r->loop->series[index];
    if (!series->seconds)
        series->seconds = metrics_series(s->metrics, METRIC_HTTP_SECONDS, path);
    uint64_t us = (os_monotonic_ns(s->os) - r->started_ns) / 1000;
    metric_observe(series->seconds, us);
    metric_add(status_series(r, series, path), 1);
    metric_add(s->out_bytes, r->answer.body.size);
    log_answer(r, path, us);
}

/* ---- Sending ---- */

typedef void (*header_each)(void *context, const char *name, const char *value);

/* Every header of the answer but those of libmicrohttpd itself. */
static void answer_headers(struct http_request *r, header_each each, void *context) {
    const struct http_answer *a = &r->answer;
    const struct http_server *s = r->loop->server;
    char text[ID_TEXT];
    id_text(r->id, text);
    each(context, "X-Request-Id", text);
    if (a->content_type && a->body.size > 0)
        each(context, "Content-Type", a->content_type);
    if (a->retry_after_s) {
        (void)snprintf(text, sizeof text, "%u", a->retry_after_s);
        each(context, "Retry-After", text);
    }
    if (s->options.cors_origin)
        each(context, "Access-Control-Allow-Origin", s->options.cors_origin);
    for (size_t i = 0; i < a->n_headers; i++)
        each(context, a->headers[i].name, a->headers[i].value);
    if (atomic_load_explicit(&s->phase, memory_order_relaxed) != HTTP_SERVING)
        each(context, "Connection", "close");
}

static void header_to_response(void *response, const char *name, const char *value) {
    (void)MHD_add_response_header(response, name, value); /* fails only without memory */
}

enum MHD_Result http_answer_queue(struct http_request *r) {
    struct http_answer *a = &r->answer;
    /* PERSISTENT: the request outlives the response. libmicrohttpd only lacks the const. */
    struct MHD_Response *response = MHD_create_response_from_buffer(
        a->body.size, (void *)(uintptr_t)a->body.data, MHD_RESPMEM_PERSISTENT);
    if (!response)
        return MHD_NO;
    answer_headers(r, header_to_response, response);
    enum MHD_Result queued = MHD_queue_response(r->mhd, a->status, response);
    MHD_destroy_response(response);
    r->state = REQUEST_SENT;
    a->queued_ns = r->loop->now_ns;
    http_answer_count(r);
    if (a->charged_bytes) { /* it may take long to send; what it was made from is of no more use */
        http_body_release(r);
        buffer_deinit(&r->body);
        arena_reset(&r->arena);
        r->user = NULL;
        a->n_headers = 0;
    }
    return queued;
}

static void header_to_buffer(void *buffer, const char *name, const char *value) {
    buffer_append_format(buffer, "%s: %s\r\n", name, value);
}

void http_answer_head(struct http_request *r, struct buffer *out) {
    const struct http_answer *a = &r->answer;
    buffer_append_format(out, "HTTP/1.1 %u %s\r\n", a->status,
                         MHD_get_reason_phrase_for(a->status));
    answer_headers(r, header_to_buffer, out);
}

void http_answer_force(struct http_request *r, bool everything) {
    struct buffer *out = &r->loop->worker.scratch;
    const struct http_answer *a = &r->answer;
    buffer_clear(out);
    http_answer_head(r, out);
    buffer_append_format(out, "Connection: close\r\nContent-Length: %zu\r\n\r\n", a->body.size);
    buffer_append_bytes(out, a->body);
    size_t written = 0;
    /* Best effort: an empty send buffer takes an error whole, and a full one means that nobody
     * reads. */
    if (!buffer_check(out) && socket_write(r->connection->fd, out->data, out->size, &written))
        written = 0;
    socket_shutdown(r->connection->fd, everything);
    http_answer_count(r);
}
