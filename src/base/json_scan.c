/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a JSON value ends: brackets are counted outside strings, and a quote behind an odd number
 * of backslashes does not count. Nothing else is checked, so both paths must agree on broken text
 * too: a backslash outside a string also hides the quote behind it, never a bracket.
 *
 * The vector path makes four bit masks of 64 bytes: quotes, backslashes, opening and closing
 * brackets. A running exclusive-or over the quotes gives the bytes inside strings. As long as there
 * are fewer closing brackets than the depth, the end is not in the block and the rest is two
 * population counts.
 */
#include "base/json_scan.h"

enum { SCAN_NEW, SCAN_NESTED, SCAN_STRING, SCAN_SCALAR };

static bool is_space(uint8_t c) {
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static bool ends_scalar(uint8_t c) {
    return is_space(c) || c == ',' || c == ']' || c == '}' || c == ':';
}

size_t json_skip_space(struct bytes text, size_t at) {
    while (at < text.size && is_space(text.data[at]))
        at++;
    return at;
}

/* The bytes that change the state; most do not. */
static const bool SPECIAL[256] = {
    ['"'] = true, ['\\'] = true, ['['] = true, ['{'] = true, [']'] = true, ['}'] = true,
};

/* Both kinds of brackets differ in one bit: [ 0x5b { 0x7b, ] 0x5d } 0x7d. */
bool json_scan_nested_portable(struct json_scan *s, struct bytes text, size_t *at) {
    for (size_t i = *at; i < text.size; i++) {
        uint8_t c = text.data[i];
        if (!SPECIAL[c] && !s->escaped)
            continue;
        s->in_string ^= c == '"' && !s->escaped;
        s->escaped = c == '\\' && !s->escaped;
        if (s->in_string)
            continue;
        s->depth += (c | 0x20) == '{';
        if ((c | 0x20) == '}' && --s->depth == 0) {
            *at = i + 1;
            return true;
        }
    }
    *at = text.size;
    return false;
}

#ifdef __x86_64__
#include <immintrin.h>

#define WITH_AVX2 __attribute__((__target__("avx2,pclmul,popcnt")))

enum { BLOCK_BYTES = 64 };

struct block {
    uint64_t quotes, backslashes, opens, closes;
};

WITH_AVX2 static inline uint64_t mask_of(__m256i low, __m256i high, char c) {
    __m256i wanted = _mm256_set1_epi8(c);
    uint32_t l = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(low, wanted));
    uint32_t h = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(high, wanted));
    return (uint64_t)h << 32 | l;
}

WITH_AVX2 static inline struct block load_block(const uint8_t *p) {
    const __m256i case_bit = _mm256_set1_epi8(0x20);
    __m256i low = _mm256_loadu_si256((const __m256i *)(const void *)p);
    __m256i high = _mm256_loadu_si256((const __m256i *)(const void *)(p + 32));
    struct block b = {.quotes = mask_of(low, high, '"'), .backslashes = mask_of(low, high, '\\')};
    low = _mm256_or_si256(low, case_bit);
    high = _mm256_or_si256(high, case_bit);
    b.opens = mask_of(low, high, '{');
    b.closes = mask_of(low, high, '}');
    return b;
}

/* The bytes behind a backslash that is not itself behind one; backslashes are rare. */
static uint64_t escaped_bytes(struct json_scan *s, uint64_t backslashes, unsigned size) {
    uint64_t escaped = s->escaped;
    uint64_t left = backslashes & ~escaped;
    s->escaped = false;
    while (left) {
        unsigned i = (unsigned)__builtin_ctzll(left);
        if (i + 1 == size) {
            s->escaped = true;
            break;
        }
        escaped |= UINT64_C(2) << i;
        left &= ~(UINT64_C(3) << i);
    }
    return escaped;
}

/* Bit i becomes the exclusive-or of bits 0 to i: a carry-less product with all ones. */
WITH_AVX2 static inline uint64_t running_xor(uint64_t bits) {
    __m128i product =
        _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)bits), _mm_set1_epi8((char)0xff), 0);
    return (uint64_t)_mm_cvtsi128_si64(product);
}

/* The bit behind the bracket that closes the value, 0 when it stays open. */
static unsigned count_brackets(struct json_scan *s, uint64_t opens, uint64_t closes) {
    for (uint64_t left = opens | closes; left; left &= left - 1) {
        if (opens & left & -left)
            s->depth++;
        else if (--s->depth == 0)
            return (unsigned)__builtin_ctzll(left) + 1;
    }
    return 0;
}

/* The same for a block of which size bytes count; the others are zeros. */
WITH_AVX2 static inline unsigned scan_block(struct json_scan *s, const uint8_t *p, unsigned size) {
    struct block b = load_block(p);
    if (b.backslashes || s->escaped)
        b.quotes &= ~escaped_bytes(s, b.backslashes, size);
    uint64_t strings = running_xor(b.quotes) ^ -(uint64_t)s->in_string;
    s->in_string = strings >> 63;
    b.opens &= ~strings;
    b.closes &= ~strings;
    size_t closes = (size_t)__builtin_popcountll(b.closes);
    if (closes >= s->depth)
        return count_brackets(s, b.opens, b.closes);
    s->depth += (size_t)__builtin_popcountll(b.opens) - closes;
    return 0;
}

WITH_AVX2 static bool scan_nested_avx2(struct json_scan *s, struct bytes text, size_t *at) {
    size_t i = *at;
    unsigned end = 0;
    for (; text.size - i >= BLOCK_BYTES; i += BLOCK_BYTES) {
        end = scan_block(s, text.data + i, BLOCK_BYTES);
        if (end)
            break;
    }
    if (!end && i < text.size) {
        uint8_t tail[BLOCK_BYTES] = {0};
        memcpy(tail, text.data + i, text.size - i);
        end = scan_block(s, tail, (unsigned)(text.size - i));
    }
    *at = end ? i + end : text.size;
    return end != 0;
}

bool json_scan_nested(struct json_scan *s, struct bytes text, size_t *at) {
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("pclmul") &&
        __builtin_cpu_supports("popcnt"))
        return scan_nested_avx2(s, text, at);
    return json_scan_nested_portable(s, text, at);
}
#else
bool json_scan_nested(struct json_scan *s, struct bytes text, size_t *at) {
    return json_scan_nested_portable(s, text, at);
}
#endif

static bool scan_string(struct json_scan *s, struct bytes text, size_t *at) {
    for (size_t i = *at; i < text.size; i++) {
        if (text.data[i] == '"' && !s->escaped) {
            *at = i + 1;
            return true;
        }
        s->escaped = text.data[i] == '\\' && !s->escaped;
    }
    *at = text.size;
    return false;
}

static bool scan_scalar(struct bytes text, size_t *at) {
    while (*at < text.size && !ends_scalar(text.data[*at]))
        ++*at;
    return *at < text.size;
}

/* Looks at the first byte, and steps over it. */
static int begin(struct json_scan *s, uint8_t c, size_t *at) {
    if (ends_scalar(c))
        return JSON_SPLIT_E_SYNTAX;
    s->kind = c == '"' ? SCAN_STRING : c == '[' || c == '{' ? SCAN_NESTED : SCAN_SCALAR;
    s->depth = s->kind == SCAN_NESTED;
    ++*at;
    return 0;
}

int json_scan_value(struct json_scan *s, struct bytes text, size_t *at) {
    if (*at >= text.size)
        return JSON_SPLIT_E_MORE;
    if (s->kind == SCAN_NEW) {
        int r = begin(s, text.data[*at], at);
        if (r)
            return r;
    }
    bool found = s->kind == SCAN_NESTED   ? json_scan_nested(s, text, at)
                 : s->kind == SCAN_STRING ? scan_string(s, text, at)
                                          : scan_scalar(text, at);
    return found ? 0 : JSON_SPLIT_E_MORE;
}

int json_value_extent(struct bytes text, bool last, size_t *ret_size) {
    struct json_scan s = {0};
    size_t at = 0;
    int r = json_scan_value(&s, text, &at);
    if (r == JSON_SPLIT_E_MORE && last && s.kind == SCAN_SCALAR)
        r = 0;
    if (!r)
        *ret_size = at;
    return r;
}
