/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Protocol Buffers' wire format, as far as points are written by hand: a field is a varint of its
 * number and type, and its value; a message inside another has its length before it. Appends to a
 * struct buffer, fails as that does.
 */
#ifndef MILLRACE_POINTS_QDRANT_WIRE_H
#define MILLRACE_POINTS_QDRANT_WIRE_H

#include "base/bytes.h"

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_LENGTH = 2 };
enum { WIRE_VARINT_MAX = 10 };

static inline size_t wire_varint_store(uint8_t *out, uint64_t v) {
    size_t n = 0;
    for (; v >= 0x80; v >>= 7)
        out[n++] = (uint8_t)(v | 0x80);
    out[n++] = (uint8_t)v;
    return n;
}

static inline size_t wire_varint_size(uint64_t v) {
    size_t n = 1;
    for (; v >= 0x80; v >>= 7)
        n++;
    return n;
}

static inline void wire_key_value(struct buffer *out, unsigned field, enum wire_type type,
                                  uint64_t v) {
    uint8_t *at = buffer_reserve(out, 2 * WIRE_VARINT_MAX);
    if (!at)
        return;
    size_t n = wire_varint_store(at, (uint64_t)field << 3 | type);
    out->size += n + wire_varint_store(at + n, v);
}

/* Integers, bools and enums. */
static inline void wire_varint(struct buffer *out, unsigned field, uint64_t v) {
    wire_key_value(out, field, WIRE_VARINT, v);
}

static inline void wire_double(struct buffer *out, unsigned field, double v) {
    uint8_t *at = buffer_reserve(out, WIRE_VARINT_MAX + sizeof v);
    if (!at)
        return;
    size_t n = wire_varint_store(at, (uint64_t)field << 3 | WIRE_FIXED64);
    memcpy(at + n, &v, sizeof v);
    out->size += n + sizeof v;
}

static inline void wire_bytes(struct buffer *out, unsigned field, struct bytes b) {
    uint8_t *at = buffer_reserve(out, 2 * WIRE_VARINT_MAX + b.size);
    if (!at)
        return;
    size_t n = wire_varint_store(at, (uint64_t)field << 3 | WIRE_LENGTH);
    n += wire_varint_store(at + n, b.size);
    if (b.size > 0)
        memcpy(at + n, b.data, b.size);
    out->size += n + b.size;
}

/* A message inside: opened, its fields appended, closed. expected is a guess of its size: closing
 * moves its bytes if the length takes more or fewer bytes than that of the guess. */
struct wire_message {
    size_t length_at;
    size_t length_size;
};
static inline struct wire_message wire_open(struct buffer *out, unsigned field, size_t expected) {
    wire_key_value(out, field, WIRE_LENGTH, expected);
    size_t size = wire_varint_size(expected);
    return (struct wire_message){out->failed ? 0 : out->size - size, size};
}
void wire_close_moving(struct buffer *out, struct wire_message m);
static inline void wire_close(struct buffer *out, struct wire_message m) {
    if (out->failed)
        return;
    size_t size = out->size - m.length_at - m.length_size;
    if (wire_varint_size(size) == m.length_size)
        (void)wire_varint_store(out->data + m.length_at, size);
    else
        wire_close_moving(out, m);
}

#endif
