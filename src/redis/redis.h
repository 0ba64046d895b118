/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all of the room shares: results, sentences, replies. The place where hiredis is known; its
 * redisReply is the form of all replies.
 */
#ifndef MILLRACE_REDIS_REDIS_H
#define MILLRACE_REDIS_REDIS_H

#include "base/bytes.h"
#include "base/error.h"

#include <hiredis/hiredis.h>

/* Beside -ENOMEM and the like. A sentence in why comes with each. */
enum {
    _REDIS_E_SUCCESS,
    REDIS_E_UNAVAILABLE, /* not now: not reachable, no master, overloaded, or the connection broke:
                            what was asked may have been done, or not */
    REDIS_E_REFUSED,     /* it will go no better the next time; nothing was done */
};

enum { REDIS_WHY_MAX = 256, REDIS_PORT = 6379 };

/* redis_fail(why, result, format, …) writes the sentence, and is result. (A macro, so that
 * analyzers see what is returned.) */
#define redis_fail(why, result, ...) (redis_say((why), __VA_ARGS__), (result))
void redis_say(char why[REDIS_WHY_MAX], const char *format, ...) PRINTF_LIKE(2, 3);

static inline void redis_reply_cleanup(redisReply **reply) {
    if (*reply)
        freeReplyObject(*reply);
}

#endif
