/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of this room share: the loop, the query threads and the server. Nobody outside
 * src/http includes it.
 */
#ifndef MILLRACE_HTTP_INTERNAL_H
#define MILLRACE_HTTP_INTERNAL_H

#include "http/request.h"
#include "os/sync.h"

enum {
    HTTP_STATUSES_MAX = 8,    /* series of one route that a loop remembers */
    HTTP_JOURNALS_MAX = 4,    /* that routes write to */
    HTTP_WORKS_MAX = 8,       /* stores a server can wait for */
    HTTP_CHUNK_BYTES = 65536, /* decoded pieces of a streaming route are at most so large */
    HTTP_LINGER_S = 5,        /* how long a forced answer has to be read */
};

#ifdef MILLRACE_TINY
enum { HTTP_DRAIN_MAX = 16 << 10, HTTP_LINGER_MAX = 64 << 10, HTTP_SPARE_BYTES_MAX = 64 << 10 };
#else
/* How much of a refused body is read before the answer is forced out, how much more is read after
 * it, and how much memory a loop keeps for bodies to come (less when the budget is small). */
enum { HTTP_DRAIN_MAX = 1 << 20, HTTP_LINGER_MAX = 8 << 20, HTTP_SPARE_BYTES_MAX = 16 << 20 };
#endif

struct http_wait_list {
    struct http_request *head;
    struct http_request *tail;
};

/* What a loop waits for of one journal. */
struct http_loop_journal {
    struct http_loop *loop;
    struct journal *journal;
    struct journal_listener listener;
    _Atomic lsn_t wanted; /* UINT64_MAX: no call */
    struct http_wait_list durable;
};

/* What a loop waits for in one store. */
struct http_loop_work {
    struct work_listener listener;
    struct http_loop *loop;
    struct work *work;
    struct http_wait_list waiting;
    _Atomic bool moved; /* a visible position moved past listener.wanted */
};

/* Counters that a loop has looked up: the hot path takes no lock. */
struct http_route_series {
    struct metric_series *seconds;
    struct {
        unsigned status;
        const char *method;
        struct metric_series *series;
    } statuses[HTTP_STATUSES_MAX];
    size_t n;
};

struct http_loop {
    struct http_server *server;
    unsigned index;
    struct MHD_Daemon *daemon;
    int epoll_fd;
    struct event wake;
    struct os_thread *thread;
    struct http_worker worker;
    uint64_t now_ns; /* at the start of this turn */
    _Atomic uint64_t turned_ns;
    _Atomic unsigned n_connections; /* with those handed over and not yet taken */

    /* Handed over by other threads. LOCK_RANK_HTTP. */
    struct mutex lock;
    struct http_request *posted;
    int *arrived_fds;
    size_t n_arrived;
    size_t arrived_capacity;

    /* This thread's own. */
    struct http_connection *connections;
    uint64_t n_started; /* connections that libmicrohttpd took */
    uint64_t sweep_ns;
    _Atomic unsigned n_requests; /* between their first line and their end; written here only */
    struct http_request *spares;
    size_t n_spares;
    size_t spare_bytes;
    struct buffer chunk;              /* decoded pieces of streaming routes */
    struct http_route_series *series; /* by route, one more for no route */
    unsigned unpolled;                /* turns since the sockets were last polled here */
    bool resumed;                     /* something was resumed: do not sleep */
    uint64_t log_second;              /* of the newest error line, and how many there were in it */
    unsigned log_lines;

    struct http_request *timed; /* paused ones, in no order */

    /* acknowledge.c */
    struct http_loop_journal journals[HTTP_JOURNALS_MAX];
    size_t n_journals;
    struct http_loop_work works[HTTP_WORKS_MAX];
    size_t n_works;

    /* sse.c */
    struct http_request *sse;
    uint64_t sse_due_ns;   /* of the first of them; UINT64_MAX: none */
    struct buffer sse_out; /* what is written next */
};

/* The threads that run offloaded jobs: offload.c. */
struct http_pool {
    struct mutex lock; /* LOCK_RANK_HTTP */
    struct condition ready;
    struct http_request *head;
    struct http_request *tail;
    size_t n;
    bool ending;
    struct http_pool_thread *threads;
    size_t n_threads;
};

enum { HTTP_REFUSED_MAX = 64 };

struct http_server {
    struct os *os;
    struct http_options options;
    _Atomic(const char *) api_key; /* options.api_key, until it is changed */
    struct router *router;
    struct metrics *metrics;
    struct log *log;
    int listener;
    uint16_t port;
    size_t spare_bytes_max; /* memory that a loop keeps for bodies to come */
    struct http_loop *loops;
    size_t n_loops;
    struct http_pool pool;
    struct http_pool waiting;
    uint64_t id_seed;
    _Atomic uint64_t ids;
    _Atomic unsigned n_connections;
    _Atomic unsigned n_sse;
    _Atomic int phase;    /* enum http_phase */
    _Atomic bool started; /* health looks at them from another thread */
    _Atomic bool stopped;

    /* Loop 0's: connections over the bound, told so, and closed a little later. */
    struct {
        int fd;
        uint64_t close_ns;
    } refused[HTTP_REFUSED_MAX];
    size_t n_refused;
    uint64_t accept_after_ns; /* descriptors ran out: no use to ask at once */

    struct metric_series *in_bytes;
    struct metric_series *out_bytes;
    struct metric_series *connections_gauge;
    struct metric_series *refused_total;
    struct metric_series *sse_gauge;
};

/* Of an ordered stop: new connections are refused; then all that waits is answered. */
enum http_phase { HTTP_SERVING, HTTP_DRAINING, HTTP_ENDING };

/* ---- loop.c ---- */
int http_loop_init(struct http_loop *l, struct http_server *s, unsigned index) MUST_USE;
void http_loop_deinit(struct http_loop *l);
void http_loop_run(void *loop); /* the thread */
/* From any thread: gives the loop a connected socket; closes it when memory is out. */
void http_loop_hand_over(struct http_loop *l, int fd);
/* After the end of both threads: closes what came too late. */
void http_loop_close_arrived(struct http_loop *l);
/* From any thread: the request was answered there, or is to go on. */
void http_loop_post(struct http_request *r);
/* What a connection that was used costs, as counted in the budget. */
uint64_t http_connection_bytes(const struct http_loop *l);
/* Takes the request up again; it must be suspended. */
void http_loop_resume(struct http_request *r);

/* ---- accept.c: loop 0 ---- */
void http_accept(struct http_loop *l);
void http_refused_sweep(struct http_server *s, uint64_t now_ns, bool all);

/* ---- acknowledge.c ---- */
void http_acknowledge_init(struct http_loop *l);
void http_acknowledge_deinit(struct http_loop *l);
/* Answers what is due; returns when to look again, UINT64_MAX for never. */
uint64_t http_acknowledge_turn(struct http_loop *l);
/* Ends every wait: the outcome is unknown. */
void http_acknowledge_abandon(struct http_loop *l);

/* ---- sse.c ---- */
/* Looks after the streams that are due, and ends all of them unless the server serves; returns when
 * to look again. */
uint64_t http_sse_turn(struct http_loop *l);

/* ---- offload.c ---- */
void http_pool_init(struct http_pool *pool);
void http_pool_deinit(struct http_pool *pool);
int http_pool_start(struct http_pool *pool, struct http_server *s, const char *name,
                    unsigned threads) MUST_USE;
/* Finishes what is queued and ends the threads. */
void http_pool_stop(struct http_pool *pool, struct http_server *s);

#endif
