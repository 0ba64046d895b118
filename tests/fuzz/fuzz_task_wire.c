/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whatever is cut into frames lies inside what was received, and frames and bodies that are read
 * encode to the same bytes again.
 */
#include "fuzz.h"

#include "base/error.h"
#include "tasks/wire.h"

static void encode(struct buffer *out, const struct wire_frame *f) {
    struct wire_hello hello;
    struct wire_run run;
    struct wire_progress progress;
    struct wire_ended ended;
    if (f->message == WIRE_HELLO && f->key == 0 && f->attempt == 0 &&
        wire_read_hello(f->body, &hello)) {
        wire_append_hello(out, &hello);
    } else if (f->message == WIRE_RUN && wire_read_run(f->body, &run)) {
        wire_append_run(out, f->key, f->attempt, &run);
    } else if (f->message == WIRE_PROGRESS && wire_read_progress(f->body, &progress)) {
        wire_append_progress(out, f->key, f->attempt, &progress);
    } else if (f->message == WIRE_ENDED && wire_read_ended(f->body, &ended)) {
        wire_append_ended(out, f->key, f->attempt, &ended);
    } else {
        size_t begun = wire_begin(out, f->message, f->key, f->attempt);
        buffer_append_bytes(out, f->body);
        wire_end(out, begun);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    struct bytes received = bytes_of(data, size);
    struct wire_frame frame;
    size_t at = 0;
    int r;
    while ((r = wire_next(received, &at, &frame)) == 0) {
        FUZZ_CHECK(at <= size);
        FUZZ_CHECK(frame.body.size == 0 || frame.body.data + frame.body.size == data + at);
        encode(&out, &frame);
        FUZZ_CHECK(bytes_equal(buffer_bytes(&out), bytes_of(data, at)));
    }
    FUZZ_CHECK(r == 1 || r == -EPROTO);
    return 0;
}
