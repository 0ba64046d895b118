/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counting. The numbers are only compared with bounds, never used to order other memory: relaxed.
 */
#include "base/budget.h"

#include <assert.h>
#include <stddef.h>

/* Thirty-seconds of the ceiling. Eight are left: six for what is hot and RocksDB's caches
 * (serve.c), which the stores of events (four) and tasks (two) bound themselves, and two for what
 * is not counted. */
enum { PARTS = 32, PARTS_MAX = 24 };
static const struct {
    const char *name;
    unsigned parts;
} parts[] = {
    [BUDGET_POINTS] = {"points", 8},
    [BUDGET_JOURNAL] = {"journal", 4},
    [BUDGET_BODIES] = {"bodies", 4},
    [BUDGET_ANSWERS] = {"answers", 4},
    [BUDGET_CONNECTIONS] = {"connections", 2},
    [BUDGET_DICTIONARY] = {"dictionary", 1},
    [BUDGET_KEYS] = {"keys", 1},
};
static_assert(ARRAY_LENGTH(parts) == BUDGET_KINDS, "a part for every kind");

void budget_init(struct budget *b, uint64_t limit) {
    unsigned sum = 0;
    b->limit = limit;
    for (unsigned kind = 0; kind < BUDGET_KINDS; kind++) {
        atomic_init(&b->kinds[kind].used, 0);
        b->kinds[kind].part = limit / PARTS * parts[kind].parts;
        sum += parts[kind].parts;
    }
    assert(sum <= PARTS_MAX);
}

const char *budget_kind_name(enum budget_kind kind) {
    return parts[kind].name;
}

bool budget_take(struct budget *b, enum budget_kind kind, uint64_t n) {
    if (!b)
        return true;
    uint64_t before = atomic_fetch_add_explicit(&b->kinds[kind].used, n, memory_order_relaxed);
    if (before <= b->kinds[kind].part && n <= b->kinds[kind].part - before)
        return true;
    budget_give(b, kind, n);
    return false;
}

void budget_add(struct budget *b, enum budget_kind kind, uint64_t n) {
    if (b)
        atomic_fetch_add_explicit(&b->kinds[kind].used, n, memory_order_relaxed);
}

void budget_give(struct budget *b, enum budget_kind kind, uint64_t n) {
    if (!b || n == 0)
        return;
    uint64_t before = atomic_fetch_sub_explicit(&b->kinds[kind].used, n, memory_order_relaxed);
    assert(before >= n);
}

uint64_t budget_used(const struct budget *b, enum budget_kind kind) {
    return b ? atomic_load_explicit(&b->kinds[kind].used, memory_order_relaxed) : 0;
}

uint64_t budget_part(const struct budget *b, enum budget_kind kind) {
    return b ? b->kinds[kind].part : UINT64_MAX;
}

bool budget_spent(const struct budget *b, enum budget_kind kind) {
    return budget_used(b, kind) >= budget_part(b, kind);
}

bool budget_pressed(const struct budget *b, enum budget_kind kind) {
    uint64_t part = budget_part(b, kind);
    return budget_used(b, kind) >= part - part / 4;
}
