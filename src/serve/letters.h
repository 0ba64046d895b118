/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dead letters of all kinds, of a data directory or of a journal that processes share: what the
 * routes (letters_api.c) and `millrace journal dead-letters` are made of. It knows the kinds only
 * by their rows (work_letter_kind), and where the letters are by each store's box (letter_box);
 * work/letters.h tells what becomes of a letter.
 *
 * Thread-safe. Reading does I/O, and asks an engine where processes share the letters: then
 * functions that have it say in why what is wrong with that (WORK_LETTER_E_UNREACHABLE). Replaying
 * and dropping append to the journal, and take effect when the record is applied; but letters that
 * are shared are dropped at once.
 */
#ifndef MILLRACE_SERVE_LETTERS_H
#define MILLRACE_SERVE_LETTERS_H

#include "serve/data.h"

enum { LETTERS_PAGE_MAX = 1000 };

/* The contexts are what the kinds' routes have. */
struct letters_of {
    struct data *data;
    void *apis[DATA_STORES];
};

/* Whether processes share them: those of one kind are when those of all are. */
static inline bool letters_are_shared(const struct letters_of *l) {
    return l->data->shared;
}
/* By the name of its store; false when there is no such, or it keeps none. */
bool letters_kind(const struct letters_of *l, struct bytes name, enum data_store_kind *ret_kind);

/* One letter, for who shows it. */
struct letter_shown {
    const char *kind;
    const struct work_letter *letter;
    struct bytes key; /* as a person names it; empty: it cannot be told */
};
typedef void letters_show(struct buffer *out, const struct letter_shown *shown);
/* {"kind":…,"number":…,"key":…,"at":…,"reason":…,"bytes":…,"changed":…, without the brace that ends
 * it. */
letters_show letters_show_json;

/* Behind which a page begins, by number, then by kind: letters of several kinds may have one
 * number. Number 0: the newest of all; of a page to come: there is none. */
struct letters_place {
    lsn_t number;
    unsigned kind;
};
/* Letters of a kind (DATA_STORES: of all), newest first: each as show makes it, with `between`
 * between two. limit: 1 to LETTERS_PAGE_MAX. -EBADMSG, -ENOMEM. */
struct letters_query {
    unsigned kind;
    struct letters_place from;
    size_t limit;
    letters_show *show;
    const char *between;
};
int letters_list(struct letters_of *l, const struct letters_query *query, struct buffer *out,
                 size_t *ret_n, struct letters_place *ret_next,
                 char why[WORK_LETTER_WHY_MAX]) MUST_USE;

/* A letter, copied. */
struct letter_held {
    enum data_store_kind kind;
    struct work_letter letter;
    struct buffer bytes;
};
void letter_held_deinit(struct letter_held *h);
/* WORK_LETTER_E_GONE; -EBADMSG, -ENOMEM. */
int letters_get(struct letters_of *l, enum data_store_kind kind, lsn_t number,
                struct letter_held *ret_held, char why[WORK_LETTER_WHY_MAX]) MUST_USE;
/* As show makes it. */
void letters_append(struct letters_of *l, const struct letter_held *held, letters_show *show,
                    struct buffer *out);
/* The record as JSON; as work_letter_kind.append_record. */
int letters_append_record(struct letters_of *l, const struct letter_held *held, struct buffer *out,
                          char sentence[WORK_LETTER_SENTENCE]) MUST_USE;

/* As work_letter_kind.replay; replay->letter is the one held. */
int letters_replay(struct letters_of *l, const struct letter_held *held,
                   struct work_letter_replay *replay) MUST_USE;
/* Of a directory: by a record. WORK_LETTER_E_GONE, WORK_LETTER_E_JOURNAL. *ret_key_hash says which
 * lane it is for. */
int letters_drop(struct letters_of *l, enum data_store_kind kind, lsn_t number, lsn_t *ret_lsn,
                 uint64_t *ret_key_hash, int *ret_condition) MUST_USE;

/* Of letters that processes share: as letter_box.drop; and, of one that was written again, waits
 * until the record is durable, then, for a moment, until the letter is gone.
 * WORK_LETTER_E_JOURNAL: it may not be in the journal. */
int letters_drop_shared(struct letters_of *l, enum data_store_kind kind, lsn_t number,
                        char why[WORK_LETTER_WHY_MAX]) MUST_USE;
int letters_settle(struct letters_of *l, const struct letter_held *held,
                   const struct work_letter_replay *replay, bool *ret_gone,
                   char why[WORK_LETTER_WHY_MAX]) MUST_USE;
/* What is written again would come over what its key is by now, and nobody knows whether that was
 * written since: it has to be forced. */
bool letters_must_be_forced(const struct letters_of *l, enum data_store_kind kind);
extern const char letters_unforced[]; /* says so */

#endif
