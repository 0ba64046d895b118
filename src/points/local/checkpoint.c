/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A checkpoint makes what is applied persisted, data and positions together (invariant 3):
 *
 *   0. adopt     what the builder has made: merge.c.
 *   1. capture   lane by lane, under its lock: position, segments, how many rows each has, which
 *                are deleted, dead letters. Each lane at a moment of its own: lanes share nothing.
 *                Segments whose rows are all dead are let go.
 *   2. flush     the rows that the files lack, without locks (rows never change); sync the files
 *                and then the directory.
 *   3. catalog   encoded after the lanes, so that it knows every drop that made one of them pass
 *                over a record; and what it knows must be durable in the journal (invariant 2).
 *   4. manifest  both copies. From here on the new state is the persisted one.
 *   5. seal      full segments go over to a mapping of their files, growing ones too when memory is
 *                short (spill.c); files that no manifest names are removed.
 *   6. plan      what the builder is to make next: merge_plan.c.
 *
 * When a step fails the earlier checkpoint stands, and the next one does again what is missing.
 */
#include "points/local/merge.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum { JOURNAL_WAIT_MS = 10000 };

struct captured {
    struct manifest_segment m; /* first: sorted by its key */
    struct shard *shard;
    struct segment *segment;
    struct storage *storage;
    uint64_t *deleted;
};

struct capture {
    struct captured *segments;
    size_t n;
    size_t capacity;
    lsn_t positions[WORK_LANES_MAX];
    struct buffer catalog;
    struct buffer tasks;
    lsn_t catalog_lsn;
};

static void captured_deinit(struct captured *c) {
    free(c->deleted);
    storage_unref(c->storage);
    segment_unref(c->segment);
    shard_unref(c->shard);
}

static void capture_deinit(struct capture *c) {
    for (size_t i = 0; i < c->n; i++)
        captured_deinit(&c->segments[i]);
    free(c->segments);
    buffer_deinit(&c->catalog);
    buffer_deinit(&c->tasks);
}

/* ---- 1. Capture ---- */

static int capture_reserve(struct capture *c) {
    if (c->n < c->capacity)
        return 0;
    size_t capacity = c->capacity ? 2 * c->capacity : 16;
    struct captured *grown = realloc(c->segments, capacity * sizeof *grown);
    if (!grown)
        return error_origin(-ENOMEM);
    c->segments = grown;
    c->capacity = capacity;
    return 0;
}

/* A copy of the bits of the first n rows, or none when no row is deleted. */
static int copy_deleted(const struct segment *segment, uint32_t n, uint64_t **ret_words) {
    size_t words = segment_words(n);
    if (atomic_load(&segment->deleted_n) == 0) {
        *ret_words = NULL;
        return 0;
    }
    uint64_t *copy = malloc(words * sizeof *copy);
    if (!copy)
        return error_origin(-ENOMEM);
    for (size_t i = 0; i < words; i++)
        copy[i] = segment_deleted_word(segment, (uint32_t)i);
    *ret_words = copy;
    return 0;
}

static int capture_segment(struct capture *c, struct shard *shard, struct segment *segment) {
    uint32_t n = segment_n(segment);
    uint64_t *deleted = NULL;
    if (n == 0)
        return 0;
    int r = capture_reserve(c);
    if (!r)
        r = copy_deleted(segment, n, &deleted);
    if (r)
        return error_trace(r);
    struct captured *to = &c->segments[c->n++];
    *to = (struct captured){.shard = shard_ref(shard),
                            .segment = segment_ref(segment),
                            .storage = storage_ref(segment->storage),
                            .deleted = deleted};
    to->m.key = (struct segment_key){.incarnation = shard->collection->incarnation,
                                     .lane = shard->lane->number,
                                     .number = segment->number};
    to->m.rows = n;
    to->m.rows_max = segment->rows_max;
    to->m.row_bytes = (uint32_t)segment->storage->row_bytes;
    to->m.full = segment->full;
    storage_lengths(segment->storage, n, to->m.lengths);
    if (deleted)
        to->m.deleted = bytes_of(deleted, segment_words(n) * sizeof *deleted);
    return 0;
}

/* What is of no more use is left out of this manifest, so that its files go after it. But damage
 * stays where it can be looked at. */
static bool drop_if_dead(struct points_store *s, struct shard *shard, struct segment *segment) {
    uint32_t n = segment_n(segment);
    if (!segment->full || atomic_load(&segment->damaged) || atomic_load(&segment->deleted_n) < n ||
        !segment_is_dead(segment, n))
        return false;
    for (unsigned c = 0; c < COLUMNS; c++)
        atomic_fetch_add(&s->reclaimed_bytes, segment->synced[c]);
    s->garbage = true;
    shard_drop_segment(shard, segment);
    return true;
}

static int capture_shard(struct capture *c, struct points_store *s, struct shard *shard) {
    for (size_t slot = 0; slot < shard->n_slots; slot++) {
        struct segment *segment = shard->segments[slot];
        int r =
            !segment || drop_if_dead(s, shard, segment) ? 0 : capture_segment(c, shard, segment);
        if (r)
            return error_trace(r);
    }
    return 0;
}

static int capture_letters(struct points_store *s, struct lane *lane) {
    size_t size = lane->dead.frames.size;
    int r = dead_file_take(&s->dead, &lane->dead);
    if (!r)
        s->dead_charged += size;
    return error_trace(r);
}

static int capture_lane_locked(struct capture *c, struct points_store *s, struct lane *lane) {
    for (size_t i = 0; i < lane->n_shards; i++) {
        int r = capture_shard(c, s, lane->shards[i]);
        if (r)
            return error_trace(r);
    }
    c->positions[lane->number] = lane->position;
    return error_trace(capture_letters(s, lane));
}

static int compare_captured(const void *a, const void *b) {
    return segment_key_compare(&((const struct captured *)a)->m.key,
                               &((const struct captured *)b)->m.key);
}

static int capture_lanes(struct capture *c, struct points_store *s) {
    for (unsigned i = 0; i < s->n_lanes; i++) {
        struct lane *lane = &s->lanes[i];
        lane_forget_dropped(lane);
        lane_close_dead(lane);
        mutex_lock(&lane->lock);
        int r = capture_lane_locked(c, s, lane);
        mutex_unlock(&lane->lock);
        if (r)
            return error_trace(r);
    }
    if (c->n)
        qsort(c->segments, c->n, sizeof *c->segments, compare_captured);
    return 0;
}

/* ---- 2. Flush ---- */

/* After the sync of the directory failed, nothing says that the names made since the last are on
 * the disk: those files are begun anew under other names. */
static int sync_entries(struct capture *c, struct points_store *s) {
    bool unsynced = s->dead.entry_unsynced;
    for (size_t i = 0; i < c->n; i++)
        unsynced |= c->segments[i].segment->entries_unsynced;
    if (!unsynced)
        return 0;
    int r = os_sync_directory(s->os, s->directory);
    for (size_t i = 0; i < c->n; i++)
        if (r && c->segments[i].segment->entries_unsynced)
            segment_begin_generation(s, c->segments[i].segment);
        else
            c->segments[i].segment->entries_unsynced = false;
    if (r && s->dead.entry_unsynced) {
        int copied = dead_file_copy(&s->dead, s->os, s->directory);
        (void)copied; /* then entry_unsynced stays, and with it the next try */
        return error_trace(r);
    }
    s->dead.entry_unsynced = false;
    return error_trace(r);
}

static int flush_letters(struct points_store *s) {
    dead_file_tidy(&s->dead, s->os, s->directory);
    int r = dead_file_flush(&s->dead, s->os, s->directory);
    if (r)
        return error_trace(r);
    budget_give(s->options.budget, BUDGET_POINTS, s->dead_charged);
    s->dead_charged = 0;
    return 0;
}

static int flush(struct capture *c, struct points_store *s) {
    int r = 0;
    for (size_t i = 0; i < c->n && !r; i++) {
        struct captured *from = &c->segments[i];
        r = segment_flush(s, from->m.key.incarnation, from->m.key.lane, from->segment,
                          from->storage, from->m.lengths);
        from->m.key.generation = from->segment->generation;
    }
    if (!r)
        r = flush_letters(s);
    if (!r)
        r = sync_entries(c, s);
    return error_trace(r);
}

/* ---- 3. The catalog ---- */

static int capture_catalog(struct capture *c, struct points_store *s, struct journal *j) {
    lsn_t lowest = UINT64_MAX;
    for (unsigned i = 0; i < s->n_lanes; i++)
        lowest = c->positions[i] < lowest ? c->positions[i] : lowest;
    points_catalog_encode(s->catalog, &c->catalog, &c->catalog_lsn);
    bulk_tasks_encode(s->tasks, lowest, &c->tasks);
    int r = buffer_check(&c->catalog);
    if (!r)
        r = buffer_check(&c->tasks);
    if (!r && j && c->catalog_lsn > journal_durable(j))
        r = journal_wait(j, c->catalog_lsn, JOURNAL_WAIT_MS);
    return r > 0 ? error_origin(-ETIMEDOUT) : error_trace(r);
}

/* ---- 4. The manifest ---- */

static void manifest_views(struct manifest *m, const struct capture *c, struct points_store *s) {
    m->sequence = s->sequence + 1;
    m->lanes = s->n_lanes;
    memcpy(m->positions, c->positions, sizeof m->positions);
    m->dead_generation = s->dead.generation;
    m->dead_bytes = s->dead.synced;
    m->catalog = buffer_bytes(&c->catalog);
    m->tasks = buffer_bytes(&c->tasks);
    m->n_segments = c->n;
    for (size_t i = 0; i < c->n; i++)
        m->segments[i] = c->segments[i].m;
}

static void adopt(struct points_store *s, const struct manifest *m, lsn_t catalog_lsn) {
    uint64_t bytes = m->dead_bytes;
    for (size_t i = 0; i < m->n_segments; i++)
        for (unsigned c = 0; c < COLUMNS; c++)
            bytes += m->segments[i].lengths[c];
    atomic_store(&s->disk_bytes, bytes);
    s->catalog_lsn = catalog_lsn;
    for (unsigned i = 0; i < s->n_lanes; i++)
        atomic_store(&s->lanes[i].persisted, m->positions[i]);
}

/* ---- 5. Sealing ---- */

static int seal(struct points_store *s, struct captured *c) {
    struct storage_map maps[COLUMNS] = {{0}};
    struct storage *mapped = NULL;
    int r = 0;
    for (unsigned i = 0; i < COLUMNS && !r; i++)
        r = segment_map(s, &c->m.key, i, c->m.lengths[i], &maps[i]);
    if (!r)
        r = storage_new(s->os, s->options.budget, c->m.row_bytes, c->m.rows, c->m.rows, maps,
                        &mapped);
    if (r) {
        for (unsigned i = 0; i < COLUMNS; i++)
            storage_unmap(s->os, &maps[i]);
        return error_trace(r);
    }
    mutex_lock(&c->shard->lane->lock);
    c->segment->storage = mapped;
    c->segment->sealed = true;
    if (!c->shard->forgotten)
        atomic_fetch_sub(&s->unsealed_bytes, atomic_load(&c->storage->memory_bytes));
    mutex_unlock(&c->shard->lane->lock);
    storage_unref(c->storage); /* the segment's reference; the capture's keeps it until its end */
    return 0;
}

static int seal_full(struct capture *c, struct points_store *s) {
    for (size_t i = 0; i < c->n; i++) {
        struct captured *from = &c->segments[i];
        if (from->m.full && !from->segment->sealed) {
            int r = seal(s, from);
            if (r)
                return error_trace(r);
        }
    }
    return 0;
}

/* Segments that are small, or were spilled lately, come last: they have little to give. */
static void spill_growing(struct capture *c, struct points_store *s) {
    for (size_t i = 0; i < c->n && store_spills(s); i++) {
        struct captured *from = &c->segments[i];
        if (!from->m.full)
            segment_spill(from->shard, from->segment, from->storage, &from->m);
    }
}

/* ---- All of it ---- */

/* Of a collection that was dropped after its lanes were captured, this manifest still names the
 * files: they are for the next one to remove. */
static bool names_dropped(const struct capture *c) {
    for (size_t i = 0; i < c->n; i++)
        if (atomic_load(&c->segments[i].shard->collection->dropped))
            return true;
    return false;
}

static int save(struct capture *c, struct points_store *s) {
    struct manifest m = {.segments = calloc(c->n ? c->n : 1, sizeof *m.segments)};
    if (!m.segments)
        return error_origin(-ENOMEM);
    manifest_views(&m, c, s);
    s->sequence++; /* a sequence is never used twice, also when this one comes to nothing */
    int r = manifest_save(s->os, s->directory, &m);
    if (!r) {
        adopt(s, &m, c->catalog_lsn);
        r = seal_full(c, s);
        spill_growing(c, s);
    }
    s->garbage |= s->dead.forgets_dropped; /* the file that the letters were copied from */
    if (!r)
        r = dead_file_saved(&s->dead, s->os, s->directory);
    if (!r && s->garbage) {
        r = files_collect(s, &m);
        s->garbage = r != 0 || names_dropped(c);
    }
    manifest_deinit(&m);
    return error_trace(r);
}

static bool is_current(struct points_store *s) {
    if (s->garbage || points_catalog_lsn(s->catalog) != s->catalog_lsn ||
        atomic_load(&s->unsealed_bytes) > 0)
        return false;
    for (unsigned i = 0; i < s->n_lanes; i++) {
        struct lane *lane = &s->lanes[i];
        mutex_lock(&lane->lock);
        bool current = lane->position == atomic_load(&lane->persisted);
        mutex_unlock(&lane->lock);
        if (!current)
            return false;
    }
    return true;
}

static int persist(struct points_store *s, struct journal *j) {
    CLEANUP(capture_deinit) struct capture c = {0};
    uint64_t dirty = atomic_load(&s->dirty_bytes);
    lsn_t catalog_lsn = points_catalog_lsn(s->catalog);
    int r = capture_lanes(&c, s);
    if (!r)
        r = flush(&c, s);
    if (!r)
        r = capture_catalog(&c, s, j);
    if (!r && c.catalog_lsn != s->catalog_lsn)
        s->garbage = true; /* perhaps a drop */
    assert(r || c.catalog_lsn >= catalog_lsn);
    if (!r)
        r = save(&c, s);
    if (!r)
        atomic_fetch_sub(&s->dirty_bytes, dirty);
    return error_trace(r);
}

static int checkpoint(struct points_store *s, struct journal *j) {
    atomic_store(&s->wants_checkpoint, false);
    builder_adopt(&s->builder, s);
    int r = is_current(s) ? 0 : persist(s, j);
    if (!r)
        merges_plan(s);
    return error_trace(r);
}

int points_store_checkpoint(struct points_store *s, struct journal *j) {
    mutex_lock(&s->checkpoint);
    int r = checkpoint(s, j);
    mutex_unlock(&s->checkpoint);
    if (r == OS_E_FULL)
        return error_origin(-ENOSPC);
    return r > 0 ? error_fold(r) : error_trace(r);
}
