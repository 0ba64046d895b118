/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The best k candidates of a search: a bounded heap, worst at the top. Belongs to one thread.
 */
#ifndef MILLRACE_POINTS_LOCAL_TOPK_H
#define MILLRACE_POINTS_LOCAL_TOPK_H

#include "points/local/view.h"

struct candidate {
    float rank; /* larger is better, whatever the distance; never NaN */
    uint32_t row;
    struct point_id id;
    lsn_t lsn;
    size_t shard; /* and the segment in its view */
    size_t segment;
};

/* Above zero when a comes after b in the order of hits: by rank, then by id, the newer first. */
int candidate_compare(const struct candidate *a, const struct candidate *b);

struct topk {
    struct candidate *heap;
    size_t n;
    size_t capacity;
    float floor;   /* no candidate below it can enter */
    bool overflow; /* some did not fit */
};

int topk_init(struct topk *t, size_t capacity) MUST_USE;
void topk_deinit(struct topk *t);
void topk_offer(struct topk *t, const struct candidate *c);

#endif
