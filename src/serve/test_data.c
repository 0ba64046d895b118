/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The data directory: what opening says when something is in the way, and that what was appended is
 * there again after closing, with and without a checkpoint. On the simulated system.
 */
#include "serve/data.h"

#include "os/sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

struct fixture {
    struct sim *sim;
    struct os *os;
    struct metrics *metrics;
    struct problem problem;
    struct data *data;
};

static const char directory[] = "/data";
static const struct data_options options = {
    .directory = directory,
    .journal = {.segment_bytes = 64 << 10, .no_thread = true},
    .no_keyed = true,
};

static int setup(void **state) {
    static struct fixture f;
    f = (struct fixture){0};
    if (sim_new(1, &f.sim) || metrics_new(&f.metrics))
        return -1;
    f.os = sim_os(f.sim);
    *state = &f;
    return 0;
}

static int teardown(void **state) {
    struct fixture *f = *state;
    data_close(f->data);
    metrics_free(f->metrics);
    sim_free(f->sim);
    return 0;
}

static int open_data(struct fixture *f) {
    return data_open(f->os, &options, f->metrics, &f->data, &f->problem);
}

static void close_data(struct fixture *f) {
    f->data = data_close(f->data);
}

static void assert_says(const struct fixture *f, const char *words) {
    if (!strstr(f->problem.text, words))
        fail_msg("\"%s\" does not say \"%s\"", f->problem.text, words);
}

static void test_second_opening_is_refused(void **state) {
    struct fixture *f = *state;
    struct data *other;
    assert_int_equal(open_data(f), 0);
    assert_int_equal(data_open(f->os, &options, f->metrics, &other, &f->problem), SERVE_E_IN_USE);
    assert_says(f, "/data is in use by another millrace (pid ");
    close_data(f);
    assert_int_equal(open_data(f), 0);
}

static void test_a_lock_whose_owner_is_gone_is_waited_for(void **state) {
    struct fixture *f = *state;
    static const char gone[] = "4194305\n"; /* above the highest number of a process */
    struct os_file *file;
    assert_int_equal(os_make_path(f->os, directory), 0);
    assert_int_equal(os_open(f->os, "/data/LOCK", OS_OPEN_WRITE | OS_OPEN_CREATE, &file), 0);
    assert_int_equal(os_write_all(f->os, file, gone, sizeof gone - 1, 0), 0);
    assert_int_equal(os_lock(f->os, file), 0);
    uint64_t begun_ns = os_monotonic_ns(f->os);
    assert_int_equal(open_data(f), SERVE_E_IN_USE);
    assert_says(f, "(pid 4194305)");
    assert_true(os_monotonic_ns(f->os) - begun_ns >= 5000000000u);
    os_close(f->os, file);
    assert_int_equal(open_data(f), 0);
}

static void write_format(struct fixture *f, const char *text) {
    assert_int_equal(os_make_path(f->os, directory), 0);
    assert_int_equal(os_replace(f->os, "/data/FORMAT", bytes_of_string(text)), 0);
}

static void test_versions(void **state) {
    struct fixture *f = *state;
    write_format(f, "millrace-data 2\n");
    assert_int_equal(open_data(f), SERVE_E_PROBLEM);
    assert_says(f, "newer millrace (format 2, this one knows 1)");
    write_format(f, "something else");
    assert_int_equal(open_data(f), SERVE_E_PROBLEM);
    assert_says(f, "is not what millrace wrote");
    write_format(f, "");
    assert_int_equal(open_data(f), SERVE_E_PROBLEM);
    write_format(f, "millrace-data 1\n");
    assert_int_equal(open_data(f), 0);
}

static void test_tools_need_a_data_directory(void **state) {
    struct fixture *f = *state;
    struct os_file *lock;
    assert_int_equal(data_lock(f->os, "/nowhere", &lock, &f->problem), SERVE_E_PROBLEM);
    assert_says(f, "/nowhere is not a data directory");
    assert_int_equal(open_data(f), 0);
    assert_int_equal(data_lock(f->os, directory, &lock, &f->problem), SERVE_E_IN_USE);
    assert_says(f, "in use");
    close_data(f);
    assert_int_equal(data_lock(f->os, directory, &lock, &f->problem), 0);
    os_close(f->os, lock);
}

static void test_full_disk(void **state) {
    struct fixture *f = *state;
    int r;
    for (uint64_t space = 0;; space += 512) { /* full at any step */
        sim_set_space(f->sim, space);
        r = open_data(f);
        if (!r)
            break;
        assert_int_equal(r, SERVE_E_PROBLEM);
        assert_says(f, "no space left");
        assert_true(space < 1 << 20);
    }
}

/* Every call may fail: opening then says one sentence, and works once the fault is gone. */
static void test_every_failure_is_a_sentence(void **state) {
    struct fixture *f = *state;
    for (uint64_t n = 1;; n++) {
        sim_set_faults(f->sim,
                       &(struct sim_faults){.fail_at = sim_calls(f->sim) + n, .fail_error = -5});
        f->problem.text[0] = '\0';
        int r = open_data(f);
        bool faulted = sim_faulted(f->sim);
        sim_set_faults(f->sim, &(struct sim_faults){0});
        if (r) {
            assert_int_equal(r, SERVE_E_PROBLEM);
            assert_true(f->problem.text[0]);
        }
        close_data(f);
        if (!faulted)
            break;
        assert_true(n < 10000);
    }
    assert_int_equal(open_data(f), 0);
}

/* ---- Contents ---- */

static void create_collection(struct fixture *f) {
    struct point_config config = {.n_vectors = 1};
    lsn_t lsn;
    int condition;
    config.vectors[0].dimension = 2;
    point_config_finish(&config);
    assert_int_equal(points_catalog_create(f->data->catalog, f->data->journal, BYTES_LITERAL("c"),
                                           &config, &lsn, &condition),
                     0);
}

static void add_point(struct fixture *f, uint64_t number) {
    struct buffer bytes CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct points_collection *c = points_catalog_find(f->data->catalog, BYTES_LITERAL("c"));
    const struct point_id id = {.low = number};
    const float vector[2] = {1, (float)number};
    int condition;
    assert_non_null(c);
    point_record_encode_upsert(&bytes, c->incarnation, id, 1, vector, 2, BYTES_LITERAL("{}"));
    struct journal_record record = {.key_hash = point_key_hash(c->incarnation, id),
                                    .kind = JOURNAL_KIND_POINTS,
                                    .payload = buffer_bytes(&bytes)};
    assert_int_equal(
        points_catalog_append(f->data->catalog, f->data->journal, c, &record, 1, &condition), 0);
    points_collection_unref(c);
}

static uint64_t count_points(struct fixture *f) {
    struct points_collection *c = points_catalog_find(f->data->catalog, BYTES_LITERAL("c"));
    struct points_view *view;
    assert_non_null(c);
    assert_int_equal(points_view_new(f->data->points, c, &view), 0);
    uint64_t n = points_view_count(view);
    points_view_free(view);
    points_collection_unref(c);
    return n;
}

static uint64_t pinned_bytes(struct fixture *f) {
    struct work_status status;
    work_status(f->data->stores[DATA_POINTS].work, &status);
    return status.pinned_bytes;
}

static void test_contents_come_back(void **state) {
    struct fixture *f = *state;
    assert_int_equal(open_data(f), 0);
    create_collection(f);
    for (uint64_t i = 0; i < 30; i++)
        add_point(f, i);
    assert_int_equal(journal_commit(f->data->journal), 0);
    assert_int_equal(work_catch_up(f->data->stores[DATA_POINTS].work, NULL, NULL), 0);
    assert_true(pinned_bytes(f) > 0);
    assert_int_equal(data_checkpoint(f->data, DATA_POINTS), 0);
    assert_int_equal(pinned_bytes(f), 0);
    for (uint64_t i = 20; i < 50; i++) /* some of them again, none persisted by a checkpoint */
        add_point(f, i);
    assert_int_equal(journal_commit(f->data->journal), 0);
    assert_int_equal(work_catch_up(f->data->stores[DATA_POINTS].work, NULL, NULL), 0);
    assert_int_equal(count_points(f), 50);
    close_data(f);
    for (int i = 0; i < 2; i++) { /* once by replay, once from the checkpoint alone */
        assert_int_equal(open_data(f), 0);
        assert_int_equal(f->data->ahead, 0);
        assert_int_equal(work_catch_up(f->data->stores[DATA_POINTS].work, NULL, NULL), 0);
        assert_int_equal(count_points(f), 50);
        assert_int_equal(data_checkpoint(f->data, DATA_POINTS), 0);
        close_data(f);
    }
}

/* A checkpoint may fail after its manifest was saved, at a file that cannot be removed: what it
 * persisted is not kept in the journal any longer. */
static void test_retention_follows_what_is_persisted(void **state) {
    struct fixture *f = *state;
    bool after_manifest = false, faulted = true;
    assert_int_equal(open_data(f), 0);
    create_collection(f);
    for (uint64_t n = 1; faulted; n++) {
        lsn_t positions[WORK_LANES_MAX] = {0}, lsn;
        int condition;
        for (uint64_t i = 0; i < 30; i++)
            add_point(f, i);
        assert_int_equal(journal_commit(f->data->journal), 0);
        assert_int_equal(work_catch_up(f->data->stores[DATA_POINTS].work, NULL, NULL), 0);
        assert_int_equal(data_checkpoint(f->data, DATA_POINTS), 0);
        assert_int_equal(points_catalog_drop(f->data->catalog, f->data->journal, NULL,
                                             BYTES_LITERAL("c"), &lsn, &condition),
                         0);
        create_collection(f);
        assert_int_equal(journal_commit(f->data->journal), 0);
        assert_int_equal(work_catch_up(f->data->stores[DATA_POINTS].work, NULL, NULL), 0);
        sim_set_faults(f->sim, &(struct sim_faults){.fail_at = n, .fail_error = -EIO});
        int r = data_checkpoint(f->data, DATA_POINTS);
        faulted = sim_faulted(f->sim);
        sim_set_faults(f->sim, &(struct sim_faults){0});
        points_store_positions(f->data->points, positions);
        bool persisted = positions[0] == journal_durable(f->data->journal);
        assert_true(r || persisted);
        assert_int_equal(pinned_bytes(f) == 0, persisted);
        after_manifest |= r && persisted;
    }
    assert_true(after_manifest);
}

static void say_nothing(void *context, const char *sentence UNUSED) {
    ++*(uint64_t *)context;
}

static void test_verify(void **state) {
    struct fixture *f = *state;
    struct data_findings findings;
    uint64_t said = 0;
    test_contents_come_back(state);
    assert_int_equal(data_verify(f->os, directory, say_nothing, &said, &findings, &f->problem), 0);
    assert_int_equal(findings.points.points, 50);
    assert_int_equal(sim_flip_bit(f->sim, "/data/points/MANIFEST", 100), 0);
    assert_int_equal(data_verify(f->os, directory, say_nothing, &said, &findings, &f->problem),
                     SERVE_E_DAMAGE);
    assert_true(said > 0 && findings.damages == said);
}

/* Invariant 2: the journal is lost, the store is not; its lsns are not given again. */
static void remove_journal(void *context, const char *name) {
    struct fixture *f = context;
    char path[OS_PATH_MAX];
    assert_int_equal(os_path_join(path, "/data/journal", "%s", name), 0);
    assert_int_equal(os_remove(f->os, path), 0);
}

static void test_a_store_ahead_of_the_journal_is_noticed(void **state) {
    struct fixture *f = *state;
    test_contents_come_back(state);
    assert_int_equal(os_list(f->os, "/data/journal", remove_journal, f), 0);
    assert_int_equal(open_data(f), 0);
    assert_true(f->data->ahead >= 61);
    assert_int_equal(work_catch_up(f->data->stores[DATA_POINTS].work, NULL, NULL), 0);
    assert_int_equal(count_points(f), 50);
    add_point(f, 99);
    assert_true(journal_appended(f->data->journal) > f->data->ahead);
    assert_int_equal(journal_commit(f->data->journal), 0);
    assert_int_equal(work_catch_up(f->data->stores[DATA_POINTS].work, NULL, NULL), 0);
    assert_int_equal(count_points(f), 51);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_second_opening_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_lock_whose_owner_is_gone_is_waited_for, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_versions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tools_need_a_data_directory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_disk, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_failure_is_a_sentence, setup, teardown),
        cmocka_unit_test_setup_teardown(test_contents_come_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_retention_follows_what_is_persisted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_verify, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_store_ahead_of_the_journal_is_noticed, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
