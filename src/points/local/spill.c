/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Spilling: a growing segment gives back the memory of the rows that its files hold (invariant 6:
 * how many collections grow is not bounded, their memory is). It goes on growing, with a storage as
 * it would have after a restart:
 *
 *   before   │ rows in memory: 0 … c-1 (in the files, by the checkpoint that runs) │ c … n-1 │
 *   after    │ mapped: 0 … c-1                                    │ copied to memory: c … n-1 │
 *
 * The appender writes rows without the lane's lock, so it is kept out meanwhile by `appending`.
 * Views keep the storage that they know; the memory goes with the last of them.
 */
#include "points/local/internal.h"

#ifdef MILLRACE_TINY
enum { SPILLED_MIN_BYTES = 64 };
#else
enum { SPILLED_MIN_BYTES = 16 << 10 }; /* of rows in memory: a smaller segment has little to give */
#endif

/* Half of what points may have: a checkpoint that comes because three quarters are used makes room
 * for a while. */
bool store_spills(const struct points_store *s) {
    const struct budget *b = s->options.budget;
    return budget_used(b, BUDGET_POINTS) >= budget_part(b, BUDGET_POINTS) / 2;
}

static uint64_t memory_of_rows(const struct storage *s, uint32_t rows) {
    uint64_t lengths[COLUMNS], bytes = 0;
    storage_lengths(s, rows, lengths);
    for (unsigned c = 0; c < COLUMNS; c++)
        bytes += lengths[c] - s->maps[c].size;
    return bytes;
}

/* The files up to `to`, with room for the rows that come. */
static int map_storage(struct points_store *s, const struct manifest_segment *to,
                       struct storage **ret_storage) {
    struct storage_map maps[COLUMNS] = {{0}};
    int r = 0;
    for (unsigned c = 0; c < COLUMNS && !r; c++)
        r = segment_map(s, &to->key, c, to->lengths[c], &maps[c]);
    if (!r)
        r = storage_new(s->os, s->options.budget, to->row_bytes, to->rows_max, to->rows, maps,
                        ret_storage);
    if (r)
        for (unsigned c = 0; c < COLUMNS; c++)
            storage_unmap(s->os, &maps[c]);
    return error_trace(r);
}

/* Copies the rows that came since, and replaces the storage. False: it stays. The appender is kept
 * out. */
static bool replace(struct shard *shard, struct segment *segment, struct storage *mapped) {
    uint32_t n = segment_n(segment);
    if (segment->full) /* the next checkpoint seals it */
        return false;
    for (uint32_t row = mapped->mapped_rows; row < n; row++)
        if (storage_copy_row(mapped, segment->storage, row))
            return false;
    mutex_lock(&shard->lane->lock);
    segment->storage = mapped;
    mutex_unlock(&shard->lane->lock);
    return true;
}

void segment_spill(struct shard *shard, struct segment *segment, struct storage *storage,
                   const struct manifest_segment *to) {
    struct storage *mapped = NULL;
    if (memory_of_rows(storage, to->rows) < SPILLED_MIN_BYTES ||
        map_storage(shard->lane->store, to, &mapped))
        return;
    mutex_lock(&shard->lane->appending);
    bool replaced = replace(shard, segment, mapped);
    mutex_unlock(&shard->lane->appending);
    storage_unref(replaced ? storage : mapped); /* the segment's reference, or ours */
}
