/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dead letters on disk: records that the store refused, kept with the reason, and what became of
 * them: marks. A letter and the position that passes its record become persisted together, and so
 * do a mark and the position that passes the record that it comes from: both wait in memory until a
 * checkpoint appends them to the file of letters, whose valid length stands in the manifest. The
 * file is copied without the letters that are gone when there are many, and at open.
 *
 * dead_pending belongs to a lane (its lock), dead_file to the checkpoint; what of it readers look
 * at stands under its lock (LOCK_RANK_LETTER_FILE). Which letters there are is in the store's index
 * (work/letters.h).
 */
#ifndef MILLRACE_POINTS_LOCAL_DEAD_H
#define MILLRACE_POINTS_LOCAL_DEAD_H

#include "points/store.h"

/* So many are a state in which no more points are taken. Lanes never wait for it: who takes letters
 * away comes by the same lane. */
#ifdef MILLRACE_TINY
enum { DEAD_LETTERS_MAX = 50 };
#else
enum { DEAD_LETTERS_MAX = 10000 };
#endif

/* One letter or mark as it stands in the file: a header with checksums, then the body. */
void dead_append_frame(struct buffer *out, struct bytes body);

struct dead_pending {
    struct buffer frames; /* of letters */
    struct buffer marks;  /* frames too; its room is never given back */
    uint64_t gone;        /* of the marks, those of letters that are gone */
};
void dead_pending_deinit(struct dead_pending *p);
/* -ENOMEM: nothing was added. */
int dead_pending_add(struct dead_pending *p, const struct journal_record *record,
                     const char *reason) MUST_USE;
/* What became of letters. */
struct dead_mark {
    lsn_t letter; /* 0: all of the key, which are older than the change */
    uint64_t key_hash;
    lsn_t changed; /* the record that wrote the key; 0: the letter is gone */
};
/* Room for a few marks: dead_pending_mark needs it. -ENOMEM. */
int dead_pending_reserve(struct dead_pending *p) MUST_USE;
void dead_pending_mark(struct dead_pending *p, const struct dead_mark *mark);

struct dead_file {
    struct mutex lock;       /* guards generation, synced, and unwritten's place and size */
    uint32_t generation;     /* in its name: begun anew after a failed sync */
    uint64_t synced;         /* bytes of it that are */
    struct buffer unwritten; /* changed by checkpoints alone */
    bool entry_unsynced;     /* it was made since the directory was last synced */
    bool forgets_dropped;    /* this generation holds none of the letters that were gone */
    uint64_t gone;           /* letters of this generation that are */
};
void dead_file_init(struct dead_file *f);
void dead_file_deinit(struct dead_file *f);

/* Moves the letters of p into f. -ENOMEM: they stay where they are. */
int dead_file_take(struct dead_file *f, struct dead_pending *p) MUST_USE;
/* Writes and syncs what is unwritten. A file whose write or sync failed is given up: the next try
 * copies it. */
int dead_file_flush(struct dead_file *f, struct os *os, const char *directory) MUST_USE;
/* Begins a new generation with the letters of the old one that are not gone. */
int dead_file_copy(struct dead_file *f, struct os *os, const char *directory) MUST_USE;
/* The same when many of them are gone, if it can be. */
void dead_file_tidy(struct dead_file *f, struct os *os, const char *directory);
/* Loads how it stands, and fills the index. When letters are gone, the next checkpoint leaves them
 * behind. */
int dead_file_open(struct dead_file *f, struct os *os, const char *directory,
                   struct work_letters *letters) MUST_USE;
/* After a manifest that names this generation. */
int dead_file_saved(struct dead_file *f, struct os *os, const char *directory) MUST_USE;
bool dead_file_name(const char *name, uint32_t *ret_generation);

/* Calls each for those of n letters, whose lsns descend, that are in frames (copied out of lanes
 * before the call) or in the file. -ENOMEM, or as the disk did. */
int dead_file_read(struct dead_file *f, struct os *os, const char *directory, struct bytes frames,
                   const lsn_t *lsns, size_t n,
                   void (*each)(void *context, const struct work_letter *letter),
                   void *context) MUST_USE;

/* Counts the frames that are not sound; -EBADMSG never. */
int dead_file_verify(struct os *os, const char *directory, uint32_t generation, uint64_t bytes,
                     uint64_t *ret_damaged) MUST_USE;

#endif
