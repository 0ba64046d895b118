/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of route tables: the router, /openapi.json and /docs follow from them. http.h says what
 * handlers may do. Plain values.
 */
#ifndef MILLRACE_HTTP_ROUTE_H
#define MILLRACE_HTTP_ROUTE_H

#include "base/bytes.h"
#include "http/schema.h"

struct http_request;

/* How a route's errors look. */
enum http_style {
    HTTP_STYLE_MILLRACE, /* {"error":{"code","message","field"}} */
    HTTP_STYLE_QDRANT,   /* {"status":{"error":"…"},"time":…} */
};

/* ---- Routes: one row each, in the kind's api file ---- */
enum http_method { HTTP_GET, HTTP_POST, HTTP_PUT, HTTP_PATCH, HTTP_DELETE, HTTP_METHODS };

enum http_route_flags {
    HTTP_ROUTE_WRITES = 1,   /* only http_await_write can answer 2xx */
    HTTP_ROUTE_OPEN = 2,     /* no key asked */
    HTTP_ROUTE_STREAM = 4,   /* the body comes in chunks; no bound on its size */
    HTTP_ROUTE_ANY_BODY = 8, /* a body is read and ignored */
    HTTP_ROUTE_EVENTS = 16,  /* the 2xx answer is a stream: sse.h */
};

typedef void (*http_handler)(void *context, struct http_request *request);

struct http_route {
    enum http_method method;
    const char *path; /* "/collections/{name}/points/{id}"; a segment in braces is a parameter */
    http_handler handler;
    unsigned flags;
    enum http_style style;
    const char *tag;     /* groups the routes in /docs */
    const char *summary; /* one line of prose */
    const char *request; /* the body, in the notation of schema.h; NULL for none */
    const char *answer;  /* the 2xx answer, in the same; NULL for none */
    const char *media;   /* of an answer that is a text of another type; NULL: it is JSON */
    const char *query;   /* query parameters as members of an object in the same, "limit: uint = 10,
                            cursor", "" for none; others are ignored. A parameter of the path may be
                            among them, to say its type */
    /* Streaming routes: begin is `handler` (return without answering to go on; what it offloads may
     * be resumed with another begin, and the body is read after that), then chunk for each decoded
     * piece of the body, then end. After an answer the rest is drained and none of them is called
     * any more. closed is called when there will be no answer of the handler's: the client
     * went away, was too slow, or sent what does not decode; the request must not be resumed or
     * looked at afterwards. */
    void (*chunk)(void *context, struct http_request *request, struct bytes chunk);
    http_handler end;
    http_handler closed;
};

/* How the part of the paths below `/segment` speaks where no row does: for who knows another server
 * with these paths, and asks for what only that one has. */
struct http_area {
    const char *segment;
    enum http_style style;
    const char *unsupported; /* the sentence of a 404 and of a 405 */
    /* Takes what no row of this area does, whatever the method: its path is only a name, and its
     * method is not looked at. NULL: that is refused. */
    const struct http_route *fallback;
    void *context; /* given to its handler */
};

struct http_route_table {
    const struct http_route *routes;
    size_t n;
    void *context;                     /* given to their handlers */
    struct journal *journal;           /* that they append to; NULL: none of them writes */
    const struct http_schema *schemas; /* that the rows of any table may name */
    size_t n_schemas;
    const struct http_area *area; /* NULL: none. All of them count, whichever table they are in */
};

#endif
