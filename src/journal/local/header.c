/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of segment headers, of each of their two copies. Numbers are little-endian.
 *
 *    0  8  "MILLRACE"
 *    8  4  version
 *   12  4  salt
 *   16  8  number of the segment
 *   24  8  lsn of its first record
 *   32  8  created, in us since 1970
 *   40  8  bytes the file has at least
 *   48  8  previous segment's number, 0 for none
 *   56  8  its end, an offset
 *   64  8  its last lsn
 *   72  4  1: nothing was written past its end
 *   76  …  zeros
 * 2044  4  crc32c of all before
 */
#include "journal/local/local.h"

#include "base/hash.h"

static const char HEADER_MAGIC[8] = {'M', 'I', 'L', 'L', 'R', 'A', 'C', 'E'};
enum { HEADER_CRC_AT = HEADER_COPY_BYTES - 4, HEADER_FLAG_PREVIOUS_CLEAN = 1 };

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
