/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys of the database. One column family; the first byte says what it is, so that a checkpoint is
 * one file in this order. Numbers are big-endian; a task's key is inverted, so that the newest come
 * first.
 *
 *   a  ~key u64                        the arguments of a task that has not succeeded, unless "{}"
 *   f  finished_us u64, ~key u64       a task that has ended (or had, before it was tried again)
 *   i  status u8, type u8, ~key u64    a task by status and type; queued: due_us u64, priority u8
 *   k  16 bytes                        an idempotency key: the id of its task
 *   t  ~key u64                        the state of a task (state.c)
 *   x  lsn u64                         a dead letter
 *   z                                  the state of the store (state.c)
 */
#ifndef MILLRACE_TASKS_LOCAL_KEYS_H
#define MILLRACE_TASKS_LOCAL_KEYS_H

#include "keyed/letter.h"

enum key_kind {
    KEY_ARGS = 'a',
    KEY_FINISHED = 'f',
    KEY_INDEX = 'i',
    KEY_ONCE = 'k',
    KEY_TASK = 't',
    KEY_LETTER = LETTER_KEY,
    KEY_STATE = 'z',
};
enum {
    KEY_TASK_SIZE = 1 + 8, /* and arguments' */
    KEY_FINISHED_SIZE = 1 + 8 + 8,
    KEY_INDEX_SIZE = 1 + 1 + 1 + 8,
    KEY_ONCE_SIZE = 1 + 16,
};

static inline void key_task(struct key *k, enum key_kind kind, uint64_t key) {
    key_begin(k, (uint8_t)kind);
    key_u64(k, ~key);
}
static inline void key_index(struct key *k, unsigned status, unsigned type, uint64_t key) {
    key_begin(k, KEY_INDEX);
    key_u8(k, (uint8_t)status);
    key_u8(k, (uint8_t)type);
    key_u64(k, ~key);
}
static inline void key_finished(struct key *k, uint64_t finished_us, uint64_t key) {
    key_begin(k, KEY_FINISHED);
    key_u64(k, finished_us);
    key_u64(k, ~key);
}
static inline void key_once(struct key *k, uint64_t high, uint64_t low) {
    key_begin(k, KEY_ONCE);
    key_u64(k, high);
    key_u64(k, low);
}
/* The task that a key of a kind that ends in one is of. */
static inline uint64_t key_task_of(struct bytes key) {
    return ~be64toh(load_u64(key.data + key.size - 8));
}
#endif
