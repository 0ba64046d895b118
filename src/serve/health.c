/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Health: which part is not as it should be. Three questions are asked of the same parts:
 *
 *   part      alive unless                ready unless
 *   server                                it is starting or stopping
 *   http      a loop has stalled          a loop has stalled
 *   journal                               a sync hangs, or the disk, or the engine, refuses; one
 *                                         that is shared cannot be read by who applies it
 *   a store   a lane has stalled          a lane is down or has stalled; the cluster that keeps
 *                                         its points, or its events, does not answer, the Redis
 *                                         of its tasks did not take the last checkpoint
 *   a store that processes share
 *             who applies has stalled     the store does not answer, or has this process wait
 *   runner    its thread has stalled      its thread has stalled
 */
#include "serve/internal.h"

#include <stdio.h>

enum { HEALTH_PARTS = 4 + 2 * DATA_STORES, HEALTH_REASON_MAX = 256 };

struct part {
    const char *name;
    bool alive;
    bool ready;
    char reason[HEALTH_REASON_MAX];
    const char *url; /* of the engine behind it; NULL: none */
    bool reachable;  /* that engine */
    bool has_lag;
    uint64_t lag;                   /* messages that others have not applied */
    char warning[BACKLOG_TEXT_MAX]; /* of what does not make it less ready; "" */
};

static void look_at_server(struct serve *s, struct part *part) {
    static const char *const reasons[] = {
        [SERVE_STARTING] = "starting: the journal is replayed",
        [SERVE_READY] = "",
        [SERVE_STOPPING] = "stopping",
    };
    int state = atomic_load(&s->state);
    *part = (struct part){.name = "server", .alive = true, .ready = state == SERVE_READY};
    snprintf(part->reason, sizeof part->reason, "%s", reasons[state]);
}

static void look_at_http(struct serve *s, struct part *part) {
    bool stalled = atomic_load(&s->state) == SERVE_READY && http_server_stalled(s->http);
    *part = (struct part){.name = "http", .alive = !stalled, .ready = !stalled};
    if (stalled)
        snprintf(part->reason, sizeof part->reason, "a loop has not gone round for 10 s");
}

static void look_at_journal(struct serve *s, const struct journal *j, const char *name,
                            struct part *part) {
    enum journal_state state = journal_state(j);
    *part = (struct part){.name = name, .alive = true, .ready = state == JOURNAL_OK};
    if (state != JOURNAL_OK)
        snprintf(part->reason, sizeof part->reason, "writes are refused: %s",
                 journal_state_text(j));
    part->url = s->data->journal_url[0] ? s->data->journal_url : NULL;
    part->reachable = part->ready;
}

static void look_at_store(const struct data_store *store, struct part *part) {
    struct work_status status;
    work_status(store->work, &status);
    *part = (struct part){.name = store->ops->work->name,
                          .alive = !status.stalled,
                          .ready = !status.stalled && status.lanes_down == 0};
    if (status.stalled)
        snprintf(part->reason, sizeof part->reason, "a lane makes no progress: %s", status.reason);
    else if (status.lanes_down > 0)
        snprintf(part->reason, sizeof part->reason, "%u lanes are down: %s", status.lanes_down,
                 status.reason);
}

/* Behind the points. */
static void look_at_cluster(struct qdrant_cluster *c, struct part *part) {
    struct qdrant_cluster_status status;
    qdrant_cluster_status(c, &status);
    part->url = status.url;
    part->reachable = status.reachable;
    if (status.reachable)
        return;
    part->ready = false;
    snprintf(part->reason, sizeof part->reason,
             "Qdrant does not answer, writes are kept for it: %.180s", status.reason);
}

/* Behind the tasks. */
static void look_at_tasks_remote(struct data *d, struct part *part) {
    struct tasks_remote_status status;
    if (!d->tasks_remote || !tasks_store_remote_status(d->tasks, &status))
        return;
    part->url = d->tasks_url;
    part->reachable = status.reachable;
    if (status.reachable)
        return;
    part->ready = false;
    snprintf(part->reason, sizeof part->reason,
             "Redis takes no tasks, they are kept for it: %.200s", status.why);
}

/* Behind tasks that processes share. */
static void look_at_shared_tasks(struct tasks_shared *shared, struct part *part) {
    struct tasks_shared_status status;
    tasks_shared_status(shared, &status);
    part->url = status.url;
    part->reachable = status.reachable;
    if (status.reachable)
        return;
    part->ready = false;
    snprintf(part->reason, sizeof part->reason, "the Redis of the tasks does not answer: %.180s",
             status.reason);
}

/* Behind the events. */
static void look_at_redis(struct events_redis *redis, struct part *part) {
    struct events_redis_status status;
    events_redis_status(redis, &status);
    part->url = status.url;
    part->reachable = status.reachable;
    if (status.reachable)
        return;
    part->ready = false;
    snprintf(part->reason, sizeof part->reason,
             "the Redis Cluster does not answer, writes are kept for it: %.160s", status.reason);
}

/* The store that processes share, and what this one applies to it, if it does. */
static void look_at_shared_store(struct serve *s, enum data_store_kind kind,
                                 const struct share_status *share, struct part *part) {
    *part = (struct part){.name = data_store_names[kind], .alive = true, .ready = true};
    if (kind == DATA_EVENTS)
        look_at_redis(s->data->events_redis, part);
    if (kind == DATA_POINTS)
        look_at_cluster(s->data->cluster, part);
    if (kind == DATA_TASKS)
        look_at_shared_tasks(s->data->tasks_shared, part);
    if (!share || !(share->stalled || share->waiting))
        return;
    part->alive = !share->stalled;
    part->ready = false;
    if (!part->reason[0])
        snprintf(part->reason, sizeof part->reason, "%s",
                 share->stalled ? "the thread that applies has not gone round for 30 s"
                                : share->reason);
}

/* What others do not apply is taken all the same. */
static void look_at_backlog(struct backlog *b, struct part *part) {
    struct backlog_status status;
    backlog_status(b, &status);
    part->has_lag = status.known && status.messages;
    part->lag = status.waiting;
    (void)backlog_warning(&status, part->warning);
}

/* Its journal, as far as this process writes and reads it. */
static void look_at_shared_journal(struct serve *s, enum data_store_kind kind,
                                   const struct share_status *share, struct part *part) {
    static const char *const names[DATA_STORES] = {
        [DATA_POINTS] = "journal-points",
        [DATA_EVENTS] = "journal-events",
        [DATA_TASKS] = "journal-tasks",
    };
    const struct journal *j = s->data->stores[kind].journal;
    *part = (struct part){.name = names[kind],
                          .alive = true,
                          .ready = true,
                          .url = s->data->journal_url,
                          .reachable = true};
    if (j)
        look_at_journal(s, j, names[kind], part);
    if (!share || (share->joined && !share->journal_reason[0]))
        return;
    part->reachable = part->reachable && (share->reachable || !share->journal_reason[0]);
    if (!part->reason[0])
        snprintf(part->reason, sizeof part->reason, "records are not read: %.220s",
                 share->journal_reason[0] ? share->journal_reason
                                          : "this process joins the group of workers");
    part->ready = false;
}

static void look_at_runner(struct serve *s, struct part *part) {
    struct tasks_runner_status status;
    tasks_runner_status(s->tasks_api.runner, &status);
    *part = (struct part){.name = "runner", .alive = !status.stalled, .ready = !status.stalled};
    if (status.stalled)
        snprintf(part->reason, sizeof part->reason,
                 "the thread that has tasks done has not gone round for 10 s");
}

static size_t look_at_shared(struct serve *s, struct part *parts) {
    bool starting = atomic_load(&s->state) == SERVE_STARTING; /* shares are being made */
    size_t n = 0;
    for (int i = 0; i < DATA_STORES; i++) {
        const struct data_store *store = &s->data->stores[i];
        const struct share *share = starting ? NULL : s->shares[i];
        struct share_status status;
        if (!store->ops)
            continue;
        if (share)
            share_status(s->shares[i], &status);
        if (share || store->journal)
            look_at_shared_journal(s, (enum data_store_kind)i, share ? &status : NULL, &parts[n++]);
        look_at_shared_store(s, (enum data_store_kind)i, share ? &status : NULL, &parts[n]);
        if (!starting && s->backlogs[i])
            look_at_backlog(s->backlogs[i], &parts[n]);
        n++;
    }
    return n;
}

/* Those that this process has; returns how many. */
static size_t look_at_all(struct serve *s, struct part parts[HEALTH_PARTS]) {
    size_t n = 0;
    look_at_server(s, &parts[n++]);
    if (s->http)
        look_at_http(s, &parts[n++]);
    if (s->data->journal)
        look_at_journal(s, s->data->journal, "journal", &parts[n++]);
    if (s->data->shared)
        n += look_at_shared(s, parts + n);
    for (int i = 0; i < DATA_STORES; i++) {
        if (!s->data->stores[i].work)
            continue;
        look_at_store(&s->data->stores[i], &parts[n]);
        if (i == DATA_POINTS && s->data->cluster)
            look_at_cluster(s->data->cluster, &parts[n]);
        if (i == DATA_TASKS)
            look_at_tasks_remote(s->data, &parts[n]);
        if (i == DATA_EVENTS && s->data->events_redis)
            look_at_redis(s->data->events_redis, &parts[n]);
        n++;
    }
    if (s->tasks_api.runner)
        look_at_runner(s, &parts[n++]);
    return n;
}

static void append_part(struct buffer *out, const struct part *part) {
    buffer_append_format(out, "\"%s\":{\"ready\":%s", part->name, part->ready ? "true" : "false");
    if (part->reason[0]) {
        buffer_append_string(out, ",\"reason\":");
        json_append_cstring(out, part->reason);
    }
    if (part->url) {
        buffer_append_string(out, ",\"url\":");
        json_append_cstring(out, part->url);
        buffer_append_format(out, ",\"reachable\":%s", part->reachable ? "true" : "false");
    }
    if (part->has_lag)
        buffer_append_format(out, ",\"lag_messages\":%llu", (unsigned long long)part->lag);
    if (part->warning[0]) {
        buffer_append_string(out, ",\"warning\":");
        json_append_cstring(out, part->warning);
    }
    buffer_append_u8(out, '}');
}

unsigned health_append(struct serve *s, enum health_question question, struct buffer *out) {
    struct part parts[HEALTH_PARTS];
    bool alive = true;
    bool ready = true;
    size_t n = look_at_all(s, parts);
    for (size_t i = 0; i < n; i++) {
        alive = alive && parts[i].alive;
        ready = ready && parts[i].ready;
    }
    buffer_append_format(out, "{\"status\":\"%s\",\"version\":\"%s\",\"parts\":{",
                         !alive  ? "stalled"
                         : ready ? "ok"
                                 : "not ready",
                         MILLRACE_VERSION);
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            buffer_append_u8(out, ',');
        append_part(out, &parts[i]);
    }
    buffer_append_string(out, "}}\n");
    return (question == HEALTH_READY ? alive && ready : alive) ? 200 : 503;
}

const char *health_complaint(struct serve *s, char *reason, size_t size) {
    struct part parts[HEALTH_PARTS];
    size_t n = look_at_all(s, parts);
    for (size_t i = 1; i < n; i++) {
        if (parts[i].alive && parts[i].ready)
            continue;
        snprintf(reason, size, "%s", parts[i].reason);
        return parts[i].name;
    }
    return NULL;
}
