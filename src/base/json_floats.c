/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A number's digits make an integer w and a power of ten e; its value v is w·10^e. What json_parse
 * and json_get_floats make of it is D = v rounded to a double, then F = D rounded to a float. Here:
 *
 *   y = w / 10^-e  or  w · 10^e, in doubles
 *
 * With w ≤ 2^53 and |e| ≤ 22 both operands are exact, so y is D. Otherwise w, the power and the
 * result are each rounded once, half a unit in the last place of 53 bits each time, so that y is a
 * few units from v, and as near to D (1). Rounded to a float, y and D differ only if a value
 * half-way between two floats lies from one to the other (2). Such a value ends in a one and 28
 * zeros. So when the last 29 bits of y are not within NEAR units of that, F is y rounded to a
 * float; when they are, about once in 2^25 numbers, json_parse is asked.
 *
 * (1) Each rounding changes the value by at most 2^-53 of itself, which is at most one unit. There
 *     are three here, and seven in the vector path (a weight, a product, three sums, the unit, a
 *     product); D is half a unit from v.
 * (2) Where floats are normal. Below, they have fewer bits: only an exact y is taken there.
 *
 * The vector path looks for commas and the closing bracket, 64 bytes at a time, so that the numbers
 * do not wait for each other. One of the form -?digits.digits takes one load, of the 32 bytes that
 * end with it: what is not a digit gives its form, and those before its fraction are masked to
 * zero, so that one sequence of multiplications serves every length and no branch depends on it.
 */
#include "base/json_floats.h"

#include "base/json_scan.h"

#include <float.h>

enum { POWERS = 41, EXACT_POWER_MAX = 22, NEAR = 16 };

/* Exact to 10^22, then rounded. */
static const double POWER[POWERS] = {
    1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11, 1e12, 1e13,
    1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22, 1e23, 1e24, 1e25, 1e26, 1e27,
    1e28, 1e29, 1e30, 1e31, 1e32, 1e33, 1e34, 1e35, 1e36, 1e37, 1e38, 1e39, 1e40,
};

/* Whether a value half-way between two floats may lie between y and what it stands for. */
static inline bool near_half_way(double y) {
    const uint32_t half = UINT32_C(1) << 28, mask = 2 * half - 1;
    return (((uint32_t)load_u64(&y) - (half - NEAR)) & mask) <= 2 * NEAR;
}

/* ---- One number of any form ---- */

struct number {
    uint64_t w;
    int e;
    bool negative;
    bool integer; /* neither a fraction nor an exponent */
};

static bool is_digit(uint8_t c) {
    return c >= '0' && c <= '9';
}

/* Digits behind those of *w; NULL when there are none, or w gets too long. */
static const uint8_t *read_digits(const uint8_t *p, const uint8_t *end, uint64_t *w) {
    const uint8_t *start = p;
    for (; p < end && is_digit(*p); p++) {
        if (*w > (UINT64_MAX - 9) / 10)
            return NULL;
        *w = *w * 10 + (uint64_t)(*p - '0');
    }
    return p > start ? p : NULL;
}

static const uint8_t *read_exponent(const uint8_t *p, const uint8_t *end, int *e) {
    bool negative = p < end && *p == '-';
    uint64_t value = 0;
    p += p < end && (*p == '-' || *p == '+');
    p = read_digits(p, end, &value);
    if (!p || value > 2 * POWERS)
        return NULL;
    *e += negative ? -(int)value : (int)value;
    return p;
}

/* Behind the number at p; NULL when it has none of JSON's forms, or too many digits. */
static const uint8_t *read_number(const uint8_t *p, const uint8_t *end, struct number *n) {
    *n = (struct number){.negative = p < end && *p == '-', .integer = true};
    p += n->negative;
    const uint8_t *digits = p;
    p = read_digits(p, end, &n->w);
    if (!p || (*digits == '0' && p - digits > 1))
        return NULL;
    if (p < end && *p == '.') {
        digits = ++p;
        p = read_digits(p, end, &n->w);
        if (!p || p - digits > 2 * POWERS)
            return NULL;
        n->e = -(int)(p - digits);
        n->integer = false;
    }
    if (p < end && (*p | 0x20) == 'e') {
        p = read_exponent(p + 1, end, &n->e);
        n->integer = false;
    }
    return p;
}

/* False when F is not certain, or not finite (an exact y is below 10^38). */
static bool to_float(const struct number *n, float *out) {
    if (n->integer) { /* json_parse knows a 64-bit integer, and no negative zero among them */
        bool negative = n->negative && n->w > 0;
        *out = negative ? -(float)n->w : (float)n->w;
        return !negative || n->w <= (uint64_t)INT64_MAX + 1;
    }
    if (n->e <= -POWERS || n->e >= POWERS)
        return false;
    double y = n->e < 0 ? (double)n->w / POWER[-n->e] : (double)n->w * POWER[n->e];
    bool exact = n->w <= UINT64_C(1) << 53 && n->e >= -EXACT_POWER_MAX && n->e <= EXACT_POWER_MAX;
    if (!exact && (near_half_way(y) || y < 2 * (double)FLT_MIN || y > (double)FLT_MAX))
        return false;
    *out = (float)(n->negative ? -y : y);
    return true;
}

/* The number behind text[*at]; *at is then the place of the comma or bracket behind it. False when
 * there is none, or no number, or none that is certain. */
static bool read_one(struct bytes text, size_t *at, float *out) {
    struct number number;
    const uint8_t *end = text.data + text.size;
    const uint8_t *p = read_number(text.data + json_skip_space(text, *at + 1), end, &number);
    if (!p || !to_float(&number, out))
        return false;
    *at = json_skip_space(text, (size_t)(p - text.data));
    return *at < text.size && (text.data[*at] == ',' || text.data[*at] == ']');
}

/* Takes up to max numbers, as read_one does, until one of them is not for it. */
typedef size_t (*read_run)(struct bytes text, size_t *at, float *out, size_t max);

static size_t run_portable(struct bytes text, size_t *at, float *out, size_t max) {
    (void)text, (void)at, (void)out, (void)max;
    return 0;
}

/* Each number that a run does not take is read for itself. */
static bool read_array(struct bytes text, size_t *start, read_run run, float *out, size_t max,
                       size_t *ret_count) {
    size_t at = *start, n = 0;
    if (at >= text.size || text.data[at] != '[')
        return false;
    while (text.data[at] != ']') {
        size_t taken = run(text, &at, out + n, max - n);
        if (taken == 0 && (n == max || !read_one(text, &at, &out[n])))
            return false;
        n += taken ? taken : 1;
    }
    *ret_count = n;
    *start = at + 1;
    return true;
}

bool json_floats_read_portable(struct bytes text, size_t *at, float *out, size_t max,
                               size_t *ret_count) {
    return read_array(text, at, run_portable, out, max, ret_count);
}

#ifdef __x86_64__
#include <immintrin.h>

#define WITH_AVX2 __attribute__((__target__("avx2,bmi")))

enum { VECTOR_BYTES = 32, BLOCK_BYTES = 64, BYTES_BEFORE = VECTOR_BYTES + 1 };

/* What the last of n digits behind the point counts, in positive and in negative numbers. */
static const double UNIT[2][VECTOR_BYTES] = {
    {1e-0,  1e-1,  1e-2,  1e-3,  1e-4,  1e-5,  1e-6,  1e-7,  1e-8,  1e-9,  1e-10,
     1e-11, 1e-12, 1e-13, 1e-14, 1e-15, 1e-16, 1e-17, 1e-18, 1e-19, 1e-20, 1e-21,
     1e-22, 1e-23, 1e-24, 1e-25, 1e-26, 1e-27, 1e-28, 1e-29, 1e-30, 1e-31},
    {-1e-0,  -1e-1,  -1e-2,  -1e-3,  -1e-4,  -1e-5,  -1e-6,  -1e-7,  -1e-8,  -1e-9,  -1e-10,
     -1e-11, -1e-12, -1e-13, -1e-14, -1e-15, -1e-16, -1e-17, -1e-18, -1e-19, -1e-20, -1e-21,
     -1e-22, -1e-23, -1e-24, -1e-25, -1e-26, -1e-27, -1e-28, -1e-29, -1e-30, -1e-31},
};

/* The 32 bytes from n on select the last n of a vector. */
static const uint8_t LAST[2 * VECTOR_BYTES] = {
    [32] = 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255,        255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255};

WITH_AVX2 static inline __m256i load(const uint8_t *p) {
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

WITH_AVX2 static inline __m256i load_digits(const uint8_t *p) {
    return _mm256_sub_epi8(load(p), _mm256_set1_epi8('0'));
}

/* Bit i: byte i is not a digit. */
WITH_AVX2 static inline uint32_t marks_of(__m256i digits) {
    __m256i small = _mm256_min_epu8(digits, _mm256_set1_epi8(9));
    return ~(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(digits, small));
}

/* 32 digits as a number. Neighbours are joined: 16 pairs, 8 fours, 4 eights, and these are added up
 * as doubles. */
WITH_AVX2 static inline double join(__m256i digits) {
    __m256i pairs = _mm256_maddubs_epi16(digits, _mm256_set1_epi16(0x010a));
    __m256i fours = _mm256_madd_epi16(pairs, _mm256_set1_epi32(0x00010064));
    fours = _mm256_packus_epi32(fours, fours);
    __m256i eights = _mm256_madd_epi16(fours, _mm256_set1_epi32(0x00012710));
    __m128i four =
        _mm_unpacklo_epi64(_mm256_castsi256_si128(eights), _mm256_extracti128_si256(eights, 1));
    __m256d parts = _mm256_mul_pd(_mm256_cvtepi32_pd(four), _mm256_setr_pd(1e24, 1e16, 1e8, 1));
    __m128d sum = _mm_add_pd(_mm256_castpd256_pd128(parts), _mm256_extractf128_pd(parts, 1));
    return _mm_cvtsd_f64(sum) + _mm_cvtsd_f64(_mm_unpackhi_pd(sum, sum));
}

/* The number from start to end, which has BYTES_BEFORE readable ones before it; false when it is of
 * another form, or not certain. */
WITH_AVX2 static inline bool read_decimal(const uint8_t *start, const uint8_t *end, float *out) {
    const uint8_t *base = end - VECTOR_BYTES;
    size_t negative = *start == '-';
    start += negative;
    size_t first = (size_t)(start - base);
    if (first >= VECTOR_BYTES)
        return false;
    __m256i digits = load_digits(base);
    uint32_t marks = marks_of(digits) >> first;
    size_t n_whole = _tzcnt_u32(marks), n = VECTOR_BYTES - 1 - first - n_whole;
    if (_blsr_u32(marks) || n - 1 >= VECTOR_BYTES - 2 || start[n_whole] != '.' ||
        (n_whole != 1 && (n_whole == 0 || *start == '0')))
        return false;
    /* Those before the point move up to those behind it. */
    __m256i whole = _mm256_and_si256(load_digits(base - 1), load(LAST + n + n_whole));
    double y = join(_mm256_blendv_epi8(whole, digits, load(LAST + n))) * UNIT[negative][n];
    if (near_half_way(y))
        return false;
    *out = (float)y;
    return true;
}

/* Bit i: a number ends before p[i]. */
WITH_AVX2 static inline uint64_t ends_in_block(const uint8_t *p) {
    const __m256i comma = _mm256_set1_epi8(','), bracket = _mm256_set1_epi8(']');
    __m256i a = load(p), b = load(p + VECTOR_BYTES);
    a = _mm256_or_si256(_mm256_cmpeq_epi8(a, comma), _mm256_cmpeq_epi8(a, bracket));
    b = _mm256_or_si256(_mm256_cmpeq_epi8(b, comma), _mm256_cmpeq_epi8(b, bracket));
    return (uint64_t)(uint32_t)_mm256_movemask_epi8(b) << 32 | (uint32_t)_mm256_movemask_epi8(a);
}

WITH_AVX2 static size_t run_avx2(struct bytes text, size_t *at, float *out, size_t max) {
    const uint8_t *mark = text.data + *at, *block = mark + 1;
    const uint8_t *text_end = text.data + text.size;
    const size_t gap = 1 + (mark[1] == ' ');
    size_t n = 0;
    if (*at + gap < BYTES_BEFORE)
        return 0;
    for (; block < text_end; block += BLOCK_BYTES) {
        for (uint64_t left = ends_in_block(block); left; left = _blsr_u64(left)) {
            const uint8_t *end = block + _tzcnt_u64(left);
            if (n == max || end >= text_end || (gap == 2 && mark[1] != ' ') ||
                !read_decimal(mark + gap, end, &out[n]))
                goto done;
            n++;
            mark = end;
            if (*end == ']')
                goto done;
        }
    }
done:
    *at = (size_t)(mark - text.data);
    return n;
}

bool json_floats_read(struct bytes text, size_t *at, float *out, size_t max, size_t *ret_count) {
    bool good = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi");
    return read_array(text, at, good ? run_avx2 : run_portable, out, max, ret_count);
}
#else
bool json_floats_read(struct bytes text, size_t *at, float *out, size_t max, size_t *ret_count) {
    return json_floats_read_portable(text, at, out, max, ret_count);
}
#endif
