/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A member of the group that reads a shared journal, beside librdkafka's mock broker: what is
 * between the position and the topic's end is read, whatever moves librdkafka elsewhere.
 */
#include "journal/remote/kafka_shared.h"
#include "journal/remote/shared.h"

#include <librdkafka/rdkafka_mock.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define MS_NS UINT64_C(1000000)
#define TOPIC "millrace-events"
enum { SALT = 0x5a17, PATIENCE_MS = 60000, BROKER = 1, SKIPPED = 77 };

/* The mock has no requests of administrators. */
int kafka_topic_check(const struct kafka_log *k UNUSED, char why[LOG_WHY_MAX] UNUSED) {
    return 0;
}
int kafka_topic_prepare(struct kafka_log *k UNUSED) {
    return 0;
}
int kafka_topic_trim(struct kafka_log *k UNUSED, unsigned partition UNUSED,
                     uint64_t position UNUSED) {
    return 0;
}

struct fixture {
    rd_kafka_t *producer;
    rd_kafka_mock_cluster_t *broker;
    struct service_url url;
    struct group *group;
    unsigned slow_ms; /* the first answer of the store, and then each of the broker */
    unsigned answers; /* of the store */
    unsigned records; /* that were read */
    lsn_t position;   /* of the last of them */
};

static void sleep_ms(unsigned ms) {
    os_sleep_ns(os_real(), ms * MS_NS);
}

static int answer_position(void *context, unsigned partition UNUSED, lsn_t *ret_lsn) {
    struct fixture *f = context;
    *ret_lsn = f->position;
    if (f->answers++ > 0 || f->slow_ms == 0)
        return 0;
    sleep_ms(f->slow_ms);
    rd_kafka_mock_broker_set_rtt(f->broker, BROKER, (int)f->slow_ms);
    return 0;
}

static int setup(void **state) {
    struct fixture *f = calloc(1, sizeof *f);
    char why[256], text[200];
    const char *wrong;
    assert_non_null(f);
    f->producer = rd_kafka_new(RD_KAFKA_PRODUCER, NULL, why, sizeof why);
    assert_non_null(f->producer);
    f->broker = rd_kafka_mock_cluster_new(f->producer, 1);
    assert_non_null(f->broker);
    const char *servers = rd_kafka_mock_cluster_bootstraps(f->broker);
    assert_true(rd_kafka_brokers_add(f->producer, servers) > 0);
    assert_int_equal(rd_kafka_mock_topic_create(f->broker, TOPIC, 1, 1), 0);
    snprintf(text, sizeof text, "kafka://%s/?partitions=1", servers);
    assert_true(service_url_parse(text, &f->url, &wrong));
    *state = f;
    return 0;
}

static int teardown(void **state) {
    struct fixture *f = *state;
    group_close(f->group);
    rd_kafka_mock_cluster_destroy(f->broker);
    rd_kafka_destroy(f->producer);
    free(f);
    return 0;
}

static void join(struct fixture *f) {
    char why[GROUP_WHY_MAX];
    const struct group_options options = {
        .url = &f->url, .name = "events", .position = answer_position, .context = f};
    assert_int_equal(group_open(os_real(), &options, &f->group, why), 0);
}

static void produce(struct fixture *f, unsigned n) {
    CLEANUP(buffer_deinit) struct buffer message = BUFFER_INIT;
    const struct frame frame = {.kind = JOURNAL_KIND_EVENTS, .payload = BYTES_LITERAL("one")};
    shared_message_begin(&message);
    uint8_t *at = buffer_reserve(&message, frame_bytes(frame.payload.size));
    assert_non_null(at);
    frame_store(at, SALT, &frame, frame_payload_crc(SALT, frame.payload));
    message.size += frame_bytes(frame.payload.size);
    shared_message_end(&message, SALT, 1);
    assert_int_equal(buffer_check(&message), 0);
    rd_kafka_topic_t *topic = rd_kafka_topic_new(f->producer, TOPIC, NULL);
    assert_non_null(topic);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(rd_kafka_produce(topic, 0, RD_KAFKA_MSG_F_COPY, message.data, message.size,
                                          NULL, 0, NULL),
                         0);
    assert_int_equal(rd_kafka_flush(f->producer, PATIENCE_MS), 0);
    rd_kafka_topic_destroy(topic);
}

/* Persists what comes; false after a minute. */
static bool read_until(struct fixture *f, const unsigned *counter, unsigned least) {
    uint64_t until = os_monotonic_ns(os_real()) + PATIENCE_MS * MS_NS;
    while (*counter < least && os_monotonic_ns(os_real()) < until) {
        struct group_batch batch;
        if (group_read(f->group, 50, &batch))
            continue;
        f->records += (unsigned)batch.n;
        f->position = batch.records[batch.n - 1].lsn;
        group_persisted(f->group, batch.partition, f->position);
    }
    return *counter >= least;
}

/* librdkafka begins with a partition at an offset that it is told, and asks for one that it has to
 * look up; an answer to that which comes after the seek to the position has it look up again half a
 * second later, and go there. What was written meanwhile would be passed over, and nobody would
 * know before the next message: for ever, if there is none. */
static void test_a_late_lookup_passes_nothing_over(void **state) {
    struct fixture *f = *state;
    produce(f, 1); /* so that it is connected */
    f->slow_ms = 400;
    join(f);
    assert_true(read_until(f, &f->answers, 1));
    sleep_ms(200);
    produce(f, 3);
    rd_kafka_mock_broker_set_rtt(f->broker, BROKER, 0);
    assert_true(read_until(f, &f->records, 4));
    assert_int_equal(f->records, 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_late_lookup_passes_nothing_over, setup, teardown),
    };
#ifdef __SANITIZE_THREAD__ /* which does not know the threads of librdkafka, C11's */
    return SKIPPED;
#endif
    return cmocka_run_group_tests(tests, NULL, NULL);
}
