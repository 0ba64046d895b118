/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of the points' dead letters: whatever stands before a letter, it is found, and it is the
 * last one of its lsn that counts. The input is a body, put into a sound frame behind the input as
 * it came.
 */
#include "fuzz.h"

#include "base/hash.h"
#include "os/os.h"
#include "points/local/dead.h"

enum { BODY_MIN = 36, LSN_AT = 8 };

struct found {
    struct bytes body;
    unsigned n;
};

static void check_inside(struct bytes whole, struct bytes part) {
    if (part.size)
        FUZZ_CHECK(part.data >= whole.data && part.data + part.size <= whole.data + whole.size);
}

static void check_letter(void *context, const struct work_letter *letter) {
    struct found *found = context;
    found->n++;
    FUZZ_CHECK(letter->record.lsn == load_u64(found->body.data + LSN_AT));
    check_inside(found->body, letter->record.payload);
    check_inside(found->body, letter->reason);
    FUZZ_CHECK(letter->reason.size + letter->record.payload.size <= found->body.size - BODY_MIN);
}

/* How many letters of the body's lsn are given; the last frame is the body's. */
static unsigned read_letters(struct bytes frames, struct bytes body) {
    struct dead_file file = {0};
    struct found found = {.body = bytes_of(frames.data + frames.size - body.size, body.size)};
    lsn_t lsn = load_u64(body.data + LSN_AT);
    dead_file_init(&file);
    FUZZ_CHECK(dead_file_read(&file, os_real(), "", frames, &lsn, 1, check_letter, &found) == 0);
    dead_file_deinit(&file);
    return found.n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    CLEANUP(buffer_deinit) struct buffer frames = BUFFER_INIT;
    struct bytes body = bytes_of(data, size);
    if (size < BODY_MIN)
        return 0;
    buffer_append_bytes(&frames, body);
    dead_append_frame(&frames, body);
    FUZZ_CHECK(!frames.failed && read_letters(buffer_bytes(&frames), body) == 1);
    return 0;
}
