/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What waits in a shared journal on Redis: what the streams have given behind the offsets, less the
 * jumps, in one script.
 */
#include "journal/remote/redis_shared.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { HEAD = 3, NUMBER_TEXT = 24 };

/* KEYS: the streams; ARGV: of each the first offset that may wait. */
static const char script_count[] = REDIS_SCRIPT_SAME REDIS_SCRIPT_NEWEST
    "local waiting = 0 "
    "for i = 1, #KEYS - 1 do "
    "  local at, top = tonumber(ARGV[i]), newest(KEYS[i]) "
    "  local n = math.max(top - at, 0) "
    "  for _, jump in ipairs(redis.call('ZRANGE', KEYS[i]..':jumps', 0, -1)) do "
    "    local from, to = string.match(jump, '^(%d+)-(%d+)$') "
    "    from, to = math.max(tonumber(from), at), math.min(tonumber(to), top) "
    "    if to > from then n, at = n - (to - from), to end "
    "  end "
    "  waiting = waiting + n "
    "end "
    "return waiting";

struct watch {
    struct shared_watch watch; /* first */
    struct redis_streams streams;
};

static struct watch *watch_of(struct shared_watch *w) {
    return (struct watch *)w;
}

static int watch_open(struct os *os, const struct log_options *options,
                      struct shared_watch **ret_watch) {
    struct watch *w = calloc(1, sizeof *w);
    if (!w)
        return error_origin(-ENOMEM);
    w->watch.ops = &redis_watch_ops;
    *ret_watch = &w->watch;
    return redis_streams_open(&w->streams, os, options, false, w->watch.why);
}

static void watch_close(struct shared_watch *watch) {
    struct watch *w = watch_of(watch);
    redis_streams_close(&w->streams);
    free(w);
}

static int watch_count(struct shared_watch *watch, const uint64_t *offsets,
                       uint64_t *ret_messages) {
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    struct redis_streams *s = &watch_of(watch)->streams;
    char names[GROUP_PARTITIONS_MAX][REDIS_NAME_MAX], numbers[GROUP_PARTITIONS_MAX][NUMBER_TEXT];
    struct bytes words[HEAD + 2 * (GROUP_PARTITIONS_MAX + 1)];
    char n_keys[NUMBER_TEXT];
    size_t n = s->n, at = 0;
    snprintf(n_keys, sizeof n_keys, "%zu", n + 1);
    words[at++] = BYTES_LITERAL("EVAL");
    words[at++] = bytes_of_string(script_count);
    words[at++] = bytes_of_string(n_keys);
    for (unsigned p = 0; p < n; p++)
        words[at++] = redis_stream_name(s, p, "", names[p]);
    words[at++] = bytes_of_string(s->identity_key);
    for (unsigned p = 0; p < n; p++) {
        snprintf(numbers[p], NUMBER_TEXT, "%" PRIu64, offsets[p]);
        words[at++] = bytes_of_string(numbers[p]);
    }
    words[at++] = bytes_of_string(s->identity);
    redis_link_begin(&s->link, 0);
    int r = redis_log_result(redis_link_command(&s->link, words, at, &reply));
    if (r)
        return r;
    if (reply->type != REDIS_REPLY_INTEGER)
        return redis_streams_are_other(s, reply) ? LOG_E_UNAVAILABLE
                                                 : redis_log_result(redis_link_odd(&s->link));
    *ret_messages = (uint64_t)reply->integer;
    return 0;
}

const struct shared_watch_ops redis_watch_ops = {
    .open = watch_open,
    .close = watch_close,
    .count = watch_count,
};
