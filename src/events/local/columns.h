/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Columns: the rows of one minute and one action, as arrays. Rows in memory and blocks from
 * disk are looked at through one view, and scanned by one function. columns.c has the bytes of a
 * block. Plain functions, no state.
 */
#ifndef MILLRACE_EVENTS_LOCAL_COLUMNS_H
#define MILLRACE_EVENTS_LOCAL_COLUMNS_H

#include "events/store.h"

enum column_name {
    /* The dimensions come first, by enum event_dimension. */
    COLUMN_MEASURE = EVENT_FILTERS,
    COLUMNS
};

/* A column holds, for each row, its value less base, in width bytes: 0 (all are base), 1, 2 or 4.
 * A measure is held as measure - INT32_MIN, so that all are unsigned. */
struct column {
    const void *data; /* need not be aligned */
    uint32_t base;
    uint8_t width;
};
struct columns {
    uint32_t rows;
    struct column columns[COLUMNS];
};

static inline uint32_t column_of_measure(int32_t measure) {
    return (uint32_t)measure ^ UINT32_C(0x80000000);
}

/* What a row must be to count; 0: anything. */
struct columns_filter {
    uint32_t id[EVENT_FILTERS];
};
/* Adds the rows that pass. */
void columns_scan(const struct columns *c, const struct columns_filter *filter,
                  struct event_aggregate *result);

/* ---- Blocks ---- */
/* Rows being gathered for a block. */
struct columns_gather {
    struct buffer values[COLUMNS]; /* of uint32_t */
    uint32_t rows;
};
void columns_gather_deinit(struct columns_gather *g);
void columns_gather_clear(struct columns_gather *g);
int columns_gather_add(struct columns_gather *g, const struct columns *c) MUST_USE;
/* Appends the rows as one block. */
int columns_encode(const struct columns_gather *g, struct buffer *out) MUST_USE;

/* Walks the blocks of a value: start with *at = 0; false at the end. -EBADMSG in *ret_error, else
 * 0. */
bool columns_next(struct bytes value, size_t *at, struct columns *ret_columns,
                  int *ret_error) MUST_USE;

/* Joins values; small blocks become one. Damage makes it a value that columns_next refuses, which
 * stays so. -ENOMEM. */
int columns_merge(const struct bytes *values, size_t n, struct buffer *out) MUST_USE;

#endif
