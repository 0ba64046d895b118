/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metrics that are cheaper to ask for than to keep, asked for at every rendering; and the journal's
 * timings, told by its observer after every commit.
 */
#include "os/process.h"
#include "serve/internal.h"

#include <stdlib.h>

static void set(struct metrics *m, enum metric row, uint64_t value) {
    metric_set(metrics_series(m, row), value);
}

/* The journals that this process has: one, or, shared, one a store. */
static size_t journals_of(const struct data *d, struct journal *ret_journals[DATA_STORES]) {
    size_t n = 0;
    for (int i = 0; i < DATA_STORES; i++)
        if (d->stores[i].journal && (n == 0 || d->shared))
            ret_journals[n++] = d->stores[i].journal;
    return n;
}

/* Their sums, and the worst state; each by itself is in /readyz. */
static void collect_journals(struct data *d, struct metrics *m) {
    struct journal *journals[DATA_STORES];
    size_t n = journals_of(d, journals);
    struct journal_stats sum = {0};
    lsn_t durable = 0;
    enum journal_state worst = JOURNAL_OK;
    for (size_t i = 0; i < n; i++) {
        struct journal_stats stats;
        enum journal_state state = journal_state(journals[i]);
        journal_stats(journals[i], &stats);
        sum.appended_records += stats.appended_records;
        sum.appended_bytes += stats.appended_bytes;
        sum.sync_failures += stats.sync_failures;
        sum.damaged_records += stats.damaged_records;
        sum.disk_bytes += stats.disk_bytes;
        durable += journal_durable(journals[i]);
        worst = state > worst ? state : worst;
    }
    set(m, METRIC_JOURNAL_RECORDS, sum.appended_records);
    set(m, METRIC_JOURNAL_BYTES, sum.appended_bytes);
    set(m, METRIC_JOURNAL_DURABLE, durable);
    set(m, METRIC_JOURNAL_SYNC_FAILURES, sum.sync_failures);
    set(m, METRIC_JOURNAL_DAMAGED, sum.damaged_records);
    set(m, METRIC_JOURNAL_DISK, sum.disk_bytes);
    set(m, METRIC_JOURNAL_STATE, (uint64_t)worst);
}

static void collect_store(const struct data_store *store, struct metrics *m) {
    const struct work_store_ops *ops = store->ops->work;
    struct journal_stats stats;
    if (store->journal) {
        journal_stats(store->journal, &stats);
        metric_set(metrics_series(m, METRIC_WORK_APPENDED, ops->name),
                   stats.kind_records[ops->kind]);
    }
    if (store->work)
        metric_set(metrics_series(m, METRIC_WORK_LETTERS, ops->name),
                   work_letters_n(ops->letters(store->store)));
    else if (store->letters.ops->count)
        metric_set(metrics_series(m, METRIC_WORK_LETTERS, ops->name),
                   atomic_load(&store->n_letters));
}

static void collect_points(struct data *d, struct metrics *m) {
    struct points_store_stats stats;
    points_store_stats(d->points, &stats);
    set(m, METRIC_POINTS_COLLECTIONS, points_catalog_size(d->catalog));
    set(m, METRIC_POINTS_POINTS, stats.points);
    set(m, METRIC_POINTS_ORPHANED, stats.orphaned_records);
    set(m, METRIC_POINTS_DAMAGED, stats.damaged_rows);
    set(m, METRIC_POINTS_SEGMENTS, stats.segments);
    set(m, METRIC_POINTS_DISK, stats.disk_bytes);
    metric_set(metrics_series(m, METRIC_POINTS_MERGES, "ok"), stats.merges);
    metric_set(metrics_series(m, METRIC_POINTS_MERGES, "given_up"), stats.merges_given_up);
    set(m, METRIC_POINTS_MERGED_BYTES, stats.merged_bytes);
    set(m, METRIC_POINTS_RECLAIMED_BYTES, stats.reclaimed_bytes);
}

/* What it has applied says nothing of a process that applies nothing. */
static void collect_redis(struct data *d, struct metrics *m) {
    struct events_redis_status status;
    events_redis_status(d->events_redis, &status);
    set(m, METRIC_EVENTS_REACHABLE, status.reachable);
    if (!(d->options.roles & DATA_ROLE_WORKER))
        return;
    set(m, METRIC_EVENTS_TAGS, status.tags);
    metric_set(metrics_series(m, METRIC_EVENTS_SCRIPTS, "applied"), status.scripts);
    metric_set(metrics_series(m, METRIC_EVENTS_SCRIPTS, "overtaken"), status.overtaken);
}

static void collect_cluster(struct qdrant_cluster *c, struct metrics *m) {
    struct qdrant_cluster_status status;
    qdrant_cluster_status(c, &status);
    set(m, METRIC_QDRANT_REACHABLE, status.reachable);
    set(m, METRIC_QDRANT_CALLS, status.calls);
    set(m, METRIC_QDRANT_FAILED, status.calls_failed);
    set(m, METRIC_QDRANT_SENT, status.bytes_sent);
    set(m, METRIC_QDRANT_LATENCY, status.latency_us);
    set(m, METRIC_QDRANT_CONNECTIONS, status.connections);
    set(m, METRIC_QDRANT_CONCURRENCY, status.concurrency);
}

static void collect_events(struct data *d, struct metrics *m) {
    struct events_store_stats stats;
    struct event_dictionary_stats dictionary;
    events_store_stats(d->events, &stats);
    event_dictionary_stats(d->dictionary, &dictionary);
    set(m, METRIC_EVENTS_TAGS, stats.tags_applied);
    set(m, METRIC_EVENTS_LATE, stats.tags_late);
    set(m, METRIC_EVENTS_PROFILES, stats.profiles);
    set(m, METRIC_EVENTS_MINUTES, stats.minutes);
    set(m, METRIC_EVENTS_WATERMARK,
        stats.watermark_ms > 0 ? (uint64_t)stats.watermark_ms / 1000 : 0);
    set(m, METRIC_EVENTS_ELEMENTS, dictionary.elements);
    set(m, METRIC_EVENTS_DICTIONARY_BYTES, dictionary.bytes);
    set(m, METRIC_EVENTS_KEYS, event_once_size(d->once));
    set(m, METRIC_EVENTS_DISK, stats.disk_bytes);
    set(m, METRIC_EVENTS_DAMAGED, stats.damages);
    set(m, METRIC_EVENTS_MEMORY, stats.memory_bytes);
    metric_set(metrics_series(m, METRIC_COMPACTIONS_FAILED, "events"), stats.compactions_failed);
}

static void collect_tasks(struct data *d, struct metrics *m) {
    struct tasks_store_stats stats;
    uint64_t now_us = os_wall_us(d->os);
    if (d->tasks_shared) {
        tasks_shared_stats(d->tasks_shared, &stats);
        metric_set(metrics_series(m, METRIC_WORK_LETTERS, "tasks"), stats.dead_letters);
    } else {
        tasks_store_stats(d->tasks, &stats);
    }
    for (unsigned i = 0; i < TASK_STATUSES; i++)
        metric_set(metrics_series(m, METRIC_TASKS, task_status_names[i]), stats.by_status[i]);
    for (unsigned i = TASK_SUCCEEDED; i < TASK_STATUSES; i++)
        metric_set(metrics_series(m, METRIC_TASKS_ENDED, task_status_names[i]), stats.ended[i]);
    set(m, METRIC_TASKS_OLDEST,
        stats.oldest_due_us && stats.oldest_due_us < now_us ? now_us - stats.oldest_due_us : 0);
    set(m, METRIC_TASKS_DISK, stats.disk_bytes);
    set(m, METRIC_TASKS_DAMAGED, stats.damages);
    set(m, METRIC_TASKS_MEMORY, stats.memory_bytes);
    metric_set(metrics_series(m, METRIC_COMPACTIONS_FAILED, "tasks"), stats.compactions_failed);
}

/* The second number of statm: resident pages. 0 when it cannot be read. (The kernel says that the
 * file is empty, so it is read without asking for its size.) */
static uint64_t resident_bytes(struct os *os) {
    char text[256] = "";
    struct os_file *file;
    size_t size = 0;
    char *at;
    if (os_open(os, "/proc/self/statm", OS_OPEN_READ, &file))
        return 0;
    int r = os_read(os, file, text, sizeof text - 1, 0, &size);
    os_close(os, file);
    if (r)
        return 0;
    (void)strtoull(text, &at, 10);
    return strtoull(at, NULL, 10) * process_page_bytes();
}

static void collect_backlog(struct backlog *b, const char *name, struct metrics *m) {
    struct backlog_status status;
    backlog_status(b, &status);
    if (status.messages)
        metric_set(metrics_series(m, METRIC_BACKLOG_MESSAGES, name), status.waiting);
    metric_set(metrics_series(m, METRIC_BACKLOG_STILL, name), status.still_ms * 1000);
}

static void collect_process(struct serve *s, struct metrics *m) {
    uint64_t available;
    uint64_t total;
    set(m, METRIC_PROCESS_MEMORY, resident_bytes(s->os));
    set(m, METRIC_PROCESS_CPU, process_cpu_ms() * 1000);
    if (os_disk_space(s->os, s->data->directory, &available, &total) == 0) {
        set(m, METRIC_DISK_FREE, available);
        set(m, METRIC_DISK_TOTAL, total);
    }
}

static void collect_memory(const struct budget *b, struct metrics *m) {
    set(m, METRIC_MEMORY_LIMIT, b->limit);
    for (unsigned kind = 0; kind < BUDGET_KINDS; kind++) {
        const char *name = budget_kind_name(kind);
        metric_set(metrics_series(m, METRIC_MEMORY_PART, name), budget_part(b, kind));
        metric_set(metrics_series(m, METRIC_MEMORY_USED, name), budget_used(b, kind));
    }
}

static void collect(struct metrics_source *source, struct metrics *m) {
    struct gauges *g = CONTAINER_OF(source, struct gauges, source);
    struct data *d = g->serve->data;
    if (d->options.roles & DATA_ROLE_API)
        collect_journals(d, m);
    for (int i = 0; i < DATA_STORES; i++)
        if (d->stores[i].ops)
            collect_store(&d->stores[i], m);
    bool started = atomic_load(&g->serve->state) != SERVE_STARTING;
    for (int i = 0; started && i < DATA_STORES; i++)
        if (g->serve->backlogs[i])
            collect_backlog(g->serve->backlogs[i], data_store_names[i], m);
    if (d->points)
        collect_points(d, m);
    if (d->points_shared)
        set(m, METRIC_POINTS_ORPHANED, points_shared_orphaned(d->points_shared));
    if (d->cluster)
        collect_cluster(d->cluster, m);
    if (d->events)
        collect_events(d, m);
    if (d->events_redis)
        collect_redis(d, m);
    if (d->tasks || d->tasks_shared)
        collect_tasks(d, m);
    collect_process(g->serve, m);
    collect_memory(&g->serve->budget, m);
}

static void committed(struct journal_observer *o, uint64_t write_ns, uint64_t sync_ns,
                      uint64_t bytes UNUSED, uint64_t records) {
    struct gauges *g = CONTAINER_OF(o, struct gauges_observer, observer)->gauges;
    metric_observe(g->write_seconds, write_ns / 1000);
    metric_observe(g->sync_seconds, sync_ns / 1000);
    metric_observe(g->commit_records, records);
}

void gauges_init(struct gauges *g, struct serve *s) {
    g->serve = s;
    g->source.collect = collect;
    g->write_seconds = metrics_series(s->metrics, METRIC_JOURNAL_WRITE_SECONDS);
    g->sync_seconds = metrics_series(s->metrics, METRIC_JOURNAL_SYNC_SECONDS);
    g->commit_records = metrics_series(s->metrics, METRIC_JOURNAL_BATCH);
    /* Series that count from the start, so that their first event shows as an increase. */
    for (int i = 0; i < DATA_STORES; i++) {
        if (!s->data->stores[i].ops)
            continue;
        const char *store = s->data->stores[i].ops->work->name;
        (void)metrics_series(s->metrics, METRIC_CHECKPOINTS, store, "ok");
        (void)metrics_series(s->metrics, METRIC_CHECKPOINTS, store, "failed");
        (void)metrics_series(s->metrics, METRIC_CHECKPOINT_SECONDS, store);
    }
    metric_set(metrics_series(s->metrics, METRIC_BUILD_INFO, MILLRACE_VERSION), 1);
    set(s->metrics, METRIC_PROCESS_START, os_wall_us(s->os));
    metrics_add_source(s->metrics, &g->source);
    struct journal *journals[DATA_STORES];
    size_t n = journals_of(s->data, journals);
    for (size_t i = 0; i < n; i++) {
        g->observers[i] = (struct gauges_observer){.observer.committed = committed, .gauges = g};
        journal_observe(journals[i], &g->observers[i].observer);
    }
}
