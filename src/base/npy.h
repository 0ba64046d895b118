/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads a stream of NumPy's .npy format, versions 1 to 3: a two-dimensional array of float32,
 * little-endian, in C order. Hands out its rows; bounded by one chunk and one row. One reader
 * belongs to one upload; no I/O.
 */
#ifndef MILLRACE_BASE_NPY_H
#define MILLRACE_BASE_NPY_H

#include "base/bytes.h"

enum {
    _NPY_E_SUCCESS,
    NPY_E_MORE,   /* feed more */
    NPY_E_END,    /* all rows were handed out */
    NPY_E_BROKEN, /* npy.sentence says why; nothing further is handed out */
};

struct npy {
    struct buffer pending;
    size_t at;          /* start of the unread part of pending */
    bool header_read;   /* rows and dimension are known */
    bool finished;      /* no more comes */
    uint64_t rows;      /* as the header says */
    uint64_t row;       /* handed out so far */
    uint64_t dimension; /* of a row */
    char sentence[128]; /* "" unless broken */
};

#define NPY_INIT ((struct npy){.pending = BUFFER_INIT})
void npy_deinit(struct npy *n);
/* Adds a chunk (copied). -ENOMEM. */
int npy_feed(struct npy *n, struct bytes chunk) MUST_USE;
/* Says that no more comes. */
void npy_finish(struct npy *n);
/* Reads the header. Once it is read, 0 always. */
int npy_header(struct npy *n) MUST_USE;
/* The next row's dimension * 4 bytes, valid until the next call on n; after npy_header. */
int npy_next(struct npy *n, struct bytes *ret_row) MUST_USE;

#endif
