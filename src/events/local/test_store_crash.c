/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process is killed while it applies and checkpoints; the next one opens what is there, replays
 * from the lanes' positions, and must agree with the model: each tag has its effect once, whenever
 * the moment was. Each life is a process of its own, as RocksDB's threads do not survive a fork.
 */
#include "events/local/test_fixture.h"

#include <signal.h>

enum { LIVES = 12, TAGS_A_LIFE = 400, LIFE_US_MAX = 60000 };

/* Applies the log piece by piece, with a checkpoint after each; ends by being killed. */
static void NORETURN live(struct fixture *f) {
    size_t all = f->n_log;
    if (fixture_open(f) != 0)
        _exit(3);
    for (size_t upto = 0;; upto = upto + 50 < all ? upto + 50 : all) {
        for (unsigned lane = 0; lane < events_store_lanes(f->store); lane++)
            apply_lane(f, lane, upto);
        if (events_store_checkpoint(f->store, NULL) != 0)
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
        struct events_store_report found;
        assert_int_equal(fixture_open(f), 0);
        apply_all(f);
        check_store(f);
        fixture_close(f);
        assert_int_equal(events_store_verify(f->os, f->directory, NULL, NULL, &found), 0);
        assert_int_equal(found.damages, 0);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_killed_at_any_moment(void **state) {
    (void)state;
    const char *seed = getenv("SEED");
    struct fixture f;
    fixture_init(&f, seed ? strtoull(seed, NULL, 10) : 1, 3);
    for (unsigned i = 0; i < LIVES; i++) {
        for (unsigned n = 0; n < TAGS_A_LIFE; n++)
            log_tag(&f, some_cookie(&f), some_tag(&f), false);
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
