/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The side server: a libmicrohttpd daemon with a thread of its own, for what must answer while
 * everything else is stuck. A handful of exact paths, GET and HEAD, no bodies. Lookup needs no
 * router; a client that dawdles is dropped by libmicrohttpd's own timeout.
 */
#include "http/http.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdlib.h>

enum { CONNECTIONS_MAX = 64, TIMEOUT_S = 10 };

struct http_side {
    const struct http_side_route *routes;
    size_t n;
    struct MHD_Daemon *daemon;
    uint16_t port;
};

static const struct http_side_route *find(const struct http_side *s, const char *path) {
    for (size_t i = 0; i < s->n; i++)
        if (!s->routes[i].path || strcmp(s->routes[i].path, path) == 0)
            return &s->routes[i];
    return NULL;
}

static enum MHD_Result send_body(struct MHD_Connection *c, unsigned status, const char *type,
                                 struct buffer *body) {
    struct MHD_Response *response =
        MHD_create_response_from_buffer(body->size, body->data, MHD_RESPMEM_MUST_COPY);
    if (!response)
        return MHD_NO;
    (void)MHD_add_response_header(response, "Content-Type", type);
    if (status == 405)
        (void)MHD_add_response_header(response, "Allow", "GET, HEAD");
    if (status == 503)
        (void)MHD_add_response_header(response, "Retry-After", "1");
    enum MHD_Result queued = MHD_queue_response(c, status, response);
    MHD_destroy_response(response);
    return queued;
}

static enum MHD_Result answer(const struct http_side *s, struct MHD_Connection *c, const char *url,
                              const char *method) {
    struct buffer body CLEANUP(buffer_deinit) = BUFFER_INIT;
    const struct http_side_route *route = find(s, url);
    const char *type = "text/plain; charset=utf-8";
    unsigned status = 404;
    if (!route) {
        buffer_append_string(&body, "no such path\n");
    } else if (route->path && strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0) {
        status = 405;
        buffer_append_string(&body, "this path takes GET\n");
    } else {
        status = route->render(route->context, &body, &type);
    }
    return buffer_check(&body) ? MHD_NO : send_body(c, status, type, &body);
}

static enum MHD_Result on_request(void *side, struct MHD_Connection *c, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *size, void **state) {
    static const char seen; /* only its address is used: the first call is behind us */
    (void)version;
    (void)data;
    bool first = !*state;
    *state = (void *)(uintptr_t)&seen;
    if (first)
        return MHD_YES;
    if (*size > 0) {
        *size = 0;
        return MHD_YES;
    }
    return answer(side, c, url, method);
}

/* On failure the listener is lost: libmicrohttpd has closed it or not, as far as it came, and to
 * close it twice could take a descriptor that is another's by now. */
static int side_start(struct http_side *s, int listener) {
    s->daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ITC, 0, NULL, NULL, on_request, s,
        MHD_OPTION_LISTEN_SOCKET, listener, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)TIMEOUT_S, MHD_OPTION_END);
    return s->daemon ? 0 : error_origin(-ENOMEM);
}

int http_side_new(struct os *os, const struct socket_address *listen,
                  const struct http_side_route *routes, size_t n, struct http_side **ret_side) {
    (void)os; /* libmicrohttpd has its own thread and clock */
    struct http_side *s = calloc(1, sizeof *s);
    if (!s)
        return error_origin(-ENOMEM);
    s->routes = routes;
    s->n = n;
    int listener = -1;
    int r = socket_listen(listen, &listener, &s->port);
    if (!r)
        r = side_start(s, listener);
    if (r) {
        free(s);
        return error_trace(r);
    }
    *ret_side = s;
    return 0;
}

struct http_side *http_side_free(struct http_side *s) {
    if (!s)
        return NULL;
    MHD_stop_daemon(s->daemon); /* closes the listener */
    free(s);
    return NULL;
}

uint16_t http_side_port(const struct http_side *s) {
    return s->port;
}
