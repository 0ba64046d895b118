/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dead letters: records that the store refused, kept with the reason. A letter and the position
 * that passes its record become persisted together: it waits in memory until a checkpoint appends
 * it to the file of letters, whose valid length stands in the manifest. Letters that were dropped
 * or replayed are marked in a small file beside it, and left behind when the file is next copied.
 *
 * dead_pending belongs to a lane (its lock), dead_file to the checkpoint.
 */
#ifndef MILLRACE_POINTS_LOCAL_DEAD_H
#define MILLRACE_POINTS_LOCAL_DEAD_H

#include "points/store.h"

enum { DEAD_LETTERS_MAX = 10000 };

struct dead_pending {
    struct buffer frames;
    uint64_t n;
};
/* -ENOMEM: nothing was added. */
int dead_pending_add(struct dead_pending *p, uint64_t number, const struct journal_record *record,
                     const char *reason) MUST_USE;

struct dead_file {
    uint32_t generation; /* in its name: begun anew after a failed sync */
    uint64_t synced;     /* bytes of it that are */
    struct buffer unwritten;
    bool entry_unsynced;  /* it was made since the directory was last synced */
    bool forgets_dropped; /* this generation holds none of the marked letters */
    _Atomic uint64_t next_number;
};

/* Moves the letters of p into f. -ENOMEM: they stay where they are. */
int dead_file_take(struct dead_file *f, struct dead_pending *p) MUST_USE;
/* Writes and syncs what is unwritten. A file whose write or sync failed is given up: the next try
 * copies it. */
int dead_file_flush(struct dead_file *f, struct os *os, const char *directory) MUST_USE;
/* Begins a new generation with the letters of the old one that are not dropped. */
int dead_file_copy(struct dead_file *f, struct os *os, const char *directory) MUST_USE;
/* Loads how it stands: generation, valid bytes, and how many letters are not dropped. When some
 * are, the next checkpoint leaves them behind. */
int dead_file_open(struct dead_file *f, struct os *os, const char *directory,
                   uint64_t *ret_letters) MUST_USE;
/* After a manifest that names this generation. */
int dead_file_saved(struct dead_file *f, struct os *os, const char *directory) MUST_USE;
bool dead_file_name(const char *name, uint32_t *ret_generation);

/* Counts the frames that are not sound; -EBADMSG never. */
int dead_file_verify(struct os *os, const char *directory, uint32_t generation, uint64_t bytes,
                     uint64_t *ret_damaged) MUST_USE;

#endif
