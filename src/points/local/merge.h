/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Merging: which segments are worth it (merge_plan.c), and how their rows move to a new one
 * (merge.c). For the checkpoint.
 */
#ifndef MILLRACE_POINTS_LOCAL_MERGE_H
#define MILLRACE_POINTS_LOCAL_MERGE_H

#include "points/local/internal.h"

struct merge_source {
    struct segment *segment;
    struct storage *storage;
};

/* A merge of segments of one shard, sealed ones, into one of at most rows_max rows and bytes_max
 * bytes of vectors and payloads. Takes references. */
int merge_new(struct shard *shard, struct segment *const *segments, size_t n, uint32_t rows_max,
              uint64_t bytes_max, struct build **ret_build) MUST_USE;

/* How many bytes the disk has for merges: what must be left for the rest is not theirs. */
uint64_t merge_space(struct points_store *s);
/* Plans what is due, when the builder has nothing to do. Under the checkpoint's lock. */
void merges_plan(struct points_store *s);

#endif
