/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lane's erasures that were appended and may not be applied yet. All that the lane has applied is
 * older than they are, so until they are applied they hide it: a user who was erased reads as
 * erased at once. Its owner's lock guards it, and gives the position up to which the lane has
 * applied.
 */
#ifndef MILLRACE_EVENTS_ERASURES_H
#define MILLRACE_EVENTS_ERASURES_H

#include "journal/journal.h"

#include <stdbool.h>

enum {
#ifdef MILLRACE_TINY
    EVENT_ERASURES_MAX = 32,
#else
    EVENT_ERASURES_MAX = 4096,
#endif
};

struct event_erasure {
    uint64_t key_hash;
    lsn_t lsn;
};
struct event_erasures {
    struct event_erasure entries[EVENT_ERASURES_MAX];
    unsigned n;
};

/* Whether there is room for another, and for those that were asked for at the same time. */
bool event_erasures_take(struct event_erasures *e, lsn_t applied) MUST_USE;
void event_erasures_add(struct event_erasures *e, uint64_t key_hash, lsn_t lsn, lsn_t applied);
bool event_erasures_hide(const struct event_erasures *e, uint64_t key_hash, lsn_t applied);

#endif
