/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The private parts of the journal on disk. FORMAT.md describes the bytes and argues why recovery
 * is right; core.h has what is in memory.
 *
 * The committer alone writes files, owns struct active, and changes the table of segments.
 * files_lock guards the table of segments, the spares and the list of known damage; the journal's
 * lock may be held when files_lock is taken, never the other way round. No file is touched while
 * either is held.
 *
 * Functions that reach the disk return the os's conditions (OS_E_FULL, …) as they are.
 */
#ifndef MILLRACE_JOURNAL_LOCAL_LOCAL_H
#define MILLRACE_JOURNAL_LOCAL_LOCAL_H

#include "journal/core.h"
#include "os/file.h"

enum {
    FORMAT_VERSION = 1,
    SECTOR_BYTES = 512,       /* no sector that was synced is ever written again */
    HEADER_BYTES = 4096,      /* of a segment: two copies of */
    HEADER_COPY_BYTES = 2048, /* one header */
    SPARES_MAX = 2,
    ZERO_AHEAD_BYTES = 4 << 20, /* written at once when a segment is not yet allocated */
    PAGE_BYTES = 4096,          /* no disk wants more of what is written past the page cache */
#ifdef MILLRACE_TINY
    SEGMENT_BYTES = 8 << 10,
    READ_BYTES = 2 << 10,
    STAGING_BYTES = 4 << 10,
#else
    SEGMENT_BYTES = 64 << 20,
    READ_BYTES = 1 << 20,
    STAGING_BYTES = 1 << 20,
#endif
};

/* ---- segment headers: header.c ---- */

/* What a segment's header says of itself and of the one before it. */
struct header {
    uint32_t version;
    uint32_t salt;
    uint64_t number;
    lsn_t base_lsn; /* its first record */
    uint64_t created_us;
    uint64_t file_bytes;      /* the file is at least this large */
    uint64_t previous_number; /* 0: none */
    uint64_t previous_end;
    lsn_t previous_last_lsn;
    bool previous_clean; /* nothing was ever written past previous_end */
};

void header_store(uint8_t out[HEADER_BYTES], const struct header *h);
/* How many of the two copies are good (2, 1 or 0); fills ret_header unless 0. */
int header_load(const uint8_t in[HEADER_BYTES], struct header *ret_header) MUST_USE;

/* ---- walking the frames of a segment: walk.c ---- */

enum walk_what { WALK_FRAME, WALK_HOLE, WALK_END };

struct walk_item {
    enum walk_what what;
    uint64_t offset;
    uint64_t bytes;
    struct frame frame;  /* WALK_FRAME: payload lies in the walk's block */
    const uint8_t *data; /* WALK_FRAME: its bytes */
    lsn_t first_lsn;     /* WALK_HOLE: lost are first_lsn to first_lsn + lost - 1 */
    uint64_t lost;
};

struct walk {
    struct os *os;
    struct os_file *file; /* owned by the caller */
    uint32_t salt;
    struct budget *budget;
    struct block *block; /* what was read last */
    uint64_t block_offset;
    uint64_t offset; /* of the next frame */
    uint64_t end;    /* nothing at or beyond it is looked at */
    lsn_t expected;  /* lsn of the next frame */
    lsn_t last_lsn;  /* the last there must be; 0: unknown, the walk ends where frames end */
};
enum { WALK_E_MORE = 1000 }; /* the next item must be read from disk, and may_read was false */

void walk_deinit(struct walk *w);
int walk_next(struct walk *w, bool may_read, struct walk_item *ret_item) MUST_USE;
/* The lsn of the first whole frame from the start on, whatever it is; 0: none. */
int walk_find_first(struct walk *w, lsn_t *ret_lsn) MUST_USE;

/* ---- segments: segments.c ---- */

struct segment {
    uint64_t number;
    lsn_t base_lsn;
    lsn_t last_lsn; /* base_lsn - 1 when it is empty */
    uint64_t end;   /* offset after the last frame known to be on disk */
    uint64_t file_bytes;
    uint64_t created_us;
    uint64_t stream_start; /* bytes of frames in all segments before it */
    bool clean;            /* nothing was written past end: may be recycled */
};

struct spare {
    uint64_t number;
    uint64_t file_bytes;
};

struct damage {
    uint64_t number;
    uint64_t offset;
};

struct segments {
    struct segment *table; /* by number */
    size_t n;
    size_t capacity;
    uint64_t next_number;
    struct spare spares[SPARES_MAX];
    size_t spares_n;
    uint64_t next_spare;
    struct damage *damages; /* those already counted */
    size_t damages_n;
    size_t damages_capacity;
    uint64_t damaged_records;
    uint64_t damaged_bytes;
};

/* The segment being written; owned by the committer. */
struct active {
    struct os_file *file; /* NULL: none, the next commit starts one */
    uint64_t number;
    bool named; /* false: still called spare-N */
    uint64_t spare_number;
    uint64_t created_us;
    uint64_t offset;    /* where the next frame goes */
    uint64_t written;   /* from here to offset is in the staging buffer */
    uint64_t synced;    /* the offset up to which it is known to be on disk */
    uint64_t allocated; /* bytes that need no metadata to be synced */
    uint64_t limit;     /* no frame goes beyond it */
    lsn_t base_lsn;
    lsn_t next_lsn;   /* the lsns of a segment are consecutive */
    lsn_t marked_lsn; /* the last mark says that this is synced */
    bool dirty;       /* written and not synced */
};

struct local {
    struct os_file *lock_file;
    struct mutex files_lock;
    struct segments segments;
    _Atomic bool space_low;
    _Atomic bool space_out; /* half of the reserve is used up too */

    struct active active; /* the committer's own, as all below */
    uint8_t *staging;     /* STAGING_BYTES, whole sectors on their way to the disk */
    uint64_t last_sync_ns;
    uint64_t next_space_check_ns;
    lsn_t recovered_lsn;  /* up to it, recovery found records that must be written again */
    bool space_for_spare; /* as the last check saw it */
};

int journal_segment_path(char out[OS_PATH_MAX], const struct journal *j, uint64_t number) MUST_USE;
int spare_path(char out[OS_PATH_MAX], const struct journal *j, uint64_t number) MUST_USE;
void segments_deinit(struct segments *s);
/* Adds a row at the end of the table. -ENOMEM. */
int segments_add(struct journal *j, const struct segment *segment) MUST_USE;
/* The first segment with a record at or after lsn; false: none. */
bool segments_find(struct journal *j, lsn_t lsn, struct segment *ret_segment);
bool segments_has(struct journal *j, uint64_t number);
/* Bytes of frames before the record after lsn, estimated within a segment. */
uint64_t segments_stream_at(struct journal *j, lsn_t lsn);
/* Starts a new active segment for records from base_lsn on, with room for at least bytes; it has no
 * name yet. */
int segments_start(struct journal *j, lsn_t base_lsn, uint64_t bytes) MUST_USE;
/* What was written to the active segment is synced: makes it part of the journal. */
int segments_name(struct journal *j) MUST_USE;
/* Ends the active segment at its synced offset. clean: nothing was written past it. One without a
 * name is taken away again. */
void segments_end(struct journal *j, bool clean);
/* The active segment has frames up to last_lsn on disk. */
void segments_synced(struct journal *j, lsn_t last_lsn);
/* Recycles or unlinks what everybody has persisted. */
void segments_release(struct journal *j);
/* Writes zeros from the first sector at or behind *at, and moves that, also when it fails. The
 * staging buffer is free for it. */
int segments_write_zeros(struct journal *j, struct os_file *file, uint64_t *at,
                         uint64_t to) MUST_USE;
/* Segments are written past the page cache, unless that is to hold what a kill must not lose. */
static inline unsigned segments_open_flags(const struct journal *j) {
    return OS_OPEN_WRITE | OS_OPEN_CREATE |
           (j->options.sync == JOURNAL_SYNC_OS ? 0 : (unsigned)OS_OPEN_DIRECT);
}
/* Writes zeros for a spare if one is missing; stops early when records wait. */
void segments_prepare_spare(struct journal *j);
void segments_drop_spares(struct journal *j);
/* Counts damage and sets it aside, once. False: the segment is gone, what was read is nothing. */
bool segments_damaged(struct journal *j, uint64_t number, struct os_file *file, uint64_t offset,
                      uint64_t bytes, uint64_t records);

/* ---- recovery: recover.c ---- */

/* Fills the table, the window with what must be written again, and next_lsn. */
int journal_recover(struct journal *j, struct journal_recovery *ret_recovery) MUST_USE;

/* ---- committing: commit.c; reading: read.c ---- */

int local_commit(struct journal *j) MUST_USE;
bool local_housekeep(struct journal *j, bool idle);
void local_finish(struct journal *j);
bool local_holds(struct journal *j, lsn_t lsn);
int local_read(struct journal_cursor *c, struct journal_batch **ret_batch) MUST_USE;
void local_leave(struct journal_cursor *c);

#endif
