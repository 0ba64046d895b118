/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What several values of one key are worth together, which RocksDB asks when it reads and compacts.
 */
#include "events/local/internal.h"

static int merge(struct bytes key, const struct bytes *values, size_t n, struct buffer *out) {
    bool columns = key.size > 0 && key.data[0] == KEY_COLUMNS;
    return columns ? columns_merge(values, n, out) : tag_values_merge(values, n, out);
}

int events_database_open(struct database *d, struct os *os, const char *directory,
                         uint64_t cache_bytes, enum events_database_mode mode, char *why,
                         size_t why_size) {
    const struct database_options options = {.cache_bytes = cache_bytes,
                                             .read_only = mode == EVENTS_DATABASE_READ,
                                             .must_exist = mode != EVENTS_DATABASE_CREATE,
                                             .merge = merge,
                                             .merge_name = "millrace.events.1"};
    return database_open(d, os, directory, &options, why, why_size);
}
