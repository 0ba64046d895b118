/* SPDX-License-Identifier: Apache-2.0 */
/* Applying the records of a shared journal: to a sink that notes what it is sent, and answers as
 * the test says. */
#include "points/shared.h"

#include "os/sim.h"
#include "points/home.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { RECORDS_MAX = 64 };

static struct {
    unsigned calls;
    unsigned sent;
    char name[POINT_NAME_MAX + 1]; /* of the newest call */
    struct points_sink_answer answer;
    bool has;
    bool has_answers;
} sink_state;

static int on_send(void *context UNUSED, const struct points_sink_batch *batch,
                   struct points_sink_answer *ret_answer) {
    sink_state.calls++;
    *ret_answer = sink_state.answer;
    if (ret_answer->outcome == WORK_OK)
        sink_state.sent += (unsigned)batch->n;
    memcpy(sink_state.name, batch->collection->name, sizeof sink_state.name);
    return 0;
}

static bool on_has(void *context UNUSED, const struct points_collection *c UNUSED, bool *ret_has) {
    *ret_has = sink_state.has;
    return sink_state.has_answers;
}

static const struct points_sink sink = {.send = on_send, .has = on_has};

/* ---- The rig ---- */

static struct sim *sim;
static struct points_shared *shared;
static struct buffer payloads[RECORDS_MAX];
static struct journal_record records[RECORDS_MAX];
static const struct journal_record *batch[RECORDS_MAX];
static size_t n;

static int start(void **state) {
    (void)state;
    const struct points_shared_options options = {.sink = &sink};
    memset(&sink_state, 0, sizeof sink_state);
    n = 0;
    if (sim_new(1, &sim) || points_shared_new(sim_os(sim), &options, &shared))
        return -1;
    points_shared_until(shared, UINT64_MAX);
    return 0;
}

static int stop(void **state) {
    (void)state;
    for (size_t i = 0; i < n; i++)
        buffer_deinit(&payloads[i]);
    shared = points_shared_free(shared);
    sim = sim_free(sim);
    return 0;
}

static struct point_config config_of(uint32_t dimension) {
    struct point_config config = {.n_vectors = 1, .vectors = {{.dimension = dimension}}};
    point_config_finish(&config);
    return config;
}

static void add(const char *name, uint32_t dimension, uint64_t id) {
    static const float floats[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    const struct point_config config = config_of(dimension);
    struct bytes text = bytes_of_string(name);
    payloads[n] = BUFFER_INIT;
    point_home_encode(&payloads[n], text, &config);
    point_record_encode_upsert(&payloads[n], point_home_incarnation(text),
                               (struct point_id){.low = id}, 1, floats, dimension,
                               BYTES_LITERAL("{}"));
    records[n] = (struct journal_record){.lsn = n + 1, .payload = buffer_bytes(&payloads[n])};
    batch[n] = &records[n];
    n++;
}

static struct work_verdict apply(void) {
    struct work_verdict verdict;
    assert_int_equal(points_shared_work_ops.apply(shared, 0, batch, n, &verdict), 0);
    return verdict;
}

/* ---- Tests ---- */

static void test_a_home_says_where_a_record_belongs(void **state) {
    (void)state;
    struct point_config config;
    struct bytes home, rest, name;
    add("movies", 4, 7);
    struct bytes payload = records[0].payload;
    assert_true(point_home_split(payload, &home, &rest));
    assert_true(point_home_decode(home, &name, &config));
    assert_true(bytes_equal(name, BYTES_LITERAL("movies")));
    assert_int_equal(config.vectors[0].dimension, 4);
    for (size_t size = 0; size < home.size; size++)
        assert_false(point_home_split(bytes_of(payload.data, size), &home, &rest));
    assert_false(point_home_split(rest, &home, &rest));
}

static void test_records_of_one_collection_go_together(void **state) {
    (void)state;
    for (uint64_t id = 0; id < 3; id++)
        add("a", 4, id);
    add("b", 4, 1);
    add("b", 2, 2); /* made anew in between */
    struct work_verdict verdict = apply();
    assert_int_equal(verdict.outcome, WORK_OK);
    assert_int_equal(verdict.applied, 5);
    assert_int_equal(sink_state.calls, 3);
    assert_int_equal(sink_state.sent, 5);
    assert_string_equal(sink_state.name, "b");
}

static void test_what_can_never_be_sent_is_rejected(void **state) {
    (void)state;
    add("a", 4, 1);
    add("a", 4, 2);
    records[1].payload = BYTES_LITERAL("no record");
    struct work_verdict verdict = apply();
    assert_int_equal(verdict.outcome, WORK_REJECT);
    assert_int_equal(verdict.applied, 1);
    sink_state.answer = (struct points_sink_answer){.outcome = WORK_REJECT, .sentence = "bad"};
    n = 1;
    verdict = apply();
    assert_int_equal(verdict.outcome, WORK_REJECT);
    assert_string_equal(verdict.reason, "bad");
    n = 2;
}

static void test_nothing_is_sent_when_it_may_be_anothers(void **state) {
    (void)state;
    add("a", 4, 1);
    points_shared_until(shared, os_monotonic_ns(sim_os(sim)));
    struct work_verdict verdict = apply();
    assert_int_equal(verdict.outcome, WORK_RETRY);
    assert_int_equal(verdict.applied, 0);
    assert_int_equal(sink_state.calls, 0);
}

static void test_a_collection_that_is_missing_is_asked_about(void **state) {
    (void)state;
    add("gone", 4, 1);
    add("gone", 4, 2);
    sink_state.answer =
        (struct points_sink_answer){.outcome = WORK_REJECT, .unknown_collection = true};
    assert_int_equal(apply().outcome, WORK_RETRY); /* no answer */
    sink_state.has_answers = true;
    struct work_verdict verdict = apply();
    assert_int_equal(verdict.outcome, WORK_OK);
    assert_int_equal(verdict.applied, 2);
    assert_int_equal(points_shared_orphaned(shared), 2);
    sink_state.has = true;
    assert_int_equal(apply().outcome, WORK_RETRY); /* it may have come between the two */
    assert_int_equal(apply().outcome, WORK_REJECT);
    assert_int_equal(points_shared_orphaned(shared), 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_home_says_where_a_record_belongs, start, stop),
        cmocka_unit_test_setup_teardown(test_records_of_one_collection_go_together, start, stop),
        cmocka_unit_test_setup_teardown(test_what_can_never_be_sent_is_rejected, start, stop),
        cmocka_unit_test_setup_teardown(test_nothing_is_sent_when_it_may_be_anothers, start, stop),
        cmocka_unit_test_setup_teardown(test_a_collection_that_is_missing_is_asked_about, start,
                                        stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
