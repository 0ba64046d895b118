/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order of life. Start: whatever can be wrong by the user's doing comes first and is said in
 * one sentence (the address, the directory, the ports), then the journal is replayed while the side
 * port already tells how far it is, then workers, API threads and housekeeper begin. Stop is the
 * reverse, with each part ended before what it uses:
 *
 *   API threads (drained) ─▶ runner of tasks ─▶ housekeeper ─▶ workers
 *       ─▶ checkpoint ─▶ side server ─▶ API ─▶ data
 *
 * A disk that hangs can hold up any of them for ever, and a thread that is inside the kernel cannot
 * be ended: a guard sees to it that the process ends all the same (invariant 10). Nothing that was
 * acknowledged is lost: the journal is replayed at the next start.
 *
 * The API is freed between the workers' end and the journal's: both know its listeners.
 *
 * A process that shares its journal with others has less of all that: no directory, no replay; the
 * API, or a share of the work, or both.
 */
#include "os/process.h"
#include "serve/internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- Bounds that follow from --memory-limit ---- */

enum { MEMORY_LIMIT_MIN = 64 << 20, WAITING_THREADS = 32 };

static uint64_t part_of(uint64_t limit, uint64_t divisor, uint64_t least, uint64_t most) {
    uint64_t part = limit / divisor;
    return part < least ? least : part > most ? most : part;
}

/* The built-in sizes suit 2 GiB; a smaller limit scales them down. The journal's together stay
 * below its part of the budget. */
static struct data_options bounded_data(const struct serve_options *options,
                                        struct budget *budget) {
    struct data_options data = options->data;
    uint64_t limit = budget->limit;
    data.journal.budget = budget;
    data.journal.window_bytes = part_of(limit, 64, 1 << 20, 32 << 20);
    data.journal.pending_bytes_max = part_of(limit, 32, 2 << 20, 64 << 20);
    data.queue_bytes_max = part_of(limit, 128, 1 << 20, 16 << 20);
    data.points.budget = budget;
    data.points.segment_bytes_max = part_of(limit, 16, 4 << 20, 64 << 20); /* merges copy one */
    data.points.unsealed_bytes_max = part_of(limit, 8, 8 << 20, 256 << 20);
    data.events.hot_bytes_max = part_of(limit, 16, 4 << 20, 128 << 20);
    data.events.cache_bytes = part_of(limit, 16, 4 << 20, 64 << 20);
    data.tasks.hot_bytes_max = part_of(limit, 32, 4 << 20, 64 << 20);
    if (data.tasks_url) /* as one script takes in what is hot, and Redis does nothing else then */
        data.tasks.hot_bytes_max = part_of(limit, 32, 4 << 20, 8 << 20);
    data.task_lease_ms = options->tasks.lease_ms;
    data.tasks.cache_bytes = part_of(limit, 32, 4 << 20, 32 << 20);
    data.dictionary.budget = budget;
    data.once.budget = budget;
    return data;
}

/* A body is counted twice, once as it came and once as what is made of it; two must fit, so that
 * one that is allowed is never refused for ever. */
static struct http_options bounded_http(const struct serve_options *options,
                                        struct budget *budget) {
    struct http_options http = options->http;
    uint64_t most = budget_part(budget, BUDGET_BODIES) / 4;
    http.budget = budget;
    if (http.body_max_bytes > most)
        http.body_max_bytes = most;
    return http;
}

static int choose_limit(const struct serve_options *options, uint64_t *ret_limit,
                        struct problem *problem) {
    uint64_t limit = options->memory_max_bytes;
    if (limit && limit < MEMORY_LIMIT_MIN)
        return problem_say(problem, "--memory-limit must be at least %u MiB",
                           MEMORY_LIMIT_MIN >> 20);
    if (limit == 0)
        limit = process_memory_bytes("") / 2;
    *ret_limit = limit < MEMORY_LIMIT_MIN ? MEMORY_LIMIT_MIN : limit;
    return 0;
}

/* ---- Start ---- */

bool serve_has_api(const struct serve_options *o) {
    return o->data.roles == 0 || o->data.roles & DATA_ROLE_API;
}

static int check_exposure(const struct serve_options *o, struct problem *problem) {
    bool closed =
        !serve_has_api(o) || o->http.api_key || socket_address_is_loopback(&o->http.listen);
    if (!closed && !o->insecure)
        return problem_say(problem,
                           "listening on %s without a key would let anyone who reaches it read "
                           "and delete all data: give --api-key or --api-key-file, or --insecure "
                           "if that is wanted",
                           o->listen_text);
    return 0;
}

int serve_cannot_listen(struct problem *problem, const char *flag, const char *address, int r) {
    if (r == OS_E_IN_USE)
        return problem_say(problem,
                           "%s %s is in use by another process; stop it or choose another port",
                           flag, address);
    if (r == OS_E_DENIED)
        return problem_say(problem, "this user may not listen on %s %s; choose a port above 1023",
                           flag, address);
    return problem_say(problem, "cannot listen on %s %s: %s", flag, address,
                       r < 0 ? strerror(-r) : "it failed");
}

/* Both on one address: the second would find it in use, by this process. Port 0 is any free one. */
static int check_addresses(const struct serve_options *o, struct problem *problem) {
    const struct socket_address *api = &o->http.listen, *side = &o->metrics_listen;
    if (!serve_has_api(o) || socket_address_port(api) == 0 || !socket_address_is_same(api, side))
        return 0;
    return problem_say(problem,
                       "--listen and --metrics-listen are both %s; give each a port of its own",
                       o->listen_text);
}

static int try_address(const char *flag, const struct socket_address *address, const char *text,
                       struct problem *problem) {
    int fd;
    uint16_t port;
    int r = socket_listen(address, &fd, &port);
    if (r)
        return serve_cannot_listen(problem, flag, text, r);
    socket_close(fd);
    return 0;
}

static void ignore(void *context UNUSED, const char *name UNUSED) {
}

int serve_try_addresses(const struct serve_options *o, struct problem *problem) {
    int r =
        serve_has_api(o) ? try_address("--listen", &o->http.listen, o->listen_text, problem) : 0;
    return r ? r
             : try_address("--metrics-listen", &o->metrics_listen, o->metrics_listen_text, problem);
}

/* A start that cannot listen leaves no new data directory behind. Where there is one already, it
 * says first who has it locked: who holds the addresses is then clear. */
static bool is_first_start(struct os *os, const struct serve_options *o) {
    return os_list(os, o->data.directory, ignore, NULL) == OS_E_NOT_FOUND;
}

static void add_table(struct serve *s, struct http_route_table table) {
    assert(s->n_tables < SERVE_TABLES_MAX);
    s->tables[s->n_tables++] = table;
}

static void add_points_tables(struct serve *s) {
    struct points_api *api = &s->points_api;
    add_table(s, api_qdrant_collections_routes(api));
    add_table(s, api_qdrant_points_routes(api));
    add_table(s, api_qdrant_search_routes(api));
    add_table(s, api_qdapi_routes(api));
    add_table(s, api_alioth_routes(api));
    add_table(s, api_ingest_routes(api));
    for (size_t i = 0; i < API_PASSED_AREAS; i++) {
        struct http_route_table passed = api_pass_routes(api, i);
        if (passed.area)
            add_table(s, passed);
    }
}

static struct points_api points_api_of(struct serve *s, const struct serve_options *options) {
    struct data *d = s->data;
    return (struct points_api){.os = s->os,
                               .journal = d->stores[DATA_POINTS].journal,
                               .work =
                                   d->follow ? follow_work(d->follow) : d->stores[DATA_POINTS].work,
                               .catalog = d->catalog,
                               .store = d->points,
                               .cluster = d->cluster,
                               .follow = d->follow,
                               .tasks = d->bulk,
                               .budget = &s->budget,
                               .search_threads = options->http.query_threads};
}

/* With a journal that is shared, of the stores that processes share alone. */
static void make_tables(struct serve *s, const struct serve_options *options) {
    const struct data_store *stores = s->data->stores;
    bool shared = s->data->shared;
    s->events_api = (struct events_api){.os = s->os,
                                        .journal = stores[DATA_EVENTS].journal,
                                        .work = stores[DATA_EVENTS].work,
                                        .redis = s->data->events_redis,
                                        .shared = shared,
                                        .dictionary = s->data->dictionary,
                                        .once = s->data->once,
                                        .store = s->data->events};
    s->points_api = points_api_of(s, options);
    s->letters = (struct letters_of){.data = s->data,
                                     .apis = {&s->points_api, &s->events_api, &s->tasks_api}};
    if (stores[DATA_POINTS].ops)
        add_points_tables(s);
    if (stores[DATA_EVENTS].ops)
        add_table(s, events_routes(&s->events_api));
    if (!shared || stores[DATA_TASKS].ops)
        add_table(s, tasks_routes(&s->tasks_api));
    add_table(s, letters_routes(&s->letters));
    add_table(s, status_table(s));
    add_table(s, routes_table(s));
}

static bool has_role(const struct serve *s, enum data_roles role) {
    return s->data->options.roles & role;
}

static int bind_api(struct serve *s, const struct serve_options *options, struct problem *problem) {
    struct http_options http = bounded_http(options, &s->budget);
    http.own_key = s->own_key[0] ? s->own_key : NULL;
    bool waits = s->data->cluster || s->data->events_redis || s->data->tasks_shared;
    http.waiting_threads = waits ? WAITING_THREADS : 0;
    int r = http_server_new(s->os, &http, s->tables, s->n_tables, s->metrics, s->log, &s->http);
    return r ? serve_cannot_listen(problem, "--listen", options->listen_text, r) : 0;
}

static int bind_side(struct serve *s, const struct serve_options *options,
                     struct problem *problem) {
    routes_side(s, s->side_routes);
    int r =
        http_side_new(s->os, &options->metrics_listen, s->side_routes, SERVE_SIDE_ROUTES, &s->side);
    return r ? serve_cannot_listen(problem, "--metrics-listen", options->metrics_listen_text, r)
             : 0;
}

static int open_data(struct serve *s, struct data_options *data, struct problem *problem) {
    data->journal.tell = waiting_hear_journal;
    data->tell = waiting_hear;
    data->journal.tell_context = data->context = &s->waiting;
    data->unreachable = waiting_again;
    data->locked = waiting_locked;
    return data_open(s->os, data, s->metrics, &s->data, problem);
}

static int prepare(struct serve *s, const struct serve_options *options, struct problem *problem) {
    uint64_t limit = 0;
    int r = choose_limit(options, &limit, problem);
    if (r)
        return r;
    budget_init(&s->budget, limit);
    struct data_options data = bounded_data(options, &s->budget);
    if (metrics_new(&s->metrics))
        return problem_say(problem, "out of memory");
    r = is_first_start(s->os, options) ? serve_try_addresses(options, problem) : 0;
    if (!r)
        r = open_data(s, &data, problem);
    if (r)
        return r;
    gauges_init(&s->gauges, s);
    if (serve_tasks_prepare(s, options))
        return problem_say(problem, "out of memory");
    make_tables(s, options);
    if (routes_prepare(s) || status_set_settings(s, options->settings))
        return problem_say(problem, "out of memory");
    waiting_end(&s->waiting);
    r = has_role(s, DATA_ROLE_API) ? bind_api(s, options, problem) : 0;
    return r ? r : bind_side(s, options, problem);
}

static void log_recovery(struct serve *s) {
    const struct journal_recovery *journal = &s->data->recovery;
    const struct points_store_report *points = &s->data->points_report;
    const struct events_store_report *events = &s->data->events_report;
    const struct tasks_store_report *tasks = &s->data->tasks_report;
    log_line(s->log, LOG_INFO, "opened", LOG_TEXT("data_dir", s->data->directory),
             LOG_NUMBER("first_lsn", journal->first_lsn), LOG_NUMBER("next_lsn", journal->next_lsn),
             LOG_NUMBER("segments", journal->segments), LOG_NUMBER("points", points->points),
             LOG_NUMBER("profiles", s->data->events_report.profiles),
             LOG_NUMBER("tasks", tasks->tasks), LOG_NUMBER("torn_bytes", journal->torn_bytes));
    if (journal->damaged_records > 0 || journal->damaged_bytes > 0)
        log_line(s->log, LOG_WARN,
                 "the journal is damaged; what is damaged was set aside, run millrace check",
                 LOG_NUMBER("records", journal->damaged_records),
                 LOG_NUMBER("bytes", journal->damaged_bytes));
    if (points->damaged_rows > 0)
        log_line(s->log, LOG_WARN, "points are damaged and left out of answers, run millrace check",
                 LOG_NUMBER("rows", points->damaged_rows));
    if (events->damages > 0)
        log_line(s->log, LOG_WARN,
                 "the events are damaged: mended from copies, or left out; run millrace check",
                 LOG_NUMBER("mended", events->mended), LOG_NUMBER("lost", events->lost));
    if (tasks->damages > 0)
        log_line(s->log, LOG_WARN,
                 "the tasks are damaged: mended from copies, or left out; run millrace check",
                 LOG_NUMBER("mended", tasks->mended), LOG_NUMBER("damages", tasks->damages));
    if (s->data->behind > 0)
        log_line(s->log, LOG_WARN,
                 "the journal begins later than a store ends: records between them are lost to it",
                 LOG_NUMBER("store_lsn", s->data->behind),
                 LOG_NUMBER("journal_first_lsn", journal->first_lsn));
    if (s->data->ahead > 0)
        log_line(s->log, LOG_WARN, "a store is ahead of the journal, which has lost records",
                 LOG_NUMBER("store_lsn", s->data->ahead),
                 LOG_NUMBER("journal_next_lsn", journal->next_lsn),
                 LOG_NUMBER("gap", s->data->gap));
}

static void log_choices(struct serve *s, const struct serve_options *options) {
    if (options->data.journal.sync == JOURNAL_SYNC_OS)
        log_line(s->log, LOG_WARN,
                 "with --sync os a power loss loses the last seconds of acknowledged writes",
                 LOG_TEXT("sync", "os"));
    if (serve_has_api(options) && !options->http.api_key &&
        !socket_address_is_loopback(&options->http.listen))
        log_line(s->log, LOG_WARN, "anyone who reaches this address may read and delete all data",
                 LOG_TEXT("listen", options->listen_text));
}

static void stop_workers(struct serve *s) {
    for (int i = 0; i < DATA_STORES; i++)
        if (s->data->stores[i].work)
            work_stop(s->data->stores[i].work);
}

static int begin(struct serve *s, const struct serve_options *options, struct problem *problem) {
    int r = 0;
    s->working = true;
    for (int i = 0; !r && i < DATA_STORES; i++)
        if (s->data->stores[i].work)
            r = work_start(s->data->stores[i].work);
    if (r)
        return problem_say(problem, "cannot start the worker threads: %s", strerror(-r));
    r = http_server_start(s->http);
    if (r)
        return problem_say(problem, "cannot start the API's threads: %s", strerror(-r));
    r = serve_tasks_start(s, options);
    if (r)
        return problem_say(problem, "cannot start the thread of the tasks: %s", strerror(-r));
    atomic_store(&s->state, SERVE_READY);
    return 0;
}

/* A worker alone has no port for requests, and who shares the journal no directory. */
static void log_ready(struct serve *s, const struct serve_options *options) {
    struct log_field fields[5];
    size_t n = 0;
    if (s->http) {
        fields[n++] = LOG_TEXT("listen", options->listen_text);
        fields[n++] = LOG_NUMBER("port", serve_port(s));
    }
    fields[n++] = LOG_NUMBER("metrics_port", serve_metrics_port(s));
    if (!s->data->shared)
        fields[n++] = LOG_TEXT("data_dir", s->data->directory);
    fields[n++] = LOG_TEXT("version", MILLRACE_VERSION);
    log_write(s->log, LOG_INFO, "ready", fields, n);
}

/* ---- A process that shares its journal ---- */

static void log_told(void *serve, const char *sentence) {
    struct serve *s = serve;
    log_line(s->log, LOG_WARN, "the journal's engine", LOG_TEXT("says", sentence));
}

static int start_share(struct serve *s, enum data_store_kind kind) {
    const struct data_store *store = &s->data->stores[kind];
    const struct share_options options = {.url = s->data->options.journal.url,
                                          .ops = store->ops->work,
                                          .store = store->store,
                                          .position = store->ops->position,
                                          .number = store->ops->number,
                                          .until = store->ops->until,
                                          .tell = log_told,
                                          .context = s};
    return error_trace(share_start(s->os, &options, s->metrics, &s->shares[kind]));
}

static int start_shares(struct serve *s) {
    int r = 0;
    for (int i = 0; !r && i < DATA_STORES; i++)
        if (s->data->stores[i].ops)
            r = start_share(s, (enum data_store_kind)i);
    return error_trace(r);
}

static void stop_shares(struct serve *s) {
    for (int i = 0; i < DATA_STORES; i++)
        share_end(s->shares[i]);
    for (int i = 0; i < DATA_STORES; i++)
        share_stop(s->shares[i]);
}

/* The first look is before anything is appended. */
static int make_backlog(struct serve *s, enum data_store_kind kind, struct problem *problem) {
    const struct data_store *store = &s->data->stores[kind];
    const struct backlog_options options = {.url = s->data->options.journal.url,
                                            .name = data_store_names[kind],
                                            .journal = store->journal,
                                            .position = store->ops->position,
                                            .store = store->store};
    char why[GROUP_WHY_MAX];
    int r = backlog_new(s->os, &options, &s->backlogs[kind], why);
    if (r)
        return problem_say(problem, "--journal: %s", r > 0 ? why : "out of memory");
    backlog_look(s->backlogs[kind]);
    return 0;
}

/* Of who applies nothing himself. */
static int make_backlogs(struct serve *s, struct problem *problem) {
    int r = 0;
    for (int i = 0; !r && i < DATA_STORES; i++)
        if (s->data->stores[i].ops)
            r = make_backlog(s, (enum data_store_kind)i, problem);
    return r;
}

static int begin_shared(struct serve *s, const struct serve_options *options,
                        struct problem *problem) {
    bool applies = has_role(s, DATA_ROLE_WORKER);
    int r = applies ? 0 : make_backlogs(s, problem);
    if (r)
        return r;
    if (applies)
        r = start_shares(s);
    if (!r && s->data->cluster)
        r = qdrant_cluster_start(s->data->cluster);
    if (!r && s->data->follow)
        r = follow_start(s->data->follow);
    if (!r)
        r = housekeeper_start(s);
    if (!r && s->http)
        r = http_server_start(s->http);
    if (!r)
        r = serve_tasks_start(s, options);
    if (r)
        return problem_say(problem, "cannot start the threads: %s", strerror(-r));
    atomic_store(&s->state, SERVE_READY);
    return 0;
}

/* ---- Both ---- */

static int start(struct serve *s, const struct serve_options *options, struct problem *problem) {
    int r = prepare(s, options, problem);
    if (r)
        return r;
    log_choices(s, options);
    if (s->data->shared) {
        r = begin_shared(s, options, problem);
        if (!r)
            log_ready(s, options);
        return r;
    }
    log_recovery(s);
    /* Before the replay: a store that is full until the next checkpoint would stop it. */
    r = housekeeper_start(s);
    if (r)
        return problem_say(problem, "cannot start the housekeeper's thread: %s", strerror(-r));
    r = points_store_start_builder(s->data->points);
    if (r)
        return problem_say(problem, "cannot start the builder's thread: %s", strerror(-r));
    r = s->data->cluster ? qdrant_cluster_start(s->data->cluster) : 0;
    if (r)
        return problem_say(problem, "cannot start the thread that looks after Qdrant: %s",
                           strerror(-r));
    r = serve_replay(s, options, problem);
    if (!r)
        r = begin(s, options, problem);
    if (!r)
        log_ready(s, options);
    return r;
}

/* Keys are few and short: each stays until the server ends, so that no request loses the one it
 * is compared with. */
static int change_key(struct serve *s, const char *text) {
    struct serve_key *key = NULL;
    if (text) {
        size_t size = strlen(text) + 1;
        key = malloc(sizeof *key + size);
        if (!key)
            return error_origin(-ENOMEM);
        memcpy(key->text, text, size);
        key->next = s->keys;
        s->keys = key;
    }
    if (s->http)
        http_server_set_api_key(s->http, key ? key->text : NULL);
    return 0;
}

static struct serve_key *free_keys(struct serve_key *keys) {
    while (keys) {
        struct serve_key *next = keys->next;
        free(keys);
        keys = next;
    }
    return NULL;
}

/* Frees everything, whatever of it there is; the threads of the API have ended. */
static struct serve *release(struct serve *s) {
    housekeeper_stop(s);
    stop_shares(s);
    follow_stop(s->data ? s->data->follow : NULL);
    http_side_free(s->side);
    http_server_free(s->http);
    for (int i = 0; i < DATA_STORES; i++) {
        share_free(s->shares[i]);
        backlog_free(s->backlogs[i]);
    }
    tasks_runner_free(s->tasks_api.runner);
    data_close(s->data);
    metrics_free(s->metrics);
    housekeeper_deinit(&s->housekeeper);
    buffer_deinit(&s->openapi);
    buffer_deinit(&s->routes_page);
    buffer_deinit(&s->settings);
    mutex_deinit(&s->settings_lock);
    waiting_deinit(&s->waiting);
    free_keys(s->keys);
    free(s);
    return NULL;
}

int serve_start(struct os *os, const struct serve_options *options, struct log *log,
                struct serve **ret_serve, struct problem *problem) {
    int r = check_exposure(options, problem);
    if (!r)
        r = check_addresses(options, problem);
    if (r)
        return r;
    struct serve *s = calloc(1, sizeof *s);
    if (!s)
        return problem_say(problem, "out of memory");
    s->os = os;
    s->log = log;
    s->stop_timeout_ms = options->stop_timeout_ms;
    s->stuck = options->stuck;
    s->stuck_context = options->context;
    s->key_needed = !options->insecure && !socket_address_is_loopback(&options->http.listen);
    housekeeper_init(&s->housekeeper, options);
    mutex_init(&s->settings_lock, LOCK_RANK_SERVE);
    waiting_init(&s->waiting, os, log, options);
    r = start(s, options, problem);
    if (r) {
        if (s->working) { /* threads of stores that are this process's own */
            tasks_runner_stop(s->tasks_api.runner, 0);
            stop_workers(s);
        }
        release(s);
        return r;
    }
    *ret_serve = s;
    return 0;
}

/* ---- Stop ---- */

static void last_checkpoint(struct serve *s, enum data_store_kind kind) {
    char trace[256];
    if (data_checkpoint(s->data, kind) == 0)
        return;
    error_trace_text(trace, sizeof trace);
    log_line(s->log, LOG_ERROR,
             "the last checkpoint failed; the journal is replayed at the next start",
             LOG_TEXT("store", s->data->stores[kind].ops->work->name), LOG_TEXT("error", trace));
}

/* What a stop is given beside the time of its requests. */
enum { STOP_REST_MS = 5000, TASKS_STOP_MS = 1000 };

struct stop_guard {
    struct os *os;
    void (*stuck)(void *context);
    void *context;
    uint64_t deadline_ns;
    struct os_thread *thread; /* NULL: there is none, and a disk that hangs is waited for */
    struct mutex lock;        /* LOCK_RANK_SERVE: what follows */
    struct condition wake;
    bool stopped;
};

static void guard_run(void *guard) {
    struct stop_guard *g = guard;
    bool in_time = true;
    mutex_lock(&g->lock);
    while (!g->stopped && in_time)
        in_time = condition_wait_until(&g->wake, &g->lock, g->deadline_ns);
    bool stopped = g->stopped;
    mutex_unlock(&g->lock);
    if (!stopped)
        g->stuck(g->context);
}

static void guard_begin(struct stop_guard *g, const struct serve *s) {
    uint64_t rest_ms = s->stop_timeout_ms > STOP_REST_MS ? s->stop_timeout_ms : STOP_REST_MS;
    *g = (struct stop_guard){.os = s->os, .stuck = s->stuck, .context = s->stuck_context};
    g->deadline_ns = os_monotonic_ns(s->os) + (s->stop_timeout_ms + rest_ms) * 1000000;
    mutex_init(&g->lock, LOCK_RANK_SERVE);
    condition_init(&g->wake);
    if (g->stuck && os_thread_start(s->os, "stop", guard_run, g, &g->thread))
        g->thread = NULL;
}

static void guard_end(struct stop_guard *g) {
    mutex_lock(&g->lock);
    g->stopped = true;
    condition_signal(&g->wake);
    mutex_unlock(&g->lock);
    os_thread_join(g->os, g->thread);
    condition_deinit(&g->wake);
    mutex_deinit(&g->lock);
}

struct serve *serve_stop(struct serve *s) {
    if (!s)
        return NULL;
    struct log *log = s->log;
    struct stop_guard guard;
    guard_begin(&guard, s);
    log_write(log, LOG_INFO, "stopping", NULL, 0);
    atomic_store(&s->state, SERVE_STOPPING);
    if (s->data->cluster)
        qdrant_cluster_stop_by(s->data->cluster,
                               os_monotonic_ns(s->os) + s->stop_timeout_ms * 1000000);
    if (s->http)
        http_server_stop(s->http, s->stop_timeout_ms);
    if (s->tasks_api.runner)
        tasks_runner_stop(s->tasks_api.runner, TASKS_STOP_MS);
    housekeeper_stop(s);
    stop_workers(s);
    stop_shares(s);
    for (int i = 0; i < DATA_STORES; i++)
        if (s->data->stores[i].work || s->shares[i])
            last_checkpoint(s, (enum data_store_kind)i);
    release(s);
    guard_end(&guard);
    log_write(log, LOG_INFO, "stopped", NULL, 0);
    return NULL;
}

/* ---- While it runs ---- */

int serve_reload(struct serve *s, const struct serve_settings *settings, struct problem *problem) {
    struct housekeeper *h = &s->housekeeper;
    if (!settings->api_key && s->key_needed)
        return problem_say(problem, "the API key cannot be taken away while the server listens "
                                    "wider than loopback");
    int r = status_set_settings(s, settings->settings);
    if (!r)
        r = change_key(s, settings->api_key);
    if (r)
        return error_trace(r);
    mutex_lock(&h->lock);
    h->interval_ms = settings->checkpoint_interval_ms;
    h->dirty_max_bytes = settings->checkpoint_bytes;
    mutex_unlock(&h->lock);
    return 0;
}

uint16_t serve_port(const struct serve *s) {
    return s->http ? http_server_port(s->http) : 0;
}

uint16_t serve_metrics_port(const struct serve *s) {
    return http_side_port(s->side);
}
