/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing a shared journal on Kafka: librdkafka's idempotent producer, told to give up on nothing
 * by itself. So a message's end is either that all in-sync replicas have it, once, or that Kafka
 * will not have it, which librdkafka then knows; a broker that is away only makes it late.
 *
 *   to be sent ──▶ waiting ──report──▶ delivered
 *       ▲             ├─ not persisted ─┘ (back)
 *       └─────────────┘ └─ possibly persisted: given up
 *
 * Of a partition one message waits at a time. A broker that knows nothing of the producer yet takes
 * any of its messages for the first: the second, when it refused the first because the partition
 * was about to move. librdkafka then takes both for delivered, and the first is lost.
 */
#include "journal/remote/kafka_shared.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const schemes[] = {"kafka", NULL};
static const char *const parameters[] = {
    "partitions",      "topic-prefix", "replication", "min-insync", "compression",
    "session-timeout", "tls",          "ca",          "sasl",       NULL};

int kafka_shared_init(struct kafka_log *k, struct os *os, const struct log_options *options) {
    int r = kafka_log_init(k, os, options, parameters, options->name);
    k->partitions = journal_url_partitions(options->url);
    return r;
}

void kafka_group_id(const struct kafka_log *k, char out[KAFKA_GROUP_MAX]) {
    snprintf(out, KAFKA_GROUP_MAX, "%s-workers", k->topic);
}

struct writer {
    struct shared_writer writer; /* first */
    struct kafka_log topic;
    size_t waiting; /* messages whose report is to come */
    bool refused;   /* one of the delivery at work was not taken, */
    bool lost;      /* and nobody knows what became of it */
};

static struct writer *writer_of(struct shared_writer *w) {
    return (struct writer *)w;
}

/* ---- what librdkafka calls, from within our own calls ---- */

static void keep_error(rd_kafka_t *producer UNUSED, int error, const char *reason, void *opaque) {
    struct writer *w = opaque;
    kafka_keep_error(&w->topic, error, reason);
}

static void reported(rd_kafka_t *producer UNUSED, const rd_kafka_message_t *message, void *opaque) {
    struct writer *w = opaque;
    struct shared_message *m = message->_private;
    w->waiting--;
    if (!message->err) {
        m->delivered = true;
        return;
    }
    snprintf(w->topic.error, sizeof w->topic.error, "%s", rd_kafka_err2str(message->err));
    m->sent = false;
    w->refused = true;
    if (rd_kafka_message_status(message) != RD_KAFKA_MSG_STATUS_NOT_PERSISTED)
        w->lost = true;
}

/* ---- the producer ---- */

static rd_kafka_conf_t *producer_conf(struct writer *w) {
    struct kafka_log *k = &w->topic;
    const struct kafka_setting settings[] = {
        {"enable.idempotence", "true"},
        {"acks", "all"},
        {"message.timeout.ms", "0"}, /* none */
        {"linger.ms", "0"},
        {"compression.type", service_url_parameter(k->url, "compression")},
        {NULL, NULL}};
    rd_kafka_conf_t *conf = kafka_conf(k, settings, k->log.why);
    if (conf) {
        rd_kafka_conf_set_opaque(conf, w);
        rd_kafka_conf_set_error_cb(conf, keep_error);
        rd_kafka_conf_set_dr_msg_cb(conf, reported);
    }
    return conf;
}

/* Of the whole of the brokers, made with them. */
static int learn_identity(struct writer *w) {
    struct kafka_log *k = &w->topic;
    char *id = rd_kafka_clusterid(k->producer, (int)k->timeout_ms);
    if (!id)
        return log_fail(k->log.why, LOG_E_UNAVAILABLE, "Kafka does not say which cluster it is");
    snprintf(w->writer.identity, sizeof w->writer.identity, "%s", id);
    rd_kafka_mem_free(k->producer, id);
    return 0;
}

static int connect_producer(struct writer *w) {
    int r = kafka_connect(&w->topic, producer_conf(w));
    if (!r)
        r = learn_identity(w);
    if (r)
        kafka_disconnect(&w->topic);
    return r;
}

/* Passes r on, with what the topic says of it. */
static int say(struct writer *w, int r) {
    if (r)
        snprintf(w->writer.why, sizeof w->writer.why, "%s", w->topic.log.why);
    return r;
}

static int writer_open(struct os *os, const struct log_options *options,
                       struct shared_writer **ret_writer) {
    struct writer *w = calloc(1, sizeof *w);
    *ret_writer = NULL;
    if (!w)
        return error_origin(-ENOMEM);
    w->writer.ops = shared_kafka.writer;
    *ret_writer = &w->writer;
    int r = kafka_shared_init(&w->topic, os, options);
    return say(w, r ? r : connect_producer(w));
}

/* librdkafka says what is wrong with its settings when a client is made. */
static int writer_check(const struct service_url *url, char why[LOG_WHY_MAX]) {
    const struct log_options options = {.url = url, .name = "events"};
    struct writer w = {0};
    struct kafka_log *k = &w.topic;
    int r = kafka_shared_init(k, NULL, &options);
    if (!r)
        r = kafka_topic_check(k, k->log.why);
    if (!r)
        r = kafka_member_check(k, k->log.why);
    if (!r && !(k->producer = kafka_client(RD_KAFKA_PRODUCER, producer_conf(&w), k->log.why)))
        r = LOG_E_REFUSED;
    kafka_disconnect(k);
    return r ? log_fail(why, r, "%s", k->log.why) : 0;
}

/* Whatever librdkafka still has is no longer waited for. */
static void forget_all(struct writer *w) {
    if (w->topic.producer && w->waiting) {
        rd_kafka_purge(w->topic.producer, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
        rd_kafka_flush(w->topic.producer, (int)w->topic.timeout_ms); /* only their reports */
    }
    kafka_disconnect(&w->topic);
    w->waiting = 0;
}

static void writer_close(struct shared_writer *writer) {
    struct writer *w = writer_of(writer);
    forget_all(w);
    free(w);
}

/* ---- delivering ---- */

static bool send_one(struct writer *w, struct shared_message *m) {
    struct kafka_log *k = &w->topic;
    if (rd_kafka_produce(k->destination, (int32_t)m->partition, RD_KAFKA_MSG_F_COPY, m->bytes.data,
                         m->bytes.size, NULL, 0, m)) {
        snprintf(k->error, sizeof k->error, "%s", rd_kafka_err2str(rd_kafka_last_error()));
        return false;
    }
    m->sent = true;
    w->waiting++;
    return true;
}

/* Of each partition the first that is not delivered. What cannot be sent now is sent by the next
 * call. */
static void send_ready(struct writer *w, struct shared_message *messages, size_t n) {
    uint64_t busy = 0; /* partitions */
    for (size_t i = 0; i < n && !w->refused; i++) {
        struct shared_message *m = &messages[i];
        uint64_t partition = UINT64_C(1) << m->partition;
        if (m->delivered || (busy & partition))
            continue;
        busy |= partition;
        if (!m->sent && !send_one(w, m))
            return;
    }
}

static bool are_delivered(const struct shared_message *messages, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!messages[i].delivered)
            return false;
    return true;
}

/* A producer that refuses everything from now on; what it had is back, or lost track of. */
static bool is_broken(const struct writer *w) {
    char why[LOG_WHY_MAX];
    return w->waiting == 0 && rd_kafka_fatal_error(w->topic.producer, why, sizeof why);
}

/* A new producer goes on with what comes next. */
static int give_up(struct writer *w) {
    forget_all(w);
    w->lost = false;
    return log_fail(w->topic.log.why, LOG_E_UNKNOWN,
                    "Kafka cannot say whether it has what was sent: %.180s", w->topic.error);
}

static int deliver(struct writer *w, struct shared_message *messages, size_t n) {
    struct kafka_log *k = &w->topic;
    uint64_t until = os_monotonic_ns(k->os) + k->timeout_ms * 1000000;
    int r = k->producer ? 0 : connect_producer(w);
    if (r)
        return r;
    w->refused = false;
    send_ready(w, messages, n);
    while (w->waiting && !w->lost && os_monotonic_ns(k->os) < until) {
        rd_kafka_poll(k->producer, 50);
        send_ready(w, messages, n);
    }
    if (!w->lost && are_delivered(messages, n)) {
        k->error[0] = '\0';
        return 0;
    }
    if (w->lost)
        return give_up(w);
    if (is_broken(w))
        kafka_disconnect(k);
    return log_fail(k->log.why, LOG_E_UNAVAILABLE, "Kafka has not taken what was sent: %.180s",
                    k->error[0] ? k->error : "no answer came in time");
}

static int writer_deliver(struct shared_writer *writer, struct shared_message *messages, size_t n) {
    struct writer *w = writer_of(writer);
    return say(w, deliver(w, messages, n));
}

/* Any broker may say what the topic is: who leads a partition may change at any time, and what is
 * sent to it waits for that. One that is frozen is asked as any other, so twice. */
static int ask(struct writer *w, uint64_t timeout_ms) {
    enum { TIMES = 2 };
    struct kafka_log *k = &w->topic;
    rd_kafka_resp_err_t error = RD_KAFKA_RESP_ERR__TRANSPORT;
    for (int i = 0; i < TIMES && error; i++) {
        const struct rd_kafka_metadata *found = NULL;
        error =
            rd_kafka_metadata(k->producer, 0, k->destination, &found, (int)(timeout_ms / TIMES));
        if (!error)
            rd_kafka_metadata_destroy(found);
    }
    rd_kafka_poll(k->producer, 0);
    if (error)
        return log_fail(k->log.why, LOG_E_UNAVAILABLE, "Kafka does not answer: %.200s",
                        k->error[0] ? k->error : rd_kafka_err2str(error));
    k->error[0] = '\0';
    return 0;
}

static int writer_probe(struct shared_writer *writer, uint64_t timeout_ms) {
    struct writer *w = writer_of(writer);
    return say(w, w->topic.producer ? ask(w, timeout_ms) : connect_producer(w));
}

static const struct shared_writer_ops writer_ops = {
    .open = writer_open,
    .close = writer_close,
    .deliver = writer_deliver,
    .probe = writer_probe,
};

const struct shared_driver shared_kafka = {
    .name = "kafka",
    .schemes = schemes,
    .parameters = parameters,
    .prefix = "topic-prefix",
    .writer = &writer_ops,
    .member = &kafka_member_ops,
    .check = writer_check,
    .mark = kafka_mark,
};
