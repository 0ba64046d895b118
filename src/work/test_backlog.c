/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an API sees of workers that come and go: against a group, or a store, whose positions the
 * test sets. The functions of journal/progress.h and watch.h are its own here, and the journal is a
 * local one.
 */
#include "work/backlog.h"

#include "journal/progress.h"
#include "journal/watch.h"
#include "os/sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { PARTITIONS = 3 };
#define SECOND_NS UINT64_C(1000000000)

/* ---- The group and the store ---- */

static struct {
    uint64_t ends[PARTITIONS];
    uint64_t positions[PARTITIONS]; /* the store's, too */
    bool away;
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

static int answer(const uint64_t *offsets, uint64_t *ret_offsets) {
    memcpy(ret_offsets, offsets, PARTITIONS * sizeof *offsets);
    return group.away ? JOURNAL_E_UNAVAILABLE : 0;
}

int progress_ends(struct progress *p UNUSED, uint64_t ret_offsets[GROUP_PARTITIONS_MAX]) {
    return answer(group.ends, ret_offsets);
}

int progress_positions(struct progress *p UNUSED, uint64_t ret_offsets[GROUP_PARTITIONS_MAX]) {
    return answer(group.positions, ret_offsets);
}

/* There is one on Redis. */
int group_watch_new(struct os *os UNUSED, const struct service_url *of, const char *name UNUSED,
                    uint64_t timeout_ms UNUSED, struct group_watch **ret_watch) {
    *ret_watch = strcmp(of->scheme, "redis") == 0 ? (struct group_watch *)&group : NULL;
    return 0;
}

struct group_watch *group_watch_free(struct group_watch *w UNUSED) {
    return NULL;
}

int group_watch_count(struct group_watch *w UNUSED, const lsn_t *positions,
                      uint64_t *ret_messages) {
    *ret_messages = 0;
    for (unsigned p = 0; p < PARTITIONS; p++)
        *ret_messages += group.ends[p] - positions[p];
    return 0;
}

static int position(void *store UNUSED, unsigned partition, lsn_t *ret_lsn) {
    *ret_lsn = group.positions[partition];
    return group.away ? JOURNAL_E_UNAVAILABLE : 0;
}

/* ---- The rig ---- */

static struct sim *sim;
static struct journal *journal;
static struct backlog *backlog;
static struct service_url url;

static int start(const char *text) {
    const struct journal_options options = {.no_thread = true};
    const char *wrong;
    char why[GROUP_WHY_MAX];
    memset(&group, 0, sizeof group);
    if (!service_url_parse(text, &url, &wrong) || sim_new(1, &sim) ||
        journal_open(sim_os(sim), "/journal", &options, &journal, NULL))
        return -1;
    const struct backlog_options of = {
        .url = &url, .name = "events", .journal = journal, .position = position};
    if (backlog_new(sim_os(sim), &of, &backlog, why))
        return -1;
    backlog_look(backlog);
    return 0;
}

static int start_on_kafka(void **state UNUSED) {
    return start("kafka://one/?partitions=3");
}

static int start_on_redis(void **state UNUSED) {
    return start("redis://one/?partitions=3");
}

static int start_on_rabbitmq(void **state UNUSED) {
    return start("amqp://one/?partitions=3");
}

static int stop(void **state UNUSED) {
    backlog = backlog_free(backlog);
    journal = journal_close(journal);
    sim = sim_free(sim);
    return 0;
}

static void append(unsigned n) {
    struct journal_record record = {.kind = JOURNAL_KIND_EVENTS, .payload = BYTES_LITERAL("x")};
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(journal_append(journal, &record, 1), 0);
    assert_int_equal(journal_commit(journal), 0);
}

static struct backlog_status look_after(unsigned seconds) {
    struct backlog_status status;
    os_sleep_ns(sim_os(sim), seconds * SECOND_NS);
    backlog_look(backlog);
    backlog_status(backlog, &status);
    return status;
}

static void assert_warns(struct backlog_status status, const char *expected) {
    char text[BACKLOG_TEXT_MAX] = "";
    assert_int_equal(backlog_warning(&status, text), expected != NULL);
    if (expected)
        assert_string_equal(text, expected);
}

/* ---- Tests ---- */

static void test_what_waits_is_counted_whoever_wrote_it(void **state UNUSED) {
    assert_warns(look_after(100), NULL);
    group.ends[0] = 1200;
    group.ends[2] = 3;
    struct backlog_status status = look_after(1);
    assert_true(status.known && status.messages);
    assert_int_equal(status.waiting, 1203);
    assert_warns(status, NULL);
    look_after(0);
    status = look_after(42);
    assert_warns(status,
                 "no worker has applied anything for 43 s: 1203 messages of the journal wait");
    group.positions[0] = 7; /* somebody is at work */
    status = look_after(5);
    assert_int_equal(status.waiting, 1196);
    assert_warns(status, NULL);
    group.positions[0] = 1200;
    group.positions[2] = 3;
    assert_int_equal(look_after(5).waiting, 0);
    assert_warns(look_after(500), NULL);
}

static void test_elsewhere_what_was_written_here_is_known_to_wait(void **state UNUSED) {
    append(2);
    assert_warns(look_after(1), NULL);
    append(1);
    struct backlog_status status = look_after(41);
    assert_false(status.messages);
    assert_warns(status, "no worker has applied anything for 42 s: 3 records of this process wait");
    group.positions[1] = 9;
    assert_warns(look_after(1), NULL);
    assert_warns(look_after(500), NULL);
    append(1);
    assert_warns(look_after(1), NULL); /* nothing waited in those */
}

static void test_who_does_not_answer_is_not_judged(void **state UNUSED) {
    append(1);
    look_after(1);
    group.away = true;
    struct backlog_status status = look_after(100);
    assert_false(status.known);
    assert_warns(status, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_waits_is_counted_whoever_wrote_it, start_on_kafka,
                                        stop),
        cmocka_unit_test_setup_teardown(test_what_waits_is_counted_whoever_wrote_it, start_on_redis,
                                        stop),
        cmocka_unit_test_setup_teardown(test_elsewhere_what_was_written_here_is_known_to_wait,
                                        start_on_rabbitmq, stop),
        cmocka_unit_test_setup_teardown(test_who_does_not_answer_is_not_judged, start_on_rabbitmq,
                                        stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
