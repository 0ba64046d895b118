/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What only RabbitMQ's driver has to keep, on a real broker; what all drivers have to is
 * test_driver.c.
 *
 *   MILLRACE_TEST_RABBITMQ='amqp://127.0.0.1:5672' build-debug/src/test-journal-rabbitmq
 *
 * The URL without path and parameters. Without the variable every test is skipped.
 *
 *   test-journal-rabbitmq serve URL TIMEOUT_MS   does what is said on standard input, a line each:
 *                                                append N (messages of a MB, the next lsns);
 *                                                says what came of it: the result, and why
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "journal/driver.h"
#include "journal/remote/rabbitmq_link.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    TIMEOUT_MS = 20000,
    PATIENCE_MS = 60000,
    STAMP_BYTES = 16,
    URL_MAX = 512,
    LARGE_BYTES = 100000,
    HUGE_BYTES = 1000000,
    BATCH_MAX = 64,
};
#define URL_VARIABLE "MILLRACE_TEST_RABBITMQ"
#define NEEDS_BROKER()                                                                             \
    if (!getenv(URL_VARIABLE))                                                                     \
    skip()

/* ---- Logs of a test's own ---- */

struct url {
    char text[URL_MAX];
    char stream[URL_MAX];
    struct service_url parsed;
};

static void url_parse(struct url *u) {
    const char *why = NULL;
    if (!service_url_parse(u->text, &u->parsed, &why))
        fail_msg("%s: the URL %s", u->text, why);
}

/* A log that no other test has; more: further parameters, as "&max-bytes=…". */
static void url_of_test(struct url *u, const char *more) {
    static unsigned n;
    uint64_t random;
    assert_int_equal(os_random(os_real(), &random, sizeof random), 0);
    int size = snprintf(u->text, sizeof u->text, "%s/?prefix=test-%u-%016llx-",
                        getenv(URL_VARIABLE), n++, (unsigned long long)random);
    snprintf(u->stream, sizeof u->stream, "%sjournal", strchr(u->text, '=') + 1);
    snprintf(u->text + size, sizeof u->text - (size_t)size, "%s", more);
    url_parse(u);
}

/* Another URL of the same log. */
static void url_again(struct url *u, const struct url *from, const char *more) {
    *u = *from;
    snprintf(u->text, sizeof u->text, "%s/?prefix=%.*s%s", getenv(URL_VARIABLE),
             (int)(strlen(from->stream) - strlen("journal")), from->stream, more);
    url_parse(u);
}

static int try_open(const struct url *u, struct log **ret_log) {
    struct log_options options = {.url = &u->parsed, .timeout_ms = TIMEOUT_MS};
    int r = log_rabbitmq.open(os_real(), &options, ret_log);
    assert_non_null(*ret_log);
    return r;
}

static struct log *open_log(const struct url *u) {
    struct log *l = NULL;
    int r = try_open(u, &l);
    if (r)
        fail_msg("open: %d, %s", r, l->why);
    return l;
}

static void assert_refused(const struct url *u, const char *word) {
    struct log *l = NULL;
    int r = try_open(u, &l);
    if (r != LOG_E_REFUSED || !strstr(l->why, word))
        fail_msg("%s: open gave %d, %s", u->text, r, l->why);
    log_rabbitmq.close(l);
}

static int try_append(struct log *l, uint64_t lsn, size_t body_size, uint64_t *ret_position) {
    static const uint8_t body[LARGE_BYTES];
    struct log_message m = {.lsn = lsn, .body = bytes_of(body, body_size)};
    store_u64(m.head, lsn);
    return log_rabbitmq.append(l, &m, 1, ret_position);
}

static uint64_t append(struct log *l, uint64_t lsn, size_t body_size) {
    uint64_t position = 0;
    int r = try_append(l, lsn, body_size, &position);
    if (r)
        fail_msg("append: %d, %s", r, l->why);
    return position;
}

static uint64_t read_next(struct log_reader *reader, uint64_t *ret_position) {
    struct bytes message = {0};
    int r = log_rabbitmq.read(reader, PATIENCE_MS, &message, ret_position);
    if (r)
        fail_msg("read: %d, %s", r, reader->why);
    assert_true(message.size >= LOG_HEAD_BYTES);
    return load_u64(message.data);
}

/* From position on: first to last, and no more. Returns the last's position. */
static uint64_t assert_log(struct log *l, uint64_t position, uint64_t first, uint64_t last) {
    struct log_reader *reader = NULL;
    struct bytes message;
    uint64_t at = 0, after;
    assert_int_equal(log_rabbitmq.reader_new(l, position, &reader), 0);
    for (uint64_t lsn = first; lsn <= last; lsn++)
        assert_int_equal(read_next(reader, &at), lsn);
    assert_int_equal(log_rabbitmq.read(reader, 1, &message, &after), LOG_E_END);
    log_rabbitmq.reader_free(reader);
    return at;
}

static void assert_last(struct log *l, uint64_t lsn) {
    struct buffer out = BUFFER_INIT;
    uint64_t position;
    int r = log_rabbitmq.last(l, &out, &position);
    if (r)
        fail_msg("last: %d, %s", r, l->why);
    assert_int_equal(load_u64(out.data), lsn);
    buffer_deinit(&out);
}

/* ---- What the broker has on its way ---- */

/* The stream as it is: the nth message, claims too. */
static void copy_raw(const struct url *u, unsigned nth, struct buffer *out) {
    struct tap t;
    struct bytes body = {0};
    uint64_t offset, deadline_ns = os_monotonic_ns(os_real()) + PATIENCE_MS * UINT64_C(1000000);
    tap_init(&t, os_real(), &u->parsed, PATIENCE_MS);
    assert_int_equal(tap_attach(&t, u->stream, 0, deadline_ns), 0);
    for (unsigned i = 0; i <= nth; i++)
        assert_int_equal(tap_next(&t, deadline_ns, &body, &offset), 0);
    buffer_clear(out);
    buffer_append_bytes(out, body);
    tap_deinit(&t);
}

/* Puts messages into the stream, past any owner; returns once they are there. */
static void inject(const struct url *u, const struct buffer *body, unsigned n) {
    struct link l;
    amqp_frame_t frame;
    uint64_t deadline_ns = os_monotonic_ns(os_real()) + PATIENCE_MS * UINT64_C(1000000);
    link_init(&l, os_real(), &u->parsed, PATIENCE_MS);
    assert_int_equal(link_connect(&l, 0, deadline_ns), 0);
    amqp_confirm_select(l.state, LINK_CHANNEL);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(amqp_basic_publish(l.state, LINK_CHANNEL, amqp_empty_bytes,
                                            amqp_cstring_bytes(u->stream), 1, 0, NULL,
                                            (amqp_bytes_t){body->size, body->data}),
                         0);
    for (uint64_t confirmed = 0; confirmed < n;) {
        assert_int_equal(link_wait(&l, deadline_ns, &frame), 0);
        assert_int_equal(frame.payload.method.id, AMQP_BASIC_ACK_METHOD);
        confirmed = ((amqp_basic_ack_t *)frame.payload.method.decoded)->delivery_tag;
    }
    link_drop(&l, deadline_ns);
}

static void test_what_lands_behind_anothers_claim_does_not_count(void **state) {
    NEEDS_BROKER();
    struct url u;
    struct buffer claim = BUFFER_INIT, late = BUFFER_INIT;
    url_of_test(&u, "");
    struct log *first = open_log(&u);
    append(first, 1, 10);
    append(first, 2, 10);
    copy_raw(&u, 0, &claim);
    copy_raw(&u, 2, &late);
    assert_int_equal(claim.size, STAMP_BYTES);

    struct log *second = open_log(&u);
    inject(&u, &late, 3); /* as if they had been on their way */
    inject(&u, &claim, 1);
    assert_last(second, 2);
    uint64_t position = append(second, 3, 10);
    inject(&u, &late, 2);
    uint64_t at = assert_log(second, 0, 1, 3);
    assert_true(position < at); /* counted, so too low */
    assert_log(second, position, 3, 3);
    assert_log(second, at, 3, 3);
    assert_log(second, at + 1, 4, 3); /* the late ones come first */
    assert_last(second, 3);
    append(second, 4, 10);
    log_rabbitmq.close(second);

    inject(&u, &late, 9); /* the next owner finds nothing else at the end */
    second = open_log(&u);
    assert_last(second, 4);
    append(second, 5, 10);
    assert_log(second, 0, 1, 5);
    assert_int_equal(try_append(first, 3, 10, &position), LOG_E_FENCED);
    buffer_deinit(&claim);
    buffer_deinit(&late);
    log_rabbitmq.close(first);
    log_rabbitmq.close(second);
    (void)state;
}

static void test_what_is_not_ours_is_left_out(void **state) {
    NEEDS_BROKER();
    struct url u;
    struct buffer foreign = BUFFER_INIT;
    url_of_test(&u, "");
    buffer_append_string(&foreign, "short");
    struct log *l = open_log(&u);
    append(l, 1, 10);
    inject(&u, &foreign, 2);
    append(l, 2, 10);
    assert_log(l, 0, 1, 2);
    assert_last(l, 2);
    buffer_deinit(&foreign);
    log_rabbitmq.close(l);
    (void)state;
}

static void test_many_owners_that_appended_nothing(void **state) {
    NEEDS_BROKER();
    struct url u;
    struct buffer claim = BUFFER_INIT, out = BUFFER_INIT;
    uint64_t position;
    url_of_test(&u, "");
    struct log *l = open_log(&u);
    assert_int_equal(log_rabbitmq.last(l, &out, &position), LOG_E_END);
    append(l, 1, 10);
    log_rabbitmq.close(l);
    copy_raw(&u, 0, &claim);
    inject(&u, &claim, 2000); /* more than one look back sees */
    l = open_log(&u);
    assert_last(l, 1);
    append(l, 2, 10);
    assert_log(l, 0, 1, 2);
    buffer_deinit(&claim);
    log_rabbitmq.close(l);
    (void)state;
}

struct ticker {
    struct log *log;
    atomic_bool ended;
};

static void tick_until_ended(void *argument) {
    struct ticker *t = argument;
    while (!t->ended) {
        log_rabbitmq.tick(t->log);
        os_sleep_ns(os_real(), 1000000);
    }
}

/* Its heartbeats go on, so the broker would never end its connection. */
static void test_an_owner_that_is_idle_goes_when_asked(void **state) {
    NEEDS_BROKER();
    struct url u;
    uint64_t position;
    struct os_thread *thread;
    url_of_test(&u, "");
    struct ticker ticker = {.log = open_log(&u)};
    append(ticker.log, 1, 10);
    assert_int_equal(os_thread_start(os_real(), "ticker", tick_until_ended, &ticker, &thread), 0);
    struct log *heir = open_log(&u);
    ticker.ended = true;
    os_thread_join(os_real(), thread);
    assert_last(heir, 1);
    append(heir, 2, 10);
    assert_int_equal(try_append(ticker.log, 2, 10, &position), LOG_E_FENCED);
    log_rabbitmq.close(ticker.log);
    log_rabbitmq.close(heir);
    (void)state;
}

/* ---- Settings ---- */

static void test_a_stream_with_other_settings_is_refused(void **state) {
    NEEDS_BROKER();
    struct url u, other;
    url_of_test(&u, "&max-bytes=30000000&segment-bytes=1000000");
    struct log *l = open_log(&u);
    assert_int_equal(log_rabbitmq.bound(l), 30000000);
    log_rabbitmq.close(l);
    url_again(&other, &u, "&max-bytes=20000000&segment-bytes=1000000");
    assert_refused(&other, "x-max-length-bytes");
    url_again(&other, &u, "&max-bytes=30000000&segment-bytes=2000000");
    assert_refused(&other, "x-stream-max-segment-size-bytes");
    (void)state;
}

static void test_wrong_settings_are_refused(void **state) {
    NEEDS_BROKER();
    static const struct {
        const char *scheme_and_user, *path, *word;
    } rows[] = {
        {"amqp://guest:sesame@", "/", "ACCESS_REFUSED"},
        {"amqp://nobody:sesame@", "/", "ACCESS_REFUSED"},
        {"amqp://", "/no-such-host", "no-such-host"},
        {"amqp://", "/?segment-bytes=4095", "segment-bytes"},
        {"amqp://", "/?segment-bytes=4096&max-bytes=4095", "max-bytes"},
        {"amqp://", "/?max-bytes=some", "max-bytes"},
        {"amqp://", "/?prefx=a", "prefx"},
        {"amqps://", "/?ca=/no/such/file", "/no/such/file"},
    };
    const char *host = strstr(getenv(URL_VARIABLE), "://") + 3;
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
        struct url u;
        snprintf(u.text, sizeof u.text, "%s%s%s", rows[i].scheme_and_user, host, rows[i].path);
        url_parse(&u);
        assert_refused(&u, rows[i].word);
    }
    (void)state;
}

static void test_hosts_are_tried_in_turn(void **state) {
    NEEDS_BROKER();
    struct url u, several;
    url_of_test(&u, "");
    several = u;
    snprintf(several.text, sizeof several.text, "amqp://127.0.0.1:1,%s", strstr(u.text, "://") + 3);
    url_parse(&several);
    struct log *l = open_log(&several);
    append(l, 1, 10);
    assert_log(l, 0, 1, 1);
    log_rabbitmq.close(l);
    (void)state;
}

/* The broker puts entries of its own into the stream where a segment begins, and drops the oldest
 * past max-bytes. */
static void test_positions_over_segments_and_what_is_dropped(void **state) {
    NEEDS_BROKER();
    struct url u;
    enum { MESSAGES = 60 };
    uint64_t positions[MESSAGES + 1], at = 0;
    url_of_test(&u, "&max-bytes=2000000&segment-bytes=500000");
    struct log *l = open_log(&u);
    for (uint64_t lsn = 1; lsn <= MESSAGES; lsn++)
        positions[lsn] = append(l, lsn, LARGE_BYTES);
    struct log_reader *reader = NULL;
    assert_int_equal(log_rabbitmq.reader_new(l, 0, &reader), 0);
    uint64_t first = read_next(reader, &at);
    assert_in_range(first, 2, MESSAGES);
    assert_true(at >= positions[first]);
    for (uint64_t lsn = first + 1; lsn <= MESSAGES; lsn++) {
        assert_int_equal(read_next(reader, &at), lsn);
        assert_true(at >= positions[lsn]);
    }
    log_rabbitmq.reader_free(reader);
    assert_int_equal(log_rabbitmq.reader_new(l, positions[MESSAGES - 1], &reader), 0);
    assert_in_range(read_next(reader, &at), first, MESSAGES - 1);
    log_rabbitmq.reader_free(reader);
    assert_last(l, MESSAGES);
    log_rabbitmq.close(l);
    (void)state;
}

static void test_a_stream_that_is_deleted_is_noticed(void **state) {
    NEEDS_BROKER();
    struct url u;
    uint64_t position;
    struct link link;
    int r;
    url_of_test(&u, "");
    struct log *l = open_log(&u);
    append(l, 1, 10);
    link_init(&link, os_real(), &u.parsed, TIMEOUT_MS);
    assert_int_equal(link_connect(&link, 0, os_monotonic_ns(os_real()) + TIMEOUT_MS * 1000000LL),
                     0);
    amqp_queue_delete(link.state, LINK_CHANNEL, amqp_cstring_bytes(u.stream), 0, 0);
    link_drop(&link, 0);
    do
        r = try_append(l, 2, 10, &position);
    while (r == LOG_E_UNAVAILABLE);
    assert_int_equal(r, LOG_E_REFUSED);
    assert_non_null(strstr(l->why, "deleted"));
    log_rabbitmq.close(l);
    (void)state;
}

/* ---- For the tests that stop, freeze and choke ---- */

static int serve(const char *url, uint64_t timeout_ms) {
    static struct url u;
    static const uint8_t body[HUGE_BYTES];
    struct log_options options = {.url = &u.parsed, .timeout_ms = timeout_ms};
    struct log *l = NULL;
    uint64_t lsn = 0, positions[BATCH_MAX];
    unsigned n;
    snprintf(u.text, sizeof u.text, "%s", url);
    url_parse(&u);
    int r = log_rabbitmq.open(os_real(), &options, &l);
    printf("%d %s\n", r, r ? l->why : "");
    fflush(stdout);
    char line[64];
    while (!r && fgets(line, sizeof line, stdin) && sscanf(line, "append %u", &n) == 1) {
        struct log_message messages[BATCH_MAX];
        for (unsigned i = 0; i < n && i < BATCH_MAX; i++) {
            messages[i] =
                (struct log_message){.lsn = lsn + i + 1, .body = bytes_of(body, HUGE_BYTES)};
            store_u64(messages[i].head, lsn + i + 1);
        }
        int result = log_rabbitmq.append(l, messages, n, positions);
        lsn += result ? 0 : n;
        printf("%d %s\n", result, result ? l->why : "");
        fflush(stdout);
    }
    log_rabbitmq.close(l);
    return 0;
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_lands_behind_anothers_claim_does_not_count),
        cmocka_unit_test(test_what_is_not_ours_is_left_out),
        cmocka_unit_test(test_many_owners_that_appended_nothing),
        cmocka_unit_test(test_an_owner_that_is_idle_goes_when_asked),
        cmocka_unit_test(test_a_stream_with_other_settings_is_refused),
        cmocka_unit_test(test_wrong_settings_are_refused),
        cmocka_unit_test(test_hosts_are_tried_in_turn),
        cmocka_unit_test(test_positions_over_segments_and_what_is_dropped),
        cmocka_unit_test(test_a_stream_that_is_deleted_is_noticed),
    };
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &ignore, NULL); /* as in the real program */
    if (argc == 4 && strcmp(argv[1], "serve") == 0)
        return serve(argv[2], strtoull(argv[3], NULL, 10));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
