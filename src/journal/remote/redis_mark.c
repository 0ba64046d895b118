/* SPDX-License-Identifier: Apache-2.0 */
/* The mark of a shared journal on Redis: the key `<log>:store`. */
#include "journal/remote/redis_shared.h"

#include <stdio.h>

/* KEYS: :store, :identity; ARGV: the text, or "" to look, and what the identity was. Returns what
 * is there, or "". */
static const char script_mark[] =
    REDIS_SCRIPT_SAME "if ARGV[1] ~= '' then redis.call('SET', KEYS[1], ARGV[1], 'NX') end "
                      "return redis.call('GET', KEYS[1]) or ''";

static int take(struct redis_streams *s, const redisReply *reply, const char *text,
                struct journal_mark *mark) {
    if (redis_streams_are_other(s, reply))
        return LOG_E_UNAVAILABLE;
    if (reply->type != REDIS_REPLY_STRING)
        return redis_log_result(redis_link_odd(&s->link));
    snprintf(mark->text, sizeof mark->text, "%s", reply->str);
    mark->there = reply->len > 0;
    mark->ours = mark->there && text && strcmp(mark->text, text) == 0;
    return 0;
}

static int ask(struct redis_streams *s, const char *text, struct journal_mark *mark) {
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    char key[REDIS_NAME_MAX];
    snprintf(key, sizeof key, "%.150s:store", s->log);
    snprintf(mark->place, sizeof mark->place, "the key %s in Redis", key);
    const struct bytes script[] = {BYTES_LITERAL("EVAL"),
                                   bytes_of_string(script_mark),
                                   BYTES_LITERAL("2"),
                                   bytes_of_string(key),
                                   bytes_of_string(s->identity_key),
                                   bytes_of_string(text ? text : ""),
                                   bytes_of_string(s->identity)};
    int r = redis_log_result(redis_link_command(&s->link, script, ARRAY_LENGTH(script), &reply));
    if (!r)
        r = take(s, reply, text, mark);
    return r ? r : redis_log_result(redis_wait_for_replicas(&s->link, text ? s->replicas : 0));
}

int redis_mark(struct os *os, const struct log_options *options, const char *text,
               struct journal_mark *ret_mark, char why[LOG_WHY_MAX]) {
    struct redis_streams streams = {0};
    int r = redis_streams_open(&streams, os, options, false, why);
    if (!r)
        r = ask(&streams, text, ret_mark);
    redis_streams_close(&streams);
    return error_trace(r);
}
