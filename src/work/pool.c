/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The threads. All are alike: each time round, under the pool lock, one makes the lanes ready whose
 * wait is over, then takes the first of these that there is to do: read the journal, if the queues
 * are low (but after reading once, a ready lane comes first); apply a batch of a ready lane; end,
 * if the pool is larger than it need be; sleep.
 *
 * Nothing to do is overlooked, because
 *   1. whoever takes something and leaves more behind wakes one sleeper, who does the same;
 *   2. whoever leaves the dispatcher's seat or a lane goes round again before it sleeps;
 *   3. a thread counts itself among the sleepers before it looks at the durable lsn for the last
 *      time, and the journal's listener looks at the sleepers after it moved the durable lsn. Both
 *      use a read-modify-write of `sleepers`, so one of them sees the other;
 *   4. a sleeper wakes by itself when the next waiting lane, or failed read, is due; a thread that
 *      makes a lane wait goes round and sleeps no longer than that, or wakes a sleeper by rule 1;
 *   5. nobody is woken for records of other kinds: a sleeper passes them when its time is over.
 *
 * How many: threads_min at least. One more when lanes were ready and no thread free for
 * WORK_CROWDED_MS on end; one fewer when not all were busy at once for WORK_RETIRE_MS.
 */
#include "work/internal.h"

#include <stdlib.h>

static void worker_run(void *argument);

/* Starts a thread in a free place; one that ended there is joined first. */
static int worker_start(struct work *w) {
    struct worker *worker = w->workers;
    while (worker->running)
        worker++;
    os_thread_join(w->os, worker->thread);
    *worker = (struct worker){.work = w};
    int r = os_thread_start(w->os, w->ops->name, worker_run, worker, &worker->thread);
    if (r)
        return error_fold(r);
    worker->running = true;
    w->n_threads++;
    return 0;
}

void work_pool_wake(struct work *w, unsigned mine) {
    if (atomic_load(&w->sleepers) > 0 && w->n_ready > mine)
        condition_signal(&w->wake);
}

void work_pool_durable(struct journal_listener *listener, lsn_t durable) {
    struct work *w = CONTAINER_OF(listener, struct work, listener);
    (void)durable;
    if (atomic_fetch_add(&w->sleepers, 0) == 0)
        return;
    mutex_lock(&w->pool);
    bool wanted = work_dispatch_wanted(w, work_now(w));
    mutex_unlock(&w->pool);
    if (wanted) /* whoever wakes finds the lock free */
        condition_signal(&w->wake);
}

/* Lanes are ready and nobody is free: after WORK_CROWDED_MS of it one more thread is started. */
static void pool_grow(struct work *w, uint64_t now_ns) {
    if (w->n_ready == 0 || atomic_load(&w->sleepers) > 0) {
        w->crowded_ns = 0;
    } else if (w->crowded_ns == 0) {
        w->crowded_ns = now_ns;
    } else if (now_ns - w->crowded_ns >= WORK_CROWDED_MS * NS_PER_MS) {
        w->crowded_ns = now_ns;
        if (w->n_threads < w->options.threads_max && !atomic_load(&w->stopping))
            (void)!worker_start(w); /* without it the work is done all the same, only later */
    }
}

/* Leaves what there is to do, or to wait for, to a sleeper. */
static void pool_leave(struct work *w, uint64_t now_ns, bool read) {
    if (w->n_ready > 0 || w->n_waiting > 0 || w->dispatch_due_ns > now_ns || read)
        condition_signal(&w->wake);
}

/* What a thread owes the others when it has taken something to do. */
static void pool_busy(struct work *w, uint64_t now_ns, bool reading) {
    if (atomic_load(&w->sleepers) == 0)
        w->full_ns = now_ns;
    else
        pool_leave(w, now_ns, !reading && work_dispatch_wanted(w, now_ns));
    pool_grow(w, now_ns);
}

static bool pool_shrinks(const struct work *w, uint64_t now_ns) {
    return w->n_threads > w->options.threads_min &&
           now_ns - w->full_ns >= WORK_RETIRE_MS * NS_PER_MS;
}

static uint64_t earliest(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

/* When a sleeper must look again though nobody woke it. */
static uint64_t sleep_deadline(const struct work *w, uint64_t now_ns) {
    uint64_t deadline = earliest(work_lanes_next_due(w), now_ns + WORK_PASS_MS * NS_PER_MS);
    if (w->dispatch_due_ns > now_ns)
        deadline = earliest(deadline, w->dispatch_due_ns);
    if (w->n_threads > w->options.threads_min)
        deadline = earliest(deadline, w->full_ns + WORK_RETIRE_MS * NS_PER_MS);
    return deadline;
}

static void pool_sleep(struct work *w, uint64_t now_ns) {
    uint64_t deadline = sleep_deadline(w, now_ns);
    w->crowded_ns = 0;
    atomic_fetch_add(&w->sleepers, 1);
    if (!work_dispatch_wanted(w, now_ns)) {
        (void)!condition_wait_until(&w->wake, &w->pool, deadline);
    }
    atomic_fetch_sub(&w->sleepers, 1);
}

/* One turn. False: the thread is to end. */
static bool worker_turn(struct work *w, bool *read_last) {
    uint64_t now = work_now(w);
    work_stragglers_let_go(w, now);
    work_lanes_due(w, now);
    if (work_dispatch_wanted(w, now) && !(*read_last && w->n_ready > 0)) {
        *read_last = true;
        pool_busy(w, now, true);
        (void)!work_dispatch(w); /* kept for status, and tried again when it is due */
        return true;
    }
    *read_last = false;
    struct lane *lane = work_lane_take(w);
    if (lane) {
        pool_busy(w, now, false);
        work_lane_apply(w, lane);
        return true;
    }
    if (pool_shrinks(w, now)) {
        pool_leave(w, now, false);
        return false;
    }
    pool_sleep(w, now);
    return true;
}

static void worker_run(void *argument) {
    struct worker *self = argument;
    struct work *w = self->work;
    bool read_last = false;
    mutex_lock(&w->pool);
    while (!atomic_load(&w->stopping) && worker_turn(w, &read_last)) {
    }
    w->n_threads--;
    self->running = false;
    mutex_unlock(&w->pool);
}

int work_start(struct work *w) {
    atomic_store(&w->stopping, false);
    int r = 0;
    mutex_lock(&w->pool);
    w->full_ns = work_now(w);
    while (r == 0 && w->n_threads < w->options.threads_min)
        r = worker_start(w);
    mutex_unlock(&w->pool);
    if (r)
        work_stop(w);
    return error_trace(r);
}

void work_stop(struct work *w) {
    mutex_lock(&w->pool);
    atomic_store(&w->stopping, true);
    condition_broadcast(&w->wake);
    mutex_unlock(&w->pool);
    for (unsigned i = 0; i < w->options.threads_max; i++) {
        os_thread_join(w->os, w->workers[i].thread);
        w->workers[i] = (struct worker){0};
    }
    atomic_store(&w->stopping, false);
}
