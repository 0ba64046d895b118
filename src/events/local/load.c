/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a store reads when it opens: the state, the dictionary, the idempotency keys. Damage stops
 * none of it (invariant 7):
 *
 *   state      comes from its copy; without one, only then, the store does not open
 *   element    comes from its copy; else it is lost: named, counted, its id never given again
 *   key        is lost, with those next to it that RocksDB cannot read past: what was sent with
 *              them may be taken again
 */
#include "events/local/internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

struct loading {
    struct events_store *s;
    struct base *base;
    struct events_store_report *report;
    const char *why;
};

static void mended(struct loading *l) {
    l->report->damages++;
    l->report->mended++;
}

static void lost(struct loading *l, uint64_t n) {
    l->report->damages += n;
    l->report->lost += n;
}

/* ---- The state ---- */
static int state_from_copy(struct loading *l, struct state *state) {
    CLEANUP(buffer_deinit) struct buffer copy = BUFFER_INIT;
    struct events_store *s = l->s;
    int r = copies_read_state(s->os, s->directory, database_sequence(&s->database), &copy);
    if (r == 0)
        r = state_decode(buffer_bytes(&copy), state);
    if (r == COPIES_E_NONE || r == -EBADMSG) {
        l->why = "the state is damaged, and so is its copy";
        return error_origin(-EBADMSG);
    }
    if (r == 0)
        mended(l);
    return error_fold(r);
}

/* What is written first is the copy: so a copy that begins with a later checkpoint than the
 * database's says that the database has lost one. */
static int check_not_older(struct loading *l, uint64_t number) {
    CLEANUP(buffer_deinit) struct buffer copy = BUFFER_INIT;
    struct state before = {0};
    int r = copies_read_state(l->s->os, l->s->directory, 0, &copy);
    if (r < 0)
        return error_trace(r);
    if (r == COPIES_E_NONE || copy.size == 0)
        return 0;
    r = state_decode(buffer_bytes(&copy), &before);
    uint64_t known = before.number;
    state_deinit(&before);
    if (r < 0 || known <= number)
        return 0;
    l->why = "it has lost its latest checkpoint";
    return error_origin(-EBADMSG);
}

static int load_state(struct loading *l, struct state *state) {
    CLEANUP(pinned_deinit) rocksdb_pinnableslice_t *slice = NULL;
    struct key key;
    key_begin(&key, KEY_STATE);
    int r = base_get(l->base, key_view(&key), &slice);
    if (r == 0 && slice)
        r = state_decode(pinned_bytes(slice), state);
    if (r == -EBADMSG)
        return state_from_copy(l, state);
    if (r == -EPROTONOSUPPORT)
        l->why = "it was written by a newer version";
    return r < 0 ? error_trace(r) : check_not_older(l, state->number);
}

/* A new store keeps what it was given. */
static int take_state(struct loading *l, uint64_t *ret_elements) {
    struct events_store *s = l->s;
    struct state state = {.n_lanes = s->options.lanes, .floor = INT64_MIN};
    int r = load_state(l, &state);
    if (r < 0) {
        state_deinit(&state);
        return error_trace(r);
    }
    s->n_lanes = state.n_lanes;
    for (unsigned i = 0; i < s->n_lanes; i++)
        s->lanes[i].position = s->lanes[i].persisted = state.positions[i];
    s->persisted.number = state.number;
    s->persisted.floor = state.floor;
    s->persisted.letters = state.letters;
    *ret_elements = state.elements;
    r = minute_totals_copy(&state.totals, &s->persisted.totals);
    if (r == 0 && state.number > 0)
        r = state_encode(&state, &s->persisted.state);
    if (r == 0)
        minutes_restore(&s->minutes, &state.totals, state.floor);
    state_deinit(&state);
    return error_trace(r);
}

/* ---- The dictionary ---- */
/* It is durable here, also when the journal has lost its record (and waits for that lsn again). */
static int restore_element(struct loading *l, struct bytes value) {
    struct bytes collection, element;
    uint32_t id;
    lsn_t lsn;
    if (!element_decode(value, &lsn, &collection, &id, &element))
        return error_origin(-EBADMSG);
    int r = event_dictionary_restore(l->s->dictionary, 0, collection, id, element);
    return r == -EPROTO ? error_origin(-EBADMSG) : r;
}

/* The one of that number, wherever it is whole. */
static int load_element(struct loading *l, uint64_t number) {
    CLEANUP(pinned_deinit) rocksdb_pinnableslice_t *slice = NULL;
    struct bytes copy;
    struct key key;
    key_begin(&key, KEY_ELEMENT);
    key_u64(&key, number);
    int r = base_get(l->base, key_view(&key), &slice);
    if (r == 0)
        r = slice ? restore_element(l, pinned_bytes(slice)) : -EBADMSG;
    if (r != -EBADMSG)
        return error_trace(r);
    r = elements_find(&l->s->element_copies, number, &copy);
    if (r == 0)
        r = restore_element(l, copy);
    if (r == 0)
        mended(l);
    if (r != COPIES_E_NONE && r != -EBADMSG)
        return error_trace(r);
    lost(l, 1);
    return event_dictionary_restore_lost(l->s->dictionary, 1);
}

/* One by one from there on, past what is damaged. */
static int load_elements_singly(struct loading *l, uint64_t n) {
    uint64_t lost_before = l->report->lost;
    int r = 0;
    for (; r == 0 && l->s->persisted.elements < n; l->s->persisted.elements++)
        r = load_element(l, l->s->persisted.elements);
    uint64_t gone = l->report->lost - lost_before;
    if (r == 0 && gone > 0)
        r = event_dictionary_leave_out(l->s->dictionary, (uint32_t)gone);
    return error_trace(r);
}

static int load_elements(struct loading *l, uint64_t n) {
    struct base_cursor cursor;
    struct bytes key, value;
    struct key first;
    uint64_t *loaded = &l->s->persisted.elements;
    int r = 0, error = 0;
    key_begin(&first, KEY_ELEMENT);
    base_cursor_init(&cursor, l->base, true);
    for (base_cursor_seek(&cursor, key_view(&first));
         r == 0 && base_cursor_at(&cursor, &key, &value, &error) && key.data[0] == KEY_ELEMENT;
         base_cursor_advance(&cursor)) {
        bool next = key.size == 1 + sizeof(uint64_t) && be64toh(load_u64(key.data + 1)) == *loaded;
        r = next ? restore_element(l, value) : error_origin(-EBADMSG);
        *loaded += r == 0;
    }
    base_cursor_deinit(&cursor);
    r = r != 0 ? r : error;
    if (n != ELEMENTS_UNKNOWN && *loaded < n && (r == 0 || r == -EBADMSG))
        return load_elements_singly(l, n);
    if (r == -EBADMSG && n != ELEMENTS_UNKNOWN) /* damage behind the last of them */
        r = 0;
    if (r == -EBADMSG)
        l->why = "the dictionary is damaged";
    return error_fold(r);
}

/* ---- Idempotency keys ---- */
/* Past the keys that begin like this one, and the next `step` - 1 stretches of those that agree in
 * two bytes. False at the end of all. */
static bool skip_keys(struct key *at, unsigned step) {
    unsigned stretch = ((unsigned)at->bytes[1] << 8 | at->bytes[2]) + step;
    at->bytes[1] = (uint8_t)(stretch >> 8);
    at->bytes[2] = (uint8_t)stretch;
    return stretch <= UINT16_MAX;
}

static int load_key(struct loading *l, struct bytes key, struct bytes value) {
    struct event_once_entry entry;
    if (!once_decode(key, value, &entry)) {
        lost(l, 1);
        return 0;
    }
    l->s->persisted.once++;
    return event_once_restore(l->s->once, &entry);
}

/* From `at` on, until the end or damage (-EBADMSG): then `at` is where it was met. */
static int load_keys_from(struct loading *l, struct key *at) {
    struct base_cursor cursor;
    struct bytes key, value;
    int r = 0, error = 0;
    base_cursor_init(&cursor, l->base, true);
    for (base_cursor_seek(&cursor, key_view(at));
         r == 0 && base_cursor_at(&cursor, &key, &value, &error) && key.data[0] == KEY_ONCE;
         base_cursor_advance(&cursor)) {
        if (key.size >= at->size)
            memcpy(at->bytes, key.data, at->size);
        r = load_key(l, key, value);
    }
    base_cursor_deinit(&cursor);
    return r != 0 ? r : error;
}

/* Of how many keys the damage is, nobody knows; the steps past it double, so that a table which
 * cannot be read at all costs a few. */
static int load_keys(struct loading *l) {
    struct key at = {.size = 3, .bytes = {KEY_ONCE}};
    unsigned step = 1;
    int r = load_keys_from(l, &at);
    while (r == -EBADMSG) {
        uint64_t loaded = l->s->persisted.once;
        if (step == 1)
            lost(l, 1);
        if (!skip_keys(&at, step))
            return 0;
        r = load_keys_from(l, &at);
        step = l->s->persisted.once > loaded ? 1 : 2 * step;
    }
    return error_trace(r);
}

/* Those that cannot be read are left out. */
static int load_letters(struct loading *l) {
    int r = letters_load(l->base, &l->s->letters);
    if (r != -EBADMSG)
        return error_trace(r);
    lost(l, 1);
    return 0;
}

int load_store(struct events_store *s, struct base *base, struct events_store_report *report,
               const char **ret_why) {
    struct loading l = {.s = s, .base = base, .report = report, .why = ""};
    uint64_t elements = 0;
    int r = take_state(&l, &elements);
    if (r == 0)
        r = load_elements(&l, elements);
    if (r == 0)
        r = elements_loaded(&s->element_copies, s->persisted.elements);
    if (r == 0)
        r = load_keys(&l);
    if (r == 0)
        r = load_letters(&l);
    *ret_why = l.why;
    return error_trace(r);
}
