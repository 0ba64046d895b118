/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is done after an ingest that failed.
 *
 * RocksDB (7.8) may hold on to an error of its manifest until it is opened again: all ingests fail
 * then, and DB::Resume, which is for lesser errors, is refused. And after a failed sync of the
 * manifest it removes the file that it was about to take in, though the manifest may name it: what
 * is on disk is then known to nobody, and a database that is opened like that lacks a table. So
 * nothing is ingested after any failure until the database was opened again, which writes a new
 * manifest and syncs it: that is the moment. The file itself is whole and synced; its own name is
 * there until it is known that it is not needed.
 *
 *   current        old
 *   writes         –           │ an ingest fails: stuck
 *   only reads     writes      │ database_retreat. RocksDB's lock is not needed to read
 *   only reads     –           │ no base of old is left: it is closed
 *   writes         only reads  │ database_return: not stuck, no compactions, as they remove files
 *   writes         –           │ database_settle: no base of old is left; compactions
 *
 * Bases are of what was current when they were taken, so queries go on all the time, also while the
 * disk goes on failing: then it stays where it was in this table, and is tried again.
 */
#include "keyed/internal.h"

#include <errno.h>
#include <string.h>

enum { DRAIN_TURNS = 2000, DRAIN_TURN_NS = 1000000 };

/* ---- The file of an ingest ---- */
static int size_of(struct os *os, const char *path, uint64_t *ret_size) {
    struct os_file *file;
    int r = os_open(os, path, OS_OPEN_READ, &file);
    if (r != 0)
        return error_trace(r);
    r = os_size(os, file, ret_size);
    os_close(os, file);
    return error_trace(r);
}

bool database_file_is_there(struct database *d) {
    uint64_t size;
    return size_of(d->os, d->file, &size) != OS_E_NOT_FOUND;
}

int database_sync_names(struct database *d) {
    char directory[OS_PATH_MAX];
    size_t size = (size_t)(strrchr(d->file, '/') - d->file);
    memcpy(directory, d->file, size);
    directory[size] = '\0';
    return error_fold(os_sync_directory(d->os, directory));
}

/* A table of another size that is missing is damage. */
static int put_back(struct database *d, const char *name, uint64_t size) {
    char path[OS_PATH_MAX];
    uint64_t found = 0;
    int r = os_path_join(path, d->path, "%s", name + (*name == '/'));
    if (r == 0)
        r = size_of(d->os, path, &found);
    if (r != OS_E_NOT_FOUND)
        return error_fold(r);
    r = size_of(d->os, d->file, &found);
    if (r == OS_E_NOT_FOUND || (r == 0 && found != size))
        return 0;
    if (r == 0)
        r = os_rename(d->os, d->file, path);
    if (r == 0)
        r = os_sync_directory(d->os, d->path);
    return error_fold(r);
}

int database_put_back(struct database *d, struct handle *h) {
    int r = 0;
    const rocksdb_livefiles_t *files = rocksdb_livefiles(h->db);
    for (int i = 0, n = rocksdb_livefiles_count(files); r == 0 && i < n; i++)
        r = put_back(d, rocksdb_livefiles_name(files, i), rocksdb_livefiles_size(files, i));
    rocksdb_livefiles_destroy(files);
    return error_trace(r);
}

/* ---- Handles ---- */
/* Readers hold a base for as long as a query takes. */
static int close_old(struct database *d) {
    for (unsigned i = 0; d->old && atomic_load(&d->old->references) > 1; i++) {
        if (i == DRAIN_TURNS)
            return error_origin(-EAGAIN);
        os_sleep_ns(d->os, DRAIN_TURN_NS);
    }
    d->old = handle_close(d->old);
    return 0;
}

static void replace(struct database *d, struct handle *h) {
    assert(!d->old);
    mutex_lock(&d->lock);
    d->old = d->current;
    d->current = h;
    mutex_unlock(&d->lock);
}

bool database_is_stuck(const struct database *d) {
    return d->stuck;
}

/* What writes keeps all files until it is closed: also those that the other one reads. */
static int hold_still(struct database *d) {
    char *error = NULL;
    rocksdb_cancel_all_background_work(d->current->db, 1);
    rocksdb_disable_file_deletions(d->current->db, &error);
    return take_error(error);
}

/* Opens one more, with all tables in place. */
static int open_another(struct database *d, bool writes) {
    struct handle *h;
    int r = handle_open(d, writes, &h, NULL, 0);
    if (r < 0)
        return error_trace(r);
    r = database_put_back(d, h);
    if (r < 0)
        handle_close(h);
    else
        replace(d, h);
    return error_trace(r);
}

int database_retreat(struct database *d) {
    if (!d->current->writes)
        return 0;
    int r = close_old(d);
    if (r == 0)
        r = hold_still(d);
    return r == 0 ? open_another(d, false) : error_trace(r);
}

int database_return(struct database *d) {
    assert(d->stuck && !d->current->writes);
    int r = close_old(d);
    if (r < 0)
        return error_trace(r);
    rocksdb_options_set_disable_auto_compactions(d->options, 1);
    r = open_another(d, true);
    rocksdb_options_set_disable_auto_compactions(d->options, 0);
    if (r < 0)
        return error_trace(r);
    d->stuck = false;
    d->quiet = true;
    return 0;
}

static int start_compactions(struct database *d) {
    const char *name = "disable_auto_compactions", *value = "false";
    char *error = NULL;
    rocksdb_set_options(d->current->db, 1, &name, &value, &error);
    return take_error(error);
}

int database_settle(struct database *d) {
    if (!d->quiet)
        return 0;
    int r = close_old(d);
    if (r == 0)
        r = os_remove(d->os, d->file);
    if (r == 0)
        r = start_compactions(d);
    if (r == 0)
        d->quiet = false;
    return error_fold(r);
}
