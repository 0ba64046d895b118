/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tasks that are shared with other processes: what this runner has in hand is its own only as long
 * as it says so. What was taken, and never begun, is given up without a word when it is worth
 * nothing; what was begun is stopped, and its end would fit no more.
 *
 * While nothing can be renewed all goes on: whoever can reach the tasks ends what ran out, and the
 * journal decides.
 */
#include "tasks/runner_parts.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    RENEW_MS = 250,
    EXPIRED_MS = 1000,
    STOP_MS = 500,
    ERROR_MAX = 256,
    ENDED_SOME = 4096,
    ENDED_MAX = 16 * ENDED_SOME,
    ENDED_MS = 500, /* after which what ended is asked about */
};

/* ---- Renewing ---- */

static unsigned in_hand(const struct tasks_runner *r) {
    unsigned n = r->held != NULL;
    for (unsigned i = 0; i < r->n_workers; i++)
        n += r->workers[i]->n;
    return n;
}

static struct tasks_renewal renewal_of(const struct attempt *a) {
    return (struct tasks_renewal){.id = a->ref.task.id,
                                  .attempt = a->number,
                                  .current = a->current,
                                  .total = a->total,
                                  .moved = a->unshown};
}

static void heed_worth(struct task_worker *w, struct attempt *a,
                       const struct tasks_renewal *renewal, uint64_t deadline_ns) {
    a->unshown = false;
    if (renewal->worth == TASKS_WORTH_CANCELLED)
        pool_stop_attempt(w, a, STOP_CANCELLED, deadline_ns);
    else if (renewal->worth == TASKS_WORTH_NOTHING)
        pool_stop_attempt(w, a, STOP_FENCED, deadline_ns);
}

/* ---- What has ended ---- */

struct ended {
    struct task_id id;
    uint32_t attempt;
    lsn_t begun;       /* its records are above */
    uint64_t asked_ns; /* when it ended, or was renewed last */
};

void lease_note_ended(struct tasks_runner *r, const struct attempt *a) {
    const struct ended ended = {.id = a->ref.task.id,
                                .attempt = a->number,
                                .begun = a->begun_lsn,
                                .asked_ns = os_monotonic_ns(r->os)};
    size_t size = r->ended.size;
    if (!r->tasks.ops->renew || a->stop == STOP_CANCELLED || a->stop == STOP_FENCED ||
        size >= ENDED_MAX * sizeof ended)
        return; /* of so many a lease may run out, should the journal take long */
    buffer_append(&r->ended, &ended, sizeof ended);
    if (r->ended.failed) { /* likewise */
        r->ended.failed = false;
        r->ended.size = size;
    }
}

static struct ended *ended_of(const struct tasks_runner *r, size_t *ret_n) {
    *ret_n = r->ended.size / sizeof(struct ended);
    return (void *)r->ended.data;
}

/* As a rule they were applied long before: so they are asked about late, and once. Returns how many
 * of the oldest it is time to ask about. */
static size_t add_ended(const struct tasks_runner *r, uint64_t now_ns,
                        struct tasks_renewal *renewals) {
    const uint64_t wait_ns = (uint64_t)ENDED_MS * RUNNER_NS_PER_MS;
    size_t n, due = 0;
    const struct ended *ended = ended_of(r, &n);
    for (; due < n && due < ENDED_SOME && now_ns - ended[due].asked_ns >= wait_ns; due++)
        renewals[due] = (struct tasks_renewal){.id = ended[due].id, .attempt = ended[due].attempt};
    return due;
}

/* The journal may have lost a record of the attempt for good, its end maybe: so it is not to be
 * kept from others for ever. */
static bool may_be_lost(const struct tasks_runner *r, const struct ended *ended) {
    return outbox_is_empty(&r->outbox) && journal_unknown(r->journal) > ended->begun;
}

/* Those that are still running, as far as is known, go behind the others. */
static void heed_ended(struct tasks_runner *r, uint64_t now_ns,
                       const struct tasks_renewal *renewals, size_t asked) {
    size_t n;
    for (size_t i = 0; i < asked; i++) {
        struct ended again = ended_of(r, &n)[i];
        again.asked_ns = now_ns;
        if (renewals[i].worth == TASKS_WORTH_ITSELF && !may_be_lost(r, &again))
            buffer_append(&r->ended, &again, sizeof again);
    }
    r->ended.failed = false; /* as in lease_note_ended */
    struct ended *ended = ended_of(r, &n);
    if (asked)
        memmove(ended, ended + asked, (n - asked) * sizeof *ended);
    r->ended.size -= asked * sizeof *ended;
}

/* ---- Both ---- */

/* Asks about all that is in hand, then goes over it in the same order: the store has said of each
 * what it is worth. */
static void renew(struct tasks_runner *r, struct tasks_renewal *renewals, uint64_t now_ns) {
    struct tasks_at_work at_work = {.workers = r->n_workers};
    uint64_t deadline_ns = now_ns + (uint64_t)STOP_MS * RUNNER_NS_PER_MS;
    size_t n = 0, told = 0;
    if (r->held)
        renewals[n++] = renewal_of(r->held);
    for (unsigned i = 0; i < r->n_workers; i++) {
        at_work.busy += r->workers[i]->n > 0;
        for (const struct attempt *a = r->workers[i]->first; a; a = a->next)
            renewals[n++] = renewal_of(a);
    }
    size_t asked = add_ended(r, now_ns, renewals + n);
    if (r->tasks.ops->renew(r->tasks.store, &at_work, renewals, n + asked))
        return;
    heed_ended(r, now_ns, renewals + n, asked);
    if (r->held && renewals[told++].worth != TASKS_WORTH_ITSELF)
        runner_drop_held(r);
    for (unsigned i = 0; i < r->n_workers; i++)
        for (struct attempt *a = r->workers[i]->first; a; a = a->next)
            heed_worth(r->workers[i], a, &renewals[told++], deadline_ns);
}

/* ---- What ran out ---- */

static void end_expired(void *context, const struct task *task) {
    struct tasks_runner *r = context;
    char error[ERROR_MAX];
    (void)snprintf(error, sizeof error,
                   "its worker %.*s was not heard of for the time of its lease",
                   (int)task->worker.size, (const char *)task->worker.data);
    const struct task_record record = {.op = TASK_OP_END,
                                       .id = task->id,
                                       .attempt = task->attempts,
                                       .outcome = TASK_OUTCOME_DIED,
                                       .current = task->current,
                                       .total = task->total,
                                       .due_us = os_wall_us(r->os),
                                       .text = bytes_of_string(error)};
    outbox_add(&r->outbox, &record);
}

/* ---- When it is time ---- */

static bool is_time(uint64_t *last_ns, uint64_t ms, uint64_t now_ns) {
    if (now_ns - *last_ns < ms * RUNNER_NS_PER_MS)
        return false;
    *last_ns = now_ns;
    return true;
}

void lease_renew(struct tasks_runner *r, uint64_t now_ns) {
    if (!r->tasks.ops->renew)
        return;
    if (is_time(&r->renewed_ns, RENEW_MS, now_ns)) {
        struct tasks_renewal *renewals = calloc(in_hand(r) + ENDED_SOME + 1, sizeof *renewals);
        if (renewals)
            renew(r, renewals, now_ns);
        free(renewals);
    }
    if (is_time(&r->expired_ns, EXPIRED_MS, now_ns) && outbox_is_empty(&r->outbox)) {
        int result = r->tasks.ops->each_expired(r->tasks.store, end_expired, r);
        (void)result; /* they are found the next time, or by another */
    }
}

void lease_end(struct tasks_runner *r) {
    if (r->tasks.ops->renew) {
        int result = r->tasks.ops->renew(r->tasks.store, NULL, NULL, 0);
        (void)result; /* it is forgotten when its lease has run out */
    }
}
