/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A histogram of times with a bounded relative error, as HdrHistogram's: every power of two is cut
 * into LATENCY_SUB equal parts, so that a quantile is at most 1/LATENCY_SUB too large. Plain
 * memory, one thread; histograms of threads are added up afterwards.
 */
#ifndef MILLRACE_CLI_HISTOGRAM_H
#define MILLRACE_CLI_HISTOGRAM_H

#include <stdint.h>

enum {
    LATENCY_SUB_BITS = 6,
    LATENCY_SUB = 1 << LATENCY_SUB_BITS,
    LATENCY_BUCKETS = (64 - LATENCY_SUB_BITS + 1) * LATENCY_SUB,
};

struct histogram {
    uint64_t counts[LATENCY_BUCKETS];
    uint64_t n;
    uint64_t max;
};

void histogram_record(struct histogram *h, uint64_t value);
void histogram_add(struct histogram *to, const struct histogram *from);
/* The smallest value that at least the part q (0 to 1) of all values does not exceed, rounded up to
 * its bucket's end but never above the largest value. 0 when there are none. */
uint64_t histogram_quantile(const struct histogram *h, double q);

#endif
