/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kafka: opening, appending, and staying the owner (kafka.h).
 *
 *   no producer ──init_transactions──▶ owner ──begin──▶ in a transaction ──append…──▶ tick commits
 *        ▲                                                   │ a message fails
 *        └────────── a fatal error, fenced ◀──── abort ◀─────┘
 */
#include "journal/remote/kafka.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define TRANSACTION_NS UINT64_C(10000000000) /* tick commits one that is as old */
#define TRANSACTION_TIMEOUT_MS "600000"      /* brokers allow 15 minutes, unless told otherwise */
enum {
    MESSAGE_BYTES_MAX = 900000, /* a broker takes 1 MiB, unless told otherwise */
    PORT = 9092,
    CHECK_TIMEOUT_MS = 5000, /* of clients that are asked nothing */
    PARTITION = 0,
};

static const char *const schemes[] = {"kafka", NULL};
static const char *const parameters[] = {"topic-prefix", "replication", "min-insync", "compression",
                                         "tls",          "ca",          "sasl",       NULL};

/* ---- configuration ---- */

/* Up to a setting without a name. */
static bool set_all(rd_kafka_conf_t *conf, const struct kafka_setting *settings,
                    char why[LOG_WHY_MAX]) {
    char error[LOG_WHY_MAX];
    for (const struct kafka_setting *s = settings; s->name; s++) {
        if (!s->value ||
            rd_kafka_conf_set(conf, s->name, s->value, error, sizeof error) == RD_KAFKA_CONF_OK)
            continue;
        snprintf(why, LOG_WHY_MAX, "Kafka: %.*s", LOG_WHY_MAX - 16, error);
        return false;
    }
    return true;
}

static bool set_security(rd_kafka_conf_t *conf, const struct service_url *url,
                         char why[LOG_WHY_MAX]) {
    static const char *const protocols[2][2] = {{"plaintext", "sasl_plaintext"},
                                                {"ssl", "sasl_ssl"}};
    bool tls = false;
    bool sasl = url->user != NULL;
    const char *mechanism = service_url_parameter(url, "sasl");
    if (!service_url_parameter_flag(url, "tls", &tls)) {
        snprintf(why, LOG_WHY_MAX, "tls is yes or no in the journal's URL");
        return false;
    }
    const struct kafka_setting credentials[] = {
        {"sasl.mechanisms", mechanism ? mechanism : "PLAIN"},
        {"sasl.username", url->user},
        {"sasl.password", url->password ? url->password : ""},
        {NULL, NULL}};
    const struct kafka_setting settings[] = {{"security.protocol", protocols[tls][sasl]},
                                             {"ssl.ca.location", service_url_parameter(url, "ca")},
                                             {NULL, NULL}};
    return (!sasl || set_all(conf, credentials, why)) && set_all(conf, settings, why);
}

rd_kafka_conf_t *kafka_conf(const struct kafka_log *k, const struct kafka_setting *settings,
                            char why[LOG_WHY_MAX]) {
    const struct kafka_setting general[] = {
        {"bootstrap.servers", k->servers},
        {"client.id", "millrace"},
        {"isolation.level", "read_uncommitted"}, /* also of a topic's end */
        {"reconnect.backoff.ms", "50"},
        {"reconnect.backoff.max.ms", "1000"},
        {NULL, NULL}};
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set_log_cb(conf, NULL);
    if (set_all(conf, general, why) && set_security(conf, k->url, why) &&
        set_all(conf, settings, why))
        return conf;
    rd_kafka_conf_destroy(conf);
    return NULL;
}

/* ---- clients ---- */

rd_kafka_t *kafka_client(rd_kafka_type_t type, rd_kafka_conf_t *conf, char why[LOG_WHY_MAX]) {
    char error[LOG_WHY_MAX];
    rd_kafka_t *client = conf ? rd_kafka_new(type, conf, error, sizeof error) : NULL;
    if (client || !conf)
        return client;
    rd_kafka_conf_destroy(conf);
    snprintf(why, LOG_WHY_MAX, "Kafka: %.200s", error);
    return NULL;
}

void kafka_keep_error(struct kafka_log *k, int error, const char *reason) {
    k->unauthenticated = k->unauthenticated || error == RD_KAFKA_RESP_ERR__AUTHENTICATION;
    snprintf(k->error, sizeof k->error, "%s", reason);
}

int kafka_judge_connecting(struct kafka_log *k, int r) {
    if (r != LOG_E_UNAVAILABLE || !k->unauthenticated)
        return r;
    return log_fail(k->log.why, LOG_E_REFUSED,
                    "Kafka takes another user and password than the URL's, or none: %.180s",
                    k->error);
}

/* The topic is named to librdkafka once it is there, which would have the broker make one. */
int kafka_connect(struct kafka_log *k, rd_kafka_conf_t *conf) {
    k->error[0] = '\0';
    k->unauthenticated = false;
    k->producer = kafka_client(RD_KAFKA_PRODUCER, conf, k->log.why);
    if (!k->producer)
        return LOG_E_REFUSED;
    int r = kafka_topic_prepare(k);
    if (!r && !(k->destination = rd_kafka_topic_new(k->producer, k->topic, NULL)))
        r = log_fail(k->log.why, LOG_E_UNAVAILABLE, "Kafka: %s",
                     rd_kafka_err2str(rd_kafka_last_error()));
    if (r)
        kafka_disconnect(k);
    return kafka_judge_connecting(k, r);
}

void kafka_disconnect(struct kafka_log *k) {
    if (k->destination)
        rd_kafka_topic_destroy(k->destination);
    if (k->producer)
        rd_kafka_destroy(k->producer);
    k->destination = NULL;
    k->producer = NULL;
}

/* ---- what librdkafka calls, from within our own calls ---- */

static void keep_error(rd_kafka_t *producer UNUSED, int error, const char *reason, void *opaque) {
    kafka_keep_error(opaque, error, reason);
}

static void delivered(rd_kafka_t *producer UNUSED, const rd_kafka_message_t *message,
                      void *opaque) {
    struct kafka_log *k = opaque;
    size_t i = (size_t)(uintptr_t)message->_private;
    k->undelivered--;
    if (message->err)
        k->refusal = message->err;
    else
        k->positions[i] = (uint64_t)message->offset;
}

/* ---- the producer ---- */

static rd_kafka_conf_t *producer_conf(struct kafka_log *k) {
    char timeout[24];
    snprintf(timeout, sizeof timeout, "%llu", (unsigned long long)k->timeout_ms);
    const struct kafka_setting settings[] = {
        {"enable.idempotence", "true"},
        {"acks", "all"},
        {"transactional.id", k->topic},
        {"transaction.timeout.ms", TRANSACTION_TIMEOUT_MS},
        {"message.timeout.ms", timeout},
        {"linger.ms", "0"},
        {"max.in.flight", "1"}, /* kafka_writer.c says why */
        {"compression.type", service_url_parameter(k->url, "compression")},
        {NULL, NULL}};
    rd_kafka_conf_t *conf = kafka_conf(k, settings, k->log.why);
    if (conf) {
        rd_kafka_conf_set_opaque(conf, k);
        rd_kafka_conf_set_error_cb(conf, keep_error);
        rd_kafka_conf_set_dr_msg_cb(conf, delivered);
    }
    return conf;
}

static void producer_drop(struct kafka_log *k) {
    kafka_disconnect(k);
    k->in_transaction = k->must_abort = false;
}

/* Frees the error of a call. */
static int unavailable(struct kafka_log *k, const char *doing, rd_kafka_error_t *error) {
    const char *said = error ? rd_kafka_error_string(error) : "";
    int r = log_fail(k->log.why, LOG_E_UNAVAILABLE, "Kafka: %s: %.100s%s%.100s", doing, said,
                     k->error[0] ? "; " : "", k->error);
    if (error)
        rd_kafka_error_destroy(error);
    return r;
}

static int producer_make(struct kafka_log *k) {
    k->error[0] = '\0';
    k->unauthenticated = false;
    k->producer = kafka_client(RD_KAFKA_PRODUCER, producer_conf(k), k->log.why);
    return k->producer ? 0 : LOG_E_REFUSED;
}

/* From here on all earlier producers are refused. Only now is the topic named to librdkafka, which
 * would have the broker make one that is missing. */
static int producer_become_owner(struct kafka_log *k) {
    rd_kafka_error_t *error = rd_kafka_init_transactions(k->producer, (int)k->timeout_ms);
    if (!error)
        k->destination = rd_kafka_topic_new(k->producer, k->topic, NULL);
    if (k->destination)
        return 0;
    int r = unavailable(k, "cannot become the owner of the journal", error);
    producer_drop(k);
    return r;
}

/* ---- transactions ---- */

static int begin_transaction(struct kafka_log *k) {
    rd_kafka_error_t *error = rd_kafka_begin_transaction(k->producer);
    if (error) {
        int r = unavailable(k, "cannot begin a transaction", error);
        producer_drop(k);
        return r;
    }
    k->in_transaction = true;
    k->transaction_ns = os_monotonic_ns(k->os);
    return 0;
}

static void commit_transaction(struct kafka_log *k) {
    rd_kafka_error_t *error = rd_kafka_commit_transaction(k->producer, (int)k->timeout_ms);
    k->in_transaction = false;
    if (!error)
        return;
    k->in_transaction = k->must_abort = rd_kafka_error_txn_requires_abort(error);
    rd_kafka_error_destroy(error);
    if (!k->must_abort) /* it is under way for good: nothing but a commit would be allowed */
        producer_drop(k);
}

static int end_failed_transaction(struct kafka_log *k) {
    rd_kafka_error_t *error = rd_kafka_abort_transaction(k->producer, (int)k->timeout_ms);
    if (error && !rd_kafka_error_is_retriable(error)) {
        rd_kafka_error_destroy(error);
        producer_drop(k);
        return 0;
    }
    if (error)
        return unavailable(k, "cannot end a transaction that failed", error);
    k->in_transaction = k->must_abort = false;
    return 0;
}

/* ---- producing ---- */

/* librdkafka takes the copy over. */
static rd_kafka_resp_err_t produce(struct kafka_log *k, const struct log_message *m, size_t i) {
    size_t size = LOG_HEAD_BYTES + m->body.size;
    uint8_t *copy = malloc(size);
    if (!copy)
        return RD_KAFKA_RESP_ERR__QUEUE_FULL;
    memcpy(copy, m->head, LOG_HEAD_BYTES);
    memcpy(copy + LOG_HEAD_BYTES, m->body.data, m->body.size);
    if (rd_kafka_produce(k->destination, PARTITION, RD_KAFKA_MSG_F_FREE, copy, size, NULL, 0,
                         (void *)(uintptr_t)i) == 0)
        return RD_KAFKA_RESP_ERR_NO_ERROR;
    rd_kafka_resp_err_t error = rd_kafka_last_error();
    free(copy);
    return error;
}

/* Every message's report comes, within message.timeout.ms. */
static void await_reports(struct kafka_log *k) {
    while (k->undelivered > 0)
        rd_kafka_poll(k->producer, 100);
}

static void produce_all(struct kafka_log *k, const struct log_message *messages, size_t n) {
    k->refusal = RD_KAFKA_RESP_ERR_NO_ERROR;
    for (size_t i = 0; i < n && !k->refusal; i++) {
        rd_kafka_resp_err_t error = produce(k, &messages[i], i);
        k->undelivered += !error;
        if (error)
            k->refusal = error;
    }
    await_reports(k);
}

static int append_failed(struct kafka_log *k) {
    char said[LOG_WHY_MAX];
    rd_kafka_resp_err_t refusal = k->refusal;
    if (rd_kafka_fatal_error(k->producer, said, sizeof said))
        producer_drop(k);
    else
        k->must_abort = true;
    int result = refusal == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE ||
                         refusal == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED
                     ? LOG_E_REFUSED
                     : LOG_E_UNAVAILABLE;
    return log_fail(k->log.why, result, "Kafka takes no messages: %.80s%s%.100s",
                    rd_kafka_err2str(refusal), k->error[0] ? "; " : "", k->error);
}

/* The first thing that an owner does. */
static int leave_mark(struct kafka_log *k) {
    int r = begin_transaction(k);
    if (r)
        return r;
    k->refusal = RD_KAFKA_RESP_ERR_NO_ERROR;
    k->positions = &k->newest;
    if (rd_kafka_produce(k->destination, PARTITION, RD_KAFKA_MSG_F_COPY, k->mark, sizeof k->mark,
                         KAFKA_MARK_KEY, strlen(KAFKA_MARK_KEY), NULL))
        k->refusal = rd_kafka_last_error();
    k->undelivered = !k->refusal;
    await_reports(k);
    k->positions = NULL;
    return k->refusal ? append_failed(k) : 0;
}

/* ---- opening and closing ---- */

static bool join_servers(struct kafka_log *k) {
    size_t at = 0;
    for (size_t i = 0; i < k->url->n_hosts; i++) {
        const struct service_host *host = &k->url->hosts[i];
        bool brackets = strchr(host->name, ':') != NULL;
        int size =
            snprintf(k->servers + at, sizeof k->servers - at, brackets ? "%s[%s]:%u" : "%s%s:%u",
                     i ? "," : "", host->name, host->port ? host->port : PORT);
        if (size < 0 || (size_t)size >= sizeof k->servers - at)
            return false;
        at += (size_t)size;
    }
    return true;
}

static bool name_topic(struct kafka_log *k, const char *name) {
    const char *prefix = service_url_parameter(k->url, "topic-prefix");
    int size =
        snprintf(k->topic, sizeof k->topic, "%s%s", prefix ? prefix : KAFKA_TOPIC_PREFIX, name);
    return size > 0 && (size_t)size < sizeof k->topic;
}

int kafka_log_init(struct kafka_log *k, struct os *os, const struct log_options *options,
                   const char *const *known_parameters, const char *name) {
    *k = (struct kafka_log){.log.driver = &log_kafka,
                            .os = os,
                            .url = options->url,
                            .timeout_ms = options->timeout_ms,
                            .partitions = 1,
                            .existing = options->existing,
                            .warn = options->warn,
                            .warn_context = options->context};
    const char *unknown = service_url_parameter_unknown(k->url, known_parameters);
    if (unknown)
        return log_fail(k->log.why, LOG_E_REFUSED,
                        "the journal's URL has no parameter called %.100s", unknown);
    if (!join_servers(k) || !name_topic(k, name))
        return log_fail(k->log.why, LOG_E_REFUSED, "the hosts or the topic-prefix are too long");
    return 0;
}

static int connect_and_own(struct kafka_log *k) {
    int r = producer_make(k);
    if (!r)
        r = kafka_topic_prepare(k);
    if (!r)
        r = producer_become_owner(k);
    return r ? kafka_judge_connecting(k, r) : leave_mark(k);
}

static int kafka_open(struct os *os, const struct log_options *options, struct log **ret_log) {
    struct kafka_log *k = calloc(1, sizeof *k);
    *ret_log = NULL;
    if (!k)
        return error_origin(-ENOMEM);
    *ret_log = &k->log;
    int r = kafka_log_init(k, os, options, parameters, "journal");
    if (!r)
        r = os_random(os, k->mark, sizeof k->mark);
    if (r)
        return error_trace(r);
    return connect_and_own(k);
}

/* librdkafka says what is wrong with its settings when a client is made. */
static int kafka_check(const struct service_url *url, char why[LOG_WHY_MAX]) {
    const struct log_options options = {.url = url, .timeout_ms = CHECK_TIMEOUT_MS};
    struct kafka_log k;
    int r = kafka_log_init(&k, NULL, &options, parameters, "journal");
    if (!r)
        r = kafka_topic_check(&k, k.log.why);
    if (!r)
        r = producer_make(&k);
    kafka_disconnect(&k);
    return r ? log_fail(why, r, "%s", k.log.why) : 0;
}

static void kafka_close(struct log *l) {
    struct kafka_log *k = kafka_log_of(l);
    if (k->producer && k->in_transaction && !k->must_abort)
        commit_transaction(k);
    producer_drop(k);
    free(k);
}

static void kafka_tick(struct log *l) {
    struct kafka_log *k = kafka_log_of(l);
    if (!k->producer)
        return;
    rd_kafka_poll(k->producer, 0);
    if (k->in_transaction && !k->must_abort &&
        os_monotonic_ns(k->os) - k->transaction_ns >= TRANSACTION_NS)
        commit_transaction(k);
}

/* ---- appending ---- */

static bool is_one_of(struct bytes message, const struct log_message *messages, size_t n) {
    if (message.size < LOG_HEAD_BYTES)
        return false;
    for (size_t i = 0; i < n; i++)
        if (memcmp(message.data, messages[i].head, LOG_HEAD_BYTES) == 0 &&
            bytes_equal(messages[i].body,
                        bytes_of(message.data + LOG_HEAD_BYTES, message.size - LOG_HEAD_BYTES)))
            return true;
    return false;
}

static int say_fenced(struct kafka_log *k) {
    return log_fail(k->log.why, LOG_E_FENCED,
                    "another process has taken the journal over: it has written to the topic %s",
                    k->topic);
}

/* Whether nobody else has written since we did. */
static int check_newest(struct kafka_log *k, const struct log_message *messages, size_t n) {
    CLEANUP(buffer_deinit) struct buffer newest = BUFFER_INIT;
    uint64_t position = 0;
    int r = kafka_last(k, true, &newest, &position);
    if (r && r != LOG_E_END)
        return r;
    struct bytes found = buffer_bytes(&newest);
    if (!r && (position == k->newest || bytes_equal(found, bytes_of(k->mark, sizeof k->mark)) ||
               is_one_of(found, messages, n)))
        return 0;
    k->fenced = true;
    return say_fenced(k);
}

/* The producer is gone: another becomes the owner, unless somebody else has been it since. Who has
 * lost does not put the new owner out only to find that; and looks once more when nobody can come
 * between. */
static int own_again(struct kafka_log *k, const struct log_message *messages, size_t n) {
    int r = producer_make(k);
    if (!r)
        r = check_newest(k, messages, n);
    if (!r)
        r = producer_become_owner(k);
    if (!r)
        r = check_newest(k, messages, n);
    if (!r)
        return leave_mark(k);
    producer_drop(k);
    return r;
}

static int be_in_transaction(struct kafka_log *k, const struct log_message *messages, size_t n) {
    int r = k->producer && k->must_abort ? end_failed_transaction(k) : 0;
    if (!r && !k->producer)
        r = own_again(k, messages, n);
    return r || k->in_transaction ? r : begin_transaction(k);
}

static int kafka_append(struct log *l, const struct log_message *messages, size_t n,
                        uint64_t *ret_positions) {
    struct kafka_log *k = kafka_log_of(l);
    int r = k->fenced ? say_fenced(k) : be_in_transaction(k, messages, n);
    if (r)
        return r;
    k->error[0] = '\0';
    k->positions = ret_positions;
    produce_all(k, messages, n);
    k->positions = NULL;
    if (k->refusal) {
        r = append_failed(k);
        return !k->producer && own_again(k, messages, n) == LOG_E_FENCED ? LOG_E_FENCED : r;
    }
    k->newest = ret_positions[n - 1];
    return 0;
}

/* ---- the table ---- */

static int kafka_trim(struct log *l, uint64_t position) {
    struct kafka_log *k = kafka_log_of(l);
    return k->producer ? kafka_topic_trim(k, PARTITION, position)
                       : log_fail(l->why, LOG_E_UNAVAILABLE, "Kafka is not reachable");
}

static int kafka_newest(struct log *l, struct buffer *out, uint64_t *ret_position) {
    return kafka_last(kafka_log_of(l), false, out, ret_position);
}

static uint64_t kafka_bound(const struct log *l) {
    return kafka_log_of(l)->bound;
}

const struct log_driver log_kafka = {
    .schemes = schemes,
    .parameters = parameters,
    .message_bytes_max = MESSAGE_BYTES_MAX,
    .check = kafka_check,
    .open = kafka_open,
    .close = kafka_close,
    .append = kafka_append,
    .tick = kafka_tick,
    .trim = kafka_trim,
    .last = kafka_newest,
    .bound = kafka_bound,
    .reader_new = kafka_reader_new,
    .read = kafka_read,
    .reader_free = kafka_reader_free,
};
