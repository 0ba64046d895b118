/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Distance kernels: one query against many rows. There is a set of them for each instruction set;
 * the best that the CPU has is chosen at run time. Pure functions.
 */
#ifndef MILLRACE_POINTS_LOCAL_KERNEL_H
#define MILLRACE_POINTS_LOCAL_KERNEL_H

#include <stdbool.h>
#include <stddef.h>

/* out[i] = the measure between query and the vector at rows + i * stride, for i < n; dimension ≥ 1
 * floats of each are read and none beyond. stride: floats from one row to the next. */
typedef void kernel_fn(const float *query, const float *rows, size_t stride, size_t dimension,
                       size_t n, float *out);

struct kernel_set {
    const char *name;
    bool (*supported)(void);
    kernel_fn *dot;
    kernel_fn *euclid; /* the square of the distance */
    kernel_fn *manhattan;
};

/* Best first; the last, "portable", is always supported. */
extern const struct kernel_set *const kernel_sets[];
extern const size_t kernel_sets_n;
const struct kernel_set *kernel_best(void);

extern const struct kernel_set kernel_avx512;
extern const struct kernel_set kernel_avx2;
extern const struct kernel_set kernel_portable;

#endif
