/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The manifest: the one file that says what the store is (FORMAT.md has its bytes). It is written
 * whole, twice: MANIFEST, then MANIFEST.copy, each replaced atomically; nothing that the older of
 * the two needs is deleted before both are there, so either is a sound state to begin from. The
 * newest one that is sound is used.
 */
#ifndef MILLRACE_POINTS_LOCAL_MANIFEST_H
#define MILLRACE_POINTS_LOCAL_MANIFEST_H

#include "points/local/storage.h"
#include "work/work.h"

/* Which segment, and which try at its files. */
struct segment_key {
    lsn_t incarnation;
    uint32_t lane;
    uint32_t number;
    uint32_t generation;
};
int segment_key_compare(const struct segment_key *a, const struct segment_key *b);

struct manifest_segment {
    struct segment_key key;
    uint32_t rows;
    uint32_t rows_max;
    uint32_t row_bytes;
    bool full;
    uint64_t lengths[COLUMNS];
    struct bytes deleted; /* segment_words(rows) words, or empty: none is */
};

struct manifest {
    uint64_t sequence;
    unsigned lanes;
    lsn_t positions[WORK_LANES_MAX];
    uint32_t dead_generation;
    uint64_t dead_bytes;
    struct bytes catalog;
    struct bytes tasks;
    struct manifest_segment *segments; /* ordered by key */
    size_t n_segments;
    struct buffer raw; /* what the views above point into, when it was loaded */
};

void manifest_deinit(struct manifest *m);
int manifest_encode(const struct manifest *m, struct buffer *out) MUST_USE;
/* Takes over raw, whatever the result. -EPROTO: damaged, or of another version. */
int manifest_decode(struct buffer *raw, struct manifest *ret_manifest) MUST_USE;

/* Writes both copies. OS conditions are passed on. */
int manifest_save(struct os *os, const char *directory, const struct manifest *m) MUST_USE;

enum { _MANIFEST_E_SUCCESS, MANIFEST_E_NONE /* neither copy is there */ };
/* Which of the two copies cannot be relied on. */
struct manifest_condition {
    unsigned damaged; /* copies that are there and not sound */
    bool uneven;      /* they are not both there, sound and of one sequence: save again */
};
/* -EPROTO: none of the copies that are there is sound. */
int manifest_load(struct os *os, const char *directory, struct manifest *ret_manifest,
                  struct manifest_condition *ret_condition) MUST_USE;

#endif
