/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kept things on Kafka: a compacted topic of one partition. The producer stays, and whoever reads
 * has a consumer for the one reading.
 */
#include "journal/kept.h"

#include "journal/remote/kafka_shared.h"
#include "os/sync.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { TIMEOUT_MS = 5000, POLL_MS = 100 };

struct kept {
    struct mutex lock;      /* LOCK_RANK_JOURNAL_FILES: all below, but what never changes */
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

static int fold(int r, const char *sentence, char why[GROUP_WHY_MAX]) {
    if (r > 0)
        snprintf(why, GROUP_WHY_MAX, "%s", sentence);
    return r == LOG_E_REFUSED ? JOURNAL_E_REFUSED : r > 0 ? JOURNAL_E_UNAVAILABLE : r;
}

int kept_put(struct kept *k, struct bytes key, struct bytes value, char why[GROUP_WHY_MAX]) {
    mutex_lock(&k->lock);
    int r = k->topic.producer ? 0 : kafka_connect(&k->topic, producer_conf(k));
    if (!r)
        r = produce(k, key, value);
    r = fold(r, k->topic.log.why, why);
    mutex_unlock(&k->lock);
    return r;
}

/* ---- Reading ---- */

enum {
    NEAR = 64, /* messages that are read over rather than passed by a new request */
};

struct reading {
    struct kept *kept;
    rd_kafka_t *consumer;
    char *why;         /* LOG_WHY_MAX */
    uint64_t at;       /* of the next message, or what comes behind it */
    uint64_t until_ns; /* an answer is waited for */
};

static int go_to(struct reading *g, uint64_t offset) {
    rd_kafka_topic_partition_list_t *all = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(all, g->kept->topic.topic, 0)->offset =
        offset ? (int64_t)offset : RD_KAFKA_OFFSET_BEGINNING;
    rd_kafka_resp_err_t error = rd_kafka_assign(g->consumer, all);
    rd_kafka_topic_partition_list_destroy(all);
    g->at = offset;
    return error ? log_fail(g->why, LOG_E_UNAVAILABLE, "Kafka: %s", rd_kafka_err2str(error)) : 0;
}

static int make_consumer(struct reading *g) {
    const struct kafka_log *topic = &g->kept->topic;
    const struct kafka_setting settings[] = {
        {"group.id", topic->topic}, /* as it must have one; it joins none */
        {"enable.auto.commit", "false"},
        {"auto.offset.reset", "error"},
        {"fetch.wait.max.ms", "10"}, /* the end is told after it */
        {"queued.max.messages.kbytes", "4096"},
        {"enable.partition.eof", "true"},
        {NULL, NULL}};
    g->consumer = kafka_client(RD_KAFKA_CONSUMER, kafka_conf(topic, settings, g->why), g->why);
    if (!g->consumer)
        return LOG_E_REFUSED;
    rd_kafka_poll_set_consumer(g->consumer);
    return 0;
}

static void await(struct reading *g) {
    const struct kafka_log *topic = &g->kept->topic;
    g->until_ns = os_monotonic_ns(topic->os) + topic->timeout_ms * 1000000;
}

/* The topic is there, and so is a consumer, to read from the offset on. */
static int begin(struct kept *k, struct reading *g, uint64_t offset, char why[LOG_WHY_MAX]) {
    *g = (struct reading){.kept = k, .why = why};
    mutex_lock(&k->lock);
    int r = k->topic.producer ? 0 : kafka_connect(&k->topic, producer_conf(k));
    if (r)
        log_say(why, "%s", k->topic.log.why);
    mutex_unlock(&k->lock);
    if (!r)
        r = make_consumer(g);
    await(g);
    return r ? r : go_to(g, offset);
}

/* The next message, for rd_kafka_message_destroy. LOG_E_END; KEPT_E_ANEW; LOG_E_… with g->why. */
static int next(struct reading *g, rd_kafka_message_t **ret_message) {
    while (os_monotonic_ns(g->kept->topic.os) < g->until_ns) {
        rd_kafka_message_t *m = rd_kafka_consumer_poll(g->consumer, POLL_MS);
        if (!m)
            continue;
        rd_kafka_resp_err_t error = m->err;
        if (!error) {
            g->at = (uint64_t)m->offset + 1;
            await(g);
            *ret_message = m;
            return 0;
        }
        rd_kafka_message_destroy(m);
        if (error == RD_KAFKA_RESP_ERR__PARTITION_EOF)
            return LOG_E_END;
        if (error == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET)
            return KEPT_E_ANEW;
    }
    return log_fail(g->why, LOG_E_UNAVAILABLE, "Kafka: no answer came in time");
}

/* Who had no answer asks for the topic again the next time, as somebody may have removed it. */
static int end(struct reading *g, int r, char why[GROUP_WHY_MAX]) {
    struct kept *k = g->kept;
    if (g->consumer)
        rd_kafka_destroy(g->consumer);
    if (r == LOG_E_END || r == KEPT_E_ANEW)
        return r == LOG_E_END ? 0 : r;
    if (r > 0) {
        mutex_lock(&k->lock);
        kafka_disconnect(&k->topic);
        mutex_unlock(&k->lock);
    }
    return fold(r, g->why, why);
}

static void tell(const rd_kafka_message_t *m, kept_each *each, void *context) {
    const struct kept_message message = {.offset = (uint64_t)m->offset,
                                         .key = bytes_of(m->key, m->key_len),
                                         .value = bytes_of(m->payload, m->len)};
    each(context, &message);
}

int kept_follow(struct kept *k, uint64_t *at, kept_each *each, void *context,
                char why[GROUP_WHY_MAX]) {
    char sentence[LOG_WHY_MAX] = "";
    struct reading g;
    rd_kafka_message_t *m;
    int r = begin(k, &g, *at, sentence);
    while (!r && (r = next(&g, &m)) == 0) {
        tell(m, each, context);
        rd_kafka_message_destroy(m);
        *at = g.at;
    }
    return end(&g, r, why);
}

static int get_all(struct reading *g, const uint64_t *offsets, size_t n, kept_each *each,
                   void *context) {
    for (size_t i = 0; i < n;) {
        rd_kafka_message_t *m;
        int r = g->at > offsets[i] || offsets[i] - g->at > NEAR ? go_to(g, offsets[i]) : 0;
        if (!r)
            r = next(g, &m);
        if (r)
            return r;
        while (i < n && offsets[i] < (uint64_t)m->offset)
            i++; /* it is not there any more */
        if (i < n && offsets[i] == (uint64_t)m->offset) {
            tell(m, each, context);
            i++;
        }
        rd_kafka_message_destroy(m);
    }
    return 0;
}

int kept_get(struct kept *k, const uint64_t *offsets, size_t n, kept_each *each, void *context,
             char why[GROUP_WHY_MAX]) {
    char sentence[LOG_WHY_MAX] = "";
    struct reading g;
    if (n == 0)
        return 0;
    int r = begin(k, &g, offsets[0], sentence);
    if (!r)
        r = get_all(&g, offsets, n, each, context);
    return end(&g, r, why);
}

/* ---- Life ---- */

int kept_open(struct os *os, const struct kept_options *options, struct kept **ret_kept,
              char why[GROUP_WHY_MAX]) {
    const struct log_options log = {.url = options->url,
                                    .name = options->name,
                                    .timeout_ms =
                                        options->timeout_ms ? options->timeout_ms : TIMEOUT_MS,
                                    .existing = options->existing};
    struct kept *k = calloc(1, sizeof *k);
    if (!k)
        return error_origin(-ENOMEM);
    mutex_init(&k->lock, LOCK_RANK_JOURNAL_FILES);
    int r = kafka_shared_init(&k->topic, os, &log);
    k->topic.partitions = 1;
    k->topic.compacted = true;
    if (r) {
        r = fold(r, k->topic.log.why, why);
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
