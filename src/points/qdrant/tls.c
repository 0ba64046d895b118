/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GnuTLS reads and writes through os/socket.h.
 */
#include "points/qdrant/tls.h"

#include <gnutls/gnutls.h>
#include <stdio.h>
#include <stdlib.h>

/* HTTP/2 asks for 1.2 at least (RFC 9113, 9.2). */
static const char PRIORITY[] = "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2";

struct tls_trust {
    gnutls_certificate_credentials_t credentials;
};

struct tls {
    gnutls_session_t session;
    int fd;
};

int tls_trust_new(const char *ca_file, struct tls_trust **ret_trust) {
    struct tls_trust *trust = calloc(1, sizeof *trust);
    if (!trust || gnutls_certificate_allocate_credentials(&trust->credentials)) {
        free(trust);
        return error_origin(-ENOMEM);
    }
    int n = ca_file ? gnutls_certificate_set_x509_trust_file(trust->credentials, ca_file,
                                                             GNUTLS_X509_FMT_PEM)
                    : gnutls_certificate_set_x509_system_trust(trust->credentials);
    if (n <= 0) {
        tls_trust_free(trust);
        return error_origin(-EINVAL);
    }
    *ret_trust = trust;
    return 0;
}

struct tls_trust *tls_trust_free(struct tls_trust *trust) {
    if (!trust)
        return NULL;
    gnutls_certificate_free_credentials(trust->credentials);
    free(trust);
    return NULL;
}

/* ---- What GnuTLS asks for ---- */
static ssize_t told(struct tls *t, int r, size_t n) {
    if (r == 0)
        return (ssize_t)n;
    gnutls_transport_set_errno(t->session, r == OS_E_AGAIN ? EAGAIN : ECONNRESET);
    return -1;
}

static ssize_t pull(gnutls_transport_ptr_t context, void *data, size_t size) {
    struct tls *t = context;
    size_t n = 0;
    int r = socket_read(t->fd, data, size, &n);
    return r == OS_E_CLOSED ? 0 : told(t, r, n);
}

static ssize_t push(gnutls_transport_ptr_t context, const void *data, size_t size) {
    struct tls *t = context;
    size_t n = 0;
    int r = socket_write(t->fd, data, size, &n);
    return told(t, r, n);
}

/* Addresses have no place in the server's name indication (RFC 6066, 3). */
static bool is_address(const char *host) {
    return strchr(host, ':') || strspn(host, "0123456789.") == strlen(host);
}

static int set_up(struct tls *t, const struct tls_trust *trust, const char *host) {
    static const unsigned char protocol[] = "h2";
    /* GnuTLS copies the name of the protocol, and does not write there. */
    const gnutls_datum_t alpn = {(unsigned char *)(uintptr_t)protocol, sizeof protocol - 1};
    int r = gnutls_priority_set_direct(t->session, PRIORITY, NULL);
    if (r == 0)
        r = gnutls_credentials_set(t->session, GNUTLS_CRD_CERTIFICATE, trust->credentials);
    if (r == 0 && !is_address(host))
        r = gnutls_server_name_set(t->session, GNUTLS_NAME_DNS, host, strlen(host));
    if (r == 0)
        r = gnutls_alpn_set_protocols(t->session, &alpn, 1, 0);
    if (r)
        return error_origin(-ENOMEM);
    gnutls_session_set_verify_cert(t->session, host, 0);
    gnutls_transport_set_ptr(t->session, t);
    gnutls_transport_set_pull_function(t->session, pull);
    gnutls_transport_set_push_function(t->session, push);
    return 0;
}

int tls_new(const struct tls_trust *trust, int fd, const char *host, struct tls **ret_tls) {
    struct tls *t = calloc(1, sizeof *t);
    if (!t || gnutls_init(&t->session, GNUTLS_CLIENT | GNUTLS_NONBLOCK)) {
        free(t);
        return error_origin(-ENOMEM);
    }
    t->fd = fd;
    int r = set_up(t, trust, host);
    if (r) {
        tls_free(t);
        return error_trace(r);
    }
    *ret_tls = t;
    return 0;
}

struct tls *tls_free(struct tls *t) {
    if (!t)
        return NULL;
    gnutls_deinit(t->session);
    free(t);
    return NULL;
}

/* ---- Reading and writing ---- */
static int from_gnutls(struct tls *t, ssize_t n) {
    if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED)
        return gnutls_record_get_direction(t->session) ? TLS_E_WANTS_WRITE : TLS_E_WANTS_READ;
    return n == GNUTLS_E_MEMORY_ERROR ? error_origin(-ENOMEM) : TLS_E_CLOSED;
}

static void explain(struct tls *t, int error, char *why, size_t why_size) {
    gnutls_datum_t text = {0};
    if (error == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR &&
        gnutls_certificate_verification_status_print(
            gnutls_session_get_verify_cert_status(t->session), GNUTLS_CRT_X509, &text, 0) == 0) {
        int n = (int)text.size; /* ends with a space */
        (void)snprintf(why, why_size, "%.*s", n > 0 ? n - 1 : n, (const char *)text.data);
        gnutls_free(text.data);
    } else {
        (void)snprintf(why, why_size, "TLS: %s", gnutls_strerror(error));
    }
}

static bool agreed_on_http2(struct tls *t) {
    gnutls_datum_t protocol;
    return gnutls_alpn_get_selected_protocol(t->session, &protocol) == 0 &&
           bytes_equal(bytes_of(protocol.data, protocol.size), BYTES_LITERAL("h2"));
}

int tls_handshake(struct tls *t, char *why, size_t why_size) {
    int n;
    do
        n = gnutls_handshake(t->session);
    while (n == GNUTLS_E_WARNING_ALERT_RECEIVED || n == GNUTLS_E_GOT_APPLICATION_DATA);
    if (n < 0) {
        explain(t, n, why, why_size);
        return from_gnutls(t, n);
    }
    if (agreed_on_http2(t))
        return 0;
    (void)snprintf(why, why_size, "the server does not speak HTTP/2");
    return TLS_E_CLOSED;
}

int tls_read(struct tls *t, void *data, size_t size, size_t *ret_size) {
    ssize_t n = gnutls_record_recv(t->session, data, size);
    if (n == 0)
        return TLS_E_CLOSED;
    if (n < 0)
        return from_gnutls(t, n);
    *ret_size = (size_t)n;
    return 0;
}

int tls_write(struct tls *t, const void *data, size_t size, size_t *ret_size) {
    ssize_t n = gnutls_record_send(t->session, data, size);
    if (n < 0)
        return from_gnutls(t, n);
    *ret_size = (size_t)n;
    return 0;
}
