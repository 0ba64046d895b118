/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checksums and hashes. crc32c guards every byte on disk (Castagnoli polynomial, the CPU's
 * instruction where it has one, a table elsewhere; chosen once, at the first call). hash64 is XXH3
 * and decides lanes and hash table slots. Its values, fixed since XXH3's version 0.8, never change:
 * records keep theirs as the hash of their key.
 * Pure functions, thread-safe.
 */
#ifndef MILLRACE_BASE_HASH_H
#define MILLRACE_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* The crc32c of data, continuing from crc (0 to start). crc32c(crc32c(0,a),b) == crc32c(0,ab). */
uint32_t crc32c(uint32_t crc, const void *data, size_t size);
/* The portable path of crc32c, for its test. */
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t size);

uint64_t hash64(const void *data, size_t size);

/* A cheap mixer of one number (the finaliser of SplitMix64). */
static inline uint64_t hash64_u64(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

#endif
