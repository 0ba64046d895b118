/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running commands on a node that answers as no Redis should, or not at all: a server in this
 * process, a cluster of one, which does what the key that it is asked for says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "os/socket.h"
#include "os/sync.h"
#include "redis/cluster.h"
#include "redis/link.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { CONNECTIONS = 32, TIMEOUT_MS = 20000, SOON_MS = 400, THREADS = 6 };

/* ---- The node ---- */

struct connection {
    int fd;              /* -1: none */
    redisReader *reader; /* of commands, which have the form of replies */
    bool floods;
    uint64_t late_ns; /* when "+late" is due; 0: never */
};

struct node {
    struct event stop;
    _Atomic bool stopping;
    pthread_t thread;
    int listener;
    uint16_t port;
    struct connection connections[CONNECTIONS];
    _Atomic unsigned asked; /* GETs */
    _Atomic unsigned open, open_most;
    _Atomic bool slots_are_junk, is_full;
    _Atomic unsigned first_slot; /* that it serves */
};

static void hang_up(struct node *n, struct connection *c) {
    socket_close(c->fd);
    redisReaderFree(c->reader);
    *c = (struct connection){.fd = -1};
    n->open--;
}

static void say(struct connection *c, const char *text) {
    for (size_t left = strlen(text), size; left > 0; left -= size, text += size)
        if (socket_write(c->fd, text, left, &size) != 0)
            return;
}

static void answer_get(struct node *n, struct connection *c, const char *key) {
    static const struct {
        const char *key, *answer;
        bool ends;
    } answers[] = {
        {"ok", "$2\r\nok\r\n", false},
        {"end", "$2\r\nok\r\n", true},
        {"close", "", true},
        {"cut", "$10\r\nabc", true},
        {"cut-array", "*2\r\n$2\r\nok\r\n", true},
        {"junk", "hello\r\n", false},
        {"elements", "*1073741824\r\n", false},
        {"nested", "*1000000\r\n*1000000\r\n", false},
        {"deep", "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n", false},
        {"again", "-TRYAGAIN now\r\n", false},
        {"refused", "-ERR no, with args beginning with: sesame\r\n", false},
        {"flood", "$536870911\r\n", false},
        {"nothing", "", false},
    };
    char moved[64];
    n->asked++;
    for (size_t i = 0; i < ARRAY_LENGTH(answers); i++)
        if (strcmp(key, answers[i].key) == 0) {
            say(c, answers[i].answer);
            if (answers[i].ends)
                hang_up(n, c);
        }
    if (strcmp(key, "moved") == 0) {
        snprintf(moved, sizeof moved, "-MOVED 7 127.0.0.1:%u\r\n", n->port);
        say(c, moved);
    }
    c->floods |= strcmp(key, "flood") == 0;
    if (strcmp(key, "late") == 0)
        c->late_ns = os_monotonic_ns(os_real()) + 5000000;
}

static void answer(struct node *n, struct connection *c, const redisReply *command) {
    static const char info[] = "redis_version:7.0.15\r\nredis_mode:cluster\r\n";
    const char *name = command->element[0]->str;
    char text[256] = "+OK\r\n";
    if (strcmp(name, "GET") == 0) {
        answer_get(n, c, command->element[1]->str);
        return;
    }
    if (strcmp(name, "INFO") == 0)
        snprintf(text, sizeof text, "$%zu\r\n%s\r\n", sizeof info - 1, info);
    if (strcmp(name, "CLUSTER") == 0)
        snprintf(text, sizeof text, "*1\r\n*3\r\n:%u\r\n:16383\r\n*2\r\n$0\r\n\r\n:%u\r\n",
                 n->first_slot, n->port);
    if (strcmp(name, "CLUSTER") == 0 && n->slots_are_junk)
        snprintf(text, sizeof text, "*1\r\n:7\r\n");
    if (strcmp(name, "WAIT") == 0)
        snprintf(text, sizeof text, ":%d\r\n", n->is_full ? 1 : 0);
    say(c, text);
}

static void serve(struct node *n, struct connection *c) {
    char data[4096];
    size_t size;
    void *command = NULL;
    int r = socket_read(c->fd, data, sizeof data, &size);
    if (r == OS_E_AGAIN)
        return;
    if (r) {
        hang_up(n, c);
        return;
    }
    assert_int_equal(redisReaderFeed(c->reader, data, size), REDIS_OK);
    while (c->fd >= 0 && redisReaderGetReply(c->reader, &command) == REDIS_OK && command) {
        answer(n, c, command);
        freeReplyObject(command);
    }
}

/* What comes by itself: more of the flood, and what is late. */
static void tick(struct node *n, struct connection *c) {
    static const char more[1 << 16];
    size_t size;
    if (c->fd >= 0 && c->floods && socket_write(c->fd, more, sizeof more, &size) == OS_E_CLOSED)
        hang_up(n, c);
    if (c->fd >= 0 && c->late_ns && os_monotonic_ns(os_real()) >= c->late_ns) {
        say(c, "+late\r\n");
        c->late_ns = 0;
    }
}

static void take(struct node *n) {
    struct socket_address peer;
    for (size_t i = 0; i < CONNECTIONS; i++) {
        struct connection *c = &n->connections[i];
        if (c->fd >= 0)
            continue;
        if (socket_accept(n->listener, &c->fd, &peer) != 0) {
            c->fd = -1;
            return;
        }
        c->reader = redisReaderCreate();
        n->open++;
        if (n->open > n->open_most)
            n->open_most = n->open;
    }
}

static void *run_node(void *argument) {
    struct node *n = argument;
    while (!n->stopping) {
        struct pollfd fds[CONNECTIONS + 2] = {{.fd = n->stop.fd, .events = POLLIN},
                                              {.fd = n->listener, .events = POLLIN}};
        for (size_t i = 0; i < CONNECTIONS; i++)
            fds[i + 2] = (struct pollfd){.fd = n->connections[i].fd, .events = POLLIN};
        assert_true(socket_poll(fds, ARRAY_LENGTH(fds), 1) >= 0);
        if (fds[1].revents)
            take(n);
        for (size_t i = 0; i < CONNECTIONS; i++) {
            if (fds[i + 2].revents && n->connections[i].fd >= 0)
                serve(n, &n->connections[i]);
            tick(n, &n->connections[i]);
        }
    }
    return NULL;
}

/* ---- A cluster of it ---- */

struct fixture {
    struct node node;
    struct service_url url;
    struct redis_cluster *cluster;
    char why[REDIS_WHY_MAX];
};

static void await_status(struct redis_cluster *c, bool reachable, const char *why) {
    struct redis_cluster_status s = {0};
    for (int i = 0; i < TIMEOUT_MS && (s.reachable != reachable || !strstr(s.why, why)); i++) {
        os_sleep_ns(os_real(), 1000000);
        redis_cluster_status(c, &s);
    }
    assert_int_equal(s.reachable, reachable);
    assert_non_null(strstr(s.why, why));
}

static int set_up(void **state) {
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    struct node *n = &f->node;
    struct socket_address any;
    char text[128];
    const char *why;
    for (size_t i = 0; i < CONNECTIONS; i++)
        n->connections[i].fd = -1;
    assert_int_equal(event_init(&n->stop), 0);
    assert_int_equal(socket_address_parse("127.0.0.1:0", &any), 0);
    assert_int_equal(socket_listen(&any, &n->listener, &n->port), 0);
    assert_int_equal(pthread_create(&n->thread, NULL, run_node, n), 0);
    snprintf(text, sizeof text, "redis+cluster://:sesame@127.0.0.1:%u/?replicas=1", n->port);
    assert_true(service_url_parse(text, &f->url, &why));
    struct redis_cluster_options options = {
        .url = &f->url, .connections_max = 2, .watch_ms = 3600000};
    assert_int_equal(redis_cluster_open(os_real(), &options, &f->cluster, f->why), 0);
    await_status(f->cluster, true, ""); /* from here on, its thread sleeps */
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    struct node *n = &f->node;
    assert_null(strstr(f->why, "sesame"));
    redis_cluster_close(f->cluster);
    n->stopping = true;
    event_signal(&n->stop);
    pthread_join(n->thread, NULL);
    for (size_t i = 0; i < CONNECTIONS; i++)
        if (n->connections[i].fd >= 0)
            hang_up(n, &n->connections[i]);
    socket_close(n->listener);
    event_deinit(&n->stop);
    free(f);
    return 0;
}

enum { WORDS = 3 };
struct gets {
    struct bytes arguments[WORDS][2];
    struct redis_command commands[WORDS];
};

static int get(struct fixture *f, struct gets *g, const char *const keys[WORDS], bool durable,
               uint64_t timeout_ms) {
    for (size_t i = 0; i < WORDS; i++) {
        g->arguments[i][0] = BYTES_LITERAL("GET");
        g->arguments[i][1] = bytes_of_string(keys[i]);
        g->commands[i] =
            (struct redis_command){.key = g->arguments[i][1], .arguments = g->arguments[i], .n = 2};
    }
    return redis_cluster_run(f->cluster, g->commands, WORDS, durable, timeout_ms, f->why);
}

static void expect(struct gets *g, const int results[WORDS]) {
    for (size_t i = 0; i < WORDS; i++) {
        assert_int_equal(g->commands[i].result, results[i]);
        assert_int_equal(g->commands[i].reply != NULL, results[i] != REDIS_E_UNAVAILABLE);
    }
    redis_commands_free(g->commands, WORDS);
}

enum { OK = 0, AWAY = REDIS_E_UNAVAILABLE, NO = REDIS_E_REFUSED };

static void expect_well(struct fixture *f) {
    struct gets g;
    assert_int_equal(get(f, &g, (const char *const[]){"ok", "ok", "ok"}, false, TIMEOUT_MS), OK);
    expect(&g, (int[]){OK, OK, OK});
}

/* What comes before the trouble holds; nothing is asked again; the next run is well. */
static void test_answers_that_are_none(void **state) {
    struct fixture *f = *state;
    static const struct {
        const char *key, *why;
    } bad[] = {
        {"close", "is not reachable: Server closed the connection"},
        {"cut", "is not reachable: Server closed the connection"},
        {"cut-array", "is not reachable: Server closed the connection"},
        {"junk", "Protocol error"},
        {"elements", "no room"},
        {"nested", "no room"},
        {"deep", "nested"},
        {"flood", "too large"},
    };
    struct gets g;
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        f->node.asked = 0;
        const char *const keys[] = {"ok", bad[i].key, "ok"};
        assert_int_equal(get(f, &g, keys, false, TIMEOUT_MS), AWAY);
        expect(&g, (int[]){OK, AWAY, AWAY});
        assert_non_null(strstr(f->why, bad[i].why));
        assert_in_range(f->node.asked, 2, 3);
        expect_well(f);
    }
}

static void test_no_answer_in_time(void **state) {
    struct fixture *f = *state;
    struct gets g;
    const char *const keys[] = {"ok", "nothing", "ok"};
    assert_int_equal(get(f, &g, keys, false, SOON_MS), AWAY);
    expect(&g, (int[]){OK, OK, AWAY}); /* the answer of the third counts for the second */
    assert_non_null(strstr(f->why, "did not answer in time"));
    assert_int_equal(f->node.asked, 3);
    expect_well(f); /* what comes late is not taken for the next answer */
}

static void test_told_to_try_again_for_ever(void **state) {
    struct fixture *f = *state;
    struct gets g;
    static const char *const words[] = {"again", "moved"};
    for (size_t i = 0; i < ARRAY_LENGTH(words); i++) {
        const char *const keys[] = {"ok", words[i], "ok"};
        f->node.asked = 0;
        assert_int_equal(get(f, &g, keys, false, SOON_MS), AWAY);
        expect(&g, (int[]){OK, AWAY, OK});
        assert_in_range(f->node.asked, 3, 40); /* it is asked now and then, not on and on */
        assert_non_null(strstr(f->why, i ? "MOVED 7" : "TRYAGAIN"));
    }
}

static void test_refused_without_its_arguments(void **state) {
    struct fixture *f = *state;
    struct gets g;
    const char *const keys[] = {"ok", "refused", "ok"};
    f->node.is_full = true;
    assert_int_equal(get(f, &g, keys, true, TIMEOUT_MS), NO);
    expect(&g, (int[]){OK, NO, OK});
    assert_non_null(strstr(f->why, "answers: ERR no"));
}

static void test_too_few_replicas(void **state) {
    struct fixture *f = *state;
    struct gets g;
    const char *const keys[] = {"ok", "refused", "ok"};
    assert_int_equal(get(f, &g, keys, true, TIMEOUT_MS), AWAY);
    expect(&g, (int[]){AWAY, AWAY, AWAY}); /* who refuses may have been cut off, too */
    assert_non_null(strstr(f->why, "only 0 of 1 replicas"));
    assert_int_equal(f->node.asked, 3);
    /* and so when nobody says how many there are */
    const char *const lost[] = {"ok", "close", "ok"};
    assert_int_equal(get(f, &g, lost, true, TIMEOUT_MS), AWAY);
    expect(&g, (int[]){AWAY, AWAY, AWAY});
    expect_well(f);
}

/* A connection that ended while nobody used it costs no command. */
static void test_an_idle_connection_that_ended(void **state) {
    struct fixture *f = *state;
    struct gets g;
    const char *const ends[] = {"ok", "ok", "end"};
    expect_well(f);
    unsigned before = f->node.open;
    assert_int_equal(get(f, &g, ends, false, TIMEOUT_MS), OK);
    redis_commands_free(g.commands, WORDS);
    for (int i = 0; i < TIMEOUT_MS && f->node.open >= before; i++)
        os_sleep_ns(os_real(), 1000000);
    assert_in_range(f->node.open, 0, before - 1);
    expect_well(f);
}

static void test_slots_that_are_not_told(void **state) {
    struct fixture *f = *state;
    struct gets g;
    const char *const keys[] = {"ok", "", "ok"};
    struct redis_cluster_options options = {.url = &f->url, .watch_ms = 1};
    redis_cluster_close(f->cluster);
    f->node.slots_are_junk = true;
    assert_int_equal(redis_cluster_open(os_real(), &options, &f->cluster, f->why), 0);
    assert_int_equal(get(f, &g, keys, false, SOON_MS), AWAY);
    expect(&g, (int[]){AWAY, AWAY, AWAY});
    assert_non_null(strstr(f->why, "does not know who serves the slots"));
    await_status(f->cluster, false, "does not know who serves the slots");
    f->node.first_slot = 1; /* the empty key is in slot 0 */
    f->node.slots_are_junk = false;
    await_status(f->cluster, false, "no node of the cluster serves slot 0");
    assert_int_equal(get(f, &g, keys, false, SOON_MS), AWAY);
    expect(&g, (int[]){OK, AWAY, OK});
    assert_non_null(strstr(f->why, "no node of the cluster serves slot 0"));
    f->node.first_slot = 0;
    expect_well(f);
    await_status(f->cluster, true, "");
}

struct user {
    struct fixture *f;
    pthread_t thread;
    char why[REDIS_WHY_MAX];
    int result;
};

static void *use(void *argument) {
    struct user *u = argument;
    struct bytes arguments[] = {BYTES_LITERAL("GET"), BYTES_LITERAL("late")};
    for (int i = 0; i < 10 && u->result == 0; i++) {
        struct redis_command one = {.key = arguments[1], .arguments = arguments, .n = 2};
        u->result = redis_cluster_run(u->f->cluster, &one, 1, false, TIMEOUT_MS, u->why);
        redis_commands_free(&one, 1);
    }
    return NULL;
}

/* Two for commands, and one more for questions. */
static void test_connections_are_bounded(void **state) {
    struct fixture *f = *state;
    struct user users[THREADS];
    for (size_t i = 0; i < THREADS; i++) {
        users[i] = (struct user){.f = f};
        assert_int_equal(pthread_create(&users[i].thread, NULL, use, &users[i]), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(users[i].thread, NULL);
        assert_int_equal(users[i].result, 0);
    }
    assert_in_range(f->node.open_most, 2, 3);
}

int main(void) {
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &ignore, NULL);
#define ON(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        ON(test_answers_that_are_none),      ON(test_no_answer_in_time),
        ON(test_told_to_try_again_for_ever), ON(test_refused_without_its_arguments),
        ON(test_too_few_replicas),           ON(test_an_idle_connection_that_ended),
        ON(test_slots_that_are_not_told),    ON(test_connections_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
