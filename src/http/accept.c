/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loop 0 accepts for all and deals connections to the loop that has the fewest. Over the bound a
 * connection is answered 503 and kept a moment, because closing at once would reset it before the
 * client has read why. All of it on loop 0's thread.
 */
#include "http/internal.h"

#include <stdio.h>

enum {
    ACCEPT_MAX = 64,     /* a turn */
    REFUSED_MS = 500,    /* how long a refused connection is kept */
    DESCRIPTORS_MS = 50, /* how long not to ask when descriptors ran out */
};
#define MS UINT64_C(1000000)

void http_refused_sweep(struct http_server *s, uint64_t now_ns, bool all) {
    size_t kept = 0;
    for (size_t i = 0; i < s->n_refused; i++) {
        if (all || now_ns >= s->refused[i].close_ns)
            socket_close(s->refused[i].fd);
        else
            s->refused[kept++] = s->refused[i];
    }
    s->n_refused = kept;
}

static void refuse(struct http_server *s, int fd, uint64_t now_ns) {
    struct buffer body = BUFFER_INIT;
    const struct http_error_row *row = &http_error_rows[HTTP_ERROR_NO_CONNECTIONS];
    http_fail_style(&body, HTTP_STYLE_MILLRACE, HTTP_ERROR_NO_CONNECTIONS, NULL, row->message, 0);
    char head[256];
    int n = snprintf(head, sizeof head,
                     "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n"
                     "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                     body.size);
    size_t written = 0;
    /* Best effort, in one write each: the send buffer is empty. */
    if (!socket_write(fd, head, (size_t)n, &written) && !buffer_check(&body) &&
        socket_write(fd, body.data, body.size, &written))
        written = 0;
    buffer_deinit(&body);
    socket_shutdown(fd, false);
    metric_add(s->refused_total, 1);
    if (s->n_refused == HTTP_REFUSED_MAX) {
        socket_close(fd);
        return;
    }
    s->refused[s->n_refused].fd = fd;
    s->refused[s->n_refused++].close_ns = now_ns + REFUSED_MS * MS;
}

static struct http_loop *least_loaded(struct http_server *s) {
    struct http_loop *best = &s->loops[0];
    unsigned fewest = atomic_load_explicit(&best->n_connections, memory_order_relaxed);
    for (size_t i = 1; i < s->n_loops; i++) {
        unsigned n = atomic_load_explicit(&s->loops[i].n_connections, memory_order_relaxed);
        if (n < fewest) {
            fewest = n;
            best = &s->loops[i];
        }
    }
    return best;
}

static void deal(struct http_server *s, int fd) {
    struct http_loop *l = least_loaded(s);
    atomic_fetch_add(&l->n_connections, 1);
    unsigned n = atomic_fetch_add(&s->n_connections, 1) + 1;
    metric_set(s->connections_gauge, n);
    http_loop_hand_over(l, fd);
}

void http_accept(struct http_loop *l) {
    struct http_server *s = l->server;
    for (unsigned i = 0; i < ACCEPT_MAX; i++) {
        int fd = -1;
        struct socket_address peer;
        int r = socket_accept(s->listener, &fd, &peer);
        if (r) {
            /* Nobody waits, or there is no descriptor for who does: then the listener stays
             * readable, and asking again at once would spin. */
            if (i == 0)
                s->accept_after_ns = l->now_ns + DESCRIPTORS_MS * MS;
            return;
        }
        if (atomic_load(&s->n_connections) >= s->options.connections_max)
            refuse(s, fd, l->now_ns);
        else
            deal(s, fd);
    }
}
