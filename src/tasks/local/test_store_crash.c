/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process is killed while it applies and checkpoints; the next one opens what is there, replays
 * from the position, and must agree with the model: each transition has its effect once, whenever
 * the moment was. Each life is a process of its own, as RocksDB's threads do not survive a fork.
 */
#include "tasks/local/test_fixture.h"

#include <signal.h>

enum { LIVES = 10, RECORDS_A_LIFE = 300, LIFE_US_MAX = 60000 };

/* Applies the log piece by piece, with a checkpoint after each; ends by being killed. */
static void NORETURN live(struct fixture *f) {
    size_t all = f->n_log;
    if (fixture_open(f) != 0)
        _exit(3);
    for (f->n_log = 0;; f->n_log = f->n_log + 40 < all ? f->n_log + 40 : all) {
        apply_all(f);
        if (tasks_store_checkpoint(f->store) != 0)
            _exit(4);
    }
}

static void live_and_die(struct fixture *f) {
    int status;
    pid_t child = fork();
    if (child == 0)
        live(f);
    usleep(1000 + rng_below(&f->rng, LIFE_US_MAX));
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* In a process of its own; an assertion that fails there ends it with another status. */
static void check_what_is_left(struct fixture *f) {
    int status;
    pid_t child = fork();
    if (child == 0) {
        struct tasks_store_report found;
        assert_int_equal(fixture_open(f), 0);
        apply_all(f);
        check_store(f);
        fixture_close(f);
        assert_int_equal(tasks_store_verify(&f->os.os, f->directory, NULL, NULL, &found), 0);
        assert_int_equal(found.damages, 0);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static struct task_id next_id(struct fixture *f) {
    uint64_t n = f->n_log + 1;
    return (struct task_id){.key = (TEST_START_US / 1000 + n) << 16 | 0x7000,
                            .low = UINT64_C(1) << 63 | n};
}

/* The store is open in no process of ours, so ids are made here. */
static void log_some_without_store(struct fixture *f, size_t n) {
    for (; n > 0; n--) {
        struct task_record r = {.op = TASK_OP_CREATE,
                                .id = next_id(f),
                                .request = {.type = bytes_of_string(TYPE_NAMES[n % TYPES]),
                                            .priority = (uint8_t)(n % TASK_PRIORITIES),
                                            .args = BYTES_LITERAL("{\"a\":1}")}};
        if (f->n_letters > 0 && rng_below(&f->rng, 40) == 0)
            log_some_letter(f);
        else if (f->n_tasks == 0 || rng_below(&f->rng, 4) == 0)
            log_record(f, &r);
        else
            log_some_op(f);
    }
}

static void test_killed_at_any_moment(void **state UNUSED) {
    const char *seed = getenv("SEED");
    struct fixture f;
    fixture_init(&f, seed ? strtoull(seed, NULL, 10) : 1);
    for (unsigned i = 0; i < LIVES; i++) {
        log_some_without_store(&f, RECORDS_A_LIFE);
        live_and_die(&f);
        check_what_is_left(&f);
    }
    fixture_deinit(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed_at_any_moment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
