/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A consumer of librdkafka's that joins nothing: it knows the group's name, and asks its
 * coordinator for the offsets, and the leaders of partitions for their ends.
 */
#include "journal/progress.h"

#include "journal/remote/kafka_shared.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct progress {
    struct kafka_log topic; /* its producer is the consumer */
};

static int make_consumer(struct progress *p) {
    struct kafka_log *k = &p->topic;
    char id[KAFKA_GROUP_MAX];
    kafka_group_id(k, id);
    const struct kafka_setting settings[] = {
        {"group.id", id}, {"enable.auto.commit", "false"}, {NULL, NULL}};
    k->producer = kafka_client(RD_KAFKA_CONSUMER, kafka_conf(k, settings, k->log.why), k->log.why);
    return k->producer ? 0 : LOG_E_REFUSED;
}

int progress_open(struct os *os, const struct service_url *url, const char *name,
                  uint64_t timeout_ms, struct progress **ret_progress, char why[GROUP_WHY_MAX]) {
    const struct log_options options = {.url = url, .name = name, .timeout_ms = timeout_ms};
    struct progress *p = calloc(1, sizeof *p);
    if (!p)
        return error_origin(-ENOMEM);
    int r = kafka_shared_init(&p->topic, os, &options);
    if (!r)
        r = make_consumer(p);
    if (r) {
        snprintf(why, GROUP_WHY_MAX, "%s", p->topic.log.why);
        progress_close(p);
        return JOURNAL_E_REFUSED;
    }
    *ret_progress = p;
    return 0;
}

struct progress *progress_close(struct progress *p) {
    if (!p)
        return NULL;
    kafka_disconnect(&p->topic);
    free(p);
    return NULL;
}

unsigned progress_partitions(const struct progress *p) {
    return p->topic.partitions;
}

static rd_kafka_topic_partition_list_t *all_partitions(const struct progress *p, int64_t offset) {
    int n = (int)p->topic.partitions;
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(n);
    for (int i = 0; i < n; i++)
        rd_kafka_topic_partition_list_add(list, p->topic.topic, i)->offset = offset;
    return list;
}

/* missing: what an offset that is none stands for. */
static int take(rd_kafka_resp_err_t error, rd_kafka_topic_partition_list_t *list,
                rd_kafka_resp_err_t missing, uint64_t *ret_offsets) {
    for (int i = 0; !error && i < list->cnt; i++) {
        const rd_kafka_topic_partition_t *e = &list->elems[i];
        error = e->err ? e->err : e->offset < 0 ? missing : RD_KAFKA_RESP_ERR_NO_ERROR;
        ret_offsets[e->partition] = e->offset > 0 ? (uint64_t)e->offset : 0;
    }
    rd_kafka_topic_partition_list_destroy(list);
    return error ? JOURNAL_E_UNAVAILABLE : 0;
}

int progress_ends(struct progress *p, uint64_t ret_offsets[GROUP_PARTITIONS_MAX]) {
    /* Times are looked up by the offsets given: this one stands for the end. */
    rd_kafka_topic_partition_list_t *list = all_partitions(p, RD_KAFKA_OFFSET_END);
    return take(rd_kafka_offsets_for_times(p->topic.producer, list, (int)p->topic.timeout_ms), list,
                RD_KAFKA_RESP_ERR__NO_OFFSET, ret_offsets); /* not told is not empty */
}

int progress_positions(struct progress *p, uint64_t ret_offsets[GROUP_PARTITIONS_MAX]) {
    rd_kafka_topic_partition_list_t *list = all_partitions(p, RD_KAFKA_OFFSET_INVALID);
    return take(rd_kafka_committed(p->topic.producer, list, (int)p->topic.timeout_ms), list,
                RD_KAFKA_RESP_ERR_NO_ERROR, ret_offsets); /* nothing was committed yet */
}
