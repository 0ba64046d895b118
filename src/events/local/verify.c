/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking a store that is not open: every block of every key, by RocksDB's checksums, and what we
 * make of each value. Where RocksDB finds damage it goes no further, so the check goes on behind
 * it: at the next of 256 stretches of the keys of that kind.
 */
#include "events/local/internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

struct verifier {
    void (*each)(void *context, const char *sentence);
    void *context;
    struct events_store_report report;
    uint64_t elements; /* as the state says */
};

static void PRINTF_LIKE(2, 3) damaged(struct verifier *v, const char *format, ...) {
    char sentence[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    v->report.damages++;
    if (n > 0 && v->each)
        v->each(v->context, sentence);
}

/* ---- Values ---- */
static bool columns_are_sound(struct bytes value) {
    struct columns c;
    size_t at = 0;
    int error;
    while (columns_next(value, &at, &c, &error))
        ;
    return error == 0;
}

/* -ENOMEM, else 0. */
static int check_profile(struct bytes value, bool *ret_sound) {
    CLEANUP(tag_index_deinit) struct tag_index index = {0};
    int r = tag_index_add_value(&index, value);
    *ret_sound = r == 0;
    return r == -ENOMEM ? r : 0;
}

static int check_state(struct verifier *v, struct bytes value, bool *ret_sound) {
    struct state state = {0};
    int r = state_decode(value, &state);
    v->report.minutes = state.totals.n;
    if (r == 0 && state.elements != ELEMENTS_UNKNOWN)
        v->elements = state.elements;
    state_deinit(&state);
    *ret_sound = r == 0;
    return r == -ENOMEM ? r : 0;
}

static bool element_is_sound(struct bytes value) {
    struct bytes collection, element;
    uint32_t id;
    lsn_t lsn;
    return element_decode(value, &lsn, &collection, &id, &element) && id > 0;
}

static int check_value(struct verifier *v, struct bytes key, struct bytes value, bool *ret_sound) {
    struct event_once_entry entry;
    struct work_letter letter;
    switch (key.data[0]) {
    case KEY_COLUMNS:
        *ret_sound = key.size == KEY_COLUMNS_SIZE && columns_are_sound(value);
        return 0;
    case KEY_ELEMENT:
        v->report.elements++;
        *ret_sound = element_is_sound(value);
        return 0;
    case KEY_ONCE:
        *ret_sound = once_decode(key, value, &entry);
        return 0;
    case KEY_PROFILE:
        v->report.profiles++;
        return check_profile(value, ret_sound);
    case KEY_LETTER:
        *ret_sound = letter_decode(value, &letter);
        return 0;
    case KEY_STATE:
        return check_state(v, value, ret_sound);
    default:
        *ret_sound = false;
        return 0;
    }
}

/* ---- Stretches ---- */
/* The keys that begin with these two bytes. */
static int check_stretch(struct verifier *v, struct base *base, const uint8_t first[2]) {
    struct base_cursor cursor;
    struct bytes key, value;
    int r = 0, error = 0;
    base_cursor_init(&cursor, base, true);
    for (base_cursor_seek(&cursor, bytes_of(first, first[0] == KEY_STATE ? 1 : 2));
         r == 0 && base_cursor_at(&cursor, &key, &value, &error) && key.data[0] == first[0] &&
         (key.size < 2 || key.data[1] == first[1]);
         base_cursor_advance(&cursor)) {
        bool sound = false;
        r = check_value(v, key, value, &sound);
        if (r == 0 && !sound)
            damaged(v, "a value of kind %c does not decode", key.data[0]);
    }
    base_cursor_deinit(&cursor);
    if (error == -EBADMSG)
        damaged(v, "damage among the keys of kind %c that begin with %02x", first[0], first[1]);
    else if (error < 0)
        return error_trace(error);
    return r;
}

static int check_all(struct verifier *v, struct base *base) {
    static const uint8_t kinds[] = {KEY_COLUMNS, KEY_ELEMENT, KEY_ONCE,
                                    KEY_PROFILE, KEY_LETTER,  KEY_STATE};
    int r = 0;
    for (size_t i = 0; i < sizeof kinds; i++)
        for (unsigned second = 0; r == 0 && second < (kinds[i] == KEY_STATE ? 1 : 256); second++)
            r = check_stretch(v, base, (uint8_t[]){kinds[i], (uint8_t)second});
    return r;
}

static void damaged_copy(void *context, const char *sentence) {
    damaged(context, "%s", sentence);
}

static int check_copies(struct verifier *v, struct os *os, const char *directory) {
    const struct copies_report report = {damaged_copy, v};
    int r = copies_verify(os, directory, &report);
    return r < 0 ? r : elements_verify(os, directory, v->elements, &report);
}

int events_store_verify(struct os *os, const char *directory,
                        void (*each)(void *context, const char *sentence), void *context,
                        struct events_store_report *ret_found) {
    struct verifier v = {.each = each, .context = context};
    struct database database;
    struct base *base = NULL;
    char why[256];
    int r = events_database_open(&database, os, directory, 8 << 20, EVENTS_DATABASE_READ, why,
                                 sizeof why);
    if (r == -EBADMSG) {
        damaged(&v, "the database does not open: %s", why);
        r = check_copies(&v, os, directory);
        if (r == 0)
            *ret_found = v.report;
        return error_trace(r);
    }
    if (r == 0)
        r = base_new(&database, &base);
    if (r == 0) {
        base_take(base);
        r = check_all(&v, base);
    }
    if (r == 0)
        r = check_copies(&v, os, directory);
    base_unref(base);
    database_close(&database);
    if (r == 0)
        *ret_found = v.report;
    return error_trace(r);
}
