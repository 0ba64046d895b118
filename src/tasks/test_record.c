/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of transitions; and every transition in every status, against the drawing in task.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tasks/task.h"

#include <stdlib.h>

static const struct task_id ID = {.key = 0x0192aabbccddeeff, .low = 0x8123456789abcdef};

/* ---- Bytes ---- */
/* One of each op, with all that it may carry. */
static struct task_record a_record(enum task_op op) {
    struct task_record r = {.op = op, .id = ID};
    if (op == TASK_OP_CREATE)
        r.request = (struct task_request){.type = BYTES_LITERAL("long_task"),
                                          .args = BYTES_LITERAL("{\"total\":3}"),
                                          .idempotency_key = BYTES_LITERAL("k\0\xc3\xa9"),
                                          .run_at_us = 1647951300000000,
                                          .timeout_ms = 5000,
                                          .max_retries = UINT32_MAX,
                                          .priority = 9};
    else if (op != TASK_OP_CANCEL && op != TASK_OP_RETRY)
        r.attempt = 7;
    if (op == TASK_OP_START)
        r.worker = BYTES_LITERAL("host:17");
    if (op == TASK_OP_SAVE || op == TASK_OP_RELEASE || op == TASK_OP_END) {
        r.current = 12;
        r.total = UINT64_MAX;
        r.saved = BYTES_LITERAL("\0saved");
    }
    if (op == TASK_OP_END) {
        r.outcome = TASK_OUTCOME_FAILED;
        r.due_us = 99;
        r.text = BYTES_LITERAL("it broke");
    }
    return r;
}

static void expect_same(const struct task_record *a, const struct task_record *b) {
    assert_int_equal(a->op, b->op);
    assert_true(a->id.key == b->id.key && a->id.low == b->id.low);
    assert_int_equal(a->attempt, b->attempt);
    assert_int_equal(a->outcome, b->outcome);
    assert_true(a->current == b->current && a->total == b->total && a->due_us == b->due_us);
    assert_true(bytes_equal(a->worker, b->worker) && bytes_equal(a->text, b->text));
    assert_true(bytes_equal(a->saved, b->saved));
    assert_true(bytes_equal(a->request.type, b->request.type));
    assert_true(bytes_equal(a->request.args, b->request.args));
    assert_true(bytes_equal(a->request.idempotency_key, b->request.idempotency_key));
    assert_true(a->request.run_at_us == b->request.run_at_us);
    assert_true(a->request.timeout_ms == b->request.timeout_ms);
    assert_int_equal(a->request.max_retries, b->request.max_retries);
    assert_int_equal(a->request.priority, b->request.priority);
}

static void test_round_trips(void **state UNUSED) {
    for (enum task_op op = TASK_OP_CREATE; op <= TASK_OP_RETRY; op++) {
        CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
        struct task_record r = a_record(op), decoded;
        task_record_encode(&out, &r);
        assert_int_equal(buffer_check(&out), 0);
        assert_true(task_record_decode(buffer_bytes(&out), &decoded));
        expect_same(&r, &decoded);
        for (size_t size = 0; size < out.size; size++)
            assert_false(task_record_decode(bytes_of(out.data, size), &decoded));
        buffer_append_u8(&out, 0);
        assert_false(task_record_decode(buffer_bytes(&out), &decoded));
    }
}

/* Journals that were written stay readable: these bytes never change. */
static void test_known_bytes(void **state UNUSED) {
    static const uint8_t bytes[] = {1, 4, 2, 0, 7, 0, 0, 0, 0xff, 0xee, 0xdd, 0xcc, 0xbb, 0xaa,
                                    0x92, 0x01, 0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x81,
                                    /* current, total */
                                    12, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                    0xff, 0xff,
                                    /* due_us, text, saved */
                                    99, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 'i', 't', ' ', 'b', 'r',
                                    'o', 'k', 'e', 6, 0, 0, 0, 0, 's', 'a', 'v', 'e', 'd'};
    struct task_record r = a_record(TASK_OP_END), decoded;
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    task_record_encode(&out, &r);
    assert_int_equal(out.size, sizeof bytes);
    assert_memory_equal(out.data, bytes, sizeof bytes);
    assert_true(task_record_decode(bytes_of(bytes, sizeof bytes), &decoded));
    expect_same(&r, &decoded);
}

/* What is beyond the bounds is not a record, whatever else may be right. */
static void expect_refused(enum task_op op, size_t at, uint8_t value) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    struct task_record r = a_record(op), decoded;
    task_record_encode(&out, &r);
    out.data[at] = value;
    assert_false(task_record_decode(buffer_bytes(&out), &decoded));
}

static void test_refused(void **state UNUSED) {
    expect_refused(TASK_OP_CREATE, 0, 0); /* version */
    expect_refused(TASK_OP_CREATE, 0, 2);
    expect_refused(TASK_OP_CANCEL, 1, 0); /* op */
    expect_refused(TASK_OP_CANCEL, 1, 8);
    expect_refused(TASK_OP_END, 2, 0); /* outcome */
    expect_refused(TASK_OP_END, 2, 5);
    expect_refused(TASK_OP_SAVE, 2, 1);
    expect_refused(TASK_OP_SAVE, 3, 1);
    expect_refused(TASK_OP_START, 4, 0); /* attempt */
    expect_refused(TASK_OP_CREATE, 4, 1);
    expect_refused(TASK_OP_CANCEL, 4, 1);
    expect_refused(TASK_OP_CREATE, 44, TASK_PRIORITIES);
    expect_refused(TASK_OP_CREATE, 45, 1); /* not 256 + 9 either */
    expect_refused(TASK_OP_CREATE, 48, TASK_TYPE_MAX + 1);
    expect_refused(TASK_OP_CREATE, 48, 0);
}

static void test_no_key(void **state UNUSED) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    struct task_record r = a_record(TASK_OP_CANCEL), decoded;
    task_record_encode(&out, &r);
    store_u64(out.data + 8, 0);
    assert_false(task_record_decode(buffer_bytes(&out), &decoded));
}

/* The largest of everything fits; one byte more is refused. */
static void test_largest(void **state UNUSED) {
    static uint8_t bytes[TASK_ARGS_MAX + 1];
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    struct task_record r = a_record(TASK_OP_CREATE), decoded;
    r.request.args = bytes_of(bytes, TASK_ARGS_MAX);
    r.request.type = bytes_of(bytes, TASK_TYPE_MAX);
    r.request.idempotency_key = bytes_of(bytes, TASK_KEY_MAX);
    task_record_encode(&out, &r);
    assert_true(task_record_decode(buffer_bytes(&out), &decoded));
    expect_same(&r, &decoded);
    store_u32(out.data + 48 + 4 + TASK_TYPE_MAX + 4 + TASK_KEY_MAX, TASK_ARGS_MAX + 1);
    buffer_append_u8(&out, 0);
    assert_false(task_record_decode(buffer_bytes(&out), &decoded));
}

static void test_status_names(void **state UNUSED) {
    enum task_status s = TASK_STATUSES;
    assert_true(task_status_from_name(BYTES_LITERAL("queued"), &s) && s == TASK_QUEUED);
    assert_true(task_status_from_name(BYTES_LITERAL("cancelled"), &s) && s == TASK_CANCELLED);
    assert_false(task_status_from_name(BYTES_LITERAL("queue"), &s));
    assert_false(task_status_from_name(BYTES_LITERAL(""), &s));
}

/* ---- Transitions ---- */
enum { WALL = 5000, DUE = 9000 };

/* Its third attempt is under way, or was the last; with one failure, one death, all texts. */
static struct task a_task(enum task_status status) {
    return (struct task){.id = ID,
                         .request = {.type = BYTES_LITERAL("t"), .max_retries = 3, .priority = 5},
                         .status = status,
                         .attempts = 3,
                         .failures = 1,
                         .deaths = 1,
                         .created_us = 10,
                         .started_us = 20,
                         .finished_us = task_status_is_end(status) ? 30 : 0,
                         .due_us = 15,
                         .current = 4,
                         .total = 8,
                         .worker = BYTES_LITERAL("w"),
                         .error = BYTES_LITERAL("old"),
                         .saved = BYTES_LITERAL("s")};
}

static struct task_record of_attempt(enum task_op op, uint32_t attempt) {
    return (struct task_record){.op = op,
                                .id = ID,
                                .attempt = attempt,
                                .current = 5,
                                .total = 9,
                                .due_us = DUE,
                                .worker = BYTES_LITERAL("w2"),
                                .text = BYTES_LITERAL("text"),
                                .saved = BYTES_LITERAL("s2")};
}

static void expect_same_task(const struct task *a, const struct task *b) {
    assert_int_equal(a->status, b->status);
    assert_true(a->attempts == b->attempts && a->failures == b->failures && a->deaths == b->deaths);
    assert_true(a->created_us == b->created_us && a->started_us == b->started_us);
    assert_true(a->finished_us == b->finished_us && a->due_us == b->due_us);
    assert_true(a->current == b->current && a->total == b->total);
    assert_true(bytes_equal(a->worker, b->worker) && bytes_equal(a->result, b->result));
    assert_true(bytes_equal(a->error, b->error) && bytes_equal(a->saved, b->saved));
}

#define NONE TASK_STATUSES /* it does not fit */

/* The drawing: a row for each op (END: for each outcome), a column for each status before. The
 * attempt of the record is the one that would fit. */
static const struct {
    enum task_op op;
    enum task_outcome outcome;
    enum task_status then[TASK_STATUSES];
} DRAWING[] = {
    {TASK_OP_START, 0, {TASK_RUNNING, NONE, NONE, NONE, NONE}},
    {TASK_OP_SAVE, 0, {NONE, TASK_RUNNING, NONE, NONE, NONE}},
    {TASK_OP_END, TASK_OUTCOME_SUCCEEDED, {NONE, TASK_SUCCEEDED, NONE, NONE, NONE}},
    {TASK_OP_END, TASK_OUTCOME_FAILED, {NONE, TASK_QUEUED, NONE, NONE, NONE}},
    {TASK_OP_END, TASK_OUTCOME_REFUSED, {NONE, TASK_FAILED, NONE, NONE, NONE}},
    {TASK_OP_END, TASK_OUTCOME_DIED, {NONE, TASK_QUEUED, NONE, NONE, NONE}},
    {TASK_OP_RELEASE, 0, {NONE, TASK_QUEUED, NONE, NONE, NONE}},
    {TASK_OP_CANCEL, 0, {TASK_CANCELLED, TASK_CANCELLED, NONE, NONE, NONE}},
    {TASK_OP_RETRY, 0, {NONE, NONE, NONE, TASK_QUEUED, TASK_QUEUED}},
};

static void expect_drawn(size_t row, enum task_status before) {
    struct task task = a_task(before), was = task;
    struct task_record r =
        of_attempt(DRAWING[row].op, task.attempts + (DRAWING[row].op == TASK_OP_START));
    enum task_status then = DRAWING[row].then[before];
    r.outcome = DRAWING[row].outcome;
    assert_int_equal(task_transition(&task, &r, WALL), then != NONE);
    if (then == NONE) {
        expect_same_task(&task, &was);
        return;
    }
    assert_int_equal(task.status, then);
    assert_true(task.created_us == was.created_us);
    assert_true(task.finished_us == (task_status_is_end(then) ? WALL : 0));
    assert_true(task.attempts == was.attempts + (r.op == TASK_OP_START));
}

static void test_drawing(void **state UNUSED) {
    for (size_t row = 0; row < ARRAY_LENGTH(DRAWING); row++)
        for (enum task_status before = 0; before < TASK_STATUSES; before++)
            expect_drawn(row, before);
}

/* What another attempt says changes nothing. */
static void test_fencing(void **state UNUSED) {
    static const enum task_op ops[] = {TASK_OP_SAVE, TASK_OP_END, TASK_OP_RELEASE};
    for (size_t i = 0; i < ARRAY_LENGTH(ops); i++)
        for (uint32_t attempt = 1; attempt < 6; attempt++) {
            struct task task = a_task(TASK_RUNNING), was = task;
            struct task_record r = of_attempt(ops[i], attempt);
            r.outcome = ops[i] == TASK_OP_END ? TASK_OUTCOME_SUCCEEDED : 0;
            bool fits = attempt == 3;
            assert_int_equal(task_transition(&task, &r, WALL), fits);
            if (!fits)
                expect_same_task(&task, &was);
        }
    for (uint32_t attempt = 1; attempt < 6; attempt++) {
        struct task task = a_task(TASK_QUEUED);
        struct task_record r = of_attempt(TASK_OP_START, attempt);
        assert_int_equal(task_transition(&task, &r, WALL), attempt >= 4);
    }
}

static void end_with(struct task *t, enum task_outcome outcome) {
    struct task_record r = of_attempt(TASK_OP_END, t->attempts);
    r.outcome = outcome;
    assert_true(task_transition(t, &r, WALL));
}

static void start_again(struct task *t) {
    struct task_record r = of_attempt(TASK_OP_START, t->attempts + 1);
    assert_true(task_transition(t, &r, WALL));
}

static void test_retries(void **state UNUSED) {
    struct task t = a_task(TASK_RUNNING);
    t.failures = 0;
    for (unsigned i = 0; i < 3; i++) {
        end_with(&t, TASK_OUTCOME_FAILED);
        assert_int_equal(t.status, TASK_QUEUED);
        assert_true(t.due_us == DUE && t.failures == i + 1);
        start_again(&t);
    }
    end_with(&t, TASK_OUTCOME_FAILED);
    assert_int_equal(t.status, TASK_FAILED);
    assert_int_equal(t.failures, 4);
    assert_int_equal(t.attempts, 6);
    struct task_record again = {.op = TASK_OP_RETRY, .id = ID};
    assert_true(task_transition(&t, &again, WALL + 1));
    assert_true(t.failures == 0 && t.deaths == 0 && t.due_us == WALL + 1 && t.error.size == 0);
    assert_int_equal(t.attempts, 6); /* or it would be no fencing token */
    assert_true(bytes_equal(t.saved, BYTES_LITERAL("s2")));
}

static void test_deaths(void **state UNUSED) {
    struct task t = a_task(TASK_RUNNING);
    t.deaths = 0;
    t.request.max_retries = 0; /* deaths are not retries */
    for (unsigned i = 1; i < TASK_DEATHS_MAX; i++) {
        end_with(&t, TASK_OUTCOME_DIED);
        assert_int_equal(t.status, TASK_QUEUED);
        assert_true(t.deaths == i && t.failures == 1);
        start_again(&t);
    }
    end_with(&t, TASK_OUTCOME_DIED);
    assert_int_equal(t.status, TASK_FAILED);
    assert_int_equal(t.deaths, TASK_DEATHS_MAX);
}

/* What each leaves behind. */
static void test_effects(void **state UNUSED) {
    struct task t = a_task(TASK_RUNNING);
    end_with(&t, TASK_OUTCOME_SUCCEEDED);
    assert_true(bytes_equal(t.result, BYTES_LITERAL("text")));
    assert_true(t.error.size == 0 && t.saved.size == 0 && t.current == 5 && t.total == 9);

    t = a_task(TASK_RUNNING);
    struct task_record save = of_attempt(TASK_OP_SAVE, 3);
    save.saved = (struct bytes){0};
    assert_true(task_transition(&t, &save, WALL));
    assert_true(bytes_equal(t.saved, BYTES_LITERAL("s")) && t.current == 5 && t.total == 9);

    struct task_record release = of_attempt(TASK_OP_RELEASE, 3);
    assert_true(task_transition(&t, &release, WALL));
    assert_true(t.due_us == 15 && t.failures == 1 && t.deaths == 1 && t.current == 5);
    assert_true(bytes_equal(t.saved, BYTES_LITERAL("s2")));

    start_again(&t);
    assert_true(bytes_equal(t.worker, BYTES_LITERAL("w2")) && t.started_us == WALL);
    t.saved = (struct bytes){0}; /* it has got nowhere, then */
    struct task_record died = of_attempt(TASK_OP_END, 4);
    died.outcome = TASK_OUTCOME_DIED;
    died.saved = (struct bytes){0};
    died.due_us = 0;
    assert_true(task_transition(&t, &died, WALL));
    assert_true(t.current == 0 && t.due_us == WALL);
    assert_true(bytes_equal(t.error, BYTES_LITERAL("text")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trips), cmocka_unit_test(test_known_bytes),
        cmocka_unit_test(test_refused),     cmocka_unit_test(test_no_key),
        cmocka_unit_test(test_largest),     cmocka_unit_test(test_status_names),
        cmocka_unit_test(test_drawing),     cmocka_unit_test(test_fencing),
        cmocka_unit_test(test_retries),     cmocka_unit_test(test_deaths),
        cmocka_unit_test(test_effects),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
