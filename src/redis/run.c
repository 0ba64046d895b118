/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running commands, round by round. A round sends what has no result yet, each node's share as one
 * pipeline, to all nodes before any is read from; then it judges the replies. What the server says
 * that it did not do goes into the next round. What a broken connection owes gets its result:
 * REDIS_E_UNAVAILABLE.
 */
#include "redis/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    GRACE_MS = 20,      /* after the deadline, for what has come meanwhile */
    ROUNDS_AT_ONCE = 4, /* without a pause, when only redirections are followed */
    PAUSE_MS_MIN = 10,
    PAUSE_MS_MAX = 200,
};
#define NO_ITEM SIZE_MAX

struct item {
    bool pending;
    bool asking;      /* node is where ASK sent it */
    bool with_source; /* its node does not know the script */
    uint16_t node;
    size_t next; /* of the pipeline */
};

struct pipeline {
    size_t first, last; /* NO_ITEM: it is empty */
    struct channel *channel;
};

struct run {
    struct redis_cluster *c;
    struct redis_command *commands;
    size_t n;
    uint64_t replicas; /* to wait for */
    uint64_t deadline_ns;
    char *why;
    size_t n_pending;
    unsigned rounds;
    bool slow;     /* something in this round passes by waiting alone */
    bool hopeless; /* nobody lets us in */
    bool is_user[NODES_MAX];
    struct pipeline pipelines[NODES_MAX];
    struct item items[];
};

/* ---- Results ---- */

static void finish(struct run *run, size_t i, int result) {
    run->commands[i].result = result;
    run->items[i].pending = false;
    run->n_pending--;
}

static void forget_reply(struct redis_command *command) {
    if (command->reply)
        freeReplyObject(command->reply);
    command->reply = NULL;
}

/* Of what has a result, it is not known whether it holds: a refusal neither, as who gave it may
 * have been cut off. */
static void take_back(struct run *run, size_t i) {
    if (run->items[i].pending)
        return;
    forget_reply(&run->commands[i]);
    run->commands[i].result = REDIS_E_UNAVAILABLE;
}

static void pipeline_lost(struct run *run, const struct pipeline *p, size_t from) {
    for (size_t i = p->first; i != NO_ITEM && i != from; i = run->items[i].next)
        if (run->replicas > 0)
            take_back(run, i);
    for (size_t i = from; i != NO_ITEM; i = run->items[i].next)
        finish(run, i, REDIS_E_UNAVAILABLE);
}

/* ---- Planning ---- */

static void use_node_locked(struct run *run, uint16_t node) {
    run->c->nodes[node].users += !run->is_user[node];
    run->is_user[node] = true;
}

static void append_item(struct run *run, size_t i) {
    struct pipeline *p = &run->pipelines[run->items[i].node];
    run->items[i].next = NO_ITEM;
    if (p->first == NO_ITEM)
        p->first = i;
    else
        run->items[p->last].next = i;
    p->last = i;
}

/* Each pending command to the pipeline of its node. Those of a slot that nobody serves wait. */
static void plan(struct run *run) {
    struct redis_cluster *c = run->c;
    for (size_t i = 0; i < NODES_MAX; i++)
        run->pipelines[i] = (struct pipeline){.first = NO_ITEM};
    mutex_lock(&c->lock);
    for (size_t i = 0; i < run->n; i++) {
        struct item *item = &run->items[i];
        if (!item->pending)
            continue;
        unsigned slot = redis_slot(run->commands[i].key);
        if (!item->asking)
            item->node = c->owner[slot];
        if (item->node == REDIS_NOBODY) {
            redis_say(run->why, "no node of the cluster serves slot %u", slot);
            c->stale = run->slow = true;
            continue;
        }
        use_node_locked(run, item->node);
        append_item(run, i);
    }
    mutex_unlock(&c->lock);
}

/* ---- Sending ---- */

static void add_command(struct redis_link *l, const struct redis_command *command,
                        const struct item *item) {
    const struct redis_script *script = command->script;
    char keys[24];
    assert(script ? command->n_keys <= command->n : command->n > 0); /* each has one reply */
    if (item->asking)
        redis_link_add(l, (struct bytes[]){BYTES_LITERAL("ASKING")}, 1, NULL, 0);
    if (!script) {
        redis_link_add(l, NULL, 0, command->arguments, command->n);
        return;
    }
    snprintf(keys, sizeof keys, "%zu", command->n_keys);
    struct bytes head[] = {
        item->with_source ? BYTES_LITERAL("EVAL") : BYTES_LITERAL("EVALSHA"),
        bytes_of_string(item->with_source ? script->source : script->sha),
        bytes_of_string(keys),
    };
    redis_link_add(l, head, ARRAY_LENGTH(head), command->arguments, command->n);
}

static void add_wait(struct run *run, struct redis_link *l) {
    char replicas[24], wait_ms[24];
    snprintf(replicas, sizeof replicas, "%" PRIu64, run->replicas);
    snprintf(wait_ms, sizeof wait_ms, "%" PRIu64, redis_link_left_ms(l) * 3 / 4 + 1);
    redis_link_add(l,
                   (struct bytes[]){BYTES_LITERAL("WAIT"), bytes_of_string(replicas),
                                    bytes_of_string(wait_ms)},
                   3, NULL, 0);
}

static void send_pipeline(struct run *run, uint16_t node, struct pipeline *p) {
    struct redis_cluster *c = run->c;
    int r =
        redis_channel_take(c, node, c->connections_max, run->deadline_ns, &p->channel, run->why);
    if (r) { /* nothing was sent; who was asked to go there asks again where */
        p->channel = NULL;
        for (size_t i = p->first; i != NO_ITEM; i = run->items[i].next)
            run->items[i].asking = false;
        run->slow = true;
        run->hopeless = run->hopeless || r != REDIS_E_UNAVAILABLE;
        redis_topology_doubt(c);
        return;
    }
    struct redis_link *l = &p->channel->link;
    redis_link_until(l, run->deadline_ns);
    for (size_t i = p->first; i != NO_ITEM; i = run->items[i].next)
        add_command(l, &run->commands[i], &run->items[i]);
    if (run->replicas > 0)
        add_wait(run, l);
    if (redis_link_send(l) == 0)
        return;
    redis_say(run->why, "%s", p->channel->why);
    pipeline_lost(run, p, p->first);
}

/* By the index of nodes: who waits for a connection holds only those of nodes before that one. */
static void send_all(struct run *run) {
    for (size_t node = 0; node < NODES_MAX; node++)
        if (run->pipelines[node].first != NO_ITEM)
            send_pipeline(run, (uint16_t)node, &run->pipelines[node]);
}

/* ---- Judging ---- */

/* The next round goes where the redirection leads. */
static void follow(struct run *run, struct item *item, const struct redis_redirect *redirect) {
    struct redis_cluster *c = run->c;
    mutex_lock(&c->lock);
    uint16_t node = redis_node_locked(c, &redirect->to);
    item->asking = redirect->ask && node != REDIS_NOBODY;
    if (node != REDIS_NOBODY)
        use_node_locked(run, node);
    if (item->asking)
        item->node = node;
    else if (node != REDIS_NOBODY)
        c->owner[redirect->slot] = node;
    c->stale = c->stale || !redirect->ask;
    mutex_unlock(&c->lock);
}

/* Nothing was done, and somebody has to see to something first: rights, or a URL. */
static bool is_beyond_us(const char *error) {
    static const char *const words[] = {"NOAUTH ", "NOPERM ", "MOVED ", "ASK "};
    for (size_t i = 0; i < ARRAY_LENGTH(words); i++)
        if (strncmp(error, words[i], strlen(words[i])) == 0)
            return true;
    return strstr(error, "unknown command") || strstr(error, "The user executing the script can't");
}

/* What becomes of a command that has an error for its reply, which this takes. True: the connection
 * is not to be used again. */
static bool judge_error(struct run *run, size_t i, struct redis_link *l, redisReply *reply) {
    struct item *item = &run->items[i];
    struct redis_redirect redirect;
    bool doubtful = false;
    item->asking = false;
    redis_link_say_error(l, reply);
    redis_say(run->why, "%s", l->why);
    if (run->c->sharded && redis_redirect_parse(reply->str, l->node, &redirect)) {
        follow(run, item, &redirect);
    } else if (run->commands[i].script && strncmp(reply->str, "NOSCRIPT ", 9) == 0) {
        item->with_source = true;
    } else if (redis_error_is_passing(reply->str) || is_beyond_us(reply->str)) {
        run->slow = true;
        doubtful = strncmp(reply->str, "TRYAGAIN ", 9) != 0 &&
                   strncmp(reply->str, "CLUSTERDOWN ", 12) != 0;
    } else {
        run->commands[i].reply = reply;
        finish(run, i, REDIS_E_REFUSED);
        return false;
    }
    freeReplyObject(reply);
    return doubtful;
}

/* ---- Receiving ---- */

static int receive_reply(struct redis_link *l, bool asking, redisReply **ret_reply) {
    CLEANUP(redis_reply_cleanup) redisReply *ignored = NULL;
    int r = asking ? redis_link_receive(l, &ignored) : 0;
    return r ? r : redis_link_receive(l, ret_reply);
}

/* Whether enough replicas have what the pipeline wrote. */
static int receive_wait(struct run *run, struct redis_link *l) {
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    int r = redis_link_receive(l, &reply);
    if (r)
        return r;
    if (reply->type != REDIS_REPLY_INTEGER)
        return redis_link_odd(l);
    if (reply->integer >= 0 && (uint64_t)reply->integer >= run->replicas)
        return 0;
    return redis_link_drop(l, "%s: only %lld of %" PRIu64 " replicas have what was written",
                           l->peer, reply->integer, run->replicas);
}

/* True: the connection is not to be used again. */
static bool receive_pipeline(struct run *run, const struct pipeline *p) {
    struct redis_link *l = &p->channel->link;
    bool doubtful = false;
    size_t i = p->first, next;
    for (; i != NO_ITEM; i = next) {
        redisReply *reply = NULL;
        next = run->items[i].next;
        if (receive_reply(l, run->items[i].asking, &reply) != 0)
            break;
        if (reply->type == REDIS_REPLY_ERROR) {
            doubtful |= judge_error(run, i, l, reply);
        } else {
            run->commands[i].reply = reply;
            finish(run, i, 0);
        }
    }
    if (i == NO_ITEM && (run->replicas == 0 || receive_wait(run, l) == 0))
        return doubtful;
    redis_say(run->why, "%s", l->why);
    pipeline_lost(run, p, i);
    return true;
}

static void receive_all(struct run *run) {
    struct redis_cluster *c = run->c;
    for (size_t node = 0; node < NODES_MAX; node++) {
        struct pipeline *p = &run->pipelines[node];
        if (!p->channel)
            continue;
        uint64_t grace_ns = os_monotonic_ns(c->os) + GRACE_MS * NS_PER_MS;
        redis_link_until(&p->channel->link,
                         grace_ns > run->deadline_ns ? grace_ns : run->deadline_ns);
        bool broken = !p->channel->link.connection || receive_pipeline(run, p);
        redis_channel_give(c, (uint16_t)node, p->channel, broken);
        if (broken)
            redis_topology_doubt(c);
    }
}

/* ---- Rounds ---- */

static bool is_over(const struct run *run) {
    return run->hopeless || os_monotonic_ns(run->c->os) >= run->deadline_ns;
}

/* Before another round: what passes by waiting is waited for, longer each time. */
static void pause_run(struct run *run, uint64_t *pause_ms) {
    if (!run->slow && run->rounds < ROUNDS_AT_ONCE)
        return;
    uint64_t now = os_monotonic_ns(run->c->os);
    uint64_t left_ns = now < run->deadline_ns ? run->deadline_ns - now : 0;
    uint64_t pause_ns = *pause_ms * NS_PER_MS;
    os_sleep_ns(run->c->os, pause_ns < left_ns ? pause_ns : left_ns);
    *pause_ms = *pause_ms * 2 < PAUSE_MS_MAX ? *pause_ms * 2 : PAUSE_MS_MAX;
}

static void run_rounds(struct run *run) {
    uint64_t pause_ms = PAUSE_MS_MIN;
    do {
        run->rounds++;
        run->slow = false;
        int r = redis_topology_learn(run->c, run->deadline_ns, run->why);
        if (r == 0) {
            plan(run);
            send_all(run);
            receive_all(run);
        } else {
            run->slow = true;
            run->hopeless = r != REDIS_E_UNAVAILABLE;
        }
        if (run->n_pending > 0)
            pause_run(run, &pause_ms);
    } while (run->n_pending > 0 && !is_over(run));
}

static void release_nodes(struct run *run) {
    mutex_lock(&run->c->lock);
    for (size_t node = 0; node < NODES_MAX; node++)
        run->c->nodes[node].users -= run->is_user[node];
    mutex_unlock(&run->c->lock);
}

static int worst_result(const struct redis_command *commands, size_t n) {
    int worst = 0;
    for (size_t i = 0; i < n && worst != REDIS_E_UNAVAILABLE; i++)
        if (commands[i].result)
            worst = commands[i].result;
    return worst;
}

int redis_cluster_run(struct redis_cluster *c, struct redis_command *commands, size_t n,
                      bool durable, uint64_t timeout_ms, char why[REDIS_WHY_MAX]) {
    for (size_t i = 0; i < n; i++) {
        commands[i].result = REDIS_E_UNAVAILABLE;
        commands[i].reply = NULL;
    }
    if (n == 0)
        return 0;
    struct run *run = calloc(1, sizeof *run + n * sizeof run->items[0]);
    if (!run)
        return redis_fail(why, error_origin(-ENOMEM), "no memory for %zu commands", n);
    run->c = c;
    run->commands = commands;
    run->n = run->n_pending = n;
    run->replicas = durable ? c->replicas : 0;
    run->deadline_ns = os_monotonic_ns(c->os) + timeout_ms * NS_PER_MS;
    run->why = why;
    for (size_t i = 0; i < n; i++)
        run->items[i].pending = true;
    redis_say(why, "no answer came in time");
    run_rounds(run);
    release_nodes(run);
    free(run);
    return worst_result(commands, n);
}

void redis_commands_free(struct redis_command *commands, size_t n) {
    for (size_t i = 0; i < n; i++)
        forget_reply(&commands[i]);
}
