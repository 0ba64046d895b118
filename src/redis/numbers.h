/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers for messages that come again until they are acknowledged, and have none of their own
 * (journal/group.h says what for): a script that gives each message of a sequence its number, the
 * same whenever it is asked again, for the newest REDIS_NUMBERS_KEPT of them.
 *
 * Two keys of one slot: a hash with the session that numbers, the next number and the server that
 * gave the last; and a sorted set of what is remembered. A message is known by any bytes of its
 * own.
 */
#ifndef MILLRACE_REDIS_NUMBERS_H
#define MILLRACE_REDIS_NUMBERS_H

#include "redis/cluster.h"

enum {
    REDIS_NUMBERS_MAX = 64, /* of one call */
#ifdef MILLRACE_TINY
    REDIS_NUMBERS_KEPT = 64,
#else
    REDIS_NUMBERS_KEPT = 4096,
#endif
};

extern const char redis_numbers_source[];

/* One call; borrows all that it is given. */
struct redis_numbers {
    struct redis_command command; /* to be run, durable, and freed */
    struct bytes words[4 + REDIS_NUMBERS_MAX];
    char session[24], kept[24];
};
/* n 0 begins a session. script has the source above. */
void redis_numbers_init(struct redis_numbers *c, const struct redis_script *script,
                        struct bytes state, struct bytes known, uint64_t session,
                        const struct bytes *ids, size_t n);
/* Of the reply: the session, and n numbers. REDIS_E_REFUSED: the session is over.
 * REDIS_E_UNAVAILABLE: no such script answers this. */
int redis_numbers_take(const struct redis_numbers *c, uint64_t *ret_session, uint64_t *ret_numbers,
                       size_t n) MUST_USE;

#endif
