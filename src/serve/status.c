/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a page may ask every second, as JSON: GET /status, the figures of /metrics that a person
 * looks at, summed and grouped by a table; and GET /settings, which the command line has written.
 * Like other reads they are behind the API key, unlike /metrics, which has a port of its own.
 */
#include "serve/internal.h"

#include <stdio.h>

/* A figure of an object, from the series of a metric whose labels hold a text. */
struct figure {
    const char *object;
    const char *name;
    enum metric metric;
    const char *labels; /* NULL: all */
};

/* Those of one object stand together. */
static const struct figure figures[] = {
    {"process", "started_at", METRIC_PROCESS_START, NULL},
    {"process", "cpu_seconds", METRIC_PROCESS_CPU, NULL},
    {"process", "resident_bytes", METRIC_PROCESS_MEMORY, NULL},
    {"process", "memory_limit_bytes", METRIC_MEMORY_LIMIT, NULL},
    {"disk", "free_bytes", METRIC_DISK_FREE, NULL},
    {"disk", "total_bytes", METRIC_DISK_TOTAL, NULL},
    {"http", "requests", METRIC_HTTP_REQUESTS, NULL},
    {"http", "errors", METRIC_HTTP_REQUESTS, "status=\"5"},
    {"http", "connections", METRIC_HTTP_CONNECTIONS, NULL},
    {"http", "received_bytes", METRIC_HTTP_IN_BYTES, NULL},
    {"http", "sent_bytes", METRIC_HTTP_OUT_BYTES, NULL},
    {"http", "latency", METRIC_HTTP_SECONDS, NULL},
    {"journal", "records", METRIC_JOURNAL_RECORDS, NULL},
    {"journal", "durable_lsn", METRIC_JOURNAL_DURABLE, NULL},
    {"journal", "disk_bytes", METRIC_JOURNAL_DISK, NULL},
    {"journal", "sync", METRIC_JOURNAL_SYNC_SECONDS, NULL},
    {"points", "collections", METRIC_POINTS_COLLECTIONS, NULL},
    {"points", "points", METRIC_POINTS_POINTS, NULL},
    {"points", "disk_bytes", METRIC_POINTS_DISK, NULL},
    {"events", "tags", METRIC_EVENTS_TAGS, NULL},
    {"events", "late", METRIC_EVENTS_LATE, NULL},
    {"events", "profiles", METRIC_EVENTS_PROFILES, NULL},
    {"events", "watermark", METRIC_EVENTS_WATERMARK, NULL},
    {"events", "disk_bytes", METRIC_EVENTS_DISK, NULL},
    {"tasks", "queued", METRIC_TASKS, "status=\"queued\""},
    {"tasks", "running", METRIC_TASKS, "status=\"running\""},
    {"tasks", "succeeded", METRIC_TASKS_ENDED, "status=\"succeeded\""},
    {"tasks", "failed", METRIC_TASKS_ENDED, "status=\"failed\""},
    {"tasks", "cancelled", METRIC_TASKS_ENDED, "status=\"cancelled\""},
    {"tasks", "oldest_seconds", METRIC_TASKS_OLDEST, NULL},
    {"tasks", "workers", METRIC_TASK_WORKERS, NULL},
    {"tasks", "busy", METRIC_TASK_WORKERS_BUSY, NULL},
    {"tasks", "disk_bytes", METRIC_TASKS_DISK, NULL},
};

/* Of each consumer; the label is its name. */
static const struct figure consumer_figures[] = {
    {NULL, "appended", METRIC_WORK_APPENDED, NULL},
    {NULL, "applied", METRIC_WORK_APPLIED, NULL},
    {NULL, "lag_records", METRIC_WORK_LAG_RECORDS, NULL},
    {NULL, "lag_seconds", METRIC_WORK_LAG_SECONDS, NULL},
    {NULL, "threads", METRIC_WORK_THREADS, NULL},
    {NULL, "busy", METRIC_WORK_BUSY, NULL},
    {NULL, "retries", METRIC_WORK_RETRIES, NULL},
    {NULL, "dead_letters", METRIC_WORK_LETTERS, NULL}, /* kept now */
};

static const struct http_schema schemas[] = {
    {"Histogram", "{bounds!: [number] = [0.001,0.002], counts!: [uint] = [3,1,0], sum!: number}"},
    {"Consumer", "{name!: 'points' | 'events' | 'tasks', appended!: uint, applied!: uint, "
                 "lag_records!: uint, lag_seconds!: number, threads!: uint, busy!: uint, retries!: "
                 "uint, dead_letters!: uint}"},
    {"Qdrant", "{url!: string = \"qdrant://vectors:6334\", reachable!: boolean, reason: string, "
               "calls!: uint, failed!: uint, sent_bytes!: uint, latency_seconds!: number, "
               "connections!: uint, concurrency!: uint}"},
    {"Redis",
     "{url!: string = \"redis+cluster://events:6379/\", reachable!: boolean, reason: string, "
     "masters!: uint, applied!: uint, overtaken!: uint}"},
    {"Status",
     "{now!: number, health!: Health, qdrant: Qdrant, redis: Redis, process!: <number>, disk!: "
     "<number>, "
     "http!: <number | Histogram>, journal!: <number | Histogram>, points!: <number>, events!: "
     "<number>, tasks!: <number>, consumers!: [Consumer]}"},
    {"Setting", "{name!: string = \"threads\", value!: string? = \"4\", default!: string? = \"0\", "
                "from!: 'default' | 'file' | 'environment' | 'flag', reload!: boolean, unit!: "
                "string = \"threads\", summary!: string}"},
};

/* ---- One figure ---- */
static void append_number(struct buffer *out, uint64_t v, bool seconds) {
    if (seconds)
        buffer_append_format(out, "%.15g", (double)v / 1e6);
    else
        json_append_u64(out, v);
}

static const char *comma(size_t i) {
    return i ? "," : "";
}

/* counts[i] is what was at most bounds[i] and more than the bound before; the last has no bound. */
static void append_histogram(struct buffer *out, const struct metric_sum *sum, bool seconds) {
    buffer_append_string(out, "{\"bounds\":[");
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        buffer_append_string(out, comma(i));
        append_number(out, UINT64_C(1) << i, seconds);
    }
    buffer_append_string(out, "],\"counts\":[");
    for (unsigned i = 0; i <= HISTOGRAM_BUCKETS; i++) {
        buffer_append_string(out, comma(i));
        json_append_u64(out, sum->buckets[i]);
    }
    buffer_append_string(out, "],\"sum\":");
    append_number(out, sum->sum, seconds);
    buffer_append_u8(out, '}');
}

static void append_figure(struct buffer *out, struct metrics *m, const struct figure *f,
                          const char *labels) {
    struct metric_sum sum = metrics_sum(m, f->metric, labels);
    bool seconds = metric_is_seconds(f->metric);
    buffer_append_format(out, "\"%s\":", f->name);
    if (metric_rows[f->metric].type == METRIC_HISTOGRAM)
        append_histogram(out, &sum, seconds);
    else
        append_number(out, sum.value, seconds);
}

/* ---- All of them ---- */
static void append_figures(struct buffer *out, struct metrics *m) {
    for (size_t i = 0; i < ARRAY_LENGTH(figures); i++) {
        const struct figure *f = &figures[i];
        if (i == 0 || strcmp(f->object, figures[i - 1].object) != 0)
            buffer_append_format(out, "%s\"%s\":{", i ? "}," : "", f->object);
        else
            buffer_append_u8(out, ',');
        append_figure(out, m, f, f->labels);
    }
    buffer_append_u8(out, '}');
}

static void append_consumer(struct buffer *out, struct metrics *m, const char *name) {
    char labels[64];
    (void)snprintf(labels, sizeof labels, "consumer=\"%s\"", name);
    buffer_append_format(out, "{\"name\":\"%s\"", name);
    for (size_t i = 0; i < ARRAY_LENGTH(consumer_figures); i++) {
        buffer_append_u8(out, ',');
        append_figure(out, m, &consumer_figures[i], labels);
    }
    buffer_append_u8(out, '}');
}

/* The cluster that keeps the points; its lag is their consumer's. */
static void append_cluster(struct qdrant_cluster *c, struct buffer *out) {
    struct qdrant_cluster_status status;
    qdrant_cluster_status(c, &status);
    buffer_append_string(out, "\"qdrant\":{\"url\":");
    json_append_cstring(out, status.url);
    buffer_append_format(out, ",\"reachable\":%s", status.reachable ? "true" : "false");
    if (!status.reachable) {
        buffer_append_string(out, ",\"reason\":");
        json_append_cstring(out, status.reason);
    }
    buffer_append_format(out,
                         ",\"calls\":%llu,\"failed\":%llu,\"sent_bytes\":%llu,"
                         "\"latency_seconds\":",
                         (unsigned long long)status.calls, (unsigned long long)status.calls_failed,
                         (unsigned long long)status.bytes_sent);
    append_number(out, status.latency_us, true);
    buffer_append_format(out, ",\"connections\":%u,\"concurrency\":%u},", status.connections,
                         status.concurrency);
}

/* The cluster that keeps the events. */
static void append_redis(struct events_redis *redis, struct buffer *out) {
    struct events_redis_status status;
    events_redis_status(redis, &status);
    buffer_append_string(out, "\"redis\":{\"url\":");
    json_append_cstring(out, status.url);
    buffer_append_format(out, ",\"reachable\":%s", status.reachable ? "true" : "false");
    if (!status.reachable) {
        buffer_append_string(out, ",\"reason\":");
        json_append_cstring(out, status.reason);
    }
    buffer_append_format(out, ",\"masters\":%u,\"applied\":%llu,\"overtaken\":%llu},",
                         status.masters, (unsigned long long)status.scripts,
                         (unsigned long long)status.overtaken);
}

static void append_status(struct serve *s, struct buffer *out) {
    buffer_append_format(out, "{\"now\":%.6f,\"health\":", (double)os_wall_us(s->os) / 1e6);
    (void)health_append(s, HEALTH_WHOLE, out);
    buffer_append_u8(out, ',');
    if (s->data->cluster)
        append_cluster(s->data->cluster, out);
    if (s->data->events_redis)
        append_redis(s->data->events_redis, out);
    metrics_refresh(s->metrics);
    append_figures(out, s->metrics);
    buffer_append_string(out, ",\"consumers\":[");
    size_t n = 0;
    for (int i = 0; i < DATA_STORES; i++) {
        if (!s->data->stores[i].ops)
            continue;
        buffer_append_string(out, comma(n++));
        append_consumer(out, s->metrics, s->data->stores[i].ops->work->name);
    }
    buffer_append_string(out, "]}");
}

static void status_job(void *context, struct http_request *r) {
    struct buffer *out = http_scratch(r);
    append_status(context, out);
    http_set_header(r, "Cache-Control", "no-store");
    http_respond(r, 200, NULL, buffer_bytes(out));
}

/* The gauges ask the file system, which may take its time: not on the loop. */
static void get_status(void *context, struct http_request *r) {
    http_offload(r, status_job, context);
}

/* ---- Settings ---- */
int status_set_settings(struct serve *s, struct bytes json) {
    struct buffer copy = BUFFER_INIT;
    buffer_append_bytes(&copy, json);
    int r = buffer_check(&copy);
    if (r)
        return error_trace(r);
    mutex_lock(&s->settings_lock);
    struct buffer former = s->settings;
    s->settings = copy;
    mutex_unlock(&s->settings_lock);
    buffer_deinit(&former);
    return 0;
}

static void get_settings(void *context, struct http_request *r) {
    struct serve *s = context;
    struct buffer *out = http_scratch(r);
    mutex_lock(&s->settings_lock);
    buffer_append_bytes(out, buffer_bytes(&s->settings));
    mutex_unlock(&s->settings_lock);
    http_set_header(r, "Cache-Control", "no-store");
    http_respond(r, 200, NULL, buffer_bytes(out));
}

/* ---- The table ---- */
static const struct http_route routes[] = {
    {.method = HTTP_GET,
     .path = "/status",
     .handler = get_status,
     .tag = "Operation",
     .summary = "The server at a glance, cheap enough for every second: totals since its start to "
                "make rates of, lag, workers, memory, disk, health",
     .answer = "Status",
     .query = ""},
    {.method = HTTP_GET,
     .path = "/settings",
     .handler = get_settings,
     .tag = "Operation",
     .summary = "The settings in force and where each comes from; secrets are masked",
     .answer = "{settings!: [Setting]}",
     .query = ""},
};

struct http_route_table status_table(struct serve *s) {
    return (struct http_route_table){.routes = routes,
                                     .n = ARRAY_LENGTH(routes),
                                     .context = s,
                                     .schemas = schemas,
                                     .n_schemas = ARRAY_LENGTH(schemas)};
}
