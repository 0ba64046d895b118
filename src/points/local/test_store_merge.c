/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Merging, on the simulated disk: dead rows give back their space, and nothing else changes. That
 * it survives power cuts and failing calls is shown by test_store_sim.c, that readers never miss a
 * row by test_store_threads.c.
 */
#include "points/local/test_fixture.h"

#include "os/file.h"
#include "os/sim.h"

static const char dir[] = "/data/points";

static struct sim *begin(struct fixture *f, uint64_t seed) {
    struct sim *sim = NULL;
    assert_int_equal(sim_new(seed, &sim), 0);
    fixture_init(f, sim_os(sim), dir, seed);
    return sim;
}

static void end(struct fixture *f, struct sim *sim) {
    fixture_deinit(f);
    sim_free(sim);
}

static void checkpoint(struct fixture *f) {
    assert_int_equal(points_store_checkpoint(f->store, NULL), 0);
}

static struct points_store_stats stats_of(struct fixture *f) {
    struct points_store_stats stats;
    points_store_stats(f->store, &stats);
    return stats;
}

/* Merges until there is nothing left to merge. */
static void settle(struct fixture *f) {
    unsigned rounds = 0;
    do {
        assert_true(rounds++ < 100);
        checkpoint(f);
    } while (points_store_build(f->store));
}

struct sizes {
    struct os *os;
    uint64_t bytes;
    unsigned files;
};
static void add_size(void *context, const char *name) {
    struct sizes *sizes = context;
    char path[OS_PATH_MAX];
    struct os_file *file = NULL;
    uint64_t size = 0;
    assert_int_equal(os_path_join(path, dir, "%s", name), 0);
    assert_int_equal(os_open(sizes->os, path, OS_OPEN_READ, &file), 0);
    assert_int_equal(os_size(sizes->os, file, &size), 0);
    os_close(sizes->os, file);
    sizes->bytes += size;
    sizes->files++;
}

static void list_name(void *context, const char *name) {
    buffer_append((struct buffer *)context, name, strlen(name) + 1);
}

/* What the directory has on the disk. */
static struct sizes disk(struct fixture *f) {
    struct buffer names = BUFFER_INIT;
    struct sizes sizes = {.os = f->os};
    assert_int_equal(os_list(f->os, dir, list_name, &names), 0);
    for (size_t at = 0; at < names.size; at += strlen((const char *)names.data + at) + 1)
        add_size(&sizes, (const char *)names.data + at);
    buffer_deinit(&names);
    return sizes;
}

static void check_whole(struct fixture *f) {
    struct points_store_report report;
    compare(f);
    checkpoint(f);
    fixture_close(f);
    assert_int_equal(points_store_verify(f->os, dir, NULL, NULL, &report), 0);
    assert_int_equal(report.damaged_rows + report.cut_bytes, 0);
    assert_int_equal(fixture_open(f), 0);
    assert_int_equal(f->report.damaged_rows, 0);
    assert_int_equal(replay(f), 0);
    compare(f);
}

/* ---- Space ---- */

enum { MANY = 1000, TIMES = 50, PAYLOAD = 24 };

/* Writes point i with its version as all of its content, past the fixture's log. */
static void put(struct fixture *f, lsn_t incarnation, lsn_t lsn, unsigned i, unsigned version) {
    struct buffer b = BUFFER_INIT;
    struct point_id id = {.low = i};
    float floats[5];
    char payload[PAYLOAD + 1];
    for (unsigned d = 0; d < 5; d++)
        floats[d] = (float)version;
    snprintf(payload, sizeof payload, "{\"v\":%-18u}", version);
    point_record_encode_upsert(&b, incarnation, id, 1, floats, 5, bytes_of_string(payload));
    struct journal_record record = {.lsn = lsn,
                                    .key_hash = point_key_hash(incarnation, id),
                                    .kind = JOURNAL_KIND_POINTS,
                                    .payload = buffer_bytes(&b)};
    assert_int_equal(apply_one(f, &record), 0);
    buffer_deinit(&b);
}

static void check_versions(struct fixture *f, unsigned version) {
    static struct points_hit hits[MANY];
    static struct point_row rows[MANY];
    struct points_collection *c = points_catalog_find(f->catalog, bytes_of_string("one"));
    struct points_view *v = NULL;
    struct point_id next;
    float query[5] = {0};
    bool more = true;
    size_t n = 0;
    assert_int_equal(points_view_new(f->store, c, &v), 0);
    assert_int_equal(points_view_count(v), MANY);
    assert_int_equal(points_view_segments(v), stats_of(f).segments);
    struct points_search search = {.query = query, .limit = MANY};
    assert_int_equal(points_view_search(v, &search, hits, &n), 0);
    assert_int_equal(n, MANY);
    for (size_t i = 0; i < n; i++)
        assert_true(hits[i].row.id.low == i && hits[i].row.vectors[0] == (float)version);
    assert_int_equal(points_view_scroll(v, NULL, MANY, rows, &n, &next, &more), 0);
    assert_true(n == MANY && !more);
    for (size_t i = 0; i < n; i++)
        assert_true(rows[i].id.low == i && rows[i].vectors[4] == (float)version);
    points_view_free(v);
    points_collection_unref(c);
}

static void test_overwritten_rows_give_back_their_disk(void **state) {
    (void)state;
    struct fixture f;
    struct sim *sim = begin(&f, 1);
    f.options.segment_rows_max = 256;
    assert_int_equal(fixture_open(&f), 0);
    op_create(&f, 0);
    assert_int_equal(apply_from(&f, 1), 0);
    lsn_t incarnation = f.model[0].incarnation, lsn = f.n_log;
    uint64_t live = MANY * (64 + 5 * sizeof(float) + PAYLOAD), written = 0, worst = 0;
    for (unsigned version = 1; version <= TIMES; version++) {
        for (unsigned i = 0; i < MANY; i++) { /* in another order each time */
            put(&f, incarnation, ++lsn, (i * 7 + version * 131) % MANY, version);
            if (i % 250 == 249) {
                checkpoint(&f);
                while (points_store_build(f.store))
                    ;
            }
        }
        written += live;
        worst = disk(&f).bytes > worst ? disk(&f).bytes : worst;
        if (version % 10 == 0)
            check_versions(&f, version);
    }
    settle(&f);
    uint64_t bytes = disk(&f).bytes;
    struct points_store_stats stats = stats_of(&f);
    print_message("%u bytes live, %u written, at most %u on the disk, %u at the end in %u "
                  "segments; %u merges wrote %u, %u reclaimed\n",
                  (unsigned)live, (unsigned)written, (unsigned)worst, (unsigned)bytes,
                  (unsigned)stats.segments, (unsigned)stats.merges, (unsigned)stats.merged_bytes,
                  (unsigned)stats.reclaimed_bytes);
    assert_true(worst < 3 * live);
    assert_true(bytes < 2 * live);
    assert_true(stats.segments <= 8 * TEST_LANES);
    assert_true(stats.reclaimed_bytes > written / 2 && stats.merges > 0);
    check_versions(&f, TIMES);
    fixture_close(&f);
    assert_int_equal(fixture_open(&f), 0);
    check_versions(&f, TIMES);
    end(&f, sim);
}

/* Segments whose rows are all dead need no merge, and growing ones need not be large. */
static void drop_dead(uint64_t rows_max) {
    struct fixture f;
    struct sim *sim = begin(&f, 2);
    f.options.segment_rows_max = rows_max;
    assert_int_equal(fixture_open(&f), 0);
    op_create(&f, 0);
    for (unsigned i = 0; i < IDS; i++)
        op_upsert(&f, 0, i);
    assert_int_equal(apply_from(&f, 1), 0);
    checkpoint(&f);
    for (unsigned i = 0; i < IDS; i++)
        op_delete(&f, 0, i);
    assert_int_equal(apply_from(&f, IDS + 2), 0);
    checkpoint(&f);
    assert_int_equal(stats_of(&f).segments, 0);
    assert_int_equal(stats_of(&f).merges, 0);
    assert_int_equal(disk(&f).files, 2);
    op_upsert(&f, 0, 3);
    assert_int_equal(apply_from(&f, f.n_log), 0);
    check_whole(&f);
    end(&f, sim);
}

static void test_dead_segments_are_dropped(void **state) {
    (void)state;
    drop_dead(0);
    drop_dead(100 * IDS);
}

/* What is written while a merge is made is as if there had been none. */
static void test_rows_that_die_meanwhile_stay_dead(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct fixture f;
        struct sim *sim = begin(&f, seed);
        assert_int_equal(fixture_open(&f), 0);
        op_create(&f, 1);
        for (unsigned i = 0; i < IDS; i++)
            op_upsert(&f, 1, i);
        for (unsigned i = 0; i < IDS / 2; i++)
            op_upsert(&f, 1, rng_below(&f.rng, IDS));
        assert_int_equal(apply_from(&f, 1), 0);
        checkpoint(&f); /* seals and plans */
        while (points_store_build(f.store))
            ;
        lsn_t before = f.n_log;
        for (unsigned i = 0; i < 12; i++) {
            op_upsert(&f, 1, rng_below(&f.rng, IDS));
            op_delete(&f, 1, rng_below(&f.rng, IDS));
        }
        assert_int_equal(apply_from(&f, before + 1), 0);
        uint64_t merges = stats_of(&f).merges;
        checkpoint(&f);
        assert_true(stats_of(&f).merges > merges);
        check_whole(&f);
        end(&f, sim);
    }
}

/* A view that knows the merged segments finds each point, where it was or where it is now. */
static void test_views_see_through_a_merge(void **state) {
    (void)state;
    struct fixture f;
    struct sim *sim = begin(&f, 3);
    assert_int_equal(fixture_open(&f), 0);
    op_create(&f, 0);
    for (unsigned round = 0; round < 30; round++) {
        lsn_t before = f.n_log;
        struct points_view *v = NULL;
        for (unsigned i = 0; i < IDS; i++)
            op_upsert(&f, 0, rng_below(&f.rng, IDS));
        assert_int_equal(apply_from(&f, round ? before + 1 : 1), 0);
        checkpoint(&f);
        struct points_collection *c = points_catalog_find(f.catalog, bytes_of_string("one"));
        assert_int_equal(points_view_new(f.store, c, &v), 0);
        points_collection_unref(c);
        settle(&f);
        op_delete(&f, 0, round % IDS);
        assert_int_equal(apply_from(&f, f.n_log), 0);
        settle(&f);
        if (round % 2)
            compare_search(v, &f.model[0], &f.rng);
        else
            compare_scroll(v, &f.model[0], &f.rng);
        compare_gets(v, &f.model[0]);
        compare_search(v, &f.model[0], &f.rng);
        points_view_free(v);
    }
    assert_true(stats_of(&f).merges > 10);
    end(&f, sim);
}

/* ---- Bounds ---- */

static void test_too_many_segments_are_merged_away(void **state) {
    (void)state;
    struct fixture f;
    struct sim *sim = begin(&f, 4);
    f.options.segments_max = 4;
    f.options.segment_rows_max = 12;
    assert_int_equal(fixture_open(&f), 0);
    op_create(&f, 0);
    unsigned retries = 0;
    for (unsigned round = 0; round < 40; round++) {
        for (unsigned i = 0; i < IDS; i += 5)
            op_upsert(&f, 0, (i + round) % IDS);
        for (lsn_t at = round ? f.n_log - 9 : 1; at <= f.n_log;) {
            int r = apply_one(&f, &f.log[at - 1]);
            assert_true(r == 0 || r == -EAGAIN);
            at += r == 0;
            retries += r != 0;
            if (r != 0) {
                assert_true(points_store_wants_checkpoint(f.store)); /* or nobody would come */
                settle(&f);
            }
            assert_true(retries < 200);
        }
        compare(&f);
    }
    assert_true(retries > 0);
    check_whole(&f);
    end(&f, sim);
}

/* A merge that the disk has no room for is left for later; nothing else minds. */
static void test_a_full_disk_puts_merges_off(void **state) {
    (void)state;
    struct fixture f;
    struct sim *sim = begin(&f, 5);
    assert_int_equal(fixture_open(&f), 0);
    op_create(&f, 0);
    for (unsigned i = 0; i < 2 * IDS; i++)
        op_upsert(&f, 0, i % IDS);
    assert_int_equal(apply_from(&f, 1), 0);
    for (unsigned i = 0; i < IDS; i += 3)
        op_delete(&f, 0, i);
    assert_int_equal(apply_from(&f, 2 * IDS + 2), 0);
    checkpoint(&f);
    sim_set_space(sim, 0);
    while (points_store_build(f.store)) /* was planned when there was room */
        ;
    assert_true(points_store_checkpoint(f.store, NULL) == 0 || stats_of(&f).merges == 0);
    compare(&f);
    assert_int_equal(stats_of(&f).merges, 0);
    assert_true(stats_of(&f).merges_given_up > 0);
    sim_set_space(sim, UINT64_MAX);
    settle(&f);
    assert_true(stats_of(&f).merges > 0);
    check_whole(&f);
    end(&f, sim);
}

/* ---- Damage ---- */

static void flip_vectors(void *context, const char *name) {
    struct buffer *names = context;
    if (strstr(name, ".vectors"))
        buffer_append(names, name, strlen(name) + 1);
}

/* A damaged row is not made whole by copying it: it is counted, and its file stays. */
static void test_damage_is_not_merged(void **state) {
    (void)state;
    struct fixture f;
    struct sim *sim = begin(&f, 6);
    struct buffer names = BUFFER_INIT;
    assert_int_equal(fixture_open(&f), 0);
    op_create(&f, 0);
    for (unsigned i = 0; i < IDS; i++)
        op_upsert(&f, 0, i);
    assert_int_equal(apply_from(&f, 1), 0);
    checkpoint(&f);
    for (unsigned i = 0; i < IDS; i += 3)
        op_delete(&f, 0, i);
    assert_int_equal(apply_from(&f, IDS + 2), 0);
    checkpoint(&f);
    fixture_close(&f);
    assert_int_equal(os_list(f.os, dir, flip_vectors, &names), 0);
    for (size_t at = 0; at < names.size; at += strlen((char *)names.data + at) + 1) {
        char path[OS_PATH_MAX];
        assert_int_equal(os_path_join(path, dir, "%s", (char *)names.data + at), 0);
        assert_int_equal(sim_flip_bit(sim, path, 7), 0);
    }
    buffer_deinit(&names);
    assert_int_equal(fixture_open(&f), 0);
    settle(&f);
    struct points_store_stats stats = stats_of(&f);
    assert_true(stats.damaged_rows > 0 && stats.points == IDS - IDS / 3);
    struct points_collection *c = points_catalog_find(f.catalog, bytes_of_string("one"));
    struct points_view *v = NULL;
    assert_int_equal(points_view_new(f.store, c, &v), 0);
    for (unsigned i = 0; i < IDS; i++) {
        struct point_row row;
        int r = points_view_get(v, test_id(i), &row);
        assert_true(f.model[0].points[i].there
                        ? r == -EBADMSG || row_equals(&f.model[0], &f.model[0].points[i], &row)
                        : r == POINTS_E_NOT_FOUND);
    }
    points_view_free(v);
    points_collection_unref(c);
    fixture_close(&f);
    struct points_store_report report;
    assert_int_equal(points_store_verify(f.os, dir, NULL, NULL, &report), 0);
    assert_true(report.damaged_rows >= stats.damaged_rows);
    end(&f, sim);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_overwritten_rows_give_back_their_disk),
        cmocka_unit_test(test_dead_segments_are_dropped),
        cmocka_unit_test(test_rows_that_die_meanwhile_stay_dead),
        cmocka_unit_test(test_views_see_through_a_merge),
        cmocka_unit_test(test_too_many_segments_are_merged_away),
        cmocka_unit_test(test_a_full_disk_puts_merges_off),
        cmocka_unit_test(test_damage_is_not_merged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
