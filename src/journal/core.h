/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every journal is made of, whatever keeps its records: the window, the consumers, the thread
 * that commits. What differs is an **engine**: local/ writes segments to the disk, remote/ appends
 * messages to an engine of somebody else through a driver, remote/shared.c does so beside other
 * processes.
 *
 *   appenders ──▶ window (blocks of frames in memory) ──▶ committer ──▶ engine ──▶ durable
 *                    └──────────── cursors, zero copy ◀── engine, when a cursor fell behind
 *
 * The committer is the journal's thread (or whoever calls journal_commit() when there is none). It
 * alone calls the engine's functions that write. lock guards the window, the consumers and all
 * flags; no file and no socket is touched while it is held.
 */
#ifndef MILLRACE_JOURNAL_CORE_H
#define MILLRACE_JOURNAL_CORE_H

#include "journal/journal.h"
#include "os/sync.h"

#include <stdalign.h>
#include <stdatomic.h>

enum {
    FRAME_HEADER_BYTES = 40,
    FRAME_FLAG_MARK = 0x80, /* not a record: only says how much is synced */
    PIN_MARKS = 16, /* moments a consumer remembers, to know how old the oldest is that it pins */
    BATCH_RECORDS_MAX = 512,
    COMMIT_BYTES_MAX = 16 << 20, /* of one sync, so that a bulk load does not hold up a single */
#ifdef MILLRACE_TINY
    BLOCK_BYTES = 4 << 10,
#else
    BLOCK_BYTES = 1 << 20,
#endif
};
#define COMMIT_RETRY_NS UINT64_C(500000000) /* after one that failed */

/* An error that changes nothing; the call says why. */
static inline void ignore_error(int r) {
    (void)r;
}

static inline uint64_t align_up(uint64_t n, uint64_t to) {
    return (n + to - 1) / to * to;
}

/* ---- frames: frame.c ---- */

struct frame {
    lsn_t lsn;
    lsn_t synced_lsn; /* everything up to it was synced when this was appended */
    uint64_t key_hash;
    uint64_t wall_us;
    struct bytes payload;
    uint8_t kind;
    uint8_t flags;
};

size_t frame_bytes(size_t payload_bytes);
/* The checksum's first half, which needs no lsn: computed before the lock is taken. */
uint32_t frame_payload_crc(uint32_t salt, struct bytes payload);
/* Writes frame_bytes(payload) bytes. */
void frame_store(uint8_t *at, uint32_t salt, const struct frame *f, uint32_t payload_crc);
/* Trusts what it reads: for frames in the window, or checked ones. */
void frame_load(const uint8_t *at, struct frame *ret_frame);
lsn_t frame_lsn(const uint8_t *at);
/* Whole size as its header says; believe it only after frame_header_ok. */
size_t frame_stated_bytes(const uint8_t *at);
bool frame_header_ok(const uint8_t *at, uint32_t salt);
/* Needs all frame_stated_bytes. */
bool frame_ok(const uint8_t *at, uint32_t salt);
static inline bool frame_is_mark(const struct frame *f) {
    return (f->flags & FRAME_FLAG_MARK) != 0;
}

/* ---- blocks and the window: window.c ---- */

/* Memory that holds frames exactly as on disk; whole groups only. */
struct block {
    _Atomic uint32_t refs;
    struct block *next; /* in the window */
    lsn_t first_lsn;
    lsn_t last_lsn;
    size_t used;
    size_t capacity;
    struct budget *budget; /* that the block is counted in */
    uint64_t charged;
    alignas(8) uint8_t data[];
};
/* NULL when memory is out. Readers must go on, so the budget only counts; appends look at it. */
struct block *block_new(struct budget *budget, size_t capacity);
struct block *block_ref(struct block *b);
struct block *block_unref(struct block *b);

/* Where a frame lies in the window; at may be block->used: the next one to come. */
struct place {
    struct block *block; /* NULL: the window was never used */
    size_t at;
};

/* The newest records: blocks in lsn order. Everything from synced on stays, whatever its size. */
struct window {
    struct block *first;
    struct block *last;
    struct budget *budget;
    uint64_t bytes;       /* capacity of all blocks */
    struct place written; /* the first frame that is not in the active segment */
    struct place synced;  /* the first frame that is not known to be on disk */
};
void window_deinit(struct window *w);
/* Room for a group of bytes; -ENOMEM. */
int window_reserve(struct window *w, size_t bytes, uint8_t **ret_at) MUST_USE;
/* The group was written there: makes it part of the window. */
void window_extend(struct window *w, size_t bytes, lsn_t first_lsn, lsn_t last_lsn);
/* Drops the oldest synced blocks beyond max_bytes. */
void window_trim(struct window *w, uint64_t max_bytes);
/* The block that holds the first record at or after lsn; NULL when the window starts after it (and
 * may_start_later is false) or ends before it. */
struct block *window_find(const struct window *w, lsn_t lsn, bool may_start_later);
/* The next group begins a new block. */
void window_break(struct window *w);
/* Moves a place over the end of its block when there is a next one. */
void place_settle(struct place *p);

/* The record lsn came then, and those up to the next mark soon after. */
struct pin_mark {
    lsn_t lsn;
    uint64_t ns;
};

struct journal_consumer {
    struct journal *journal;
    struct journal_consumer *next;
    const char *name;
    enum journal_kind kind;
    lsn_t persisted;
    uint64_t stream_at; /* bytes of frames up to persisted, estimated within a segment */
    struct pin_mark marks[PIN_MARKS]; /* oldest first; of all but the first lsn > persisted + 1 */
    size_t n_marks;
};

/* ---- the journal ---- */

struct journal_engine;
struct local;  /* local/local.h */
struct remote; /* remote/remote.h */
struct shared; /* remote/shared.c */

struct journal {
    struct os *os;
    const char *directory;
    struct journal_options options; /* with the defaults filled in */
    const struct journal_engine *engine;
    struct local *local; /* the engine's part, one of these */
    struct remote *remote;
    struct shared *shared;
    uint32_t salt;        /* of the frames; set by the engine's open */
    const char *identity; /* as journal_identity; set by the engine's open */
    struct os_thread *thread;

    struct mutex lock;
    struct condition wake;          /* for the committer */
    struct condition durable_moved; /* for journal_wait */
    struct condition notified;      /* for journal_unlisten */
    unsigned waiters;
    bool notifying;         /* listeners are being called */
    bool sleeping;          /* the committer waits for wake */
    uint64_t groups;        /* appended so far */
    uint64_t groups_wake;   /* a committer that sleeps is woken when there are so many */
    uint64_t groups_taken;  /* when the last commit began */
    uint64_t groups_before; /* when the one before it began */
    uint64_t groups_active; /* that were in the last commit, or came while it went on */
    bool closing;
    bool release_wanted;
    struct window window;
    uint64_t pending_bytes; /* appended and not synced */
    lsn_t next_lsn;
    lsn_t synced_lsn;
    uint64_t synced_stream; /* bytes of frames ever synced, with padding */
    struct journal_consumer *consumers;
    struct journal_listener *listeners;
    struct journal_observer *observer;
    struct journal_stats stats;

    _Atomic lsn_t appended;
    _Atomic lsn_t durable;
    _Atomic lsn_t unknown; /* as journal_unknown; set before durable passes it */
    _Atomic lsn_t newest[JOURNAL_KINDS];
    _Atomic uint64_t io_started_ns; /* 0: the committer is not in a call */
    _Atomic int refusing;           /* the error that the engine keeps giving; 0: none */

    uint64_t last_commit_ns; /* the committer's own, as what follows */
    uint64_t retry_at_ns;
};

struct journal_engine {
    /* Makes the engine's part of j and opens what is there: salt, next_lsn, synced_lsn,
     * synced_stream, durable, and in the window what must be written again. */
    int (*open)(struct journal *j, struct journal_recovery *ret_recovery) MUST_USE;
    /* Frees that part, whatever there is of it. */
    void (*close)(struct journal *j);
    /* Writes what is appended, as much as one sync should cover, and makes it durable: by
     * commit_settle and commit_publish, or commit_refused. */
    int (*commit)(struct journal *j) MUST_USE;
    /* Everything but commits: space, retention. idle: nobody waits. True when something is watched,
     * so that it wants to be called again soon. */
    bool (*housekeep)(struct journal *j, bool idle);
    /* At the end, when all is committed that can be. */
    void (*finish)(struct journal *j);
    /* Reasons to append nothing beside a commit that failed, or hangs. */
    bool (*refuses)(const struct journal *j, const struct journal_record *records, size_t n);
    /* What is wrong, for journal_state_text; NULL: nothing. */
    const char *(*complaint)(const struct journal *j);
    /* Bytes of frames before the record after lsn, about. */
    uint64_t (*stream_at)(struct journal *j, lsn_t lsn);
    void (*stats)(struct journal *j, struct journal_stats *stats);
    /* Whether it has, and shows, a record at or after lsn. */
    bool (*holds)(struct journal *j, lsn_t lsn);
    /* journal_read of what the window does not hold. */
    int (*read)(struct journal_cursor *c, struct journal_batch **ret_batch) MUST_USE;
    /* The cursor reads from the window now, or ends: takes back what read left open. */
    void (*leave)(struct journal_cursor *c);
};
extern const struct journal_engine journal_local, journal_remote, journal_shared;

/* Whether all of them are control records and deletes: what makes room where there is little. */
bool journal_makes_room(const struct journal_record *records, size_t n);

/* Appends a record of the journal's own that leaves out so many lsns before it. */
int journal_append_gap(struct journal *j, uint64_t gap) MUST_USE;
/* What every consumer has persisted, 0 while there is none; takes release_wanted back. */
lsn_t journal_lowest_persisted(struct journal *j);

/* ---- reading: cursor.c ---- */

struct journal_cursor {
    struct journal *journal;
    lsn_t next;
    struct block *block; /* of the window, read last */
    size_t at;           /* of the record next in it */
    void *reader;        /* the engine's, or NULL */
    size_t n;            /* records collected for the batch at work */
    struct journal_record records[BATCH_RECORDS_MAX];
};
void cursor_collect(struct journal_cursor *c, const struct frame *f);
/* Hands out what the cursor collected from the block, and moves it to next. */
int cursor_finish(struct journal_cursor *c, struct block *block, lsn_t next,
                  struct journal_batch **ret_batch) MUST_USE;

/* ---- committing: commit.c ---- */

/* Whole groups that lie one behind the other in the window. */
struct chunk {
    const uint8_t *data;
    size_t bytes;
    lsn_t first_lsn;
    lsn_t last_lsn;
};
/* What one commit did. */
struct commit {
    uint64_t write_ns;
    uint64_t sync_ns;
    uint64_t bytes;
    uint64_t records;
};

void commit_thread(void *journal);
/* Commits until nothing is pending, or the engine fails. */
int commit_all(struct journal *j) MUST_USE;
bool commit_pending(struct journal *j);
/* All that is not written yet and lies in one block; false: nothing. */
bool commit_unwritten(struct journal *j, struct chunk *ret_chunk);
/* Bytes of the group there, and its last lsn. */
size_t group_bytes(const uint8_t *data, lsn_t *ret_last_lsn);
/* Cuts the chunk to whole groups of at most max bytes together; the first group always stays. */
void chunk_cut(struct chunk *c, uint64_t max);
/* So many bytes of the chunk were written: not to be written again, unless the commit fails. */
void commit_written(struct journal *j, size_t bytes);
/* What was written is durable up to last, which took stream_bytes of the engine. */
void commit_settle(struct journal *j, lsn_t last, uint64_t stream_bytes);
/* Tells everybody. After commit_settle, but for JOURNAL_SYNC_OS. */
void commit_publish(struct journal *j, lsn_t durable, const struct commit *c);
/* What was written and not settled is to be written again, in COMMIT_RETRY_NS. */
void commit_refused(struct journal *j, int error);
/* Around calls that may hang: journal_state() sees how long they take. */
static inline void commit_io_begin(struct journal *j) {
    atomic_store(&j->io_started_ns, os_monotonic_ns(j->os));
}
static inline void commit_io_end(struct journal *j) {
    atomic_store(&j->io_started_ns, 0);
}

#endif
