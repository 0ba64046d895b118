/* SPDX-License-Identifier: Apache-2.0 */
/*
 *   STATE.copy  one frame: u32 version 1, u64 sequence, block state before, block state after
 */
#include "keyed/copies.h"

#include "base/hash.h"

#include <errno.h>

enum { COPY_VERSION = 1, STATE_MAX = 64 << 20 };
static const char state_name[] = "STATE.copy";

void copies_report(const struct copies_report *report, const char *sentence) {
    if (report->each)
        report->each(report->context, sentence);
}

/* ---- Frames ---- */
void frame_append(struct buffer *out, struct bytes payload) {
    buffer_append_u32(out, (uint32_t)payload.size);
    buffer_append_u32(out, crc32c(0, payload.data, payload.size));
    buffer_append_bytes(out, payload);
}

bool frame_next(struct bytes file, uint64_t *at, struct bytes *ret_payload) {
    if (file.size < *at || file.size - *at < FRAME_HEADER)
        return false;
    const uint8_t *header = file.data + *at;
    uint32_t size = load_u32(header);
    if (size > file.size - *at - FRAME_HEADER)
        return false;
    if (size == 0 || crc32c(0, header + FRAME_HEADER, size) != load_u32(header + 4))
        return false;
    *ret_payload = bytes_of(header + FRAME_HEADER, size);
    *at += FRAME_HEADER + size;
    return true;
}

int copy_file_append(struct os *os, struct copy_file *f, struct bytes frames) {
    int r = os_write_all(os, f->file, frames.data, frames.size, f->end);
    if (r == 0)
        f->end += frames.size;
    return error_trace(r);
}

/* ---- Life ---- */
void copies_init(struct copies *c, struct os *os, const char *directory) {
    *c = (struct copies){.os = os, .directory = directory};
}

void copies_deinit(struct copies *c) {
    if (c->os)
        os_close(c->os, c->manifest.file);
    *c = (struct copies){0};
}

/* ---- The state ---- */
bool copies_exist(struct os *os, const char *directory) {
    char path[OS_PATH_MAX];
    struct os_file *file;
    if (os_path_join(path, directory, "%s", state_name) != 0 ||
        os_open(os, path, OS_OPEN_READ, &file) != 0)
        return false;
    os_close(os, file);
    return true;
}

int copies_write_state(struct copies *c, uint64_t sequence, struct bytes before,
                       struct bytes after) {
    CLEANUP(buffer_deinit) struct buffer payload = BUFFER_INIT, file = BUFFER_INIT;
    char path[OS_PATH_MAX];
    buffer_append_u32(&payload, COPY_VERSION);
    buffer_append_u64(&payload, sequence);
    buffer_append_block(&payload, before);
    buffer_append_block(&payload, after);
    int r = buffer_check(&payload);
    if (r == 0) {
        frame_append(&file, buffer_bytes(&payload));
        r = buffer_check(&file);
    }
    if (r == 0)
        r = os_path_join(path, c->directory, "%s", state_name);
    return r == 0 ? os_replace(c->os, path, buffer_bytes(&file)) : error_trace(r);
}

/* COPIES_E_NONE also when it is of another version. */
static int load_state_copy(struct os *os, const char *directory, struct buffer *file,
                           uint64_t *ret_sequence, struct bytes *ret_before,
                           struct bytes *ret_after) {
    char path[OS_PATH_MAX];
    struct bytes payload;
    uint64_t at = 0;
    int r = os_path_join(path, directory, "%s", state_name);
    if (r == 0)
        r = os_load(os, path, STATE_MAX, file);
    if (r == OS_E_NOT_FOUND || r == -EFBIG)
        return COPIES_E_NONE;
    if (r != 0)
        return error_fold(r);
    if (!frame_next(buffer_bytes(file), &at, &payload))
        return COPIES_E_NONE;
    struct reader reader = reader_of(payload);
    uint32_t version = reader_u32(&reader);
    *ret_sequence = reader_u64(&reader);
    *ret_before = reader_block(&reader);
    *ret_after = reader_block(&reader);
    return reader.failed || version != COPY_VERSION ? COPIES_E_NONE : 0;
}

int copies_read_state(struct os *os, const char *directory, uint64_t sequence,
                      struct buffer *ret_state) {
    CLEANUP(buffer_deinit) struct buffer file = BUFFER_INIT;
    struct bytes before, after;
    uint64_t copied = 0;
    int r = load_state_copy(os, directory, &file, &copied, &before, &after);
    if (r != 0)
        return error_trace(r);
    buffer_append_bytes(ret_state, sequence > copied ? after : before);
    return buffer_check(ret_state);
}

/* ---- Checking ---- */
int copies_verify(struct os *os, const char *directory, const struct copies_report *report) {
    CLEANUP(buffer_deinit) struct buffer file = BUFFER_INIT;
    struct bytes before, after;
    uint64_t sequence;
    int r = load_state_copy(os, directory, &file, &sequence, &before, &after);
    if (r == COPIES_E_NONE && copies_exist(os, directory))
        copies_report(report, "the copy of the state (STATE.copy) is damaged; the next checkpoint "
                              "writes it again");
    return r < 0 ? error_trace(r) : copies_verify_manifest(os, directory, report);
}
