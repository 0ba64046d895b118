/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The topic of a shared journal, as its URL names it.
 */
#include "journal/remote/shared.h"

#include <stdio.h>

#define TOPIC "records" /* behind the prefix */

static const char *const parameters[] = {
    "partitions",      "topic-prefix", "replication", "min-insync", "compression",
    "session-timeout", "tls",          "ca",          "sasl",       NULL};

bool journal_url_is_shared(const struct service_url *url) {
    return strcmp(url->scheme, "kafka") == 0 && service_url_parameter(url, "partitions");
}

unsigned journal_url_partitions(const struct service_url *url) {
    uint64_t n = 0;
    bool right = service_url_parameter_number(url, "partitions", 1, GROUP_PARTITIONS_MAX, &n);
    return right && journal_url_is_shared(url) ? (unsigned)n : 0;
}

void journal_url_topic(const struct service_url *url, char out[GROUP_TOPIC_MAX]) {
    const char *prefix = service_url_parameter(url, "topic-prefix");
    int size = snprintf(out, GROUP_TOPIC_MAX, "%s%s", prefix ? prefix : KAFKA_TOPIC_PREFIX, TOPIC);
    if (size < 0 || size >= GROUP_TOPIC_MAX)
        out[0] = '\0';
}

int shared_topic_init(struct kafka_log *k, struct os *os, const struct log_options *options) {
    int r = kafka_log_init(k, os, options, parameters, TOPIC);
    if (r)
        return r;
    k->partitions = journal_url_partitions(options->url);
    return k->partitions ? 0
                         : log_fail(k->log.why, LOG_E_REFUSED,
                                    "partitions is a number from 1 to %d in the journal's URL",
                                    GROUP_PARTITIONS_MAX);
}
