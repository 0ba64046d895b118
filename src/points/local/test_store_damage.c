/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Damage: any flipped bit of any file is found and named by verify, counted, and costs at most the
 * row that it is in, the letter that it is in, or one copy of the manifest; nothing false is ever
 * given back, and no good data goes. Likewise a file that was cut short or is gone.
 */
#include "points/local/test_fixture.h"

#include "os/file.h"
#include "os/sim.h"

static const char dir[] = "/data/points";
enum { POINTS = 60, FILES_MAX = 64 };

struct store_files {
    size_t n;
    char names[FILES_MAX][64];
    uint64_t sizes[FILES_MAX];
};

static void note_file(void *context, const char *name) {
    struct store_files *files = context;
    assert_true(files->n < FILES_MAX && strlen(name) < sizeof files->names[0]);
    snprintf(files->names[files->n++], sizeof files->names[0], "%s", name);
}

static void path_of(char out[OS_PATH_MAX], const char *name) {
    assert_int_equal(os_path_join(out, dir, "%s", name), 0);
}

static void list_files(struct os *os, struct store_files *files) {
    *files = (struct store_files){0};
    assert_int_equal(os_list(os, dir, note_file, files), 0);
    for (size_t i = 0; i < files->n; i++) {
        char path[OS_PATH_MAX];
        struct os_file *file = NULL;
        path_of(path, files->names[i]);
        assert_int_equal(os_open(os, path, OS_OPEN_READ, &file), 0);
        assert_int_equal(os_size(os, file, &files->sizes[i]), 0);
        os_close(os, file);
    }
}

/* A closed store with sealed and growing segments, deleted rows and one dead letter. */
static void build(struct sim **ret_sim, struct fixture *f) {
    assert_int_equal(sim_new(1, ret_sim), 0);
    fixture_init(f, sim_os(*ret_sim), dir, 1);
    assert_int_equal(fixture_open(f), 0);
    op_create(f, 0);
    op_create(f, 1);
    for (unsigned i = 0; i < 4 * POINTS; i++)
        op_upsert(f, i % NAMES, rng_below(&f->rng, IDS));
    for (unsigned i = 0; i < 12; i++)
        op_delete(f, i % NAMES, i);
    struct buffer junk = BUFFER_INIT;
    buffer_append_string(&junk, "no record at all");
    log_append(f, &junk, 0, false);
    assert_int_equal(apply_from(f, 1), 0);
    assert_int_equal(points_store_checkpoint(f->store, NULL), 0);
    fixture_close(f);
}

static void count_sentence(void *context, const char *sentence) {
    assert_true(strlen(sentence) > 10);
    ++*(unsigned *)context;
}

static uint64_t found_by_verify(struct fixture *f, unsigned *ret_sentences) {
    struct points_store_report report;
    *ret_sentences = 0;
    assert_int_equal(points_store_verify(f->os, dir, count_sentence, ret_sentences, &report), 0);
    return report.damaged_rows + report.damaged_manifests + report.damaged_letters;
}

/* How many points of the model are not served as they were; none may be served otherwise. */
static unsigned lost_points(struct fixture *f) {
    unsigned lost = 0;
    for (unsigned name = 0; name < NAMES; name++) {
        const struct model_collection *c = &f->model[name];
        struct points_collection *found =
            points_catalog_find(f->catalog, bytes_of_string(test_name(name)));
        struct points_view *v = NULL;
        struct point_row rows[IDS];
        struct point_id next;
        bool more = false;
        size_t n = 0, there = 0;
        assert_int_equal(points_view_new(f->store, found, &v), 0);
        for (unsigned i = 0; i < IDS; i++) {
            int r = points_view_get(v, test_id(i), &rows[0]);
            assert_true(r == 0 || r == POINTS_E_NOT_FOUND || r == -EBADMSG);
            there += r == 0;
            lost += c->points[i].there && r != 0;
            assert_true(r || (c->points[i].there && row_equals(c, &c->points[i], &rows[0])));
        }
        assert_int_equal(points_view_scroll(v, NULL, IDS, rows, &n, &next, &more), 0);
        assert_int_equal(n, there);
        float query[FLOATS_MAX] = {0};
        struct points_hit hits[IDS];
        struct points_search search = {.query = query, .limit = IDS};
        assert_int_equal(points_view_search(v, &search, hits, &n), 0);
        for (size_t k = 0; k < n; k++)
            assert_true(row_equals(c, &c->points[hits[k].row.id.low], &hits[k].row));
        points_view_free(v);
        points_collection_unref(found);
    }
    return lost;
}

static void flip_and_look(uint64_t file, uint64_t bit) {
    struct sim *sim;
    struct fixture f;
    struct store_files files;
    char path[OS_PATH_MAX];
    unsigned sentences;
    build(&sim, &f);
    list_files(f.os, &files);
    assert_int_equal(found_by_verify(&f, &sentences), 0);
    assert_int_equal(sentences, 0);
    file %= files.n;
    path_of(path, files.names[file]);
    assert_int_equal(sim_flip_bit(sim, path, bit % (files.sizes[file] * 8)), 0);
    assert_int_equal(found_by_verify(&f, &sentences), 1);
    assert_int_equal(sentences, 1);
    assert_int_equal(fixture_open(&f), 0);
    unsigned lost = lost_points(&f);
    bool of_rows = strncmp(files.names[file], "MANIFEST", 8) != 0 &&
                   strncmp(files.names[file], "DEAD", 4) != 0;
    assert_true(lost <= (of_rows ? 1 : 0));
    struct points_store_stats stats;
    points_store_stats(f.store, &stats);
    assert_true(stats.damaged_rows >= lost && stats.damaged_rows <= 1);
    fixture_deinit(&f);
    sim_free(sim);
}

static void test_any_flipped_bit_is_found(void **state) {
    (void)state;
    for (uint64_t i = 0; i < 600; i++)
        flip_and_look(i, hash64_u64(i));
}

/* A damaged point can be written again, and is whole then. */
static void test_damaged_points_can_be_replaced(void **state) {
    (void)state;
    struct sim *sim;
    struct fixture f;
    struct store_files files;
    build(&sim, &f);
    list_files(f.os, &files);
    for (size_t i = 0; i < files.n; i++) {
        char path[OS_PATH_MAX];
        path_of(path, files.names[i]);
        for (uint64_t bit = 3; strchr(files.names[i], '-') && bit < 8 * files.sizes[i]; bit += 500)
            assert_int_equal(sim_flip_bit(sim, path, bit), 0);
    }
    assert_int_equal(fixture_open(&f), 0);
    assert_true(lost_points(&f) > 10);
    for (unsigned i = 0; i < NAMES * IDS; i++)
        op_upsert(&f, i % NAMES, i / NAMES);
    assert_int_equal(replay(&f), 0);
    compare(&f);
    assert_int_equal(points_store_checkpoint(f.store, NULL), 0);
    fixture_close(&f);
    assert_int_equal(fixture_open(&f), 0);
    compare(&f);
    fixture_deinit(&f);
    sim_free(sim);
}

static void test_cut_and_missing_files(void **state) {
    (void)state;
    for (size_t i = 0;; i++) {
        struct sim *sim;
        struct fixture f;
        struct store_files files;
        struct os_file *file = NULL;
        char path[OS_PATH_MAX];
        unsigned sentences;
        build(&sim, &f);
        list_files(f.os, &files);
        bool done = i == 2 * files.n;
        if (!done) {
            path_of(path, files.names[i / 2]);
            if (i % 2) {
                assert_int_equal(os_remove(f.os, path), 0);
            } else {
                assert_int_equal(os_open(f.os, path, OS_OPEN_WRITE, &file), 0);
                assert_int_equal(os_truncate(f.os, file, files.sizes[i / 2] / 2), 0);
                os_close(f.os, file);
            }
            found_by_verify(&f, &sentences);
            bool copy_is_gone = i % 2 && strncmp(files.names[i / 2], "MANIFEST", 8) == 0;
            assert_true(sentences > 0 || copy_is_gone);
            assert_int_equal(fixture_open(&f), 0);
            lost_points(&f);
        }
        fixture_deinit(&f);
        sim_free(sim);
        if (done)
            break;
    }
}

static void test_both_manifests_damaged(void **state) {
    (void)state;
    struct sim *sim;
    struct fixture f;
    struct store_files before, after;
    unsigned sentences = 0;
    struct points_store_report report;
    build(&sim, &f);
    list_files(f.os, &before);
    assert_int_equal(sim_flip_bit(sim, "/data/points/MANIFEST", 100), 0);
    assert_int_equal(sim_flip_bit(sim, "/data/points/MANIFEST.copy", 200), 0);
    assert_int_equal(fixture_open(&f), -EPROTO);
    assert_int_equal(points_store_verify(f.os, dir, count_sentence, &sentences, &report), -EPROTO);
    assert_int_equal(sentences, 1);
    list_files(f.os, &after);
    assert_memory_equal(&before.n, &after.n, sizeof before.n); /* nothing was taken for garbage */
    fixture_deinit(&f);
    sim_free(sim);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_flipped_bit_is_found),
        cmocka_unit_test(test_damaged_points_can_be_replaced),
        cmocka_unit_test(test_cut_and_missing_files),
        cmocka_unit_test(test_both_manifests_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
