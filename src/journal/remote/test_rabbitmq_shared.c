/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the suite of all drivers of shared journals (test_shared_driver.c) cannot ask of RabbitMQ:
 * streams that go under running processes, and a library that runs out of memory.
 *
 *   MILLRACE_TEST_JOURNAL='amqp://127.0.0.1:5672/?prefix=LOG-&partitions=3' \
 *       build-debug/src/test-journal-rabbitmq_shared
 *
 * LOG becomes a name of each test's own. Without the variable every test is skipped.
 */
#include "journal/remote/rabbitmq_shared.h"
#include "journal/remote/shared.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum {
    TIMEOUT_MS = 5000,
    PATIENCE_MS = 60000,
    TEXT_MAX = 2048,
    PARTITIONS = 3,
    MESSAGES = 40,
    SALT = 0x5a17,
    LARGE_BYTES = 4000,
};
#define MS_NS UINT64_C(1000000)
#define NAME "events"

struct rig {
    struct os *os;
    char text[TEXT_MAX];
    struct service_url url;
    struct shared_writer *writer;
    struct link link; /* of who spoils */
    struct group *group;
    lsn_t positions[PARTITIONS]; /* that the store has persisted */
    unsigned records[PARTITIONS];
};

/* ---- Memory ---- */

static unsigned publish_fails; /* that after so many; 0: none */

/* In place of the library's: what it had sent of the message before nobody knows. */
int amqp_basic_publish(amqp_connection_state_t state, amqp_channel_t channel, amqp_bytes_t exchange,
                       amqp_bytes_t key, amqp_boolean_t mandatory, amqp_boolean_t immediate,
                       struct amqp_basic_properties_t_ const *properties, amqp_bytes_t body) {
    static __typeof__(&amqp_basic_publish) real;
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "amqp_basic_publish");
    if (publish_fails && --publish_fails == 0)
        return AMQP_STATUS_NO_MEMORY;
    return real(state, channel, exchange, key, mandatory, immediate, properties, body);
}

/* ---- The rig ---- */

static void open_url(struct rig *rig, const char *more) {
    const char *form = getenv("MILLRACE_TEST_JOURNAL"), *at = strstr(form, "LOG"), *why;
    uint64_t number;
    assert_non_null(at);
    assert_int_equal(os_random(rig->os, &number, sizeof number), 0);
    snprintf(rig->text, sizeof rig->text, "%.*s%016llx%s%s", (int)(at - form), form,
             (unsigned long long)number, at + 3, more);
    assert_true(service_url_parse(rig->text, &rig->url, &why));
}

static void open_writer(struct rig *rig) {
    const struct log_options options = {.url = &rig->url, .name = NAME, .timeout_ms = TIMEOUT_MS};
    if (rig->writer)
        shared_rabbitmq.writer->close(rig->writer);
    if (shared_rabbitmq.writer->open(rig->os, &options, &rig->writer))
        fail_msg("%s", rig->writer->why);
}

static struct rig *start(void **state, const char *more) {
    struct rig *rig = *state;
    if (!getenv("MILLRACE_TEST_JOURNAL"))
        skip();
    rig->os = os_real();
    open_url(rig, more);
    link_init(&rig->link, rig->os, &rig->url, TIMEOUT_MS);
    open_writer(rig);
    return rig;
}

static int setup(void **state) {
    publish_fails = 0;
    *state = calloc(1, sizeof(struct rig));
    return *state ? 0 : -1;
}

static int teardown(void **state) {
    struct rig *rig = *state;
    group_close(rig->group);
    if (rig->writer)
        shared_rabbitmq.writer->close(rig->writer);
    link_drop(&rig->link, 0);
    free(rig);
    return 0;
}

static const char *stream_name(struct rig *rig, unsigned partition, char out[RABBITMQ_NAME_MAX]) {
    snprintf(out, RABBITMQ_NAME_MAX, "%.100s" NAME "-%u",
             service_url_parameter(&rig->url, "prefix"), partition);
    return out;
}

static void delete_stream(struct rig *rig, unsigned partition) {
    char name[RABBITMQ_NAME_MAX];
    uint64_t deadline_ns = os_monotonic_ns(rig->os) + TIMEOUT_MS * MS_NS;
    link_drop(&rig->link, 0);
    assert_int_equal(link_connect(&rig->link, 0, deadline_ns), 0);
    amqp_queue_delete(rig->link.state, LINK_CHANNEL,
                      amqp_cstring_bytes(stream_name(rig, partition, name)), 0, 0);
    assert_int_equal(
        link_check(&rig->link, amqp_get_rpc_reply(rig->link.state), "deleting a stream"), 0);
}

/* ---- Writing ---- */

static void make_message(struct shared_message *m, unsigned partition, size_t size) {
    static const uint8_t payload[LARGE_BYTES];
    const struct frame frame = {.kind = JOURNAL_KIND_EVENTS, .payload = bytes_of(payload, size)};
    *m = (struct shared_message){.partition = partition, .n = 1};
    shared_message_begin(&m->bytes);
    uint8_t *at = buffer_reserve(&m->bytes, frame_bytes(size));
    assert_non_null(at);
    frame_store(at, SALT, &frame, frame_payload_crc(SALT, frame.payload));
    m->bytes.size += frame_bytes(size);
    shared_message_end(&m->bytes, SALT, 1);
    assert_int_equal(buffer_check(&m->bytes), 0);
}

/* n messages to one of the partitions, of one record each. */
static int deliver_sized(struct rig *rig, unsigned partition, unsigned n, size_t size) {
    struct shared_message messages[MESSAGES];
    assert_true(n <= MESSAGES);
    for (unsigned i = 0; i < n; i++)
        make_message(&messages[i], partition, size);
    int r;
    do
        r = shared_rabbitmq.writer->deliver(rig->writer, messages, n);
    while (r < 0); /* as the committer does */
    for (unsigned i = 0; i < n; i++)
        buffer_deinit(&messages[i].bytes);
    return r;
}

static int deliver(struct rig *rig, unsigned partition, unsigned n) {
    return deliver_sized(rig, partition, n, 3);
}

static void deliver_all(struct rig *rig, unsigned n) {
    for (unsigned p = 0; p < PARTITIONS; p++)
        assert_int_equal(deliver(rig, p, n), 0);
}

/* ---- Reading ---- */

static int answer_position(void *context, unsigned partition, lsn_t *ret_lsn) {
    const struct rig *rig = context;
    *ret_lsn = rig->positions[partition];
    return 0;
}

/* Another process begins where the store is. */
static void join(struct rig *rig) {
    char why[GROUP_WHY_MAX];
    const struct group_options options = {.url = &rig->url,
                                          .name = NAME,
                                          .timeout_ms = TIMEOUT_MS,
                                          .position = answer_position,
                                          .context = rig};
    rig->group = group_close(rig->group);
    if (group_open(rig->os, &options, &rig->group, why))
        fail_msg("%s", why);
}

static void read_once(struct rig *rig, bool persists) {
    struct group_batch batch;
    shared_rabbitmq.writer->tick(rig->writer);
    if (group_read(rig->group, 50, &batch))
        return;
    rig->records[batch.partition] += (unsigned)batch.n;
    if (!persists)
        return;
    rig->positions[batch.partition] = batch.records[batch.n - 1].lsn;
    group_persisted(rig->group, batch.partition, rig->positions[batch.partition]);
}

static bool have_read(const struct rig *rig, unsigned n) {
    for (unsigned p = 0; p < PARTITIONS; p++)
        if (rig->records[p] != n)
            return false;
    return true;
}

static struct group_status status_of(struct rig *rig) {
    struct group_status status;
    group_status(rig->group, &status);
    return status;
}

#define until(rig, persists, what)                                                                 \
    do {                                                                                           \
        uint64_t until_ = os_monotonic_ns((rig)->os) + PATIENCE_MS * MS_NS;                        \
        while (!(what) && os_monotonic_ns((rig)->os) < until_)                                     \
            read_once(rig, persists);                                                              \
        assert_true(what);                                                                         \
    } while (0)

/* ---- Tests ---- */

/* What had been sent is not known to be there then, nor not to be: it is said so, once. */
static void test_memory_that_runs_out_in_the_middle_hides_nothing(void **state) {
    struct rig *rig = start(state, "");
    publish_fails = 3;
    assert_int_equal(deliver(rig, 0, 5), LOG_E_UNKNOWN);
    assert_int_equal(deliver(rig, 0, 2), 0);
    join(rig);
    until(rig, true, rig->records[0] >= 2);
    for (unsigned i = 0; i < 10; i++)
        read_once(rig, true);
    assert_in_range(rig->records[0], 2, 2 + 2); /* of the five, two were sent */
}

/* Others go on; it is made anew by a process that starts, and what the store has of the former is
 * not taken for what comes then. */
static void test_a_stream_that_is_gone_stops_no_other(void **state) {
    struct rig *rig = start(state, "");
    char name[RABBITMQ_NAME_MAX];
    join(rig);
    deliver_all(rig, 2);
    until(rig, true, have_read(rig, 2));
    delete_stream(rig, 1);
    assert_int_equal(deliver(rig, 0, 3), 0);
    assert_int_equal(deliver(rig, 2, 3), 0);
    until(rig, true, rig->records[0] == 5 && rig->records[2] == 5);
    until(rig, true, strstr(status_of(rig).why, stream_name(rig, 1, name)));
    int r = deliver(rig, 1, 1);
    assert_true(r == LOG_E_UNKNOWN);
    assert_int_equal(deliver(rig, 1, 1), LOG_E_UNAVAILABLE); /* and this process makes none */
    assert_non_null(strstr(rig->writer->why, "is gone"));
    open_writer(rig);
    for (unsigned i = 0; i < 4; i++) /* more than the former had */
        assert_int_equal(deliver(rig, 1, 1), 0);
    assert_int_equal(deliver(rig, 0, 1), 0);
    until(rig, true, rig->records[0] == 6);
    until(rig, true, strstr(status_of(rig).why, "ahead of the journal"));
    assert_int_equal(rig->records[1], 2);
}

/* Silence is no answer, and a newest message before what was read is one. */
static void test_a_stream_that_was_made_anew_meanwhile_is_noticed(void **state) {
    struct rig *rig = start(state, "");
    join(rig);
    deliver_all(rig, 3);
    until(rig, true, have_read(rig, 3));
    rig->group = group_close(rig->group);
    delete_stream(rig, 1);
    open_writer(rig);
    join(rig);
    until(rig, true, strstr(status_of(rig).why, "nothing comes of the stream"));
    assert_int_equal(deliver(rig, 0, 1), 0);
    until(rig, true, rig->records[0] == 4);
    assert_int_equal(deliver(rig, 1, 1), 0);
    until(rig, true, strstr(status_of(rig).why, "ahead of the journal"));
    assert_int_equal(rig->records[1], 3);
}

static void test_what_is_dropped_before_it_was_read_is_lost(void **state) {
    struct rig *rig = start(state, "&max-bytes=16384&segment-bytes=4096");
    for (unsigned i = 0; i < MESSAGES; i++) /* of a chunk each: segments are of whole ones */
        assert_int_equal(deliver_sized(rig, 1, 1, LARGE_BYTES), 0);
    join(rig);
    until(rig, true, rig->records[1] + status_of(rig).lost_messages >= MESSAGES);
    assert_in_range(rig->records[1], 1, MESSAGES / 2);
    assert_true(status_of(rig).lost_messages < 2 * MESSAGES); /* a segment takes an offset too */
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(deliver_sized(rig, 0, 1, LARGE_BYTES), 0);
    uint64_t lost = status_of(rig).lost_messages;
    until(rig, true, rig->records[0] == 3); /* over the ends of segments */
    assert_int_equal(status_of(rig).lost_messages, lost);
}

/* Also what was read already, of a store that is down; and though others are empty. */
static void test_the_lag_is_what_is_not_applied(void **state) {
    struct rig *rig = start(state, "");
    join(rig);
    assert_int_equal(deliver(rig, 2, 10), 0);
    until(rig, false, rig->records[2] == 10);
    until(rig, false, status_of(rig).lag_messages == 10);
    for (unsigned i = 0; i < 15; i++)
        assert_int_equal(deliver(rig, 2, 1), 0);
    uint64_t until_ns = os_monotonic_ns(rig->os) + PATIENCE_MS * MS_NS;
    while (status_of(rig).lag_messages < 25 && os_monotonic_ns(rig->os) < until_ns)
        (void)group_hold(rig->group, 2, 20);
    assert_int_equal(status_of(rig).lag_messages, 25);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_memory_that_runs_out_in_the_middle_hides_nothing,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_stream_that_is_gone_stops_no_other, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_stream_that_was_made_anew_meanwhile_is_noticed,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_dropped_before_it_was_read_is_lost, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_the_lag_is_what_is_not_applied, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
