/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dead letters of a data directory, of all kinds: what the routes (letters_api.c) and
 * `millrace journal dead-letters` are made of. It knows the kinds only by their rows
 * (work_letter_kind); work/letters.h tells what becomes of a letter.
 *
 * Thread-safe. Reading does I/O; replaying and dropping append to the journal, and take effect when
 * the record is applied.
 */
#ifndef MILLRACE_SERVE_LETTERS_H
#define MILLRACE_SERVE_LETTERS_H

#include "serve/data.h"

enum { LETTERS_PAGE_MAX = 1000 };

/* A directory's letters. The contexts are what the kinds' routes have. */
struct letters_of {
    struct data *data;
    void *apis[DATA_STORES];
};

/* By the name of its store; false when there is no such, or it keeps none. */
bool letters_kind(const struct letters_of *l, struct bytes name, enum data_store_kind *ret_kind);
const char *letters_kind_name(const struct letters_of *l, enum data_store_kind kind);

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

/* The newest letters below `below` (0: all) of a kind (DATA_STORES: of all), newest first: each as
 * show makes it, with `between` between two. *ret_next is where the next page begins, 0: nowhere.
 * limit: 1 to LETTERS_PAGE_MAX. -EBADMSG, -ENOMEM. */
struct letters_query {
    unsigned kind;
    lsn_t below;
    size_t limit;
    letters_show *show;
    const char *between;
};
int letters_list(struct letters_of *l, const struct letters_query *query, struct buffer *out,
                 size_t *ret_n, lsn_t *ret_next) MUST_USE;

enum {
    _LETTERS_E_SUCCESS,
    LETTERS_E_NOT_FOUND = 1,
};
/* A letter, copied. */
struct letter_held {
    enum data_store_kind kind;
    struct work_letter letter;
    struct buffer bytes;
};
void letter_held_deinit(struct letter_held *h);
/* LETTERS_E_NOT_FOUND. */
int letters_get(struct letters_of *l, enum data_store_kind kind, lsn_t number,
                struct letter_held *ret_held) MUST_USE;
/* As show makes it. */
void letters_append(struct letters_of *l, const struct letter_held *held, letters_show *show,
                    struct buffer *out);
/* The record as JSON; as work_letter_kind.append_record. */
int letters_append_record(struct letters_of *l, const struct letter_held *held, struct buffer *out,
                          char sentence[WORK_LETTER_SENTENCE]) MUST_USE;

/* As work_letter_kind.replay; replay->letter is the one held. */
int letters_replay(struct letters_of *l, const struct letter_held *held,
                   struct work_letter_replay *replay) MUST_USE;
/* LETTERS_E_NOT_FOUND; WORK_LETTER_E_JOURNAL. *ret_key_hash says which lane it is for. */
int letters_drop(struct letters_of *l, enum data_store_kind kind, lsn_t number, lsn_t *ret_lsn,
                 uint64_t *ret_key_hash, int *ret_condition) MUST_USE;

#endif
