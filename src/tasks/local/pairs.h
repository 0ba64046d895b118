/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An ordered set of pairs of numbers, by the first and then the second: a B+tree. What the store
 * looks up and lists, and the queue, are such sets: a pair is 16 bytes, and a page of them a few
 * cache lines.
 *
 * One writer, or a lock. Inserting cannot fail after pairs_reserve: who changes several sets at
 * once reserves first, and then changes all of them.
 */
#ifndef MILLRACE_TASKS_LOCAL_PAIRS_H
#define MILLRACE_TASKS_LOCAL_PAIRS_H

#include "base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pair {
    uint64_t high;
    uint64_t low;
};

enum { PAIRS_HEIGHT_MAX = 32 };

struct pairs_node;
struct pairs {
    struct pairs_node *root; /* NULL: nothing was ever inserted */
    unsigned height;         /* inner levels above the leaves */
    size_t n;
    size_t bytes;
    struct pairs_node *spare_leaf;
    struct pairs_node *spare_inner[PAIRS_HEIGHT_MAX];
    unsigned n_spare_inner;
};
/* Zeros are an empty set. */
void pairs_deinit(struct pairs *p);

/* Memory for one insertion; false when memory is out. */
bool pairs_reserve(struct pairs *p) MUST_USE;
/* After pairs_reserve. False: it was there. */
bool pairs_insert(struct pairs *p, struct pair x);
/* False: it was not there. */
bool pairs_remove(struct pairs *p, struct pair x);

/* The least that is not less than from; false: there is none. */
bool pairs_first(const struct pairs *p, struct pair from, struct pair *ret_pair);

/* Where the low of a pair with that high is, or NULL. In a set where each high is there once, and
 * from which nothing is removed, it may be changed. */
uint64_t *pairs_low_of(const struct pairs *p, uint64_t high);

/* Walks on from there: valid until the set changes. */
struct pairs_cursor {
    const struct pairs *pairs;
    struct pairs_node *leaf;
    unsigned at;
};
void pairs_cursor_init(struct pairs_cursor *c, const struct pairs *p, struct pair from);
bool pairs_next(struct pairs_cursor *c, struct pair *ret_pair);

#endif
