/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of frames. Numbers are little-endian.
 *
 *    0  4  crc32c, see below
 *    4  4  bytes of payload
 *    8  8  lsn
 *   16  8  key_hash
 *   24  8  wall_us
 *   32  1  kind
 *   33  1  flags
 *   34  4  lsn - synced lsn at append
 *   38  2  check of bytes 4 to 37
 *   40  …  payload, zeros up to 8 bytes
 *
 * The frame's crc32c runs over the payload first, then over bytes 4 to 39, so that all but 36 bytes
 * can be summed before the lsn is known. Both checks start from the journal's random salt: bytes
 * that a client sends as a payload can never pass for a frame.
 */
#include "journal/core.h"

#include "base/hash.h"

#include <assert.h>

enum { CHECKED_BYTES = 34, SUMMED_BYTES = 36 };

size_t frame_bytes(size_t payload_bytes) {
    return align_up(FRAME_HEADER_BYTES + payload_bytes, 8);
}

uint32_t frame_payload_crc(uint32_t salt, struct bytes payload) {
    return crc32c(salt, payload.data, payload.size);
}

static uint16_t frame_check(const uint8_t *at, uint32_t salt) {
    return (uint16_t)crc32c(salt, at + 4, CHECKED_BYTES);
}

/* How far the synced lsn was behind; a number too large for 32 bits only weakens the mark. */
static uint32_t frame_behind(const struct frame *f) {
    uint64_t behind = f->lsn - f->synced_lsn;
    return behind < UINT32_MAX ? (uint32_t)behind : UINT32_MAX;
}

void frame_store(uint8_t *at, uint32_t salt, const struct frame *f, uint32_t payload_crc) {
    size_t bytes = frame_bytes(f->payload.size);
    store_u64(at + bytes - 8, 0); /* the padding; overwritten below as far as it is none */
    store_u32(at + 4, (uint32_t)f->payload.size);
    store_u64(at + 8, f->lsn);
    store_u64(at + 16, f->key_hash);
    store_u64(at + 24, f->wall_us);
    at[32] = f->kind;
    at[33] = f->flags;
    store_u32(at + 34, frame_behind(f));
    store_u16(at + 38, frame_check(at, salt));
    store_u32(at, crc32c(payload_crc, at + 4, SUMMED_BYTES));
    if (f->payload.size > 0)
        memcpy(at + FRAME_HEADER_BYTES, f->payload.data, f->payload.size);
}

lsn_t frame_lsn(const uint8_t *at) {
    return load_u64(at + 8);
}

size_t frame_stated_bytes(const uint8_t *at) {
    return frame_bytes(load_u32(at + 4));
}

void frame_load(const uint8_t *at, struct frame *ret_frame) {
    lsn_t lsn = frame_lsn(at);
    uint32_t behind = load_u32(at + 34);
    *ret_frame = (struct frame){
        .lsn = lsn,
        .synced_lsn = behind < UINT32_MAX && behind <= lsn ? lsn - behind : 0,
        .key_hash = load_u64(at + 16),
        .wall_us = load_u64(at + 24),
        .payload = bytes_of(at + FRAME_HEADER_BYTES, load_u32(at + 4)),
        .kind = at[32],
        .flags = at[33],
    };
}

bool frame_header_ok(const uint8_t *at, uint32_t salt) {
    return frame_check(at, salt) == load_u16(at + 38) &&
           load_u32(at + 4) <= JOURNAL_GROUP_MAX_BYTES;
}

bool frame_ok(const uint8_t *at, uint32_t salt) {
    struct bytes payload = bytes_of(at + FRAME_HEADER_BYTES, load_u32(at + 4));
    return crc32c(frame_payload_crc(salt, payload), at + 4, SUMMED_BYTES) == load_u32(at);
}
