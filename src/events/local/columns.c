/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of columns: a value is a list of blocks.
 *
 *   block   0  u8      1
 *           1  u8 × 4  widths of dimensions and measure: 0, 1, 2 or 4
 *           5  u8 × 3  0
 *           8  u32     rows, at least 1
 *          12  u32 × 4 bases
 *          28  u32     0
 *          32  the columns in this order, rows × width bytes each, each padded to 8
 *
 * A value in which damage was found is the one byte ff.
 *
 * The scan works on 1,024 rows at a time: one byte a row says whether it passes so far, each filter
 * clears some, the last loop counts and sums. Every loop is one that compilers turn into vector
 * instructions; the mask stays in the first-level cache.
 */
#include "events/local/columns.h"

#include <errno.h>

enum {
    BLOCK_PLAIN = 1,
    BLOCK_DAMAGED = 0xff,
    BLOCK_HEADER = 32,
    STRIPE = 1024, /* rows scanned at a time */
#ifdef MILLRACE_TINY
    JOIN_ROWS = 8,
#else
    JOIN_ROWS = 16384, /* blocks below it are joined with the next */
#endif
};

/* Numbers that may stand at any address. */
typedef uint16_t u16_anywhere __attribute__((__aligned__(1), __may_alias__));
typedef uint32_t u32_anywhere __attribute__((__aligned__(1), __may_alias__));

/* ---- Scanning ---- */
static void keep_u8(uint8_t *restrict mask, const uint8_t *restrict data, size_t n, uint8_t want) {
    for (size_t i = 0; i < n; i++)
        mask[i] &= (uint8_t)(data[i] == want);
}

static void keep_u16(uint8_t *restrict mask, const u16_anywhere *restrict data, size_t n,
                     uint16_t want) {
    for (size_t i = 0; i < n; i++)
        mask[i] &= (uint8_t)(data[i] == want);
}

static void keep_u32(uint8_t *restrict mask, const u32_anywhere *restrict data, size_t n,
                     uint32_t want) {
    for (size_t i = 0; i < n; i++)
        mask[i] &= (uint8_t)(data[i] == want);
}

/* Clears the mask where the column is not want (less base, and it fits the width). */
static void keep(uint8_t *mask, const struct column *c, size_t from, size_t n, uint32_t want) {
    if (c->width == 1)
        keep_u8(mask, (const uint8_t *)c->data + from, n, (uint8_t)want);
    else if (c->width == 2)
        keep_u16(mask, (const u16_anywhere *)c->data + from, n, (uint16_t)want);
    else if (c->width == 4)
        keep_u32(mask, (const u32_anywhere *)c->data + from, n, want);
}

static uint64_t count_mask(const uint8_t *mask, size_t n) {
    uint64_t count = 0;
    for (size_t i = 0; i < n; i += 128) { /* so that a byte-wide sum does not overflow */
        uint8_t part = 0;
        for (size_t k = i; k < n && k < i + 128; k++)
            part = (uint8_t)(part + mask[k]);
        count += part;
    }
    return count;
}

static uint64_t sum_u8(const uint8_t *restrict mask, const uint8_t *restrict data, size_t n) {
    uint32_t sum = 0; /* at most 1,024 of 8 bits */
    for (size_t i = 0; i < n; i++)
        sum += (uint32_t)(data[i] & (uint8_t)-mask[i]);
    return sum;
}

static uint64_t sum_u16(const uint8_t *restrict mask, const u16_anywhere *restrict data, size_t n) {
    uint32_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += data[i] & (uint32_t)-mask[i];
    return sum;
}

/* In two halves, so that the sums stay 32 bits wide: 1,024 times 16 bits fit. */
static uint64_t sum_u32(const uint8_t *restrict mask, const u32_anywhere *restrict data, size_t n) {
    uint32_t low = 0, high = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t v = data[i] & (uint32_t)-mask[i];
        low += v & 0xffff;
        high += v >> 16;
    }
    return low + ((uint64_t)high << 16);
}

static uint64_t sum(const uint8_t *mask, const struct column *c, size_t from, size_t n) {
    if (c->width == 1)
        return sum_u8(mask, (const uint8_t *)c->data + from, n);
    if (c->width == 2)
        return sum_u16(mask, (const u16_anywhere *)c->data + from, n);
    if (c->width == 4)
        return sum_u32(mask, (const u32_anywhere *)c->data + from, n);
    return 0;
}

/* Whether some row of the column may be id, and as what it would stand there. */
static bool can_match(const struct column *c, uint32_t id, uint32_t *ret_want) {
    uint32_t want = id - c->base;
    *ret_want = want;
    return id >= c->base && (c->width == 4 || want < UINT64_C(1) << (8 * c->width));
}

static void scan_stripe(const struct columns *c, const struct columns_filter *filter,
                        const uint32_t want[EVENT_FILTERS], size_t from, size_t n,
                        struct event_aggregate *result) {
    const struct column *measure = &c->columns[COLUMN_MEASURE];
    uint8_t mask[STRIPE];
    memset(mask, 1, n);
    for (size_t i = 0; i < EVENT_FILTERS; i++)
        if (filter->id[i])
            keep(mask, &c->columns[i], from, n, want[i]);
    uint64_t count = count_mask(mask, n);
    if (count == 0)
        return;
    result->count += count;
    result->sum += (int64_t)sum(mask, measure, from, n) +
                   (int64_t)count * ((int64_t)measure->base + INT32_MIN);
}

void columns_scan(const struct columns *c, const struct columns_filter *filter,
                  struct event_aggregate *result) {
    uint32_t want[EVENT_FILTERS] = {0};
    for (size_t i = 0; i < EVENT_FILTERS; i++)
        if (filter->id[i] && !can_match(&c->columns[i], filter->id[i], &want[i]))
            return;
    for (size_t from = 0; from < c->rows; from += STRIPE) {
        size_t n = c->rows - from < STRIPE ? c->rows - from : STRIPE;
        scan_stripe(c, filter, want, from, n, result);
    }
}

/* ---- Blocks ---- */
void columns_gather_deinit(struct columns_gather *g) {
    for (size_t i = 0; i < COLUMNS; i++)
        buffer_deinit(&g->values[i]);
    g->rows = 0;
}

void columns_gather_clear(struct columns_gather *g) {
    for (size_t i = 0; i < COLUMNS; i++)
        buffer_clear(&g->values[i]);
    g->rows = 0;
}

static void column_widen(const struct column *c, size_t rows, u32_anywhere *restrict out) {
    const u16_anywhere *u16 = c->data;
    const u32_anywhere *u32 = c->data;
    const uint8_t *u8 = c->data;
    for (size_t i = 0; c->width == 0 && i < rows; i++)
        out[i] = c->base;
    for (size_t i = 0; c->width == 1 && i < rows; i++)
        out[i] = c->base + u8[i];
    for (size_t i = 0; c->width == 2 && i < rows; i++)
        out[i] = c->base + u16[i];
    for (size_t i = 0; c->width == 4 && i < rows; i++)
        out[i] = c->base + u32[i];
}

int columns_gather_add(struct columns_gather *g, const struct columns *c) {
    for (size_t i = 0; i < COLUMNS; i++) {
        uint8_t *p = buffer_reserve(&g->values[i], c->rows * sizeof(uint32_t));
        if (!p)
            return error_origin(-ENOMEM);
        column_widen(&c->columns[i], c->rows, (void *)p);
    }
    for (size_t i = 0; i < COLUMNS; i++)
        g->values[i].size += c->rows * sizeof(uint32_t);
    g->rows += c->rows;
    return 0;
}

static uint8_t width_of(uint32_t span) {
    return span == 0 ? 0 : span <= UINT8_MAX ? 1 : span <= UINT16_MAX ? 2 : 4;
}

static size_t padded(size_t size) {
    return (size + 7) & ~(size_t)7;
}

/* The smallest value, and the width that the span of all needs. */
static uint8_t measure(const struct buffer *values, size_t rows, uint32_t *ret_base) {
    const u32_anywhere *v = (const void *)values->data;
    uint32_t least = UINT32_MAX, most = 0;
    for (size_t i = 0; i < rows; i++) {
        least = v[i] < least ? v[i] : least;
        most = v[i] > most ? v[i] : most;
    }
    *ret_base = least;
    return width_of(most - least);
}

static void write_column(uint8_t *out, const struct buffer *values, size_t rows, uint32_t base,
                         uint8_t width) {
    const u32_anywhere *v = (const void *)values->data;
    if (width == 1)
        for (size_t i = 0; i < rows; i++)
            out[i] = (uint8_t)(v[i] - base);
    else if (width == 2)
        for (size_t i = 0; i < rows; i++)
            ((u16_anywhere *)(void *)out)[i] = (uint16_t)(v[i] - base);
    else if (width == 4)
        for (size_t i = 0; i < rows; i++)
            ((u32_anywhere *)(void *)out)[i] = v[i] - base;
}

int columns_encode(const struct columns_gather *g, struct buffer *out) {
    uint8_t header[BLOCK_HEADER] = {BLOCK_PLAIN};
    size_t size = BLOCK_HEADER;
    uint32_t base[COLUMNS];
    for (size_t i = 0; i < COLUMNS; i++) {
        header[1 + i] = measure(&g->values[i], g->rows, &base[i]);
        store_u32(header + 12 + 4 * i, base[i]);
        size += padded((size_t)g->rows * header[1 + i]);
    }
    store_u32(header + 8, g->rows);
    uint8_t *p = buffer_reserve(out, size);
    if (!p)
        return error_origin(-ENOMEM);
    memset(p, 0, size);
    memcpy(p, header, BLOCK_HEADER);
    out->size += size;
    p += BLOCK_HEADER;
    for (size_t i = 0; i < COLUMNS; i++) {
        write_column(p, &g->values[i], g->rows, base[i], header[1 + i]);
        p += padded((size_t)g->rows * header[1 + i]);
    }
    return 0;
}

static bool width_is_valid(uint8_t width) {
    return width <= 2 || width == 4;
}

bool columns_next(struct bytes value, size_t *at, struct columns *ret_columns, int *ret_error) {
    struct columns c;
    *ret_error = 0;
    if (*at == value.size && value.size > 0)
        return false;
    const uint8_t *p = value.data + *at;
    size_t left = value.size - *at, used = BLOCK_HEADER;
    *ret_error = -EBADMSG;
    if (left < BLOCK_HEADER || p[0] != BLOCK_PLAIN)
        return false;
    c.rows = load_u32(p + 8);
    for (size_t i = 0; i < COLUMNS; i++) {
        c.columns[i] = (struct column){p + used, load_u32(p + 12 + 4 * i), p[1 + i]};
        used += padded((size_t)c.rows * p[1 + i]);
        if (!width_is_valid(p[1 + i]) || used > left)
            return false;
    }
    if (c.rows == 0)
        return false;
    *ret_error = 0;
    *at += used;
    *ret_columns = c;
    return true;
}

/* ---- Merging ---- */
static int flush(struct columns_gather *g, struct buffer *out) {
    int r = g->rows > 0 ? columns_encode(g, out) : 0;
    columns_gather_clear(g);
    return r;
}

/* Adds a block of a value, which stands at data. */
static int join(struct columns_gather *g, const struct columns *c, struct bytes block,
                struct buffer *out) {
    if (c->rows >= JOIN_ROWS) {
        buffer_append_bytes(out, block);
        return buffer_check(out);
    }
    int r = columns_gather_add(g, c);
    if (r == 0 && g->rows >= JOIN_ROWS)
        r = flush(g, out);
    return r;
}

static int merge(const struct bytes *values, size_t n, struct columns_gather *g,
                 struct buffer *out) {
    struct columns c;
    for (size_t i = 0; i < n; i++) {
        size_t at = 0, before = 0;
        int r = 0, error;
        for (; r == 0 && columns_next(values[i], &at, &c, &error); before = at)
            r = join(g, &c, bytes_of(values[i].data + before, at - before), out);
        if (r < 0 || error < 0)
            return r < 0 ? r : error;
    }
    return flush(g, out);
}

int columns_merge(const struct bytes *values, size_t n, struct buffer *out) {
    CLEANUP(columns_gather_deinit) struct columns_gather gather = {0};
    int r = merge(values, n, &gather, out);
    if (r != -EBADMSG)
        return r;
    buffer_clear(out);
    buffer_append_u8(out, BLOCK_DAMAGED);
    return buffer_check(out);
}
