/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RocksDB's manifest says which files are its tables, in records of which each builds on those
 * before: a damaged one makes all of the database unreadable. It is only ever appended to, so a
 * byte that was copied can be put back for ever; RocksDB begins a new one at each start.
 *
 *   MANIFEST.copy    a frame with the manifest's name, then frames with its bytes, one behind the
 *                    other
 *
 * CURRENT holds the manifest's name and nothing else, so the copy's name mends it too. Not synced:
 * the frames' checksums tell what a power cut left of it, and what is missing is only not mended.
 */
#include "keyed/copies.h"

#include <errno.h>
#include <stdio.h>

enum { MANIFEST_MAX = 256 << 20, NAME_MAX = 63 };
static const char copy_name[] = "MANIFEST.copy";

static int load(struct os *os, const char *directory, const char *name, struct buffer *out) {
    char path[OS_PATH_MAX];
    int r = os_path_join(path, directory, "%s", name);
    return r == 0 ? os_load(os, path, MANIFEST_MAX, out) : error_trace(r);
}

/* What CURRENT names; an empty string when that is no name of a manifest. Nonzero: it cannot be
 * read. */
static int read_current(struct os *os, const char *directory, char ret_name[NAME_MAX + 1]) {
    CLEANUP(buffer_deinit) struct buffer text = BUFFER_INIT;
    int r = load(os, directory, "rocksdb/CURRENT", &text);
    if (r != 0)
        return error_trace(r);
    ret_name[0] = '\0';
    if (text.size < 2 || text.size > NAME_MAX || text.data[text.size - 1] != '\n' ||
        memchr(text.data, '\0', text.size) ||
        !bytes_equal(bytes_of(text.data, strnlen("MANIFEST-", text.size)),
                     BYTES_LITERAL("MANIFEST-")))
        return 0;
    memcpy(ret_name, text.data, text.size - 1);
    ret_name[text.size - 1] = '\0';
    return 0;
}

/* ---- Mending ---- */
/* The copy, as far as it is whole. */
struct manifest_copy {
    bool whole;
    char name[NAME_MAX + 1];
    struct buffer bytes;
};

static int load_copy(struct os *os, const char *directory, struct manifest_copy *copy) {
    CLEANUP(buffer_deinit) struct buffer file = BUFFER_INIT;
    struct bytes payload;
    uint64_t at = 0;
    int r = load(os, directory, copy_name, &file);
    copy->whole = r == OS_E_NOT_FOUND;
    if (r != 0)
        return r == OS_E_NOT_FOUND || r == -EFBIG ? COPIES_E_NONE : error_fold(r);
    if (!frame_next(buffer_bytes(&file), &at, &payload) || payload.size > NAME_MAX)
        return COPIES_E_NONE;
    memcpy(copy->name, payload.data, payload.size);
    copy->name[payload.size] = '\0';
    while (frame_next(buffer_bytes(&file), &at, &payload))
        buffer_append_bytes(&copy->bytes, payload);
    copy->whole = at == file.size;
    return buffer_check(&copy->bytes);
}

/* What is damaged: at most these two, with what they should hold. */
struct findings {
    bool current;
    bool manifest;
    char path[OS_PATH_MAX];
    struct buffer right; /* the manifest's bytes: the copy's, and behind them its own */
};

static int compare_manifest(struct os *os, const char *directory, const struct manifest_copy *copy,
                            struct findings *f) {
    CLEANUP(buffer_deinit) struct buffer manifest = BUFFER_INIT;
    size_t copied = copy->bytes.size;
    int r = os_path_join(f->path, directory, "rocksdb/%s", copy->name);
    if (r == 0)
        r = os_load(os, f->path, MANIFEST_MAX, &manifest);
    if (r != 0)
        return r == OS_E_NOT_FOUND || r == -EFBIG ? COPIES_E_NONE : error_fold(r);
    f->manifest = manifest.size < copied || memcmp(manifest.data, copy->bytes.data, copied) != 0;
    buffer_append_bytes(&f->right, buffer_bytes(&copy->bytes));
    if (manifest.size > copied)
        buffer_append(&f->right, manifest.data + copied, manifest.size - copied);
    return buffer_check(&f->right);
}

/* A copy of another manifest than the one in use says nothing: there was a crash while RocksDB
 * began a new one. */
static int find(struct os *os, const char *directory, struct manifest_copy *copy,
                struct findings *f) {
    char current[NAME_MAX + 1] = "", path[OS_PATH_MAX];
    struct os_file *file;
    int r = load_copy(os, directory, copy);
    if (r != 0)
        return error_trace(r);
    r = read_current(os, directory, current);
    if (r != 0 && r != OS_E_NOT_FOUND)
        return error_fold(r);
    f->current = strcmp(current, copy->name) != 0;
    if (f->current && *current && os_path_join(path, directory, "rocksdb/%s", current) == 0 &&
        os_open(os, path, OS_OPEN_READ, &file) == 0) {
        os_close(os, file);
        return COPIES_E_NONE;
    }
    return compare_manifest(os, directory, copy, f);
}

static int put_back(struct os *os, const char *directory, const struct manifest_copy *copy,
                    const struct findings *f) {
    CLEANUP(buffer_deinit) struct buffer line = BUFFER_INIT;
    char path[OS_PATH_MAX];
    int r = f->manifest ? os_replace(os, f->path, buffer_bytes(&f->right)) : 0;
    if (r != 0 || !f->current)
        return error_fold(r);
    buffer_append_format(&line, "%s\n", copy->name);
    r = buffer_check(&line);
    if (r == 0)
        r = os_path_join(path, directory, "rocksdb/CURRENT");
    return r == 0 ? error_fold(os_replace(os, path, buffer_bytes(&line))) : error_trace(r);
}

static int look(struct os *os, const char *directory, const struct copies_report *report,
                bool mend) {
    struct manifest_copy copy = {.bytes = BUFFER_INIT};
    struct findings f = {.right = BUFFER_INIT};
    int r = find(os, directory, &copy, &f);
    if (r >= 0 && !copy.whole && !mend)
        copies_report(report,
                      "the copy of RocksDB's manifest (MANIFEST.copy) is damaged, or its end "
                      "torn; the next start writes it again");
    if (r == 0 && f.manifest)
        copies_report(report, "RocksDB's manifest is damaged; its copy mends it");
    if (r == 0 && f.current)
        copies_report(report, "RocksDB's CURRENT is damaged; the copy of the manifest mends it");
    if (r == 0 && mend && (f.manifest || f.current))
        r = put_back(os, directory, &copy, &f);
    buffer_deinit(&copy.bytes);
    buffer_deinit(&f.right);
    return r == COPIES_E_NONE ? 0 : error_trace(r);
}

int copies_mend_manifest(struct os *os, const char *directory, const struct copies_report *report) {
    return look(os, directory, report, true);
}

int copies_verify_manifest(struct os *os, const char *directory,
                           const struct copies_report *report) {
    return look(os, directory, report, false);
}

/* ---- Following ---- */
static int begin(struct copies *c, const char *name) {
    CLEANUP(buffer_deinit) struct buffer first = BUFFER_INIT;
    char path[OS_PATH_MAX];
    os_close(c->os, c->manifest.file);
    c->manifest = (struct copy_file){0};
    c->manifest_name[0] = '\0';
    frame_append(&first, bytes_of_string(name));
    int r = buffer_check(&first);
    if (r == 0)
        r = os_path_join(path, c->directory, "%s", copy_name);
    if (r == 0)
        r = os_replace(c->os, path, buffer_bytes(&first));
    if (r == 0)
        r = os_open(c->os, path, OS_OPEN_WRITE, &c->manifest.file);
    if (r != 0)
        return error_fold(r);
    c->manifest.end = first.size;
    c->manifest_size = 0;
    snprintf(c->manifest_name, sizeof c->manifest_name, "%s", name);
    return 0;
}

static int copy_growth(struct copies *c, struct os_file *manifest) {
    CLEANUP(buffer_deinit) struct buffer grown = BUFFER_INIT, frames = BUFFER_INIT;
    uint64_t size = 0;
    size_t n = 0;
    int r = os_size(c->os, manifest, &size);
    if (r != 0 || size <= c->manifest_size)
        return error_fold(r);
    uint8_t *room = buffer_reserve(&grown, (size_t)(size - c->manifest_size));
    if (!room)
        return error_origin(-ENOMEM);
    r = os_read_all(c->os, manifest, room, (size_t)(size - c->manifest_size), c->manifest_size, &n);
    if (r != 0 || n == 0)
        return error_fold(r);
    frame_append(&frames, bytes_of(room, n));
    r = buffer_check(&frames);
    if (r == 0)
        r = copy_file_append(c->os, &c->manifest, buffer_bytes(&frames));
    if (r == 0)
        c->manifest_size += n;
    return error_fold(r);
}

static int follow(struct copies *c) {
    char name[NAME_MAX + 1], path[OS_PATH_MAX];
    struct os_file *manifest;
    int r = read_current(c->os, c->directory, name);
    if (r != 0 || !*name)
        return error_fold(r);
    r = os_path_join(path, c->directory, "rocksdb/%s", name);
    if (r == 0 && strcmp(name, c->manifest_name) != 0)
        r = begin(c, name);
    if (r == 0)
        r = os_open(c->os, path, OS_OPEN_READ, &manifest);
    if (r != 0)
        return error_fold(r);
    r = copy_growth(c, manifest);
    os_close(c->os, manifest);
    return error_trace(r);
}

void copies_follow_manifest(struct copies *c) {
    int ignored = follow(c);
    (void)ignored;
}
