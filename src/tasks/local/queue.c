/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Priority and time share a number: 4 bits and 60, which is microseconds until the year 38504.
 *
 *   ready    9 - priority (4)  due_us (60)
 *   waiting  due_us (60)  9 - priority (4)
 */
#include "tasks/local/queue.h"

#include "tasks/task.h"

enum { PRIORITY_BITS = 4, DUE_BITS = 60 };
static_assert(TASK_PRIORITIES <= 1 << PRIORITY_BITS, "a priority fits");
static const uint64_t DUE_MAX = (UINT64_C(1) << DUE_BITS) - 1;

static struct pair ready_pair(uint64_t key, uint64_t due_us, uint64_t order) {
    return (struct pair){order << DUE_BITS | due_us, key};
}

static struct pair waiting_pair(uint64_t key, uint64_t due_us, uint64_t order) {
    return (struct pair){due_us << PRIORITY_BITS | order, key};
}

void queue_deinit(struct queue *q) {
    pairs_deinit(&q->ready);
    pairs_deinit(&q->waiting);
    pairs_deinit(&q->taken);
}

bool queue_reserve(struct queue *q) {
    return pairs_reserve(&q->ready) && pairs_reserve(&q->waiting);
}

static uint64_t order_of(unsigned priority) {
    return TASK_PRIORITIES - 1 - priority;
}

bool queue_push(struct queue *q, uint64_t key, uint64_t due_us, unsigned priority,
                uint64_t now_us) {
    uint64_t due = due_us < DUE_MAX ? due_us : DUE_MAX;
    if (due <= now_us) {
        pairs_insert(&q->ready, ready_pair(key, due, order_of(priority)));
        return true;
    }
    bool first = due < queue_next_due_us(q);
    pairs_insert(&q->waiting, waiting_pair(key, due, order_of(priority)));
    return first;
}

static bool find_taken(const struct queue *q, uint64_t key, struct pair *ret_pair) {
    struct pair found;
    if (!pairs_first(&q->taken, (struct pair){key, 0}, &found) || found.high != key)
        return false;
    *ret_pair = found;
    return true;
}

void queue_drop(struct queue *q, uint64_t key, uint64_t due_us, unsigned priority) {
    uint64_t due = due_us < DUE_MAX ? due_us : DUE_MAX;
    struct pair taken;
    if (find_taken(q, key, &taken))
        pairs_remove(&q->taken, taken);
    else if (!pairs_remove(&q->ready, ready_pair(key, due, order_of(priority))))
        pairs_remove(&q->waiting, waiting_pair(key, due, order_of(priority)));
}

/* What is due now becomes ready. */
static void advance(struct queue *q, uint64_t now_us) {
    const struct pair least = {0};
    struct pair next;
    while (pairs_first(&q->waiting, least, &next) && next.high >> PRIORITY_BITS <= now_us) {
        uint64_t order = next.high & ((1 << PRIORITY_BITS) - 1);
        if (!pairs_reserve(&q->ready))
            return;
        pairs_insert(&q->ready, ready_pair(next.low, next.high >> PRIORITY_BITS, order));
        pairs_remove(&q->waiting, next);
    }
}

bool queue_take(struct queue *q, uint64_t now_us, uint64_t *ret_key) {
    struct pair best;
    advance(q, now_us);
    if (!pairs_first(&q->ready, (struct pair){0}, &best) || !pairs_reserve(&q->taken))
        return false;
    pairs_remove(&q->ready, best);
    pairs_insert(&q->taken, (struct pair){best.low, best.high});
    *ret_key = best.low;
    return true;
}

bool queue_give_back(struct queue *q, uint64_t key) {
    struct pair taken;
    if (!find_taken(q, key, &taken) || !pairs_reserve(&q->ready))
        return false;
    pairs_remove(&q->taken, taken);
    pairs_insert(&q->ready, (struct pair){taken.low, taken.high});
    return true;
}

uint64_t queue_next_due_us(const struct queue *q) {
    struct pair next;
    return pairs_first(&q->waiting, (struct pair){0}, &next) ? next.high >> PRIORITY_BITS
                                                             : UINT64_MAX;
}

/* The first of each priority is its oldest. */
uint64_t queue_oldest_due_us(const struct queue *q) {
    uint64_t oldest = UINT64_MAX;
    struct pair first;
    for (uint64_t order = 0; order < TASK_PRIORITIES; order++)
        if (pairs_first(&q->ready, ready_pair(0, 0, order), &first) &&
            first.high >> DUE_BITS == order && (first.high & DUE_MAX) < oldest)
            oldest = first.high & DUE_MAX;
    return oldest == UINT64_MAX ? 0 : oldest;
}
