/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What cluster.h promises, on a real Redis Cluster (redis+cluster://) or a real server:
 *
 *   build-debug/src/test-redis-cluster URL         the suite; what only a cluster can show is
 *                                                  skipped on a server
 *   test-redis-cluster say URL                     runs one command, and says how that went
 *   test-redis-cluster endure URL THREADS          counts in many slots until standard input ends,
 *                                                  and says how far all have come, a line each
 *                                                  time. For those who kill nodes meanwhile;
 *                                                  without replicas= some may be lost then
 *
 * tests/engines starts the engines and runs this. Without a URL the suite skips what needs one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "os/socket.h"
#include "redis/cluster.h"
#include "redis/link.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    TIMEOUT_MS = 20000,
    PATIENCE_MS = 60000,
    MANY = 400, /* keys all over the slots */
    KEY_BYTES = 64,
};
#define SECRET "sesame"

/* ---- A cluster under test ---- */

struct fixture {
    struct service_url url;
    struct redis_cluster *cluster;
    char why[REDIS_WHY_MAX];
};

static void url_init(struct service_url *url, const char *text) {
    const char *why;
    assert_true(service_url_parse(text, url, &why));
}

/* *state is the URL, and becomes a fixture. */
static int set_up(void **state) {
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    if (*state) {
        url_init(&f->url, *state);
        struct redis_cluster_options options = {.url = &f->url};
        assert_int_equal(redis_cluster_open(os_real(), &options, &f->cluster, f->why), 0);
    }
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    redis_cluster_close(f->cluster);
    assert_null(strstr(f->why, SECRET));
    free(f);
    return 0;
}

static struct fixture *need(void **state, bool sharded) {
    struct fixture *f = *state;
    if (!f->cluster || (sharded && !redis_url_is_cluster(&f->url)))
        skip();
    return f;
}

/* A whole command of words, on the node of the first behind its name. */
static struct redis_command words(const struct bytes *arguments, size_t n) {
    return (struct redis_command){.key = arguments[1], .arguments = arguments, .n = n};
}

static redisReply *run_words(struct fixture *f, const struct bytes *arguments, size_t n) {
    struct redis_command one = words(arguments, n);
    int r = redis_cluster_run(f->cluster, &one, 1, false, TIMEOUT_MS, f->why);
    if (r)
        print_error("%s\n", f->why);
    assert_int_equal(r, 0);
    return one.reply;
}
#define RUN(f, ...)                                                                                \
    run_words((f), (struct bytes[]){__VA_ARGS__},                                                  \
              sizeof((struct bytes[]){__VA_ARGS__}) / sizeof(struct bytes))
#define B(s) bytes_of_string(s)

static long long number_of(redisReply *reply) {
    long long number =
        reply->type == REDIS_REPLY_INTEGER ? reply->integer : strtoll(reply->str, NULL, 10);
    freeReplyObject(reply);
    return number;
}

/* ---- Asking one node, past the cluster ---- */

struct node {
    struct redis_address address;
    struct redis_link link;
    char why[REDIS_WHY_MAX];
    char id[64];
};

static redisReply *ask(struct node *n, const struct bytes *arguments, size_t size) {
    redisReply *reply = NULL;
    redis_link_until(&n->link, os_monotonic_ns(os_real()) + TIMEOUT_MS * UINT64_C(1000000));
    if (redis_link_command(&n->link, arguments, size, &reply) != 0)
        print_error("%s\n", n->why);
    assert_non_null(reply);
    return reply;
}
#define ASK(n, ...)                                                                                \
    freeReplyObject(ask((n), (struct bytes[]){__VA_ARGS__},                                        \
                        sizeof((struct bytes[]){__VA_ARGS__}) / sizeof(struct bytes)))

static void node_init(struct node *n, const struct fixture *f, const struct redis_address *a) {
    n->address = *a;
    redis_link_init_node(&n->link, os_real(), &f->url, &n->address, n->why);
    redisReply *id = ask(n, (struct bytes[]){B("CLUSTER"), B("MYID")}, 2);
    snprintf(n->id, sizeof n->id, "%s", id->str);
    freeReplyObject(id);
}

static void nodes_deinit(struct node *nodes, size_t n) {
    for (size_t i = 0; i < n; i++)
        redis_link_deinit(&nodes[i].link);
    free(nodes);
}

/* All masters, and who serves what. */
static struct node *find_masters(const struct fixture *f, struct redis_topology *t) {
    struct redis_address seed = {.port = f->url.hosts[0].port};
    struct node one;
    snprintf(seed.host, sizeof seed.host, "%s", f->url.hosts[0].name);
    node_init(&one, f, &seed);
    redisReply *slots = ask(&one, (struct bytes[]){B("CLUSTER"), B("SLOTS")}, 2);
    assert_true(redis_topology_parse(slots, &seed, t));
    freeReplyObject(slots);
    redis_link_deinit(&one.link);
    struct node *nodes = calloc(t->n_masters, sizeof *nodes);
    assert_non_null(nodes);
    for (size_t i = 0; i < t->n_masters; i++)
        node_init(&nodes[i], f, &t->masters[i]);
    return nodes;
}

/* ---- Commands ---- */

struct many {
    char keys[MANY][KEY_BYTES];
    struct bytes arguments[MANY][4];
    struct redis_command commands[MANY];
};

static struct many *many_new(const char *prefix) {
    struct many *m = calloc(1, sizeof *m);
    assert_non_null(m);
    for (unsigned i = 0; i < MANY; i++)
        snprintf(m->keys[i], KEY_BYTES, "%s-%u", prefix, i);
    return m;
}

static void many_free(struct many *m) {
    redis_commands_free(m->commands, MANY);
    free(m);
}

static int run_many(struct fixture *f, struct many *m, bool durable) {
    int r = redis_cluster_run(f->cluster, m->commands, MANY, durable, TIMEOUT_MS, f->why);
    if (r)
        print_error("%s\n", f->why);
    return r;
}

static void test_a_pipeline_over_all_slots(void **state) {
    struct fixture *f = need(state, false);
    struct many *m = many_new("many");
    for (size_t i = 0; i < MANY; i++) {
        struct bytes set[] = {B("SET"), B(m->keys[i]), B(m->keys[i])};
        memcpy(m->arguments[i], set, sizeof set);
        m->commands[i] = words(m->arguments[i], 3);
    }
    assert_int_equal(run_many(f, m, true), 0);
    redis_commands_free(m->commands, MANY);
    for (size_t i = 0; i < MANY; i++) {
        m->arguments[i][0] = B("GET");
        m->commands[i].n = 2;
    }
    assert_int_equal(run_many(f, m, false), 0);
    for (size_t i = 0; i < MANY; i++)
        assert_string_equal(m->commands[i].reply->str, m->keys[i]);
    many_free(m);
}

static void test_commands_of_a_slot_keep_their_order(void **state) {
    struct fixture *f = need(state, false);
    struct many *m = many_new("{order}");
    freeReplyObject(RUN(f, B("DEL"), B("{order}")));
    for (size_t i = 0; i < MANY; i++) {
        struct bytes push[] = {B("RPUSH"), B("{order}"), B(m->keys[i])};
        memcpy(m->arguments[i], push, sizeof push);
        m->commands[i] = words(m->arguments[i], 3);
    }
    assert_int_equal(run_many(f, m, false), 0);
    for (size_t i = 0; i < MANY; i++)
        assert_int_equal(m->commands[i].reply->integer, i + 1);
    redisReply *list = RUN(f, B("LRANGE"), B("{order}"), B("0"), B("-1"));
    for (size_t i = 0; i < MANY; i++)
        assert_string_equal(list->element[i]->str, m->keys[i]);
    freeReplyObject(list);
    many_free(m);
}

static void test_nothing_to_run(void **state) {
    struct fixture *f = need(state, false);
    assert_int_equal(redis_cluster_run(f->cluster, NULL, 0, true, TIMEOUT_MS, f->why), 0);
}

static void test_a_command_that_is_refused_stands_alone(void **state) {
    struct fixture *f = need(state, false);
    freeReplyObject(RUN(f, B("SET"), B("{r}text"), B("text")));
    struct bytes wrong[] = {B("INCR"), B("{r}text")}, right[] = {B("GET"), B("{r}text")};
    struct redis_command commands[] = {words(right, 2), words(wrong, 2), words(right, 2)};
    assert_int_equal(redis_cluster_run(f->cluster, commands, 3, true, TIMEOUT_MS, f->why),
                     REDIS_E_REFUSED);
    assert_non_null(strstr(f->why, "not an integer"));
    assert_int_equal(commands[0].result, 0);
    assert_int_equal(commands[1].result, REDIS_E_REFUSED);
    assert_int_equal(commands[1].reply->type, REDIS_REPLY_ERROR);
    assert_int_equal(commands[2].result, 0);
    assert_string_equal(commands[2].reply->str, "text");
    redis_commands_free(commands, 3);
    assert_null(commands[1].reply);
}

static const char script_echo[] = "redis.call('SET', KEYS[1], ARGV[1]) "
                                  "return {KEYS[1], KEYS[2], ARGV[1]}";

static void flush_scripts(struct fixture *f) {
    if (!redis_url_is_cluster(&f->url)) {
        freeReplyObject(RUN(f, B("SCRIPT"), B("FLUSH")));
        return;
    }
    struct redis_topology *t = malloc(sizeof *t);
    assert_non_null(t);
    struct node *nodes = find_masters(f, t);
    for (size_t i = 0; i < t->n_masters; i++)
        ASK(&nodes[i], B("SCRIPT"), B("FLUSH"));
    nodes_deinit(nodes, t->n_masters);
    free(t);
}

static void test_scripts_that_nodes_do_not_know(void **state) {
    struct fixture *f = need(state, false);
    struct redis_script script;
    redis_script_init(&script, script_echo);
    for (int round = 0; round < 2; round++) {
        struct many *m = many_new("script");
        flush_scripts(f);
        for (int again = 0; again < 2; again++) {
            for (size_t i = 0; i < MANY; i++) {
                struct bytes arguments[] = {B(m->keys[i]), B(m->keys[i]), B("value")};
                memcpy(m->arguments[i], arguments, sizeof arguments);
                m->commands[i] = (struct redis_command){.key = B(m->keys[i]),
                                                        .script = &script,
                                                        .n_keys = 2,
                                                        .arguments = m->arguments[i],
                                                        .n = 3};
            }
            assert_int_equal(run_many(f, m, true), 0);
            for (size_t i = 0; i < MANY; i++) {
                redisReply *reply = m->commands[i].reply;
                assert_int_equal(reply->elements, 3);
                assert_string_equal(reply->element[0]->str, m->keys[i]);
                assert_string_equal(reply->element[2]->str, "value");
            }
            redis_commands_free(m->commands, MANY);
        }
        many_free(m);
    }
}

/* A megabyte there and back. */
static void test_a_large_value(void **state) {
    struct fixture *f = need(state, false);
    size_t size = 1 << 20;
    char *value = malloc(size);
    assert_non_null(value);
    for (size_t i = 0; i < size; i++)
        value[i] = (char)(i * 31);
    freeReplyObject(RUN(f, B("SET"), B("large"), bytes_of(value, size)));
    redisReply *reply = RUN(f, B("GET"), B("large"));
    assert_int_equal(reply->len, size);
    assert_memory_equal(reply->str, value, size);
    freeReplyObject(reply);
    freeReplyObject(RUN(f, B("DEL"), B("large")));
    free(value);
}

static void test_more_replicas_than_there_are(void **state) {
    struct fixture *f = need(state, false);
    struct service_url *url = &f->url;
    struct service_parameter *p = &url->parameters[url->n_parameters++];
    struct redis_cluster_options options = {.url = url};
    struct redis_cluster *c;
    for (size_t i = 0; i < url->n_parameters; i++)
        if (&url->parameters[i] == p || strcmp(url->parameters[i].name, "replicas") == 0)
            url->parameters[i] = (struct service_parameter){.name = "replicas", .value = "9"};
    assert_int_equal(redis_cluster_open(os_real(), &options, &c, f->why), 0);
    struct bytes incr[] = {B("INCR"), B("waited")};
    struct redis_command commands[] = {words(incr, 2), words(incr, 2)};
    freeReplyObject(RUN(f, B("DEL"), B("waited")));
    assert_int_equal(redis_cluster_run(c, commands, 2, true, 2000, f->why), REDIS_E_UNAVAILABLE);
    assert_non_null(strstr(f->why, "of 9 replicas have"));
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(commands[i].result, REDIS_E_UNAVAILABLE);
        assert_null(commands[i].reply);
    }
    assert_int_equal(redis_cluster_run(c, commands, 1, false, TIMEOUT_MS, f->why), 0);
    assert_int_equal(commands[0].reply->integer, 3);
    redis_commands_free(commands, 1);
    redis_cluster_close(c);
}

static void test_its_status(void **state) {
    struct fixture *f = need(state, false);
    struct redis_cluster_status s = {0};
    for (int i = 0; i < PATIENCE_MS / 10 && !s.reachable; i++) {
        os_sleep_ns(os_real(), 10000000);
        redis_cluster_status(f->cluster, &s);
    }
    assert_true(s.reachable);
    assert_int_equal(s.masters, redis_url_is_cluster(&f->url) ? 3 : 1);
}

/* ---- Slots that move ---- */

/* "moving" and its neighbours are on nodes[*ret_from]. */
static struct node *find_slot(struct fixture *f, const char *slot, size_t *ret_from, size_t *ret_to,
                              size_t *ret_n) {
    struct redis_topology *t = malloc(sizeof *t);
    assert_non_null(t);
    struct node *nodes = find_masters(f, t);
    *ret_n = t->n_masters;
    *ret_from = t->owner[strtoul(slot, NULL, 10)];
    *ret_to = (*ret_from + 1) % t->n_masters;
    free(t);
    return nodes;
}

static void slot_text(char out[24], const char *key) {
    snprintf(out, 24, "%u", redis_slot(B(key)));
}

/* The slot has no key, or they were migrated. */
static void give_slot(struct node *nodes, size_t n, size_t from, size_t to, const char *slot) {
    ASK(&nodes[to], B("CLUSTER"), B("SETSLOT"), B(slot), B("NODE"), B(nodes[to].id));
    ASK(&nodes[from], B("CLUSTER"), B("SETSLOT"), B(slot), B("NODE"), B(nodes[to].id));
    for (size_t i = 0; i < n; i++)
        ASK(&nodes[i], B("CLUSTER"), B("SETSLOT"), B(slot), B("NODE"), B(nodes[to].id));
}

static void begin_migration(struct node *nodes, size_t from, size_t to, const char *slot) {
    ASK(&nodes[to], B("CLUSTER"), B("SETSLOT"), B(slot), B("IMPORTING"), B(nodes[from].id));
    ASK(&nodes[from], B("CLUSTER"), B("SETSLOT"), B(slot), B("MIGRATING"), B(nodes[to].id));
}

static void migrate(struct fixture *f, struct node *from, const struct node *to, const char *key) {
    char port[24];
    snprintf(port, sizeof port, "%u", to->address.port);
    ASK(from, B("MIGRATE"), B(to->address.host), B(port), B(key), B("0"), B("10000"), B("AUTH"),
        B(f->url.password));
}

static long long commands_of(struct node *n, const char *name) {
    char what[64];
    redisReply *info = ask(n, (struct bytes[]){B("INFO"), B("commandstats")}, 2);
    snprintf(what, sizeof what, "cmdstat_%s:calls=", name);
    const char *found = strstr(info->str, what);
    long long calls = found ? strtoll(found + strlen(what), NULL, 10) : 0;
    freeReplyObject(info);
    return calls;
}

static void test_a_slot_that_has_moved(void **state) {
    struct fixture *f = need(state, true);
    char slot[24];
    size_t from, to, n;
    slot_text(slot, "{moved}");
    freeReplyObject(RUN(f, B("DEL"), B("{moved}"))); /* where it was is known */
    struct node *nodes = find_slot(f, slot, &from, &to, &n);
    give_slot(nodes, n, from, to, slot);
    assert_int_equal(number_of(RUN(f, B("INCR"), B("{moved}"))), 1);
    long long asked = commands_of(&nodes[from], "incr");
    assert_int_equal(number_of(RUN(f, B("INCR"), B("{moved}"))), 2);
    assert_int_equal(commands_of(&nodes[from], "incr"), asked); /* it has learned */
    nodes_deinit(nodes, n);
}

/* Half of the keys are still there, the others not, or new: and scripts as well as commands. */
static void test_a_slot_that_is_moving(void **state) {
    struct fixture *f = need(state, true);
    struct redis_script script;
    char slot[24];
    size_t from, to, n;
    redis_script_init(&script, "return redis.call('INCR', KEYS[1])");
    slot_text(slot, "{moving}");
    struct many *m = many_new("{moving}");
    struct node *nodes = find_slot(f, slot, &from, &to, &n);
    for (size_t i = 0; i < MANY / 2; i++)
        freeReplyObject(RUN(f, B("SET"), B(m->keys[i]), B("0")));
    begin_migration(nodes, from, to, slot);
    for (size_t i = 0; i < MANY / 4; i++)
        migrate(f, &nodes[from], &nodes[to], m->keys[i]);
    for (int round = 1; round <= 3; round++) {
        for (size_t i = 0; i < MANY; i++) {
            bool by_script = i % 2 == 0;
            m->arguments[i][0] = B("INCR");
            m->arguments[i][1] = B(m->keys[i]);
            m->commands[i] = (struct redis_command){.key = B(m->keys[i]),
                                                    .script = by_script ? &script : NULL,
                                                    .n_keys = 1,
                                                    .arguments = m->arguments[i] + by_script,
                                                    .n = by_script ? 1 : 2};
        }
        assert_int_equal(run_many(f, m, true), 0);
        for (size_t i = 0; i < MANY; i++)
            assert_int_equal(m->commands[i].reply->integer, round);
        redis_commands_free(m->commands, MANY);
        if (round == 2)
            give_slot(nodes, n, from, to, slot);
        for (size_t i = MANY / 4; round == 1 && i < MANY / 2; i++)
            migrate(f, &nodes[from], &nodes[to], m->keys[i]);
    }
    nodes_deinit(nodes, n);
    many_free(m);
}

/* ---- Who is not there ---- */

static void test_nobody_there(void **state) {
    (void)state;
    struct socket_address any;
    uint16_t port;
    int fd;
    assert_int_equal(socket_address_parse("127.0.0.1:0", &any), 0);
    assert_int_equal(socket_listen(&any, &fd, &port), 0);
    socket_close(fd);
    for (int sharded = 0; sharded < 2; sharded++) {
        struct fixture f = {0};
        struct redis_cluster_status s = {.reachable = true};
        struct bytes get[] = {B("GET"), B("key")};
        struct redis_command one = words(get, 2);
        char text[128];
        snprintf(text, sizeof text, "redis%s://:" SECRET "@127.0.0.1:%u%s",
                 sharded ? "+cluster" : "", port, sharded ? ",localhost:1" : "/3");
        url_init(&f.url, text);
        struct redis_cluster_options options = {.url = &f.url, .watch_ms = 1};
        assert_int_equal(redis_cluster_open(os_real(), &options, &f.cluster, f.why), 0);
        assert_int_equal(redis_cluster_run(f.cluster, &one, 1, true, 50, f.why),
                         REDIS_E_UNAVAILABLE);
        assert_int_equal(one.result, REDIS_E_UNAVAILABLE);
        assert_null(one.reply);
        assert_non_null(strstr(f.why, "is not reachable"));
        for (int n = 0; n < PATIENCE_MS && !strstr(s.why, "is not reachable"); n++) {
            os_sleep_ns(os_real(), 1000000);
            redis_cluster_status(f.cluster, &s);
        }
        assert_false(s.reachable);
        assert_non_null(strstr(s.why, "is not reachable"));
        assert_null(strstr(s.why, SECRET));
        redis_cluster_close(f.cluster);
    }
}

static void test_urls_that_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *url, *why;
    } bad[] = {
        {"kafka://h", "redis+cluster://"},
        {"rediss+cluster://h", "TLS"},
        {"redis+cluster://user@h", "password"},
        {"redis+cluster://h/3", "one database"},
        {"redis+cluster://h/?replicas=17", "from 0 to 16"},
        {"redis+cluster://h/?replicas=x", "from 0 to 16"},
        {"redis+cluster://h/?prefix=x&sesame=x", "no parameter sesame"},
        {"redis+cluster://h/?sentinel-password=sesame", "redis+sentinel://"},
        {"redis://h,i", "one host"},
        {"redis+sentinel://h", "NAME"},
    };
    static const char *const own[] = {"prefix", NULL};
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        struct service_url url;
        struct redis_cluster *c = NULL;
        char why[REDIS_WHY_MAX] = "";
        struct redis_cluster_options options = {.url = &url, .parameters = own};
        url_init(&url, bad[i].url);
        assert_int_equal(redis_cluster_open(os_real(), &options, &c, why), REDIS_E_REFUSED);
        assert_null(c);
        assert_non_null(strstr(why, bad[i].why));
    }
    assert_null(redis_cluster_close(NULL));
}

/* ---- Enduring ---- */

/* Counts twice: by INCR, which counts each time it is executed, and by a script with a position.
 * INCR: acknowledged ≤ value ≤ tried. The script: exactly as many as positions. What waits for no
 * replica may be lost by a failover: then the value is only never too high. */
static const char script_count[] =
    "local at = tonumber(redis.call('HGET', KEYS[1], 'position') or '0') "
    "if at == tonumber(ARGV[1]) then redis.call('HINCRBY', KEYS[1], 'count', 1) end "
    "if at < tonumber(ARGV[1]) then return redis.error_reply('LOST '..at..' '..ARGV[1]) end "
    "redis.call('HSET', KEYS[1], 'position', tonumber(ARGV[1]) + 1) "
    "return redis.call('HGET', KEYS[1], 'count')";

enum { COUNTERS = 24, ENDURE_TIMEOUT_MS = 1000 };

struct counter {
    char plain[KEY_BYTES], kept[KEY_BYTES], position[24];
    struct bytes arguments[2][3];
    bool lossy;
    uint64_t acknowledged, tried, at;
};

struct endurance {
    struct redis_cluster *cluster;
    struct redis_script script;
    bool lossy;
    _Atomic bool stop;
    _Atomic uint64_t sum; /* over threads, of the counter that is behind the others */
    _Atomic bool failed;
};

struct teller {
    struct endurance *e;
    pthread_t thread;
    unsigned number;
};

static void counter_prepare(struct counter *k, const struct endurance *e,
                            struct redis_command *out) {
    snprintf(k->position, sizeof k->position, "%llu", (unsigned long long)k->at);
    memcpy(k->arguments[0], (struct bytes[]){B("INCR"), B(k->plain)}, 2 * sizeof(struct bytes));
    memcpy(k->arguments[1], (struct bytes[]){B(k->kept), B(k->position)}, 2 * sizeof(struct bytes));
    out[0] = words(k->arguments[0], 2);
    out[1] = (struct redis_command){
        .key = B(k->kept), .script = &e->script, .n_keys = 1, .arguments = k->arguments[1], .n = 2};
    k->tried++;
}

static bool counter_judge(struct counter *k, const struct redis_command *plain,
                          const struct redis_command *kept) {
    if (plain->result == 0) {
        uint64_t value = (uint64_t)plain->reply->integer;
        if ((++k->acknowledged > value && !k->lossy) || value > k->tried) {
            fprintf(stderr, "%s is %llu, acknowledged %llu, tried %llu\n", k->plain,
                    (unsigned long long)value, (unsigned long long)k->acknowledged,
                    (unsigned long long)k->tried);
            return false;
        }
    }
    if (kept->result == REDIS_E_UNAVAILABLE)
        return plain->result != REDIS_E_REFUSED;
    if (kept->result == 0 && strtoull(kept->reply->str, NULL, 10) == k->at + 1) {
        k->at++;
        return plain->result != REDIS_E_REFUSED;
    }
    if (k->lossy && strncmp(kept->reply->str, "LOST ", 5) == 0) {
        k->at = strtoull(kept->reply->str + 5, NULL, 10);
        return true;
    }
    fprintf(stderr, "%s at %llu: %s\n", k->kept, (unsigned long long)k->at, kept->reply->str);
    return false;
}

static void *tell(void *argument) {
    struct teller *t = argument;
    struct endurance *e = t->e;
    struct counter *counters = calloc(COUNTERS, sizeof *counters);
    struct redis_command commands[2 * COUNTERS];
    char why[REDIS_WHY_MAX];
    uint64_t least = 0;
    assert(counters);
    for (unsigned i = 0; i < COUNTERS; i++) {
        struct counter *k = &counters[i];
        k->lossy = e->lossy;
        snprintf(k->plain, KEY_BYTES, "plain-%d-%u-%u", k->lossy, t->number, i);
        snprintf(k->kept, KEY_BYTES, "kept-%d-%u-%u", k->lossy, t->number, i);
    }
    while (!e->stop && !e->failed) {
        uint64_t after = UINT64_MAX;
        for (unsigned i = 0; i < COUNTERS; i++)
            counter_prepare(&counters[i], e, &commands[2 * i]);
        int r = redis_cluster_run(e->cluster, commands, 2 * COUNTERS, true, ENDURE_TIMEOUT_MS, why);
        if (r && strstr(why, SECRET))
            e->failed = true;
        for (unsigned i = 0; i < COUNTERS; i++) {
            if (!counter_judge(&counters[i], &commands[2 * i], &commands[2 * i + 1]))
                e->failed = true;
            after = counters[i].at < after ? counters[i].at : after;
        }
        redis_commands_free(commands, 2 * COUNTERS);
        if (after > least) {
            e->sum += after - least;
            least = after;
        }
    }
    free(counters);
    return NULL;
}

static bool input_ended(int wait_ms) {
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    return poll(&in, 1, wait_ms) > 0;
}

static int endure(const char *url_text, unsigned n) {
    static struct service_url url;
    struct endurance e = {0};
    struct redis_cluster_options options = {.url = &url, .watch_ms = 100, .connections_max = 2};
    struct teller tellers[16];
    char why[REDIS_WHY_MAX];
    url_init(&url, url_text);
    e.lossy = service_url_parameter(&url, "replicas") == NULL;
    redis_script_init(&e.script, script_count);
    if (redis_cluster_open(os_real(), &options, &e.cluster, why) != 0) {
        fprintf(stderr, "%s\n", why);
        return 1;
    }
    for (unsigned i = 0; i < n && i < ARRAY_LENGTH(tellers); i++) {
        tellers[i] = (struct teller){.e = &e, .number = i};
        pthread_create(&tellers[i].thread, NULL, tell, &tellers[i]);
    }
    for (uint64_t said = 0; !e.failed && !input_ended(10);)
        if (e.sum != said) {
            said = e.sum;
            printf("%llu\n", (unsigned long long)said);
            fflush(stdout);
        }
    e.stop = true;
    for (unsigned i = 0; i < n && i < ARRAY_LENGTH(tellers); i++)
        pthread_join(tellers[i].thread, NULL);
    redis_cluster_close(e.cluster);
    return e.failed;
}

static int say(const char *url_text) {
    static struct service_url url;
    struct redis_cluster_options options = {.url = &url};
    struct redis_cluster *c = NULL;
    char why[REDIS_WHY_MAX];
    struct bytes get[] = {B("GET"), B("key")};
    struct redis_command one = words(get, 2);
    url_init(&url, url_text);
    int r = redis_cluster_open(os_real(), &options, &c, why);
    if (!r)
        r = redis_cluster_run(c, &one, 1, false, TIMEOUT_MS, why);
    if (r)
        fprintf(stderr, "%d %s\n", r, why);
    redis_commands_free(&one, 1);
    redis_cluster_close(c);
    return r != 0;
}

int main(int argc, char **argv) {
    char *url = argc > 1 ? argv[1] : NULL;
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &ignore, NULL); /* as in the real program */
    if (argc > 2 && strcmp(argv[1], "say") == 0)
        return say(argv[2]);
    if (argc > 3 && strcmp(argv[1], "endure") == 0)
        return endure(argv[2], (unsigned)strtoul(argv[3], NULL, 10));
#define ON(test) cmocka_unit_test_prestate_setup_teardown(test, set_up, tear_down, url)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nobody_there),
        cmocka_unit_test(test_urls_that_are_refused),
        ON(test_a_pipeline_over_all_slots),
        ON(test_commands_of_a_slot_keep_their_order),
        ON(test_nothing_to_run),
        ON(test_a_command_that_is_refused_stands_alone),
        ON(test_scripts_that_nodes_do_not_know),
        ON(test_a_large_value),
        ON(test_more_replicas_than_there_are),
        ON(test_its_status),
        ON(test_a_slot_that_has_moved),
        ON(test_a_slot_that_is_moving),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
