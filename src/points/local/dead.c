/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DEAD-<generation>: frames behind each other, little-endian:
 *
 *   u32 magic "DEAD"  u32 size of the body  u32 crc32c of the body  u32 crc32c of those three
 *   body: u64 number  u64 lsn  u64 key hash  u64 wall_us  u8 kind  u8 flags
 *         u16 size of the reason, with its NUL   reason   payload, to the end
 *
 * A frame that is damaged is skipped: the next sound header is looked for byte by byte.
 *
 * DEAD.dropped: u64 number of each letter that is done with, u32 crc32c of those. Replaced as a
 * whole. A mark of a letter that is gone means nothing.
 */
#include "points/local/dead.h"

#include "base/hash.h"
#include "os/file.h"
#include "points/local/manifest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { FRAME_MAGIC = 0x44414544, HEADER_SIZE = 16, BODY_FIXED = 36, REASON_MAX = 1023 };
static const size_t FILE_BYTES_MAX = (size_t)1 << 32;

/* ---- Frames ---- */

static void append_body(struct buffer *out, uint64_t number, const struct journal_record *record,
                        const char *reason) {
    size_t reason_size = strnlen(reason, REASON_MAX);
    buffer_append_u64(out, number);
    buffer_append_u64(out, record->lsn);
    buffer_append_u64(out, record->key_hash);
    buffer_append_u64(out, record->wall_us);
    buffer_append_u8(out, record->kind);
    buffer_append_u8(out, record->flags);
    buffer_append_u16(out, (uint16_t)(reason_size + 1));
    buffer_append(out, reason, reason_size);
    buffer_append_u8(out, 0);
    buffer_append_bytes(out, record->payload);
}

static void append_frame(struct buffer *out, struct bytes body) {
    uint8_t header[HEADER_SIZE];
    store_u32(header, FRAME_MAGIC);
    store_u32(header + 4, (uint32_t)body.size);
    store_u32(header + 8, crc32c(0, body.data, body.size));
    store_u32(header + 12, crc32c(0, header, 12));
    buffer_append(out, header, sizeof header);
    buffer_append_bytes(out, body);
}

/* The next sound frame in rest, which moves behind it; ret_damaged counts the stretches skipped. */
static bool next_frame(struct bytes *rest, struct bytes *ret_body, uint64_t *damaged) {
    bool skipping = false;
    while (rest->size > 0) {
        if (rest->size >= HEADER_SIZE && load_u32(rest->data) == FRAME_MAGIC &&
            crc32c(0, rest->data, 12) == load_u32(rest->data + 12)) {
            uint32_t size = load_u32(rest->data + 4);
            struct bytes body = bytes_of(rest->data + HEADER_SIZE, size);
            if (size <= rest->size - HEADER_SIZE && size >= BODY_FIXED &&
                crc32c(0, body.data, size) == load_u32(rest->data + 8)) {
                *rest = bytes_of(body.data + size, rest->size - HEADER_SIZE - size);
                *ret_body = body;
                return true;
            }
        }
        *damaged += !skipping;
        skipping = true;
        rest->data++;
        rest->size--;
    }
    return false;
}

static struct points_dead_letter decode_body(struct bytes body) {
    struct reader r = reader_of(body);
    struct points_dead_letter letter = {.number = reader_u64(&r)};
    letter.record.lsn = reader_u64(&r);
    letter.record.key_hash = reader_u64(&r);
    letter.record.wall_us = reader_u64(&r);
    letter.record.kind = reader_u8(&r);
    letter.record.flags = reader_u8(&r);
    uint16_t reason_size = reader_u16(&r);
    letter.reason = (const char *)reader_bytes(&r, reason_size).data;
    letter.record.payload = reader_bytes(&r, (size_t)(r.end - r.at));
    if (r.failed || reason_size == 0)
        letter.reason = "";
    return letter;
}

/* ---- Marks ---- */

static int marks_path(char path[OS_PATH_MAX], const char *directory) {
    return os_path_join(path, directory, "DEAD.dropped");
}

/* The numbers of dropped letters, as u64s; damaged marks count as none: a letter shown twice is
 * better than one not shown. */
static int load_marks(struct os *os, const char *directory, struct buffer *out) {
    char path[OS_PATH_MAX];
    int r = marks_path(path, directory);
    if (!r)
        r = os_load(os, path, FILE_BYTES_MAX, out);
    if (r && r != OS_E_NOT_FOUND)
        return r > 0 ? error_fold(r) : error_trace(r);
    size_t size = out->size < 4 ? 0 : out->size - 4;
    if (size % 8 || (size && load_u32(out->data + size) != crc32c(0, out->data, size)))
        size = 0;
    out->size = size;
    return 0;
}

static bool is_marked(const struct buffer *marks, uint64_t number) {
    for (size_t i = 0; i < marks->size; i += 8)
        if (load_u64(marks->data + i) == number)
            return true;
    return false;
}

/* ---- The file ---- */

static int file_path(char path[OS_PATH_MAX], const char *directory, uint32_t generation) {
    return os_path_join(path, directory, "DEAD-%u", generation);
}

bool dead_file_name(const char *name, uint32_t *ret_generation) {
    char again[32];
    unsigned generation;
    if (sscanf(name, "DEAD-%u", &generation) != 1)
        return false;
    int n = snprintf(again, sizeof again, "DEAD-%u", generation);
    if (n < 0 || (size_t)n >= sizeof again || strcmp(again, name) != 0)
        return false;
    *ret_generation = generation;
    return true;
}

int dead_pending_add(struct dead_pending *p, uint64_t number, const struct journal_record *record,
                     const char *reason) {
    CLEANUP(buffer_deinit) struct buffer body = BUFFER_INIT;
    append_body(&body, number, record, reason);
    if (buffer_check(&body) || !buffer_reserve(&p->frames, HEADER_SIZE + body.size)) {
        p->frames.failed = false;
        return error_origin(-ENOMEM);
    }
    append_frame(&p->frames, buffer_bytes(&body));
    p->n++;
    return 0;
}

int dead_file_take(struct dead_file *f, struct dead_pending *p) {
    if (p->n == 0)
        return 0;
    buffer_append_bytes(&f->unwritten, buffer_bytes(&p->frames));
    if (f->unwritten.failed) {
        f->unwritten.failed = false;
        return error_origin(-ENOMEM);
    }
    buffer_deinit(&p->frames);
    p->n = 0;
    return 0;
}

/* The valid bytes of a file; what is missing at its end is left out. */
static int load_file(struct os *os, const char *directory, uint32_t generation, uint64_t bytes,
                     struct buffer *out) {
    char path[OS_PATH_MAX];
    if (bytes == 0)
        return 0;
    int r = file_path(path, directory, generation);
    if (!r)
        r = os_load(os, path, FILE_BYTES_MAX, out);
    if (r && r != OS_E_NOT_FOUND)
        return r > 0 ? error_fold(r) : error_trace(r);
    if (out->size > bytes)
        out->size = (size_t)bytes;
    return 0;
}

int dead_file_copy(struct dead_file *f, struct os *os, const char *directory) {
    CLEANUP(buffer_deinit) struct buffer old = BUFFER_INIT;
    CLEANUP(buffer_deinit) struct buffer marks = BUFFER_INIT;
    CLEANUP(buffer_deinit) struct buffer fresh = BUFFER_INIT;
    int r = load_file(os, directory, f->generation, f->synced, &old);
    if (!r)
        r = load_marks(os, directory, &marks);
    if (r)
        return error_trace(r);
    struct bytes rest = buffer_bytes(&old), body;
    uint64_t damaged = 0;
    while (next_frame(&rest, &body, &damaged))
        if (!is_marked(&marks, load_u64(body.data)))
            append_frame(&fresh, body);
    buffer_append_bytes(&fresh, buffer_bytes(&f->unwritten));
    r = buffer_check(&fresh);
    if (r)
        return error_trace(r);
    buffer_deinit(&f->unwritten);
    f->unwritten = fresh;
    fresh = BUFFER_INIT;
    f->generation++;
    f->synced = 0;
    f->forgets_dropped = true;
    return 0;
}

static int write_letters(struct dead_file *f, struct os *os, const char *path, bool *ret_broken) {
    struct os_file *file = NULL;
    int r = os_open(os, path, OS_OPEN_WRITE | OS_OPEN_CREATE, &file);
    if (r)
        return error_trace(r);
    f->entry_unsynced |= f->synced == 0;
    r = os_write_all(os, file, f->unwritten.data, f->unwritten.size, f->synced);
    if (!r)
        r = os_sync(os, file);
    *ret_broken = r < 0;
    os_close(os, file);
    return error_trace(r);
}

int dead_file_flush(struct dead_file *f, struct os *os, const char *directory) {
    if (f->unwritten.size == 0)
        return 0;
    char path[OS_PATH_MAX];
    int r = file_path(path, directory, f->generation);
    if (r)
        return error_trace(r);
    bool broken = false;
    r = write_letters(f, os, path, &broken);
    if (broken) {
        int copied = dead_file_copy(f, os, directory);
        (void)copied; /* then the same file is tried again, and the copy with it */
    }
    if (r)
        return error_trace(r);
    f->synced += f->unwritten.size;
    buffer_deinit(&f->unwritten);
    return 0;
}

int dead_file_open(struct dead_file *f, struct os *os, const char *directory,
                   uint64_t *ret_letters) {
    CLEANUP(buffer_deinit) struct buffer all = BUFFER_INIT;
    CLEANUP(buffer_deinit) struct buffer marks = BUFFER_INIT;
    int r = load_file(os, directory, f->generation, f->synced, &all);
    if (!r)
        r = load_marks(os, directory, &marks);
    if (r)
        return error_trace(r);
    struct bytes rest = buffer_bytes(&all), body;
    uint64_t damaged = 0, letters = 0, dropped = 0;
    while (next_frame(&rest, &body, &damaged)) {
        bool gone = is_marked(&marks, load_u64(body.data));
        letters += !gone;
        dropped += gone;
    }
    if (dropped) {
        r = dead_file_copy(f, os, directory);
        if (r)
            return error_trace(r);
    }
    *ret_letters = letters;
    return 0;
}

int dead_file_saved(struct dead_file *f, struct os *os, const char *directory) {
    char path[OS_PATH_MAX];
    if (!f->forgets_dropped)
        return 0;
    int r = marks_path(path, directory);
    if (!r)
        r = os_remove(os, path);
    if (!r)
        f->forgets_dropped = false;
    return error_trace(r);
}

int dead_file_verify(struct os *os, const char *directory, uint32_t generation, uint64_t bytes,
                     uint64_t *ret_damaged) {
    CLEANUP(buffer_deinit) struct buffer all = BUFFER_INIT;
    int r = load_file(os, directory, generation, bytes, &all);
    if (r)
        return error_trace(r);
    struct bytes rest = buffer_bytes(&all), body;
    uint64_t damaged = all.size < bytes;
    while (next_frame(&rest, &body, &damaged))
        continue;
    *ret_damaged = damaged;
    return 0;
}

/* ---- For tools, on a store that is not open ---- */

/* What both tools need: the manifest's letters and the marks. */
static int load_closed(struct os *os, const char *directory, struct buffer *ret_letters,
                       struct buffer *ret_marks) {
    CLEANUP(manifest_deinit) struct manifest m = {0};
    struct manifest_condition condition;
    int r = manifest_load(os, directory, &m, &condition);
    if (r == MANIFEST_E_NONE)
        return 0;
    if (!r)
        r = load_file(os, directory, m.dead_generation, m.dead_bytes, ret_letters);
    if (!r)
        r = load_marks(os, directory, ret_marks);
    return error_trace(r);
}

int points_dead_letters_each(struct os *os, const char *directory,
                             void (*each)(void *context, const struct points_dead_letter *letter),
                             void *context) {
    CLEANUP(buffer_deinit) struct buffer all = BUFFER_INIT;
    CLEANUP(buffer_deinit) struct buffer marks = BUFFER_INIT;
    int r = load_closed(os, directory, &all, &marks);
    if (r)
        return error_trace(r);
    struct bytes rest = buffer_bytes(&all), body;
    uint64_t damaged = 0;
    while (next_frame(&rest, &body, &damaged)) {
        struct points_dead_letter letter = decode_body(body);
        letter.dropped = is_marked(&marks, letter.number);
        each(context, &letter);
    }
    return 0;
}

static int save_marks(struct os *os, const char *directory, struct buffer *marks, uint64_t number) {
    char path[OS_PATH_MAX];
    buffer_append_u64(marks, number);
    buffer_append_u32(marks, crc32c(0, marks->data, marks->size));
    int r = buffer_check(marks);
    if (!r)
        r = marks_path(path, directory);
    if (!r)
        r = os_replace(os, path, buffer_bytes(marks));
    return r > 0 ? error_origin(-ENOSPC) : error_trace(r);
}

int points_dead_letter_drop(struct os *os, const char *directory, uint64_t number) {
    CLEANUP(buffer_deinit) struct buffer all = BUFFER_INIT;
    CLEANUP(buffer_deinit) struct buffer marks = BUFFER_INIT;
    int r = load_closed(os, directory, &all, &marks);
    if (r)
        return error_trace(r);
    struct bytes rest = buffer_bytes(&all), body;
    uint64_t damaged = 0;
    while (next_frame(&rest, &body, &damaged))
        if (load_u64(body.data) == number && !is_marked(&marks, number))
            return error_trace(save_marks(os, directory, &marks, number));
    return POINTS_E_NOT_FOUND;
}
