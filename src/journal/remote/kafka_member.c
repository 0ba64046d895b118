/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A member of the group that reads a shared journal on Kafka: one consumer of librdkafka's, which
 * divides the partitions cooperatively (those that stay with a member are read on while others
 * move). A partition that was given is paused until it is sought.
 *
 * The group's coordinator takes no commit of a member that it has put out, and begins to count the
 * session anew with each that it takes.
 */
#include "journal/remote/kafka_shared.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define PROBE_NS UINT64_C(1000000000) /* between two questions to brokers that were away */
#define POLL_MAX_MS "60000"           /* SILENCE_MAX_MS */
enum {
    SESSION_MS = 10000, /* without a word from a member, its partitions go to others */
    SESSION_LEAST_MS = 1000,
    SESSION_MOST_MS = 1800000,
    HEARTBEATS = 5,         /* a session */
    SILENCE_MAX_MS = 60000, /* who does not poll for so long is put out */
    METADATA_MS = 200,
};

struct member {
    struct shared_member member; /* first */
    struct kafka_log topic;      /* its producer is the consumer, for what kafka_topic.c asks */
    uint64_t given;              /* how many partitions were, so far */
    bool joining;                /* told to join; */
    bool joined;                 /* and told what is its own, at least once */
    uint64_t probed_ns;
};

static struct member *member_of(struct shared_member *m) {
    return (struct member *)m;
}

static rd_kafka_t *consumer_of(const struct member *m) {
    return m->topic.producer;
}

static rd_kafka_topic_partition_list_t *one_partition(const struct member *m, unsigned p,
                                                      int64_t offset) {
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, m->topic.topic, (int32_t)p)->offset = offset;
    return list;
}

static void drop_error(rd_kafka_error_t *error) {
    if (error)
        rd_kafka_error_destroy(error);
}

/* ---- what librdkafka calls, from within our own calls ---- */

static void keep_error(rd_kafka_t *consumer UNUSED, int error, const char *reason, void *opaque) {
    struct member *m = opaque;
    snprintf(m->topic.error, sizeof m->topic.error, "%s", reason);
    if (error != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN && error != RD_KAFKA_RESP_ERR__TRANSPORT)
        return;
    m->member.reachable = false;
    snprintf(m->member.why, sizeof m->member.why, "%s", reason);
}

/* Somebody may have added partitions to the topic: nobody writes those. */
static bool is_known(const struct member *m, int32_t partition) {
    return partition >= 0 && (unsigned)partition < m->topic.partitions;
}

/* Paused, at an offset that stands for none. Not at one that librdkafka has to look up: a lookup
 * that the pause or the seek overtakes is made again later, and then the seek is undone. */
static void give(struct member *m, rd_kafka_topic_partition_list_t *list) {
    for (int i = 0; i < list->cnt; i++) {
        if (is_known(m, list->elems[i].partition))
            m->member.generation[list->elems[i].partition] = ++m->given;
        list->elems[i].offset = 0;
    }
    drop_error(rd_kafka_incremental_assign(consumer_of(m), list));
    rd_kafka_pause_partitions(consumer_of(m), list);
}

static void have_turn(struct member *m, bool taking) {
    if (m->member.turn)
        m->member.turn(m->member.context, taking);
}

/* What is committed in the turn is on its way before we join again. */
static void take_away(struct member *m, rd_kafka_topic_partition_list_t *list) {
    have_turn(m, true);
    for (int i = 0; i < list->cnt; i++)
        if (is_known(m, list->elems[i].partition))
            m->member.generation[list->elems[i].partition] = 0;
    drop_error(rd_kafka_incremental_unassign(consumer_of(m), list));
}

static void rebalanced(rd_kafka_t *consumer UNUSED, rd_kafka_resp_err_t what,
                       rd_kafka_topic_partition_list_t *list, void *opaque) {
    struct member *m = opaque;
    if (what != RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
        take_away(m, list);
        return;
    }
    m->joined = true;
    give(m, list);
}

static void committed(rd_kafka_t *consumer UNUSED, rd_kafka_resp_err_t error,
                      rd_kafka_topic_partition_list_t *list UNUSED, void *opaque) {
    struct member *m = opaque;
    m->member.unanswered--;
    if (error)
        m->member.refused = true;
    else
        m->member.taken_ns = m->member.sent_ns;
    have_turn(m, false);
}

/* ---- joining and leaving ---- */

static int read_session(const struct kafka_log *k, uint64_t *ret_ms, char why[LOG_WHY_MAX]) {
    *ret_ms = SESSION_MS;
    if (service_url_parameter_number(k->url, "session-timeout", SESSION_LEAST_MS, SESSION_MOST_MS,
                                     ret_ms))
        return 0;
    return log_fail(why, LOG_E_REFUSED, "session-timeout is a number of milliseconds from %d to %d",
                    SESSION_LEAST_MS, SESSION_MOST_MS);
}

int kafka_member_check(const struct kafka_log *k, char why[LOG_WHY_MAX]) {
    uint64_t session_ms;
    return read_session(k, &session_ms, why);
}

static rd_kafka_conf_t *consumer_conf(struct member *m, uint64_t session_ms) {
    char id[KAFKA_GROUP_MAX], session[24], heartbeat[24];
    kafka_group_id(&m->topic, id);
    snprintf(session, sizeof session, "%llu", (unsigned long long)session_ms);
    snprintf(heartbeat, sizeof heartbeat, "%llu", (unsigned long long)session_ms / HEARTBEATS);
    const struct kafka_setting settings[] = {
        {"group.id", id},
        {"partition.assignment.strategy", "cooperative-sticky"},
        {"enable.auto.commit", "false"},
        {"enable.auto.offset.store", "false"},
        {"enable.partition.eof", "true"}, /* it says that a broker answers */
        {"auto.offset.reset", "earliest"},
        {"session.timeout.ms", session},
        {"heartbeat.interval.ms", heartbeat},
        {"max.poll.interval.ms", POLL_MAX_MS},
        {"fetch.wait.max.ms", "100"},
        {"fetch.max.bytes", "8388608"},
        {"queued.max.messages.kbytes", "8192"},
        {NULL, NULL}};
    rd_kafka_conf_t *conf = kafka_conf(&m->topic, settings, m->topic.log.why);
    if (conf) {
        rd_kafka_conf_set_opaque(conf, m);
        rd_kafka_conf_set_error_cb(conf, keep_error);
        rd_kafka_conf_set_rebalance_cb(conf, rebalanced);
        rd_kafka_conf_set_offset_commit_cb(conf, committed);
    }
    return conf;
}

static int subscribe(struct member *m) {
    rd_kafka_topic_partition_list_t *list = one_partition(m, 0, 0);
    list->elems[0].partition = RD_KAFKA_PARTITION_UA;
    rd_kafka_resp_err_t error = rd_kafka_subscribe(consumer_of(m), list);
    rd_kafka_topic_partition_list_destroy(list);
    m->joining = !error;
    return error ? log_fail(m->topic.log.why, LOG_E_UNAVAILABLE, "Kafka: cannot join the group: %s",
                            rd_kafka_err2str(error))
                 : 0;
}

static int connect_consumer(struct member *m) {
    struct kafka_log *k = &m->topic;
    uint64_t session_ms;
    int r = read_session(k, &session_ms, k->log.why);
    if (r)
        return r;
    m->member.session_ns = (session_ms < SILENCE_MAX_MS ? session_ms : SILENCE_MAX_MS) * 1000000;
    k->producer = kafka_client(RD_KAFKA_CONSUMER, consumer_conf(m, session_ms), k->log.why);
    if (!k->producer)
        return LOG_E_REFUSED;
    r = kafka_topic_prepare(k);
    if (r)
        return r;
    rd_kafka_poll_set_consumer(consumer_of(m));
    k->one_queue = true;
    return subscribe(m);
}

static int member_join(struct os *os, const struct log_options *options,
                       struct shared_member **ret_member) {
    struct member *m = calloc(1, sizeof *m);
    *ret_member = NULL;
    if (!m)
        return error_origin(-ENOMEM);
    m->member = (struct shared_member){.ops = &kafka_member_ops, .reachable = true};
    *ret_member = &m->member;
    int r = kafka_shared_init(&m->topic, os, options);
    if (!r)
        r = connect_consumer(m);
    if (r)
        snprintf(m->member.why, sizeof m->member.why, "%s", m->topic.log.why);
    return r;
}

/* A broker that hangs is not waited for longer than for an answer: the session ends by itself. */
static void leave_group(struct member *m) {
    uint64_t until = os_monotonic_ns(m->topic.os) + m->topic.timeout_ms * 1000000;
    rd_kafka_queue_t *queue = rd_kafka_queue_get_consumer(consumer_of(m));
    rd_kafka_error_t *error = rd_kafka_consumer_close_queue(consumer_of(m), queue);
    while (!error && !rd_kafka_consumer_closed(consumer_of(m)) &&
           os_monotonic_ns(m->topic.os) < until) {
        rd_kafka_message_t *message = rd_kafka_consumer_poll(consumer_of(m), 50);
        if (message)
            rd_kafka_message_destroy(message);
    }
    drop_error(error);
    rd_kafka_queue_destroy(queue);
}

/* librdkafka 2.0.2 ends the process when a consumer is destroyed after the coordinator has let it
 * into the group and before it was told its partitions: it takes the strategy's state to be there.
 * So one that wished to join and was never told any is left to the end of the process. */
static void member_leave(struct shared_member *member) {
    struct member *m = member_of(member);
    if (consumer_of(m))
        leave_group(m);
    if (consumer_of(m) && (m->joined || !m->joining))
        rd_kafka_destroy_flags(consumer_of(m), RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    free(m);
}

/* ---- reading ---- */

static void probe(struct member *m) {
    const struct rd_kafka_metadata *metadata = NULL;
    uint64_t now = os_monotonic_ns(m->topic.os);
    if (m->member.reachable || now - m->probed_ns < PROBE_NS)
        return;
    m->probed_ns = now;
    m->member.reachable = !rd_kafka_metadata(consumer_of(m), 0, NULL, &metadata, METADATA_MS);
    if (metadata)
        rd_kafka_metadata_destroy(metadata);
}

/* It says as well that a broker answers. */
static void note_end(struct member *m, const rd_kafka_message_t *message) {
    m->member.reachable = true;
    m->member.ended[message->partition] = (uint64_t)message->offset;
}

static int member_next(struct shared_member *member, uint64_t wait_ms,
                       struct shared_delivery *ret_delivery) {
    struct member *m = member_of(member);
    rd_kafka_message_t *message;
    probe(m);
    while ((message = rd_kafka_consumer_poll(consumer_of(m), (int)wait_ms))) {
        bool known = is_known(m, message->partition);
        if (!message->err && known) {
            *ret_delivery =
                (struct shared_delivery){.partition = (unsigned)message->partition,
                                         .offset = (uint64_t)message->offset,
                                         .bytes = bytes_of(message->payload, message->len),
                                         .owner = message};
            return 0;
        }
        if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF && known)
            note_end(m, message);
        rd_kafka_message_destroy(message);
        wait_ms = 0;
    }
    return LOG_E_END;
}

static void member_release(struct shared_delivery *d) {
    rd_kafka_message_destroy(d->owner);
}

static int say_unavailable(struct shared_member *m, const char *doing) {
    return log_fail(m->why, LOG_E_UNAVAILABLE, "Kafka: %s: no answer came in time", doing);
}

static uint64_t member_end(struct shared_member *member, unsigned partition) {
    struct member *m = member_of(member);
    int64_t first, end;
    if (rd_kafka_get_watermark_offsets(consumer_of(m), m->topic.topic, (int32_t)partition, &first,
                                       &end))
        return 0;
    return end > 0 ? (uint64_t)end : 0;
}

static int member_seek(struct shared_member *member, unsigned partition, bool known,
                       uint64_t *offset) {
    struct member *m = member_of(member);
    int timeout_ms = (int)m->topic.timeout_ms;
    int64_t first, end;
    if (rd_kafka_query_watermark_offsets(consumer_of(m), m->topic.topic, (int32_t)partition, &first,
                                         &end, timeout_ms))
        return say_unavailable(member, "cannot ask how far a partition goes");
    if (*offset + known > (uint64_t)end)
        return LOG_E_END;
    if (*offset < (uint64_t)first)
        *offset = (uint64_t)first;
    rd_kafka_topic_partition_list_t *list = one_partition(m, partition, (int64_t)*offset);
    rd_kafka_error_t *error = rd_kafka_seek_partitions(consumer_of(m), list, timeout_ms);
    bool moved = !error && !list->elems[0].err;
    drop_error(error);
    if (moved)
        rd_kafka_resume_partitions(consumer_of(m), list);
    member->ended[partition] = 0;
    rd_kafka_topic_partition_list_destroy(list);
    return moved ? 0 : say_unavailable(member, "cannot go to an offset");
}

static void member_pause(struct shared_member *member, unsigned partition, bool pause) {
    struct member *m = member_of(member);
    rd_kafka_topic_partition_list_t *list = one_partition(m, partition, RD_KAFKA_OFFSET_END);
    if (pause)
        rd_kafka_pause_partitions(consumer_of(m), list);
    else
        rd_kafka_resume_partitions(consumer_of(m), list);
    rd_kafka_topic_partition_list_destroy(list);
}

static void member_commit(struct shared_member *member, const struct shared_position *positions,
                          size_t n) {
    struct member *m = member_of(member);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)n);
    for (size_t i = 0; i < n; i++)
        rd_kafka_topic_partition_list_add(list, m->topic.topic, (int32_t)positions[i].partition)
            ->offset = (int64_t)positions[i].offset;
    if (member->unanswered == 0)
        member->sent_ns = os_monotonic_ns(m->topic.os);
    if (!rd_kafka_commit(consumer_of(m), list, true))
        member->unanswered++;
    rd_kafka_topic_partition_list_destroy(list);
}

static int member_committed(struct shared_member *member, unsigned partition,
                            uint64_t *ret_offset) {
    struct member *m = member_of(member);
    rd_kafka_topic_partition_list_t *list = one_partition(m, partition, RD_KAFKA_OFFSET_INVALID);
    rd_kafka_resp_err_t error = rd_kafka_committed(consumer_of(m), list, (int)m->topic.timeout_ms);
    bool found = !error && !list->elems[0].err;
    if (found)
        *ret_offset = list->elems[0].offset > 0 ? (uint64_t)list->elems[0].offset : 0;
    rd_kafka_topic_partition_list_destroy(list);
    return found ? 0 : say_unavailable(member, "cannot ask for a position");
}

static int member_trim(struct shared_member *member, unsigned partition, uint64_t offset) {
    return kafka_topic_trim(&member_of(member)->topic, partition, offset);
}

const struct shared_member_ops kafka_member_ops = {
    .join = member_join,
    .leave = member_leave,
    .next = member_next,
    .release = member_release,
    .seek = member_seek,
    .pause = member_pause,
    .end = member_end,
    .commit = member_commit,
    .committed = member_committed,
    .trim = member_trim,
};
