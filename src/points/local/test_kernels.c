/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every kernel that this CPU has against sums in double, for odd sizes, strides and numbers of
 * rows; and that none reads past the last row, which ends where its memory does.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/hash.h"
#include "points/local/kernel.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef double reference_fn(double a, double b);
static double reference_dot(double a, double b) {
    return a * b;
}
static double reference_euclid(double a, double b) {
    return (a - b) * (a - b);
}
static double reference_manhattan(double a, double b) {
    return fabs(a - b);
}

static float number(uint64_t *state) {
    return (float)((double)(hash64_u64((*state)++) % 2000001) / 1e6 - 1.0);
}

static void check(kernel_fn *kernel, reference_fn *reference, size_t dimension, size_t stride,
                  size_t n) {
    uint64_t state = dimension * 1000 + n;
    size_t floats = (n - 1) * stride + dimension;
    float *query = malloc(dimension * sizeof *query); /* of that size, so that asan sees more */
    float *rows = malloc(floats * sizeof *rows);
    float *out = malloc(n * sizeof *out);
    assert_true(query && rows && out);
    for (size_t i = 0; i < dimension; i++)
        query[i] = number(&state);
    for (size_t i = 0; i < floats; i++)
        rows[i] = number(&state);
    kernel(query, rows, stride, dimension, n, out);
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (size_t d = 0; d < dimension; d++)
            sum += reference((double)query[d], (double)rows[i * stride + d]);
        assert_true(fabs(sum - (double)out[i]) < 1e-6 * (double)(dimension + 10));
    }
    free(query);
    free(rows);
    free(out);
}

static void check_set(const struct kernel_set *set) {
    static const size_t row_counts[] = {1, 2, 3, 4, 5, 7, 8, 63, 64};
    for (size_t dimension = 1; dimension <= 130; dimension++)
        for (size_t i = 0; i < sizeof row_counts / sizeof *row_counts; i++)
            for (size_t gap = 0; gap < 4; gap += 3) {
                size_t n = row_counts[i];
                check(set->dot, reference_dot, dimension, dimension + gap, n);
                check(set->euclid, reference_euclid, dimension, dimension + gap, n);
                check(set->manhattan, reference_manhattan, dimension, dimension + gap, n);
            }
    check(set->dot, reference_dot, 4097, 4097, 5);
}

static void test_sets(void **state) {
    (void)state;
    for (size_t i = 0; i < kernel_sets_n; i++) {
        if (!kernel_sets[i]->supported()) {
            print_message("this CPU has no %s: not tested\n", kernel_sets[i]->name);
            continue;
        }
        check_set(kernel_sets[i]);
    }
}

static void test_best_is_supported(void **state) {
    (void)state;
    assert_true(kernel_best()->supported());
    assert_string_equal(kernel_sets[kernel_sets_n - 1]->name, "portable");
    assert_true(kernel_portable.supported());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sets),
        cmocka_unit_test(test_best_is_supported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
