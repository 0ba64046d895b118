/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection to the Redis that a URL means: found (by Sentinels, where the URL names them),
 * checked to be a master of a version that is known, made again when it broke. Or to one node of a
 * Redis Cluster, of whatever role.
 *
 *   redis://user:password@host:6379/3         database 3
 *   redis+sentinel://user:password@one:26379,two,three/NAME?sentinel-password=…
 *   redis+cluster://user:password@one:6379,two,three
 *
 * One thread at a time. All calls block, until the deadline at most that redis_link_begin() set.
 * Results are REDIS_E_… with a sentence in why, and -ENOMEM. After REDIS_E_UNAVAILABLE the
 * connection is gone, and the next command asks anew who the master is: so a failover is followed.
 * What a reply may hold is bounded: REDIS_REPLY_BYTES_MAX, REDIS_REPLY_ELEMENTS_MAX.
 */
#ifndef MILLRACE_REDIS_LINK_H
#define MILLRACE_REDIS_LINK_H

#include "base/service_url.h"
#include "os/os.h"
#include "redis/slots.h"

#ifdef MILLRACE_TINY
enum { REDIS_REPLY_BYTES_MAX = 4 << 20 };
#else
enum { REDIS_REPLY_BYTES_MAX = 64 << 20 };
#endif
enum { REDIS_REPLY_ELEMENTS_MAX = 1 << 20 };

struct redis_link {
    struct os *os;
    const struct service_url *url;
    const struct redis_address *node; /* of a cluster; NULL: what the URL means */
    uint64_t timeout_ms;
    char *why;                /* REDIS_WHY_MAX bytes of the owner */
    uint64_t deadline_ns;     /* of the call under way */
    redisContext *connection; /* NULL: none */
    uint64_t timeout_set_ms;  /* of its socket; 0: none was set yet */
    size_t sentinel;          /* which is asked first the next time */
    struct buffer out;        /* commands to be sent */
    /* of the reply that is read */
    redisReplyObjectFunctions functions;
    void *(*make_array)(const redisReadTask *task, int elements);
    size_t elements;
    char peer[REDIS_HOST_MAX + 32]; /* "Redis at host:port" */
};

/* url is borrowed, and so is why, an array of REDIS_WHY_MAX. Connects to nothing. */
void redis_link_init(struct redis_link *l, struct os *os, const struct service_url *url,
                     uint64_t timeout_ms, char *why);
/* To a node of the cluster, whose address is borrowed. */
void redis_link_init_node(struct redis_link *l, struct os *os, const struct service_url *url,
                          const struct redis_address *node, char *why);
void redis_link_deinit(struct redis_link *l);
bool redis_url_is_cluster(const struct service_url *u);
/* False, with the sentence in why: no link can be made of this URL. */
bool redis_link_check_url(const struct service_url *u, char why[REDIS_WHY_MAX]);

/* A call begins: it may take timeout_ms, and wait_ms more. */
void redis_link_begin(struct redis_link *l, uint64_t wait_ms);
/* A call goes on, or begins, that ends then. */
void redis_link_until(struct redis_link *l, uint64_t deadline_ns);
/* What is left of that; 0: it is over. */
uint64_t redis_link_left_ms(const struct redis_link *l);
/* Connects, if it is not. */
int redis_link_connect(struct redis_link *l) MUST_USE;
/* Connects if need be, sends a command of n arguments and waits for its reply, which is not an
 * error. The caller frees it. */
int redis_link_command(struct redis_link *l, const struct bytes *arguments, size_t n,
                       redisReply **ret_reply) MUST_USE;
/* Several, one behind the other, on a link that is connected: what was added is sent together, and
 * then as many replies are received, in its order. They may be errors. A command is head and rest.
 */
void redis_link_add(struct redis_link *l, const struct bytes *head, size_t n_head,
                    const struct bytes *rest, size_t n_rest);
int redis_link_send(struct redis_link *l) MUST_USE;
int redis_link_receive(struct redis_link *l, redisReply **ret_reply) MUST_USE;

/* Whether an error passes by itself, or is otherwise after a failover: nothing was done. */
bool redis_error_is_passing(const char *error);
/* "Redis at host:port answers: …", without the arguments that Redis may repeat. */
void redis_link_say_error(struct redis_link *l, const redisReply *error);
/* A reply of another form than the command has: the connection ends. Returns REDIS_E_UNAVAILABLE.
 */
int redis_link_odd(struct redis_link *l) MUST_USE;
/* Ends the connection: redis_link_drop(l, format, …) says why and is REDIS_E_UNAVAILABLE. */
#define redis_link_drop(l, ...)                                                                    \
    (redis_say((l)->why, __VA_ARGS__), redis_link_hang_up(l), REDIS_E_UNAVAILABLE)
void redis_link_hang_up(struct redis_link *l);

#endif
