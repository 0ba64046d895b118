/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transfers against a peer that answers by the path: what is not read waits at its sender, also
 * while something else is asked; every wait ends when it is told to. (Redirects, TLS and what may
 * be asked at all: tests/api/test_import.py.)
 */
#include "http/transfer.h"

#include "os/os.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    SENT_MAX = 64 << 20,   /* by a sender that is never held up */
    HELD_UP_MS = 200,      /* after which it counts as held up */
    PIECE_MAX = 512 << 10, /* twice what a download keeps */
    CONNECTIONS_MAX = 8,
};

struct peer {
    int listener;
    char hosts[32];
    char url[40];
    struct os_thread *threads[CONNECTIONS_MAX + 1];
    size_t n;
    _Atomic bool held_up; /* the sender of /endless, or it has sent all */
    _Atomic bool ending;
};

struct connection {
    struct peer *peer;
    int fd;
};
static struct connection connections[CONNECTIONS_MAX];
static struct peer peer;

static void send_text(int fd, const char *text) {
    (void)!send(fd, text, strlen(text), MSG_NOSIGNAL);
}

/* Until it is held up, or nobody listens; then waits for the end. */
static void send_endlessly(int fd) {
    static const char block[64 << 10];
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    send_text(fd, "HTTP/1.1 200 OK\r\n\r\n");
    for (size_t sent = 0; sent < SENT_MAX && poll(&p, 1, HELD_UP_MS) == 1;) {
        ssize_t n = send(fd, block, sizeof block, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0)
            break;
        sent += (size_t)n;
    }
    atomic_store(&peer.held_up, true);
    while (!atomic_load(&peer.ending))
        poll(NULL, 0, 5);
}

static void answer_late(int fd) {
    while (!atomic_load(&peer.held_up) && !atomic_load(&peer.ending))
        poll(NULL, 0, 5);
    send_text(fd, "HTTP/1.1 429 Later\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nlate");
}

static void answer_hugely(int fd) {
    static const char block[64 << 10];
    send_text(fd, "HTTP/1.1 200 OK\r\n\r\n");
    for (size_t sent = 0; sent <= QUESTION_ANSWER_MAX_BYTES; sent += sizeof block)
        if (send(fd, block, sizeof block, MSG_NOSIGNAL) < 0)
            return;
}

static void serve_connection(void *context) {
    struct connection *c = context;
    char head[2048] = "";
    ssize_t n = recv(c->fd, head, sizeof head - 1, 0);
    if (n > 0 && strstr(head, " /endless "))
        send_endlessly(c->fd);
    else if (n > 0 && strstr(head, " /late "))
        answer_late(c->fd);
    else if (n > 0 && strstr(head, " /huge "))
        answer_hugely(c->fd);
    else if (n > 0 && strstr(head, " /whole "))
        send_text(c->fd, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"a\"\r\n\r\nwhole");
    else if (n > 0 && strstr(head, " /other "))
        send_text(c->fd, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"b\"\r\n\r\nwhole");
    else
        while (!atomic_load(&peer.ending)) /* says nothing */
            poll(NULL, 0, 5);
    shutdown(c->fd, SHUT_WR);
    while (recv(c->fd, head, sizeof head, 0) > 0) /* what is unread would undo what was sent */
        continue;
    close(c->fd);
}

static void accept_connections(void *unused) {
    (void)unused;
    while (peer.n < CONNECTIONS_MAX) {
        int fd = accept(peer.listener, NULL, NULL);
        if (fd < 0 || atomic_load(&peer.ending))
            break;
        connections[peer.n] = (struct connection){&peer, fd};
        if (os_thread_start(os_real(), "peer", serve_connection, &connections[peer.n],
                            &peer.threads[peer.n]))
            break;
        peer.n++;
    }
}

static int set_up(void **state) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    (void)state;
    peer = (struct peer){.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    assert_int_equal(bind(peer.listener, (const struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(peer.listener, 8), 0);
    assert_int_equal(getsockname(peer.listener, (struct sockaddr *)&address, &size), 0);
    (void)snprintf(peer.hosts, sizeof peer.hosts, "127.0.0.1:%u", ntohs(address.sin_port));
    (void)snprintf(peer.url, sizeof peer.url, "http://%s", peer.hosts);
    return os_thread_start(os_real(), "peer", accept_connections, NULL,
                           &peer.threads[CONNECTIONS_MAX]);
}

static int tear_down(void **state) {
    (void)state;
    atomic_store(&peer.ending, true);
    shutdown(peer.listener, SHUT_RDWR);
    os_thread_join(os_real(), peer.threads[CONNECTIONS_MAX]);
    for (size_t i = 0; i < peer.n; i++)
        os_thread_join(os_real(), peer.threads[i]);
    close(peer.listener);
    return 0;
}

static bool never(const void *context) {
    (void)context;
    return false;
}

/* The third time it is asked. */
static bool soon(const void *context) {
    _Atomic int *left = (_Atomic int *)(uintptr_t)context;
    return atomic_fetch_sub(left, 1) <= 1;
}

static struct transfers *transfers_with(bool (*stopped)(const void *), const void *context) {
    const struct transfers_options options = {stopped, context};
    struct transfers *t = NULL;
    assert_int_equal(transfers_new(&options, &t), 0);
    return t;
}

static int open_path(struct transfers *t, const char *path, uint64_t stall_ms,
                     struct download **ret_download) {
    char url[80];
    (void)snprintf(url, sizeof url, "%s%s", peer.url, path);
    const struct download_options options = {url, peer.hosts, stall_ms};
    return download_open(t, &options, ret_download);
}

static int ask_path(struct transfers *t, const char *path, struct question_answer *answer) {
    char url[80];
    (void)snprintf(url, sizeof url, "%s%s", peer.url, path);
    const struct question question = {.url = url, .body = BYTES_LITERAL("?"), .timeout_ms = 60000};
    return transfers_ask(t, &question, answer);
}

static void test_what_is_not_read_waits_at_its_sender(void **state) {
    (void)state;
    struct transfers *t = transfers_with(never, NULL);
    struct question_answer answer = {.body = BUFFER_INIT};
    struct download *d;
    struct bytes piece;
    assert_int_equal(open_path(t, "/endless", 60000, &d), 0);
    assert_int_equal(ask_path(t, "/late", &answer), 0); /* once the sender is held up */
    assert_int_equal(answer.status, 429);
    assert_int_equal(answer.retry_after_s, 7);
    assert_true(bytes_equal(buffer_bytes(&answer.body), BYTES_LITERAL("late")));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(download_read(d, &piece), 0);
        assert_true(piece.size > 0 && piece.size <= PIECE_MAX);
    }
    download_close(d);
    buffer_deinit(&answer.body);
    transfers_free(t);
}

static void test_a_whole_one(void **state) {
    (void)state;
    struct transfers *t = transfers_with(never, NULL);
    struct download *d, *other;
    struct bytes piece;
    assert_int_equal(open_path(t, "/whole", 60000, &d), 0);
    assert_int_equal(download_length(d), 5);
    assert_int_equal(open_path(t, "/other", 60000, &other), 0);
    assert_int_not_equal(download_version(d), download_version(other));
    assert_int_equal(download_read(d, &piece), 0);
    assert_true(bytes_equal(piece, BYTES_LITERAL("whole")));
    assert_int_equal(download_read(d, &piece), TRANSFER_E_END);
    assert_int_equal(download_read(d, &piece), TRANSFER_E_END);
    download_close(d);
    assert_int_equal(open_path(t, "/whole", 60000, &d), 0);
    download_close(other);
    assert_int_equal(open_path(t, "/whole", 60000, &other), 0);
    assert_int_equal(download_version(d), download_version(other));
    download_close(d); /* unread */
    download_close(other);
    transfers_free(t);
}

static void test_every_wait_can_be_stopped(void **state) {
    (void)state;
    static const int looks = 3;
    _Atomic int left = looks;
    struct transfers *t = transfers_with(soon, &left);
    struct question_answer answer = {.body = BUFFER_INIT};
    struct download *d = NULL;
    struct bytes piece;
    assert_int_equal(open_path(t, "/silent", 60000, &d), TRANSFER_E_STOPPED);
    atomic_store(&left, looks);
    assert_int_equal(ask_path(t, "/silent", &answer), TRANSFER_E_STOPPED);
    atomic_store(&left, 1000000);
    assert_int_equal(open_path(t, "/whole", 60000, &d), 0);
    atomic_store(&left, 1);
    assert_int_equal(download_read(d, &piece), TRANSFER_E_STOPPED);
    download_close(d);
    buffer_deinit(&answer.body);
    transfers_free(t);
}

static void test_what_fails(void **state) {
    (void)state;
    struct transfers *t = transfers_with(never, NULL);
    struct question_answer answer = {.body = BUFFER_INIT};
    struct download *d = NULL;
    assert_int_equal(open_path(t, "/silent", 100, &d), TRANSFER_E_FAILED);
    assert_non_null(strstr(transfers_sentence(t), "nothing came from the source"));
    assert_int_equal(ask_path(t, "/huge", &answer), TRANSFER_E_REFUSED);
    assert_true(answer.body.size <= QUESTION_ANSWER_MAX_BYTES);
    const struct download_options elsewhere = {"http://127.0.0.1:1/", peer.hosts, 1000};
    assert_int_equal(download_open(t, &elsewhere, &d), TRANSFER_E_REFUSED);
    const struct download_options nobody = {"http://127.0.0.1:1/", "127.0.0.1:1", 60000};
    assert_int_equal(download_open(t, &nobody, &d), TRANSFER_E_FAILED);
    assert_null(d);
    buffer_deinit(&answer.body);
    transfers_free(t);
}

#define ROW(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        ROW(test_what_is_not_read_waits_at_its_sender),
        ROW(test_a_whole_one),
        ROW(test_every_wait_can_be_stopped),
        ROW(test_what_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
