/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The window: the newest records, as a list of blocks of frames. A group lies in one block. Blocks
 * are counted by reference: the window holds one, each batch and cursor that reads from it another,
 * so that a block dropped by the window lives on until its last reader is done.
 */
#include "journal/core.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

struct block *block_new(struct budget *budget, size_t capacity) {
    struct block *b = malloc(sizeof *b + capacity);
    if (!b)
        return NULL;
    atomic_init(&b->refs, 1);
    b->next = NULL;
    b->first_lsn = b->last_lsn = 0;
    b->used = 0;
    b->capacity = capacity;
    b->budget = budget;
    b->charged = sizeof *b + capacity; /* window_break may lower the capacity */
    budget_add(budget, BUDGET_JOURNAL, b->charged);
    return b;
}

struct block *block_ref(struct block *b) {
    atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    return b;
}

struct block *block_unref(struct block *b) {
    if (b && atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) == 1) {
        budget_give(b->budget, BUDGET_JOURNAL, b->charged);
        free(b);
    }
    return NULL;
}

void window_deinit(struct window *w) {
    struct block *next;
    for (struct block *b = w->first; b; b = next) {
        next = b->next;
        block_unref(b);
    }
    *w = (struct window){0};
}

static void window_push(struct window *w, struct block *b) {
    if (w->last)
        w->last->next = b;
    else
        w->first = b;
    w->last = b;
    w->bytes += b->capacity;
    if (!w->written.block)
        w->written.block = b;
    if (!w->synced.block)
        w->synced.block = b;
}

int window_reserve(struct window *w, size_t bytes, uint8_t **ret_at) {
    if (!w->last || w->last->capacity - w->last->used < bytes) {
        struct block *b = block_new(w->budget, bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES);
        if (!b)
            return error_origin(-ENOMEM);
        window_push(w, b);
    }
    *ret_at = w->last->data + w->last->used;
    return 0;
}

void window_extend(struct window *w, size_t bytes, lsn_t first_lsn, lsn_t last_lsn) {
    struct block *b = w->last;
    assert(b && b->capacity - b->used >= bytes && last_lsn >= first_lsn);
    if (b->used == 0)
        b->first_lsn = first_lsn;
    b->used += bytes;
    b->last_lsn = last_lsn;
}

void window_break(struct window *w) {
    if (!w->last)
        return;
    w->bytes -= w->last->capacity - w->last->used;
    w->last->capacity = w->last->used;
}

void place_settle(struct place *p) {
    while (p->block && p->at == p->block->used && p->block->next)
        *p = (struct place){.block = p->block->next, .at = 0};
}

void window_trim(struct window *w, uint64_t max_bytes) {
    place_settle(&w->written);
    place_settle(&w->synced);
    while (w->bytes > max_bytes && w->first && w->first != w->synced.block && w->first != w->last) {
        struct block *b = w->first;
        w->first = b->next;
        w->bytes -= b->capacity;
        block_unref(b);
    }
}

struct block *window_find(const struct window *w, lsn_t lsn, bool may_start_later) {
    struct block *b = w->first;
    if (!b || b->used == 0 || (lsn < b->first_lsn && !may_start_later))
        return NULL;
    while (b && b->last_lsn < lsn)
        b = b->next;
    return b;
}
