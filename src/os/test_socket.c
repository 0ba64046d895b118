/* SPDX-License-Identifier: Apache-2.0 */
/* TCP over loopback: addresses, listening, both directions, and all the ways to lose a peer. */
#include "os/socket.h"
#include "os/test_wait.h"

#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/time.h>

#include <cmocka.h>

static void test_addresses(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int family; /* 0: refused */
        uint16_t port;
        bool loopback;
    } rows[] = {
        {"127.0.0.1:8000", AF_INET, 8000, true},
        {"127.9.9.9:0", AF_INET, 0, true},
        {"0.0.0.0:65535", AF_INET, 65535, false},
        {"10.0.0.1:80", AF_INET, 80, false},
        {"[::1]:8000", AF_INET6, 8000, true},
        {"[::]:8000", AF_INET6, 8000, false},
        {"[::ffff:127.0.0.1]:1", AF_INET6, 1, true},
        {"[::ffff:10.0.0.1]:1", AF_INET6, 1, false},
        {"localhost:9001", AF_INET, 9001, true},
        {"127.0.0.1", 0, 0, false},
        {"127.0.0.1:", 0, 0, false},
        {"127.0.0.1:65536", 0, 0, false},
        {"127.0.0.1:99999999999", 0, 0, false},
        {"127.0.0.1:80x", 0, 0, false},
        {"127.0.0.1:-1", 0, 0, false},
        {":8000", 0, 0, false},
        {"::1:8000", 0, 0, false},
        {"[]:80", 0, 0, false},
        {"", 0, 0, false},
        {"256.0.0.1:80", 0, 0, false},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
        struct socket_address address = {0};
        int r = socket_address_parse(rows[i].text, &address);
        if (r != (rows[i].family ? 0 : -EINVAL))
            fail_msg("%s: %d", rows[i].text, r);
        assert_int_equal(address.storage.ss_family, rows[i].family);
        assert_int_equal(socket_address_port(&address), rows[i].port);
        assert_int_equal(socket_address_is_loopback(&address), rows[i].loopback);
    }
}

static void test_same_address(void **state UNUSED) {
    const char *const texts[] = {"127.0.0.1:8000", "localhost:8000", "127.0.0.1:8001",
                                 "127.0.0.2:8000", "[::1]:8000"};
    struct socket_address first, other;
    assert_int_equal(socket_address_parse(texts[0], &first), 0);
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
        assert_int_equal(socket_address_parse(texts[i], &other), 0);
        assert_int_equal(socket_address_is_same(&first, &other), i < 2);
    }
}

static struct socket_address loopback(uint16_t port) {
    struct socket_address address;
    char text[32];
    (void)snprintf(text, sizeof text, "127.0.0.1:%u", (unsigned)port);
    assert_int_equal(socket_address_parse(text, &address), 0);
    return address;
}

static int listen_anywhere(uint16_t *ret_port) {
    struct socket_address address = loopback(0);
    int fd = -1;
    assert_int_equal(socket_listen(&address, &fd, ret_port), 0);
    assert_true(*ret_port > 0);
    return fd;
}

static void wait_for(int fd, short events) {
    struct pollfd p = {.fd = fd, .events = events};
    assert_int_equal(socket_poll(&p, 1, WAIT_MS), 1);
}

struct pair {
    int client;
    int server;
};

static struct pair connected(void) {
    struct pair pair = {-1, -1};
    struct socket_address peer;
    uint16_t port = 0;
    int listener = listen_anywhere(&port);
    struct socket_address address = loopback(port);
    assert_int_equal(socket_accept(listener, &pair.server, &peer), OS_E_AGAIN);
    assert_int_equal(socket_connect(&address, &pair.client), 0);
    wait_for(listener, POLLIN);
    assert_int_equal(socket_accept(listener, &pair.server, &peer), 0);
    assert_true(socket_address_is_loopback(&peer));
    wait_for(pair.client, POLLOUT);
    socket_close(listener);
    return pair;
}

static void test_both_directions(void **state) {
    (void)state;
    struct pair pair = connected();
    char text[8];
    size_t n = 0;
    assert_int_equal(socket_read(pair.server, text, sizeof text, &n), OS_E_AGAIN);
    assert_int_equal(socket_write(pair.client, "ping", 4, &n), 0);
    assert_int_equal(n, 4);
    wait_for(pair.server, POLLIN);
    assert_int_equal(socket_read(pair.server, text, sizeof text, &n), 0);
    assert_int_equal(n, 4);
    assert_memory_equal(text, "ping", 4);
    assert_int_equal(socket_write(pair.server, "pong", 4, &n), 0);
    wait_for(pair.client, POLLIN);
    assert_int_equal(socket_read(pair.client, text, sizeof text, &n), 0);
    assert_memory_equal(text, "pong", 4);
    socket_close(pair.client);
    socket_close(pair.server);
}

static void test_full_buffer(void **state) {
    (void)state;
    struct pair pair = connected();
    static char data[1 << 16];
    size_t n;
    int r;
    while ((r = socket_write(pair.client, data, sizeof data, &n)) == 0)
        ;
    assert_int_equal(r, OS_E_AGAIN);
    socket_close(pair.client);
    socket_close(pair.server);
}

/* What the peer had no room for yet never comes. */
static void test_aborted(void **state UNUSED) {
    struct pair pair = connected();
    static char data[1 << 16];
    size_t n, written = 0, taken = 0;
    int r;
    while (socket_write(pair.client, data, sizeof data, &n) == 0)
        written += n;
    socket_abort(pair.client);
    do {
        wait_for(pair.server, POLLIN);
        r = socket_read(pair.server, data, sizeof data, &n);
        taken += r ? 0 : n;
    } while (r == 0 || r == OS_E_AGAIN);
    assert_int_equal(r, OS_E_CLOSED);
    assert_true(taken < written);
    socket_close(pair.server);
}

static void test_patience_with_a_peer_that_takes_nothing(void **state) {
    (void)state;
    struct pair pair = connected();
    static char data[1 << 16];
    size_t n;
    socket_set_patience(pair.client, 100);
    while (socket_write(pair.client, data, sizeof data, &n) == 0)
        ;
    wait_for(pair.client, POLLERR);
    socket_close(pair.client);
    socket_close(pair.server);
}

static void test_closed_peer(void **state) {
    (void)state;
    struct pair pair = connected();
    char text[8];
    size_t n;
    socket_close(pair.client);
    wait_for(pair.server, POLLIN);
    assert_int_equal(socket_read(pair.server, text, sizeof text, &n), OS_E_CLOSED);
    /* The first writes may be taken; no SIGPIPE ends us. */
    UNTIL(socket_write(pair.server, "x", 1, &n) == OS_E_CLOSED);
    socket_close(pair.server);
}

static void test_nobody_listens(void **state) {
    (void)state;
    uint16_t port = 0;
    socket_close(listen_anywhere(&port));
    struct socket_address address = loopback(port);
    int fd = -1;
    int r = socket_connect(&address, &fd);
    if (r == 0) { /* in progress: the first use tells */
        size_t n;
        wait_for(fd, POLLOUT);
        r = socket_write(fd, "x", 1, &n);
        socket_close(fd);
    }
    assert_int_equal(r, OS_E_CLOSED);
}

static void test_port_in_use(void **state) {
    (void)state;
    uint16_t port = 0;
    int listener = listen_anywhere(&port);
    struct socket_address address = loopback(port);
    int fd = -1;
    uint16_t other = 0;
    assert_int_equal(socket_listen(&address, &fd, &other), OS_E_IN_USE);
    assert_int_equal(fd, -1);
    assert_int_equal(other, 0);
    socket_close(listener);
}

static void on_alarm(int signal_number) {
    (void)signal_number;
}

static void test_poll_goes_on_after_a_signal(void **state) {
    (void)state;
    struct sigaction action = {.sa_handler = on_alarm};
    assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
    struct itimerval every = {.it_value.tv_usec = 10000, .it_interval.tv_usec = 10000};
    assert_int_equal(setitimer(ITIMER_REAL, &every, NULL), 0);
    uint64_t start_ns = os_monotonic_ns(os_real());
    assert_int_equal(socket_poll(NULL, 0, 100), 0);
    uint64_t passed_ns = os_monotonic_ns(os_real()) - start_ns;
    os_sleep_ns(os_real(), 50000000); /* is not cut short either */
    uint64_t both_ns = os_monotonic_ns(os_real()) - start_ns;
    assert_int_equal(setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL), 0);
    assert_true(passed_ns >= 98000000);
    assert_true(both_ns >= passed_ns + 50000000);
}

static void test_a_set_tells_who_is_ready(void **state) {
    (void)state;
    void *ready[SOCKET_SET_READY_MAX];
    struct socket_set set;
    struct pair pairs[2];
    assert_int_equal(socket_set_init(&set), 0);
    for (size_t i = 0; i < ARRAY_LENGTH(pairs); i++) {
        pairs[i] = connected();
        assert_int_equal(socket_set_add(&set, pairs[i].server, POLLIN, &pairs[i]), 0);
    }
    assert_int_equal(socket_set_wait(&set, 0, ready), 0);
    assert_int_equal(socket_set_wait(&set, 1000000, ready), 0);
    size_t size;
    assert_int_equal(socket_write(pairs[1].client, "x", 1, &size), 0);
    for (int i = 0; i < 2; i++) { /* until it is read */
        assert_int_equal(socket_set_wait(&set, -1, ready), 1);
        assert_ptr_equal(ready[0], &pairs[1]);
    }
    char byte;
    assert_int_equal(socket_read(pairs[1].server, &byte, 1, &size), 0);
    assert_int_equal(socket_set_wait(&set, 0, ready), 0);
    assert_int_equal(socket_set_change(&set, pairs[0].server, POLLOUT, &pairs[0]), 0);
    assert_int_equal(socket_set_wait(&set, -1, ready), 1);
    assert_ptr_equal(ready[0], &pairs[0]);
    socket_close(pairs[0].server); /* it leaves by itself */
    assert_int_equal(socket_set_wait(&set, 0, ready), 0);
    socket_close(pairs[1].server);
    socket_close(pairs[0].client);
    socket_close(pairs[1].client);
    socket_set_deinit(&set);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_same_address),
        cmocka_unit_test(test_both_directions),
        cmocka_unit_test(test_full_buffer),
        cmocka_unit_test(test_aborted),
        cmocka_unit_test(test_patience_with_a_peer_that_takes_nothing),
        cmocka_unit_test(test_closed_peer),
        cmocka_unit_test(test_nobody_listens),
        cmocka_unit_test(test_port_in_use),
        cmocka_unit_test(test_poll_goes_on_after_a_signal),
        cmocka_unit_test(test_a_set_tells_who_is_ready),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
