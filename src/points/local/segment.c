/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A segment and its bitmaps. A plain bitmap of rows_max bits is smaller than a compressed one at
 * these sizes (32 KiB for a quarter of a million rows) and can be read without a lock.
 */
#include "points/local/segment.h"

#include <errno.h>
#include <stdlib.h>

struct segment_order *segment_order_ref(struct segment_order *o) {
    atomic_fetch_add_explicit(&o->references, 1, memory_order_relaxed);
    return o;
}

struct segment_order *segment_order_unref(struct segment_order *o) {
    if (o && atomic_fetch_sub_explicit(&o->references, 1, memory_order_acq_rel) == 1)
        free(o);
    return NULL;
}

int segment_new(uint32_t number, uint32_t rows_max, unsigned n_vectors, struct storage *storage,
                struct segment **ret_segment) {
    struct segment *s = calloc(1, sizeof *s);
    bitmap_word *deleted = calloc(segment_words(rows_max), sizeof *deleted);
    if (!s || !deleted) {
        free(s);
        free(deleted);
        return error_origin(-ENOMEM);
    }
    atomic_init(&s->references, 1);
    s->number = number;
    s->rows_max = rows_max;
    s->storage = storage;
    s->deleted = deleted;
    s->n_vectors = n_vectors;
    s->budget = storage->budget;
    budget_add(s->budget, BUDGET_POINTS, segment_words(rows_max) * sizeof *deleted);
    *ret_segment = s;
    return 0;
}

struct segment *segment_ref(struct segment *s) {
    atomic_fetch_add_explicit(&s->references, 1, memory_order_relaxed);
    return s;
}

static size_t absent_words(const struct segment *s) {
    return s->n_vectors * segment_words(s->rows_max);
}

static void free_absent(struct segment *s) {
    bitmap_word *words = atomic_load(&s->absent);
    if (words)
        budget_give(s->budget, BUDGET_POINTS, absent_words(s) * sizeof *words);
    free(words);
}

struct segment *segment_unref(struct segment *s) {
    if (s && atomic_fetch_sub_explicit(&s->references, 1, memory_order_acq_rel) == 1) {
        storage_unref(s->storage);
        segment_order_unref(s->order);
        budget_give(s->budget, BUDGET_POINTS, segment_words(s->rows_max) * sizeof *s->deleted);
        free_absent(s);
        free(s->deleted);
        free(atomic_load(&s->damaged));
        free(s);
    }
    return NULL;
}

int segment_note_vectors(struct segment *s, uint32_t row, uint64_t vector_mask) {
    bitmap_word *words = atomic_load_explicit(&s->absent, memory_order_relaxed);
    uint64_t all = s->n_vectors < 64 ? (UINT64_C(1) << s->n_vectors) - 1 : UINT64_MAX;
    if (!words && (vector_mask & all) == all)
        return 0;
    if (!words) {
        words = calloc(absent_words(s), sizeof *words);
        if (!words)
            return error_origin(-ENOMEM);
        budget_add(s->budget, BUDGET_POINTS, absent_words(s) * sizeof *words);
        atomic_store_explicit(&s->absent, words, memory_order_release);
    }
    uint64_t bit = UINT64_C(1) << (row % 64);
    for (unsigned i = 0; i < s->n_vectors; i++) { /* nobody else writes: no read-modify-write */
        bitmap_word *word = &words[i * segment_words(s->rows_max) + row / 64];
        uint64_t others = atomic_load_explicit(word, memory_order_relaxed) & ~bit;
        atomic_store_explicit(word, others | (vector_mask >> i & 1 ? 0 : bit),
                              memory_order_relaxed);
    }
    return 0;
}

static bool set_bit(bitmap_word *words, uint32_t row) {
    uint64_t bit = UINT64_C(1) << (row % 64);
    return !(atomic_fetch_or_explicit(&words[row / 64], bit, memory_order_acq_rel) & bit);
}

void segment_mark_deleted(struct segment *s, uint32_t row) {
    if (set_bit(s->deleted, row))
        atomic_fetch_add_explicit(&s->deleted_n, 1, memory_order_relaxed);
}

static uint64_t word_of_rows(uint32_t word, uint32_t n) {
    return n - word * 64 >= 64 ? UINT64_MAX : (UINT64_C(1) << n % 64) - 1;
}

bool segment_is_dead(const struct segment *s, uint32_t n) {
    for (uint32_t i = 0; i < segment_words(n); i++)
        if (~segment_deleted_word(s, i) & word_of_rows(i, n))
            return false;
    return true;
}

bool segment_mark_damaged(struct segment *s, uint32_t row) {
    bitmap_word *words = atomic_load_explicit(&s->damaged, memory_order_acquire);
    if (!words) {
        bitmap_word *fresh = calloc(segment_words(s->rows_max), sizeof *fresh);
        if (!fresh)
            return true;
        if (atomic_compare_exchange_strong(&s->damaged, &words, fresh))
            words = fresh;
        else
            free(fresh);
    }
    return set_bit(words, row);
}
