/* SPDX-License-Identifier: Apache-2.0 */
/*
 * After an ingest that failed (keyed/reopen.c says why): the database is opened again, and says
 * whether that checkpoint is in it. Queries go on:
 *
 *                            base               what is frozen
 *   the ingest failed        without it         is shown
 *   retreated: without it    without it         is shown
 *              with it       with it            is kept, and not shown: it is not durable yet
 *   returned:  without it    without it         is shown, and first in the next checkpoint
 *              with it       with it            is dropped, the checkpoint was made
 */
#include "events/local/internal.h"

/* Whether the base has the state of that checkpoint. Negative: it cannot be read. */
static int holds(struct base *base, uint64_t number, bool *ret_holds) {
    struct state state = {0};
    CLEANUP(pinned_deinit) rocksdb_pinnableslice_t *slice = NULL;
    struct key key;
    key_begin(&key, KEY_STATE);
    int r = base_get(base, key_view(&key), &slice);
    if (r == 0 && slice)
        r = state_decode(pinned_bytes(slice), &state);
    if (r == 0)
        *ret_holds = state.number == number;
    state_deinit(&state);
    return error_trace(r);
}

static void show(struct events_store *s, struct base *base, bool covered) {
    for (unsigned i = 0; i < s->n_lanes; i++) {
        struct lane *l = &s->lanes[i];
        mutex_lock(&l->lock);
        struct base *old = l->base;
        l->base = base_ref(base);
        l->covered = covered;
        mutex_unlock(&l->lock);
        base_unref(old);
    }
}

/* Shows the database as it is now; for good: what it has is durable. */
static int show_current(struct events_store *s, bool for_good) {
    struct base *base;
    bool there = false;
    int r = base_new(&s->database, &base);
    if (r < 0)
        return error_trace(r);
    base_take(base);
    r = holds(base, s->unsure.state.number, &there);
    if (r == 0 && there && for_good)
        switch_lanes(s, base, &s->unsure);
    else if (r == 0)
        show(s, base, there);
    if (r == 0 && for_good)
        outcome_deinit(&s->unsure);
    base_unref(base);
    return error_trace(r);
}

static int reopen(struct events_store *s) {
    int r = database_retreat(&s->database);
    if (r == 0)
        r = show_current(s, false);
    return r == 0 ? database_return(&s->database) : error_trace(r);
}

int make_sure(struct events_store *s) {
    int r = database_is_stuck(&s->database) ? reopen(s) : 0;
    if (r == 0 && s->unsure.state.number > 0)
        r = show_current(s, true);
    return r == 0 ? database_settle(&s->database) : error_trace(r);
}
