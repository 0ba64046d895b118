/* SPDX-License-Identifier: Apache-2.0 */
/* A key has its 48 bits of milliseconds, 4 of the version, 12 that count on. */
#include "tasks/ids.h"

#include "base/hash.h"

enum { ID_VERSION = 7, ID_LOW_BITS = 12 };
static const uint64_t ID_LOW = (1 << ID_LOW_BITS) - 1;

static uint64_t number_of(uint64_t key) {
    return key >> 16 << ID_LOW_BITS | (key & ID_LOW);
}

static uint64_t key_of(uint64_t number) {
    return number >> ID_LOW_BITS << 16 | (uint64_t)ID_VERSION << ID_LOW_BITS | (number & ID_LOW);
}

int task_ids_init(struct task_ids *ids, struct os *os) {
    atomic_init(&ids->last, 0);
    return os_random(os, &ids->seed, sizeof ids->seed);
}

struct task_id task_ids_new(struct task_ids *ids, uint64_t wall_us) {
    uint64_t number = (wall_us / 1000) << ID_LOW_BITS | (wall_us % 1000) * (ID_LOW + 1) / 1000;
    uint64_t last = atomic_load_explicit(&ids->last, memory_order_relaxed), next;
    do
        next = number > last ? number : last + 1;
    while (!atomic_compare_exchange_weak_explicit(&ids->last, &last, next, memory_order_relaxed,
                                                  memory_order_relaxed));
    uint64_t random = hash64_u64(ids->seed ^ hash64_u64(next));
    return (struct task_id){.key = key_of(next), .low = random >> 2 | UINT64_C(1) << 63};
}

void task_ids_seen(struct task_ids *ids, uint64_t key) {
    uint64_t number = number_of(key);
    uint64_t last = atomic_load_explicit(&ids->last, memory_order_relaxed);
    while (number > last &&
           !atomic_compare_exchange_weak_explicit(&ids->last, &last, number, memory_order_relaxed,
                                                  memory_order_relaxed))
        ;
}
