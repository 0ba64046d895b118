/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The peer of exact search: reads as many bytes of memory as a million vectors of 100 floats, with
 * a sum that the compiler vectorises, on one thread or split over n. Prints the best of five in ms.
 *
 *   bench-memory BYTES THREADS
 */
#include "os/os.h"

#include <stdio.h>
#include <stdlib.h>

struct part {
    const float *data;
    size_t n;
    float sum;
};

static void sum_part(void *argument) {
    struct part *part = argument;
    float sums[64] = {0};
    for (size_t i = 0; i + 64 <= part->n; i += 64)
        for (size_t k = 0; k < 64; k++)
            sums[k] += part->data[i + k];
    for (size_t k = 0; k < 64; k++)
        part->sum += sums[k];
}

static double run(struct os *os, struct part *parts, size_t threads) {
    struct os_thread *started[64];
    uint64_t begin = os_monotonic_ns(os);
    for (size_t i = 1; i < threads; i++)
        if (os_thread_start(os, "sum", sum_part, &parts[i], &started[i]))
            exit(1);
    sum_part(&parts[0]);
    for (size_t i = 1; i < threads; i++)
        os_thread_join(os, started[i]);
    return (double)(os_monotonic_ns(os) - begin) * 1e-6;
}

int main(int argc, char **argv) {
    size_t n = argc == 3 ? strtoull(argv[1], NULL, 10) / sizeof(float) : 0;
    size_t threads = argc == 3 ? strtoull(argv[2], NULL, 10) : 0;
    if (!n || !threads || threads > 64) {
        fprintf(stderr, "bench-memory BYTES THREADS\n");
        return 2;
    }
    float *data = malloc(n * sizeof *data);
    if (!data)
        return 1;
    for (size_t i = 0; i < n; i++)
        data[i] = (float)(i & 1023);
    double best = 1e9;
    float sink = 0;
    for (int round = 0; round < 5; round++) {
        struct part parts[64] = {0};
        for (size_t i = 0; i < threads; i++)
            parts[i] = (struct part){.data = data + n / threads * i, .n = n / threads};
        double ms = run(os_real(), parts, threads);
        best = ms < best ? ms : best;
        sink += parts[0].sum;
    }
    printf("{\"bytes\":%zu,\"threads\":%zu,\"best_ms\":%.3f,\"sum\":%g}\n", n * sizeof *data,
           threads, best, (double)sink);
    free(data);
    return 0;
}
