/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kafka: the topic, made when it is missing, checked when it is there, trimmed. Each is a request
 * of librdkafka's admin interface, whose answer comes through a queue of its own.
 */
#include "journal/remote/kafka.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    INSYNC_DEFAULT = 2,
    MESSAGE_BYTES_LEAST = 1000000, /* librdkafka puts so much into one batch, and we send 900,000 */
};

/* ---- asking ---- */

/* Sends by one of librdkafka's functions, waits, and returns the answer, NULL with the sentence. */
struct question {
    struct kafka_log *k;
    rd_kafka_AdminOptions_t *options;
    rd_kafka_queue_t *queue;
};

static bool question_init(struct question *q, struct kafka_log *k, rd_kafka_admin_op_t what) {
    char error[LOG_WHY_MAX];
    *q = (struct question){.k = k,
                           .options = rd_kafka_AdminOptions_new(k->producer, what),
                           .queue = rd_kafka_queue_new(k->producer)};
    int timeout_ms = (int)k->timeout_ms;
    return q->options && q->queue &&
           !rd_kafka_AdminOptions_set_request_timeout(q->options, timeout_ms, error, sizeof error);
}

static void question_deinit(struct question *q) {
    if (q->options)
        rd_kafka_AdminOptions_destroy(q->options);
    if (q->queue)
        rd_kafka_queue_destroy(q->queue);
}

static rd_kafka_event_t *question_answer(struct question *q, const char *doing) {
    struct kafka_log *k = q->k;
    rd_kafka_event_t *event = rd_kafka_queue_poll(q->queue, (int)k->timeout_ms + 1000);
    const char *why = !event                        ? "no answer came in time"
                      : rd_kafka_event_error(event) ? rd_kafka_event_error_string(event)
                                                    : NULL;
    if (!why)
        return event;
    if (!k->one_queue)
        rd_kafka_poll(k->producer, 0); /* for what went wrong below */
    snprintf(k->log.why, sizeof k->log.why, "Kafka: cannot %s: %.100s%s%.100s", doing, why,
             k->error[0] ? "; " : "", k->error);
    if (event)
        rd_kafka_event_destroy(event);
    return NULL;
}

/* ---- making it ---- */

struct wishes {
    uint64_t replication; /* 0: the brokers' default */
    uint64_t insync;      /* 0: the same */
};

static int read_wishes(const struct kafka_log *k, struct wishes *ret, char why[LOG_WHY_MAX]) {
    struct wishes w = {0};
    if (!service_url_parameter_number(k->url, "replication", 1, 100, &w.replication))
        return log_fail(why, LOG_E_REFUSED, "replication is a number from 1 to 100");
    w.insync = w.replication > 2 ? INSYNC_DEFAULT : 0;
    if (!service_url_parameter_number(k->url, "min-insync", 1, 100, &w.insync))
        return log_fail(why, LOG_E_REFUSED, "min-insync is a number from 1 to 100");
    if (w.replication && w.insync > w.replication)
        return log_fail(why, LOG_E_REFUSED, "min-insync is larger than replication");
    *ret = w;
    return 0;
}

/* Of one of which the newest of a key counts: small segments, as the last is never compacted. */
static bool set_compaction(rd_kafka_NewTopic_t *topic) {
    return !rd_kafka_NewTopic_set_config(topic, "segment.bytes", "16777216") &&
           !rd_kafka_NewTopic_set_config(topic, "segment.ms", "3600000") &&
           !rd_kafka_NewTopic_set_config(topic, "min.cleanable.dirty.ratio", "0.1") &&
           !rd_kafka_NewTopic_set_config(topic, "delete.retention.ms", "86400000");
}

/* What a topic needs that forgets nothing by itself. */
static bool set_configs(rd_kafka_NewTopic_t *topic, const struct wishes *w, const char *cleanup) {
    char insync[24];
    snprintf(insync, sizeof insync, "%llu", (unsigned long long)w->insync);
    return !rd_kafka_NewTopic_set_config(topic, "retention.ms", "-1") &&
           !rd_kafka_NewTopic_set_config(topic, "retention.bytes", "-1") &&
           !rd_kafka_NewTopic_set_config(topic, "cleanup.policy", cleanup) &&
           (w->insync == 0 || !rd_kafka_NewTopic_set_config(topic, "min.insync.replicas", insync));
}

static int judge_creation(struct kafka_log *k, rd_kafka_event_t *event) {
    size_t n = 0;
    const rd_kafka_topic_result_t **results =
        rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &n);
    rd_kafka_resp_err_t error =
        n ? rd_kafka_topic_result_error(results[0]) : RD_KAFKA_RESP_ERR_UNKNOWN;
    if (!error || error == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS)
        return 0;
    int result = error == RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT ||
                         error == RD_KAFKA_RESP_ERR_NOT_CONTROLLER ||
                         error == RD_KAFKA_RESP_ERR_INVALID_REPLICATION_FACTOR
                     ? LOG_E_UNAVAILABLE /* the last: brokers may be missing only now */
                     : LOG_E_REFUSED;
    const char *said = n ? rd_kafka_topic_result_error_string(results[0]) : NULL;
    return log_fail(k->log.why, result, "Kafka: cannot create the topic %s: %.120s", k->topic,
                    said ? said : rd_kafka_err2str(error));
}

static int create_topic(struct kafka_log *k, const struct wishes *w) {
    char error[LOG_WHY_MAX] = "memory is out";
    struct question q;
    rd_kafka_event_t *event = NULL;
    rd_kafka_NewTopic_t *topic =
        rd_kafka_NewTopic_new(k->topic, (int)k->partitions,
                              w->replication ? (int)w->replication : -1, error, sizeof error);
    bool sent = question_init(&q, k, RD_KAFKA_ADMIN_OP_CREATETOPICS) && topic &&
                set_configs(topic, w, k->compacted ? "compact" : "delete") &&
                (!k->compacted || set_compaction(topic));
    if (sent) {
        rd_kafka_CreateTopics(k->producer, &topic, 1, q.options, q.queue);
        event = question_answer(&q, "create the topic");
    }
    int r = event  ? judge_creation(k, event)
            : sent ? LOG_E_UNAVAILABLE
                   : log_fail(k->log.why, LOG_E_REFUSED, "Kafka: %.200s", error);
    if (event)
        rd_kafka_event_destroy(event);
    if (topic)
        rd_kafka_NewTopic_destroy(topic);
    question_deinit(&q);
    return r;
}

/* ---- looking for it ---- */

/* Asks for all: a broker that is asked for one may make it. */
static int look_for_topic(struct kafka_log *k) {
    const struct rd_kafka_metadata *all = NULL;
    rd_kafka_resp_err_t error = rd_kafka_metadata(k->producer, 1, NULL, &all, (int)k->timeout_ms);
    bool found = false;
    for (int i = 0; !error && i < all->topic_cnt && !found; i++)
        found = strcmp(all->topics[i].topic, k->topic) == 0;
    if (!error)
        rd_kafka_metadata_destroy(all);
    if (error)
        return log_fail(k->log.why, LOG_E_UNAVAILABLE, "Kafka: cannot ask for the topics: %.100s",
                        rd_kafka_err2str(error));
    return found ? 0 : log_fail(k->log.why, LOG_E_END, "Kafka has no topic %.150s", k->topic);
}

/* ---- checking it ---- */

static void warn(const struct kafka_log *k, const char *sentence) {
    if (k->warn)
        k->warn(k->warn_context, sentence);
}

/* A topic of things that are kept (kept.h) is one order, too, whatever the URL says. */
static int refuse_partitions(struct kafka_log *k, int has) {
    if (k->partitions == 1 && (k->compacted || !service_url_parameter(k->url, "partitions")))
        return log_fail(k->log.why, LOG_E_REFUSED,
                        "the topic %.150s has %d partitions, and is to have 1, as it is one order: "
                        "give another topic-prefix",
                        k->topic, has);
    return log_refuse_partitions(k->log.why, k->topic, (unsigned)has, k->partitions,
                                 "topic-prefix");
}

static int check_metadata(struct kafka_log *k) {
    const struct rd_kafka_metadata *metadata = NULL;
    rd_kafka_topic_t *topic = rd_kafka_topic_new(k->producer, k->topic, NULL);
    rd_kafka_resp_err_t error =
        topic ? rd_kafka_metadata(k->producer, 0, topic, &metadata, (int)k->timeout_ms)
              : RD_KAFKA_RESP_ERR__FAIL;
    int r = 0;
    if (error)
        r = log_fail(k->log.why, LOG_E_UNAVAILABLE, "Kafka: cannot ask for the topic %s: %.100s",
                     k->topic, rd_kafka_err2str(error));
    else if (metadata->topic_cnt != 1 || metadata->topics[0].partition_cnt == 0)
        r = log_fail(k->log.why, LOG_E_UNAVAILABLE, "Kafka: the topic %s is not ready", k->topic);
    else if (metadata->topics[0].partition_cnt != (int)k->partitions)
        r = refuse_partitions(k, metadata->topics[0].partition_cnt);
    else if (metadata->topics[0].partitions[0].replica_cnt < 2)
        warn(k, "the journal's topic has one replica: what is acknowledged is lost with that "
                "broker's disk; replication=3 in the URL makes new topics with three");
    if (metadata)
        rd_kafka_metadata_destroy(metadata);
    if (topic)
        rd_kafka_topic_destroy(topic);
    return r;
}

/* 0; LOG_E_REFUSED: the topic would lose records, or not take them. */
static int check_config(struct kafka_log *k, const char *name, const char *value) {
    long long number = strtoll(value, NULL, 10);
    if (strcmp(name, "cleanup.policy") == 0 && strstr(value, "compact") && !k->compacted)
        return log_fail(k->log.why, LOG_E_REFUSED,
                        "the topic %s is compacted, which would drop records; the journal's needs "
                        "cleanup.policy=delete",
                        k->topic);
    if (strcmp(name, "max.message.bytes") == 0 && number < MESSAGE_BYTES_LEAST)
        return log_fail(k->log.why, LOG_E_REFUSED,
                        "the topic %s takes messages of %lld bytes at most, and the journal's are "
                        "larger: set its max.message.bytes to %d or more",
                        k->topic, number, MESSAGE_BYTES_LEAST);
    if (strcmp(name, "retention.ms") == 0 && number >= 0)
        warn(k, "the journal's topic drops records by age (retention.ms), applied or not; -1 keeps "
                "them until they are persisted");
    if (strcmp(name, "min.insync.replicas") == 0 && number < INSYNC_DEFAULT)
        warn(k, "the journal's topic has min.insync.replicas below 2: an acknowledged write may be "
                "on one broker alone");
    if (strcmp(name, "unclean.leader.election.enable") == 0 && strcmp(value, "true") == 0)
        warn(k, "the journal's topic may elect an unclean leader: acknowledged writes may be lost");
    if (strcmp(name, "retention.bytes") == 0 && number > 0)
        k->bound = (uint64_t)number;
    return 0;
}

static int check_configs(struct kafka_log *k, rd_kafka_event_t *event) {
    size_t n = 0, entries = 0;
    const rd_kafka_ConfigResource_t **resources =
        rd_kafka_DescribeConfigs_result_resources(rd_kafka_event_DescribeConfigs_result(event), &n);
    if (n == 0)
        return 0;
    const rd_kafka_ConfigEntry_t **configs =
        rd_kafka_ConfigResource_configs(resources[0], &entries);
    int r = 0;
    for (size_t i = 0; i < entries && !r; i++) {
        const char *value = rd_kafka_ConfigEntry_value(configs[i]);
        r = value ? check_config(k, rd_kafka_ConfigEntry_name(configs[i]), value) : 0;
    }
    return r;
}

/* Whoever may not ask for it is not told: that is no reason to stay away. */
static int describe_topic(struct kafka_log *k) {
    struct question q;
    rd_kafka_event_t *event = NULL;
    rd_kafka_ConfigResource_t *resource =
        rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, k->topic);
    if (question_init(&q, k, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS) && resource) {
        rd_kafka_DescribeConfigs(k->producer, &resource, 1, q.options, q.queue);
        event = question_answer(&q, "ask for the topic's settings");
    }
    if (!event)
        warn(k, "the settings of the journal's topic cannot be read: whether it keeps what is "
                "acknowledged is not known");
    int r = event ? check_configs(k, event) : 0;
    if (event)
        rd_kafka_event_destroy(event);
    if (resource)
        rd_kafka_ConfigResource_destroy(resource);
    question_deinit(&q);
    return r;
}

int kafka_topic_check(const struct kafka_log *k, char why[LOG_WHY_MAX]) {
    struct wishes wishes;
    return read_wishes(k, &wishes, why);
}

int kafka_topic_prepare(struct kafka_log *k) {
    struct wishes wishes;
    int r = read_wishes(k, &wishes, k->log.why);
    if (!r)
        r = k->existing ? look_for_topic(k) : create_topic(k, &wishes);
    if (!r)
        r = check_metadata(k);
    return r ? r : describe_topic(k);
}

/* ---- trimming it ---- */

int kafka_topic_trim(struct kafka_log *k, unsigned partition, uint64_t position) {
    struct question q;
    rd_kafka_event_t *event = NULL;
    rd_kafka_DeleteRecords_t *request = NULL;
    rd_kafka_topic_partition_list_t *before = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(before, k->topic, (int32_t)partition)->offset =
        (int64_t)position;
    request = rd_kafka_DeleteRecords_new(before);
    if (question_init(&q, k, RD_KAFKA_ADMIN_OP_DELETERECORDS) && request) {
        rd_kafka_DeleteRecords(k->producer, &request, 1, q.options, q.queue);
        event = question_answer(&q, "trim the topic");
    }
    if (request)
        rd_kafka_DeleteRecords_destroy(request);
    rd_kafka_topic_partition_list_destroy(before);
    question_deinit(&q);
    if (!event)
        return LOG_E_UNAVAILABLE;
    const rd_kafka_topic_partition_list_t *done =
        rd_kafka_DeleteRecords_result_offsets(rd_kafka_event_DeleteRecords_result(event));
    rd_kafka_resp_err_t error = done && done->cnt ? done->elems[0].err : RD_KAFKA_RESP_ERR_UNKNOWN;
    rd_kafka_event_destroy(event);
    return error ? log_fail(k->log.why, LOG_E_UNAVAILABLE, "Kafka: cannot trim the topic: %s",
                            rd_kafka_err2str(error))
                 : 0;
}
