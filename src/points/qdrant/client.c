/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A call takes a slot, which has its connection and its buffers, and gives it back: the slot used
 * last is taken first, so that under little load the connections are few. A slot's connection is
 * opened when a call needs it, and dropped when it failed, when the server is leaving, or when it
 * was idle for so long that something between here and there may have forgotten it.
 */
#include "points/qdrant/client.h"

#include "os/sync.h"
#include "points/qdrant/answer.h"
#include "points/qdrant/encode.h"
#include "points/qdrant/limiter.h"
#include "points/qdrant/rpc.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    CONNECTIONS_DEFAULT = 8,
    TIMEOUT_DEFAULT_MS = 30000,
    CONNECT_MAX_MS = 10000,
    IDLE_MAX_MS = 30000,
    NS_PER_MS = 1000000,
    NS_PER_US = 1000,
    KEPT_BYTES_MAX = 4 << 20, /* of a slot's buffer; what a larger request took is given back */
    LATENCY_WEIGHT = 8,
    AUTHORITY_MAX = 300,
    TRIES_MAX = 2,
};

struct slot {
    struct rpc *rpc; /* NULL: not connected */
    struct payload_reader payloads;
    struct buffer request;
    uint64_t idle_since_ns;
};

struct qdrant_client {
    struct os *os;
    char *host;
    char *api_key;
    char authority[AUTHORITY_MAX];
    struct transport_target target;
    struct tls_trust *trust; /* NULL: no TLS */
    uint64_t timeout_ns;
    struct mutex lock; /* of all below */
    struct condition given_back;
    struct slot *slots;
    struct slot **free_slots; /* a stack */
    unsigned n_slots;
    unsigned n_free;
    struct limiter limiter;
    struct qdrant_client_stats stats;
};

/* ---- Making one ---- */
/* Without the brackets that an address may have in a URL. */
static char *copy_host(const char *host) {
    size_t size = strlen(host);
    bool brackets = size >= 2 && host[0] == '[' && host[size - 1] == ']';
    return brackets ? strndup(host + 1, size - 2) : strdup(host);
}

static int copy_options(struct qdrant_client *c, const struct qdrant_client_options *options) {
    c->host = copy_host(options->host);
    c->api_key = options->api_key ? strdup(options->api_key) : NULL;
    if (!c->host || (options->api_key && !c->api_key))
        return error_origin(-ENOMEM);
    (void)snprintf(c->authority, sizeof c->authority, strchr(c->host, ':') ? "[%s]:%u" : "%s:%u",
                   c->host, (unsigned)options->port);
    int r = options->tls ? tls_trust_new(options->ca_file, &c->trust) : 0;
    if (r)
        return error_trace(r);
    c->target =
        (struct transport_target){.host = c->host, .port = options->port, .trust = c->trust};
    uint64_t timeout_ms = options->timeout_ms ? options->timeout_ms : TIMEOUT_DEFAULT_MS;
    c->timeout_ns = timeout_ms * NS_PER_MS;
    return 0;
}

static int make_slots(struct qdrant_client *c, unsigned n) {
    c->slots = calloc(n, sizeof *c->slots);
    c->free_slots = calloc(n, sizeof *c->free_slots);
    if (!c->slots || !c->free_slots)
        return error_origin(-ENOMEM);
    c->n_slots = c->n_free = n;
    for (unsigned i = 0; i < n; i++)
        c->free_slots[i] = &c->slots[i];
    limiter_init(&c->limiter, n);
    return 0;
}

int qdrant_client_new(struct os *os, const struct qdrant_client_options *options,
                      struct qdrant_client **ret_client) {
    struct qdrant_client *c = calloc(1, sizeof *c);
    if (!c)
        return error_origin(-ENOMEM);
    c->os = os;
    mutex_init(&c->lock, LOCK_RANK_QDRANT);
    condition_init(&c->given_back);
    int r = copy_options(c, options);
    if (r == 0)
        r = make_slots(c,
                       options->connections_max ? options->connections_max : CONNECTIONS_DEFAULT);
    if (r) {
        qdrant_client_free(c);
        return error_trace(r);
    }
    *ret_client = c;
    return 0;
}

struct qdrant_client *qdrant_client_free(struct qdrant_client *c) {
    if (!c)
        return NULL;
    assert(c->n_free == c->n_slots);
    for (unsigned i = 0; i < c->n_slots; i++) {
        rpc_free(c->slots[i].rpc);
        payload_reader_deinit(&c->slots[i].payloads);
        buffer_deinit(&c->slots[i].request);
    }
    free(c->slots);
    free(c->free_slots);
    condition_deinit(&c->given_back);
    mutex_deinit(&c->lock);
    tls_trust_free(c->trust);
    free(c->host);
    free(c->api_key);
    free(c);
    return NULL;
}

void qdrant_client_stats(struct qdrant_client *c, struct qdrant_client_stats *ret_stats) {
    mutex_lock(&c->lock);
    *ret_stats = c->stats;
    ret_stats->concurrency = limiter_limit(&c->limiter);
    mutex_unlock(&c->lock);
}

/* ---- Slots ---- */
static bool may_call(const struct qdrant_client *c) {
    return c->n_slots - c->n_free < limiter_limit(&c->limiter);
}

/* NULL when it could have none before the deadline. */
static struct slot *take_slot(struct qdrant_client *c, uint64_t deadline_ns) {
    struct slot *slot = NULL;
    bool in_time = true;
    mutex_lock(&c->lock);
    while (!may_call(c) && in_time)
        in_time = condition_wait_until(&c->given_back, &c->lock, deadline_ns);
    if (may_call(c))
        slot = c->free_slots[--c->n_free];
    mutex_unlock(&c->lock);
    return slot;
}

static void give_slot(struct qdrant_client *c, struct slot *slot) {
    if (slot->request.capacity > KEPT_BYTES_MAX)
        buffer_deinit(&slot->request);
    slot->idle_since_ns = os_monotonic_ns(c->os);
    mutex_lock(&c->lock);
    c->free_slots[c->n_free++] = slot;
    condition_broadcast(&c->given_back); /* the limit may have grown meanwhile */
    mutex_unlock(&c->lock);
}

static void disconnect(struct qdrant_client *c, struct slot *slot) {
    if (!slot->rpc)
        return;
    slot->rpc = rpc_free(slot->rpc);
    mutex_lock(&c->lock);
    c->stats.connections--;
    mutex_unlock(&c->lock);
}

static int open_connection(struct qdrant_client *c, struct slot *slot, uint64_t deadline_ns,
                           struct qdrant_answer *answer) {
    struct transport *transport;
    char why[RPC_SENTENCE_MAX / 2] = "";
    uint64_t connect_ns = os_monotonic_ns(c->os) + (uint64_t)CONNECT_MAX_MS * NS_PER_MS;
    int r = transport_open(c->os, &c->target, connect_ns < deadline_ns ? connect_ns : deadline_ns,
                           why, sizeof why, &transport);
    if (r > 0) {
        answer->outcome = QDRANT_DOWN;
        answer->grpc_status = GRPC_UNAVAILABLE;
        (void)snprintf(answer->sentence, sizeof answer->sentence, "no connection to %.120s: %s",
                       c->authority, why);
        return r;
    }
    if (r == 0)
        r = rpc_new(c->os, transport, &slot->rpc);
    if (r)
        return error_trace(r);
    mutex_lock(&c->lock);
    c->stats.connections++;
    mutex_unlock(&c->lock);
    return 0;
}

/* A positive result: there is none, and the answer says so. */
static int connect_slot(struct qdrant_client *c, struct slot *slot, uint64_t deadline_ns,
                        struct qdrant_answer *answer) {
    uint64_t idle_ns = os_monotonic_ns(c->os) - slot->idle_since_ns;
    if (slot->rpc && (idle_ns > (uint64_t)IDLE_MAX_MS * NS_PER_MS || !rpc_is_usable(slot->rpc)))
        disconnect(c, slot);
    return slot->rpc ? 0 : open_connection(c, slot, deadline_ns, answer);
}

/* ---- Calls ---- */
struct call {
    const char *method;
    void (*read)(const struct rpc_answer *a, struct qdrant_answer *ret_answer);
    uint64_t deadline_ns;
    uint64_t send_by_ns; /* 0: never */
};

static void answer_of_failure(int condition, struct qdrant_answer *a) {
    static const char *const sentences[] = {
        [RPC_E_NOT_SEEN] = "the server is leaving, and took no call",
        [RPC_E_LOST] = "the connection was lost while the call was under way",
        [RPC_E_DEADLINE] = "no answer in time",
        [RPC_E_LATE] = "it was not all sent while it was this process's to send",
    };
    a->outcome = QDRANT_RETRY;
    a->grpc_status = condition == RPC_E_DEADLINE ? GRPC_DEADLINE_EXCEEDED : GRPC_UNAVAILABLE;
    (void)snprintf(a->sentence, sizeof a->sentence, "%s", sentences[condition]);
}

static void count(struct qdrant_client *c, const struct slot *slot, uint64_t took_ns,
                  const struct qdrant_answer *answer) {
    mutex_lock(&c->lock);
    struct qdrant_client_stats *s = &c->stats;
    uint64_t took_us = took_ns / NS_PER_US;
    s->calls++;
    s->calls_failed += answer->outcome != QDRANT_OK;
    s->bytes_sent += slot->request.size;
    s->latency_us =
        s->latency_us ? (s->latency_us * (LATENCY_WEIGHT - 1) + took_us) / LATENCY_WEIGHT : took_us;
    limiter_note(&c->limiter, took_us, c->n_slots - c->n_free, answer->outcome == QDRANT_RETRY);
    mutex_unlock(&c->lock);
}

static int try_once(struct qdrant_client *c, struct slot *slot, const struct call *call,
                    struct qdrant_answer *answer) {
    const struct rpc_request request = {
        .scheme = c->trust ? "https" : "http",
        .authority = c->authority,
        .api_key = c->api_key,
        .method = call->method,
        .body = buffer_bytes(&slot->request),
        .deadline_ns = call->deadline_ns,
        .send_by_ns = call->send_by_ns,
    };
    struct rpc_answer raw;
    int r = rpc_call(slot->rpc, &request, &raw);
    if (r == 0)
        call->read(&raw, answer);
    else if (r > 0)
        answer_of_failure(r, answer);
    if (r)
        disconnect(c, slot);
    return r;
}

/* What was certainly not looked at is sent once more, over a connection of its own. */
static int send_request(struct qdrant_client *c, struct slot *slot, const struct call *call,
                        struct qdrant_answer *answer) {
    for (unsigned tries = 1;; tries++) {
        int r = connect_slot(c, slot, call->deadline_ns, answer);
        if (r)
            return r < 0 ? r : 0;
        uint64_t start_ns = os_monotonic_ns(c->os);
        r = try_once(c, slot, call, answer);
        if (r < 0)
            return error_trace(r);
        count(c, slot, os_monotonic_ns(c->os) - start_ns, answer);
        if (r != RPC_E_NOT_SEEN || tries == TRIES_MAX)
            return 0;
    }
}

/* The slot for a call; NULL when none came free in time, and the answer says so. */
static struct slot *begin_call(struct qdrant_client *c, struct call *call,
                               struct qdrant_answer *answer) {
    call->deadline_ns = os_monotonic_ns(c->os) + c->timeout_ns;
    struct slot *slot = take_slot(c, call->deadline_ns);
    if (!slot)
        answer_of_failure(RPC_E_DEADLINE, answer);
    return slot;
}

int qdrant_upsert(struct qdrant_client *c, const struct qdrant_update *update,
                  const struct point_config *config, const struct qdrant_point *points, size_t n,
                  struct qdrant_answer *ret_answer) {
    struct call call = {.method = "/qdrant.Points/Upsert",
                        .read = answer_of_update,
                        .send_by_ns = update->send_by_ns};
    struct slot *slot = begin_call(c, &call, ret_answer);
    if (!slot)
        return 0;
    size_t bad = 0;
    int r = encode_upsert(&slot->payloads, update->collection, config, points, n, update->ordering,
                          &slot->request, &bad);
    if (r == 0)
        r = send_request(c, slot, &call, ret_answer);
    give_slot(c, slot);
    if (r != PAYLOAD_E_WRONG)
        return error_trace(r);
    ret_answer->outcome = QDRANT_REJECT;
    ret_answer->grpc_status = GRPC_INVALID_ARGUMENT;
    (void)snprintf(
        ret_answer->sentence, sizeof ret_answer->sentence,
        "the payload of point number %zu is not a JSON object, or is nested deeper than %d "
        "levels",
        bad, PAYLOAD_DEPTH_MAX);
    return 0;
}

int qdrant_delete(struct qdrant_client *c, const struct qdrant_update *update,
                  const struct point_id *ids, size_t n, struct qdrant_answer *ret_answer) {
    struct call call = {.method = "/qdrant.Points/Delete",
                        .read = answer_of_update,
                        .send_by_ns = update->send_by_ns};
    struct slot *slot = begin_call(c, &call, ret_answer);
    if (!slot)
        return 0;
    int r = encode_delete(update->collection, ids, n, update->ordering, &slot->request);
    if (r == 0)
        r = send_request(c, slot, &call, ret_answer);
    give_slot(c, slot);
    return error_trace(r);
}

int qdrant_health(struct qdrant_client *c, struct qdrant_answer *ret_answer) {
    struct call call = {.method = "/qdrant.Qdrant/HealthCheck", .read = answer_of_health};
    struct slot *slot = begin_call(c, &call, ret_answer);
    if (!slot)
        return 0;
    int r = encode_health(&slot->request);
    if (r == 0)
        r = send_request(c, slot, &call, ret_answer);
    give_slot(c, slot);
    return error_trace(r);
}
