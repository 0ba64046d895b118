/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A slot is hash << 32 | (locator + 1). The upper half of a remixed hash is used, because the lanes
 * were dealt by the id's own hash. An entry sits at its home (hash modulo size) or behind it
 * without a gap, which is what idmap_remove restores.
 */
#include "points/local/idmap.h"

#include "base/hash.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#ifdef MILLRACE_TINY
enum { SIZE_MIN = 4 };
#else
enum { SIZE_MIN = 64 };
#endif
static const uint64_t SIZE_MAX_SLOTS = UINT64_C(1) << 31;

/* Frees the slots. */
static void drop_slots(struct idmap *m) {
    budget_give(m->budget, BUDGET_POINTS, m->size * sizeof *m->slots);
    free(m->slots);
}

void idmap_deinit(struct idmap *m) {
    drop_slots(m);
    *m = (struct idmap){0};
}

static uint32_t id_hash(struct point_id id) {
    return (uint32_t)(hash64_u64(point_id_hash(id)) >> 32);
}

static uint64_t slot_of(uint32_t hash, struct locator l) {
    assert(l.row < LOCATOR_ROWS_MAX && l.segment < LOCATOR_SEGMENTS_MAX);
    return (uint64_t)hash << 32 | ((l.segment << LOCATOR_ROW_BITS | l.row) + 1);
}

static uint32_t slot_hash(uint64_t slot) {
    return (uint32_t)(slot >> 32);
}

static struct locator slot_locator(uint64_t slot) {
    uint32_t packed = (uint32_t)slot - 1;
    return (struct locator){.segment = packed >> LOCATOR_ROW_BITS,
                            .row = packed & (LOCATOR_ROWS_MAX - 1)};
}

static void put(struct idmap *m, uint64_t slot) {
    uint32_t at = slot_hash(slot) & (m->size - 1);
    while (m->slots[at])
        at = (at + 1) & (m->size - 1);
    m->slots[at] = slot;
    m->used++;
}

bool idmap_has_room(const struct idmap *m, uint32_t n) {
    return ((uint64_t)m->used + n) * 3 <= (uint64_t)m->size * 2;
}

int idmap_grown(const struct idmap *m, uint32_t n, struct idmap *ret_grown) {
    uint64_t size = m->size ? m->size : SIZE_MIN;
    while (((uint64_t)m->used + n) * 3 > size * 2)
        size *= 2;
    struct idmap grown = {0};
    if (size != m->size) {
        if (size > SIZE_MAX_SLOTS)
            return error_origin(-ENOMEM);
        grown = (struct idmap){.slots = calloc(size, sizeof *grown.slots), .size = (uint32_t)size};
        if (!grown.slots)
            return error_origin(-ENOMEM);
        grown.budget = m->budget;
        budget_add(m->budget, BUDGET_POINTS, size * sizeof *grown.slots);
        for (uint32_t i = 0; i < m->size; i++)
            if (m->slots[i])
                put(&grown, m->slots[i]);
    }
    *ret_grown = grown;
    return 0;
}

void idmap_adopt(struct idmap *m, struct idmap *grown) {
    drop_slots(m);
    *m = *grown;
    *grown = (struct idmap){0};
}

void idmap_prefetch(const struct idmap *m, struct point_id id) {
    if (m->size > 0)
        __builtin_prefetch(&m->slots[id_hash(id) & (m->size - 1)]);
}

struct idmap_cursor idmap_seek(const struct idmap *m, struct point_id id) {
    uint32_t hash = id_hash(id);
    return (struct idmap_cursor){.map = m, .hash = hash, .slot = hash - 1};
}

bool idmap_match(struct idmap_cursor *c, struct locator *ret_locator) {
    if (c->map->size == 0)
        return false;
    uint32_t mask = c->map->size - 1;
    for (;;) {
        c->slot = (c->slot + 1) & mask;
        uint64_t slot = c->map->slots[c->slot];
        if (!slot)
            return false;
        if (slot_hash(slot) == c->hash) {
            *ret_locator = slot_locator(slot);
            return true;
        }
    }
}

bool idmap_match_locator(struct idmap_cursor *c, struct locator wanted) {
    struct locator at;
    while (idmap_match(c, &at))
        if (at.segment == wanted.segment && at.row == wanted.row)
            return true;
    return false;
}

void idmap_insert(struct idmap *m, struct point_id id, struct locator locator) {
    assert(m->used + 1 < m->size);
    put(m, slot_of(id_hash(id), locator));
}

void idmap_replace(struct idmap *m, const struct idmap_cursor *found, struct locator locator) {
    m->slots[found->slot] = slot_of(found->hash, locator);
}

void idmap_remove(struct idmap *m, const struct idmap_cursor *found) {
    uint32_t mask = m->size - 1, hole = found->slot;
    assert(m->slots[hole]);
    for (uint32_t at = (hole + 1) & mask; m->slots[at]; at = (at + 1) & mask) {
        uint32_t home = slot_hash(m->slots[at]) & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) { /* its home is not behind the hole */
            m->slots[hole] = m->slots[at];
            hole = at;
        }
    }
    m->slots[hole] = 0;
    m->used--;
}
