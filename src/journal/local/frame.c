/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of frames and of segment headers. Numbers are little-endian.
 *
 *   frame                                   header, one of two copies
 *    0  4  crc32c, see below                  0  8  "MILLRACE"
 *    4  4  bytes of payload                   8  4  version
 *    8  8  lsn                               12  4  salt
 *   16  8  key_hash                          16  8  number of the segment
 *   24  8  wall_us                           24  8  lsn of its first record
 *   32  1  kind                              32  8  created, in us since 1970
 *   33  1  flags                             40  8  bytes the file has at least
 *   34  4  lsn - synced lsn at append        48  8  previous segment's number, 0 for none
 *   38  2  check of bytes 4 to 37            56  8  its end, an offset
 *   40  …  payload, zeros up to 8 bytes      64  8  its last lsn
 *                                            72  4  1: nothing was written past its end
 *                                            76  …  zeros
 *                                          2044  4  crc32c of all before
 *
 * The frame's crc32c runs over the payload first, then over bytes 4 to 39, so that all but 36 bytes
 * can be summed before the lsn is known. Both checks start from the journal's random salt: bytes
 * that a client sends as a payload can never pass for a frame.
 */
#include "journal/local/local.h"

#include "base/hash.h"

#include <assert.h>

static const char HEADER_MAGIC[8] = {'M', 'I', 'L', 'L', 'R', 'A', 'C', 'E'};
enum { CHECKED_BYTES = 34, SUMMED_BYTES = 36, HEADER_CRC_AT = HEADER_COPY_BYTES - 4 };
enum { HEADER_FLAG_PREVIOUS_CLEAN = 1 };

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

static void header_store_copy(uint8_t *at, const struct header *h) {
    memset(at, 0, HEADER_COPY_BYTES);
    memcpy(at, HEADER_MAGIC, sizeof HEADER_MAGIC);
    store_u32(at + 8, h->version);
    store_u32(at + 12, h->salt);
    store_u64(at + 16, h->number);
    store_u64(at + 24, h->base_lsn);
    store_u64(at + 32, h->created_us);
    store_u64(at + 40, h->file_bytes);
    store_u64(at + 48, h->previous_number);
    store_u64(at + 56, h->previous_end);
    store_u64(at + 64, h->previous_last_lsn);
    store_u32(at + 72, h->previous_clean ? HEADER_FLAG_PREVIOUS_CLEAN : 0);
    store_u32(at + HEADER_CRC_AT, crc32c(0, at, HEADER_CRC_AT));
}

void header_store(uint8_t out[HEADER_BYTES], const struct header *h) {
    static_assert(HEADER_BYTES == 2 * HEADER_COPY_BYTES, "the header is two copies");
    header_store_copy(out, h);
    header_store_copy(out + HEADER_COPY_BYTES, h);
}

static bool header_load_copy(const uint8_t *at, struct header *ret_header) {
    if (memcmp(at, HEADER_MAGIC, sizeof HEADER_MAGIC) != 0 ||
        load_u32(at + HEADER_CRC_AT) != crc32c(0, at, HEADER_CRC_AT))
        return false;
    *ret_header = (struct header){
        .version = load_u32(at + 8),
        .salt = load_u32(at + 12),
        .number = load_u64(at + 16),
        .base_lsn = load_u64(at + 24),
        .created_us = load_u64(at + 32),
        .file_bytes = load_u64(at + 40),
        .previous_number = load_u64(at + 48),
        .previous_end = load_u64(at + 56),
        .previous_last_lsn = load_u64(at + 64),
        .previous_clean = (load_u32(at + 72) & HEADER_FLAG_PREVIOUS_CLEAN) != 0,
    };
    return true;
}

int header_load(const uint8_t in[HEADER_BYTES], struct header *ret_header) {
    int good = header_load_copy(in + HEADER_COPY_BYTES, ret_header) ? 1 : 0;
    return good + (header_load_copy(in, ret_header) ? 1 : 0);
}
