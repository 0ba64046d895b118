/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The peer of the events benchmark: the tags of `millrace load tags`, produced to a Kafka topic
 * with acks=all and consumed from it again by librdkafka, keyed by cookie, and nothing done with
 * them.
 *
 *   bench-kafka BROKER TOPIC COUNT
 *
 * Prints one JSON object.
 */
#include "cli/load_tags_draw.h"

#include <librdkafka/rdkafka.h>
#include <stdlib.h>

enum { SINGLES = 2000, COOKIES = 1000000, POLL_MS = 100, STUCK_MS = 60000, ERROR_MAX = 512 };

struct delivery {
    uint64_t failed;
};

static NORETURN void die(const char *what) {
    fprintf(stderr, "bench-kafka: %s\n", what);
    exit(1);
}

static void delivered(rd_kafka_t *kafka UNUSED, const rd_kafka_message_t *message, void *opaque) {
    struct delivery *delivery = opaque;
    delivery->failed += message->err != RD_KAFKA_RESP_ERR_NO_ERROR;
}

static void set(rd_kafka_conf_t *conf, const char *name, const char *value) {
    char error[ERROR_MAX];
    if (rd_kafka_conf_set(conf, name, value, error, sizeof error) != RD_KAFKA_CONF_OK)
        die(error);
}

static rd_kafka_t *client_new(rd_kafka_type_t type, const char *broker, const char *linger_ms,
                              struct delivery *delivery) {
    char error[ERROR_MAX];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "bootstrap.servers", broker);
    if (type == RD_KAFKA_PRODUCER) {
        set(conf, "acks", "all");
        set(conf, "linger.ms", linger_ms);
        set(conf, "queue.buffering.max.messages", "1000000");
        rd_kafka_conf_set_opaque(conf, delivery);
        rd_kafka_conf_set_dr_msg_cb(conf, delivered);
    } else {
        set(conf, "group.id", "bench");
        set(conf, "auto.offset.reset", "earliest");
        set(conf, "enable.auto.commit", "false");
    }
    rd_kafka_t *kafka = rd_kafka_new(type, conf, error, sizeof error);
    if (!kafka)
        die(error);
    return kafka;
}

static void produce_one(rd_kafka_t *kafka, rd_kafka_topic_t *topic, const char *cookie,
                        const struct buffer *text) {
    while (rd_kafka_produce(topic, RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY, text->data,
                            text->size, cookie, strlen(cookie), NULL) != 0) {
        if (rd_kafka_last_error() != RD_KAFKA_RESP_ERR__QUEUE_FULL)
            die("a tag cannot be produced");
        rd_kafka_poll(kafka, POLL_MS);
    }
    rd_kafka_poll(kafka, 0);
}

static void produce(const struct tag_source *source, const char *broker, const char *name) {
    struct delivery delivery = {0};
    struct tag_pieces pieces;
    struct buffer text CLEANUP(buffer_deinit) = BUFFER_INIT;
    rd_kafka_t *kafka = client_new(RD_KAFKA_PRODUCER, broker, "5", &delivery);
    rd_kafka_topic_t *topic = rd_kafka_topic_new(kafka, name, NULL);
    if (!topic)
        die("the topic cannot be used");
    tag_pieces_init(&pieces, source, 0);
    for (uint64_t i = 0; i < source->base.count; i++) {
        struct tag tag;
        char cookie[TAG_NAME_MAX];
        tag_draw(source, i, &tag);
        tag_cookie_name(source, 0, tag.rank, cookie);
        buffer_clear(&text);
        tag_append(&pieces, &tag, &text);
        if (buffer_check(&text))
            die("out of memory");
        produce_one(kafka, topic, cookie, &text);
    }
    if (rd_kafka_flush(kafka, STUCK_MS) || delivery.failed)
        die("not everything was acknowledged");
    rd_kafka_topic_destroy(topic);
    rd_kafka_destroy(kafka);
}

static void consume(const struct tag_source *source, const char *broker, const char *name) {
    rd_kafka_t *kafka = client_new(RD_KAFKA_CONSUMER, broker, "", NULL);
    rd_kafka_topic_partition_list_t *topics = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(topics, name, RD_KAFKA_PARTITION_UA);
    rd_kafka_poll_set_consumer(kafka);
    if (rd_kafka_subscribe(kafka, topics))
        die("the topic cannot be read");
    for (uint64_t got = 0; got < source->base.count;) {
        rd_kafka_message_t *message = rd_kafka_consumer_poll(kafka, STUCK_MS);
        if (!message)
            die("nothing came for a minute");
        if (message->err && message->err != RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
            die(rd_kafka_message_errstr(message));
        got += !message->err;
        rd_kafka_message_destroy(message);
    }
    rd_kafka_topic_partition_list_destroy(topics);
    rd_kafka_consumer_close(kafka);
    rd_kafka_destroy(kafka);
}

static int compare_times(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* One message at a time, each awaited: the median, in ns. */
static uint64_t acknowledge(struct os *os, const char *broker, const char *name) {
    static uint64_t times[SINGLES];
    static const char text[200];
    struct delivery delivery = {0};
    rd_kafka_t *kafka = client_new(RD_KAFKA_PRODUCER, broker, "0", &delivery);
    rd_kafka_topic_t *topic = rd_kafka_topic_new(kafka, name, NULL);
    if (!topic)
        die("the topic cannot be used");
    for (size_t i = 0; i < SINGLES; i++) {
        uint64_t started = os_monotonic_ns(os);
        if (rd_kafka_produce(topic, 0, RD_KAFKA_MSG_F_COPY, (void *)(uintptr_t)text, sizeof text,
                             NULL, 0, NULL))
            die("a message cannot be produced");
        while (rd_kafka_outq_len(kafka) > 0)
            rd_kafka_poll(kafka, POLL_MS);
        times[i] = os_monotonic_ns(os) - started;
    }
    if (delivery.failed)
        die("not everything was acknowledged");
    rd_kafka_topic_destroy(topic);
    rd_kafka_destroy(kafka);
    qsort(times, SINGLES, sizeof times[0], compare_times);
    return times[SINGLES / 2];
}

int main(int argc, char **argv) {
    if (argc != 4)
        die("BROKER TOPIC COUNT");
    struct os *os = os_real();
    struct tag_source source = {.base.count = strtoull(argv[3], NULL, 10),
                                .cookies = COOKIES,
                                .every = COOKIES,
                                .start_ms = 1647950400000,
                                .run = "bench"};
    uint64_t started = os_monotonic_ns(os);
    produce(&source, argv[1], argv[2]);
    uint64_t produced = os_monotonic_ns(os);
    consume(&source, argv[1], argv[2]);
    uint64_t consumed = os_monotonic_ns(os);
    printf("{\"tags\":%llu,\"produced_s\":%.3f,\"consumed_s\":%.3f,\"single_p50_ms\":%.3f}\n",
           (unsigned long long)source.base.count, (double)(produced - started) * 1e-9,
           (double)(consumed - produced) * 1e-9, (double)acknowledge(os, argv[1], argv[2]) * 1e-6);
    return 0;
}
