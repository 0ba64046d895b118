/* SPDX-License-Identifier: Apache-2.0 */
/* The runner with real worker processes: what becomes of tasks when all goes well, and when workers
 * die, hang, are stopped; every task gets one end. */
#include "tasks/test_rig.h"

#include <sys/stat.h>

static const char endless[] = "{\"total\":1000000000,\"step\":1,\"pace_ms\":5}";

static void test_empty_tasks_end(void **state) {
    (void)state;
    enum { N = 3000 };
    static struct task_id ids[N];
    struct rig g;
    rig_open(&g, 2);
    rig_start_runner(&g);
    uint64_t start_ns = os_monotonic_ns(os_real());
    for (size_t i = 0; i < N; i++)
        ids[i] = rig_add_task(&g, "long_task", "{\"total\":0}");
    for (size_t i = 0; i < N; i++) {
        struct seen s = rig_wait(&g, ids[i], TASK_SUCCEEDED);
        assert_int_equal(s.attempts, 1);
        assert_string_equal(s.result, "{\"counted\":0}");
    }
    uint64_t passed_us = (os_monotonic_ns(os_real()) - start_ns) / 1000;
    print_message("%d empty tasks, %" PRIu64 " a second\n", N, N * UINT64_C(1000000) / passed_us);
    assert_int_equal(rig_metric(&g, "millrace_task_worker_deaths_total"), 0);
    assert_int_equal(rig_metric(&g, "millrace_task_run_seconds_count{type=\"long_task\"}"), N);
    assert_true(rig_metric(&g, "millrace_task_worker_starts_total") >= 1);
    assert_true(rig_metric(&g, "millrace_task_workers") >= 1);
    WAIT_FOR(rig_metric(&g, "millrace_task_workers_busy") == 0);
    rig_close(&g);
}

static void test_unknown_types_and_failures(void **state) {
    (void)state;
    struct rig g;
    rig_open(&g, 1);
    rig_start_runner(&g);
    struct task_id unknown = rig_add_task(&g, "no_such", "{}");
    struct seen s = rig_wait(&g, unknown, TASK_FAILED);
    assert_int_equal(s.attempts, 1); /* trying again would be in vain */
    assert_string_equal(s.error, "there is no handler of this type: no_such");
    rig_close(&g);
}

static void test_a_killed_worker(void **state) {
    (void)state;
    struct rig g;
    rig_open(&g, 1);
    rig_start_runner(&g);
    struct task_id id = rig_add_task(&g, "long_task", "{\"total\":400,\"step\":1,\"pace_ms\":5}");
    uint64_t current = rig_wait_progress(&g, id, 1);
    struct seen s = rig_wait_attempt(&g, id, 1);
    assert_int_equal(kill(s.worker, SIGKILL), 0);
    s = rig_wait_attempt(&g, id, 2);
    assert_int_equal(s.deaths, 1);
    assert_true(s.current >= current); /* it goes on from there */
    s = rig_wait(&g, id, TASK_SUCCEEDED);
    assert_int_equal(s.attempts, 2);
    assert_string_equal(s.result, "{\"counted\":400}");
    assert_int_equal(rig_metric(&g, "millrace_task_worker_deaths_total"), 1);
    assert_int_equal(rig_status(&g).died, 1);
    rig_close(&g);
}

static void test_three_deaths(void **state) {
    (void)state;
    struct rig g;
    rig_open(&g, 1);
    rig_start_runner(&g);
    struct task_id id = rig_add_task(&g, "long_task", endless);
    for (uint32_t attempt = 1; attempt <= TASK_DEATHS_MAX; attempt++)
        assert_int_equal(kill(rig_wait_attempt(&g, id, attempt).worker, SIGKILL), 0);
    struct seen s = rig_wait(&g, id, TASK_FAILED);
    assert_int_equal(s.attempts, TASK_DEATHS_MAX);
    assert_int_equal(s.deaths, TASK_DEATHS_MAX);
    assert_string_equal(s.error, "its worker was ended by SIGKILL");
    rig_close(&g);
}

/* A worker paused past its lease neither progresses nor ends its task when it is woken. */
static void test_a_worker_that_sleeps(void **state) {
    (void)state;
    struct rig g;
    rig_open(&g, 2);
    g.options.lease_ms = 1000;
    rig_start_runner(&g);
    struct task_id id = rig_add_task(&g, "long_task", "{\"total\":100,\"step\":1,\"pace_ms\":5}");
    (void)rig_wait_progress(&g, id, 1);
    pid_t worker = rig_wait_attempt(&g, id, 1).worker;
    assert_int_equal(kill(worker, SIGSTOP), 0);
    struct seen s = rig_wait_attempt(&g, id, 2);
    assert_int_equal(s.deaths, 1);
    assert_string_equal(s.error, "its worker was silent for 1000 ms, and was killed");
    WAIT_FOR(process_is_gone(worker));
    s = rig_wait(&g, id, TASK_SUCCEEDED);
    assert_int_equal(s.attempts, 2);
    rig_close(&g);
}

static void test_cancelled_while_running(void **state) {
    (void)state;
    struct rig g;
    rig_open(&g, 1);
    rig_start_runner(&g);
    struct task_id id = rig_add_task(&g, "long_task", endless);
    pid_t worker = rig_wait_attempt(&g, id, 1).worker;
    rig_cancel(&g, id);
    (void)rig_wait(&g, id, TASK_CANCELLED);
    WAIT_FOR(rig_status(&g).busy == 0); /* the same worker goes on */
    struct task_id next = rig_add_task(&g, "long_task", "{\"total\":1}");
    assert_int_equal(rig_wait(&g, next, TASK_SUCCEEDED).worker, worker);
    assert_int_equal(rig_status(&g).died, 0);
    struct seen s = rig_wait(&g, id, TASK_CANCELLED);
    assert_int_equal(s.attempts, 1);
    rig_close(&g);
}

static void test_cancelled_while_queued(void **state) {
    (void)state;
    struct rig g;
    rig_open(&g, 1);
    rig_start_runner(&g);
    struct task_id running = rig_add_task(&g, "long_task", endless);
    (void)rig_wait_attempt(&g, running, 1);
    struct task_id waiting = rig_add_task(&g, "long_task", "{\"total\":1}");
    struct task_id later =
        rig_add(&g, (struct task_request){.type = BYTES_LITERAL("long_task"),
                                          .run_at_us = os_wall_us(os_real()) + 3600000000});
    rig_cancel(&g, waiting);
    rig_cancel(&g, later);
    assert_int_equal(rig_wait(&g, waiting, TASK_CANCELLED).attempts, 0);
    assert_int_equal(rig_wait(&g, later, TASK_CANCELLED).attempts, 0);
    rig_cancel(&g, running);
    struct task_id next = rig_add_task(&g, "long_task", "{\"total\":1}");
    (void)rig_wait(&g, next, TASK_SUCCEEDED);
    assert_int_equal(rig_wait(&g, waiting, TASK_CANCELLED).attempts, 0);
    rig_close(&g);
}

/* One that does not return when it is told to stop. */
static void test_a_worker_that_hangs_is_killed(void **state) {
    (void)state;
    struct rig g;
    rig_open(&g, 1);
    rig_start_runner(&g);
    struct task_id id = rig_add_task(&g, "long_task", endless);
    pid_t worker = rig_wait_attempt(&g, id, 1).worker;
    assert_int_equal(kill(worker, SIGSTOP), 0);
    rig_cancel(&g, id);
    (void)rig_wait(&g, id, TASK_CANCELLED);
    WAIT_FOR(process_is_gone(worker));
    struct task_id next = rig_add_task(&g, "long_task", "{\"total\":1}");
    (void)rig_wait(&g, next, TASK_SUCCEEDED);
    struct seen s = rig_wait(&g, id, TASK_CANCELLED);
    assert_int_equal(s.attempts, 1);
    assert_int_equal(s.deaths, 0);
    rig_close(&g);
}

static void test_out_of_time(void **state) {
    (void)state;
    struct rig g;
    rig_open(&g, 1);
    rig_start_runner(&g);
    struct task_id id = rig_add(&g, (struct task_request){.type = BYTES_LITERAL("long_task"),
                                                          .args = bytes_of_string(endless),
                                                          .timeout_ms = 50,
                                                          .max_retries = 1});
    struct seen s = rig_wait(&g, id, TASK_FAILED);
    assert_int_equal(s.attempts, 2);
    assert_int_equal(s.failures, 2);
    assert_string_equal(s.error, "timed out after 50 ms");
    assert_int_equal(rig_status(&g).died, 0);
    rig_close(&g);
}

/* Tasks behind one that takes long are called back, and others run them. */
static void test_what_was_handed_ahead_comes_back(void **state) {
    (void)state;
    enum { WARM = 400, N = 40 };
    struct task_id ids[WARM];
    struct rig g;
    rig_open(&g, 2);
    g.options.workers_min = 2;
    rig_start_runner(&g);
    for (size_t i = 0; i < WARM; i++) /* by which both learn that tasks are short */
        ids[i] = rig_add_task(&g, "long_task", "{\"total\":0}");
    for (size_t i = 0; i < WARM; i++)
        (void)rig_wait(&g, ids[i], TASK_SUCCEEDED);
    struct task_id slow = rig_add_task(&g, "long_task", endless);
    for (size_t i = 0; i < N; i++)
        ids[i] = rig_add_task(&g, "long_task", "{\"total\":0}");
    for (size_t i = 0; i < N; i++)
        assert_int_equal(rig_wait(&g, ids[i], TASK_SUCCEEDED).attempts, 1);
    assert_int_equal(rig_wait(&g, slow, TASK_RUNNING).attempts, 1);
    rig_close(&g);
}

static void test_stop_releases(void **state) {
    (void)state;
    struct rig g;
    rig_open(&g, 1);
    rig_start_runner(&g);
    struct task_id id = rig_add_task(&g, "long_task", "{\"total\":200,\"step\":1,\"pace_ms\":5}");
    uint64_t current = rig_wait_progress(&g, id, 1);
    (void)rig_wait(&g, id, TASK_RUNNING);
    rig_stop_runner(&g, RIG_GRACE_MS);
    struct seen s = rig_wait(&g, id, TASK_QUEUED);
    assert_int_equal(s.attempts, 1);
    assert_true(s.saved > 0 && s.current >= current);
    assert_int_equal(s.failures + s.deaths, 0);
    rig_start_runner(&g);
    s = rig_wait(&g, id, TASK_SUCCEEDED);
    assert_int_equal(s.attempts, 2);
    assert_string_equal(s.result, "{\"counted\":200}");
    rig_close(&g);
}

static void test_stop_kills_what_does_not_stop(void **state) {
    (void)state;
    struct rig g;
    rig_open(&g, 1);
    rig_start_runner(&g);
    struct task_id id = rig_add_task(&g, "long_task", endless);
    pid_t worker = rig_wait_attempt(&g, id, 1).worker;
    assert_int_equal(kill(worker, SIGSTOP), 0);
    rig_stop_runner(&g, 10);
    assert_true(process_is_gone(worker));
    struct seen s = rig_wait(&g, id, TASK_QUEUED);
    assert_int_equal(s.attempts, 1);
    assert_int_equal(s.deaths, 0);
    rig_close(&g);
}

static void test_start_releases_what_ran(void **state) {
    (void)state;
    struct rig g;
    rig_open(&g, 1);
    struct task_id id = rig_add_task(&g, "long_task", "{\"total\":3}");
    rig_append(&g, &(struct task_record){.op = TASK_OP_START,
                                         .id = id,
                                         .attempt = 1,
                                         .worker = BYTES_LITERAL("elsewhere:1")});
    (void)rig_wait(&g, id, TASK_RUNNING);
    rig_start_runner(&g);
    struct seen s = rig_wait(&g, id, TASK_SUCCEEDED);
    assert_int_equal(s.attempts, 2);
    rig_close(&g);
}

/* What ended the task elsewhere makes the attempt under way void. */
static void test_fenced(void **state) {
    (void)state;
    struct rig g;
    rig_open(&g, 1);
    rig_start_runner(&g);
    struct task_id id = rig_add_task(&g, "long_task", endless);
    (void)rig_wait_progress(&g, id, 1);
    (void)rig_wait(&g, id, TASK_RUNNING);
    rig_append(&g, &(struct task_record){.op = TASK_OP_END,
                                         .id = id,
                                         .attempt = 1,
                                         .outcome = TASK_OUTCOME_SUCCEEDED,
                                         .text = BYTES_LITERAL("{}")});
    WAIT_FOR(rig_status(&g).busy == 0); /* by its next SAVE, which does not fit */
    struct seen s = rig_wait(&g, id, TASK_SUCCEEDED);
    assert_int_equal(s.attempts, 1);
    assert_string_equal(s.result, "{}");
    rig_close(&g);
}

/* It dies before it has said a word, but not before it was given a task. */
static void test_a_program_that_does_not_start(void **state) {
    (void)state;
    struct rig g;
    char program[128];
    rig_open(&g, 1);
    snprintf(program, sizeof program, "%s/program", g.directory);
    assert_int_equal(
        os_replace(os_real(), program, BYTES_LITERAL("#!/bin/sh\nsleep 0.2\nexit 3\n")), 0);
    assert_int_equal(chmod(program, 0700), 0);
    g.options.program = program;
    rig_start_runner(&g);
    struct task_id id = rig_add_task(&g, "long_task", "{\"total\":0}");
    WAIT_FOR(rig_metric(&g, "millrace_task_worker_deaths_total") >= 2);
    struct seen s = rig_wait(&g, id, TASK_QUEUED);
    assert_int_equal(s.attempts, 0); /* the task is not to blame */
    rig_stop_runner(&g, 0);
    g.options.program = NULL;
    rig_start_runner(&g);
    (void)rig_wait(&g, id, TASK_SUCCEEDED);
    rig_close(&g);
}

static void test_workers_follow_the_queue(void **state) {
    (void)state;
    struct rig g;
    struct task_id ids[3];
    rig_open(&g, 3);
    rig_start_runner(&g);
    for (size_t i = 0; i < ARRAY_LENGTH(ids); i++)
        ids[i] = rig_add_task(&g, "long_task", endless);
    for (size_t i = 0; i < ARRAY_LENGTH(ids); i++)
        (void)rig_wait(&g, ids[i], TASK_RUNNING);
    assert_int_equal(rig_status(&g).workers, 3);
    assert_false(rig_status(&g).stalled);
    rig_close(&g);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_tasks_end),
        cmocka_unit_test(test_unknown_types_and_failures),
        cmocka_unit_test(test_a_killed_worker),
        cmocka_unit_test(test_three_deaths),
        cmocka_unit_test(test_a_worker_that_sleeps),
        cmocka_unit_test(test_cancelled_while_running),
        cmocka_unit_test(test_cancelled_while_queued),
        cmocka_unit_test(test_a_worker_that_hangs_is_killed),
        cmocka_unit_test(test_out_of_time),
        cmocka_unit_test(test_what_was_handed_ahead_comes_back),
        cmocka_unit_test(test_stop_releases),
        cmocka_unit_test(test_stop_kills_what_does_not_stop),
        cmocka_unit_test(test_start_releases_what_ran),
        cmocka_unit_test(test_fenced),
        cmocka_unit_test(test_a_program_that_does_not_start),
        cmocka_unit_test(test_workers_follow_the_queue),
    };
    return rig_main(argc, argv, tests, ARRAY_LENGTH(tests));
}
