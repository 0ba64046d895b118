/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The budget: its parts stay below the ceiling, and a kind that is spent stops no other.
 */
#include "base/budget.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { LIMIT = 16 << 20 };

static void test_invariant_6_the_parts_stay_below_the_ceiling(void **state) {
    (void)state;
    struct budget b;
    uint64_t sum = 0;
    budget_init(&b, LIMIT);
    for (unsigned kind = 0; kind < BUDGET_KINDS; kind++) {
        assert_true(budget_part(&b, kind) > 0);
        assert_non_null(budget_kind_name(kind));
        sum += budget_part(&b, kind);
    }
    assert_true(sum < LIMIT);
}

static void test_take_and_give(void **state) {
    (void)state;
    struct budget b;
    budget_init(&b, LIMIT);
    uint64_t part = budget_part(&b, BUDGET_BODIES);
    assert_true(budget_take(&b, BUDGET_BODIES, part));
    assert_true(budget_spent(&b, BUDGET_BODIES) && budget_pressed(&b, BUDGET_BODIES));
    assert_false(budget_take(&b, BUDGET_BODIES, 1));
    assert_int_equal(budget_used(&b, BUDGET_BODIES), part);
    assert_true(budget_take(&b, BUDGET_ANSWERS, 1)); /* each kind for itself */
    budget_give(&b, BUDGET_BODIES, part / 2);
    assert_false(budget_pressed(&b, BUDGET_BODIES));
    assert_true(budget_take(&b, BUDGET_BODIES, part / 2));
    assert_false(budget_take(&b, BUDGET_BODIES, UINT64_MAX - part));
}

static void test_what_must_be_held_is_counted(void **state) {
    (void)state;
    struct budget b;
    budget_init(&b, LIMIT);
    budget_add(&b, BUDGET_POINTS, 2 * LIMIT);
    assert_int_equal(budget_used(&b, BUDGET_POINTS), 2 * LIMIT);
    assert_true(budget_spent(&b, BUDGET_POINTS));
    assert_false(budget_take(&b, BUDGET_POINTS, 0)); /* past its end nothing fits */
    budget_give(&b, BUDGET_POINTS, 2 * LIMIT);
    assert_true(budget_take(&b, BUDGET_POINTS, 1));
}

static void test_no_budget_has_no_bound(void **state) {
    (void)state;
    assert_true(budget_take(NULL, BUDGET_POINTS, UINT64_MAX));
    budget_add(NULL, BUDGET_POINTS, 1);
    budget_give(NULL, BUDGET_POINTS, 1);
    assert_false(budget_spent(NULL, BUDGET_POINTS) || budget_pressed(NULL, BUDGET_POINTS));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_invariant_6_the_parts_stay_below_the_ceiling),
        cmocka_unit_test(test_take_and_give),
        cmocka_unit_test(test_what_must_be_held_is_counted),
        cmocka_unit_test(test_no_budget_has_no_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
