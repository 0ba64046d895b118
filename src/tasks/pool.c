/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Worker processes. Whatever ends one goes the same way: its socket is closed, so that nothing it
 * says counts any more; it is killed with its group; once it is gone, what it had in hand is
 * resolved, and what it left behind is killed.
 *
 * The first task in hand counts as begun when a worker dies, for its BEGAN may not have been sent:
 * else a task that kills its worker at once would be run for ever. A worker that never said a word
 * did not come to that, and is started again after a pause that grows.
 */
#include "tasks/runner_parts.h"

#include "tasks/worker.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    AHEAD_NS = 10 * RUNNER_NS_PER_MS,
    RECALL_NS = 20 * RUNNER_NS_PER_MS,
    STOP_NS = 500 * RUNNER_NS_PER_MS,
    BURY_NS = 1000 * RUNNER_NS_PER_MS, /* after which a killed process no longer counts */
    ALIVE_MS = 1000,
    ALIVE_IN_LEASE = 4, /* at least so often in a lease */
    START_PAUSE_MS = 100,
    START_DOUBLINGS_MAX = 7,
    READ_BYTES = 64 << 10,
};

/* ---- Start ---- */

static struct bytes text_of(const char *setting) {
    return bytes_of_string(setting ? setting : "");
}

static void greet(const struct tasks_runner *r, struct task_worker *w) {
    const struct task_settings *s = &r->options.settings;
    uint64_t alive_ms = r->options.lease_ms / ALIVE_IN_LEASE;
    const struct wire_hello hello = {
        .alive_ms = alive_ms < ALIVE_MS ? (uint32_t)alive_ms : ALIVE_MS,
        .commands = text_of(s->commands),
        .import_directory = text_of(s->imports.directory),
        .import_hosts = text_of(s->imports.hosts),
        .url = text_of(s->imports.url),
        .key = text_of(s->imports.key),
        .import_max_bytes = s->imports.max_bytes,
    };
    wire_append_hello(&w->out, &hello);
}

static int start_process(const struct tasks_runner *r, struct task_worker *w) {
    static const char *const arguments[] = {"millrace", TASK_WORKER_COMMAND, NULL};
    int theirs = -1;
    int result = child_socket_pair(&w->socket, &theirs);
    if (result)
        return error_trace(result);
    const struct child_options options = {.program = r->options.program,
                                          .arguments = arguments,
                                          .mark = r->mark,
                                          .files = {-1, -1, -1, theirs}};
    result = child_start(&options, &w->child);
    child_close(theirs);
    if (result)
        child_close(w->socket);
    return error_trace(result);
}

static struct task_worker *worker_new(const struct tasks_runner *r, uint64_t now_ns) {
    struct task_worker *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    greet(r, w);
    if (w->out.failed || start_process(r, w)) {
        buffer_deinit(&w->out);
        free(w);
        return NULL;
    }
    (void)snprintf(w->name, sizeof w->name, "%s:%" PRIu64, r->host, w->child.pid);
    w->kill_ns = UINT64_MAX;
    w->heard_ns = w->moved_ns = now_ns;
    w->mean_ns = AHEAD_NS;
    return w;
}

static void failed_to_start(struct tasks_runner *r, uint64_t now_ns) {
    unsigned doublings =
        r->failed_starts < START_DOUBLINGS_MAX ? r->failed_starts : START_DOUBLINGS_MAX;
    r->failed_starts++;
    r->start_ns = now_ns + ((uint64_t)START_PAUSE_MS << doublings) * RUNNER_NS_PER_MS;
}

void pool_start_worker(struct tasks_runner *r, uint64_t now_ns) {
    if (now_ns < r->start_ns || r->n_workers == r->options.workers_max)
        return;
    r->scaled_ns = now_ns;
    struct task_worker *w = worker_new(r, now_ns);
    if (!w) {
        if (r->log && r->failed_starts == 0)
            log_write(r->log, LOG_ERROR, "a task worker cannot be started", NULL, 0);
        failed_to_start(r, now_ns);
        return;
    }
    metric_add(r->metric_starts, 1);
    mutex_lock(&r->lock);
    r->workers[r->n_workers++] = w;
    mutex_unlock(&r->lock);
}

/* ---- The hand ---- */

/* Tasks that several processes made may have the same key; but one at most has begun. */
static struct attempt *find_in_hand(const struct task_worker *w, const struct wire_frame *f) {
    bool begun = f->message == WIRE_PROGRESS || f->message == WIRE_ENDED;
    struct attempt *a = w->first;
    while (a && (a->ref.task.id.key != f->key || a->number != f->attempt || a->begun != begun))
        a = a->next;
    return a;
}

static void take_from_hand(struct task_worker *w, struct attempt *a) {
    struct attempt **at = &w->first;
    w->last = NULL;
    while (*at) {
        if (*at == a) {
            *at = a->next;
            w->n--;
        } else {
            w->last = *at;
            at = &(*at)->next;
        }
    }
    if (w->n <= 1)
        w->recalled = false;
}

bool pool_give(struct task_worker *w, struct attempt *a, uint64_t now_ns) {
    const struct task *t = &a->ref.task;
    const struct wire_run run = {t->request.type, t->request.args, t->saved};
    size_t before = w->out.size;
    wire_append_run(&w->out, t->id.key, a->number, &run);
    if (w->out.failed) {
        w->out.failed = false;
        w->out.size = before;
        return false;
    }
    if (w->n == 0)
        w->moved_ns = now_ns;
    if (w->last)
        w->last->next = a;
    else
        w->first = a;
    w->last = a;
    w->n++;
    return true;
}

static bool is_leaving(const struct task_worker *w) {
    return w->kill_ns != UINT64_MAX;
}

unsigned pool_room(const struct task_worker *w) {
    if (is_leaving(w) || w->recalled || (!w->heard && w->n > 0))
        return 0;
    uint64_t ahead = AHEAD_NS / (w->mean_ns + 1);
    ahead = ahead < 1 ? 1 : ahead > AHEAD_MAX ? AHEAD_MAX : ahead;
    return w->n < ahead ? (unsigned)ahead - w->n : 0;
}

static void append_plain(struct task_worker *w, enum wire_message message,
                         const struct attempt *a) {
    wire_end(&w->out, wire_begin(&w->out, message, a ? a->ref.task.id.key : 0, a ? a->number : 0));
}

void pool_stop_attempt(struct task_worker *w, struct attempt *a, enum attempt_stop why,
                       uint64_t deadline_ns) {
    if (a->stop == STOP_NOT)
        append_plain(w, WIRE_STOP, a);
    /* What says that the attempt is void is stronger than what only ends it. */
    if (a->stop != STOP_CANCELLED && a->stop != STOP_FENCED)
        a->stop = why;
    a->deadline_ns = deadline_ns < a->deadline_ns ? deadline_ns : a->deadline_ns;
}

/* ---- What it says ---- */

static void show(struct tasks_runner *r, struct task_worker *w, const struct attempt *a) {
    mutex_lock(&r->lock);
    w->shown.any = a != NULL;
    if (a) {
        w->shown.key = a->ref.task.id.key;
        w->shown.attempt = a->number;
        w->shown.current = a->current;
        w->shown.total = a->total;
    }
    mutex_unlock(&r->lock);
}

static void drop(struct tasks_runner *r, struct task_worker *w, struct attempt *a) {
    take_from_hand(w, a);
    if (w->shown.any && w->shown.key == a->ref.task.id.key && w->shown.attempt == a->number)
        show(r, w, NULL);
    attempt_free(a);
}

static void give_back(struct tasks_runner *r, struct task_worker *w, struct attempt *a) {
    r->tasks.ops->give_back(r->tasks.store, &a->ref);
    drop(r, w, a);
}

static bool hear_progress(struct tasks_runner *r, struct task_worker *w, struct attempt *a,
                          struct bytes body, uint64_t now_ns) {
    struct wire_progress progress;
    if (!wire_read_progress(body, &progress))
        return false;
    attempt_progress(a, &progress);
    attempt_save(r, a, now_ns);
    show(r, w, a);
    return true;
}

static bool hear_end(struct tasks_runner *r, struct task_worker *w, struct attempt *a,
                     struct bytes body, uint64_t now_ns) {
    struct wire_ended ended;
    if (!wire_read_ended(body, &ended))
        return false;
    attempt_end(r, a, &ended, now_ns);
    drop(r, w, a);
    return true;
}

/* False: it says what it cannot say. */
static bool hear_frame(struct tasks_runner *r, struct task_worker *w, const struct wire_frame *f,
                       uint64_t now_ns) {
    if (f->message == WIRE_ALIVE)
        return true;
    struct attempt *a = find_in_hand(w, f);
    if (!a)
        return false;
    switch (f->message) {
    case WIRE_BEGAN:
        if (a != w->first)
            return false;
        attempt_begin(r, w, a, now_ns);
        return true;
    case WIRE_PROGRESS:
        return hear_progress(r, w, a, f->body, now_ns);
    case WIRE_ENDED:
        return hear_end(r, w, a, f->body, now_ns);
    case WIRE_RETURNED:
        give_back(r, w, a);
        return true;
    default:
        return false;
    }
}

/* The mean follows what a read brings: frames of short tasks come many at a time. */
static void measure(struct task_worker *w, unsigned n_before, bool moved, uint64_t now_ns) {
    if (n_before > w->n)
        w->mean_ns = (3 * w->mean_ns + (now_ns - w->moved_ns) / (n_before - w->n)) / 4;
    if (moved || n_before > w->n)
        w->moved_ns = now_ns;
}

static void hear(struct tasks_runner *r, struct task_worker *w, uint64_t now_ns) {
    struct wire_frame frame;
    size_t at = 0;
    unsigned n_before = w->n;
    bool understood = true, moved = false;
    int result = 0;
    while (understood && (result = wire_next(buffer_bytes(&w->in), &at, &frame)) == 0) {
        moved = moved || frame.message == WIRE_BEGAN;
        understood = hear_frame(r, w, &frame, now_ns);
    }
    memmove(w->in.data, w->in.data + at, w->in.size - at);
    w->in.size -= at;
    measure(w, n_before, moved, now_ns);
    if (!understood || result < 0)
        pool_kill(w, now_ns, "said what it cannot say, and was killed");
}

/* Reads once, or, when the process has ended, all there is. */
static void receive(struct tasks_runner *r, struct task_worker *w, bool ended, uint64_t now_ns) {
    do {
        size_t n = 0;
        uint8_t *to = buffer_reserve(&w->in, READ_BYTES);
        if (!to) {
            w->in.failed = false; /* what was received is there still */
            return;
        }
        int result = socket_read(w->socket, to, READ_BYTES, &n);
        if (result == OS_E_AGAIN)
            return;
        if (result) {
            pool_kill(w, now_ns, "ended");
            return;
        }
        w->in.size += n;
        w->heard = true;
        w->heard_ns = now_ns;
        r->failed_starts = 0;
        hear(r, w, now_ns);
    } while (ended && w->socket >= 0);
}

void pool_flush(struct tasks_runner *r, struct task_worker *w, uint64_t now_ns) {
    (void)r;
    if (w->out.failed)
        pool_kill(w, now_ns, "could not be told anything, and was killed");
    while (w->socket >= 0 && w->out_sent < w->out.size) {
        size_t n = 0;
        int result =
            socket_write(w->socket, w->out.data + w->out_sent, w->out.size - w->out_sent, &n);
        if (result)
            return; /* a worker that is gone is seen by its other descriptor */
        w->out_sent += n;
    }
    buffer_clear(&w->out);
    w->out_sent = 0;
}

/* ---- Its end ---- */

static void close_socket(struct task_worker *w) {
    if (w->socket >= 0)
        child_close(w->socket);
    w->socket = -1;
}

void pool_kill(struct task_worker *w, uint64_t now_ns, const char *why) {
    if (!w->why[0])
        (void)snprintf(w->why, sizeof w->why, "%s", why);
    close_socket(w);
    if (w->child.pid)
        child_kill(&w->child);
    if (w->kill_ns == UINT64_MAX || w->dismissed)
        w->kill_ns = now_ns + BURY_NS;
    w->dismissed = false;
}

void pool_dismiss(struct task_worker *w, uint64_t now_ns) {
    assert(w->n == 0);
    if (is_leaving(w))
        return;
    close_socket(w); /* by which it ends itself */
    w->dismissed = true;
    w->kill_ns = now_ns + BURY_NS;
}

/* Resolves what it has in hand. */
static void lose(struct tasks_runner *r, struct task_worker *w, uint64_t now_ns, const char *why) {
    if (w->lost)
        return;
    w->lost = true;
    struct attempt *first = w->first;
    if (first && w->heard && !first->begun && first->stop == STOP_NOT)
        attempt_begin(r, w, first, now_ns);
    while (w->first) {
        struct attempt *a = w->first;
        if (!a->begun) {
            give_back(r, w, a);
            continue;
        }
        attempt_die(r, a, why);
        drop(r, w, a);
    }
    if (w->dismissed)
        return;
    metric_add(r->metric_deaths, 1);
    atomic_fetch_add(&r->died, 1);
    if (!w->heard)
        failed_to_start(r, now_ns);
    if (r->log && !atomic_load(&r->stopping))
        log_line(r->log, LOG_WARN, "a task worker died", LOG_TEXT("worker", w->name),
                 LOG_TEXT("why", why));
}

static void say_end(const struct task_worker *w, const struct child_end *end, char *out,
                    size_t size) {
    char name[16];
    if (w->why[0] && strcmp(w->why, "ended") != 0)
        (void)snprintf(out, size, "%s", w->why);
    else if (end->signal)
        (void)snprintf(out, size, "was ended by %s", child_signal_name(end->signal, name));
    else
        (void)snprintf(out, size, "ended with status %d", end->status);
}

/* Kills what it left behind: all that descends from us and from no other worker. */
static void kill_strays(const struct tasks_runner *r) {
    size_t n = 0;
    for (unsigned i = 0; i < r->n_workers; i++)
        if (r->workers[i]->child.pid)
            r->known[n++] = r->workers[i]->child.pid;
    int result = child_kill_strays(r->known, n, r->mark);
    (void)result; /* memory is out: they are found at the next death */
}

static void bury(struct tasks_runner *r, struct task_worker *w, uint64_t now_ns) {
    struct child_end end;
    char why[sizeof w->why];
    int result = child_ended(&w->child, &end);
    if (result == OS_E_AGAIN)
        return;
    if (result) /* somebody else waited for it: its end is all that is known */
        end = (struct child_end){.status = 1};
    w->child.pid = 0;
    close_socket(w);
    say_end(w, &end, why, sizeof why);
    lose(r, w, now_ns, why);
    kill_strays(r);
}

void pool_serve(struct tasks_runner *r, struct task_worker *w, short socket_ready, bool ended,
                uint64_t now_ns) {
    if (w->socket >= 0 && (ended || (socket_ready & (POLLIN | POLLHUP | POLLERR))))
        receive(r, w, ended, now_ns);
    if (ended)
        bury(r, w, now_ns);
}

static void worker_free(struct task_worker *w) {
    assert(!w->first && w->socket < 0 && !w->child.pid);
    buffer_deinit(&w->in);
    buffer_deinit(&w->out);
    free(w);
}

void pool_sweep(struct tasks_runner *r) {
    mutex_lock(&r->lock);
    for (unsigned i = 0; i < r->n_workers;) {
        struct task_worker *w = r->workers[i];
        if (w->child.pid) {
            i++;
            continue;
        }
        r->n_workers--;
        memmove(&r->workers[i], &r->workers[i + 1],
                (r->n_workers - i) * sizeof(struct task_worker *));
        worker_free(w);
    }
    mutex_unlock(&r->lock);
}

/* ---- What is due ---- */

static void check_leaving(struct tasks_runner *r, struct task_worker *w, uint64_t now_ns) {
    if (now_ns < w->kill_ns)
        return;
    if (w->dismissed)
        pool_kill(w, now_ns, "did not leave, and was killed");
    else
        lose(r, w, now_ns, w->why); /* it does not even die: its tasks cannot wait for that */
}

static void check_first(struct tasks_runner *r, struct task_worker *w, uint64_t now_ns) {
    struct attempt *a = w->first;
    attempt_save(r, a, now_ns);
    if (now_ns >= a->deadline_ns && a->stop == STOP_NOT) {
        a->deadline_ns = UINT64_MAX;
        pool_stop_attempt(w, a, STOP_TIMEOUT, now_ns + STOP_NS);
    } else if (now_ns >= a->deadline_ns && w->heard) {
        pool_kill(w, now_ns, "did not stop its task, and was killed");
        return;
    }
    if (w->n > 1 && w->heard && !w->recalled && now_ns - w->moved_ns >= RECALL_NS) {
        append_plain(w, WIRE_RECALL, NULL);
        w->recalled = true;
        w->mean_ns = now_ns - w->moved_ns;
    }
}

void pool_check(struct tasks_runner *r, struct task_worker *w, uint64_t now_ns) {
    char why[64];
    if (is_leaving(w)) {
        check_leaving(r, w, now_ns);
        return;
    }
    if (now_ns - w->heard_ns > r->options.lease_ms * RUNNER_NS_PER_MS) {
        (void)snprintf(why, sizeof why, "was silent for %" PRIu64 " ms, and was killed",
                       r->options.lease_ms);
        pool_kill(w, now_ns, why);
        return;
    }
    if (w->first)
        check_first(r, w, now_ns);
}
