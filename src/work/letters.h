/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dead letters: records that a store rejected, each kept with the reason (invariant 5). A letter is
 * known by the lsn of its record: no other has it, and no crash changes it.
 *
 * What becomes of a letter is a record too: JOURNAL_LETTER is among its flags, kind and key_hash
 * are those of the letter, so that it comes to the lane that has it, after it:
 *
 *   0  u8  version (1)     4  u32 0
 *   1  u8  op              8  u64 lsn of the letter
 *   2  u8  1: forced       16 REPLAY: the payload of the record that is written again, to the end
 *   3  u8  0
 *
 * The store does what the record says in one step with its position, or refuses it:
 *
 *   the letter is gone                            ─▶ work_letter_gone
 *   DROP                                          ─▶ the letter goes
 *   REPLAY, its key was written since, not forced ─▶ work_letter_changed
 *   REPLAY, and the store takes the payload       ─▶ it does what a record of it does, and the
 *                                                    letter goes
 *   REPLAY, and it takes it no more than before   ─▶ with that reason
 *
 * So the journal's order decides every race, be it with another replay or with a write of the same
 * key, and whatever dies when, a letter is there or had its one effect. Refused means that nothing
 * changes: the verdict is WORK_REJECT, for whoever waits for the record, and reject() keeps no
 * letter of a letter.
 *
 * Letters that processes share are kept by an engine (struct letter_box): a drop takes one away
 * there, and what is written again is a record about the letter, if the store can have it done once
 * by that, as above; or the record anew, where doing it twice is doing it once.
 *
 * struct work_letters is a store's index of its letters, in memory: 40 bytes each. Thread-safe,
 * with a lock of its own (LOCK_RANK_LETTERS).
 */
#ifndef MILLRACE_WORK_LETTERS_H
#define MILLRACE_WORK_LETTERS_H

#include "base/bytes.h"
#include "journal/journal.h"
#include "os/sync.h"

#include <stdatomic.h>

/* ---- What becomes of a letter ---- */

/* Part of the journal's bytes: never renumbered. */
enum work_letter_op {
    WORK_LETTER_DROP = 1,
    WORK_LETTER_REPLAY = 2,
};
enum { WORK_LETTER_HEADER = 16 };
struct work_letter_record {
    enum work_letter_op op;
    bool force;
    lsn_t letter;
    struct bytes payload; /* REPLAY: a view */
};
void work_letter_encode(struct buffer *out, const struct work_letter_record *record);
/* False: it is none of a version known here. */
bool work_letter_decode(struct bytes payload, struct work_letter_record *ret_record) MUST_USE;

/* Why a store refuses one; for a person, and to be compared with. */
extern const char work_letter_gone[];
extern const char work_letter_changed[];
extern const char work_letter_unknown[]; /* does not decode */
/* Why a worker waits that has a record to reject. */
extern const char work_letters_full[];

/* ---- A letter, as it is read ---- */

#define WORK_LETTER_NOBODY_KNOWS UINT64_MAX
struct work_letter {
    struct journal_record record; /* as it was rejected; its lsn is the letter's number */
    struct bytes reason;
    lsn_t changed; /* the record that wrote its key since, 0: none did; or NOBODY_KNOWS */
};

/* ---- Where the letters of a kind are ---- */

/* A store fills one, for whoever shows its letters or has something become of them. Thread-safe.
 * Those that processes share are asked of an engine, so each call may block for seconds, and say
 * WORK_LETTER_E_UNREACHABLE with why; none is known to be changed or not. */
enum { WORK_LETTER_WHY_MAX = 320 };
struct letter_box_ops {
    /* The newest numbers below `below` (0: all), descending, at most max. -ENOMEM. */
    int (*page)(void *store, lsn_t below, size_t max, lsn_t *out, size_t *ret_n,
                char why[WORK_LETTER_WHY_MAX]) MUST_USE;
    /* Calls each, in any order, for those of n letters that are there; what it is given is valid
     * during the call. -EBADMSG, -ENOMEM. */
    int (*read)(void *store, const lsn_t *numbers, size_t n,
                void (*each)(void *context, const struct work_letter *letter), void *context,
                char why[WORK_LETTER_WHY_MAX]) MUST_USE;
    /* Of letters that processes share, and so is all below; NULL: records in the journal do it.
     * Takes one away, which is durable. WORK_LETTER_E_GONE; -ENOMEM. */
    int (*drop)(void *store, lsn_t number, char why[WORK_LETTER_WHY_MAX]) MUST_USE;
    /* How many there are; NULL: the store tells otherwise. */
    int (*count)(void *store, uint64_t *ret_n, char why[WORK_LETTER_WHY_MAX]) MUST_USE;
    /* The record was written again, and is durable: takes the letter away, or sees whether who
     * applies the record has. -ENOMEM. */
    int (*settle)(void *store, lsn_t number, bool *ret_gone,
                  char why[WORK_LETTER_WHY_MAX]) MUST_USE;
    bool overwrites; /* what is written again comes over what its key is by now: only if forced */
};
struct letter_box {
    const struct letter_box_ops *ops; /* NULL: there are none of the kind */
    void *store;
};

/* The number of a letter that processes share: of its record's lsn and partition together. */
enum { WORK_LETTER_PARTITION_BITS = 6 }; /* above them the lsn, of 58 bits */
static inline lsn_t work_letter_number(lsn_t lsn, unsigned partition) {
    return lsn << WORK_LETTER_PARTITION_BITS | partition;
}
static inline unsigned work_letter_partition(lsn_t number) {
    return number & ((1u << WORK_LETTER_PARTITION_BITS) - 1);
}

/* ---- What only its kind knows ---- */

enum {
    WORK_LETTER_E_REFUSED = 250, /* the sentence says what is wrong */
    WORK_LETTER_E_JOURNAL,       /* nothing was appended: *condition is a JOURNAL_E_… */
    WORK_LETTER_E_GONE,
    WORK_LETTER_E_UNREACHABLE, /* who has the letters does not answer */
    WORK_LETTER_E_FULL,        /* as many are kept as may be */
};
enum { WORK_LETTER_SENTENCE = 320 };

/* A letter that is to be written again. */
struct work_letter_replay {
    const struct work_letter *letter;
    const struct bytes *edited; /* the record as JSON, changed; NULL: as it was */
    bool force;
    lsn_t first; /* set: what was appended, as one group */
    lsn_t last;  /* of the record about the letter */
    int condition;
    char sentence[WORK_LETTER_SENTENCE];
};

/* One row a kind; api is what the kind's routes have for context. Thread-safe. */
struct work_letter_kind {
    /* Appends the key, as a person names it; nothing when it cannot be told. */
    void (*append_key)(void *api, const struct work_letter *letter, struct buffer *out);
    /* Appends the record as the JSON that a replay takes. May do I/O of a block.
     * WORK_LETTER_E_REFUSED: there is none. */
    int (*append_record)(void *api, const struct work_letter *letter, struct buffer *out,
                         char sentence[WORK_LETTER_SENTENCE]) MUST_USE;
    /* Checks what can be checked now, and appends the record to the journal. An edited record keeps
     * the key of the letter. WORK_LETTER_E_REFUSED, WORK_LETTER_E_JOURNAL. */
    int (*replay)(void *api, struct work_letter_replay *replay) MUST_USE;
};
/* For them: says why, and returns WORK_LETTER_E_REFUSED. */
int work_letter_refuse(char sentence[WORK_LETTER_SENTENCE], const char *format, ...) MUST_USE
    PRINTF_LIKE(2, 3);

/* ---- The index ---- */

enum { WORK_LETTERS_BUCKETS = 1024 };
struct work_letters_entry;
struct work_letters {
    struct mutex lock;
    _Atomic uint64_t n;
    struct work_letters_entry *buckets[WORK_LETTERS_BUCKETS]; /* by key_hash */
};
void work_letters_init(struct work_letters *l);
void work_letters_deinit(struct work_letters *l);

/* -ENOMEM. One that is there already stays as it is. */
int work_letters_add(struct work_letters *l, lsn_t letter, uint64_t key_hash) MUST_USE;
/* Harmless when it is not there. */
void work_letters_remove(struct work_letters *l, lsn_t letter, uint64_t key_hash);
/* False: it is not there. ret_changed as work_letter's. */
bool work_letters_find(struct work_letters *l, lsn_t letter, uint64_t key_hash,
                       lsn_t *ret_changed) MUST_USE;
/* The same for who does not know the key. */
bool work_letters_hash_of(struct work_letters *l, lsn_t letter, uint64_t *ret_key_hash) MUST_USE;

/* Record lsn writes a key: its older letters have changed. True when one had not before. Lock-free
 * while there are no letters. */
bool work_letters_change(struct work_letters *l, uint64_t key_hash, lsn_t lsn);
/* Appends the letters of a key, a lsn_t each, in no order. Lock-free while there are none. */
void work_letters_of_key(struct work_letters *l, uint64_t key_hash, struct buffer *out);

/* The newest letters below `below` (0: all), descending, at most max. ret_n of them stand in out.
 * -ENOMEM. */
int work_letters_page(struct work_letters *l, lsn_t below, size_t max, lsn_t *out,
                      size_t *ret_n) MUST_USE;
static inline uint64_t work_letters_n(const struct work_letters *l) {
    return atomic_load_explicit(&l->n, memory_order_relaxed);
}

#endif
