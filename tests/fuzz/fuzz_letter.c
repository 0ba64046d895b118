/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whatever decodes as a dead letter of a keyed store, or as the record that says what becomes of
 * one, lies inside the bytes it came from and encodes to the same bytes again.
 */
#include "fuzz.h"

#include "keyed/letter.h"

static void check_inside(struct bytes whole, struct bytes part) {
    if (part.size)
        FUZZ_CHECK(part.data >= whole.data && part.data + part.size <= whole.data + whole.size);
}

static void check_letter(struct bytes whole) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    struct work_letter letter;
    if (!letter_decode(whole, &letter))
        return;
    check_inside(whole, letter.record.payload);
    check_inside(whole, letter.reason);
    FUZZ_CHECK(letter.record.lsn == 0 && letter.changed == 0);
    letter_encode(&out, &letter.record, letter.reason);
    FUZZ_CHECK(bytes_equal(buffer_bytes(&out), whole));
}

static void check_record(struct bytes whole) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    struct work_letter_record record;
    if (!work_letter_decode(whole, &record))
        return;
    check_inside(whole, record.payload);
    FUZZ_CHECK(record.letter != 0);
    FUZZ_CHECK(record.op == WORK_LETTER_REPLAY || record.payload.size == 0);
    work_letter_encode(&out, &record);
    FUZZ_CHECK(bytes_equal(buffer_bytes(&out), whole));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    check_letter(bytes_of(data, size));
    check_record(bytes_of(data, size));
    return 0;
}
