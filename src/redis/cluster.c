/* SPDX-License-Identifier: Apache-2.0 */
/* A cluster from its URL, its end, and the thread that asks whether it is there. */
#include "base/hash.h"
#include "redis/durable.h"
#include "redis/internal.h"

#include <stdlib.h>

enum {
    CONNECTIONS = 8,
    REPLICAS_MAX = 16,
    WATCH_MS = 1000,
    PATIENCE_MS = 1000, /* of a question whether a node is there */
};

/* ---- Watching ---- */

/* Whose settings are looked at. */
struct looked {
    struct redis_cluster *cluster;
    size_t peer; /* bytes of its name, with which each sentence begins */
};

/* What is said of one node need not be said of each. */
static void tell_once(void *context, const char *sentence) {
    const struct looked *looked = context;
    struct redis_cluster *c = looked->cluster;
    const char *said = sentence + looked->peer;
    uint64_t hash = hash64(said, strlen(said));
    for (size_t i = 0; i < c->n_told; i++)
        if (c->told[i] == hash)
            return;
    if (c->n_told < TOLD_MAX)
        c->told[c->n_told++] = hash;
    c->tell(c->tell_context, sentence);
}

static int look_at_settings(struct redis_cluster *c, struct redis_node *n, struct redis_link *l) {
    struct looked looked = {.cluster = c, .peer = strlen(l->peer)};
    int r = n->looked_at || !c->tell ? 0 : redis_check_settings(l, c->replicas, tell_once, &looked);
    n->looked_at = n->looked_at || r == 0;
    return r;
}

static int ping(struct redis_cluster *c, uint16_t node, char why[REDIS_WHY_MAX]) {
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    uint64_t deadline_ns = os_monotonic_ns(c->os) + PATIENCE_MS * NS_PER_MS;
    struct channel *ch;
    int r = redis_channel_take(c, node, c->connections_max + 1, deadline_ns, &ch, why);
    if (r)
        return r;
    redis_link_until(&ch->link, deadline_ns);
    r = redis_link_command(&ch->link, (struct bytes[]){BYTES_LITERAL("PING")}, 1, &reply);
    if (!r)
        r = look_at_settings(c, &c->nodes[node], &ch->link);
    if (r)
        redis_say(why, "%s", ch->why);
    redis_channel_give(c, node, ch, r != 0);
    return r;
}

/* The next master from `node` on, with its caller as user; REDIS_NOBODY: there is none. */
static uint16_t next_master(struct redis_cluster *c, size_t node) {
    mutex_lock(&c->lock);
    while (node < c->n_nodes && !(c->nodes[node].used && c->nodes[node].master))
        node++;
    bool found = node < c->n_nodes && !c->stopping;
    if (found)
        c->nodes[node].users++;
    mutex_unlock(&c->lock);
    return found ? (uint16_t)node : REDIS_NOBODY;
}

static bool has_all_slots(struct redis_cluster *c, char why[REDIS_WHY_MAX]) {
    size_t slot = 0;
    mutex_lock(&c->lock);
    while (slot < REDIS_SLOTS && c->owner[slot] != REDIS_NOBODY)
        slot++;
    mutex_unlock(&c->lock);
    if (slot < REDIS_SLOTS)
        redis_say(why, "no node of the cluster serves slot %zu", slot);
    return slot == REDIS_SLOTS;
}

static struct redis_cluster_status look(struct redis_cluster *c) {
    struct redis_cluster_status s = {0};
    char why[REDIS_WHY_MAX];
    uint64_t deadline_ns = os_monotonic_ns(c->os) + PATIENCE_MS * NS_PER_MS;
    if (redis_topology_learn(c, deadline_ns, s.why) != 0)
        return s;
    s.reachable = has_all_slots(c, s.why);
    if (!s.reachable)
        redis_topology_doubt(c);
    for (size_t node = 0; (node = next_master(c, node)) != REDIS_NOBODY; node++) {
        s.masters++;
        if (ping(c, (uint16_t)node, why) != 0) {
            s.reachable = false;
            redis_say(s.why, "%s", why);
            redis_topology_doubt(c);
        }
        mutex_lock(&c->lock);
        c->nodes[node].users--;
        mutex_unlock(&c->lock);
    }
    return s;
}

static void watch(void *argument) {
    struct redis_cluster *c = argument;
    mutex_lock(&c->lock);
    while (!c->stopping) {
        mutex_unlock(&c->lock);
        struct redis_cluster_status s = look(c);
        uint64_t next_ns = os_monotonic_ns(c->os) + c->watch_ms * NS_PER_MS;
        mutex_lock(&c->lock);
        c->status = s;
        while (!c->stopping && condition_wait_until(&c->changed, &c->lock, next_ns))
            ;
    }
    mutex_unlock(&c->lock);
}

void redis_note_refusal(struct redis_cluster *c, int r, const char *why) {
    mutex_lock(&c->lock);
    redis_say(c->refusal, "%s", r == REDIS_E_REFUSED ? why : "");
    mutex_unlock(&c->lock);
}

bool redis_cluster_is_refused(struct redis_cluster *c, char why[REDIS_WHY_MAX]) {
    mutex_lock(&c->lock);
    bool refused = c->refusal[0] != '\0';
    if (refused)
        redis_say(why, "%s", c->refusal);
    mutex_unlock(&c->lock);
    return refused;
}

void redis_cluster_status(struct redis_cluster *c, struct redis_cluster_status *ret_status) {
    mutex_lock(&c->lock);
    *ret_status = c->status;
    mutex_unlock(&c->lock);
}

/* ---- Opening ---- */

static bool is_parameter(const char *name, const char *const *own) {
    static const char *const known[] = {"replicas", "sentinel-user", "sentinel-password"};
    for (size_t i = 0; i < ARRAY_LENGTH(known); i++)
        if (strcmp(name, known[i]) == 0)
            return true;
    for (; own && *own; own++)
        if (strcmp(name, *own) == 0)
            return true;
    return false;
}

static int check(const struct redis_cluster_options *options, uint64_t *ret_replicas,
                 char why[REDIS_WHY_MAX]) {
    const struct service_url *u = options->url;
    if (strncmp(u->scheme, "redis", 5) != 0)
        return redis_fail(why, REDIS_E_REFUSED,
                          "a Redis is redis://, redis+sentinel:// or redis+cluster://");
    if (!redis_link_check_url(u, why))
        return REDIS_E_REFUSED;
    for (size_t i = 0; i < u->n_parameters; i++)
        if (!is_parameter(u->parameters[i].name, options->parameters))
            return redis_fail(why, REDIS_E_REFUSED, "a Redis has no parameter %.64s here",
                              u->parameters[i].name);
    if (!service_url_parameter_number(u, "replicas", 0, REPLICAS_MAX, ret_replicas))
        return redis_fail(why, REDIS_E_REFUSED, "replicas is a number from 0 to %d", REPLICAS_MAX);
    return 0;
}

/* Nodes to begin with: of a cluster, whom the URL names; else the one that it means. */
static int seed(struct redis_cluster *c, char why[REDIS_WHY_MAX]) {
    for (size_t i = 0; i < REDIS_SLOTS; i++)
        c->owner[i] = c->sharded ? REDIS_NOBODY : 0;
    for (size_t i = 0; i < c->url->n_hosts; i++) {
        const struct service_host *host = &c->url->hosts[i];
        struct redis_address a;
        if (!redis_address_set(&a, bytes_of_string(host->name),
                               host->port ? host->port : REDIS_PORT))
            return redis_fail(why, REDIS_E_REFUSED, "the name of a host has at most %d bytes",
                              REDIS_HOST_MAX - 1);
        uint16_t node = redis_node_locked(c, &a);
        c->nodes[node].seed = true;
        if (!c->sharded)
            break;
    }
    c->known = c->nodes[0].master = !c->sharded;
    redis_say(c->status.why, "nobody was asked yet");
    return 0;
}

int redis_cluster_open(struct os *os, const struct redis_cluster_options *options,
                       struct redis_cluster **ret_cluster, char why[REDIS_WHY_MAX]) {
    uint64_t replicas = 0;
    int r = check(options, &replicas, why);
    if (r)
        return r;
    struct redis_cluster *c = calloc(1, sizeof *c);
    if (!c)
        return redis_fail(why, error_origin(-ENOMEM), "no memory for what is known of a Redis");
    c->os = os;
    c->url = options->url;
    c->sharded = redis_url_is_cluster(c->url);
    c->replicas = replicas;
    c->connections_max = options->connections_max ? options->connections_max : CONNECTIONS;
    c->tell = options->tell;
    c->tell_context = options->context;
    c->watch_ms = options->watch_ms ? options->watch_ms : WATCH_MS;
    mutex_init(&c->lock, LOCK_RANK_REDIS);
    condition_init(&c->returned);
    condition_init(&c->changed);
    r = seed(c, why);
    if (!r)
        r = os_thread_start(os, "redis", watch, c, &c->thread);
    if (r) {
        redis_cluster_close(c);
        return error_trace(r);
    }
    *ret_cluster = c;
    return 0;
}

struct redis_cluster *redis_cluster_close(struct redis_cluster *c) {
    if (!c)
        return NULL;
    mutex_lock(&c->lock);
    c->stopping = true;
    condition_broadcast(&c->changed);
    mutex_unlock(&c->lock);
    os_thread_join(c->os, c->thread);
    redis_nodes_free(c);
    condition_deinit(&c->changed);
    condition_deinit(&c->returned);
    mutex_deinit(&c->lock);
    free(c);
    return NULL;
}
