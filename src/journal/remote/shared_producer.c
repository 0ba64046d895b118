/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Producing to a shared journal: librdkafka's idempotent producer, told to give up on nothing by
 * itself. So a message's end is either that all in-sync replicas have it, once, or that Kafka will
 * not have it, which librdkafka then knows; a broker that is away only makes it late.
 *
 *   to be sent ──▶ waiting ──report──▶ delivered
 *       ▲             ├─ not persisted ─┘ (back)
 *       └─────────────┘ └─ possibly persisted: lost track of, final
 */
#include "journal/remote/shared.h"

#include <stdio.h>

/* ---- what librdkafka calls, from within our own calls ---- */

static void keep_error(rd_kafka_t *producer UNUSED, int error UNUSED, const char *reason,
                       void *opaque) {
    struct shared_producer *p = opaque;
    snprintf(p->topic.error, sizeof p->topic.error, "%s", reason);
}

static void reported(rd_kafka_t *producer UNUSED, const rd_kafka_message_t *message, void *opaque) {
    struct shared_producer *p = opaque;
    struct shared_message *m = message->_private;
    p->waiting--;
    if (!message->err) {
        m->delivered = true;
        return;
    }
    snprintf(p->topic.error, sizeof p->topic.error, "%s", rd_kafka_err2str(message->err));
    m->sent = false;
    if (rd_kafka_message_status(message) != RD_KAFKA_MSG_STATUS_NOT_PERSISTED)
        p->lost = "Kafka cannot say whether it has a message: its records may be there or not; "
                  "restart this process";
}

/* ---- the producer ---- */

static rd_kafka_conf_t *producer_conf(struct shared_producer *p) {
    struct kafka_log *k = &p->topic;
    const char *compression = service_url_parameter(k->url, "compression");
    char *why = k->log.why;
    rd_kafka_conf_t *conf = kafka_conf(k->url, k->servers, why);
    if (!conf)
        return NULL;
    rd_kafka_conf_set_opaque(conf, p);
    rd_kafka_conf_set_error_cb(conf, keep_error);
    rd_kafka_conf_set_dr_msg_cb(conf, reported);
    if (kafka_set(conf, "enable.idempotence", "true", why) && kafka_set(conf, "acks", "all", why) &&
        kafka_set(conf, "message.timeout.ms", "0", why) && /* none */
        kafka_set(conf, "linger.ms", "0", why) &&
        (!compression || kafka_set(conf, "compression.type", compression, why)))
        return conf;
    rd_kafka_conf_destroy(conf);
    return NULL;
}

static void drop(struct kafka_log *k) {
    if (k->destination)
        rd_kafka_topic_destroy(k->destination);
    if (k->producer)
        rd_kafka_destroy(k->producer);
    k->destination = NULL;
    k->producer = NULL;
}

/* The topic is named to librdkafka once it is there, which would have the broker make one. */
static int connect_producer(struct shared_producer *p) {
    struct kafka_log *k = &p->topic;
    char why[LOG_WHY_MAX];
    rd_kafka_conf_t *conf = producer_conf(p);
    if (!conf)
        return LOG_E_REFUSED;
    k->error[0] = '\0';
    k->producer = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    if (!k->producer) {
        rd_kafka_conf_destroy(conf);
        return log_fail(k->log.why, LOG_E_REFUSED, "Kafka: %.200s", why);
    }
    int r = kafka_topic_prepare(k);
    if (!r && !(k->destination = rd_kafka_topic_new(k->producer, k->topic, NULL)))
        r = log_fail(k->log.why, LOG_E_UNAVAILABLE, "Kafka: %s",
                     rd_kafka_err2str(rd_kafka_last_error()));
    if (r)
        drop(k);
    return r;
}

int shared_producer_open(struct shared_producer *p, struct os *os,
                         const struct log_options *options) {
    *p = (struct shared_producer){0};
    int r = shared_topic_init(&p->topic, os, options);
    return r ? r : connect_producer(p);
}

void shared_producer_close(struct shared_producer *p) {
    if (p->topic.producer && p->waiting) {
        rd_kafka_purge(p->topic.producer, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
        rd_kafka_flush(p->topic.producer, (int)p->topic.timeout_ms); /* only their reports */
    }
    drop(&p->topic);
}

/* ---- delivering ---- */

/* What cannot be sent now is sent by the next call. Messages of a partition stay in their order: an
 * error that librdkafka reports as not persisted concerns the topic, not one of them. */
static void send_all(struct shared_producer *p, struct shared_message *messages, size_t n) {
    struct kafka_log *k = &p->topic;
    for (size_t i = 0; i < n; i++) {
        struct shared_message *m = &messages[i];
        if (m->sent)
            continue;
        if (rd_kafka_produce(k->destination, (int32_t)m->partition, RD_KAFKA_MSG_F_COPY,
                             m->bytes.data, m->bytes.size, NULL, 0, m)) {
            snprintf(k->error, sizeof k->error, "%s", rd_kafka_err2str(rd_kafka_last_error()));
            return;
        }
        m->sent = true;
        p->waiting++;
    }
}

static bool are_delivered(const struct shared_message *messages, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!messages[i].delivered)
            return false;
    return true;
}

/* A producer that refuses everything from now on; what it had is back, or lost track of. */
static bool is_broken(const struct shared_producer *p) {
    char why[LOG_WHY_MAX];
    return p->waiting == 0 && rd_kafka_fatal_error(p->topic.producer, why, sizeof why);
}

int shared_producer_deliver(struct shared_producer *p, struct shared_message *messages, size_t n) {
    struct kafka_log *k = &p->topic;
    uint64_t until = os_monotonic_ns(k->os) + k->timeout_ms * 1000000;
    if (p->lost)
        return log_fail(k->log.why, LOG_E_REFUSED, "%s", p->lost);
    int r = k->producer ? 0 : connect_producer(p);
    if (r)
        return r;
    send_all(p, messages, n);
    while (p->waiting && os_monotonic_ns(k->os) < until)
        rd_kafka_poll(k->producer, 50);
    if (are_delivered(messages, n)) {
        k->error[0] = '\0';
        return 0;
    }
    if (is_broken(p))
        drop(k);
    return log_fail(k->log.why, p->lost ? LOG_E_REFUSED : LOG_E_UNAVAILABLE,
                    "Kafka has not taken what was sent: %.180s",
                    k->error[0] ? k->error : "no answer came in time");
}
