/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store as a whole: opening, closing, what workers call, counters.
 */
#include "points/local/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#ifdef MILLRACE_TINY
enum { SEGMENT_ROWS_MAX = 16 };
#else
enum { SEGMENT_ROWS_MAX = LOCATOR_ROWS_MAX };
#endif
enum { LANES = 4, SEGMENT_BYTES_MAX = 64 << 20, UNSEALED_BYTES_MAX = 256 << 20 };

static void default_u64(uint64_t *option, uint64_t value) {
    if (*option == 0)
        *option = value;
}

static struct points_store_options complete(const struct points_store_options *given) {
    struct points_store_options o = given ? *given : (struct points_store_options){0};
    o.lanes = o.lanes ? o.lanes : LANES;
    default_u64(&o.segment_rows_max, SEGMENT_ROWS_MAX);
    default_u64(&o.segment_bytes_max, SEGMENT_BYTES_MAX);
    default_u64(&o.unsealed_bytes_max, UNSEALED_BYTES_MAX);
    default_u64(&o.segments_max, LOCATOR_SEGMENTS_MAX);
    if (o.segment_rows_max > LOCATOR_ROWS_MAX)
        o.segment_rows_max = LOCATOR_ROWS_MAX;
    if (o.segments_max > LOCATOR_SEGMENTS_MAX)
        o.segments_max = LOCATOR_SEGMENTS_MAX;
    assert(o.lanes <= WORK_LANES_MAX);
    return o;
}

/* ---- Opening ---- */

struct points_store *points_store_close(struct points_store *s) {
    if (!s)
        return NULL;
    builder_deinit(&s->builder, s);
    for (unsigned i = 0; i < s->n_lanes; i++)
        lane_deinit(&s->lanes[i]);
    free(s->lanes);
    budget_give(s->options.budget, BUDGET_POINTS, s->dead_charged);
    dead_file_deinit(&s->dead);
    work_letters_deinit(&s->letters);
    mutex_deinit(&s->checkpoint);
    free(s->directory);
    free(s);
    return NULL;
}

static int store_new(struct os *os, const char *directory, const struct manifest *m,
                     const struct points_store_options *options, struct points_store **ret_store) {
    struct points_store *s = calloc(1, sizeof *s);
    if (!s)
        return error_origin(-ENOMEM);
    mutex_init(&s->checkpoint, LOCK_RANK_CHECKPOINT);
    builder_init(&s->builder);
    dead_file_init(&s->dead);
    work_letters_init(&s->letters);
    s->os = os;
    s->options = *options;
    s->directory = strdup(directory);
    s->lanes = calloc(m->lanes, sizeof *s->lanes);
    if (!s->directory || !s->lanes) {
        points_store_close(s);
        return error_origin(-ENOMEM);
    }
    for (s->n_lanes = 0; s->n_lanes < m->lanes; s->n_lanes++) {
        struct lane *lane = &s->lanes[s->n_lanes];
        lane_init(lane, s, s->n_lanes);
        lane->position = m->positions[s->n_lanes];
        atomic_init(&lane->persisted, lane->position);
    }
    s->sequence = m->sequence;
    s->dead.generation = m->dead_generation;
    s->dead.synced = m->dead_bytes;
    *ret_store = s;
    return 0;
}

static void note_data_file(void *context, const char *name) {
    bool *found = context;
    uint32_t generation;
    *found |= dead_file_name(name, &generation) || segment_file_name(name);
}

/* Names the store before it holds anything, so that data without a manifest is known for damage. */
static int create(struct os *os, const char *directory, unsigned lanes,
                  struct manifest *ret_manifest) {
    bool data = false;
    int r = os_list(os, directory, note_data_file, &data);
    if (r)
        return error_trace(r);
    if (data)
        return error_origin(-EPROTO);
    struct manifest m = {.sequence = 1, .lanes = lanes};
    r = manifest_save(os, directory, &m);
    if (!r)
        *ret_manifest = m;
    return error_trace(r);
}

/* The manifest to begin from; ret_even: both copies of it are on the disk. */
static int load_or_create(struct os *os, const char *directory, unsigned lanes,
                          struct manifest *ret_manifest, bool *ret_even,
                          struct points_store_report *report) {
    struct manifest_condition condition = {0};
    int r = os_make_path(os, directory);
    if (!r)
        r = manifest_load(os, directory, ret_manifest, &condition);
    if (r == MANIFEST_E_NONE)
        r = create(os, directory, lanes, ret_manifest);
    if (r)
        return error_trace(r);
    report->damaged_manifests = condition.damaged;
    *ret_even = true;
    if (condition.uneven) { /* a full disk must not keep a store from opening */
        r = manifest_save(os, directory, ret_manifest);
        *ret_even = r == 0;
    }
    return r < 0 ? error_trace(r) : 0;
}

static int fill(struct points_store *s, const struct manifest *m,
                struct points_store_report *report) {
    int r = 0;
    if (m->catalog.size)
        r = points_catalog_decode(s->catalog, m->catalog);
    if (!r && m->tasks.size)
        r = bulk_tasks_decode(s->tasks, m->tasks);
    if (!r)
        r = store_recover(s, m, report);
    if (!r)
        r = dead_file_open(&s->dead, s->os, s->directory, &s->letters);
    if (r)
        return error_trace(r);
    s->catalog_lsn = points_catalog_lsn(s->catalog);
    return 0;
}

static int open_store(struct os *os, const char *directory, struct points_catalog *catalog,
                      struct bulk_tasks *tasks, const struct points_store_options *options,
                      struct points_store **ret_store, struct points_store_report *report) {
    CLEANUP(manifest_deinit) struct manifest m = {0};
    struct points_store *s = NULL;
    bool even = false;
    int r = load_or_create(os, directory, options->lanes, &m, &even, report);
    if (!r)
        r = store_new(os, directory, &m, options, &s);
    if (r)
        return error_trace(r);
    s->catalog = catalog;
    s->tasks = tasks;
    s->garbage = !even;
    r = fill(s, &m, report);
    if (!r && even)
        r = files_collect(s, &m);
    if (r) {
        points_store_close(s);
        return error_trace(r);
    }
    *ret_store = s;
    return 0;
}

int points_store_open(struct os *os, const char *directory, struct points_catalog *catalog,
                      struct bulk_tasks *tasks, const struct points_store_options *options,
                      struct points_store **ret_store, struct points_store_report *ret_report) {
    struct points_store_options o = complete(options);
    struct points_store_report report = {0};
    int r = open_store(os, directory, catalog, tasks, &o, ret_store, &report);
    if (r == OS_E_FULL)
        return error_origin(-ENOSPC);
    if (r)
        return r > 0 ? error_fold(r) : error_trace(r);
    if (ret_report)
        *ret_report = report;
    return 0;
}

int points_store_start_builder(struct points_store *s) {
    return error_trace(builder_start(&s->builder, s));
}

bool points_store_build(struct points_store *s) {
    return builder_run_one(&s->builder, s);
}

/* ---- What workers call ---- */

static int apply(void *store, unsigned lane, const struct journal_record *const *records, size_t n,
                 struct work_verdict *ret_verdict) {
    struct points_store *s = store;
    assert(lane < s->n_lanes);
    return s->options.sink ? lane_forward(&s->lanes[lane], records, n, ret_verdict)
                           : lane_apply(&s->lanes[lane], records, n, ret_verdict);
}

static int control(void *store, const struct journal_record *record) {
    struct points_store *s = store;
    struct point_record decoded;
    int r = 0;
    if (!point_record_decode(record->payload, &decoded))
        return error_origin(-EPROTO);
    switch (decoded.op) {
    case POINT_CREATE:
        return error_trace(points_catalog_replay(s->catalog, record->lsn, &decoded));
    case POINT_DROP:
        r = points_catalog_replay(s->catalog, record->lsn, &decoded);
        bulk_tasks_dropped(s->tasks, &decoded);
        for (unsigned i = 0; i < s->n_lanes; i++)
            lane_forget_dropped(&s->lanes[i]);
        return error_trace(r);
    case POINT_BULK:
        return error_trace(bulk_tasks_replay(s->tasks, record->lsn, &decoded));
    default:
        return error_origin(-EPROTO);
    }
}

static int reject(void *store, unsigned lane, const struct journal_record *record,
                  const char *reason) {
    struct points_store *s = store;
    assert(lane < s->n_lanes);
    return error_trace(lane_reject(&s->lanes[lane], record, reason));
}

static void passed(void *store, unsigned lane, lsn_t lsn) {
    struct points_store *s = store;
    assert(lane < s->n_lanes);
    lane_pass(&s->lanes[lane], lsn);
}

/* ---- Dead letters ---- */

static struct work_letters *letters(void *store) {
    return &((struct points_store *)store)->letters;
}

struct reading {
    struct work_letters *letters;
    void (*each)(void *context, const struct work_letter *letter);
    void *context;
};

static void read_one(void *context, const struct work_letter *letter) {
    const struct reading *reading = context;
    struct work_letter l = *letter;
    if (work_letters_find(reading->letters, l.record.lsn, l.record.key_hash, &l.changed))
        reading->each(reading->context, &l);
}

/* The lanes come first: what a checkpoint takes from them meanwhile is then in the file. */
static int read_letters(void *store, const lsn_t *lsns, size_t n,
                        void (*each)(void *context, const struct work_letter *letter),
                        void *context) {
    CLEANUP(buffer_deinit) struct buffer frames = BUFFER_INIT;
    struct points_store *s = store;
    struct reading reading = {&s->letters, each, context};
    for (unsigned i = 0; i < s->n_lanes; i++) {
        mutex_lock(&s->lanes[i].lock);
        buffer_append_bytes(&frames, buffer_bytes(&s->lanes[i].dead.frames));
        mutex_unlock(&s->lanes[i].lock);
    }
    int r = buffer_check(&frames);
    if (!r)
        r = dead_file_read(&s->dead, s->os, s->directory, buffer_bytes(&frames), lsns, n, read_one,
                           &reading);
    return error_trace(r);
}

const struct work_store_ops points_store_work_ops = {
    .name = "points",
    .kind = JOURNAL_KIND_POINTS,
    .apply = apply,
    .control = control,
    .reject = reject,
    .passed = passed,
    .letters = letters,
    .read_letters = read_letters,
};

/* ---- Counters ---- */

bool points_store_letters_full(const struct points_store *s) {
    return work_letters_n(&s->letters) >= DEAD_LETTERS_MAX;
}

unsigned points_store_lanes(const struct points_store *s) {
    return s->n_lanes;
}

void points_store_positions(const struct points_store *s, lsn_t *ret_positions) {
    for (unsigned i = 0; i < s->n_lanes; i++)
        ret_positions[i] = atomic_load(&s->lanes[i].persisted);
}

uint64_t points_store_dirty_bytes(const struct points_store *s) {
    return atomic_load(&s->dirty_bytes);
}

bool points_store_pressed(const struct points_store *s) {
    return budget_pressed(s->options.budget, BUDGET_POINTS);
}

bool points_store_wants_checkpoint(const struct points_store *s) {
    return atomic_load(&s->wants_checkpoint);
}

void store_want_checkpoint(struct points_store *s) {
    atomic_store(&s->wants_checkpoint, true);
}

int store_number(struct points_store *s, uint32_t *ret_number) {
    uint64_t number = atomic_fetch_add(&s->next_number, 1);
    if (number > UINT32_MAX)
        return error_origin(-EOVERFLOW);
    *ret_number = (uint32_t)number;
    return 0;
}

static void add_shard(const struct shard *shard, struct points_store_stats *stats) {
    stats->points += atomic_load(&shard->live);
    stats->segments += shard->n_segments;
    stats->memory_bytes += shard->map.size * sizeof *shard->map.slots;
    for (size_t i = 0; i < shard->n_slots; i++) {
        const struct segment *segment = shard->segments[i];
        if (!segment)
            continue;
        stats->memory_bytes += atomic_load(&segment->storage->memory_bytes) +
                               segment_words(segment->rows_max) * sizeof(uint64_t);
        if (segment->order)
            stats->memory_bytes += segment->order->n * sizeof(uint32_t);
    }
}

void points_store_stats(struct points_store *s, struct points_store_stats *ret_stats) {
    struct points_store_stats stats = {
        .disk_bytes = atomic_load(&s->disk_bytes),
        .orphaned_records = atomic_load(&s->orphaned_records),
        .damaged_rows = atomic_load(&s->damaged_rows),
        .dead_letters = work_letters_n(&s->letters),
        .merges = atomic_load(&s->merges),
        .merges_given_up = atomic_load(&s->builds_given_up),
        .merged_bytes = atomic_load(&s->merged_bytes),
        .reclaimed_bytes = atomic_load(&s->reclaimed_bytes),
    };
    for (unsigned i = 0; i < s->n_lanes; i++) {
        struct lane *lane = &s->lanes[i];
        mutex_lock(&lane->lock);
        for (size_t k = 0; k < lane->n_shards; k++)
            add_shard(lane->shards[k], &stats);
        stats.memory_bytes += lane->dead.frames.capacity;
        mutex_unlock(&lane->lock);
    }
    *ret_stats = stats;
}
