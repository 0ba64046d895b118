/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver of Kafka: one topic of one partition, written by one transactional producer, with
 * librdkafka. kafka.c appends, kafka_topic.c makes and checks the topic, kafka_read.c reads.
 *
 * Durable is what all in-sync replicas have (acks=all); how many those must be is the topic's
 * min.insync.replicas, which open checks.
 *
 * The fence is Kafka's own: init_transactions makes every earlier producer with the same
 * transactional.id one that all brokers refuse. Nothing else of transactions is used: readers read
 * what is not committed, because a delivery report with acks=all is all that durable means. So a
 * transaction spans seconds of appends (committing each would double what an append costs), and
 * tick ends it before its timeout. An aborted one is no less in the log.
 *
 * A producer may be fenced although nobody took over, as when it slept longer than its transaction
 * may last. Then it becomes the owner again, and looks whether somebody has written meanwhile: only
 * if so, LOG_E_FENCED. For that every owner begins with a mark, a message with a key, which readers
 * pass.
 */
#ifndef MILLRACE_JOURNAL_REMOTE_KAFKA_H
#define MILLRACE_JOURNAL_REMOTE_KAFKA_H

#include "journal/driver.h"

#include <librdkafka/rdkafka.h>

#define KAFKA_MARK_KEY "owner"
#define KAFKA_TOPIC_PREFIX "millrace-" /* unless the URL has another */
enum { KAFKA_TOPIC_MAX = 200, KAFKA_SERVERS_MAX = 4096 };

struct kafka_log {
    struct log log; /* first */
    struct os *os;
    const struct service_url *url;
    uint64_t timeout_ms;
    char servers[KAFKA_SERVERS_MAX]; /* host:port,… */
    char topic[KAFKA_TOPIC_MAX];
    unsigned partitions; /* that it has */
    bool compacted;      /* it is: the newest of a key counts */
    bool existing;       /* it is not made */
    uint64_t bound;      /* bytes that the topic keeps; 0: no bound */
    void (*warn)(void *context, const char *sentence);
    void *warn_context;

    rd_kafka_t *producer;          /* NULL: the next append makes it */
    rd_kafka_topic_t *destination; /* the topic, to that producer */
    bool one_queue;                /* a consumer: its owner alone polls it */
    bool in_transaction;           /* one was begun */
    bool must_abort;               /* and has failed */
    bool fenced;                   /* for good */
    uint64_t transaction_ns;       /* when it was begun */
    uint8_t mark[16];              /* this owner's, random */
    uint64_t newest;               /* position of the newest message or mark that is known */
    char error[LOG_WHY_MAX];       /* what librdkafka said last, */
    bool unauthenticated;          /* and that a broker takes another user and password, or none */
    uint64_t *positions;           /* of the append at work */
    size_t undelivered;            /* messages of it */
    rd_kafka_resp_err_t refusal;   /* of one of them */
};

static inline struct kafka_log *kafka_log_of(const struct log *l) {
    return (struct kafka_log *)(uintptr_t)l;
}

/* Fills in what follows from the URL alone: servers, and the topic, the URL's prefix before name.
 * LOG_E_REFUSED, with k->log.why. */
int kafka_log_init(struct kafka_log *k, struct os *os, const struct log_options *options,
                   const char *const *known_parameters, const char *name) MUST_USE;
/* One of librdkafka's. */
struct kafka_setting {
    const char *name;  /* NULL behind the last */
    const char *value; /* NULL: as librdkafka has it */
};
/* A configuration with what every client needs (servers, TLS, SASL) and those settings. NULL: one
 * of them is wrong, why says it. */
rd_kafka_conf_t *kafka_conf(const struct kafka_log *k, const struct kafka_setting *settings,
                            char why[LOG_WHY_MAX]) MUST_USE;
/* A client with that configuration, which it takes over. NULL, also when conf is: why says it, or
 * has said it before. */
rd_kafka_t *kafka_client(rd_kafka_type_t type, rd_kafka_conf_t *conf,
                         char why[LOG_WHY_MAX]) MUST_USE;
/* For librdkafka's error callback. */
void kafka_keep_error(struct kafka_log *k, int error, const char *reason);
/* The result of connecting: r, or LOG_E_REFUSED where it was for the user and password. */
int kafka_judge_connecting(struct kafka_log *k, int r) MUST_USE;
/* A producer of such a client, with the topic made, checked and named to it. LOG_E_…, and there is
 * none then. */
int kafka_connect(struct kafka_log *k, rd_kafka_conf_t *conf) MUST_USE;
/* Ends the producer, if there is one: what it has not sent is not sent. */
void kafka_disconnect(struct kafka_log *k);

/* Whether what the URL says of a new topic makes sense. LOG_E_REFUSED. */
int kafka_topic_check(const struct kafka_log *k, char why[LOG_WHY_MAX]) MUST_USE;
/* Creates the topic if it is missing (LOG_E_END: it is not to), and checks what it promises; needs
 * the producer. LOG_E_… */
int kafka_topic_prepare(struct kafka_log *k) MUST_USE;
/* Asks for a trim; needs the producer, or a consumer in its place. LOG_E_… */
int kafka_topic_trim(struct kafka_log *k, unsigned partition, uint64_t position) MUST_USE;

/* The newest message, or mark if they count, appended to out. LOG_E_END, LOG_E_UNAVAILABLE with
 * k->log.why. */
int kafka_last(struct kafka_log *k, bool marks, struct buffer *out,
               uint64_t *ret_position) MUST_USE;
int kafka_reader_new(struct log *l, uint64_t position, struct log_reader **ret_reader) MUST_USE;
int kafka_read(struct log_reader *r, uint64_t wait_ms, struct bytes *ret_message,
               uint64_t *ret_position) MUST_USE;
void kafka_reader_free(struct log_reader *r);

#endif
