/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sending: each thread drives its connections; each has one request under way. A thread's turn
 * costs what is ready or due, not what there is: idle connections are a stack, those that wait for
 * their time a list in order of time, and sockets a set that remembers what is waited for.
 *
 *   idle ─ take a request ─▶ due ─ its time has come ─▶ busy ─ 2xx ─▶ idle
 *                             ▲                          │ 429, 503: after Retry-After, again
 *                             └──────────────────────────┤ connection lost: after a while, again
 *                                                        └ anything else: an error, idle
 *
 * When it is to stop, what is idle or due ends, and only the answers under way are waited for.
 *
 * A write whose connection was lost may have been taken. It is sent again only when the source says
 * that this is harmless; so is one that was answered 503 outcome_unknown. With a rate, latency
 * counts from when a request was due, so that a server that stalls is charged for the requests it
 * held up.
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
    STALE_MS = 30000, /* an idle connection, before the server might close it */
};

enum connection_state { LOAD_IDLE, LOAD_DUE, LOAD_BUSY, LOAD_ENDED };

struct connection {
    struct client client;
    short events; /* that the set waits for */
    enum connection_state state;
    struct connection *next;     /* idle, or due */
    struct connection *previous; /* due */
    struct load_request request;
    struct bytes text;    /* head and body within the request's text */
    uint64_t due_ns;      /* when to send */
    uint64_t begin_ns;    /* what latency counts from; 0: set when it is first sent */
    uint64_t answered_ns; /* when its last answer came */
    unsigned lost;        /* connections, over this request */
    unsigned refused;     /* 429 and 503, of this request */
};

struct load_thread {
    struct load_run *run;
    struct os_thread *thread;
    struct load_worker *worker;
    bool worker_ready;
    struct connection *connections;
    size_t n;
    size_t ended;
    struct connection *idle;
    struct connection *due_head; /* by due_ns */
    struct connection *due_tail;
    struct socket_set sockets;
    struct buffer head; /* of the request that is made */
    struct load_result result;
    _Atomic bool done;
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

/* ---- States ---- */

static void become_idle(struct load_thread *t, struct connection *c) {
    c->state = LOAD_IDLE;
    c->next = t->idle;
    t->idle = c;
}

/* Requests are taken in order of their time, so this is the end of the list but for those that are
 * sent again. */
static void become_due(struct load_thread *t, struct connection *c, uint64_t due_ns) {
    struct connection *before = t->due_tail;
    c->state = LOAD_DUE;
    c->due_ns = due_ns;
    while (before && before->due_ns > due_ns)
        before = before->previous;
    c->previous = before;
    c->next = before ? before->next : t->due_head;
    *(c->next ? &c->next->previous : &t->due_tail) = c;
    *(before ? &before->next : &t->due_head) = c;
}

static void become_ended(struct load_thread *t, struct connection *c) {
    c->state = LOAD_ENDED;
    t->ended++;
}

static struct connection *take_idle(struct load_thread *t) {
    struct connection *c = t->idle;
    t->idle = c->next;
    return c;
}

static struct connection *take_due(struct load_thread *t) {
    struct connection *c = t->due_head;
    t->due_head = c->next;
    *(c->next ? &c->next->previous : &t->due_tail) = NULL;
    return c;
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
static void lay_head(struct load_thread *t, struct connection *c) {
    struct buffer *head = &t->head;
    struct buffer *text = &c->request.text;
    buffer_clear(head);
    client_append_head(head, &t->run->plan.target,
                       &(struct client_head){.method = c->request.method,
                                             .path = c->request.path,
                                             .content_type = c->request.content_type,
                                             .body_size = text->size - HEAD_MAX});
    if (buffer_check(head) || buffer_check(text))
        return;
    assert(head->size <= HEAD_MAX);
    uint8_t *start = text->data + HEAD_MAX - head->size;
    memcpy(start, head->data, head->size);
    c->text = bytes_of(start, text->size - HEAD_MAX + head->size);
}

/* Asks the source for the next request; false when there are none. */
static bool take_request(struct load_thread *t, struct connection *c) {
    const struct load_plan *plan = &t->run->plan;
    struct load_request *request = &c->request;
    if (atomic_load(&t->run->progress.stop))
        return false;
    buffer_clear(&request->text);
    c->text = bytes_of(NULL, 0);
    if (!buffer_reserve(&request->text, HEAD_MAX))
        return false;
    request->text.size = HEAD_MAX;
    if (!plan->source->ops->take(t->worker, request))
        return false;
    c->lost = 0;
    c->refused = 0;
    c->due_ns = request->timed ? t->run->progress.start_ns + request->due_ns : 0;
    c->begin_ns = c->due_ns;
    lay_head(t, c);
    return true;
}

static void lose(struct load_thread *t, struct connection *c, int r) {
    if (c->request.repeatable && ++c->lost < LOST_MAX && r == CLIENT_E_CLOSED &&
        !atomic_load(&t->run->progress.stop)) {
        become_due(t, c, now_ns(t) + (uint64_t)c->lost * LOST_WAIT_MS * 1000000);
        return;
    }
    take_error(t, 0, bytes_of_string(client_reason(r)));
    become_idle(t, c);
}

static void go_on(struct load_thread *t, struct connection *c);

/* Has the set wait for what the client waits for; a fresh socket is not in it yet. */
static int watch(struct load_thread *t, struct connection *c, bool fresh) {
    short events = client_events(&c->client);
    if (!fresh && events == c->events)
        return 0;
    c->events = events;
    return (fresh ? socket_set_add : socket_set_change)(&t->sockets, c->client.fd, events, c);
}

static void send_request(struct load_thread *t, struct connection *c) {
    uint64_t now = now_ns(t);
    if (c->text.size == 0) {
        take_error(t, 0, BYTES_LITERAL("out of memory"));
        become_idle(t, c);
        return;
    }
    if (c->begin_ns == 0)
        c->begin_ns = now;
    if (now - c->answered_ns > (uint64_t)STALE_MS * 1000000)
        client_close(&c->client);
    c->state = LOAD_BUSY;
    bool fresh = c->client.state == CLIENT_CLOSED;
    int r = client_begin(&c->client, c->text);
    if (!r && fresh)
        r = watch(t, c, true);
    if (r) {
        client_close(&c->client);
        lose(t, c, r);
    } else if (!fresh) {
        go_on(t, c);
    }
}

/* ---- Answers ---- */

static void take_success(struct load_thread *t, struct connection *c,
                         const struct client_answer *answer) {
    struct load_kind_result *kind = &t->result.kinds[c->request.kind];
    uint64_t now = now_ns(t);
    uint64_t latency = now > c->begin_ns ? now - c->begin_ns : 0;
    const char *complaint = t->run->plan.source->ops->answered(t->worker, &c->request, answer);
    if (complaint) {
        take_error(t, answer->status, bytes_of_string(complaint));
        return;
    }
    t->result.statuses[answer->status]++;
    t->result.last_ns = now;
    histogram_record(&kind->latency, latency);
    kind->late += latency > (uint64_t)LOAD_LATE_MS * 1000000;
    atomic_fetch_add_explicit(&t->run->progress.acknowledged, c->request.items,
                              memory_order_relaxed);
}

static void wait_as_told(struct load_thread *t, struct connection *c,
                         const struct client_answer *answer) {
    uint64_t wait_ms = answer->retry_after_ms ? answer->retry_after_ms : RETRY_WAIT_MS;
    if (wait_ms > RETRY_MAX_MS)
        wait_ms = RETRY_MAX_MS;
    t->result.statuses[answer->status]++;
    atomic_fetch_add_explicit(&t->run->progress.throttled, 1, memory_order_relaxed);
    become_due(t, c, now_ns(t) + wait_ms * 1000000);
}

/* Told to come back later, and nothing happened meanwhile. */
static bool is_refusal(const struct connection *c, const struct client_answer *answer) {
    static const char unknown[] = "\"outcome_unknown\"";
    if (answer->status == 429)
        return true;
    return answer->status == 503 &&
           (c->request.repeatable ||
            !memmem(answer->body.data, answer->body.size, unknown, sizeof unknown - 1));
}

static void take_answer(struct load_thread *t, struct connection *c,
                        const struct client_answer *answer) {
    c->answered_ns = now_ns(t);
    bool taken = answer->status >= 200 && answer->status < 300;
    if (!taken && is_refusal(c, answer) && ++c->refused < REFUSED_MAX) {
        wait_as_told(t, c, answer);
        return;
    }
    if (taken)
        take_success(t, c, answer);
    else
        take_error(t, answer->status, answer->body);
    become_idle(t, c);
}

static void go_on(struct load_thread *t, struct connection *c) {
    struct client_answer answer;
    if (c->state != LOAD_BUSY) { /* nothing is asked: the server closed the connection */
        client_close(&c->client);
        return;
    }
    int r = client_step(&c->client, &answer);
    if (r == CLIENT_E_MORE)
        r = watch(t, c, false) ? CLIENT_E_CLOSED : CLIENT_E_MORE;
    if (r == CLIENT_E_MORE)
        return;
    if (r)
        lose(t, c, r);
    else
        take_answer(t, c, &answer);
}

/* ---- A thread ---- */

/* When an idle connection can take its next request. */
static uint64_t take_ns(const struct load_thread *t) {
    const struct load_ops *ops = t->run->plan.source->ops;
    if (!ops->due || atomic_load(&t->run->progress.stop))
        return 0;
    return t->run->progress.start_ns + ops->due(t->worker);
}

/* Takes what comes next, and sends it if it is due. */
static void start(struct load_thread *t, struct connection *c) {
    if (!take_request(t, c))
        become_ended(t, c);
    else if (now_ns(t) >= c->due_ns)
        send_request(t, c);
    else
        become_due(t, c, c->due_ns);
}

/* Sends all that is due now. */
static void send_due(struct load_thread *t) {
    bool stop = atomic_load(&t->run->progress.stop);
    while (t->due_head && (stop || now_ns(t) >= t->due_head->due_ns)) {
        struct connection *c = take_due(t);
        if (stop)
            become_ended(t, c);
        else
            send_request(t, c);
    }
    while (t->idle && now_ns(t) >= take_ns(t))
        start(t, take_idle(t));
}

/* How long the thread may sleep: until the first request is due. */
static int64_t sleep_ns(const struct load_thread *t) {
    uint64_t now = now_ns(t);
    uint64_t until_ns = now + (uint64_t)POLL_MAX_MS * 1000000;
    uint64_t next_ns = t->idle ? take_ns(t) : UINT64_MAX;
    if (t->due_head && t->due_head->due_ns < next_ns)
        next_ns = t->due_head->due_ns;
    if (next_ns < until_ns)
        until_ns = next_ns;
    return until_ns > now ? (int64_t)(until_ns - now) : 0;
}

static bool turn(struct load_thread *t) {
    void *ready[SOCKET_SET_READY_MAX];
    send_due(t);
    if (t->ended == t->n)
        return false;
    int n = socket_set_wait(&t->sockets, sleep_ns(t), ready);
    for (int i = 0; i < n; i++) {
        go_on(t, ready[i]);
        send_due(t); /* looking at an answer takes time, and must not make others late */
    }
    return n >= 0;
}

static void run_thread(void *argument) {
    struct load_thread *t = argument;
    while (turn(t))
        ;
    atomic_store(&t->done, true);
}

/* ---- All threads ---- */

static int init_worker(struct load_run *run, struct load_thread *t, unsigned index) {
    const struct load_ops *ops = run->plan.source->ops;
    t->worker = calloc(1, ops->worker_size);
    if (!t->worker)
        return error_origin(-ENOMEM);
    *t->worker = (struct load_worker){.plan = &run->plan,
                                      .progress = &run->progress,
                                      .result = &t->result,
                                      .index = index,
                                      .n = run->n};
    int r = ops->worker_init ? ops->worker_init(t->worker) : 0;
    if (r)
        return error_trace(r);
    t->worker_ready = true;
    return 0;
}

static int init_connections(struct load_run *run, struct load_thread *t, size_t n) {
    size_t question_size = run->plan.source->ops->question_size;
    t->connections = calloc(n, sizeof *t->connections);
    if (!t->connections)
        return error_origin(-ENOMEM);
    int r = socket_set_init(&t->sockets);
    if (r)
        return error_fold(r);
    for (t->n = 0; t->n < n; t->n++) {
        struct connection *c = &t->connections[t->n];
        client_init(&c->client, &run->plan.address);
        c->request.question = question_size ? calloc(1, question_size) : NULL;
        if (question_size && !c->request.question)
            return error_origin(-ENOMEM);
    }
    while (n > 0) /* the first comes first */
        become_idle(t, &t->connections[--n]);
    return 0;
}

static int init_threads(struct load_run *run) {
    unsigned n =
        run->plan.threads < run->plan.connections ? run->plan.threads : run->plan.connections;
    run->threads = calloc(n, sizeof *run->threads);
    if (!run->threads)
        return error_origin(-ENOMEM);
    run->n = n;
    for (unsigned i = 0; i < n; i++)
        run->threads[i].sockets.fd = -1; /* deinit comes after a failure at any step */
    for (unsigned i = 0; i < n; i++) {
        size_t share = run->plan.connections / n + (i < run->plan.connections % n ? 1 : 0);
        run->threads[i].run = run;
        int r = init_worker(run, &run->threads[i], i);
        if (!r)
            r = init_connections(run, &run->threads[i], share);
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
        if (!atomic_load(&run->threads[i].done))
            return true;
    return false;
}

static void add_up(struct load_result *total, const struct load_result *part) {
    for (size_t i = 0; i < LOAD_STATUSES; i++)
        total->statuses[i] += part->statuses[i];
    for (size_t i = 0; i < LOAD_KINDS_MAX; i++) {
        histogram_add(&total->kinds[i].latency, &part->kinds[i].latency);
        total->kinds[i].late += part->kinds[i].late;
    }
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

unsigned load_workers(const struct load_run *run) {
    return run->n;
}

struct load_worker *load_worker_of(const struct load_run *run, unsigned index) {
    assert(index < run->n);
    return run->threads[index].worker;
}

static void deinit_thread(struct load_thread *t, const struct load_plan *plan) {
    const struct load_ops *ops = plan->source->ops;
    os_thread_join(plan->os, t->thread);
    for (size_t k = 0; t->connections && k < t->n; k++) {
        client_deinit(&t->connections[k].client);
        buffer_deinit(&t->connections[k].request.text);
        free(t->connections[k].request.question);
    }
    if (t->worker_ready && ops->worker_deinit)
        ops->worker_deinit(t->worker);
    free(t->worker);
    free(t->connections);
    socket_set_deinit(&t->sockets);
    buffer_deinit(&t->head);
    buffer_deinit(&t->result.tasks);
}

struct load_run *load_free(struct load_run *run) {
    if (!run)
        return NULL;
    for (unsigned i = 0; i < run->n; i++)
        deinit_thread(&run->threads[i], &run->plan);
    buffer_deinit(&run->total.tasks);
    free(run->threads);
    free(run);
    return NULL;
}
