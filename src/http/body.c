/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bodies. A buffered one is collected, decoded, in the request's buffer, up to body_max_bytes; all
 * of them together hold at most the budget's part for bodies (invariant 6). A streamed one is
 * handed on piece by piece as it is decoded and has no bound but the memory of one piece.
 */
#include "http/internal.h"

#include <assert.h>

enum {
    RESERVE_MAX = 4 << 20,  /* what a Content-Length alone makes us reserve */
    CHARGE_FREE = 16 << 10, /* bodies up to here are not counted: two cache misses a request */
    CHARGE_STEP = 64 << 10,
};

/* Takes what the request holds now out of the budget; false when the budget is spent. */
static bool charge(struct http_request *r) {
    uint64_t held = r->body.size + (r->decoder ? decoder_memory(r->decoder) : 0);
    if (held <= CHARGE_FREE || held <= r->charged_bytes)
        return true;
    uint64_t more = held - r->charged_bytes + CHARGE_STEP;
    if (!budget_take(r->loop->server->options.budget, BUDGET_BODIES, more))
        return false;
    r->charged_bytes += more;
    return true;
}

bool http_take_memory(struct http_request *r, uint64_t n) {
    if (!budget_take(r->loop->server->options.budget, BUDGET_BODIES, n))
        return false;
    r->charged_bytes += n;
    return true;
}

/* Half of the part is left for bodies themselves. */
uint64_t http_memory_max(const struct http_request *r) {
    return budget_part(r->loop->server->options.budget, BUDGET_BODIES) / 2;
}

/* Counts the body once more, for what a handler makes of it. */
static bool charge_double(struct http_request *r) {
    return r->body.size <= CHARGE_FREE || http_take_memory(r, r->body.size);
}

void http_body_release(struct http_request *r) {
    budget_give(r->loop->server->options.budget, BUDGET_BODIES, r->charged_bytes);
    r->charged_bytes = 0;
    r->decoder = decoder_free(r->decoder);
}

static bool ignores_body(const struct http_request *r) {
    return r->entry->route->flags & HTTP_ROUTE_ANY_BODY;
}

void http_body_begin(struct http_request *r) {
    const char *header = r->content_length ? http_header(r, "Content-Encoding") : NULL;
    enum decode_encoding encoding = DECODE_IDENTITY;
    if (header && !decode_encoding_parse(header, &encoding)) {
        http_fail(r, HTTP_ERROR_UNSUPPORTED_ENCODING, NULL, NULL);
        return;
    }
    if (encoding != DECODE_IDENTITY && !ignores_body(r) && decoder_new(encoding, &r->decoder)) {
        http_fail(r, HTTP_ERROR_OVERLOADED, NULL, NULL);
        return;
    }
    if (r->content_length == 0 || r->content_length == UINT64_MAX || r->decoder ||
        ignores_body(r) || http_request_streams(r))
        return;
    uint64_t n = r->content_length < RESERVE_MAX ? r->content_length : RESERVE_MAX;
    if (!buffer_reserve(&r->body, (size_t)n + JSON_PADDING))
        http_fail(r, HTTP_ERROR_OVERLOADED, NULL, NULL);
}

static void fail_decode(struct http_request *r, int condition) {
    if (condition < 0)
        http_fail(r, HTTP_ERROR_OVERLOADED, NULL, NULL);
    else
        http_fail(r, HTTP_ERROR_BAD_ENCODING, NULL, NULL);
}

static void collect_plain(struct http_request *r, struct bytes piece) {
    if (piece.size > r->loop->server->options.body_max_bytes - r->body.size) {
        http_fail(r, HTTP_ERROR_TOO_LARGE, NULL, NULL);
        return;
    }
    buffer_append_bytes(&r->body, piece);
}

/* At most one byte more than the bound is ever decoded. */
static void collect_decoded(struct http_request *r, struct bytes piece) {
    uint64_t max = r->loop->server->options.body_max_bytes;
    do {
        size_t n = max + 1 - r->body.size < HTTP_CHUNK_BYTES ? (size_t)(max + 1 - r->body.size)
                                                             : HTTP_CHUNK_BYTES;
        uint8_t *at = buffer_reserve(&r->body, n);
        if (!at)
            return;
        size_t before = piece.size;
        int condition = decoder_run(r->decoder, &piece, at, n, &n);
        if (condition) {
            fail_decode(r, condition);
            return;
        }
        assert(n > 0 || piece.size < before || piece.size == 0);
        r->body.size += n;
        if (r->body.size > max) {
            http_fail(r, HTTP_ERROR_TOO_LARGE, NULL, NULL);
            return;
        }
    } while (piece.size > 0 || decoder_full(r->decoder));
}

static void collect(struct http_request *r, struct bytes piece) {
    if (r->decoder)
        collect_decoded(r, piece);
    else
        collect_plain(r, piece);
    if (!http_request_answered(r) && (r->body.failed || !charge(r)))
        http_fail(r, HTTP_ERROR_OVERLOADED, NULL, NULL);
}

static bool stream_goes_on(const struct http_request *r) {
    return !http_request_answered(r) && !http_request_paused(r);
}

/* Gives one piece to the handler. Its own answer ends its interest in the request. */
static void stream_give(struct http_request *r, struct bytes piece) {
    r->entry->route->chunk(r->entry->context, r, piece);
    if (http_request_answered(r))
        r->began = false;
}

void http_body_nudge(struct http_request *r) {
    stream_give(r, BYTES_LITERAL(""));
}

/* Decodes until the piece is used up, or the handler paused: then the rest stays in *piece, or
 * inside the decoder. */
static void stream_decoded(struct http_request *r, struct bytes *piece) {
    struct buffer *chunk = &r->loop->chunk;
    do {
        size_t n = 0;
        int condition = decoder_run(r->decoder, piece, chunk->data, HTTP_CHUNK_BYTES, &n);
        if (condition) {
            fail_decode(r, condition);
            return;
        }
        if (n > 0)
            stream_give(r, bytes_of(chunk->data, n));
    } while (stream_goes_on(r) && (piece->size > 0 || decoder_full(r->decoder)));
}

void http_body_receive(struct http_request *r, struct bytes piece, size_t *ret_left) {
    *ret_left = 0;
    if (ignores_body(r)) {
        r->drained_bytes += piece.size;
        if (r->drained_bytes > r->loop->server->options.body_max_bytes)
            http_fail(r, HTTP_ERROR_TOO_LARGE, NULL, NULL);
    } else if (!http_request_streams(r)) {
        collect(r, piece);
    } else if (r->decoder) {
        stream_decoded(r, &piece);
        *ret_left = http_request_answered(r) ? 0 : piece.size;
    } else {
        stream_give(r, piece);
    }
}

bool http_body_end(struct http_request *r) {
    if (r->decoder && http_request_streams(r) && decoder_full(r->decoder)) {
        struct bytes none = {0};
        stream_decoded(r, &none);
        if (!stream_goes_on(r))
            return false;
    }
    if (r->decoder && r->wire_bytes > 0 && !decoder_complete(r->decoder)) {
        http_fail(r, HTTP_ERROR_BAD_ENCODING, NULL, "the compressed body is truncated");
        return false;
    }
    if (!http_request_streams(r) && !buffer_reserve(&r->body, JSON_PADDING)) {
        http_fail(r, HTTP_ERROR_OVERLOADED, NULL, NULL);
        return false;
    }
    r->decoder = decoder_free(r->decoder);
    if (!charge_double(r)) {
        http_fail(r, HTTP_ERROR_OVERLOADED, NULL, NULL);
        return false;
    }
    return true;
}
