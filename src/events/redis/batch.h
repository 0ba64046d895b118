/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of one lane, to be applied together: dealt to the buckets that they change, combined, and
 * made into one script a bucket (scripts.h). Pure: it asks nobody, and holds no lock.
 *
 *   bucket          what is combined
 *   COOKIES n       each cookie's tags by action; what an erasure comes after is left out
 *   MINUTE m        of each combination of filters: how many, and the sum
 *
 * A bucket takes the records that are above its `from`. The cluster may say that it has more: then
 * `from` is raised, and the rest combined again, until every bucket has all.
 */
#ifndef MILLRACE_EVENTS_REDIS_BATCH_H
#define MILLRACE_EVENTS_REDIS_BATCH_H

#include "base/arena.h"
#include "events/redis/scripts.h"
#include "events/tag.h"

struct batch_item {
    lsn_t lsn;
    uint64_t key_hash;
    uint64_t wall_us;
    unsigned cookies;           /* its bucket */
    bool repeated;              /* it came before, with the same key: it has no effect */
    struct event_record record; /* FULL_TAG, ERASE */
};

enum bucket_kind { BUCKET_COOKIES, BUCKET_MINUTE };
struct bucket {
    enum bucket_kind kind;
    int64_t number; /* of the cookies' bucket; the minute */
    lsn_t from;     /* it is thought to have what is up to here */
    const struct batch_item **items;
    size_t n;
    bool done;
};

struct batch {
    struct arena *arena; /* borrowed */
    const char *prefix;
    unsigned lane;
    lsn_t from;               /* where the lane was */
    lsn_t last;               /* where it will be */
    struct batch_item *items; /* by lsn */
    size_t n;
    struct bucket *buckets;
    size_t n_buckets;
};

/* Deals b->items, the first fields being set. -ENOMEM. */
int batch_deal(struct batch *b) MUST_USE;
/* Makes the command of a bucket. *ret_any is false when it has nothing to send: it is done.
 * -ENOMEM. */
int batch_command(struct batch *b, const struct scripts *scripts, struct bucket *bucket,
                  struct redis_command *ret_command, bool *ret_any) MUST_USE;
/* What became of it. False: no answer of that script. */
bool batch_answered(struct bucket *bucket, const redisReply *reply) MUST_USE;

#endif
