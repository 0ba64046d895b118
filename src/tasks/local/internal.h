/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of this room share: the store, and who may touch what.
 *
 * Locks, outermost first: the checkpoint's (one at a time; guards struct persisted), the
 * idempotency keys' (held across decision and append), the store's (its pointers, the hot
 * generation, the queue, the counts, the types).
 */
#ifndef MILLRACE_TASKS_LOCAL_INTERNAL_H
#define MILLRACE_TASKS_LOCAL_INTERNAL_H

#include "base/hash.h"
#include "keyed/copies.h"
#include "keyed/letter.h"
#include "os/sync.h"
#include "tasks/ids.h"
#include "tasks/local/generation.h"
#include "tasks/local/keys.h"
#include "tasks/local/once.h"
#include "tasks/local/queue.h"
#include "tasks/state.h"
#include "tasks/store.h"

/* The names of types, numbered in the order in which they came. */
enum { TYPES_MAX = 64 };
struct types {
    unsigned n;
    struct type_name {
        uint8_t size;
        uint8_t bytes[TASK_TYPE_MAX];
    } names[TYPES_MAX];
};
/* TYPES_MAX: there is none of that name. */
unsigned types_find(const struct types *t, struct bytes name);
/* TYPES_MAX: there are too many. */
unsigned types_number(struct types *t, struct bytes name);

/* What the last checkpoint wrote, as far as the next one builds on it. */
struct persisted {
    uint64_t number; /* of checkpoints, from 1 */
    uint64_t letters;
    struct buffer state; /* as it was encoded; empty: there was none */
    struct buffer next;  /* likewise, of the checkpoint that is being made */
};

/*
 * A reader that takes hot, frozen and base together, under the lock, has each task as it is: in the
 * first of them that knows it.
 *
 *                      base        frozen     hot
 *   between            up to p     –          after p
 *   frozen             up to p     p to q     after q
 *   ingested: switched up to q     –          after q
 */
struct tasks_store {
    struct os *os;
    struct tasks_store_options options;
    char directory[OS_PATH_MAX];
    struct database database;
    struct copies copies;
    struct tasks_listener *listener;
    struct ingest_witness witness; /* of what the remote is told */
    struct mutex checkpoint;
    struct persisted persisted;
    bool unsure; /* the checkpoint of what is frozen may be in the database */
    struct mutex once_lock;
    struct once once;

    struct mutex lock;
    struct generation *hot;
    struct generation *frozen; /* NULL: none */
    struct base *base;
    lsn_t position;       /* applied up to here */
    lsn_t last_persisted; /* of the last checkpoint */
    struct types types;
    struct queue queue;
    uint64_t newest; /* the largest key that was applied */
    uint64_t counts[TASK_STATUSES];
    uint64_t ended[TASK_STATUSES]; /* since the opening */
    uint64_t deaths;
    struct tasks_remote_status remote;

    _Atomic uint64_t hot_bytes;
    _Atomic uint64_t frozen_bytes;
    _Atomic uint64_t queued;
    struct work_letters letters; /* the index */
    _Atomic uint64_t damages;
    _Atomic uint64_t oldest_end_us; /* of what the base has; UINT64_MAX: of none */
    struct task_ids ids;
    struct buffer scratch; /* of the one that applies */
};

/* ---- state.c: the values ---- */
void index_encode(uint8_t out[9], uint64_t due_us, uint8_t priority);
bool index_decode(struct bytes value, uint64_t *ret_due_us, uint8_t *ret_priority) MUST_USE;
bool tasks_once_decode(struct bytes value, struct task_id *ret_id) MUST_USE;

/* The value of KEY_STATE. */
struct state {
    lsn_t position;
    uint64_t number;
    uint64_t newest;
    uint64_t letters;
    uint64_t counts[TASK_STATUSES];
    struct types types;
};
int tasks_state_encode(const struct state *s, struct buffer *out) MUST_USE;
/* -EBADMSG; -EPROTONOSUPPORT: written by a newer version. */
int tasks_state_decode(struct bytes value, struct state *ret_state) MUST_USE;

/* ---- read.c ---- */
/* Where a task is, as of one moment. */
struct found {
    struct value *state; /* NULL: look in base */
    struct value *args;
    bool forgotten;  /* it is in none */
    uint8_t indexed; /* as of an entry's, if it is changed now: what the frozen one will leave */
    struct base *base;
};
void found_deinit(struct found *f);
/* Under the lock. */
void find_locked(struct tasks_store *s, uint64_t key, struct found *ret_found);
/* Fills in state from the base, if there is none. TASKS_E_NOT_FOUND; -EBADMSG, -ENOMEM. */
int found_load(uint64_t key, struct found *f) MUST_USE;

/* ---- checkpoint.c ---- */
/* After the base has changed: when there will be something to forget. */
void note_oldest_end(struct tasks_store *s);
/* What was frozen is in the base, which is shown from now on. */
void switch_over(struct tasks_store *s, struct base *base);

/* ---- reopen.c ---- */
/* Until it is known whether the last checkpoint is in the database, nothing more is written. */
int tasks_make_sure(struct tasks_store *s) MUST_USE;

/* ---- remote.c: who keeps the tasks, if the directory does not; else none of it does anything ----
 * Before the database is opened: becomes the owner, and empties the directory. -EBADMSG, too. */
int tasks_remote_own(struct tasks_store *s, uint64_t *ret_number, char *why,
                     size_t why_size) MUST_USE;
/* The database, which is new, gets all that the remote has. */
int tasks_remote_fill(struct tasks_store *s, uint64_t number, char *why, size_t why_size) MUST_USE;
/* Notes in the directory that the remote had tasks: one that has none then was emptied. */
int tasks_remote_remember(struct tasks_store *s) MUST_USE;
/* The checkpoint after the persisted one begins: what is put into the file goes to the remote too.
 * -EIO, and the status says why. */
int tasks_remote_begin(struct tasks_store *s) MUST_USE;
int tasks_remote_finish(struct tasks_store *s) MUST_USE;
/* There is nothing new: whether the remote would take it. */
int tasks_remote_look(struct tasks_store *s) MUST_USE;
bool tasks_remote_is_away(struct tasks_store *s);

/* ---- apply.c: the dead letters of a task ---- */
/* Appends their lsns, and makes room in the hot generation for their removal, and for one more.
 * Under the lock. -ENOMEM. */
int tasks_letters_of(struct tasks_store *s, uint64_t key, struct buffer *out) MUST_USE;
void tasks_letters_remove(struct tasks_store *s, uint64_t key, struct bytes letters);

/* ---- load.c: opening ---- */
/* Reads the state, and what is queued, from the base. What is damaged comes from the copies, or is
 * left out. why: of -EBADMSG and -EPROTONOSUPPORT. */
int tasks_load(struct tasks_store *s, struct tasks_store_report *report,
               const char **ret_why) MUST_USE;

/* ---- store.c ---- */
/* The database of a store in directory. As database_open. */
int tasks_database_open(struct database *d, struct os *os, const char *directory,
                        uint64_t cache_bytes, bool read_only, char *why, size_t why_size) MUST_USE;

#endif
