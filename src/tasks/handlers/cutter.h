/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cuts a source into chunks that the API takes as one request each: NDJSON stays lines, a JSON
 * array becomes lines, and a .npy array becomes smaller ones.
 *
 *   - A record's number is that of its line, element or row in the source, from 1. Record k of a
 *     chunk is record first + k - 1 of the source, so what an answer says of one is found again:
 *     for what was dropped or blank, a blank line stands in its place.
 *   - Where chunks end follows from the records alone, not from the pieces in which they came: a
 *     later attempt that skips to the end of a chunk cuts the same ones.
 *   - Memory is bounded by one chunk, one record and one piece.
 *
 * No I/O. A struct cutter belongs to one thread.
 */
#ifndef MILLRACE_TASKS_HANDLERS_CUTTER_H
#define MILLRACE_TASKS_HANDLERS_CUTTER_H

#include "base/json_split.h"
#include "base/npy.h"

enum {
#ifdef MILLRACE_TINY
    CUTTER_CHUNK_BYTES = 4 << 10,
#else
    CUTTER_CHUNK_BYTES = 1 << 20,
#endif
};

enum {
    _CUTTER_E_SUCCESS,
    CUTTER_E_MORE,      /* feed, or finish */
    CUTTER_E_END,       /* all records were taken; the chunk may hold the last of them */
    CUTTER_E_TOO_LARGE, /* record `seen` was dropped; call again */
    CUTTER_E_BROKEN,    /* sentence says why; nothing further is taken */
};

enum cutter_form { CUTTER_UNKNOWN, CUTTER_LINES, CUTTER_ARRAY, CUTTER_ROWS };

struct cutter {
    size_t record_max_bytes;
    uint64_t skip; /* the records up to this number are not taken */
    enum cutter_form form;
    uint64_t lines_before; /* blank ones, that the stream was not told of */
    struct json_stream stream;
    struct npy npy;
    struct buffer chunk;
    uint64_t first;    /* number of the chunk's first record; 0: it is empty */
    uint64_t next;     /* that the chunk's next one would have */
    uint64_t n;        /* records in the chunk */
    uint64_t seen;     /* number of the last that was taken, or dropped */
    struct bytes held; /* a record that goes into the next chunk */
    uint64_t held_number;
    const char *sentence;
};

void cutter_init(struct cutter *c, size_t record_max_bytes, uint64_t skip);
void cutter_deinit(struct cutter *c);
/* Adds a piece of the source. -ENOMEM. */
int cutter_feed(struct cutter *c, struct bytes piece) MUST_USE;
/* Says that no more comes. */
void cutter_finish(struct cutter *c);
/* Takes records until the chunk is full: 0. */
int cutter_next(struct cutter *c) MUST_USE;
/* The chunk as the body of a request; -ENOMEM. */
int cutter_body(struct cutter *c, struct bytes *ret_body) MUST_USE;
/* Empties it. */
void cutter_clear(struct cutter *c);

#endif
