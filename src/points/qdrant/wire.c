/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages whose size is not known before they are written. With a good guess of it they are
 * written once, and nothing is moved.
 */
#include "points/qdrant/wire.h"

struct wire_message wire_open(struct buffer *out, unsigned field, size_t expected) {
    wire_key_value(out, field, WIRE_LENGTH, expected);
    size_t size = wire_varint_size(expected);
    return (struct wire_message){out->failed ? 0 : out->size - size, size};
}

void wire_close(struct buffer *out, struct wire_message m) {
    if (out->failed)
        return;
    size_t start = m.length_at + m.length_size;
    size_t size = out->size - start;
    size_t length_size = wire_varint_size(size);
    if (length_size != m.length_size) {
        if (!buffer_reserve(out, WIRE_VARINT_MAX))
            return;
        memmove(out->data + m.length_at + length_size, out->data + start, size);
        out->size = m.length_at + length_size + size;
    }
    (void)wire_varint_store(out->data + m.length_at, size);
}
