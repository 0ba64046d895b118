/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Profiles in the order of their keys: dealt into buckets by the top bits of their hashes, about
 * eight to a bucket, then each bucket sorted.
 */
#include "events/local/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum { A_BUCKET = 8, INSERTION_MAX = 32 };

static int compare(const void *a, const void *b) {
    const struct sorted_profile *x = a, *y = b;
    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    assert(x->profile && y->profile);
    struct bytes p = profile_cookie(x->profile), q = profile_cookie(y->profile);
    int order = memcmp(p.data, q.data, p.size < q.size ? p.size : q.size);
    return order ? order : (p.size > q.size) - (p.size < q.size);
}

static void sort_bucket(struct sorted_profile *p, size_t n) {
    if (n > INSERTION_MAX) {
        qsort(p, n, sizeof *p, compare);
        return;
    }
    for (size_t i = 1; i < n; i++) {
        struct sorted_profile x = p[i];
        size_t k = i;
        for (; k > 0 && compare(&p[k - 1], &x) > 0; k--)
            p[k] = p[k - 1];
        p[k] = x;
    }
}

/* The number of bits that makes buckets of about A_BUCKET. */
static unsigned bits_for(size_t n) {
    unsigned bits = 1;
    while (bits < 30 && (n >> bits) > A_BUCKET)
        bits++;
    return bits;
}

static size_t bucket_of(uint64_t hash, unsigned bits) {
    return (size_t)(hash >> (64 - bits));
}

static void count(const struct events_store *s, unsigned bits, size_t *starts) {
    for (unsigned i = 0; i < s->n_lanes; i++) {
        const struct profile *p;
        for (size_t at = 0; (p = generation_next(s->lanes[i].frozen, &at));)
            starts[bucket_of(p->hash, bits) + 1]++;
    }
    for (size_t i = 1; i <= (size_t)1 << bits; i++)
        starts[i] += starts[i - 1];
}

/* Afterwards starts[i] is where bucket i ends. */
static void deal(const struct events_store *s, unsigned bits, size_t *starts,
                 struct sorted_profile *sorted) {
    for (unsigned i = 0; i < s->n_lanes; i++) {
        const struct profile *p;
        for (size_t at = 0; (p = generation_next(s->lanes[i].frozen, &at));)
            sorted[starts[bucket_of(p->hash, bits)]++] = (struct sorted_profile){p->hash, p};
    }
}

int sort_profiles(const struct events_store *s, struct sorted_profile **ret_sorted, size_t *ret_n) {
    size_t n = 0;
    for (unsigned i = 0; i < s->n_lanes; i++)
        n += s->lanes[i].frozen->n_profiles;
    unsigned bits = bits_for(n);
    size_t *starts = calloc(((size_t)1 << bits) + 1, sizeof *starts);
    struct sorted_profile *sorted = calloc(n ? n : 1, sizeof *sorted);
    if (!starts || !sorted) {
        free(starts);
        free(sorted);
        return error_origin(-ENOMEM);
    }
    count(s, bits, starts);
    deal(s, bits, starts, sorted);
    for (size_t i = 0, from = 0; i < (size_t)1 << bits; from = starts[i++])
        sort_bucket(sorted + from, starts[i] - from);
    free(starts);
    *ret_sorted = sorted;
    *ret_n = n;
    return 0;
}
