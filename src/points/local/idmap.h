/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The id map of a shard: from the hash of an id to where its live row is. An open addressing table
 * of 8-byte slots, 32 bits of hash and 32 of locator; the ids themselves stand in the rows, so the
 * caller compares those that idmap_match offers. Linear probing, deletion by shifting back: no
 * tombstones. Two thirds full at most, so 12 to 24 bytes a point.
 *
 * No locks: internal.h says who may change and who may read it, and under which.
 */
#ifndef MILLRACE_POINTS_LOCAL_IDMAP_H
#define MILLRACE_POINTS_LOCAL_IDMAP_H

#include "base/budget.h"
#include "points/point.h"

enum { LOCATOR_ROW_BITS = 18, LOCATOR_ROWS_MAX = 1 << LOCATOR_ROW_BITS };
enum { LOCATOR_SEGMENTS_MAX = (1 << (32 - LOCATOR_ROW_BITS)) - 1 };

struct locator {
    uint32_t segment; /* its number in the shard */
    uint32_t row;
};

struct idmap {
    uint64_t *slots; /* 0: empty */
    uint32_t size;   /* a power of two, or 0 */
    uint32_t used;
    struct budget *budget; /* that the slots are counted in */
};

void idmap_deinit(struct idmap *m);

bool idmap_has_room(const struct idmap *m, uint32_t n);
/* A larger table with the same entries, when n more would not fit; made aside, so that readers are
 * locked out only for idmap_adopt. An empty one (slots NULL) when there is room. */
int idmap_grown(const struct idmap *m, uint32_t n, struct idmap *ret_grown) MUST_USE;
/* Replaces m by grown and frees the old table. */
void idmap_adopt(struct idmap *m, struct idmap *grown);

struct idmap_cursor {
    const struct idmap *map;
    uint32_t hash;
    uint32_t slot;
};
/* The id will be looked for soon: its place is on its way to the cache. */
void idmap_prefetch(const struct idmap *m, struct point_id id);
struct idmap_cursor idmap_seek(const struct idmap *m, struct point_id id);
/* The next entry with the same hash; false when there is none. Then slot is where it was found. */
bool idmap_match(struct idmap_cursor *c, struct locator *ret_locator);
/* Moves on to the entry of that locator; false: there is none behind the cursor. */
bool idmap_match_locator(struct idmap_cursor *c, struct locator wanted);

/* Adds an entry; there must be room, and none of that id. */
void idmap_insert(struct idmap *m, struct point_id id, struct locator locator);
/* What idmap_match found last with that cursor. */
void idmap_replace(struct idmap *m, const struct idmap_cursor *found, struct locator locator);
void idmap_remove(struct idmap *m, const struct idmap_cursor *found);

#endif
