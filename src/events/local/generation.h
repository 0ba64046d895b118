/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A generation: what a lane has applied since the last checkpoint, or the one before, in memory
 * that only grows and is freed in one piece. It has
 *   - profiles: a hash table of the cookies that came; of each the tags, encoded (tags.h), in a
 *     chain of small chunks, and whether the user was erased first
 *   - rows: for each minute and action a chain of column chunks
 *   - letters: records that were refused
 *
 *   hot ──freeze──▶ frozen ──ingested──▶ gone       (checkpoint.c)
 *
 * While it is hot, one thread adds to it, under the lane's lock; readers look profiles up under the
 * lock. What generation_rows gave stays readable without it: chunks of rows are never moved, and a
 * reader looks at no more rows than there were. A frozen generation does not change. Counted by
 * reference.
 */
#ifndef MILLRACE_EVENTS_LOCAL_GENERATION_H
#define MILLRACE_EVENTS_LOCAL_GENERATION_H

#include "events/local/columns.h"
#include "events/local/minutes.h"
#include "events/local/tags.h"
#include "keyed/letter.h"

#include <stdatomic.h>

/* Memory is named by references, in units of 8 bytes from the beginning; 0 is none. */
typedef uint32_t memory_ref;

/* What is known of a cookie here. */
struct profile {
    uint64_t hash;
    int64_t last_ms; /* of the tag that was encoded last */
    memory_ref first;
    memory_ref last;
    uint32_t n[EVENT_ACTIONS];
    uint16_t cookie_size;
    bool erased; /* older generations and the database don't count */
    uint8_t cookie[];
};

struct rows_chunk;
struct minute_rows {
    int64_t minute;
    struct rows_chain {
        struct rows_chunk *first;
        struct rows_chunk *last;
        uint64_t rows;
        int64_t sum;
    } of[EVENT_ACTIONS];
};

struct generation {
    atomic_uint references;
    /* Memory. */
    uint8_t **blocks;
    size_t n_blocks;
    size_t blocks_capacity;
    size_t used; /* of the last block */
    /* Profiles: the upper half of a slot is of the hash, the lower the reference. */
    uint64_t *slots;
    size_t n_slots; /* a power of 2, or 0 */
    size_t n_profiles;
    /* Minutes, ascending. */
    struct minute_rows *minutes;
    size_t n_minutes;
    size_t minutes_capacity;
    size_t minute_hint;
    struct letters letters;
    uint64_t tags;
    uint64_t late;
    lsn_t position; /* of the lane when it was frozen */
    size_t bytes;   /* of all the above */
};
/* NULL when memory is out. */
struct generation *generation_new(void);
struct generation *generation_ref(struct generation *g);
/* Takes NULL. Returns NULL. */
struct generation *generation_unref(struct generation *g);
/* Whether nothing was ever added. */
bool generation_is_empty(const struct generation *g);

/* Adds a tag to the cookie's profile, and if it counts to its minute. -ENOMEM: nothing happened. */
int generation_add(struct generation *g, uint64_t hash, const struct event_tag *tag,
                   bool counts) MUST_USE;
/* Forgets a cookie, here and below. */
int generation_erase(struct generation *g, uint64_t hash, struct bytes cookie) MUST_USE;
/* Ask for the memory that generation_add will look at, each for what the one before it brought:
 * the slot, the profile that it leads to (mostly the right one), the end of its tags. */
void generation_prefetch(const struct generation *g, uint64_t hash);
void generation_prefetch_profile(const struct generation *g, uint64_t hash);
void generation_prefetch_tags(const struct generation *g, uint64_t hash);

/* NULL when it never came. */
const struct profile *generation_find(const struct generation *g, uint64_t hash,
                                      struct bytes cookie);
static inline struct bytes profile_cookie(const struct profile *p) {
    return bytes_of(p->cookie, p->cookie_size);
}
/* Bytes of the encoded tags; appends them as the tags of a run, as one run. */
size_t generation_tags_size(const struct generation *g, const struct profile *p);
void generation_tags(const struct generation *g, const struct profile *p, struct buffer *out);
void generation_run(const struct generation *g, const struct profile *p, struct buffer *out);
/* Walks all profiles, in no order: start with *at = 0; NULL at the end. */
const struct profile *generation_next(const struct generation *g, size_t *at);

/* No rows when there are none. */
struct rows_chain generation_rows(const struct generation *g, int64_t minute,
                                  enum event_action action);
/* Walks the chunks of a chain: start with the chain's own; false at the end. */
bool rows_next(struct rows_chain *left, struct columns *ret_columns);

#endif
