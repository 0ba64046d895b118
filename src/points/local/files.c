/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of segments: <incarnation>-<lane>-<number>-<generation>.rows, .vectors and .payload,
 * all in the store's directory. A column that is empty has no file. They are only appended to, and
 * opened anew for every flush: how many segments grow is not bounded by descriptors.
 *
 * After a failed write or sync (other than for want of space) nothing of a file past what was
 * synced may be trusted, and it is never asked again (invariant 7): the segment begins a new
 * generation, files with other names that are written whole from memory and the mapping of what was
 * sound. A full disk is only waited for: what is written there again is synced before it counts.
 */
#include "points/local/internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const extensions[COLUMNS] = {
    [COLUMN_ROWS] = "rows",
    [COLUMN_VECTORS] = "vectors",
    [COLUMN_PAYLOAD] = "payload",
};
enum { NAME_SIZE = 80 };
#ifdef MILLRACE_TINY
enum { COPIED_MAX_BYTES = 256, COPIED_MIN_BYTES = 64 };
#else
enum {
    COPIED_MAX_BYTES = 64 << 10, /* a longer file is mapped */
    COPIED_MIN_BYTES = 4 << 10,  /* when memory is short */
};
#endif

static int format_name(char out[NAME_SIZE], const struct segment_key *key, enum column column) {
    int n = snprintf(out, NAME_SIZE, "%" PRIu64 "-%" PRIu32 "-%" PRIu32 "-%" PRIu32 ".%s",
                     key->incarnation, key->lane, key->number, key->generation, extensions[column]);
    return n < 0 || n >= NAME_SIZE ? error_origin(-ENAMETOOLONG) : 0;
}

int segment_file_path(char out[OS_PATH_MAX], const char *directory, const struct segment_key *key,
                      enum column column) {
    char name[NAME_SIZE];
    int r = format_name(name, key, column);
    if (!r)
        r = os_path_join(out, directory, "%s", name);
    return error_trace(r);
}

static int copy_file(struct points_store *s, struct os_file *file, struct storage_map *map) {
    size_t n = 0;
    uint8_t *data = malloc(map->size);
    if (!data)
        return error_origin(-ENOMEM);
    int r = os_read_all(s->os, file, data, map->size, 0, &n);
    if (!r && n < map->size)
        r = error_origin(-EINVAL);
    if (r) {
        free(data);
        return error_trace(r);
    }
    map->data = data;
    map->copied = true;
    return 0;
}

static int map_file(struct points_store *s, struct os_file *file, struct storage_map *map) {
    const void *data = NULL;
    uint64_t copied_max = store_spills(s) ? COPIED_MIN_BYTES : COPIED_MAX_BYTES;
    if (map->size <= copied_max)
        return error_trace(copy_file(s, file, map));
    int r = os_map(s->os, file, map->size, &data);
    if (r == -ENOMEM) /* there are as many maps as there may be */
        return error_trace(copy_file(s, file, map));
    map->data = data;
    return error_trace(r);
}

/* The system allows a process some 65,000 maps, so thousands of small collections, with a segment
 * and its columns in each lane, cannot have one for every file. */
int segment_map(struct points_store *s, const struct segment_key *key, enum column column,
                uint64_t size, struct storage_map *ret_map) {
    struct storage_map map = {.size = size};
    if (size > 0) {
        char path[OS_PATH_MAX];
        struct os_file *file = NULL;
        int r = segment_file_path(path, s->directory, key, column);
        if (!r)
            r = os_open(s->os, path, OS_OPEN_READ, &file);
        if (!r)
            r = map_file(s, file, &map);
        os_close(s->os, file);
        if (r)
            return error_trace(r);
    }
    *ret_map = map;
    return 0;
}

/* ---- Flushing ---- */

static int write_runs(struct os *os, struct os_file *file, const struct storage *storage,
                      enum column column, uint64_t from, uint64_t to) {
    while (from < to) {
        struct bytes run = storage_run(storage, column, from, to);
        int r = os_write_all(os, file, run.data, run.size, from);
        if (r)
            return error_trace(r);
        from += run.size;
    }
    return 0;
}

static int flush_column(struct points_store *s, const struct segment_key *key,
                        struct segment *segment, const struct storage *storage, enum column column,
                        uint64_t to, bool *ret_broken) {
    char path[OS_PATH_MAX];
    struct os_file *file = NULL;
    uint64_t from = segment->synced[column];
    if (from >= to)
        return 0;
    int r = segment_file_path(path, s->directory, key, column);
    if (!r)
        r = os_open(s->os, path, OS_OPEN_WRITE | OS_OPEN_CREATE, &file);
    if (r)
        return error_trace(r);
    segment->entries_unsynced |= from == 0;
    r = write_runs(s->os, file, storage, column, from, to);
    if (!r)
        r = os_sync(s->os, file);
    os_close(s->os, file);
    *ret_broken = r < 0;
    if (!r)
        segment->synced[column] = to;
    return error_trace(r);
}

void segment_begin_generation(struct points_store *s, struct segment *segment) {
    segment->generation++;
    memset(segment->synced, 0, sizeof segment->synced);
    segment->entries_unsynced = false;
    s->garbage = true;
}

int segment_flush(struct points_store *s, lsn_t incarnation, unsigned lane, struct segment *segment,
                  struct storage *storage, const uint64_t lengths[COLUMNS]) {
    struct segment_key key = {.incarnation = incarnation,
                              .lane = lane,
                              .number = segment->number,
                              .generation = segment->generation};
    bool broken = false;
    int r = 0;
    for (unsigned c = 0; c < COLUMNS && !r; c++)
        r = flush_column(s, &key, segment, storage, c, lengths[c], &broken);
    if (broken)
        segment_begin_generation(s, segment);
    return error_trace(r);
}

/* ---- Names ---- */

static bool parse_name(const char *name, struct segment_key *ret_key, enum column *ret_column) {
    struct segment_key key;
    char again[NAME_SIZE];
    if (sscanf(name, "%" SCNu64 "-%" SCNu32 "-%" SCNu32 "-%" SCNu32 ".", &key.incarnation,
               &key.lane, &key.number, &key.generation) != 4)
        return false;
    for (unsigned c = 0; c < COLUMNS; c++)
        if (format_name(again, &key, c) == 0 && strcmp(again, name) == 0) {
            *ret_key = key;
            *ret_column = c;
            return true;
        }
    return false;
}

bool segment_file_name(const char *name) {
    struct segment_key key;
    enum column column;
    return parse_name(name, &key, &column);
}

static void note_number(void *context, const char *name) {
    uint64_t *highest = context;
    struct segment_key key;
    enum column column;
    if (parse_name(name, &key, &column) && key.number > *highest)
        *highest = key.number;
}

int files_highest_number(struct points_store *s, uint64_t *number) {
    return error_trace(os_list(s->os, s->directory, note_number, number));
}

/* ---- Garbage ---- */

static int compare_to_segment(const void *key, const void *segment) {
    return segment_key_compare(key, &((const struct manifest_segment *)segment)->key);
}

/* A name that is not ours is none of our business: false. */
static bool is_garbage(const struct manifest *m, const char *name) {
    struct segment_key key;
    enum column column;
    uint32_t generation;
    if (dead_file_name(name, &generation))
        return generation != m->dead_generation || m->dead_bytes == 0;
    if (!parse_name(name, &key, &column))
        return false;
    const struct manifest_segment *found =
        m->n_segments == 0
            ? NULL
            : bsearch(&key, m->segments, m->n_segments, sizeof *m->segments, compare_to_segment);
    return !found || found->lengths[column] == 0;
}

struct collector {
    const struct manifest *manifest;
    struct buffer names; /* of garbage, each with its NUL */
};

static void collect_name(void *context, const char *name) {
    struct collector *c = context;
    if (is_garbage(c->manifest, name))
        buffer_append(&c->names, name, strlen(name) + 1);
}

static int remove_names(struct points_store *s, struct bytes names) {
    for (size_t at = 0; at < names.size;) {
        const char *name = (const char *)names.data + at;
        char path[OS_PATH_MAX];
        int r = os_path_join(path, s->directory, "%s", name);
        if (!r)
            r = os_remove(s->os, path);
        if (r)
            return error_trace(r);
        at += strlen(name) + 1;
    }
    return 0;
}

int files_collect(struct points_store *s, const struct manifest *m) {
    struct collector c = {.manifest = m};
    int r = os_list(s->os, s->directory, collect_name, &c);
    if (!r)
        r = buffer_check(&c.names);
    if (!r)
        r = remove_names(s, buffer_bytes(&c.names));
    buffer_deinit(&c.names);
    return error_trace(r);
}
