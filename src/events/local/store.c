/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening and closing, and what the store says of itself. Opening mends what the copies can mend
 * and reads the state, the dictionary and the keys (load.c); the journal's replay from the lanes'
 * positions brings what is newer.
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

/* What the copies say of files that RocksDB cannot do without. */
struct opening {
    struct events_store *s;
    struct events_store_report *report;
};

static void count_mended(void *context, const char *sentence) {
    struct opening *o = context;
    (void)sentence;
    o->report->damages++;
    o->report->mended++;
}

/* A database that a checkpoint was begun for is there, or lost: it is not created anew. */
static int open_database(struct events_store *s, const char *directory,
                         struct events_store_report *report, char *why, size_t why_size) {
    struct opening o = {s, report};
    const struct copies_report mended = {count_mended, &o};
    int r = copies_mend_manifest(s->os, directory, &mended);
    if (r == 0)
        r = events_database_open(&s->database, s->os, directory, s->options.cache_bytes,
                                 copies_exist(s->os, directory) ? EVENTS_DATABASE_WRITE
                                                                : EVENTS_DATABASE_CREATE,
                                 why, why_size);
    if (r == 0)
        r = elements_open(&s->element_copies, s->os, s->directory);
    if (r != 0)
        return error_fold(r);
    copies_init(&s->copies, s->os, s->directory);
    copies_follow_manifest(&s->copies);
    return 0;
}

static int open_all(struct events_store *s, const char *directory,
                    struct events_store_report *report, char *why, size_t why_size) {
    struct base *base = NULL;
    const char *reason = "";
    int size = snprintf(s->directory, sizeof s->directory, "%s", directory);
    if (size >= (int)sizeof s->directory)
        return error_origin(-ENAMETOOLONG);
    int r = os_make_path(s->os, directory);
    if (r == 0)
        r = open_database(s, directory, report, why, why_size);
    if (r == 0)
        r = base_new(&s->database, &base);
    if (r != 0)
        return error_fold(r);
    base_take(base);
    r = load_store(s, base, report, &reason);
    if (r == 0)
        r = open_lanes(s, base);
    else if (why_size > 0)
        snprintf(why, why_size, "%s", reason);
    base_unref(base);
    return error_trace(r);
}

static void fill_report(struct events_store *s, struct events_store_report *report) {
    struct event_dictionary_stats dictionary;
    event_dictionary_stats(s->dictionary, &dictionary);
    report->profiles = database_property(&s->database, "rocksdb.estimate-num-keys");
    report->minutes = minutes_number(&s->minutes);
    report->elements = dictionary.elements;
    atomic_store(&s->damages, report->damages);
}

int events_store_open(struct os *os, const char *directory, struct event_dictionary *dictionary,
                      struct event_once *once, const struct events_store_options *options,
                      struct events_store **ret_store, struct events_store_report *ret_report,
                      char *why, size_t why_size) {
    struct events_store_report report = {0};
    struct events_store *s = calloc(1, sizeof *s);
    if (!s)
        return error_origin(-ENOMEM);
    s->os = os;
    s->dictionary = dictionary;
    s->once = once;
    s->options = *options;
    set_defaults(&s->options);
    minutes_init(&s->minutes);
    work_letters_init(&s->letters);
    mutex_init(&s->checkpoint, LOCK_RANK_CHECKPOINT);
    for (unsigned i = 0; i < WORK_LANES_MAX; i++)
        mutex_init(&s->lanes[i].lock, LOCK_RANK_EVENT_LANE);
    int r = open_all(s, directory, &report, why, why_size);
    if (r != 0) {
        events_store_close(s);
        return r == -EBADMSG || r == -EPROTONOSUPPORT ? error_origin(-EPROTO) : error_fold(r);
    }
    fill_report(s, &report);
    *ret_report = report;
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
    if (s->copies.os && !database_is_stuck(&s->database))
        copies_follow_manifest(&s->copies);
    copies_deinit(&s->copies);
    elements_close(&s->element_copies);
    database_close(&s->database);
    minutes_deinit(&s->minutes);
    work_letters_deinit(&s->letters);
    minute_totals_deinit(&s->persisted.totals);
    buffer_deinit(&s->persisted.once_forgotten);
    buffer_deinit(&s->persisted.state);
    outcome_deinit(&s->unsure);
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

bool events_store_is_behind(struct events_store *s) {
    return database_is_behind(&s->database);
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
        .dead_letters = work_letters_n(&s->letters),
        .damages = atomic_load_explicit(&s->damages, memory_order_relaxed),
        .compactions_failed = database_failures(&s->database)};
}
