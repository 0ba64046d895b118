/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The histogram against sorting: quantiles are right within a bucket, for values of every size.
 */
#include "cli/histogram.h"

#include "base/compiler.h"
#include "base/hash.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { VALUES = 10000 };

static int compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void check_quantile(const struct histogram *h, const uint64_t *sorted, double q) {
    size_t rank = (size_t)ceil(q * VALUES);
    uint64_t exact = sorted[rank ? rank - 1 : 0];
    uint64_t found = histogram_quantile(h, q);
    assert_true(found >= exact);
    assert_true(found - exact <= exact / LATENCY_SUB + 1);
}

static void test_against_sorting(void **state UNUSED) {
    static const double quantiles[] = {0, 0.1, 0.5, 0.9, 0.99, 0.999, 1};
    static uint64_t values[VALUES];
    for (unsigned bits = 1; bits <= 64; bits += 7) {
        struct histogram *h = calloc(1, sizeof *h);
        assert_non_null(h);
        for (size_t i = 0; i < VALUES; i++) {
            values[i] = hash64_u64(i * 64 + bits) >> (64 - bits);
            histogram_record(h, values[i]);
        }
        qsort(values, VALUES, sizeof values[0], compare);
        for (size_t i = 0; i < ARRAY_LENGTH(quantiles); i++)
            check_quantile(h, values, quantiles[i]);
        assert_int_equal(histogram_quantile(h, 1), values[VALUES - 1]);
        free(h);
    }
}

static void test_extremes(void **state UNUSED) {
    struct histogram *h = calloc(1, sizeof *h);
    assert_non_null(h);
    assert_int_equal(histogram_quantile(h, 0.5), 0);
    histogram_record(h, 0);
    assert_int_equal(histogram_quantile(h, 1), 0);
    histogram_record(h, UINT64_MAX);
    assert_true(histogram_quantile(h, 1) == UINT64_MAX);
    assert_int_equal(histogram_quantile(h, 0.5), 0);
    free(h);
}

static void test_adding_up(void **state UNUSED) {
    struct histogram *parts = calloc(3, sizeof *parts);
    assert_non_null(parts);
    for (uint64_t i = 0; i < 1000; i++) {
        histogram_record(&parts[i % 2], i * 1000);
        histogram_record(&parts[2], i * 1000);
    }
    histogram_add(&parts[0], &parts[1]);
    assert_memory_equal(&parts[0], &parts[2], sizeof parts[0]);
    free(parts);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_sorting),
                                       cmocka_unit_test(test_extremes),
                                       cmocka_unit_test(test_adding_up)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
