/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A few ends at a time are kept, each with the lsn up to which all was durable before it was asked
 * for: so what came later than one is waited for by the next, and no position has to say which lsn
 * it is.
 */
#include "work/follow.h"

#include "os/sync.h"
#include "work/elsewhere.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define MS_NS UINT64_C(1000000)
enum { CALL_MS = 5000, LOOK_LEAST_MS = 2, LOOK_MOST_MS = 100, ENDS_MAX = 16 };

/* All up to lsn was durable, and then the partitions ended so. */
struct ends {
    lsn_t lsn;
    uint64_t offsets[GROUP_PARTITIONS_MAX];
};

struct follow {
    struct os *os;
    struct journal *journal;
    struct progress *progress;
    struct work *work;
    struct os_thread *thread;
    unsigned partitions;
    struct ends ends[ENDS_MAX]; /* the thread's, oldest first */
    size_t n_ends;
    atomic_bool asked;
    struct mutex lock; /* LOCK_RANK_WORK_POOL: what follows */
    struct condition wake;
    bool stopping;
};

/* ---- Looking ---- */

/* Only what became durable since is worth another look at the ends. Without room they take the
 * place of the newest: so a partition that lags holds up no other, and comes up to the older ones
 * meanwhile. */
static int note_ends(struct follow *f) {
    struct ends e = {.lsn = journal_durable(f->journal)};
    if (f->n_ends && f->ends[f->n_ends - 1].lsn == e.lsn)
        return 0;
    int r = progress_ends(f->progress, e.offsets);
    if (r)
        return r;
    f->n_ends += f->n_ends < ENDS_MAX;
    f->ends[f->n_ends - 1] = e;
    return 0;
}

static void drop_oldest(struct follow *f, size_t n) {
    f->n_ends -= n;
    memmove(f->ends, f->ends + n, f->n_ends * sizeof *f->ends);
}

/* Returns how many of the ends all partitions have come up to. */
static size_t take_positions(struct follow *f, const uint64_t *positions) {
    size_t all = f->n_ends;
    for (unsigned p = 0; p < f->partitions; p++) {
        size_t n = f->n_ends;
        while (n > 0 && f->ends[n - 1].offsets[p] > positions[p])
            n--;
        if (n > 0)
            work_reached(f->work, p, f->ends[n - 1].lsn);
        all = n < all ? n : all;
    }
    return all;
}

/* True when something moved. */
static bool look(struct follow *f) {
    uint64_t positions[GROUP_PARTITIONS_MAX];
    if (note_ends(f) || progress_positions(f->progress, positions))
        return false;
    size_t all = take_positions(f, positions);
    if (all)
        drop_oldest(f, all);
    return all > 0;
}

/* ---- The thread ---- */

/* Waits for so long, or, with 0, until somebody asks. False: it is to end. */
static bool wait_for(struct follow *f, uint64_t ms) {
    uint64_t due_ns = os_monotonic_ns(f->os) + ms * MS_NS;
    bool in_time = true;
    mutex_lock(&f->lock);
    while (!f->stopping && !atomic_load(&f->asked) && in_time) {
        if (ms)
            in_time = condition_wait_until(&f->wake, &f->lock, due_ns);
        else
            condition_wait(&f->wake, &f->lock);
    }
    bool go_on = !f->stopping;
    mutex_unlock(&f->lock);
    return go_on;
}

static void run(void *follow) {
    struct follow *f = follow;
    uint64_t pace_ms = 0;
    while (wait_for(f, pace_ms)) {
        bool moved = atomic_exchange(&f->asked, false);
        moved = look(f) || moved;
        pace_ms = moved ? LOOK_LEAST_MS : 2 * pace_ms;
        pace_ms = pace_ms < LOOK_MOST_MS ? pace_ms : LOOK_MOST_MS;
        if (!work_is_awaited(f->work))
            pace_ms = 0;
    }
}

static void asked(void *follow) {
    struct follow *f = follow;
    if (atomic_exchange(&f->asked, true))
        return;
    mutex_lock(&f->lock);
    condition_signal(&f->wake);
    mutex_unlock(&f->lock);
}

/* ---- Settling ---- */

static bool has_reached(const struct follow *f, const uint64_t *positions, const uint64_t *ends) {
    for (unsigned p = 0; p < f->partitions; p++)
        if (positions[p] < ends[p])
            return false;
    return true;
}

/* What is to be reached, until it is known, and then whether it is. An engine that does not answer
 * may do so in a moment: a partition that was just made has no leader yet. */
static int look_whether_settled(struct follow *f, bool *has_ends, uint64_t *ends) {
    uint64_t positions[GROUP_PARTITIONS_MAX];
    int r = *has_ends ? 0 : progress_ends(f->progress, ends);
    *has_ends = r == 0;
    if (!r)
        r = progress_positions(f->progress, positions);
    if (!r && !has_reached(f, positions, ends))
        r = JOURNAL_E_TIMEOUT;
    return r;
}

int follow_settle(struct follow *f, uint64_t deadline_ns, bool (*stopped)(const void *context),
                  const void *context) {
    uint64_t ends[GROUP_PARTITIONS_MAX], pace_ms = LOOK_LEAST_MS;
    bool has_ends = false;
    int r;
    while ((r = look_whether_settled(f, &has_ends, ends)) > 0 &&
           os_monotonic_ns(f->os) < deadline_ns && !stopped(context)) {
        os_sleep_ns(f->os, pace_ms * MS_NS);
        pace_ms = 2 * pace_ms < LOOK_MOST_MS ? 2 * pace_ms : LOOK_MOST_MS;
    }
    return r;
}

/* ---- Life ---- */

int follow_new(struct os *os, struct journal *j, const struct service_url *url, const char *name,
               struct follow **ret_follow, char why[GROUP_WHY_MAX]) {
    struct follow *f = calloc(1, sizeof *f);
    if (!f)
        return error_origin(-ENOMEM);
    f->os = os;
    f->journal = j;
    mutex_init(&f->lock, LOCK_RANK_WORK_POOL);
    condition_init(&f->wake);
    int r = progress_open(os, url, name, CALL_MS, &f->progress, why);
    if (!r) {
        f->partitions = progress_partitions(f->progress);
        r = work_new_elsewhere(os, f->partitions, asked, f, &f->work);
    }
    if (r) {
        follow_free(f);
        return r > 0 ? r : error_trace(r);
    }
    *ret_follow = f;
    return 0;
}

int follow_start(struct follow *f) {
    return error_trace(os_thread_start(f->os, "follow", run, f, &f->thread));
}

void follow_stop(struct follow *f) {
    if (!f)
        return;
    mutex_lock(&f->lock);
    f->stopping = true;
    condition_signal(&f->wake);
    mutex_unlock(&f->lock);
    os_thread_join(f->os, f->thread);
    f->thread = NULL;
}

struct follow *follow_free(struct follow *f) {
    if (!f)
        return NULL;
    follow_stop(f);
    work_free(f->work);
    progress_close(f->progress);
    condition_deinit(&f->wake);
    mutex_deinit(&f->lock);
    free(f);
    return NULL;
}

struct work *follow_work(struct follow *f) {
    return f->work;
}
