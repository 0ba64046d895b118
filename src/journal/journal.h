/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal: the durable log that every record goes through. Appending gives records their lsn
 * (invariant 2: one total order for the node); a commit makes them durable (invariant 1); readers
 * see nothing past the durable lsn. Retention follows the lowest position that every consumer has
 * persisted (invariant 3).
 *
 * The journal owns the window (the newest records in memory), the segments on disk and one thread,
 * which writes and syncs what was appended since it last looked: all that arrives during one sync
 * shares the next (group commit). It never looks into a payload. All functions are thread-safe
 * except that one cursor belongs to one thread at a time. local/ is the engine on disk, FORMAT.md
 * describes its bytes; remote/ the one on somebody else's log. What is different where many
 * processes share a journal says remote/shared.h: there is no order over all of it.
 */
#ifndef MILLRACE_JOURNAL_JOURNAL_H
#define MILLRACE_JOURNAL_JOURNAL_H

#include "base/budget.h"
#include "base/bytes.h"
#include "base/service_url.h"
#include "os/os.h"

typedef uint64_t lsn_t; /* 1, 2, 3, …; 0 is before the first */

/* Who reads a record. Part of the disk format: never renumbered. */
enum journal_kind {
    JOURNAL_KIND_JOURNAL = 0, /* the journal's own: a gap in the lsns */
    JOURNAL_KIND_POINTS = 1,
    JOURNAL_KIND_EVENTS = 2,
    JOURNAL_KIND_TASKS = 3,
    JOURNAL_KINDS = 4,
};

enum journal_flags {
    JOURNAL_CONTROL = 1, /* for the store as a whole, not for the lane of key_hash */
    JOURNAL_MORE = 2,    /* set by append: the group goes on with the next record */
    JOURNAL_DELETES =
        4, /* asked of append, and not kept: it makes room, so it may use the reserve */
    JOURNAL_LETTER = 8, /* what becomes of a dead letter: work/letters.h */
};

/* A record to append, and a record as read. */
struct journal_record {
    lsn_t lsn;         /* set by append */
    uint64_t key_hash; /* decides the lane */
    uint64_t wall_us;  /* set by append: when, for the age of the oldest record */
    uint8_t kind;
    uint8_t flags;
    struct bytes payload;
};

enum {
    _JOURNAL_E_SUCCESS,
    JOURNAL_E_OVERLOAD,    /* too much is appended and not yet synced: try again soon */
    JOURNAL_E_PINNED,      /* this kind pins as much, or as long, as it may: its store is behind */
    JOURNAL_E_UNAVAILABLE, /* the disk refuses or hangs, the engine cannot be reached: nothing was
                              appended, or opened */
    JOURNAL_E_TOO_LARGE,   /* the group is larger than JOURNAL_GROUP_MAX_BYTES */
    JOURNAL_E_END,         /* nothing durable beyond the cursor */
    JOURNAL_E_TIMEOUT,
    JOURNAL_E_LOCKED,  /* another process has the directory open */
    JOURNAL_E_VERSION, /* written by a newer version */
    JOURNAL_E_REFUSED, /* the engine will not have it: a wrong option, no right, another's journal
                        */
};

enum { JOURNAL_GROUP_MAX_BYTES = 48 << 20 };

enum journal_sync {
    JOURNAL_SYNC_ALWAYS, /* one fdatasync for every group of records */
    JOURNAL_SYNC_GROUP,  /* one for all that arrived during the last */
    JOURNAL_SYNC_OS,     /* durable means written; the kernel syncs. Power loss loses seconds */
};

struct journal_options {
    const struct service_url *url; /* of the engine that keeps the records; NULL: local. Borrowed */
    enum journal_sync sync;
    uint64_t segment_bytes; /* 0: 64 MiB (debug builds: 8 KiB) */
    uint64_t window_bytes;  /* records kept in memory for workers that keep up; 0: 32 MiB */
    uint64_t
        pending_bytes_max; /* appended and not yet durable, then JOURNAL_E_OVERLOAD; 0: 64 MiB */
    uint64_t pin_bytes_max[JOURNAL_KINDS]; /* what a kind may pin; 0: 8 GiB */
    uint64_t pin_ms_max[JOURNAL_KINDS];    /* the age of the oldest record it pins; 0: no bound */
    uint64_t keep_bytes;                   /* keep at least this much although all is persisted */
    uint64_t keep_seconds;
    uint64_t disk_reserve_bytes; /* appends are refused when less is free, those of control records
                                    and deletes when less than half of it is; 0: 256 MiB or 5 % */
    uint64_t sync_deadline_ms;   /* after which a sync counts as hanging; 0: 2000 */
    struct budget *budget;       /* of blocks in memory, then JOURNAL_E_OVERLOAD; NULL: none */
    bool read_only;              /* for tools: opens without recovery writes, append is refused */
    bool no_thread;              /* for tests: commit only in journal_commit() */
    const char *name; /* of one that is shared: "events". Its log has the name, so that each kind of
                         records has one of its own. Static */
    bool existing;    /* likewise: nothing is made, and one that is not there is refused */
    /* Of an engine with a URL: */
    uint64_t call_timeout_ms;        /* of one call of it; 0: 5,000 */
    const struct log_driver *driver; /* for tests: instead of the one of the URL's scheme */
    /* Told, during journal_open, which of its settings promise less than they should, and why it
     * cannot be opened. May be NULL. */
    void (*tell)(void *context, const char *sentence);
    void *tell_context;
};

struct journal;
struct journal_consumer;
struct journal_cursor;

/* What opening found. Everything but torn_bytes and the lsns is a reason to look. */
struct journal_recovery {
    lsn_t first_lsn; /* the oldest record there is, or next_lsn when there is none */
    lsn_t next_lsn;
    uint64_t segments;
    uint64_t torn_bytes;      /* cut at the end of the last segment */
    uint64_t damaged_records; /* set aside */
    uint64_t damaged_bytes;
};

/* Opens or creates the journal in directory. JOURNAL_E_LOCKED, JOURNAL_E_VERSION, OS errors folded
 * into negatives; with a URL also JOURNAL_E_UNAVAILABLE, _REFUSED: options.tell says why. The os,
 * the URL and directory must outlive it. */
int journal_open(struct os *os, const char *directory, const struct journal_options *options,
                 struct journal **ret_journal, struct journal_recovery *ret_recovery) MUST_USE;
/* Commits what is appended (bounded by the deadline), ends the thread, closes. Takes NULL. */
struct journal *journal_close(struct journal *j);

/* Called once at start, before the first append: makes the next lsn larger than above. When the
 * journal was behind (a store knows a larger lsn than the journal: it lost data), a gap record says
 * so and ret_gap is its length; else 0. */
int journal_advance(struct journal *j, lsn_t above, uint64_t *ret_gap) MUST_USE;

/* Appends n (≥ 1) records as one group: after a crash all of them are there or none. Copies the
 * payloads, sets lsn, wall_us and JOURNAL_MORE in records (consecutive lsns). Does not wait.
 * JOURNAL_E_OVERLOAD, _PINNED, _UNAVAILABLE, _TOO_LARGE. */
int journal_append(struct journal *j, struct journal_record *records, size_t n) MUST_USE;

/* The last lsn appended, and the last one durable. Lock-free. */
lsn_t journal_appended(const struct journal *j);
lsn_t journal_durable(const struct journal *j);
/* What became of some records up to this lsn will never be known, so who was not answered yet must
 * not say that they are durable, though the durable lsn has passed them; 0: there are none. Read
 * after journal_durable. Only of a journal that is shared. Lock-free. */
lsn_t journal_unknown(const struct journal *j);
/* No record of the kind has an lsn above it; exact for what was appended since the opening. Read
 * after journal_durable, it says whether anything durable is of the kind. Lock-free. */
lsn_t journal_newest(const struct journal *j, enum journal_kind kind);
/* Waits until lsn is durable. JOURNAL_E_TIMEOUT: its outcome is unknown for now, or for good. */
int journal_wait(struct journal *j, lsn_t lsn, uint64_t timeout_ms) MUST_USE;
/* One turn of the committing thread, for options.no_thread. Returns as the disk did. */
int journal_commit(struct journal *j) MUST_USE;

/* Called by the committing thread after each advance of the durable lsn, with no lock held; must
 * not block. Registered before the first append. The caller owns the struct. */
struct journal_listener {
    void (*durable)(struct journal_listener *listener, lsn_t durable);
    struct journal_listener *next;
};
void journal_listen(struct journal *j, struct journal_listener *listener);
/* Once it returns, the listener is not being called and will not be again. */
void journal_unlisten(struct journal *j, struct journal_listener *listener);

enum journal_state {
    JOURNAL_OK,
    JOURNAL_HANGING,  /* a sync runs past its deadline */
    JOURNAL_REFUSING, /* the disk fails or is full; retried until it heals */
};
enum journal_state journal_state(const struct journal *j);
/* One sentence for state other than OK, as "No space left on device"; static storage. */
const char *journal_state_text(const struct journal *j);
/* Which of all such engines has it, for ever: of a shared journal, whose engine says so; else "".
 * The journal's. */
const char *journal_identity(const struct journal *j);

/* Reading. A batch is up to 512 records of one stretch of the journal, immutable and counted by
 * reference (thread-safe): its records' payloads live as long as it does. */
struct journal_batch {
    const struct journal_record *records;
    size_t n;
    lsn_t next_lsn; /* where the one after it starts; above the last record's lsn + 1 after a gap */
};
struct journal_batch *journal_batch_ref(struct journal_batch *b);
struct journal_batch *journal_batch_unref(struct journal_batch *b);

/* A cursor that first reads `from`, or the oldest record there is if that is gone. */
int journal_cursor_new(struct journal *j, lsn_t from, struct journal_cursor **ret_cursor) MUST_USE;
struct journal_cursor *journal_cursor_free(struct journal_cursor *c);
/* Goes on from lsn, if that is further: what lies between is not read. */
void journal_cursor_skip(struct journal_cursor *c, lsn_t lsn);
/* From memory when the cursor keeps up, from the segments when it does not; never past the durable
 * lsn. Damaged records are skipped and counted once (a batch may then be empty of records but
 * advance next_lsn). JOURNAL_E_END, or the disk's negative error: the cursor has not moved. */
int journal_read(struct journal_cursor *c, struct journal_batch **ret_batch) MUST_USE;

/* A consumer holds back retention: everything above its persisted position is kept. name and kind
 * as in metrics; the pin bound of the kind applies to it. Freed with the journal. */
int journal_consumer_new(struct journal *j, const char *name, enum journal_kind kind,
                         lsn_t persisted, struct journal_consumer **ret_consumer) MUST_USE;
/* Says that all up to lsn is persisted by the consumer; deletes or recycles segments that nobody
 * needs. Never moves back. */
void journal_consumer_persisted(struct journal_consumer *c, lsn_t lsn);
/* Bytes of journal above the consumer's persisted position. */
uint64_t journal_consumer_pinned_bytes(const struct journal_consumer *c);
/* The age of the oldest record above it, to a sixteenth of its kind's pin_ms_max (0 when there is
 * no such bound) and counted from this opening at most: after a restart a store gets its time anew.
 */
uint64_t journal_consumer_pinned_ms(const struct journal_consumer *c);

/* Counters since open, for metrics. */
struct journal_stats {
    uint64_t appended_records;
    uint64_t kind_records[JOURNAL_KINDS]; /* the same, by kind */
    uint64_t appended_bytes;
    uint64_t commits;
    uint64_t sync_ns_total;
    uint64_t sync_failures;
    uint64_t damaged_records;
    uint64_t damaged_bytes;
    uint64_t disk_bytes;
    uint64_t segments;
    uint64_t window_bytes;
};
void journal_stats(const struct journal *j, struct journal_stats *ret_stats);
/* Told the duration and the number of bytes and records of each commit; same rules as a listener.
 */
struct journal_observer {
    void (*committed)(struct journal_observer *o, uint64_t write_ns, uint64_t sync_ns,
                      uint64_t bytes, uint64_t records);
};
void journal_observe(struct journal *j, struct journal_observer *observer);

/* Reads every segment and checks every record, without changing anything; works on a journal that
 * no process has open. each is called for every piece of damage with a sentence. Negative on I/O.
 */
int journal_verify(struct os *os, const char *directory,
                   void (*each)(void *context, const char *sentence), void *context,
                   struct journal_recovery *ret_found) MUST_USE;

#endif
