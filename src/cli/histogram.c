/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buckets: the values below 2 * LATENCY_SUB have one each; above, the power of two 2^(k +
 * LATENCY_SUB_BITS) has LATENCY_SUB of the width 2^k.
 */
#include "cli/histogram.h"

#include <math.h>
#include <stddef.h>

static size_t bucket_of(uint64_t value) {
    if (value < 2 * LATENCY_SUB)
        return (size_t)value;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - LATENCY_SUB_BITS;
    return (size_t)shift * LATENCY_SUB + (size_t)(value >> shift);
}

/* The largest value of a bucket. */
static uint64_t bucket_end(size_t bucket) {
    if (bucket < 2 * LATENCY_SUB)
        return bucket;
    size_t shift = bucket / LATENCY_SUB - 1;
    uint64_t start = (uint64_t)(bucket - shift * LATENCY_SUB) << shift;
    return start + (((uint64_t)1 << shift) - 1);
}

void histogram_record(struct histogram *h, uint64_t value) {
    h->counts[bucket_of(value)]++;
    h->n++;
    if (value > h->max)
        h->max = value;
}

void histogram_add(struct histogram *to, const struct histogram *from) {
    for (size_t i = 0; i < LATENCY_BUCKETS; i++)
        to->counts[i] += from->counts[i];
    to->n += from->n;
    if (from->max > to->max)
        to->max = from->max;
}

uint64_t histogram_quantile(const struct histogram *h, double q) {
    uint64_t wanted = (uint64_t)ceil(q * (double)h->n);
    uint64_t seen = 0;
    if (wanted < 1)
        wanted = 1;
    for (size_t i = 0; i < LATENCY_BUCKETS; i++) {
        seen += h->counts[i];
        if (seen >= wanted)
            return bucket_end(i) < h->max ? bucket_end(i) : h->max;
    }
    return h->max;
}
