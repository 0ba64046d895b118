/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A shared journal whose engine goes and comes back while nobody writes, or just did: beside an
 * engine that does what the test says.
 */
#include "journal/remote/shared.h"

#include "os/sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { PARTITIONS = 2 };
#define SECOND_NS UINT64_C(1000000000)

/* ---- The engine ---- */

static struct {
    struct shared_writer writer;
    int delivers; /* what a delivery ends with */
    int answers;  /* and a probe */
    unsigned probes;
    unsigned deliveries;
} engine;

static int open_writer(struct os *os UNUSED, const struct log_options *options UNUSED,
                       struct shared_writer **ret_writer) {
    *ret_writer = &engine.writer;
    return 0;
}

static void close_writer(struct shared_writer *w UNUSED) {
}

static int deliver(struct shared_writer *w, struct shared_message *messages UNUSED,
                   size_t n UNUSED) {
    engine.deliveries++;
    return engine.delivers ? log_fail(w->why, engine.delivers, "it hung up") : 0;
}

static int probe(struct shared_writer *w, uint64_t timeout_ms) {
    assert_true(timeout_ms > 0);
    engine.probes++;
    return engine.answers ? log_fail(w->why, engine.answers, "it is away") : 0;
}

static const struct shared_writer_ops writer_ops = {
    .open = open_writer, .close = close_writer, .deliver = deliver, .probe = probe};
static const struct shared_driver driver = {.writer = &writer_ops};

const struct shared_driver *shared_driver_find(const struct service_url *url UNUSED) {
    return &driver;
}

int shared_check_url(const struct service_url *url UNUSED, char why[LOG_WHY_MAX] UNUSED) {
    return 0;
}

unsigned journal_url_partitions(const struct service_url *url UNUSED) {
    return PARTITIONS;
}

bool journal_url_is_shared(const struct service_url *url UNUSED) {
    return true;
}

/* ---- The rig ---- */

static struct sim *sim;
static struct journal *journal;

static int start(void **state UNUSED) {
    static const struct service_url url;
    const struct journal_options options = {.url = &url, .name = "events", .no_thread = true};
    memset(&engine, 0, sizeof engine);
    engine.writer.ops = &writer_ops;
    return sim_new(1, &sim) || journal_open(sim_os(sim), "", &options, &journal, NULL) ? -1 : 0;
}

static int stop(void **state UNUSED) {
    journal = journal_close(journal);
    sim = sim_free(sim);
    return 0;
}

static int append_one(lsn_t *ret_lsn) {
    struct journal_record record = {.kind = JOURNAL_KIND_EVENTS, .payload = BYTES_LITERAL("one")};
    int r = journal_append(journal, &record, 1);
    *ret_lsn = record.lsn;
    return r;
}

/* What the journal's thread does when nothing comes for a second. */
static void idle(void) {
    os_sleep_ns(sim_os(sim), SECOND_NS);
    assert_int_equal(journal_commit(journal), 0);
}

/* ---- Tests ---- */

static void test_an_engine_that_left_while_nobody_wrote_is_known(void **state UNUSED) {
    lsn_t lsn;
    idle();
    assert_int_equal(engine.probes, 1);
    assert_int_equal(journal_state(journal), JOURNAL_OK);
    engine.answers = LOG_E_UNAVAILABLE;
    idle();
    assert_int_equal(journal_state(journal), JOURNAL_REFUSING);
    assert_string_equal(journal_state_text(journal), "it is away");
    assert_int_equal(append_one(&lsn), JOURNAL_E_UNAVAILABLE);
    engine.answers = 0;
    idle();
    assert_int_equal(journal_state(journal), JOURNAL_OK);
    assert_int_equal(append_one(&lsn), 0);
    idle();
    assert_int_equal(engine.deliveries, 1);
    assert_int_equal(journal_durable(journal), lsn);
}

/* One write ends so, and no second. */
static void test_after_an_unknown_end_nothing_is_taken_before_an_answer(void **state UNUSED) {
    lsn_t lsn, other;
    engine.delivers = LOG_E_UNKNOWN;
    engine.answers = LOG_E_UNAVAILABLE;
    assert_int_equal(append_one(&lsn), 0);
    assert_int_equal(journal_commit(journal), 0);
    assert_int_equal(journal_unknown(journal), lsn);
    assert_int_equal(engine.probes, 1); /* at once */
    assert_int_equal(append_one(&other), JOURNAL_E_UNAVAILABLE);
    engine.delivers = engine.answers = 0;
    idle();
    assert_int_equal(append_one(&other), 0);
    assert_int_equal(journal_commit(journal), 0);
    assert_int_equal(journal_unknown(journal), lsn);
}

/* Who writes shows by himself whether it is there. */
static void test_who_writes_is_not_held_up_by_questions(void **state UNUSED) {
    lsn_t lsn;
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(append_one(&lsn), 0);
        os_sleep_ns(sim_os(sim), SECOND_NS / 2);
        assert_int_equal(journal_commit(journal), 0);
    }
    assert_int_equal(engine.probes, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_an_engine_that_left_while_nobody_wrote_is_known, start,
                                        stop),
        cmocka_unit_test_setup_teardown(test_after_an_unknown_end_nothing_is_taken_before_an_answer,
                                        start, stop),
        cmocka_unit_test_setup_teardown(test_who_writes_is_not_held_up_by_questions, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
