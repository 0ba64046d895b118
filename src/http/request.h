/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The request and its connection, as the files of this room see them; internal.h has the rest.
 *
 * A request's states; all of it happens on its loop's thread, but for the job of an offload:
 *
 *   HEADERS ──begin──▶ BODY ──end──▶ RUNNING ──respond──▶ ANSWERED ──queue──▶ SENT ──▶ recycled
 *                       │             │  └──await, offload──▶ WAITING ──due──▶ ANSWERED
 *                       │             └──events──▶ EVENTS ──over──▶ LINGER ──▶ closed
 *                       └──error──▶ DRAIN ──end──▶ ANSWERED
 *            a stream's begin ──offload──▶ WAITING ──▶ BODY or DRAIN
 *                                     └──too much──▶ LINGER ──▶ closed
 *
 * The connection is suspended in WAITING and EVENTS, and while a body is paused.
 */
#ifndef MILLRACE_HTTP_REQUEST_H
#define MILLRACE_HTTP_REQUEST_H

#include "http/decode.h"
#include "http/http.h"
#include "http/router.h"
#include "http/sse.h"

#include <microhttpd.h>
#include <stdatomic.h>

enum {
    HTTP_QUERY_MAX = 64,  /* parameters of a query; more are a bad request */
    HTTP_HEADERS_MAX = 8, /* headers a handler may add to its answer */
};

struct http_loop;

/* What belongs to a thread that runs handlers. */
struct http_worker {
    struct json_parser *parser;
    struct buffer scratch;
};
int http_worker_init(struct http_worker *w, uint64_t body_max_bytes) MUST_USE;
void http_worker_deinit(struct http_worker *w);
/* Around a handler. */
void http_worker_begin(struct http_worker *w);
void http_worker_end(struct http_worker *w);

struct http_pair {
    struct bytes name;
    struct bytes value;
};

enum http_request_state {
    REQUEST_HEADERS,
    REQUEST_BODY,
    REQUEST_RUNNING,
    REQUEST_WAITING,
    REQUEST_EVENTS,
    REQUEST_DRAIN,
    REQUEST_LINGER,
    REQUEST_ANSWERED,
    REQUEST_SENT,
};

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
    uint64_t charged_bytes; /* of the budget for answers */
    uint64_t queued_ns;     /* when it was given to libmicrohttpd */
    bool acknowledged;      /* set by acknowledge.c alone: a write's 2xx is allowed */
};

/* A stream of events: sse.c. What the socket did not take is the answer's copy. */
struct http_sse {
    struct http_events events;
    uint64_t due_ns;   /* when to look after it again */
    uint64_t began_ns; /* 0: its head is not written yet */
    uint64_t spoke_ns; /* when something was last appended */
    uint64_t stuck_ns; /* when the socket was full */
    size_t sent;       /* of the copy */
    bool ended;        /* nothing follows the copy */
    struct http_request *next;
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
    const struct http_area *area;     /* NULL: none */
    enum http_method method;
    const char *method_text;
    struct buffer target; /* decoded in place; what segments and query point into */
    struct router_path path;
    struct http_pair query[HTTP_QUERY_MAX];
    size_t n_query;
    bool malformed; /* the target does not decode */
    bool unframed;  /* nobody knows where the body ends */
    bool http10;

    /* The body. */
    uint64_t content_length; /* UINT64_MAX: chunked */
    uint64_t wire_bytes;
    uint64_t drained_bytes;
    uint64_t charged_bytes; /* of the budget for bodies */
    uint64_t heard_ns;      /* when the last piece came */
    struct buffer body;
    struct decoder *decoder; /* NULL: identity */
    uint64_t pause_until_ns; /* 0: it is not paused */
    struct http_request *timed_next;
    bool began;    /* a streaming handler that wants its end or closed */
    bool begins;   /* it offloaded in its begin */
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
    http_handler then; /* NULL: the job answered */
    void *then_context;

    struct http_sse sse;

    struct http_request *spare_next;
};

struct http_connection {
    struct http_loop *loop;
    struct http_request *request; /* NULL between requests */
    int fd;
    uint64_t idle_since_ns;
    uint64_t looked_ns; /* when it was last seen whether its end was missed */
    bool shut;          /* its end is under way */
    bool charged;       /* libmicrohttpd's memory of it was touched, and is counted */
    bool admitted;      /* there was memory for it */
    struct http_connection *previous;
    struct http_connection *next;
};

/* ---- request.c ---- */
struct http_request *http_request_take(struct http_loop *l, const char *target);
void http_request_recycle(struct http_request *r);
void http_request_free(struct http_request *r);
/* Ends a pause, if there is one; a suspended connection is still to be resumed. */
void http_request_unpause(struct http_request *r);
/* A streaming handler's begin has run: it waits, was answered, or wants the body now. */
void http_request_stream_on(struct http_request *r);
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
/* Appends the status line and the headers of an answer that does not go through libmicrohttpd; the
 * framing, and the empty line, are still to come. */
void http_answer_head(struct http_request *r, struct buffer *out);
/* Counts what the answer holds, until it is released. */
void http_answer_charge(struct http_request *r);
void http_answer_release(struct http_request *r);
/* Counts and logs it. */
void http_answer_count(struct http_request *r);
void http_fail_style(struct buffer *out, enum http_style style, enum http_error error,
                     const char *field, const char *message, double elapsed);

static inline bool http_request_writes(const struct http_request *r) {
    return r->entry && (r->entry->route->flags & HTTP_ROUTE_WRITES);
}
static inline bool http_request_streams(const struct http_request *r) {
    return r->entry && (r->entry->route->flags & HTTP_ROUTE_STREAM);
}
/* Somebody else will go on with it. */
static inline bool http_request_waits(const struct http_request *r) {
    return r->state == REQUEST_WAITING || r->state == REQUEST_EVENTS;
}
static inline bool http_request_paused(const struct http_request *r) {
    return r->pause_until_ns != 0;
}
static inline bool http_request_answered(const struct http_request *r) {
    return r->answer.status != 0;
}

#endif
