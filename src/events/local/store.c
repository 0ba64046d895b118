/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening and closing, and what the store says of itself. Opening reads the state, the dictionary
 * and the keys; the journal's replay from the lanes' positions brings what is newer.
 */
#include "events/local/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    LANES = 4,
#ifdef MILLRACE_TINY
    HOT_BYTES_MAX = 4 << 10,
#else
    HOT_BYTES_MAX = 128 << 20,
#endif
    CACHE_BYTES = 64 << 20,
};

/* ---- Loading ---- */
/* Fills in the state of a store that is there; a new one keeps what it was given. */
static int load_state(struct base *base, struct state *state) {
    CLEANUP(pinned_deinit) rocksdb_pinnableslice_t *slice = NULL;
    struct key key;
    key_begin(&key, KEY_STATE);
    int r = base_get(base, key_view(&key), &slice);
    if (r == 0 && slice)
        r = state_decode(pinned_bytes(slice), state);
    return error_trace(r);
}

/* It is durable here, also when the journal has lost its record (and waits for that lsn again). */
static int load_element(struct events_store *s, struct bytes key, struct bytes value) {
    struct bytes collection, element;
    uint32_t id;
    lsn_t lsn;
    (void)key;
    if (!element_decode(value, &lsn, &collection, &id, &element))
        return error_origin(-EBADMSG);
    s->persisted.elements++;
    return event_dictionary_restore(s->dictionary, 0, collection, id, element);
}

static int load_once(struct events_store *s, struct bytes key, struct bytes value) {
    struct event_once_entry entry;
    if (!once_decode(key, value, &entry))
        return error_origin(-EBADMSG);
    s->persisted.once++;
    return event_once_restore(s->once, &entry);
}

static int load_each(struct events_store *s, struct base *base, enum key_kind kind,
                     int (*load)(struct events_store *s, struct bytes key, struct bytes value)) {
    struct base_cursor cursor;
    struct bytes key, value;
    struct key first;
    int r = 0, error = 0;
    key_begin(&first, kind);
    base_cursor_init(&cursor, base, true);
    for (base_cursor_seek(&cursor, key_view(&first));
         r == 0 && base_cursor_at(&cursor, &key, &value, &error) && key.data[0] == kind;
         base_cursor_advance(&cursor))
        r = load(s, key, value);
    base_cursor_deinit(&cursor);
    return error_fold(r != 0 ? r : error);
}

static int load(struct events_store *s, struct base *base) {
    struct state state = {.n_lanes = s->options.lanes, .floor = INT64_MIN};
    int r = load_state(base, &state);
    if (r < 0)
        return r;
    s->n_lanes = state.n_lanes;
    for (unsigned i = 0; i < s->n_lanes; i++)
        s->lanes[i].position = s->lanes[i].persisted = state.positions[i];
    s->persisted.number = state.number;
    s->persisted.floor = state.floor;
    s->persisted.letters = state.letters;
    atomic_store(&s->letters, state.letters);
    r = minute_totals_copy(&state.totals, &s->persisted.totals);
    if (r == 0)
        minutes_restore(&s->minutes, &state.totals, state.floor);
    state_deinit(&state);
    if (r == 0)
        r = load_each(s, base, KEY_ELEMENT, load_element);
    if (r == 0)
        r = load_each(s, base, KEY_ONCE, load_once);
    return r;
}

/* ---- Life ---- */
static void set_defaults(struct events_store_options *o) {
    o->lanes = o->lanes ? o->lanes : LANES;
    o->hot_bytes_max = o->hot_bytes_max ? o->hot_bytes_max : HOT_BYTES_MAX;
    o->cache_bytes = o->cache_bytes ? o->cache_bytes : CACHE_BYTES;
}

static int open_lanes(struct events_store *s, struct base *base) {
    for (unsigned i = 0; i < s->n_lanes; i++) {
        s->lanes[i].hot = generation_new();
        if (!s->lanes[i].hot)
            return error_origin(-ENOMEM);
        s->lanes[i].base = base_ref(base);
    }
    return 0;
}

static const char *reason_of(int r) {
    if (r == -EPROTONOSUPPORT)
        return "it was written by a newer version";
    return r == -EBADMSG ? "the state, the dictionary or the keys are damaged" : "";
}

static int open_all(struct events_store *s, const char *directory, char *why, size_t why_size) {
    struct base *base = NULL;
    int r = os_path_join(s->directory, directory, ".");
    if (r == 0)
        r = os_make_path(s->os, directory);
    if (r == 0)
        r = events_database_open(&s->database, s->os, directory, s->options.cache_bytes, false, why,
                                 why_size);
    if (r != 0)
        return error_fold(r);
    r = base_new(&s->database, &base);
    if (r < 0)
        return r;
    base_take(base);
    r = load(s, base);
    if (r == 0)
        r = open_lanes(s, base);
    else if (why_size > 0)
        snprintf(why, why_size, "%s", reason_of(r));
    base_unref(base);
    return r;
}

static void fill_report(struct events_store *s, struct events_store_report *ret_report) {
    struct event_dictionary_stats dictionary;
    event_dictionary_stats(s->dictionary, &dictionary);
    *ret_report = (struct events_store_report){
        .profiles = database_property(&s->database, "rocksdb.estimate-num-keys"),
        .minutes = minutes_number(&s->minutes),
        .elements = dictionary.elements};
}

int events_store_open(struct os *os, const char *directory, struct event_dictionary *dictionary,
                      struct event_once *once, const struct events_store_options *options,
                      struct events_store **ret_store, struct events_store_report *ret_report,
                      char *why, size_t why_size) {
    struct events_store *s = calloc(1, sizeof *s);
    if (!s)
        return error_origin(-ENOMEM);
    s->os = os;
    s->dictionary = dictionary;
    s->once = once;
    s->options = *options;
    set_defaults(&s->options);
    minutes_init(&s->minutes);
    mutex_init(&s->checkpoint, LOCK_RANK_CHECKPOINT);
    for (unsigned i = 0; i < WORK_LANES_MAX; i++)
        mutex_init(&s->lanes[i].lock, LOCK_RANK_EVENT_LANE);
    int r = open_all(s, directory, why, why_size);
    if (r != 0) {
        events_store_close(s);
        return r == -EBADMSG || r == -EPROTONOSUPPORT ? error_origin(-EPROTO) : error_fold(r);
    }
    fill_report(s, ret_report);
    *ret_store = s;
    return 0;
}

struct events_store *events_store_close(struct events_store *s) {
    if (!s)
        return NULL;
    for (unsigned i = 0; i < WORK_LANES_MAX; i++) {
        generation_unref(s->lanes[i].hot);
        generation_unref(s->lanes[i].frozen);
        base_unref(s->lanes[i].base);
        mutex_deinit(&s->lanes[i].lock);
    }
    database_close(&s->database);
    minutes_deinit(&s->minutes);
    minute_totals_deinit(&s->persisted.totals);
    buffer_deinit(&s->persisted.once_forgotten);
    mutex_deinit(&s->checkpoint);
    free(s);
    return NULL;
}

/* ---- What it says of itself ---- */
unsigned events_store_lanes(const struct events_store *s) {
    return s->n_lanes;
}

void events_store_positions(const struct events_store *s, lsn_t *ret_positions) {
    for (unsigned i = 0; i < s->n_lanes; i++) {
        struct lane *l = (struct lane *)&s->lanes[i]; /* the lock is not part of what is const */
        mutex_lock(&l->lock);
        ret_positions[i] = l->persisted;
        mutex_unlock(&l->lock);
    }
}

uint64_t events_store_dirty_bytes(const struct events_store *s) {
    return atomic_load_explicit(&s->hot_bytes, memory_order_relaxed);
}

bool events_store_is_late(const struct events_store *s, int64_t time_ms) {
    return event_minute_of(time_ms) < atomic_load_explicit(&s->minutes.reach, memory_order_relaxed);
}

void events_store_stats(struct events_store *s, struct events_store_stats *ret_stats) {
    int64_t watermark = atomic_load_explicit(&s->minutes.watermark, memory_order_relaxed);
    *ret_stats = (struct events_store_stats){
        .tags_applied = atomic_load_explicit(&s->tags_applied, memory_order_relaxed),
        .tags_late = atomic_load_explicit(&s->tags_late, memory_order_relaxed),
        .profiles = database_property(&s->database, "rocksdb.estimate-num-keys"),
        .minutes = minutes_number(&s->minutes),
        .watermark_ms = watermark == INT64_MIN ? 0 : watermark * EVENT_MINUTE_MS,
        .disk_bytes = database_property(&s->database, "rocksdb.total-sst-files-size"),
        .memory_bytes = atomic_load_explicit(&s->hot_bytes, memory_order_relaxed) +
                        atomic_load_explicit(&s->frozen_bytes, memory_order_relaxed) +
                        database_memory(&s->database),
        .dead_letters = atomic_load_explicit(&s->letters, memory_order_relaxed)};
}
