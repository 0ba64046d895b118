/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which segments are merged. Of a shard's sealed segments, in this order:
 *
 *   1. those with many dead rows, as many as fit into one, be it a single one;
 *   2. small ones: MERGE_WIDTH or more whose live rows are of about one size (within a power of
 *      TIER_WIDTH), as many as fit. So a row is copied a logarithmic number of times, and few small
 *      segments are left.
 *
 * When a shard has nearly as many segments as it may, any two or more that fit into one are merged.
 * A segment with a damaged row is left alone. One pass plans at most a full segment's bytes: so
 * much memory the copies take until a checkpoint has sealed them. Passes begin at another shard
 * each time, so that one that always has something to merge does not keep the others from it.
 */
#include "points/local/merge.h"

#include <errno.h>
#include <stdlib.h>

#ifdef MILLRACE_TINY
enum { DEAD_PERCENT = 10, MERGE_WIDTH = 2 };
#else
enum { DEAD_PERCENT = 30, MERGE_WIDTH = 4 };
#endif
enum { FULL = 1 << 16, SMALL = FULL / 2, TIER_WIDTH = 4 };
enum { TIER_DEAD, TIER_SMALL }; /* and on: each for segments TIER_WIDTH times as large */

struct candidate {
    struct segment *segment;
    unsigned tier;
    uint32_t fill; /* the share of a full segment that its live rows make, of FULL */
    uint32_t rows; /* live ones */
    uint64_t bytes;
};

struct pass {
    struct points_store *store;
    uint64_t budget; /* bytes that may still be planned */
    uint64_t space;  /* bytes that the disk has for them */
    bool planned;    /* something */
};

struct planner {
    struct points_store *store;
    struct shard *shard;
    bool forced;       /* by the number of its segments */
    uint32_t rows_max; /* of a full segment */
    struct pass *pass;
    struct candidate *candidates;
    size_t n;
};

/* ---- Candidates ---- */

static uint32_t share(uint64_t n, uint64_t of) {
    uint64_t fill = n >= of ? FULL : n * FULL / of;
    return fill ? (uint32_t)fill : 1;
}

static unsigned small_tier(uint32_t fill) {
    unsigned tier = TIER_SMALL;
    for (; fill >= TIER_WIDTH; fill /= TIER_WIDTH)
        tier++;
    return tier;
}

static void consider(struct planner *p, struct segment *segment) {
    uint32_t n = segment_n(segment), dead = atomic_load(&segment->deleted_n);
    if (!segment->sealed || atomic_load(&segment->damaged) || dead >= n)
        return;
    const struct storage *storage = segment->storage;
    struct candidate c = {.segment = segment, .rows = n - dead};
    uint64_t data = c.rows * storage->row_bytes + storage->payload_end / n * c.rows;
    uint32_t of_rows = share(c.rows, p->rows_max);
    uint32_t of_bytes = share(data, p->store->options.segment_bytes_max);
    bool decays = (uint64_t)dead * 100 > (uint64_t)n * DEAD_PERCENT;
    c.bytes = data + c.rows * sizeof(struct row_entry);
    c.fill = of_rows > of_bytes ? of_rows : of_bytes;
    c.tier = decays || p->forced ? TIER_DEAD : small_tier(c.fill);
    if (c.tier == TIER_DEAD || c.fill <= SMALL)
        p->candidates[p->n++] = c;
}

static int compare_candidates(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;
    if (x->tier != y->tier)
        return x->tier < y->tier ? -1 : 1;
    return (x->fill > y->fill) - (x->fill < y->fill);
}

static int find_candidates(struct planner *p) {
    p->candidates = malloc(p->shard->n_segments * sizeof *p->candidates);
    if (!p->candidates)
        return error_origin(-ENOMEM);
    for (size_t slot = 0; slot < p->shard->n_slots; slot++)
        if (p->shard->segments[slot])
            consider(p, p->shard->segments[slot]);
    if (p->n)
        qsort(p->candidates, p->n, sizeof *p->candidates, compare_candidates);
    return 0;
}

/* ---- A choice of them ---- */

struct choice {
    const struct candidate *first;
    size_t n;
    uint32_t rows;
    uint64_t bytes;
};

/* As many of the n, which are of one tier and ordered, as fit into one segment and the budget. */
static struct choice choose(const struct planner *p, const struct candidate *first, size_t n) {
    struct choice c = {.first = first};
    uint32_t fill = 0;
    for (; c.n < n; c.n++) {
        const struct candidate *next = &first[c.n];
        if (c.n && (fill + next->fill > FULL || c.bytes + next->bytes > p->pass->budget))
            break;
        fill += next->fill;
        c.rows += next->rows;
        c.bytes += next->bytes;
    }
    return c;
}

static bool is_worth_it(const struct planner *p, const struct choice *c, size_t of_tier) {
    if (p->forced)
        return c->n >= 2;
    return c->first->tier == TIER_DEAD || (c->n >= 2 && of_tier >= MERGE_WIDTH);
}

/* The first choice that is worth it; n 0: none is. */
static struct choice best_choice(const struct planner *p) {
    for (size_t i = 0, n; i < p->n; i += n) {
        for (n = 1; i + n < p->n && p->candidates[i + n].tier == p->candidates[i].tier;)
            n++;
        struct choice c = choose(p, &p->candidates[i], n);
        if (is_worth_it(p, &c, n))
            return c;
    }
    return (struct choice){0};
}

static int plan_merge(struct planner *p, const struct choice *c, struct build **ret_build) {
    struct segment **segments = malloc(c->n * sizeof *segments);
    if (!segments)
        return error_origin(-ENOMEM);
    for (size_t i = 0; i < c->n; i++)
        segments[i] = c->first[i].segment;
    int r = merge_new(p->shard, segments, c->n, c->rows < p->rows_max ? c->rows : p->rows_max,
                      p->store->options.segment_bytes_max, ret_build);
    if (!r) {
        p->pass->budget -= c->bytes < p->pass->budget ? c->bytes : p->pass->budget;
        p->pass->space -= c->bytes;
        p->pass->planned = true;
    }
    free(segments);
    return error_trace(r);
}

/* ---- Passes ---- */

/* A build for the shard, if one is worth it and within the budget, of which the first may take more
 * than all. Lock held. */
static int plan_shard(struct planner *p, struct build **ret_build) {
    const struct points_store_options *options = &p->store->options;
    if (p->shard->n_segments == 0 || p->shard->forgotten)
        return 0;
    p->forced = p->shard->n_segments >= options->segments_max - options->segments_max / 4;
    p->rows_max = segment_rows_for(p->store, &p->shard->collection->config);
    int r = find_candidates(p);
    struct choice c = r ? (struct choice){0} : best_choice(p);
    if (c.n && c.bytes <= p->pass->space && (c.bytes <= p->pass->budget || !p->pass->planned))
        r = plan_merge(p, &c, ret_build);
    free(p->candidates);
    return error_trace(r);
}

/* False: the lane has no nth shard, or there is no memory. */
static bool plan_nth(struct pass *pass, struct lane *lane, size_t nth) {
    struct points_store *s = pass->store;
    size_t turn = s->merge_turn / s->n_lanes;
    struct build *build = NULL;
    int r = 0;
    mutex_lock(&lane->lock);
    bool there = nth < lane->n_shards;
    if (there) {
        struct planner p = {
            .store = s, .shard = lane->shards[(turn + nth) % lane->n_shards], .pass = pass};
        r = plan_shard(&p, &build);
    }
    mutex_unlock(&lane->lock);
    if (build)
        builder_plan(&s->builder, build);
    return there && !r;
}

void merges_plan(struct points_store *s) {
    struct pass pass = {.store = s, .budget = s->options.segment_bytes_max};
    if (!builder_is_idle(&s->builder) || points_store_pressed(s)) /* copies take memory */
        return;
    pass.space = merge_space(s);
    for (unsigned i = 0; i < s->n_lanes; i++)
        for (size_t n = 0; pass.budget > 0; n++)
            if (!plan_nth(&pass, &s->lanes[(s->merge_turn + i) % s->n_lanes], n))
                break;
    s->merge_turn++;
}
