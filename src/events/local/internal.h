/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of this room share: the store, its lanes, and who may touch what.
 *
 * Locks, outermost first: the checkpoint's (one at a time; guards struct persisted), a lane's
 * (its pointers, and the hot generation), the minutes'. Never two lanes. The dictionary's and the
 * keys' locks lie between the first and the second: they are not called under a lane's.
 */
#ifndef MILLRACE_EVENTS_LOCAL_INTERNAL_H
#define MILLRACE_EVENTS_LOCAL_INTERNAL_H

#include "events/erasures.h"
#include "events/local/elements.h"
#include "events/local/generation.h"
#include "events/local/keys.h"
#include "events/local/minutes.h"
#include "keyed/letter.h"

/*
 * A reader that takes base, frozen and hot together, under the lock, has each tag exactly once:
 *
 *                      base        frozen     hot
 *   between            up to p     –          after p
 *   frozen             up to p     p to q     after q
 *   ingested: switched up to q     –          after q
 */
struct lane {
    struct mutex lock;
    struct generation *hot;
    struct generation *frozen; /* NULL: none */
    struct base *base;
    bool covered;   /* the base holds what is frozen too, which is not shown, and kept (reopen.c) */
    lsn_t position; /* applied up to here */
    lsn_t persisted; /* of the last checkpoint */
    struct event_erasures erasures;
};

/* The value of KEY_STATE (state.c). */
struct state {
    unsigned n_lanes;
    lsn_t positions[WORK_LANES_MAX];
    uint64_t number;
    int64_t floor;
    uint64_t letters;
    uint64_t elements; /* of the dictionary */
    struct minute_totals totals;
};
static const uint64_t ELEMENTS_UNKNOWN = UINT64_MAX; /* an earlier version did not say */

/* What the last checkpoint wrote, as far as the next one builds on it. */
struct persisted {
    uint64_t number; /* of checkpoints, from 1 */
    struct minute_totals totals;
    int64_t floor;
    uint64_t elements;            /* of the dictionary, from the first */
    uint64_t once;                /* keys, as event_once counts */
    struct buffer once_forgotten; /* keys to delete, 16 bytes each */
    uint64_t letters;
    struct buffer state; /* as it was encoded; empty: there was none */
};

/* What a checkpoint makes of the above. */
struct outcome {
    struct state state;
    struct buffer encoded; /* the state */
    uint64_t once;
};

struct events_store {
    struct os *os;
    struct event_dictionary *dictionary;
    struct event_once *once;
    struct events_store_options options;
    char directory[OS_PATH_MAX];
    struct database database;
    struct copies copies;
    struct element_copies element_copies;
    struct minutes minutes;
    struct mutex checkpoint;
    struct persisted persisted;
    struct outcome unsure; /* of a checkpoint that may be in the database; number 0: none */
    _Atomic uint64_t hot_bytes;
    _Atomic uint64_t frozen_bytes;
    _Atomic uint64_t tags_applied;
    _Atomic uint64_t tags_late;
    struct work_letters letters; /* the index */
    _Atomic uint64_t damages;    /* found since the store was opened */
    unsigned n_lanes;
    struct lane lanes[WORK_LANES_MAX];
};

/* ---- merge.c ---- */
enum events_database_mode { EVENTS_DATABASE_READ, EVENTS_DATABASE_WRITE, EVENTS_DATABASE_CREATE };
/* The database of a store in directory. As database_open; CREATE: also when there is none. */
int events_database_open(struct database *d, struct os *os, const char *directory,
                         uint64_t cache_bytes, enum events_database_mode mode, char *why,
                         size_t why_size) MUST_USE;

/* ---- state.c ---- */
void state_deinit(struct state *s);
int state_encode(const struct state *s, struct buffer *out) MUST_USE;
/* -EBADMSG; -EPROTONOSUPPORT: written by a newer version. */
int state_decode(struct bytes value, struct state *ret_state) MUST_USE;

void element_encode(struct buffer *out, lsn_t lsn, struct bytes collection, uint32_t id,
                    struct bytes element);
bool element_decode(struct bytes value, lsn_t *ret_lsn, struct bytes *ret_collection,
                    uint32_t *ret_id, struct bytes *ret_element) MUST_USE;
/* An idempotency key's value; the key itself is the database's. */
void once_encode(struct buffer *out, const struct event_once_entry *entry);
bool once_decode(struct bytes key, struct bytes value, struct event_once_entry *ret_entry) MUST_USE;

/* ---- load.c: opening ---- */
/* Reads state, dictionary and keys from the base; what is damaged comes from the copies, or is
 * named and left out. why: of -EBADMSG, what is damaged and not to be had. */
int load_store(struct events_store *s, struct base *base, struct events_store_report *report,
               const char **ret_why) MUST_USE;

/* ---- checkpoint.c ---- */
void outcome_deinit(struct outcome *o);
/* What was frozen is in the base, which the lanes show from now on. Takes the outcome. */
void switch_lanes(struct events_store *s, struct base *base, struct outcome *o);

/* ---- reopen.c ---- */
/* Until it is known whether the last checkpoint is in the database, nothing more is written: it
 * would be there twice. */
int make_sure(struct events_store *s) MUST_USE;

/* ---- sort.c ---- */
/* A profile to be written, of generation of. */
struct sorted_profile {
    uint64_t hash;
    const struct profile *profile;
};
/* All profiles of the frozen generations in the order of their keys; freed by the caller. */
int sort_profiles(const struct events_store *s, struct sorted_profile **ret_sorted,
                  size_t *ret_n) MUST_USE;

#endif
