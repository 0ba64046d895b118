/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DEAD-<generation>: frames behind each other, little-endian:
 *
 *   u32 magic "DEAD"  u32 size of the body  u32 crc32c of the body  u32 crc32c of those three
 *   body of a letter: u64 number  u64 lsn  u64 key hash  u64 wall_us  u8 kind  u8 flags
 *                     u16 size of the reason, with its NUL   reason   payload, to the end
 *   body of a mark:   u64 lsn of the letter, or 0: all of the key that are older than the change
 *                     u64 key hash  u64 lsn of the record that changed the key, 0: the letter is
 * gone
 *
 * A mark is known by its size. It stands behind the letters that it is about. A frame that is
 * damaged is skipped: the next sound header is looked for byte by byte.
 *
 * Before version 3 of the manifest there were no marks: a file DEAD.dropped, replaced as a whole,
 * had the u64 number of each letter that was gone, and a u32 crc32c of those. It is still read, and
 * is gone with the next checkpoint. Numbers were 1, 2, 3, …; now a letter's is its lsn.
 */
#include "points/local/dead.h"

#include "base/hash.h"
#include "os/file.h"
#include "points/local/manifest.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    FRAME_MAGIC = 0x44414544,
    HEADER_SIZE = 16,
    BODY_FIXED = 36,
    MARK_SIZE = 24,
    MARKS_RESERVED = 2, /* a record changes its key and takes one letter away */
    REASON_MAX = 1023,
#ifdef MILLRACE_TINY
    GONE_MAX = 4,
#else
    GONE_MAX = 1000, /* letters gone, then the file is copied without them */
#endif
};
static const size_t FILE_BYTES_MAX = (size_t)1 << 32;

/* ---- Frames ---- */

static void append_body(struct buffer *out, const struct journal_record *record,
                        const char *reason) {
    size_t reason_size = strnlen(reason, REASON_MAX);
    buffer_append_u64(out, record->lsn);
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

void dead_append_frame(struct buffer *out, struct bytes body) {
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
            if (size <= rest->size - HEADER_SIZE && (size == MARK_SIZE || size >= BODY_FIXED) &&
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

static bool body_is_mark(struct bytes body) {
    return body.size == MARK_SIZE;
}

static struct dead_mark decode_mark(struct bytes body) {
    return (struct dead_mark){.letter = load_u64(body.data),
                              .key_hash = load_u64(body.data + 8),
                              .changed = load_u64(body.data + 16)};
}

static struct work_letter decode_letter(struct bytes body) {
    struct reader r = reader_of(body);
    struct work_letter letter = {0};
    reader_u64(&r); /* the number */
    letter.record.lsn = reader_u64(&r);
    letter.record.key_hash = reader_u64(&r);
    letter.record.wall_us = reader_u64(&r);
    letter.record.kind = reader_u8(&r);
    letter.record.flags = reader_u8(&r);
    uint16_t reason_size = reader_u16(&r);
    letter.reason = reader_bytes(&r, reason_size);
    letter.record.payload = reader_bytes(&r, (size_t)(r.end - r.at));
    if (r.failed || reason_size == 0)
        letter.reason = BYTES_LITERAL("");
    else
        letter.reason.size--; /* the NUL */
    return letter;
}

/* ---- What is gone ---- */

static int marks_path(char path[OS_PATH_MAX], const char *directory) {
    return os_path_join(path, directory, "DEAD.dropped");
}

/* The numbers in the file of earlier versions, as u64s; a damaged one counts as none: a letter
 * shown twice is better than one not shown. */
static int load_numbers(struct os *os, const char *directory, struct buffer *out) {
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

/* Those that the file itself marks, and behind the numbers of old ones. */
static int load_gone(struct os *os, const char *directory, struct bytes file, struct buffer *out) {
    struct bytes body;
    uint64_t damaged = 0;
    int r = load_numbers(os, directory, out);
    if (r)
        return error_trace(r);
    while (next_frame(&file, &body, &damaged))
        if (body_is_mark(body) && decode_mark(body).changed == 0)
            buffer_append_u64(out, decode_mark(body).letter);
    return error_trace(buffer_check(out));
}

static int compare_numbers(const void *a, const void *b) {
    uint64_t x = load_u64(a), y = load_u64(b);
    return (x > y) - (x < y);
}

static void sort_numbers(struct buffer *numbers) {
    if (numbers->size)
        qsort(numbers->data, numbers->size / 8, 8, compare_numbers);
}

static bool has_number(const struct buffer *sorted, uint64_t number) {
    return sorted->size && bsearch(&number, sorted->data, sorted->size / 8, 8, compare_numbers);
}

static bool is_gone(const struct buffer *gone, struct bytes body) {
    return has_number(gone, load_u64(body.data));
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

void dead_pending_deinit(struct dead_pending *p) {
    buffer_deinit(&p->frames);
    buffer_deinit(&p->marks);
}

int dead_pending_add(struct dead_pending *p, const struct journal_record *record,
                     const char *reason) {
    CLEANUP(buffer_deinit) struct buffer body = BUFFER_INIT;
    append_body(&body, record, reason);
    if (buffer_check(&body) || !buffer_reserve(&p->frames, HEADER_SIZE + body.size)) {
        p->frames.failed = false;
        return error_origin(-ENOMEM);
    }
    dead_append_frame(&p->frames, buffer_bytes(&body));
    return 0;
}

int dead_pending_reserve(struct dead_pending *p) {
    if (buffer_reserve(&p->marks, (size_t)MARKS_RESERVED * (HEADER_SIZE + MARK_SIZE)))
        return 0;
    p->marks.failed = false;
    return error_origin(-ENOMEM);
}

void dead_pending_mark(struct dead_pending *p, const struct dead_mark *mark) {
    uint8_t body[MARK_SIZE];
    store_u64(body, mark->letter);
    store_u64(body + 8, mark->key_hash);
    store_u64(body + 16, mark->changed);
    dead_append_frame(&p->marks, bytes_of(body, sizeof body));
    assert(!p->marks.failed); /* its room was reserved */
    p->gone += mark->changed == 0;
}

void dead_file_init(struct dead_file *f) {
    mutex_init(&f->lock, LOCK_RANK_LETTER_FILE);
}

void dead_file_deinit(struct dead_file *f) {
    buffer_deinit(&f->unwritten);
    mutex_deinit(&f->lock);
}

int dead_file_take(struct dead_file *f, struct dead_pending *p) {
    if (p->frames.size == 0 && p->marks.size == 0)
        return 0;
    mutex_lock(&f->lock);
    bool room = buffer_reserve(&f->unwritten, p->frames.size + p->marks.size) != NULL;
    buffer_append_bytes(&f->unwritten, buffer_bytes(&p->frames));
    buffer_append_bytes(&f->unwritten, buffer_bytes(&p->marks));
    f->unwritten.failed = false;
    mutex_unlock(&f->lock);
    if (!room)
        return error_origin(-ENOMEM);
    f->gone += p->gone;
    buffer_deinit(&p->frames);
    buffer_clear(&p->marks);
    p->gone = 0;
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

/* Appends the letters of old that are not gone, and the hashes of their keys to hashes. */
static void append_kept(struct buffer *out, struct bytes old, const struct buffer *gone,
                        struct buffer *hashes) {
    struct bytes body;
    uint64_t damaged = 0;
    while (next_frame(&old, &body, &damaged)) {
        if (body_is_mark(body) || is_gone(gone, body))
            continue;
        dead_append_frame(out, body);
        buffer_append_u64(hashes, decode_letter(body).record.key_hash);
    }
}

/* And behind them the marks that their keys were changed. */
static void append_changes(struct buffer *out, struct bytes old, struct buffer *hashes) {
    struct bytes body;
    uint64_t damaged = 0;
    sort_numbers(hashes);
    while (next_frame(&old, &body, &damaged))
        if (body_is_mark(body) && decode_mark(body).changed != 0 &&
            has_number(hashes, decode_mark(body).key_hash))
            dead_append_frame(out, body);
}

int dead_file_copy(struct dead_file *f, struct os *os, const char *directory) {
    CLEANUP(buffer_deinit) struct buffer old = BUFFER_INIT;
    CLEANUP(buffer_deinit) struct buffer gone = BUFFER_INIT;
    CLEANUP(buffer_deinit) struct buffer fresh = BUFFER_INIT;
    CLEANUP(buffer_deinit) struct buffer hashes = BUFFER_INIT;
    int r = load_file(os, directory, f->generation, f->synced, &old);
    if (!r)
        r = load_gone(os, directory, buffer_bytes(&old), &gone);
    if (r)
        return error_trace(r);
    sort_numbers(&gone);
    append_kept(&fresh, buffer_bytes(&old), &gone, &hashes);
    append_changes(&fresh, buffer_bytes(&old), &hashes);
    buffer_append_bytes(&fresh, buffer_bytes(&f->unwritten));
    if (fresh.failed || hashes.failed)
        r = error_origin(-ENOMEM);
    if (r)
        return error_trace(r);
    mutex_lock(&f->lock);
    buffer_deinit(&f->unwritten);
    f->unwritten = fresh;
    f->generation++;
    f->synced = 0;
    mutex_unlock(&f->lock);
    fresh = BUFFER_INIT;
    f->forgets_dropped = true;
    f->gone = 0;
    return 0;
}

void dead_file_tidy(struct dead_file *f, struct os *os, const char *directory) {
    if (f->gone >= GONE_MAX)
        (void)!dead_file_copy(f, os, directory); /* then it only stays larger than it must be */
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
    mutex_lock(&f->lock);
    f->synced += f->unwritten.size;
    buffer_deinit(&f->unwritten);
    mutex_unlock(&f->lock);
    return 0;
}

/* One frame of a file that is opened: what it says goes to the index. */
static int index_frame(struct work_letters *letters, struct bytes body) {
    if (!body_is_mark(body)) {
        struct work_letter letter = decode_letter(body);
        return error_trace(work_letters_add(letters, letter.record.lsn, letter.record.key_hash));
    }
    struct dead_mark mark = decode_mark(body);
    if (mark.changed)
        (void)work_letters_change(letters, mark.key_hash, mark.changed);
    else
        work_letters_remove(letters, mark.letter, mark.key_hash);
    return 0;
}

int dead_file_open(struct dead_file *f, struct os *os, const char *directory,
                   struct work_letters *letters) {
    CLEANUP(buffer_deinit) struct buffer all = BUFFER_INIT;
    CLEANUP(buffer_deinit) struct buffer gone = BUFFER_INIT;
    int r = load_file(os, directory, f->generation, f->synced, &all);
    if (!r)
        r = load_gone(os, directory, buffer_bytes(&all), &gone);
    if (r)
        return error_trace(r);
    sort_numbers(&gone);
    struct bytes rest = buffer_bytes(&all), body;
    uint64_t damaged = 0;
    while (!r && next_frame(&rest, &body, &damaged))
        if (body_is_mark(body) || !is_gone(&gone, body))
            r = index_frame(letters, body);
    if (!r && gone.size)
        r = dead_file_copy(f, os, directory);
    return error_trace(r);
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

/* ---- Reading, while checkpoints go on ---- */

/* What there is to be read: nothing of it changes any more. */
struct dead_view {
    struct os *os;
    struct buffer unwritten;
    const void *data; /* the file, mapped; NULL: it has no bytes, or is damaged */
    uint64_t size;
};

static void view_deinit(struct dead_view *v) {
    buffer_deinit(&v->unwritten);
    os_unmap(v->os, v->data, v->size);
}

/* OS_E_NOT_FOUND: a checkpoint has removed it, so there is a newer one. */
static int map_letters(struct dead_view *v, const char *directory, uint32_t generation,
                       uint64_t bytes) {
    char path[OS_PATH_MAX];
    struct os_file *file = NULL;
    int r = file_path(path, directory, generation);
    if (!r)
        r = os_open(v->os, path, OS_OPEN_READ, &file);
    if (r)
        return r;
    r = os_map(v->os, file, bytes, &v->data);
    os_close(v->os, file);
    if (r == -EINVAL)
        return 0; /* it is shorter: verify says so */
    if (!r)
        v->size = bytes;
    return error_trace(r);
}

static int view_try(struct dead_view *v, struct dead_file *f, const char *directory) {
    buffer_clear(&v->unwritten);
    mutex_lock(&f->lock);
    uint32_t generation = f->generation;
    uint64_t synced = f->synced;
    buffer_append_bytes(&v->unwritten, buffer_bytes(&f->unwritten));
    mutex_unlock(&f->lock);
    int r = buffer_check(&v->unwritten);
    if (r || synced == 0)
        return error_trace(r);
    return map_letters(v, directory, generation, synced);
}

static int view_init(struct dead_view *v, struct dead_file *f, const char *directory) {
    enum { TRIES = 3 };
    int r = OS_E_NOT_FOUND;
    for (unsigned i = 0; i < TRIES && r == OS_E_NOT_FOUND; i++)
        r = view_try(v, f, directory);
    return r > 0 ? error_fold(r) : error_trace(r);
}

/* Descending, for bsearch. */
static int compare_lsns(const void *a, const void *b) {
    lsn_t x = *(const lsn_t *)a, y = *(const lsn_t *)b;
    return (x < y) - (x > y);
}

/* Notes which of the letters stand in frames. */
static void look_through(struct bytes frames, const lsn_t *lsns, size_t n, struct bytes *found) {
    struct bytes body;
    uint64_t damaged = 0;
    while (next_frame(&frames, &body, &damaged)) {
        lsn_t lsn = load_u64(body.data + 8);
        const lsn_t *place = body_is_mark(body) ? NULL : bsearch(&lsn, lsns, n, 8, compare_lsns);
        if (place)
            found[place - lsns] = body;
    }
}

int dead_file_read(struct dead_file *f, struct os *os, const char *directory, struct bytes frames,
                   const lsn_t *lsns, size_t n,
                   void (*each)(void *context, const struct work_letter *letter), void *context) {
    CLEANUP(view_deinit) struct dead_view view = {.os = os};
    int r = n ? view_init(&view, f, directory) : 0;
    struct bytes *found = calloc(n ? n : 1, sizeof *found);
    if (r || !found) {
        free(found);
        return r ? error_trace(r) : error_origin(-ENOMEM);
    }
    look_through(frames, lsns, n, found);
    look_through(bytes_of(view.data, view.size), lsns, n, found);
    look_through(buffer_bytes(&view.unwritten), lsns, n, found);
    for (size_t i = 0; i < n; i++) {
        struct work_letter letter = {0};
        if (!found[i].size)
            continue;
        letter = decode_letter(found[i]);
        each(context, &letter);
    }
    free(found);
    return 0;
}
