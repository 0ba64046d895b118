/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dictionary: strings that repeat, numbered 1, 2, 3, … in each collection, for ever. It serves
 * /get_id and keeps tags and columns small; both are one thing.
 *
 * An id is born under the lock, together with the append of its EVENT_ELEMENT record: the order of
 * ids is the order of lsns, and whoever uses an id appends after it. An append that is refused
 * assigns nothing. After a crash the elements whose records were not durable are gone, and so is
 * everything that used them. Replay brings the rest back (event_dictionary_replay; what is known
 * changes nothing).
 *
 *   event_dictionary_find    lock-free: entries and tables are immutable once published, and a
 *                            table that was outgrown is kept until the end
 *   event_dictionary_text    lock-free, but for an id that is being born: waits until it is
 *   event_dictionary_each    lock-free: no append waits for a checkpoint
 *   everything else          under one lock, LOCK_RANK_EVENT_DICTIONARY
 *
 * Bounded (invariant 6): past bytes_max, or past the budget's part, nothing is created any more,
 * EVENTS_E_FULL. What is durable already is brought back in any case.
 * Owned by serve; thread-safe.
 */
#ifndef MILLRACE_EVENTS_DICTIONARY_H
#define MILLRACE_EVENTS_DICTIONARY_H

#include "base/budget.h"
#include "events/tag.h"

enum {
    _EVENTS_E_SUCCESS,
    EVENTS_E_NOT_FOUND = 100,
    EVENTS_E_FULL,    /* the dictionary, or the table of keys, holds as much as it may */
    EVENTS_E_JOURNAL, /* the append was refused: *ret_condition is a JOURNAL_E_… */
};

struct event_dictionary;
struct event_dictionary_options {
    uint64_t bytes_max;    /* of elements with their bookkeeping; 0: 256 MiB */
    struct budget *budget; /* they are counted in; NULL: none */
};
int event_dictionary_new(const struct event_dictionary_options *options,
                         struct event_dictionary **ret_dictionary) MUST_USE;
struct event_dictionary *event_dictionary_free(struct event_dictionary *d);

/* The number of a collection, EVENT_COLLECTION_NONE when it has no element yet. The fixed ones
 * (event_collection) always have theirs, named as in schema.def. */
uint32_t event_dictionary_collection(const struct event_dictionary *d, struct bytes name);
/* The name of a collection; empty when there is no such number. Valid until the end. */
struct bytes event_dictionary_name(const struct event_dictionary *d, uint32_t collection);
/* The id of an element, 0 when there is none; ret_lsn (may be NULL) becomes its record's lsn, which
 * may not be durable yet; 0 when the store brought it back. */
uint32_t event_dictionary_find(const struct event_dictionary *d, uint32_t collection,
                               struct bytes element, lsn_t *ret_lsn);
/* The element; with data NULL when there is no such id, or its element was lost to damage. Valid
 * until the end. */
struct bytes event_dictionary_text(const struct event_dictionary *d, uint32_t collection,
                                   uint32_t id);

/* An element that a request wants; id and lsn are set by the append. */
struct event_newcomer {
    struct bytes collection; /* its name */
    struct bytes element;
    uint32_t id;
    lsn_t lsn;
};
/*
 * Appends records that need new elements, as one group: under the lock, each newcomer that is still
 * unknown (duplicates among them included) gets an id and an EVENT_ELEMENT record; then place (may
 * be NULL) puts the ids where they belong; then elements and records, n of them (may be 0), are
 * appended. When nothing had to be appended, *ret_last is 0. EVENTS_E_FULL, _JOURNAL: nothing
 * happened.
 */
int event_dictionary_append(struct event_dictionary *d, struct journal *j,
                            struct event_newcomer *newcomers, size_t n_newcomers,
                            void (*place)(void *context), void *context,
                            struct journal_record *records, size_t n, lsn_t *ret_first,
                            lsn_t *ret_last, int *ret_condition) MUST_USE;

/* Applies an EVENT_ELEMENT record. Ids that it leaves out (the journal lost their records to
 * damage) stay without an element and are not given again. -EPROTO: its id is another's. */
int event_dictionary_replay(struct event_dictionary *d, lsn_t lsn,
                            const struct event_record *record) MUST_USE;

/* ---- For the checkpoint ---- */
/* Elements are numbered from 0, over all collections, in the order in which they came. Calls each
 * for every element from the one numbered `from` on, while its lsn is at most upto; ret_next is the
 * number of the one after the last. Stops at what each returns, if it is not 0. */
int event_dictionary_each(struct event_dictionary *d, uint64_t from, lsn_t upto,
                          int (*each)(void *context, uint64_t number, lsn_t lsn,
                                      struct bytes collection, uint32_t id, struct bytes element),
                          void *context, uint64_t *ret_next) MUST_USE;
/* An element as each gave it, in that order, before anything else is done with the dictionary. */
int event_dictionary_restore(struct event_dictionary *d, lsn_t lsn, struct bytes collection,
                             uint32_t id, struct bytes element) MUST_USE;

/* Damage: the next n elements, of whichever collections, are lost. Their numbers are not given
 * again; which ids they had follows from those of the others, but for the last ones. So at the end
 * as many ids are left out in every collection. A replay may yet bring some back. */
int event_dictionary_restore_lost(struct event_dictionary *d, uint64_t n) MUST_USE;
int event_dictionary_leave_out(struct event_dictionary *d, uint32_t ids) MUST_USE;
/* So many were lost: what is not found may be one of them. Lock-free. */
uint64_t event_dictionary_lost(const struct event_dictionary *d);

struct event_dictionary_stats {
    uint64_t collections;
    uint64_t elements;
    uint64_t bytes;
};
void event_dictionary_stats(struct event_dictionary *d, struct event_dictionary_stats *ret_stats);

#endif
