/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys of the database. One column family; the first byte says what it is, so that a checkpoint is
 * one file in this order. Numbers are big-endian, signed ones biased: keys sort as they do.
 *
 *   c  lane u8, minute i64, action u8, number u64   columns (columns.c): of the checkpoint of that
 *                                                   number, or, merged, small ones: KEY_JOINED
 *   d  number u64                                   an element of the dictionary
 *   o  16 bytes                                     an idempotency key
 *   p  event_key_hash u64, cookie                   a profile (tags.c), merged
 *   x  lsn u64                                      a dead letter
 *   z                                               the state (state.c)
 */
#ifndef MILLRACE_EVENTS_LOCAL_KEYS_H
#define MILLRACE_EVENTS_LOCAL_KEYS_H

#include "events/tag.h"
#include "keyed/letter.h"

#include <assert.h>

enum key_kind {
    KEY_COLUMNS = 'c',
    KEY_ELEMENT = 'd',
    KEY_ONCE = 'o',
    KEY_PROFILE = 'p',
    KEY_LETTER = LETTER_KEY,
    KEY_STATE = 'z',
};
static const uint64_t KEY_JOINED = UINT64_MAX;

enum { KEY_COLUMNS_SIZE = 1 + 1 + 8 + 1 + 8 };
static_assert(1 + 8 + EVENT_TEXT_MAX <= KEY_MAX, "a profile's key fits");

/* Where the columns of a minute begin. */
static inline void key_minute(struct key *k, unsigned lane, int64_t minute) {
    key_begin(k, KEY_COLUMNS);
    key_u8(k, (uint8_t)lane);
    key_i64(k, minute);
}
static inline void key_columns(struct key *k, unsigned lane, int64_t minute,
                               enum event_action action, uint64_t number) {
    key_minute(k, lane, minute);
    key_u8(k, (uint8_t)action);
    key_u64(k, number);
}
static inline void key_profile(struct key *k, uint64_t hash, struct bytes cookie) {
    key_begin(k, KEY_PROFILE);
    key_u64(k, hash);
    key_bytes(k, cookie);
}
#endif
