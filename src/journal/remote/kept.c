/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kept things on Kafka: a compacted topic of one partition. The producer stays, and whoever reads
 * has a consumer for the one reading, from the first message to the end that it has by then.
 */
#include "journal/kept.h"

#include "journal/remote/kafka_shared.h"
#include "os/sync.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { TIMEOUT_MS = 5000, POLL_MS = 100 };

struct kept {
    struct mutex lock;      /* LOCK_RANK_JOURNAL_FILES: all below */
    struct kafka_log topic; /* its producer is ours */
    bool waiting;           /* for the report of a put */
    rd_kafka_resp_err_t refusal;
};

/* ---- The producer ---- */

static void reported(rd_kafka_t *producer UNUSED, const rd_kafka_message_t *message, void *opaque) {
    struct kept *k = opaque;
    k->waiting = false;
    k->refusal = message->err;
}

static rd_kafka_conf_t *producer_conf(struct kept *k) {
    char timeout[24];
    snprintf(timeout, sizeof timeout, "%llu", (unsigned long long)k->topic.timeout_ms);
    const struct kafka_setting settings[] = {{"enable.idempotence", "true"},
                                             {"acks", "all"},
                                             {"message.timeout.ms", timeout},
                                             {"linger.ms", "0"},
                                             {NULL, NULL}};
    rd_kafka_conf_t *conf = kafka_conf(&k->topic, settings, k->topic.log.why);
    if (conf) {
        rd_kafka_conf_set_opaque(conf, k);
        rd_kafka_conf_set_dr_msg_cb(conf, reported);
    }
    return conf;
}

/* ---- Putting ---- */

static int produce(struct kept *k, struct bytes key, struct bytes value) {
    struct kafka_log *topic = &k->topic;
    /* librdkafka writes to neither: with MSG_F_COPY it takes a copy of the value, and always one of
     * the key. */
    void *payload = value.size ? (void *)(uintptr_t)value.data : NULL;
    k->waiting = true;
    k->refusal = 0;
    if (rd_kafka_produce(topic->destination, 0, RD_KAFKA_MSG_F_COPY, payload, value.size, key.data,
                         key.size, NULL)) {
        k->waiting = false;
        k->refusal = rd_kafka_last_error();
    }
    while (k->waiting) /* its end comes by message.timeout.ms */
        rd_kafka_poll(topic->producer, POLL_MS);
    if (!k->refusal)
        return 0;
    kafka_disconnect(topic); /* whatever it was, the next has another */
    return log_fail(topic->log.why, LOG_E_UNAVAILABLE, "Kafka has not taken it: %.180s",
                    rd_kafka_err2str(k->refusal));
}

static int fold(const struct kept *k, int r, char why[GROUP_WHY_MAX]) {
    if (r > 0)
        snprintf(why, GROUP_WHY_MAX, "%s", k->topic.log.why);
    return r == LOG_E_REFUSED ? JOURNAL_E_REFUSED : r > 0 ? JOURNAL_E_UNAVAILABLE : r;
}

int kept_put(struct kept *k, struct bytes key, struct bytes value, char why[GROUP_WHY_MAX]) {
    mutex_lock(&k->lock);
    int r = k->topic.producer ? 0 : kafka_connect(&k->topic, producer_conf(k));
    if (!r)
        r = produce(k, key, value);
    r = fold(k, r, why);
    mutex_unlock(&k->lock);
    return r;
}

/* ---- Reading ---- */

struct message {
    struct bytes key;
    struct bytes value;
    int64_t offset;
};
struct reading {
    rd_kafka_t *consumer;
    struct buffer messages; /* of struct message, whose bytes are those of held */
    struct buffer held;     /* of rd_kafka_message_t * */
    size_t bytes;
};

static void reading_deinit(struct reading *g) {
    rd_kafka_message_t **held = (void *)g->held.data;
    for (size_t i = 0; i < g->held.size / sizeof *held; i++)
        rd_kafka_message_destroy(held[i]);
    if (g->consumer)
        rd_kafka_destroy(g->consumer);
    buffer_deinit(&g->held);
    buffer_deinit(&g->messages);
}

static int make_consumer(struct kept *k, struct reading *g) {
    struct kafka_log *topic = &k->topic;
    char *why = topic->log.why;
    const struct kafka_setting settings[] = {
        {"group.id", topic->topic}, /* as it must have one; it joins none */
        {"enable.auto.commit", "false"},
        {"fetch.wait.max.ms", "10"}, /* the end is told after it */
        {"enable.partition.eof", "true"},
        {NULL, NULL}};
    g->consumer = kafka_client(RD_KAFKA_CONSUMER, kafka_conf(topic, settings, why), why);
    if (!g->consumer)
        return LOG_E_REFUSED;
    rd_kafka_poll_set_consumer(g->consumer);
    rd_kafka_topic_partition_list_t *all = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(all, topic->topic, 0)->offset = RD_KAFKA_OFFSET_BEGINNING;
    rd_kafka_resp_err_t error = rd_kafka_assign(g->consumer, all);
    rd_kafka_topic_partition_list_destroy(all);
    return error ? log_fail(why, LOG_E_UNAVAILABLE, "Kafka: %s", rd_kafka_err2str(error)) : 0;
}

/* Keeps the message. */
static int take(struct reading *g, rd_kafka_message_t *m) {
    const struct message message = {.key = bytes_of(m->key, m->key_len),
                                    .value = bytes_of(m->payload, m->len),
                                    .offset = m->offset};
    g->bytes += m->len + m->key_len + sizeof message;
    buffer_append(&g->messages, &message, sizeof message);
    buffer_append(&g->held, &m, sizeof m);
    if (g->held.failed)
        rd_kafka_message_destroy(m);
    if (g->held.failed || g->messages.failed)
        return error_origin(-ENOMEM);
    return g->bytes > KEPT_BYTES_MAX ? JOURNAL_E_TOO_LARGE : 0;
}

/* Up to the end. */
static int read_all(struct kept *k, struct reading *g) {
    uint64_t until = os_monotonic_ns(k->topic.os) + k->topic.timeout_ms * 1000000;
    while (os_monotonic_ns(k->topic.os) < until) {
        rd_kafka_message_t *m = rd_kafka_consumer_poll(g->consumer, POLL_MS);
        if (m && !m->err) {
            int r = take(g, m);
            if (r)
                return r;
            continue;
        }
        bool ended = m && m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF;
        if (m)
            rd_kafka_message_destroy(m);
        if (ended)
            return 0;
    }
    return log_fail(k->topic.log.why, LOG_E_UNAVAILABLE, "Kafka: no answer came in time");
}

/* By key, the newest of it first. */
static int compare(const void *a, const void *b) {
    const struct message *x = a, *y = b;
    size_t size = x->key.size < y->key.size ? x->key.size : y->key.size;
    int order = size ? memcmp(x->key.data, y->key.data, size) : 0;
    if (!order)
        order = (x->key.size > y->key.size) - (x->key.size < y->key.size);
    return order ? order : (x->offset < y->offset) - (x->offset > y->offset);
}

static void tell_newest(const struct reading *g,
                        void (*each)(void *context, struct bytes key, struct bytes value),
                        void *context) {
    struct message *all = (void *)g->messages.data;
    size_t n = g->messages.size / sizeof *all;
    if (n)
        qsort(all, n, sizeof *all, compare);
    for (size_t i = 0; i < n; i++)
        if (all[i].value.size && (i == 0 || !bytes_equal(all[i].key, all[i - 1].key)))
            each(context, all[i].key, all[i].value);
}

static int read_locked(struct kept *k, struct reading *g) {
    int r = k->topic.producer ? 0 : kafka_connect(&k->topic, producer_conf(k));
    if (!r)
        r = make_consumer(k, g);
    return r ? r : read_all(k, g);
}

int kept_read(struct kept *k, void (*each)(void *context, struct bytes key, struct bytes value),
              void *context, char why[GROUP_WHY_MAX]) {
    struct reading g = {0};
    mutex_lock(&k->lock);
    int r = read_locked(k, &g);
    r = r == JOURNAL_E_TOO_LARGE ? r : fold(k, r, why);
    mutex_unlock(&k->lock);
    if (!r)
        tell_newest(&g, each, context);
    reading_deinit(&g);
    return r;
}

/* ---- Life ---- */

int kept_open(struct os *os, const struct kept_options *options, struct kept **ret_kept,
              char why[GROUP_WHY_MAX]) {
    const struct log_options log = {.url = options->url,
                                    .name = options->name,
                                    .timeout_ms =
                                        options->timeout_ms ? options->timeout_ms : TIMEOUT_MS};
    struct kept *k = calloc(1, sizeof *k);
    if (!k)
        return error_origin(-ENOMEM);
    mutex_init(&k->lock, LOCK_RANK_JOURNAL_FILES);
    int r = kafka_shared_init(&k->topic, os, &log);
    k->topic.partitions = 1;
    k->topic.compacted = true;
    if (r) {
        r = fold(k, r, why);
        kept_close(k);
        return r;
    }
    *ret_kept = k;
    return 0;
}

struct kept *kept_close(struct kept *k) {
    if (!k)
        return NULL;
    kafka_disconnect(&k->topic);
    mutex_deinit(&k->lock);
    free(k);
    return NULL;
}
