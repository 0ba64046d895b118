/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What database.c and reopen.c share: RocksDB, opened. One database has at most two of them, and at
 * most one that writes; each base holds a reference to the one it was taken of.
 */
#ifndef MILLRACE_KEYED_INTERNAL_H
#define MILLRACE_KEYED_INTERNAL_H

#include "keyed/database.h"

#include <assert.h>
#include <stdatomic.h>

struct handle {
    rocksdb_t *db;
    atomic_uint references; /* its owner's, and those of bases and questions */
    bool writes;
};
int handle_open(struct database *d, bool writes, struct handle **ret_handle, char *why,
                size_t why_size) MUST_USE;
/* Takes NULL; else only the owner's reference is left. Returns NULL. */
struct handle *handle_close(struct handle *h);

/* Of what RocksDB said, which is freed. */
int take_error(char *error) MUST_USE;

/* ---- reopen.c: the file of an ingest ---- */
bool database_file_is_there(struct database *d);
/* Makes its name durable. */
int database_sync_names(struct database *d) MUST_USE;
/* Gives it the name that the manifest has for it, if that is missing. */
int database_put_back(struct database *d, struct handle *h) MUST_USE;

#endif
