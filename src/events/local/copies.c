/* SPDX-License-Identifier: Apache-2.0 */
/*
 *   STATE.copy       one frame: u32 version 1, u64 sequence, block state before, block state after
 *   DICTIONARY.copy  a frame an element: u64 number, then its value (state.c)
 *
 * An element is copied once it is durable in the journal, before the checkpoint that writes it: so
 * the copy may hold more than the database, never less.
 */
#include "events/local/copies.h"

#include "base/hash.h"

#include <errno.h>

enum { COPY_VERSION = 1, STATE_MAX = 64 << 20 };
static const char state_name[] = "STATE.copy";
static const char elements_name[] = "DICTIONARY.copy";

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
/* Where each number stands, up to the first frame that is not whole. */
static int index_elements(struct copies *c) {
    struct bytes file = bytes_of(c->mapped, c->mapped_size), payload;
    uint64_t at = 0, place = 0;
    while (frame_next(file, &at, &payload) && payload.size > sizeof(uint64_t)) {
        uint64_t number = load_u64(payload.data);
        if (number < c->n_elements || number > at)
            break;
        for (; c->n_elements < number; c->n_elements++)
            buffer_append_u64(&c->places, 0);
        buffer_append_u64(&c->places, place + 1);
        c->n_elements++;
        place = at;
    }
    c->elements.end = place;
    return buffer_check(&c->places);
}

static int map_elements(struct copies *c) {
    int r = os_size(c->os, c->elements.file, &c->mapped_size);
    if (r == 0 && c->mapped_size > 0)
        r = os_map(c->os, c->elements.file, c->mapped_size, &c->mapped);
    if (r == 0 && c->mapped)
        r = index_elements(c);
    return error_fold(r);
}

int copies_open(struct copies *c, struct os *os, const char *directory) {
    char path[OS_PATH_MAX];
    *c = (struct copies){.os = os, .directory = directory};
    int r = os_path_join(path, directory, "%s", elements_name);
    if (r == 0)
        r = os_open(os, path, OS_OPEN_WRITE | OS_OPEN_CREATE, &c->elements.file);
    if (r == 0)
        r = map_elements(c);
    if (r != 0)
        copies_close(c);
    return error_fold(r);
}

static void forget_places(struct copies *c) {
    if (c->mapped)
        os_unmap(c->os, c->mapped, c->mapped_size);
    c->mapped = NULL;
    buffer_deinit(&c->places);
    c->places = BUFFER_INIT;
}

int copies_loaded(struct copies *c, uint64_t n) {
    uint64_t place = 0;
    for (uint64_t i = n; i < c->n_elements && place == 0; i++)
        place = load_u64(c->places.data + i * sizeof(uint64_t));
    if (place > 0)
        c->elements.end = place - 1;
    if (c->n_elements > n)
        c->n_elements = n;
    forget_places(c);
    if (c->mapped_size == c->elements.end)
        return 0;
    return error_fold(os_truncate(c->os, c->elements.file, c->elements.end));
}

void copies_close(struct copies *c) {
    forget_places(c);
    if (c->os) {
        os_close(c->os, c->elements.file);
        os_close(c->os, c->manifest.file);
    }
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

/* ---- The dictionary ---- */
void copies_encode_element(struct buffer *frames, uint64_t number, struct bytes value) {
    size_t start = frames->size;
    uint8_t *header = buffer_reserve(frames, FRAME_HEADER);
    if (!header)
        return;
    frames->size += FRAME_HEADER;
    buffer_append_u64(frames, number);
    buffer_append_bytes(frames, value);
    if (buffer_check(frames) < 0)
        return;
    size_t size = frames->size - start - FRAME_HEADER;
    store_u32(frames->data + start, (uint32_t)size);
    store_u32(frames->data + start + 4, crc32c(0, frames->data + start + FRAME_HEADER, size));
}

int copies_write_elements(struct copies *c, struct bytes frames, uint64_t next) {
    int r = copy_file_append(c->os, &c->elements, frames);
    if (r == 0)
        r = os_sync(c->os, c->elements.file);
    if (r == 0)
        c->n_elements = next;
    return error_trace(r);
}

int copies_element(const struct copies *c, uint64_t number, struct bytes *ret_value) {
    struct bytes payload;
    if (number >= c->places.size / sizeof(uint64_t))
        return COPIES_E_NONE;
    uint64_t place = load_u64(c->places.data + number * sizeof(uint64_t));
    if (place-- == 0 || !frame_next(bytes_of(c->mapped, c->mapped_size), &place, &payload))
        return COPIES_E_NONE;
    *ret_value = bytes_of(payload.data + sizeof(uint64_t), payload.size - sizeof(uint64_t));
    return 0;
}

/* ---- Checking ---- */
/* What is behind the n elements may be torn: it is of a checkpoint that did not come to be. */
static int verify_elements(struct os *os, const char *directory, uint64_t n,
                           const struct copies_report *report) {
    CLEANUP(buffer_deinit) struct buffer file = BUFFER_INIT;
    char path[OS_PATH_MAX];
    struct bytes payload;
    uint64_t at = 0, copied = 0;
    int r = os_path_join(path, directory, "%s", elements_name);
    if (r == 0)
        r = os_load(os, path, SIZE_MAX, &file);
    if (r != 0)
        return r == OS_E_NOT_FOUND ? 0 : error_fold(r);
    while (frame_next(buffer_bytes(&file), &at, &payload) && payload.size > sizeof(uint64_t))
        copied = load_u64(payload.data) + 1;
    if (copied < n)
        copies_report(report, "the copy of the dictionary (DICTIONARY.copy) is damaged; the next "
                              "checkpoint writes it again");
    return 0;
}

int copies_verify(struct os *os, const char *directory, uint64_t n,
                  const struct copies_report *report) {
    CLEANUP(buffer_deinit) struct buffer file = BUFFER_INIT;
    struct bytes before, after;
    uint64_t sequence;
    int r = load_state_copy(os, directory, &file, &sequence, &before, &after);
    if (r == COPIES_E_NONE && copies_exist(os, directory))
        copies_report(report, "the copy of the state (STATE.copy) is damaged; the next checkpoint "
                              "writes it again");
    if (r < 0)
        return error_trace(r);
    r = verify_elements(os, directory, n, report);
    return r < 0 ? r : copies_verify_manifest(os, directory, report);
}
