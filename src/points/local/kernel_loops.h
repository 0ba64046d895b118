/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loops of the kernels, once for every instruction set: included by each kernel_*.c after it
 * has defined KERNEL_TARGET (the attribute its functions need), vec (LANES floats) and
 *
 *   vec vec_zero(void)   vec vec_load(const float *)   vec vec_load_part(const float *, size_t n)
 *   vec vec_dot(sum, a, b)   vec vec_euclid(sum, a, b)   vec vec_manhattan(sum, a, b)
 *   float vec_sum(vec)
 *
 * Four rows at a time: four independent sums hide the latency of the additions, and each load of
 * the query serves four rows. No include guard on purpose.
 */
enum { ROWS_AT_ONCE = 4 };

#define KERNEL_LOOPS(measure)                                                                      \
    static inline KERNEL_TARGET __attribute__((__always_inline__)) void measure##_rows(            \
        const float *query, const float *rows, size_t stride, size_t dimension, size_t n,          \
        float *out) {                                                                              \
        vec sums[ROWS_AT_ONCE] = {vec_zero(), vec_zero(), vec_zero(), vec_zero()};                 \
        size_t at = 0;                                                                             \
        for (; at + LANES <= dimension; at += LANES) {                                             \
            vec q = vec_load(query + at);                                                          \
            for (size_t i = 0; i < n; i++)                                                         \
                sums[i] = vec_##measure(sums[i], q, vec_load(rows + i * stride + at));             \
        }                                                                                          \
        if (at < dimension) {                                                                      \
            vec q = vec_load_part(query + at, dimension - at);                                     \
            for (size_t i = 0; i < n; i++)                                                         \
                sums[i] = vec_##measure(sums[i], q,                                                \
                                        vec_load_part(rows + i * stride + at, dimension - at));    \
        }                                                                                          \
        for (size_t i = 0; i < n; i++)                                                             \
            out[i] = vec_sum(sums[i]);                                                             \
    }                                                                                              \
    static KERNEL_TARGET void measure(const float *query, const float *rows, size_t stride,        \
                                      size_t dimension, size_t n, float *out) {                    \
        size_t i = 0;                                                                              \
        for (; i + ROWS_AT_ONCE <= n; i += ROWS_AT_ONCE)                                           \
            measure##_rows(query, rows + i * stride, stride, dimension, ROWS_AT_ONCE, out + i);    \
        for (; i < n; i++)                                                                         \
            measure##_rows(query, rows + i * stride, stride, dimension, 1, out + i);               \
    }

KERNEL_LOOPS(dot)
KERNEL_LOOPS(euclid)
KERNEL_LOOPS(manhattan)
