/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of a message of a shared journal. Numbers are little-endian; behind the head come
 * frames (frame.c), whose lsns and whose JOURNAL_MORE mean nothing here.
 *
 *    0  4  "MRS" and the version
 *    4  4  crc32c of bytes 8 to 15
 *    8  4  salt of the frames
 *   12  4  how many there are
 */
#include "journal/remote/shared.h"

#include "base/hash.h"

static const char MAGIC[3] = {'M', 'R', 'S'};
enum { VERSION = 1, SUMMED_FROM = 8 };

static uint32_t head_crc(const uint8_t *at) {
    return crc32c(0, at + SUMMED_FROM, SHARED_HEAD_BYTES - SUMMED_FROM);
}

void shared_message_begin(struct buffer *out) {
    static const uint8_t room[SHARED_HEAD_BYTES];
    buffer_append(out, room, sizeof room);
}

void shared_message_end(struct buffer *out, uint32_t salt, uint32_t n) {
    uint8_t *at = out->data;
    memcpy(at, MAGIC, sizeof MAGIC);
    at[3] = VERSION;
    store_u32(at + 8, salt);
    store_u32(at + 12, n);
    store_u32(at + 4, head_crc(at));
}

static bool load_frame(struct bytes *rest, uint32_t salt, lsn_t lsn, struct buffer *records) {
    struct frame f;
    if (rest->size < FRAME_HEADER_BYTES || !frame_header_ok(rest->data, salt))
        return false;
    size_t size = frame_stated_bytes(rest->data);
    if (size > rest->size || !frame_ok(rest->data, salt))
        return false;
    frame_load(rest->data, &f);
    const struct journal_record record = {.lsn = lsn,
                                          .key_hash = f.key_hash,
                                          .wall_us = f.wall_us,
                                          .kind = f.kind,
                                          .flags = f.flags & (uint8_t)~JOURNAL_MORE,
                                          .payload = f.payload};
    buffer_append(records, &record, sizeof record);
    *rest = bytes_of((const uint8_t *)rest->data + size, rest->size - size);
    return true;
}

bool shared_message_load(struct bytes message, uint64_t offset, struct buffer *records) {
    const uint8_t *at = message.data;
    size_t before = records->size;
    if (message.size < SHARED_HEAD_BYTES || memcmp(at, MAGIC, sizeof MAGIC) != 0 ||
        at[3] != VERSION || load_u32(at + 4) != head_crc(at))
        return false;
    uint32_t salt = load_u32(at + 8), n = load_u32(at + 12);
    struct bytes rest = bytes_of(at + SHARED_HEAD_BYTES, message.size - SHARED_HEAD_BYTES);
    bool whole = n < 1u << SHARED_INDEX_BITS;
    for (uint32_t i = 0; whole && i < n; i++)
        whole = load_frame(&rest, salt, shared_lsn(offset, i), records);
    if (!whole || rest.size)
        records->size = before;
    return whole && rest.size == 0;
}
