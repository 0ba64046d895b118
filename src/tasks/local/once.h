/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Idempotency keys that the database does not know yet: those of tasks that are appended and not
 * yet persisted. A table by the key's hash (128 bits). Not thread-safe: the store has a lock for
 * it.
 */
#ifndef MILLRACE_TASKS_LOCAL_ONCE_H
#define MILLRACE_TASKS_LOCAL_ONCE_H

#include "tasks/task.h"

struct once_hash {
    uint64_t high;
    uint64_t low;
};
struct once_hash once_hash_of(struct bytes key);

enum { ONCE_NOT_APPLIED = 0 };
struct once_slot {
    struct once_hash hash;
    struct task_id id;   /* key 0: free */
    uint64_t generation; /* that has the task, or ONCE_NOT_APPLIED */
};
struct once {
    struct once_slot *slots;
    size_t n_slots; /* a power of 2, or 0 */
    size_t n;
};
/* Zeros are an empty table. */
void once_deinit(struct once *o);
struct once_slot *once_find(const struct once *o, struct once_hash hash);
/* Room for one more; false when memory is out. */
bool once_reserve(struct once *o) MUST_USE;
/* After once_reserve; the hash is not there. */
void once_add(struct once *o, const struct once_slot *slot);
/* Forgets what generations up to that number have. Where memory is out, it is kept. */
void once_persisted(struct once *o, uint64_t generation);

#endif
