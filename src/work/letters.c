/* SPDX-License-Identifier: Apache-2.0 */
/* Dead letters, as all stores have them: see letters.h. */
#include "work/letters.h"

#include "base/hash.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { RECORD_VERSION = 1 };

const char work_letter_gone[] = "there is no such dead letter any more";
const char work_letter_changed[] =
    "its key was written again since the record was rejected; force writes it all the same";
const char work_letter_unknown[] = "not a record about a dead letter of a version known here";
const char work_letters_full[] = "there are as many dead letters as may be kept: drop some";

/* ---- What becomes of a letter ---- */

void work_letter_encode(struct buffer *out, const struct work_letter_record *record) {
    buffer_append_u8(out, RECORD_VERSION);
    buffer_append_u8(out, (uint8_t)record->op);
    buffer_append_u8(out, record->force);
    buffer_append_u8(out, 0);
    buffer_append_u32(out, 0);
    buffer_append_u64(out, record->letter);
    buffer_append_bytes(out, record->payload);
}

bool work_letter_decode(struct bytes payload, struct work_letter_record *ret_record) {
    struct reader r = reader_of(payload);
    uint8_t version = reader_u8(&r), op = reader_u8(&r), force = reader_u8(&r);
    bool zeros = reader_u8(&r) == 0 && reader_u32(&r) == 0;
    lsn_t letter = reader_u64(&r);
    if (r.failed || version != RECORD_VERSION || force > 1 || !zeros || letter == 0 ||
        (op != WORK_LETTER_REPLAY && (op != WORK_LETTER_DROP || r.at != r.end)))
        return false;
    *ret_record = (struct work_letter_record){.op = op,
                                              .force = force,
                                              .letter = letter,
                                              .payload = bytes_of(r.at, (size_t)(r.end - r.at))};
    return true;
}

int work_letter_refuse(char sentence[WORK_LETTER_SENTENCE], const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(sentence, WORK_LETTER_SENTENCE, format, arguments);
    va_end(arguments);
    return WORK_LETTER_E_REFUSED;
}

/* ---- The index ---- */

struct work_letters_entry {
    struct work_letters_entry *next;
    lsn_t letter;
    uint64_t key_hash;
    lsn_t changed;
};

void work_letters_init(struct work_letters *l) {
    *l = (struct work_letters){0};
    mutex_init(&l->lock, LOCK_RANK_LETTERS);
}

void work_letters_deinit(struct work_letters *l) {
    for (size_t i = 0; i < WORK_LETTERS_BUCKETS; i++)
        for (struct work_letters_entry *e = l->buckets[i], *next; e; e = next) {
            next = e->next;
            free(e);
        }
    mutex_deinit(&l->lock);
}

/* Stores pick places by the hash, and a task's is a number that grows: mixed again. */
static struct work_letters_entry **bucket_of(struct work_letters *l, uint64_t key_hash) {
    return &l->buckets[hash64_u64(key_hash) % WORK_LETTERS_BUCKETS];
}

/* What points to the letter, or to the end of its chain. Lock held. */
static struct work_letters_entry **place_of(struct work_letters *l, lsn_t letter,
                                            uint64_t key_hash) {
    struct work_letters_entry **at = bucket_of(l, key_hash);
    while (*at && ((*at)->letter != letter || (*at)->key_hash != key_hash))
        at = &(*at)->next;
    return at;
}

int work_letters_add(struct work_letters *l, lsn_t letter, uint64_t key_hash) {
    struct work_letters_entry *e = malloc(sizeof *e);
    if (!e)
        return error_origin(-ENOMEM);
    *e = (struct work_letters_entry){.letter = letter, .key_hash = key_hash};
    mutex_lock(&l->lock);
    struct work_letters_entry **at = place_of(l, letter, key_hash);
    if (!*at) {
        *at = e;
        e = NULL;
        atomic_fetch_add(&l->n, 1);
    }
    mutex_unlock(&l->lock);
    free(e);
    return 0;
}

void work_letters_remove(struct work_letters *l, lsn_t letter, uint64_t key_hash) {
    mutex_lock(&l->lock);
    struct work_letters_entry **at = place_of(l, letter, key_hash), *e = *at;
    if (e) {
        *at = e->next;
        atomic_fetch_sub(&l->n, 1);
    }
    mutex_unlock(&l->lock);
    free(e);
}

bool work_letters_find(struct work_letters *l, lsn_t letter, uint64_t key_hash,
                       lsn_t *ret_changed) {
    mutex_lock(&l->lock);
    const struct work_letters_entry *e = *place_of(l, letter, key_hash);
    if (e)
        *ret_changed = e->changed;
    mutex_unlock(&l->lock);
    return e != NULL;
}

bool work_letters_hash_of(struct work_letters *l, lsn_t letter, uint64_t *ret_key_hash) {
    bool found = false;
    mutex_lock(&l->lock);
    for (size_t i = 0; i < WORK_LETTERS_BUCKETS && !found; i++)
        for (const struct work_letters_entry *e = l->buckets[i]; e && !found; e = e->next)
            if (e->letter == letter) {
                *ret_key_hash = e->key_hash;
                found = true;
            }
    mutex_unlock(&l->lock);
    return found;
}

bool work_letters_change(struct work_letters *l, uint64_t key_hash, lsn_t lsn) {
    bool any = false;
    if (work_letters_n(l) == 0)
        return false;
    mutex_lock(&l->lock);
    for (struct work_letters_entry *e = *bucket_of(l, key_hash); e; e = e->next)
        if (e->key_hash == key_hash && e->letter < lsn && e->changed == 0) {
            e->changed = lsn;
            any = true;
        }
    mutex_unlock(&l->lock);
    return any;
}

void work_letters_of_key(struct work_letters *l, uint64_t key_hash, struct buffer *out) {
    if (work_letters_n(l) == 0)
        return;
    mutex_lock(&l->lock);
    for (const struct work_letters_entry *e = *bucket_of(l, key_hash); e; e = e->next)
        if (e->key_hash == key_hash)
            buffer_append_u64(out, e->letter);
    mutex_unlock(&l->lock);
}

static int compare(const void *a, const void *b) {
    lsn_t x = *(const lsn_t *)a, y = *(const lsn_t *)b;
    return (x < y) - (x > y);
}

/* All below, in no order. Lock held. */
static size_t gather(const struct work_letters *l, lsn_t below, lsn_t *out) {
    size_t n = 0;
    for (size_t i = 0; i < WORK_LETTERS_BUCKETS; i++)
        for (const struct work_letters_entry *e = l->buckets[i]; e; e = e->next)
            if (below == 0 || e->letter < below)
                out[n++] = e->letter;
    return n;
}

int work_letters_page(struct work_letters *l, lsn_t below, size_t max, lsn_t *out, size_t *ret_n) {
    size_t n = 0;
    mutex_lock(&l->lock);
    uint64_t all = work_letters_n(l);
    lsn_t *letters = calloc(all ? all : 1, sizeof *letters);
    if (letters)
        n = gather(l, below, letters);
    mutex_unlock(&l->lock);
    if (!letters)
        return error_origin(-ENOMEM);
    qsort(letters, n, sizeof *letters, compare);
    n = n < max ? n : max;
    memcpy(out, letters, n * sizeof *letters);
    free(letters);
    *ret_n = n;
    return 0;
}
