/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bulk tasks: what a bulk upload became. A task is made when the upload starts, counts what was
 * accepted and keeps the first errors (line and sentence, bounded), and ends with a POINT_BULK
 * control record, in the same journal, so that an answer 202 means that the task is durable too.
 * Its progress is the part of its records that the workers have applied. The newest 10,000 are
 * kept.
 *
 * Thread-safe (LOCK_RANK_BULK). Owned by serve; persisted with the store's checkpoint.
 */
#ifndef MILLRACE_POINTS_BULK_H
#define MILLRACE_POINTS_BULK_H

#include "points/catalog.h"

enum { BULK_ID_SIZE = 37, BULK_ERRORS_MAX = 100 };

enum bulk_status { BULK_UPLOADING, BULK_SUCCEEDED, BULK_FAILED, BULK_INTERRUPTED };

struct bulk_tasks;
struct bulk_task; /* one upload under way; belongs to its request */

int bulk_tasks_new(struct os *os, struct bulk_tasks **ret_tasks) MUST_USE;
struct bulk_tasks *bulk_tasks_free(struct bulk_tasks *t);

/* Makes a task (BULK_UPLOADING) of a type ("ingest", "alioth_ingest") for a collection. */
int bulk_task_begin(struct bulk_tasks *t, const char *type, const char *collection,
                    lsn_t incarnation, struct bulk_task **ret_task) MUST_USE;
const char *bulk_task_id(const struct bulk_task *task);
/* n more points were appended, with lsns from first to last. When they stand in one group with the
 * end, right before it, first and last are 0: not known yet. */
void bulk_task_accepted(struct bulk_task *task, lsn_t first, lsn_t last, uint64_t n);
/* line counts from 1; at most BULK_ERRORS_MAX are kept, all are counted. */
void bulk_task_error(struct bulk_task *task, uint64_t line, const char *sentence);
/* Encodes the end as a POINT_BULK record's payload; the caller appends it (alone or as the last of
 * a group) and then calls bulk_task_ended with its lsn, which frees the task. */
void bulk_task_encode_end(struct bulk_task *task, enum bulk_status status, const char *reason,
                          struct buffer *out);
void bulk_task_ended(struct bulk_task *task, lsn_t lsn);
/* Appends what is known of it so far: {"accepted":n,"rejected":n,"errors":[{"line","error"}]}. */
void bulk_task_append_result(struct bulk_task *task, struct buffer *out);
/* Forgets a task of which nothing was appended, or nothing is to be remembered, and frees it. */
void bulk_task_abandon(struct bulk_task *task);

/* Applies a POINT_BULK record; one it knows already changes nothing. -EPROTO: it is not one. */
int bulk_tasks_replay(struct bulk_tasks *t, lsn_t lsn, const struct point_record *record) MUST_USE;

/* Applies a POINT_DROP record: a task whose collection was dropped before all was applied is
 * "failed". It follows from the record alone, so a restart does not change it. */
void bulk_tasks_dropped(struct bulk_tasks *t, const struct point_record *record);

/* Appends the JSON of GET /tasks/{id}. visible: what the workers have applied (work_visible_lsn).
 * ret_ended: it will not change any more. POINTS_E_NOT_FOUND. */
int bulk_tasks_describe(struct bulk_tasks *t, struct bytes id, lsn_t visible,
                        struct points_catalog *catalog, struct buffer *out,
                        bool *ret_ended) MUST_USE;
/* Calls each, the lock held, for at most limit tasks, the newest first, with the first half of
 * their id (their key) and their JSON; only those with keys below `below` (0: all), and of that
 * status and type (empty: any). -ENOMEM. */
int bulk_tasks_each(struct bulk_tasks *t, struct bytes status, struct bytes type, uint64_t below,
                    size_t limit, lsn_t visible, struct points_catalog *catalog,
                    void (*each)(void *context, uint64_t key, struct bytes json),
                    void *context) MUST_USE;

/* For the checkpoint: the ended tasks whose record's lsn is at most upto. */
void bulk_tasks_encode(struct bulk_tasks *t, lsn_t upto, struct buffer *out);
int bulk_tasks_decode(struct bulk_tasks *t, struct bytes encoded) MUST_USE;

#endif
