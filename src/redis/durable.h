/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For whoever leaves things with a server and forgets them: how well it keeps what it takes, and
 * whose they are. On a link (link.h), within the time of its call; results as there.
 */
#ifndef MILLRACE_REDIS_DURABLE_H
#define MILLRACE_REDIS_DURABLE_H

#include "redis/link.h"

enum { REDIS_REPLICAS_MAX = 16, REDIS_TOKEN_SIZE = 33, REDIS_IDENTITY_SIZE = 160 };

/* Tells, in a sentence each, which settings of the server promise less than they could: appendonly,
 * appendfsync, maxmemory-policy, and min-replicas-to-write below replicas. tell may be NULL. */
int redis_check_settings(struct redis_link *l, uint64_t replicas,
                         void (*tell)(void *context, const char *sentence), void *context) MUST_USE;

/* Returns 0 once so many replicas have all that this connection wrote. Too few may mean a master
 * that was cut off: so the connection ends, and the next call asks the Sentinels again. */
int redis_wait_for_replicas(struct redis_link *l, uint64_t replicas) MUST_USE;

/* Chance in hexadecimal, which nobody else has: what an owner is known by. */
int redis_make_token(struct os *os, char ret_token[REDIS_TOKEN_SIZE]) MUST_USE;
/* What a store is known by, made with it: its prefix, for whoever reads it, and chance. */
int redis_make_identity(struct os *os, const char *prefix,
                        char ret_identity[REDIS_IDENTITY_SIZE]) MUST_USE;

/* True for a string or a status; with a text, for that one. */
bool redis_reply_is(const redisReply *reply, const char *text);

#endif
