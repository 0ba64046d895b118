/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store on a disk that fails. A run is random records with checkpoints and reopenings; it is
 *
 *   cut      by a power failure at every change of the disk: what the journal holds is replayed
 *            from the positions found, and the store must say what the model says;
 *   killed   likewise, with what was written kept;
 *   failed   at every single call, with each kind of error: the run goes on, nothing is lost, and
 *            the next checkpoint without a fault succeeds.
 *
 * Each test ends with a line that says which run was its last: the one that failed, if one did.
 * MILLRACE_SEEDS=n takes at most the first n seeds of each test.
 */
#include "points/local/test_fixture.h"

#include "os/sim.h"

static const char dir[] = "/data/points";
enum { OPS = 90, SEEDS = 12, COLUMNS_OF_A_SEGMENT = 3 };

/* The run under way; the test's state. */
struct last {
    unsigned runs;
    uint64_t merges;
    uint64_t seed;
    uint64_t nth;
    int error;
};

static int setup(void **state) {
    *state = calloc(1, sizeof(struct last));
    return *state ? 0 : -1;
}

static int teardown(void **state) {
    const struct last *last = *state;
    print_message("%u runs, %u merges; the last: seed %u, number %u, error %d\n", last->runs,
                  (unsigned)last->merges, (unsigned)last->seed, (unsigned)last->nth, last->error);
    free(*state);
    return 0;
}

static void note(struct last *last, uint64_t seed, uint64_t nth, int error) {
    *last = (struct last){
        .runs = last->runs + 1, .merges = last->merges, .seed = seed, .nth = nth, .error = error};
}

struct sim_run {
    struct last *last;
    struct sim *sim;
    struct fixture f;
};

static void run_init(struct sim_run *run, struct last *last, uint64_t seed) {
    run->last = last;
    assert_int_equal(sim_new(seed, &run->sim), 0);
    fixture_init(&run->f, sim_os(run->sim), dir, seed);
    if (seed % 2)
        fixture_press(&run->f);
    run->f.options.segment_rows_max = 5; /* many, so that many are merged */
}

static void run_deinit(struct sim_run *run) {
    fixture_close(&run->f);
    run->last->merges += run->f.merges;
    fixture_deinit(&run->f);
    sim_free(run->sim);
}

/* A start: opens, checks, replays. */
static int start(struct fixture *f) {
    int r = fixture_open(f);
    if (r)
        return r;
    assert_int_equal(f->report.damaged_rows, 0);
    assert_int_equal(f->report.damaged_manifests, 0);
    return replay(f);
}

/* The run: the same steps whatever the disk does, as far as the disk lets it. stop: at the first
 * error; otherwise errors are lived with, as serve does. */
static int run_steps(struct fixture *f, bool stop) {
    int r = start(f);
    if (r && stop)
        return r;
    for (unsigned i = 0; i < OPS; i++) {
        op_random(f);
        unsigned dice = rng_below(&f->rng, 24);
        if (!f->store) /* did not open: again */
            r = start(f);
        else
            r = apply_from(f, f->n_log);
        if (!r && dice <= 2)
            r = points_store_checkpoint(f->store, NULL);
        if (f->store && dice >= 10)
            (void)points_store_build(f->store);
        if (!r && dice == 3) {
            fixture_close(f);
            r = start(f);
        }
        if (r && stop)
            return r;
        if (r && f->store && r != -EAGAIN) { /* what was not applied is, at the next start */
            fixture_close(f);
            r = start(f);
            if (r)
                fixture_close(f);
        }
    }
    return 0;
}

/* After the fault: the store opens, replays, agrees with the model, and goes on. */
static void check_healed(struct fixture *f) {
    fixture_close(f);
    assert_int_equal(start(f), 0);
    compare(f);
    pass_all(f);
    assert_int_equal(points_store_checkpoint(f->store, NULL), 0);
    compare(f);
    fixture_close(f);
    assert_int_equal(fixture_open(f), 0);
    assert_int_equal(f->report.damaged_rows + f->report.damaged_manifests, 0);
    compare(f); /* without replay: all of it was persisted */
}

enum end { END_CUT, END_KILL };

/* Returns false when the run ended before the nth change. */
static bool crash_run(struct last *last, uint64_t seed, uint64_t nth, enum end end) {
    struct sim_run run;
    run_init(&run, last, seed);
    sim_set_faults(run.sim, &(struct sim_faults){.crash_at = nth});
    int r = run_steps(&run.f, true);
    bool crashed = sim_faulted(run.sim);
    assert_int_equal(r != 0, crashed);
    fixture_close(&run.f);
    if (end == END_CUT)
        sim_power_cut(run.sim);
    else
        sim_kill(run.sim);
    sim_set_faults(run.sim, NULL);
    check_healed(&run.f);
    run_deinit(&run);
    return crashed;
}

static uint64_t seeds_of(uint64_t all) {
    const char *text = getenv("MILLRACE_SEEDS");
    uint64_t given = text ? strtoull(text, NULL, 10) : all;
    return given < all ? given : all;
}

static void crash_everywhere(struct last *last, enum end end) {
    uint64_t seeds = seeds_of(SEEDS);
    for (uint64_t seed = 1; seed <= seeds; seed++)
        for (uint64_t nth = 1;; nth++) {
            note(last, seed, nth, 0);
            if (!crash_run(last, seed, nth, end))
                break;
        }
    assert_true(last->runs > seeds * 50);
    assert_true(last->merges > last->runs / 4);
}

static void test_power_cut_at_every_change(void **state) {
    crash_everywhere(*state, END_CUT);
}

static void test_kill_at_every_change(void **state) {
    crash_everywhere(*state, END_KILL);
}

static bool fail_run(struct last *last, uint64_t seed, uint64_t nth, int error) {
    struct sim_run run;
    run_init(&run, last, seed);
    sim_set_faults(run.sim, &(struct sim_faults){.fail_at = nth, .fail_error = error});
    assert_int_equal(run_steps(&run.f, false), 0);
    bool faulted = sim_faulted(run.sim);
    sim_set_faults(run.sim, NULL);
    if (!run.f.store)
        assert_int_equal(start(&run.f), 0);
    compare(&run.f);
    pass_all(&run.f);
    assert_int_equal(points_store_checkpoint(run.f.store, NULL), 0);
    fixture_close(&run.f);
    sim_power_cut(run.sim); /* what a checkpoint says is persisted stays, whatever failed before */
    sim_set_faults(run.sim, NULL);
    assert_int_equal(fixture_open(&run.f), 0);
    assert_int_equal(run.f.report.damaged_rows + run.f.report.damaged_manifests, 0);
    compare(&run.f);
    run_deinit(&run);
    return faulted;
}

/* With each kind of error; where only one seed is taken, with one of them, by turns. */
static void test_every_call_fails_once(void **state) {
    enum { CALL_SEEDS = 2 };
    static const int errors[] = {-EIO, OS_E_FULL, OS_E_INTERRUPTED, -ENOMEM};
    uint64_t seeds = seeds_of(CALL_SEEDS), step = seeds < CALL_SEEDS ? ARRAY_LENGTH(errors) : 1;
    for (unsigned e = 0; e < ARRAY_LENGTH(errors); e++)
        for (uint64_t seed = 1; seed <= seeds; seed++)
            for (uint64_t nth = step == 1 ? 1 : e + 1;; nth += step) {
                note(*state, seed, nth, errors[e]);
                if (!fail_run(*state, seed, nth, errors[e]))
                    break;
            }
}

/* While the disk refuses everything, reads and applies go on; then all heals without a restart. */
static void test_a_refusing_disk_heals(void **state) {
    static const int errors[] = {-EIO, OS_E_FULL};
    for (uint64_t seed = 1; seed <= seeds_of(20); seed++)
        for (unsigned e = 0; e < ARRAY_LENGTH(errors); e++) {
            struct sim_run run;
            note(*state, seed, 0, errors[e]);
            run_init(&run, *state, seed);
            struct fixture *f = &run.f;
            assert_int_equal(start(f), 0);
            for (unsigned i = 0; i < 300; i++) {
                op_random(f);
                assert_int_equal(apply_from(f, f->n_log), 0);
                bool refuse = i / 50 % 2;
                struct sim_faults faults = {.refuse_error = refuse ? errors[e] : 0};
                if (i % 50 == 0)
                    sim_set_faults(run.sim, &faults);
                if (i % 7 == 3)
                    (void)points_store_build(f->store);
                if (i % 7 == 0) {
                    int r = points_store_checkpoint(f->store, NULL);
                    assert_true(refuse ? r < 0 : r == 0);
                    compare(f);
                }
            }
            sim_set_faults(run.sim, NULL);
            assert_int_equal(points_store_checkpoint(f->store, NULL), 0);
            compare(f);
            fixture_close(f);
            sim_power_cut(run.sim);
            assert_int_equal(start(f), 0);
            compare(f);
            run_deinit(&run);
        }
}

static void count_second_generation(void *context, const char *name) {
    const char *generation = strrchr(name, '-');
    *(unsigned *)context += generation && strncmp(generation, "-1.", 3) == 0;
}

/* A file whose sync failed is not gone on with (invariant 7). */
static void test_a_failed_sync_gives_up_the_file(void **state) {
    struct sim_run run;
    unsigned anew = 0;
    note(*state, 1, 0, -EIO);
    run_init(&run, *state, 1);
    assert_int_equal(start(&run.f), 0);
    op_create(&run.f, 0);
    for (unsigned i = 0; i < 100; i++)
        op_upsert(&run.f, 0, i % IDS);
    assert_int_equal(apply_from(&run.f, 1), 0);
    assert_int_equal(points_store_checkpoint(run.f.store, NULL), 0);
    for (unsigned i = 0; i < 30; i++)
        op_upsert(&run.f, 0, i);
    assert_int_equal(apply_from(&run.f, 102), 0);
    sim_set_faults(run.sim, &(struct sim_faults){.refuse_error = -EIO});
    assert_true(points_store_checkpoint(run.f.store, NULL) < 0);
    sim_set_faults(run.sim, NULL);
    assert_int_equal(points_store_checkpoint(run.f.store, NULL), 0);
    assert_int_equal(os_list(run.f.os, dir, count_second_generation, &anew), 0);
    assert_true(anew >= COLUMNS_OF_A_SEGMENT);
    compare(&run.f);
    run_deinit(&run);
}

static void test_short_transfers(void **state) {
    for (uint64_t seed = 1; seed <= seeds_of(10); seed++) {
        struct sim_run run;
        note(*state, seed, 0, 0);
        run_init(&run, *state, seed);
        sim_set_faults(run.sim, &(struct sim_faults){.short_transfers = true});
        assert_int_equal(run_steps(&run.f, true), 0);
        compare(&run.f);
        check_healed(&run.f);
        run_deinit(&run);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_power_cut_at_every_change, setup, teardown),
        cmocka_unit_test_setup_teardown(test_kill_at_every_change, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_call_fails_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_refusing_disk_heals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_failed_sync_gives_up_the_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_short_transfers, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
