/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The HTTP server: loops around libmicrohttpd, one a thread; a router over a table of routes;
 * limits; and the one place that acknowledges writes. It knows no kind of record.
 *
 * A handler runs on a loop's thread when the whole body is there (or, on a streaming route, for
 * each chunk) and must not block. It ends in exactly one of:
 *
 *   http_respond*, http_fail   an answer, at once (on a route that writes: only an error)
 *   http_await_write           the records appended at these lsns: the loop answers when they are
 *                              durable, or visible (invariant 1: nothing else can send a 2xx on a
 *                              route that writes)
 *   http_offload               work of more than about a millisecond, on the query threads
 *   http_offload_waiting       work that waits for other servers, on threads of their own
 *   http_respond_events        a stream of server-sent events, asked for at an interval: sse.h
 *
 * A request, its arena and body live until its answer is sent; they belong to the loop's thread,
 * and to the query thread while offloaded. loop.c draws the loop.
 */
#ifndef MILLRACE_HTTP_HTTP_H
#define MILLRACE_HTTP_HTTP_H

#include "base/arena.h"
#include "base/budget.h"
#include "base/json.h"
#include "http/route.h"
#include "journal/journal.h"
#include "observe/log.h"
#include "observe/metrics.h"
#include "os/socket.h"
#include "work/work.h"

struct http_request;
struct http_server;

/* ---- Errors: one row each, in errors.def ---- */
enum http_error {
#define HTTP_ERROR(id, status, code, message) HTTP_ERROR_##id,
#include "http/errors.def"
#undef HTTP_ERROR
    HTTP_ERRORS
};
struct http_error_row {
    unsigned status;
    const char *code;    /* snake_case, stable */
    const char *message; /* what to change, when the caller gives no better sentence */
};
extern const struct http_error_row http_error_rows[HTTP_ERRORS];

/* ---- The request ---- */
/* The percent-decoded parameter of the path, "" if there is no such. May hold any byte. */
struct bytes http_path_parameter(const struct http_request *r, const char *name);
enum http_method http_method_of(const struct http_request *r);
const char *http_method_name(enum http_method method);
/* Appends the path and the query, percent-encoded anew: for who asks another server the same. */
void http_target_append(const struct http_request *r, struct buffer *out);
/* The same of a text that is to be one segment of a path. */
void http_segment_append(struct bytes text, struct buffer *out);
/* The percent-decoded (first) value of a query parameter; false when it is not given. */
bool http_query_parameter(const struct http_request *r, const char *name, struct bytes *ret_value);
/* The same for a parameter that is given several times: its value number index, from 0; false when
 * it is given no more often than that. */
bool http_query_parameter_at(const struct http_request *r, const char *name, size_t index,
                             struct bytes *ret_value);
/* As a flag: "true", "1", "" are true, "false", "0" false; anything else, or absent: fallback. */
bool http_query_flag(const struct http_request *r, const char *name, bool fallback);
/* NULL when it is not there. */
const char *http_header(const struct http_request *r, const char *name);
/* The decoded body, with JSON_PADDING readable bytes behind it. Empty on streaming routes. */
struct bytes http_body(const struct http_request *r);
struct arena *http_arena(struct http_request *r);
/* Counts n more bytes for the request, as for its body, until it was answered. False: there is no
 * memory for them now. More than http_memory_max never fits. */
bool http_take_memory(struct http_request *r, uint64_t n) MUST_USE;
uint64_t http_memory_max(const struct http_request *r);
/* A parser of this thread, valid until the handler returns (loops and query threads have one each).
 */
struct json_parser *http_json_parser(struct http_request *r);
/* Room for encoding, of this thread, empty at first, reused: valid until the handler returns. What
 * goes into it should grow with the body only: it is counted as much as that. */
struct buffer *http_scratch(struct http_request *r);
/* Seconds since the request came, for Qdrant's "time". */
double http_elapsed(const struct http_request *r);
/* How its errors look: as its route says. */
enum http_style http_style_of(const struct http_request *r);
/* The handler's own state between chunk calls and for renderers; freed by nobody. */
void http_set_state(struct http_request *r, void *state);
void *http_state(const struct http_request *r);
/* Streaming: stops reading the body for about ms (invariant 6: a bound reached pauses the reading).
 * From chunk: chunk is then called again, with an empty piece if there is no other. From end (which
 * returns without an answer): end is called again. */
void http_pause_body_ms(struct http_request *r, uint64_t ms);

/* ---- Answers ---- */
/* A header of the answer to come, at most eight; name is static storage, value is copied. */
void http_set_header(struct http_request *r, const char *name, const char *value);
/* body is copied. content_type NULL: application/json. */
void http_respond(struct http_request *r, unsigned status, const char *content_type,
                  struct bytes body);
/* As http_respond, and takes the memory of a large body over instead of copying it. */
void http_respond_taking(struct http_request *r, unsigned status, const char *content_type,
                         struct buffer *body);
/* As http_respond with 200, but body is not copied and must be immutable for the life of the
 * server. etag (NULL for none) is a quoted string: a client that has it gets 304,
 * and asks each time, as the next version of the server may have another. */
void http_respond_static(struct http_request *r, const char *content_type, struct bytes body,
                         const char *etag);
/* An error by its row; field may be NULL; format NULL takes the row's own message. */
void http_fail(struct http_request *r, enum http_error error, const char *field, const char *format,
               ...) PRINTF_LIKE(4, 5);
/* The error for a condition of journal_append: 503 or 429 with Retry-After. */
void http_fail_journal(struct http_request *r, int condition);
/* Qdrant's envelope: {"result":<result_json>,"status":"ok","time":…}. */
void http_respond_qdrant(struct http_request *r, struct bytes result_json);
/* As http_respond_qdrant, and takes the memory of a large result over instead of copying it. */
void http_respond_qdrant_taking(struct http_request *r, struct buffer *result_json);

enum http_write_outcome {
    HTTP_WRITE_DURABLE, /* durable; visibility was not asked for, or its timeout passed */
    HTTP_WRITE_VISIBLE,
};
struct http_write {
    lsn_t first;        /* of what it appended; 0: nothing */
    lsn_t last;         /* that is waited for */
    uint64_t lane_mask; /* of `work`, for visible */
    struct work *work;
    bool wait_visible;
    uint64_t timeout_ms; /* of visibility, once it is durable; 0: 60 000 */
    /* Appends the answer's body and returns its status (200, 201, 202, 204). */
    unsigned (*render)(struct http_request *r, enum http_write_outcome outcome,
                       struct buffer *body);
    enum http_error (*rejected)(const char *reason); /* NULL: always HTTP_ERROR_BAD_REQUEST */
};
/* The loop answers: 2xx through render once durable or visible; the store's own error when a
 * record was rejected; 503 outcome_unknown when durability did not come within the deadline. */
void http_await_write(struct http_request *r, const struct http_write *write);

/* Runs job on a query thread; it must end in http_respond*, http_fail or http_resume (not in await
 * or offload). Past the queue's bound the request is answered 503 overloaded. */
void http_offload(struct http_request *r, http_handler job, void *context);
/* The same on one of the waiting_threads. */
void http_offload_waiting(struct http_request *r, http_handler job, void *context);
/* Ends a job, and the request goes on with handler, on its loop's thread. */
void http_resume(struct http_request *r, http_handler handler, void *context);

/* ---- The server ---- */
struct http_options {
    struct socket_address listen;
    unsigned threads;          /* loops; 0: one a core */
    unsigned query_threads;    /* 0: one a core */
    unsigned waiting_threads;  /* 0: none, and nothing is offloaded to them */
    uint64_t body_max_bytes;   /* 0: 32 MiB; after decoding */
    uint64_t header_max_bytes; /* 0: 32 KiB; also the memory of a connection */
    unsigned connections_max;  /* 0: 16,384 */
    unsigned idle_timeout_s;   /* 0: 75: a connection without a request; also between chunks */
    unsigned body_timeout_s;   /* 0: 60: the whole of a buffered body; events until they are read */
    uint64_t commit_timeout_ms;    /* 0: 5,000: then 503 outcome_unknown */
    unsigned events_max;           /* 0: 1,024 streams of events; then 503 overloaded */
    unsigned events_keep_alive_ms; /* 0: 15,000 of silence, then a comment */
    unsigned events_age_max_ms;    /* 0: 3,600,000: then a stream ends */
    struct budget *budget;   /* of bodies, answers, connections; then 503 overloaded. NULL: none */
    const char *api_key;     /* NULL: none asked */
    const char *own_key;     /* another one, of our own processes; NULL: none */
    const char *cors_origin; /* NULL: off */
    const char *title;       /* of /openapi.json */
    const char *version;
};

/* Binds (OS_E_IN_USE, OS_E_DENIED) and prepares; serves nothing yet. The tables, the texts of the
 * options, the journals, metrics and log must outlive it. */
int http_server_new(struct os *os, const struct http_options *options,
                    const struct http_route_table *tables, size_t n_tables, struct metrics *metrics,
                    struct log *log, struct http_server **ret_server) MUST_USE;
int http_server_start(struct http_server *s) MUST_USE;
uint16_t http_server_port(const struct http_server *s);
/* From now on requests must carry this key; NULL: none is asked. Any thread; key must outlive the
 * server. */
void http_server_set_api_key(struct http_server *s, const char *key);
/* Refuses new connections, finishes what is in flight within timeout_ms, ends the threads. */
void http_server_stop(struct http_server *s, uint64_t timeout_ms);
/* Stops at once if it was not stopped. Only before the journal is closed, and after every struct
 * work that a request waited for has ended its threads: it knows our listeners. */
struct http_server *http_server_free(struct http_server *s);
/* True when a loop has not gone round for 10 s: turns liveness red. */
bool http_server_stalled(const struct http_server *s);
/* Appends the OpenAPI 3.1 document of the tables. */
void http_openapi(const struct http_route_table *tables, size_t n_tables, const char *title,
                  const char *version, struct buffer *out);

/* A second, small server with a thread of its own, for /metrics and health (invariant 10). */
struct http_side;
struct http_side_route {
    const char *path; /* NULL, of the last one: any other, by whatever method */
    /* Appends the body, returns the status; runs on the side server's thread. */
    unsigned (*render)(void *context, struct buffer *body, const char **ret_content_type);
    void *context;
};
int http_side_new(struct os *os, const struct socket_address *listen,
                  const struct http_side_route *routes, size_t n,
                  struct http_side **ret_side) MUST_USE;
struct http_side *http_side_free(struct http_side *s);
uint16_t http_side_port(const struct http_side *s);

#endif
