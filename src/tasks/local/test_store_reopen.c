/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RocksDB's manifest fails while a checkpoint is taken in: queries and the queue go on and are
 * right, with the disk failing still and when it is well again; then checkpoints go on without a
 * restart, and nothing is lost, also when the process dies in between.
 */
#include "tasks/local/test_fixture.h"

#include "keyed/test_faults.h"

enum { RECORDS = 150 };
enum { N_FAULTS = sizeof manifest_faults / sizeof *manifest_faults };

static void make_store(struct fixture *f) {
    fixture_init(f, 7);
    f->options.hot_bytes_max = 4 << 20; /* applying never waits for a checkpoint */
    assert_int_equal(fixture_open(f), 0);
    for (unsigned i = 0; i < 2; i++) {
        log_some(f, RECORDS);
        apply_all(f);
        assert_int_equal(tasks_store_checkpoint(f->store), 0);
    }
}

/* With so many attempts. A fault may be behind what the first one needs. */
static void fail_checkpoints(struct fixture *f, const struct fault *fault, unsigned attempts) {
    unsigned failed = 0;
    faults_begin(fault);
    for (unsigned i = 0; i < attempts; i++) {
        log_some(f, RECORDS);
        apply_all(f);
        failed += tasks_store_checkpoint(f->store) < 0;
        check_store(f);
    }
    faults_end();
    assert_true(attempts < 3 || failed > 0);
}

static void check_what_is_left(struct fixture *f) {
    struct tasks_store_report found;
    fixture_close(f);
    assert_int_equal(fixture_open(f), 0);
    assert_int_equal(f->report.damages, 0);
    apply_all(f);
    check_store(f);
    assert_int_equal(tasks_store_checkpoint(f->store), 0);
    check_store(f);
    fixture_close(f);
    assert_int_equal(tasks_store_verify(&f->os.os, f->directory, NULL, NULL, &found), 0);
    assert_int_equal(found.damages, 0);
}

static void test_heals_without_a_restart(void **state UNUSED) {
    for (unsigned i = 0; i < 2 * N_FAULTS; i++) {
        struct fixture f;
        make_store(&f);
        fail_checkpoints(&f, &manifest_faults[i / 2], i % 2 ? 3 : 1);
        for (unsigned k = 0; k < 3; k++) {
            assert_int_equal(tasks_store_checkpoint(f.store), 0);
            check_store(&f);
            log_some(&f, RECORDS);
            apply_all(&f);
        }
        check_what_is_left(&f);
        fixture_deinit(&f);
    }
}

/* Also when it stops while the database is stuck. */
static void test_stopped_before_it_heals(void **state UNUSED) {
    for (unsigned i = 0; i < N_FAULTS; i++) {
        struct fixture f;
        make_store(&f);
        fail_checkpoints(&f, &manifest_faults[i], 1 + i % 3);
        check_what_is_left(&f);
        fixture_deinit(&f);
    }
}

/* The log and the model, and an empty directory. */
static void log_without_store(struct fixture *f) {
    make_store(f);
    log_some(f, RECORDS);
    fixture_close(f);
    remove_tree(f->directory);
    assert_int_equal(mkdir(f->directory, 0700), 0);
}

/* In a process of its own, as RocksDB's threads do not survive a fork. */
static void NORETURN fail_and_die(struct fixture *f, const struct fault *fault, unsigned attempts) {
    size_t all = f->n_log;
    f->n_log = all / 2;
    assert_int_equal(fixture_open(f), 0);
    apply_all(f);
    assert_int_equal(tasks_store_checkpoint(f->store), 0);
    f->n_log = all;
    apply_all(f);
    faults_begin(fault);
    for (unsigned i = 0; i < attempts; i++) {
        int ignored = tasks_store_checkpoint(f->store);
        (void)ignored;
    }
    _exit(0);
}

static void test_killed_before_it_heals(void **state UNUSED) {
    for (unsigned i = 0; i < 2 * N_FAULTS; i++) {
        struct fixture f;
        int status;
        log_without_store(&f);
        pid_t child = fork();
        if (child == 0)
            fail_and_die(&f, &manifest_faults[i / 2], 1 + i % 2);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        assert_int_equal(fixture_open(&f), 0);
        apply_all(&f);
        check_what_is_left(&f);
        fixture_deinit(&f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heals_without_a_restart),
        cmocka_unit_test(test_stopped_before_it_heals),
        cmocka_unit_test(test_killed_before_it_heals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
