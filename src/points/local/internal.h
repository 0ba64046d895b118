/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of the embedded points store, for its own files only: the store, its lanes, and in each
 * lane a shard for every collection that has points there.
 *
 * Locks, outermost first: the checkpoint's (LOCK_RANK_CHECKPOINT, for one checkpoint at a time), a
 * lane's for its maps (LOCK_RANK_IDMAP), a lane's for all it has (LOCK_RANK_SHARD). A lane has one
 * appender, the worker that applies its records: it writes a row without the lock and takes it to
 * publish the row, to change the id map and to move the position. So what the lock shows is always
 * the state after some record, which is what a checkpoint captures and readers check themselves
 * against. The checkpoint changes a lane too: it takes away segments whose rows are all dead, and
 * moves rows to a merged segment (merge.c). The appender reads without the lock only what is its
 * own: the growing segment, and how full a map is. To copy a map into a larger one it takes the
 * maps' lock, which the checkpoint holds while it moves rows.
 */
#ifndef MILLRACE_POINTS_LOCAL_INTERNAL_H
#define MILLRACE_POINTS_LOCAL_INTERNAL_H

#include "os/file.h"
#include "os/sync.h"
#include "points/local/builder.h"
#include "points/local/dead.h"
#include "points/local/idmap.h"
#include "points/local/manifest.h"
#include "points/local/segment.h"
#include "points/sending.h"
#include "points/store.h"

struct lane;

/* The points of one collection in one lane. Counted by reference: the lane and views hold it. */
struct shard {
    _Atomic uint64_t references;
    struct points_collection *collection;
    struct lane *lane;
    struct idmap map;
    struct segment **segments; /* by slot; NULL: free */
    size_t n_slots;
    size_t capacity;
    size_t n_segments;       /* slots in use */
    uint64_t additions;      /* segments that ever were added */
    struct segment *growing; /* the appender's; also in the list. NULL: none */
    _Atomic uint64_t live;
    bool forgotten; /* its lane has let go of it (lane's lock) */
};

struct lane {
    struct points_store *store;
    unsigned number;
    struct mutex appending; /* held for a batch, and by a checkpoint that spills or closes */
    struct mutex mapping;
    struct mutex lock;
    lsn_t position;        /* applied */
    struct shard **shards; /* by incarnation */
    size_t n_shards;
    size_t capacity;
    struct dead_pending dead; /* letters not yet captured by a checkpoint */
    _Atomic lsn_t persisted;
    struct sending *sending;   /* with a sink; the worker's */
    _Atomic uint64_t sendings; /* begun and ended: odd while one is under way */
};

struct points_store {
    struct os *os;
    char *directory;
    struct points_catalog *catalog;
    struct bulk_tasks *tasks;
    struct points_store_options options;
    unsigned n_lanes;
    struct lane *lanes;

    _Atomic uint64_t unsealed_bytes; /* memory of full segments */
    _Atomic uint64_t dirty_bytes;
    _Atomic bool wants_checkpoint; /* though no record came */
    struct work_letters letters;   /* on disk and pending */
    _Atomic uint64_t orphaned_records;
    _Atomic uint64_t damaged_rows;
    _Atomic uint64_t merges;          /* adopted */
    _Atomic uint64_t builds_given_up; /* merges too */
    _Atomic uint64_t merged_bytes;    /* written by merges */
    _Atomic uint64_t reclaimed_bytes; /* of files whose segments were dropped */
    struct builder builder;
    _Atomic uint64_t disk_bytes;  /* as of the last checkpoint */
    _Atomic uint64_t next_number; /* of a segment */

    struct mutex checkpoint; /* guards what follows */
    uint64_t sequence;       /* of the last manifest */
    lsn_t catalog_lsn;       /* as in it */
    struct dead_file dead;
    uint64_t dead_charged; /* of the budget, by letters that were captured */
    bool garbage;          /* there may be files that the manifest does not name */
    size_t merge_turn;     /* passes of planning so far */
};

/* Something other than records waits for a checkpoint. */
void store_want_checkpoint(struct points_store *s);

/* ---- lane.c: shards, and applying records ---- */
void lane_init(struct lane *lane, struct points_store *s, unsigned number);
void lane_deinit(struct lane *lane);
/* The lane's shard of an incarnation, or NULL. Lock held, or by the appender. */
struct shard *lane_find(const struct lane *lane, lsn_t incarnation);
/* Makes an empty shard in the lane (by the appender, or before there are readers). */
int lane_add_shard(struct lane *lane, struct points_collection *collection,
                   struct shard **ret_shard) MUST_USE;
/* Lets go of the shards of dropped collections. */
void lane_forget_dropped(struct lane *lane);
/* Closes growing segments whose rows are all dead, so that they can be dropped. */
void lane_close_dead(struct lane *lane);
int lane_apply(struct lane *lane, const struct journal_record *const *records, size_t n,
               struct work_verdict *ret_verdict) MUST_USE;
/* The record has its effect on the letters, and the lane's position passes it: one step with what
 * else it does. letter: the one that it takes away, or 0. Lock held; room for the marks was
 * reserved. */
void lane_pass_record(struct lane *lane, const struct journal_record *from, lsn_t letter,
                      bool writes);
/* Room for the marks that a record may need. -ENOMEM. */
int lane_reserve_marks(struct lane *lane) MUST_USE;
/* Everything up to lsn was for others. */
void lane_pass(struct lane *lane, lsn_t lsn);
int lane_reject(struct lane *lane, const struct journal_record *record,
                const char *reason) MUST_USE;

/* ---- forward.c: instead of applying, with a sink ---- */
int lane_forward(struct lane *lane, const struct journal_record *const *records, size_t n,
                 struct work_verdict *ret_verdict) MUST_USE;
void lane_forward_deinit(struct lane *lane);

struct shard *shard_ref(struct shard *s);
struct shard *shard_unref(struct shard *s);
/* Gives a segment the lowest free slot; takes over the reference. */
int shard_add_segment(struct shard *s, struct segment *segment) MUST_USE;
/* Takes a full segment whose rows are all dead out of the list. Lock held. */
void shard_drop_segment(struct shard *s, struct segment *segment);
/* Where the live row of id is, and where that stands in the map. */
bool shard_find(const struct shard *s, struct point_id id, struct locator *ret_locator,
                struct idmap_cursor *ret_place);
uint32_t segment_rows_for(const struct points_store *s, const struct point_config *config);
/* A number that no segment and no file has. */
int store_number(struct points_store *s, uint32_t *ret_number) MUST_USE;

/* ---- recover.c: from a manifest and the files to the state of the store ---- */
int store_recover(struct points_store *s, const struct manifest *m,
                  struct points_store_report *report) MUST_USE;

/* ---- spill.c: the memory of growing segments, given back early ---- */
/* Replaces the storage of a growing segment, whose files hold the rows of `to`, by a mapping of
 * them with only the rows since in memory. When it cannot be done the segment stays as it is. */
void segment_spill(struct shard *shard, struct segment *segment, struct storage *storage,
                   const struct manifest_segment *to);
/* Growing segments should be spilled. */
bool store_spills(const struct points_store *s);

/* ---- files.c: names, and reading and writing columns ---- */
int segment_file_path(char out[OS_PATH_MAX], const char *directory, const struct segment_key *key,
                      enum column column) MUST_USE;
bool segment_file_name(const char *name);
/* Maps a file of a segment, or copies a short one; size 0 maps nothing. */
int segment_map(struct points_store *s, const struct segment_key *key, enum column column,
                uint64_t size, struct storage_map *ret_map) MUST_USE;
/* Writes and syncs what the columns' files lack of lengths. Negative or OS_E_FULL: not all is
 * there; after -EIO the files are given up (a new generation is begun at the next try). */
int segment_flush(struct points_store *s, lsn_t incarnation, unsigned lane, struct segment *segment,
                  struct storage *storage, const uint64_t lengths[COLUMNS]) MUST_USE;
/* Gives up the segment's files: the next flush writes all of it under other names. */
void segment_begin_generation(struct points_store *s, struct segment *segment);
/* The highest number in the names of segments' files, as it was in *number or above. */
int files_highest_number(struct points_store *s, uint64_t *number) MUST_USE;
/* Removes the files of our naming that the manifest does not name. */
int files_collect(struct points_store *s, const struct manifest *m) MUST_USE;

#endif
