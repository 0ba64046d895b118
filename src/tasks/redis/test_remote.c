/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tasks on a real Redis, script by script: run by tests/engines with a URL, skipped without.
 * test_store.c runs over it too.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "redis/link.h"
#include "tasks/redis.h"

#include <stdio.h>
#include <stdlib.h>

struct rig {
    struct service_url url;
    char pairs[64], owner[64];
    struct tasks_remote *remote;
    struct redis_link link; /* beside it */
    char why[REDIS_WHY_MAX];
};

static struct rig *begin(void **state, const char *name) {
    struct rig *rig = calloc(1, sizeof *rig);
    char text[512];
    const char *why;
    assert_non_null(rig);
    snprintf(text, sizeof text, "%s?prefix=%s-", (const char *)*state, name);
    snprintf(rig->pairs, sizeof rig->pairs, "{%s-tasks}", name);
    snprintf(rig->owner, sizeof rig->owner, "{%s-tasks}:owner", name);
    assert_true(service_url_parse(text, &rig->url, &why));
    assert_true(tasks_redis_check_url(&rig->url, rig->why));
    const struct tasks_redis_options options = {.url = &rig->url};
    assert_int_equal(tasks_redis_new(os_real(), &options, &rig->remote), 0);
    redis_link_init(&rig->link, os_real(), &rig->url, 20000, rig->why);
    return rig;
}

static void end(struct rig *rig) {
    tasks_redis_free(rig->remote);
    redis_link_deinit(&rig->link);
    free(rig);
}

#define WORDS_MAX 6
static void call(struct rig *rig, const char *const words[WORDS_MAX]) {
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    struct bytes arguments[WORDS_MAX];
    size_t n = 0;
    for (; n < WORDS_MAX && words[n]; n++)
        arguments[n] = bytes_of_string(words[n]);
    redis_link_begin(&rig->link, 0);
    assert_int_equal(redis_link_command(&rig->link, arguments, n, &reply), 0);
}
#define CALL(rig, ...) call((rig), (const char *const[WORDS_MAX]){__VA_ARGS__})

static int begins(struct rig *rig, uint64_t number, bool whole) {
    return rig->remote->ops->begin(rig->remote, number, whole);
}
static void put(struct rig *rig, const char *key, const char *value) {
    rig->remote->ops->put(rig->remote, bytes_of_string(key), bytes_of_string(value));
}
static int finish(struct rig *rig) {
    return rig->remote->ops->finish(rig->remote);
}
static uint64_t own(struct rig *rig) {
    uint64_t number = 99;
    assert_int_equal(rig->remote->ops->own(rig->remote, &number), 0);
    return number;
}

static int gather(void *context, struct bytes key, struct bytes value) {
    buffer_append_bytes(context, key);
    buffer_append_u8(context, '=');
    buffer_append_bytes(context, value);
    buffer_append_u8(context, ' ');
    return 0;
}

static void expect(struct rig *rig, const char *text) {
    CLEANUP(buffer_deinit) struct buffer found = BUFFER_INIT;
    assert_int_equal(rig->remote->ops->read(rig->remote, gather, &found), 0);
    assert_true(bytes_equal(buffer_bytes(&found), bytes_of_string(text)));
}

static void checkpoint(struct rig *rig, uint64_t number, const char *value) {
    assert_int_equal(begins(rig, number, false), 0);
    put(rig, "a", value);
    assert_int_equal(finish(rig), 0);
}

static void test_checkpoints(void **state) {
    if (!*state)
        skip();
    struct rig *rig = begin(state, "checkpoints");
    assert_int_equal(own(rig), 0);
    expect(rig, "");
    checkpoint(rig, 1, "one");
    checkpoint(rig, 1, "one, again"); /* as when nobody heard the answer */
    expect(rig, "a=one, again ");
    assert_int_equal(begins(rig, 2, false), 0);
    put(rig, "b", "");
    rig->remote->ops->remove(rig->remote, BYTES_LITERAL("a"));
    rig->remote->ops->remove(rig->remote, BYTES_LITERAL("none"));
    expect(rig, "a=one, again ");
    assert_int_equal(finish(rig), 0);
    expect(rig, "b= ");
    assert_int_equal(begins(rig, 3, false), 0); /* dropped by the next */
    put(rig, "x", "y");
    assert_int_equal(own(rig), 2);
    checkpoint(rig, 3, "three");
    assert_int_equal(own(rig), 3);
    end(rig);
}

/* More than a chunk has room for, and one that is larger than a chunk. */
static void test_many_and_large(void **state) {
    enum { MANY = 3000, LARGE = 3 << 20 };
    if (!*state)
        skip();
    struct rig *rig = begin(state, "many");
    CLEANUP(buffer_deinit) struct buffer found = BUFFER_INIT;
    char *large = calloc(1, LARGE), key[16];
    assert_non_null(large);
    assert_int_equal(own(rig), 0);
    for (uint64_t round = 1; round <= 2; round++) {
        assert_int_equal(begins(rig, round, false), 0);
        for (unsigned i = 0; i < MANY; i++) {
            snprintf(key, sizeof key, "%04u", i);
            if (round == 1)
                put(rig, key, "v");
            else if (i % 2)
                rig->remote->ops->remove(rig->remote, bytes_of_string(key));
        }
        rig->remote->ops->put(rig->remote, BYTES_LITERAL("z"), bytes_of(large, LARGE));
        assert_int_equal(finish(rig), 0);
    }
    assert_int_equal(rig->remote->ops->read(rig->remote, gather, &found), 0);
    assert_int_equal(found.size, MANY / 2 * strlen("0000=v ") + LARGE + strlen("z= "));
    free(large);
    end(rig);
}

static void test_one_owner(void **state) {
    if (!*state)
        skip();
    struct rig *first = begin(state, "owner"), *second = begin(state, "owner");
    assert_int_equal(own(first), 0);
    checkpoint(first, 1, "one");
    assert_int_equal(begins(first, 2, false), 0);
    put(first, "a", "two");
    assert_int_equal(own(second), 1);
    assert_int_equal(finish(first), TASKS_REMOTE_E_FENCED);
    assert_non_null(strstr(first->remote->why, "another server has taken the tasks over"));
    assert_int_equal(begins(first, 2, false), TASKS_REMOTE_E_FENCED);
    assert_int_equal(begins(first, 1, true), TASKS_REMOTE_E_FENCED);
    assert_int_equal(first->remote->ops->look(first->remote, 1), TASKS_REMOTE_E_FENCED);
    expect(second, "a=one ");
    checkpoint(second, 2, "two");
    CALL(second, "DEL", second->owner); /* whose turn it is to notice */
    assert_int_equal(begins(first, 1, true), TASKS_REMOTE_E_FENCED);
    assert_non_null(strstr(first->remote->why, "another server has taken the tasks over"));
    assert_int_equal(begins(second, 3, false), TASKS_REMOTE_E_LOST);
    assert_int_equal(begins(second, 2, true), 0);
    end(first);
    end(second);
}

/* As after a failover to a replica that did not have it. */
static void test_what_was_lost(void **state) {
    if (!*state)
        skip();
    struct rig *rig = begin(state, "lost");
    assert_int_equal(own(rig), 0);
    checkpoint(rig, 1, "one");
    checkpoint(rig, 2, "two");
    CALL(rig, "HSET", rig->owner, "number", "1");
    assert_int_equal(rig->remote->ops->look(rig->remote, 2), TASKS_REMOTE_E_LOST);
    assert_int_equal(begins(rig, 3, false), TASKS_REMOTE_E_LOST);
    assert_int_equal(begins(rig, 2, true), 0);
    put(rig, "b", "whole");
    assert_int_equal(finish(rig), 0);
    expect(rig, "b=whole ");
    assert_int_equal(begins(rig, 3, false), 0);
    put(rig, "c", "");
    CALL(rig, "HSET", rig->owner, "number", "1"); /* in the middle */
    assert_int_equal(finish(rig), TASKS_REMOTE_E_LOST);
    CALL(rig, "DEL", rig->pairs);
    assert_int_equal(rig->remote->ops->look(rig->remote, 1), TASKS_REMOTE_E_LOST);
    CALL(rig, "DEL", rig->owner);
    assert_int_equal(begins(rig, 3, false), TASKS_REMOTE_E_LOST);
    assert_int_equal(begins(rig, 2, true), 0);
    assert_int_equal(finish(rig), 0); /* of nothing */
    expect(rig, "");
    end(rig);
}

/* A chunk is missing, and the rest is not taken for the whole. */
static void test_a_chunk_that_was_lost(void **state) {
    if (!*state)
        skip();
    struct rig *rig = begin(state, "torn");
    assert_int_equal(own(rig), 0);
    checkpoint(rig, 1, "one");
    for (unsigned whole = 0; whole < 2; whole++) {
        assert_int_equal(begins(rig, 2, whole), 0);
        put(rig, "a", "two");
        CALL(rig, "HSET", rig->owner, "staged", "of another/1");
        assert_int_equal(finish(rig), TASKS_REMOTE_E_UNAVAILABLE);
        assert_non_null(strstr(rig->remote->why, "has lost a part of the checkpoint"));
        expect(rig, "a=one ");
    }
    checkpoint(rig, 2, "two");
    end(rig);
}

static bool is_good(const char *text, const char *word) {
    struct service_url url;
    const char *unused;
    char why[TASKS_REMOTE_WHY_MAX] = "";
    assert_true(service_url_parse(text, &url, &unused));
    bool good = tasks_redis_check_url(&url, why);
    assert_non_null(strstr(why, word));
    return good;
}

static void test_urls(void **state UNUSED) {
    assert_true(is_good("redis://:x@host:1/3?prefix=mine-&replicas=2", ""));
    assert_true(is_good("redis+sentinel://a,b/name?sentinel-password=y", ""));
    assert_false(is_good("rediss://host", "TLS"));
    assert_false(is_good("redis+cluster://host", "by Redis"));
    assert_false(is_good("kafka://host", "by Redis"));
    assert_false(is_good("redis://host?replica=1", "no parameter replica"));
    assert_false(is_good("redis://host?replicas=17", "from 0 to 16"));
    assert_false(is_good("redis://host?prefix={", "no braces"));
    assert_false(is_good("redis://a,b", "one host"));
}

int main(int argc, char **argv) {
    char *url = argc > 1 ? argv[1] : NULL;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_checkpoints, url),
        cmocka_unit_test_prestate(test_many_and_large, url),
        cmocka_unit_test_prestate(test_one_owner, url),
        cmocka_unit_test_prestate(test_what_was_lost, url),
        cmocka_unit_test_prestate(test_a_chunk_that_was_lost, url),
        cmocka_unit_test(test_urls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
