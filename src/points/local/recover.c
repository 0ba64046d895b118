/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening what a manifest describes. Each file is made exactly as long as the manifest says: what
 * is beyond was written after it and comes again from the journal; what is missing is damage, and
 * reads as zeros, which no checksum matches. Then all row entries are checked and the id map is
 * built from the live ones; vectors and payloads are checked when they are read.
 */
#include "points/local/internal.h"

#include <errno.h>
#include <stdlib.h>

/* ---- Files ---- */

static int fit_open_file(struct points_store *s, struct os_file *file, uint64_t length,
                         struct points_store_report *report) {
    uint64_t size = 0;
    int r = os_size(s->os, file, &size);
    if (r || size == length)
        return error_trace(r);
    if (size > length)
        report->cut_bytes += size - length;
    r = os_truncate(s->os, file, length);
    if (!r)
        r = os_sync(s->os, file);
    return error_trace(r);
}

static int fit_file(struct points_store *s, const struct manifest_segment *m, enum column column,
                    struct points_store_report *report) {
    char path[OS_PATH_MAX];
    struct os_file *file = NULL;
    int r = segment_file_path(path, s->directory, &m->key, column);
    if (!r)
        r = os_open(s->os, path, OS_OPEN_WRITE | OS_OPEN_CREATE, &file);
    if (r)
        return error_trace(r);
    r = fit_open_file(s, file, m->lengths[column], report);
    os_close(s->os, file);
    return error_trace(r);
}

static int map_files(struct points_store *s, const struct manifest_segment *m,
                     struct storage_map maps[COLUMNS], struct points_store_report *report) {
    int r = 0;
    for (unsigned c = 0; c < COLUMNS && !r; c++) {
        if (m->lengths[c] > 0)
            r = fit_file(s, m, c, report);
        if (!r)
            r = segment_map(s, &m->key, c, m->lengths[c], &maps[c]);
    }
    return error_trace(r);
}

/* ---- Segments ---- */

static int open_storage(struct points_store *s, const struct manifest_segment *m,
                        struct points_store_report *report, struct storage **ret_storage) {
    struct storage_map maps[COLUMNS] = {{0}};
    int r = map_files(s, m, maps, report);
    if (!r)
        r = storage_new(s->os, s->options.budget, m->row_bytes, m->full ? m->rows : m->rows_max,
                        m->rows, maps, ret_storage);
    if (r)
        for (unsigned c = 0; c < COLUMNS; c++)
            storage_unmap(s->os, &maps[c]);
    return error_trace(r);
}

static void load_deleted(struct segment *segment, struct bytes deleted, uint32_t rows) {
    uint32_t count = 0;
    for (size_t i = 0; i < deleted.size / sizeof(uint64_t); i++) {
        uint64_t word = load_u64(deleted.data + i * sizeof word);
        atomic_init(&segment->deleted[i], word);
        count += (uint32_t)__builtin_popcountll(word);
    }
    atomic_store(&segment->deleted_n, count < rows ? count : rows);
}

static int open_segment(struct points_store *s, struct shard *shard,
                        const struct manifest_segment *m, struct points_store_report *report) {
    unsigned n_vectors = shard->collection->config.n_vectors;
    struct storage *storage = NULL;
    struct segment *segment = NULL;
    int r = open_storage(s, m, report, &storage);
    if (r)
        return error_trace(r);
    r = segment_new(m->key.number, m->rows_max, n_vectors, storage, &segment);
    if (r) {
        storage_unref(storage);
        return error_trace(r);
    }
    atomic_store(&segment->n, m->rows);
    load_deleted(segment, m->deleted, m->rows);
    segment->full = segment->sealed = m->full;
    segment->generation = m->key.generation;
    memcpy(segment->synced, m->lengths, sizeof segment->synced);
    r = shard_add_segment(shard, segment);
    if (r)
        segment_unref(segment);
    else if (!segment->full)
        shard->growing = segment;
    else
        store_want_checkpoint(s); /* it may be due for a merge */
    return error_trace(r);
}

static int shard_for(struct points_store *s, const struct manifest_segment *m,
                     struct points_collection *collection, struct shard **ret_shard) {
    struct lane *lane = &s->lanes[m->key.lane];
    struct shard *shard = lane_find(lane, m->key.incarnation);
    int r = shard ? 0 : lane_add_shard(lane, collection, &shard);
    if (!r && (shard->n_segments == LOCATOR_SEGMENTS_MAX || m->rows_max > LOCATOR_ROWS_MAX ||
               m->row_bytes != collection->config.row_floats * sizeof(float) ||
               (!m->full && shard->growing)))
        r = error_origin(-EPROTO);
    if (!r)
        *ret_shard = shard;
    return error_trace(r);
}

static int recover_segment(struct points_store *s, const struct manifest_segment *m,
                           struct points_store_report *report) {
    struct points_collection *collection =
        points_catalog_find_incarnation(s->catalog, m->key.incarnation);
    if (!collection) { /* dropped between the capture of the lanes and that of the catalog */
        s->garbage = true;
        return 0;
    }
    struct shard *shard = NULL;
    int r = shard_for(s, m, collection, &shard);
    points_collection_unref(collection);
    if (!r)
        r = open_segment(s, shard, m, report);
    report->segments += !r;
    for (unsigned c = 0; c < COLUMNS; c++)
        atomic_fetch_add(&s->disk_bytes, m->lengths[c]);
    return error_trace(r);
}

/* ---- The id map ---- */

/* Of two live rows with one id, which only damage can bring, the newer record's wins. */
static void index_row(struct shard *shard, struct locator at) {
    struct segment *segment = shard->segments[at.segment];
    const struct row_entry *e = storage_entry(segment->storage, at.row);
    struct locator other;
    struct idmap_cursor place;
    if (!shard_find(shard, row_id(e), &other, &place)) {
        idmap_insert(&shard->map, row_id(e), at);
        return;
    }
    struct segment *other_segment = shard->segments[other.segment];
    if (storage_entry(other_segment->storage, other.row)->lsn > e->lsn) {
        segment_mark_deleted(segment, at.row);
        return;
    }
    idmap_replace(&shard->map, &place, at);
    segment_mark_deleted(other_segment, other.row);
}

static int index_segment(struct shard *shard, struct segment *segment,
                         struct points_store_report *report) {
    uint32_t n = segment_n(segment);
    int r = 0;
    for (uint32_t row = 0; row < n && !r; row++) {
        const struct row_entry *e = storage_entry(segment->storage, row);
        if (row_entry_crc(e) != e->entry_crc) {
            report->damaged_rows += segment_mark_damaged(segment, row);
            segment_mark_deleted(segment, row);
        } else if (!segment_is_deleted(segment, row)) {
            index_row(shard, (struct locator){.segment = segment->slot, .row = row});
            r = segment_note_vectors(segment, row, e->vector_mask);
        }
    }
    return error_trace(r);
}

static int index_shard(struct shard *shard, struct points_store_report *report) {
    uint64_t rows = 0;
    struct idmap grown;
    for (size_t i = 0; i < shard->n_slots; i++) /* all in use */
        rows += segment_n(shard->segments[i]) - atomic_load(&shard->segments[i]->deleted_n);
    int r = rows > UINT32_MAX ? error_origin(-EPROTO)
                              : idmap_grown(&shard->map, (uint32_t)rows, &grown);
    if (r)
        return error_trace(r);
    if (grown.slots)
        idmap_adopt(&shard->map, &grown);
    for (size_t i = 0; i < shard->n_slots && !r; i++)
        r = index_segment(shard, shard->segments[i], report);
    if (r)
        return error_trace(r);
    atomic_store(&shard->live, shard->map.used);
    report->points += shard->map.used;
    return 0;
}

/* Above those of the manifest, of an older copy of it, and of files that could not be removed. */
static int choose_next_number(struct points_store *s, const struct manifest *m) {
    uint64_t highest = 0;
    for (size_t i = 0; i < m->n_segments; i++)
        highest = m->segments[i].key.number > highest ? m->segments[i].key.number : highest;
    int r = files_highest_number(s, &highest);
    atomic_store(&s->next_number, highest + 1);
    return error_trace(r);
}

int store_recover(struct points_store *s, const struct manifest *m,
                  struct points_store_report *report) {
    int r = choose_next_number(s, m);
    if (r)
        return error_trace(r);
    for (size_t i = 0; i < m->n_segments; i++) {
        r = recover_segment(s, &m->segments[i], report);
        if (r)
            return error_trace(r);
    }
    for (unsigned i = 0; i < s->n_lanes; i++)
        for (size_t k = 0; k < s->lanes[i].n_shards; k++) {
            r = index_shard(s->lanes[i].shards[k], report);
            if (r)
                return error_trace(r);
        }
    atomic_store(&s->damaged_rows, report->damaged_rows);
    return 0;
}
