/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS of a client over a socket that does not block: the server's certificate and name are always
 * verified, and HTTP/2 is agreed on (ALPN h2). GnuTLS, which libmicrohttpd brings anyway, is behind
 * it; no other file knows it. What is trusted may be used by all threads, a session by one at a
 * time.
 */
#ifndef MILLRACE_POINTS_QDRANT_TLS_H
#define MILLRACE_POINTS_QDRANT_TLS_H

#include "os/socket.h"

struct tls_trust; /* whose certificates are believed */
struct tls;

enum {
    _TLS_E_SUCCESS,
    TLS_E_WANTS_READ, /* call again when the socket can be read */
    TLS_E_WANTS_WRITE,
    TLS_E_CLOSED, /* ended, or does not keep to the protocol */
};

/* ca_file: PEM; NULL: the system's. -EINVAL when there are no certificates. */
int tls_trust_new(const char *ca_file, struct tls_trust **ret_trust) MUST_USE;
struct tls_trust *tls_trust_free(struct tls_trust *trust);

/* The trust, the socket and the host are borrowed while the session lives. */
int tls_new(const struct tls_trust *trust, int fd, const char *host, struct tls **ret_tls) MUST_USE;
struct tls *tls_free(struct tls *t);
/* First, until 0. After TLS_E_CLOSED why holds a sentence fragment. */
int tls_handshake(struct tls *t, char *why, size_t why_size) MUST_USE;
/* As socket_read and socket_write. After TLS_E_WANTS_… write has to be called with the same bytes.
 */
int tls_read(struct tls *t, void *data, size_t size, size_t *ret_size) MUST_USE;
int tls_write(struct tls *t, const void *data, size_t size, size_t *ret_size) MUST_USE;

#endif
