/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A member of the group that reads a shared journal: one consumer of librdkafka's, which divides
 * the partitions cooperatively (those that stay with a member are read on while others move).
 *
 *   ours not ──given──▶ new ──position, seek──▶ read
 *      ▲                 └────────taken away──────┘
 *      └────────────────────────────────────────────
 *
 * A partition that was given is paused until the store has said from where on; then every message
 * must have the offset behind the one before, or it is sought again. What is committed is only for
 * those who watch the lag.
 */
#include "journal/remote/shared.h"
#include "os/sync.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define SECOND_NS UINT64_C(1000000000)
#define START_NS (SECOND_NS / 5) /* between two tries to begin with partitions, at least */
#define REPORT_NS SECOND_NS      /* between two commits, and looks at the lag */
#define TRIM_NS (30 * SECOND_NS) /* between two partitions that are trimmed */
enum {
    HELD_MAX = 512, /* messages in memory */
    HELD_BYTES_MAX = 8 << 20,
    BATCH_BYTES_MAX = 4 << 20,
    TIMEOUT_MS = 5000,
    SESSION_MS = 10000, /* without a word from a member, its partitions go to others */
    SESSION_LEAST_MS = 1000,
    SESSION_MOST_MS = 1800000,
    HEARTBEATS = 5, /* a session */
};

struct partition {
    enum { AWAY, NEW, READING } state;
    bool ahead;         /* new, and the store has more than the topic */
    uint64_t next;      /* the offset to be read */
    uint64_t gap_from;  /* from here on nothing was found when it was last read, */
    uint64_t gap_end;   /* up to here */
    lsn_t position;     /* all up to it was persisted */
    lsn_t read;         /* the last record of the messages before next, of those that were read */
    uint64_t committed; /* offset that Kafka knows */
    uint64_t trimmed;
};

struct group {
    struct os *os;
    struct group_options options;
    struct kafka_log topic; /* its producer is the consumer, for what topic.c asks */
    struct partition partitions[GROUP_PARTITIONS_MAX];
    rd_kafka_message_t *held[HELD_MAX]; /* in the order they came in */
    size_t n_held;
    size_t held_bytes;
    rd_kafka_message_t *lent[HELD_MAX]; /* of the batch that was handed out */
    size_t n_lent;
    struct buffer records;
    bool paused;
    uint64_t start_ns; /* when to try again to begin with partitions */
    uint64_t reported_ns, trimmed_ns;
    unsigned start_next, trim_next;
    struct mutex lock; /* LOCK_RANK_JOURNAL_FILES: status */
    struct group_status status;
};

static rd_kafka_t *consumer_of(const struct group *g) {
    return g->topic.producer;
}

static void say_reachable(struct group *g, bool reachable, const char *why) {
    mutex_lock(&g->lock);
    g->status.reachable = reachable;
    snprintf(g->status.why, sizeof g->status.why, "%s", why);
    mutex_unlock(&g->lock);
}

/* A broker answers. What is wrong with a partition stays to be said. */
static void say_well(struct group *g) {
    for (unsigned p = 0; p < g->topic.partitions; p++)
        if (g->partitions[p].state == NEW && g->partitions[p].ahead)
            return;
    say_reachable(g, true, "");
}

/* ---- what librdkafka calls, from within our own calls ---- */

static void keep_error(rd_kafka_t *consumer UNUSED, int error, const char *reason, void *opaque) {
    struct group *g = opaque;
    snprintf(g->topic.error, sizeof g->topic.error, "%s", reason);
    if (error == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || error == RD_KAFKA_RESP_ERR__TRANSPORT)
        say_reachable(g, false, reason);
}

static bool is_known(const rd_kafka_topic_partition_t *p, const struct group *g) {
    return p->partition >= 0 && (unsigned)p->partition < g->topic.partitions;
}

static void give(struct group *g, rd_kafka_topic_partition_list_t *list) {
    for (int i = 0; i < list->cnt; i++) {
        if (is_known(&list->elems[i], g))
            g->partitions[list->elems[i].partition] = (struct partition){.state = NEW};
        list->elems[i].offset = RD_KAFKA_OFFSET_END;
    }
    rd_kafka_error_t *error = rd_kafka_incremental_assign(consumer_of(g), list);
    if (error)
        rd_kafka_error_destroy(error);
    rd_kafka_pause_partitions(consumer_of(g), list);
    g->start_ns = 0;
}

static void take_away(struct group *g, rd_kafka_topic_partition_list_t *list) {
    for (int i = 0; i < list->cnt; i++)
        if (is_known(&list->elems[i], g))
            g->partitions[list->elems[i].partition].state = AWAY;
    rd_kafka_error_t *error = rd_kafka_incremental_unassign(consumer_of(g), list);
    if (error)
        rd_kafka_error_destroy(error);
}

static void rebalanced(rd_kafka_t *consumer UNUSED, rd_kafka_resp_err_t what,
                       rd_kafka_topic_partition_list_t *list, void *opaque) {
    struct group *g = opaque;
    if (what == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS)
        give(g, list);
    else
        take_away(g, list);
    unsigned n = 0;
    for (unsigned p = 0; p < g->topic.partitions; p++)
        n += g->partitions[p].state != AWAY;
    mutex_lock(&g->lock);
    g->status.partitions = n;
    mutex_unlock(&g->lock);
}

/* ---- joining and leaving ---- */

static bool set_session(rd_kafka_conf_t *conf, const struct kafka_log *k, char why[LOG_WHY_MAX]) {
    uint64_t session_ms = SESSION_MS;
    char session[24], heartbeat[24];
    if (!service_url_parameter_number(k->url, "session-timeout", SESSION_LEAST_MS, SESSION_MOST_MS,
                                      &session_ms)) {
        snprintf(why, LOG_WHY_MAX, "session-timeout is a number of milliseconds from %d to %d",
                 SESSION_LEAST_MS, SESSION_MOST_MS);
        return false;
    }
    snprintf(session, sizeof session, "%llu", (unsigned long long)session_ms);
    snprintf(heartbeat, sizeof heartbeat, "%llu", (unsigned long long)session_ms / HEARTBEATS);
    return kafka_set(conf, "session.timeout.ms", session, why) &&
           kafka_set(conf, "heartbeat.interval.ms", heartbeat, why);
}

static rd_kafka_conf_t *consumer_conf(struct group *g) {
    struct kafka_log *k = &g->topic;
    char *why = k->log.why, id[KAFKA_TOPIC_MAX + 16];
    rd_kafka_conf_t *conf = kafka_conf(k->url, k->servers, why);
    if (!conf)
        return NULL;
    snprintf(id, sizeof id, "%s-workers", k->topic);
    rd_kafka_conf_set_opaque(conf, g);
    rd_kafka_conf_set_error_cb(conf, keep_error);
    rd_kafka_conf_set_rebalance_cb(conf, rebalanced);
    if (kafka_set(conf, "group.id", id, why) &&
        kafka_set(conf, "partition.assignment.strategy", "cooperative-sticky", why) &&
        kafka_set(conf, "enable.auto.commit", "false", why) &&
        kafka_set(conf, "enable.auto.offset.store", "false", why) &&
        kafka_set(conf, "enable.partition.eof", "true", why) && /* it says that a broker answers */
        kafka_set(conf, "auto.offset.reset", "earliest", why) && set_session(conf, k, why) &&
        kafka_set(conf, "max.poll.interval.ms", "60000", why) &&
        kafka_set(conf, "fetch.wait.max.ms", "100", why) &&
        kafka_set(conf, "fetch.max.bytes", "8388608", why) &&
        kafka_set(conf, "queued.max.messages.kbytes", "8192", why))
        return conf;
    rd_kafka_conf_destroy(conf);
    return NULL;
}

static int subscribe(struct group *g) {
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, g->topic.topic, RD_KAFKA_PARTITION_UA);
    rd_kafka_resp_err_t error = rd_kafka_subscribe(consumer_of(g), list);
    rd_kafka_topic_partition_list_destroy(list);
    return error ? log_fail(g->topic.log.why, LOG_E_UNAVAILABLE, "Kafka: cannot join the group: %s",
                            rd_kafka_err2str(error))
                 : 0;
}

static int join_group(struct group *g) {
    struct kafka_log *k = &g->topic;
    char why[LOG_WHY_MAX];
    rd_kafka_conf_t *conf = consumer_conf(g);
    if (!conf)
        return LOG_E_REFUSED;
    k->producer = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof why);
    if (!k->producer) {
        rd_kafka_conf_destroy(conf);
        return log_fail(k->log.why, LOG_E_REFUSED, "Kafka: %.200s", why);
    }
    int r = kafka_topic_prepare(k);
    if (r)
        return r;
    rd_kafka_poll_set_consumer(consumer_of(g));
    k->one_queue = true;
    return subscribe(g);
}

int group_open(struct os *os, const struct group_options *options, struct group **ret_group,
               char why[GROUP_WHY_MAX]) {
    struct group *g = calloc(1, sizeof *g);
    if (!g)
        return error_origin(-ENOMEM);
    g->os = os;
    g->options = *options;
    g->status.reachable = true;
    mutex_init(&g->lock, LOCK_RANK_JOURNAL_FILES);
    const struct log_options log = {.url = options->url,
                                    .timeout_ms =
                                        options->timeout_ms ? options->timeout_ms : TIMEOUT_MS,
                                    .warn = options->tell,
                                    .context = options->context};
    int r = shared_topic_init(&g->topic, os, &log);
    if (!r)
        r = join_group(g);
    if (r) {
        snprintf(why, GROUP_WHY_MAX, "%s", g->topic.log.why);
        group_close(g);
        return r == LOG_E_REFUSED ? JOURNAL_E_REFUSED : JOURNAL_E_UNAVAILABLE;
    }
    *ret_group = g;
    return 0;
}

static void give_back_lent(struct group *g) {
    for (size_t i = 0; i < g->n_lent; i++)
        rd_kafka_message_destroy(g->lent[i]);
    g->n_lent = 0;
}

/* A broker that hangs is not waited for longer than for an answer: the session ends by itself. */
static void leave_group(struct group *g) {
    uint64_t until = os_monotonic_ns(g->os) + g->topic.timeout_ms * 1000000;
    rd_kafka_queue_t *queue = rd_kafka_queue_get_consumer(consumer_of(g));
    rd_kafka_error_t *error = rd_kafka_consumer_close_queue(consumer_of(g), queue);
    while (!error && !rd_kafka_consumer_closed(consumer_of(g)) && os_monotonic_ns(g->os) < until) {
        rd_kafka_message_t *m = rd_kafka_consumer_poll(consumer_of(g), 50);
        if (m)
            rd_kafka_message_destroy(m);
    }
    if (error)
        rd_kafka_error_destroy(error);
    rd_kafka_queue_destroy(queue);
}

struct group *group_close(struct group *g) {
    if (!g)
        return NULL;
    give_back_lent(g);
    for (size_t i = 0; i < g->n_held; i++)
        rd_kafka_message_destroy(g->held[i]);
    if (consumer_of(g)) {
        leave_group(g);
        rd_kafka_destroy_flags(consumer_of(g), RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    }
    buffer_deinit(&g->records);
    mutex_deinit(&g->lock);
    free(g);
    return NULL;
}

/* ---- beginning with a partition ---- */

static rd_kafka_topic_partition_list_t *one_partition(const struct group *g, unsigned p,
                                                      int64_t offset) {
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, g->topic.topic, (int32_t)p)->offset = offset;
    return list;
}

/* Moves what is fetched to where the partition is to be read. */
static bool seek_to_next(struct group *g, unsigned p) {
    struct partition *part = &g->partitions[p];
    rd_kafka_topic_partition_list_t *list = one_partition(g, p, (int64_t)part->next);
    rd_kafka_error_t *error =
        rd_kafka_seek_partitions(consumer_of(g), list, (int)g->topic.timeout_ms);
    bool moved = !error && !list->elems[0].err;
    if (error)
        rd_kafka_error_destroy(error);
    if (moved)
        rd_kafka_resume_partitions(consumer_of(g), list);
    rd_kafka_topic_partition_list_destroy(list);
    return moved;
}

/* The store's position, as an offset of what the topic has. A store ahead of it has seen another
 * topic of this name: what comes now would be taken for what it has. */
static bool find_next(struct group *g, unsigned p) {
    struct partition *part = &g->partitions[p];
    int64_t low, high;
    if (g->options.position(g->options.context, p, &part->position))
        return false;
    if (rd_kafka_query_watermark_offsets(consumer_of(g), g->topic.topic, (int32_t)p, &low, &high,
                                         (int)g->topic.timeout_ms))
        return false;
    part->next = shared_offset(part->position);
    part->ahead = part->next > (uint64_t)high || (part->position && part->next == (uint64_t)high);
    if (part->ahead) {
        say_reachable(g, false,
                      "the store is ahead of the journal: the topic was made anew, or has lost "
                      "records; choose another topic-prefix");
        return false;
    }
    if (part->next < (uint64_t)low)
        part->next = (uint64_t)low;
    return true;
}

/* From the position on, once there is time to seek it. */
static void read_again(struct group *g, unsigned p) {
    rd_kafka_topic_partition_list_t *list = one_partition(g, p, RD_KAFKA_OFFSET_END);
    rd_kafka_pause_partitions(consumer_of(g), list);
    rd_kafka_topic_partition_list_destroy(list);
    g->partitions[p].state = NEW;
}

/* What is held of it was fetched before. */
static void drop_held(struct group *g, unsigned p) {
    size_t kept = 0;
    for (size_t i = 0; i < g->n_held; i++) {
        rd_kafka_message_t *m = g->held[i];
        if ((unsigned)m->partition != p) {
            g->held[kept++] = m;
            continue;
        }
        g->held_bytes -= m->len;
        rd_kafka_message_destroy(m);
    }
    g->n_held = kept;
}

static void begin_partition(struct group *g, unsigned p) {
    struct partition *part = &g->partitions[p];
    if (!find_next(g, p) || !seek_to_next(g, p))
        return;
    drop_held(g, p);
    part->state = READING;
    part->read = 0;
    part->committed = part->trimmed = part->next;
}

/* Whoever is asked may not answer for long: after a second the partitions that are read already
 * have their turn, for as long as was waited. */
static void begin_partitions(struct group *g) {
    uint64_t begun = os_monotonic_ns(g->os), now = begun;
    if (begun < g->start_ns)
        return;
    for (unsigned i = 0; i < g->topic.partitions && now - begun < SECOND_NS; i++) {
        unsigned p = g->start_next++ % g->topic.partitions;
        if (g->partitions[p].state == NEW)
            begin_partition(g, p);
        now = os_monotonic_ns(g->os);
    }
    g->start_ns = now + (now - begun > START_NS ? now - begun : START_NS);
}

/* ---- what is told to Kafka ---- */

/* The first offset that the store may yet need. */
static uint64_t needed_offset(const struct partition *part) {
    return part->position >= part->read ? part->next : shared_offset(part->position);
}

static void commit_offsets(struct group *g) {
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    for (unsigned p = 0; p < g->topic.partitions; p++) {
        struct partition *part = &g->partitions[p];
        uint64_t offset = needed_offset(part);
        if (part->state != READING || offset <= part->committed)
            continue;
        rd_kafka_topic_partition_list_add(list, g->topic.topic, (int32_t)p)->offset =
            (int64_t)offset;
        part->committed = offset;
    }
    if (list->cnt) /* one that is lost only shows a larger lag for a second */
        (void)rd_kafka_commit(consumer_of(g), list, true);
    rd_kafka_topic_partition_list_destroy(list);
}

static void look_at_lag(struct group *g) {
    uint64_t lag = 0;
    for (unsigned p = 0; p < g->topic.partitions; p++) {
        int64_t low, high;
        if (g->partitions[p].state == READING &&
            !rd_kafka_get_watermark_offsets(consumer_of(g), g->topic.topic, (int32_t)p, &low,
                                            &high) &&
            high > (int64_t)needed_offset(&g->partitions[p]))
            lag += (uint64_t)high - needed_offset(&g->partitions[p]);
    }
    mutex_lock(&g->lock);
    g->status.lag_messages = lag;
    mutex_unlock(&g->lock);
}

/* One partition a time: what the store has persisted goes. Best effort. */
static void trim(struct group *g) {
    unsigned p = g->trim_next++ % g->topic.partitions;
    struct partition *part = &g->partitions[p];
    uint64_t offset = needed_offset(part);
    if (part->state == READING && offset > part->trimmed &&
        kafka_topic_trim(&g->topic, p, offset) == 0)
        part->trimmed = offset;
}

static bool asks_metadata(struct group *g) {
    const struct rd_kafka_metadata *metadata = NULL;
    bool answered = rd_kafka_metadata(consumer_of(g), 0, NULL, &metadata, 200) == 0;
    if (metadata)
        rd_kafka_metadata_destroy(metadata);
    return answered;
}

static void report(struct group *g) {
    uint64_t now = os_monotonic_ns(g->os);
    if (now - g->reported_ns < REPORT_NS)
        return;
    g->reported_ns = now;
    commit_offsets(g);
    look_at_lag(g);
    bool away = !g->status.reachable; /* written by this thread alone */
    if (away && asks_metadata(g))
        say_well(g);
    if (away || now - g->trimmed_ns < TRIM_NS / g->topic.partitions)
        return;
    g->trimmed_ns = now;
    trim(g);
}

/* ---- reading ---- */

static bool has_room(const struct group *g) {
    return g->n_held < HELD_MAX && g->held_bytes < HELD_BYTES_MAX;
}

/* What there is no room for is read again, from the position on. */
static void hold_message(struct group *g, rd_kafka_message_t *m) {
    struct partition *part = &g->partitions[m->partition];
    if (part->state == READING && has_room(g)) {
        g->held[g->n_held++] = m;
        g->held_bytes += m->len;
        return;
    }
    if (part->state == READING)
        read_again(g, (unsigned)m->partition);
    rd_kafka_message_destroy(m);
}

/* Waits for one message and takes what there is then. */
static void poll_messages(struct group *g, uint64_t wait_ms) {
    do {
        rd_kafka_message_t *m = rd_kafka_consumer_poll(consumer_of(g), (int)wait_ms);
        if (!m)
            return;
        wait_ms = 0;
        if (!m->err) {
            hold_message(g, m);
            continue;
        }
        if (m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF && !g->status.reachable)
            say_well(g);
        rd_kafka_message_destroy(m);
    } while (has_room(g));
}

/* Whether the message is the next of a partition that is ours; else it is of no use. Before one
 * that is too far on something may have been missed, so all from the position on is read again. If
 * nothing is found there then, there is nothing: others' transactions leave such gaps. */
static bool is_next(struct group *g, const rd_kafka_message_t *m) {
    struct partition *part = &g->partitions[m->partition];
    uint64_t offset = (uint64_t)m->offset;
    if (part->state != READING || offset < part->next)
        return false;
    if (offset == part->next)
        return true;
    if (part->gap_from == part->next && part->gap_end == offset) {
        part->next = offset;
        return true;
    }
    part->gap_from = part->next;
    part->gap_end = offset;
    read_again(g, (unsigned)m->partition);
    return false;
}

/* The broker checks what it stores, so what is no message of ours has never been one: it is passed,
 * and counted. */
static void pass_strange(struct group *g, const rd_kafka_message_t *m) {
    char sentence[GROUP_WHY_MAX];
    mutex_lock(&g->lock);
    bool first = g->status.strange_messages++ == 0;
    mutex_unlock(&g->lock);
    if (!first || !g->options.tell)
        return;
    snprintf(sentence, sizeof sentence,
             "the topic %.100s has messages that are none of millrace, as that at offset %lld of "
             "partition %d: they are passed over; give the journal a topic of its own",
             g->topic.topic, (long long)m->offset, (int)m->partition);
    g->options.tell(g->options.context, sentence);
}

/* Records that were persisted before are left out. */
static void decode(struct group *g, const rd_kafka_message_t *m, struct partition *part) {
    size_t before = g->records.size;
    if (!shared_message_load(bytes_of(m->payload, m->len), (uint64_t)m->offset, &g->records)) {
        if (!g->records.failed)
            pass_strange(g, m);
        return;
    }
    struct journal_record *all = (struct journal_record *)(void *)g->records.data;
    size_t first = before / sizeof *all, n = g->records.size / sizeof *all, kept = first;
    if (n > first)
        part->read = all[n - 1].lsn;
    for (size_t i = first; i < n; i++)
        if (all[i].lsn > part->position)
            all[kept++] = all[i];
    g->records.size = kept * sizeof *all;
}

/* Moves what is held of the first message's partition into the batch. */
static void lend(struct group *g, unsigned p) {
    struct partition *part = &g->partitions[p];
    size_t kept = 0, bytes = 0;
    for (size_t i = 0; i < g->n_held; i++) {
        rd_kafka_message_t *m = g->held[i];
        if ((unsigned)m->partition != p || bytes > BATCH_BYTES_MAX) {
            g->held[kept++] = m;
            continue;
        }
        g->held_bytes -= m->len;
        g->lent[g->n_lent++] = m;
        if (!is_next(g, m))
            continue;
        bytes += m->len;
        part->next++;
        decode(g, m, part);
    }
    g->n_held = kept;
}

static int take_batch(struct group *g, struct group_batch *ret_batch) {
    give_back_lent(g);
    buffer_clear(&g->records);
    if (g->n_held == 0)
        return JOURNAL_E_END;
    unsigned p = (unsigned)g->held[0]->partition;
    lend(g, p);
    int r = buffer_check(&g->records);
    if (r) {
        read_again(g, p);
        return error_trace(r);
    }
    struct group_batch batch = {.partition = p,
                                .records = (struct journal_record *)(void *)g->records.data,
                                .n = g->records.size / sizeof(struct journal_record)};
    if (batch.n == 0)
        return JOURNAL_E_END;
    *ret_batch = batch;
    return 0;
}

static void pause_or_resume(struct group *g, bool pause) {
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    for (unsigned p = 0; p < g->topic.partitions; p++)
        if (g->partitions[p].state == READING)
            rd_kafka_topic_partition_list_add(list, g->topic.topic, (int32_t)p);
    if (list->cnt && pause)
        rd_kafka_pause_partitions(consumer_of(g), list);
    else if (list->cnt)
        rd_kafka_resume_partitions(consumer_of(g), list);
    rd_kafka_topic_partition_list_destroy(list);
    g->paused = pause;
}

int group_read(struct group *g, uint64_t wait_ms, struct group_batch *ret_batch) {
    give_back_lent(g);
    if (g->paused)
        pause_or_resume(g, false);
    begin_partitions(g);
    report(g);
    if (has_room(g))
        poll_messages(g, g->n_held ? 0 : wait_ms);
    return take_batch(g, ret_batch);
}

bool group_hold(struct group *g, unsigned partition, uint64_t wait_ms) {
    if (!g->paused)
        pause_or_resume(g, true);
    report(g);
    poll_messages(g, wait_ms); /* also without room: who does not poll is put out of the group */
    return g->partitions[partition].state == READING;
}

void group_persisted(struct group *g, unsigned partition, lsn_t lsn) {
    if (lsn > g->partitions[partition].position)
        g->partitions[partition].position = lsn;
}

void group_status(struct group *g, struct group_status *ret_status) {
    mutex_lock(&g->lock);
    *ret_status = g->status;
    mutex_unlock(&g->lock);
}
