/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the suite of all drivers cannot ask of Redis: run by tests/engines with a URL, skipped
 * without.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "journal/driver.h"
#include "redis/link.h"

#include <stdio.h>

/* Its group's state is the URL. A server that was cut off before this process opened the log, and
 * so knows another owner, may hold other messages than were acknowledged: nothing is read there.
 * And who was put out trims nothing that the next owner needs. */
static void test_a_server_that_knows_another_owner_is_not_read_or_trimmed(void **state) {
    static struct service_url url;
    const char *why;
    char key[64];
    if (!*state)
        skip();
    assert_true(service_url_parse(*state, &url, &why));
    struct log_options options = {.url = &url, .timeout_ms = 20000};
    struct log *log;
    struct log_reader *reader;
    struct redis_link link;
    char link_why[REDIS_WHY_MAX];
    uint64_t position;
    struct bytes message;
    redisReply *reply = NULL;
    struct log_message one = {.lsn = 1, .body = BYTES_LITERAL("one")};
    assert_int_equal(log_redis.open(os_real(), &options, &log), 0);
    assert_int_equal(log_redis.append(log, &one, 1, &position), 0);
    redis_link_init(&link, os_real(), &url, 20000, link_why);
    redis_link_begin(&link, 0);
    snprintf(key, sizeof key, "{%sjournal}:owner", service_url_parameter(&url, "prefix"));
    struct bytes set[] = {BYTES_LITERAL("HSET"), bytes_of_string(key), BYTES_LITERAL("token"),
                          BYTES_LITERAL("another")};
    assert_int_equal(redis_link_command(&link, set, ARRAY_LENGTH(set), &reply), 0);
    assert_int_equal(log_redis.reader_new(log, 0, &reader), 0);
    assert_int_equal(log_redis.read(reader, 1, &message, &position), LOG_E_UNAVAILABLE);
    assert_non_null(strstr(reader->why, "does not know this process"));
    assert_int_equal(log_redis.trim(log, 2), LOG_E_FENCED);
    log_redis.reader_free(reader);
    freeReplyObject(reply);
    redis_link_deinit(&link);
    log_redis.close(log);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_a_server_that_knows_another_owner_is_not_read_or_trimmed,
                                  argc > 1 ? argv[1] : NULL),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
