/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sending: each thread drives its connections with poll; each connection has one request under way.
 *
 *   idle ─ take a batch ─▶ due ─ its time has come ─▶ busy ─ 2xx ─▶ idle
 *                           ▲                          │ 429, 503: after Retry-After, the same body
 *                           └──────────────────────────┤ connection lost: after a while, likewise
 *                                                      └ anything else: an error, idle
 *
 * When it is to stop, what is idle or due ends, and only the answers under way are waited for.
 *
 * A write whose connection was lost may have been taken; sending it again is harmless, as the same
 * ids get the same contents. With a rate, latency counts from when a request was due, so that a
 * server that stalls is charged for the requests it held up.
 */
#include "cli/load.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum {
    HEAD_MAX = 8 << 10,
    LOST_MAX = 20,        /* attempts at one request */
    LOST_WAIT_MS = 100,   /* times the attempt */
    RETRY_WAIT_MS = 1000, /* without Retry-After */
    RETRY_MAX_MS = 10000,
    REFUSED_MAX = 300, /* 429s and 503s of one request */
    ERRORS_MAX = 100,  /* then all threads stop */
    POLL_MAX_MS = 1000,
};

enum connection_state { LOAD_IDLE, LOAD_DUE, LOAD_BUSY, LOAD_ENDED };

struct connection {
    struct client client;
    enum connection_state state;
    struct buffer request;
    struct bytes text; /* head and body within request */
    uint64_t records;
    uint64_t due_ns;   /* when to send */
    uint64_t begin_ns; /* what latency counts from; 0: set when it is first sent */
    unsigned lost;     /* connections, over this request */
    unsigned refused;  /* 429 and 503, of this request */
};

struct load_thread {
    struct load_run *run;
    struct os_thread *thread;
    struct connection *connections;
    struct pollfd *polls;
    size_t n;
    struct load_result result;
    _Atomic bool ended;
};

struct load_run {
    struct load_plan plan;
    struct load_progress progress;
    struct load_thread *threads;
    unsigned n;
    struct load_result total;
};

static uint64_t now_ns(const struct load_thread *t) {
    return os_monotonic_ns(t->run->plan.os);
}

/* ---- Errors ---- */

static void take_error(struct load_thread *t, unsigned status, struct bytes text) {
    struct load_progress *progress = &t->run->progress;
    t->result.statuses[status]++;
    if (!t->result.sample[0])
        snprintf(t->result.sample, sizeof t->result.sample, "%.*s",
                 (int)(text.size < LOAD_SAMPLE_MAX ? text.size : LOAD_SAMPLE_MAX - 1),
                 (const char *)text.data);
    if (atomic_fetch_add(&progress->errors, 1) + 1 >= ERRORS_MAX)
        atomic_store(&progress->stop, true);
}

/* ---- Requests ---- */

/* The head needs the body's size, so room is left for it and it is laid right before the body. */
static void make_request(const struct load_thread *t, struct connection *c, uint64_t first) {
    const struct load_plan *plan = &t->run->plan;
    struct buffer head CLEANUP(buffer_deinit) = BUFFER_INIT;
    buffer_clear(&c->request);
    if (!buffer_reserve(&c->request, HEAD_MAX))
        return;
    c->request.size = HEAD_MAX;
    load_append_body(plan->source, first, c->records, &c->request);
    client_append_head(&head, &plan->target, plan->source->method, plan->source->path,
                       c->request.size - HEAD_MAX);
    if (buffer_check(&head) || buffer_check(&c->request))
        return;
    assert(head.size <= HEAD_MAX);
    uint8_t *start = c->request.data + HEAD_MAX - head.size;
    memcpy(start, head.data, head.size);
    c->text = bytes_of(start, c->request.size - HEAD_MAX + head.size);
}

/* Takes the next records that nobody has; false when there are none. */
static bool take_batch(struct load_thread *t, struct connection *c) {
    const struct load_plan *plan = &t->run->plan;
    struct load_progress *progress = &t->run->progress;
    if (atomic_load(&progress->stop))
        return false;
    uint64_t first = atomic_fetch_add(&progress->next, plan->source->batch);
    if (first >= plan->source->count)
        return false;
    uint64_t left = plan->source->count - first;
    c->records = left < plan->source->batch ? left : plan->source->batch;
    c->lost = 0;
    c->refused = 0;
    c->begin_ns = 0;
    c->due_ns = 0;
    if (plan->rate > 0) {
        c->due_ns = progress->start_ns + (uint64_t)((double)first * 1e9 / (double)plan->rate);
        c->begin_ns = c->due_ns;
    }
    c->text = bytes_of(NULL, 0);
    make_request(t, c, first);
    return true;
}

static void lose(struct load_thread *t, struct connection *c, int r) {
    if (++c->lost < LOST_MAX && r == CLIENT_E_CLOSED && !atomic_load(&t->run->progress.stop)) {
        c->due_ns = now_ns(t) + (uint64_t)c->lost * LOST_WAIT_MS * 1000000;
        c->state = LOAD_DUE;
        return;
    }
    take_error(t, 0, bytes_of_string(client_reason(r)));
    c->state = LOAD_IDLE;
}

static void send_request(struct load_thread *t, struct connection *c) {
    if (c->text.size == 0) {
        take_error(t, 0, BYTES_LITERAL("out of memory"));
        c->state = LOAD_IDLE;
        return;
    }
    if (c->begin_ns == 0)
        c->begin_ns = now_ns(t);
    int r = client_begin(&c->client, c->text);
    if (r)
        lose(t, c, r);
    else
        c->state = LOAD_BUSY;
}

/* ---- Answers ---- */

/* "task_id":"…" of an answer; the server's own JSON, so looking for it is enough. */
static void take_task(struct load_thread *t, struct bytes body) {
    static const char key[] = "\"task_id\":\"";
    const uint8_t *at = memmem(body.data, body.size, key, sizeof key - 1);
    if (!at)
        return;
    at += sizeof key - 1;
    const uint8_t *end = memchr(at, '"', (size_t)(body.data + body.size - at));
    if (!end)
        return;
    buffer_append(&t->result.tasks, at, (size_t)(end - at));
    buffer_append_u8(&t->result.tasks, 0);
}

static void take_acknowledgement(struct load_thread *t, struct connection *c,
                                 const struct client_answer *answer) {
    uint64_t now = now_ns(t);
    t->result.statuses[answer->status]++;
    t->result.last_ns = now;
    histogram_record(&t->result.latency, now > c->begin_ns ? now - c->begin_ns : 0);
    atomic_fetch_add_explicit(&t->run->progress.acknowledged, c->records, memory_order_relaxed);
    if (t->run->plan.source->makes_tasks)
        take_task(t, answer->body);
    c->state = LOAD_IDLE;
}

static void wait_as_told(struct load_thread *t, struct connection *c,
                         const struct client_answer *answer) {
    uint64_t wait_ms = answer->retry_after_ms ? answer->retry_after_ms : RETRY_WAIT_MS;
    if (wait_ms > RETRY_MAX_MS)
        wait_ms = RETRY_MAX_MS;
    t->result.statuses[answer->status]++;
    atomic_fetch_add_explicit(&t->run->progress.throttled, 1, memory_order_relaxed);
    c->due_ns = now_ns(t) + wait_ms * 1000000;
    c->state = LOAD_DUE;
}

static void take_answer(struct load_thread *t, struct connection *c,
                        const struct client_answer *answer) {
    if (answer->status >= 200 && answer->status < 300)
        take_acknowledgement(t, c, answer);
    else if ((answer->status == 429 || answer->status == 503) && ++c->refused < REFUSED_MAX)
        wait_as_told(t, c, answer);
    else {
        take_error(t, answer->status, answer->body);
        c->state = LOAD_IDLE;
    }
}

static void go_on(struct load_thread *t, struct connection *c) {
    struct client_answer answer;
    int r = client_step(&c->client, &answer);
    if (r == CLIENT_E_MORE)
        return;
    if (r)
        lose(t, c, r);
    else
        take_answer(t, c, &answer);
}

/* ---- A thread ---- */

/* Brings a connection as far as it goes without waiting. */
static void advance(struct load_thread *t, struct connection *c) {
    if (c->state == LOAD_IDLE)
        c->state = take_batch(t, c) ? LOAD_DUE : LOAD_ENDED;
    if (c->state == LOAD_DUE && atomic_load(&t->run->progress.stop))
        c->state = LOAD_ENDED;
    if (c->state == LOAD_DUE && now_ns(t) >= c->due_ns)
        send_request(t, c);
}

/* How long the thread may sleep: until the first request is due. */
static int poll_timeout_ms(const struct load_thread *t) {
    uint64_t now = now_ns(t);
    uint64_t wait_ns = (uint64_t)POLL_MAX_MS * 1000000;
    for (size_t i = 0; i < t->n; i++) {
        const struct connection *c = &t->connections[i];
        if (c->state == LOAD_IDLE || (c->state == LOAD_DUE && c->due_ns <= now))
            return 0;
        if (c->state == LOAD_DUE && c->due_ns - now < wait_ns)
            wait_ns = c->due_ns - now;
    }
    return (int)((wait_ns + 999999) / 1000000);
}

static bool turn(struct load_thread *t) {
    size_t ended = 0;
    for (size_t i = 0; i < t->n; i++) {
        struct connection *c = &t->connections[i];
        advance(t, c);
        bool busy = c->state == LOAD_BUSY;
        t->polls[i] = (struct pollfd){.fd = busy ? c->client.fd : -1,
                                      .events = busy ? client_events(&c->client) : 0};
        ended += c->state == LOAD_ENDED;
    }
    if (ended == t->n)
        return false;
    if (socket_poll(t->polls, t->n, poll_timeout_ms(t)) < 0)
        return false;
    for (size_t i = 0; i < t->n; i++)
        if (t->polls[i].revents)
            go_on(t, &t->connections[i]);
    return true;
}

static void run_thread(void *argument) {
    struct load_thread *t = argument;
    while (turn(t))
        ;
    atomic_store(&t->ended, true);
}

/* ---- All threads ---- */

static int init_thread(struct load_run *run, struct load_thread *t, size_t n) {
    t->run = run;
    t->n = n;
    t->connections = calloc(n, sizeof *t->connections);
    t->polls = calloc(n, sizeof *t->polls);
    if (!t->connections || !t->polls)
        return error_origin(-ENOMEM);
    for (size_t i = 0; i < n; i++)
        client_init(&t->connections[i].client, &run->plan.address);
    return 0;
}

static int init_threads(struct load_run *run) {
    unsigned n =
        run->plan.threads < run->plan.connections ? run->plan.threads : run->plan.connections;
    run->threads = calloc(n, sizeof *run->threads);
    if (!run->threads)
        return error_origin(-ENOMEM);
    run->n = n;
    for (unsigned i = 0; i < n; i++) {
        size_t share = run->plan.connections / n + (i < run->plan.connections % n ? 1 : 0);
        int r = init_thread(run, &run->threads[i], share);
        if (r)
            return error_trace(r);
    }
    return 0;
}

int load_start(const struct load_plan *plan, struct load_run **ret_run) {
    struct load_run *run = calloc(1, sizeof *run);
    if (!run)
        return error_origin(-ENOMEM);
    run->plan = *plan;
    int r = init_threads(run);
    run->progress.start_ns = os_monotonic_ns(plan->os);
    for (unsigned i = 0; i < run->n && !r; i++)
        r = os_thread_start(plan->os, "load", run_thread, &run->threads[i],
                            &run->threads[i].thread);
    if (r) {
        atomic_store(&run->progress.stop, true);
        load_free(run);
        return error_trace(r);
    }
    *ret_run = run;
    return 0;
}

const struct load_progress *load_progress_of(const struct load_run *run) {
    return &run->progress;
}

void load_stop(struct load_run *run) {
    atomic_store(&run->progress.stop, true);
}

bool load_running(const struct load_run *run) {
    for (unsigned i = 0; i < run->n; i++)
        if (!atomic_load(&run->threads[i].ended))
            return true;
    return false;
}

static void add_up(struct load_result *total, const struct load_result *part) {
    for (size_t i = 0; i < LOAD_STATUSES; i++)
        total->statuses[i] += part->statuses[i];
    histogram_add(&total->latency, &part->latency);
    if (part->last_ns > total->last_ns)
        total->last_ns = part->last_ns;
    if (!total->sample[0])
        memcpy(total->sample, part->sample, sizeof total->sample);
    buffer_append_bytes(&total->tasks, buffer_bytes(&part->tasks));
}

const struct load_result *load_join(struct load_run *run) {
    for (unsigned i = 0; i < run->n; i++) {
        os_thread_join(run->plan.os, run->threads[i].thread);
        run->threads[i].thread = NULL;
        add_up(&run->total, &run->threads[i].result);
    }
    return &run->total;
}

struct load_run *load_free(struct load_run *run) {
    if (!run)
        return NULL;
    for (unsigned i = 0; i < run->n; i++) {
        struct load_thread *t = &run->threads[i];
        os_thread_join(run->plan.os, t->thread);
        for (size_t k = 0; t->connections && k < t->n; k++) {
            client_deinit(&t->connections[k].client);
            buffer_deinit(&t->connections[k].request);
        }
        free(t->connections);
        free(t->polls);
        buffer_deinit(&t->result.tasks);
    }
    buffer_deinit(&run->total.tasks);
    free(run->threads);
    free(run);
    return NULL;
}
