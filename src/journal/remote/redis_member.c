/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A member of the group that reads a shared journal on Redis.
 *
 * A few times a session it says that it is there, by a script that knows all who are: sorted by
 * their tokens, the one in place K of M takes the partitions p with p mod M = K as soon as nobody
 * holds them, renews those it has, and gives back the others. Sessions end by the clock of Redis.
 * So none is read by two for long, and safety rests on nothing of it.
 *
 * A connection that was lost may be made again to another master, which knows less: all partitions
 * count as given anew then, and are sought where the store says.
 */
#include "journal/remote/redis_shared.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define MS_NS UINT64_C(1000000)
enum {
    SHARE_MS = 250,       /* between two words to the others, or less of a short session */
    SHARES = 5,           /* a session, at least */
    READ_BYTES = 1 << 20, /* an answer ends with the message that reaches it */
    READ_MESSAGES = 256,
    HEAD = 3, /* EVAL, the script, the number of keys */
    NUMBER_TEXT = 24,
};

/* KEYS: :workers, then of each partition :reader and the stream; ARGV: token, ms of a session, then
 * of each partition up to where its jumps are known. Returns for each partition 0 (another's), 1
 * (ours still) or 2 (ours from now on), its newest id and its jumps since. */
static const char script_share[] = REDIS_SCRIPT_SAME REDIS_SCRIPT_NEWEST
    "local time = redis.call('TIME') "
    "local now, session = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[2]) "
    "redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', now)) "
    "redis.call('ZADD', KEYS[1], string.format('%.0f', now + session), ARGV[1]) "
    "local workers, place, result = redis.call('ZRANGE', KEYS[1], 0, -1), 0, {} "
    "table.sort(workers) "
    "for i, worker in ipairs(workers) do if worker == ARGV[1] then place = i - 1 end end "
    "for p = 0, #KEYS / 2 - 2 do "
    "  local lock, stream = KEYS[2 * p + 2], KEYS[2 * p + 3] "
    "  local reader, has, last, jumps = redis.call('GET', lock), 0, 0, {} "
    "  if p % #workers ~= place then "
    "    if reader == ARGV[1] then redis.call('DEL', lock) end "
    "  elseif not reader or reader == ARGV[1] then "
    "    redis.call('SET', lock, ARGV[1], 'PX', ARGV[2]) "
    "    has, last = reader and 1 or 2, newest(stream) "
    "    jumps = redis.call('ZRANGEBYSCORE', stream..':jumps', '('..ARGV[p + 3], '+inf') "
    "  end "
    "  result[#result + 1] = has "
    "  result[#result + 1] = string.format('%.0f', last) "
    "  result[#result + 1] = jumps "
    "end "
    "return result";

/* KEYS: as above; ARGV: token. */
static const char script_leave[] = REDIS_SCRIPT_SAME
    "redis.call('ZREM', KEYS[1], ARGV[1]) "
    "for i = 2, #KEYS - 1, 2 do "
    "  if redis.call('GET', KEYS[i]) == ARGV[1] then redis.call('DEL', KEYS[i]) end "
    "end "
    "return 'ok'";

/* KEYS: streams; ARGV: bytes, messages, then of each stream the id behind which to read. Returns
 * the number of a stream, an id and a message, again and again. */
static const char script_read[] = REDIS_SCRIPT_SAME
    "local batch, bytes, n = {}, 0, 0 "
    "for i = 1, #KEYS - 1 do "
    "  local key, after = KEYS[i], ARGV[i + 2] "
    "  while bytes < tonumber(ARGV[1]) and n < tonumber(ARGV[2]) do "
    "    local entry = redis.call('XRANGE', key, '('..after, '+', 'COUNT', 1)[1] "
    "    if not entry then break end "
    "    local message = entry[2][2] or '' "
    "    batch[#batch + 1], batch[#batch + 2], batch[#batch + 3] = i, entry[1], message "
    "    after, bytes, n = entry[1], bytes + #message, n + 1 "
    "  end "
    "end "
    "return batch";

/* KEYS: a stream. Returns its first id, '' when it is empty, its newest, the offset below which it
 * was trimmed, and its jumps. */
static const char script_bounds[] = REDIS_SCRIPT_SAME REDIS_SCRIPT_NEWEST
    "local entry = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1] "
    "local trimmed = redis.call('GET', KEYS[1]..':trimmed') "
    "local result = {entry and entry[1] or '', string.format('%.0f', newest(KEYS[1])), "
    "  trimmed or '0'} "
    "for _, jump in ipairs(redis.call('ZRANGE', KEYS[1]..':jumps', 0, -1)) do "
    "  result[#result + 1] = jump "
    "end "
    "return result";

/* KEYS: a stream; ARGV: the offset, and its id. */
static const char script_trim[] = REDIS_SCRIPT_SAME
    "redis.call('XTRIM', KEYS[1], 'MINID', ARGV[2]) "
    "local trimmed = tonumber(redis.call('GET', KEYS[1]..':trimmed') or '0') "
    "if trimmed < tonumber(ARGV[1]) then redis.call('SET', KEYS[1]..':trimmed', ARGV[1]) end "
    "return 'ok'";

/* Offsets that were never given: from `from` on, below `to`. */
struct jump {
    uint64_t from;
    uint64_t to;
};

struct partition {
    bool reading; /* was sought, */
    bool paused;  /* and stopped since */
    uint64_t next;
    uint64_t end; /* as it was last told */
    uint64_t trimmed;
    struct jump jumps[REDIS_JUMPS_MAX]; /* one behind the other */
    size_t n_jumps;
};

struct member {
    struct shared_member member; /* first */
    struct redis_streams streams;
    char token[REDIS_TOKEN_SIZE];
    uint64_t given; /* how many partitions were, so far */
    uint64_t shared_ns, failed_ns;
    struct partition partitions[GROUP_PARTITIONS_MAX];
    redisReply *batch;                   /* or NULL: of script_read */
    size_t next;                         /* of its elements */
    uint64_t ahead;                      /* the entry for which was looked for a jump last */
    unsigned read[GROUP_PARTITIONS_MAX]; /* the partitions of its streams */
    unsigned turn;                       /* which is read first */
    char names[GROUP_PARTITIONS_MAX][2][REDIS_NAME_MAX];
    char numbers[GROUP_PARTITIONS_MAX][NUMBER_TEXT];
    struct bytes arguments[HEAD + 3 * GROUP_PARTITIONS_MAX + 10];
};

static struct member *member_of(struct shared_member *m) {
    return (struct member *)m;
}

/* ---- asking ---- */

static void drop_batch(struct member *m) {
    redis_reply_cleanup(&m->batch);
    m->batch = NULL;
    m->next = 0;
}

/* All that is known may be of another master. */
static void lose_all(struct member *m) {
    m->member.reachable = false;
    m->failed_ns = os_monotonic_ns(m->streams.link.os);
    drop_batch(m);
    for (unsigned p = 0; p < m->streams.n; p++) {
        m->partitions[p] = (struct partition){0};
        if (m->member.generation[p])
            m->member.generation[p] = ++m->given;
    }
}

/* A script with so many keys and more arguments, which stand behind HEAD; the journal's identity
 * comes to them. */
static int eval(struct member *m, const char *script, size_t keys, size_t more,
                redisReply **ret_reply) {
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    char n[NUMBER_TEXT];
    struct bytes *values = m->arguments + HEAD + keys;
    memmove(values + 1, values, more * sizeof *values);
    values[0] = bytes_of_string(m->streams.identity_key);
    values[1 + more] = bytes_of_string(m->streams.identity);
    snprintf(n, sizeof n, "%zu", keys + 1);
    m->arguments[0] = BYTES_LITERAL("EVAL");
    m->arguments[1] = bytes_of_string(script);
    m->arguments[2] = bytes_of_string(n);
    int r = redis_log_result(
        redis_link_command(&m->streams.link, m->arguments, HEAD + keys + more + 2, &reply));
    if (r == 0 && redis_streams_are_other(&m->streams, reply))
        r = LOG_E_UNAVAILABLE;
    if (r > 0)
        lose_all(m);
    if (r)
        return r;
    *ret_reply = reply;
    reply = NULL;
    return 0;
}

static int odd(struct member *m) {
    int r = redis_link_odd(&m->streams.link);
    lose_all(m);
    return redis_log_result(r);
}

/* "<offset + 1>-0", or a number alone; 0: it is none. */
static uint64_t number_of(const redisReply *id) {
    return id->type == REDIS_REPLY_STRING ? strtoull(id->str, NULL, 10) : 0;
}

static struct bytes number_text(uint64_t number, const char *behind, char out[NUMBER_TEXT]) {
    snprintf(out, NUMBER_TEXT, "%" PRIu64 "%s", number, behind);
    return bytes_of_string(out);
}

/* ---- sharing ---- */

static size_t add_shared_keys(struct member *m, char workers[REDIS_NAME_MAX]) {
    size_t n = HEAD;
    snprintf(workers, REDIS_NAME_MAX, "%.150s:workers", m->streams.log);
    m->arguments[n++] = bytes_of_string(workers);
    for (unsigned p = 0; p < m->streams.n; p++) {
        m->arguments[n++] = redis_stream_name(&m->streams, p, ":reader", m->names[p][0]);
        m->arguments[n++] = redis_stream_name(&m->streams, p, "", m->names[p][1]);
    }
    return n;
}

static uint64_t jumps_known(const struct partition *part) {
    return part->n_jumps ? part->jumps[part->n_jumps - 1].to : 0;
}

/* "<from>-<to>". What is known of older ones stays, up to so many. */
static void note_jump(struct partition *part, const redisReply *text) {
    char *end;
    if (text->type != REDIS_REPLY_STRING || text->len == 0)
        return;
    struct jump jump = {.from = strtoull(text->str, &end, 10)};
    jump.to = *end == '-' ? strtoull(end + 1, NULL, 10) : 0;
    if (jump.to <= jump.from || jump.to <= jumps_known(part))
        return;
    if (part->n_jumps == REDIS_JUMPS_MAX) {
        part->n_jumps--;
        memmove(part->jumps, part->jumps + 1, part->n_jumps * sizeof *part->jumps);
    }
    part->jumps[part->n_jumps++] = jump;
}

static void take_share(struct member *m, unsigned p, long long has, uint64_t end,
                       const redisReply *jumps) {
    bool had = m->member.generation[p] != 0;
    if (has == 0 || !had)
        m->partitions[p] = (struct partition){0};
    if (has == 0)
        m->member.generation[p] = 0;
    else if (has == 2 || !had)
        m->member.generation[p] = ++m->given;
    m->partitions[p].end = end;
    for (size_t i = 0; i < jumps->elements; i++)
        note_jump(&m->partitions[p], jumps->element[i]);
}

static int share(struct member *m) {
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    char workers[REDIS_NAME_MAX], session[NUMBER_TEXT];
    size_t n = add_shared_keys(m, workers), keys = n - HEAD;
    m->arguments[n++] = bytes_of_string(m->token);
    m->arguments[n++] = number_text(m->streams.session_ms, "", session);
    for (unsigned p = 0; p < m->streams.n; p++)
        m->arguments[n++] = number_text(jumps_known(&m->partitions[p]), "", m->numbers[p]);
    int r = eval(m, script_share, keys, 2 + m->streams.n, &reply);
    if (r)
        return r;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 3 * m->streams.n)
        return odd(m);
    for (unsigned p = 0; p < m->streams.n; p++)
        take_share(m, p, reply->element[3 * p]->integer, number_of(reply->element[3 * p + 1]),
                   reply->element[3 * p + 2]);
    m->member.reachable = true;
    return 0;
}

/* 0 as long as there is a server. Without one, it is not asked all the time. */
static int look_after_share(struct member *m) {
    uint64_t now = os_monotonic_ns(m->streams.link.os);
    uint64_t every_ms = m->streams.session_ms / SHARES;
    if (every_ms > SHARE_MS)
        every_ms = SHARE_MS;
    if (!m->member.reachable && now - m->failed_ns < every_ms * MS_NS)
        return LOG_E_UNAVAILABLE;
    if (m->shared_ns && now - m->shared_ns < every_ms * MS_NS && m->member.reachable)
        return 0;
    m->shared_ns = now;
    redis_link_begin(&m->streams.link, 0);
    return share(m);
}

/* ---- reading ---- */

/* The streams that are read, beginning with another each time; each with the id behind which. */
static size_t add_streams(struct member *m) {
    size_t n = 0;
    m->turn++;
    for (unsigned i = 0; i < m->streams.n; i++) {
        unsigned p = (m->turn + i) % m->streams.n;
        const struct partition *part = &m->partitions[p];
        if (!part->reading || part->paused)
            continue;
        m->read[n] = p;
        (void)redis_stream_name(&m->streams, p, "", m->names[p][1]);
        (void)number_text(part->next, "-0", m->numbers[p]);
        n++;
    }
    return n;
}

/* Empty: there is nothing. */
static int fetch(struct member *m, size_t n) {
    char bytes[NUMBER_TEXT], messages[NUMBER_TEXT];
    size_t at = HEAD;
    drop_batch(m);
    for (size_t i = 0; i < n; i++)
        m->arguments[at++] = bytes_of_string(m->names[m->read[i]][1]);
    m->arguments[at++] = number_text(READ_BYTES, "", bytes);
    m->arguments[at++] = number_text(READ_MESSAGES, "", messages);
    for (size_t i = 0; i < n; i++)
        m->arguments[at++] = bytes_of_string(m->numbers[m->read[i]]);
    int r = eval(m, script_read, n, 2 + n, &m->batch);
    if (r)
        return r;
    return m->batch->type == REDIS_REPLY_ARRAY && m->batch->elements % 3 == 0 ? 0 : odd(m);
}

/* Until one of them has more. */
static int wait_for_more(struct member *m, size_t n, uint64_t wait_ms) {
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    char wait[NUMBER_TEXT];
    size_t at = 0;
    m->arguments[at++] = BYTES_LITERAL("XREAD");
    m->arguments[at++] = BYTES_LITERAL("COUNT");
    m->arguments[at++] = BYTES_LITERAL("1");
    m->arguments[at++] = BYTES_LITERAL("BLOCK");
    m->arguments[at++] = number_text(wait_ms, "", wait);
    m->arguments[at++] = BYTES_LITERAL("STREAMS");
    for (size_t i = 0; i < n; i++)
        m->arguments[at++] = bytes_of_string(m->names[m->read[i]][1]);
    for (size_t i = 0; i < n; i++)
        m->arguments[at++] = bytes_of_string(m->numbers[m->read[i]]);
    int r = redis_link_command(&m->streams.link, m->arguments, at, &reply);
    if (r > 0)
        lose_all(m);
    if (r)
        return redis_log_result(r);
    return reply->type == REDIS_REPLY_NIL ? LOG_E_END : 0;
}

static int next_batch(struct member *m, uint64_t wait_ms) {
    size_t n = add_streams(m);
    if (n == 0)
        return LOG_E_END;
    redis_link_begin(&m->streams.link, wait_ms);
    int r = fetch(m, n);
    if (r || m->batch->elements > 0)
        return r;
    r = wait_ms ? wait_for_more(m, n, wait_ms) : LOG_E_END;
    if (!r)
        r = fetch(m, n);
    return r || m->batch->elements > 0 ? r : LOG_E_END;
}

/* Whether it comes behind a gap: what is known of jumps may be older. Once for each. */
static bool is_ahead(struct member *m, const struct partition *part, uint64_t entry) {
    if (entry <= part->next + 1 || entry == m->ahead)
        return false;
    m->ahead = entry;
    return true;
}

/* The next of the batch, if it is of a partition that is still read where it was. */
static int take_next(struct member *m, struct shared_delivery *ret_delivery) {
    while (m->batch && m->next < m->batch->elements) {
        const redisReply *number = m->batch->element[m->next];
        const redisReply *id = m->batch->element[m->next + 1];
        const redisReply *message = m->batch->element[m->next + 2];
        uint64_t entry = number_of(id);
        if (number->type != REDIS_REPLY_INTEGER || number->integer < 1 ||
            number->integer > (long long)m->streams.n || entry == 0 ||
            !redis_reply_is(message, NULL))
            return odd(m);
        unsigned p = m->read[number->integer - 1];
        struct partition *part = &m->partitions[p];
        if (is_ahead(m, part, entry)) { /* the partition, the batch, may be gone then */
            redis_link_begin(&m->streams.link, 0);
            int r = share(m);
            if (r)
                return r;
            continue;
        }
        m->next += 3;
        if (!part->reading || part->paused || entry <= part->next)
            continue;
        void *copy = malloc(message->len + 1); /* not of nothing */
        if (!copy)
            return error_origin(-ENOMEM);
        memcpy(copy, message->str, message->len);
        part->next = entry;
        *ret_delivery = (struct shared_delivery){.partition = p,
                                                 .offset = entry - 1,
                                                 .bytes = bytes_of(copy, message->len),
                                                 .owner = copy};
        return 0;
    }
    return LOG_E_END;
}

/* Nothing comes: what is left of the time is waited, so that nobody asks again at once. */
static int wait_in_vain(struct member *m, uint64_t until_ns) {
    struct os *os = m->streams.link.os;
    uint64_t now = os_monotonic_ns(os);
    if (now < until_ns)
        os_sleep_ns(os, until_ns - now);
    return LOG_E_END;
}

static int member_next(struct shared_member *member, uint64_t wait_ms,
                       struct shared_delivery *ret_delivery) {
    struct member *m = member_of(member);
    uint64_t until_ns = os_monotonic_ns(m->streams.link.os) + wait_ms * MS_NS;
    int r = look_after_share(m);
    if (r == 0)
        r = take_next(m, ret_delivery);
    if (r == LOG_E_END) {
        r = next_batch(m, wait_ms);
        if (r == 0)
            r = take_next(m, ret_delivery);
    }
    return r == 0 ? 0 : wait_in_vain(m, until_ns);
}

static void member_release(struct shared_delivery *d) {
    free(d->owner);
}

/* ---- seeking, trimming ---- */

static int member_seek(struct shared_member *member, unsigned partition, bool known,
                       uint64_t *offset) {
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    struct member *m = member_of(member);
    struct partition *part = &m->partitions[partition];
    part->reading = false;
    redis_link_begin(&m->streams.link, 0);
    m->arguments[HEAD] = redis_stream_name(&m->streams, partition, "", m->names[partition][1]);
    int r = eval(m, script_bounds, 1, 0, &reply);
    if (r)
        return r;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements < 3)
        return odd(m);
    uint64_t first = number_of(reply->element[0]), end = number_of(reply->element[1]);
    if (*offset + known > end)
        return LOG_E_END;
    if (first == 0) /* it is empty */
        first = end + 1;
    if (*offset < first - 1)
        *offset = first - 1;
    *part = (struct partition){
        .reading = true, .next = *offset, .end = end, .trimmed = number_of(reply->element[2])};
    for (size_t i = 3; i < reply->elements; i++)
        note_jump(part, reply->element[i]);
    return 0;
}

static void member_pause(struct shared_member *member, unsigned partition, bool pause) {
    member_of(member)->partitions[partition].paused = pause;
}

static uint64_t member_end(struct shared_member *member, unsigned partition) {
    const struct partition *part = &member_of(member)->partitions[partition];
    return part->next > part->end ? part->next : part->end;
}

/* What was trimmed, and the jumps above that. */
static uint64_t member_empty(struct shared_member *member, unsigned partition, uint64_t from,
                             uint64_t to) {
    const struct partition *part = &member_of(member)->partitions[partition];
    uint64_t trimmed = part->trimmed < to ? part->trimmed : to, n = 0;
    if (from < trimmed) {
        n = trimmed - from;
        from = trimmed;
    }
    for (size_t i = 0; i < part->n_jumps; i++) {
        const struct jump *jump = &part->jumps[i];
        uint64_t begin = jump->from > from ? jump->from : from;
        uint64_t end = jump->to < to ? jump->to : to;
        n += end > begin ? end - begin : 0;
        from = end > from ? end : from;
    }
    return n;
}

static int member_trim(struct shared_member *member, unsigned partition, uint64_t offset) {
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    struct member *m = member_of(member);
    char number[NUMBER_TEXT], id[NUMBER_TEXT];
    redis_link_begin(&m->streams.link, 0);
    m->arguments[HEAD] = redis_stream_name(&m->streams, partition, "", m->names[partition][1]);
    m->arguments[HEAD + 1] = number_text(offset, "", number);
    m->arguments[HEAD + 2] = number_text(offset + 1, "-0", id);
    return eval(m, script_trim, 1, 2, &reply);
}

/* ---- life ---- */

static int member_join(struct os *os, const struct log_options *options,
                       struct shared_member **ret_member) {
    struct member *m = calloc(1, sizeof *m);
    *ret_member = NULL;
    if (!m)
        return error_origin(-ENOMEM);
    m->member = (struct shared_member){.ops = &redis_member_ops, .reachable = true};
    *ret_member = &m->member;
    int r = redis_streams_open(&m->streams, os, options, false, m->member.why);
    return r ? r : error_trace(redis_make_token(os, m->token));
}

static void say_farewell(struct member *m) {
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    char workers[REDIS_NAME_MAX];
    size_t n = add_shared_keys(m, workers), keys = n - HEAD;
    m->arguments[n++] = bytes_of_string(m->token);
    redis_link_begin(&m->streams.link, 0);
    (void)eval(m, script_leave, keys, 1, &reply);
}

/* Where there is no connection, its session ends by itself. */
static void member_leave(struct shared_member *member) {
    struct member *m = member_of(member);
    if (m->streams.link.connection && m->token[0])
        say_farewell(m);
    drop_batch(m);
    redis_streams_close(&m->streams);
    free(m);
}

const struct shared_member_ops redis_member_ops = {
    .join = member_join,
    .leave = member_leave,
    .next = member_next,
    .release = member_release,
    .seek = member_seek,
    .pause = member_pause,
    .end = member_end,
    .empty = member_empty,
    .trim = member_trim,
};
