/* SPDX-License-Identifier: Apache-2.0 */
/* The ordered set against a sorted array, in several orders of coming and going; the queue. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/hash.h"
#include "tasks/local/queue.h"

#include <stdlib.h>
#include <string.h>

/* ---- The set ---- */
enum { PAIRS_MAX = 4096, STEPS = 20000 };

struct model {
    struct pairs pairs;
    struct pair list[PAIRS_MAX]; /* ascending */
    size_t n;
    uint64_t random;
};

static uint64_t next(struct model *m, uint64_t below) {
    return hash64_u64(m->random++) % below;
}

static bool is_less(struct pair a, struct pair b) {
    return a.high != b.high ? a.high < b.high : a.low < b.low;
}

static size_t place(const struct model *m, struct pair x) {
    size_t i = 0;
    while (i < m->n && is_less(m->list[i], x))
        i++;
    return i;
}

static bool has(const struct model *m, size_t i, struct pair x) {
    return i < m->n && !is_less(x, m->list[i]);
}

static void insert(struct model *m, struct pair x) {
    size_t i = place(m, x);
    bool known = has(m, i, x);
    assert_true(m->n < PAIRS_MAX);
    assert_true(pairs_reserve(&m->pairs));
    assert_int_equal(pairs_insert(&m->pairs, x), !known);
    if (known)
        return;
    memmove(&m->list[i + 1], &m->list[i], (m->n - i) * sizeof x);
    m->list[i] = x;
    m->n++;
}

static void take_out(struct model *m, struct pair x) {
    size_t i = place(m, x);
    bool known = has(m, i, x);
    assert_int_equal(pairs_remove(&m->pairs, x), known);
    if (!known)
        return;
    m->n--;
    memmove(&m->list[i], &m->list[i + 1], (m->n - i) * sizeof x);
}

static void check_from(const struct model *m, struct pair from) {
    struct pairs_cursor c;
    struct pair x;
    size_t i = place(m, from);
    assert_int_equal(pairs_first(&m->pairs, from, &x), i < m->n);
    if (i < m->n)
        assert_true(x.high == m->list[i].high && x.low == m->list[i].low);
    pairs_cursor_init(&c, &m->pairs, from);
    for (; pairs_next(&c, &x); i++)
        assert_true(i < m->n && x.high == m->list[i].high && x.low == m->list[i].low);
    assert_int_equal(i, m->n);
}

static struct pair some_pair(struct model *m) {
    static const uint64_t lows[] = {0, 1, 2, UINT64_MAX};
    return (struct pair){next(m, 500) - 1, lows[next(m, 4)]};
}

static void test_pairs_at_random(void **state UNUSED) {
    struct model *m = calloc(1, sizeof *m);
    assert_non_null(m);
    for (size_t i = 0; i < STEPS; i++) {
        bool growing = i / 2000 % 2 == 0; /* it grows for a while, then it shrinks */
        if (next(m, 10) < (growing ? 7 : 3))
            insert(m, some_pair(m));
        else
            take_out(m, some_pair(m));
        assert_int_equal(m->pairs.n, m->n);
        if (i % 50 == 0)
            check_from(m, next(m, 3) ? some_pair(m) : (struct pair){0});
    }
    while (m->n > 0)
        take_out(m, m->list[next(m, m->n)]);
    check_from(m, (struct pair){0});
    pairs_deinit(&m->pairs);
    assert_int_equal(m->pairs.bytes, 0);
    free(m);
}

/* Ascending, descending: and all is taken out from the same end, or the other. */
static void run_in_order(struct model *m, bool up, bool from_front) {
    for (uint64_t i = 0; i < 2000; i++)
        insert(m, (struct pair){up ? i : 5000 - i, i});
    check_from(m, (struct pair){0});
    size_t full = m->pairs.bytes;
    while (m->n > 0) {
        take_out(m, m->list[from_front ? 0 : m->n - 1]);
        if (m->n % 100 == 0)
            check_from(m, (struct pair){0});
    }
    assert_true(m->pairs.bytes < full / 4 + 4096);
}

static void test_pairs_in_order(void **state UNUSED) {
    struct model *m = calloc(1, sizeof *m);
    assert_non_null(m);
    for (unsigned i = 0; i < 4; i++)
        run_in_order(m, i & 1, i & 2);
    pairs_deinit(&m->pairs);
    free(m);
}

/* ---- The queue ---- */
static void push(struct queue *q, uint64_t key, uint64_t due_us, unsigned priority, uint64_t now_us,
                 bool wakes) {
    assert_true(queue_reserve(q));
    assert_int_equal(queue_push(q, key, due_us, priority, now_us), wakes);
}

static void expect_taken(struct queue *q, uint64_t now_us, uint64_t expected) {
    uint64_t key = 0;
    assert_int_equal(queue_take(q, now_us, &key), expected != 0);
    assert_true(key == expected);
}

static void test_order(void **state UNUSED) {
    struct queue q = {0};
    push(&q, 1, 100, 5, 200, true);
    push(&q, 2, 90, 5, 200, true);
    push(&q, 3, 90, 9, 200, true);
    push(&q, 5, 90, 5, 200, true);
    push(&q, 4, 300, 9, 200, true);  /* waits: the first to do so */
    push(&q, 6, 400, 9, 200, false); /* somebody waits for an earlier one */
    push(&q, 7, UINT64_MAX, 0, 200, false);
    assert_true(queue_oldest_due_us(&q) == 90 && queue_next_due_us(&q) == 300);
    expect_taken(&q, 200, 3);
    expect_taken(&q, 200, 2);
    expect_taken(&q, 300, 4);
    expect_taken(&q, 300, 5);
    expect_taken(&q, 300, 1);
    expect_taken(&q, 300, 0);
    assert_true(queue_oldest_due_us(&q) == 0 && queue_next_due_us(&q) == 400);
    assert_int_equal(queue_size(&q), 7);
    assert_true(queue_give_back(&q, 1));
    assert_false(queue_give_back(&q, 1));
    assert_false(queue_give_back(&q, 6));
    expect_taken(&q, 300, 1);
    queue_deinit(&q);
}

/* Dropped from wherever it is. */
static void test_drop(void **state UNUSED) {
    struct queue q = {0};
    push(&q, 1, 100, 5, 200, true);
    push(&q, 2, 101, 5, 200, true);
    push(&q, 3, 500, 5, 200, true);
    expect_taken(&q, 200, 1);
    queue_drop(&q, 1, 100, 5);
    assert_false(queue_give_back(&q, 1));
    queue_drop(&q, 2, 101, 5);
    queue_drop(&q, 3, 500, 5);
    expect_taken(&q, 1000, 0);
    assert_int_equal(queue_size(&q), 0);
    assert_true(queue_next_due_us(&q) == UINT64_MAX);
    queue_deinit(&q);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pairs_at_random),
        cmocka_unit_test(test_pairs_in_order),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_drop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
