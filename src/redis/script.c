/* SPDX-License-Identifier: Apache-2.0 */
/* The name that Redis gives to a script: the SHA-1 of its source (FIPS 180-4), in hexadecimal. */
#include "redis/cluster.h"

#include <stdio.h>

enum { BLOCK = 64, WORDS = 5, ROUNDS = 80 };

static uint32_t rotate(uint32_t x, unsigned by) {
    return x << by | x >> (32 - by);
}

static uint32_t load_big(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* f and K of a round. */
static uint32_t mixed(unsigned round, uint32_t b, uint32_t c, uint32_t d) {
    if (round < 20)
        return ((b & c) | (~b & d)) + 0x5a827999;
    if (round < 40)
        return (b ^ c ^ d) + 0x6ed9eba1;
    if (round < 60)
        return ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc;
    return (b ^ c ^ d) + 0xca62c1d6;
}

static void add_block(uint32_t hash[WORDS], const uint8_t block[BLOCK]) {
    uint32_t w[ROUNDS];
    uint32_t a = hash[0], b = hash[1], c = hash[2], d = hash[3], e = hash[4];
    for (unsigned t = 0; t < 16; t++)
        w[t] = load_big(block + 4 * t);
    for (unsigned t = 16; t < ROUNDS; t++)
        w[t] = rotate(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1);
    for (unsigned t = 0; t < ROUNDS; t++) {
        uint32_t next = rotate(a, 5) + mixed(t, b, c, d) + e + w[t];
        e = d;
        d = c;
        c = rotate(b, 30);
        b = a;
        a = next;
    }
    hash[0] += a;
    hash[1] += b;
    hash[2] += c;
    hash[3] += d;
    hash[4] += e;
}

/* The rest behind the last whole block, a one bit, zeros, the number of bits. */
static void add_end(uint32_t hash[WORDS], const uint8_t *rest, size_t rest_size, uint64_t size) {
    uint8_t end[2 * BLOCK] = {0};
    size_t blocks = rest_size + 1 + sizeof size <= BLOCK ? 1 : 2;
    memcpy(end, rest, rest_size);
    end[rest_size] = 0x80;
    for (unsigned i = 0; i < sizeof size; i++)
        end[blocks * BLOCK - 1 - i] = (uint8_t)(size * 8 >> 8 * i);
    for (size_t i = 0; i < blocks; i++)
        add_block(hash, end + i * BLOCK);
}

void redis_script_init(struct redis_script *s, const char *source) {
    uint32_t hash[WORDS] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    struct bytes b = bytes_of_string(source);
    size_t whole = b.size / BLOCK * BLOCK;
    for (size_t i = 0; i < whole; i += BLOCK)
        add_block(hash, b.data + i);
    add_end(hash, b.data + whole, b.size - whole, b.size);
    s->source = source;
    for (unsigned i = 0; i < WORDS; i++)
        snprintf(s->sha + 8 * i, 9, "%08x", hash[i]);
}
