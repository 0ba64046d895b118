/* SPDX-License-Identifier: Apache-2.0 */
/* Children: how they are started and what they get, how they end, and that nothing is left. */
#include "os/child.h"
#include "os/socket.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const struct child_limits unlimited = {0};

static struct child start(const char *script, int out, const struct child_limits *limits) {
    const char *const arguments[] = {"sh", "-c", script, NULL};
    const struct child_options options = {
        .program = "/bin/sh", .arguments = arguments, .files = {-1, out, -1, -1}, .limits = limits};
    struct child c;
    assert_int_equal(child_start(&options, &c), 0);
    return c;
}

static struct child_end wait_end(struct child *c) {
    struct pollfd pollfd = {.fd = c->fd, .events = POLLIN};
    struct child_end end = {-1, -1};
    assert_int_equal(socket_poll(&pollfd, 1, 60000), 1);
    assert_int_equal(child_ended(c, &end), 0);
    return end;
}

/* What the script says, by either way of starting it. */
static void expect_says(const char *script, const char *text, const struct child_limits *limits) {
    char said[512] = "";
    int ours, theirs;
    size_t size = 0, n;
    assert_int_equal(child_pipe_from(&ours, &theirs), 0);
    struct child c = start(script, theirs, limits);
    child_close(theirs);
    for (int r = 0; r != OS_E_CLOSED; size += r == 0 ? n : 0) {
        struct pollfd pollfd = {.fd = ours, .events = POLLIN};
        assert_int_equal(socket_poll(&pollfd, 1, 60000), 1);
        r = child_read(ours, said + size, sizeof said - 1 - size, &n);
        assert_true(r == 0 || r == OS_E_CLOSED || r == OS_E_AGAIN);
    }
    child_close(ours);
    assert_string_equal(said, text);
    assert_int_equal(wait_end(&c).status, 0);
}

static void test_what_it_gets(void **state) {
    (void)state;
    const struct child_limits *ways[] = {NULL, &unlimited};
    int stray = dup(0); /* not close-on-exec, as a careless library's */
    assert_true(stray >= 0);
    for (size_t i = 0; i < ARRAY_LENGTH(ways); i++) {
        expect_says("cd /proc/self/fd && echo [0-9]*", "0 1 2 3\n",
                    ways[i]); /* 3: the glob's own */
        expect_says("readlink /proc/self/fd/0", "/dev/null\n", ways[i]);
    }
    (void)close(stray);
}

/* Signals that we ignore or block do end it. */
static void test_signals_are_as_ever(void **state) {
    (void)state;
    const struct child_limits *ways[] = {NULL, &unlimited};
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    assert_int_equal(sigaction(SIGPIPE, &ignore, NULL), 0);
    assert_int_equal(sigprocmask(SIG_BLOCK, &set, NULL), 0);
    for (size_t i = 0; i < ARRAY_LENGTH(ways); i++) {
        struct child c = start("kill -PIPE $$; exit 1", -1, ways[i]);
        assert_int_equal(wait_end(&c).signal, SIGPIPE);
        c = start("kill -TERM $$; exit 1", -1, ways[i]);
        assert_int_equal(wait_end(&c).signal, SIGTERM);
    }
}

static void test_ends(void **state) {
    (void)state;
    const struct child_limits *ways[] = {NULL, &unlimited};
    char name[16];
    for (size_t i = 0; i < ARRAY_LENGTH(ways); i++) {
        struct child c = start("exit 7", -1, ways[i]);
        struct child_end end = wait_end(&c);
        assert_true(end.status == 7 && end.signal == 0);
        c = start("kill -KILL $$", -1, ways[i]);
        end = wait_end(&c);
        assert_true(end.status == 0 && end.signal == SIGKILL);
        assert_string_equal(child_signal_name(end.signal, name), "SIGKILL");
        c = start("sleep 1000", -1, ways[i]);
        assert_int_equal(child_ended(&c, &end), OS_E_AGAIN);
        child_destroy(&c);
    }
    assert_string_equal(child_signal_name(12345, name), "signal 12345");
}

static void test_no_program(void **state) {
    (void)state;
    const struct child_limits *ways[] = {NULL, &unlimited};
    const char *const arguments[] = {"x", NULL};
    struct child c;
    for (size_t i = 0; i < ARRAY_LENGTH(ways); i++) {
        struct child_options options = {.program = "/nowhere/at/all",
                                        .arguments = arguments,
                                        .files = {-1, -1, -1, -1},
                                        .limits = ways[i]};
        assert_int_equal(child_start(&options, &c), OS_E_NOT_FOUND);
        options.program = "/";
        assert_int_equal(child_start(&options, &c), OS_E_DENIED);
    }
}

/* Children of children that left the group, the session, and their parents. */
static void test_strays(void **state) {
    (void)state;
    assert_int_equal(child_adopt_strays(), 0);
    struct child known = start("setsid sleep 1000 & wait", -1, NULL);
    struct child c =
        start("setsid sh -c 'setsid sleep 1000 & sleep 1000' & exit 0", -1, &unlimited);
    assert_int_equal(wait_end(&c).status, 0);
    assert_int_equal(child_kill_strays(&known.pid, 1, NULL), 0);
    struct child_end end;
    assert_int_equal(child_ended(&known, &end), OS_E_AGAIN); /* was spared */
    child_destroy(&known);
    assert_int_equal(child_kill_strays(NULL, 0, NULL), 0);
    siginfo_t info = {0};
    assert_int_equal(waitid(P_ALL, 0, &info, WEXITED | WNOHANG), -1); /* no child is left */
    assert_int_equal(errno, ECHILD);
}

/* Only what has the mark, or descends from what has: here from one that drops it. */
static void kill_marked(void) {
    static const char mark[] = CHILD_MARK "test";
    /* One that is stopped in the middle of a fork, which is what it does most, forks all the same.
     */
    const char *const arguments[] = {
        "sh", "-c",
        "setsid env -i sh -c 'echo; for i in 1 2 3 4 5; do sleep 1000 & done; wait' & wait", NULL};
    int ours, theirs;
    assert_int_equal(child_adopt_strays(), 0);
    assert_int_equal(child_pipe_from(&ours, &theirs), 0);
    struct child c, foreign = start("exec sleep 1000", -1, NULL);
    const struct child_options options = {
        .program = "/bin/sh", .arguments = arguments, .mark = mark, .files = {-1, theirs, -1, -1}};
    struct child_end end;
    assert_int_equal(child_start(&options, &c), 0);
    struct pollfd said = {.fd = ours, .events = POLLIN};
    assert_int_equal(socket_poll(&said, 1, 60000), 1); /* by the one without the mark */
    child_close(theirs);
    child_close(ours);
    assert_int_equal(child_kill_strays(NULL, 0, CHILD_MARK "other"), 0);
    assert_int_equal(child_ended(&c, &end), OS_E_AGAIN);
    assert_int_equal(child_kill_strays(NULL, 0, mark), 0);
    assert_int_equal(child_ended(&foreign, &end), OS_E_AGAIN); /* was spared */
    child_destroy(&foreign);
    child_close(c.fd);
    siginfo_t info = {0};
    assert_int_equal(waitid(P_ALL, 0, &info, WEXITED | WNOHANG), -1); /* no child is left */
}

static void test_marked_strays(void **state) {
    (void)state;
    for (int i = 0; i < 20; i++)
        kill_marked();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_marked_strays),       cmocka_unit_test(test_what_it_gets),
        cmocka_unit_test(test_signals_are_as_ever), cmocka_unit_test(test_ends),
        cmocka_unit_test(test_no_program),          cmocka_unit_test(test_strays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
