/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Profiles, aggregates and ids. A profile is two lists of one slot; an aggregate is asked of every
 * shard of every minute, and summed here; an id is a script on its collection.
 */
#include "events/redis/internal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

/* ---- Profiles ---- */

enum { MEMBER_PLACE = 12 }; /* lane and lsn stand before the tag */

static int take_tag(struct arena *a, const redisReply *reply, struct event_record *ret_record) {
    if (reply->type != REDIS_REPLY_STRING || reply->len <= MEMBER_PLACE)
        return error_origin(-EBADMSG);
    size_t size = reply->len - MEMBER_PLACE;
    uint8_t *copy = arena_alloc(a, size);
    if (!copy)
        return error_origin(-ENOMEM);
    memcpy(copy, reply->str + MEMBER_PLACE, size);
    return event_record_decode_kept(bytes_of(copy, size), ret_record) ? 0 : error_origin(-EBADMSG);
}

static int take_list(struct arena *a, const redisReply *reply, struct events_redis_list *list) {
    int r = reply->type == REDIS_REPLY_ARRAY ? 0 : error_origin(-EBADMSG);
    if (r)
        return r;
    list->tags = arena_calloc(a, reply->elements + 1, sizeof *list->tags);
    if (!list->tags)
        return error_origin(-ENOMEM);
    for (; !r && list->n < reply->elements; list->n++)
        r = take_tag(a, reply->element[list->n], &list->tags[list->n]);
    return error_trace(r);
}

struct profile_range {
    struct bytes below; /* "(" and the end */
    struct bytes from;
    struct bytes limit;
};

static int ask_lists(struct events_redis *s, struct arena *a, struct bytes cookie,
                     const struct profile_range *range, struct redis_command *commands,
                     char why[EVENTS_REDIS_WHY_MAX]) {
    enum { WORDS = 7 };
    unsigned bucket = key_cookies_of(event_key_hash(cookie));
    struct bytes *words = arena_calloc(a, (size_t)WORDS * EVENT_ACTIONS, sizeof *words);
    if (!words || !range->below.data || !range->from.data || !range->limit.data)
        return error_origin(-ENOMEM);
    for (unsigned action = 0; action < EVENT_ACTIONS; action++) {
        struct bytes *w = words + (size_t)WORDS * action;
        w[0] = BYTES_LITERAL("ZREVRANGEBYSCORE");
        w[1] = key_tags(a, s->prefix, bucket, (enum event_action)action, cookie);
        w[2] = range->below;
        w[3] = range->from;
        w[4] = BYTES_LITERAL("LIMIT");
        w[5] = BYTES_LITERAL("0");
        w[6] = range->limit;
        if (!w[1].data)
            return error_origin(-ENOMEM);
        commands[action] = redis_plain(w, WORDS);
    }
    return redis_ask(s, commands, EVENT_ACTIONS, false, redis_read_timeout(s), why);
}

int events_redis_profile(struct events_redis *s, struct bytes cookie, int64_t from_ms,
                         int64_t to_ms, size_t limit, struct events_redis_profile *ret_profile,
                         char why[EVENTS_REDIS_WHY_MAX]) {
    struct arena *a = ret_profile->arena;
    struct redis_command commands[EVENT_ACTIONS] = {0};
    const struct profile_range range = {.below = key_format(a, "(%" PRId64, to_ms),
                                        .from = key_format(a, "%" PRId64, from_ms),
                                        .limit = key_format(a, "%zu", limit)};
    memset(ret_profile->lists, 0, sizeof ret_profile->lists);
    if (limit == 0 || redis_is_hidden(s, event_key_hash(cookie)))
        return 0;
    int r = ask_lists(s, a, cookie, &range, commands, why);
    for (size_t i = 0; !r && i < EVENT_ACTIONS; i++)
        r = take_list(a, commands[i].reply, &ret_profile->lists[i]);
    redis_commands_free(commands, EVENT_ACTIONS);
    return r > 0 ? r : error_trace(r);
}

/* ---- Aggregates ---- */

static struct bytes field_of(struct arena *a, const struct events_redis_query *q) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    key_append_combination(&out, q->action, q->filtered, q->filters);
    uint8_t *copy = out.failed ? NULL : arena_alloc(a, out.size);
    if (!copy)
        return (struct bytes){0};
    memcpy(copy, out.data, out.size);
    return bytes_of(copy, out.size);
}

/* What is not there is 0. */
static int add_shard(const redisReply *reply, struct event_aggregate *sum) {
    if (reply->type == REDIS_REPLY_NIL)
        return 0;
    if (reply->type != REDIS_REPLY_STRING || reply->len != KEY_AGGREGATE_BYTES)
        return error_origin(-EBADMSG);
    sum->count += load_u64(reply->str);
    sum->sum += (int64_t)load_u64(reply->str + 8);
    return 0;
}

static int ask_shards(struct events_redis *s, struct arena *a, const struct events_redis_query *q,
                      struct redis_command *commands, size_t n, char why[EVENTS_REDIS_WHY_MAX]) {
    enum { WORDS = 3 };
    struct bytes *words = arena_calloc(a, WORDS * n + 1, sizeof *words);
    struct bytes field = field_of(a, q);
    if (!words || !field.data)
        return error_origin(-ENOMEM);
    for (size_t i = 0; i < n; i++) {
        struct bytes *w = words + WORDS * i;
        w[0] = BYTES_LITERAL("HGET");
        w[1] = key_minute(a, s->prefix, q->first_minute + (int64_t)(i / MINUTE_SHARDS),
                          i % MINUTE_SHARDS);
        w[2] = field;
        if (!w[1].data)
            return error_origin(-ENOMEM);
        commands[i] = redis_plain(w, WORDS);
    }
    return redis_ask(s, commands, n, false, redis_read_timeout(s), why);
}

/* No tag has a value so long. */
static bool finds_nothing(const struct events_redis_query *q) {
    for (size_t i = 0; i < EVENT_FILTERS; i++)
        if (q->filtered[i] && q->filters[i].size > EVENT_TEXT_MAX)
            return true;
    return false;
}

int events_redis_aggregate(struct events_redis *s, const struct events_redis_query *query,
                           struct event_aggregate *out, char why[EVENTS_REDIS_WHY_MAX]) {
    CLEANUP(arena_deinit) struct arena a = ARENA_INIT(ARENA_BYTES_MAX);
    struct redis_command commands[EVENT_RANGE_MINUTES_MAX * MINUTE_SHARDS] = {0};
    size_t n = (size_t)query->minutes * MINUTE_SHARDS;
    assert(n <= ARRAY_LENGTH(commands));
    memset(out, 0, query->minutes * sizeof *out);
    if (finds_nothing(query))
        return 0;
    int r = ask_shards(s, &a, query, commands, n, why);
    for (size_t i = 0; !r && i < n; i++)
        r = add_shard(commands[i].reply, &out[i / MINUTE_SHARDS]);
    redis_commands_free(commands, n);
    return r > 0 ? r : error_trace(r);
}

/* ---- Ids ---- */

/* A field that no element has is the counter's. */
static struct bytes element_field(struct arena *a, struct bytes element) {
    uint8_t *field = arena_alloc(a, element.size + 1);
    if (!field)
        return (struct bytes){0};
    field[0] = 'e';
    if (element.size)
        memcpy(field + 1, element.data, element.size);
    return bytes_of(field, element.size + 1);
}

static int take_id(const redisReply *reply, uint32_t *ret_id, char why[EVENTS_REDIS_WHY_MAX]) {
    if (reply->type == REDIS_REPLY_INTEGER && reply->integer == -1)
        return EVENTS_REDIS_E_FULL;
    if (reply->type != REDIS_REPLY_INTEGER || reply->integer < 0 || reply->integer > INT32_MAX)
        return redis_odd(why);
    *ret_id = (uint32_t)reply->integer;
    return 0;
}

int events_redis_id(struct events_redis *s, struct bytes collection, struct bytes element,
                    bool create, uint32_t *ret_id, char why[EVENTS_REDIS_WHY_MAX]) {
    CLEANUP(arena_deinit) struct arena a = ARENA_INIT(ARENA_BYTES_MAX);
    const struct bytes arguments[] = {
        key_collection(&a, s->prefix, collection), element_field(&a, element),
        create ? BYTES_LITERAL("1") : BYTES_LITERAL("0"), key_format(&a, "%d", INT32_MAX)};
    if (!arguments[0].data || !arguments[1].data || !arguments[3].data)
        return error_origin(-ENOMEM);
    struct redis_command command = {.key = arguments[0],
                                    .script = &s->scripts.id,
                                    .n_keys = 1,
                                    .arguments = arguments,
                                    .n = ARRAY_LENGTH(arguments)};
    int r = redis_ask(s, &command, 1, true, redis_read_timeout(s), why);
    if (!r)
        r = take_id(command.reply, ret_id, why);
    redis_commands_free(&command, 1);
    return r > 0 ? r : error_trace(r);
}
