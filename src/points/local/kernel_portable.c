/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels for any CPU: vectors of four floats, as the compiler makes them.
 */
#include "points/local/kernel.h"

#include <math.h>
#include <string.h>

typedef struct {
    float v[4];
} vec;
enum { LANES = 4 };

static inline vec vec_zero(void) {
    return (vec){{0}};
}
static inline vec vec_load_part(const float *p, size_t n) {
    vec v = vec_zero();
    memcpy(v.v, p, n * sizeof *p);
    return v;
}
static inline vec vec_load(const float *p) {
    return vec_load_part(p, LANES);
}
static inline vec vec_dot(vec sum, vec a, vec b) {
    for (size_t i = 0; i < LANES; i++)
        sum.v[i] += a.v[i] * b.v[i];
    return sum;
}
static inline vec vec_euclid(vec sum, vec a, vec b) {
    for (size_t i = 0; i < LANES; i++)
        sum.v[i] += (a.v[i] - b.v[i]) * (a.v[i] - b.v[i]);
    return sum;
}
static inline vec vec_manhattan(vec sum, vec a, vec b) {
    for (size_t i = 0; i < LANES; i++)
        sum.v[i] += fabsf(a.v[i] - b.v[i]);
    return sum;
}
static inline float vec_sum(vec v) {
    return (v.v[0] + v.v[2]) + (v.v[1] + v.v[3]);
}

#define KERNEL_TARGET
#include "points/local/kernel_loops.h"

static bool supported(void) {
    return true;
}

const struct kernel_set kernel_portable = {.name = "portable",
                                           .supported = supported,
                                           .dot = dot,
                                           .euclid = euclid,
                                           .manhattan = manhattan};
