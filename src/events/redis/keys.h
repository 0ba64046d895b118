/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cluster's keys and the texts in them, in one place (README.md draws them). What is made is
 * allocated from an arena; {NULL, 0}: it is full.
 */
#ifndef MILLRACE_EVENTS_REDIS_KEYS_H
#define MILLRACE_EVENTS_REDIS_KEYS_H

#include "base/arena.h"
#include "events/tag.h"

enum {
    LAYOUT_VERSION = 1,
    COOKIE_BUCKETS = 1024,
    MINUTE_SHARDS = 8,
    POSITION_DIGITS = 20,
};

/* Which bucket has a cookie's profile: never changed. Finer than lanes, and by the same rule, so
 * that a bucket belongs to few lanes. */
unsigned key_cookies_of(uint64_t key_hash);
static inline unsigned key_shard_of(unsigned lane) {
    return lane % MINUTE_SHARDS;
}

struct bytes key_format(struct arena *a, const char *format, ...) MUST_USE PRINTF_LIKE(2, 3);
struct bytes key_cookies_positions(struct arena *a, const char *prefix, unsigned bucket) MUST_USE;
struct bytes key_tags(struct arena *a, const char *prefix, unsigned bucket,
                      enum event_action action, struct bytes cookie) MUST_USE;
struct bytes key_minute(struct arena *a, const char *prefix, int64_t minute,
                        unsigned shard) MUST_USE;
struct bytes key_collection(struct arena *a, const char *prefix, struct bytes name) MUST_USE;
/* An Idempotency-Key, as hashes: which body it is for; and, with that, what of it a lane has had.
 */
struct bytes key_claim(struct arena *a, const char *prefix, struct bytes key) MUST_USE;
struct bytes key_once(struct arena *a, const char *prefix, unsigned lane,
                      struct bytes key_and_body) MUST_USE;
struct bytes key_lane(struct arena *a, const char *prefix, unsigned lane, char what) MUST_USE;

/* A position as text: always so many digits, so that texts compare as the numbers do (a number in
 * Lua is a double). */
struct bytes key_position(struct arena *a, lsn_t position) MUST_USE;
bool key_position_read(struct bytes text, lsn_t *ret_position) MUST_USE;

/* A field of a minute's hash: the action and the values of some filters. */
void key_append_combination(struct buffer *out, enum event_action action,
                            const bool filtered[EVENT_FILTERS],
                            const struct bytes values[EVENT_FILTERS]);
/* Its value: how many there are, u64, and the sum of what they measure, i64. */
enum { KEY_AGGREGATE_BYTES = 16 };

#endif
