/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a segment's rows lie: three columns (row entries, vectors, payload bytes), the first
 * mapped_rows of them in mapped files, those after in chunks of memory that never move. Rows are
 * appended by one thread and never changed, so whoever knows how many rows are published (the
 * segment's n, released after the row was written) reads them without a lock.
 *
 *   rows     0 … mapped_rows-1 │ chunk 0 │ chunk 1 │ …
 *            files, mapped       row entries, payload pointers, vectors of 2^chunk_shift rows each
 *
 * Counted by reference: a segment that is sealed gets a new storage, wholly mapped, and the memory
 * goes when the last view of the old one does.
 */
#ifndef MILLRACE_POINTS_LOCAL_STORAGE_H
#define MILLRACE_POINTS_LOCAL_STORAGE_H

#include "base/budget.h"
#include "os/os.h"
#include "points/local/row.h"

#include <stdatomic.h>

enum column { COLUMN_ROWS, COLUMN_VECTORS, COLUMN_PAYLOAD, COLUMNS };

/* A file of a column, mapped, or a short one copied to the heap; data is NULL when size is 0. */
struct storage_map {
    const uint8_t *data;
    uint64_t size;
    bool copied;
};
void storage_unmap(struct os *os, const struct storage_map *map);

struct payload_block;

struct storage {
    _Atomic uint64_t references;
    struct os *os;
    struct budget *budget;
    size_t row_bytes; /* of the vectors of one row */
    uint32_t mapped_rows;
    struct storage_map maps[COLUMNS];
    unsigned chunk_shift;
    uint32_t chunk_count; /* the appender's */
    uint32_t chunks_max;
    size_t payloads_at; /* where the payload pointers and the vectors of a chunk start */
    size_t vectors_at;
    uint64_t payload_end;                   /* of all payloads; the appender's */
    struct payload_block *_Atomic payloads; /* newest first */
    _Atomic uint64_t memory_bytes;          /* of chunks and blocks, however full */
    uint64_t written_bytes;                 /* to them; the appender's */
    _Atomic uint64_t charged_bytes; /* counted in the budget: what was written, a step ahead */
    uint8_t *chunks[];
};

/* For rows_max rows, those from mapped_rows on in memory. Takes over the maps. The budget only
 * counts: whoever appends asks it before. */
int storage_new(struct os *os, struct budget *budget, size_t row_bytes, uint32_t rows_max,
                uint32_t mapped_rows, const struct storage_map maps[COLUMNS],
                struct storage **ret_storage) MUST_USE;
struct storage *storage_ref(struct storage *s);
struct storage *storage_unref(struct storage *s);

/* Writes row `row` (the next one) behind the others: by the one appender, before it is published.
 * The entry's payload_offset and checksums are filled in here. -ENOMEM: nothing was written. */
struct storage_row {
    struct point_id id;
    lsn_t lsn;
    uint64_t vector_mask;
    struct bytes payload;
};
int storage_append(struct storage *s, uint32_t row, const struct storage_row *values,
                   uint8_t **ret_vectors) MUST_USE;
/* The next row, as it stands in another storage of the same segment. -ENOMEM: nothing was written.
 */
int storage_copy_row(struct storage *to, const struct storage *from, uint32_t row) MUST_USE;
/* Called once the vectors were filled in at *ret_vectors. */
void storage_finish(struct storage *s, uint32_t row);

static inline const uint8_t *storage_chunk(const struct storage *s, uint32_t row) {
    return s->chunks[(row - s->mapped_rows) >> s->chunk_shift];
}
static inline uint32_t storage_chunk_row(const struct storage *s, uint32_t row) {
    return (row - s->mapped_rows) & ((1u << s->chunk_shift) - 1);
}

static inline const struct row_entry *storage_entry(const struct storage *s, uint32_t row) {
    if (row < s->mapped_rows)
        return (const struct row_entry *)(const void *)s->maps[COLUMN_ROWS].data + row;
    return (const struct row_entry *)(const void *)storage_chunk(s, row) +
           storage_chunk_row(s, row);
}

static inline const float *storage_vectors(const struct storage *s, uint32_t row) {
    if (row < s->mapped_rows)
        return (const void *)(s->maps[COLUMN_VECTORS].data + row * s->row_bytes);
    return (const void *)(storage_chunk(s, row) + s->vectors_at +
                          storage_chunk_row(s, row) * s->row_bytes);
}

/* How many rows from `row` on have their vectors behind each other, at most n. */
uint32_t storage_vectors_run(const struct storage *s, uint32_t row, uint32_t n);
/* The payload of a row whose entry is sound. */
struct bytes storage_payload(const struct storage *s, uint32_t row);
/* False when the entry or the data of a row is not what was written. */
bool storage_row_sound(const struct storage *s, uint32_t row);
/* The bytes of a column from offset on that lie behind each other, up to end. */
struct bytes storage_run(const struct storage *s, enum column column, uint64_t offset,
                         uint64_t end);
/* How long the columns are when n rows are published. */
void storage_lengths(const struct storage *s, uint32_t n, uint64_t ret_lengths[COLUMNS]);

#endif
