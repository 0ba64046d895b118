/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kafka: reading. Each reader is a consumer of its own that is assigned the partition from an
 * offset on; there is no group to agree with, and what it has read is not committed anywhere:
 * positions stand with the stores' data. What is not in a committed transaction is read like all
 * else (kafka.h).
 */
#include "journal/remote/kafka.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    POLL_MS = 100,
    LAST_STEP = 64, /* how far back the newest message is looked for; then farther */
};

struct kafka_reader {
    struct log_reader reader; /* first */
    struct kafka_log *k;      /* its unchanging parts only */
    rd_kafka_t *consumer;     /* NULL: the next read makes it */
    int64_t next;             /* the offset to read; */
    rd_kafka_message_t *message;
    bool at_end;
    bool marks; /* of owners count as messages */
    char error[LOG_WHY_MAX];
};

static struct kafka_reader *kafka_reader_of(struct log_reader *r) {
    return (struct kafka_reader *)(void *)r;
}

static void keep_error(rd_kafka_t *consumer UNUSED, int error UNUSED, const char *reason,
                       void *opaque) {
    struct kafka_reader *r = opaque;
    snprintf(r->error, sizeof r->error, "%s", reason);
}

static rd_kafka_conf_t *consumer_conf(struct kafka_reader *r) {
    const struct kafka_setting settings[] = {
        {"group.id", r->k->topic},
        {"enable.auto.commit", "false"},
        {"enable.partition.eof", "true"},
        {"auto.offset.reset", "earliest"}, /* when it was trimmed meanwhile */
        {"fetch.wait.max.ms", "100"},
        {"queued.max.messages.kbytes", "4096"},
        {NULL, NULL}};
    rd_kafka_conf_t *conf = kafka_conf(r->k, settings, r->reader.why);
    if (conf) {
        rd_kafka_conf_set_opaque(conf, r);
        rd_kafka_conf_set_error_cb(conf, keep_error);
    }
    return conf;
}

static bool assign(struct kafka_reader *r) {
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, r->k->topic, 0)->offset = r->next;
    rd_kafka_resp_err_t error = rd_kafka_assign(r->consumer, list);
    rd_kafka_topic_partition_list_destroy(list);
    return !error;
}

static int connect_reader(struct kafka_reader *r) {
    r->consumer = kafka_client(RD_KAFKA_CONSUMER, consumer_conf(r), r->reader.why);
    if (!r->consumer)
        return LOG_E_REFUSED;
    rd_kafka_poll_set_consumer(r->consumer);
    r->at_end = false;
    if (assign(r))
        return 0;
    rd_kafka_destroy(r->consumer);
    r->consumer = NULL;
    return log_fail(r->reader.why, LOG_E_UNAVAILABLE, "Kafka: cannot read the topic");
}

static void drop_message(struct kafka_reader *r) {
    if (r->message)
        rd_kafka_message_destroy(r->message);
    r->message = NULL;
}

int kafka_reader_new(struct log *l, uint64_t position, struct log_reader **ret_reader) {
    struct kafka_reader *r = calloc(1, sizeof *r);
    if (!r)
        return error_origin(-ENOMEM);
    r->reader.driver = &log_kafka;
    r->k = kafka_log_of(l);
    r->next = position ? (int64_t)position : RD_KAFKA_OFFSET_BEGINNING;
    *ret_reader = &r->reader;
    return 0;
}

void kafka_reader_free(struct log_reader *reader) {
    struct kafka_reader *r = reader ? kafka_reader_of(reader) : NULL;
    if (!r)
        return;
    drop_message(r);
    if (r->consumer) {
        rd_kafka_consumer_close(r->consumer);
        rd_kafka_destroy(r->consumer);
    }
    free(r);
}

/* True when there is a message to hand out. */
static bool poll_once(struct kafka_reader *r, uint64_t wait_ms) {
    drop_message(r);
    r->message = rd_kafka_consumer_poll(r->consumer, (int)(wait_ms < POLL_MS ? wait_ms : POLL_MS));
    if (!r->message)
        return false;
    if (!r->message->err)
        return r->marks || r->message->key_len == 0;
    if (r->message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
        r->at_end = true;
    else
        snprintf(r->error, sizeof r->error, "%s", rd_kafka_message_errstr(r->message));
    return false;
}

int kafka_read(struct log_reader *reader, uint64_t wait_ms, struct bytes *ret_message,
               uint64_t *ret_position) {
    struct kafka_reader *r = kafka_reader_of(reader);
    struct os *os = r->k->os;
    uint64_t begun = os_monotonic_ns(os), until = begun + wait_ms * 1000000;
    int result = r->consumer ? 0 : connect_reader(r);
    if (result)
        return result;
    for (;;) {
        uint64_t now = os_monotonic_ns(os);
        if (poll_once(r, now < until ? (until - now) / 1000000 + 1 : 0))
            break;
        if (now >= until && r->at_end)
            return LOG_E_END;
        if (now >= until && now - begun >= r->k->timeout_ms * 1000000)
            return log_fail(reader->why, LOG_E_UNAVAILABLE, "Kafka: cannot read: %.200s",
                            r->error[0] ? r->error : "no answer came in time");
    }
    r->at_end = false;
    r->error[0] = '\0';
    r->next = r->message->offset + 1;
    *ret_message = bytes_of(r->message->payload, r->message->len);
    *ret_position = (uint64_t)r->message->offset;
    return 0;
}

/* ---- the newest message ---- */

/* The last one from the offset on; at its end there may be marks of transactions alone. */
static int last_from(struct kafka_log *k, int64_t from, bool marks, struct buffer *out,
                     uint64_t *ret_position) {
    struct log_reader *reader = NULL;
    struct bytes message;
    int r = kafka_reader_new(&k->log, (uint64_t)from, &reader);
    if (r)
        return error_trace(r);
    struct kafka_reader *own = kafka_reader_of(reader);
    uint64_t until = os_monotonic_ns(k->os) + k->timeout_ms * 1000000;
    bool found = false;
    size_t before = out->size;
    own->next = from;
    own->marks = marks;
    while (!own->at_end && os_monotonic_ns(k->os) < until) {
        r = kafka_read(reader, POLL_MS, &message, ret_position);
        if (r && r != LOG_E_END && r != LOG_E_UNAVAILABLE)
            break;
        if (r)
            continue;
        found = true;
        out->size = before;
        buffer_append_bytes(out, message);
    }
    if (own->at_end)
        r = found ? 0 : LOG_E_END;
    else
        r = log_fail(k->log.why, r == LOG_E_REFUSED ? r : LOG_E_UNAVAILABLE, "%.200s", reader->why);
    kafka_reader_free(reader);
    return r;
}

int kafka_last(struct kafka_log *k, bool marks, struct buffer *out, uint64_t *ret_position) {
    int64_t low, high;
    rd_kafka_resp_err_t error =
        rd_kafka_query_watermark_offsets(k->producer, k->topic, 0, &low, &high, (int)k->timeout_ms);
    if (error)
        return log_fail(k->log.why, LOG_E_UNAVAILABLE, "Kafka: cannot ask for the topic's end: %s",
                        rd_kafka_err2str(error));
    for (int64_t step = LAST_STEP; high > low; step *= 4) {
        int64_t from = high - step > low ? high - step : low;
        int r = last_from(k, from, marks, out, ret_position);
        if (r != LOG_E_END || from == low)
            return r;
    }
    return LOG_E_END;
}
