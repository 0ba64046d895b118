/* SPDX-License-Identifier: Apache-2.0 */
/*
 *   DICTIONARY.copy  a frame an element: u64 number, then its value (state.c)
 *
 * An element is copied once it is durable in the journal, before the checkpoint that writes it: so
 * the copy may hold more than the database, never less.
 */
#include "events/local/elements.h"

#include "base/hash.h"

#include <errno.h>

static const char elements_name[] = "DICTIONARY.copy";

/* ---- Life ---- */
/* Where each number stands, up to the first frame that is not whole. */
static int index_elements(struct element_copies *c) {
    struct bytes file = bytes_of(c->mapped, c->mapped_size), payload;
    uint64_t at = 0, place = 0;
    while (frame_next(file, &at, &payload) && payload.size > sizeof(uint64_t)) {
        uint64_t number = load_u64(payload.data);
        if (number < c->n || number > at)
            break;
        for (; c->n < number; c->n++)
            buffer_append_u64(&c->places, 0);
        buffer_append_u64(&c->places, place + 1);
        c->n++;
        place = at;
    }
    c->file.end = place;
    return buffer_check(&c->places);
}

static int map_elements(struct element_copies *c) {
    int r = os_size(c->os, c->file.file, &c->mapped_size);
    if (r == 0 && c->mapped_size > 0)
        r = os_map(c->os, c->file.file, c->mapped_size, &c->mapped);
    if (r == 0 && c->mapped)
        r = index_elements(c);
    return error_fold(r);
}

int elements_open(struct element_copies *c, struct os *os, const char *directory) {
    char path[OS_PATH_MAX];
    *c = (struct element_copies){.os = os};
    int r = os_path_join(path, directory, "%s", elements_name);
    if (r == 0)
        r = os_open(os, path, OS_OPEN_WRITE | OS_OPEN_CREATE, &c->file.file);
    if (r == 0)
        r = map_elements(c);
    if (r != 0)
        elements_close(c);
    return error_fold(r);
}

static void forget_places(struct element_copies *c) {
    if (c->mapped)
        os_unmap(c->os, c->mapped, c->mapped_size);
    c->mapped = NULL;
    buffer_deinit(&c->places);
    c->places = BUFFER_INIT;
}

int elements_loaded(struct element_copies *c, uint64_t n) {
    uint64_t place = 0;
    for (uint64_t i = n; i < c->n && place == 0; i++)
        place = load_u64(c->places.data + i * sizeof(uint64_t));
    if (place > 0)
        c->file.end = place - 1;
    if (c->n > n)
        c->n = n;
    forget_places(c);
    if (c->mapped_size == c->file.end)
        return 0;
    return error_fold(os_truncate(c->os, c->file.file, c->file.end));
}

void elements_close(struct element_copies *c) {
    forget_places(c);
    if (c->os)
        os_close(c->os, c->file.file);
    *c = (struct element_copies){0};
}

/* ---- Elements ---- */
void elements_encode(struct buffer *frames, uint64_t number, struct bytes value) {
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

int elements_write(struct element_copies *c, struct bytes frames, uint64_t next) {
    int r = copy_file_append(c->os, &c->file, frames);
    if (r == 0)
        r = os_sync(c->os, c->file.file);
    if (r == 0)
        c->n = next;
    return error_trace(r);
}

int elements_find(const struct element_copies *c, uint64_t number, struct bytes *ret_value) {
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
int elements_verify(struct os *os, const char *directory, uint64_t n,
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
