/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tasks on Redis. All keys have one hash tag, so they are of one slot:
 *
 *   {millrace-tasks}        a hash: the pairs of the store's database (local/FORMAT.md)
 *   {millrace-tasks}:owner  a hash: `token` of the process that opened it last, `number` of the
 *                           checkpoint that the pairs are of, `staged`
 *   {millrace-tasks}:next   a hash, {millrace-tasks}:gone a set: the checkpoint that is being made,
 *                           what it puts and what it removes
 *
 * A checkpoint comes in chunks, and one script takes it in: pairs and number change together, in
 * the append-only file and on replicas. `staged` is a name of the checkpoint, made by chance, and
 * how many chunks of it there are: a server that lacks one, as after a failover, refuses the next.
 * Each script looks at the token first: who was put out writes nothing.
 *
 * Numbers are compared as those of Lua: checkpoints stay far below 2^53.
 */
#include "tasks/redis.h"

#include "redis/durable.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    TIMEOUT_MS = 5000,
    TAKE_IN_MS = 20000, /* more, for the script that takes a checkpoint in */
    PREFIX_MAX = 128,
    KEY_BYTES = PREFIX_MAX + 32,
    STAGED_BYTES = REDIS_TOKEN_SIZE + 24,
    CURSOR_BYTES = 24,
    SCAN_COUNT = 16, /* of pairs in a page, to begin with: arguments are 1 MiB at most */
    SCAN_COUNT_MAX = 1024,
    SCAN_BYTES = 4 << 20, /* of a page; far below what a reply may have (link.h) */
#ifdef MILLRACE_TINY
    CHUNK_ITEMS = 5,
    CHUNK_BYTES = 4 << 10,
#else
    CHUNK_ITEMS = 200,
    CHUNK_BYTES = 1 << 20, /* an item may be larger */
#endif
};

/* ---- Scripts: KEYS are pairs, owner, next, gone; ARGV[1] is the token ---- */
#define OWNED                                                                                      \
    "local owner = redis.call('HMGET', KEYS[2], 'token', 'number', 'staged') "                     \
    "if owner[1] and owner[1] ~= ARGV[1] then return 'fenced' end "
/* That it has checkpoint ARGV[2], at least. */
#define HAS_IT                                                                                     \
    "if not owner[1] or tonumber(owner[2]) < tonumber(ARGV[2]) or "                                \
    "(tonumber(owner[2]) > 0 and redis.call('EXISTS', KEYS[1]) == 0) then return 'lost' end "
#define IS_STAGED "if owner[3] ~= ARGV[3] then return 'torn' end "

static const char script_own[] =
    "local number = redis.call('HGET', KEYS[2], 'number') or '0' "
    "if redis.call('EXISTS', KEYS[1]) == 0 then number = '0' end "
    "redis.call('HSET', KEYS[2], 'token', ARGV[1], 'number', number, 'staged', '') "
    "redis.call('UNLINK', KEYS[3], KEYS[4]) "
    "return number";

static const char script_look[] = OWNED HAS_IT "return 'ok'";

/* ARGV[3]: the name of what begins. */
static const char script_begin[] = OWNED HAS_IT "redis.call('UNLINK', KEYS[3], KEYS[4]) "
                                                "redis.call('HSET', KEYS[2], 'staged', ARGV[3]) "
                                                "return 'ok'";

/* The same, of a whole, which a server that has lost everything takes too. */
static const char script_begin_whole[] =
    OWNED "redis.call('UNLINK', KEYS[3], KEYS[4]) "
          "redis.call('HSET', KEYS[2], 'token', ARGV[1], 'number', owner[2] or '0', "
          "  'staged', ARGV[3]) "
          "return 'ok'";

/* ARGV[4]: what is staged then; how many pairs, the pairs, the keys that go. */
static const char script_stage[] =
    OWNED IS_STAGED "local last = 5 + 2 * tonumber(ARGV[5]) "
                    "if last > 5 then redis.call('HSET', KEYS[3], unpack(ARGV, 6, last)) end "
                    "if #ARGV > last then redis.call('SADD', KEYS[4], unpack(ARGV, last + 1)) end "
                    "redis.call('HSET', KEYS[2], 'staged', ARGV[4]) "
                    "return 'ok'";

/* ARGV[4]: the number. */
#define TAKEN                                                                                      \
    "redis.call('UNLINK', KEYS[3], KEYS[4]) "                                                      \
    "redis.call('HSET', KEYS[2], 'number', ARGV[4], 'staged', '') "                                \
    "return 'ok'"
static const char script_take_in[] = OWNED IS_STAGED HAS_IT
    "local put, gone = redis.call('HGETALL', KEYS[3]), redis.call('SMEMBERS', KEYS[4]) "
    "for i = 1, #put, 200 do "
    "  redis.call('HSET', KEYS[1], unpack(put, i, math.min(i + 199, #put))) end "
    "for i = 1, #gone, 200 do "
    "  redis.call('HDEL', KEYS[1], unpack(gone, i, math.min(i + 199, #gone))) end " TAKEN;
static const char script_take_in_whole[] = OWNED IS_STAGED
    "redis.call('UNLINK', KEYS[1]) "
    "if redis.call('EXISTS', KEYS[3]) == 1 then redis.call('RENAME', KEYS[3], KEYS[1]) end " TAKEN;

enum { PAIRS, OWNER, NEXT, GONE, KEYS };

/* An item of a chunk: in its bytes, key and value one behind the other. */
struct item {
    size_t key_size;
    size_t value_size;
    bool removed;
};

struct redis_remote {
    struct tasks_remote remote;
    struct redis_link link;
    struct tasks_redis_options options;
    uint64_t replicas; /* that must have a checkpoint before it is finished */
    char keys[KEYS][KEY_BYTES];
    char token[REDIS_TOKEN_SIZE];
    bool fenced; /* for good: else it would own again what was emptied under its successor */
    /* The checkpoint that is being made. */
    int result;
    uint64_t number;
    bool whole;
    char name[REDIS_TOKEN_SIZE];
    uint64_t chunks;
    struct buffer bytes;
    struct item items[CHUNK_ITEMS];
    size_t n;
};

static struct redis_remote *of(struct tasks_remote *r) {
    return CONTAINER_OF(r, struct redis_remote, remote);
}

static int result_of(int r) {
    return r == REDIS_E_UNAVAILABLE ? TASKS_REMOTE_E_UNAVAILABLE
           : r == REDIS_E_REFUSED   ? TASKS_REMOTE_E_REFUSED
                                    : error_trace(r);
}

static_assert((int)TASKS_REMOTE_WHY_MAX >= (int)REDIS_WHY_MAX, "links write their sentences here");

/* ---- Scripts ---- */
/* EVAL with the arguments behind the first EVAL_HEAD, for which there is room in front. */
enum { EVAL_HEAD = 3 + KEYS + 1, CHUNK_HEAD = EVAL_HEAD + 4 };
static int eval(struct redis_remote *r, const char *script, struct bytes *arguments, size_t n,
                redisReply **ret_reply) {
    arguments[0] = BYTES_LITERAL("EVAL");
    arguments[1] = bytes_of_string(script);
    arguments[2] = BYTES_LITERAL("4");
    for (size_t i = 0; i < KEYS; i++)
        arguments[3 + i] = bytes_of_string(r->keys[i]);
    arguments[EVAL_HEAD - 1] = bytes_of_string(r->token);
    return result_of(redis_link_command(&r->link, arguments, n, ret_reply));
}

/* One that answers how it stands. */
static int ask(struct redis_remote *r, const char *script, struct bytes *arguments, size_t n) {
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    char *why = r->remote.why;
    if (r->fenced)
        return TASKS_REMOTE_E_FENCED;
    int result = eval(r, script, arguments, n, &reply);
    if (result || redis_reply_is(reply, "ok"))
        return result;
    r->fenced = redis_reply_is(reply, "fenced");
    if (r->fenced)
        return redis_fail(why, TASKS_REMOTE_E_FENCED,
                          "another server has taken the tasks over, %s of %s: this one must be "
                          "stopped",
                          r->keys[PAIRS], r->link.peer);
    if (redis_reply_is(reply, "lost"))
        return redis_fail(why, TASKS_REMOTE_E_LOST, "%s has lost tasks that it had taken",
                          r->link.peer);
    if (redis_reply_is(reply, "torn"))
        return redis_fail(why, TASKS_REMOTE_E_UNAVAILABLE,
                          "%s has lost a part of the checkpoint that was being made", r->link.peer);
    return result_of(redis_link_odd(&r->link));
}

static int ask_with(struct redis_remote *r, const char *script, uint64_t number, const char *staged,
                    const char *last) {
    struct bytes arguments[EVAL_HEAD + 3];
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, number);
    arguments[EVAL_HEAD] = bytes_of_string(text);
    arguments[EVAL_HEAD + 1] = bytes_of_string(staged);
    arguments[EVAL_HEAD + 2] = bytes_of_string(last);
    return ask(r, script, arguments, ARRAY_LENGTH(arguments));
}

/* ---- Opening ---- */
static int redis_own(struct tasks_remote *remote, uint64_t *ret_number) {
    struct redis_remote *r = of(remote);
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    struct bytes arguments[EVAL_HEAD];
    r->fenced = false;
    redis_link_begin(&r->link, 0);
    int result = redis_make_token(r->link.os, r->token);
    if (result == 0)
        result = result_of(redis_link_connect(&r->link));
    if (result == 0)
        result = result_of(
            redis_check_settings(&r->link, r->replicas, r->options.tell, r->options.context));
    if (result == 0)
        result = eval(r, script_own, arguments, EVAL_HEAD, &reply);
    if (result)
        return result;
    if (!redis_reply_is(reply, NULL))
        return result_of(redis_link_odd(&r->link));
    *ret_number = strtoull(reply->str, NULL, 10);
    result = redis_wait_for_replicas(&r->link, r->replicas);
    if (result == 0) /* last, so that whoever waits is told once */
        result = redis_check_settings(&r->link, r->replicas, r->options.tell, r->options.context);
    return result_of(result);
}

/* [cursor, [key, value, …]] */
static bool is_scan(const redisReply *reply) {
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
        !redis_reply_is(reply->element[0], NULL) || reply->element[0]->len >= CURSOR_BYTES ||
        reply->element[1]->type != REDIS_REPLY_ARRAY || reply->element[1]->elements % 2 != 0)
        return false;
    for (size_t i = 0; i < reply->element[1]->elements; i++)
        if (!redis_reply_is(reply->element[1]->element[i], NULL))
            return false;
    return true;
}

static int give(const redisReply *pairs,
                int (*each)(void *context, struct bytes key, struct bytes value), void *context) {
    int result = 0;
    for (size_t i = 0; result == 0 && i < pairs->elements; i += 2) {
        const redisReply *key = pairs->element[i], *value = pairs->element[i + 1];
        result = each(context, bytes_of(key->str, key->len), bytes_of(value->str, value->len));
    }
    return result;
}

/* How many pairs the next page is to have: a hash has no order, so pages are like each other. */
static unsigned next_count(const redisReply *pairs, unsigned count) {
    size_t bytes = 0;
    for (size_t i = 0; i < pairs->elements; i++)
        bytes += pairs->element[i]->len;
    if (bytes < SCAN_BYTES / 4 && count < SCAN_COUNT_MAX)
        return 2 * count;
    return bytes > SCAN_BYTES && count > 1 ? count / 2 : count;
}

static int read_page(struct redis_remote *r, const char *cursor, unsigned count,
                     redisReply **ret_reply) {
    char count_text[24];
    snprintf(count_text, sizeof count_text, "%u", count);
    redis_link_begin(&r->link, 0);
    return result_of(
        redis_link_command(&r->link,
                           (struct bytes[]){BYTES_LITERAL("HSCAN"), bytes_of_string(r->keys[PAIRS]),
                                            bytes_of_string(cursor), BYTES_LITERAL("COUNT"),
                                            bytes_of_string(count_text)},
                           5, ret_reply));
}

/* A failover ends the connection, and with it the reading: a cursor means nothing elsewhere. */
static int redis_read(struct tasks_remote *remote,
                      int (*each)(void *context, struct bytes key, struct bytes value),
                      void *context) {
    struct redis_remote *r = of(remote);
    char cursor[CURSOR_BYTES] = "0";
    unsigned count = SCAN_COUNT;
    do {
        CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
        int result = read_page(r, cursor, count, &reply);
        if (result == 0 && !is_scan(reply))
            result = result_of(redis_link_odd(&r->link));
        if (result == 0)
            result = give(reply->element[1], each, context);
        if (result)
            return result;
        memcpy(cursor, reply->element[0]->str, reply->element[0]->len + 1);
        count = next_count(reply->element[1], count);
    } while (strcmp(cursor, "0") != 0);
    return 0;
}

/* ---- Checkpoints ---- */
static int redis_look(struct tasks_remote *remote, uint64_t number) {
    struct redis_remote *r = of(remote);
    redis_link_begin(&r->link, 0);
    return ask_with(r, script_look, number, "", "");
}

static void staged_text(const struct redis_remote *r, uint64_t chunks, char out[STAGED_BYTES]) {
    snprintf(out, STAGED_BYTES, "%s/%" PRIu64, r->name, chunks);
}

static void drop_chunk(struct redis_remote *r) {
    buffer_clear(&r->bytes);
    r->n = 0;
}

static int redis_begin(struct tasks_remote *remote, uint64_t number, bool whole) {
    struct redis_remote *r = of(remote);
    char staged[STAGED_BYTES];
    int result = redis_make_token(r->link.os, r->name);
    if (result)
        return error_trace(result);
    drop_chunk(r);
    r->result = 0;
    r->number = number;
    r->whole = whole;
    r->chunks = 0;
    staged_text(r, 0, staged);
    redis_link_begin(&r->link, 0);
    return whole ? ask_with(r, script_begin_whole, 0, staged, "")
                 : ask_with(r, script_begin, number - 1, staged, "");
}

/* The items that are put, key and value, or the keys of those that are removed. */
static size_t add_items(const struct redis_remote *r, bool removed, struct bytes *out) {
    size_t n = 0, at = 0;
    for (size_t i = 0; i < r->n; i++) {
        const struct item *item = &r->items[i];
        if (item->removed == removed)
            out[n++] = bytes_of(r->bytes.data + at, item->key_size);
        at += item->key_size;
        if (item->removed == removed && !removed)
            out[n++] = bytes_of(r->bytes.data + at, item->value_size);
        at += item->value_size;
    }
    return n;
}

static int send_chunk(struct redis_remote *r) {
    struct bytes arguments[CHUNK_HEAD + 2 * CHUNK_ITEMS] = {0};
    char before[STAGED_BYTES], after[STAGED_BYTES], pairs[24];
    int result = buffer_check(&r->bytes);
    if (result < 0)
        return error_trace(result);
    staged_text(r, r->chunks, before);
    staged_text(r, r->chunks + 1, after);
    size_t n = add_items(r, false, arguments + CHUNK_HEAD);
    snprintf(pairs, sizeof pairs, "%zu", n / 2);
    n += add_items(r, true, arguments + CHUNK_HEAD + n);
    arguments[EVAL_HEAD] = BYTES_LITERAL("");
    arguments[EVAL_HEAD + 1] = bytes_of_string(before);
    arguments[EVAL_HEAD + 2] = bytes_of_string(after);
    arguments[EVAL_HEAD + 3] = bytes_of_string(pairs);
    redis_link_begin(&r->link, 0);
    result = ask(r, script_stage, arguments, CHUNK_HEAD + n);
    r->chunks++;
    drop_chunk(r);
    return result;
}

static void add(struct redis_remote *r, struct bytes key, struct bytes value, bool removed) {
    if (r->result)
        return;
    buffer_append_bytes(&r->bytes, key);
    buffer_append_bytes(&r->bytes, value);
    r->items[r->n++] = (struct item){key.size, value.size, removed};
    if (r->n == CHUNK_ITEMS || r->bytes.size >= CHUNK_BYTES)
        r->result = send_chunk(r);
}

static void redis_put(struct tasks_remote *remote, struct bytes key, struct bytes value) {
    add(of(remote), key, value, false);
}

static void redis_remove(struct tasks_remote *remote, struct bytes key) {
    add(of(remote), key, BYTES_LITERAL(""), true);
}

static int redis_finish(struct tasks_remote *remote) {
    struct redis_remote *r = of(remote);
    char staged[STAGED_BYTES], number[24];
    if (r->result == 0 && r->n > 0)
        r->result = send_chunk(r);
    if (r->result)
        return r->result;
    staged_text(r, r->chunks, staged);
    snprintf(number, sizeof number, "%" PRIu64, r->number);
    redis_link_begin(&r->link, TAKE_IN_MS);
    int result = r->whole ? ask_with(r, script_take_in_whole, 0, staged, number)
                          : ask_with(r, script_take_in, r->number - 1, staged, number);
    if (result)
        return result;
    redis_link_begin(&r->link, 0);
    return result_of(redis_wait_for_replicas(&r->link, r->replicas));
}

static const struct tasks_remote_ops ops = {.own = redis_own,
                                            .read = redis_read,
                                            .look = redis_look,
                                            .begin = redis_begin,
                                            .put = redis_put,
                                            .remove = redis_remove,
                                            .finish = redis_finish};

/* ---- The URL ---- */
static const char *const parameters[] = {"prefix", "replicas", "sentinel-user", "sentinel-password",
                                         NULL};

static bool is_of_redis(const char *scheme) {
    static const char *const schemes[] = {"redis", "redis+sentinel", "rediss", "rediss+sentinel"};
    for (size_t i = 0; i < ARRAY_LENGTH(schemes); i++)
        if (strcmp(scheme, schemes[i]) == 0)
            return true;
    return false;
}

static const char *prefix_of(const struct service_url *url) {
    const char *prefix = service_url_parameter(url, "prefix");
    return prefix ? prefix : "millrace-";
}

bool tasks_redis_check_url(const struct service_url *url, char why[TASKS_REMOTE_WHY_MAX]) {
    const char *unknown = service_url_parameter_unknown(url, parameters);
    const char *prefix = prefix_of(url);
    uint64_t replicas = 0;
    if (!is_of_redis(url->scheme))
        redis_say(why, "tasks are kept by the data directory, local:, or by Redis, redis://HOST or "
                       "redis+sentinel://HOST,HOST,HOST/NAME");
    else if (!redis_link_check_url(url, why))
        return false;
    else if (unknown)
        redis_say(why, "tasks on Redis have no parameter %.64s", unknown);
    else if (!service_url_parameter_number(url, "replicas", 0, REDIS_REPLICAS_MAX, &replicas))
        redis_say(why, "replicas is a number from 0 to %d", REDIS_REPLICAS_MAX);
    else if (strlen(prefix) > PREFIX_MAX || strpbrk(prefix, "{}"))
        redis_say(why, "a prefix has no braces, and at most %d bytes", PREFIX_MAX);
    else
        return true;
    return false;
}

int tasks_redis_new(struct os *os, const struct tasks_redis_options *options,
                    struct tasks_remote **ret_remote) {
    static const char *const suffixes[KEYS] = {"", ":owner", ":next", ":gone"};
    struct redis_remote *r = calloc(1, sizeof *r);
    if (!r)
        return error_origin(-ENOMEM);
    r->remote.ops = &ops;
    r->options = *options;
    for (size_t i = 0; i < KEYS; i++)
        snprintf(r->keys[i], KEY_BYTES, "{%stasks}%s", prefix_of(options->url), suffixes[i]);
    bool good =
        service_url_parameter_number(options->url, "replicas", 0, REDIS_REPLICAS_MAX, &r->replicas);
    assert(good); /* it was checked */
    redis_link_init(&r->link, os, options->url,
                    options->timeout_ms ? options->timeout_ms : TIMEOUT_MS, r->remote.why);
    *ret_remote = &r->remote;
    return 0;
}

struct tasks_remote *tasks_redis_free(struct tasks_remote *remote) {
    if (!remote)
        return NULL;
    struct redis_remote *r = of(remote);
    redis_link_deinit(&r->link);
    buffer_deinit(&r->bytes);
    free(r);
    return NULL;
}
