/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store against a plain model: random transitions, checkpoints, restarts with and without one;
 * then each promise by itself.
 */
#include "tasks/local/test_fixture.h"

enum { ROUNDS = 40, RECORDS_A_ROUND = 60 };

static void reopen(struct fixture *f) {
    fixture_close(f);
    assert_int_equal(fixture_open(f), 0);
    assert_int_equal(f->report.damages, 0);
    apply_all(f);
}

static void expect_sound(struct fixture *f) {
    struct tasks_store_report found;
    fixture_close(f);
    assert_int_equal(tasks_store_verify(&f->os.os, f->directory, NULL, NULL, &found), 0);
    assert_int_equal(found.damages, 0);
    assert_int_equal(fixture_open(f), 0);
    assert_int_equal(found.queued, f->report.queued);
    assert_int_equal(found.running, f->report.running);
    assert_int_equal(found.tasks, f->report.tasks);
    apply_all(f);
}

/* What may happen between records. */
static void happen(struct fixture *f) {
    unsigned dice = rng_below(&f->rng, 8);
    f->os.wall_us += rng_below(&f->rng, 4) * SECOND_US;
    if (dice == 0) { /* a kill: what was applied since the checkpoint is applied again */
        reopen(f);
    } else if (dice == 1) {
        f->os.full = true;
        assert_int_equal(tasks_store_checkpoint(f->store), -ENOSPC);
        f->os.full = false;
    } else if (dice == 2) {
        expect_sound(f);
    } else if (dice < 6) {
        assert_int_equal(tasks_store_checkpoint(f->store), 0);
        assert_int_equal(tasks_store_position(f->store), f->n_log);
    }
}

static void run_model(uint64_t seed) {
    struct fixture f;
    fixture_init(&f, seed);
    assert_int_equal(fixture_open(&f), 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        log_some(&f, 1 + rng_below(&f.rng, RECORDS_A_ROUND));
        apply_all(&f);
        happen(&f);
        if (i % 3 == 0)
            check_store(&f);
    }
    check_store(&f);
    assert_int_equal(tasks_store_checkpoint(f.store), 0);
    reopen(&f);
    check_store(&f);
    fixture_deinit(&f);
}

static void test_model(void **state UNUSED) {
    const char *seed = getenv("SEED");
    if (seed)
        run_model(strtoull(seed, NULL, 10));
    for (uint64_t i = 1; !seed && i <= 3; i++)
        run_model(i);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
