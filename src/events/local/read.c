/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading. Under the lane's lock a reader takes references to what the lane is made of and copies
 * the little that changes in place (the hot tags of one cookie); all else goes on without it.
 */
#include "events/local/internal.h"

#include "base/arena.h"

#include <assert.h>
#include <errno.h>

static int count_damage(struct events_store *s, int r) {
    if (r == -EBADMSG)
        atomic_fetch_add_explicit(&s->damages, 1, memory_order_relaxed);
    return r;
}

/* ---- Profiles ---- */
/* Where the tags of a cookie are. */
struct sources {
    struct generation *frozen;
    struct base *base;
    bool erased; /* by the hot generation, or an erasure to be applied: nothing older counts */
    struct buffer hot;
    struct buffer cold; /* the frozen generation's */
    rocksdb_pinnableslice_t *slice;
    struct tag_index index;
};

static void sources_deinit(struct sources *x) {
    tag_index_deinit(&x->index);
    pinned_deinit(&x->slice);
    buffer_deinit(&x->hot);
    buffer_deinit(&x->cold);
    generation_unref(x->frozen);
    base_unref(x->base);
}

/* Under the lock. NULL: there is none, or the base has it. */
static struct generation *shown_frozen(const struct lane *l) {
    return l->frozen && !l->covered ? generation_ref(l->frozen) : NULL;
}

static void take_sources(struct lane *l, uint64_t hash, struct bytes cookie, struct sources *x) {
    mutex_lock(&l->lock);
    bool hidden = event_erasures_hide(&l->erasures, hash, l->position);
    const struct profile *p = hidden ? NULL : generation_find(l->hot, hash, cookie);
    x->erased = hidden;
    if (p) {
        x->erased = p->erased;
        generation_tags(l->hot, p, &x->hot);
    }
    x->frozen = shown_frozen(l);
    x->base = base_ref(l->base);
    mutex_unlock(&l->lock);
}

static int index_base(struct sources *x, uint64_t hash, struct bytes cookie) {
    struct key key;
    key_profile(&key, hash, cookie);
    int r = base_get(x->base, key_view(&key), &x->slice);
    if (r == 0 && x->slice)
        r = tag_index_add_value(&x->index, pinned_bytes(x->slice));
    return r;
}

/* Oldest first, as merging does. */
static int index_sources(struct sources *x, uint64_t hash, struct bytes cookie) {
    const struct profile *p = x->frozen ? generation_find(x->frozen, hash, cookie) : NULL;
    int r = 0;
    if (p && !x->erased)
        generation_tags(x->frozen, p, &x->cold);
    if (buffer_check(&x->hot) < 0 || buffer_check(&x->cold) < 0)
        return error_origin(-ENOMEM);
    if (!x->erased && !(p && p->erased))
        r = index_base(x, hash, cookie);
    if (r == 0)
        r = tag_index_add_run(&x->index, buffer_bytes(&x->cold));
    if (r == 0)
        r = tag_index_add_run(&x->index, buffer_bytes(&x->hot));
    return r;
}

static int copy_text(struct arena *a, struct event_tag *tag) {
    if (tag->product_text.size == 0)
        return 0;
    void *p = arena_alloc(a, tag->product_text.size);
    if (!p)
        return error_origin(-ENOMEM);
    memcpy(p, tag->product_text.data, tag->product_text.size);
    tag->product_text.data = p;
    return 0;
}

/* The part of a sorted list that is asked for. */
static int list_fill(const struct tag_places *l, struct bytes cookie, int64_t from_ms,
                     int64_t to_ms, size_t limit, struct arena *a, struct event_list *ret_list) {
    size_t first = 0;
    while (first < l->n && l->places[first].time_ms >= to_ms)
        first++;
    size_t n = 0;
    while (n < limit && first + n < l->n && l->places[first + n].time_ms >= from_ms)
        n++;
    struct event_list list = {.n = n};
    if (n > 0 && !(list.tags = arena_calloc(a, n, sizeof *list.tags)))
        return error_origin(-ENOMEM);
    for (size_t i = 0; i < n; i++) {
        list.tags[i] = tag_at(&l->places[first + i]);
        list.tags[i].cookie = cookie;
        int r = copy_text(a, &list.tags[i]);
        if (r < 0)
            return r;
    }
    *ret_list = list;
    return 0;
}

int events_store_profile(struct events_store *s, struct bytes cookie, int64_t from_ms,
                         int64_t to_ms, size_t limit, struct event_profile *ret_profile) {
    CLEANUP(sources_deinit) struct sources x = {0};
    struct event_profile profile = {.arena = ret_profile->arena};
    if (cookie.size > EVENT_TEXT_MAX || cookie.size == 0) {
        *ret_profile = profile;
        return 0;
    }
    uint64_t hash = event_key_hash(cookie);
    take_sources(&s->lanes[work_lane_of_hash(hash, s->n_lanes)], hash, cookie, &x);
    int r = index_sources(&x, hash, cookie);
    if (r < 0)
        return error_trace(count_damage(s, r));
    tag_index_trim(&x.index);
    for (size_t i = 0; r == 0 && i < EVENT_ACTIONS; i++)
        r = list_fill(&x.index.lists[i], cookie, from_ms, to_ms, limit, profile.arena,
                      &profile.lists[i]);
    if (r == 0)
        *ret_profile = profile;
    return error_trace(r);
}

/* ---- Aggregates ---- */
/* A lane as it stood, and what of it was asked for. */
struct lane_view {
    unsigned lane;
    struct generation *hot;
    struct generation *frozen;
    struct base *base;
    struct rows_chain chains[EVENT_RANGE_MINUTES_MAX]; /* of hot */
};

static void lane_view_deinit(struct lane_view *v) {
    generation_unref(v->hot);
    generation_unref(v->frozen);
    base_unref(v->base);
}

static void lane_view_take(struct events_store *s, unsigned lane,
                           const struct event_aggregate_query *q, struct lane_view *v) {
    struct lane *l = &s->lanes[lane];
    v->lane = lane;
    mutex_lock(&l->lock);
    v->hot = generation_ref(l->hot);
    v->frozen = shown_frozen(l);
    v->base = base_ref(l->base);
    for (unsigned i = 0; i < q->minutes; i++)
        v->chains[i] = generation_rows(l->hot, q->first_minute + i, q->action);
    mutex_unlock(&l->lock);
}

static void scan_chain(struct rows_chain chain, const struct columns_filter *filter,
                       struct event_aggregate *out) {
    struct columns c;
    while (rows_next(&chain, &c))
        columns_scan(&c, filter, out);
}

static int scan_value(struct bytes value, const struct columns_filter *filter,
                      struct event_aggregate *out) {
    struct columns c;
    size_t at = 0;
    int error;
    while (columns_next(value, &at, &c, &error))
        columns_scan(&c, filter, out);
    return error < 0 ? error_origin(error) : 0;
}

/* The blocks of one minute: all keys that begin like the first. */
static int scan_minute(struct base_cursor *cursor, const struct key *first,
                       const struct columns_filter *filter, struct event_aggregate *out) {
    const size_t prefix = KEY_COLUMNS_SIZE - 8;
    struct bytes key, value;
    int error = 0, r = 0;
    for (base_cursor_seek(cursor, key_view(first));
         r == 0 && base_cursor_at(cursor, &key, &value, &error); base_cursor_advance(cursor)) {
        if (key.size < prefix || memcmp(key.data, first->bytes, prefix) != 0)
            break;
        r = scan_value(value, filter, out);
    }
    return r < 0 ? r : error;
}

static int scan_base(const struct lane_view *v, const struct event_aggregate_query *q,
                     const struct columns_filter *filter, struct event_aggregate *out) {
    struct base_cursor cursor;
    struct key key;
    int r = 0;
    base_cursor_init(&cursor, v->base, false);
    for (unsigned i = 0; r == 0 && i < q->minutes; i++) {
        key_columns(&key, v->lane, q->first_minute + i, q->action, 0);
        r = scan_minute(&cursor, &key, filter, &out[i]);
    }
    base_cursor_deinit(&cursor);
    return r;
}

static int scan_lane(struct events_store *s, unsigned lane, const struct event_aggregate_query *q,
                     const struct columns_filter *filter, struct event_aggregate *out) {
    CLEANUP(lane_view_deinit) struct lane_view v = {0};
    lane_view_take(s, lane, q, &v);
    for (unsigned i = 0; i < q->minutes; i++) {
        scan_chain(v.chains[i], filter, &out[i]);
        if (v.frozen)
            scan_chain(generation_rows(v.frozen, q->first_minute + i, q->action), filter, &out[i]);
    }
    return scan_base(&v, q, filter, out);
}

int events_store_aggregate(struct events_store *s, const struct event_aggregate_query *query,
                           struct event_aggregate *out) {
    struct columns_filter filter;
    bool filtered = false;
    memcpy(filter.id, query->ids, sizeof filter.id);
    for (size_t i = 0; i < EVENT_FILTERS; i++)
        filtered |= query->ids[i] != 0;
    struct event_aggregate sums[EVENT_RANGE_MINUTES_MAX] = {{0}};
    int r = 0;
    assert(query->minutes <= EVENT_RANGE_MINUTES_MAX);
    if (!filtered) {
        minutes_read(&s->minutes, query->first_minute, query->minutes, query->action, out);
        return 0;
    }
    for (unsigned i = 0; r == 0 && i < s->n_lanes; i++)
        r = scan_lane(s, i, query, &filter, sums);
    if (r < 0)
        return error_trace(count_damage(s, r));
    int64_t floor = minutes_floor(&s->minutes);
    for (unsigned i = 0; i < query->minutes; i++)
        out[i] = query->first_minute + i < floor ? (struct event_aggregate){0} : sums[i];
    return 0;
}
