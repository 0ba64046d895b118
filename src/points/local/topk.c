/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The best candidates so far, in a bounded heap, the worst on top.
 */
#include "points/local/topk.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>

int candidate_compare(const struct candidate *a, const struct candidate *b) {
    if (a->rank != b->rank)
        return a->rank > b->rank ? -1 : 1;
    int order = point_id_compare(a->id, b->id);
    return order ? order : (a->lsn < b->lsn) - (a->lsn > b->lsn);
}

int topk_init(struct topk *t, size_t capacity) {
    assert(capacity > 0);
    *t = (struct topk){.capacity = capacity, .floor = -INFINITY};
    t->heap = malloc(capacity * sizeof *t->heap);
    return t->heap ? 0 : error_origin(-ENOMEM);
}

void topk_deinit(struct topk *t) {
    free(t->heap);
    *t = (struct topk){0};
}

static void swap(struct candidate *a, struct candidate *b) {
    struct candidate c = *a;
    *a = *b;
    *b = c;
}

static void sift_up(struct topk *t, size_t at) {
    while (at > 0 && candidate_compare(&t->heap[at], &t->heap[(at - 1) / 2]) > 0) {
        swap(&t->heap[at], &t->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
}

static void sift_down(struct topk *t) {
    for (size_t at = 0, child; (child = 2 * at + 1) < t->n; at = child) {
        if (child + 1 < t->n && candidate_compare(&t->heap[child + 1], &t->heap[child]) > 0)
            child++;
        if (candidate_compare(&t->heap[at], &t->heap[child]) > 0)
            return;
        swap(&t->heap[at], &t->heap[child]);
    }
}

void topk_offer(struct topk *t, const struct candidate *c) {
    if (t->n < t->capacity) {
        t->heap[t->n++] = *c;
        sift_up(t, t->n - 1);
    } else {
        t->overflow = true;
        if (candidate_compare(c, &t->heap[0]) > 0)
            return;
        t->heap[0] = *c;
        sift_down(t);
    }
    if (t->n == t->capacity)
        t->floor = t->heap[0].rank;
}
