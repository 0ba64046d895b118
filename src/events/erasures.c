/* SPDX-License-Identifier: Apache-2.0 */
/* Erasures to be applied: see erasures.h. */
#include "events/erasures.h"

enum { SPARE = 16 };

/* Forgets those that are applied. */
static void prune(struct event_erasures *e, lsn_t applied) {
    unsigned kept = 0;
    for (unsigned i = 0; i < e->n; i++)
        if (e->entries[i].lsn > applied)
            e->entries[kept++] = e->entries[i];
    e->n = kept;
}

bool event_erasures_take(struct event_erasures *e, lsn_t applied) {
    prune(e, applied);
    return e->n < EVENT_ERASURES_MAX - SPARE;
}

void event_erasures_add(struct event_erasures *e, uint64_t key_hash, lsn_t lsn, lsn_t applied) {
    if (e->n == EVENT_ERASURES_MAX)
        prune(e, applied);
    if (e->n < EVENT_ERASURES_MAX && lsn > applied)
        e->entries[e->n++] = (struct event_erasure){key_hash, lsn};
}

bool event_erasures_hide(const struct event_erasures *e, uint64_t key_hash, lsn_t applied) {
    for (unsigned i = 0; i < e->n; i++)
        if (e->entries[i].key_hash == key_hash && e->entries[i].lsn > applied)
            return true;
    return false;
}
