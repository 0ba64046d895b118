/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels for CPUs with AVX2 and FMA.
 */
#include "points/local/kernel.h"

#if defined __x86_64__

#include <immintrin.h>
#include <stdint.h>

#define KERNEL_TARGET __attribute__((__target__("avx2,fma")))
typedef __m256 vec;
enum { LANES = 8 };

static inline KERNEL_TARGET vec vec_zero(void) {
    return _mm256_setzero_ps();
}
static inline KERNEL_TARGET vec vec_load(const float *p) {
    return _mm256_loadu_ps(p);
}
/* Reads nothing beyond the n floats, zeros for the others. */
static inline KERNEL_TARGET vec vec_load_part(const float *p, size_t n) {
    static const int32_t mask[2 * LANES] = {-1, -1, -1, -1, -1, -1, -1, -1};
    __m256i present = _mm256_loadu_si256((const __m256i *)(const void *)(mask + LANES - n));
    return _mm256_maskload_ps(p, present);
}
static inline KERNEL_TARGET vec vec_dot(vec sum, vec a, vec b) {
    return _mm256_fmadd_ps(a, b, sum);
}
static inline KERNEL_TARGET vec vec_euclid(vec sum, vec a, vec b) {
    vec d = _mm256_sub_ps(a, b);
    return _mm256_fmadd_ps(d, d, sum);
}
static inline KERNEL_TARGET vec vec_manhattan(vec sum, vec a, vec b) {
    vec d = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), _mm256_sub_ps(a, b));
    return _mm256_add_ps(sum, d);
}
static inline KERNEL_TARGET float vec_sum(vec v) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

#include "points/local/kernel_loops.h"

static bool supported(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

const struct kernel_set kernel_avx2 = {
    .name = "avx2", .supported = supported, .dot = dot, .euclid = euclid, .manhattan = manhattan};

#else

static bool supported(void) {
    return false;
}

const struct kernel_set kernel_avx2 = {.name = "avx2", .supported = supported};

#endif
