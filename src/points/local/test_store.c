/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store against a model, on the simulated disk without faults: random records, checkpoints and
 * reopenings; then what the model does not cover: orphans, retries, sealing, files.
 */
#include "points/local/test_fixture.h"

#include "os/file.h"
#include "os/sim.h"

static const char dir[] = "/data/points";

static struct sim *new_sim(uint64_t seed) {
    struct sim *sim = NULL;
    assert_int_equal(sim_new(seed, &sim), 0);
    return sim;
}

static void random_run(uint64_t seed, unsigned ops) {
    struct sim *sim = new_sim(seed);
    struct fixture f;
    fixture_init(&f, sim_os(sim), dir, seed);
    if (seed % 2)
        fixture_press(&f);
    uint64_t used = budget_used(f.options.budget, BUDGET_POINTS);
    assert_int_equal(fixture_open(&f), 0);
    for (unsigned i = 0; i < ops; i++) {
        op_random(&f);
        assert_int_equal(apply_from(&f, f.n_log), 0);
        unsigned dice = rng_below(&f.rng, 60);
        if (dice == 0)
            pass_all(&f);
        if (dice <= 1 || (dice >= 10 && dice < 14))
            assert_int_equal(points_store_checkpoint(f.store, NULL), 0);
        if (dice >= 20 && dice < 30)
            (void)points_store_build(f.store);
        if (dice == 2) {
            fixture_close(&f);
            assert_int_equal(fixture_open(&f), 0);
            assert_int_equal(f.report.damaged_rows, 0);
            assert_int_equal(replay(&f), 0);
        }
        if (dice <= 5)
            compare(&f);
    }
    fixture_close(&f);
    assert_int_equal(budget_used(f.options.budget, BUDGET_POINTS), used); /* all is given back */
    assert_true(f.merges > 5);
    fixture_deinit(&f);
    sim_free(sim);
}

static void test_model(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 24; seed++)
        random_run(seed, 1500);
}

static size_t directory_size(struct os *os);
static void count_name(void *context, const char *name) {
    (void)name;
    ++*(size_t *)context;
}
static size_t directory_size(struct os *os) {
    size_t n = 0;
    assert_int_equal(os_list(os, dir, count_name, &n), 0);
    return n;
}

static void test_dropped_collections_leave_no_files(void **state) {
    (void)state;
    struct sim *sim = new_sim(1);
    struct fixture f;
    fixture_init(&f, sim_os(sim), dir, 1);
    assert_int_equal(fixture_open(&f), 0);
    op_create(&f, 0);
    for (unsigned i = 0; i < 200; i++)
        op_upsert(&f, 0, i % IDS);
    assert_int_equal(apply_from(&f, 1), 0);
    assert_int_equal(points_store_checkpoint(f.store, NULL), 0);
    assert_true(directory_size(f.os) > 3 * TEST_LANES);
    op_drop(&f, 0);
    assert_int_equal(apply_from(&f, f.n_log), 0);
    pass_all(&f);
    assert_int_equal(points_store_checkpoint(f.store, NULL), 0);
    assert_int_equal(directory_size(f.os), 2); /* the manifest and its copy */
    struct points_store_stats stats;
    points_store_stats(f.store, &stats);
    assert_int_equal(stats.segments, 0);
    fixture_deinit(&f);
    sim_free(sim);
}

static void drop_once(void *context) {
    struct fixture *f = context;
    if (f->model[0].incarnation == 0)
        return;
    op_drop(f, 0);
    assert_int_equal(apply_one(f, &f->log[f->n_log - 1]), 0);
}

/* The drop comes when a checkpoint has captured the lanes and not yet the catalog. */
static void test_a_drop_during_a_checkpoint_leaves_no_files(void **state) {
    (void)state;
    struct sim *sim = new_sim(1);
    struct fixture f;
    fixture_init(&f, sim_os(sim), dir, 1);
    assert_int_equal(fixture_open(&f), 0);
    op_create(&f, 0);
    for (unsigned i = 0; i < 200; i++)
        op_upsert(&f, 0, i % IDS);
    assert_int_equal(apply_from(&f, 1), 0);
    sim_set_faults(sim, &(struct sim_faults){.each_change = drop_once, .context = &f});
    assert_int_equal(points_store_checkpoint(f.store, NULL), 0);
    sim_set_faults(sim, NULL);
    assert_int_equal(f.model[0].incarnation, 0);
    pass_all(&f);
    assert_int_equal(points_store_checkpoint(f.store, NULL), 0);
    assert_int_equal(directory_size(f.os), 2);
    fixture_deinit(&f);
    sim_free(sim);
}

/* A view that was taken before a drop or a sealing goes on to show what it showed. */
static void test_views_outlive_changes(void **state) {
    (void)state;
    struct sim *sim = new_sim(2);
    struct fixture f;
    fixture_init(&f, sim_os(sim), dir, 2);
    assert_int_equal(fixture_open(&f), 0);
    op_create(&f, 0);
    for (unsigned i = 0; i < 150; i++)
        op_upsert(&f, 0, i % IDS);
    assert_int_equal(apply_from(&f, 1), 0);
    struct points_collection *c = points_catalog_find(f.catalog, bytes_of_string("one"));
    struct points_view *v = NULL;
    assert_int_equal(points_view_new(f.store, c, &v), 0);
    struct points_hit hits[IDS];
    float query[5] = {0};
    size_t n = 0;
    struct points_search search = {.query = query, .limit = IDS};
    assert_int_equal(points_view_search(v, &search, hits, &n), 0);
    assert_int_equal(n, IDS);
    assert_int_equal(points_store_checkpoint(f.store, NULL), 0); /* seals */
    op_drop(&f, 0);
    assert_int_equal(apply_from(&f, f.n_log), 0);
    assert_int_equal(points_store_checkpoint(f.store, NULL), 0);
    for (size_t i = 0; i < n; i++)
        assert_true(row_equals(&f.model[0], &f.model[0].points[hits[i].row.id.low], &hits[i].row));
    compare_scroll(v, &f.model[0], &f.rng);
    points_view_free(v);
    points_collection_unref(c);
    fixture_deinit(&f);
    sim_free(sim);
}

static void test_full_segments_wait_for_the_disk(void **state) {
    (void)state;
    struct sim *sim = new_sim(3);
    struct fixture f;
    fixture_init(&f, sim_os(sim), dir, 3);
    f.options.unsealed_bytes_max = 1;
    assert_int_equal(fixture_open(&f), 0);
    op_create(&f, 0);
    for (unsigned i = 0; i < 500; i++)
        op_upsert(&f, 0, i % IDS);
    lsn_t at = 1;
    unsigned rounds = 0;
    for (; at <= f.n_log; rounds++) {
        assert_true(rounds < 200);
        int r = 0;
        while (at <= f.n_log && (r = apply_one(&f, &f.log[at - 1])) == 0)
            at++;
        assert_true(r == 0 || r == -EAGAIN);
        assert_int_equal(points_store_checkpoint(f.store, NULL), 0);
    }
    assert_true(rounds > 5); /* it did say retry */
    compare(&f);
    assert_int_equal(points_store_dirty_bytes(f.store), 0);
    fixture_deinit(&f);
    sim_free(sim);
}

/* ---- Memory ---- */

/* Segments that are never full take more memory than there is: the store asks to wait, a checkpoint
 * makes room, and nothing is lost. */
static void test_invariant_6_growing_segments_are_spilled(void **state) {
    (void)state;
#ifndef MILLRACE_TINY
    skip(); /* steps and files that are copied are larger than this budget */
#endif
    struct sim *sim = new_sim(21);
    struct fixture f;
    fixture_init(&f, sim_os(sim), dir, 21);
    f.options.segment_rows_max = 4096;
    budget_init(&f.budget, 640 << 10); /* 160 KiB are the points' */
    f.options.budget = &f.budget;
    assert_int_equal(fixture_open(&f), 0);
    op_create(&f, 0);
    for (unsigned i = 0; i < 6000; i++)
        op_upsert(&f, 0, i % IDS);
    unsigned rounds = 0;
    uint64_t most = 0;
    for (lsn_t at = 1; at <= f.n_log; rounds++) {
        assert_true(rounds < 200);
        int r = 0;
        while (at <= f.n_log && (r = apply_one(&f, &f.log[at - 1])) == 0)
            at++;
        assert_true(r == 0 || (r == -EAGAIN && points_store_pressed(f.store)));
        uint64_t used = budget_used(&f.budget, BUDGET_POINTS);
        most = used > most ? used : most;
        assert_int_equal(points_store_checkpoint(f.store, NULL), 0);
        assert_true(budget_used(&f.budget, BUDGET_POINTS) < used);
    }
    compare(&f);
    assert_true(rounds > 3); /* it did say retry */
    /* Beyond it: what the first row of a segment takes, in each lane. */
    assert_true(most < budget_part(&f.budget, BUDGET_POINTS) + TEST_LANES * 12288);
    struct points_store_stats stats;
    points_store_stats(f.store, &stats);
    assert_true(stats.segments <= 2 * TEST_LANES); /* they went on growing */
    fixture_close(&f);
    assert_int_equal(fixture_open(&f), 0);
    compare(&f);
    fixture_close(&f);
    assert_int_equal(budget_used(&f.budget, BUDGET_POINTS), 0);
    fixture_deinit(&f);
    sim_free(sim);
}

/* What was found before a segment was spilled stays where it was; what came since is found too. */
static void test_views_see_through_a_spill(void **state) {
    (void)state;
    struct sim *sim = new_sim(22);
    struct fixture f;
    fixture_init(&f, sim_os(sim), dir, 22);
    f.options.segment_rows_max = 4096;
    fixture_press(&f);
    assert_int_equal(fixture_open(&f), 0);
    op_create(&f, 1);
    for (unsigned i = 0; i < IDS; i++)
        op_upsert(&f, 1, i);
    assert_int_equal(apply_from(&f, 1), 0);
    struct points_collection *c = points_catalog_find(f.catalog, bytes_of_string("two"));
    for (unsigned round = 0; round < 10; round++) {
        struct model_point before = f.model[1].points[0];
        struct points_view *v = NULL;
        struct point_row row;
        assert_int_equal(points_view_new(f.store, c, &v), 0);
        assert_int_equal(points_view_get(v, test_id(0), &row), 0);
        assert_int_equal(points_store_checkpoint(f.store, NULL), 0);
        lsn_t last = f.n_log;
        for (unsigned i = 0; i < IDS; i++)
            op_upsert(&f, 1, i);
        assert_int_equal(apply_from(&f, last + 1), 0);
        compare_search(v, &f.model[1], &f.rng);
        compare_gets(v, &f.model[1]);
        compare_scroll(v, &f.model[1], &f.rng);
        assert_true(row_equals(&f.model[1], &before, &row));
        points_view_free(v);
    }
    points_collection_unref(c);
    fixture_deinit(&f);
    sim_free(sim);
}

/* Letters that no checkpoint has written take memory that points could have: the store asks to
 * wait, and a checkpoint gives it back. */
static void test_invariant_6_letters_wait_for_room(void **state) {
    (void)state;
    enum { LETTERS = 60 };
    static const uint8_t payload[1000];
    struct sim *sim = new_sim(22);
    struct fixture f;
    fixture_init(&f, sim_os(sim), dir, 22);
    budget_init(&f.budget, 64 << 10); /* 16 KiB are the points' */
    f.options.budget = &f.budget;
    assert_int_equal(fixture_open(&f), 0);
    op_create(&f, 0);
    for (unsigned i = 0; i < LETTERS; i++)
        op_misfit(&f, i, bytes_of(payload, sizeof payload));
    unsigned rounds = 0;
    for (lsn_t at = 1; at <= f.n_log; rounds++) {
        int r = 0;
        assert_true(rounds < LETTERS);
        while (at <= f.n_log && (r = apply_one(&f, &f.log[at - 1])) == 0)
            at++;
        assert_true(r == 0 || (r == -EAGAIN && points_store_pressed(f.store)));
        assert_true(budget_used(&f.budget, BUDGET_POINTS) <
                    budget_part(&f.budget, BUDGET_POINTS) + 2 * sizeof payload);
        assert_int_equal(points_store_checkpoint(f.store, NULL), 0);
        assert_int_equal(budget_used(&f.budget, BUDGET_POINTS), 0);
    }
    assert_true(rounds > 3); /* it did say retry */
    op_misfit(&f, LETTERS, bytes_of(payload, sizeof payload));
    assert_int_equal(apply_from(&f, f.n_log), 0);
    fixture_close(&f); /* with a letter that nobody wrote */
    assert_int_equal(budget_used(&f.budget, BUDGET_POINTS), 0);
    assert_int_equal(fixture_open(&f), 0);
    assert_int_equal(work_letters_n(points_store_work_ops.letters(f.store)), LETTERS);
    fixture_deinit(&f);
    sim_free(sim);
}

static void test_orphans_are_counted(void **state) {
    (void)state;
    struct sim *sim = new_sim(5);
    struct fixture f;
    fixture_init(&f, sim_os(sim), dir, 5);
    assert_int_equal(fixture_open(&f), 0);
    op_create(&f, 0);
    op_upsert(&f, 0, 1);
    struct model_collection dead = f.model[0];
    op_drop(&f, 0);
    op_create(&f, 0);
    struct model_collection alive = f.model[0];
    f.model[0] = dead;
    op_upsert(&f, 0, 1);
    f.model[0] = alive;
    assert_int_equal(apply_from(&f, 1), 0);
    struct points_store_stats stats;
    points_store_stats(f.store, &stats);
    assert_int_equal(stats.orphaned_records, 1);
    assert_int_equal(stats.dead_letters, 0);
    assert_int_equal(points_store_checkpoint(f.store, NULL), 0);
    lsn_t positions[WORK_LANES_MAX], highest = 0;
    points_store_positions(f.store, positions);
    for (unsigned i = 0; i < TEST_LANES; i++)
        highest = positions[i] > highest ? positions[i] : highest;
    assert_int_equal(highest, f.n_log); /* passed over, not left to come again */
    compare(&f);
    fixture_deinit(&f);
    sim_free(sim);
}

/* A record that a lane has applied changes nothing when it comes again. */
static void test_known_records_are_skipped(void **state) {
    (void)state;
    struct sim *sim = new_sim(8);
    struct fixture f;
    fixture_init(&f, sim_os(sim), dir, 8);
    assert_int_equal(fixture_open(&f), 0);
    for (unsigned i = 0; i < 300; i++) {
        op_random(&f);
        assert_int_equal(apply_from(&f, f.n_log), 0);
        for (unsigned k = 0; k < 3; k++)
            assert_int_equal(apply_one(&f, &f.log[rng_below(&f.rng, (unsigned)f.n_log)]), 0);
        compare(&f);
    }
    fixture_deinit(&f);
    sim_free(sim);
}

/* What is replaced after a view was made is found through it, as it is now. */
static void test_old_views_find_new_rows(void **state) {
    (void)state;
    struct sim *sim = new_sim(9);
    struct fixture f;
    fixture_init(&f, sim_os(sim), dir, 9);
    assert_int_equal(fixture_open(&f), 0);
    op_create(&f, 1);
    for (unsigned i = 0; i < IDS; i++)
        op_upsert(&f, 1, i);
    assert_int_equal(apply_from(&f, 1), 0);
    struct points_collection *c = points_catalog_find(f.catalog, bytes_of_string("two"));
    void (*const looks[])(struct points_view *, const struct model_collection *,
                          struct rng *) = {compare_search, compare_scroll};
    for (unsigned look = 0; look < 20; look++) {
        struct points_view *v = NULL;
        assert_int_equal(points_view_new(f.store, c, &v), 0);
        lsn_t before = f.n_log;
        for (unsigned i = 0; i < 3 * IDS; i++)
            op_upsert(&f, 1, i % IDS);
        assert_int_equal(apply_from(&f, before + 1), 0);
        looks[look % 2](v, &f.model[1], &f.rng);
        compare_gets(v, &f.model[1]);
        points_view_free(v);
    }
    points_collection_unref(c);
    fixture_deinit(&f);
    sim_free(sim);
}

static void test_ties_are_ordered_by_id(void **state) {
    (void)state;
    struct sim *sim = new_sim(10);
    struct fixture f;
    fixture_init(&f, sim_os(sim), dir, 10);
    assert_int_equal(fixture_open(&f), 0);
    op_create(&f, 0);
    for (unsigned i = 0; i < IDS; i++)
        op_upsert(&f, 0, IDS - 1 - i);
    assert_int_equal(apply_from(&f, 1), 0);
    struct points_collection *c = points_catalog_find(f.catalog, bytes_of_string("one"));
    struct points_view *v = NULL;
    assert_int_equal(points_view_new(f.store, c, &v), 0);
    float query[5] = {INFINITY}; /* equally far from all */
    struct points_hit hits[10];
    struct point_row rows[10];
    struct point_id next;
    bool more;
    size_t n = 0;
    struct points_search search = {.query = query, .limit = 10};
    assert_int_equal(points_view_search(v, &search, hits, &n), 0);
    assert_int_equal(n, 10);
    assert_int_equal(points_view_scroll(v, NULL, 10, rows, &n, &next, &more), 0);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(point_id_compare(hits[i].row.id, rows[i].id), 0);
    points_view_free(v);
    points_collection_unref(c);
    fixture_deinit(&f);
    sim_free(sim);
}

enum { PARTS = 1100 };

/* Points with both vectors, then with one, the other and none in stretches that are longer and
 * shorter than a word of a bitmap; the second time with what they lacked. */
static void put_parts(struct fixture *f, bool again, uint64_t *masks) {
    const struct point_config config = test_config(1);
    const float floats[FLOATS_MAX] = {0.5f, 0.25f};
    lsn_t incarnation = f->model[1].incarnation, before = f->n_log;
    for (unsigned i = 0; i < PARTS; i++) {
        struct buffer b = BUFFER_INIT;
        uint64_t mask = i < 200 ? 3 : i < 600 ? 1 : i < 800 ? 2 * (i % 2) : rng_below(&f->rng, 4);
        masks[i] = again ? masks[i] ^ 3 : mask;
        size_t n = 0;
        for (unsigned v = 0; v < config.n_vectors; v++)
            n += masks[i] >> v & 1 ? config.vectors[v].dimension : 0;
        struct point_id id = {.low = i};
        point_record_encode_upsert(&b, incarnation, id, masks[i], floats, n, BYTES_LITERAL(""));
        log_append(f, &b, point_key_hash(incarnation, id), false);
    }
    assert_int_equal(apply_from(f, before + 1), 0);
}

static void check_parts(struct fixture *f, const uint64_t *masks) {
    static struct points_hit hits[PARTS];
    struct points_collection *c = points_catalog_find(f->catalog, bytes_of_string("two"));
    struct points_view *v = NULL;
    const float query[FLOATS_MAX] = {0};
    assert_int_equal(points_view_new(f->store, c, &v), 0);
    assert_int_equal(points_view_count(v), PARTS);
    for (unsigned vector = 0; vector < 2; vector++) {
        const struct points_search search = {
            .vector = vector, .query = query, .limit = PARTS, .threads = 2};
        size_t n = 0, expected = 0;
        for (unsigned i = 0; i < PARTS; i++)
            expected += masks[i] >> vector & 1;
        assert_int_equal(points_view_search(v, &search, hits, &n), 0);
        assert_int_equal(n, expected);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(hits[i].row.vector_mask, masks[hits[i].row.id.low]);
            assert_true(masks[hits[i].row.id.low] >> vector & 1);
        }
    }
    points_view_free(v);
    points_collection_unref(c);
}

static void test_points_without_a_vector_are_no_hits_of_it(void **state) {
    (void)state;
    struct sim *sim = new_sim(12);
    struct fixture f;
    uint64_t masks[PARTS];
    fixture_init(&f, sim_os(sim), dir, 12);
    fixture_press(&f); /* only to count what is given back */
    uint64_t used = budget_used(&f.budget, BUDGET_POINTS);
    f.options.segment_rows_max = 256;
    assert_int_equal(fixture_open(&f), 0);
    op_create(&f, 1);
    assert_int_equal(apply_from(&f, 1), 0);
    for (unsigned again = 0; again < 2; again++) {
        put_parts(&f, again, masks);
        check_parts(&f, masks);
        do
            assert_int_equal(points_store_checkpoint(f.store, NULL), 0);
        while (points_store_build(f.store));
        check_parts(&f, masks);
        fixture_close(&f);
        assert_int_equal(budget_used(&f.budget, BUDGET_POINTS), used);
        assert_int_equal(fixture_open(&f), 0);
        check_parts(&f, masks);
    }
    fixture_close(&f);
    assert_true(f.merges > 0);
    fixture_deinit(&f);
    sim_free(sim);
}

static void test_threshold_is_strict(void **state) {
    (void)state;
    struct sim *sim = new_sim(6);
    struct fixture f;
    fixture_init(&f, sim_os(sim), dir, 6);
    assert_int_equal(fixture_open(&f), 0);
    op_create(&f, 0);
    for (unsigned i = 0; i < IDS; i++)
        op_upsert(&f, 0, i);
    assert_int_equal(apply_from(&f, 1), 0);
    struct points_collection *c = points_catalog_find(f.catalog, bytes_of_string("one"));
    struct points_view *v = NULL;
    assert_int_equal(points_view_new(f.store, c, &v), 0);
    struct points_hit all[IDS], some[IDS];
    float query[5] = {0.5f, -0.5f, 0, 0, 0};
    size_t n = 0;
    struct points_search search = {.query = query, .limit = IDS};
    assert_int_equal(points_view_search(v, &search, all, &n), 0);
    assert_int_equal(n, IDS);
    search.has_threshold = true;
    search.threshold = all[10].score;
    assert_int_equal(points_view_search(v, &search, some, &n), 0);
    assert_int_equal(n, 10); /* nearer, not as near */
    points_view_free(v);
    points_collection_unref(c);
    fixture_deinit(&f);
    sim_free(sim);
}

static void test_data_without_a_manifest_is_damage(void **state) {
    (void)state;
    struct sim *sim = new_sim(7);
    struct fixture f;
    fixture_init(&f, sim_os(sim), dir, 7);
    assert_int_equal(fixture_open(&f), 0);
    op_create(&f, 0);
    op_upsert(&f, 0, 1);
    assert_int_equal(apply_from(&f, 1), 0);
    assert_int_equal(points_store_checkpoint(f.store, NULL), 0);
    fixture_close(&f);
    assert_int_equal(os_remove(f.os, "/data/points/MANIFEST"), 0);
    assert_int_equal(fixture_open(&f), 0); /* its copy is enough */
    compare(&f);
    fixture_close(&f);
    assert_int_equal(os_remove(f.os, "/data/points/MANIFEST"), 0);
    assert_int_equal(os_remove(f.os, "/data/points/MANIFEST.copy"), 0);
    size_t files = directory_size(f.os);
    assert_int_equal(fixture_open(&f), -EPROTO);
    assert_int_equal(directory_size(f.os), files); /* nothing is taken for garbage */
    fixture_deinit(&f);
    sim_free(sim);
}

/* ---- Versions ---- */

/* Both copies say that they are of a version. (Version 1 has the bytes of version 2; a directory
 * that it wrote is in tests/api.) */
static void set_version(struct fixture *f, uint32_t version) {
    static const char *const paths[] = {"/data/points/MANIFEST", "/data/points/MANIFEST.copy"};
    for (unsigned i = 0; i < ARRAY_LENGTH(paths); i++) {
        struct buffer b = BUFFER_INIT;
        assert_int_equal(os_load(f->os, paths[i], SIZE_MAX, &b), 0);
        store_u32(b.data + 8, version);
        store_u32(b.data + b.size - 4, crc32c(0, b.data, b.size - 4));
        assert_int_equal(os_replace(f->os, paths[i], buffer_bytes(&b)), 0);
        buffer_deinit(&b);
    }
}

static void test_versions(void **state) {
    (void)state;
    struct sim *sim = new_sim(11);
    struct fixture f;
    fixture_init(&f, sim_os(sim), dir, 11);
    assert_int_equal(fixture_open(&f), 0);
    for (unsigned i = 0; i < 400; i++)
        op_random(&f);
    assert_int_equal(apply_from(&f, 1), 0);
    assert_int_equal(points_store_checkpoint(f.store, NULL), 0);
    fixture_close(&f);
    set_version(&f, 1);
    assert_int_equal(fixture_open(&f), 0);
    compare(&f);
    fixture_close(&f);
    set_version(&f, 4);
    size_t files = directory_size(f.os);
    assert_int_equal(fixture_open(&f), -EPROTO);
    assert_int_equal(directory_size(f.os), files);
    fixture_deinit(&f);
    sim_free(sim);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_dropped_collections_leave_no_files),
        cmocka_unit_test(test_a_drop_during_a_checkpoint_leaves_no_files),
        cmocka_unit_test(test_views_outlive_changes),
        cmocka_unit_test(test_full_segments_wait_for_the_disk),
        cmocka_unit_test(test_invariant_6_growing_segments_are_spilled),
        cmocka_unit_test(test_views_see_through_a_spill),
        cmocka_unit_test(test_invariant_6_letters_wait_for_room),
        cmocka_unit_test(test_orphans_are_counted),
        cmocka_unit_test(test_known_records_are_skipped),
        cmocka_unit_test(test_old_views_find_new_rows),
        cmocka_unit_test(test_ties_are_ordered_by_id),
        cmocka_unit_test(test_points_without_a_vector_are_no_hits_of_it),
        cmocka_unit_test(test_threshold_is_strict),
        cmocka_unit_test(test_data_without_a_manifest_is_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
