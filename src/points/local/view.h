/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A view, for the files that read: the segments of one collection with references to their storage,
 * lane by lane. It belongs to one thread; while a search runs, its helpers read it too. Rows below
 * a segment's n are read without locks; taking in what was published since needs the lane's lock.
 */
#ifndef MILLRACE_POINTS_LOCAL_VIEW_H
#define MILLRACE_POINTS_LOCAL_VIEW_H

#include "points/local/internal.h"

struct view_segment {
    struct segment *segment;
    struct storage *storage;
    uint32_t n;       /* rows seen by this view */
    uint32_t scanned; /* of them, by the search that runs */
};

struct view_shard {
    struct shard *shard;           /* NULL: the lane has no point of the collection */
    struct view_segment *segments; /* each stays at its place */
    size_t n_segments;
    size_t capacity;
    struct storage **kept; /* storages that were replaced since */
    size_t n_kept;
    size_t still;       /* those before this place get no more rows */
    uint64_t additions; /* of the shard, as many as are in the view or were gone before */
    uint32_t *places;   /* of the segment in each slot of the shard */
    size_t places_capacity;
};

struct points_view {
    struct points_store *store;
    struct points_collection *collection;
    unsigned n_shards; /* one a lane */
    struct view_shard shards[];
};

/* Takes in what the shard has now. Lock held. */
int view_refresh(struct view_shard *v) MUST_USE;
/* Takes in what a segment of the view has now: its rows and, when it was spilled, its new storage.
 * The one before stays as long as the view: rows handed out lie in it. Lock held. */
int view_keep_up(struct view_shard *v, struct view_segment *known) MUST_USE;
/* Fills a row, after checking it; false: it is damaged (and counted). */
bool view_row(struct points_view *v, const struct view_segment *segment, uint32_t row,
              struct point_row *ret_row);
/* The live row of id in one shard. POINTS_E_NOT_FOUND, -EBADMSG. */
int view_shard_get(struct points_view *v, struct view_shard *shard, struct point_id id,
                   struct point_row *ret_row) MUST_USE;

#endif
