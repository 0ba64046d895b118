/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mark of a shared journal on Kafka: the first message of the topic `<log>-store`, which is of
 * the form of things that are kept (kept.h). Who finds none puts his own there, and looks again:
 * whatever others have put meanwhile, all see the same one first. Each has a key that nobody else
 * has, so that none is ever compacted away.
 */
#include "journal/kept.h"
#include "journal/remote/kafka_shared.h"

#include <stdio.h>

enum { KEY_BYTES = 16 };

static void take_first(void *context, const struct kept_message *message) {
    struct journal_mark *mark = context;
    if (mark->there)
        return;
    mark->there = true;
    snprintf(mark->text, sizeof mark->text, "%.*s", (int)message->value.size,
             (const char *)message->value.data);
}

static int look(struct kept *k, struct journal_mark *mark, char why[GROUP_WHY_MAX]) {
    uint64_t at = 0;
    return kept_follow(k, &at, take_first, mark, why);
}

static int put(struct kept *k, struct os *os, const char *text, char why[GROUP_WHY_MAX]) {
    uint8_t key[KEY_BYTES];
    int r = os_random(os, key, sizeof key);
    return r ? error_fold(r) : kept_put(k, bytes_of(key, sizeof key), bytes_of_string(text), why);
}

static int look_or_put(struct kept *k, struct os *os, const char *text, struct journal_mark *mark,
                       char why[GROUP_WHY_MAX]) {
    int r = look(k, mark, why);
    if (r || mark->there || !text)
        return r;
    r = put(k, os, text, why);
    return r ? r : look(k, mark, why);
}

int kafka_mark(struct os *os, const struct log_options *options, const char *text,
               struct journal_mark *ret_mark, char why[LOG_WHY_MAX]) {
    char name[KAFKA_TOPIC_MAX];
    const struct kept_options kept = {
        .url = options->url, .name = name, .timeout_ms = options->timeout_ms, .existing = !text};
    struct kafka_log topic;
    struct kept *k;
    snprintf(name, sizeof name, "%.100s-store", options->name);
    int r = kafka_shared_init(&topic, os, options);
    if (r)
        return log_fail(why, r, "%s", topic.log.why);
    snprintf(ret_mark->place, sizeof ret_mark->place, "the topic %s-store", topic.topic);
    r = kept_open(os, &kept, &k, why);
    if (!r) {
        r = look_or_put(k, os, text, ret_mark, why);
        kept_close(k);
    }
    ret_mark->ours = ret_mark->there && text && strcmp(ret_mark->text, text) == 0;
    if (r <= 0)
        return error_trace(r);
    return r == JOURNAL_E_REFUSED ? LOG_E_REFUSED : LOG_E_UNAVAILABLE;
}
