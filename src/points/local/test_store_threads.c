/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Readers, writers, checkpoints and merges at once, on the real system; to be run under tsan as
 * well. Every id is there before the readers begin and is then replaced all the time: each get,
 * scroll and search must find every one of them, exactly once, whole.
 */
#include "points/local/test_fixture.h"

#include "os/file.h"
#include "os/test_wait.h"

#include <unistd.h>

enum { POINTS = 200, DIMENSION = 4, LANES = 2, READERS = 3, HOT = 8, RUN_MS = 1500 };

struct shared {
    struct os *os;
    struct points_store *store;
    struct points_collection *collection;
    uint64_t pause_ns; /* after every few writes: checkpoints of growing segments take their time */
    _Atomic lsn_t lsn;
    _Atomic bool stop;
    _Atomic uint64_t writes;
    _Atomic uint64_t reads;
    _Atomic uint64_t faults;
};

struct writer {
    struct shared *shared;
    unsigned lane;
};

/* All floats of a point are its version, the payload says it too: a torn row would show. */
static void write_point(struct shared *s, unsigned i, uint64_t version) {
    struct buffer b = BUFFER_INIT;
    struct buffer payload = BUFFER_INIT;
    struct point_id id = {.low = i};
    float floats[DIMENSION];
    for (unsigned d = 0; d < DIMENSION; d++)
        floats[d] = (float)(version % 1000);
    buffer_append_format(&payload, "{\"v\":%u}", (unsigned)(version % 1000));
    point_record_encode_upsert(&b, s->collection->incarnation, id, 1, floats, DIMENSION,
                               buffer_bytes(&payload));
    struct journal_record record = {.lsn = atomic_fetch_add(&s->lsn, 1) + 1,
                                    .kind = JOURNAL_KIND_POINTS,
                                    .payload = buffer_bytes(&b)};
    const struct journal_record *records = &record;
    struct work_verdict verdict = {.outcome = WORK_RETRY};
    for (unsigned tries = 0; verdict.outcome == WORK_RETRY && tries < WAIT_MS; tries++) {
        if (points_store_work_ops.apply(s->store, i % LANES, &records, 1, &verdict))
            break;
        if (verdict.outcome == WORK_RETRY)
            os_sleep_ns(s->os, 1000000);
    }
    if (verdict.outcome != WORK_OK)
        atomic_fetch_add(&s->faults, 1);
    buffer_deinit(&b);
    buffer_deinit(&payload);
}

static void write_on(void *argument) {
    struct writer *w = argument;
    for (uint64_t n = 0; !atomic_load(&w->shared->stop); n++) {
        unsigned of = n % 8 ? HOT : POINTS / LANES; /* others live long enough to be merged */
        unsigned i = (unsigned)(hash64_u64(n) % of) * LANES + w->lane;
        if (n % 64 == 0) /* time for the others, too */
            os_sleep_ns(w->shared->os, 1000000);
        write_point(w->shared, i, n);
        atomic_fetch_add(&w->shared->writes, 1);
        if (w->shared->pause_ns && n % 8 == 0)
            os_sleep_ns(w->shared->os, w->shared->pause_ns);
    }
}

static bool whole(const struct point_row *row) {
    char payload[32];
    int n = snprintf(payload, sizeof payload, "{\"v\":%u}", (unsigned)row->vectors[0]);
    for (unsigned d = 1; d < DIMENSION; d++)
        if (row->vectors[d] != row->vectors[0])
            return false;
    return bytes_equal(row->payload, bytes_of(payload, (size_t)n));
}

static bool gets_all(struct points_view *v) {
    struct point_row row;
    for (unsigned i = 0; i < POINTS; i++)
        if (points_view_get(v, (struct point_id){.low = i}, &row) || !whole(&row))
            return false;
    return points_view_count(v) == POINTS;
}

static bool scrolls_all(struct points_view *v) {
    struct point_row rows[37];
    struct point_id next = {0};
    bool more = true;
    uint64_t expected = 0;
    while (more) {
        size_t n = 0;
        if (points_view_scroll(v, &next, 37, rows, &n, &next, &more))
            return false;
        for (size_t i = 0; i < n; i++)
            if (rows[i].id.low != expected++ || !whole(&rows[i]))
                return false;
    }
    return expected == POINTS;
}

static bool searches_all(struct points_view *v) {
    static const float query[DIMENSION] = {500, 500, 500, 500};
    struct points_hit hits[POINTS];
    bool seen[POINTS] = {0};
    size_t n = 0;
    struct points_search search = {.query = query, .limit = POINTS, .threads = 2};
    if (points_view_search(v, &search, hits, &n) || n != POINTS)
        return false;
    for (size_t i = 0; i < n; i++) {
        uint64_t id = hits[i].row.id.low;
        if (id >= POINTS || seen[id] || !whole(&hits[i].row))
            return false;
        seen[id] = true;
    }
    return true;
}

static void read_on(void *argument) {
    struct shared *s = argument;
    while (!atomic_load(&s->stop)) {
        struct points_view *v = NULL;
        if (points_view_new(s->store, s->collection, &v)) {
            atomic_fetch_add(&s->faults, 1);
            return;
        }
        bool good = searches_all(v) && scrolls_all(v) && gets_all(v) && searches_all(v);
        atomic_fetch_add(good ? &s->reads : &s->faults, 1);
        points_view_free(v);
    }
}

static void checkpoint_on(void *argument) {
    struct shared *s = argument;
    while (!atomic_load(&s->stop)) {
        if (points_store_checkpoint(s->store, NULL))
            atomic_fetch_add(&s->faults, 1);
        os_sleep_ns(s->os, 1000000);
    }
}

/* In place of the store's own thread, which seldom gets a core beside all these. */
static void build_on(void *argument) {
    struct shared *s = argument;
    while (!atomic_load(&s->stop))
        if (!points_store_build(s->store))
            os_sleep_ns(s->os, 1000000);
}

static struct points_collection *create(struct points_store *store,
                                        struct points_catalog *catalog) {
    struct point_config config = {.n_vectors = 1};
    struct buffer b = BUFFER_INIT;
    config.vectors[0].dimension = DIMENSION;
    config.vectors[0].distance = DISTANCE_EUCLID;
    point_config_finish(&config);
    point_record_encode_create(&b, BYTES_LITERAL("c"), &config);
    struct journal_record record = {.lsn = 1, .payload = buffer_bytes(&b)};
    assert_int_equal(points_store_work_ops.control(store, &record), 0);
    buffer_deinit(&b);
    return points_catalog_find(catalog, BYTES_LITERAL("c"));
}

/* What the run is for has happened; without a budget, merges too. */
static bool has_seen_enough(struct shared *s) {
    struct points_store_stats stats;
    points_store_stats(s->store, &stats);
    return atomic_load(&s->reads) > 0 && atomic_load(&s->writes) > 0 &&
           (stats.merges > 0 || s->pause_ns);
}

static void run(struct shared *s) {
    struct os_thread *threads[LANES + READERS + 2];
    struct writer writers[LANES];
    unsigned n = 0;
    for (unsigned i = 0; i < POINTS; i++)
        write_point(s, i, i);
    for (unsigned i = 0; i < LANES; i++) {
        writers[i] = (struct writer){.shared = s, .lane = i};
        assert_int_equal(os_thread_start(s->os, "writer", write_on, &writers[i], &threads[n++]), 0);
    }
    for (unsigned i = 0; i < READERS; i++)
        assert_int_equal(os_thread_start(s->os, "reader", read_on, s, &threads[n++]), 0);
    assert_int_equal(os_thread_start(s->os, "checkpoint", checkpoint_on, s, &threads[n++]), 0);
    assert_int_equal(os_thread_start(s->os, "build", build_on, s, &threads[n++]), 0);
    os_sleep_ns(s->os, RUN_MS * UINT64_C(1000000));
    UNTIL(has_seen_enough(s));
    atomic_store(&s->stop, true);
    for (unsigned i = 0; i < n; i++)
        os_thread_join(s->os, threads[i]);
}

static void remove_directory(struct os *os, const char *directory);
static void remove_name(void *context, const char *name) {
    char path[OS_PATH_MAX];
    assert_int_equal(os_path_join(path, context, "%s", name), 0);
    assert_int_equal(os_remove(os_real(), path), 0);
}
static void remove_directory(struct os *os, const char *directory) {
    assert_int_equal(os_list(os, directory, remove_name, (void *)(uintptr_t)directory), 0);
    assert_int_equal(os_rmdir(os, directory), 0);
}

/* budget NULL: no checkpoint spills. */
static void run_with(struct budget *budget, uint64_t rows_max) {
    char in_memory[] = "/dev/shm/millrace-test-store-XXXXXX";
    char on_disk[] = "/tmp/millrace-test-store-XXXXXX";
    char *directory = mkdtemp(in_memory); /* many more checkpoints */
    if (!directory)
        directory = mkdtemp(on_disk);
    assert_non_null(directory);
    struct shared s = {.os = os_real(), .lsn = 1, .pause_ns = budget ? 500000 : 0};
    struct points_catalog *catalog = NULL;
    struct bulk_tasks *tasks = NULL;
    struct points_store_options options = {
        .lanes = LANES, .segment_rows_max = rows_max, .budget = budget};
    struct points_store_report report;
    assert_int_equal(points_catalog_new(&catalog), 0);
    assert_int_equal(bulk_tasks_new(s.os, &tasks), 0);
    assert_int_equal(
        points_store_open(s.os, directory, catalog, tasks, &options, &s.store, &report), 0);
    s.collection = create(s.store, catalog);
    assert_non_null(s.collection);
    run(&s);
    struct points_store_stats stats;
    points_store_stats(s.store, &stats);
    print_message("%u writes, %u rounds of reading, %u merges\n", (unsigned)atomic_load(&s.writes),
                  (unsigned)atomic_load(&s.reads), (unsigned)stats.merges);
    assert_true(stats.merges > 0 || budget);
    assert_int_equal(stats.merges_given_up, 0);
    assert_int_equal(atomic_load(&s.faults), 0);
    assert_true(atomic_load(&s.reads) > 0 && atomic_load(&s.writes) > 0);
    points_collection_unref(s.collection);
    points_store_close(s.store);
    bulk_tasks_free(tasks);
    points_catalog_free(catalog);
    remove_directory(s.os, directory);
}

static void test_every_id_is_always_found(void **state) {
    (void)state;
    run_with(NULL, 64);
}

static void test_every_id_is_always_found_while_segments_are_spilled(void **state) {
    (void)state;
    struct budget budget;
    budget_init(&budget, 1 << 30);
    budget_add(&budget, BUDGET_POINTS, budget_part(&budget, BUDGET_POINTS) / 2);
    run_with(&budget, 50000); /* not full before it is spilled */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_id_is_always_found),
        cmocka_unit_test(test_every_id_is_always_found_while_segments_are_spilled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
