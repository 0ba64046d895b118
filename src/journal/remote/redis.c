/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log as a stream of Redis: redis:// and redis+sentinel://.
 *
 *   millrace-journal          the stream. An entry's id is <lsn>-<part>, its field "m" the message
 *   {millrace-journal}:owner  a hash: `token` of the process that opened the log last, and `top`,
 *                             the id of the newest message. (The braces: one slot, were it
 * sharded.)
 *
 * All that writes is a script, so nothing comes between its look at the owner and its writing, and
 * stream and owner change together, in the append-only file and on replicas:
 * - a token that is not ours: another process owns the log, or it was emptied under us;
 * - a top below the newest id that was acknowledged: Redis has lost some (a failover to a replica
 *   without them, a restart without its file). This process is put out then, too: what it would
 *   append would come behind a hole that nobody sees;
 * - what is not above the top is there already: so the same may be appended again.
 *
 * Position: the lsn. Ids are compared as text, twenty digits each half: numbers of Lua have 53
 * bits.
 */
#include "journal/driver.h"
#include "redis/durable.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    MESSAGE_BYTES_MAX = 1 << 20,
    APPEND_BYTES_MAX = 4 << 20, /* of one script: for that long Redis serves nobody else */
    APPEND_MESSAGES_MAX = 128,
    READ_BYTES = 1 << 20, /* a batch of a reader ends with the message that reaches it */
    READ_MESSAGES = 256,
    PREFIX_MAX = 128,
    KEY_BYTES = PREFIX_MAX + 32,
    ID_TEXT = 2 * 20 + 1 + 1,
};

/* The newest id there ever was, as the stream itself knows it. */
static const char script_own[] =
    "local top = string.rep('0', 20)..'-'..string.rep('0', 20) "
    "if redis.call('EXISTS', KEYS[1]) == 1 then "
    "  local info = redis.call('XINFO', 'STREAM', KEYS[1]) "
    "  for i = 1, #info, 2 do if info[i] == 'last-generated-id' then "
    "    local lsn, part = string.match(info[i + 1], '(%d+)-(%d+)') "
    "    top = string.rep('0', 20 - #lsn)..lsn..'-'..string.rep('0', 20 - #part)..part "
    "  end end "
    "end "
    "redis.call('HSET', KEYS[2], 'token', ARGV[1], 'top', top) "
    "return top";

/* token, the id that must be there, then id and message, again and again. What fails in the middle
 * leaves a top that is true. The top is always written, so that WAIT has a write of this connection
 * to wait for, also when all was there already. */
static const char script_append[] =
    "local owner = redis.call('HMGET', KEYS[2], 'token', 'top') "
    "if not owner[1] then return 'gone' end "
    "if owner[1] ~= ARGV[1] then return 'fenced' end "
    "local top = owner[2] "
    "if top < ARGV[2] then return 'lost' end "
    "local result = 'ok' "
    "for i = 3, #ARGV, 2 do "
    "  if ARGV[i] > top then "
    "    local added = redis.pcall('XADD', KEYS[1], ARGV[i], 'm', ARGV[i + 1]) "
    "    if type(added) == 'table' and added.err then result = added break end "
    "    top = ARGV[i] "
    "  end "
    "end "
    "redis.call('HSET', KEYS[2], 'top', top) "
    "return result";

/* token, id. Only whole nodes of the stream go, a bounded number of entries a call. */
static const char script_trim[] = "local token = redis.call('HGET', KEYS[2], 'token') "
                                  "if not token then return 'gone' end "
                                  "if token ~= ARGV[1] then return 'fenced' end "
                                  "return redis.call('XTRIM', KEYS[1], 'MINID', '~', ARGV[2])";

/* token, the id behind which to read, bytes, messages. XRANGE has no bound of bytes. A server that
 * does not know the token is one that was cut off before this process opened the log. */
static const char script_read[] =
    "if redis.call('HGET', KEYS[2], 'token') ~= ARGV[1] then return 'stale' end "
    "local batch, bytes, after = {}, 0, ARGV[2] "
    "while bytes < tonumber(ARGV[3]) and #batch < tonumber(ARGV[4]) do "
    "  local entry = redis.call('XRANGE', KEYS[1], '('..after, '+', 'COUNT', 1)[1] "
    "  if not entry then break end "
    "  batch[#batch + 1], after, bytes = entry, entry[1], bytes + #(entry[2][2] or '') "
    "end "
    "return batch";

struct redis_log {
    struct log log;
    struct redis_link link;
    char stream[KEY_BYTES], owner[KEY_BYTES];
    char token[REDIS_TOKEN_SIZE];
    uint64_t replicas;   /* that must have a message before it is acknowledged */
    char found[ID_TEXT]; /* the top when this process opened the log: all it appends is above */
    char top[ID_TEXT];   /* of what was acknowledged */
    struct buffer scratch;
};

struct redis_reader {
    struct log_reader reader;
    const struct redis_log *log; /* for its names and token, which do not change */
    struct redis_link link;
    redisReply *batch; /* or NULL: an array of entries */
    size_t next;       /* of them */
    char after[ID_TEXT];
};

static void id_text(char out[ID_TEXT], uint64_t lsn, uint64_t part) {
    snprintf(out, ID_TEXT, "%020" PRIu64 "-%020" PRIu64, lsn, part);
}

static_assert((int)LOG_WHY_MAX >= (int)REDIS_WHY_MAX,
              "links write their sentences into those of logs");

/* What went wrong with a link, in the words of logs. */
static int log_result(int r) {
    if (r == REDIS_E_UNAVAILABLE)
        return LOG_E_UNAVAILABLE;
    return r == REDIS_E_REFUSED ? LOG_E_REFUSED : r;
}

static int command(struct redis_link *l, const struct bytes *arguments, size_t n,
                   redisReply **ret_reply) {
    return log_result(redis_link_command(l, arguments, n, ret_reply));
}

static int odd(struct redis_link *l) {
    return log_result(redis_link_odd(l));
}

/* EVAL with both keys and the arguments behind them, for which there is room in front: EVAL_HEAD.
 */
enum { EVAL_HEAD = 5 };
static int eval(struct redis_link *l, const struct redis_log *log, const char *script,
                struct bytes *arguments, size_t n, redisReply **ret_reply) {
    arguments[0] = BYTES_LITERAL("EVAL");
    arguments[1] = bytes_of_string(script);
    arguments[2] = BYTES_LITERAL("2");
    arguments[3] = bytes_of_string(log->stream);
    arguments[4] = bytes_of_string(log->owner);
    return command(l, arguments, n, ret_reply);
}

/* What the scripts say when this process does not own all that it believes to. 0: nothing. */
static int judge_ownership(struct redis_log *l, const redisReply *reply) {
    if (redis_reply_is(reply, "fenced"))
        return log_fail(l->log.why, LOG_E_FENCED, "another process has opened the log %s of %s",
                        l->stream, l->link.peer);
    if (redis_reply_is(reply, "gone"))
        return log_fail(l->log.why, LOG_E_FENCED, "the log %s was deleted from %s, or lost by it",
                        l->stream, l->link.peer);
    if (redis_reply_is(reply, "lost"))
        return log_fail(l->log.why, LOG_E_FENCED,
                        "%s has lost acknowledged messages of the log %s, as after a failover to a "
                        "replica without them: only a new start goes on with what there is",
                        l->link.peer, l->stream);
    return 0;
}

static int wait_for_replicas(struct redis_log *l) {
    return log_result(redis_wait_for_replicas(&l->link, l->replicas));
}

/* ---- Opening ---- */

static int configure(struct redis_log *l, const struct log_options *options) {
    const struct service_url *u = options->url;
    const char *prefix = service_url_parameter(u, "prefix");
    const char *unknown = service_url_parameter_unknown(u, log_redis.parameters);
    if (!redis_link_check_url(u, l->log.why))
        return LOG_E_REFUSED;
    if (unknown)
        return log_fail(l->log.why, LOG_E_REFUSED, "a journal on Redis has no parameter %.64s",
                        unknown);
    if (!service_url_parameter_number(u, "replicas", 0, REDIS_REPLICAS_MAX, &l->replicas))
        return log_fail(l->log.why, LOG_E_REFUSED, "replicas is a number from 0 to %d",
                        REDIS_REPLICAS_MAX);
    if (!prefix)
        prefix = "millrace-";
    if (strlen(prefix) > PREFIX_MAX || strpbrk(prefix, "{}"))
        return log_fail(l->log.why, LOG_E_REFUSED, "a prefix has no braces, and at most %d bytes",
                        PREFIX_MAX);
    snprintf(l->stream, sizeof l->stream, "%sjournal", prefix);
    snprintf(l->owner, sizeof l->owner, "{%sjournal}:owner", prefix);
    return 0;
}

static int redis_check(const struct service_url *url, char why[LOG_WHY_MAX]) {
    struct redis_log l = {0};
    int r = configure(&l, &(struct log_options){.url = url});
    return r ? log_fail(why, r, "%s", l.log.why) : 0;
}

static int own(struct redis_log *l) {
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    struct bytes arguments[EVAL_HEAD + 1];
    int r = redis_make_token(l->link.os, l->token);
    if (r)
        return error_trace(r);
    arguments[EVAL_HEAD] = bytes_of_string(l->token);
    r = eval(&l->link, l, script_own, arguments, EVAL_HEAD + 1, &reply);
    if (r)
        return r;
    if (!redis_reply_is(reply, NULL) || reply->len != ID_TEXT - 1)
        return odd(&l->link);
    memcpy(l->top, reply->str, ID_TEXT);
    memcpy(l->found, reply->str, ID_TEXT);
    return wait_for_replicas(l);
}

static int redis_open(struct os *os, const struct log_options *options, struct log **ret_log) {
    struct redis_log *l = calloc(1, sizeof *l);
    *ret_log = NULL;
    if (!l)
        return error_origin(-ENOMEM);
    l->log.driver = &log_redis;
    *ret_log = &l->log;
    redis_link_init(&l->link, os, options->url, options->timeout_ms, l->log.why);
    redis_link_begin(&l->link, 0);
    int r = configure(l, options);
    if (!r)
        r = log_result(redis_link_connect(&l->link));
    if (!r)
        r = log_result(
            redis_check_settings(&l->link, l->replicas, options->warn, options->context));
    return r ? r : own(l);
}

/* The token stays: whoever opens next puts its own in place of it. */
static void redis_close(struct log *log) {
    struct redis_log *l = (struct redis_log *)log;
    redis_link_deinit(&l->link);
    buffer_deinit(&l->scratch);
    free(l);
}

/* ---- Appending ---- */

/* How many of the messages go into one script; their bytes, one message after the other, to
 * scratch. */
static size_t gather(struct redis_log *l, const struct log_message *messages, size_t n) {
    size_t count = 0;
    buffer_clear(&l->scratch);
    for (; count < n && count < APPEND_MESSAGES_MAX; count++) {
        const struct log_message *m = &messages[count];
        assert(m->body.size <= MESSAGE_BYTES_MAX - LOG_HEAD_BYTES);
        if (count > 0 && l->scratch.size + LOG_HEAD_BYTES + m->body.size > APPEND_BYTES_MAX)
            break;
        buffer_append(&l->scratch, m->head, LOG_HEAD_BYTES);
        buffer_append_bytes(&l->scratch, m->body);
    }
    return count;
}

/* One script: what comes first, of at most n messages. `after` must be there, and becomes the id of
 * the last of them. */
static int append_some(struct redis_log *l, const struct log_message *messages, size_t n,
                       char after[ID_TEXT], size_t *ret_count) {
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    struct bytes arguments[EVAL_HEAD + 2 + 2 * APPEND_MESSAGES_MAX];
    char ids[APPEND_MESSAGES_MAX][ID_TEXT];
    size_t count = gather(l, messages, n), used = EVAL_HEAD, at = 0;
    int r = buffer_check(&l->scratch);
    if (r)
        return error_trace(r);
    arguments[used++] = bytes_of_string(l->token);
    arguments[used++] = bytes_of(after, ID_TEXT - 1);
    for (size_t i = 0; i < count; i++) {
        size_t size = LOG_HEAD_BYTES + messages[i].body.size;
        id_text(ids[i], messages[i].lsn, messages[i].part);
        arguments[used++] = bytes_of(ids[i], ID_TEXT - 1);
        arguments[used++] = bytes_of(l->scratch.data + at, size);
        at += size;
    }
    r = eval(&l->link, l, script_append, arguments, used, &reply);
    if (!r)
        r = judge_ownership(l, reply);
    if (r)
        return r;
    if (!redis_reply_is(reply, "ok"))
        return odd(&l->link);
    memcpy(after, ids[count - 1], ID_TEXT);
    *ret_count = count;
    return 0;
}

static int redis_append(struct log *log, const struct log_message *messages, size_t n,
                        uint64_t *ret_positions) {
    struct redis_log *l = (struct redis_log *)log;
    char first[ID_TEXT], after[ID_TEXT];
    memcpy(after, l->top, ID_TEXT);
    redis_link_begin(&l->link, 0);
    id_text(first, messages[0].lsn, messages[0].part);
    if (strcmp(first, l->found) <= 0) /* it would be taken for one that is there already */
        return log_fail(l->log.why, LOG_E_REFUSED,
                        "the log %s of %s once had later messages than what is to be appended, and "
                        "has none now: was it emptied?",
                        l->stream, l->link.peer);
    for (size_t done = 0, count = 0; done < n; done += count) {
        int r = append_some(l, messages + done, n - done, after, &count);
        if (r)
            return r;
    }
    int r = wait_for_replicas(l);
    if (r)
        return r;
    if (strcmp(after, l->top) > 0)
        memcpy(l->top, after, ID_TEXT);
    for (size_t i = 0; i < n; i++)
        ret_positions[i] = messages[i].lsn;
    return 0;
}

/* What is left when the time is over goes with the next call. */
static int redis_trim(struct log *log, uint64_t position) {
    struct redis_log *l = (struct redis_log *)log;
    char id[ID_TEXT];
    id_text(id, position, 0);
    redis_link_begin(&l->link, 0);
    for (long long trimmed = 1; trimmed > 0 && redis_link_left_ms(&l->link) > 0;) {
        CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
        struct bytes arguments[EVAL_HEAD + 2];
        arguments[EVAL_HEAD] = bytes_of_string(l->token);
        arguments[EVAL_HEAD + 1] = bytes_of_string(id);
        int r = eval(&l->link, l, script_trim, arguments, EVAL_HEAD + 2, &reply);
        if (!r)
            r = judge_ownership(l, reply);
        if (r)
            return r;
        if (reply->type != REDIS_REPLY_INTEGER)
            return odd(&l->link);
        trimmed = reply->integer;
    }
    return 0;
}

/* ---- Reading ---- */

/* [id, [field, message]] */
static bool is_entry(const redisReply *e) {
    return e->type == REDIS_REPLY_ARRAY && e->elements == 2 &&
           redis_reply_is(e->element[0], NULL) && strchr(e->element[0]->str, '-') &&
           e->element[1]->type == REDIS_REPLY_ARRAY && e->element[1]->elements == 2 &&
           redis_reply_is(e->element[1]->element[1], NULL) &&
           e->element[1]->element[1]->len >= LOG_HEAD_BYTES;
}

static struct bytes entry_message(const redisReply *e, uint64_t *ret_lsn, uint64_t *ret_part) {
    const redisReply *message = e->element[1]->element[1];
    char *end;
    *ret_lsn = strtoull(e->element[0]->str, &end, 10);
    *ret_part = strtoull(end + 1, NULL, 10);
    return bytes_of(message->str, message->len);
}

static int redis_last(struct log *log, struct buffer *out, uint64_t *ret_position) {
    struct redis_log *l = (struct redis_log *)log;
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    uint64_t part;
    redis_link_begin(&l->link, 0);
    int r = command(&l->link,
                    (struct bytes[]){BYTES_LITERAL("XREVRANGE"), bytes_of_string(l->stream),
                                     BYTES_LITERAL("+"), BYTES_LITERAL("-"), BYTES_LITERAL("COUNT"),
                                     BYTES_LITERAL("1")},
                    6, &reply);
    if (r)
        return r;
    if (reply->type != REDIS_REPLY_ARRAY)
        return odd(&l->link);
    if (reply->elements == 0)
        return log_fail(l->log.why, LOG_E_END, "the log %s is empty", l->stream);
    if (!is_entry(reply->element[0]))
        return odd(&l->link);
    buffer_append_bytes(out, entry_message(reply->element[0], ret_position, &part));
    return error_trace(buffer_check(out));
}

static uint64_t redis_bound(const struct log *log) {
    (void)log;
    return 0;
}

static int redis_reader_new(struct log *log, uint64_t position, struct log_reader **ret_reader) {
    const struct redis_log *l = (const struct redis_log *)log;
    struct redis_reader *r = calloc(1, sizeof *r);
    if (!r)
        return error_origin(-ENOMEM);
    r->reader.driver = &log_redis;
    r->log = l;
    redis_link_init(&r->link, l->link.os, l->link.url, l->link.timeout_ms, r->reader.why);
    if (position > 0)
        id_text(r->after, position - 1, UINT64_MAX);
    else
        id_text(r->after, 0, 0);
    *ret_reader = &r->reader;
    return 0;
}

static void redis_reader_free(struct log_reader *reader) {
    struct redis_reader *r = (struct redis_reader *)reader;
    if (!r)
        return;
    redis_reply_cleanup(&r->batch);
    redis_link_deinit(&r->link);
    free(r);
}

/* A batch of what is behind `after`; empty when there is nothing. */
static int fetch(struct redis_reader *r) {
    struct bytes arguments[EVAL_HEAD + 4];
    char bytes[24], messages[24];
    redis_reply_cleanup(&r->batch);
    r->batch = NULL;
    r->next = 0;
    snprintf(bytes, sizeof bytes, "%d", READ_BYTES);
    snprintf(messages, sizeof messages, "%d", READ_MESSAGES);
    arguments[EVAL_HEAD] = bytes_of_string(r->log->token);
    arguments[EVAL_HEAD + 1] = bytes_of_string(r->after);
    arguments[EVAL_HEAD + 2] = bytes_of_string(bytes);
    arguments[EVAL_HEAD + 3] = bytes_of_string(messages);
    int result = eval(&r->link, r->log, script_read, arguments, EVAL_HEAD + 4, &r->batch);
    if (result)
        return result;
    if (redis_reply_is(r->batch, "stale"))
        result = log_result(redis_link_drop(&r->link,
                                            "%s does not know this process as owner of the log %s",
                                            r->link.peer, r->log->stream));
    else if (r->batch->type != REDIS_REPLY_ARRAY)
        result = odd(&r->link);
    if (result) {
        redis_reply_cleanup(&r->batch);
        r->batch = NULL;
    }
    return result;
}

/* Until something is behind `after`. */
static int wait_for_more(struct redis_reader *r, uint64_t wait_ms) {
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    char wait[24];
    snprintf(wait, sizeof wait, "%" PRIu64, wait_ms);
    int result = command(
        &r->link,
        (struct bytes[]){BYTES_LITERAL("XREAD"), BYTES_LITERAL("COUNT"), BYTES_LITERAL("1"),
                         BYTES_LITERAL("BLOCK"), bytes_of_string(wait), BYTES_LITERAL("STREAMS"),
                         bytes_of_string(r->log->stream), bytes_of_string(r->after)},
        8, &reply);
    if (result)
        return result;
    return reply->type == REDIS_REPLY_NIL ? LOG_E_END : 0;
}

static int next_batch(struct redis_reader *r, uint64_t wait_ms) {
    redis_link_begin(&r->link, wait_ms);
    int result = fetch(r);
    if (result || r->batch->elements > 0 || wait_ms == 0)
        return result;
    result = wait_for_more(r, wait_ms);
    return result ? result : fetch(r);
}

static int redis_read(struct log_reader *reader, uint64_t wait_ms, struct bytes *ret_message,
                      uint64_t *ret_position) {
    struct redis_reader *r = (struct redis_reader *)reader;
    uint64_t lsn, part;
    if (!r->batch || r->next == r->batch->elements) {
        int result = next_batch(r, wait_ms);
        if (result)
            return result;
        if (r->batch->elements == 0)
            return LOG_E_END;
    }
    const redisReply *e = r->batch->element[r->next];
    if (!is_entry(e))
        return log_fail(r->reader.why, LOG_E_REFUSED,
                        "the log %s of %s has an entry that is not ours", r->log->stream,
                        r->link.peer);
    *ret_message = entry_message(e, &lsn, &part);
    *ret_position = lsn;
    id_text(r->after, lsn, part);
    r->next++;
    return 0;
}

const struct log_driver log_redis = {
    .schemes = (const char *const[]){"redis", "redis+sentinel", "rediss", "rediss+sentinel", NULL},
    .parameters =
        (const char *const[]){"prefix", "replicas", "sentinel-user", "sentinel-password", NULL},
    .message_bytes_max = MESSAGE_BYTES_MAX,
    .check = redis_check,
    .open = redis_open,
    .close = redis_close,
    .append = redis_append,
    .trim = redis_trim,
    .last = redis_last,
    .bound = redis_bound,
    .reader_new = redis_reader_new,
    .read = redis_read,
    .reader_free = redis_reader_free,
};
