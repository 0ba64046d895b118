/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames between the runner and its workers, as wire.h draws them.
 */
#include "tasks/wire.h"

#include "base/error.h"

#include <assert.h>

enum {
    SIZE_BYTES = 4,
    HEAD_BYTES = 1 + 8 + 4, /* message, key, attempt: counted in the size */
};

size_t wire_begin(struct buffer *out, enum wire_message message, uint64_t key, uint32_t attempt) {
    size_t begun = out->size;
    buffer_append_u32(out, 0); /* wire_end sets it */
    buffer_append_u8(out, (uint8_t)message);
    buffer_append_u64(out, key);
    buffer_append_u32(out, attempt);
    return begun;
}

void wire_end(struct buffer *out, size_t begun) {
    if (out->failed)
        return;
    size_t size = out->size - begun - SIZE_BYTES;
    assert(size >= HEAD_BYTES && size <= WIRE_FRAME_MAX);
    store_u32(out->data + begun, (uint32_t)size);
}

static bool is_message(uint8_t message) {
    return message >= WIRE_HELLO && message <= WIRE_ALIVE;
}

int wire_next(struct bytes received, size_t *at, struct wire_frame *ret_frame) {
    assert(*at <= received.size);
    struct reader r = reader_of(bytes_of(received.data + *at, received.size - *at));
    uint32_t size = reader_u32(&r);
    if (r.failed)
        return 1;
    if (size < HEAD_BYTES || size > WIRE_FRAME_MAX)
        return error_origin(-EPROTO);
    struct bytes frame = reader_bytes(&r, size);
    if (r.failed)
        return 1;
    struct reader f = reader_of(frame);
    uint8_t message = reader_u8(&f);
    if (!is_message(message))
        return error_origin(-EPROTO);
    uint64_t key = reader_u64(&f);
    uint32_t attempt = reader_u32(&f);
    *ret_frame = (struct wire_frame){.message = (enum wire_message)message,
                                     .key = key,
                                     .attempt = attempt,
                                     .body = reader_bytes(&f, size - HEAD_BYTES)};
    *at += SIZE_BYTES + size;
    return 0;
}

/* ---- Bodies ---- */

void wire_append_hello(struct buffer *out, const struct wire_hello *hello) {
    size_t begun = wire_begin(out, WIRE_HELLO, 0, 0);
    buffer_append_u32(out, hello->alive_ms);
    buffer_append_block(out, hello->commands);
    buffer_append_block(out, hello->import_directory);
    buffer_append_block(out, hello->import_hosts);
    buffer_append_block(out, hello->url);
    buffer_append_block(out, hello->key);
    buffer_append_u64(out, hello->import_max_bytes);
    wire_end(out, begun);
}

bool wire_read_hello(struct bytes body, struct wire_hello *ret_hello) {
    struct reader r = reader_of(body);
    struct wire_hello hello = {.alive_ms = reader_u32(&r)};
    hello.commands = reader_block(&r);
    hello.import_directory = reader_block(&r);
    hello.import_hosts = reader_block(&r);
    hello.url = reader_block(&r);
    hello.key = reader_block(&r);
    hello.import_max_bytes = reader_u64(&r);
    if (r.failed || r.at != r.end)
        return false;
    *ret_hello = hello;
    return true;
}

void wire_append_run(struct buffer *out, uint64_t key, uint32_t attempt,
                     const struct wire_run *run) {
    size_t begun = wire_begin(out, WIRE_RUN, key, attempt);
    buffer_append_block(out, run->type);
    buffer_append_block(out, run->args);
    buffer_append_block(out, run->saved);
    wire_end(out, begun);
}

bool wire_read_run(struct bytes body, struct wire_run *ret_run) {
    struct reader r = reader_of(body);
    struct wire_run run = {.type = reader_block(&r)};
    run.args = reader_block(&r);
    run.saved = reader_block(&r);
    if (r.failed || r.at != r.end || run.type.size > TASK_TYPE_MAX ||
        run.args.size > TASK_ARGS_MAX || run.saved.size > TASK_SAVED_MAX)
        return false;
    *ret_run = run;
    return true;
}

void wire_append_progress(struct buffer *out, uint64_t key, uint32_t attempt,
                          const struct wire_progress *p) {
    size_t begun = wire_begin(out, WIRE_PROGRESS, key, attempt);
    buffer_append_u64(out, p->current);
    buffer_append_u64(out, p->total);
    buffer_append_block(out, p->saved);
    wire_end(out, begun);
}

bool wire_read_progress(struct bytes body, struct wire_progress *ret_progress) {
    struct reader r = reader_of(body);
    struct wire_progress p = {.current = reader_u64(&r)};
    p.total = reader_u64(&r);
    p.saved = reader_block(&r);
    if (r.failed || r.at != r.end || p.saved.size > TASK_SAVED_MAX)
        return false;
    *ret_progress = p;
    return true;
}

void wire_append_ended(struct buffer *out, uint64_t key, uint32_t attempt,
                       const struct wire_ended *e) {
    size_t begun = wire_begin(out, WIRE_ENDED, key, attempt);
    buffer_append_u8(out, e->outcome);
    buffer_append_u64(out, e->progress.current);
    buffer_append_u64(out, e->progress.total);
    buffer_append_block(out, e->text);
    buffer_append_block(out, e->progress.saved);
    wire_end(out, begun);
}

bool wire_read_ended(struct bytes body, struct wire_ended *ret_ended) {
    struct reader r = reader_of(body);
    struct wire_ended e = {.outcome = reader_u8(&r)};
    e.progress.current = reader_u64(&r);
    e.progress.total = reader_u64(&r);
    e.text = reader_block(&r);
    e.progress.saved = reader_block(&r);
    if (r.failed || r.at != r.end || e.outcome > TASK_OUTCOME_REFUSED ||
        e.text.size > TASK_RESULT_MAX || e.progress.saved.size > TASK_SAVED_MAX)
        return false;
    *ret_ended = e;
    return true;
}
