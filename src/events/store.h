/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The embedded events store: profiles (the newest tags of each cookie) and aggregates (columns of a
 * minute of event time each). events/local/README.md tells the design; in short:
 *
 *   apply ─▶ a lane's hot generation (memory) ──freeze──▶ frozen ──ingest──▶ RocksDB
 *                     └──────────── readers see all three ───────────┘
 *
 * Writers: the workers, through events_store_work_ops (one thread a lane). A checkpoint freezes
 * every lane's generation, writes one sorted file with all that is new — profiles by cookie,
 * columns by minute and lane, elements of the dictionary, idempotency keys, every lane's position —
 * and has RocksDB ingest it: atomic and synced (invariant 3: data and position are one file). There
 * is no write-ahead log: the journal is it. Readers hold, a lane, its generations and a snapshot,
 * taken together: nothing is seen twice or not at all while a checkpoint goes on, and nothing waits
 * for it.
 *
 * Thread-safe. The dictionary and the keys are borrowed.
 */
#ifndef MILLRACE_EVENTS_STORE_H
#define MILLRACE_EVENTS_STORE_H

#include "events/once.h"
#include "work/work.h"

struct events_store;

struct events_store_options {
    unsigned lanes;         /* of a new store, 0: 4; an existing one keeps its own */
    uint64_t hot_bytes_max; /* not yet frozen, over all lanes; while a checkpoint is under way
                               and so much is hot again, apply says retry. 0: 128 MiB (debug
                               builds: 4 KiB) */
    uint64_t cache_bytes;   /* RocksDB's block cache; 0: 64 MiB */
};

struct events_store_report {
    uint64_t profiles; /* about: RocksDB's estimate */
    uint64_t minutes;
    uint64_t elements;
    uint64_t damages; /* found by verify; of those that opening met: */
    uint64_t mended;  /* made good from the copies */
    uint64_t lost;    /* elements, and stretches of idempotency keys, left out */
};

/* Opens or creates the store in directory (of the real file system: RocksDB does its own I/O) and
 * fills dictionary and once. What is damaged is mended from copies or left out, and reported.
 * -EPROTO: so damaged that nothing can be told; nothing was changed, and why says what is wrong. */
int events_store_open(struct os *os, const char *directory, struct event_dictionary *dictionary,
                      struct event_once *once, const struct events_store_options *options,
                      struct events_store **ret_store, struct events_store_report *ret_report,
                      char *why, size_t why_size) MUST_USE;
/* Frees without persisting; call events_store_checkpoint before. Takes NULL. */
struct events_store *events_store_close(struct events_store *s);

/* Its context is the struct events_store. Records are never rejected but for one that does not
 * decode. */
extern const struct work_store_ops events_store_work_ops;
unsigned events_store_lanes(const struct events_store *s);
/* The persisted position of each lane, as of the last checkpoint. */
void events_store_positions(const struct events_store *s, lsn_t *ret_positions);
/* Persists everything applied so far, and of dictionary and keys only what is durable in j (NULL:
 * all is). One at a time; reads and applies go on meanwhile. Negative: nothing was lost, the old
 * checkpoint stands, call again later. */
int events_store_checkpoint(struct events_store *s, struct journal *j) MUST_USE;
/* Bytes of the hot generations: when to make the next. */
uint64_t events_store_dirty_bytes(const struct events_store *s);
/* A checkpoint had better wait, for seconds at most: compactions are behind. */
bool events_store_is_behind(struct events_store *s);

/*
 * A user who was erased reads as erased at once, also while the workers lag: what a lane has
 * applied before the erasure's lsn is not shown any more. To be told once the record is appended,
 * and before that asked whether there is room to remember it: false when a lane has thousands to
 * apply.
 */
bool events_store_takes_erasure(struct events_store *s, uint64_t key_hash);
void events_store_erased(struct events_store *s, uint64_t key_hash, lsn_t lsn);

/* ---- Aggregates reach back 24 h of event time ---- */
/*
 * The watermark is the newest minute that at least EVENT_WATERMARK_TAGS tags are in or after: it
 * never goes back, it follows from the minutes' counts alone, and a few tags dated 2099 do not move
 * it. A tag older than the watermark by more than 24 h is late: decided once, at append
 * (event_record.late). A minute is deleted once it has been out of reach for an hour of wall-clock
 * time, so that a wrong jump can be noticed; or at once when half of EVENT_MINUTES_MAX are kept.
 */
enum {
    EVENT_MINUTES_MAX = 16384, /* at a time; tags of further ones count as late */
#ifdef MILLRACE_TINY
    EVENT_WATERMARK_TAGS = 10,
#else
    EVENT_WATERMARK_TAGS = 1000,
#endif
};
/* Lock-free. */
bool events_store_is_late(const struct events_store *s, int64_t time_ms);

/* ---- Reading ---- */
/* Tags of one action, newest first; ids as in the dictionary. */
struct event_list {
    struct event_tag *tags;
    size_t n;
};
struct event_profile {
    struct event_list lists[EVENT_ACTIONS];
    struct arena *arena; /* borrowed: what the tags are allocated from */
};
/* The tags of a cookie with from_ms <= time < to_ms, at most limit of each action. An unknown
 * cookie has none. -EBADMSG: RocksDB found damage. Does I/O: for query threads. */
int events_store_profile(struct events_store *s, struct bytes cookie, int64_t from_ms,
                         int64_t to_ms, size_t limit, struct event_profile *ret_profile) MUST_USE;

struct event_aggregate_query {
    int64_t first_minute;
    unsigned minutes; /* 0 to EVENT_RANGE_MINUTES_MAX */
    enum event_action action;
    /* Ids to filter by, 0: not by this one. */
    uint32_t ids[EVENT_FILTERS];
};
struct event_aggregate {
    uint64_t count;
    int64_t sum;
};
/* Fills out[minutes]. Does I/O. -EBADMSG. */
int events_store_aggregate(struct events_store *s, const struct event_aggregate_query *query,
                           struct event_aggregate *out) MUST_USE;

struct events_store_stats {
    uint64_t tags_applied;
    uint64_t tags_late;
    uint64_t profiles; /* estimate */
    uint64_t minutes;
    int64_t watermark_ms; /* 0 while there is none */
    uint64_t disk_bytes;
    uint64_t memory_bytes; /* generations, cache, tables */
    uint64_t dead_letters;
    uint64_t damages; /* met when the store was opened, and by queries since */
    uint64_t compactions_failed;
};
void events_store_stats(struct events_store *s, struct events_store_stats *ret_stats);

/* Checks every block of a store that is not open. Negative on I/O. */
int events_store_verify(struct os *os, const char *directory,
                        void (*each)(void *context, const char *sentence), void *context,
                        struct events_store_report *ret_found) MUST_USE;

#endif
