/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an API knows of the workers that apply its records, against a group whose positions and ends
 * the test sets: the functions of journal/progress.h are its own here. The journal is a local one.
 */
#include "work/follow.h"

#include "os/sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { PARTITIONS = 3, PATIENCE_MS = 20000 };
#define MS_NS UINT64_C(1000000)

/* ---- The group and the journal ---- */

static struct {
    _Atomic uint64_t ends[PARTITIONS];
    _Atomic uint64_t positions[PARTITIONS];
    atomic_bool away;
    atomic_uint questions;
} group;

int progress_open(struct os *os UNUSED, const struct service_url *url UNUSED,
                  const char *name UNUSED, uint64_t timeout_ms UNUSED,
                  struct progress **ret_progress, char why[GROUP_WHY_MAX] UNUSED) {
    *ret_progress = (struct progress *)&group;
    return 0;
}

struct progress *progress_close(struct progress *p UNUSED) {
    return NULL;
}

unsigned progress_partitions(const struct progress *p UNUSED) {
    return PARTITIONS;
}

static int answer(const _Atomic uint64_t *offsets, uint64_t *ret_offsets) {
    atomic_fetch_add(&group.questions, 1);
    if (atomic_load(&group.away))
        return JOURNAL_E_UNAVAILABLE;
    for (unsigned p = 0; p < PARTITIONS; p++)
        ret_offsets[p] = atomic_load(&offsets[p]);
    return 0;
}

int progress_ends(struct progress *p UNUSED, uint64_t ret_offsets[GROUP_PARTITIONS_MAX]) {
    return answer(group.ends, ret_offsets);
}

int progress_positions(struct progress *p UNUSED, uint64_t ret_offsets[GROUP_PARTITIONS_MAX]) {
    return answer(group.positions, ret_offsets);
}

/* ---- The rig ---- */

static struct sim *sim;
static struct journal *journal;
static struct follow *follow;
static atomic_bool told;

static int start(void **state) {
    (void)state;
    char why[GROUP_WHY_MAX];
    for (unsigned p = 0; p < PARTITIONS; p++) {
        atomic_store(&group.ends[p], 0);
        atomic_store(&group.positions[p], 0);
    }
    atomic_store(&group.away, false);
    atomic_store(&told, false);
    const struct journal_options options = {.no_thread = true};
    struct journal_recovery found;
    if (sim_new(1, &sim) || journal_open(sim_os(sim), "/journal", &options, &journal, &found))
        return -1;
    return follow_new(os_real(), journal, NULL, "points", &follow, why) || follow_start(follow);
}

static int stop(void **state) {
    (void)state;
    follow = follow_free(follow);
    journal = journal_close(journal);
    sim = sim_free(sim);
    return 0;
}

/* Until so many records are durable, the last of them at the end of the partition. */
static void append(lsn_t lsn, unsigned partition, uint64_t end) {
    atomic_store(&group.ends[partition], end);
    while (journal_durable(journal) < lsn) {
        struct journal_record record = {.kind = JOURNAL_KIND_POINTS, .payload = BYTES_LITERAL("x")};
        assert_int_equal(journal_append(journal, &record, 1), 0);
        assert_int_equal(journal_commit(journal), 0);
    }
}

/* As a loop that waits for lsn 9 in the first two lanes: any lane may have moved. */
static void on_visible(struct work_listener *listener) {
    atomic_store(&listener->wanted, 9);
    if (work_visible(follow_work(follow), 3, 9) && !atomic_exchange(&told, true))
        atomic_store(&listener->wanted, UINT64_MAX);
}

static bool becomes_visible(uint64_t lanes, lsn_t lsn) {
    for (unsigned ms = 0; ms < PATIENCE_MS; ms++) {
        if (work_visible(follow_work(follow), lanes, lsn))
            return true;
        os_sleep_ns(os_real(), MS_NS);
    }
    return false;
}

static void await_questions(unsigned more) {
    unsigned wanted = atomic_load(&group.questions) + more;
    for (unsigned ms = 0; ms < PATIENCE_MS && atomic_load(&group.questions) < wanted; ms++)
        os_sleep_ns(os_real(), MS_NS);
    assert_true(atomic_load(&group.questions) >= wanted);
}

/* ---- Tests ---- */

static void test_a_write_is_visible_once_its_partition_has_come_up_to_it(void **state) {
    (void)state;
    static struct work_listener listener = {.visible = on_visible};
    struct work *work = follow_work(follow);
    append(7, 0, 3);
    append(9, 1, 5);
    atomic_store(&listener.wanted, 9);
    work_listen(work, &listener);
    assert_false(work_visible(work, 1, 7));
    await_questions(6); /* the ends are known, and no position has come up to them */
    assert_false(work_visible(work, 1, 7));
    atomic_store(&group.positions[0], 3);
    assert_true(becomes_visible(1, 9));
    assert_false(work_visible(work, 3, 9));
    append(12, 1, 6); /* of somebody who came later */
    await_questions(4);
    assert_false(work_visible(work, 3, 9));
    atomic_store(&group.positions[1], 5);
    for (unsigned ms = 0; ms < PATIENCE_MS && !atomic_load(&told); ms++)
        os_sleep_ns(os_real(), MS_NS);
    assert_true(work_visible(work, 3, 9));
    assert_false(work_visible(work, 2, 12));
}

static bool never(const void *context UNUSED) {
    return false;
}
static bool at_once(const void *context UNUSED) {
    return true;
}

static uint64_t in_ms(uint64_t ms) {
    return os_monotonic_ns(os_real()) + ms * MS_NS;
}

static int settle(uint64_t within_ms) {
    return follow_settle(follow, in_ms(within_ms), never, NULL);
}

static void test_settling_waits_for_all_partitions(void **state) {
    (void)state;
    append(7, 2, 4);
    assert_int_equal(settle(20), JOURNAL_E_TIMEOUT);
    assert_int_equal(follow_settle(follow, in_ms(PATIENCE_MS), at_once, NULL), JOURNAL_E_TIMEOUT);
    atomic_store(&group.positions[2], 3);
    assert_int_equal(settle(20), JOURNAL_E_TIMEOUT);
    atomic_store(&group.positions[2], 4);
    assert_int_equal(settle(PATIENCE_MS), 0);
}

static void answer_again(void *context UNUSED) {
    await_questions(3);
    atomic_store(&group.away, false);
}

static void test_settling_asks_again_an_engine_that_does_not_answer(void **state) {
    (void)state;
    struct os_thread *thread;
    atomic_store(&group.away, true);
    assert_int_equal(settle(20), JOURNAL_E_UNAVAILABLE);
    assert_int_equal(os_thread_start(os_real(), "engine", answer_again, NULL, &thread), 0);
    assert_int_equal(settle(PATIENCE_MS), 0);
    os_thread_join(os_real(), thread);
}

static void test_nobody_is_asked_while_nobody_waits(void **state) {
    (void)state;
    append(7, 0, 1);
    atomic_store(&group.positions[0], 1);
    assert_true(becomes_visible(1, 7));
    unsigned questions = atomic_load(&group.questions);
    os_sleep_ns(os_real(), 300 * MS_NS);
    assert_true(atomic_load(&group.questions) <= questions + 2); /* the look that was under way */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            test_a_write_is_visible_once_its_partition_has_come_up_to_it, start, stop),
        cmocka_unit_test_setup_teardown(test_settling_waits_for_all_partitions, start, stop),
        cmocka_unit_test_setup_teardown(test_settling_asks_again_an_engine_that_does_not_answer,
                                        start, stop),
        cmocka_unit_test_setup_teardown(test_nobody_is_asked_while_nobody_waits, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
