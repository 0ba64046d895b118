/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entries are allocated one by one: most are made once and changed three times, and are freed all
 * together. The status is also kept in the free bits of their addresses, so that a list goes past
 * those it does not want without touching them.
 */
#include "tasks/local/generation.h"

#include "base/error.h"

#include <assert.h>

enum { STATUS_BITS = 15, FORGOTTEN = 15 };
static_assert((int)TASK_STATUSES <= (int)FORGOTTEN, "a status fits");
static_assert(_Alignof(max_align_t) > STATUS_BITS, "an address has the bits free");

static uint64_t entry_low(const struct entry *e) {
    return (uintptr_t)e | (e->forgotten ? FORGOTTEN : e->status);
}

static struct entry *entry_of(uint64_t low) {
    return (struct entry *)(uintptr_t)(low & ~(uint64_t)STATUS_BITS);
}

struct generation *tasks_generation_new(uint64_t number) {
    struct generation *g = calloc(1, sizeof *g);
    if (!g)
        return NULL;
    atomic_init(&g->references, 1);
    g->number = number;
    return g;
}

struct generation *tasks_generation_ref(struct generation *g) {
    atomic_fetch_add_explicit(&g->references, 1, memory_order_relaxed);
    return g;
}

static void entry_free(struct entry *e) {
    value_unref(e->state);
    value_unref(e->args);
    free(e);
}

static void generation_free(struct generation *g) {
    struct pairs_cursor c;
    struct entry *e;
    generation_walk(&c, g, 0);
    while ((e = tasks_generation_next(&c)))
        entry_free(e);
    letters_deinit(&g->letters);
    pairs_deinit(&g->entries);
    buffer_deinit(&g->finished);
    free(g);
}

struct generation *tasks_generation_unref(struct generation *g) {
    if (g && atomic_fetch_sub_explicit(&g->references, 1, memory_order_acq_rel) == 1)
        generation_free(g);
    return NULL;
}

struct entry *tasks_generation_find(const struct generation *g, uint64_t key) {
    const uint64_t *low = pairs_low_of(&g->entries, ~key);
    return low ? entry_of(*low) : NULL;
}

struct entry *tasks_generation_add(struct generation *g, const struct entry *entry) {
    if (!pairs_reserve(&g->entries))
        return NULL;
    struct entry *e = malloc(sizeof *e);
    if (!e)
        return NULL;
    *e = *entry;
    pairs_insert(&g->entries, (struct pair){~e->key, entry_low(e)});
    g->bytes += sizeof *e + value_memory(e->state) + value_memory(e->args);
    return e;
}

void generation_change(struct generation *g, struct entry *e, struct value *state,
                       enum task_status status) {
    g->bytes += value_memory(state) - value_memory(e->state);
    value_unref(e->state);
    e->state = state;
    e->status = (uint8_t)status;
    *pairs_low_of(&g->entries, ~e->key) = entry_low(e);
    if (status == TASK_SUCCEEDED) {
        g->bytes -= value_memory(e->args);
        e->args = value_unref(e->args);
    }
}

void generation_walk(struct pairs_cursor *c, const struct generation *g, uint64_t below) {
    pairs_cursor_init(c, &g->entries, (struct pair){below ? ~below + 1 : 0, 0});
}

struct entry *tasks_generation_next(struct pairs_cursor *c) {
    struct pair next;
    return pairs_next(c, &next) ? entry_of(next.low) : NULL;
}

bool generation_next_of(struct pairs_cursor *c, unsigned statuses, uint64_t *ret_key,
                        struct entry **ret_entry) {
    struct pair next;
    if (!pairs_next(c, &next))
        return false;
    *ret_key = ~next.high;
    *ret_entry = statuses >> (next.low & STATUS_BITS) & 1 ? entry_of(next.low) : NULL;
    return true;
}
