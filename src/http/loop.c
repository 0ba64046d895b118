/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A loop: one thread, one libmicrohttpd daemon without a listening socket, driven from here. A
 * turn:
 *
 *      ┌─▶ sleep until a socket is ready, somebody wakes us, or something is due
 *      │   accept (loop 0), take over new connections and finished jobs
 *      │   run the ready connections: handlers append to the journal and suspend
 *      │   answer what became durable or visible, resume it in one batch
 *      │   write to the streams of events that are due
 *      └── sweep: slow bodies and idle connections
 *
 * The commit runs on the journal's own thread, so that a sync that hangs stops no read (invariant
 * 10), and all that arrives during one sync shares the next. Suspended connections neither time out
 * nor notice a hang-up, so every wait has a deadline of ours, as has the reading of an answer: a
 * byte now and then is all that libmicrohttpd's own timeout asks for.
 */
#include "http/internal.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>

#define MS UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)

enum {
    SLEEP_MAX_MS = 1000, /* liveness sees a turn at least so often */
    SWEEP_MS = 100,
    UNPOLLED_MAX = 8,
    ANSWER_HEADERS_BYTES = 4 << 10, /* room in a connection's buffer behind the request's */
    END_TURNS_MAX = 200,            /* of 10 ms: answers forced at the end leave in this time */
    SLOW_READER_BYTES_S = 64 << 10, /* of the slowest network that is waited for */
};

/* ---- What libmicrohttpd tells ---- */

static void connection_open(struct http_loop *l, struct MHD_Connection *mhd, void **context) {
    l->n_started++;
    struct http_connection *c = calloc(1, sizeof *c);
    *context = c;
    if (!c)
        return; /* its first request will be refused */
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
    c->loop = l;
    c->fd = info->connect_fd;
    c->idle_since_ns = l->now_ns;
    c->next = l->connections;
    if (c->next)
        c->next->previous = c;
    l->connections = c;
}

static void connection_gone(struct http_loop *l) {
    atomic_fetch_sub(&l->n_connections, 1);
    unsigned left = atomic_fetch_sub(&l->server->n_connections, 1) - 1;
    metric_set(l->server->connections_gauge, left);
}

static void connection_close(struct http_loop *l, struct http_connection *c) {
    connection_gone(l);
    if (!c)
        return;
    assert(!c->request);
    if (c->charged)
        budget_give(l->server->options.budget, BUDGET_CONNECTIONS, http_connection_bytes(l));
    if (c->next)
        c->next->previous = c->previous;
    *(c->previous ? &c->previous->next : &l->connections) = c->next;
    free(c);
}

static void on_connection(void *loop, struct MHD_Connection *mhd, void **context,
                          enum MHD_ConnectionNotificationCode code) {
    if (code == MHD_CONNECTION_NOTIFY_STARTED)
        connection_open(loop, mhd, context);
    else
        connection_close(loop, *context);
}

/* What libmicrohttpd holds for a connection. */
uint64_t http_connection_bytes(const struct http_loop *l) {
    return l->server->options.header_max_bytes + ANSWER_HEADERS_BYTES + sizeof(struct http_request);
}

/* The request line is in: a request begins. */
static void *on_target(void *loop, const char *target, struct MHD_Connection *mhd) {
    struct http_loop *l = loop;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct http_connection *c = info->socket_context;
    struct http_request *r = c ? http_request_take(l, target) : NULL;
    if (!r)
        return NULL;
    r->mhd = mhd;
    r->connection = c;
    c->request = r;
    if (!c->charged) /* connections that never asked touch next to nothing */
        budget_add(l->server->options.budget, BUDGET_CONNECTIONS, http_connection_bytes(l));
    c->charged = true;
    atomic_fetch_add_explicit(&l->n_requests, 1, memory_order_relaxed);
    return r;
}

static void on_completed(void *loop, struct MHD_Connection *mhd, void **request,
                         enum MHD_RequestTerminationCode code) {
    (void)mhd;
    (void)code;
    struct http_loop *l = loop;
    struct http_request *r = *request;
    if (!r)
        return;
    *request = NULL;
    r->connection->request = NULL;
    r->connection->idle_since_ns = l->now_ns;
    http_request_recycle(r);
    atomic_fetch_sub_explicit(&l->n_requests, 1, memory_order_relaxed);
}

/* ---- Handing over ---- */

void http_loop_hand_over(struct http_loop *l, int fd) {
    mutex_lock(&l->lock);
    if (l->n_arrived == l->arrived_capacity) {
        size_t capacity = l->arrived_capacity ? 2 * l->arrived_capacity : 64;
        int *fds = realloc(l->arrived_fds, capacity * sizeof *fds);
        if (fds) {
            l->arrived_fds = fds;
            l->arrived_capacity = capacity;
        }
    }
    bool taken = l->n_arrived < l->arrived_capacity;
    if (taken)
        l->arrived_fds[l->n_arrived++] = fd;
    mutex_unlock(&l->lock);
    if (taken) {
        event_signal(&l->wake);
        return;
    }
    socket_close(fd);
    connection_gone(l);
}

void http_loop_close_arrived(struct http_loop *l) {
    for (; l->n_arrived > 0; l->n_arrived--) {
        socket_close(l->arrived_fds[l->n_arrived - 1]);
        connection_gone(l);
    }
}

void http_loop_post(struct http_request *r) {
    struct http_loop *l = r->loop;
    mutex_lock(&l->lock);
    bool first = !l->posted;
    r->posted_next = l->posted;
    l->posted = r;
    mutex_unlock(&l->lock);
    if (first)
        event_signal(&l->wake);
}

static void take_arrived(struct http_loop *l) {
    static const struct sockaddr_in unknown = {.sin_family = AF_INET};
    for (;;) {
        mutex_lock(&l->lock);
        int fd = l->n_arrived ? l->arrived_fds[--l->n_arrived] : -1;
        mutex_unlock(&l->lock);
        if (fd < 0)
            return;
        uint64_t started = l->n_started;
        /* On failure it closed the socket. */
        if (MHD_add_connection(l->daemon, fd, (const struct sockaddr *)&unknown, sizeof unknown) !=
                MHD_YES &&
            l->n_started == started)
            connection_gone(l);
    }
}

/* The request goes on here: what a handler does at the end of a body it may do now too. */
static void go_on(struct http_request *r) {
    struct http_worker *w = r->worker; /* when it offloads again, r may have another's by the end */
    http_handler then = r->then;
    r->then = NULL;
    r->state = REQUEST_RUNNING;
    http_worker_begin(w);
    then(r->then_context, r);
    http_worker_end(w);
    if (http_request_streams(r) && !r->received)
        http_request_stream_on(r);
    /* In this order: while it waits, a query thread may be writing the answer. */
    assert(http_request_waits(r) || http_request_answered(r) || r->began);
    if (!http_request_waits(r))
        http_loop_resume(r);
}

/* Finished jobs. */
static void take_posted(struct http_loop *l) {
    mutex_lock(&l->lock);
    struct http_request *r = l->posted;
    l->posted = NULL;
    mutex_unlock(&l->lock);
    for (struct http_request *next; r; r = next) {
        next = r->posted_next;
        if (r->then)
            go_on(r);
        else
            http_loop_resume(r);
    }
}

void http_loop_resume(struct http_request *r) {
    assert(r->suspended);
    if (r->state == REQUEST_WAITING) {
        assert(http_request_answered(r));
        r->state = r->received ? REQUEST_ANSWERED : REQUEST_DRAIN;
    }
    r->heard_ns = r->loop->now_ns;
    r->suspended = false;
    r->loop->resumed = true;
    MHD_resume_connection(r->mhd);
}

/* The handler's turn after a pause: its end again, or an empty piece. */
static void pause_over(struct http_request *r) {
    http_request_unpause(r);
    if (!r->suspended)
        return;
    if (!r->received)
        http_body_nudge(r);
    if (http_request_answered(r))
        r->state = REQUEST_DRAIN;
    else if (http_request_paused(r))
        return; /* paused anew */
    http_loop_resume(r);
}

/* Ends the pauses that are over; returns when the next one is. */
static uint64_t end_pauses(struct http_loop *l) {
    uint64_t due_ns = UINT64_MAX;
    for (struct http_request *r = l->timed, *next; r; r = next) {
        next = r->timed_next;
        if (r->pause_until_ns <= l->now_ns)
            pause_over(r);
        if (r->pause_until_ns && r->pause_until_ns < due_ns)
            due_ns = r->pause_until_ns;
    }
    return due_ns;
}

/* ---- The sweep ---- */

static bool older_than(uint64_t now_ns, uint64_t since_ns, unsigned seconds) {
    return now_ns > since_ns && now_ns - since_ns > seconds * SECOND;
}

/* How long a client may take to read its answer. While answers are short of memory nobody gets
 * more than a body has to arrive; else a slow network is waited for. */
static unsigned answer_patience_s(const struct http_loop *l, const struct http_request *r) {
    const struct http_options *o = &l->server->options;
    uint64_t slow_s = r->answer.body.size / SLOW_READER_BYTES_S;
    return o->body_timeout_s + (budget_pressed(o->budget, BUDGET_ANSWERS) ? 0 : (unsigned)slow_s);
}

/* What a connection that is in no request, reads one, or is sent an answer may not take longer
 * than. */
static bool is_overdue(const struct http_loop *l, const struct http_connection *c) {
    const struct http_options *o = &l->server->options;
    const struct http_request *r = c->request;
    if (!r)
        return older_than(l->now_ns, c->idle_since_ns, o->idle_timeout_s);
    switch (r->state) {
    case REQUEST_HEADERS:
        return older_than(l->now_ns, r->started_ns, o->idle_timeout_s);
    case REQUEST_LINGER:
        return l->now_ns >= r->deadline_ns;
    case REQUEST_BODY:
    case REQUEST_DRAIN:
        return !r->suspended && (older_than(l->now_ns, r->heard_ns, o->idle_timeout_s) ||
                                 (!http_request_streams(r) &&
                                  older_than(l->now_ns, r->started_ns, o->body_timeout_s)));
    case REQUEST_SENT:
        return older_than(l->now_ns, r->answer.queued_ns, answer_patience_s(l, r));
    default:
        return false; /* waits have their own deadlines */
    }
}

/* libmicrohttpd misses an end that comes together with the last bytes: a read that was short it
 * takes for the last one, and epoll tells of both only once. So each silence of who should speak is
 * looked into, once; an end that comes later is told. */
static bool has_ended_unseen(const struct http_loop *l, struct http_connection *c) {
    const struct http_request *r = c->request;
    uint64_t heard_ns = r ? r->heard_ns : c->idle_since_ns;
    bool awaited = !r || (!r->suspended && (r->state == REQUEST_HEADERS ||
                                            r->state == REQUEST_BODY || r->state == REQUEST_DRAIN));
    if (!awaited || c->looked_ns > heard_ns || l->now_ns < heard_ns + SWEEP_MS * MS)
        return false;
    c->looked_ns = l->now_ns;
    return socket_has_ended(c->fd);
}

/* libmicrohttpd takes no answer now; it sees the end of the socket and lets go of it. */
static void connection_shut(struct http_connection *c, enum http_error error) {
    struct http_request *r = c->request;
    c->shut = true;
    if (!r || r->state == REQUEST_LINGER || r->state == REQUEST_SENT) {
        socket_shutdown(c->fd, true);
        return;
    }
    if (!http_request_answered(r))
        http_fail(r, error, NULL, NULL);
    http_answer_force(r, true);
    r->state = REQUEST_LINGER;
}

static void sweep(struct http_loop *l) {
    if (l->now_ns < l->sweep_ns)
        return;
    l->sweep_ns = l->now_ns + SWEEP_MS * MS;
    bool serving = atomic_load_explicit(&l->server->phase, memory_order_relaxed) == HTTP_SERVING;
    for (struct http_connection *c = l->connections; c; c = c->next) {
        if (c->shut)
            continue;
        if (is_overdue(l, c) || (!serving && !c->request)) {
            connection_shut(c, HTTP_ERROR_TIMEOUT);
        } else if (has_ended_unseen(l, c)) {
            c->shut = true;
            socket_shutdown(c->fd, true); /* this end, libmicrohttpd sees */
        }
    }
    if (l->index == 0)
        http_refused_sweep(l->server, l->now_ns, false);
}

/* ---- The turn ---- */

static int sleep_ms(struct http_loop *l, uint64_t due_ns) {
    MHD_UNSIGNED_LONG_LONG ms = SLEEP_MAX_MS, theirs = 0;
    if (l->resumed)
        return 0;
    if (MHD_get_timeout(l->daemon, &theirs) == MHD_YES && theirs < ms)
        ms = theirs;
    uint64_t due = l->connections && l->sweep_ns < due_ns ? l->sweep_ns : due_ns;
    if (l->index == 0 && l->server->accept_after_ns > l->now_ns)
        due = l->server->accept_after_ns < due ? l->server->accept_after_ns : due;
    if (due != UINT64_MAX) {
        uint64_t left = due > l->now_ns ? (due - l->now_ns + MS - 1) / MS : 0;
        ms = left < ms ? left : ms;
    }
    return (int)ms;
}

static bool listens(const struct http_loop *l) {
    const struct http_server *s = l->server;
    return l->index == 0 && l->now_ns >= s->accept_after_ns &&
           atomic_load_explicit(&s->phase, memory_order_relaxed) == HTTP_SERVING;
}

/* Returns whether somebody wants to connect. */
static bool wait_for_work(struct http_loop *l, uint64_t due_ns) {
    struct pollfd fds[3] = {
        {.fd = l->epoll_fd, .events = POLLIN},
        {.fd = l->wake.fd, .events = POLLIN},
        {.fd = listens(l) ? l->server->listener : -1, .events = POLLIN},
    };
    int timeout = sleep_ms(l, due_ns);
    /* libmicrohttpd looks at its sockets in every turn by itself: while it has work, most turns
     * save the call. */
    bool skip = timeout == 0 && l->unpolled < UNPOLLED_MAX;
    l->unpolled = skip ? l->unpolled + 1 : 0;
    int ready = skip ? 0 : socket_poll(fds, ARRAY_LENGTH(fds), timeout);
    l->resumed = false;
    l->now_ns = os_monotonic_ns(l->server->os);
    atomic_store_explicit(&l->turned_ns, l->now_ns, memory_order_relaxed);
    if (ready > 0 && fds[1].revents)
        event_clear(&l->wake);
    return ready > 0 && fds[2].revents;
}

static uint64_t loop_turn(struct http_loop *l, uint64_t due_ns) {
    if (wait_for_work(l, due_ns))
        http_accept(l);
    take_arrived(l);
    take_posted(l);
    MHD_run(l->daemon);
    uint64_t pauses_ns = end_pauses(l);
    due_ns = http_acknowledge_turn(l);
    uint64_t sse_ns = http_sse_turn(l);
    sweep(l);
    due_ns = pauses_ns < due_ns ? pauses_ns : due_ns;
    return sse_ns < due_ns ? sse_ns : due_ns;
}

/* ---- The end ---- */

/* Answers everything that waits or comes in, however unfinished. The query threads have ended. */
static void loop_abandon(struct http_loop *l) {
    take_posted(l);
    http_acknowledge_abandon(l);
    (void)http_sse_turn(l);
    for (struct http_connection *c = l->connections; c; c = c->next) {
        struct http_request *r = c->request;
        if (r && r->suspended) { /* a paused body */
            http_request_unpause(r);
            http_loop_resume(r);
        }
        if (!c->shut && (!r || r->state <= REQUEST_BODY || r->state == REQUEST_DRAIN))
            connection_shut(c, HTTP_ERROR_STOPPING);
    }
}

static void loop_end(struct http_loop *l) {
    for (unsigned i = 0; i < END_TURNS_MAX; i++) {
        loop_abandon(l);
        (void)loop_turn(l, l->now_ns + 10 * MS);
        if (!l->connections)
            break;
    }
    loop_abandon(l); /* nothing may be suspended when the daemon ends */
    MHD_run(l->daemon);
}

void http_loop_run(void *loop) {
    struct http_loop *l = loop;
    l->now_ns = os_monotonic_ns(l->server->os);
    uint64_t due_ns = UINT64_MAX;
    while (atomic_load(&l->server->phase) != HTTP_ENDING)
        due_ns = loop_turn(l, due_ns);
    loop_end(l);
}

/* ---- Life ---- */

/* A connection's memory holds its headers; half of it is the buffer of one read. More would make
 * uploads cheaper and every request dearer: libmicrohttpd clears all of it after each one
 * (measured: 32 KiB cost 14 us a small request and 360 us an upload of 1 MB, 128 KiB 35 us and 300
 * us). */
static int daemon_start(struct http_loop *l) {
    const struct http_options *o = &l->server->options;
    size_t memory = (size_t)o->header_max_bytes + ANSWER_HEADERS_BYTES;
    l->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL,
        http_on_request, l, MHD_OPTION_URI_LOG_CALLBACK, on_target, l, MHD_OPTION_NOTIFY_COMPLETED,
        on_completed, l, MHD_OPTION_NOTIFY_CONNECTION, on_connection, l,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, memory, MHD_OPTION_CONNECTION_MEMORY_INCREMENT,
        memory / 4, MHD_OPTION_CONNECTION_LIMIT, o->connections_max + 1,
        MHD_OPTION_CONNECTION_TIMEOUT, o->idle_timeout_s + 1, MHD_OPTION_END);
    if (!l->daemon)
        return error_origin(-ENOMEM); /* descriptors or memory: it does not say */
    l->epoll_fd = MHD_get_daemon_info(l->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    return 0;
}

int http_loop_init(struct http_loop *l, struct http_server *s, unsigned index) {
    l->server = s;
    l->index = index;
    l->wake.fd = -1; /* deinit comes after a failure at any step */
    l->sse_due_ns = UINT64_MAX;
    mutex_init(&l->lock, LOCK_RANK_HTTP);
    http_acknowledge_init(l);
    l->series = calloc(router_size(s->router) + 1, sizeof *l->series);
    if (!l->series || !buffer_reserve(&l->chunk, HTTP_CHUNK_BYTES))
        return error_origin(-ENOMEM);
    int r = event_init(&l->wake);
    if (!r)
        r = http_worker_init(&l->worker, s->options.body_max_bytes);
    if (!r)
        r = daemon_start(l);
    return r ? error_fold(r) : 0;
}

void http_loop_deinit(struct http_loop *l) {
    http_acknowledge_deinit(l);
    if (l->daemon)
        MHD_stop_daemon(l->daemon);
    for (struct http_request *r = l->spares, *next; r; r = next) {
        next = r->spare_next;
        http_request_free(r);
    }
    free(l->arrived_fds);
    free(l->series);
    buffer_deinit(&l->chunk);
    buffer_deinit(&l->sse_out);
    http_worker_deinit(&l->worker);
    event_deinit(&l->wake);
    mutex_deinit(&l->lock);
}
