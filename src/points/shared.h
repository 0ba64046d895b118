/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The points of a journal that many processes share, as a worker applies them (work/share.h): sent
 * to a sink (points/sink.h), with nothing kept here. Records say themselves where they belong
 * (points/home.h).
 *
 *   sent, and in effect             ─▶ applied
 *   rejected, alone                 ─▶ a dead letter
 *   the collection is not there,
 *   which the sink says when asked  ─▶ dropped, and counted: it was written before a drop
 *
 * The sink keeps no position: what was not told as persisted is sent again, in order, by whoever
 * has the partition next. So nothing may be sent by one who may have lost it: from the time on
 * that points_shared_until says nothing is.
 *
 * One thread, but for points_shared_orphaned.
 */
#ifndef MILLRACE_POINTS_SHARED_H
#define MILLRACE_POINTS_SHARED_H

#include "points/sink.h"
#include "work/kept_letters.h"

struct points_shared;
struct points_shared_options {
    const struct points_sink *sink; /* borrowed */
    struct kept_letters *letters;   /* the same */
};
/* -ENOMEM. */
int points_shared_new(struct os *os, const struct points_shared_options *options,
                      struct points_shared **ret_shared) MUST_USE;
/* Takes NULL. */
struct points_shared *points_shared_free(struct points_shared *s);

/* Its context is the struct points_shared. */
extern const struct work_store_ops points_shared_work_ops;
/* The collection that a record says it belongs to; NULL: it says none, or there is no memory. */
struct points_collection *points_shared_collection(struct bytes payload);
/* For struct share_options: what is applied is ours to send until then, by the monotonic clock. */
void points_shared_until(void *shared, uint64_t until_ns);
/* Records of collections that were not there. Any thread. */
uint64_t points_shared_orphaned(const struct points_shared *s);

#endif
