/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stream of bytes to a server: a TCP connection, with or without TLS. Every wait has a deadline
 * of the monotonic clock. Belongs to one thread at a time.
 */
#ifndef MILLRACE_POINTS_QDRANT_TRANSPORT_H
#define MILLRACE_POINTS_QDRANT_TRANSPORT_H

#include "points/qdrant/tls.h"

struct transport;

struct transport_target {
    const char *host; /* a name or an address, without brackets */
    uint16_t port;
    const struct tls_trust *trust; /* NULL: no TLS */
};

enum {
    _TRANSPORT_E_SUCCESS,
    TRANSPORT_E_AGAIN,    /* nothing to read now, no room to write now */
    TRANSPORT_E_CLOSED,   /* the peer ended or reset it */
    TRANSPORT_E_DEADLINE, /* passed */
};

/* A sentence fragment why it could not be opened is written to why. TRANSPORT_E_CLOSED,
 * TRANSPORT_E_DEADLINE. */
int transport_open(struct os *os, const struct transport_target *target, uint64_t deadline_ns,
                   char *why, size_t why_size, struct transport **ret_transport) MUST_USE;
/* What was written and is not sent yet may still come to the server, and much later; with abandon
 * it is thrown away. Takes NULL. */
struct transport *transport_free(struct transport *t, bool abandon);
/* TRANSPORT_E_AGAIN, TRANSPORT_E_CLOSED. ret_size is never 0 on success. */
int transport_read(struct transport *t, void *data, size_t size, size_t *ret_size) MUST_USE;
int transport_write(struct transport *t, const void *data, size_t size, size_t *ret_size) MUST_USE;
/* Until there is something to read, or, if asked for, room to write. TRANSPORT_E_DEADLINE. */
int transport_wait(struct transport *t, bool or_writable, uint64_t deadline_ns) MUST_USE;

#endif
