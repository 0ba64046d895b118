/* SPDX-License-Identifier: Apache-2.0 */
/* Slots of keys, redirections, answers to CLUSTER SLOTS: as they are, and as nobody would send
 * them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "redis/slots.h"

#include <stdio.h>
#include <stdlib.h>

static const struct redis_address asked = {.host = "10.0.0.1", .port = 7000};

static void test_slots_of_keys(void **state) {
    (void)state;
    static const struct {
        const char *key;
        unsigned slot;
    } known[] = {
        {"", 0},
        {"123456789", 0x31c3}, /* the example of the specification */
        {"foo", 12182},
        {"{foo}bar", 12182},
        {"bar{foo}{zap}", 12182},
        {"x{}{foo}", 9729}, /* empty braces: the whole key */
        {"foo{{bar}}zap", 4015},
        {"{bar", 4015},
        {"foo{", 7673},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(known); i++)
        assert_int_equal(redis_slot(bytes_of_string(known[i].key)), known[i].slot);
}

static void test_redirections(void **state) {
    (void)state;
    static const struct {
        const char *error;
        bool ask;
        unsigned slot;
        const char *host;
        unsigned port;
    } good[] = {
        {"MOVED 3999 127.0.0.1:6381", false, 3999, "127.0.0.1", 6381},
        {"ASK 0 redis-2.example:1", true, 0, "redis-2.example", 1},
        {"MOVED 16383 ::1:65535", false, 16383, "::1", 65535},
        {"MOVED 7 :6381", false, 7, "10.0.0.1", 6381},
    };
    struct redis_redirect r;
    for (size_t i = 0; i < ARRAY_LENGTH(good); i++) {
        assert_true(redis_redirect_parse(good[i].error, &asked, &r));
        assert_int_equal(r.ask, good[i].ask);
        assert_int_equal(r.slot, good[i].slot);
        assert_string_equal(r.to.host, good[i].host);
        assert_int_equal(r.to.port, good[i].port);
    }
}

static void test_what_is_no_redirection(void **state) {
    (void)state;
    static const char *const bad[] = {
        "",
        "MOVED",
        "MOVED ",
        "MOVED 16384 h:1",
        "MOVED 99999999999999999999999999 h:1",
        "MOVED -1 h:1",
        "MOVED 1h:1",
        "MOVED 1 h",
        "MOVED 1 h:",
        "MOVED 1 h:0",
        "MOVED 1 h:65536",
        "MOVED 1 h:1 ",
        "MOVED 1 ?:6381",
        "moved 1 h:1",
        "ERR MOVED 1 h:1",
        "ASKING 1 h:1",
    };
    struct redis_redirect r;
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++)
        assert_false(redis_redirect_parse(bad[i], &asked, &r));
    char text[REDIS_HOST_MAX + 32];
    for (int size = REDIS_HOST_MAX - 1; size <= REDIS_HOST_MAX; size++) {
        snprintf(text, sizeof text, "MOVED 1 %0*d:6379", size, 0);
        assert_int_equal(redis_redirect_parse(text, &asked, &r), size < REDIS_HOST_MAX);
    }
}

/* An answer as it comes, with ' for \r\n. */
static bool parse(const char *text, struct redis_topology *t) {
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    redisReader *reader = redisReaderCreate();
    void *made = NULL;
    assert_non_null(reader);
    for (; *text; text++)
        assert_int_equal(
            redisReaderFeed(reader, *text == '\'' ? "\r\n" : text, *text == '\'' ? 2 : 1),
            REDIS_OK);
    assert_int_equal(redisReaderGetReply(reader, &made), REDIS_OK);
    assert_non_null(made);
    reply = made;
    redisReaderFree(reader);
    return redis_topology_parse(reply, &asked, t);
}

static void test_who_serves_what(void **state) {
    (void)state;
    struct redis_topology *t = malloc(sizeof *t);
    assert_non_null(t);
    assert_true(parse("*4'"
                      "*4':0':5460'*4'$1'a':7001'$2'id'*0'*3'$1'x':7004'$2'id'"
                      "*3':5461':10922'*3'$-1':7002'$2'id'"
                      "*3':10924':10924'*2'$0'':7003'"
                      "*3':16383':16383'*3'$1'a':7001'$2'id'",
                      t));
    assert_int_equal(t->n_masters, 3);
    assert_string_equal(t->masters[0].host, "a");
    assert_string_equal(t->masters[1].host, "10.0.0.1");
    assert_string_equal(t->masters[2].host, "10.0.0.1");
    assert_int_equal(t->masters[2].port, 7003);
    assert_int_equal(t->owner[0], 0);
    assert_int_equal(t->owner[5460], 0);
    assert_int_equal(t->owner[5461], 1);
    assert_int_equal(t->owner[10922], 1);
    assert_int_equal(t->owner[10923], REDIS_NOBODY);
    assert_int_equal(t->owner[10924], 2);
    assert_int_equal(t->owner[10925], REDIS_NOBODY);
    assert_int_equal(t->owner[16383], 0);
    free(t);
}

static void test_answers_that_say_nothing(void **state) {
    (void)state;
    static const char *const bad[] = {
        "*0'",
        "*-1'",
        ":3'",
        "$2'ab'",
        "*1':0'",
        "*1'*2':0':1'",
        "*1'*3':0':16384'*2'$1'a':1'",
        "*1'*3':-1':1'*2'$1'a':1'",
        "*1'*3':2':1'*2'$1'a':1'",
        "*1'*3'$1'0':1'*2'$1'a':1'",
        "*1'*3':0':1'$1'a'",
        "*1'*3':0':1'*1'$1'a'",
        "*1'*3':0':1'*2':1':1'",
        "*1'*3':0':1'*2'$1'a'$1'1'",
        "*1'*3':0':1'*2'$1'a':0'",
        "*1'*3':0':1'*2'$1'a':65537'",
        "*1'*3':0':1'*2'$1'a':-1'",
        "*1'*3':0':1'*2'$1'?':1'",
        "*1'*3':0':1'*2'*0':1'",
    };
    struct redis_topology *t = malloc(sizeof *t);
    assert_non_null(t);
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++)
        assert_false(parse(bad[i], t));
    free(t);
}

/* As many masters as there is place for, and one more. */
static void test_masters_are_bounded(void **state) {
    (void)state;
    struct redis_topology *t = malloc(sizeof *t);
    char *text = malloc((size_t)64 * REDIS_MASTERS_MAX + 128);
    assert_non_null(t);
    assert_non_null(text);
    for (int n = REDIS_MASTERS_MAX; n <= REDIS_MASTERS_MAX + 1; n++) {
        int size = snprintf(text, 16, "*%d'", n);
        for (int i = 0; i < n; i++)
            size += snprintf(text + size, 64, "*3':%d':%d'*2'$1'a':%d'", i, i, 7000 + i);
        assert_int_equal(parse(text, t), n == REDIS_MASTERS_MAX);
    }
    free(text);
    free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slots_of_keys),
        cmocka_unit_test(test_redirections),
        cmocka_unit_test(test_what_is_no_redirection),
        cmocka_unit_test(test_who_serves_what),
        cmocka_unit_test(test_answers_that_say_nothing),
        cmocka_unit_test(test_masters_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
