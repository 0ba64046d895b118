/* SPDX-License-Identifier: Apache-2.0 */
/* The table of nodes, and the connections to each. */
#include "redis/internal.h"

#include <stdlib.h>

enum { DIAL_MS = 2000 };

/* ---- Channels ---- */

static struct channel *channel_free(struct channel *ch) {
    if (ch)
        redis_link_deinit(&ch->link);
    free(ch);
    return NULL;
}

static void close_idle_locked(struct redis_node *n) {
    while (n->idle) {
        struct channel *ch = n->idle;
        n->idle = ch->next;
        n->open--;
        channel_free(ch);
    }
}

/* Nothing is owed on it, so whatever can be read is its end. */
static bool has_ended(const struct channel *ch) {
    struct pollfd fd = {.fd = ch->link.connection->fd, .events = POLLIN | POLLRDHUP};
    return socket_poll(&fd, 1, 0) != 0;
}

/* An idle one, or NULL with the right to open another; REDIS_E_UNAVAILABLE: all are lent until the
 * deadline. */
static int take_idle(struct redis_cluster *c, struct redis_node *n, unsigned most,
                     uint64_t deadline_ns, struct channel **ret_channel) {
    int r = 0;
    mutex_lock(&c->lock);
    while (!r && !n->idle && n->open >= most)
        if (!condition_wait_until(&c->returned, &c->lock, deadline_ns))
            r = REDIS_E_UNAVAILABLE;
    if (!r) {
        *ret_channel = n->idle;
        if (n->idle)
            n->idle = n->idle->next;
        else
            n->open++;
    }
    mutex_unlock(&c->lock);
    return r;
}

/* Each connection asks another Sentinel first: one that was cut off names the old master for ever.
 */
static size_t next_turn(struct redis_cluster *c) {
    mutex_lock(&c->lock);
    size_t turn = c->turn++;
    mutex_unlock(&c->lock);
    return turn;
}

static int channel_new(struct redis_cluster *c, const struct redis_node *n, uint64_t deadline_ns,
                       struct channel **ret_channel, char why[REDIS_WHY_MAX]) {
    struct channel *ch = calloc(1, sizeof *ch);
    if (!ch)
        return redis_fail(why, error_origin(-ENOMEM), "no memory for a connection");
    if (c->sharded) {
        uint64_t soon_ns = os_monotonic_ns(c->os) + DIAL_MS * NS_PER_MS;
        redis_link_init_node(&ch->link, c->os, c->url, &n->address, ch->why);
        redis_link_until(&ch->link, deadline_ns < soon_ns ? deadline_ns : soon_ns);
    } else {
        redis_link_init(&ch->link, c->os, c->url, 0, ch->why);
        redis_link_until(&ch->link, deadline_ns);
        ch->link.sentinel = next_turn(c);
    }
    int r = redis_link_connect(&ch->link);
    if (r) {
        redis_say(why, "%s", ch->why);
        channel_free(ch);
        return r;
    }
    *ret_channel = ch;
    return 0;
}

int redis_channel_take(struct redis_cluster *c, uint16_t node, unsigned most, uint64_t deadline_ns,
                       struct channel **ret_channel, char why[REDIS_WHY_MAX]) {
    struct redis_node *n = &c->nodes[node];
    struct channel *ch = NULL;
    int r = take_idle(c, n, most, deadline_ns, &ch);
    if (r)
        return redis_fail(why, r, "all %u connections to %s:%u are in use", most, n->address.host,
                          n->address.port);
    if (ch && has_ended(ch))
        ch = channel_free(ch);
    if (!ch)
        r = channel_new(c, n, deadline_ns, &ch, why);
    if (!c->sharded) /* else one that refuses says nothing of the others */
        redis_note_refusal(c, r, why);
    if (r)
        redis_channel_give(c, node, NULL, true);
    else
        *ret_channel = ch;
    return r;
}

void redis_channel_give(struct redis_cluster *c, uint16_t node, struct channel *ch, bool broken) {
    struct redis_node *n = &c->nodes[node];
    if (broken)
        ch = channel_free(ch);
    mutex_lock(&c->lock);
    if (broken) {
        n->open--;
        close_idle_locked(n);
    } else {
        ch->next = n->idle;
        n->idle = ch;
    }
    condition_broadcast(&c->returned);
    mutex_unlock(&c->lock);
}

/* ---- The table ---- */

uint16_t redis_node_locked(struct redis_cluster *c, const struct redis_address *a) {
    size_t place = c->n_nodes;
    for (size_t i = 0; i < c->n_nodes; i++) {
        if (c->nodes[i].used && redis_address_is_same(&c->nodes[i].address, a))
            return (uint16_t)i;
        if (!c->nodes[i].used)
            place = i;
    }
    if (place == NODES_MAX)
        return REDIS_NOBODY;
    c->n_nodes += place == c->n_nodes;
    c->nodes[place] = (struct redis_node){.address = *a, .used = true};
    return (uint16_t)place;
}

void redis_nodes_forget_locked(struct redis_cluster *c) {
    for (size_t i = 0; i < c->n_nodes; i++) {
        struct redis_node *n = &c->nodes[i];
        if (!n->used || n->seed || n->master || n->users > 0)
            continue;
        close_idle_locked(n);
        n->used = false;
    }
}

void redis_nodes_free(struct redis_cluster *c) {
    for (size_t i = 0; i < c->n_nodes; i++) {
        close_idle_locked(&c->nodes[i]);
        assert(c->nodes[i].open == 0);
    }
}
