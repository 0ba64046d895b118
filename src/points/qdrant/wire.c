/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages whose size is not known before they are written. With a good guess of it they are
 * written once, and nothing is moved.
 */
#include "points/qdrant/wire.h"

void wire_close_moving(struct buffer *out, struct wire_message m) {
    size_t start = m.length_at + m.length_size;
    size_t size = out->size - start;
    size_t length_size = wire_varint_size(size);
    if (!buffer_reserve(out, WIRE_VARINT_MAX))
        return;
    memmove(out->data + m.length_at + length_size, out->data + start, size);
    out->size = m.length_at + length_size + size;
    (void)wire_varint_store(out->data + m.length_at, size);
}
