/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A generation: the tasks that changed since the last checkpoint, or the one before.
 *
 *   hot ──freeze──▶ frozen ──ingested──▶ gone       (checkpoint.c)
 *
 * While it is hot it changes under the store's lock; frozen, never. What a reader takes out of it
 * are references to values, under the lock. Counted by reference.
 */
#ifndef MILLRACE_TASKS_LOCAL_GENERATION_H
#define MILLRACE_TASKS_LOCAL_GENERATION_H

#include "keyed/letter.h"
#include "tasks/local/pairs.h"
#include "tasks/local/value.h"
#include "tasks/task.h"

enum { NOT_INDEXED = TASK_STATUSES };

/* A task that changed. */
struct entry {
    uint64_t key;
    struct value *state; /* as state.c encodes it */
    struct value *args;  /* of a task that was made here, unless they are "{}"; else NULL */
    uint8_t status;      /* what state says */
    uint8_t type;
    uint8_t indexed; /* the status the database will know when this is written, or NOT_INDEXED */
    bool has_args;   /* somewhere: here, in the frozen generation, in the database */
    bool forgotten;  /* it is gone; state is its last */
};

struct generation {
    atomic_uint references;
    uint64_t number;      /* 1, 2, 3, … since the opening */
    struct pairs entries; /* ~key, the entry's address and status (entry_low) */
    size_t bytes;         /* of all, but of entries' nodes */
    struct letters letters;
    struct buffer finished; /* struct pair: what of KEY_FINISHED is to be deleted */
    /* Of the store, when it was frozen. */
    lsn_t position;
    uint64_t newest; /* key */
    uint64_t counts[TASK_STATUSES];
};
/* NULL when memory is out. */
struct generation *tasks_generation_new(uint64_t number);
struct generation *tasks_generation_ref(struct generation *g);
/* Takes NULL. Returns NULL. */
struct generation *tasks_generation_unref(struct generation *g);
static inline size_t generation_bytes(const struct generation *g) {
    return g->bytes + g->entries.bytes + g->finished.capacity;
}

/* NULL when it did not change here. */
struct entry *tasks_generation_find(const struct generation *g, uint64_t key);
/* A new entry, of a key that has none: takes over the references to state and args. NULL when
 * memory is out: nothing was taken over. */
struct entry *tasks_generation_add(struct generation *g, const struct entry *entry) MUST_USE;
/* Takes over the reference; drops that to the last state, and to the arguments once it has
 * succeeded. */
void generation_change(struct generation *g, struct entry *e, struct value *state,
                       enum task_status status);

/* Walks entries from the newest with a key below `below` (0: all) on. */
void generation_walk(struct pairs_cursor *c, const struct generation *g, uint64_t below);
struct entry *tasks_generation_next(struct pairs_cursor *c);
/* The same, but looks at no entry that is forgotten or whose status is not one of statuses (bits):
 * ret_entry is NULL then. */
bool generation_next_of(struct pairs_cursor *c, unsigned statuses, uint64_t *ret_key,
                        struct entry **ret_entry);

#endif
