/* SPDX-License-Identifier: Apache-2.0 */
/* Who serves which slot: some node is asked, another if that one does not know. */
#include "redis/internal.h"

#include <stdlib.h>

enum { PAUSE_MS = 100 }; /* between two questions about what is known already */

void redis_topology_doubt(struct redis_cluster *c) {
    mutex_lock(&c->lock);
    c->stale = c->sharded;
    mutex_unlock(&c->lock);
}

static void install(struct redis_cluster *c, const struct redis_topology *t) {
    uint16_t places[REDIS_MASTERS_MAX] = {0};
    mutex_lock(&c->lock);
    for (size_t i = 0; i < c->n_nodes; i++)
        c->nodes[i].master = false;
    for (size_t i = 0; i < t->n_masters; i++) {
        places[i] = redis_node_locked(c, &t->masters[i]);
        if (places[i] != REDIS_NOBODY)
            c->nodes[places[i]].master = true;
    }
    for (size_t i = 0; i < REDIS_SLOTS; i++)
        c->owner[i] = t->owner[i] == REDIS_NOBODY ? REDIS_NOBODY : places[t->owner[i]];
    redis_nodes_forget_locked(c);
    c->known = true;
    c->stale = false;
    mutex_unlock(&c->lock);
}

/* Asks one node, and takes over what it says. */
static int ask(struct redis_cluster *c, uint16_t node, struct redis_topology *t,
               uint64_t deadline_ns, char why[REDIS_WHY_MAX]) {
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    struct channel *ch;
    int r = redis_channel_take(c, node, c->connections_max + 1, deadline_ns, &ch, why);
    if (r)
        return r;
    redis_link_until(&ch->link, deadline_ns);
    r = redis_link_command(
        &ch->link, (struct bytes[]){BYTES_LITERAL("CLUSTER"), BYTES_LITERAL("SLOTS")}, 2, &reply);
    if (r) {
        redis_say(why, "%s", ch->why);
    } else if (!redis_topology_parse(reply, ch->link.node, t)) {
        r = redis_fail(why, REDIS_E_UNAVAILABLE, "%s does not know who serves the slots",
                       ch->link.peer);
    }
    redis_channel_give(c, node, ch, !ch->link.connection);
    if (!r)
        install(c, t);
    return r;
}

/* The next node in turn, with its caller as user. */
static uint16_t next_node(struct redis_cluster *c) {
    mutex_lock(&c->lock);
    do
        c->turn = (c->turn + 1) % c->n_nodes;
    while (!c->nodes[c->turn].used);
    uint16_t node = (uint16_t)c->turn;
    c->nodes[node].users++;
    mutex_unlock(&c->lock);
    return node;
}

static size_t count_nodes(struct redis_cluster *c) {
    size_t n = 0;
    mutex_lock(&c->lock);
    for (size_t i = 0; i < c->n_nodes; i++)
        n += c->nodes[i].used;
    mutex_unlock(&c->lock);
    return n;
}

/* Each in turn, with its share of the time, until one knows. Refused only when all refuse. */
static int ask_all(struct redis_cluster *c, struct redis_topology *t, uint64_t deadline_ns,
                   char why[REDIS_WHY_MAX]) {
    int result = REDIS_E_REFUSED;
    for (size_t left = count_nodes(c); left > 0; left--) {
        uint64_t now = os_monotonic_ns(c->os);
        uint64_t share = now < deadline_ns ? (deadline_ns - now) / left : 0;
        uint16_t node = next_node(c);
        int r = ask(c, node, t, now + share, why);
        mutex_lock(&c->lock);
        c->nodes[node].users--;
        mutex_unlock(&c->lock);
        if (r <= 0)
            return r;
        if (r != REDIS_E_REFUSED)
            result = r;
    }
    return result;
}

/* True: this thread is to ask. False: it is known, or was found out by another, or time is over. */
static bool begin(struct redis_cluster *c, uint64_t deadline_ns) {
    mutex_lock(&c->lock);
    while (c->learning && !c->known && condition_wait_until(&c->changed, &c->lock, deadline_ns))
        ;
    uint64_t now = os_monotonic_ns(c->os);
    bool asks =
        !c->learning && (!c->known || (c->stale && now >= c->learned_ns + PAUSE_MS * NS_PER_MS));
    c->learning = c->learning || asks;
    mutex_unlock(&c->lock);
    return asks;
}

static int end(struct redis_cluster *c, int r) {
    mutex_lock(&c->lock);
    c->learning = false;
    c->learned_ns = os_monotonic_ns(c->os);
    bool known = c->known;
    condition_broadcast(&c->changed);
    mutex_unlock(&c->lock);
    return known && r > 0 ? 0 : r;
}

int redis_topology_learn(struct redis_cluster *c, uint64_t deadline_ns, char why[REDIS_WHY_MAX]) {
    if (begin(c, deadline_ns)) {
        struct redis_topology *t = malloc(sizeof *t);
        int r = t ? ask_all(c, t, deadline_ns, why)
                  : redis_fail(why, error_origin(-ENOMEM), "no memory for a cluster's slots");
        free(t);
        redis_note_refusal(c, r, why);
        return end(c, r);
    }
    mutex_lock(&c->lock);
    bool known = c->known;
    mutex_unlock(&c->lock);
    return known ? 0
                 : redis_fail(why, REDIS_E_UNAVAILABLE,
                              "no node of the cluster has told in time who serves the slots");
}
