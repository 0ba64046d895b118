/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dead letters of a keyed store: records that it refused, each with the reason. They are listed in
 * memory as they come and written by the next checkpoint, with the position that has passed them.
 * The same in every database: the key is LETTER_KEY and the lsn; the value is
 *
 *   u8 kind, u8 flags, u64 hash of the key, u64 wall_us, block payload, block reason
 *
 * A list belongs to whoever holds the lock of what it is part of; letters are immutable.
 */
#ifndef MILLRACE_KEYED_LETTER_H
#define MILLRACE_KEYED_LETTER_H

#include "journal/journal.h"
#include "keyed/database.h"

enum { LETTER_KEY = 'x' };

struct letter;
struct letters {
    struct letter *newest;
    uint64_t n;
};
void letters_deinit(struct letters *l);
/* Takes the record down; what memory it takes is added to *bytes. -ENOMEM: nothing was. */
int letters_add(struct letters *l, const struct journal_record *record, const char *reason,
                size_t *bytes) MUST_USE;
/* Puts the letters of n lists into the file, in the order of their keys. -ENOMEM. */
int letters_write(const struct letters *const *lists, size_t n, struct ingest *file) MUST_USE;
/* Whether a value is a whole letter. */
bool letter_is_sound(struct bytes value);

#endif
