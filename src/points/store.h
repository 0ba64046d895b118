/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The embedded points store: collections split into lanes, lanes into segments. In each lane of a
 * collection (a shard) one growing segment takes writes in memory; full ones are sealed: immutable
 * files, mmapped. A row is never changed, only marked deleted. points/local/FORMAT.md describes the
 * files, points/local/segment.h how they fit together. Segments with many dead rows, and small
 * ones, are merged into new ones.
 *
 * Writers: the workers, through points_store_work_ops (one thread a lane). Readers: any thread,
 * with a view. A checkpoint appends what grew since the last to the segments' files, syncs them,
 * and atomically replaces one manifest, which names for every lane its position, its segments'
 * valid lengths and deleted rows, and holds the catalog and the bulk tasks (invariant 3: the data
 * and its position become persisted together). Rows past the manifest's lengths are cut at open and
 * come again from the journal.
 *
 * Search without locks sees every point that was there before it began and not deleted since: rows
 * are added before the row they replace is marked, and a reader looks at rows that came since last.
 */
#ifndef MILLRACE_POINTS_STORE_H
#define MILLRACE_POINTS_STORE_H

#include "points/bulk.h"
#include "points/catalog.h"
#include "points/sink.h"
#include "work/work.h"

struct points_store;

struct points_store_options {
    unsigned lanes;             /* of a new store, 0: 4; an existing one keeps its own */
    uint64_t segment_rows_max;  /* 0: 262,144 (debug builds: 16) */
    uint64_t segment_bytes_max; /* of vectors and payloads; 0: 64 MiB */
    uint64_t
        unsealed_bytes_max; /* full segments not yet on disk, then apply says retry; 0: 256 MiB */
    struct budget *budget;  /* then apply says retry, and checkpoints spill; NULL: none */
    const struct points_sink *sink; /* who keeps the points; NULL: the store does. Outlives it */
    uint64_t segments_max; /* of a collection in a lane, then apply says retry until some were
                              merged; 0, and at most: 16,383 */
};

struct points_store_report {
    uint64_t segments;
    uint64_t points;
    uint64_t damaged_rows;
    uint64_t damaged_manifests; /* copies, of two; one that is sound is enough */
    uint64_t damaged_letters;   /* found by verify */
    uint64_t cut_bytes;         /* past the manifest's lengths */
};

/* Opens or creates the store in directory and fills catalog and tasks from its manifest. -EPROTO
 * when both copies of the manifest are damaged or missing: nothing was touched. POINTS_E_… never.
 */
int points_store_open(struct os *os, const char *directory, struct points_catalog *catalog,
                      struct bulk_tasks *tasks, const struct points_store_options *options,
                      struct points_store **ret_store,
                      struct points_store_report *ret_report) MUST_USE;
/* Frees without persisting; call points_store_checkpoint before. Takes NULL. */
struct points_store *points_store_close(struct points_store *s);

/* Its context is the struct points_store. While more than unsealed_bytes_max waits for a
 * checkpoint, apply answers retry: whoever replays a long journal makes checkpoints meanwhile. */
extern const struct work_store_ops points_store_work_ops;
unsigned points_store_lanes(const struct points_store *s);
/* The persisted position of each lane (points_store_lanes of them), as of the last checkpoint. */
void points_store_positions(const struct points_store *s, lsn_t *ret_positions);

/* ---- With a sink ---- */
/*
 * Then the store has no rows, and everything else: lanes with positions, catalog, bulk tasks, dead
 * letters, and the manifest that makes them persisted in one step. A position is what the sink has
 * taken; what lies above the persisted one is sent to it again at the next start, in order.
 */

/* Brings catalog and bulk tasks up to what is durable in j, before the workers replay the rest:
 * that may take as long as the sink is away. progress is called now and then, as work_catch_up's.
 */
int points_store_replay_controls(struct points_store *s, struct journal *j,
                                 void (*progress)(void *context, lsn_t at, lsn_t end),
                                 void *context) MUST_USE;
/* Waits until what was being sent at the call is answered. False: not by the deadline, or stopped
 * says so before. */
bool points_store_settle(struct points_store *s, uint64_t deadline_ns,
                         bool (*stopped)(const void *context), const void *context) MUST_USE;

/* Starts the thread that merges, at idle priority, what checkpoints find worth it; the next takes
 * it in. It ends with points_store_close. */
int points_store_start_builder(struct points_store *s) MUST_USE;
/* Does one such piece of work in the caller's thread, instead. False: there is none. */
bool points_store_build(struct points_store *s);

/* Persists everything applied so far, and only what is durable in j (NULL: all is, for tests and
 * tools). One at a time; reads and applies go on meanwhile. Also seals what is full and deletes
 * files of dropped collections. Negative: nothing was lost, the old checkpoint stands, call again
 * later. */
int points_store_checkpoint(struct points_store *s, struct journal *j) MUST_USE;
/* Bytes applied since the last checkpoint: when to make the next. */
uint64_t points_store_dirty_bytes(const struct points_store *s);
/* The budget's part for points is nearly used up: a checkpoint makes room. */
bool points_store_pressed(const struct points_store *s);
/* Something other than records waits for a checkpoint: merged segments, or room for more. */
bool points_store_wants_checkpoint(const struct points_store *s);

struct points_store_stats {
    uint64_t points;
    uint64_t segments;
    uint64_t disk_bytes;
    uint64_t memory_bytes;
    uint64_t orphaned_records; /* dropped because their incarnation is dead */
    uint64_t damaged_rows;
    uint64_t dead_letters;
    uint64_t merges;
    uint64_t merges_given_up; /* for want of space or memory, or the disk refused */
    uint64_t merged_bytes;    /* written by them */
    uint64_t reclaimed_bytes; /* of the files of segments whose rows all died or moved */
};
void points_store_stats(struct points_store *s, struct points_store_stats *ret_stats);

/* ---- Reading ---- */
struct points_view; /* the segments of one collection, held; belongs to one thread */
int points_view_new(struct points_store *s, struct points_collection *collection,
                    struct points_view **ret_view) MUST_USE;
struct points_view *points_view_free(struct points_view *v);

/* A row: views into a segment, valid as long as the view. */
struct point_row {
    struct point_id id;
    lsn_t lsn; /* of the record that made it: Qdrant's "version" */
    uint64_t vector_mask;
    const float *vectors; /* a whole row: vector i at config.offsets[i] if it is in the mask */
    struct bytes payload; /* JSON object, or empty */
};

/* POINTS_E_NOT_FOUND; -EBADMSG: the row is there but damaged (counted). */
int points_view_get(struct points_view *v, struct point_id id, struct point_row *ret_row) MUST_USE;
uint64_t points_view_count(struct points_view *v);
uint64_t points_view_segments(struct points_view *v);
/* Up to limit rows in the order of ids, from `from` on (NULL: from the first); ret_next is the id
 * after the last, and ret_more says whether there is one. Damaged rows are left out. */
int points_view_scroll(struct points_view *v, const struct point_id *from, size_t limit,
                       struct point_row *rows, size_t *ret_n, struct point_id *ret_next,
                       bool *ret_more) MUST_USE;

struct points_hit {
    struct point_row row;
    float score;
};
struct points_search {
    unsigned vector;    /* its place in the configuration */
    const float *query; /* as given; normalised here for Cosine */
    size_t limit;       /* hits wanted, best first */
    bool has_threshold;
    float threshold;
    unsigned threads; /* at most so many help, the caller included; 0: one */
};
/* Exact search over all segments. hits has room for limit. Ties are ordered by id. */
int points_view_search(struct points_view *v, const struct points_search *wanted,
                       struct points_hit *hits, size_t *ret_n) MUST_USE;

/* More dead letters than a store should keep: new points are to be refused. */
bool points_store_letters_full(const struct points_store *s);

/* Checks every row of every segment of a store that is not open. Negative on I/O. */
int points_store_verify(struct os *os, const char *directory,
                        void (*each)(void *context, const char *sentence), void *context,
                        struct points_store_report *ret_found) MUST_USE;

#endif
