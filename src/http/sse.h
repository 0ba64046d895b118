/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers that are streams of server-sent events: a function of the route is asked at an interval
 * what is new. sse.c says how they are served.
 */
#ifndef MILLRACE_HTTP_SSE_H
#define MILLRACE_HTTP_SSE_H

#include "http/http.h"

/* A stream of server-sent events. Its functions run on the loop's thread, with the context of the
 * route, and must not block; the path, query, headers, arena and state of the request can be asked
 * for until closed, its body cannot. */
struct http_events {
    /* Appends whole events (http_event_append), or nothing; false ends the stream after them. It is
     * called first at once, then every interval, but not while the client has yet to take what came
     * before: what changes in between should be told by its newest state. What one call appends
     * and the socket does not take is kept up to 256 KiB; a history is best told in pieces of at
     * most 64. */
    bool (*next)(void *context, struct http_request *r, struct buffer *out);
    /* May be NULL. Called exactly once, whatever ended the stream: its last event, the client's
     * hang-up, a client that reads too slowly, its age, the server's stop; also when it was
     * refused, then from within http_respond_events. */
    void (*closed)(void *context, struct http_request *r);
    unsigned interval_ms; /* 0: 250; at least 25 */
};
/* Begins the stream, or answers 503 when there are too many. Only in the handler of a route with
 * HTTP_ROUTE_EVENTS. e is copied. Clients come back by themselves after any end, and say in the
 * header Last-Event-ID what they saw last. */
void http_respond_events(struct http_request *r, const struct http_events *e);
/* Appends one event. event (its type) and id may be NULL, and end at their first line break; data
 * may have any. */
void http_event_append(struct buffer *out, const char *event, const char *id, struct bytes data);

#endif
