/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The growing buffer doubles, so that n appends cost O(n); the reader never looks past its end.
 */
#include "base/bytes.h"

#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef MILLRACE_TINY
enum { BUFFER_FIRST_BYTES = 8 };
#else
enum { BUFFER_FIRST_BYTES = 256 };
#endif

void buffer_deinit(struct buffer *b) {
    if (!b)
        return;
    free(b->data);
    *b = BUFFER_INIT;
}

void buffer_clear(struct buffer *b) {
    b->size = 0;
    b->failed = false;
}

/* At least wanted, doubled from what there is; wanted itself where doubling would overflow. */
static size_t grown_capacity(const struct buffer *b, size_t wanted) {
    size_t doubled = b->capacity ? b->capacity : BUFFER_FIRST_BYTES / 2;
    if (doubled > SIZE_MAX / 2)
        return wanted;
    doubled *= 2;
    return doubled < wanted ? wanted : doubled;
}

static bool buffer_grow(struct buffer *b, size_t n) {
    size_t wanted;
    if (__builtin_add_overflow(b->size, n, &wanted))
        return false;
    size_t capacity = grown_capacity(b, wanted);
    uint8_t *data = realloc(b->data, capacity);
    if (!data)
        return false;
    b->data = data;
    b->capacity = capacity;
    return true;
}

uint8_t *buffer_reserve(struct buffer *b, size_t n) {
    if (b->failed)
        return NULL;
    /* An empty buffer grows even for 0 bytes: NULL means only that memory is out. */
    if ((n > b->capacity - b->size || !b->data) && !buffer_grow(b, n)) {
        b->failed = true;
        return NULL;
    }
    return b->data + b->size;
}

void buffer_append(struct buffer *b, const void *data, size_t size) {
    if (size == 0)
        return;
    uint8_t *to = buffer_reserve(b, size);
    if (!to)
        return;
    memcpy(to, data, size);
    b->size += size;
}

void buffer_append_bytes(struct buffer *b, struct bytes bytes) {
    buffer_append(b, bytes.data, bytes.size);
}

void buffer_append_string(struct buffer *b, const char *s) {
    buffer_append(b, s, strlen(s));
}

PRINTF_LIKE(2, 0)
static void append_vformat(struct buffer *b, const char *format, va_list args) {
    va_list again;
    va_copy(again, args);
    int size = vsnprintf(NULL, 0, format, args);
    char *to = size < 0 ? NULL : (char *)buffer_reserve(b, (size_t)size + 1);
    if (to) {
        vsnprintf(to, (size_t)size + 1, format, again);
        b->size += (size_t)size;
    } else {
        b->failed = true;
    }
    va_end(again);
}

void buffer_append_format(struct buffer *b, const char *format, ...) {
    va_list args;
    va_start(args, format);
    append_vformat(b, format, args);
    va_end(args);
}

void buffer_append_u8(struct buffer *b, uint8_t v) {
    buffer_append(b, &v, sizeof v);
}

void buffer_append_u16(struct buffer *b, uint16_t v) {
    buffer_append(b, &v, sizeof v);
}

void buffer_append_u32(struct buffer *b, uint32_t v) {
    buffer_append(b, &v, sizeof v);
}

void buffer_append_u64(struct buffer *b, uint64_t v) {
    buffer_append(b, &v, sizeof v);
}

void buffer_append_block(struct buffer *b, struct bytes bytes) {
    if (bytes.size > UINT32_MAX) {
        b->failed = true;
        return;
    }
    buffer_append_u32(b, (uint32_t)bytes.size);
    buffer_append_bytes(b, bytes);
}

int buffer_check(const struct buffer *b) {
    return b->failed ? error_origin(-ENOMEM) : 0;
}

/* The next size bytes, or NULL with failed set; once failed, always failed. */
static const uint8_t *reader_take(struct reader *r, size_t size) {
    if (r->failed || (size_t)(r->end - r->at) < size) {
        r->failed = true;
        return NULL;
    }
    const uint8_t *p = r->at;
    r->at += size;
    return p;
}

uint8_t reader_u8(struct reader *r) {
    const uint8_t *p = reader_take(r, sizeof(uint8_t));
    return p ? *p : 0;
}

uint16_t reader_u16(struct reader *r) {
    const uint8_t *p = reader_take(r, sizeof(uint16_t));
    return p ? load_u16(p) : 0;
}

uint32_t reader_u32(struct reader *r) {
    const uint8_t *p = reader_take(r, sizeof(uint32_t));
    return p ? load_u32(p) : 0;
}

uint64_t reader_u64(struct reader *r) {
    const uint8_t *p = reader_take(r, sizeof(uint64_t));
    return p ? load_u64(p) : 0;
}

struct bytes reader_bytes(struct reader *r, size_t size) {
    const uint8_t *p = size ? reader_take(r, size) : NULL;
    return p ? bytes_of(p, size) : (struct bytes){0};
}

struct bytes reader_block(struct reader *r) {
    return reader_bytes(r, reader_u32(r));
}
