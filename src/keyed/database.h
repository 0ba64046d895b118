/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keyed state on disk: RocksDB, as our stores use it. Nothing is ever put into a memtable; one
 * sorted file a checkpoint is written beside the database and ingested, which is atomic and synced:
 * so a store's data and its positions are one file (invariant 3). Compactions merge what was
 * written for the same key.
 *
 * Errors: -EBADMSG for damage, -ENOSPC, -ENOMEM, else -EIO. Thread-safe but for a writer and a
 * cursor, which belong to one thread.
 */
#ifndef MILLRACE_KEYED_DATABASE_H
#define MILLRACE_KEYED_DATABASE_H

#include "keyed/key.h"
#include "os/file.h"
#include "os/sync.h"

#include <rocksdb/c.h>

/* What several values of a key are worth together, oldest first: appends it to out. Must be
 * associative, as neighbours are merged in any order. Negative: the values are damaged, or memory
 * is out. */
typedef int database_merge(struct bytes key, const struct bytes *values, size_t n,
                           struct buffer *out);

struct database_options {
    uint64_t cache_bytes;
    bool read_only;
    bool must_exist;        /* one that is missing is damage */
    database_merge *merge;  /* of ingest_merge; NULL: there are none */
    const char *merge_name; /* what the database remembers it by: changed with its meaning */
};

struct handle; /* an opened RocksDB (internal.h) */

struct database {
    struct database_options given; /* must stay in place while it is open */
    struct os *os;
    rocksdb_options_t *options;
    rocksdb_block_based_table_options_t *table;
    rocksdb_cache_t *cache;
    rocksdb_env_t *env;
    char path[OS_PATH_MAX]; /* RocksDB's directory */
    char file[OS_PATH_MAX]; /* what is being written for the next ingest */
    struct mutex lock;      /* of the next one: whoever ingests changes it, all read it */
    struct handle *current; /* what bases are taken of */
    struct handle *old;     /* closed once its bases are gone; NULL: none */
    bool stuck;
    bool quiet;               /* no compactions yet, as old may have bases */
    _Atomic uint64_t errors;  /* of compactions, when that was last looked at */
    _Atomic uint64_t starved; /* how often a merge had no memory */
};

/* Opens directory/rocksdb, creating it unless read_only or must_exist (then -EBADMSG). why says
 * what RocksDB says. */
int database_open(struct database *d, struct os *os, const char *directory,
                  const struct database_options *options, char *why, size_t why_size) MUST_USE;
/* Takes one that is not open. */
void database_close(struct database *d);
uint64_t database_property(struct database *d, const char *name);
/* Larger after each ingest, the same for ever for what is ingested. */
uint64_t database_sequence(struct database *d);
/* Compactions that failed since it was opened, or opened again. */
uint64_t database_failures(struct database *d);
/* Of caches and tables. */
uint64_t database_memory(struct database *d);

/* ---- Before a checkpoint ---- */
/* Files that no compaction has taken yet. */
uint64_t database_new_files(struct database *d);
/* Who ingests is not slowed down by RocksDB itself: true while so many of them are there that a
 * checkpoint had better wait a while for the compactions; not while these fail. */
bool database_is_behind(struct database *d);

/* ---- A base: the database as it stood ---- */
struct base;
/* One that nothing can be read from until base_take. */
int base_new(struct database *d, struct base **ret_base) MUST_USE;
/* The database as it stands now; once. */
void base_take(struct base *b);
struct base *base_ref(struct base *b);
/* Takes NULL. Returns NULL. */
struct base *base_unref(struct base *b);
/* -ENOMEM, too, where a merge had no memory: that is no damage, and heals by itself. ret_slice is
 * NULL when there is none; freed by rocksdb_pinnableslice_destroy, before the base. */
int base_get(struct base *b, struct bytes key, rocksdb_pinnableslice_t **ret_slice) MUST_USE;
void pinned_deinit(rocksdb_pinnableslice_t **slice);
static inline struct bytes pinned_bytes(const rocksdb_pinnableslice_t *slice) {
    size_t size = 0;
    const char *data = rocksdb_pinnableslice_value(slice, &size);
    return bytes_of(data, size);
}

/* ---- A cursor over keys of a prefix ---- */
struct base_cursor {
    struct database *database;
    uint64_t starved; /* the database's, before it was last moved */
    rocksdb_iterator_t *iterator;
    rocksdb_readoptions_t *options; /* NULL: the base's */
};
/* whole: reads every block once, past the cache. */
void base_cursor_init(struct base_cursor *c, struct base *b, bool whole);
void base_cursor_deinit(struct base_cursor *c);
/* The first key from there on. */
void base_cursor_seek(struct base_cursor *c, struct bytes key);
void base_cursor_advance(struct base_cursor *c);
/* True while there is a key; it and its value are valid until the next move. At the end, and at
 * damage, false: *ret_error says. */
bool base_cursor_at(struct base_cursor *c, struct bytes *ret_key, struct bytes *ret_value,
                    int *ret_error) MUST_USE;

/* ---- The file of a checkpoint ---- */
/* Told of each key that is put or deleted, in their order. */
struct ingest_witness {
    void (*put)(struct ingest_witness *w, struct bytes key, struct bytes value);
    void (*remove)(struct ingest_witness *w, struct bytes key);
};

struct ingest {
    struct database *database;
    struct ingest_witness *witness; /* NULL: none; with one, nothing is merged, and no range goes */
    rocksdb_envoptions_t *env;
    rocksdb_sstfilewriter_t *writer;
    char *error; /* RocksDB's first; nothing is done any more */
};
/* Keys come in ascending order. Errors are kept until ingest_finish. */
int ingest_begin(struct ingest *i, struct database *d) MUST_USE;
void ingest_put(struct ingest *i, struct bytes key, struct bytes value);
void ingest_merge(struct ingest *i, struct bytes key, struct bytes value);
void ingest_delete(struct ingest *i, struct bytes key);
void ingest_delete_range(struct ingest *i, struct bytes from, struct bytes to);
/* Syncs the file and takes it into the database. After a failure, bases are as before; but if the
 * database is stuck now, it is not known what it holds when it is opened again. */
int ingest_finish(struct ingest *i) MUST_USE;
void ingest_deinit(struct ingest *i);

/* ---- After an ingest that failed (reopen.c) ----
 * By whoever ingests; nothing is ingested before database_return. Each fails without harm and is
 * called again then. */
bool database_is_stuck(const struct database *d);
/* Bases are now taken of a database that only reads, and has the last ingest or not, as its
 * manifest says; those taken before stay readable. */
int database_retreat(struct database *d) MUST_USE;
/* Once no base is held that was taken before database_retreat (waits for readers; -EAGAIN): it can
 * be written again, and has the last ingest or not, for good. */
int database_return(struct database *d) MUST_USE;
/* Once no base is held that was taken before database_return: all is as before. Cheap when it is
 * so already. */
int database_settle(struct database *d) MUST_USE;

#endif
