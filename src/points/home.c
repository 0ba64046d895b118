/* SPDX-License-Identifier: Apache-2.0 */
/* Homes: home.h has their bytes. */
#include "points/home.h"

#include "base/hash.h"

enum { VERSION = 1, HEAD_BYTES = 8 };

lsn_t point_home_incarnation(struct bytes name) {
    return hash64(name.data, name.size);
}

void point_home_encode(struct buffer *out, struct bytes name, const struct point_config *config) {
    static const uint8_t head[HEAD_BYTES] = {VERSION};
    size_t start = out->size;
    struct point_config vectors = *config;
    vectors.settings_given = 0;
    buffer_append(out, head, sizeof head);
    buffer_append_block(out, name);
    point_config_encode(out, &vectors);
    if (!out->failed)
        store_u32(out->data + start + 4, (uint32_t)(out->size - start));
}

bool point_home_split(struct bytes payload, struct bytes *ret_home, struct bytes *ret_record) {
    if (payload.size < HEAD_BYTES || payload.data[0] != VERSION || payload.data[1] != 0)
        return false;
    size_t size = load_u32(payload.data + 4);
    if (size < HEAD_BYTES || size > payload.size)
        return false;
    *ret_home = bytes_of(payload.data, size);
    *ret_record = bytes_of(payload.data + size, payload.size - size);
    return true;
}

bool point_home_decode(struct bytes home, struct bytes *ret_name, struct point_config *ret_config) {
    if (home.size < HEAD_BYTES)
        return false;
    struct reader r = reader_of(bytes_of(home.data + HEAD_BYTES, home.size - HEAD_BYTES));
    struct bytes name = reader_block(&r);
    struct bytes config = reader_bytes(&r, (size_t)(r.end - r.at));
    if (r.failed || name.size == 0 || name.size > POINT_NAME_MAX || memchr(name.data, 0, name.size))
        return false;
    *ret_name = name;
    return point_config_decode(config, ret_config);
}
