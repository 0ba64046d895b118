/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers: see numbers.h. */
#include "redis/numbers.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

/* KEYS: the hash, the sorted set. ARGV: the session, how many are remembered; the messages, none to
 * begin a session. Answers the session and the numbers; 0 when the session is over.
 *
 * Another master, or another run of it, may have forgotten the newest of both: all sessions are
 * over then, and it goes on at its clock, eight a millisecond since 2026, above whatever any before
 * it can have given in vain; or where that is too early, at the next multiple of 2^28. A script
 * that fails in the middle is not undone: so the next number is above all that are remembered,
 * whatever the hash says. */
const char redis_numbers_source[] =
    "local call, state, known = redis.call, KEYS[1], KEYS[2]\n"
    "local function above(number)\n"
    "  local time, step, most = call('TIME'), 268435456, 4200000000000\n"
    "  local clock = (time[1] * 1000 + math.floor(time[2] / 1000) - 1767225600000) * 8\n"
    "  if clock > number and clock < most then return clock end\n"
    "  return (math.floor(number / step) + 1) * step\n"
    "end\n"
    "local has = call('HMGET', state, 'session', 'next', 'server')\n"
    "local session, next = tonumber(has[1] or 0), tonumber(has[2] or 0)\n"
    "local server = string.match(call('INFO', 'server'), 'run_id:(%w+)') ..\n"
    "  string.match(call('INFO', 'replication'), 'master_replid:(%w+)')\n"
    "local is_new = has[3] and has[3] ~= server\n"
    "if #ARGV > 2 and (is_new or tonumber(ARGV[1]) ~= session) then\n"
    "  call('HSET', state, 'session', session)\n"
    "  return 0\n"
    "end\n"
    "local top = call('ZREVRANGE', known, 0, 0, 'WITHSCORES')[2]\n"
    "if top then next = math.max(next, tonumber(top) + 1) end\n"
    "if is_new then session, next = above(session), above(next) end\n"
    "if #ARGV == 2 then session = session + 1 end\n"
    "local out = {session}\n"
    "for i = 3, #ARGV do\n"
    "  local number = tonumber(call('ZSCORE', known, ARGV[i]) or next)\n"
    "  if number == next then\n"
    "    call('ZADD', known, next, ARGV[i])\n"
    "    next = next + 1\n"
    "  end\n"
    "  out[i - 1] = number\n"
    "end\n"
    "call('ZREMRANGEBYRANK', known, 0, -1 - ARGV[2])\n"
    "call('HSET', state, 'session', string.format('%.0f', session),\n"
    "  'next', string.format('%.0f', next), 'server', server)\n"
    "return out\n";

void redis_numbers_init(struct redis_numbers *c, const struct redis_script *script,
                        struct bytes state, struct bytes known, uint64_t session,
                        const struct bytes *ids, size_t n) {
    assert(n <= REDIS_NUMBERS_MAX);
    snprintf(c->session, sizeof c->session, "%" PRIu64, session);
    snprintf(c->kept, sizeof c->kept, "%d", REDIS_NUMBERS_KEPT);
    c->words[0] = state;
    c->words[1] = known;
    c->words[2] = bytes_of_string(c->session);
    c->words[3] = bytes_of_string(c->kept);
    for (size_t i = 0; i < n; i++)
        c->words[4 + i] = ids[i];
    c->command = (struct redis_command){
        .key = state, .script = script, .n_keys = 2, .arguments = c->words, .n = 4 + n};
}

static bool is_number(const redisReply *reply) {
    return reply->type == REDIS_REPLY_INTEGER && reply->integer >= 0;
}

int redis_numbers_take(const struct redis_numbers *c, uint64_t *ret_session, uint64_t *ret_numbers,
                       size_t n) {
    const redisReply *reply = c->command.reply;
    if (is_number(reply))
        return reply->integer == 0 ? REDIS_E_REFUSED : REDIS_E_UNAVAILABLE;
    bool good = reply->type == REDIS_REPLY_ARRAY && reply->elements == 1 + n;
    for (size_t i = 0; good && i <= n; i++)
        good = is_number(reply->element[i]);
    if (!good)
        return REDIS_E_UNAVAILABLE;
    *ret_session = (uint64_t)reply->element[0]->integer;
    for (size_t i = 0; i < n; i++)
        ret_numbers[i] = (uint64_t)reply->element[1 + i]->integer;
    return 0;
}
