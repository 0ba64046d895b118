/* SPDX-License-Identifier: Apache-2.0 */
/* What answers mean, whole and damaged, and how many calls may be under way after them. */
#include "points/qdrant/answer.h"
#include "points/qdrant/limiter.h"
#include "points/test_support.h"

static void test_statuses(void **state UNUSED) {
    static const enum qdrant_outcome outcomes[GRPC_STATUS_MAX + 1] = {
        [0] = QDRANT_OK,    [1] = QDRANT_RETRY,  [2] = QDRANT_RETRY,  [3] = QDRANT_REJECT,
        [4] = QDRANT_RETRY, [5] = QDRANT_REJECT, [6] = QDRANT_REJECT, [7] = QDRANT_DOWN,
        [8] = QDRANT_RETRY, [9] = QDRANT_RETRY,  [10] = QDRANT_RETRY, [11] = QDRANT_REJECT,
        [12] = QDRANT_DOWN, [13] = QDRANT_RETRY, [14] = QDRANT_RETRY, [15] = QDRANT_RETRY,
        [16] = QDRANT_DOWN,
    };
    for (unsigned i = 0; i <= GRPC_STATUS_MAX; i++)
        assert_int_equal(answer_outcome(i), outcomes[i]);
}

/* PointsOperationResponse {result {operation_id: 5, status: Completed}, time: 0.0, usage {…}} */
static const uint8_t COMPLETED[] = {0, 0, 0, 0, 8, 0x0a, 4, 8, 5, 16, 2, 0x1a, 0};

static struct qdrant_answer update(struct bytes body) {
    struct qdrant_answer answer;
    const struct rpc_answer raw = {.status = GRPC_OK, .body = body};
    answer_of_update(&raw, &answer);
    return answer;
}

static void test_only_a_completed_update_is_done(void **state UNUSED) {
    uint8_t body[sizeof COMPLETED];
    memcpy(body, COMPLETED, sizeof body);
    assert_int_equal(update(bytes_of(body, sizeof body)).outcome, QDRANT_OK);
    for (uint8_t status = 0; status < 6; status++) { /* in the place of Completed, 2 */
        body[10] = status;
        assert_int_equal(update(bytes_of(body, sizeof body)).outcome,
                         status == 2 ? QDRANT_OK : QDRANT_RETRY);
    }
}

static void test_what_is_no_answer_is_tried_again(void **state UNUSED) {
    uint8_t body[sizeof COMPLETED];
    for (size_t size = 0; size < sizeof body; size++)
        assert_int_equal(update(bytes_of(COMPLETED, size)).outcome, QDRANT_RETRY);
    memcpy(body, COMPLETED, sizeof body);
    body[0] = 1; /* compressed */
    assert_int_equal(update(bytes_of(body, sizeof body)).outcome, QDRANT_RETRY);
    body[0] = 0;
    body[5] = 0xff; /* no field begins so */
    assert_int_equal(update(bytes_of(body, sizeof body)).outcome, QDRANT_RETRY);
}

static void test_a_status_comes_with_its_sentence(void **state UNUSED) {
    struct qdrant_answer answer;
    const struct rpc_answer raw = {.status = GRPC_NOT_FOUND, .sentence = "no such collection"};
    answer_of_update(&raw, &answer);
    assert_int_equal(answer.outcome, QDRANT_REJECT);
    assert_int_equal(answer.grpc_status, GRPC_NOT_FOUND);
    assert_string_equal(answer.sentence, "no such collection");
}

static void test_health(void **state UNUSED) {
    static const uint8_t body[] = {0,    0, 0,   0,   11,  0x0a, 1,   'q',
                                   0x12, 6, '1', '.', '1', '8',  '.', '0'};
    struct qdrant_answer answer;
    struct rpc_answer raw = {.status = GRPC_OK, .body = bytes_of(body, sizeof body)};
    answer_of_health(&raw, &answer);
    assert_int_equal(answer.outcome, QDRANT_OK);
    assert_string_equal(answer.sentence, "q 1.18.0");
    raw.body.size--;
    answer_of_health(&raw, &answer);
    assert_int_equal(answer.outcome, QDRANT_DOWN);
}

static void test_sentences_are_decoded(void **state UNUSED) {
    static const char *const rows[][2] = {
        {"", ""},         {"plain", "plain"}, {"a%20b%2525", "a b%25"}, {"%e2%82%AC", "\u20ac"},
        {"100%", "100%"}, {"%4", "%4"},       {"%zz%41", "%zzA"},       {"a%00b", "a b"},
    };
    char out[64];
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
        rpc_decode_sentence(bytes_of_string(rows[i][0]), out, sizeof out);
        assert_string_equal(out, rows[i][1]);
    }
    rpc_decode_sentence(BYTES_LITERAL("abcdef"), out, 4);
    assert_string_equal(out, "abc");
}

/* ---- The limiter, in front of a server that does so many at once ---- */
enum { MOST = 32, BASE_US = 2000, ROUNDS = 400 };

static uint64_t latency_us(unsigned under_way, unsigned capacity) {
    return under_way <= capacity ? BASE_US : (uint64_t)BASE_US * under_way / capacity;
}

/* The highest limit of the last half of the rounds. */
static unsigned run(struct limiter *l, unsigned capacity) {
    unsigned highest = 0;
    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned n = limiter_limit(l);
        for (unsigned call = 0; call < n; call++)
            limiter_note(l, latency_us(n, capacity), n, false);
        if (i > ROUNDS / 2 && n > highest)
            highest = n;
    }
    return highest;
}

static void test_all_connections_are_used_while_latency_stays(void **state UNUSED) {
    struct limiter l;
    limiter_init(&l, MOST);
    assert_int_equal(limiter_limit(&l), 2);
    assert_int_equal(run(&l, MOST), MOST);
}

static void test_a_server_that_is_full_is_not_asked_for_more(void **state UNUSED) {
    struct limiter l;
    limiter_init(&l, MOST);
    assert_in_range(run(&l, 6), 6, 9);
    assert_in_range(run(&l, 6), 6, 9);     /* also in the long run: no drift */
    assert_int_equal(run(&l, MOST), MOST); /* and when it has grown, it is used */
}

static void test_a_server_that_became_slower_is_measured_anew(void **state UNUSED) {
    struct limiter l;
    limiter_init(&l, MOST);
    (void)run(&l, MOST);
    for (unsigned i = 0; i < MOST * ROUNDS; i++)
        limiter_note(&l, (uint64_t)10 * BASE_US, limiter_limit(&l), false);
    assert_int_equal(limiter_limit(&l), MOST);
}

static void test_refusals_halve_it_and_it_comes_back(void **state UNUSED) {
    struct limiter l;
    limiter_init(&l, MOST);
    (void)run(&l, MOST);
    limiter_note(&l, BASE_US, MOST, true);
    assert_true(l.limit == MOST / 2);
    for (unsigned i = 0; i < 20; i++)
        limiter_note(&l, BASE_US, 1, true);
    assert_int_equal(limiter_limit(&l), 1);
    assert_int_equal(run(&l, MOST), MOST);
}

static void test_it_does_not_grow_while_it_is_not_reached(void **state UNUSED) {
    struct limiter l;
    limiter_init(&l, MOST);
    for (unsigned i = 0; i < ROUNDS; i++)
        limiter_note(&l, BASE_US, 1, false);
    assert_true(l.limit == 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statuses),
        cmocka_unit_test(test_only_a_completed_update_is_done),
        cmocka_unit_test(test_what_is_no_answer_is_tried_again),
        cmocka_unit_test(test_a_status_comes_with_its_sentence),
        cmocka_unit_test(test_health),
        cmocka_unit_test(test_sentences_are_decoded),
        cmocka_unit_test(test_all_connections_are_used_while_latency_stays),
        cmocka_unit_test(test_a_server_that_is_full_is_not_asked_for_more),
        cmocka_unit_test(test_a_server_that_became_slower_is_measured_anew),
        cmocka_unit_test(test_refusals_halve_it_and_it_comes_back),
        cmocka_unit_test(test_it_does_not_grow_while_it_is_not_reached),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
