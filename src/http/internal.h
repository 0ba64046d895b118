/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of this room share: the request, the connection, the loop and the server. Nobody
 * outside src/http includes it.
 *
 * A request's states; all of it happens on its loop's thread, but for the job of an offload:
 *
 *   HEADERS ──begin──▶ BODY ──end──▶ RUNNING ──respond──▶ ANSWERED ──queue──▶ SENT ──▶ recycled
 *                       │             │  └──await, offload──▶ WAITING ──due──▶ ANSWERED
 *                       └──error──▶ DRAIN ──end──▶ ANSWERED      (the connection is suspended)
 *                                     └──too much──▶ LINGER ──▶ closed
 */
#ifndef MILLRACE_HTTP_INTERNAL_H
#define MILLRACE_HTTP_INTERNAL_H

#include "http/decode.h"
#include "http/http.h"
#include "http/router.h"
#include "os/sync.h"

#include <microhttpd.h>
#include <stdatomic.h>

enum {
    HTTP_QUERY_MAX = 64,      /* parameters of a query; more are a bad request */
    HTTP_HEADERS_MAX = 6,     /* headers a handler may add to its answer */
    HTTP_STATUSES_MAX = 8,    /* series of one route that a loop remembers */
    HTTP_WORKS_MAX = 8,       /* stores a server can wait for */
    HTTP_CHUNK_BYTES = 65536, /* decoded pieces of a streaming route are at most so large */
};

#ifdef MILLRACE_TINY
enum { HTTP_DRAIN_MAX = 16 << 10, HTTP_LINGER_MAX = 64 << 10, HTTP_SPARE_BYTES_MAX = 64 << 10 };
#else
/* How much of a refused body is read before the answer is forced out, how much more is read after
 * it, and how much memory a loop keeps for bodies to come. */
enum { HTTP_DRAIN_MAX = 1 << 20, HTTP_LINGER_MAX = 8 << 20, HTTP_SPARE_BYTES_MAX = 16 << 20 };
#endif

/* What belongs to a thread that runs handlers. */
struct http_worker {
    struct json_parser *parser;
    struct buffer scratch;
};
int http_worker_init(struct http_worker *w, uint64_t body_max_bytes) MUST_USE;
void http_worker_deinit(struct http_worker *w);

struct http_pair {
    struct bytes name;
    struct bytes value;
};

enum http_request_state {
    REQUEST_HEADERS,
    REQUEST_BODY,
    REQUEST_RUNNING,
    REQUEST_WAITING,
    REQUEST_DRAIN,
    REQUEST_LINGER,
    REQUEST_ANSWERED,
    REQUEST_SENT,
};

/* Of http_pause_body: who may resume, once. */
enum http_pause { PAUSE_NONE, PAUSE_PAUSED, PAUSE_RESUMING };

struct http_answer {
    unsigned status; /* 0: none yet */
    const char *content_type;
    struct buffer copy;
    struct bytes body; /* the copy, or static data */
    unsigned retry_after_s;
    struct {
        const char *name;
        const char *value;
    } headers[HTTP_HEADERS_MAX];
    size_t n_headers;
    bool acknowledged; /* set by acknowledge.c alone: a write's 2xx is allowed */
};

struct http_request {
    struct http_loop *loop;
    struct http_connection *connection;
    struct MHD_Connection *mhd;
    struct http_worker *worker; /* of the thread that runs the handler */
    enum http_request_state state;
    bool suspended;
    uint64_t id;
    uint64_t started_ns;

    /* The request line. */
    const struct router_entry *entry; /* NULL: no such route */
    enum http_method method;
    const char *method_text;
    struct buffer target; /* decoded in place; what segments and query point into */
    struct router_path path;
    struct http_pair query[HTTP_QUERY_MAX];
    size_t n_query;
    bool malformed; /* the target does not decode */
    bool unframed;  /* nobody knows where the body ends */

    /* The body. */
    uint64_t content_length; /* UINT64_MAX: chunked */
    uint64_t wire_bytes;
    uint64_t drained_bytes;
    uint64_t charged_bytes; /* of the server's budget for bodies */
    uint64_t heard_ns;      /* when the last piece came */
    struct buffer body;
    struct decoder *decoder; /* NULL: identity */
    _Atomic int pause;
    uint64_t pause_until_ns; /* 0: until it is resumed */
    struct http_request *timed_next;
    bool began;    /* a streaming handler that wants its end or closed */
    bool received; /* the whole body was */

    struct http_answer answer;
    struct arena arena;
    void *user;

    /* Waiting: acknowledge.c, offload.c. */
    struct http_write write;
    uint64_t deadline_ns;
    struct http_request *wait_previous;
    struct http_request *wait_next;
    http_handler job;
    void *job_context;
    struct http_request *job_next;
    struct http_request *posted_next;

    struct http_request *spare_next;
};

struct http_connection {
    struct http_loop *loop;
    struct http_request *request; /* NULL between requests */
    int fd;
    uint64_t idle_since_ns;
    bool shut; /* its end is under way */
    struct http_connection *previous;
    struct http_connection *next;
};

struct http_wait_list {
    struct http_request *head;
    struct http_request *tail;
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
    bool resumed;                     /* something was resumed: do not sleep */
    uint64_t log_second;              /* of the newest error line, and how many there were in it */
    unsigned log_lines;

    /* acknowledge.c */
    struct journal_listener listener;
    _Atomic lsn_t wanted;       /* UINT64_MAX: no call */
    struct http_request *timed; /* pauses that end by themselves, in no order */
    struct http_wait_list durable;
    struct http_loop_work works[HTTP_WORKS_MAX];
    size_t n_works;
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
    struct journal *journal;
    struct metrics *metrics;
    struct log *log;
    int listener;
    uint16_t port;
    struct http_loop *loops;
    size_t n_loops;
    struct http_pool pool;
    uint64_t id_seed;
    _Atomic uint64_t ids;
    _Atomic unsigned n_connections;
    _Atomic uint64_t body_bytes; /* held in buffered bodies, over all loops */
    _Atomic int phase;           /* enum http_phase */
    bool started;
    bool stopped;

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
};

/* Of an ordered stop: new connections are refused; then all that waits is answered. */
enum http_phase { HTTP_SERVING, HTTP_DRAINING, HTTP_ENDING };

/* ---- loop.c ---- */
int http_loop_init(struct http_loop *l, struct http_server *s, unsigned index) MUST_USE;
void http_loop_deinit(struct http_loop *l);
void http_loop_run(void *loop); /* the thread */
/* From any thread: gives the loop a connected socket; closes it when memory is out. */
void http_loop_hand_over(struct http_loop *l, int fd);
/* From any thread: the request's answer, or its pause, is due. */
void http_loop_post(struct http_request *r);
/* Takes the request up again; it must be suspended. */
void http_loop_resume(struct http_request *r);

/* ---- accept.c: loop 0 ---- */
void http_accept(struct http_loop *l);
void http_refused_sweep(struct http_server *s, uint64_t now_ns, bool all);

/* ---- request.c ---- */
struct http_request *http_request_take(struct http_loop *l, const char *target);
void http_request_recycle(struct http_request *r);
void http_request_free(struct http_request *r);
/* Forgets the time at which a pause ends by itself. */
void http_request_untime(struct http_request *r);
/* The handler callback of libmicrohttpd. */
enum MHD_Result http_on_request(void *loop, struct MHD_Connection *mhd, const char *url,
                                const char *method, const char *version, const char *data,
                                size_t *size, void **request);

/* ---- target.c ---- */
/* Splits and decodes the target in place; sets malformed. */
void http_target_parse(struct http_request *r);

/* ---- admit.c: everything that is decided before the body ---- */
/* Answers the request when it is refused. */
void http_admit(struct http_request *r);
const char *http_method_name(enum http_method method);

/* ---- body.c ---- */
void http_body_begin(struct http_request *r);
/* A piece as it came; *size becomes what is left of it. */
void http_body_receive(struct http_request *r, struct bytes piece, size_t *ret_left);
/* The last piece is in. False when there is more to do after a pause, or an answer was given. */
bool http_body_end(struct http_request *r);
void http_body_release(struct http_request *r);
/* Gives the streaming handler an empty piece: the turn it asked for. */
void http_body_nudge(struct http_request *r);

/* ---- respond.c ---- */
/* Starts an answer: the one place that refuses a 2xx to a write nobody acknowledged. */
struct http_answer *http_answer_begin(struct http_request *r, unsigned status);
/* Hands the answer to libmicrohttpd. */
enum MHD_Result http_answer_queue(struct http_request *r);
/* Writes the answer straight to the socket, because libmicrohttpd takes none while a body comes in,
 * and ends the sending direction; everything is if nothing more is to be read either. */
void http_answer_force(struct http_request *r, bool everything);
/* Counts and logs it. */
void http_answer_count(struct http_request *r);
void http_fail_style(struct buffer *out, enum http_style style, enum http_error error,
                     const char *field, const char *message, double elapsed);

/* ---- acknowledge.c ---- */
void http_acknowledge_init(struct http_loop *l);
void http_acknowledge_deinit(struct http_loop *l);
/* Answers what is due; returns when to look again, UINT64_MAX for never. */
uint64_t http_acknowledge_turn(struct http_loop *l);
/* Ends every wait: the outcome is unknown. */
void http_acknowledge_abandon(struct http_loop *l);

/* ---- offload.c ---- */
int http_pool_start(struct http_server *s, unsigned threads) MUST_USE;
/* Finishes what is queued and ends the threads. */
void http_pool_stop(struct http_server *s);

static inline bool http_request_writes(const struct http_request *r) {
    return r->entry && (r->entry->route->flags & HTTP_ROUTE_WRITES);
}
static inline bool http_request_streams(const struct http_request *r) {
    return r->entry && (r->entry->route->flags & HTTP_ROUTE_STREAM);
}
static inline bool http_request_answered(const struct http_request *r) {
    return r->answer.status != 0;
}

#endif
