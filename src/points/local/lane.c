/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lanes: applying records to shards.
 *
 *   record ─▶ seen already (lsn ≤ position)? ─▶ done
 *          ─▶ malformed, or does not fit its collection ─▶ reject
 *          ─▶ of a dead incarnation ─▶ dropped and counted (invariant 8)
 *          ─▶ about a dead letter (work/letters.h) ─▶ refused, or what its payload says
 *          ─▶ upsert: write the row behind the others │ delete: nothing to prepare
 *             ─▶ lock ─▶ publish the row, move the id to it, mark the old row deleted,
 *                        mark the letters that it is about, move the position ─▶ unlock
 *
 * The growing segment gets no more rows once it is full, or mostly dead (close_if_due); a small one
 * once a checkpoint finds all of it dead.
 *
 * An id lives in one lane (records are dealt by its hash), so under one lane's lock each id has at
 * most one row that is not deleted, and the map knows it.
 */
#include "points/local/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum { EARLY_SHARE = 16 }; /* a segment of a 16th of the full size may be closed early */

/* ---- Shards ---- */

static int shard_new(struct lane *lane, struct points_collection *collection,
                     struct shard **ret_shard) {
    struct shard *s = calloc(1, sizeof *s);
    if (!s)
        return error_origin(-ENOMEM);
    atomic_init(&s->references, 1);
    s->collection = points_collection_ref(collection);
    s->lane = lane;
    s->map.budget = lane->store->options.budget;
    *ret_shard = s;
    return 0;
}

struct shard *shard_ref(struct shard *s) {
    atomic_fetch_add_explicit(&s->references, 1, memory_order_relaxed);
    return s;
}

static void shard_free(struct shard *s) {
    for (size_t i = 0; i < s->n_slots; i++)
        segment_unref(s->segments[i]);
    free(s->segments);
    idmap_deinit(&s->map);
    points_collection_unref(s->collection);
    free(s);
}

struct shard *shard_unref(struct shard *s) {
    if (s && atomic_fetch_sub_explicit(&s->references, 1, memory_order_acq_rel) == 1)
        shard_free(s);
    return NULL;
}

/* Grows an array of pointers so that one more fits. */
static int reserve_pointer(void ***array, size_t n, size_t *capacity) {
    if (n < *capacity)
        return 0;
    size_t larger = *capacity ? 2 * *capacity : 4;
    void **grown = realloc(*array, larger * sizeof *grown);
    if (!grown)
        return error_origin(-ENOMEM);
    *array = grown;
    *capacity = larger;
    return 0;
}

static size_t free_slot(const struct shard *s) {
    size_t slot = 0;
    if (s->n_segments == s->n_slots)
        return s->n_slots;
    while (s->segments[slot])
        slot++;
    return slot;
}

int shard_add_segment(struct shard *s, struct segment *segment) {
    mutex_lock(&s->lane->lock);
    size_t slot = free_slot(s);
    int r = slot < LOCATOR_SEGMENTS_MAX ? 0 : error_origin(-EOVERFLOW);
    if (!r && slot == s->n_slots)
        r = reserve_pointer((void ***)&s->segments, s->n_slots, &s->capacity);
    if (!r) {
        segment->slot = (uint32_t)slot;
        segment->addition = ++s->additions;
        s->segments[slot] = segment;
        s->n_slots += slot == s->n_slots;
        s->n_segments++;
    }
    mutex_unlock(&s->lane->lock);
    return error_trace(r);
}

/* Its memory no longer waits for the disk. Lock held. */
static void forget_unsealed(struct shard *shard, const struct segment *segment) {
    if (segment->full && !segment->sealed && !shard->forgotten)
        atomic_fetch_sub(&shard->lane->store->unsealed_bytes,
                         atomic_load(&segment->storage->memory_bytes));
}

void shard_drop_segment(struct shard *s, struct segment *segment) {
    assert(s->segments[segment->slot] == segment && segment->full);
    forget_unsealed(s, segment);
    s->segments[segment->slot] = NULL;
    s->n_segments--;
    segment_unref(segment);
}

bool shard_find(const struct shard *s, struct point_id id, struct locator *ret_locator,
                struct idmap_cursor *ret_place) {
    struct idmap_cursor cursor = idmap_seek(&s->map, id);
    struct locator at;
    while (idmap_match(&cursor, &at)) {
        const struct row_entry *e = storage_entry(s->segments[at.segment]->storage, at.row);
        if (row_has_id(e, id)) {
            *ret_locator = at;
            *ret_place = cursor;
            return true;
        }
    }
    return false;
}

/* ---- The lane ---- */

void lane_init(struct lane *lane, struct points_store *s, unsigned number) {
    lane->store = s;
    lane->number = number;
    mutex_init(&lane->appending, LOCK_RANK_APPEND);
    mutex_init(&lane->mapping, LOCK_RANK_IDMAP);
    mutex_init(&lane->lock, LOCK_RANK_SHARD);
}

void lane_deinit(struct lane *lane) {
    for (size_t i = 0; i < lane->n_shards; i++)
        shard_unref(lane->shards[i]);
    free(lane->shards);
    lane_forward_deinit(lane);
    budget_give(lane->store->options.budget, BUDGET_POINTS, lane->dead.frames.size);
    dead_pending_deinit(&lane->dead);
    mutex_deinit(&lane->lock);
    mutex_deinit(&lane->appending);
    mutex_deinit(&lane->mapping);
}

/* The place of the first shard whose incarnation is not below. */
static size_t shard_place(const struct lane *lane, lsn_t incarnation) {
    size_t low = 0, high = lane->n_shards;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (lane->shards[middle]->collection->incarnation < incarnation)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct shard *lane_find(const struct lane *lane, lsn_t incarnation) {
    size_t place = shard_place(lane, incarnation);
    if (place == lane->n_shards || lane->shards[place]->collection->incarnation != incarnation)
        return NULL;
    return lane->shards[place];
}

static void insert_shard(struct lane *lane, struct shard *shard) {
    size_t place = shard_place(lane, shard->collection->incarnation);
    memmove(&lane->shards[place + 1], &lane->shards[place],
            (lane->n_shards - place) * sizeof(struct shard *));
    lane->shards[place] = shard;
    lane->n_shards++;
}

static void remove_shard(struct lane *lane, size_t place) {
    lane->n_shards--;
    memmove(&lane->shards[place], &lane->shards[place + 1],
            (lane->n_shards - place) * sizeof(struct shard *));
}

int lane_add_shard(struct lane *lane, struct points_collection *collection,
                   struct shard **ret_shard) {
    struct shard *shard = NULL;
    int r = shard_new(lane, collection, &shard);
    if (r)
        return error_trace(r);
    mutex_lock(&lane->lock);
    r = reserve_pointer((void ***)&lane->shards, lane->n_shards, &lane->capacity);
    if (!r)
        insert_shard(lane, shard);
    mutex_unlock(&lane->lock);
    if (r)
        shard_unref(shard);
    else
        *ret_shard = shard;
    return error_trace(r);
}

/* Its memory of full segments no longer waits for the disk. Lock held. */
static void shard_forget(struct shard *shard) {
    for (size_t i = 0; i < shard->n_slots; i++)
        if (shard->segments[i])
            forget_unsealed(shard, shard->segments[i]);
    shard->forgotten = true;
}

void lane_forget_dropped(struct lane *lane) {
    for (;;) {
        struct shard *gone = NULL;
        mutex_lock(&lane->lock);
        for (size_t i = 0; i < lane->n_shards && !gone; i++)
            if (atomic_load(&lane->shards[i]->collection->dropped)) {
                gone = lane->shards[i];
                shard_forget(gone);
                remove_shard(lane, i);
            }
        mutex_unlock(&lane->lock);
        if (!gone)
            return;
        shard_unref(gone); /* frees much, so not under the lock */
    }
}

/* ---- Applying ---- */

/* What a batch keeps from one record to the next. */
struct applier {
    struct lane *lane;
    struct points_collection *collection; /* a reference, or NULL */
    struct shard *shard;                  /* a reference; NULL: none yet in this lane */
    lsn_t letter;                         /* that the record under way takes away; 0: none */
    const char *reason;
};

static void applier_forget(struct applier *a) {
    a->collection = points_collection_unref(a->collection);
    a->shard = shard_unref(a->shard);
}

/* False: the incarnation is dead. */
static bool applier_choose(struct applier *a, lsn_t incarnation) {
    if (!a->collection || a->collection->incarnation != incarnation) {
        applier_forget(a);
        a->collection = points_catalog_find_incarnation(a->lane->store->catalog, incarnation);
        if (!a->collection)
            return false;
        mutex_lock(&a->lane->lock); /* control may be forgetting another shard */
        struct shard *shard = lane_find(a->lane, incarnation);
        if (shard)
            a->shard = shard_ref(shard);
        mutex_unlock(&a->lane->lock);
    }
    return !atomic_load_explicit(&a->collection->dropped, memory_order_relaxed);
}

static const char no_memory[] = "out of memory";
static const char budget_is_spent[] = "the points have all the memory they may (--memory-limit)";

static enum work_outcome retry(struct applier *a, const char *reason) {
    a->reason = reason;
    return WORK_RETRY;
}

/* Letters wait in memory for the next checkpoint, so they need room in the budget as points do. */
static enum work_outcome reject(struct applier *a, const char *reason) {
    struct points_store *s = a->lane->store;
    if (budget_spent(s->options.budget, BUDGET_POINTS))
        return retry(a, budget_is_spent);
    a->reason = reason;
    return WORK_REJECT;
}

static void fill_vectors(uint8_t *row, const struct point_config *config,
                         const struct point_record *record) {
    if (record->vectors.size == config->row_floats * sizeof(float)) {
        memcpy(row, record->vectors.data, record->vectors.size);
        return;
    }
    const uint8_t *from = record->vectors.data;
    for (uint32_t i = 0; i < config->n_vectors; i++) {
        size_t size = config->vectors[i].dimension * sizeof(float);
        uint8_t *to = row + config->offsets[i] * sizeof(float);
        if (record->vector_mask >> i & 1) {
            memcpy(to, from, size);
            from += size;
        } else {
            memset(to, 0, size);
        }
    }
}

uint32_t segment_rows_for(const struct points_store *s, const struct point_config *config) {
    uint64_t row = sizeof(struct row_entry) + config->row_floats * sizeof(float);
    uint64_t rows = s->options.segment_bytes_max / row;
    if (rows > s->options.segment_rows_max)
        rows = s->options.segment_rows_max;
    return rows ? (uint32_t)rows : 1;
}

static int begin_segment(struct applier *a) {
    struct points_store *s = a->lane->store;
    const struct point_config *config = &a->collection->config;
    uint32_t rows = segment_rows_for(s, config), number = 0;
    struct storage *storage = NULL;
    struct segment *segment = NULL;
    int r = store_number(s, &number);
    if (!r)
        r = storage_new(s->os, s->options.budget, config->row_floats * sizeof(float), rows, 0, NULL,
                        &storage);
    if (r)
        return error_trace(r);
    r = segment_new(number, rows, config->n_vectors, storage, &segment);
    if (r) {
        storage_unref(storage);
        return error_trace(r);
    }
    r = shard_add_segment(a->shard, segment);
    if (r)
        segment_unref(segment);
    else
        a->shard->growing = segment;
    return error_trace(r);
}

/* Room in the map for one more id. */
static int reserve_id(struct applier *a) {
    struct shard *shard = a->shard;
    struct idmap grown = {0};
    if (idmap_has_room(&shard->map, 1))
        return 0;
    mutex_lock(&a->lane->mapping);
    int r = idmap_grown(&shard->map, 1, &grown);
    if (!r) {
        mutex_lock(&a->lane->lock);
        idmap_adopt(&shard->map, &grown);
        mutex_unlock(&a->lane->lock);
    }
    mutex_unlock(&a->lane->mapping);
    return error_trace(r);
}

/* The last one is left for a merge. */
static bool has_slot(struct shard *shard) {
    mutex_lock(&shard->lane->lock);
    bool has = shard->n_segments + 1 < shard->lane->store->options.segments_max;
    mutex_unlock(&shard->lane->lock);
    return has;
}

/* Makes sure that the shard and its growing segment can take one more row and one more id. */
static enum work_outcome make_room(struct applier *a) {
    struct points_store *s = a->lane->store;
    if (budget_spent(s->options.budget, BUDGET_POINTS))
        return retry(a, budget_is_spent);
    if (!a->shard) {
        struct shard *shard = NULL;
        if (lane_add_shard(a->lane, a->collection, &shard))
            return retry(a, no_memory);
        a->shard = shard_ref(shard);
    }
    struct shard *shard = a->shard;
    if (!shard->growing) {
        if (atomic_load(&s->unsealed_bytes) >= s->options.unsealed_bytes_max)
            return retry(a, "the points store waits for its disk");
        if (!has_slot(shard)) {
            store_want_checkpoint(s); /* merges make room */
            return retry(a, "a lane of the collection has as many segments as it can");
        }
        if (begin_segment(a))
            return retry(a, no_memory);
    }
    return reserve_id(a) ? retry(a, no_memory) : WORK_OK;
}

/* Marks a row that is no longer the live one of its id. Lock held. */
static void bury(struct shard *shard, struct locator at) {
    segment_mark_deleted(shard->segments[at.segment], at.row);
}

/* Whether the growing segment gets no more rows: it is full, or it is mostly dead and large enough
 * for its dead rows to matter, which then go when it is merged. */
static bool is_due(const struct points_store *s, const struct segment *segment) {
    uint32_t n = segment_n(segment), dead = atomic_load(&segment->deleted_n);
    uint64_t bytes = n * segment->storage->row_bytes + segment->storage->payload_end;
    if (n == segment->rows_max || bytes >= s->options.segment_bytes_max)
        return true;
    return dead > n / 2 && (n >= segment->rows_max / EARLY_SHARE ||
                            bytes >= s->options.segment_bytes_max / EARLY_SHARE);
}

/* The growing segment gets no more rows. Lock held, by the appender. */
static void close_growing(struct shard *shard) {
    struct segment *segment = shard->growing;
    segment->full = true;
    shard->growing = NULL;
    if (!shard->forgotten)
        atomic_fetch_add(&shard->lane->store->unsealed_bytes,
                         atomic_load(&segment->storage->memory_bytes));
}

/* Lock held, by the appender. */
static void close_if_due(struct shard *shard) {
    if (shard->growing && is_due(shard->lane->store, shard->growing))
        close_growing(shard);
}

static bool is_dead_growing(const struct segment *segment) {
    uint32_t n = segment_n(segment);
    return !segment->full && n > 0 && segment_is_dead(segment, n);
}

/* Lock held. */
static bool has_dead_growing(const struct lane *lane) {
    for (size_t i = 0; i < lane->n_shards; i++) {
        const struct shard *shard = lane->shards[i];
        for (size_t slot = 0; slot < shard->n_slots; slot++)
            if (shard->segments[slot] && is_dead_growing(shard->segments[slot]))
                return true;
    }
    return false;
}

void lane_close_dead(struct lane *lane) {
    mutex_lock(&lane->lock);
    bool found = has_dead_growing(lane);
    mutex_unlock(&lane->lock);
    if (!found)
        return;
    mutex_lock(&lane->appending);
    mutex_lock(&lane->lock);
    for (size_t i = 0; i < lane->n_shards; i++)
        if (lane->shards[i]->growing && is_dead_growing(lane->shards[i]->growing))
            close_growing(lane->shards[i]);
    mutex_unlock(&lane->lock);
    mutex_unlock(&lane->appending);
}

void lane_pass_record(struct lane *lane, const struct journal_record *from, lsn_t letter,
                      bool writes) {
    struct work_letters *letters = &lane->store->letters;
    struct dead_mark mark = {.key_hash = from->key_hash};
    if (letter) {
        mark.letter = letter;
        work_letters_remove(letters, letter, from->key_hash);
        dead_pending_mark(&lane->dead, &mark);
    }
    if (writes && work_letters_change(letters, from->key_hash, from->lsn)) {
        mark.letter = 0;
        mark.changed = from->lsn;
        dead_pending_mark(&lane->dead, &mark);
    }
    lane->position = from->lsn;
}

/* Few records need it. */
int lane_reserve_marks(struct lane *lane) {
    if (work_letters_n(&lane->store->letters) == 0)
        return 0;
    mutex_lock(&lane->lock);
    int r = dead_pending_reserve(&lane->dead);
    mutex_unlock(&lane->lock);
    return error_trace(r);
}

/* The row that was written becomes the live one of its id. Lock held. */
static void publish(struct shard *shard, struct segment *segment, uint32_t row,
                    struct point_id id) {
    struct locator fresh = {.segment = segment->slot, .row = row}, old;
    struct idmap_cursor place;
    bool replaces = shard_find(shard, id, &old, &place);
    atomic_store_explicit(&segment->n, row + 1, memory_order_release);
    if (replaces) {
        idmap_replace(&shard->map, &place, fresh);
        bury(shard, old);
    } else {
        idmap_insert(&shard->map, id, fresh);
        atomic_fetch_add_explicit(&shard->live, 1, memory_order_relaxed);
    }
    close_if_due(shard);
}

static enum work_outcome apply_upsert(struct applier *a, const struct journal_record *from,
                                      const struct point_record *record) {
    if (!point_record_fits(&a->collection->config, record))
        return reject(a, "the vectors do not fit the collection's configuration");
    if (record->payload.size > UINT32_MAX)
        return reject(a, "the payload is too large");
    enum work_outcome outcome = make_room(a);
    if (outcome != WORK_OK)
        return outcome;
    struct shard *shard = a->shard;
    struct segment *segment = shard->growing;
    idmap_prefetch(&shard->map, record->id);
    uint32_t row = atomic_load_explicit(&segment->n, memory_order_relaxed);
    struct storage_row values = {.id = record->id,
                                 .lsn = from->lsn,
                                 .vector_mask = record->vector_mask,
                                 .payload = record->payload};
    uint8_t *vectors;
    if (segment_note_vectors(segment, row, record->vector_mask) ||
        storage_append(segment->storage, row, &values, &vectors))
        return retry(a, no_memory);
    fill_vectors(vectors, &a->collection->config, record);
    storage_finish(segment->storage, row);
    mutex_lock(&a->lane->lock);
    publish(shard, segment, row, record->id);
    lane_pass_record(a->lane, from, a->letter, true);
    mutex_unlock(&a->lane->lock);
    return WORK_OK;
}

static void apply_delete(struct applier *a, const struct journal_record *from,
                         const struct point_record *record) {
    struct shard *shard = a->shard;
    struct idmap_cursor place;
    struct locator at;
    mutex_lock(&a->lane->lock);
    if (shard && shard_find(shard, record->id, &at, &place)) {
        idmap_remove(&shard->map, &place);
        bury(shard, at);
        atomic_fetch_sub_explicit(&shard->live, 1, memory_order_relaxed);
        close_if_due(shard);
    }
    lane_pass_record(a->lane, from, a->letter, true);
    mutex_unlock(&a->lane->lock);
}

static void apply_nothing(struct applier *a, const struct journal_record *from) {
    mutex_lock(&a->lane->lock);
    lane_pass_record(a->lane, from, a->letter, false);
    mutex_unlock(&a->lane->lock);
}

void lane_pass(struct lane *lane, lsn_t lsn) {
    mutex_lock(&lane->lock);
    if (lsn > lane->position)
        lane->position = lsn;
    mutex_unlock(&lane->lock);
}

static enum work_outcome apply_point(struct applier *a, const struct journal_record *from) {
    struct points_store *s = a->lane->store;
    struct point_record record;
    if (!point_record_decode(from->payload, &record))
        return reject(a, "not a point record of a version known here");
    if (record.op != POINT_UPSERT && record.op != POINT_DELETE)
        return reject(a, "a control record among those of a lane");
    if (!applier_choose(a, record.incarnation)) {
        atomic_fetch_add_explicit(&s->orphaned_records, 1, memory_order_relaxed);
        apply_nothing(a, from);
        return WORK_OK;
    }
    enum work_outcome outcome = WORK_OK;
    if (record.op == POINT_UPSERT)
        outcome = apply_upsert(a, from, &record);
    else
        apply_delete(a, from, &record);
    if (outcome == WORK_OK)
        atomic_fetch_add_explicit(&s->dirty_bytes, from->payload.size + sizeof(struct row_entry),
                                  memory_order_relaxed);
    return outcome;
}

static enum work_outcome refuse(struct applier *a, const char *reason) {
    a->reason = reason;
    return WORK_REJECT;
}

static enum work_outcome apply_letter(struct applier *a, const struct journal_record *from) {
    struct work_letter_record letter;
    struct journal_record inner = *from;
    lsn_t changed = 0;
    if (!work_letter_decode(from->payload, &letter))
        return refuse(a, work_letter_unknown);
    if (!work_letters_find(&a->lane->store->letters, letter.letter, from->key_hash, &changed))
        return refuse(a, work_letter_gone);
    if (letter.op == WORK_LETTER_REPLAY && changed && !letter.force)
        return refuse(a, work_letter_changed);
    enum work_outcome outcome = WORK_OK;
    a->letter = letter.letter;
    inner.payload = letter.payload;
    if (letter.op == WORK_LETTER_REPLAY)
        outcome = apply_point(a, &inner);
    else
        apply_nothing(a, from);
    a->letter = 0;
    return outcome;
}

static enum work_outcome apply_record(struct applier *a, const struct journal_record *from) {
    if (from->lsn <= a->lane->position) /* moved by nobody else meanwhile */
        return WORK_OK;
    if (lane_reserve_marks(a->lane))
        return retry(a, no_memory);
    return from->flags & JOURNAL_LETTER ? apply_letter(a, from) : apply_point(a, from);
}

int lane_apply(struct lane *lane, const struct journal_record *const *records, size_t n,
               struct work_verdict *ret_verdict) {
    struct applier a = {.lane = lane};
    enum work_outcome outcome = WORK_OK;
    size_t applied = 0;
    mutex_lock(&lane->appending);
    while (applied < n) {
        outcome = apply_record(&a, records[applied]);
        if (outcome != WORK_OK)
            break;
        applied++;
    }
    applier_forget(&a);
    mutex_unlock(&lane->appending);
    *ret_verdict =
        (struct work_verdict){.outcome = outcome, .applied = applied, .reason = a.reason};
    return 0;
}

static int keep_letter(struct lane *lane, const struct journal_record *record, const char *reason) {
    struct points_store *s = lane->store;
    size_t before = lane->dead.frames.size;
    int r = work_letters_add(&s->letters, record->lsn, record->key_hash);
    if (r)
        return error_trace(r);
    r = dead_pending_add(&lane->dead, record, reason);
    if (r) {
        work_letters_remove(&s->letters, record->lsn, record->key_hash);
        return error_trace(r);
    }
    budget_add(s->options.budget, BUDGET_POINTS, lane->dead.frames.size - before);
    atomic_fetch_add(&s->dirty_bytes, record->payload.size);
    return 0;
}

int lane_reject(struct lane *lane, const struct journal_record *record, const char *reason) {
    int r = 0;
    mutex_lock(&lane->lock);
    if (record->lsn > lane->position) {
        if (!(record->flags & JOURNAL_LETTER))
            r = keep_letter(lane, record, reason);
        if (!r)
            lane->position = record->lsn;
    }
    mutex_unlock(&lane->lock);
    return error_trace(r);
}
