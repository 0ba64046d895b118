/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection to the Redis that a URL means: found (by Sentinels, where the URL names
 * them), checked to be a master of a version that is known, made again when it broke.
 *
 *   redis://user:password@host:6379/3         database 3
 *   redis+sentinel://user:password@one:26379,two,three/NAME?sentinel-password=…
 *
 * One thread at a time. All calls block, until the deadline at most that redis_link_begin() set.
 * Results are REDIS_E_… with a sentence in why, and -ENOMEM. After REDIS_E_UNAVAILABLE the
 * connection is gone, and the next command asks anew who the master is: so a failover is followed.
 */
#ifndef MILLRACE_REDIS_LINK_H
#define MILLRACE_REDIS_LINK_H

#include "os/os.h"
#include "redis/redis.h"

struct redis_link {
    struct os *os;
    const struct service_url *url;
    uint64_t timeout_ms;
    char *why;                /* REDIS_WHY_MAX bytes of the owner */
    uint64_t deadline_ns;     /* of the call under way */
    redisContext *connection; /* NULL: none */
    size_t sentinel;          /* which is asked first the next time */
    char peer[160];           /* "Redis at host:port" */
};

/* url is borrowed, and so is why, an array of REDIS_WHY_MAX. Connects to nothing. */
void redis_link_init(struct redis_link *l, struct os *os, const struct service_url *url,
                     uint64_t timeout_ms, char *why);
/* False, with the sentence in why: no link can be made of this URL. */
bool redis_link_check_url(const struct service_url *u, char why[REDIS_WHY_MAX]);

/* A call begins: it may take timeout_ms, and wait_ms more. */
void redis_link_begin(struct redis_link *l, uint64_t wait_ms);
/* What is left of that; 0: it is over. */
uint64_t redis_link_left_ms(const struct redis_link *l);
/* Connects, if it is not. */
int redis_link_connect(struct redis_link *l) MUST_USE;
/* Connects if need be, sends a command of n arguments and waits for its reply, which is not an
 * error. The caller frees it. */
int redis_link_command(struct redis_link *l, const struct bytes *arguments, size_t n,
                       redisReply **ret_reply) MUST_USE;
/* A reply of another form than the command has: the connection ends. Returns REDIS_E_UNAVAILABLE.
 */
int redis_link_odd(struct redis_link *l) MUST_USE;
/* Ends the connection: redis_link_drop(l, format, …) says why and is REDIS_E_UNAVAILABLE. */
#define redis_link_drop(l, ...)                                                                    \
    (redis_say((l)->why, __VA_ARGS__), redis_link_hang_up(l), REDIS_E_UNAVAILABLE)
void redis_link_hang_up(struct redis_link *l);

#endif
