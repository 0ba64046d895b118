/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether the cluster is reachable is what the newest call said, be it a lane's or the watcher's:
 * the watcher is for the time when nobody writes.
 */
#include "http/http.h"
#include "os/file.h"
#include "points/qdrant/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    CALL_MS = 8000, /* less than what a stop gives the lanes */
    CONNECTIONS_MAX = 8,
    HAS_ANSWER_MAX = 1 << 20, /* a collection's settings and figures */
    WATCH_CALL_MS = 2000,
    WATCH_MS = 5000,
    WATCH_SILENT_MS = 500, /* while it does not answer */
    GRPC_DEADLINE_EXCEEDED = 4,
    GRPC_NOT_FOUND = 5,
    GRPC_RESOURCE_EXHAUSTED = 8,
};

/* ---- Reachable ---- */

/* Unless it is, why says so. */
static void note(struct qdrant_cluster *c, bool reachable, const char *why) {
    mutex_lock(&c->lock);
    c->reachable = reachable;
    (void)snprintf(c->reason, sizeof c->reason, "%s", reachable ? "" : why);
    mutex_unlock(&c->lock);
}

void qdrant_cluster_status(struct qdrant_cluster *c, struct qdrant_cluster_status *ret_status) {
    struct qdrant_cluster_status status = {.url = c->text};
    struct qdrant_client_stats stats;
    qdrant_client_stats(c->client, &stats);
    status.calls = stats.calls;
    status.calls_failed = stats.calls_failed;
    status.bytes_sent = stats.bytes_sent;
    status.latency_us = stats.latency_us;
    status.connections = stats.connections;
    status.concurrency = stats.concurrency;
    mutex_lock(&c->lock);
    status.reachable = c->reachable;
    memcpy(status.reason, c->reason, sizeof status.reason);
    mutex_unlock(&c->lock);
    *ret_status = status;
}

/* Waits for the next look; false when it is time to end. */
static bool next_look(struct qdrant_cluster *c) {
    mutex_lock(&c->lock);
    uint64_t wait_ms = c->reachable ? WATCH_MS : WATCH_SILENT_MS;
    uint64_t due_ns = os_monotonic_ns(c->os) + wait_ms * UINT64_C(1000000);
    while (!c->stopping && condition_wait_until(&c->wake, &c->lock, due_ns))
        continue;
    bool go_on = !c->stopping;
    mutex_unlock(&c->lock);
    return go_on;
}

/* Who has no answer even to this is as good as not there, unlike who is slow to write. */
static void look(struct qdrant_cluster *c) {
    struct qdrant_answer answer;
    if (qdrant_health(c->watcher, &answer)) {
        note(c, false, "there is no memory to ask whether it is there");
        return;
    }
    bool there = answer.outcome != QDRANT_DOWN && answer.grpc_status != GRPC_DEADLINE_EXCEEDED;
    note(c, there, answer.sentence);
    if (there)
        atomic_store(&c->silent, false);
}

static void watch(void *cluster) {
    struct qdrant_cluster *c = cluster;
    do
        look(c);
    while (next_look(c));
}

/* ---- The sink ---- */

static bool is_too_much(const struct qdrant_answer *answer) {
    return answer->outcome == QDRANT_RETRY && (answer->grpc_status == GRPC_DEADLINE_EXCEEDED ||
                                               answer->grpc_status == GRPC_RESOURCE_EXHAUSTED);
}

static struct qdrant_update update_of(const struct points_sink_batch *batch) {
    return (struct qdrant_update){.collection = bytes_of_string(batch->collection->name),
                                  .ordering = (enum qdrant_ordering)batch->ordering,
                                  .send_by_ns = batch->send_by_ns};
}

static int send_upserts(struct qdrant_cluster *c, const struct points_sink_batch *batch,
                        struct qdrant_answer *answer) {
    struct qdrant_point *points = calloc(batch->n, sizeof *points);
    if (!points)
        return error_origin(-ENOMEM);
    for (size_t i = 0; i < batch->n; i++)
        points[i] = (struct qdrant_point){.id = batch->points[i].id,
                                          .vector_mask = batch->points[i].vector_mask,
                                          .vectors = batch->points[i].vectors,
                                          .payload = batch->points[i].payload};
    const struct qdrant_update update = update_of(batch);
    int r = qdrant_upsert(c->client, &update, &batch->collection->config, points, batch->n, answer);
    free(points);
    return error_trace(r);
}

static int send_deletes(struct qdrant_cluster *c, const struct points_sink_batch *batch,
                        struct qdrant_answer *answer) {
    struct point_id *ids = calloc(batch->n, sizeof *ids);
    if (!ids)
        return error_origin(-ENOMEM);
    for (size_t i = 0; i < batch->n; i++)
        ids[i] = batch->points[i].id;
    const struct qdrant_update update = update_of(batch);
    int r = qdrant_delete(c->client, &update, ids, batch->n, answer);
    free(ids);
    return error_trace(r);
}

static int deliver(void *cluster, const struct points_sink_batch *batch,
                   struct points_sink_answer *ret_answer) {
    static const enum work_outcome outcomes[] = {[QDRANT_OK] = WORK_OK,
                                                 [QDRANT_RETRY] = WORK_RETRY,
                                                 [QDRANT_REJECT] = WORK_REJECT,
                                                 [QDRANT_DOWN] = WORK_DOWN};
    struct qdrant_cluster *c = cluster;
    struct qdrant_answer answer;
    int r = batch->op == POINT_UPSERT ? send_upserts(c, batch, &answer)
                                      : send_deletes(c, batch, &answer);
    if (r)
        return error_trace(r);
    note(c, answer.outcome != QDRANT_DOWN, answer.sentence);
    ret_answer->outcome = outcomes[answer.outcome];
    ret_answer->too_much = is_too_much(&answer);
    ret_answer->unknown_collection = answer.grpc_status == GRPC_NOT_FOUND;
    (void)snprintf(ret_answer->sentence, sizeof ret_answer->sentence, "Qdrant: %.240s",
                   answer.sentence);
    return 0;
}

/* By its own path, which an alias has too: who was told that there is no such collection was sent
 * there by a name that a collection had. */
static bool has_collection(void *cluster, const struct points_collection *collection,
                           bool *ret_has) {
    CLEANUP(buffer_deinit) struct buffer target = BUFFER_INIT;
    struct qdrant_reply reply = {.body = BUFFER_INIT};
    buffer_append_string(&target, "/collections/");
    http_segment_append(bytes_of_string(collection->name), &target);
    const struct qdrant_question question = {.method = "GET",
                                             .target = buffer_bytes(&target),
                                             .reads = true,
                                             .timeout_ms = CALL_MS,
                                             .answer_max_bytes = HAS_ANSWER_MAX};
    bool answered = !buffer_check(&target) && !qdrant_ask(cluster, &question, &reply) &&
                    (reply.status == 200 || reply.status == 404);
    if (answered)
        *ret_has = reply.status == 200;
    qdrant_reply_deinit(&reply);
    return answered;
}

const struct points_sink *qdrant_cluster_sink(const struct qdrant_cluster *c) {
    return &c->sink;
}

struct points_aliases *qdrant_cluster_aliases(struct qdrant_cluster *c) {
    return &c->aliases;
}

/* ---- Life ---- */

/* The first line of the file. */
static int read_key(struct qdrant_cluster *c, char key[QDRANT_KEY_MAX + 1]) {
    CLEANUP(buffer_deinit) struct buffer text = BUFFER_INIT;
    if (os_load(c->os, c->url.api_key_file, QDRANT_KEY_MAX, &text))
        return QDRANT_E_KEY;
    size_t size = 0;
    while (size < text.size && text.data[size] > ' ' && text.data[size] < 0x7f)
        size++;
    if (size == 0)
        return QDRANT_E_KEY;
    memcpy(key, text.data, size);
    key[size] = '\0';
    return 0;
}

static void say_texts(struct qdrant_cluster *c) {
    const struct qdrant_url *u = &c->url;
    bool brackets = strchr(u->host, ':') != NULL;
    const char *open = brackets ? "[" : "", *close = brackets ? "]" : "";
    (void)snprintf(c->text, sizeof c->text, "qdrant%s://%s%s%s:%u", u->tls ? "s" : "", open,
                   u->host, close, u->port);
    (void)snprintf(c->base, sizeof c->base, "http%s://%s%s%s:%u", u->tls ? "s" : "", open, u->host,
                   close, u->rest_port);
}

static int make_clients(struct qdrant_cluster *c) {
    char key[QDRANT_KEY_MAX + 1] = "";
    int r = c->url.api_key_file[0] ? read_key(c, key) : 0;
    if (r)
        return r;
    if (key[0])
        (void)snprintf(c->key_header, sizeof c->key_header, "api-key: %s", key);
    struct qdrant_client_options options = {.host = c->url.host,
                                            .port = c->url.port,
                                            .api_key = key[0] ? key : NULL,
                                            .tls = c->url.tls,
                                            .ca_file = c->url.ca_file[0] ? c->url.ca_file : NULL,
                                            .connections_max = CONNECTIONS_MAX,
                                            .timeout_ms = CALL_MS};
    r = qdrant_client_new(c->os, &options, &c->client);
    options.connections_max = 1;
    options.timeout_ms = WATCH_CALL_MS;
    if (!r)
        r = qdrant_client_new(c->os, &options, &c->watcher);
    return r < 0 ? error_trace(r) : error_fold(r);
}

int qdrant_cluster_new(struct os *os, const struct qdrant_url *url,
                       struct qdrant_cluster **ret_cluster) {
    struct qdrant_cluster *c = calloc(1, sizeof *c);
    if (!c)
        return error_origin(-ENOMEM);
    c->os = os;
    c->url = *url;
    c->sink = (struct points_sink){.send = deliver, .has = has_collection, .context = c};
    atomic_init(&c->stop_ns, UINT64_MAX);
    mutex_init(&c->lock, LOCK_RANK_QDRANT_CLUSTER);
    condition_init(&c->wake);
    points_aliases_init(&c->aliases);
    (void)snprintf(c->reason, sizeof c->reason, "it was not asked yet");
    say_texts(c);
    int r = make_clients(c);
    if (r) {
        qdrant_cluster_free(c);
        return r;
    }
    *ret_cluster = c;
    return 0;
}

int qdrant_cluster_start(struct qdrant_cluster *c) {
    return error_trace(os_thread_start(c->os, "qdrant", watch, c, &c->thread));
}

void qdrant_cluster_stop_by(struct qdrant_cluster *c, uint64_t deadline_ns) {
    atomic_store(&c->stop_ns, deadline_ns);
}

struct qdrant_cluster *qdrant_cluster_free(struct qdrant_cluster *c) {
    if (!c)
        return NULL;
    mutex_lock(&c->lock);
    c->stopping = true;
    condition_signal(&c->wake);
    mutex_unlock(&c->lock);
    os_thread_join(c->os, c->thread);
    for (size_t i = 0; i < c->n_askers; i++)
        transfers_free(c->askers[i]);
    qdrant_client_free(c->watcher);
    qdrant_client_free(c->client);
    points_aliases_deinit(&c->aliases);
    condition_deinit(&c->wake);
    mutex_deinit(&c->lock);
    free(c);
    return NULL;
}
