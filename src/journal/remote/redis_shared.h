/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver of Redis for shared journals: N streams, `<prefix>events-0` and so on, at one master
 * (found by Sentinels, where the URL names them). redis_writer.c writes them, redis_member.c reads
 * them; how a Redis is spoken to is redis/link.h.
 *
 *   <prefix>events-P           a stream. An entry's id is <offset + 1>-0, its field "m" the message
 *   <prefix>events-P:reader    who reads it: a worker's token, with an expiry
 *   <prefix>events-P:server    which master wrote there last (its run and its history), a blank,
 *                              and the newest id that it gave: also when the stream is gone
 *   <prefix>events-P:jumps     a sorted set of the last jumps of offsets, <from>-<to> by <to>:
 *                              those from <from> on and below <to> were never given
 *   <prefix>events-P:trimmed   all messages below this offset were done with when they went
 *   <prefix>events:workers     a sorted set of workers' tokens, by the end of their sessions (ms)
 *   <prefix>events:partitions  how many there are
 *   <prefix>events:identity    what this journal is known by, made with it
 *   <prefix>events:store       its mark (redis_mark.c)
 *
 * Every script compares the identity with what was found at open: a Redis that was emptied, or is
 * another, would begin again below what readers have, and is refused.
 *
 * All that writes is a script. It gives the next id of a stream: so offsets have no holes, but that
 * a master which is another than the last, or runs anew, begins above all that any before it can
 * have given. So readers that know more than a replica which was promoted, or a file that was cut,
 * pass over nothing that comes then. It begins at its clock, eight a millisecond since 2026: nobody
 * gives so many, so that whoever was master before, also one that has left nothing here (between
 * two times of this one), gave less.
 *
 * That takes clocks which agree to less than a master's time. One that is further behind, or goes
 * back, gives ids again that an earlier master gave, if this one has not got those messages: what
 * comes under them is passed over by readers that had the first. Where the clock is not above what
 * this master has itself, it begins with the next multiple of 2^28 instead: above what the last
 * before it gave in vain, but not that of two. (So it is, too, behind ids that others put there by
 * hand, and from 2042 on, as offsets have so many bits.)
 *
 * A jump is written down, so that what it passes over is not taken for messages that are lost.
 */
#ifndef MILLRACE_JOURNAL_REMOTE_REDIS_SHARED_H
#define MILLRACE_JOURNAL_REMOTE_REDIS_SHARED_H

#include "journal/shared_driver.h"
#include "redis/durable.h"

enum { REDIS_PREFIX_MAX = 128, REDIS_NAME_MAX = REDIS_PREFIX_MAX + 64, REDIS_JUMPS_MAX = 64 };

/* Each script begins with it: the last of KEYS is :identity, and of ARGV what it was at open. */
#define REDIS_SCRIPT_SAME                                                                          \
    "if redis.call('GET', KEYS[#KEYS]) ~= ARGV[#ARGV] then "                                       \
    "  return redis.status_reply('OTHER') "                                                        \
    "end "

/* For scripts: the newest id that was given to a stream, and by which master, as `:server` says, or
 * else the stream itself. */
#define REDIS_SCRIPT_NEWEST                                                                        \
    "local function newest(key) "                                                                  \
    "  local said = redis.call('GET', key..':server') or '' "                                      \
    "  local server, top = string.match(said, '^(%w+) (%d+)$') "                                   \
    "  if not top and redis.call('EXISTS', key) == 1 then "                                        \
    "    local info = redis.call('XINFO', 'STREAM', key) "                                         \
    "    for i = 1, #info, 2 do if info[i] == 'last-generated-id' then "                           \
    "      top = string.match(info[i + 1], '(%d+)-') "                                             \
    "    end end "                                                                                 \
    "  end "                                                                                       \
    "  return tonumber(top or 0), server "                                                         \
    "end "

struct redis_streams {
    struct redis_link link;
    char log[REDIS_NAME_MAX]; /* prefix and name */
    unsigned n;
    uint64_t replicas; /* that must have a message before it is durable */
    uint64_t session_ms;
    char identity[REDIS_TOKEN_SIZE];
    char identity_key[REDIS_NAME_MAX];
};
/* Reads the URL, connects, makes the journal if it is missing (make), or that is a failure
 * (LOG_E_END if the options say that it must exist, else LOG_E_UNAVAILABLE), and checks it. why is
 * of the owner. LOG_E_…, and to be closed in any case. */
int redis_streams_open(struct redis_streams *s, struct os *os, const struct log_options *options,
                       bool make, char why[LOG_WHY_MAX]) MUST_USE;
void redis_streams_close(struct redis_streams *s);
/* The name of the stream, and of something of it. */
struct bytes redis_stream_name(const struct redis_streams *s, unsigned partition, const char *what,
                               char out[REDIS_NAME_MAX]);
/* What went wrong with a link, in the words of logs. */
int redis_log_result(int r) MUST_USE;
/* Whether a script found another journal; then why says so, and the connection ends: the next may
 * be to another server. */
bool redis_streams_are_other(struct redis_streams *s, const redisReply *reply);

/* The mark, as struct shared_driver has it. */
int redis_mark(struct os *os, const struct log_options *options, const char *text,
               struct journal_mark *ret_mark, char why[LOG_WHY_MAX]) MUST_USE;

extern const struct shared_member_ops redis_member_ops;
extern const struct shared_watch_ops redis_watch_ops;

#endif
