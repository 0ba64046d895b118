/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slots of a Redis Cluster: of a key, and who serves them, as nodes tell it in errors and in their
 * answers to CLUSTER SLOTS. Pure functions; what comes from the network may be anything.
 */
#ifndef MILLRACE_REDIS_SLOTS_H
#define MILLRACE_REDIS_SLOTS_H

#include "redis/redis.h"

enum {
    REDIS_SLOTS = 16384,
    REDIS_MASTERS_MAX = 256,
    REDIS_HOST_MAX = 256,
    REDIS_NOBODY = UINT16_MAX, /* who serves a slot that nobody serves */
};

struct redis_address {
    char host[REDIS_HOST_MAX]; /* a name or an address, without brackets */
    uint16_t port;
};
/* False: the host is too long, or empty, or the port is none. */
bool redis_address_set(struct redis_address *a, struct bytes host, uint64_t port) MUST_USE;
bool redis_address_is_same(const struct redis_address *a, const struct redis_address *b);

/* The CRC16 of the key, or of what stands between its first { and the next } if that is not empty.
 */
unsigned redis_slot(struct bytes key);

/* "MOVED 3999 host:port", "ASK 3999 host:port". */
struct redis_redirect {
    bool ask;
    unsigned slot;
    struct redis_address to;
};
/* False: the error is no redirection, or one that leads nowhere. asked is who gave it: a node that
 * does not know its own address leaves the host out. */
bool redis_redirect_parse(const char *error, const struct redis_address *asked,
                          struct redis_redirect *ret_redirect) MUST_USE;

struct redis_topology {
    size_t n_masters;
    struct redis_address masters[REDIS_MASTERS_MAX];
    uint16_t owner[REDIS_SLOTS]; /* an index of masters, or REDIS_NOBODY */
};
/* The answer of `asked` to CLUSTER SLOTS. False: it has another form, names more masters than that,
 * or no slot at all. */
bool redis_topology_parse(const redisReply *reply, const struct redis_address *asked,
                          struct redis_topology *ret_topology) MUST_USE;

#endif
