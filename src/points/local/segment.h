/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A segment: up to rows_max rows of one shard, the same object for its whole life. While it grows
 * one thread appends; once full it never gets another row; once its files hold all of it, it is
 * sealed: its storage is replaced by a mapping of them. Rows are only ever marked deleted.
 *
 *   growing ──(rows_max, bytes_max, mostly dead)──▶ full ──(checkpoint: files hold all)──▶ sealed
 *   full, sealed ──(checkpoint: all rows are dead)──▶ dropped
 *
 * One that is made by a merge takes its rows from others instead of growing (merge.c).
 *
 * Who may touch what: n, deleted, absent and damaged are atomic; storage, order, full and sealed
 * are read and replaced under the lane's lock (the appender reads storage without); the rest is the
 * checkpoint's. A later index of a sealed segment (a graph, payload columns) hangs here, counted by
 * reference as order is. Counted by reference: shards and views hold it.
 */
#ifndef MILLRACE_POINTS_LOCAL_SEGMENT_H
#define MILLRACE_POINTS_LOCAL_SEGMENT_H

#include "points/local/storage.h"

/* The rows 0 … n-1 of a segment in the order of their ids (dead ones too). Immutable. */
struct segment_order {
    _Atomic uint64_t references;
    uint32_t n;
    uint32_t rows[];
};
struct segment_order *segment_order_ref(struct segment_order *o);
struct segment_order *segment_order_unref(struct segment_order *o);

typedef _Atomic uint64_t bitmap_word;

struct segment {
    _Atomic uint64_t references;
    uint32_t number;   /* in its files' names: no other segment of the store has it */
    uint32_t slot;     /* its place in the shard's list, which locators name */
    uint64_t addition; /* the shard's nth segment, from 1: tells a view what is new to it */
    uint32_t rows_max;
    _Atomic uint32_t n;
    _Atomic uint32_t deleted_n;
    bitmap_word *deleted;         /* a bit a row */
    bitmap_word *_Atomic absent;  /* for each vector, a bit a row: it lacks it; NULL: none does */
    unsigned n_vectors;           /* of the collection */
    struct budget *budget;        /* that deleted and absent are counted in */
    bitmap_word *_Atomic damaged; /* the rows found damaged so far; NULL: none */
    struct storage *storage;
    struct segment_order *order; /* NULL until the first scroll */
    _Atomic uint32_t scrolled_n; /* n at the last scroll */
    bool full;
    bool sealed;

    /* The checkpoint's: what its files hold, synced. */
    uint32_t generation;
    uint64_t synced[COLUMNS];
    bool entries_unsynced; /* files were made since the directory was last synced */
};

/* Takes over the reference to storage. */
int segment_new(uint32_t number, uint32_t rows_max, unsigned n_vectors, struct storage *storage,
                struct segment **ret_segment) MUST_USE;
struct segment *segment_ref(struct segment *s);
struct segment *segment_unref(struct segment *s);

static inline uint32_t segment_n(const struct segment *s) {
    return atomic_load_explicit(&s->n, memory_order_acquire);
}
static inline uint64_t segment_deleted_word(const struct segment *s, uint32_t word) {
    return atomic_load_explicit(&s->deleted[word], memory_order_acquire);
}
static inline bool segment_is_deleted(const struct segment *s, uint32_t row) {
    return segment_deleted_word(s, row / 64) >> (row % 64) & 1;
}
static inline size_t segment_words(uint32_t rows) {
    return ((size_t)rows + 63) / 64;
}
/* Bit i: row 64 * word + i does not have that vector. */
static inline uint64_t segment_absent_word(const struct segment *s, unsigned vector,
                                           uint32_t word) {
    const bitmap_word *words = atomic_load_explicit(&s->absent, memory_order_acquire);
    return words ? atomic_load_explicit(&words[vector * segment_words(s->rows_max) + word],
                                        memory_order_relaxed)
                 : 0;
}
/* Notes which vectors a row has: by the one who adds it, before it is published; what was noted of
 * the row before is forgotten. -ENOMEM: nothing was noted. */
int segment_note_vectors(struct segment *s, uint32_t row, uint64_t vector_mask) MUST_USE;
void segment_mark_deleted(struct segment *s, uint32_t row);
/* Not one of the first n rows is live. */
bool segment_is_dead(const struct segment *s, uint32_t n);
/* True the first time that a row is marked; without memory for the marks, every time. */
bool segment_mark_damaged(struct segment *s, uint32_t row);

#endif
