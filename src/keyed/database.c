/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options, and why:
 *   - files are read, not mapped: of mapped ones all that was ever read stays resident, nearly all
 *     of the database after a compaction. What is read is in the block cache, which is bounded, and
 *     checked once, as long as it stays there
 *   - a whole-key Bloom filter, so that an unknown key costs no read
 *   - indexes and filters are read when a file is opened, and stay: in the block cache those of a
 *     large file, which every read needs, would drive out all else. OPEN_FILES bounds them
 *   - universal compaction: every checkpoint's file spans all keys, so leveled compaction would
 *     rewrite all of a level for every few files, however small they are; runs of like size are
 *     merged instead
 *   - no paranoid checks: with them, one failed write of a compaction, or a damaged block that it
 *     meets, ends all writing until the process does. Without them it is tried again each second,
 *     and checkpoints go on. Checksums are verified in any case
 *   - RocksDB's threads run at the lowest priority: queries and acknowledgements come first; a
 *     checkpoint waits when they fall behind (database_is_behind)
 *
 * Ingesting: RocksDB syncs the finished file, links it into its directory, syncs the directory, and
 * appends the file's name to its manifest, synced: that is the moment. The memtable is empty, so
 * nothing is flushed; there is no write-ahead log to speak of.
 */
#include "keyed/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* RocksDB is not built with ThreadSanitizer, which so does not see how it counts references. */
#ifdef __SANITIZE_THREAD__
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void) {
    return "race:librocksdb\n";
}
#endif

enum {
    OPEN_FILES = 256,
    BLOCK_BYTES = 16 << 10,
    BLOOM_BITS = 10,
    FILE_BYTES = 64 << 20,
    RUNS = 6,                    /* sorted runs, then some are compacted */
    AMPLIFICATION_PERCENT = 100, /* of the newer runs over the oldest, then all are */
    LOG_BYTES = 1 << 20,
    MANIFEST_BYTES = 1 << 20,  /* then a new one is begun */
    MEMTABLE_BYTES = 64 << 10, /* never used */
    BACKGROUND_JOBS = 2,
    NEW_FILES_MANY = 24,
};

/* ---- Errors ---- */
/* Frees what RocksDB said. A file that is not there was there: it is damage. */
int take_error(char *error) {
    static const char missing[] = "does not exist (create_if_missing is false)";
    if (!error)
        return 0;
    int r = -EIO;
    if (strncmp(error, "Corruption", strlen("Corruption")) == 0 || strstr(error, missing) ||
        strstr(error, "No such file or directory"))
        r = -EBADMSG;
    else if (strstr(error, "No space left"))
        r = -ENOSPC;
    rocksdb_free(error);
    return error_origin(r);
}

/* ---- The merge operator ---- */
static char *merge_lists(struct database *d, struct bytes key, const char *existing,
                         size_t existing_size, const char *const *operands, const size_t *sizes,
                         int n_operands, unsigned char *ret_success, size_t *ret_size) {
    struct buffer out = BUFFER_INIT;
    size_t n = 0;
    struct bytes *values = malloc(((size_t)n_operands + 1) * sizeof *values);
    *ret_success = 0;
    *ret_size = 0;
    if (!values) {
        atomic_fetch_add_explicit(&d->starved, 1, memory_order_relaxed);
        return NULL;
    }
    if (existing)
        values[n++] = bytes_of(existing, existing_size);
    for (int i = 0; i < n_operands; i++)
        values[n++] = bytes_of(operands[i], sizes[i]);
    int r = d->given.merge(key, values, n, &out);
    *ret_success = r == 0;
    if (r == -ENOMEM)
        atomic_fetch_add_explicit(&d->starved, 1, memory_order_relaxed);
    free(values);
    if (!*ret_success)
        buffer_deinit(&out);
    *ret_size = out.size;
    return (char *)out.data;
}

static char *full_merge(void *state, const char *key, size_t key_size, const char *existing,
                        size_t existing_size, const char *const *operands, const size_t *sizes,
                        int n, unsigned char *ret_success, size_t *ret_size) {
    return merge_lists(state, bytes_of(key, key_size), existing, existing_size, operands, sizes, n,
                       ret_success, ret_size);
}

static char *partial_merge(void *state, const char *key, size_t key_size,
                           const char *const *operands, const size_t *sizes, int n,
                           unsigned char *ret_success, size_t *ret_size) {
    return merge_lists(state, bytes_of(key, key_size), NULL, 0, operands, sizes, n, ret_success,
                       ret_size);
}

static void no_destructor(void *state) {
    (void)state;
}

static const char *merge_name(void *state) {
    const struct database *d = state;
    return d->given.merge_name;
}

static void set_merge(struct database *d) {
    if (d->given.merge)
        rocksdb_options_set_merge_operator(
            d->options, rocksdb_mergeoperator_create(d, no_destructor, full_merge, partial_merge,
                                                     NULL, merge_name));
}

/* ---- Opening ---- */
static void set_table(struct database *d) {
    d->table = rocksdb_block_based_options_create();
    d->cache = rocksdb_cache_create_lru(d->given.cache_bytes);
    rocksdb_block_based_options_set_block_cache(d->table, d->cache);
    rocksdb_block_based_options_set_block_size(d->table, BLOCK_BYTES);
    rocksdb_block_based_options_set_filter_policy(
        d->table, rocksdb_filterpolicy_create_bloom_full(BLOOM_BITS));
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(d->table, 0);
    rocksdb_block_based_options_set_format_version(d->table, 5);
    rocksdb_options_set_block_based_table_factory(d->options, d->table);
}

static void set_compaction(rocksdb_options_t *o) {
    rocksdb_universal_compaction_options_t *u = rocksdb_universal_compaction_options_create();
    rocksdb_universal_compaction_options_set_max_size_amplification_percent(u,
                                                                            AMPLIFICATION_PERCENT);
    rocksdb_options_set_compaction_style(o, rocksdb_universal_compaction);
    rocksdb_options_set_universal_compaction_options(o, u);
    rocksdb_universal_compaction_options_destroy(u);
    rocksdb_options_set_level0_file_num_compaction_trigger(o, RUNS);
}

static void set_options(struct database *d) {
    rocksdb_options_t *o = d->options = rocksdb_options_create();
    d->env = rocksdb_create_default_env();
    rocksdb_env_lower_thread_pool_cpu_priority(d->env);
    rocksdb_options_set_env(o, d->env);
    rocksdb_options_set_paranoid_checks(o, 0);
    set_merge(d);
    rocksdb_options_set_advise_random_on_open(o, 0);
    rocksdb_options_set_max_open_files(o, OPEN_FILES);
    rocksdb_options_set_compression(o, rocksdb_lz4_compression);
    rocksdb_options_set_write_buffer_size(o, MEMTABLE_BYTES);
    rocksdb_options_set_target_file_size_base(o, FILE_BYTES);
    rocksdb_options_set_max_background_jobs(o, BACKGROUND_JOBS);
    rocksdb_options_set_info_log_level(o, 3);
    rocksdb_options_set_keep_log_file_num(o, 2);
    rocksdb_options_set_max_log_file_size(o, LOG_BYTES);
    rocksdb_options_set_max_manifest_file_size(o, MANIFEST_BYTES);
    rocksdb_options_set_stats_dump_period_sec(o, 0);
    set_compaction(o);
    set_table(d);
}

int handle_open(struct database *d, bool writes, struct handle **ret_handle, char *why,
                size_t why_size) {
    char *error = NULL;
    struct handle *h = calloc(1, sizeof *h);
    if (!h)
        return error_origin(-ENOMEM);
    atomic_init(&h->references, 1);
    h->writes = writes;
    h->db = writes ? rocksdb_open(d->options, d->path, &error)
                   : rocksdb_open_for_read_only(d->options, d->path, 0, &error);
    if (!error) {
        *ret_handle = h;
        return 0;
    }
    if (why_size > 0)
        snprintf(why, why_size, "%s", error);
    free(h);
    return take_error(error);
}

struct handle *handle_close(struct handle *h) {
    if (!h)
        return NULL;
    assert(atomic_load(&h->references) == 1);
    rocksdb_cancel_all_background_work(h->db, 1);
    rocksdb_close(h->db);
    free(h);
    return NULL;
}

/* Its owner's reference stays: only the owner closes it. */
static void handle_unref(struct handle *h) {
    atomic_fetch_sub_explicit(&h->references, 1, memory_order_acq_rel);
}

static struct handle *current_ref(struct database *d) {
    mutex_lock(&d->lock);
    struct handle *h = d->current;
    atomic_fetch_add_explicit(&h->references, 1, memory_order_relaxed);
    mutex_unlock(&d->lock);
    return h;
}

static int make_paths(struct database *d, const char *directory) {
    int r = os_path_join(d->path, directory, "rocksdb");
    if (r == 0)
        r = os_path_join(d->file, directory, "ingest.sst");
    if (r == 0 && !d->given.read_only)
        r = os_make_path(d->os, d->path); /* here, as RocksDB would not sync its entry */
    return error_fold(r);
}

/* A file that a crash left: it was taken in, or it was not, or only the manifest says it was. */
static int open_current(struct database *d, char *why, size_t why_size) {
    bool left = !d->given.read_only && database_file_is_there(d);
    rocksdb_options_set_create_if_missing(d->options, !d->given.must_exist);
    rocksdb_options_set_disable_auto_compactions(d->options, left);
    int r = handle_open(d, !d->given.read_only, &d->current, why, why_size);
    rocksdb_options_set_create_if_missing(d->options, 0);
    rocksdb_options_set_disable_auto_compactions(d->options, 0);
    d->quiet = left;
    if (r == 0 && left)
        r = database_put_back(d, d->current);
    return r == 0 ? database_settle(d) : error_trace(r);
}

int database_open(struct database *d, struct os *os, const char *directory,
                  const struct database_options *options, char *why, size_t why_size) {
    *d = (struct database){.given = *options, .os = os};
    mutex_init(&d->lock, LOCK_RANK_DATABASE);
    int r = make_paths(d, directory);
    if (r == 0) {
        set_options(d);
        r = open_current(d, why, why_size);
    }
    if (r != 0)
        database_close(d);
    return error_fold(r);
}

void database_close(struct database *d) {
    handle_close(d->current);
    handle_close(d->old);
    if (d->table)
        rocksdb_block_based_options_destroy(d->table);
    if (d->options)
        rocksdb_options_destroy(d->options);
    if (d->cache)
        rocksdb_cache_destroy(d->cache);
    if (d->env)
        rocksdb_env_destroy(d->env);
    if (d->os)
        mutex_deinit(&d->lock);
    *d = (struct database){0};
}

uint64_t database_property(struct database *d, const char *name) {
    uint64_t value = 0;
    struct handle *h = current_ref(d);
    int r = rocksdb_property_int(h->db, name, &value);
    handle_unref(h);
    return r == 0 ? value : 0;
}

uint64_t database_sequence(struct database *d) {
    struct handle *h = current_ref(d);
    uint64_t sequence = rocksdb_get_latest_sequence_number(h->db);
    handle_unref(h);
    return sequence;
}

uint64_t database_failures(struct database *d) {
    return database_property(d, "rocksdb.background-errors");
}

uint64_t database_memory(struct database *d) {
    return rocksdb_cache_get_usage(d->cache) +
           database_property(d, "rocksdb.estimate-table-readers-mem") +
           database_property(d, "rocksdb.cur-size-all-mem-tables");
}

/* ---- Before a checkpoint ---- */
/* No integer property, though it is a number. */
uint64_t database_new_files(struct database *d) {
    struct handle *h = current_ref(d);
    char *text = rocksdb_property_value(h->db, "rocksdb.num-files-at-level0");
    handle_unref(h);
    uint64_t n = text ? strtoull(text, NULL, 10) : 0;
    rocksdb_free(text);
    return n;
}

bool database_is_behind(struct database *d) {
    if (database_new_files(d) < NEW_FILES_MANY)
        return false;
    uint64_t errors = database_failures(d);
    return atomic_exchange(&d->errors, errors) == errors;
}

/* ---- Bases ---- */
struct base {
    atomic_uint references;
    struct database *database;
    struct handle *handle; /* from base_take on */
    const rocksdb_snapshot_t *snapshot;
    rocksdb_readoptions_t *options;
};

int base_new(struct database *d, struct base **ret_base) {
    struct base *b = calloc(1, sizeof *b);
    if (!b)
        return error_origin(-ENOMEM);
    atomic_init(&b->references, 1);
    b->database = d;
    b->options = rocksdb_readoptions_create();
    *ret_base = b;
    return 0;
}

void base_take(struct base *b) {
    b->handle = current_ref(b->database);
    b->snapshot = rocksdb_create_snapshot(b->handle->db);
    rocksdb_readoptions_set_snapshot(b->options, b->snapshot);
}

struct base *base_ref(struct base *b) {
    atomic_fetch_add_explicit(&b->references, 1, memory_order_relaxed);
    return b;
}

struct base *base_unref(struct base *b) {
    if (b && atomic_fetch_sub_explicit(&b->references, 1, memory_order_acq_rel) == 1) {
        rocksdb_readoptions_destroy(b->options);
        if (b->handle) {
            rocksdb_release_snapshot(b->handle->db, b->snapshot);
            handle_unref(b->handle);
        }
        free(b);
    }
    return NULL;
}

/* RocksDB calls a merge that fails damage. */
static int tell_starved(struct database *d, uint64_t before, int r) {
    bool starved = atomic_load_explicit(&d->starved, memory_order_relaxed) != before;
    return r == -EBADMSG && starved ? error_origin(-ENOMEM) : r;
}

int base_get(struct base *b, struct bytes key, rocksdb_pinnableslice_t **ret_slice) {
    char *error = NULL;
    uint64_t starved = atomic_load_explicit(&b->database->starved, memory_order_relaxed);
    rocksdb_pinnableslice_t *slice =
        rocksdb_get_pinned(b->handle->db, b->options, (const char *)key.data, key.size, &error);
    if (error)
        return tell_starved(b->database, starved, take_error(error));
    *ret_slice = slice;
    return 0;
}

void pinned_deinit(rocksdb_pinnableslice_t **slice) {
    if (*slice)
        rocksdb_pinnableslice_destroy(*slice);
}

/* ---- Cursors ---- */
void base_cursor_init(struct base_cursor *c, struct base *b, bool whole) {
    *c = (struct base_cursor){.database = b->database};
    if (whole) {
        c->options = rocksdb_readoptions_create();
        rocksdb_readoptions_set_snapshot(c->options, b->snapshot);
        rocksdb_readoptions_set_fill_cache(c->options, 0);
    }
    c->iterator = rocksdb_create_iterator(b->handle->db, c->options ? c->options : b->options);
}

void base_cursor_deinit(struct base_cursor *c) {
    rocksdb_iter_destroy(c->iterator);
    if (c->options)
        rocksdb_readoptions_destroy(c->options);
}

void base_cursor_seek(struct base_cursor *c, struct bytes key) {
    c->starved = atomic_load_explicit(&c->database->starved, memory_order_relaxed);
    rocksdb_iter_seek(c->iterator, (const char *)key.data, key.size);
}

void base_cursor_advance(struct base_cursor *c) {
    c->starved = atomic_load_explicit(&c->database->starved, memory_order_relaxed);
    rocksdb_iter_next(c->iterator);
}

bool base_cursor_at(struct base_cursor *c, struct bytes *ret_key, struct bytes *ret_value,
                    int *ret_error) {
    size_t size;
    *ret_error = 0;
    if (rocksdb_iter_valid(c->iterator)) {
        const char *data = rocksdb_iter_key(c->iterator, &size);
        *ret_key = bytes_of(data, size);
        data = rocksdb_iter_value(c->iterator, &size);
        *ret_value = bytes_of(data, size);
        return true;
    }
    char *error = NULL;
    rocksdb_iter_get_error(c->iterator, &error);
    *ret_error = tell_starved(c->database, c->starved, take_error(error));
    return false;
}

/* ---- Ingesting ---- */
int ingest_begin(struct ingest *i, struct database *d) {
    /* RocksDB links the file into its directory, and does not say when it then fails to remove it
     * here: what is written to that name would go into the table that is in use. */
    int removed = os_remove(d->os, d->file);
    if (removed)
        return error_fold(removed);
    *i = (struct ingest){.database = d, .env = rocksdb_envoptions_create()};
    i->writer = rocksdb_sstfilewriter_create(i->env, d->options);
    rocksdb_sstfilewriter_open(i->writer, d->file, &i->error);
    if (!i->error)
        return 0;
    int r = take_error(i->error);
    i->error = NULL;
    ingest_deinit(i);
    return r;
}

void ingest_put(struct ingest *i, struct bytes key, struct bytes value) {
    if (i->witness)
        i->witness->put(i->witness, key, value);
    if (!i->error)
        rocksdb_sstfilewriter_put(i->writer, (const char *)key.data, key.size,
                                  (const char *)value.data, value.size, &i->error);
}

void ingest_merge(struct ingest *i, struct bytes key, struct bytes value) {
    assert(!i->witness);
    if (!i->error)
        rocksdb_sstfilewriter_merge(i->writer, (const char *)key.data, key.size,
                                    (const char *)value.data, value.size, &i->error);
}

void ingest_delete(struct ingest *i, struct bytes key) {
    if (i->witness)
        i->witness->remove(i->witness, key);
    if (!i->error)
        rocksdb_sstfilewriter_delete(i->writer, (const char *)key.data, key.size, &i->error);
}

void ingest_delete_range(struct ingest *i, struct bytes from, struct bytes to) {
    assert(!i->witness);
    if (!i->error)
        rocksdb_sstfilewriter_delete_range(i->writer, (const char *)from.data, from.size,
                                           (const char *)to.data, to.size, &i->error);
}

/* The file is a link in RocksDB's directory afterwards, and its own name stays if that fails. The
 * name is durable before RocksDB's manifest is written: database_put_back may need it. */
static void take_in(struct ingest *i) {
    const char *files[] = {i->database->file};
    rocksdb_ingestexternalfileoptions_t *options = rocksdb_ingestexternalfileoptions_create();
    rocksdb_ingestexternalfileoptions_set_move_files(options, 1);
    rocksdb_ingest_external_file(i->database->current->db, files, 1, options, &i->error);
    rocksdb_ingestexternalfileoptions_destroy(options);
    i->database->stuck = i->error;
}

int ingest_finish(struct ingest *i) {
    int r = 0;
    assert(!i->database->stuck);
    if (!i->error)
        rocksdb_sstfilewriter_finish(i->writer, &i->error);
    if (!i->error)
        r = database_sync_names(i->database);
    if (!i->error && r == 0)
        take_in(i);
    if (r == 0)
        r = take_error(i->error);
    i->error = NULL;
    return error_fold(r);
}

void ingest_deinit(struct ingest *i) {
    if (i->writer)
        rocksdb_sstfilewriter_destroy(i->writer);
    if (i->env)
        rocksdb_envoptions_destroy(i->env);
    rocksdb_free(i->error);
    *i = (struct ingest){0};
}
