/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread of a share: reads a batch, applies it, says what is persisted.
 */
#include "work/share.h"

#include "base/hash.h"
#include "os/sync.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define MS_NS UINT64_C(1000000)
enum {
    READ_MS = 100,
    JOIN_MS = 500, /* between two tries */
    RETRY_FIRST_MS = 10,
    RETRY_MAX_MS = 2000,
    BATCH_RECORDS = 4096,
    STALL_MS = 30000,
};

struct share {
    struct os *os;
    struct share_options options;
    struct os_thread *thread;
    struct group *group; /* the thread's */
    const struct journal_record *batch[BATCH_RECORDS];
    uint64_t jitter;

    struct metrics_source source;
    struct metric_series *applied, *retries, *dead_letters, *records;

    atomic_bool stopping;
    _Atomic uint64_t round_ns; /* when the thread last went round */
    struct mutex lock;         /* LOCK_RANK_WORK_POOL: status */
    struct share_status status;
};

/* ---- status ---- */

static void say(struct share *s, bool waiting, const char *reason) {
    mutex_lock(&s->lock);
    s->status.waiting = waiting;
    snprintf(s->status.reason, sizeof s->status.reason, "%s", reason);
    mutex_unlock(&s->lock);
}

static void note_group(struct share *s) {
    struct group_status g;
    group_status(s->group, &g);
    mutex_lock(&s->lock);
    s->status.reachable = g.reachable;
    s->status.partitions = g.partitions;
    s->status.lag_messages = g.lag_messages;
    s->status.strange_messages = g.strange_messages;
    s->status.lost_messages = g.lost_messages;
    snprintf(s->status.journal_reason, sizeof s->status.journal_reason, "%s", g.why);
    mutex_unlock(&s->lock);
}

static void note_age(struct share *s, uint64_t oldest_wall_us) {
    uint64_t now_us = os_wall_us(s->os);
    uint64_t age_us = oldest_wall_us && now_us > oldest_wall_us ? now_us - oldest_wall_us : 0;
    mutex_lock(&s->lock);
    s->status.lag_ms = age_us / 1000;
    mutex_unlock(&s->lock);
}

static void go_round(struct share *s) {
    atomic_store(&s->round_ns, os_monotonic_ns(s->os));
}

void share_status(struct share *s, struct share_status *ret_status) {
    uint64_t round = atomic_load(&s->round_ns), now = os_monotonic_ns(s->os);
    mutex_lock(&s->lock);
    *ret_status = s->status;
    mutex_unlock(&s->lock);
    ret_status->stalled = now > round && now - round > STALL_MS * MS_NS;
}

static void collect(struct metrics_source *source, struct metrics *m) {
    struct share *s = CONTAINER_OF(source, struct share, source);
    const char *name = s->options.ops->name;
    struct share_status status;
    share_status(s, &status);
    metric_set(metrics_series(m, METRIC_SHARE_PARTITIONS, name), status.partitions);
    metric_set(metrics_series(m, METRIC_SHARE_LAG_MESSAGES, name), status.lag_messages);
    metric_set(metrics_series(m, METRIC_SHARE_STRANGE, name), status.strange_messages);
    metric_set(metrics_series(m, METRIC_SHARE_LOST, name), status.lost_messages);
    metric_set(metrics_series(m, METRIC_WORK_LAG_SECONDS, name), status.lag_ms * 1000);
}

/* ---- applying ---- */

/* Full jitter, as many members may wait for the same store. */
static uint64_t backoff_ms(struct share *s, unsigned attempts) {
    uint64_t most = attempts < 8 ? (uint64_t)RETRY_FIRST_MS << attempts : RETRY_MAX_MS;
    most = most < RETRY_MAX_MS ? most : RETRY_MAX_MS;
    return 1 + hash64_u64(s->jitter++) % most;
}

/* What came of a try: how many records are dealt with, and whether to wait. */
struct tried {
    size_t done;
    bool wait;
    char reason[GROUP_WHY_MAX];
};

static void refuse(struct share *s, unsigned lane, const struct journal_record *record,
                   const char *reason, struct tried *p) {
    int r = s->options.ops->reject(s->options.store, lane, record, reason);
    if (r) {
        p->wait = true;
        snprintf(p->reason, sizeof p->reason, "%s",
                 r == WORK_LETTER_E_FULL ? work_letters_full
                                         : "the store cannot keep a dead letter");
        return;
    }
    p->done++;
    if (!(record->flags & JOURNAL_LETTER)) /* that one stays a letter */
        metric_add(s->dead_letters, 1);
}

static void try_batch(struct share *s, unsigned lane, size_t n, struct tried *p) {
    struct work_verdict verdict = {.outcome = WORK_DOWN, .reason = "the store failed"};
    int r = s->options.ops->apply(s->options.store, lane, s->batch, n, &verdict);
    *p = (struct tried){.done = r ? 0 : verdict.applied};
    metric_add(s->applied, p->done);
    metric_observe(s->records, n);
    if (!r && verdict.outcome == WORK_OK)
        return;
    snprintf(p->reason, sizeof p->reason, "%s", verdict.reason ? verdict.reason : "");
    if (!r && verdict.outcome == WORK_REJECT) {
        refuse(s, lane, s->batch[p->done], verdict.reason, p);
        return;
    }
    p->wait = true;
    metric_add(s->retries, 1);
}

/* It may be long: what is seen of the engine meanwhile is told. */
static bool hold(struct share *s, unsigned partition, uint64_t wait_ms) {
    bool held = group_hold(s->group, partition, wait_ms);
    note_group(s);
    return held;
}

/* Where it is needed, a lease that is not over. False: the partition is another's. */
static bool hold_lease(struct share *s, unsigned partition) {
    enum { RENEW_MS = 10 };
    if (!s->options.until)
        return true;
    while (os_monotonic_ns(s->os) >= group_lease_ns(s->group)) {
        go_round(s);
        if (atomic_load(&s->stopping) || !hold(s, partition, RENEW_MS))
            return false;
    }
    s->options.until(s->options.store, group_lease_ns(s->group));
    return true;
}

/* Until all of it is dealt with, or the partition is another's, or the process stops. */
static void apply_batch(struct share *s, const struct group_batch *b) {
    unsigned attempts = 0;
    for (size_t at = 0; at < b->n && !atomic_load(&s->stopping);) {
        struct tried p;
        size_t n = b->n - at < BATCH_RECORDS ? b->n - at : BATCH_RECORDS;
        for (size_t i = 0; i < n; i++)
            s->batch[i] = &b->records[at + i];
        note_age(s, b->records[at].wall_us);
        if (!hold_lease(s, b->partition))
            break;
        try_batch(s, b->partition, n, &p);
        at += p.done;
        if (p.done)
            group_persisted(s->group, b->partition, b->records[at - 1].lsn);
        attempts = p.done ? 0 : attempts + 1;
        say(s, p.wait, p.wait ? p.reason : "");
        go_round(s);
        if (p.wait && !hold(s, b->partition, backoff_ms(s, attempts)))
            break;
    }
    say(s, false, ""); /* also of one that is another's: perhaps nothing more comes for long */
    note_age(s, 0);
}

/* ---- the thread ---- */

static int ask_position(void *share, unsigned partition, lsn_t *ret_lsn) {
    struct share *s = share;
    return error_trace(s->options.position(s->options.store, partition, ret_lsn));
}

static int ask_numbers(void *share, unsigned partition, struct group_numbers *numbers) {
    struct share *s = share;
    return error_trace(s->options.number(s->options.store, partition, numbers));
}

static void pass_on(void *share, const char *sentence) {
    struct share *s = share;
    if (s->options.tell)
        s->options.tell(s->options.context, sentence);
}

static void try_to_join(struct share *s) {
    char why[GROUP_WHY_MAX] = "memory is out";
    const struct group_options options = {.url = s->options.url,
                                          .name = s->options.ops->name,
                                          .tell = pass_on,
                                          .position = s->options.position ? ask_position : NULL,
                                          .number = s->options.number ? ask_numbers : NULL,
                                          .context = s};
    int r = group_open(s->os, &options, &s->group, why);
    mutex_lock(&s->lock);
    s->status.joined = s->status.reachable = r == 0;
    snprintf(s->status.journal_reason, sizeof s->status.journal_reason, "%s", r ? why : "");
    mutex_unlock(&s->lock);
    if (r)
        os_sleep_ns(s->os, JOIN_MS * MS_NS);
}

static void run(void *share) {
    struct share *s = share;
    while (!atomic_load(&s->stopping)) {
        struct group_batch batch;
        go_round(s);
        if (!s->group) {
            try_to_join(s);
            continue;
        }
        int r = group_read(s->group, READ_MS, &batch);
        note_group(s);
        if (r == 0)
            apply_batch(s, &batch);
        else if (r < 0)
            os_sleep_ns(s->os, JOIN_MS * MS_NS);
    }
    s->group = group_close(s->group);
}

int share_start(struct os *os, const struct share_options *options, struct metrics *metrics,
                struct share **ret_share) {
    const char *name = options->ops->name;
    struct share *s = calloc(1, sizeof *s);
    if (!s)
        return error_origin(-ENOMEM);
    s->os = os;
    s->options = *options;
    mutex_init(&s->lock, LOCK_RANK_WORK_POOL);
    go_round(s);
    s->applied = metrics_series(metrics, METRIC_WORK_APPLIED, name);
    s->retries = metrics_series(metrics, METRIC_WORK_RETRIES, name);
    s->dead_letters = metrics_series(metrics, METRIC_WORK_DEAD_LETTERS, name);
    s->records = metrics_series(metrics, METRIC_WORK_BATCH, name);
    int r = os_random(os, &s->jitter, sizeof s->jitter);
    if (!r)
        r = os_thread_start(os, "share", run, s, &s->thread);
    if (r) {
        mutex_deinit(&s->lock);
        free(s);
        return error_fold(r);
    }
    s->source.collect = collect;
    metrics_add_source(metrics, &s->source);
    *ret_share = s;
    return 0;
}

void share_end(struct share *s) {
    if (s)
        atomic_store(&s->stopping, true);
}

void share_stop(struct share *s) {
    if (!s)
        return;
    share_end(s);
    os_thread_join(s->os, s->thread);
    s->thread = NULL;
}

struct share *share_free(struct share *s) {
    if (!s)
        return NULL;
    mutex_deinit(&s->lock);
    free(s);
    return NULL;
}
