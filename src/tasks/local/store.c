/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening and closing, and what the store says of itself. Opening reads the state and the index of
 * the tasks that are queued or running; the journal's replay from the position brings what is
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
    const struct database_options options = {.cache_bytes = cache_bytes, .read_only = read_only};
    return database_open(d, os, directory, &options, why, why_size);
}

/* ---- Loading ---- */
/* Fills in the state of a store that is there; a new one keeps what it was given. */
static int load_state(struct base *base, struct state *state) {
    CLEANUP(pinned_deinit) rocksdb_pinnableslice_t *slice = NULL;
    struct key key;
    key_begin(&key, KEY_STATE);
    int r = base_get(base, key_view(&key), &slice);
    if (r == 0 && slice)
        r = tasks_state_decode(pinned_bytes(slice), state);
    return error_trace(r);
}

static void damaged(struct tasks_store *s) {
    atomic_fetch_add_explicit(&s->damages, 1, memory_order_relaxed);
}

static int load_queued(struct tasks_store *s, uint64_t key, uint64_t due_us, unsigned priority,
                       uint64_t now_us) {
    if (!queue_reserve(&s->queue))
        return error_origin(-ENOMEM);
    queue_push(&s->queue, key, due_us, priority, now_us);
    return 0;
}

/* One of the index: queued, or running, which is only counted. */
static int load_indexed(struct tasks_store *s, struct bytes key, struct bytes value,
                        uint64_t now_us) {
    uint64_t due_us;
    uint8_t priority;
    enum task_status status = key.data[1];
    if (key.size != KEY_INDEX_SIZE || key.data[2] >= s->types.n ||
        (status == TASK_QUEUED && !index_decode(value, &due_us, &priority))) {
        damaged(s);
        return 0;
    }
    s->counts[status]++;
    return status == TASK_QUEUED ? load_queued(s, key_task_of(key), due_us, priority, now_us) : 0;
}

static int load_index(struct tasks_store *s, struct base *base, uint64_t now_us) {
    struct base_cursor cursor;
    struct bytes key, value;
    struct key first;
    int r = 0, error = 0;
    key_begin(&first, KEY_INDEX);
    base_cursor_init(&cursor, base, true);
    for (base_cursor_seek(&cursor, key_view(&first));
         r == 0 && base_cursor_at(&cursor, &key, &value, &error) && key.data[0] == KEY_INDEX &&
         key.size > 1 && key.data[1] <= TASK_RUNNING;
         base_cursor_advance(&cursor))
        r = load_indexed(s, key, value, now_us);
    base_cursor_deinit(&cursor);
    return r != 0 ? r : error;
}

/* The same from the states, where the index is damaged: slower, and all there is. */
static int load_states(struct tasks_store *s, struct base *base, uint64_t now_us) {
    struct base_cursor cursor;
    struct bytes key, value;
    struct key first;
    struct task t;
    bool has_args;
    int r = 0, error = 0;
    s->counts[TASK_QUEUED] = s->counts[TASK_RUNNING] = 0;
    queue_deinit(&s->queue);
    key_begin(&first, KEY_TASK);
    base_cursor_init(&cursor, base, true);
    for (base_cursor_seek(&cursor, key_view(&first));
         r == 0 && base_cursor_at(&cursor, &key, &value, &error) && key.data[0] == KEY_TASK;
         base_cursor_advance(&cursor)) {
        if (key.size != KEY_TASK_SIZE ||
            !task_state_decode(key_task_of(key), value, &t, &has_args)) {
            damaged(s);
            continue;
        }
        s->counts[t.status] += !task_status_is_end(t.status);
        if (t.status == TASK_QUEUED)
            r = load_queued(s, t.id.key, t.due_us, t.request.priority, now_us);
    }
    base_cursor_deinit(&cursor);
    if (error == -EBADMSG)
        damaged(s);
    return r != 0 ? r : error == -EBADMSG ? 0 : error;
}

/* ---- Ids ---- */
/* The number that makes a key: a UUID of version 7 has 48 bits of ms, 4 of the version, 12 of ours,
 * which go on counting. */
enum { ID_VERSION = 7, ID_LOW_BITS = 12 };
static const uint64_t ID_LOW = (1 << ID_LOW_BITS) - 1;

static uint64_t id_number_of(uint64_t key) {
    return key >> 16 << ID_LOW_BITS | (key & ID_LOW);
}

static uint64_t id_key_of(uint64_t number) {
    return number >> ID_LOW_BITS << 16 | (uint64_t)ID_VERSION << ID_LOW_BITS | (number & ID_LOW);
}

struct task_id tasks_store_new_id(struct tasks_store *s, uint64_t wall_us) {
    uint64_t number = (wall_us / 1000) << ID_LOW_BITS | (wall_us % 1000) * (ID_LOW + 1) / 1000;
    uint64_t last = atomic_load_explicit(&s->last_id, memory_order_relaxed), next;
    do
        next = number > last ? number : last + 1;
    while (!atomic_compare_exchange_weak_explicit(&s->last_id, &last, next, memory_order_relaxed,
                                                  memory_order_relaxed));
    uint64_t random = hash64_u64(s->id_seed ^ hash64_u64(next));
    return (struct task_id){.key = id_key_of(next), .low = random >> 2 | UINT64_C(1) << 63};
}

void id_seen(struct tasks_store *s, uint64_t key) {
    uint64_t number = id_number_of(key);
    uint64_t last = atomic_load_explicit(&s->last_id, memory_order_relaxed);
    while (number > last &&
           !atomic_compare_exchange_weak_explicit(&s->last_id, &last, number, memory_order_relaxed,
                                                  memory_order_relaxed))
        ;
}

/* ---- Life ---- */
static void set_defaults(struct tasks_store_options *o) {
    o->hot_bytes_max = o->hot_bytes_max ? o->hot_bytes_max : HOT_BYTES_MAX;
    o->cache_bytes = o->cache_bytes ? o->cache_bytes : CACHE_BYTES;
    o->queued_max = o->queued_max ? o->queued_max : QUEUED_MAX;
    o->keep_ms = o->keep_ms ? o->keep_ms : (uint64_t)KEEP_DAYS * DAY_MS;
}

/* Those that cannot be read are left out. */
static int load_letters(struct tasks_store *s) {
    int r = letters_load(s->base, &s->letters);
    if (r != -EBADMSG)
        return error_trace(r);
    damaged(s);
    return 0;
}

static int load(struct tasks_store *s) {
    struct state state = {0};
    uint64_t now_us = os_wall_us(s->os);
    int r = load_state(s->base, &state);
    if (r < 0)
        return r;
    s->position = s->last_persisted = state.position;
    s->newest = state.newest;
    s->types = state.types;
    s->persisted = (struct persisted){.number = state.number, .letters = state.letters};
    memcpy(s->counts, state.counts, sizeof s->counts);
    s->counts[TASK_QUEUED] = s->counts[TASK_RUNNING] = 0; /* counted anew */
    id_seen(s, state.newest);
    r = load_index(s, s->base, now_us);
    if (r == -EBADMSG) {
        damaged(s);
        r = load_states(s, s->base, now_us);
    }
    atomic_store(&s->queued, s->counts[TASK_QUEUED]);
    return r < 0 ? r : load_letters(s);
}

static const char *reason_of(int r) {
    if (r == -EPROTONOSUPPORT)
        return "it was written by a newer version";
    return r == -EBADMSG ? "the state is damaged" : "";
}

static int open_all(struct tasks_store *s, const char *directory, char *why, size_t why_size) {
    int r = os_path_join(s->directory, directory, ".");
    if (r == 0)
        r = os_random(s->os, &s->id_seed, sizeof s->id_seed);
    if (r == 0)
        r = os_make_path(s->os, directory);
    if (r == 0)
        r = tasks_database_open(&s->database, s->os, directory, s->options.cache_bytes, false, why,
                                why_size);
    if (r != 0)
        return error_fold(r);
    s->hot = tasks_generation_new(1);
    if (!s->hot)
        return error_origin(-ENOMEM);
    r = base_new(&s->database, &s->base);
    if (r < 0)
        return r;
    base_take(s->base);
    r = load(s);
    if (r != 0 && why_size > 0)
        snprintf(why, why_size, "%s", reason_of(r));
    return r;
}

static void fill_report(struct tasks_store *s, struct tasks_store_report *ret_report) {
    struct tasks_store_report report = {.queued = s->counts[TASK_QUEUED],
                                        .running = s->counts[TASK_RUNNING],
                                        .damages = atomic_load(&s->damages)};
    for (unsigned i = 0; i < TASK_STATUSES; i++)
        report.tasks += s->counts[i];
    *ret_report = report;
}

int tasks_store_open(struct os *os, const char *directory,
                     const struct tasks_store_options *options, struct tasks_store **ret_store,
                     struct tasks_store_report *ret_report, char *why, size_t why_size) {
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
    int r = open_all(s, directory, why, why_size);
    if (r != 0) {
        tasks_store_close(s);
        return r == -EBADMSG || r == -EPROTONOSUPPORT ? error_origin(-EPROTO) : error_fold(r);
    }
    fill_report(s, ret_report);
    *ret_store = s;
    return 0;
}

struct tasks_store *tasks_store_close(struct tasks_store *s) {
    if (!s)
        return NULL;
    tasks_generation_unref(s->hot);
    tasks_generation_unref(s->frozen);
    base_unref(s->base);
    database_close(&s->database);
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
