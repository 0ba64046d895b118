/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ready queue, in memory: every queued task is in exactly one of three sets.
 *
 *   push ─▶ waiting (by due time) ──due──▶ ready (by priority, due time, age) ──take──▶ taken
 *     └───────────────────────────────────▶ ▲ ◀──────────────── give back ──────────────┘
 *
 * A task that is queued no more is dropped from wherever it is. What was once due stays so if the
 * clock goes back. 16 bytes a task, in nodes that are half to quite full. Under the store's lock.
 */
#ifndef MILLRACE_TASKS_LOCAL_QUEUE_H
#define MILLRACE_TASKS_LOCAL_QUEUE_H

#include "tasks/local/pairs.h"

struct queue {
    struct pairs ready;   /* priority (9 first) and due time, key */
    struct pairs waiting; /* due time and priority, key */
    struct pairs taken;   /* key, what it was in ready */
};
/* Zeros are an empty queue. */
void queue_deinit(struct queue *q);
/* Memory for one push; false when memory is out. */
bool queue_reserve(struct queue *q) MUST_USE;
/* After queue_reserve. True when somebody who waits for the queue is to look again: it is due, or
 * will be before all others. */
bool queue_push(struct queue *q, uint64_t key, uint64_t due_us, unsigned priority, uint64_t now_us);
/* With what it was pushed with. */
void queue_drop(struct queue *q, uint64_t key, uint64_t due_us, unsigned priority);
/* Takes the best that is due; false: nothing is, or memory is out. */
bool queue_take(struct queue *q, uint64_t now_us, uint64_t *ret_key);
/* False: it was not taken, or memory is out: it stays taken. */
bool queue_give_back(struct queue *q, uint64_t key);
/* UINT64_MAX: none waits. */
uint64_t queue_next_due_us(const struct queue *q);
/* Of what is due and not taken; 0: nothing is. */
uint64_t queue_oldest_due_us(const struct queue *q);

static inline size_t queue_size(const struct queue *q) {
    return q->ready.n + q->waiting.n + q->taken.n;
}
static inline size_t queue_bytes(const struct queue *q) {
    return q->ready.bytes + q->waiting.bytes + q->taken.bytes;
}

#endif
