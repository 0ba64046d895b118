/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runner's thread. A turn: what the store told (cancelled, fenced), what workers said, what is
 * due; then all records of the turn go to the journal together; then workers are given more, and
 * their number follows.
 */
#include "tasks/runner_parts.h"

#include "os/process.h"
#include "tasks/scale.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    LEASE_MS = 10000,
    STOP_MS = 500, /* of a cancelled task, before its worker is killed */
    STALLED_MS = 10000,
    FLUSH_MS = 1000, /* at the end, for what the journal refuses */
    TAKE_MAX = 128,
    TURN_BUSY_MS = 10, /* how long a turn may wait: while there are tasks in hand */
    TURN_IDLE_MS = 1000,
#ifdef MILLRACE_TINY
    RETRY_MS = 4,
    TURN_REFUSED_MS = 2,
#else
    RETRY_MS = 1000,
    TURN_REFUSED_MS = 50,
#endif
};

/* ---- What the store tells, from the thread that applies ---- */

static void note(struct tasks_listener *l, struct task_id id, uint32_t attempt) {
    struct tasks_runner *r = CONTAINER_OF(l, struct tasks_runner, listener);
    mutex_lock(&r->lock);
    if (r->n_notes < NOTES_MAX)
        r->notes[r->n_notes++] = (struct runner_note){.id = id, .attempt = attempt};
    else
        r->notes_lost = true;
    mutex_unlock(&r->lock);
    event_signal(&r->wake);
}

static void told_queued(struct tasks_listener *l) {
    event_signal(&CONTAINER_OF(l, struct tasks_runner, listener)->wake);
}

static void told_cancelled(struct tasks_listener *l, struct task_id id) {
    note(l, id, 0);
}

static void told_fenced(struct tasks_listener *l, struct task_id id, uint32_t attempt) {
    note(l, id, attempt);
}

void runner_drop_held(struct tasks_runner *r) {
    r->tasks.ops->give_back(r->tasks.store, &r->held->ref);
    attempt_free(r->held);
    r->held = NULL;
}

static void heed(struct tasks_runner *r, const struct runner_note *n, uint64_t now_ns) {
    enum attempt_stop why = n->attempt ? STOP_FENCED : STOP_CANCELLED;
    uint64_t deadline_ns = now_ns + (uint64_t)STOP_MS * RUNNER_NS_PER_MS;
    if (r->held && r->held->ref.task.id.key == n->id.key)
        runner_drop_held(r);
    for (unsigned i = 0; i < r->n_workers; i++)
        for (struct attempt *a = r->workers[i]->first; a; a = a->next)
            if (a->ref.task.id.key == n->id.key && (!n->attempt || n->attempt == a->number))
                pool_stop_attempt(r->workers[i], a, why, deadline_ns);
}

/* Whether the task can no longer be run by this attempt, as the store has it. */
static bool is_void(struct tasks_runner *r, const struct attempt *a) {
    struct task_ref ref;
    int result = r->tasks.ops->get(r->tasks.store, a->ref.task.id, false, &ref);
    if (result)
        return result == TASKS_E_NOT_FOUND;
    bool ended = task_status_is_end(ref.task.status) || ref.task.attempts > a->number;
    task_unref(&ref);
    return ended;
}

/* More was told than could be noted. */
static void look_at_all(struct tasks_runner *r, uint64_t now_ns) {
    uint64_t deadline_ns = now_ns + (uint64_t)STOP_MS * RUNNER_NS_PER_MS;
    if (r->held)
        runner_drop_held(r);
    for (unsigned i = 0; i < r->n_workers; i++)
        for (struct attempt *a = r->workers[i]->first; a; a = a->next)
            if (is_void(r, a))
                pool_stop_attempt(r->workers[i], a, STOP_CANCELLED, deadline_ns);
}

static void heed_notes(struct tasks_runner *r, uint64_t now_ns) {
    struct runner_note notes[NOTES_MAX];
    mutex_lock(&r->lock);
    size_t n = r->n_notes;
    bool lost = r->notes_lost;
    memcpy(notes, r->notes, n * sizeof *notes);
    r->n_notes = 0;
    r->notes_lost = false;
    mutex_unlock(&r->lock);
    for (size_t i = 0; i < n; i++)
        heed(r, &notes[i], now_ns);
    if (lost)
        look_at_all(r, now_ns);
}

/* ---- Handing out ---- */

static struct task_worker *least_loaded(const struct tasks_runner *r) {
    struct task_worker *best = NULL;
    for (unsigned i = 0; i < r->n_workers; i++) {
        struct task_worker *w = r->workers[i];
        if (pool_room(w) && (!best || w->n < best->n))
            best = w;
    }
    return best;
}

/* To the worker with the least in hand; false, and it is held, when none has room. */
static bool deal(struct tasks_runner *r, struct attempt *a, uint64_t now_ns) {
    struct task_worker *w = least_loaded(r);
    if (w && pool_give(w, a, now_ns))
        return true;
    assert(!r->held);
    r->held = a;
    return false;
}

static void deal_all(struct tasks_runner *r, struct task_ref *refs, size_t n, uint64_t now_ns) {
    for (size_t i = 0; i < n; i++) {
        struct attempt *a = r->held ? NULL : attempt_new(&refs[i]);
        if (a) {
            (void)deal(r, a, now_ns); /* it is held else */
        } else {
            r->tasks.ops->give_back(r->tasks.store, &refs[i]);
            task_unref(&refs[i]);
        }
    }
}

static unsigned total_room(const struct tasks_runner *r) {
    unsigned room = 0;
    for (unsigned i = 0; i < r->n_workers; i++)
        room += pool_room(r->workers[i]);
    return room;
}

/* Takes one more than there is room for: the held one shows that somebody waits. */
static void hand_out(struct tasks_runner *r, uint64_t now_ns) {
    struct task_ref refs[TAKE_MAX];
    size_t n = 0;
    if (r->held && total_room(r) == 0)
        return;
    if (r->held)
        runner_drop_held(r); /* what came since may go before it */
    do {
        size_t want = (size_t)total_room(r) + 1;
        want = want < TAKE_MAX ? want : TAKE_MAX;
        int result = r->tasks.ops->take(r->tasks.store, os_wall_us(r->os), want, refs, &n);
        if (result)
            return; /* what cannot be read now is taken later: the store counts it */
        deal_all(r, refs, n, now_ns);
    } while (n == TAKE_MAX && !r->held);
}

/* ---- Scaling ---- */

static uint64_t waited_ms(const struct tasks_runner *r) {
    if (!r->held)
        return UINT64_MAX;
    uint64_t due_us = r->held->ref.task.due_us, now_us = os_wall_us(r->os);
    due_us = due_us > r->started_us ? due_us : r->started_us;
    return now_us > due_us ? (now_us - due_us) / 1000 : 0;
}

static bool is_idle(const struct task_worker *w) {
    return w->n == 0 && w->kill_ns == UINT64_MAX;
}

static struct task_worker *longest_idle(const struct tasks_runner *r) {
    struct task_worker *best = NULL;
    for (unsigned i = 0; i < r->n_workers; i++) {
        struct task_worker *w = r->workers[i];
        assert(w);
        if (is_idle(w) && (!best || w->moved_ns <= best->moved_ns))
            best = w;
    }
    return best;
}

static void scale(struct tasks_runner *r, uint64_t now_ns) {
    struct task_worker *idle = longest_idle(r);
    struct scale_inputs in = {.workers = r->n_workers,
                              .min = r->options.workers_min,
                              .max = r->options.workers_max,
                              .waited_ms = waited_ms(r),
                              .since_ms = (now_ns - r->scaled_ns) / RUNNER_NS_PER_MS};
    in.idle_ms = idle ? (now_ns - idle->moved_ns) / RUNNER_NS_PER_MS : 0;
    for (unsigned i = 0; i < r->n_workers; i++)
        in.idle += is_idle(r->workers[i]);
    switch (scale_decide(&in)) {
    case SCALE_UP:
        pool_start_worker(r, now_ns);
        break;
    case SCALE_DOWN:
        pool_dismiss(idle, now_ns);
        break;
    case SCALE_KEEP:
        break;
    }
}

/* ---- Turns ---- */

static unsigned busy_workers(const struct tasks_runner *r) {
    unsigned busy = 0;
    for (unsigned i = 0; i < r->n_workers; i++)
        busy += r->workers[i]->n > 0;
    return busy;
}

static uint64_t turn_ms(struct tasks_runner *r) {
    uint64_t lease_ms = r->options.lease_ms / 4;
    uint64_t most_ms = lease_ms < TURN_IDLE_MS ? lease_ms + 1 : TURN_IDLE_MS;
    if (!outbox_is_empty(&r->outbox))
        return TURN_REFUSED_MS;
    for (unsigned i = 0; i < r->n_workers; i++)
        if (r->workers[i]->n > 0 || r->workers[i]->kill_ns != UINT64_MAX)
            return TURN_BUSY_MS;
    if (r->held || r->n_workers < r->options.workers_min || r->stop_ns)
        return TURN_BUSY_MS;
    uint64_t due_us = r->tasks.ops->next_due_us(r->tasks.store), now_us = os_wall_us(r->os);
    uint64_t due_ms = due_us <= now_us ? 0 : (due_us - now_us) / 1000 + 1;
    return due_ms < most_ms ? due_ms : most_ms;
}

static void fill_pollfds(struct tasks_runner *r) {
    r->pollfds[0] = (struct pollfd){.fd = r->wake.fd, .events = POLLIN};
    for (unsigned i = 0; i < r->n_workers; i++) {
        const struct task_worker *w = r->workers[i];
        short out = w->out_sent < w->out.size ? POLLOUT : 0;
        r->pollfds[1 + 2 * i] = (struct pollfd){.fd = w->socket, .events = (short)(POLLIN | out)};
        r->pollfds[2 + 2 * i] =
            (struct pollfd){.fd = w->child.pid ? w->child.fd : -1, .events = POLLIN};
    }
}

/* Waits, and hears the workers that were there before. */
static void listen_to_workers(struct tasks_runner *r) {
    unsigned n = r->n_workers;
    fill_pollfds(r);
    int ready = socket_poll(r->pollfds, 1 + 2 * (size_t)n, (int)turn_ms(r));
    uint64_t now_ns = os_monotonic_ns(r->os);
    atomic_store(&r->round_ns, now_ns);
    if (ready < 0) /* memory is out, even for poll */
        os_sleep_ns(r->os, (uint64_t)TURN_BUSY_MS * RUNNER_NS_PER_MS);
    if (ready <= 0)
        return;
    if (r->pollfds[0].revents)
        event_clear(&r->wake);
    for (unsigned i = 0; i < n; i++)
        pool_serve(r, r->workers[i], r->pollfds[1 + 2 * i].revents,
                   r->pollfds[2 + 2 * i].revents != 0, now_ns);
}

static void begin_stop(struct tasks_runner *r, uint64_t now_ns) {
    r->stop_ns = now_ns + atomic_load(&r->grace_ms) * RUNNER_NS_PER_MS;
    if (r->held)
        runner_drop_held(r);
    for (unsigned i = 0; i < r->n_workers; i++)
        for (struct attempt *a = r->workers[i]->first; a; a = a->next)
            pool_stop_attempt(r->workers[i], a, STOP_SERVER, r->stop_ns);
}

static void turn(struct tasks_runner *r) {
    listen_to_workers(r);
    uint64_t now_ns = os_monotonic_ns(r->os);
    heed_notes(r, now_ns);
    if (atomic_load(&r->stopping) && !r->stop_ns)
        begin_stop(r, now_ns);
    for (unsigned i = 0; i < r->n_workers; i++)
        pool_check(r, r->workers[i], now_ns);
    lease_renew(r, now_ns);
    outbox_send(&r->outbox, r->journal);
    pool_sweep(r);
    if (!r->stop_ns && outbox_is_empty(&r->outbox)) {
        hand_out(r, now_ns);
        scale(r, now_ns);
    }
    for (unsigned i = 0; i < r->n_workers; i++)
        pool_flush(r, r->workers[i], now_ns);
    unsigned busy = busy_workers(r);
    atomic_store(&r->shown_workers, r->n_workers);
    atomic_store(&r->shown_busy, busy);
    metric_set(r->metric_workers, r->n_workers);
    metric_set(r->metric_busy, busy);
}

/* The rest of the way: all let go, the last records brought to the journal. */
static void end_turns(struct tasks_runner *r) {
    uint64_t now_ns = os_monotonic_ns(r->os);
    for (unsigned i = 0; i < r->n_workers; i++)
        pool_dismiss(r->workers[i], now_ns);
    while (r->n_workers > 0)
        turn(r);
    uint64_t end_ns = os_monotonic_ns(r->os) + (uint64_t)FLUSH_MS * RUNNER_NS_PER_MS;
    while (!outbox_is_empty(&r->outbox) && os_monotonic_ns(r->os) < end_ns) {
        os_sleep_ns(r->os, (uint64_t)TURN_REFUSED_MS * RUNNER_NS_PER_MS);
        outbox_send(&r->outbox, r->journal);
    }
    lease_end(r);
}

static void run(void *argument) {
    struct tasks_runner *r = argument;
    while (!r->stop_ns || busy_workers(r) > 0)
        turn(r);
    end_turns(r);
    atomic_store(&r->round_ns, 0);
}

/* ---- Made and ended ---- */

static int look_up_metrics(struct tasks_runner *r, struct metrics *metrics) {
    r->metric_workers = metrics_series(metrics, METRIC_TASK_WORKERS);
    r->metric_busy = metrics_series(metrics, METRIC_TASK_WORKERS_BUSY);
    r->metric_starts = metrics_series(metrics, METRIC_TASK_WORKER_STARTS);
    r->metric_deaths = metrics_series(metrics, METRIC_TASK_WORKER_DEATHS);
    r->metric_seconds = calloc(task_handlers_n, sizeof(struct metric_series *));
    if (!r->metric_seconds)
        return error_origin(-ENOMEM);
    for (size_t i = 0; i < task_handlers_n; i++)
        r->metric_seconds[i] = metrics_series(metrics, METRIC_TASK_SECONDS, task_handlers[i]->type);
    return 0;
}

static int set_up(struct tasks_runner *r, struct metrics *metrics) {
    r->workers = calloc(r->options.workers_max, sizeof(struct task_worker *));
    r->pollfds = calloc(1 + 2 * (size_t)r->options.workers_max, sizeof *r->pollfds);
    r->known = calloc(r->options.workers_max, sizeof *r->known);
    if (!r->workers || !r->pollfds || !r->known)
        return error_origin(-ENOMEM);
    process_host_name(r->host, sizeof r->host);
    int result = look_up_metrics(r, metrics);
    if (!result)
        result = os_random(r->os, &r->random, sizeof r->random);
    (void)snprintf(r->mark, sizeof r->mark, CHILD_MARK "%016" PRIx64, r->random);
    return result;
}

static void tear_down(struct tasks_runner *r) {
    free(r->workers);
    free(r->pollfds);
    free(r->known);
    free(r->metric_seconds);
    outbox_deinit(&r->outbox);
    buffer_deinit(&r->ended);
    mutex_deinit(&r->lock);
    event_deinit(&r->wake);
    free(r);
}

int tasks_runner_new(struct os *os, struct tasks_backend tasks, struct journal *j, struct log *log,
                     struct metrics *metrics, const struct tasks_runner_options *options,
                     struct tasks_runner **ret_runner) {
    assert(options->workers_max >= 1 && options->workers_min <= options->workers_max);
    struct tasks_runner *r = calloc(1, sizeof *r);
    if (!r)
        return error_origin(-ENOMEM);
    *r = (struct tasks_runner){.os = os,
                               .tasks = tasks,
                               .journal = j,
                               .log = log,
                               .options = *options,
                               .retry_ms = RETRY_MS};
    if (!r->options.lease_ms)
        r->options.lease_ms = LEASE_MS;
    int result = event_init(&r->wake);
    if (result) {
        free(r);
        return error_trace(result);
    }
    mutex_init(&r->lock, LOCK_RANK_TASK_RUNNER);
    outbox_init(&r->outbox, os);
    result = set_up(r, metrics);
    if (result) {
        tear_down(r);
        return error_fold(result);
    }
    r->listener = (struct tasks_listener){
        .queued = told_queued, .cancelled = told_cancelled, .fenced = told_fenced};
    tasks.ops->listen(tasks.store, &r->listener);
    *ret_runner = r;
    return 0;
}

struct tasks_runner *tasks_runner_free(struct tasks_runner *r) {
    if (r) {
        assert(!r->thread && r->n_workers == 0 && !r->held);
        tear_down(r);
    }
    return NULL;
}

/* What ran when the server last ended: nobody's fault, and with what it had saved. */
static void release(void *context, const struct task *task) {
    struct tasks_runner *r = context;
    const struct task_record record = {.op = TASK_OP_RELEASE,
                                       .id = task->id,
                                       .attempt = task->attempts,
                                       .current = task->current,
                                       .total = task->total};
    outbox_add(&r->outbox, &record);
}

int tasks_runner_start(struct tasks_runner *r, const char *url, const char *key) {
    assert(!r->thread);
    r->options.settings.imports.url = url;
    r->options.settings.imports.key = key;
    int result = child_adopt_strays();
    if (result)
        return error_fold(result);
    if (r->tasks.ops->each_running)
        result = r->tasks.ops->each_running(r->tasks.store, release, r);
    if (result)
        return error_fold(result);
    r->started_us = os_wall_us(r->os);
    atomic_store(&r->round_ns, os_monotonic_ns(r->os));
    return error_fold(os_thread_start(r->os, "task-runner", run, r, &r->thread));
}

void tasks_runner_stop(struct tasks_runner *r, uint64_t grace_ms) {
    if (!r->thread)
        return;
    atomic_store(&r->grace_ms, grace_ms);
    atomic_store(&r->stopping, true);
    event_signal(&r->wake);
    os_thread_join(r->os, r->thread);
    r->thread = NULL;
}

const struct task_settings *tasks_runner_settings(const struct tasks_runner *r) {
    return &r->options.settings;
}

bool tasks_runner_progress(struct tasks_runner *r, struct task_id id, uint32_t attempt,
                           uint64_t *ret_current, uint64_t *ret_total) {
    bool found = false;
    mutex_lock(&r->lock);
    for (unsigned i = 0; i < r->n_workers && !found; i++) {
        const struct task_worker *w = r->workers[i];
        if (!w->shown.any || w->shown.key != id.key || w->shown.attempt != attempt)
            continue;
        *ret_current = w->shown.current;
        *ret_total = w->shown.total;
        found = true;
    }
    mutex_unlock(&r->lock);
    return found;
}

void tasks_runner_status(struct tasks_runner *r, struct tasks_runner_status *ret_status) {
    uint64_t round_ns = atomic_load(&r->round_ns), now_ns = os_monotonic_ns(r->os);
    *ret_status = (struct tasks_runner_status){.workers = atomic_load(&r->shown_workers),
                                               .busy = atomic_load(&r->shown_busy),
                                               .died = atomic_load(&r->died),
                                               .stalled = round_ns && now_ns > round_ns &&
                                                          now_ns - round_ns > (uint64_t)STALLED_MS *
                                                                                  RUNNER_NS_PER_MS};
}
