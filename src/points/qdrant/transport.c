/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whatever ends a connection is one condition here: what it means depends on what was being done,
 * and that the caller knows. The name is looked up at each opening, so that a server that moved is
 * found.
 */
#include "points/qdrant/transport.h"

#include <stdio.h>
#include <stdlib.h>

struct transport {
    struct os *os;
    int fd;
    struct tls *tls; /* or NULL */
    bool tls_wants_write;
};

enum { ADDRESS_TEXT_MAX = 300 };

static int from_os(int r) {
    if (r == OS_E_AGAIN)
        return TRANSPORT_E_AGAIN;
    return r == OS_E_CLOSED ? TRANSPORT_E_CLOSED : r;
}

static int wait_for(struct transport *t, short events, uint64_t deadline_ns) {
    uint64_t now_ns = os_monotonic_ns(t->os);
    struct pollfd fd = {.fd = t->fd, .events = events};
    int64_t rest_ns = deadline_ns > now_ns ? (int64_t)(deadline_ns - now_ns) : 0;
    int n = socket_poll_ns(&fd, 1, rest_ns);
    if (n < 0)
        return error_trace(n);
    return n == 0 ? TRANSPORT_E_DEADLINE : 0;
}

int transport_wait(struct transport *t, bool or_writable, uint64_t deadline_ns) {
    bool write = or_writable || t->tls_wants_write;
    return wait_for(t, (short)(write ? POLLIN | POLLOUT : POLLIN), deadline_ns);
}

static int from_tls(struct transport *t, int r) {
    t->tls_wants_write = r == TLS_E_WANTS_WRITE;
    if (r == TLS_E_WANTS_READ || r == TLS_E_WANTS_WRITE)
        return TRANSPORT_E_AGAIN;
    return r == TLS_E_CLOSED ? TRANSPORT_E_CLOSED : r;
}

int transport_read(struct transport *t, void *data, size_t size, size_t *ret_size) {
    if (t->tls)
        return from_tls(t, tls_read(t->tls, data, size, ret_size));
    return from_os(socket_read(t->fd, data, size, ret_size));
}

int transport_write(struct transport *t, const void *data, size_t size, size_t *ret_size) {
    if (t->tls)
        return from_tls(t, tls_write(t->tls, data, size, ret_size));
    return from_os(socket_write(t->fd, data, size, ret_size));
}

static int resolve(const struct transport_target *target, struct socket_address *ret_address) {
    char text[ADDRESS_TEXT_MAX];
    int n = snprintf(text, sizeof text, strchr(target->host, ':') ? "[%s]:%u" : "%s:%u",
                     target->host, (unsigned)target->port);
    if (n < 0 || (size_t)n >= sizeof text)
        return TRANSPORT_E_CLOSED;
    return socket_address_parse(text, ret_address) ? TRANSPORT_E_CLOSED : 0;
}

static int connect_to(struct transport *t, const struct transport_target *target,
                      uint64_t deadline_ns, char *why, size_t why_size) {
    struct socket_address address;
    int r = resolve(target, &address);
    if (r) {
        (void)snprintf(why, why_size, "there is no address for this name");
        return r;
    }
    r = from_os(socket_connect(&address, &t->fd));
    if (r == 0)
        r = wait_for(t, POLLOUT, deadline_ns);
    if (r == 0 && socket_has_ended(t->fd))
        r = TRANSPORT_E_CLOSED;
    if (r > 0)
        (void)snprintf(why, why_size, "%s",
                       r == TRANSPORT_E_DEADLINE ? "no answer in time"
                                                 : "the connection is refused");
    return error_trace(r);
}

static int shake_hands(struct transport *t, const struct transport_target *target,
                       uint64_t deadline_ns, char *why, size_t why_size) {
    int r = tls_new(target->trust, t->fd, target->host, &t->tls);
    if (r)
        return error_trace(r);
    for (;;) {
        r = from_tls(t, tls_handshake(t->tls, why, why_size));
        if (r != TRANSPORT_E_AGAIN)
            return error_trace(r);
        r = transport_wait(t, false, deadline_ns);
        if (r == TRANSPORT_E_DEADLINE)
            (void)snprintf(why, why_size, "no answer in time");
        if (r)
            return error_trace(r);
    }
}

int transport_open(struct os *os, const struct transport_target *target, uint64_t deadline_ns,
                   char *why, size_t why_size, struct transport **ret_transport) {
    struct transport *t = calloc(1, sizeof *t);
    if (!t)
        return error_origin(-ENOMEM);
    t->os = os;
    t->fd = -1;
    int r = connect_to(t, target, deadline_ns, why, why_size);
    if (r == 0 && target->trust)
        r = shake_hands(t, target, deadline_ns, why, why_size);
    if (r) {
        transport_free(t, true);
        return error_trace(r);
    }
    *ret_transport = t;
    return 0;
}

struct transport *transport_free(struct transport *t, bool abandon) {
    if (!t)
        return NULL;
    tls_free(t->tls);
    if (t->fd >= 0 && abandon)
        socket_abort(t->fd);
    else if (t->fd >= 0)
        socket_close(t->fd);
    free(t);
    return NULL;
}
