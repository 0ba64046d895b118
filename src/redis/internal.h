/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cluster, as the files of this room see it:
 *
 *   cluster.c    its life, and the thread that asks whether it is there
 *   run.c        commands to nodes, replies to commands
 *   nodes.c      the table of nodes, and connections to them
 *   topology.c   learning who serves which slot
 *
 * The lock is held to look at the tables and to change them, never while somebody is asked.
 */
#ifndef MILLRACE_REDIS_INTERNAL_H
#define MILLRACE_REDIS_INTERNAL_H

#include "os/socket.h"
#include "os/sync.h"
#include "redis/cluster.h"
#include "redis/link.h"

enum {
    NODES_MAX = SERVICE_HOSTS_MAX + REDIS_MASTERS_MAX + 32, /* of the URL, masters, gone masters */
};
enum { TOLD_MAX = 8 };
#define NS_PER_MS UINT64_C(1000000)

/* A connection, lent to one thread or idle. */
struct channel {
    struct redis_link link;
    char why[REDIS_WHY_MAX];
    struct channel *next; /* of those that are idle */
};

/* Its index is its name. A place whose node is forgotten is given to another. */
struct redis_node {
    struct redis_address address;
    bool used;
    bool seed;      /* of the URL: never forgotten */
    bool master;    /* serves slots */
    bool looked_at; /* its settings; the thread's */
    unsigned users; /* who means it: it is not forgotten meanwhile */
    unsigned open;  /* connections, lent or idle */
    struct channel *idle;
};

struct redis_cluster {
    struct os *os;
    const struct service_url *url;
    bool sharded; /* else it is one node, which the URL finds */
    uint64_t replicas;
    unsigned connections_max; /* a node, for runs; one more for questions */
    uint64_t watch_ms;
    void (*tell)(void *context, const char *sentence);
    void *tell_context;
    struct os_thread *thread;
    uint64_t told[TOLD_MAX]; /* hashes of what was said of settings; the thread's */
    size_t n_told;

    struct mutex lock;         /* LOCK_RANK_REDIS: all that follows */
    struct condition returned; /* a connection; the thread that watches is not to wake for it */
    struct condition changed;  /* what was learned; stopping */
    struct redis_node nodes[NODES_MAX];
    size_t n_nodes;              /* places taken so far */
    uint16_t owner[REDIS_SLOTS]; /* of the slot: a node, or REDIS_NOBODY */
    bool known;                  /* somebody has told who serves what */
    bool stale;                  /* and it is no more so */
    bool learning;               /* a thread asks */
    uint64_t learned_ns;         /* when that was last tried */
    size_t turn;                 /* who is asked next: a node, or, without slots, a Sentinel */
    bool stopping;
    char refusal[REDIS_WHY_MAX]; /* of the last connections that were tried; "": there was one, or
                                    they only failed */
    struct redis_cluster_status status;
};

/* ---- nodes.c; those with a _locked are called with the lock held ---- */

/* The node at an address, entered if it is new; REDIS_NOBODY when there is no place. */
uint16_t redis_node_locked(struct redis_cluster *c, const struct redis_address *a);
/* Forgets the nodes that are no masters any more, as far as nobody means them. */
void redis_nodes_forget_locked(struct redis_cluster *c);
/* A connection to a node that the caller has as user; another is opened while there are fewer than
 * `most`, else one is waited for. REDIS_E_UNAVAILABLE, REDIS_E_REFUSED, -ENOMEM, with a sentence.
 */
int redis_channel_take(struct redis_cluster *c, uint16_t node, unsigned most, uint64_t deadline_ns,
                       struct channel **ret_channel, char why[REDIS_WHY_MAX]) MUST_USE;
/* Gives it back. One that broke, or is not to be trusted, takes the idle ones with it. */
void redis_channel_give(struct redis_cluster *c, uint16_t node, struct channel *ch, bool broken);
/* What became of the last connections that were tried. */
void redis_note_refusal(struct redis_cluster *c, int r, const char *why);
void redis_nodes_free(struct redis_cluster *c);

/* ---- topology.c ---- */

/* Sees to it that it is known who serves what, and newly so if that is stale. What is known, and
 * could not be renewed, will do. REDIS_E_UNAVAILABLE, REDIS_E_REFUSED: of all nodes; -ENOMEM. */
int redis_topology_learn(struct redis_cluster *c, uint64_t deadline_ns,
                         char why[REDIS_WHY_MAX]) MUST_USE;
void redis_topology_doubt(struct redis_cluster *c);

#endif
