/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the tests of this room: a client made of a plain socket. Every wait has a bound, so that a
 * broken server fails a test rather than hanging it.
 */
#ifndef MILLRACE_HTTP_TEST_CLIENT_H
#define MILLRACE_HTTP_TEST_CLIENT_H

#include "os/socket.h"
#include "os/test_wait.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static UNUSED void wait_for(int fd, short events) {
    struct pollfd p = {.fd = fd, .events = events};
    assert_int_equal(socket_poll(&p, 1, WAIT_MS), 1);
}

static UNUSED int dial(const struct socket_address *server) {
    int fd = -1;
    assert_int_equal(socket_connect(server, &fd), 0);
    wait_for(fd, POLLOUT);
    return fd;
}

/* False when the server closed the connection before all of it was sent. */
static UNUSED bool send_bytes(int fd, const void *data, size_t size) {
    const uint8_t *at = data;
    while (size > 0) {
        size_t n = 0;
        wait_for(fd, POLLOUT);
        int r = socket_write(fd, at, size, &n);
        if (r == OS_E_CLOSED)
            return false;
        assert_true(r == 0 || r == OS_E_AGAIN);
        at += n;
        size -= n;
    }
    return true;
}

static UNUSED bool send_text(int fd, const char *text) {
    return send_bytes(fd, text, strlen(text));
}

struct answer {
    unsigned status; /* 0: the connection ended without one */
    char head[2048];
    char body[4096];
    size_t size; /* of the whole body; body holds its beginning */
};

/* Fewer only at the end of the connection. */
static UNUSED size_t read_bytes(int fd, char *ret, size_t size) {
    size_t got = 0;
    while (got < size) {
        size_t n = 0;
        int r = socket_read(fd, ret + got, size - got, &n);
        if (r == OS_E_CLOSED)
            break;
        assert_true(r == 0 || r == OS_E_AGAIN);
        if (r == OS_E_AGAIN)
            wait_for(fd, POLLIN);
        got += n;
    }
    return got;
}

/* One more byte; false at the end of the connection. */
static UNUSED bool read_byte(int fd, char *ret) {
    return read_bytes(fd, ret, 1) == 1;
}

static UNUSED const char *header_of(const struct answer *a, const char *name) {
    static char value[256];
    const char *at = strcasestr(a->head, name);
    if (!at)
        return NULL;
    at += strlen(name) + 1;
    at += strspn(at, " ");
    (void)snprintf(value, sizeof value, "%.*s", (int)strcspn(at, "\r\n"), at);
    return value;
}

static UNUSED bool read_head(int fd, struct answer *a) {
    memset(a, 0, sizeof *a);
    size_t n = 0;
    while (n + 1 < sizeof a->head && !strstr(a->head, "\r\n\r\n"))
        if (!read_byte(fd, &a->head[n++]))
            return false;
    return sscanf(a->head, "HTTP/1.%*u %u", &a->status) == 1;
}

/* The next answer, past any "100 Continue". head: of a HEAD request, which has no body. */
static UNUSED struct answer read_answer_of(int fd, bool head) {
    struct answer a;
    do
        if (!read_head(fd, &a)) {
            a.status = 0;
            return a;
        }
    while (a.status == 100);
    const char *length = header_of(&a, "Content-Length:");
    size_t size = length && !head ? strtoull(length, NULL, 10) : 0;
    size_t kept = size < sizeof a.body - 1 ? size : sizeof a.body - 1;
    a.size = read_bytes(fd, a.body, kept);
    char rest[4096];
    for (size_t n = a.size; n > 0 && a.size < size; a.size += n)
        n = read_bytes(fd, rest, size - a.size < sizeof rest ? size - a.size : sizeof rest);
    return a;
}

static UNUSED struct answer read_answer(int fd) {
    return read_answer_of(fd, false);
}

/* True when the server ends the connection, within the bound. */
static UNUSED bool ends(int fd) {
    char byte;
    while (read_byte(fd, &byte))
        ;
    return true;
}

/* One request on a connection of its own. */
static UNUSED struct answer ask(const struct socket_address *server, const char *request) {
    int fd = dial(server);
    (void)send_text(fd, request);
    struct answer a = read_answer(fd);
    socket_close(fd);
    return a;
}

static UNUSED struct answer get(const struct socket_address *server, const char *target) {
    char request[1024];
    (void)snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", target);
    return ask(server, request);
}

static UNUSED void send_post(int fd, const char *target, const char *headers, const void *body,
                             size_t size) {
    char head[1024];
    (void)snprintf(head, sizeof head,
                   "POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %zu\r\n\r\n", target, headers,
                   size);
    if (send_text(fd, head))
        (void)send_bytes(fd, body, size);
}

static UNUSED struct answer post(const struct socket_address *server, const char *target,
                                 const char *headers, const void *body, size_t size) {
    int fd = dial(server);
    send_post(fd, target, headers, body, size);
    struct answer a = read_answer(fd);
    socket_close(fd);
    return a;
}

static UNUSED bool no_answer_for(int fd, int ms) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return socket_poll(&p, 1, ms) == 0;
}

/* Waits until a counter that another thread moves has reached n. */
static UNUSED void until(const _Atomic unsigned *counter, unsigned n) {
    UNTIL(atomic_load(counter) >= n);
    assert_int_equal(atomic_load(counter), n);
}

#endif
