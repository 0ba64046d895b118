/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A copy of every element of the dictionary that a checkpoint has written, or is about to, beside
 * the database (keyed/copies.h): appended to, read when the store opens. No locks: one thread at a
 * time, the checkpoint's.
 */
#ifndef MILLRACE_EVENTS_LOCAL_ELEMENTS_H
#define MILLRACE_EVENTS_LOCAL_ELEMENTS_H

#include "keyed/copies.h"

struct element_copies {
    struct os *os;
    struct copy_file file;
    uint64_t n;         /* the next number that the copy needs */
    const void *mapped; /* the file while it is read back */
    uint64_t mapped_size;
    struct buffer places; /* of each number in it, u64; 0: it has none */
};

/* Before the database is read. */
int elements_open(struct element_copies *c, struct os *os, const char *directory) MUST_USE;
/* The elements were read back, n of them: what is copied of others did not come to be, and goes. */
int elements_loaded(struct element_copies *c, uint64_t n) MUST_USE;
void elements_close(struct element_copies *c);

/* Adds a frame of an element (its value in the database) to frames. */
void elements_encode(struct buffer *frames, uint64_t number, struct bytes value);
/* Appends and syncs them; next is the number after the last. */
int elements_write(struct element_copies *c, struct bytes frames, uint64_t next) MUST_USE;
/* Until elements_loaded. COPIES_E_NONE. */
int elements_find(const struct element_copies *c, uint64_t number,
                  struct bytes *ret_value) MUST_USE;
/* Whether the copy holds n elements. Negative on I/O. */
int elements_verify(struct os *os, const char *directory, uint64_t n,
                    const struct copies_report *report) MUST_USE;

#endif
