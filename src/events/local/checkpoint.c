/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checkpoint, in this order:
 *
 *   1. freeze    lane by lane, under its lock: frozen = hot, hot = a new one; the position is noted
 *   2. write     one sorted file: columns, elements, keys, profiles, letters, the state; and, of
 *                elements and state, a copy beside the database
 *   3. ingest    atomic and synced (database.c)
 *   4. switch    lane by lane, under its lock: base = the database as it now is, frozen = none
 *
 * If 2 or 3 fails, what is frozen stays so, readable as before, and the next checkpoint begins with
 * it: a tag is in one file that was taken in, never in two. If 3 fails, it is not known which it
 * was until the database was opened again (reopen.c). An element is written before, or with,
 * whatever uses it: the positions are noted first, and what they cover is durable; the dictionary's
 * part reaches up to what is durable when it is written, which is not less.
 */
#include "events/local/internal.h"

#include <errno.h>
#include <stdlib.h>

enum {
    GATHER_ROWS = 65536, /* of a block, about */
#ifdef MILLRACE_TINY
    BLOCK_ROWS = 4,
#else
    BLOCK_ROWS = 4096, /* fewer rows are merged with those of other checkpoints */
#endif
};

/* What a checkpoint carries from step to step. */
struct run {
    struct events_store *s;
    struct ingest ingest;
    struct outcome outcome; /* what the state will be */
    struct buffer value;
    struct key key;
    struct buffer copies; /* of elements, as frames */
    struct base *base;    /* made before, taken after the ingest: nothing fails in between */
};

void outcome_deinit(struct outcome *o) {
    state_deinit(&o->state);
    buffer_deinit(&o->encoded);
    *o = (struct outcome){0};
}

static void run_deinit(struct run *run) {
    ingest_deinit(&run->ingest);
    outcome_deinit(&run->outcome);
    buffer_deinit(&run->value);
    buffer_deinit(&run->copies);
    base_unref(run->base);
}

/* ---- 1. Freezing ---- */
static bool is_frozen(const struct events_store *s) {
    return s->lanes[0].frozen != NULL;
}

static void freeze_lane(struct events_store *s, struct lane *l, struct generation *fresh) {
    mutex_lock(&l->lock);
    l->frozen = l->hot;
    l->hot = fresh;
    l->frozen->position = l->position;
    size_t bytes = l->frozen->bytes;
    mutex_unlock(&l->lock);
    atomic_fetch_add_explicit(&s->frozen_bytes, bytes, memory_order_relaxed);
    atomic_fetch_sub_explicit(&s->hot_bytes, bytes, memory_order_relaxed);
}

static int freeze(struct events_store *s) {
    struct generation *fresh[WORK_LANES_MAX];
    for (unsigned i = 0; i < s->n_lanes; i++) {
        fresh[i] = generation_new();
        if (fresh[i])
            continue;
        while (i > 0)
            generation_unref(fresh[--i]);
        return error_origin(-ENOMEM);
    }
    for (unsigned i = 0; i < s->n_lanes; i++)
        freeze_lane(s, &s->lanes[i], fresh[i]);
    return 0;
}

/* Nothing was applied, and no minute is to go: what is persisted is what there is. */
static bool is_persisted(struct events_store *s) {
    bool same = minutes_floor(&s->minutes) == s->persisted.floor && s->persisted.number > 0;
    for (unsigned i = 0; i < s->n_lanes; i++) {
        mutex_lock(&s->lanes[i].lock);
        same &= s->lanes[i].position == s->lanes[i].persisted;
        mutex_unlock(&s->lanes[i].lock);
    }
    return same;
}

/* ---- 2. Writing: columns ---- */
static int flush_rows(struct run *run, struct columns_gather *g) {
    int r = g->rows > 0 ? columns_encode(g, &run->value) : 0;
    columns_gather_clear(g);
    return r;
}

static int encode_rows(struct run *run, struct columns_gather *g, struct rows_chain chain) {
    struct columns c;
    int r = 0;
    buffer_clear(&run->value);
    while (r == 0 && rows_next(&chain, &c)) {
        r = columns_gather_add(g, &c);
        if (r == 0 && g->rows >= GATHER_ROWS)
            r = flush_rows(run, g);
    }
    return r == 0 ? flush_rows(run, g) : r;
}

static int write_minute(struct run *run, struct columns_gather *g, unsigned lane,
                        const struct minute_rows *m) {
    for (unsigned action = 0; action < EVENT_ACTIONS; action++) {
        uint64_t rows = m->of[action].rows;
        if (rows == 0)
            continue;
        int r = encode_rows(run, g, m->of[action]);
        if (r < 0)
            return r;
        key_columns(&run->key, lane, m->minute, action,
                    rows < BLOCK_ROWS ? KEY_JOINED : run->outcome.state.number);
        (rows < BLOCK_ROWS ? ingest_merge : ingest_put)(&run->ingest, key_view(&run->key),
                                                        buffer_bytes(&run->value));
    }
    return 0;
}

/* The rows of minutes that are gone are not written, and those written before are deleted. */
static int write_columns(struct run *run) {
    CLEANUP(columns_gather_deinit) struct columns_gather gather = {0};
    for (unsigned lane = 0; lane < run->s->n_lanes; lane++) {
        const struct generation *g = run->s->lanes[lane].frozen;
        for (size_t i = 0; i < g->n_minutes; i++) {
            if (g->minutes[i].minute < run->outcome.state.floor)
                continue;
            int r = write_minute(run, &gather, lane, &g->minutes[i]);
            if (r < 0)
                return error_trace(r);
        }
    }
    return 0;
}

static void delete_minutes(struct run *run) {
    int64_t from = run->s->persisted.floor, to = run->outcome.state.floor;
    struct key end;
    for (unsigned lane = 0; from < to && lane < run->s->n_lanes; lane++) {
        key_minute(&run->key, lane, from);
        key_minute(&end, lane, to);
        ingest_delete_range(&run->ingest, key_view(&run->key), key_view(&end));
    }
}

/* ---- 2. Writing: dictionary and keys ---- */
static int write_element(void *context, uint64_t number, lsn_t lsn, struct bytes collection,
                         uint32_t id, struct bytes element) {
    struct run *run = context;
    buffer_clear(&run->value);
    element_encode(&run->value, lsn, collection, id, element);
    key_begin(&run->key, KEY_ELEMENT);
    key_u64(&run->key, number);
    ingest_put(&run->ingest, key_view(&run->key), buffer_bytes(&run->value));
    return buffer_check(&run->value);
}

/* The copy may lack what the database has: it was damaged, or an earlier version made none. */
static int copy_element(void *context, uint64_t number, lsn_t lsn, struct bytes collection,
                        uint32_t id, struct bytes element) {
    struct run *run = context;
    buffer_clear(&run->value);
    element_encode(&run->value, lsn, collection, id, element);
    elements_encode(&run->copies, number, buffer_bytes(&run->value));
    int r = buffer_check(&run->value);
    return r < 0 ? r : buffer_check(&run->copies);
}

static int copy_elements(struct run *run, lsn_t upto) {
    struct element_copies *c = &run->s->element_copies;
    uint64_t next = 0;
    int r = event_dictionary_each(run->s->dictionary, c->n, upto, copy_element, run, &next);
    if (r == 0 && run->copies.size > 0)
        r = elements_write(c, buffer_bytes(&run->copies), next);
    return error_trace(r);
}

/* A key to put, or to delete. */
struct once_change {
    uint8_t key[16];
    uint64_t order; /* the last change of a key counts */
    bool put;
    struct event_once_entry entry;
};

static void forget_key(void *context, const uint8_t key[16]) {
    buffer_append(context, key, 16);
}

static int add_entry(void *context, const struct event_once_entry *entry) {
    struct buffer *changes = context;
    struct once_change change = {
        .order = changes->size / sizeof change, .put = true, .entry = *entry};
    memcpy(change.key, entry->key, sizeof change.key);
    buffer_append(changes, &change, sizeof change);
    return buffer_check(changes);
}

static int gather_keys(struct run *run, lsn_t upto, struct buffer *changes) {
    struct persisted *p = &run->s->persisted;
    event_once_expire(run->s->once, forget_key, &p->once_forgotten);
    if (buffer_check(&p->once_forgotten) < 0) /* those keys stay on disk until the next start */
        buffer_clear(&p->once_forgotten);
    for (size_t at = 0; at < p->once_forgotten.size; at += 16) {
        struct once_change change = {.order = changes->size / sizeof change};
        memcpy(change.key, p->once_forgotten.data + at, sizeof change.key);
        buffer_append(changes, &change, sizeof change);
    }
    int r = event_once_each(run->s->once, p->once, upto, add_entry, changes, &run->outcome.once);
    return r < 0 ? r : buffer_check(changes);
}

static int compare_changes(const void *a, const void *b) {
    const struct once_change *x = a, *y = b;
    int order = memcmp(x->key, y->key, sizeof x->key);
    return order ? order : (x->order > y->order) - (x->order < y->order);
}

static int write_keys(struct run *run, lsn_t upto) {
    CLEANUP(buffer_deinit) struct buffer changes = BUFFER_INIT;
    int r = gather_keys(run, upto, &changes);
    if (r < 0)
        return error_trace(r);
    struct once_change *list = (void *)changes.data;
    size_t n = changes.size / sizeof *list;
    if (n > 1)
        qsort(list, n, sizeof *list, compare_changes);
    for (size_t i = 0; i < n; i++) {
        if (i + 1 < n && memcmp(list[i].key, list[i + 1].key, sizeof list[i].key) == 0)
            continue;
        key_begin(&run->key, KEY_ONCE);
        key_bytes(&run->key, bytes_of(list[i].key, sizeof list[i].key));
        buffer_clear(&run->value);
        once_encode(&run->value, &list[i].entry);
        if (list[i].put)
            ingest_put(&run->ingest, key_view(&run->key), buffer_bytes(&run->value));
        else
            ingest_delete(&run->ingest, key_view(&run->key));
    }
    return buffer_check(&run->value);
}

/* ---- 2. Writing: profiles and letters ---- */
static int write_profile(struct run *run, const struct generation *g, const struct profile *p) {
    bool any = p->first && generation_tags_size(g, p) > 0;
    key_profile(&run->key, p->hash, profile_cookie(p));
    buffer_clear(&run->value);
    tag_value_begin(&run->value);
    if (any)
        generation_run(g, p, &run->value);
    if (!any && p->erased)
        ingest_delete(&run->ingest, key_view(&run->key));
    else if (any)
        (p->erased ? ingest_put : ingest_merge)(&run->ingest, key_view(&run->key),
                                                buffer_bytes(&run->value));
    return buffer_check(&run->value);
}

static int write_profiles(struct run *run) {
    struct sorted_profile *sorted = NULL;
    size_t n = 0;
    int r = sort_profiles(run->s, &sorted, &n);
    for (size_t i = 0; r == 0 && i < n; i++) {
        unsigned lane = work_lane_of_hash(sorted[i].hash, run->s->n_lanes);
        r = write_profile(run, run->s->lanes[lane].frozen, sorted[i].profile);
    }
    free(sorted);
    return error_trace(r);
}

static int write_letters(struct run *run) {
    const struct letters *lists[WORK_LANES_MAX];
    for (unsigned i = 0; i < run->s->n_lanes; i++)
        lists[i] = &run->s->lanes[i].frozen->letters;
    return letters_write(lists, run->s->n_lanes, &run->ingest);
}

/* ---- 2. Writing: the state ---- */
static int add_totals(struct minute_totals *t, const struct minute_rows *m) {
    struct minute_total *total = minute_totals_at(t, m->minute);
    if (!total)
        return error_origin(-ENOMEM);
    for (size_t i = 0; i < EVENT_ACTIONS; i++) {
        total->of[i].count += m->of[i].rows;
        total->of[i].sum += m->of[i].sum;
    }
    return 0;
}

/* What the state will be with the frozen generations. */
static int next_state(struct events_store *s, struct state *state) {
    const struct persisted *p = &s->persisted;
    *state = (struct state){.n_lanes = s->n_lanes,
                            .number = p->number + 1,
                            .floor = minutes_floor(&s->minutes),
                            .letters = p->letters};
    int r = minute_totals_copy(&p->totals, &state->totals);
    if (r < 0)
        return r;
    minute_totals_cut(&state->totals, state->floor);
    for (unsigned i = 0; r == 0 && i < s->n_lanes; i++) {
        const struct generation *g = s->lanes[i].frozen;
        state->positions[i] = g->position;
        state->letters += g->letters.n - letters_gone(&g->letters);
        for (size_t k = 0; r == 0 && k < g->n_minutes; k++)
            if (g->minutes[k].minute >= state->floor)
                r = add_totals(&state->totals, &g->minutes[k]);
    }
    return r;
}

static int write_state(struct run *run) {
    struct events_store *s = run->s;
    struct outcome *o = &run->outcome;
    int r = state_encode(&o->state, &o->encoded);
    if (r < 0)
        return error_trace(r);
    key_begin(&run->key, KEY_STATE);
    ingest_put(&run->ingest, key_view(&run->key), buffer_bytes(&o->encoded));
    return copies_write_state(&s->copies, database_sequence(&s->database),
                              buffer_bytes(&s->persisted.state), buffer_bytes(&o->encoded));
}

/* The order of keys.h. */
static int write_all(struct run *run, lsn_t upto) {
    int r = write_columns(run);
    delete_minutes(run);
    if (r == 0)
        r = event_dictionary_each(run->s->dictionary, run->s->persisted.elements, upto,
                                  write_element, run, &run->outcome.state.elements);
    if (r == 0)
        r = copy_elements(run, upto);
    if (r == 0)
        r = write_keys(run, upto);
    if (r == 0)
        r = write_profiles(run);
    if (r == 0)
        r = write_letters(run);
    if (r == 0)
        r = write_state(run);
    return error_fold(r);
}

/* ---- 3. Ingesting ---- */
/* Whether a failure came before the moment or after it is found out later. */
static int ingest(struct run *run) {
    struct events_store *s = run->s;
    int r = ingest_finish(&run->ingest);
    if (r < 0 && database_is_stuck(&s->database)) {
        s->unsure = run->outcome;
        run->outcome = (struct outcome){0};
    }
    return error_trace(r);
}

/* ---- 4. Switching ---- */
static void switch_lane(struct events_store *s, struct lane *l, struct base *base) {
    mutex_lock(&l->lock);
    struct generation *frozen = l->frozen;
    struct base *old = l->base;
    l->frozen = NULL;
    l->base = base_ref(base);
    l->covered = false;
    l->persisted = frozen->position;
    mutex_unlock(&l->lock);
    atomic_fetch_sub_explicit(&s->frozen_bytes, frozen->bytes, memory_order_relaxed);
    generation_unref(frozen);
    base_unref(old);
}

void switch_lanes(struct events_store *s, struct base *base, struct outcome *o) {
    struct persisted *p = &s->persisted;
    for (unsigned i = 0; i < s->n_lanes; i++)
        switch_lane(s, &s->lanes[i], base);
    minute_totals_deinit(&p->totals);
    buffer_deinit(&p->state);
    p->totals = o->state.totals;
    p->state = o->encoded;
    p->number = o->state.number;
    p->floor = o->state.floor;
    p->letters = o->state.letters;
    p->elements = o->state.elements;
    p->once = o->once;
    buffer_clear(&p->once_forgotten);
    *o = (struct outcome){0};
    copies_follow_manifest(&s->copies);
}

/* ---- The whole ---- */
static int persist_frozen(struct events_store *s, struct journal *j) {
    CLEANUP(run_deinit) struct run run = {.s = s};
    int r = next_state(s, &run.outcome.state);
    if (r == 0)
        r = base_new(&s->database, &run.base);
    if (r == 0)
        r = ingest_begin(&run.ingest, &s->database);
    if (r == 0)
        r = write_all(&run, j ? journal_durable(j) : UINT64_MAX);
    if (r == 0)
        r = ingest(&run);
    if (r == 0) {
        base_take(run.base);
        switch_lanes(s, run.base, &run.outcome);
    }
    return error_trace(r);
}

static int checkpoint(struct events_store *s, struct journal *j) {
    int r = make_sure(s);
    if (r < 0)
        return error_trace(r);
    if (is_frozen(s))
        r = persist_frozen(s, j);
    minutes_floor_move(&s->minutes, minutes_floor_next(&s->minutes, os_monotonic_ns(s->os)));
    if (r < 0 || is_persisted(s))
        return r;
    r = freeze(s);
    if (r == 0)
        r = persist_frozen(s, j);
    return r;
}

int events_store_checkpoint(struct events_store *s, struct journal *j) {
    mutex_lock(&s->checkpoint);
    int r = checkpoint(s, j);
    mutex_unlock(&s->checkpoint);
    return error_trace(r);
}
