/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The catalog: which collections there are. A collection is known by its incarnation, the lsn of
 * the record that created it; its configuration never changes under one incarnation. Validation and
 * append happen under one version of the catalog (invariant 8): a point is appended only while its
 * collection's incarnation is alive, and create and drop append their record and change the catalog
 * under the write lock, so that the order of changes is the order of their lsns. Replay does the
 * same from the records (points_catalog_replay; records that the catalog knows already change
 * nothing).
 *
 * Owned by serve; thread-safe (one lock, LOCK_RANK_CATALOG). Collections are counted by reference.
 */
#ifndef MILLRACE_POINTS_CATALOG_H
#define MILLRACE_POINTS_CATALOG_H

#include "points/point.h"
#include "work/work.h"

#include <stdatomic.h>

enum {
    _POINTS_E_SUCCESS,
    POINTS_E_EXISTS = 100, /* a collection of that name is there */
    POINTS_E_NOT_FOUND,    /* no such collection, point or vector */
    POINTS_E_GONE,         /* dropped since it was looked up */
    POINTS_E_JOURNAL,      /* the append was refused: *ret_condition is a JOURNAL_E_… */
};

struct points_collection {
    lsn_t incarnation;
    char name[POINT_NAME_MAX + 1];
    struct point_config config;
    _Atomic bool dropped;
    _Atomic unsigned dropping; /* deletes of it under way on the server that keeps its points: until
                                  they ended, it being missing there is no error */
    struct buffer home;        /* that its records begin with (home.h); empty: they do not */
    _Atomic uint64_t references;
};
struct points_collection *points_collection_ref(struct points_collection *c);
struct points_collection *points_collection_unref(struct points_collection *c);

struct points_catalog;
int points_catalog_new(struct points_catalog **ret_catalog) MUST_USE;
struct points_catalog *points_catalog_free(struct points_catalog *c);

/* A reference to the collection of that name, or NULL. */
struct points_collection *points_catalog_find(struct points_catalog *c, struct bytes name);
struct points_collection *points_catalog_find_incarnation(struct points_catalog *c, lsn_t lsn);
size_t points_catalog_size(struct points_catalog *c);
/* Calls each for every collection, ordered by name, under the read lock. */
void points_catalog_each(struct points_catalog *c,
                         void (*each)(void *context, struct points_collection *collection),
                         void *context);

/* ret_lsn: of the record, to wait for. POINTS_E_EXISTS, _NOT_FOUND, _JOURNAL. */
int points_catalog_create(struct points_catalog *c, struct journal *j, struct bytes name,
                          const struct point_config *config, lsn_t *ret_lsn,
                          int *ret_condition) MUST_USE;
/* The record says what work had applied by then (NULL: nothing). */
int points_catalog_drop(struct points_catalog *c, struct journal *j, const struct work *work,
                        struct bytes name, lsn_t *ret_lsn, int *ret_condition) MUST_USE;
/* The same of one that was looked up before: what has its name by now stays. POINTS_E_NOT_FOUND: it
 * is gone. */
int points_catalog_drop_incarnation(struct points_catalog *c, struct journal *j,
                                    const struct work *work, lsn_t incarnation, lsn_t *ret_lsn,
                                    int *ret_condition) MUST_USE;
/* Appends records of one collection as one group while it is alive. POINTS_E_GONE, _JOURNAL. */
int points_catalog_append(struct points_catalog *c, struct journal *j,
                          struct points_collection *collection, struct journal_record *records,
                          size_t n, int *ret_condition) MUST_USE;
/* Applies a POINT_CREATE or POINT_DROP record if the catalog does not know it yet. */
int points_catalog_replay(struct points_catalog *c, lsn_t lsn,
                          const struct point_record *record) MUST_USE;
/* The lsn of the newest create or drop: durable before a checkpoint may contain it. */
lsn_t points_catalog_lsn(struct points_catalog *c);
/*
 * Where many processes write to a cluster, nobody keeps a catalog: it holds what was last heard of
 * the cluster's collections, and nothing is appended for it. Their records say themselves where
 * they belong, and their incarnation is that of the name (home.h).
 * config NULL: the cluster has none of that name. -ENOMEM.
 */
int points_catalog_hear(struct points_catalog *c, struct bytes name,
                        const struct point_config *config) MUST_USE;

/* For the checkpoint: all collections in one piece, and back. */
void points_catalog_encode(struct points_catalog *c, struct buffer *out, lsn_t *ret_lsn);
int points_catalog_decode(struct points_catalog *c, struct bytes encoded) MUST_USE;

#endif
