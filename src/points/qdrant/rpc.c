/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gRPC over HTTP/2 (grpc's doc/PROTOCOL-HTTP2.md):
 *
 *   request    HEADERS(:method POST, te trailers, …), DATA(prefix, message) END_STREAM
 *   answer     HEADERS(:status 200), DATA(prefix, message), HEADERS(grpc-status, …) END_STREAM
 *              or, without a message, all in one HEADERS END_STREAM
 *
 * The call's thread drives the session: write what nghttp2 has to say, read what came, wait. What
 * it has to say is gathered in out, so that a request of many frames costs few system calls; the
 * body goes there straight from the request.
 */
#include "points/qdrant/rpc.h"

#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef MILLRACE_TINY
enum { OUT_BYTES = 1 << 10, READ_BYTES = 64 };
#else
enum { OUT_BYTES = 128 << 10, READ_BYTES = 16 << 10 };
#endif

enum {
    FRAME_HEADER_BYTES = 9,
    NO_STATUS = -1,
    HTTP_OK = 200,
    TIMEOUT_MS_MAX = 99999999, /* eight digits */
    NS_PER_MS = 1000000,
};

struct rpc {
    struct os *os;
    struct transport *transport;
    nghttp2_session *session;
    struct buffer out; /* frames, sent up to sent */
    size_t sent;
    bool going_away;
    bool broken;
    /* of the call */
    int32_t stream;
    struct bytes body;
    size_t body_sent;
    bool whole;          /* the server was sent all of the request */
    uint64_t send_by_ns; /* 0: never */
    bool answered;       /* END_STREAM came */
    bool closed;         /* the stream is; error says why */
    uint32_t error;
    int http_status;
    int grpc_status;
    char sentence[RPC_SENTENCE_MAX];
    struct buffer answer;
};

/* ---- What nghttp2 asks for ---- */
static bool out_is_full(const struct rpc *c) {
    return c->out.size >= OUT_BYTES;
}

static ssize_t on_send(nghttp2_session *session, const uint8_t *data, size_t size, int flags,
                       void *context) {
    (void)session;
    (void)flags;
    struct rpc *c = context;
    if (out_is_full(c))
        return NGHTTP2_ERR_WOULDBLOCK;
    buffer_append(&c->out, data, size);
    return c->out.failed ? NGHTTP2_ERR_CALLBACK_FAILURE : (ssize_t)size;
}

static ssize_t on_body(nghttp2_session *session, int32_t stream, uint8_t *out, size_t size,
                       uint32_t *flags, nghttp2_data_source *source, void *context) {
    (void)session;
    (void)stream;
    (void)out;
    (void)source;
    struct rpc *c = context;
    size_t rest = c->body.size - c->body_sent;
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (rest <= size)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)(rest < size ? rest : size);
}

/* Of the DATA frame that on_body announced. */
static int on_send_body(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *header,
                        size_t size, nghttp2_data_source *source, void *context) {
    (void)session;
    (void)frame;
    (void)source;
    struct rpc *c = context;
    if (out_is_full(c))
        return NGHTTP2_ERR_WOULDBLOCK;
    buffer_append(&c->out, header, FRAME_HEADER_BYTES);
    buffer_append(&c->out, c->body.data + c->body_sent, size);
    c->body_sent += size;
    return c->out.failed ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static bool header_is(const uint8_t *name, size_t size, const char *wanted) {
    return bytes_equal(bytes_of(name, size), bytes_of_string(wanted));
}

static int number_of(const uint8_t *value, size_t size, int most) {
    int n = 0;
    for (size_t i = 0; i < size; i++) {
        if (value[i] < '0' || value[i] > '9' || n > most)
            return NO_STATUS;
        n = n * 10 + (value[i] - '0');
    }
    return size == 0 || n > most ? NO_STATUS : n;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_size, const uint8_t *value, size_t value_size, uint8_t flags,
                     void *context) {
    (void)session;
    (void)flags;
    struct rpc *c = context;
    if (frame->hd.stream_id != c->stream)
        return 0;
    if (header_is(name, name_size, ":status")) {
        c->http_status = number_of(value, value_size, 999);
    } else if (header_is(name, name_size, "grpc-status")) {
        int status = number_of(value, value_size, GRPC_STATUS_MAX);
        c->grpc_status = status == NO_STATUS ? GRPC_UNKNOWN : status;
    } else if (header_is(name, name_size, "grpc-message")) {
        rpc_decode_sentence(bytes_of(value, value_size), c->sentence, sizeof c->sentence);
    }
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *data,
                   size_t size, void *context) {
    (void)session;
    (void)flags;
    struct rpc *c = context;
    if (stream != c->stream)
        return 0;
    if (size > RPC_ANSWER_MAX - c->answer.size)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    buffer_append(&c->answer, data, size);
    return c->answer.failed ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *context) {
    (void)session;
    struct rpc *c = context;
    if (frame->hd.type == NGHTTP2_GOAWAY)
        c->going_away = true;
    bool ends = frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA;
    if (ends && frame->hd.stream_id == c->stream && frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
        c->answered = true;
    return 0;
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t error, void *context) {
    (void)session;
    struct rpc *c = context;
    if (stream == c->stream) {
        c->closed = true;
        c->error = error;
    }
    return 0;
}

/* As large as the server takes them, within what its windows let through. */
static ssize_t on_frame_size(nghttp2_session *session, uint8_t type, int32_t stream,
                             int32_t session_window, int32_t stream_window, uint32_t frame_max,
                             void *context) {
    (void)session;
    (void)type;
    (void)stream;
    (void)context;
    int32_t window = session_window < stream_window ? session_window : stream_window;
    return frame_max < (uint32_t)window ? (ssize_t)frame_max : (ssize_t)window;
}

static int new_session(struct rpc *c) {
    nghttp2_session_callbacks *callbacks;
    if (nghttp2_session_callbacks_new(&callbacks))
        return error_origin(-ENOMEM);
    nghttp2_session_callbacks_set_send_callback(callbacks, on_send);
    nghttp2_session_callbacks_set_send_data_callback(callbacks, on_send_body);
    nghttp2_session_callbacks_set_data_source_read_length_callback(callbacks, on_frame_size);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    int r = nghttp2_session_client_new(&c->session, callbacks, c);
    nghttp2_session_callbacks_del(callbacks);
    const nghttp2_settings_entry push = {NGHTTP2_SETTINGS_ENABLE_PUSH, 0};
    if (r == 0)
        r = nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, &push, 1);
    return r ? error_origin(-ENOMEM) : 0;
}

int rpc_new(struct os *os, struct transport *transport, struct rpc **ret_rpc) {
    struct rpc *c = calloc(1, sizeof *c);
    if (!c) {
        transport_free(transport, true);
        return error_origin(-ENOMEM);
    }
    c->os = os;
    c->transport = transport;
    int r = new_session(c);
    if (r) {
        rpc_free(c);
        return error_trace(r);
    }
    *ret_rpc = c;
    return 0;
}

struct rpc *rpc_free(struct rpc *c) {
    if (!c)
        return NULL;
    nghttp2_session_del(c->session);
    /* A call that was given up is sent again, others behind it: it must not come after those. */
    transport_free(c->transport, c->broken);
    buffer_deinit(&c->out);
    buffer_deinit(&c->answer);
    free(c);
    return NULL;
}

/* ---- Driving it ---- */
static int lost(int r) {
    return r < 0 ? r : RPC_E_LOST;
}

/* Of a function of nghttp2, which fails for want of memory, or because the server does not keep to
 * the protocol. */
static int from_nghttp2(int r) {
    if (r >= 0)
        return 0;
    return r == NGHTTP2_ERR_NOMEM ? error_origin(-ENOMEM) : RPC_E_LOST;
}

/* Looked at right before each write: between the two a process may be stopped, for ever so long. */
static bool is_late(const struct rpc *c) {
    return c->send_by_ns && !c->whole && os_monotonic_ns(c->os) >= c->send_by_ns;
}

static int send_pending(struct rpc *c) {
    for (;;) {
        int r = from_nghttp2(nghttp2_session_send(c->session));
        if (r)
            return error_trace(r);
        if (c->sent == c->out.size)
            break;
        if (is_late(c))
            return RPC_E_LATE;
        size_t n;
        r = transport_write(c->transport, c->out.data + c->sent, c->out.size - c->sent, &n);
        if (r == TRANSPORT_E_AGAIN)
            return 0;
        if (r)
            return lost(r);
        c->sent += n;
        if (c->sent < c->out.size)
            continue;
        buffer_clear(&c->out);
        c->sent = 0;
        c->whole = c->body_sent == c->body.size;
    }
    return 0;
}

static int read_pending(struct rpc *c) {
    uint8_t data[READ_BYTES];
    for (;;) {
        size_t n;
        int r = transport_read(c->transport, data, sizeof data, &n);
        if (r == TRANSPORT_E_AGAIN)
            return 0;
        if (r)
            return lost(r);
        ssize_t taken = nghttp2_session_mem_recv(c->session, data, n);
        if (taken < 0)
            return from_nghttp2((int)taken);
    }
}

static bool call_has_ended(const struct rpc *c) {
    return c->answered || c->closed;
}

/* Reads first: what came may let more be sent, and a wait is only for what comes after that. */
static int read_and_send(struct rpc *c) {
    int r = read_pending(c);
    if (r || call_has_ended(c))
        return r;
    r = send_pending(c);
    if (r != RPC_E_LOST)
        return r;
    int last = read_pending(c); /* what the server said before it went */
    return last < 0 ? last : r;
}

/* What was read before the connection ended counts: a server may answer, and leave. */
static int drive(struct rpc *c, uint64_t deadline_ns) {
    for (;;) {
        int r = read_and_send(c);
        if (r < 0 || call_has_ended(c))
            return r < 0 ? r : 0;
        if (r)
            return r;
        if (!nghttp2_session_want_read(c->session) && !nghttp2_session_want_write(c->session))
            return RPC_E_LOST;
        r = transport_wait(c->transport, c->sent < c->out.size, deadline_ns);
        if (r)
            return r == TRANSPORT_E_DEADLINE ? RPC_E_DEADLINE : error_trace(r);
    }
}

bool rpc_is_usable(struct rpc *c) {
    if (!c->broken && (read_pending(c) || send_pending(c)))
        c->broken = true;
    return !c->broken && !c->going_away && nghttp2_session_check_request_allowed(c->session);
}

/* ---- One call ---- */
static nghttp2_nv header(const char *name, const char *value, uint8_t flags) {
    /* nghttp2 does not write there: it copies both. */
    return (nghttp2_nv){(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, strlen(name),
                        strlen(value), flags};
}

static int submit(struct rpc *c, const struct rpc_request *q) {
    char timeout[16];
    uint64_t now_ns = os_monotonic_ns(c->os);
    uint64_t rest_ms = q->deadline_ns > now_ns ? (q->deadline_ns - now_ns) / NS_PER_MS : 0;
    if (rest_ms > TIMEOUT_MS_MAX)
        rest_ms = TIMEOUT_MS_MAX;
    (void)snprintf(timeout, sizeof timeout, "%um", (unsigned)rest_ms);
    const nghttp2_nv headers[] = {
        header(":method", "POST", NGHTTP2_NV_FLAG_NONE),
        header(":scheme", q->scheme, NGHTTP2_NV_FLAG_NONE),
        header(":path", q->method, NGHTTP2_NV_FLAG_NONE),
        header(":authority", q->authority, NGHTTP2_NV_FLAG_NONE),
        header("te", "trailers", NGHTTP2_NV_FLAG_NONE),
        header("content-type", "application/grpc", NGHTTP2_NV_FLAG_NONE),
        header("user-agent", "millrace/" MILLRACE_VERSION, NGHTTP2_NV_FLAG_NONE),
        header("grpc-timeout", timeout, NGHTTP2_NV_FLAG_NONE),
        header("api-key", q->api_key ? q->api_key : "", NGHTTP2_NV_FLAG_NO_INDEX),
    };
    const nghttp2_data_provider body = {.read_callback = on_body};
    size_t n = ARRAY_LENGTH(headers) - (q->api_key ? 0 : 1);
    int32_t stream = nghttp2_submit_request(c->session, NULL, headers, n, &body, NULL);
    if (stream < 0)
        return stream == NGHTTP2_ERR_NOMEM ? error_origin(-ENOMEM) : RPC_E_NOT_SEEN;
    c->stream = stream;
    return 0;
}

static void reset_call(struct rpc *c, const struct rpc_request *request) {
    c->stream = 0;
    c->body = request->body;
    c->body_sent = 0;
    c->whole = false;
    c->send_by_ns = request->send_by_ns;
    c->answered = c->closed = false;
    c->error = NGHTTP2_NO_ERROR;
    c->http_status = NO_STATUS;
    c->grpc_status = NO_STATUS;
    c->sentence[0] = '\0';
    buffer_clear(&c->answer);
}

/* gRPC's table for answers that are not gRPC's (doc/http-grpc-status-mapping.md). */
static unsigned status_of_http(int http_status) {
    switch (http_status) {
    case 400:
        return GRPC_INTERNAL;
    case 401:
        return GRPC_UNAUTHENTICATED;
    case 403:
        return GRPC_PERMISSION_DENIED;
    case 404:
        return GRPC_UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504:
        return GRPC_UNAVAILABLE;
    default:
        return GRPC_UNKNOWN;
    }
}

static void judge(const struct rpc *c, struct rpc_answer *a) {
    memcpy(a->sentence, c->sentence, sizeof a->sentence);
    a->body = buffer_bytes(&c->answer);
    if (c->grpc_status != NO_STATUS) {
        a->status = (unsigned)c->grpc_status;
    } else if (!c->answered) {
        a->status = GRPC_UNAVAILABLE;
        (void)snprintf(a->sentence, sizeof a->sentence, "the server reset the stream: %s",
                       nghttp2_http2_strerror(c->error));
    } else {
        a->status = status_of_http(c->http_status);
        (void)snprintf(a->sentence, sizeof a->sentence, "not a gRPC answer: HTTP status %d",
                       c->http_status);
    }
}

int rpc_call(struct rpc *c, const struct rpc_request *request, struct rpc_answer *ret_answer) {
    reset_call(c, request);
    int r = submit(c, request);
    if (r == 0)
        r = drive(c, request->deadline_ns);
    /* What is not all sent when the answer is there will not be asked for. */
    c->broken = r != 0 || c->body_sent < c->body.size || c->sent < c->out.size;
    c->body = (struct bytes){0};
    c->send_by_ns = 0;
    if (r)
        return error_trace(r);
    /* Also the streams above the last one that a GOAWAY says was looked at. */
    if (!c->answered && c->error == NGHTTP2_REFUSED_STREAM)
        return RPC_E_NOT_SEEN;
    judge(c, ret_answer);
    return 0;
}

/* ---- Sentences ---- */
static int hex_digit(uint8_t c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

void rpc_decode_sentence(struct bytes text, char *out, size_t size) {
    size_t n = 0;
    for (size_t i = 0; i < text.size && n + 1 < size; i++) {
        uint8_t c = text.data[i];
        bool pair = c == '%' && text.size - i > 2;
        int high = pair ? hex_digit(text.data[i + 1]) : -1;
        int low = pair ? hex_digit(text.data[i + 2]) : -1;
        if (high >= 0 && low >= 0) {
            c = (uint8_t)(high << 4 | low);
            i += 2;
        }
        out[n++] = c == '\0' ? ' ' : (char)c;
    }
    out[n] = '\0';
}
