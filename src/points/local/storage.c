/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chunks are about CHUNK_BYTES, so that a nearly empty segment costs little; a chunk holds at least
 * one row. Payloads go into blocks of their own, linked newest first: a row's pointer finds its
 * bytes, the block's start says where they stand in the file.
 */
#include "points/local/storage.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#ifdef MILLRACE_TINY
enum { CHUNK_BYTES = 512, CHUNK_ROWS_MAX = 4, PAYLOAD_BLOCK_BYTES = 64, CHARGE_STEP = 256 };
#else
enum {
    CHUNK_BYTES = 256 << 10,
    CHUNK_ROWS_MAX = 4096,
    PAYLOAD_BLOCK_BYTES = 256 << 10,
    CHARGE_STEP = 16 << 10
};
#endif
enum { VECTOR_ALIGNMENT = 64 };

struct payload_block {
    struct payload_block *next; /* older */
    uint64_t start;             /* of its first byte in the column */
    size_t used;                /* the appender's */
    size_t capacity;
    uint8_t data[];
};

static size_t align_up(size_t n, size_t alignment) {
    return (n + alignment - 1) / alignment * alignment;
}

static unsigned choose_chunk_shift(size_t row_bytes, uint32_t rows) {
    size_t row = row_bytes + sizeof(struct row_entry) + sizeof(void *);
    unsigned shift = 0;
    while ((2u << shift) <= CHUNK_ROWS_MAX && (row << (shift + 1)) <= CHUNK_BYTES &&
           (1u << shift) < rows)
        shift++;
    return shift;
}

void storage_unmap(struct os *os, const struct storage_map *map) {
    if (map->copied)
        free((void *)(uintptr_t)map->data);
    else
        os_unmap(os, map->data, map->size);
}

/* Thousands of collections have chunks of which little is used: what counts is what was written,
 * which is what makes the system give pages for it. */
static void charge(struct storage *s, uint64_t bytes) {
    atomic_fetch_add_explicit(&s->charged_bytes, bytes, memory_order_relaxed);
    budget_add(s->budget, BUDGET_POINTS, bytes);
}

static void charge_written(struct storage *s, uint64_t bytes) {
    s->written_bytes += bytes;
    uint64_t charged = atomic_load_explicit(&s->charged_bytes, memory_order_relaxed);
    if (s->written_bytes > charged)
        charge(s, s->written_bytes - charged + CHARGE_STEP);
}

int storage_new(struct os *os, struct budget *budget, size_t row_bytes, uint32_t rows_max,
                uint32_t mapped_rows, const struct storage_map maps[COLUMNS],
                struct storage **ret_storage) {
    assert(mapped_rows <= rows_max);
    uint32_t rows = rows_max - mapped_rows;
    unsigned shift = choose_chunk_shift(row_bytes, rows);
    uint32_t chunks = (rows + (1u << shift) - 1) >> shift;
    struct storage *s = calloc(1, sizeof *s + chunks * sizeof *s->chunks);
    if (!s)
        return error_origin(-ENOMEM);
    atomic_init(&s->references, 1);
    s->os = os;
    s->budget = budget;
    s->row_bytes = row_bytes;
    s->mapped_rows = mapped_rows;
    s->chunk_shift = shift;
    s->chunks_max = chunks;
    s->payloads_at = sizeof(struct row_entry) << shift;
    s->vectors_at = align_up(s->payloads_at + (sizeof(void *) << shift), VECTOR_ALIGNMENT);
    if (maps) {
        memcpy(s->maps, maps, sizeof s->maps);
        s->payload_end = maps[COLUMN_PAYLOAD].size;
        for (unsigned c = 0; c < COLUMNS; c++)
            s->memory_bytes += maps[c].copied ? maps[c].size : 0;
    }
    s->written_bytes = s->memory_bytes + sizeof *s + chunks * sizeof *s->chunks;
    charge(s, s->written_bytes);
    *ret_storage = s;
    return 0;
}

struct storage *storage_ref(struct storage *s) {
    atomic_fetch_add_explicit(&s->references, 1, memory_order_relaxed);
    return s;
}

static void storage_free(struct storage *s) {
    budget_give(s->budget, BUDGET_POINTS, atomic_load(&s->charged_bytes));
    for (unsigned c = 0; c < COLUMNS; c++)
        storage_unmap(s->os, &s->maps[c]);
    for (uint32_t i = 0; i < s->chunk_count; i++)
        free(s->chunks[i]);
    struct payload_block *next;
    for (struct payload_block *b = atomic_load(&s->payloads); b; b = next) {
        next = b->next;
        free(b);
    }
    free(s);
}

struct storage *storage_unref(struct storage *s) {
    if (s && atomic_fetch_sub_explicit(&s->references, 1, memory_order_acq_rel) == 1)
        storage_free(s);
    return NULL;
}

/* ---- Appending ---- */

static int reserve_chunk(struct storage *s, uint32_t row) {
    uint32_t chunk = (row - s->mapped_rows) >> s->chunk_shift;
    if (chunk < s->chunk_count)
        return 0;
    assert(chunk == s->chunk_count && chunk < s->chunks_max);
    size_t size = align_up(s->vectors_at + (s->row_bytes << s->chunk_shift), VECTOR_ALIGNMENT);
    uint8_t *data = aligned_alloc(VECTOR_ALIGNMENT, size);
    if (!data)
        return error_origin(-ENOMEM);
    s->chunks[s->chunk_count++] = data;
    atomic_fetch_add_explicit(&s->memory_bytes, size, memory_order_relaxed);
    return 0;
}

/* Room for a payload of `size` bytes in the newest block, or in a new one. */
static int reserve_payload(struct storage *s, size_t size, struct payload_block **ret_block) {
    struct payload_block *block = atomic_load_explicit(&s->payloads, memory_order_relaxed);
    if (!block || block->capacity - block->used < size) {
        size_t capacity = size > PAYLOAD_BLOCK_BYTES ? size : PAYLOAD_BLOCK_BYTES;
        struct payload_block *fresh = malloc(sizeof *fresh + capacity);
        if (!fresh)
            return error_origin(-ENOMEM);
        *fresh =
            (struct payload_block){.next = block, .start = s->payload_end, .capacity = capacity};
        atomic_store_explicit(&s->payloads, fresh, memory_order_release);
        atomic_fetch_add_explicit(&s->memory_bytes, sizeof *fresh + capacity, memory_order_relaxed);
        block = fresh;
    }
    *ret_block = block;
    return 0;
}

static const uint8_t **payload_slot(const struct storage *s, uint32_t row) {
    const uint8_t **slots = (void *)((uintptr_t)storage_chunk(s, row) + s->payloads_at);
    return slots + storage_chunk_row(s, row);
}

/* The entry of a row in memory, which only the appender may change, before it is published. */
static struct row_entry *entry_to_fill(struct storage *s, uint32_t row) {
    return (struct row_entry *)(uintptr_t)storage_entry(s, row);
}

static const uint8_t *put_payload(struct storage *s, struct payload_block *block,
                                  struct bytes payload) {
    uint8_t *at = block->data + block->used;
    memcpy(at, payload.data, payload.size);
    block->used += payload.size;
    s->payload_end += payload.size;
    return at;
}

int storage_append(struct storage *s, uint32_t row, const struct storage_row *values,
                   uint8_t **ret_vectors) {
    assert(row >= s->mapped_rows);
    struct payload_block *block = NULL;
    int r = reserve_chunk(s, row);
    if (!r && values->payload.size)
        r = reserve_payload(s, values->payload.size, &block);
    if (r)
        return error_trace(r);
    *entry_to_fill(s, row) = (struct row_entry){
        .id_high = values->id.high,
        .id_low = values->id.low,
        .lsn = values->lsn,
        .vector_mask = values->vector_mask,
        .payload_offset = s->payload_end,
        .payload_size = (uint32_t)values->payload.size,
        .flags = values->id.uuid ? ROW_UUID : 0,
    };
    *payload_slot(s, row) = block ? put_payload(s, block, values->payload) : NULL;
    *ret_vectors = (uint8_t *)(uintptr_t)storage_vectors(s, row);
    charge_written(s,
                   sizeof(struct row_entry) + sizeof(void *) + s->row_bytes + values->payload.size);
    return 0;
}

int storage_copy_row(struct storage *to, const struct storage *from, uint32_t row) {
    const struct row_entry *e = storage_entry(from, row);
    const struct storage_row values = {.id = row_id(e),
                                       .lsn = e->lsn,
                                       .vector_mask = e->vector_mask,
                                       .payload = storage_payload(from, row)};
    uint8_t *vectors;
    int r = storage_append(to, row, &values, &vectors);
    if (r)
        return error_trace(r);
    assert(entry_to_fill(to, row)->payload_offset == e->payload_offset);
    *entry_to_fill(to, row) = *e; /* its checksums too: damage must not be blessed */
    memcpy(vectors, storage_vectors(from, row), to->row_bytes);
    return 0;
}

void storage_finish(struct storage *s, uint32_t row) {
    struct row_entry *e = entry_to_fill(s, row);
    e->data_crc = row_data_crc(storage_vectors(s, row), s->row_bytes, storage_payload(s, row));
    e->entry_crc = row_entry_crc(e);
}

/* ---- Reading ---- */

uint32_t storage_vectors_run(const struct storage *s, uint32_t row, uint32_t n) {
    uint32_t run = row < s->mapped_rows ? s->mapped_rows - row
                                        : (1u << s->chunk_shift) - storage_chunk_row(s, row);
    return run < n ? run : n;
}

struct bytes storage_payload(const struct storage *s, uint32_t row) {
    const struct row_entry *e = storage_entry(s, row);
    if (e->payload_size == 0)
        return (struct bytes){0};
    const uint8_t *data = row < s->mapped_rows ? s->maps[COLUMN_PAYLOAD].data + e->payload_offset
                                               : *payload_slot(s, row);
    return bytes_of(data, e->payload_size);
}

bool storage_row_sound(const struct storage *s, uint32_t row) {
    const struct row_entry *e = storage_entry(s, row);
    if (row_entry_crc(e) != e->entry_crc)
        return false;
    uint64_t payloads = s->maps[COLUMN_PAYLOAD].size;
    if (row < s->mapped_rows &&
        (e->payload_offset > payloads || e->payload_size > payloads - e->payload_offset))
        return false;
    return row_data_crc(storage_vectors(s, row), s->row_bytes, storage_payload(s, row)) ==
           e->data_crc;
}

static struct bytes payload_run(const struct storage *s, uint64_t offset, uint64_t end) {
    const struct payload_block *b = atomic_load_explicit(&s->payloads, memory_order_acquire);
    for (; b && b->start > offset; b = b->next)
        end = b->start < end ? b->start : end;
    assert(b && end > offset);
    return bytes_of(b->data + (offset - b->start), (size_t)(end - offset));
}

/* The bytes of a column of fixed width in a chunk. */
static struct bytes chunk_run(const struct storage *s, size_t width, size_t column_at,
                              uint64_t offset, uint64_t end) {
    uint32_t row = (uint32_t)(offset / width);
    uint32_t in_chunk = storage_chunk_row(s, row);
    uint64_t skip = offset % width;
    uint64_t left = (uint64_t)((1u << s->chunk_shift) - in_chunk) * width - skip;
    uint64_t size = end - offset < left ? end - offset : left;
    return bytes_of(storage_chunk(s, row) + column_at + in_chunk * width + skip, (size_t)size);
}

struct bytes storage_run(const struct storage *s, enum column column, uint64_t offset,
                         uint64_t end) {
    assert(offset < end);
    const struct storage_map *map = &s->maps[column];
    if (offset < map->size) {
        uint64_t stop = end < map->size ? end : map->size;
        return bytes_of(map->data + offset, (size_t)(stop - offset));
    }
    switch (column) {
    case COLUMN_ROWS:
        return chunk_run(s, sizeof(struct row_entry), 0, offset, end);
    case COLUMN_VECTORS:
        return chunk_run(s, s->row_bytes, s->vectors_at, offset, end);
    default:
        return payload_run(s, offset, end);
    }
}

void storage_lengths(const struct storage *s, uint32_t n, uint64_t ret_lengths[COLUMNS]) {
    const struct row_entry *last = n > s->mapped_rows ? storage_entry(s, n - 1) : NULL;
    ret_lengths[COLUMN_ROWS] = (uint64_t)n * sizeof(struct row_entry);
    ret_lengths[COLUMN_VECTORS] = n * s->row_bytes;
    ret_lengths[COLUMN_PAYLOAD] =
        last ? last->payload_offset + last->payload_size : s->maps[COLUMN_PAYLOAD].size;
}
