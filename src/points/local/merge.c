/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A merge: the live rows of some sealed segments move to a new one.
 *
 *   1. copy    (builder, no locks) each row that is live when it is looked at, checked before and
 *              after; until the new segment is full.
 *   2. write   (checkpoint) the files of the new segment, synced. Nothing knows of it yet.
 *   3. move    (checkpoint) a few rows at a time, under the lane's lock: they are published behind
 *              those before; a row whose source is still live becomes its id's live one, and the
 *              source is marked deleted; one that died meanwhile is dead in the new segment too.
 *   4.         The same checkpoint captures the lane, leaves out segments whose rows are all dead,
 *              and removes their files once the manifest without them is on the disk.
 *
 * Moving is to readers as if each row had been written again as it was: an id has one live row at
 * every moment, in the map and outside; and a row that was deleted stays so. A segment whose rows
 * did not all fit, or that has a damaged one (which is not copied, and stays where it can be looked
 * at), keeps the rest. When anything fails before step 3 the store is as it was, and from then on
 * nothing can.
 */
#include "points/local/merge.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#ifdef MILLRACE_TINY
enum { MOVE_ROWS = 3 };
#else
enum { MOVE_ROWS = 2048 }; /* at a time, so that nobody waits long for the lock */
#endif
enum { RESERVE_BYTES_MAX = 256 << 20, RESERVE_SHARE = 20 };

struct origin {
    uint32_t source;
    uint32_t row;
};

struct merge {
    struct build build;
    struct shard *shard;
    uint32_t rows_max;
    uint64_t bytes_max;
    struct storage *storage; /* the copies */
    struct origin *origins;  /* of each copy */
    uint32_t n;              /* copies */
    size_t n_sources;
    struct merge_source sources[];
};

static struct merge *merge_of(struct build *b) {
    return CONTAINER_OF(b, struct merge, build);
}

static void merge_free(struct build *b) {
    struct merge *m = merge_of(b);
    for (size_t i = 0; i < m->n_sources; i++) {
        storage_unref(m->sources[i].storage);
        segment_unref(m->sources[i].segment);
    }
    storage_unref(m->storage);
    shard_unref(m->shard);
    free(m->origins);
    free(m);
}

/* ---- 1. Copying ---- */

/* True when the copy is what the source was written as. */
static bool copy_row(struct merge *m, const struct merge_source *from, uint32_t row, int *ret_r) {
    const struct row_entry *e = storage_entry(from->storage, row);
    struct storage_row values = {.id = row_id(e),
                                 .lsn = e->lsn,
                                 .vector_mask = e->vector_mask,
                                 .payload = storage_payload(from->storage, row)};
    uint8_t *vectors = NULL;
    *ret_r = storage_append(m->storage, m->n, &values, &vectors);
    if (*ret_r)
        return false;
    if (m->storage->row_bytes)
        memcpy(vectors, storage_vectors(from->storage, row), m->storage->row_bytes);
    storage_finish(m->storage, m->n);
    return storage_entry(m->storage, m->n)->data_crc == e->data_crc;
}

static int copy(struct merge *m, struct points_store *s, uint32_t source, uint32_t row) {
    const struct merge_source *from = &m->sources[source];
    int r = 0;
    if (!storage_row_sound(from->storage, row) || !copy_row(m, from, row, &r)) {
        if (!r && segment_mark_damaged(from->segment, row))
            atomic_fetch_add(&s->damaged_rows, 1);
        return error_trace(r);
    }
    m->origins[m->n++] = (struct origin){.source = source, .row = row};
    return 0;
}

static bool is_full(const struct merge *m) {
    return m->n == m->rows_max ||
           (uint64_t)m->n * m->storage->row_bytes + m->storage->payload_end >= m->bytes_max;
}

static int copy_source(struct merge *m, struct points_store *s, uint32_t source) {
    const struct segment *segment = m->sources[source].segment;
    uint32_t rows = segment_n(segment);
    for (uint32_t row = 0; row < rows && !is_full(m); row++) {
        int r = segment_is_deleted(segment, row) ? 0 : copy(m, s, source, row);
        if (!r && builder_is_stopping(&s->builder))
            r = error_origin(-ECANCELED);
        if (r)
            return error_trace(r);
    }
    return 0;
}

static int merge_run(struct build *b, struct points_store *s) {
    struct merge *m = merge_of(b);
    size_t row_bytes = m->sources[0].storage->row_bytes;
    m->origins = malloc(m->rows_max * sizeof *m->origins);
    if (!m->origins)
        return error_origin(-ENOMEM);
    int r = storage_new(s->os, s->options.budget, row_bytes, m->rows_max, 0, NULL, &m->storage);
    for (uint32_t i = 0; i < m->n_sources && !r; i++)
        r = copy_source(m, s, i);
    return error_trace(r);
}

/* ---- 2. Writing ---- */

static bool any_lives(const struct merge *m) {
    for (uint32_t i = 0; i < m->n; i++)
        if (!segment_is_deleted(m->sources[m->origins[i].source].segment, m->origins[i].row))
            return true;
    return false;
}

uint64_t merge_space(struct points_store *s) {
    uint64_t available = 0, total = 0;
    if (os_disk_space(s->os, s->directory, &available, &total))
        return 0;
    uint64_t share = total / RESERVE_SHARE;
    uint64_t reserve = share < RESERVE_BYTES_MAX ? share : RESERVE_BYTES_MAX;
    return available > reserve ? available - reserve : 0;
}

static int write_files(struct merge *m, struct points_store *s, struct segment *to) {
    uint64_t lengths[COLUMNS], bytes = 0;
    storage_lengths(m->storage, m->n, lengths);
    for (unsigned c = 0; c < COLUMNS; c++)
        bytes += lengths[c];
    if (bytes > merge_space(s))
        return OS_E_FULL;
    s->garbage = true; /* what is written, when this fails; else the sources */
    int r = segment_flush(s, m->shard->collection->incarnation, m->shard->lane->number, to,
                          m->storage, lengths);
    if (!r)
        atomic_fetch_add(&s->merged_bytes, bytes);
    return error_trace(r);
}

/* ---- 3. Moving ---- */

/* The copies from … to-1 become what their sources are. Locks held. */
static void move_rows(struct merge *m, struct segment *to, uint32_t from, uint32_t end) {
    for (uint32_t i = from; i < end; i++)
        if (segment_is_deleted(m->sources[m->origins[i].source].segment, m->origins[i].row))
            segment_mark_deleted(to, i);
    atomic_store_explicit(&to->n, end, memory_order_release);
    for (uint32_t i = from; i < end; i++) {
        if (segment_is_deleted(to, i))
            continue;
        struct segment *source = m->sources[m->origins[i].source].segment;
        struct locator old = {.segment = source->slot, .row = m->origins[i].row};
        struct idmap_cursor at = idmap_seek(&m->shard->map, row_id(storage_entry(m->storage, i)));
        bool found = idmap_match_locator(&at, old);
        assert(found); /* a row that is not deleted is the live one of its id */
        (void)found;
        idmap_replace(&m->shard->map, &at, (struct locator){.segment = to->slot, .row = i});
        segment_mark_deleted(source, old.row);
    }
}

static void move_all(struct merge *m, struct points_store *s, struct segment *to) {
    struct lane *lane = m->shard->lane;
    for (uint32_t from = 0; from < m->n; from += MOVE_ROWS) {
        uint32_t end = m->n - from > MOVE_ROWS ? from + MOVE_ROWS : m->n;
        mutex_lock(&lane->mapping);
        mutex_lock(&lane->lock);
        move_rows(m, to, from, end);
        to->full = end == m->n;
        if (to->full && !m->shard->forgotten)
            atomic_fetch_add(&s->unsealed_bytes, atomic_load(&m->storage->memory_bytes));
        mutex_unlock(&lane->lock);
        mutex_unlock(&lane->mapping);
    }
}

static int new_segment(struct merge *m, struct points_store *s, struct segment **ret_segment) {
    uint32_t number = 0;
    struct segment *segment = NULL;
    int r = store_number(s, &number);
    if (!r)
        r = segment_new(number, m->n, m->shard->collection->config.n_vectors, m->storage, &segment);
    if (r)
        return error_trace(r);
    storage_ref(m->storage);
    for (uint32_t i = 0; i < m->n && !r; i++)
        r = segment_note_vectors(segment, i, storage_entry(m->storage, i)->vector_mask);
    if (r)
        segment_unref(segment);
    else
        *ret_segment = segment;
    return error_trace(r);
}

static int merge_adopt(struct build *b, struct points_store *s) {
    struct merge *m = merge_of(b);
    struct segment *to = NULL;
    if (atomic_load(&m->shard->collection->dropped) || !any_lives(m))
        return 0;
    int r = new_segment(m, s, &to);
    if (!r)
        r = write_files(m, s, to);
    if (!r)
        r = shard_add_segment(m->shard, to);
    if (r) {
        segment_unref(to);
        return error_trace(r);
    }
    move_all(m, s, to);
    atomic_fetch_add(&s->merges, 1);
    return 0;
}

/* ---- Making one ---- */

static const struct build_kind merge_kind = {
    .run = merge_run,
    .adopt = merge_adopt,
    .free = merge_free,
};

int merge_new(struct shard *shard, struct segment *const *segments, size_t n, uint32_t rows_max,
              uint64_t bytes_max, struct build **ret_build) {
    struct merge *m = calloc(1, sizeof *m + n * sizeof *m->sources);
    if (!m)
        return error_origin(-ENOMEM);
    m->build.kind = &merge_kind;
    m->shard = shard_ref(shard);
    m->rows_max = rows_max;
    m->bytes_max = bytes_max;
    for (; m->n_sources < n; m->n_sources++)
        m->sources[m->n_sources] =
            (struct merge_source){.segment = segment_ref(segments[m->n_sources]),
                                  .storage = storage_ref(segments[m->n_sources]->storage)};
    *ret_build = &m->build;
    return 0;
}
