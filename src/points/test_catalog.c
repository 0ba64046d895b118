/* SPDX-License-Identifier: Apache-2.0 */
/* The catalog: its laws with the journal (invariant 8), replay and checkpoint. */
#include "points/test_support.h"

#include <errno.h>
#include <stdatomic.h>

static struct journal_record delete_record(struct buffer *out, lsn_t incarnation) {
    struct point_id id = {.low = 1};
    buffer_clear(out);
    point_record_encode_delete(out, incarnation, id);
    return (struct journal_record){.kind = JOURNAL_KIND_POINTS,
                                   .key_hash = point_key_hash(incarnation, id),
                                   .payload = buffer_bytes(out)};
}

static int append_to(struct rig *rig, struct points_collection *c, lsn_t *ret_lsn) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    struct journal_record record = delete_record(&out, c->incarnation);
    int condition = 0;
    int r = points_catalog_append(rig->catalog, rig->j, c, &record, 1, &condition);
    if (!r)
        *ret_lsn = record.lsn;
    return r;
}

static void test_create_find_drop(void **state UNUSED) {
    struct rig rig = rig_new();
    struct point_config config = config_of(4, DISTANCE_DOT);
    lsn_t lsn, incarnation = rig_create(&rig, "a");
    int condition = 0;
    assert_int_equal(incarnation, journal_appended(rig.j));
    assert_int_equal(
        points_catalog_create(rig.catalog, rig.j, BYTES_LITERAL("a"), &config, &lsn, &condition),
        POINTS_E_EXISTS);
    struct points_collection *c = points_catalog_find(rig.catalog, BYTES_LITERAL("a"));
    assert_non_null(c);
    assert_int_equal(c->incarnation, incarnation);
    assert_int_equal(append_to(&rig, c, &lsn), 0);
    assert_null(points_catalog_find(rig.catalog, BYTES_LITERAL("")));
    assert_null(points_catalog_find(rig.catalog, BYTES_LITERAL("ab")));
    lsn_t drop = rig_drop(&rig, "a");
    assert_true(drop > lsn);
    assert_int_equal(points_catalog_lsn(rig.catalog), drop);
    assert_true(c->dropped);
    assert_int_equal(append_to(&rig, c, &lsn), POINTS_E_GONE);
    assert_int_equal(journal_appended(rig.j), drop);
    assert_null(points_catalog_find(rig.catalog, BYTES_LITERAL("a")));
    assert_null(points_catalog_find_incarnation(rig.catalog, incarnation));
    assert_int_equal(
        points_catalog_drop(rig.catalog, rig.j, NULL, BYTES_LITERAL("a"), &lsn, &condition),
        POINTS_E_NOT_FOUND);
    /* The same name again is another collection: the old reference stays gone. */
    assert_true(rig_create(&rig, "a") > incarnation);
    assert_int_equal(append_to(&rig, c, &lsn), POINTS_E_GONE);
    points_collection_unref(c);
    rig_free(&rig);
}

static void note_name(void *context, struct points_collection *c) {
    char *names = context;
    size_t at = strlen(names);
    memcpy(names + at, c->name, strlen(c->name) + 1);
}

static void test_many_in_order(void **state UNUSED) {
    struct rig rig = rig_new();
    lsn_t incarnations[100];
    char name[8], names[512] = "";
    for (unsigned i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "%02u", i * 37 % 100);
        incarnations[i] = rig_create(&rig, name);
    }
    for (unsigned i = 0; i < 100; i += 2) {
        snprintf(name, sizeof name, "%02u", i * 37 % 100);
        rig_drop(&rig, name);
    }
    assert_int_equal(points_catalog_size(rig.catalog), 50);
    for (unsigned i = 0; i < 100; i++) {
        struct points_collection *c = points_catalog_find_incarnation(rig.catalog, incarnations[i]);
        assert_int_equal(c != NULL, i % 2);
        points_collection_unref(c);
    }
    points_catalog_each(rig.catalog, note_name, names);
    assert_int_equal(strlen(names), 100);
    for (unsigned i = 2; i < 100; i += 2)
        assert_true(memcmp(names + i - 2, names + i, 2) < 0);
    rig_free(&rig);
}

/* When the journal refuses, the catalog has not changed. */
static void test_refused(void **state UNUSED) {
    struct rig rig = rig_new();
    struct point_config config = config_of(4, DISTANCE_DOT);
    lsn_t lsn = 0;
    int condition = 0;
    rig_create(&rig, "a");
    assert_int_equal(journal_commit(rig.j), 0);
    sim_set_faults(rig.sim, &(struct sim_faults){.refuse_error = -EIO});
    for (unsigned i = 0; i < 50 && journal_state(rig.j) == JOURNAL_OK; i++) {
        struct points_collection *c = points_catalog_find(rig.catalog, BYTES_LITERAL("a"));
        (void)append_to(&rig, c, &lsn);
        points_collection_unref(c);
        (void)!journal_commit(rig.j);
    }
    assert_int_not_equal(journal_state(rig.j), JOURNAL_OK);
    lsn_t before = points_catalog_lsn(rig.catalog);
    assert_int_equal(
        points_catalog_create(rig.catalog, rig.j, BYTES_LITERAL("b"), &config, &lsn, &condition),
        POINTS_E_JOURNAL);
    assert_int_equal(condition, JOURNAL_E_UNAVAILABLE);
    assert_int_equal(
        points_catalog_drop(rig.catalog, rig.j, NULL, BYTES_LITERAL("a"), &lsn, &condition),
        POINTS_E_JOURNAL);
    assert_int_equal(points_catalog_size(rig.catalog), 1);
    assert_int_equal(points_catalog_lsn(rig.catalog), before);
    sim_set_faults(rig.sim, NULL);
    rig_free(&rig);
}

/* Who looked it up before drops that one, not what has its name by now. */
static void test_drop_of_an_incarnation(void **state UNUSED) {
    struct rig rig = rig_new();
    lsn_t lsn = 0;
    int condition = 0;
    lsn_t first = rig_create(&rig, "a");
    assert_int_equal(
        points_catalog_drop_incarnation(rig.catalog, rig.j, NULL, first, &lsn, &condition), 0);
    assert_int_equal(points_catalog_lsn(rig.catalog), lsn);
    lsn_t second = rig_create(&rig, "a");
    assert_int_equal(
        points_catalog_drop_incarnation(rig.catalog, rig.j, NULL, first, &lsn, &condition),
        POINTS_E_NOT_FOUND);
    struct points_collection *c = points_catalog_find(rig.catalog, BYTES_LITERAL("a"));
    assert_non_null(c);
    assert_int_equal(c->incarnation, second);
    points_collection_unref(c);
    rig_free(&rig);
}

/* ---- Replay ---- */

static void replay(struct points_catalog *catalog, struct journal *j) {
    struct journal_cursor *cursor;
    struct journal_batch *batch;
    struct point_record record;
    assert_int_equal(journal_cursor_new(j, 1, &cursor), 0);
    while (journal_read(cursor, &batch) == 0) {
        for (size_t i = 0; i < batch->n; i++) {
            if (batch->records[i].kind != JOURNAL_KIND_POINTS ||
                !(batch->records[i].flags & JOURNAL_CONTROL))
                continue;
            assert_true(point_record_decode(batch->records[i].payload, &record));
            assert_int_equal(points_catalog_replay(catalog, batch->records[i].lsn, &record), 0);
        }
        journal_batch_unref(batch);
    }
    journal_cursor_free(cursor);
}

static void expect_same(struct points_catalog *a, struct points_catalog *b) {
    CLEANUP(buffer_deinit) struct buffer left = BUFFER_INIT;
    CLEANUP(buffer_deinit) struct buffer right = BUFFER_INIT;
    lsn_t lsn_a, lsn_b;
    points_catalog_encode(a, &left, &lsn_a);
    points_catalog_encode(b, &right, &lsn_b);
    assert_int_equal(lsn_a, lsn_b);
    assert_true(bytes_equal(buffer_bytes(&left), buffer_bytes(&right)));
}

/* From any checkpoint on, replaying everything gives what was there, however often. */
static void test_replay_is_idempotent(void **state UNUSED) {
    enum { STEPS = 12 };
    static const char *const steps[STEPS] = {"+a", "+b", "-a", "+a", "+c", "-b",
                                             "-a", "+b", "+d", "-c", "+a", "-d"};
    struct rig rig = rig_new();
    struct buffer checkpoints[STEPS + 1] = {0};
    lsn_t lsn;
    for (size_t i = 0; i <= STEPS; i++) {
        points_catalog_encode(rig.catalog, &checkpoints[i], &lsn);
        if (i < STEPS && steps[i][0] == '+')
            rig_create(&rig, steps[i] + 1);
        else if (i < STEPS)
            rig_drop(&rig, steps[i] + 1);
    }
    assert_int_equal(journal_commit(rig.j), 0);
    struct points_collection *alive = points_catalog_find(rig.catalog, BYTES_LITERAL("a"));
    replay(rig.catalog, rig.j); /* knows all: nothing changes, not even the objects */
    assert_false(alive->dropped);
    assert_ptr_equal(points_catalog_find(rig.catalog, BYTES_LITERAL("a")), alive);
    points_collection_unref(alive);
    points_collection_unref(alive);
    for (size_t i = 0; i <= STEPS; i++) {
        struct points_catalog *other;
        assert_int_equal(points_catalog_new(&other), 0);
        assert_int_equal(points_catalog_decode(other, buffer_bytes(&checkpoints[i])), 0);
        replay(other, rig.j);
        expect_same(rig.catalog, other);
        replay(other, rig.j);
        expect_same(rig.catalog, other);
        points_catalog_free(other);
        buffer_deinit(&checkpoints[i]);
    }
    rig_free(&rig);
}

static void test_decode_refuses_damage(void **state UNUSED) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    struct rig rig = rig_new();
    lsn_t lsn;
    rig_create(&rig, "a");
    rig_create(&rig, "b");
    points_catalog_encode(rig.catalog, &out, &lsn);
    for (size_t size = 0; size < out.size; size++) {
        struct points_catalog *other;
        uint8_t *copy = malloc(size ? size : 1);
        assert_non_null(copy);
        memcpy(copy, out.data, size);
        assert_int_equal(points_catalog_new(&other), 0);
        assert_int_equal(points_catalog_decode(other, bytes_of(copy, size)), -EPROTO);
        points_catalog_free(other);
        free(copy);
    }
    rig_free(&rig);
}

/* ---- Invariant 8: append races drop ---- */

enum { APPENDERS = 3, ROUNDS = 200 };

struct race {
    struct rig *rig;
    _Atomic bool stop;
    _Atomic uint64_t allowed; /* so many may be appended: pending is bounded until a commit */
    _Atomic uint64_t appended;
    _Atomic uint64_t gone;
};

static void append_all_day(void *argument) {
    struct race *race = argument;
    lsn_t lsn;
    while (!atomic_load(&race->stop)) {
        if (atomic_load(&race->appended) >= atomic_load(&race->allowed)) {
            os_sleep_ns(os_real(), 1000);
            continue;
        }
        struct points_collection *c = points_catalog_find(race->rig->catalog, BYTES_LITERAL("a"));
        if (!c)
            continue;
        int r = append_to(race->rig, c, &lsn);
        if (r == 0)
            atomic_fetch_add(&race->appended, 1);
        else if (r == POINTS_E_GONE)
            atomic_fetch_add(&race->gone, 1);
        points_collection_unref(c);
    }
}

/* In the journal, every point stands between the create and the drop of its incarnation. */
static void check_order(struct journal *j, uint64_t *ret_points) {
    struct journal_cursor *cursor;
    struct journal_batch *batch;
    struct point_record record;
    lsn_t alive = 0;
    assert_int_equal(journal_cursor_new(j, 1, &cursor), 0);
    while (journal_read(cursor, &batch) == 0) {
        for (size_t i = 0; i < batch->n; i++) {
            assert_true(point_record_decode(batch->records[i].payload, &record));
            if (record.op == POINT_CREATE)
                alive = batch->records[i].lsn;
            else
                assert_int_equal(record.incarnation, alive);
            if (record.op == POINT_DROP)
                alive = 0;
            *ret_points += record.op == POINT_DELETE;
        }
        journal_batch_unref(batch);
    }
    journal_cursor_free(cursor);
}

static void test_append_races_drop(void **state UNUSED) {
    struct rig rig = rig_new();
    struct race race = {.rig = &rig};
    struct os_thread *threads[APPENDERS];
    uint64_t points = 0;
    for (size_t i = 0; i < APPENDERS; i++)
        assert_int_equal(os_thread_start(os_real(), "appender", append_all_day, &race, &threads[i]),
                         0);
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t before = atomic_load(&race.appended);
        rig_create(&rig, "a");
        atomic_store(&race.allowed, before + 50);
        while (atomic_load(&race.appended) < before + 3)
            os_sleep_ns(os_real(), 1000);
        rig_drop(&rig, "a");
        assert_int_equal(journal_commit(rig.j), 0);
    }
    atomic_store(&race.stop, true);
    for (size_t i = 0; i < APPENDERS; i++)
        os_thread_join(os_real(), threads[i]);
    assert_int_equal(journal_commit(rig.j), 0);
    check_order(rig.j, &points);
    assert_int_equal(points, atomic_load(&race.appended));
    rig_free(&rig);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_create_find_drop),
        cmocka_unit_test(test_many_in_order),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_drop_of_an_incarnation),
        cmocka_unit_test(test_replay_is_idempotent),
        cmocka_unit_test(test_decode_refuses_damage),
        cmocka_unit_test(test_append_races_drop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
