/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte ranges: a view that owns nothing (struct bytes), a growing buffer that owns its memory
 * (struct buffer), and a bounded reader and writers of little-endian numbers for the disk formats.
 * No thread-safety beyond that of plain memory. The inline functions are also C++, for
 * json_parser.cc.
 */
#ifndef MILLRACE_BASE_BYTES_H
#define MILLRACE_BASE_BYTES_H

#include "base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A view: valid as long as what it points into. data may be NULL only if size is 0. */
struct bytes {
    const uint8_t *data;
    size_t size;
};

static inline struct bytes bytes_of(const void *data, size_t size) {
    struct bytes b = {(const uint8_t *)data, size};
    return b;
}

static inline struct bytes bytes_of_string(const char *s) {
    return bytes_of(s, strlen(s));
}

#define BYTES_LITERAL(s) ((struct bytes){.data = (const uint8_t *)(s), .size = sizeof(s) - 1})

static inline bool bytes_equal(struct bytes a, struct bytes b) {
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

/*
 * A growing buffer. A failed allocation is remembered (failed is set, later writes do nothing), so
 * that a writer checks once at the end instead of at every append.
 */
struct buffer {
    uint8_t *data;
    size_t size;
    size_t capacity;
    bool failed;
};

#define BUFFER_INIT ((struct buffer){0})
/* Frees the memory and makes the buffer empty again. Takes NULL. */
void buffer_deinit(struct buffer *b);
/* Keeps the memory, forgets the contents and the failure. */
void buffer_clear(struct buffer *b);
/* Makes room for n more bytes and returns where they go, or NULL when memory is out. Does not
 * change size: the caller adds what it wrote. */
uint8_t *buffer_reserve(struct buffer *b, size_t n);
void buffer_append(struct buffer *b, const void *data, size_t size);
void buffer_append_bytes(struct buffer *b, struct bytes bytes);
void buffer_append_string(struct buffer *b, const char *s);
void buffer_append_format(struct buffer *b, const char *format, ...) PRINTF_LIKE(2, 3);
void buffer_append_u8(struct buffer *b, uint8_t v);
void buffer_append_u16(struct buffer *b, uint16_t v);
void buffer_append_u32(struct buffer *b, uint32_t v);
void buffer_append_u64(struct buffer *b, uint64_t v);
/* A u32 length, then the bytes. */
void buffer_append_block(struct buffer *b, struct bytes bytes);
/* 0, or -ENOMEM if any append failed. */
int buffer_check(const struct buffer *b) MUST_USE;

static inline struct bytes buffer_bytes(const struct buffer *b) {
    return bytes_of(b->data, b->size);
}

/* Reads what the writers above wrote; past the end, failed is set and zeros are read. */
struct reader {
    const uint8_t *at;
    const uint8_t *end;
    bool failed;
};

static inline struct reader reader_of(struct bytes b) {
    struct reader r = {b.data, b.data + b.size, false};
    return r;
}

uint8_t reader_u8(struct reader *r);
uint16_t reader_u16(struct reader *r);
uint32_t reader_u32(struct reader *r);
uint64_t reader_u64(struct reader *r);
/* A view into the source of exactly size bytes; empty when they are not there. */
struct bytes reader_bytes(struct reader *r, size_t size);
/* What buffer_append_block wrote. */
struct bytes reader_block(struct reader *r);

static inline void store_u16(void *p, uint16_t v) {
    memcpy(p, &v, sizeof v);
}
static inline void store_u32(void *p, uint32_t v) {
    memcpy(p, &v, sizeof v);
}
static inline void store_u64(void *p, uint64_t v) {
    memcpy(p, &v, sizeof v);
}
static inline uint16_t load_u16(const void *p) {
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline uint32_t load_u32(const void *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline uint64_t load_u64(const void *p) {
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the disk formats are little-endian and written as they lie in memory"
#endif

#endif
