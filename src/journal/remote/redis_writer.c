/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing a shared journal on Redis: scripts that append several messages each, and WAIT for the
 * replicas behind the last of them.
 *
 * A script that was sent and not answered may have run, and an answer that too few replicas have it
 * comes from a master that may have been cut off: LOG_E_UNKNOWN.
 */
#include "journal/remote/redis_shared.h"
#include "journal/remote/shared.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    APPEND_BYTES_MAX = 4 << 20, /* of one script: for that long Redis serves nobody else */
    APPEND_MESSAGES_MAX = 128,
    HEAD = 3, /* EVAL, the script, the number of keys */
    SESSION_MS = 10000,
    SESSION_LEAST_MS = 1000,
    SESSION_MOST_MS = 1800000,
};

static const char *const schemes[] = {"redis", "redis+sentinel", "rediss", "rediss+sentinel", NULL};
static const char *const parameters[] = {
    "partitions",        "prefix", "replicas", "session-timeout", "sentinel-user",
    "sentinel-password", NULL};

/* KEYS: the stream of each message; ARGV: the messages. Returns how many were appended, or of the
 * first an error. What another master, or another run of it, appends first is behind a jump. All
 * that may raise an
 * error comes before the first message; from there on one only ends the count. An id that is too
 * small shows that somebody else has appended, with larger ones: the next time it goes on behind
 * them. */
static const char script_append[] = REDIS_SCRIPT_SAME REDIS_SCRIPT_NEWEST
    "local server = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)').."
    "  string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)') "
    "local time = redis.call('TIME') "
    "local clock = (time[1] * 1000 + math.floor(time[2] / 1000) - 1767225600000) * 8 "
    "local step, most, tops, jumps, given = 268435456, 4200000000000, {}, {}, {} "
    "local n = #KEYS - 1 "
    "for i = 1, n do local key = KEYS[i] if not tops[key] then "
    "  local top, last = newest(key) "
    "  tops[key] = top "
    "  if last ~= server then "
    "    local above = clock > top and clock < most "
    "    tops[key] = above and clock or (math.floor(top / step) + 1) * step "
    "    jumps[key] = string.format('%.0f-%.0f', top, tops[key]) "
    "  end "
    "end end "
    "local function pass_strangers(key) "
    "  redis.pcall('DEL', key..':server') "
    "  local to = string.format('%.0f', newest(key) - 1) "
    "  local jump = string.format('%.0f-%s', tops[key], to) "
    "  redis.pcall('ZADD', key..':jumps', to, jump) "
    "end "
    "local function finish(n) "
    "  for key in pairs(given) do "
    "    redis.pcall('SET', key..':server', string.format('%s %.0f', server, tops[key])) "
    "  end "
    "  return n "
    "end "
    "for i = 1, n do "
    "  local key = KEYS[i] "
    "  local id = string.format('%.0f-0', tops[key] + 1) "
    "  local added = redis.pcall('XADD', key, id, 'm', ARGV[i]) "
    "  if type(added) == 'table' and added.err then "
    "    if i > 1 then return finish(i - 1) end "
    "    if string.find(added.err, 'smaller') then pass_strangers(key) end "
    "    return added "
    "  end "
    "  if jumps[key] and not given[key] then "
    "    redis.pcall('ZADD', key..':jumps', string.format('%.0f', tops[key]), jumps[key]) "
    "    redis.pcall('ZREMRANGEBYRANK', key..':jumps', 0, -65) "
    "  end "
    "  tops[key], given[key] = tops[key] + 1, true "
    "end "
    "return finish(n)";

static_assert(REDIS_JUMPS_MAX == 64 && UINT64_C(4200000000000) < UINT64_C(1) << SHARED_OFFSET_BITS,
              "as the script has it");

/* KEYS: :partitions, :identity; ARGV: what they are if there are none. Returns what they are. */
static const char script_make[] = "redis.call('SET', KEYS[1], ARGV[1], 'NX') "
                                  "redis.call('SET', KEYS[2], ARGV[2], 'NX') "
                                  "return redis.call('MGET', KEYS[1], KEYS[2])";

/* ---- the streams ---- */

static_assert((int)LOG_WHY_MAX >= (int)REDIS_WHY_MAX,
              "links write their sentences into those of logs");

int redis_log_result(int r) {
    if (r == REDIS_E_UNAVAILABLE)
        return LOG_E_UNAVAILABLE;
    return r == REDIS_E_REFUSED ? LOG_E_REFUSED : r;
}

struct bytes redis_stream_name(const struct redis_streams *s, unsigned partition, const char *what,
                               char out[REDIS_NAME_MAX]) {
    snprintf(out, REDIS_NAME_MAX, "%.150s-%u%s", s->log, partition, what);
    return bytes_of_string(out);
}

static int read_url(struct redis_streams *s, const struct log_options *options,
                    char why[LOG_WHY_MAX]) {
    const struct service_url *u = options->url;
    const char *prefix = service_url_parameter(u, "prefix");
    s->n = journal_url_partitions(u);
    s->session_ms = SESSION_MS;
    if (!redis_link_check_url(u, why))
        return LOG_E_REFUSED;
    if (!service_url_parameter_number(u, "replicas", 0, REDIS_REPLICAS_MAX, &s->replicas))
        return log_fail(why, LOG_E_REFUSED, "replicas is a number from 0 to %d",
                        REDIS_REPLICAS_MAX);
    if (!service_url_parameter_number(u, "session-timeout", SESSION_LEAST_MS, SESSION_MOST_MS,
                                      &s->session_ms))
        return log_fail(why, LOG_E_REFUSED,
                        "session-timeout is a number of milliseconds from %d to %d",
                        SESSION_LEAST_MS, SESSION_MOST_MS);
    if (!prefix)
        prefix = "millrace-";
    if (strlen(prefix) > REDIS_PREFIX_MAX)
        return log_fail(why, LOG_E_REFUSED, "a prefix has at most %d bytes", REDIS_PREFIX_MAX);
    snprintf(s->log, sizeof s->log, "%s%s", prefix, options->name);
    return 0;
}

static int check(const struct service_url *url, char why[LOG_WHY_MAX]) {
    const struct log_options options = {.url = url, .name = "events"};
    struct redis_streams streams = {0};
    return read_url(&streams, &options, why);
}

/* LOG_E_UNAVAILABLE: it may come back. */
static int say_other(struct redis_streams *s) {
    redis_link_hang_up(&s->link);
    return log_fail(s->link.why, LOG_E_UNAVAILABLE,
                    "%.40s has lost the journal %.100s, or has another of this name, since this "
                    "process began: nothing is written or read there",
                    s->link.peer, s->log);
}

bool redis_streams_are_other(struct redis_streams *s, const redisReply *reply) {
    bool other = redis_reply_is(reply, "OTHER");
    if (other)
        (void)say_other(s);
    return other;
}

static int say_missing(struct redis_streams *s) {
    return log_fail(s->link.why, LOG_E_END, "%.40s has no journal %.100s", s->link.peer, s->log);
}

static int judge_journal(struct redis_streams *s, const redisReply *reply, bool known) {
    if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
        reply->element[1]->type == REDIS_REPLY_NIL)
        return known ? say_other(s) : say_missing(s);
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
        !redis_reply_is(reply->element[0], NULL) || !redis_reply_is(reply->element[1], NULL))
        return redis_log_result(redis_link_odd(&s->link));
    snprintf(s->identity, sizeof s->identity, "%s", reply->element[1]->str);
    unsigned long has = strtoul(reply->element[0]->str, NULL, 10);
    return has == s->n ? 0
                       : log_refuse_partitions(s->link.why, s->log, (unsigned)has, s->n, "prefix");
}

/* make: if it is missing; existing: it was not known to be there, so LOG_E_END says that it is not.
 */
static int find_journal(struct redis_streams *s, struct os *os, bool make, bool existing) {
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    char partitions[REDIS_NAME_MAX], n[24], token[REDIS_TOKEN_SIZE];
    int r = redis_make_token(os, token);
    if (r)
        return error_trace(r);
    snprintf(partitions, sizeof partitions, "%.150s:partitions", s->log);
    snprintf(s->identity_key, sizeof s->identity_key, "%.150s:identity", s->log);
    snprintf(n, sizeof n, "%u", s->n);
    const struct bytes ask[] = {BYTES_LITERAL("MGET"), bytes_of_string(partitions),
                                bytes_of_string(s->identity_key)};
    const struct bytes script[] = {
        BYTES_LITERAL("EVAL"),       bytes_of_string(script_make),     BYTES_LITERAL("2"),
        bytes_of_string(partitions), bytes_of_string(s->identity_key), bytes_of_string(n),
        bytes_of_string(token)};
    r = make ? redis_link_command(&s->link, script, ARRAY_LENGTH(script), &reply)
             : redis_link_command(&s->link, ask, ARRAY_LENGTH(ask), &reply);
    return r ? redis_log_result(r) : judge_journal(s, reply, !existing);
}

int redis_streams_open(struct redis_streams *s, struct os *os, const struct log_options *options,
                       bool make, char why[LOG_WHY_MAX]) {
    redis_link_init(&s->link, os, options->url, options->timeout_ms, why);
    redis_link_begin(&s->link, 0);
    int r = read_url(s, options, why);
    if (!r)
        r = redis_log_result(redis_link_connect(&s->link));
    if (!r)
        r = redis_log_result(
            redis_check_settings(&s->link, s->replicas, options->warn, options->context));
    return r ? r : find_journal(s, os, make && !options->existing, options->existing);
}

void redis_streams_close(struct redis_streams *s) {
    redis_link_deinit(&s->link);
}

/* ---- the writer ---- */

struct writer {
    struct shared_writer writer; /* first */
    struct redis_streams streams;
};

static struct writer *writer_of(struct shared_writer *w) {
    return (struct writer *)w;
}

/* Of the messages, those that go into one script: a name and a message each, to keys and values. */
static size_t gather(const struct writer *w, const struct shared_message *messages, size_t n,
                     char names[][REDIS_NAME_MAX], struct bytes *keys, struct bytes *values) {
    size_t count = 0, bytes = 0;
    for (; count < n && count < APPEND_MESSAGES_MAX; count++) {
        const struct shared_message *m = &messages[count];
        bytes += m->bytes.size;
        if (count > 0 && bytes > APPEND_BYTES_MAX)
            break;
        keys[count] = redis_stream_name(&w->streams, m->partition, "", names[count]);
        values[count] = buffer_bytes(&m->bytes);
    }
    return count;
}

/* What the script did: of the messages, n_done are appended. An error that it began with is one
 * before which nothing was done. */
static int judge(struct writer *w, const redisReply *reply, size_t n, size_t *ret_done) {
    struct redis_link *l = &w->streams.link;
    if (reply->type == REDIS_REPLY_ERROR) {
        bool passing = redis_error_is_passing(reply->str);
        redis_link_say_error(l, reply);
        if (passing)
            redis_link_hang_up(l);
        return LOG_E_UNAVAILABLE;
    }
    if (redis_streams_are_other(&w->streams, reply))
        return LOG_E_UNAVAILABLE;
    if (reply->type != REDIS_REPLY_INTEGER || reply->integer < 1 || reply->integer > (long long)n) {
        int r = redis_link_odd(l);
        return r < 0 ? r : LOG_E_UNKNOWN;
    }
    *ret_done = (size_t)reply->integer;
    return 0;
}

/* One script, of what comes first. */
static int append_some(struct writer *w, const struct shared_message *messages, size_t n,
                       size_t *ret_done) {
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    char names[APPEND_MESSAGES_MAX][REDIS_NAME_MAX], n_keys[24];
    struct bytes arguments[HEAD + APPEND_MESSAGES_MAX + 1], values[APPEND_MESSAGES_MAX + 1];
    struct redis_link *l = &w->streams.link;
    size_t count = gather(w, messages, n, names, arguments + HEAD, values);
    arguments[HEAD + count] = bytes_of_string(w->streams.identity_key);
    values[count] = bytes_of_string(w->streams.identity);
    snprintf(n_keys, sizeof n_keys, "%zu", count + 1);
    arguments[0] = BYTES_LITERAL("EVAL");
    arguments[1] = bytes_of_string(script_append);
    arguments[2] = bytes_of_string(n_keys);
    int r = redis_log_result(redis_link_connect(l));
    if (r)
        return r;
    redis_link_add(l, arguments, HEAD + count + 1, values, count + 1);
    r = redis_link_send(l);
    if (!r)
        r = redis_link_receive(l, &reply);
    if (r)
        return r < 0 ? r : LOG_E_UNKNOWN;
    return judge(w, reply, count, ret_done);
}

/* Those that were appended, and no replica may have: what becomes of them depends on who is master
 * then. */
static int give_up(struct writer *w) {
    redis_link_hang_up(&w->streams.link);
    return LOG_E_UNKNOWN;
}

static int append_all(struct writer *w, struct shared_message *messages, size_t n) {
    bool some = false;
    for (size_t at = 0, done = 0; at < n; at += done) {
        int r = append_some(w, messages + at, n - at, &done);
        if (r)
            return r > 0 && some ? give_up(w) : r;
        some = true;
    }
    int r = redis_wait_for_replicas(&w->streams.link, w->streams.replicas);
    return r > 0 ? give_up(w) : r;
}

static int writer_open(struct os *os, const struct log_options *options,
                       struct shared_writer **ret_writer) {
    struct writer *w = calloc(1, sizeof *w);
    *ret_writer = NULL;
    if (!w)
        return error_origin(-ENOMEM);
    w->writer.ops = shared_redis.writer;
    *ret_writer = &w->writer;
    int r = redis_streams_open(&w->streams, os, options, true, w->writer.why);
    if (!r) /* stores may remember it from now on */
        r = redis_log_result(redis_wait_for_replicas(&w->streams.link, w->streams.replicas));
    snprintf(w->writer.identity, sizeof w->writer.identity, "%s", w->streams.identity);
    return r;
}

static void writer_close(struct shared_writer *writer) {
    struct writer *w = writer_of(writer);
    redis_streams_close(&w->streams);
    free(w);
}

/* All or nothing known: none of them is marked. */
static int writer_deliver(struct shared_writer *writer, struct shared_message *messages, size_t n) {
    struct writer *w = writer_of(writer);
    redis_link_begin(&w->streams.link, 0);
    return append_all(w, messages, n);
}

/* WAIT is about what the connection wrote, so where replicas are waited for the identity is written
 * anew. KEYS: identity; ARGV: what it should be, whether to write. */
static const char script_probe[] =
    "local is = redis.call('GET', KEYS[1])\n"
    "if ARGV[2] == '1' and is == ARGV[1] then redis.call('SET', KEYS[1], is) end\n"
    "return is\n";

static int ask_identity(struct redis_streams *s) {
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    const struct bytes ask[] = {
        BYTES_LITERAL("EVAL"),        bytes_of_string(script_probe),
        BYTES_LITERAL("1"),           bytes_of_string(s->identity_key),
        bytes_of_string(s->identity), s->replicas ? BYTES_LITERAL("1") : BYTES_LITERAL("0"),
    };
    int r = redis_log_result(redis_link_command(&s->link, ask, ARRAY_LENGTH(ask), &reply));
    if (r)
        return r;
    return redis_reply_is(reply, s->identity) ? 0 : say_other(s);
}

/* Whose journal it has, and whether there are the replicas that a message would have to reach. Who
 * refuses it may be a master no more: the next one is looked for. */
static int writer_probe(struct shared_writer *writer, uint64_t timeout_ms) {
    struct writer *w = writer_of(writer);
    struct redis_streams *s = &w->streams;
    redis_link_until(&s->link, os_monotonic_ns(s->link.os) + timeout_ms * 1000000);
    int r = ask_identity(s);
    if (!r)
        r = redis_log_result(redis_wait_for_replicas(&s->link, s->replicas));
    if (r > 0)
        redis_link_hang_up(&s->link);
    return r;
}

static const struct shared_writer_ops writer_ops = {
    .open = writer_open,
    .close = writer_close,
    .deliver = writer_deliver,
    .probe = writer_probe,
};

const struct shared_driver shared_redis = {
    .name = "redis",
    .schemes = schemes,
    .parameters = parameters,
    .prefix = "prefix",
    .writer = &writer_ops,
    .member = &redis_member_ops,
    .check = check,
    .watch = &redis_watch_ops,
    .mark = redis_mark,
};
