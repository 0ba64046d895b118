/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of a message's head. Numbers are little-endian; behind it come frames (frame.c).
 *
 *    0  4  "MRL" and the version
 *    4  4  crc32c of bytes 8 to 47
 *    8  4  salt of the journal
 *   12  4  part
 *   16  4  parts
 *   20  4  zeros
 *   24  8  lsn of the first record
 *   32  8  lsn of the last
 *   40  4  bytes of the bodies of all parts
 *   44  4  MiB of the log before it, as retention counts them
 */
#include "journal/remote/remote.h"

#include "base/hash.h"

static const char MAGIC[3] = {'M', 'R', 'L'};
enum { SUMMED_FROM = 8 };

static uint32_t head_crc(const uint8_t *at) {
    return crc32c(0, at + SUMMED_FROM, LOG_HEAD_BYTES - SUMMED_FROM);
}

void message_store(uint8_t out[LOG_HEAD_BYTES], const struct message *m) {
    memset(out, 0, LOG_HEAD_BYTES);
    memcpy(out, MAGIC, sizeof MAGIC);
    out[3] = MESSAGE_VERSION;
    store_u32(out + 8, m->salt);
    store_u32(out + 12, m->part);
    store_u32(out + 16, m->parts);
    store_u64(out + 24, m->first_lsn);
    store_u64(out + 32, m->last_lsn);
    store_u32(out + 40, m->body_bytes);
    store_u32(out + 44, m->stream_mib);
    store_u32(out + 4, head_crc(out));
}

/* A whole message has all of its body, a part has some of it; every frame takes room for a lsn. */
static bool is_sensible(const struct message *m, size_t body) {
    if (m->parts == 0 || m->part >= m->parts || m->last_lsn < m->first_lsn || m->first_lsn == 0 ||
        m->last_lsn - m->first_lsn >= m->body_bytes / FRAME_HEADER_BYTES)
        return false;
    return m->parts == 1 ? body == m->body_bytes : body > 0 && body < m->body_bytes;
}

bool message_load(struct bytes message, struct message *ret_message, struct bytes *ret_body) {
    const uint8_t *at = message.data;
    if (message.size < LOG_HEAD_BYTES || memcmp(at, MAGIC, sizeof MAGIC) != 0 ||
        at[3] != MESSAGE_VERSION || load_u32(at + 4) != head_crc(at))
        return false;
    struct message m = {.salt = load_u32(at + 8),
                        .part = load_u32(at + 12),
                        .parts = load_u32(at + 16),
                        .first_lsn = load_u64(at + 24),
                        .last_lsn = load_u64(at + 32),
                        .body_bytes = load_u32(at + 40),
                        .stream_mib = load_u32(at + 44)};
    *ret_message = m;
    *ret_body = bytes_of(at + LOG_HEAD_BYTES, message.size - LOG_HEAD_BYTES);
    return is_sensible(&m, ret_body->size);
}
