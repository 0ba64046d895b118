/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dead letters of a keyed store: records that it refused, each with the reason (work/letters.h).
 * They are listed in memory as they come and written by the next checkpoint, with the position that
 * has passed them; those that are gone are deleted in the same way. Which letters there are is in
 * the store's index. The same in every database: the key is LETTER_KEY and the lsn; the value is
 *
 *   u8 kind, u8 flags, u64 hash of the key, u64 wall_us, block payload, block reason
 *
 * A list belongs to whoever holds the lock of what it is part of; letters are immutable.
 */
#ifndef MILLRACE_KEYED_LETTER_H
#define MILLRACE_KEYED_LETTER_H

#include "keyed/database.h"
#include "work/letters.h"

enum { LETTER_KEY = 'x' };

struct letter;
struct letters {
    struct letter *newest;
    uint64_t n;
    struct buffer gone; /* lsn_t: letters that went, also older ones */
};
void letters_deinit(struct letters *l);
/* Takes the record down; what memory it takes is added to *bytes. -ENOMEM: nothing was. */
int letters_add(struct letters *l, const struct journal_record *record, const char *reason,
                size_t *bytes) MUST_USE;
/* Undoes the last letters_add, before anything else is done with the list. */
void letters_take_back(struct letters *l, size_t *bytes);
/* Room for taking so many away: letters_remove needs it. -ENOMEM. */
int letters_reserve(struct letters *l, size_t n) MUST_USE;
void letters_remove(struct letters *l, lsn_t letter);
static inline uint64_t letters_gone(const struct letters *l) {
    return l->gone.size / sizeof(lsn_t);
}
/* Puts the letters of n lists into the file, and deletes those that are gone, in the order of their
 * keys. -ENOMEM. */
int letters_write(const struct letters *const *lists, size_t n, struct ingest *file) MUST_USE;
/* Fills the index with what is in the database. -EBADMSG: some could not be read. */
int letters_load(struct base *base, struct work_letters *index) MUST_USE;

/* Calls each for those of n letters of the index, whose lsns descend, that are in a list (whose
 * newest is given, and does not go away meanwhile) or in the base. -EBADMSG, -ENOMEM. */
struct letters_source {
    struct work_letters *index;
    struct base *base;
    const struct letter **newest;
    size_t n_lists;
};
int letters_read(const struct letters_source *source, const lsn_t *lsns, size_t n,
                 void (*each)(void *context, const struct work_letter *letter),
                 void *context) MUST_USE;
/* ---- As it stands in the database ---- */
/* The lsn is in the key, and not in the value. */
void letter_encode(struct buffer *out, const struct journal_record *record, struct bytes reason);
/* Views into value; the letter's lsn stays 0. False: it is not a whole letter. */
bool letter_decode(struct bytes value, struct work_letter *ret_letter) MUST_USE;

#endif
