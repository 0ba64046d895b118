/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scripts: see scripts.h. Each says first what it is given. A number of Lua is a double: so
 * positions are texts of 20 digits; times in µs are exact until the year 2255. Times are Redis'
 * own.
 */
#include "tasks/redis/scripts.h"

const char *const script_key_names[KEYS] = {
    [KEY_META] = "meta",       [KEY_POSITIONS] = "positions", [KEY_STATES] = "states",
    [KEY_ARGS] = "args",       [KEY_LISTS] = "lists",         [KEY_READY] = "ready",
    [KEY_WAITING] = "waiting", [KEY_CLAIMED] = "claimed",     [KEY_CLAIMS] = "claims",
    [KEY_LEASES] = "leases",   [KEY_PROGRESS] = "progress",   [KEY_COUNTS] = "counts",
    [KEY_ONCE] = "once",       [KEY_ENDED] = "ended",         [KEY_LETTERS] = "letters",
    [KEY_NUMBERS] = "numbers", [KEY_DEADLY] = "deadly",       [KEY_RUNNERS] = "runners",
};

/* What a state says of a task, and its member in ready, waiting and claimed: by it the higher
 * priority comes first, then what is due longer, then what is older. */
#define BEGIN                                                                                      \
    "local c, u = redis.call, struct.unpack\n"                                                     \
    "local META, POSITIONS, STATES, ARGS, LISTS, READY, WAITING, CLAIMED, CLAIMS, LEASES, "        \
    "PROGRESS, COUNTS, ONCE, ENDED, LETTERS, NUMBERS, DEADLY, RUNNERS = unpack(KEYS)\n"            \
    "local time = c('TIME')\n"                                                                     \
    "local us = time[1] * 1000000 + time[2]\n"                                                     \
    "local now = math.floor(us / 1000)\n"                                                          \
    "local function status_of(state) return string.byte(state, 2) end\n"                           \
    "local function attempts_of(state) return u('<I4', state, 5) end\n"                            \
    "local function due_of(state) return u('<I8', state, 53) end\n"                                \
    "local function member(state, id)\n"                                                           \
    "  return string.format('%d%020.0f', 9 - string.byte(state, 3), due_of(state)) .. id\n"        \
    "end\n"

/* The names of a task in the lists: of all, of its status, of its status and type; newest first. */
#define NAMES                                                                                      \
    "local function block(state, at)\n"                                                            \
    "  local size = u('<I4', state, at)\n"                                                         \
    "  return string.sub(state, at + 4, at + 3 + size), at + 4 + size\n"                           \
    "end\n"                                                                                        \
    "local turned = {}\n"                                                                          \
    "for i = 0, 15 do turned[string.format('%x', i)] = string.format('%x', 15 - i) end\n"          \
    "local function names(state, id)\n"                                                            \
    "  local place, status = string.gsub(id, '%x', turned), status_of(state)\n"                    \
    "  return 'a:' .. place, status .. ':' .. place,\n"                                            \
    "    status .. '/' .. block(state, 93) .. '\\0' .. place\n"                                    \
    "end\n"

/* Letters, and their numbers in an order that a page can be taken from. What a letter holds says
 * whose death it is, if it is one: letters.c has its layout, task_record_encode that of the record
 * in it. */
#define KEEP                                                                                       \
    "local function keep(letter, value)\n"                                                         \
    "  c('HSET', LETTERS, letter, value)\n"                                                        \
    "  c('ZADD', NUMBERS, 0, letter)\n"                                                            \
    "end\n"                                                                                        \
    "local function digits(value, at)\n"                                                           \
    "  local text = string.gsub(string.reverse(string.sub(value, at, at + 7)), '.',\n"             \
    "    function(byte) return string.format('%02x', string.byte(byte)) end)\n"                    \
    "  return text\n"                                                                              \
    "end\n"                                                                                        \
    "local function drop(letter)\n"                                                                \
    "  local value = c('HGET', LETTERS, letter) or ''\n"                                           \
    "  local record = #value < 22 and 1 or 23 + u('<I4', value, 19)\n"                             \
    "  local id = digits(value, record + 8) .. digits(value, record + 16)\n"                       \
    "  if c('HGET', DEADLY, id) == letter then c('HDEL', DEADLY, id) end\n"                        \
    "  c('HDEL', LETTERS, letter)\n"                                                               \
    "  c('ZREM', NUMBERS, letter)\n"                                                               \
    "end\n"

/* When no runner was heard of for a while it was Redis that was away, not they, or its clock was
 * set: whatever they have is theirs for another lease. */
#define HEAR                                                                                       \
    "local function hear(lease)\n"                                                                 \
    "  local heard = tonumber(c('HGET', COUNTS, 'heard') or now)\n"                                \
    "  c('HSET', COUNTS, 'heard', now)\n"                                                          \
    "  if math.abs(now - heard) < lease / 2 then return end\n"                                     \
    "  for _, key in ipairs({LEASES, CLAIMED}) do\n"                                               \
    "    for _, m in ipairs(c('ZRANGE', key, 0, -1)) do c('ZADD', key, now + lease, m) end\n"      \
    "  end\n"                                                                                      \
    "end\n"

/* ARGV: whether it is to be made (1); fields and their values, for a hash that is not there.
 * Answers the values that it has, or 0: there is none. Letters that an earlier version kept get
 * their numbers, and what it made gets the last of the fields. */
static const char script_join[] =
    BEGIN "local fields = {}\n"
          "for i = 2, #ARGV, 2 do fields[#fields + 1] = ARGV[i] end\n"
          "if c('EXISTS', META) == 0 then\n"
          "  if ARGV[1] ~= '1' then return 0 end\n"
          "  c('HSET', META, unpack(ARGV, 2))\n"
          "end\n"
          "if ARGV[1] == '1' then c('HSETNX', META, ARGV[#ARGV - 1], ARGV[#ARGV]) end\n"
          "if c('ZCARD', NUMBERS) ~= c('HLEN', LETTERS) then\n"
          "  for _, letter in ipairs(c('HKEYS', LETTERS)) do c('ZADD', NUMBERS, 0, letter) end\n"
          "end\n"
          "return c('HMGET', META, unpack(fields))\n";

/* ARGV: partition. Answers its position, which the replicas then have too: what a failover took
 * back afterwards would look like a loss. */
static const char script_position[] =
    BEGIN "local has = c('HGET', POSITIONS, ARGV[1]) or '00000000000000000000'\n"
          "c('HSET', POSITIONS, ARGV[1], has)\n"
          "return has\n";

/* ARGV: partition, the position that it had when the tasks were read, the one it gets, lease (ms),
 * how many tasks, how many letters go; of each task: id, what to do, new state, arguments; the
 * letters that go; of each new letter its field, value, and the id of the task that died. A task
 * that was forgotten since it was read stays so.
 *
 * What to do, a letter each: `n` it is new; `r` ready, if it is queued, else it waits until it is
 * due; `l` a lease begins; `a` the arguments are new; `k` so is the idempotency key; `t` a letter
 * of its end goes.
 *
 * Answers 1; or, with nothing changed, the position that it has, or those letters that are to go
 * and are not there. */
static const char script_apply[] = BEGIN NAMES KEEP
    "local has = c('HGET', POSITIONS, ARGV[1]) or '00000000000000000000'\n"
    "if has ~= ARGV[2] then c('HSET', POSITIONS, ARGV[1], has) return has end\n"
    "local first, gone = 7 + 4 * ARGV[5], {}\n"
    "local behind = first + ARGV[6]\n"
    "for i = first, behind - 1 do\n"
    "  if c('HEXISTS', LETTERS, ARGV[i]) == 0 then gone[#gone + 1] = ARGV[i] end\n"
    "end\n"
    "if #gone > 0 then return gone end\n"
    "local function put(id, what, state, args)\n"
    "  local old, status = c('HGET', STATES, id), status_of(state)\n"
    "  if not old and not string.find(what, 'n') then return end\n"
    "  local all, by_status, by_type = names(state, id)\n"
    "  if old then\n"
    "    local was, _, was_by_status, was_by_type = status_of(old), names(old, id)\n"
    "    c('HINCRBY', COUNTS, was, -1)\n"
    "    if was ~= status then c('ZREM', LISTS, was_by_status, was_by_type) end\n"
    "    if was == 0 then\n"
    "      local m = member(old, id)\n"
    "      c('ZREM', READY, m) c('ZREM', WAITING, m) c('ZREM', CLAIMED, m)\n"
    "    end\n"
    "    if was > 1 and status < 2 then c('ZREM', ENDED, id) end\n"
    "  else\n"
    "    c('ZADD', LISTS, 0, all)\n"
    "  end\n"
    "  c('ZADD', LISTS, 0, by_status, 0, by_type)\n"
    "  c('HINCRBY', COUNTS, status, 1)\n"
    "  c('HSET', STATES, id, state)\n"
    "  if string.find(what, 'a') then c('HSET', ARGS, id, args) end\n"
    "  if string.find(what, 'k') then\n"
    "    local _, second = block(state, 93)\n"
    "    c('HSET', ONCE, block(state, second), id)\n"
    "  end\n"
    "  if string.find(what, 't') then\n"
    "    local letter = c('HGET', DEADLY, id)\n"
    "    if letter then drop(letter) end\n"
    "  end\n"
    "  if status == 0 and string.find(what, 'r') then c('ZADD', READY, 0, member(state, id))\n"
    "  elseif status == 0 then c('ZADD', WAITING, due_of(state), member(state, id)) end\n"
    "  if status == 1 then\n"
    "    if string.find(what, 'l') then c('ZADD', LEASES, now + ARGV[4], id) end\n"
    "  else\n"
    "    c('ZREM', LEASES, id)\n"
    "    c('HDEL', PROGRESS, id)\n"
    "  end\n"
    "  if status > 1 then c('ZADD', ENDED, math.floor(u('<I8', state, 45) / 1000), id) end\n"
    "  if status == 2 then c('HDEL', ARGS, id) end\n"
    "  local claim = c('HGET', CLAIMS, id)\n"
    "  if claim and tonumber(claim) <= attempts_of(state) then c('HDEL', CLAIMS, id) end\n"
    "end\n"
    "for i = 7, first - 1, 4 do put(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]) end\n"
    "for i = first, behind - 1 do drop(ARGV[i]) end\n"
    "for i = behind, #ARGV, 3 do\n"
    "  keep(ARGV[i], ARGV[i + 1])\n"
    "  c('HSET', DEADLY, ARGV[i + 2], ARGV[i])\n"
    "end\n"
    "c('HSET', POSITIONS, ARGV[1], ARGV[3])\n"
    "return 1\n";

/* ARGV: partition, the position that is known of it, that of the record that is none; the letter's
 * field and value, and how many there may be beside those of tasks that died, which are as many as
 * those; or nothing more: no letter is kept. A position that is past it stays. Answers 1; 0 when
 * what was known is lost, 2 when there are as many letters already. */
static const char script_reject[] = BEGIN KEEP
    "local has = c('HGET', POSITIONS, ARGV[1]) or '00000000000000000000'\n"
    "if has < ARGV[2] then return 0 end\n"
    "if has < ARGV[3] and ARGV[4] then\n"
    "  if c('HLEN', LETTERS) - c('HLEN', DEADLY) >= tonumber(ARGV[6]) then return 2 end\n"
    "  keep(ARGV[4], ARGV[5])\n"
    "end\n"
    "if has < ARGV[3] then has = ARGV[3] end\n"
    "c('HSET', POSITIONS, ARGV[1], has)\n"
    "return 1\n";

/* ARGV: the letter's field. Answers whether it was there. */
static const char script_drop[] = BEGIN KEEP "local there = c('HEXISTS', LETTERS, ARGV[1])\n"
                                             "drop(ARGV[1])\n"
                                             "return there\n";

/* ARGV: how many, lease (ms). What is due is made ready, and so is what was claimed and not
 * started in time. An attempt's number is above all that may have begun: it is a fencing token.
 * Answers of each: id, attempt, state, arguments; of large ones less than was asked for. */
static const char script_take[] = BEGIN HEAR
    "hear(tonumber(ARGV[2]))\n"
    "local function make_ready(key, upto)\n"
    "  for _, m in ipairs(c('ZRANGEBYSCORE', key, '-inf', upto, 'LIMIT', 0, 1000)) do\n"
    "    c('ZREM', key, m)\n"
    "    c('ZADD', READY, 0, m)\n"
    "  end\n"
    "end\n"
    "make_ready(CLAIMED, now)\n"
    "make_ready(WAITING, us)\n"
    "local out, bytes = {}, 0\n"
    "for _, m in ipairs(c('ZRANGE', READY, 0, ARGV[1] - 1)) do\n"
    "  if bytes > 4194304 then break end\n"
    "  local id = string.sub(m, -32)\n"
    "  local state = c('HGET', STATES, id)\n"
    "  c('ZREM', READY, m)\n"
    "  if state then\n"
    "    local attempt = math.max(attempts_of(state), tonumber(c('HGET', CLAIMS, id) or 0)) + 1\n"
    "    c('HSET', CLAIMS, id, attempt)\n"
    "    c('ZADD', CLAIMED, now + ARGV[2], m)\n"
    "    local n = #out\n"
    "    out[n + 1], out[n + 2], out[n + 3] = id, attempt, state\n"
    "    out[n + 4] = c('HGET', ARGS, id) or ''\n"
    "    bytes = bytes + #state + #out[n + 4]\n"
    "  end\n"
    "end\n"
    "return out\n";

/* ARGV: id and attempt of each that was taken and is not begun: the number was for nobody, and is
 * given again. */
static const char script_give_back[] =
    BEGIN "for i = 1, #ARGV, 2 do\n"
          "  local id, state = ARGV[i], c('HGET', STATES, ARGV[i])\n"
          "  if state and status_of(state) == 0 and c('HGET', CLAIMS, id) == ARGV[i + 1] and\n"
          "     c('ZREM', CLAIMED, member(state, id)) == 1 then\n"
          "    c('ZADD', READY, 0, member(state, id))\n"
          "    local before = ARGV[i + 1] - 1\n"
          "    if before > attempts_of(state) then c('HSET', CLAIMS, id, before)\n"
          "    else c('HDEL', CLAIMS, id) end\n"
          "  end\n"
          "end\n"
          "return 1\n";

/* ARGV: lease (ms), the runner, its workers, those that are busy (all of them -1: it ends); of each
 * attempt its task's id, its number, and its progress or nothing. One that was not applied yet is
 * worth something while nobody else has claimed the task. Answers enum tasks_worth of each. */
static const char script_renew[] = BEGIN HEAR
    "local lease, out = tonumber(ARGV[1]), {}\n"
    "hear(lease)\n"
    "if ARGV[3] == '-1' then c('HDEL', RUNNERS, ARGV[2])\n"
    "else\n"
    "  c('HSET', RUNNERS, ARGV[2], string.format('%d %s %s', now + lease, ARGV[3], ARGV[4]))\n"
    "end\n"
    "for i = 5, #ARGV, 3 do\n"
    "  local id, attempt, worth = ARGV[i], tonumber(ARGV[i + 1]), 1\n"
    "  local state = c('HGET', STATES, id)\n"
    "  local status = state and status_of(state)\n"
    "  if status == 4 then worth = 2\n"
    "  elseif status == 1 and attempts_of(state) == attempt then\n"
    "    worth = 0\n"
    "    c('ZADD', LEASES, now + lease, id)\n"
    "    if ARGV[i + 2] ~= '' then c('HSET', PROGRESS, id, ARGV[i + 2]) end\n"
    "  elseif status == 0 and c('HGET', CLAIMS, id) == ARGV[i + 1] then\n"
    "    worth = 0\n"
    "    c('ZREM', READY, member(state, id))\n"
    "    c('ZADD', CLAIMED, now + lease, member(state, id))\n"
    "  end\n"
    "  out[#out + 1] = worth\n"
    "end\n"
    "return out\n";

/* ARGV: lease (ms), how many. Answers of each: id, state, progress. */
static const char script_expired[] = BEGIN HEAR
    "local out = {}\n"
    "hear(tonumber(ARGV[1]))\n"
    "for _, id in ipairs(c('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, ARGV[2])) do\n"
    "  c('ZADD', LEASES, now + ARGV[1], id)\n"
    "  local n = #out\n"
    "  out[n + 1], out[n + 2] = id, c('HGET', STATES, id) or ''\n"
    "  out[n + 3] = c('HGET', PROGRESS, id) or ''\n"
    "end\n"
    "return out\n";

/* ARGV: key and id of each. A key that nobody uses is forgotten as if it were a task that ended
 * now. Answers of each: the id that it has, and 1 when there is no such task yet. */
static const char script_claim[] =
    BEGIN "local out = {}\n"
          "for i = 1, #ARGV, 2 do\n"
          "  local id = c('HGET', ONCE, ARGV[i]) or ARGV[i + 1]\n"
          "  local is_new = c('HEXISTS', STATES, id) == 0\n"
          "  c('HSET', ONCE, ARGV[i], id)\n"
          "  if is_new then c('ZADD', ENDED, now, 'k' .. ARGV[i]) end\n"
          "  out[#out + 1] = id\n"
          "  out[#out + 1] = is_new and 1 or 0\n"
          "end\n"
          "return out\n";

/* ARGV: what ended so long ago (ms) is forgotten, so much of it. Answers how many there are of each
 * status, since when (µs) the oldest has been due, workers, busy ones, letters, and how many were
 * forgotten. */
static const char script_look[] = BEGIN NAMES KEEP
    "local function forget(id)\n"
    "  local state = c('HGET', STATES, id)\n"
    "  if not state or status_of(state) < 2 then return end\n"
    "  local all, by_status, by_type = names(state, id)\n"
    "  local _, second = block(state, 93)\n"
    "  local key = block(state, second)\n"
    "  local letter = c('HGET', DEADLY, id)\n"
    "  if letter then drop(letter) end\n"
    "  c('ZREM', LISTS, all, by_status, by_type)\n"
    "  for _, hash in ipairs({STATES, ARGS, CLAIMS, DEADLY, PROGRESS}) do c('HDEL', hash, id) end\n"
    "  if key ~= '' and c('HGET', ONCE, key) == id then c('HDEL', ONCE, key) end\n"
    "  c('HINCRBY', COUNTS, status_of(state), -1)\n"
    "end\n"
    "local gone = c('ZRANGEBYSCORE', ENDED, '-inf', now - ARGV[1], 'LIMIT', 0, ARGV[2])\n"
    "for _, id in ipairs(gone) do\n"
    "  c('ZREM', ENDED, id)\n"
    "  if string.sub(id, 1, 1) ~= 'k' then forget(id)\n"
    "  else\n"
    "    local key = string.sub(id, 2)\n"
    "    local of = c('HGET', ONCE, key)\n"
    "    if of and c('HEXISTS', STATES, of) == 0 then c('HDEL', ONCE, key) end\n"
    "  end\n"
    "end\n"
    "local out, oldest, workers, busy = {}, 0, 0, 0\n"
    "for status = 0, 4 do out[#out + 1] = tonumber(c('HGET', COUNTS, status) or 0) end\n"
    "for priority = 0, 9 do\n"
    "  local m = c('ZRANGEBYLEX', READY, '[' .. priority, '(' .. priority .. 'x', 'LIMIT', 0, "
    "1)[1]\n"
    "  local due = m and tonumber(string.sub(m, 2, 21))\n"
    "  if due and (oldest == 0 or due < oldest) then oldest = due end\n"
    "end\n"
    "local runners = c('HGETALL', RUNNERS)\n"
    "for i = 1, #runners, 2 do\n"
    "  local until_ms, w, b = string.match(runners[i + 1], '(%d+) (%d+) (%d+)')\n"
    "  if tonumber(until_ms) < now then c('HDEL', RUNNERS, runners[i])\n"
    "  else workers, busy = workers + w, busy + b end\n"
    "end\n"
    "out[6], out[7], out[8], out[9] = oldest, workers, busy, c('HLEN', LETTERS)\n"
    "out[10] = #gone\n"
    "return out\n";

const char *const script_sources[SCRIPTS] = {
    [SCRIPT_JOIN] = script_join,           [SCRIPT_APPLY] = script_apply,
    [SCRIPT_POSITION] = script_position,   [SCRIPT_REJECT] = script_reject,
    [SCRIPT_DROP] = script_drop,           [SCRIPT_TAKE] = script_take,
    [SCRIPT_GIVE_BACK] = script_give_back, [SCRIPT_RENEW] = script_renew,
    [SCRIPT_EXPIRED] = script_expired,     [SCRIPT_CLAIM] = script_claim,
    [SCRIPT_LOOK] = script_look,
};
