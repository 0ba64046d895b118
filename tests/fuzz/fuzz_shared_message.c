/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whatever loads as a message of a shared journal has as many records as it says, inside of it, in
 * the order of their lsns. The input is what lies behind the head; its checksums are put right
 * first, as far as its frames reach, or nothing would get past them.
 */
#include "fuzz.h"

#include "base/hash.h"
#include "journal/core.h"
#include "journal/remote/shared.h"

enum { SALT = 7, OFFSET = 9 };

static uint32_t mend_frames(uint8_t *at, size_t size) {
    uint32_t n = 0;
    for (size_t bytes; size >= FRAME_HEADER_BYTES; at += bytes, size -= bytes, n++) {
        store_u16(at + 38, (uint16_t)crc32c(SALT, at + 4, 34));
        bytes = frame_stated_bytes(at);
        if (bytes > size || !frame_header_ok(at, SALT))
            break;
        struct bytes payload = bytes_of(at + FRAME_HEADER_BYTES, load_u32(at + 4));
        store_u32(at, crc32c(frame_payload_crc(SALT, payload), at + 4, 36));
    }
    return n;
}

static void check_records(struct bytes message, const struct buffer *records, uint32_t n) {
    const struct journal_record *r = (const void *)records->data;
    FUZZ_CHECK(records->size == n * sizeof *r);
    for (uint32_t i = 0; i < n; i++) {
        FUZZ_CHECK(shared_offset(r[i].lsn) == OFFSET && (i == 0 || r[i].lsn > r[i - 1].lsn));
        FUZZ_CHECK(r[i].payload.data >= message.data + SHARED_HEAD_BYTES &&
                   r[i].payload.data + r[i].payload.size <= message.data + message.size);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    CLEANUP(buffer_deinit) struct buffer message = BUFFER_INIT;
    CLEANUP(buffer_deinit) struct buffer records = BUFFER_INIT;
    shared_message_begin(&message);
    buffer_append(&message, data, size);
    if (buffer_check(&message))
        return 0;
    uint32_t n = mend_frames(message.data + SHARED_HEAD_BYTES, size);
    shared_message_end(&message, SALT, n);
    if (shared_message_load(buffer_bytes(&message), OFFSET, &records))
        check_records(buffer_bytes(&message), &records, n);
    else
        FUZZ_CHECK(records.size == 0);
    return 0;
}
