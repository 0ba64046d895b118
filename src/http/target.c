/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The request target, as it came over the wire. libmicrohttpd decodes %2F and %00 before a handler
 * sees the path, which makes "a%2Fb" two segments; so the raw text is taken where it is logged, cut
 * at its slashes first and decoded after. Decoding never makes a text longer: it happens in place.
 * Whoever needs the text again encodes it again.
 */
#include "http/internal.h"

static int hex_digit(uint8_t c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* Decodes %xx, and + where it means a space. False when a % is not followed by two digits. */
static bool decode_in_place(uint8_t *text, size_t size, bool plus, struct bytes *ret_decoded) {
    size_t out = 0;
    for (size_t in = 0; in < size; in++) {
        uint8_t c = text[in];
        if (c == '%') {
            int high = in + 2 < size ? hex_digit(text[in + 1]) : -1;
            int low = in + 2 < size ? hex_digit(text[in + 2]) : -1;
            if (high < 0 || low < 0)
                return false;
            c = (uint8_t)(high * 16 + low);
            in += 2;
        } else if (c == '+' && plus) {
            c = ' ';
        }
        text[out++] = c;
    }
    *ret_decoded = bytes_of(text, out);
    return true;
}

static size_t extent(const uint8_t *at, const uint8_t *end, uint8_t stop) {
    const uint8_t *found = memchr(at, stop, (size_t)(end - at));
    return (size_t)((found ? found : end) - at);
}

static bool parse_path(struct http_request *r, uint8_t *at, uint8_t *end) {
    r->path.n = 0;
    while (at < end && *at == '/') {
        at++;
        size_t n = extent(at, end, '/');
        if (r->path.n == ROUTER_SEGMENTS_MAX) {
            r->path.n = 0; /* deeper than any route: no path of ours */
            return true;
        }
        if (!decode_in_place(at, n, false, &r->path.segments[r->path.n++]))
            return false;
        at += n;
    }
    return true;
}

static bool parse_query(struct http_request *r, uint8_t *at, uint8_t *end) {
    while (at < end) {
        size_t n = extent(at, end, '&');
        size_t name = extent(at, at + n, '=');
        if (n > 0) {
            if (r->n_query == HTTP_QUERY_MAX)
                return false;
            struct http_pair *pair = &r->query[r->n_query++];
            uint8_t *value = at + (name < n ? name + 1 : n);
            if (!decode_in_place(at, name, true, &pair->name) ||
                !decode_in_place(value, (size_t)(at + n - value), true, &pair->value))
                return false;
        }
        at += n + 1;
    }
    return true;
}

/* "http://host/path" is allowed by the protocol and means "/path". */
static uint8_t *skip_authority(uint8_t *at, uint8_t *end) {
    static const char *const schemes[] = {"http://", "https://"};
    for (size_t i = 0; i < ARRAY_LENGTH(schemes); i++) {
        size_t n = strlen(schemes[i]);
        if ((size_t)(end - at) >= n && memcmp(at, schemes[i], n) == 0)
            return at + n + extent(at + n, end, '/');
    }
    return at;
}

void http_target_parse(struct http_request *r) {
    uint8_t *end = r->target.data + r->target.size;
    uint8_t *at = skip_authority(r->target.data, end);
    uint8_t *path_end = at + extent(at, end, '?');
    r->n_query = 0;
    r->malformed =
        !parse_path(r, at, path_end) || (path_end < end && !parse_query(r, path_end + 1, end));
}

/* ---- And back ---- */

/* What needs no escape in any part of a URL. */
static bool is_unreserved(uint8_t c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

void http_segment_append(struct bytes text, struct buffer *out) {
    static const char digits[] = "0123456789ABCDEF";
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        if (is_unreserved(c)) {
            buffer_append_u8(out, c);
            continue;
        }
        buffer_append_u8(out, '%');
        buffer_append_u8(out, (uint8_t)digits[c >> 4]);
        buffer_append_u8(out, (uint8_t)digits[c & 15]);
    }
}

void http_target_append(const struct http_request *r, struct buffer *out) {
    for (size_t i = 0; i < r->path.n; i++) {
        buffer_append_u8(out, '/');
        http_segment_append(r->path.segments[i], out);
    }
    for (size_t i = 0; i < r->n_query; i++) {
        buffer_append_u8(out, i ? '&' : '?');
        http_segment_append(r->query[i].name, out);
        buffer_append_u8(out, '=');
        http_segment_append(r->query[i].value, out);
    }
}
