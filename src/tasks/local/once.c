/* SPDX-License-Identifier: Apache-2.0 */
/* Open addressing, at most half full; nothing is removed but by making the table anew. */
#include "tasks/local/once.h"

#include "base/hash.h"

#include <assert.h>
#include <stdlib.h>

enum { SLOTS_FIRST = 16 };

/* Two hashes of the same text with different ends. */
struct once_hash once_hash_of(struct bytes key) {
    uint8_t text[TASK_KEY_MAX + 1];
    assert(key.size > 0 && key.size <= TASK_KEY_MAX);
    memcpy(text, key.data, key.size);
    text[key.size] = 1;
    return (struct once_hash){hash64(text, key.size), hash64(text, key.size + 1)};
}

void once_deinit(struct once *o) {
    free(o->slots);
    *o = (struct once){0};
}

/* The slot of the hash, or the free one where it would go. */
static struct once_slot *slot_of(const struct once *o, struct once_hash hash) {
    for (size_t i = hash.low & (o->n_slots - 1);; i = (i + 1) & (o->n_slots - 1)) {
        struct once_slot *slot = &o->slots[i];
        if (slot->id.key == 0 || (slot->hash.high == hash.high && slot->hash.low == hash.low))
            return slot;
    }
}

struct once_slot *once_find(const struct once *o, struct once_hash hash) {
    struct once_slot *slot = o->n_slots ? slot_of(o, hash) : NULL;
    return slot && slot->id.key ? slot : NULL;
}

void once_add(struct once *o, const struct once_slot *slot) {
    assert(2 * (o->n + 1) <= o->n_slots);
    *slot_of(o, slot->hash) = *slot;
    o->n++;
}

/* Makes the table anew with those that are left. False when memory is out: it is as it was. */
static bool rebuild(struct once *o, size_t n_slots, uint64_t persisted) {
    struct once fresh = {.slots = calloc(n_slots, sizeof *fresh.slots), .n_slots = n_slots};
    if (!fresh.slots)
        return false;
    for (size_t i = 0; i < o->n_slots; i++) {
        const struct once_slot *slot = &o->slots[i];
        if (slot->id.key && (slot->generation == ONCE_NOT_APPLIED || slot->generation > persisted))
            once_add(&fresh, slot);
    }
    free(o->slots);
    *o = fresh;
    return true;
}

bool once_reserve(struct once *o) {
    if (2 * (o->n + 1) <= o->n_slots)
        return true;
    return rebuild(o, o->n_slots ? 2 * o->n_slots : SLOTS_FIRST, ONCE_NOT_APPLIED);
}

void once_persisted(struct once *o, uint64_t generation) {
    size_t left = 0, n_slots = SLOTS_FIRST;
    for (size_t i = 0; i < o->n_slots; i++)
        left += o->slots[i].id.key &&
                (o->slots[i].generation == ONCE_NOT_APPLIED || o->slots[i].generation > generation);
    if (left == o->n)
        return;
    while (n_slots < 2 * (left + 1))
        n_slots *= 2;
    rebuild(o, n_slots, generation);
}
