/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The calls of TCP, made regular: interrupted calls are taken up again, and every way in which a
 * peer can go away is one condition, OS_E_CLOSED. A name with several addresses gives its first
 * IPv4 one: "localhost" is 127.0.0.1, whatever the order in /etc/hosts.
 */
#include "os/socket.h"

#include "os/result.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum {
    HOST_MAX = 256,
    BACKLOG = 1024,
    PORT_DIGITS_MAX = 5,
    PORT_MAX = 65535,
    NS_PER_S = 1000000000
};

struct host_port {
    char host[HOST_MAX];
    const char *port; /* into the text */
};

static bool port_is_valid(const char *port) {
    size_t digits = strspn(port, "0123456789");
    if (digits == 0 || digits > PORT_DIGITS_MAX || port[digits] != '\0')
        return false;
    unsigned value = 0;
    for (size_t i = 0; i < digits; i++)
        value = value * 10 + (unsigned)(port[i] - '0');
    return value <= PORT_MAX;
}

/* "host:port" or "[host]:port"; a host with a colon needs the brackets. */
static bool split_host_port(const char *text, struct host_port *out) {
    const char *colon = strrchr(text, ':');
    if (!colon || !port_is_valid(colon + 1))
        return false;
    const char *start = text;
    size_t size = (size_t)(colon - text);
    if (size >= 2 && text[0] == '[' && text[size - 1] == ']') {
        start++;
        size -= 2;
    } else if (memchr(text, ':', size)) {
        return false;
    }
    if (size == 0 || size >= sizeof out->host)
        return false;
    memcpy(out->host, start, size);
    out->host[size] = '\0';
    out->port = colon + 1;
    return true;
}

static const struct addrinfo *prefer_ipv4(const struct addrinfo *list) {
    for (const struct addrinfo *a = list; a; a = a->ai_next)
        if (a->ai_family == AF_INET)
            return a;
    return list;
}

int socket_address_parse(const char *text, struct socket_address *ret_address) {
    struct host_port parts;
    if (!split_host_port(text, &parts))
        return error_origin(-EINVAL);
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    /* Known without asking anybody (RFC 6761, 6.3): a bare system may have no /etc/hosts. */
    const char *host = strcasecmp(parts.host, "localhost") == 0 ? "127.0.0.1" : parts.host;
    if (getaddrinfo(host, parts.port, &hints, &list) != 0)
        return error_origin(-EINVAL);
    const struct addrinfo *chosen = prefer_ipv4(list);
    struct socket_address address = {.size = chosen->ai_addrlen};
    assert(address.size <= sizeof address.storage);
    memcpy(&address.storage, chosen->ai_addr, address.size);
    freeaddrinfo(list);
    *ret_address = address;
    return 0;
}

static bool ipv4_is_loopback(const uint8_t address[4]) {
    return address[0] == 127;
}

bool socket_address_is_loopback(const struct socket_address *address) {
    if (address->storage.ss_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, &address->storage, sizeof in);
        return ipv4_is_loopback((const uint8_t *)&in.sin_addr);
    }
    if (address->storage.ss_family != AF_INET6)
        return false;
    struct sockaddr_in6 in6;
    memcpy(&in6, &address->storage, sizeof in6);
    return IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr) ||
           (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr) && ipv4_is_loopback(&in6.sin6_addr.s6_addr[12]));
}

/* Padding is zero in both: they come from socket_address_parse. */
bool socket_address_is_same(const struct socket_address *a, const struct socket_address *b) {
    return a->size == b->size && memcmp(&a->storage, &b->storage, a->size) == 0;
}

uint16_t socket_address_port(const struct socket_address *address) {
    /* The port stands at the same place in both families. */
    static_assert(offsetof(struct sockaddr_in, sin_port) ==
                      offsetof(struct sockaddr_in6, sin6_port),
                  "one port for both");
    struct sockaddr_in in;
    memcpy(&in, &address->storage, sizeof in);
    return ntohs(in.sin_port);
}

static int new_socket(const struct socket_address *address, int *ret_fd) {
    int fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return os_result(errno);
    *ret_fd = fd;
    return 0;
}

static const struct sockaddr *generic(const struct socket_address *address) {
    return (const struct sockaddr *)&address->storage;
}

static void set_option(int fd, int level, int name) {
    int on = 1;
    /* These options exist on every TCP socket, and without them it still works. */
    (void)setsockopt(fd, level, name, &on, sizeof on);
}

static int bind_and_listen(int fd, const struct socket_address *address, uint16_t *ret_port) {
    set_option(fd, SOL_SOCKET, SO_REUSEADDR); /* not to wait for connections in TIME_WAIT */
    struct socket_address bound = {.size = sizeof bound.storage};
    if (bind(fd, generic(address), address->size) < 0 || listen(fd, BACKLOG) < 0 ||
        getsockname(fd, (struct sockaddr *)&bound.storage, &bound.size) < 0)
        return os_result(errno);
    *ret_port = socket_address_port(&bound);
    return 0;
}

int socket_listen(const struct socket_address *address, int *ret_fd, uint16_t *ret_port) {
    int fd = -1;
    int r = new_socket(address, &fd);
    if (r)
        return error_trace(r);
    r = bind_and_listen(fd, address, ret_port);
    if (r) {
        socket_close(fd);
        return error_trace(r);
    }
    *ret_fd = fd;
    return 0;
}

/* accept(2) hands over errors of the network that are the caller's as little as an aborted
 * connection is, and tells of a shortage that will pass. */
static bool accept_may_go_on(int e) {
    static const int errors[] = {EAGAIN, ECONNABORTED, EMFILE,     ENFILE,      ENOBUFS,
                                 ENOMEM, ENETDOWN,     EPROTO,     ENOPROTOOPT, EHOSTDOWN,
                                 ENONET, EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH, EPERM};
    for (size_t i = 0; i < ARRAY_LENGTH(errors); i++)
        if (errors[i] == e)
            return true;
    return false;
}

int socket_accept(int listener, int *ret_fd, struct socket_address *ret_peer) {
    struct socket_address peer = {.size = sizeof peer.storage};
    int fd = -1;
    do
        fd = accept4(listener, (struct sockaddr *)&peer.storage, &peer.size,
                     SOCK_NONBLOCK | SOCK_CLOEXEC);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return accept_may_go_on(errno) ? OS_E_AGAIN : os_result(errno);
    set_option(fd, IPPROTO_TCP, TCP_NODELAY);
    *ret_fd = fd;
    *ret_peer = peer;
    return 0;
}

int socket_connect(const struct socket_address *address, int *ret_fd) {
    int fd = -1;
    int r = new_socket(address, &fd);
    if (r)
        return error_trace(r);
    set_option(fd, IPPROTO_TCP, TCP_NODELAY);
    /* An interrupted connect goes on by itself, as one in progress does. */
    if (connect(fd, generic(address), address->size) < 0 && errno != EINPROGRESS &&
        errno != EINTR) {
        r = os_result(errno);
        socket_close(fd);
        return r;
    }
    *ret_fd = fd;
    return 0;
}

int socket_read(int fd, void *data, size_t size, size_t *ret_size) {
    ssize_t n;
    do
        n = recv(fd, data, size, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return os_result(errno);
    if (n == 0)
        return OS_E_CLOSED;
    *ret_size = (size_t)n;
    return 0;
}

bool socket_has_ended(int fd) {
    char byte;
    ssize_t n = recv(fd, &byte, sizeof byte, MSG_PEEK | MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

int socket_write(int fd, const void *data, size_t size, size_t *ret_size) {
    ssize_t n;
    do
        n = send(fd, data, size, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return os_result(errno);
    *ret_size = (size_t)n;
    return 0;
}

void socket_close(int fd) {
    (void)close(fd); /* what the peer did not get it will notice */
}

void socket_abort(int fd) {
    const struct linger none = {.l_onoff = 1};
    /* A socket that is broken already sends nothing more. */
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    socket_close(fd);
}

void socket_shutdown(int fd, bool both) {
    /* A peer that is gone already is what was asked for. */
    (void)shutdown(fd, both ? SHUT_RDWR : SHUT_WR);
}

void socket_set_patience(int fd, uint64_t ms) {
    unsigned timeout = ms < INT_MAX ? (unsigned)ms : INT_MAX;
    /* A socket that is broken already will say so itself. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof timeout);
}

int socket_poll_ns(struct pollfd *fds, size_t n, int64_t timeout_ns) {
    uint64_t start_ns = os_monotonic_ns(os_real());
    int64_t rest_ns = timeout_ns;
    for (;;) {
        struct timespec rest = {.tv_sec = rest_ns / NS_PER_S, .tv_nsec = rest_ns % NS_PER_S};
        int ready = ppoll(fds, (nfds_t)n, timeout_ns < 0 ? NULL : &rest, NULL);
        if (ready >= 0)
            return ready;
        if (errno != EINTR)
            return error_origin(-errno);
        if (timeout_ns > 0) {
            int64_t passed_ns = (int64_t)(os_monotonic_ns(os_real()) - start_ns);
            rest_ns = passed_ns >= timeout_ns ? 0 : timeout_ns - passed_ns;
        }
    }
}

int socket_poll(struct pollfd *fds, size_t n, int timeout_ms) {
    return socket_poll_ns(fds, n, timeout_ms < 0 ? -1 : (int64_t)timeout_ms * 1000000);
}
