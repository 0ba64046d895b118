/* SPDX-License-Identifier: Apache-2.0 */
/* A short list that is walked: only writes whose name is not in the catalog come here. */
#include "points/aliases.h"

#include <assert.h>
#include <string.h>

void points_aliases_init(struct points_aliases *a) {
    mutex_init(&a->lock, LOCK_RANK_QDRANT_CLUSTER);
    a->epoch = 0;
    a->n = 0;
}

void points_aliases_deinit(struct points_aliases *a) {
    mutex_deinit(&a->lock);
}

/* NULL: it is not there. */
static struct points_alias *find(struct points_aliases *a, struct bytes name) {
    for (size_t i = 0; i < a->n; i++)
        if (bytes_equal(bytes_of_string(a->rows[i].name), name))
            return &a->rows[i];
    return NULL;
}

static bool holds(struct points_alias *row, uint64_t now_ns) {
    uint64_t age_ns = now_ns - row->heard_ns;
    if (age_ns < ALIAS_FRESH_NS ||
        (age_ns < ALIAS_HOLD_NS && now_ns - row->asking_ns < ALIAS_FRESH_NS))
        return true;
    row->asking_ns = now_ns;
    return false;
}

bool points_aliases_find(struct points_aliases *a, struct bytes name, uint64_t now_ns,
                         char ret_collection[POINT_NAME_MAX + 1]) {
    mutex_lock(&a->lock);
    struct points_alias *row = find(a, name);
    bool found = row && holds(row, now_ns);
    if (found)
        memcpy(ret_collection, row->collection, sizeof row->collection);
    mutex_unlock(&a->lock);
    return found;
}

struct points_alias_question points_aliases_ask(struct points_aliases *a, uint64_t now_ns) {
    mutex_lock(&a->lock);
    struct points_alias_question q = {.epoch = a->epoch, .begun_ns = now_ns};
    mutex_unlock(&a->lock);
    return q;
}

static struct points_alias *place(struct points_aliases *a) {
    struct points_alias *oldest = &a->rows[0];
    if (a->n < ALIASES_MAX)
        return &a->rows[a->n++];
    for (size_t i = 1; i < a->n; i++)
        if (a->rows[i].heard_ns < oldest->heard_ns)
            oldest = &a->rows[i];
    return oldest;
}

static void fill(char text[POINT_NAME_MAX + 1], struct bytes name) {
    assert(name.size <= POINT_NAME_MAX);
    memset(text, 0, POINT_NAME_MAX + 1);
    memcpy(text, name.data, name.size);
}

void points_aliases_learn(struct points_aliases *a, struct points_alias_question q,
                          struct bytes name, struct bytes collection) {
    mutex_lock(&a->lock);
    struct points_alias *row = find(a, name);
    if (a->epoch == q.epoch && collection.size > 0) {
        row = row ? row : place(a);
        fill(row->name, name);
        fill(row->collection, collection);
        row->heard_ns = q.begun_ns;
        row->asking_ns = q.begun_ns;
    } else if (a->epoch == q.epoch && row) {
        *row = a->rows[--a->n];
    }
    mutex_unlock(&a->lock);
}

bool points_aliases_keep(struct points_aliases *a, struct bytes name, uint64_t now_ns) {
    mutex_lock(&a->lock);
    struct points_alias *row = find(a, name);
    if (row)
        row->heard_ns = now_ns;
    mutex_unlock(&a->lock);
    return row != NULL;
}

void points_aliases_forget(struct points_aliases *a) {
    mutex_lock(&a->lock);
    a->epoch++;
    a->n = 0;
    mutex_unlock(&a->lock);
}
