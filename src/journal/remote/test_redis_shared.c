/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the suite of all drivers of shared journals (test_shared_driver.c) cannot ask of Redis,
 * where it takes somebody who spoils what lies there:
 *
 *   MILLRACE_TEST_JOURNAL='redis://127.0.0.1:6379/?prefix=LOG-&partitions=2' \
 *       build-debug/src/test-journal-redis_shared
 *
 * LOG becomes a name of each test's own. Without the variable every test is skipped.
 */
#include "journal/remote/shared.h"
#include "redis/link.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { TIMEOUT_MS = 5000, PATIENCE_MS = 60000, TEXT_MAX = 2048, WORDS = 6, PARTITIONS = 2 };
#define MS_NS UINT64_C(1000000)
#define NAME "events"

struct rig {
    struct os *os;
    char text[TEXT_MAX];
    struct service_url url;
    struct redis_link link; /* of who spoils */
    char why[REDIS_WHY_MAX];
    char answer[TEXT_MAX];
    char keys[WORDS][TEXT_MAX];
    struct shared_writer *writer;
    struct shared_member *member;
};

static void open_url(struct rig *rig, const char *form) {
    uint64_t number;
    const char *why, *at = strstr(form, "LOG");
    assert_non_null(at);
    assert_int_equal(os_random(rig->os, &number, sizeof number), 0);
    snprintf(rig->text, sizeof rig->text, "%.*s%016llx%s", (int)(at - form), form,
             (unsigned long long)number, at + 3);
    assert_true(service_url_parse(rig->text, &rig->url, &why));
}

static struct log_options options_of(struct rig *rig) {
    return (struct log_options){.url = &rig->url, .name = NAME, .timeout_ms = TIMEOUT_MS};
}

static void open_writer(struct rig *rig) {
    const struct log_options options = options_of(rig);
    assert_int_equal(shared_redis.open(rig->os, &options, &rig->writer), 0);
}

static int setup(void **state) {
    const char *form = getenv("MILLRACE_TEST_JOURNAL");
    struct rig *rig = calloc(1, sizeof *rig);
    *state = rig;
    if (!rig || !form)
        return rig ? 0 : -1;
    rig->os = os_real();
    open_url(rig, form);
    redis_link_init(&rig->link, rig->os, &rig->url, TIMEOUT_MS, rig->why);
    open_writer(rig);
    return 0;
}

static int teardown(void **state) {
    struct rig *rig = *state;
    if (rig->member)
        shared_redis.leave(rig->member);
    if (rig->writer)
        shared_redis.close(rig->writer);
    redis_link_deinit(&rig->link);
    free(rig);
    return 0;
}

static struct rig *start(void **state) {
    struct rig *rig = *state;
    if (!rig->os)
        skip();
    return rig;
}

/* ---- Who spoils ---- */

/* "@" begins the name of something of the journal: "@-0" is the first stream. */
static struct bytes word(struct rig *rig, const char *text, char key[TEXT_MAX]) {
    if (*text != '@')
        return bytes_of_string(text);
    snprintf(key, TEXT_MAX, "%.1000s" NAME "%.100s", service_url_parameter(&rig->url, "prefix"),
             text + 1);
    return bytes_of_string(key);
}

/* The reply as text, a number too; "" of anything else. */
static const char *tell(struct rig *rig, const char *const words[WORDS]) {
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    struct bytes arguments[WORDS];
    size_t n = 0;
    for (; n < WORDS && words[n]; n++)
        arguments[n] = word(rig, words[n], rig->keys[n]);
    redis_link_begin(&rig->link, 0);
    if (redis_link_command(&rig->link, arguments, n, &reply))
        fail_msg("%s: %s", words[0], rig->why);
    rig->answer[0] = '\0';
    if (reply->type == REDIS_REPLY_STRING)
        snprintf(rig->answer, sizeof rig->answer, "%s", reply->str);
    if (reply->type == REDIS_REPLY_INTEGER)
        snprintf(rig->answer, sizeof rig->answer, "%lld", reply->integer);
    return rig->answer;
}
#define TELL(rig, ...) tell(rig, (const char *const[WORDS]){__VA_ARGS__})

/* ---- Writing ---- */

/* A message to each of the partitions. */
static int deliver(struct rig *rig) {
    struct shared_message messages[PARTITIONS] = {0};
    for (unsigned p = 0; p < PARTITIONS; p++) {
        messages[p].partition = p;
        messages[p].n = 1;
        buffer_append_u32(&messages[p].bytes, p);
    }
    int r = shared_redis.deliver(rig->writer, messages, PARTITIONS);
    for (unsigned p = 0; p < PARTITIONS; p++)
        buffer_deinit(&messages[p].bytes);
    return r;
}

/* What cannot be written in the middle is said before anything is: so it may be sent again. */
static void test_a_stream_that_is_none_has_nothing_appended_twice(void **state) {
    struct rig *rig = start(state);
    TELL(rig, "SET", "@-1", "no stream");
    assert_int_equal(deliver(rig), LOG_E_UNAVAILABLE);
    assert_non_null(strstr(rig->writer->why, "WRONGTYPE"));
    TELL(rig, "DEL", "@-1");
    assert_int_equal(deliver(rig), 0);
    assert_string_equal(TELL(rig, "XLEN", "@-0"), "1");
    assert_string_equal(TELL(rig, "XLEN", "@-1"), "1");
}

/* And where it shows only then, what was appended before is known. */
static void test_what_fails_behind_what_was_appended_is_not_sent_again(void **state) {
    struct rig *rig = start(state);
    TELL(rig, "XADD", "@-1", "18446744073709551615-1", "m", "the last that a stream can have");
    assert_int_equal(deliver(rig), LOG_E_UNKNOWN);
    assert_string_equal(TELL(rig, "XLEN", "@-0"), "1");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_stream_that_is_none_has_nothing_appended_twice,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_fails_behind_what_was_appended_is_not_sent_again,
                                        setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
