/* SPDX-License-Identifier: Apache-2.0 */
/*
 * After an ingest that failed (keyed/reopen.c says why): the database is opened again, and says
 * whether that checkpoint is in it. Queries go on: what is frozen is shown before what the base
 * has, and is the same if the base has it too, so it stays until what the base has is durable.
 */
#include "tasks/local/internal.h"

/* Whether the base has the state of that checkpoint. Negative: it cannot be read. */
static int holds(struct base *base, uint64_t number, bool *ret_holds) {
    CLEANUP(pinned_deinit) rocksdb_pinnableslice_t *slice = NULL;
    struct state state = {0};
    struct key key;
    key_begin(&key, KEY_STATE);
    int r = base_get(base, key_view(&key), &slice);
    if (r == 0 && slice)
        r = tasks_state_decode(pinned_bytes(slice), &state);
    if (r == 0)
        *ret_holds = state.number == number;
    return error_trace(r);
}

static void show(struct tasks_store *s, struct base *base) {
    mutex_lock(&s->lock);
    struct base *old = s->base;
    s->base = base_ref(base);
    mutex_unlock(&s->lock);
    base_unref(old);
}

/* Shows the database as it is now; for good: what it has is durable. */
static int show_current(struct tasks_store *s, bool for_good) {
    struct base *base;
    bool there = false;
    int r = base_new(&s->database, &base);
    if (r < 0)
        return error_trace(r);
    base_take(base);
    if (for_good)
        r = holds(base, s->persisted.number + 1, &there);
    if (r == 0 && there)
        switch_over(s, base);
    else if (r == 0)
        show(s, base);
    if (r == 0 && for_good)
        s->unsure = false;
    base_unref(base);
    return error_trace(r);
}

static int reopen(struct tasks_store *s) {
    int r = database_retreat(&s->database);
    if (r == 0)
        r = show_current(s, false);
    return r == 0 ? database_return(&s->database) : error_trace(r);
}

int tasks_make_sure(struct tasks_store *s) {
    int r = database_is_stuck(&s->database) ? reopen(s) : 0;
    if (r == 0 && s->unsure)
        r = show_current(s, true);
    return r == 0 ? database_settle(&s->database) : error_trace(r);
}
