/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A shared journal beside librdkafka's mock broker, which answers as a real one does only now and
 * then. It takes any message of a producer for the next: as one that knows nothing of the producer.
 */
#include "journal/remote/kafka_shared.h"

#include <librdkafka/rdkafka_mock.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define TOPIC "millrace-events"
enum {
    PATIENCE_MS = 60000,
    MESSAGES = 6,
    MESSAGE_BYTES = 600000,
    PARTITIONS = 2,
    BROKER = 1,
    PRODUCE = 0,
    SYNC_GROUP = 14,
    SYNC_ERRORS = 100,
    SKIPPED = 77,
};

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
    rd_kafka_t *client; /* who has the broker, and reads */
    rd_kafka_mock_cluster_t *broker;
    struct service_url url;
    struct shared_writer *writer;
    uint8_t read[PARTITIONS]; /* messages, by their numbers: the next to come */
};

static int setup(void **state) {
    struct fixture *f = calloc(1, sizeof *f);
    char why[256], text[200];
    const char *wrong;
    assert_non_null(f);
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set_log_cb(conf, NULL);
    assert_int_equal(rd_kafka_conf_set(conf, "group.id", "test", why, sizeof why), 0);
    assert_int_equal(rd_kafka_conf_set(conf, "enable.auto.commit", "false", why, sizeof why), 0);
    f->client = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof why);
    assert_non_null(f->client);
    f->broker = rd_kafka_mock_cluster_new(f->client, 1);
    assert_non_null(f->broker);
    const char *servers = rd_kafka_mock_cluster_bootstraps(f->broker);
    assert_true(rd_kafka_brokers_add(f->client, servers) > 0);
    assert_int_equal(rd_kafka_mock_topic_create(f->broker, TOPIC, PARTITIONS, 1), 0);
    snprintf(text, sizeof text, "kafka://%s/?partitions=%d", servers, PARTITIONS);
    assert_true(service_url_parse(text, &f->url, &wrong));
    const struct log_options options = {
        .url = &f->url, .name = "events", .timeout_ms = PATIENCE_MS};
    assert_int_equal(shared_kafka.writer->open(os_real(), &options, &f->writer), 0);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    struct fixture *f = *state;
    shared_kafka.writer->close(f->writer);
    rd_kafka_mock_cluster_destroy(f->broker);
    rd_kafka_destroy(f->client);
    free(f);
    return 0;
}

/* Messages that say which they are of their partition, too large to go together. */
static void deliver(struct fixture *f) {
    struct shared_message messages[MESSAGES] = {0};
    for (unsigned i = 0; i < MESSAGES; i++) {
        messages[i].partition = i % PARTITIONS;
        messages[i].n = 1;
        uint8_t *body = buffer_reserve(&messages[i].bytes, MESSAGE_BYTES);
        assert_non_null(body);
        memset(body, (int)(i / PARTITIONS), MESSAGE_BYTES);
        messages[i].bytes.size = MESSAGE_BYTES;
    }
    int r = shared_kafka.writer->deliver(f->writer, messages, MESSAGES);
    for (unsigned i = 0; i < MESSAGES; i++)
        buffer_deinit(&messages[i].bytes);
    assert_int_equal(r, 0);
}

static void take(struct fixture *f, rd_kafka_message_t *m) {
    bool is_message = m && !m->err;
    unsigned partition = is_message ? (unsigned)m->partition : 0;
    uint8_t number = is_message ? *(const uint8_t *)m->payload : 0;
    if (m)
        rd_kafka_message_destroy(m); /* also where what follows fails */
    if (!is_message)
        return;
    assert_true(partition < PARTITIONS);
    assert_int_equal(number, f->read[partition]++);
}

static void read_all(struct fixture *f) {
    rd_kafka_topic_partition_list_t *all = rd_kafka_topic_partition_list_new(PARTITIONS);
    for (int p = 0; p < PARTITIONS; p++)
        rd_kafka_topic_partition_list_add(all, TOPIC, p)->offset = 0;
    assert_int_equal(rd_kafka_assign(f->client, all), 0);
    rd_kafka_topic_partition_list_destroy(all);
    for (unsigned ms = 0; ms < PATIENCE_MS && f->read[0] + f->read[1] < MESSAGES; ms += 50)
        take(f, rd_kafka_consumer_poll(f->client, 50));
    assert_int_equal(f->read[0] + f->read[1], MESSAGES);
}

/* What came behind it in the same moment would be taken, and librdkafka would say of both that they
 * are delivered. */
static void test_a_first_message_that_is_refused_is_not_overtaken(void **state) {
    struct fixture *f = *state;
    rd_kafka_mock_broker_set_rtt(f->broker, BROKER, 100); /* so that more would be on its way */
    rd_kafka_mock_push_request_errors(f->broker, PRODUCE, 1,
                                      RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION);
    deliver(f);
    read_all(f);
}

/* librdkafka 2.0.2 ends the process that destroys a consumer which is told to join the group, and
 * not yet what it has to do there. */
static void test_who_leaves_while_it_joins(void **state) {
    struct fixture *f = *state;
    const struct log_options options = {
        .url = &f->url, .name = "events", .timeout_ms = PATIENCE_MS};
    struct shared_member *member;
    struct shared_delivery d;
    rd_kafka_resp_err_t again[SYNC_ERRORS];
    for (size_t i = 0; i < SYNC_ERRORS; i++)
        again[i] = RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS;
    rd_kafka_mock_push_request_errors_array(f->broker, SYNC_GROUP, SYNC_ERRORS, again);
    assert_int_equal(shared_kafka.member->join(os_real(), &options, &member), 0);
    for (int i = 0; i < 60; i++) /* the mock waits three seconds for others to join */
        assert_int_equal(shared_kafka.member->next(member, 100, &d), LOG_E_END);
    assert_int_equal(member->generation[0], 0);
    shared_kafka.member->leave(member);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_who_leaves_while_it_joins, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_first_message_that_is_refused_is_not_overtaken,
                                        setup, teardown),
    };
#ifdef __SANITIZE_THREAD__ /* which does not know the threads of librdkafka, C11's */
    return SKIPPED;
#endif
    return cmocka_run_group_tests(tests, NULL, NULL);
}
