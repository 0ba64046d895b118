/* SPDX-License-Identifier: Apache-2.0 */
/* Connections in numbers, query threads under load, and the ordered stop. */
#include "http/test_support.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static struct site site;

static int start(void **state) {
    (void)state;
    site_start(&site,
               (struct http_options){.connections_max = 4000, .commit_timeout_ms = 10 * WAIT_MS});
    return 0;
}

static int stop(void **state) {
    (void)state;
    site_stop(&site);
    return 0;
}

static void test_port_in_use(void **state) {
    (void)state;
    const struct http_options options = {.listen = site.address};
    const struct http_route_table table = {.routes = site_routes,
                                           .n = ARRAY_LENGTH(site_routes),
                                           .context = &site,
                                           .journal = &site.journal};
    struct http_server *second = NULL;
    assert_int_equal(http_server_new(os_real(), &options, &table, 1, site.metrics, NULL, &second),
                     OS_E_IN_USE);
    assert_null(second);
}

static void test_never_started(void **state) {
    (void)state;
    struct http_options options = {.threads = 3};
    assert_int_equal(socket_address_parse("127.0.0.1:0", &options.listen), 0);
    const struct http_route_table table = {.routes = site_routes,
                                           .n = ARRAY_LENGTH(site_routes),
                                           .context = &site,
                                           .journal = &site.journal};
    struct http_server *s = NULL;
    assert_int_equal(http_server_new(os_real(), &options, &table, 1, site.metrics, NULL, &s), 0);
    assert_false(http_server_stalled(s));
    assert_null(http_server_free(s));
    assert_null(http_server_free(NULL));
}

/* The lowest descriptor that is free. */
static int free_descriptor(void) {
    int fd = dup(0);
    assert_true(fd > 0);
    assert_int_equal(close(fd), 0);
    return fd;
}

enum making { MAKING_FAILED, MAKING_DONE, MAKING_HARMED };

/* Makes a server where `more` descriptors can be opened, in a process of its own: it cannot raise
 * that again. */
static enum making make_with(int more) {
    struct http_options options = {.threads = 2};
    const struct http_route_table table = {.routes = site_routes,
                                           .n = ARRAY_LENGTH(site_routes),
                                           .context = &site,
                                           .journal = &site.journal};
    int lowest = free_descriptor();
    const struct rlimit few = {(rlim_t)(lowest + more), (rlim_t)(lowest + more)};
    struct http_server *s = NULL;
    if (setrlimit(RLIMIT_NOFILE, &few) || socket_address_parse("127.0.0.1:0", &options.listen))
        return MAKING_HARMED;
    int r = http_server_new(os_real(), &options, &table, 1, site.metrics, NULL, &s);
    http_server_free(s);
    if (fcntl(0, F_GETFD) < 0 || free_descriptor() != lowest)
        return MAKING_HARMED;
    return r ? MAKING_FAILED : MAKING_DONE;
}

/* Descriptors run out at each step of the making: what was opened is closed, and nothing else. */
static void test_too_few_descriptors(void **state) {
    (void)state;
    enum making made = MAKING_FAILED;
    int more = 1; /* one is used to look */
    while (made == MAKING_FAILED) {
        int status;
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0)
            _exit((int)make_with(more));
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        made = (enum making)WEXITSTATUS(status);
        more++;
    }
    assert_int_equal(made, MAKING_DONE);
    assert_true(more > 5);
}

static void test_connections_max(void **state) {
    (void)state;
    struct site small;
    site_start(&small, (struct http_options){.connections_max = 3});
    int fds[3];
    for (size_t i = 0; i < ARRAY_LENGTH(fds); i++) {
        fds[i] = dial(&small.address);
        send_text(fds[i], "GET /empty HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_int_equal(read_answer(fds[i]).status, 204);
    }
    int over = dial(&small.address);
    struct answer a = read_answer(over);
    assert_int_equal(a.status, 503);
    assert_string_equal(header_of(&a, "Retry-After:"), "1");
    assert_non_null(strstr(a.body, "too_many_connections"));
    assert_true(ends(over));
    socket_close(over);
    send_text(fds[0], "GET /empty HTTP/1.1\r\nHost: x\r\n\r\n"); /* those that are in stay in */
    assert_int_equal(read_answer(fds[0]).status, 204);
    socket_close(fds[1]);
    UNTIL(get(&small.address, "/empty").status == 204); /* and one that goes makes room */
    socket_close(fds[0]);
    socket_close(fds[2]);
    site_stop(&small);
}

static void test_idle_connections_stall_nobody(void **state) {
    (void)state;
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    size_t n = limit.rlim_cur > 4500 ? 2000 : 400; /* both ends are ours */
    int *fds = calloc(n, sizeof *fds);
    assert_non_null(fds);
    for (size_t i = 0; i < n; i++) {
        fds[i] = dial(&site.address);
        if (i % 2)
            send_text(fds[i], "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf");
    }
    uint64_t begin = os_monotonic_ns(os_real());
    for (unsigned i = 0; i < 50; i++)
        assert_int_equal(get(&site.address, "/empty").status, 204);
    assert_true(os_monotonic_ns(os_real()) - begin < WAIT_MS * UINT64_C(1000000));
    for (size_t i = 0; i < n; i++)
        socket_close(fds[i]);
    free(fds);
}

static void test_offloaded_work_stalls_nobody(void **state) {
    (void)state;
    atomic_store(&site.hold, 1);
    int fd = dial(&site.address);
    send_post(fd, "/offload", "", "later", 5);
    until(&site.held, 1);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(get(&site.address, "/empty").status, 204);
    assert_true(no_answer_for(fd, 20));
    atomic_store(&site.hold, 0);
    assert_string_equal(read_answer(fd).body, "later");
    socket_close(fd);
}

static void test_offload_client_gone(void **state) {
    (void)state;
    atomic_store(&site.hold, 1);
    int fd = dial(&site.address);
    send_post(fd, "/offload", "", "later", 5);
    until(&site.held, 1);
    socket_close(fd);
    for (unsigned i = 0; i < 4; i++) /* each loop turns, and could notice */
        assert_int_equal(get(&site.address, "/empty").status, 204);
    atomic_store(&site.hold, 0);
    assert_string_equal(post(&site.address, "/offload", "", "next", 4).body, "next");
}

#ifdef MILLRACE_TINY
enum { QUEUE_OVER = 8 };
#else
enum { QUEUE_OVER = 1100 };
#endif

/* One of them has something to read. */
static void wait_for_any(const int *fds, size_t n) {
    struct pollfd *p = calloc(n, sizeof *p);
    assert_non_null(p);
    for (size_t i = 0; i < n; i++)
        p[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
    assert_true(socket_poll(p, n, WAIT_MS) > 0);
    free(p);
}

static void test_offload_queue_is_bounded(void **state) {
    (void)state;
    static int fds[QUEUE_OVER];
    atomic_store(&site.hold, 1);
    size_t n = QUEUE_OVER;
    for (size_t i = 0; i < n; i++) {
        fds[i] = dial(&site.address);
        send_post(fds[i], "/offload", "", "x", 1);
    }
    until(&site.held, 1);
    unsigned refused = 0, done = 0;
    wait_for_any(fds, n); /* while nothing is done, only a refusal can come */
    atomic_store(&site.hold, 0);
    for (size_t i = 0; i < n; i++) {
        unsigned status = read_answer(fds[i]).status;
        refused += status == 503;
        done += status == 200;
        socket_close(fds[i]);
    }
    assert_int_equal(refused + done, n);
    assert_true(refused > 0);
    assert_true(done > 0);
}

struct stopper {
    struct http_server *server;
    uint64_t timeout_ms;
    _Atomic unsigned done;
};

static void stop_thread(void *argument) {
    struct stopper *stopper = argument;
    http_server_stop(stopper->server, stopper->timeout_ms);
    atomic_store(&stopper->done, 1);
}

static struct os_thread *stop_begin(struct stopper *stopper, uint64_t timeout_ms) {
    *stopper = (struct stopper){.server = site.server, .timeout_ms = timeout_ms};
    struct os_thread *thread = NULL;
    assert_int_equal(os_thread_start(os_real(), "stop", stop_thread, stopper, &thread), 0);
    return thread;
}

/* Sends half of a body of four bytes: the request is begun when this returns. */
static int send_half(void) {
    int fd = dial(&site.address);
    struct answer a;
    send_text(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
                  "Content-Length: 4\r\n\r\n");
    assert_true(read_head(fd, &a));
    assert_int_equal(a.status, 100);
    send_text(fd, "ha");
    return fd;
}

static void test_stop_finishes_what_is_in_flight(void **state) {
    (void)state;
    int idle = dial(&site.address);
    send_text(idle, "GET /empty HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(read_answer(idle).status, 204);
    int half = send_half();
    int write = dial(&site.address);
    send_post(write, "/write", "", "x", 1);
    until(&site.writes, 1);

    struct stopper stopper;
    struct os_thread *thread = stop_begin(&stopper, WAIT_MS);
    assert_true(ends(idle));
    send_text(half, "lf");
    assert_string_equal(read_answer(half).body, "half");
    assert_true(ends(half));
    assert_int_equal(atomic_load(&stopper.done), 0);
    commit(&site.journal, 1);
    assert_int_equal(read_answer(write).status, 201);
    assert_true(ends(write));
    os_thread_join(os_real(), thread);
    socket_close(idle);
    socket_close(half);
    socket_close(write);
}

static void test_stop_has_an_end(void **state) {
    (void)state;
    int half = send_half();
    int paused = dial(&site.address);
    send_post(paused, "/stream?pause=1", "", "abc", 3);
    int durable = dial(&site.address);
    send_post(durable, "/write", "", "x", 1);
    until(&site.writes, 1);
    int visible = dial(&site.address);
    commit(&site.journal, 2);
    assert_int_equal(read_answer(durable).status, 201);
    send_post(visible, "/write?wait=true", "", "x", 1);
    until(&site.writes, 2);
    send_post(durable, "/write", "", "x", 1); /* the third: never committed */
    until(&site.writes, 3);
    UNTIL(atomic_load(&site.streamed) >= 3);

    http_server_stop(site.server, 100);
    assert_int_equal(read_answer(half).status, 503);
    assert_int_equal(read_answer(paused).status, 503);
    assert_int_equal(atomic_load(&site.closed), 1);
    assert_string_equal(read_answer(visible).body, "durable");
    struct answer a = read_answer(durable);
    assert_int_equal(a.status, 503);
    assert_non_null(strstr(a.body, "outcome_unknown"));
    socket_close(half);
    socket_close(paused);
    socket_close(visible);
    socket_close(durable);
}

/* A stop while connections are being dealt: each is answered or closed, also by a loop that has
 * just ended. */
static void test_stop_under_load(void **state) {
    (void)state;
    for (unsigned round = 0; round < 60; round++) {
        struct site busy;
        int fds[32];
        site_start(&busy, (struct http_options){.connections_max = 100});
        for (size_t i = 0; i < ARRAY_LENGTH(fds); i++) {
            fds[i] = dial(&busy.address);
            for (unsigned k = 0; k < round % 3; k++)
                send_text(fds[i], "GET /names/x HTTP/1.1\r\nHost: x\r\n\r\n");
        }
        http_server_stop(busy.server, 1000);
        for (size_t i = 0; i < ARRAY_LENGTH(fds); i++) {
            for (struct answer a = read_answer(fds[i]); a.status; a = read_answer(fds[i]))
                assert_true(a.status == 200 || a.status == 503);
            socket_close(fds[i]);
        }
        site_stop(&busy);
    }
}

static void test_not_stalled(void **state) {
    (void)state;
    assert_false(http_server_stalled(site.server));
}

#define HTTP_TEST(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void) {
    const struct CMUnitTest tests[] = {
        HTTP_TEST(test_port_in_use),
        HTTP_TEST(test_never_started),
        HTTP_TEST(test_too_few_descriptors),
        HTTP_TEST(test_connections_max),
        HTTP_TEST(test_idle_connections_stall_nobody),
        HTTP_TEST(test_offloaded_work_stalls_nobody),
        HTTP_TEST(test_offload_client_gone),
        HTTP_TEST(test_offload_queue_is_bounded),
        HTTP_TEST(test_stop_finishes_what_is_in_flight),
        HTTP_TEST(test_stop_has_an_end),
        HTTP_TEST(test_stop_under_load),
        HTTP_TEST(test_not_stalled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
