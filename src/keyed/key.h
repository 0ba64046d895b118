/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making keys of a database. The first byte says of what kind a key is; numbers are big-endian,
 * signed ones biased: keys sort as what they are made of does. Plain values.
 */
#ifndef MILLRACE_KEYED_KEY_H
#define MILLRACE_KEYED_KEY_H

#include "base/bytes.h"

#include <endian.h>

enum { KEY_MAX = 4352 }; /* bytes; what is put into one is the caller's to bound */

struct key {
    size_t size;
    uint8_t bytes[KEY_MAX];
};

static inline void key_begin(struct key *k, uint8_t kind) {
    k->bytes[0] = kind;
    k->size = 1;
}
static inline void key_u8(struct key *k, uint8_t v) {
    k->bytes[k->size++] = v;
}
static inline void key_u64(struct key *k, uint64_t v) {
    store_u64(k->bytes + k->size, htobe64(v));
    k->size += 8;
}
static inline void key_i64(struct key *k, int64_t v) {
    key_u64(k, (uint64_t)v ^ UINT64_C(0x8000000000000000));
}
static inline void key_bytes(struct key *k, struct bytes b) {
    memcpy(k->bytes + k->size, b.data, b.size);
    k->size += b.size;
}
static inline struct bytes key_view(const struct key *k) {
    return bytes_of(k->bytes, k->size);
}

#endif
