/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scripts: see scripts.h. Each says first what it is given. One that fails in the middle is not
 * undone, so a position moves last: what came before it is then done again, with the same end.
 */
#include "events/redis/scripts.h"

#define NOTHING "'00000000000000000000'"

/* KEYS: the bucket's positions; then of each cookie a list an action.
 * ARGV: lane, from, last, how many tags a list keeps, lists a cookie; then of each cookie 1 when it
 * is erased first, and of each of its lists how many tags, and their times and selves. */
const char script_cookies[] =
    "local has = redis.call('HGET', KEYS[1], ARGV[1]) or " NOTHING "\n"
    "if has > ARGV[2] then redis.call('HSET', KEYS[1], ARGV[1], has) return has end\n"
    "local lists, at = tonumber(ARGV[5]), 6\n"
    "for first = 2, #KEYS, lists do\n"
    "  local erased = ARGV[at] == '1'\n"
    "  at = at + 1\n"
    "  for k = first, first + lists - 1 do\n"
    "    local behind = at + 1 + 2 * tonumber(ARGV[at])\n"
    "    at = at + 1\n"
    "    if erased then redis.call('DEL', KEYS[k]) end\n"
    "    while at < behind do\n"
    "      local last = math.min(at + 999, behind - 1)\n"
    "      redis.call('ZADD', KEYS[k], unpack(ARGV, at, last))\n"
    "      redis.call('ZREMRANGEBYRANK', KEYS[k], 0, -1 - tonumber(ARGV[4]))\n"
    "      at = last + 1\n"
    "    end\n"
    "  end\n"
    "end\n"
    "redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])\n"
    "return 1\n";

/* KEYS: the minute's hash.
 * ARGV: the field of the lane's position, from, last, seconds until it is forgotten; then fields
 * and what they grow by: a count and a sum of 64 bits, which are added in halves of 32. Some
 * hundred fields are read and written at a time: a call for each would cost most of the work. All
 * are read before the first is written: what is no count must fail before anything has grown. */
const char script_minute[] =
    "local call, key = redis.call, KEYS[1]\n"
    "local has = call('HGET', key, ARGV[1]) or " NOTHING "\n"
    "if has > ARGV[2] then call('HSET', key, ARGV[1], has) return has end\n"
    "local pack, unpack_ints, HALF = struct.pack, struct.unpack, 4294967296\n"
    "local FORM, all = '<I4I4I4i4', {}\n"
    "for first = 5, #ARGV, 800 do\n"
    "  local last, fields, n = math.min(first + 799, #ARGV), {}, 0\n"
    "  for i = first, last, 2 do n = n + 1 fields[n] = ARGV[i] end\n"
    "  local old, new = call('HMGET', key, unpack(fields)), {}\n"
    "  for i = 1, n do\n"
    "    local more = ARGV[first + 2 * i - 1]\n"
    "    if old[i] then\n"
    "      local c, ch, s, sh = unpack_ints(FORM, old[i])\n"
    "      local d, dh, t, th = unpack_ints(FORM, more)\n"
    "      c, ch, s, sh = c + d, ch + dh, s + t, sh + th\n"
    "      if c >= HALF then c, ch = c - HALF, ch + 1 end\n"
    "      if s >= HALF then s, sh = s - HALF, sh + 1 end\n"
    "      more = pack(FORM, c, ch, s, sh)\n"
    "    end\n"
    "    new[2 * i - 1], new[2 * i] = fields[i], more\n"
    "  end\n"
    "  all[#all + 1] = new\n"
    "end\n"
    "for _, new in ipairs(all) do call('HSET', key, unpack(new)) end\n"
    "call('HSET', key, ARGV[1], ARGV[3])\n"
    "call('EXPIRE', key, ARGV[4])\n"
    "return 1\n";

/* KEYS: the hash. ARGV: 1 when it may be created; then fields and their values, for one that is not
 * there. Answers the values of those fields; 0 when it is not there and may not be created. */
const char script_join[] = "local fields = {}\n"
                           "for i = 2, #ARGV, 2 do\n"
                           "  fields[#fields + 1] = ARGV[i]\n"
                           "end\n"
                           "if redis.call('EXISTS', KEYS[1]) == 0 then\n"
                           "  if ARGV[1] ~= '1' then return 0 end\n"
                           "  redis.call('HSET', KEYS[1], unpack(ARGV, 2))\n"
                           "end\n"
                           "if ARGV[1] == '1' then\n"
                           "  redis.call('HSETNX', KEYS[1], ARGV[#ARGV - 1], ARGV[#ARGV])\n"
                           "end\n"
                           "return redis.call('HMGET', KEYS[1], unpack(fields))\n";

/* KEYS: the lane's. ARGV: low, high; the low that it had before, at least; and whose the lanes are,
 * "" for anybody's. Neither position goes back. Answers 1; 0 when it has less than it had: so has
 * all else, perhaps; -1 when it is another's. Nothing is changed then. */
const char script_lane[] = "local owner = redis.call('HGET', KEYS[1], 'owner')\n"
                           "if ARGV[4] ~= '' and owner and owner ~= ARGV[4] then\n"
                           "  return -1\n"
                           "end\n"
                           "if (redis.call('HGET', KEYS[1], 'low') or " NOTHING ") < ARGV[3] then\n"
                           "  return 0\n"
                           "end\n"
                           "for i, field in ipairs({'low', 'high'}) do\n"
                           "  local has = redis.call('HGET', KEYS[1], field) or " NOTHING "\n"
                           "  if has < ARGV[i] then has = ARGV[i] end\n"
                           "  redis.call('HSET', KEYS[1], field, has)\n"
                           "end\n"
                           "return 1\n";

/* KEYS: the lane's. ARGV: whose it is from now on, "" for anybody's. Answers low and high, which
 * the replicas then have too: what a failover took back afterwards would look like a loss. */
const char script_position[] =
    "local low = redis.call('HGET', KEYS[1], 'low') or " NOTHING "\n"
    "local high = redis.call('HGET', KEYS[1], 'high') or " NOTHING "\n"
    "redis.call('HSET', KEYS[1], 'low', low, 'high', high)\n"
    "if ARGV[1] ~= '' then redis.call('HSET', KEYS[1], 'owner', ARGV[1]) end\n"
    "return {low, high}\n";

/* KEYS: the collection. ARGV: the element's field, 1 when it is to be created, the largest id.
 * Answers the id, 0 when there is none, -1 when there are no more. */
const char script_id[] =
    "local id = redis.call('HGET', KEYS[1], ARGV[1])\n"
    "if id then redis.call('HSET', KEYS[1], ARGV[1], id) return tonumber(id) end\n"
    "if ARGV[2] ~= '1' then return 0 end\n"
    "if tonumber(redis.call('HGET', KEYS[1], 'n') or 0) >= tonumber(ARGV[3]) then return -1 end\n"
    "id = redis.call('HINCRBY', KEYS[1], 'n', 1)\n"
    "redis.call('HSET', KEYS[1], ARGV[1], id)\n"
    "return id\n";

/* KEYS: of each run of a lane's tags, what is known of the key they came with. ARGV: how long a key
 * counts and how long it is kept, ms; then of each run its first index and last, the lsns of both,
 * and when it came, ms.
 *
 * What is known is a text of pieces: lsn, index, time: at that lsn, all up to that index had come.
 * Answers of each run up to which index it had come before the run: the same whenever it is asked
 * again, as what the run itself added has no smaller lsn. */
const char script_once[] =
    "local sub, known = string.sub, {}\n"
    "for i = 1, #KEYS do\n"
    "  local at = 5 * i - 2\n"
    "  local first, last, from, to = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), ARGV[at + 2], "
    "ARGV[at + 3]\n"
    "  local ms = tonumber(ARGV[at + 4])\n"
    "  local pieces, before, all = redis.call('GET', KEYS[i]) or '', first - 1, false\n"
    "  for p = 1, #pieces, 50 do\n"
    "    local index = tonumber(sub(pieces, p + 20, p + 29))\n"
    "    if tonumber(sub(pieces, p + 30, p + 49)) + tonumber(ARGV[1]) > ms then\n"
    "      if sub(pieces, p, p + 19) < from then before = math.max(before, index) end\n"
    "      all = all or index >= last\n"
    "    end\n"
    "  end\n"
    "  if not all then pieces = pieces .. to .. string.format('%010d%020d', last, ms) end\n"
    "  redis.call('SET', KEYS[i], pieces, 'PX', ARGV[2])\n"
    "  known[i] = before\n"
    "end\n"
    "return known\n";

/* KEYS: the key. ARGV: the body's hash, how long it counts, ms. Answers 1; 0 when it is another's.
 */
const char script_claim[] = "local has = redis.call('GET', KEYS[1])\n"
                            "if has and has ~= ARGV[1] then return 0 end\n"
                            "if has then redis.call('SET', KEYS[1], has, 'KEEPTTL')\n"
                            "else redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end\n"
                            "return 1\n";

/* KEYS: a lane's letters. ARGV: the letter's field, its value, how many there may be. Answers 1; 0
 * when there are as many already. */
const char script_keep[] = "if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 and\n"
                           "   redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then\n"
                           "  return 0\n"
                           "end\n"
                           "redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])\n"
                           "return 1\n";

/* KEYS: a lane's letters, and the lane's. ARGV: the letter. */
const char script_forget[] =
    "redis.call('HDEL', KEYS[1], ARGV[1])\n"
    "redis.call('HSET', KEYS[2], 'low', redis.call('HGET', KEYS[2], 'low') or " NOTHING ")\n"
    "return 1\n";
