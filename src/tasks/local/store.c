/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening and closing, ids, and what the store says of itself. Opening mends what the copies can
 * mend and reads what is there (load.c); the journal's replay from the position brings what is
 * newer.
 */
#include "tasks/local/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
#ifdef MILLRACE_TINY
    HOT_BYTES_MAX = 16 << 10,
#else
    HOT_BYTES_MAX = 64 << 20,
#endif
    CACHE_BYTES = 32 << 20,
    QUEUED_MAX = 10000000,
    DAY_MS = 24 * 60 * 60 * 1000,
    KEEP_DAYS = 7,
};

int tasks_database_open(struct database *d, struct os *os, const char *directory,
                        uint64_t cache_bytes, bool read_only, char *why, size_t why_size) {
    const struct database_options options = {.cache_bytes = cache_bytes,
                                             .read_only = read_only,
                                             .must_exist = copies_exist(os, directory)};
    return database_open(d, os, directory, &options, why, why_size);
}

struct task_id tasks_store_new_id(struct tasks_store *s, uint64_t wall_us) {
    return task_ids_new(&s->ids, wall_us);
}

/* ---- Life ---- */
static void set_defaults(struct tasks_store_options *o) {
    o->hot_bytes_max = o->hot_bytes_max ? o->hot_bytes_max : HOT_BYTES_MAX;
    o->cache_bytes = o->cache_bytes ? o->cache_bytes : CACHE_BYTES;
    o->queued_max = o->queued_max ? o->queued_max : QUEUED_MAX;
    o->keep_ms = o->keep_ms ? o->keep_ms : (uint64_t)KEEP_DAYS * DAY_MS;
}

static void count_mended(void *context, const char *sentence UNUSED) {
    struct tasks_store_report *report = context;
    report->mended++;
}

/* A database that a checkpoint was begun for is there, or lost: it is not created anew. */
static int open_database(struct tasks_store *s, struct tasks_store_report *report, char *why,
                         size_t why_size) {
    const struct copies_report mended = {count_mended, report};
    int r = copies_mend_manifest(s->os, s->directory, &mended);
    if (r == 0)
        r = tasks_database_open(&s->database, s->os, s->directory, s->options.cache_bytes, false,
                                why, why_size);
    if (r != 0)
        return error_fold(r);
    copies_init(&s->copies, s->os, s->directory);
    copies_follow_manifest(&s->copies);
    return 0;
}

static int open_all(struct tasks_store *s, const char *directory, struct tasks_store_report *report,
                    char *why, size_t why_size) {
    const char *reason = "";
    uint64_t number = 0;
    int r = os_path_join(s->directory, directory, ".");
    if (r == 0)
        r = task_ids_init(&s->ids, s->os);
    if (r == 0)
        r = os_make_path(s->os, directory);
    if (r == 0)
        r = tasks_remote_own(s, &number, why, why_size);
    if (r != 0)
        return r == TASKS_E_UNAVAILABLE || r == TASKS_E_REFUSED ? r : error_fold(r);
    r = open_database(s, report, why, why_size);
    if (r == 0)
        r = tasks_remote_fill(s, number, why, why_size);
    if (r != 0)
        return r == TASKS_E_UNAVAILABLE || r == TASKS_E_REFUSED ? r : error_fold(r);
    s->hot = tasks_generation_new(1);
    if (!s->hot)
        return error_origin(-ENOMEM);
    r = base_new(&s->database, &s->base);
    if (r < 0)
        return r;
    base_take(s->base);
    r = tasks_load(s, report, &reason);
    if (r == 0 && s->options.remote && s->persisted.number != number) {
        reason = "it does not have the state of its own last checkpoint";
        r = error_origin(-EBADMSG);
    }
    if (r == 0 && number > 0)
        r = tasks_remote_remember(s);
    note_oldest_end(s);
    if (r != 0 && why_size > 0)
        snprintf(why, why_size, "%s", reason);
    return r;
}

static void fill_report(struct tasks_store *s, struct tasks_store_report *report) {
    report->queued = s->counts[TASK_QUEUED];
    report->running = s->counts[TASK_RUNNING];
    for (unsigned i = 0; i < TASK_STATUSES; i++)
        report->tasks += s->counts[i];
    atomic_fetch_add(&s->damages, report->mended);
    report->damages = atomic_load(&s->damages);
}

int tasks_store_open(struct os *os, const char *directory,
                     const struct tasks_store_options *options, struct tasks_store **ret_store,
                     struct tasks_store_report *ret_report, char *why, size_t why_size) {
    struct tasks_store_report report = {0};
    struct tasks_store *s = calloc(1, sizeof *s);
    if (!s)
        return error_origin(-ENOMEM);
    s->os = os;
    s->options = *options;
    set_defaults(&s->options);
    mutex_init(&s->checkpoint, LOCK_RANK_CHECKPOINT);
    mutex_init(&s->once_lock, LOCK_RANK_TASK_ONCE);
    mutex_init(&s->lock, LOCK_RANK_TASK_STORE);
    work_letters_init(&s->letters);
    int r = open_all(s, directory, &report, why, why_size);
    if (r != 0) {
        tasks_store_close(s);
        return r == -EBADMSG || r == -EPROTONOSUPPORT ? error_origin(-EPROTO) : error_trace(r);
    }
    fill_report(s, &report);
    *ret_report = report;
    *ret_store = s;
    return 0;
}

struct tasks_store *tasks_store_close(struct tasks_store *s) {
    if (!s)
        return NULL;
    tasks_generation_unref(s->hot);
    tasks_generation_unref(s->frozen);
    base_unref(s->base);
    if (s->copies.os && !database_is_stuck(&s->database))
        copies_follow_manifest(&s->copies);
    copies_deinit(&s->copies);
    database_close(&s->database);
    buffer_deinit(&s->persisted.state);
    buffer_deinit(&s->persisted.next);
    queue_deinit(&s->queue);
    once_deinit(&s->once);
    buffer_deinit(&s->scratch);
    work_letters_deinit(&s->letters);
    mutex_deinit(&s->lock);
    mutex_deinit(&s->once_lock);
    mutex_deinit(&s->checkpoint);
    free(s);
    return NULL;
}

/* ---- What it says of itself ---- */
/* The lock is not part of what is const. */
static struct tasks_store *lock(const struct tasks_store *s) {
    struct tasks_store *mine = (struct tasks_store *)s;
    mutex_lock(&mine->lock);
    return mine;
}

lsn_t tasks_store_position(const struct tasks_store *s) {
    struct tasks_store *mine = lock(s);
    lsn_t position = mine->last_persisted;
    mutex_unlock(&mine->lock);
    return position;
}

bool tasks_store_is_behind(struct tasks_store *s) {
    return database_is_behind(&s->database);
}

uint64_t tasks_store_dirty_bytes(const struct tasks_store *s) {
    return atomic_load_explicit(&s->hot_bytes, memory_order_relaxed);
}

int tasks_store_admit(const struct tasks_store *s, uint64_t n) {
    uint64_t queued = atomic_load_explicit(&s->queued, memory_order_relaxed);
    return n > s->options.queued_max || queued > s->options.queued_max - n ? TASKS_E_FULL : 0;
}

void tasks_store_listen(struct tasks_store *s, struct tasks_listener *listener) {
    s->listener = listener;
}

void tasks_store_stats(struct tasks_store *s, struct tasks_store_stats *ret_stats) {
    struct tasks_store_stats stats = {
        .damages = atomic_load_explicit(&s->damages, memory_order_relaxed),
        .compactions_failed = database_failures(&s->database),
        .disk_bytes = database_property(&s->database, "rocksdb.total-sst-files-size"),
        .memory_bytes = atomic_load_explicit(&s->hot_bytes, memory_order_relaxed) +
                        atomic_load_explicit(&s->frozen_bytes, memory_order_relaxed) +
                        database_memory(&s->database)};
    mutex_lock(&s->lock);
    memcpy(stats.by_status, s->counts, sizeof stats.by_status);
    memcpy(stats.ended, s->ended, sizeof stats.ended);
    stats.deaths = s->deaths;
    stats.dead_letters = work_letters_n(&s->letters);
    stats.oldest_due_us = queue_oldest_due_us(&s->queue);
    stats.memory_bytes += queue_bytes(&s->queue);
    mutex_unlock(&s->lock);
    *ret_stats = stats;
}
