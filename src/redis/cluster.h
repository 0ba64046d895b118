/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands and scripts on a Redis Cluster, from any thread: pipelined by node, over a pool of
 * connections a node, after the slots wherever they go. A server alone, or one that Sentinels name,
 * is a cluster of one node: whoever writes for this interface runs on all three.
 *
 *   redis+cluster://user:password@one:6379,two,three/?replicas=1
 *   redis://…/3?replicas=1, redis+sentinel://…/NAME?replicas=1     as in link.h
 *
 *   run ──by slot──▶ pipeline to each node ──▶ replies ──┬─▶ result 0, or refused
 *    ▲                                                   │
 *    └── again, until the deadline ◀─────────────────────┴─ MOVED, ASK, TRYAGAIN, CLUSTERDOWN,
 *                                                           LOADING, READONLY, NOSCRIPT, …
 *
 * Nothing is sent again that may have been executed: only what the server says that it did not do,
 * and what was never sent. When a connection breaks, whatever it owes an answer for is
 * REDIS_E_UNAVAILABLE, and its caller decides: a script that keeps a position can be run again.
 *
 * Thread-safe, but open and close. A thread of its own ("redis") asks every second whether each
 * master answers, for redis_cluster_status(), and once how well it keeps what it takes.
 */
#ifndef MILLRACE_REDIS_CLUSTER_H
#define MILLRACE_REDIS_CLUSTER_H

#include "base/service_url.h"
#include "os/os.h"
#include "redis/redis.h"

struct redis_cluster;

struct redis_cluster_options {
    const struct service_url *url; /* borrowed until close */
    /* What its owner reads from the URL himself, NULL behind the last; NULL: nothing. Known here
     * are replicas (0 … 16: how many must have a durable write), sentinel-user and
     * sentinel-password. */
    const char *const *parameters;
    /* Told by the thread which settings of a master promise less than they could (durable.h); of
     * several that say the same the first is. NULL: nobody looks. */
    void (*tell)(void *context, const char *sentence);
    void *context;
    unsigned connections_max; /* a node; 0: 8 */
    uint64_t watch_ms;        /* how often the thread asks; 0: 1000 */
};

/* Connects to nothing that would have to be there: a cluster that is down is found once it is up.
 * REDIS_E_REFUSED, with the sentence in why: no cluster can be made of this URL. */
int redis_cluster_open(struct os *os, const struct redis_cluster_options *options,
                       struct redis_cluster **ret_cluster, char why[REDIS_WHY_MAX]) MUST_USE;
/* No run may be under way. Takes NULL. */
struct redis_cluster *redis_cluster_close(struct redis_cluster *c);

/* A script of Lua, run by its hash, and by its source where a node does not know it. */
struct redis_script {
    const char *source; /* borrowed; static as a rule */
    char sha[41];
};
void redis_script_init(struct redis_script *s, const char *source);

/* One command to run; all is borrowed during the call. */
struct redis_command {
    struct bytes key; /* decides the slot, by its {hash tag} if it has one */
    /* NULL: arguments are the whole command, its name first. Else they are KEYS, n_keys of them,
     * all in the slot of key, and ARGV behind those. */
    const struct redis_script *script;
    size_t n_keys;
    const struct bytes *arguments;
    size_t n; /* of them all */

    /* Set by the run. */
    int result;        /* 0, REDIS_E_UNAVAILABLE, REDIS_E_REFUSED */
    redisReply *reply; /* of result 0, and no error; of REDIS_E_REFUSED the error. Else NULL */
};

/* Runs n ≥ 0 commands, and returns once each has its result: timeout_ms at most, or little more.
 *
 * Those of one slot are sent in their order. What is told to try again comes behind others that
 * were not, so a script whose order matters compares positions.
 *
 * durable, with replicas=N in the URL: WAIT ends each pipeline, and whatever a node answered where
 * fewer than N replicas have it, refusals too, is REDIS_E_UNAVAILABLE: it may have been cut off.
 * WAIT waits for what was written: a script that finds its work done by an earlier run writes
 * something all the same.
 *
 * REDIS_E_REFUSED is an error reply to this very command (a script's own error, WRONGTYPE): its
 * node is well, and the same would be answered again. Wrong passwords, missing rights, memory that
 * is full, a node that is no cluster's: REDIS_E_UNAVAILABLE.
 *
 * Returns 0: all results are 0; else the first of -ENOMEM, REDIS_E_UNAVAILABLE, REDIS_E_REFUSED
 * that there is, with a sentence in why. After -ENOMEM too each command has a result. */
int redis_cluster_run(struct redis_cluster *c, struct redis_command *commands, size_t n,
                      bool durable, uint64_t timeout_ms, char why[REDIS_WHY_MAX]) MUST_USE;
/* Frees the replies, and forgets them. */
void redis_commands_free(struct redis_command *commands, size_t n);

struct redis_cluster_status {
    bool reachable; /* each slot has a master, and each of them answered when it was last asked */
    size_t masters; /* 0: none is known yet */
    char why[REDIS_WHY_MAX]; /* when it is not reachable: "Redis at host:port …" */
};
/* Whether all that were asked last refused a connection, for what the URL says (a password, a
 * server that is no cluster's, its version), with the sentence: who starts need not wait for them.
 */
bool redis_cluster_is_refused(struct redis_cluster *c, char why[REDIS_WHY_MAX]);
/* What the thread knows; asks nobody. */
void redis_cluster_status(struct redis_cluster *c, struct redis_cluster_status *ret_status);

#endif
