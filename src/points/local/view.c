/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Views: making them, single rows, counts. Scroll and search have files of their own.
 */
#include "points/local/view.h"

#include <errno.h>
#include <stdlib.h>

/* Room for `more` segments, and for the places of all. */
static int reserve(struct view_shard *v, size_t more) {
    size_t slots = v->shard->n_slots;
    if (v->n_segments + more > v->capacity) {
        size_t capacity = v->n_segments + more + v->capacity / 2;
        struct view_segment *grown = realloc(v->segments, capacity * sizeof *grown);
        if (!grown)
            return error_origin(-ENOMEM);
        v->segments = grown;
        v->capacity = capacity;
    }
    if (slots > v->places_capacity) {
        uint32_t *grown = realloc(v->places, slots * sizeof *grown);
        if (!grown)
            return error_origin(-ENOMEM);
        v->places = grown;
        v->places_capacity = slots;
    }
    return 0;
}

static void add_segment(struct view_shard *v, struct segment *segment) {
    v->places[segment->slot] = (uint32_t)v->n_segments;
    v->segments[v->n_segments++] = (struct view_segment){.segment = segment_ref(segment),
                                                         .storage = storage_ref(segment->storage),
                                                         .n = segment_n(segment)};
}

static bool is_new(const struct view_shard *v, size_t slot) {
    const struct segment *segment = v->shard->segments[slot];
    return segment && segment->addition > v->additions;
}

static int add_segments(struct view_shard *v) {
    size_t more = 0;
    for (size_t slot = 0; slot < v->shard->n_slots; slot++)
        more += is_new(v, slot);
    int r = reserve(v, more);
    if (r)
        return error_trace(r);
    for (size_t slot = 0; slot < v->shard->n_slots; slot++)
        if (is_new(v, slot))
            add_segment(v, v->shard->segments[slot]);
    v->additions = v->shard->additions;
    return 0;
}

int view_keep_up(struct view_shard *v, struct view_segment *known) {
    struct storage *now = known->segment->storage;
    if (now != known->storage) {
        struct storage **grown = realloc(v->kept, (v->n_kept + 1) * sizeof(struct storage *));
        if (!grown)
            return error_origin(-ENOMEM);
        v->kept = grown;
        v->kept[v->n_kept++] = known->storage;
        known->storage = storage_ref(now);
    }
    known->n = segment_n(known->segment);
    return 0;
}

int view_refresh(struct view_shard *v) {
    for (size_t place = v->still; place < v->n_segments; place++) {
        struct view_segment *known = &v->segments[place];
        int r = view_keep_up(v, known);
        if (r)
            return error_trace(r);
        if (place == v->still && known->segment->full)
            v->still++;
    }
    return v->additions == v->shard->additions ? 0 : error_trace(add_segments(v));
}

static int view_lane(struct view_shard *v, struct lane *lane, lsn_t incarnation) {
    int r = 0;
    mutex_lock(&lane->lock);
    struct shard *shard = lane_find(lane, incarnation);
    if (shard) {
        v->shard = shard_ref(shard);
        r = view_refresh(v);
    }
    mutex_unlock(&lane->lock);
    return error_trace(r);
}

int points_view_new(struct points_store *s, struct points_collection *collection,
                    struct points_view **ret_view) {
    struct points_view *v = calloc(1, sizeof *v + s->n_lanes * sizeof *v->shards);
    if (!v)
        return error_origin(-ENOMEM);
    v->store = s;
    v->collection = points_collection_ref(collection);
    v->n_shards = s->n_lanes;
    for (unsigned i = 0; i < s->n_lanes; i++) {
        int r = view_lane(&v->shards[i], &s->lanes[i], collection->incarnation);
        if (r) {
            points_view_free(v);
            return error_trace(r);
        }
    }
    *ret_view = v;
    return 0;
}

static void view_shard_deinit(struct view_shard *v) {
    for (size_t i = 0; i < v->n_segments; i++) {
        storage_unref(v->segments[i].storage);
        segment_unref(v->segments[i].segment);
    }
    for (size_t i = 0; i < v->n_kept; i++)
        storage_unref(v->kept[i]);
    free(v->kept);
    free(v->segments);
    free(v->places);
    shard_unref(v->shard);
}

struct points_view *points_view_free(struct points_view *v) {
    if (!v)
        return NULL;
    for (unsigned i = 0; i < v->n_shards; i++)
        view_shard_deinit(&v->shards[i]);
    points_collection_unref(v->collection);
    free(v);
    return NULL;
}

bool view_row(struct points_view *v, const struct view_segment *segment, uint32_t row,
              struct point_row *ret_row) {
    if (!storage_row_sound(segment->storage, row)) {
        if (segment_mark_damaged(segment->segment, row))
            atomic_fetch_add(&v->store->damaged_rows, 1);
        return false;
    }
    const struct row_entry *e = storage_entry(segment->storage, row);
    *ret_row = (struct point_row){.id = row_id(e),
                                  .lsn = e->lsn,
                                  .vector_mask = e->vector_mask,
                                  .vectors = storage_vectors(segment->storage, row),
                                  .payload = storage_payload(segment->storage, row)};
    return true;
}

/* Where the live row of id is: the place of its segment in the view, and the row.
 * POINTS_E_NOT_FOUND. */
static int locate(struct view_shard *shard, struct point_id id, size_t *ret_place,
                  uint32_t *ret_row) {
    struct idmap_cursor cursor;
    struct locator at = {0};
    int r = POINTS_E_NOT_FOUND;
    mutex_lock(&shard->shard->lane->lock);
    if (shard_find(shard->shard, id, &at, &cursor))
        r = view_refresh(shard);
    mutex_unlock(&shard->shard->lane->lock);
    if (!r) {
        *ret_place = shard->places[at.segment];
        *ret_row = at.row;
    }
    return r;
}

int view_shard_get(struct points_view *v, struct view_shard *shard, struct point_id id,
                   struct point_row *ret_row) {
    size_t place = 0;
    uint32_t row = 0;
    if (!shard->shard)
        return POINTS_E_NOT_FOUND;
    int r = locate(shard, id, &place, &row);
    if (r)
        return r == POINTS_E_NOT_FOUND ? r : error_trace(r);
    if (!view_row(v, &shard->segments[place], row, ret_row))
        return error_origin(-EBADMSG);
    return 0;
}

/* The workers choose the lane; the others are asked too, for records that were dealt otherwise. */
int points_view_get(struct points_view *v, struct point_id id, struct point_row *ret_row) {
    uint64_t hash = point_key_hash(v->collection->incarnation, id);
    unsigned likely = work_lane_of_hash(hash, v->n_shards);
    for (unsigned i = 0; i < v->n_shards; i++) {
        int r = view_shard_get(v, &v->shards[(likely + i) % v->n_shards], id, ret_row);
        if (r != POINTS_E_NOT_FOUND)
            return error_trace(r);
    }
    return POINTS_E_NOT_FOUND;
}

uint64_t points_view_segments(struct points_view *v) {
    uint64_t segments = 0;
    for (unsigned i = 0; i < v->n_shards; i++)
        segments += v->shards[i].n_segments;
    return segments;
}

uint64_t points_view_count(struct points_view *v) {
    uint64_t count = 0;
    for (unsigned i = 0; i < v->n_shards; i++)
        if (v->shards[i].shard)
            count += atomic_load_explicit(&v->shards[i].shard->live, memory_order_relaxed);
    return count;
}
