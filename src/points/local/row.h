/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A row's entry in the rows column, as it lies on disk and in memory, and its checksums. Plain
 * values. The entry's own checksum says that the entry is what was written; data_crc says so of the
 * row's vectors and payload.
 */
#ifndef MILLRACE_POINTS_LOCAL_ROW_H
#define MILLRACE_POINTS_LOCAL_ROW_H

#include "base/hash.h"
#include "points/point.h"

struct row_entry {
    uint64_t id_high;
    uint64_t id_low;
    uint64_t lsn;
    uint64_t vector_mask;
    uint64_t payload_offset;
    uint32_t payload_size;
    uint32_t data_crc; /* of the whole row of floats, then the payload */
    uint32_t flags;    /* ROW_UUID */
    uint32_t reserved[2];
    uint32_t entry_crc; /* of all before it */
};
_Static_assert(sizeof(struct row_entry) == 64, "a row entry is 64 bytes on disk");

enum { ROW_UUID = 1 };

static inline struct point_id row_id(const struct row_entry *e) {
    return (struct point_id){.high = e->id_high, .low = e->id_low, .uuid = e->flags & ROW_UUID};
}

static inline bool row_has_id(const struct row_entry *e, struct point_id id) {
    return e->id_low == id.low && e->id_high == id.high && (e->flags & ROW_UUID) == id.uuid;
}

static inline uint32_t row_entry_crc(const struct row_entry *e) {
    return crc32c(0, e, offsetof(struct row_entry, entry_crc));
}

static inline uint32_t row_data_crc(const void *vectors, size_t vectors_size,
                                    struct bytes payload) {
    return crc32c(crc32c(0, vectors, vectors_size), payload.data, payload.size);
}

#endif
