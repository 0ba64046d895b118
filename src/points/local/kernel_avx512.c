/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels for CPUs with AVX-512.
 */
#include "points/local/kernel.h"

#if defined __x86_64__

#include <immintrin.h>
#include <stdint.h>

#define KERNEL_TARGET __attribute__((__target__("avx512f")))
typedef __m512 vec;
enum { LANES = 16 };

static inline KERNEL_TARGET vec vec_zero(void) {
    return _mm512_setzero_ps();
}
static inline KERNEL_TARGET vec vec_load(const float *p) {
    return _mm512_loadu_ps(p);
}
/* Reads nothing beyond the n floats, zeros for the others. */
static inline KERNEL_TARGET vec vec_load_part(const float *p, size_t n) {
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
static inline KERNEL_TARGET vec vec_dot(vec sum, vec a, vec b) {
    return _mm512_fmadd_ps(a, b, sum);
}
static inline KERNEL_TARGET vec vec_euclid(vec sum, vec a, vec b) {
    vec d = _mm512_sub_ps(a, b);
    return _mm512_fmadd_ps(d, d, sum);
}
static inline KERNEL_TARGET vec vec_manhattan(vec sum, vec a, vec b) {
    return _mm512_add_ps(sum, _mm512_abs_ps(_mm512_sub_ps(a, b)));
}
static inline KERNEL_TARGET float vec_sum(vec v) {
    return _mm512_reduce_add_ps(v);
}

#include "points/local/kernel_loops.h"

static bool supported(void) {
    return __builtin_cpu_supports("avx512f");
}

const struct kernel_set kernel_avx512 = {
    .name = "avx512", .supported = supported, .dot = dot, .euclid = euclid, .manhattan = manhattan};

#else

static bool supported(void) {
    return false;
}

const struct kernel_set kernel_avx512 = {.name = "avx512", .supported = supported};

#endif
