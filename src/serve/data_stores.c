/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stores of a data directory, opened: each embedded, or with somebody else who keeps its data.
 */
#include "journal/group.h"
#include "serve/data_parts.h"

#include <errno.h>
#include <stdio.h>

/* ---- Dead letters that the store of this process has, by its index ---- */

static int own_page(void *data_store, lsn_t below, size_t max, lsn_t *out, size_t *ret_n,
                    char why[WORK_LETTER_WHY_MAX] UNUSED) {
    const struct data_store *store = data_store;
    struct work_letters *index = store->ops->work->letters(store->store);
    return error_trace(work_letters_page(index, below, max, out, ret_n));
}

static int own_read(void *data_store, const lsn_t *numbers, size_t n,
                    void (*each)(void *context, const struct work_letter *letter), void *context,
                    char why[WORK_LETTER_WHY_MAX] UNUSED) {
    const struct data_store *store = data_store;
    return error_trace(store->ops->work->read_letters(store->store, numbers, n, each, context));
}

static struct letter_box own_letters(struct data_store *store) {
    static const struct letter_box_ops ops = {.page = own_page, .read = own_read};
    return (struct letter_box){.ops = &ops, .store = store};
}

/* ---- What opening, replaying and persisting need ---- */

static unsigned points_lanes(void *store) {
    return points_store_lanes(store);
}
static void points_positions(void *store, lsn_t *ret_positions) {
    points_store_positions(store, ret_positions);
}
static int points_checkpoint(void *store, struct journal *j) {
    return points_store_checkpoint(store, j);
}
static uint64_t points_dirty_bytes(void *store) {
    return points_store_dirty_bytes(store);
}
static bool points_want_checkpoint(void *store) {
    return points_store_wants_checkpoint(store);
}
static const struct data_store_ops points_ops = {.work = &points_store_work_ops,
                                                 .lanes = points_lanes,
                                                 .positions = points_positions,
                                                 .checkpoint = points_checkpoint,
                                                 .dirty_bytes = points_dirty_bytes,
                                                 .wants_checkpoint = points_want_checkpoint};

/* Nothing of them is kept here, and the group has the positions. */
static void shared_points_positions(void *store UNUSED, lsn_t *ret_positions UNUSED) {
}
static int shared_points_checkpoint(void *store UNUSED, struct journal *j UNUSED) {
    return 0;
}
static uint64_t shared_points_dirty_bytes(void *store UNUSED) {
    return 0;
}
static unsigned shared_points_lanes(void *store UNUSED) {
    return 0;
}
static const struct data_store_ops shared_points_ops = {.work = &points_shared_work_ops,
                                                        .lanes = shared_points_lanes,
                                                        .until = points_shared_until,
                                                        .positions = shared_points_positions,
                                                        .checkpoint = shared_points_checkpoint,
                                                        .dirty_bytes = shared_points_dirty_bytes};

static unsigned events_lanes(void *store) {
    return events_store_lanes(store);
}
static void events_positions(void *store, lsn_t *ret_positions) {
    events_store_positions(store, ret_positions);
}
static int events_checkpoint(void *store, struct journal *j) {
    return events_store_checkpoint(store, j);
}
static uint64_t events_dirty_bytes(void *store) {
    return events_store_dirty_bytes(store);
}
static bool events_are_behind(void *store) {
    return events_store_is_behind(store);
}
static const struct data_store_ops events_ops = {.work = &events_store_work_ops,
                                                 .lanes = events_lanes,
                                                 .positions = events_positions,
                                                 .checkpoint = events_checkpoint,
                                                 .dirty_bytes = events_dirty_bytes,
                                                 .is_behind = events_are_behind};

static unsigned redis_lanes(void *store) {
    return events_redis_lanes(store);
}
static void redis_positions(void *store, lsn_t *ret_positions) {
    for (unsigned lane = 0; lane < events_redis_lanes(store); lane++)
        ret_positions[lane] = events_redis_persisted(store, lane);
}
static int redis_checkpoint(void *store, struct journal *j UNUSED) {
    int r = events_redis_checkpoint(store);
    return r > 0 ? error_origin(-EIO) : error_trace(r);
}
static uint64_t redis_dirty_bytes(void *store UNUSED) {
    return 0; /* what is applied is persisted; only the positions are not */
}
static int redis_position(void *store, unsigned partition, lsn_t *ret_lsn) {
    char why[EVENTS_REDIS_WHY_MAX];
    return events_redis_positions(store, partition, 1, ret_lsn, why);
}
static int redis_number(void *store, unsigned partition, struct group_numbers *numbers) {
    return events_redis_number(store, partition, numbers);
}
static const struct data_store_ops redis_ops = {.work = &events_redis_work_ops,
                                                .lanes = redis_lanes,
                                                .position = redis_position,
                                                .number = redis_number,
                                                .positions = redis_positions,
                                                .checkpoint = redis_checkpoint,
                                                .dirty_bytes = redis_dirty_bytes};

static unsigned tasks_lanes(void *store UNUSED) {
    return 1;
}
static void tasks_positions(void *store, lsn_t *ret_positions) {
    ret_positions[0] = tasks_store_position(store);
}
static int tasks_checkpoint(void *store, struct journal *j UNUSED) {
    return tasks_store_checkpoint(store);
}
static uint64_t tasks_dirty_bytes(void *store) {
    return tasks_store_dirty_bytes(store);
}
static bool tasks_are_behind(void *store) {
    return tasks_store_is_behind(store);
}
static bool tasks_want_checkpoint(void *store) {
    return tasks_store_wants_checkpoint(store);
}
static const struct data_store_ops tasks_ops = {.work = &tasks_store_work_ops,
                                                .lanes = tasks_lanes,
                                                .positions = tasks_positions,
                                                .checkpoint = tasks_checkpoint,
                                                .dirty_bytes = tasks_dirty_bytes,
                                                .wants_checkpoint = tasks_want_checkpoint,
                                                .is_behind = tasks_are_behind};

static unsigned shared_tasks_lanes(void *store UNUSED) {
    return 0; /* their positions are not of this process's journal */
}
static void shared_tasks_positions(void *store UNUSED, lsn_t *ret_positions UNUSED) {
}
static int look_at_shared_tasks(void *store, struct journal *j UNUSED) {
    int r = tasks_shared_look(store);
    return r > 0 ? 0 : error_trace(r); /* that it does not answer health says */
}
static uint64_t shared_tasks_dirty_bytes(void *store UNUSED) {
    return 0; /* what is applied is persisted */
}
static int shared_tasks_position(void *store, unsigned partition, lsn_t *ret_lsn) {
    return tasks_shared_position(store, partition, ret_lsn);
}
static int shared_tasks_number(void *store, unsigned partition, struct group_numbers *numbers) {
    return tasks_shared_number(store, partition, numbers);
}
static const struct data_store_ops shared_tasks_ops = {.work = &tasks_shared_work_ops,
                                                       .lanes = shared_tasks_lanes,
                                                       .positions = shared_tasks_positions,
                                                       .checkpoint = look_at_shared_tasks,
                                                       .dirty_bytes = shared_tasks_dirty_bytes,
                                                       .position = shared_tasks_position,
                                                       .number = shared_tasks_number};

static int make_cluster(struct data *d, struct problem *problem) {
    const struct qdrant_url *url = d->options.qdrant;
    int r = qdrant_cluster_new(d->os, url, &d->cluster);
    if (r == QDRANT_E_KEY)
        return problem_say(problem, "--points: the key of the cluster cannot be read from %s",
                           url->api_key_file);
    return r ? problem_of_result(problem, "cannot set up the connection to", url->host, r) : 0;
}

static int follow_workers(struct data *d, struct problem *problem) {
    struct data_store *store = &d->stores[DATA_POINTS];
    char why[GROUP_WHY_MAX] = "";
    int r = store->journal ? follow_new(d->os, store->journal, d->options.journal.url,
                                        data_store_names[DATA_POINTS], &d->follow, why)
                           : 0;
    return r ? problem_say(problem, "--journal: %s", r > 0 ? why : "out of memory") : 0;
}

int data_open_shared_points(struct data *d, struct problem *problem) {
    struct data_store *store = &d->stores[DATA_POINTS];
    char why[GROUP_WHY_MAX] = "";
    int r = kept_letters_open(d->os, d->options.journal.url, data_store_names[DATA_POINTS],
                              d->options.existing, &d->letters, why);
    if (r > 0)
        return problem_say(problem, "--journal: %s", why);
    const struct points_shared_options shared = {.sink = qdrant_cluster_sink(d->cluster),
                                                 .letters = d->letters};
    if (!r)
        r = points_catalog_new(&d->catalog);
    if (!r)
        r = bulk_tasks_new(d->os, &d->bulk);
    if (!r)
        r = points_shared_new(d->os, &shared, &d->points_shared);
    if (r)
        return problem_say(problem, "out of memory");
    store->ops = &shared_points_ops;
    store->store = d->points_shared;
    store->letters = kept_letters_box(d->letters);
    return follow_workers(d, problem);
}

int data_open_points(struct data *d, const struct data_options *options, struct problem *problem) {
    struct data_store *store = &d->stores[DATA_POINTS];
    enum { CLUSTER_LANES = 16 }; /* they wait for the network: more than a disk would want */
    struct points_store_options points = options->points;
    if (d->cluster) {
        points.sink = qdrant_cluster_sink(d->cluster);
        points.lanes = points.lanes ? points.lanes : CLUSTER_LANES;
    }
    int r = points_catalog_new(&d->catalog);
    if (!r)
        r = bulk_tasks_new(d->os, &d->bulk);
    if (!r)
        r = points_store_open(d->os, store->directory, d->catalog, d->bulk, &points, &d->points,
                              &d->points_report);
    if (r == -EPROTO)
        return problem_say(problem,
                           "the manifest of %s is damaged; run `millrace check --data-dir %s`",
                           store->directory, d->directory);
    if (r)
        return problem_of_result(problem, "cannot open the points in", store->directory, r);
    store->ops = &points_ops;
    store->store = d->points;
    store->letters = own_letters(store);
    return 0;
}

static int open_embedded_events(struct data *d, const struct data_options *options,
                                struct problem *problem) {
    enum { KEYS_MAX = 1000000 };
    struct data_store *store = &d->stores[DATA_EVENTS];
    struct event_once_options once = options->once;
    char why[256] = "";
    if (once.keys_max == 0)
        once.keys_max = KEYS_MAX;
    int r = event_dictionary_new(&options->dictionary, &d->dictionary);
    if (!r)
        r = event_once_new(d->os, &once, &d->once);
    if (!r)
        r = events_store_open(d->os, store->directory, d->dictionary, d->once, &options->events,
                              &d->events, &d->events_report, why, sizeof why);
    if (r == -EPROTO)
        return problem_say(problem,
                           "the database in %s is damaged: %s; nothing was changed: restore the "
                           "directory from a backup, or move it away to start without the events "
                           "that the journal no longer holds; `millrace check` says more",
                           store->directory, why);
    if (r)
        return problem_of_result(problem, "cannot open the events in", store->directory, r);
    store->ops = &events_ops;
    store->store = d->events;
    store->letters = own_letters(store);
    return 0;
}

/* ---- Events on a Redis Cluster ---- */

enum { SOURCE_BYTES = DATA_SOURCE_DIGITS / 2 };

/* The file DIR/events-redis/SOURCE: the name by which the cluster knows this directory's records,
 * made with the directory; and, once the cluster knows it, JOINED. */
struct source {
    char path[OS_PATH_MAX];
    char name[DATA_SOURCE_DIGITS + 1];
    bool joined;
};
static const char joined_mark[] = " joined\n";

static int new_source(struct data *d, struct source *source) {
    uint8_t random[SOURCE_BYTES];
    int r = os_random(d->os, random, sizeof random);
    for (size_t i = 0; !r && i < SOURCE_BYTES; i++)
        snprintf(source->name + 2 * i, 3, "%02x", random[i]);
    return r ? r : os_replace(d->os, source->path, bytes_of(source->name, DATA_SOURCE_DIGITS));
}

static int load_source(struct data *d, struct source *source, struct problem *problem) {
    CLEANUP(buffer_deinit) struct buffer text = BUFFER_INIT;
    *source = (struct source){0};
    if (os_path_join(source->path, d->stores[DATA_EVENTS].directory, DATA_SOURCE_FILE))
        return problem_say(problem, "the path of the data directory is too long");
    int r = os_load(d->os, source->path, DATA_SMALL_FILE_MAX, &text);
    if (r == OS_E_NOT_FOUND)
        r = new_source(d, source);
    else if (!r && text.size >= DATA_SOURCE_DIGITS)
        memcpy(source->name, text.data, DATA_SOURCE_DIGITS);
    else if (!r)
        return problem_say(problem, "%s is not what millrace wrote; restore it from a backup",
                           source->path);
    source->joined = text.size > DATA_SOURCE_DIGITS;
    return r ? problem_of_result(problem, "cannot read or write", source->path, r) : 0;
}

static int note_joined(struct data *d, const struct source *source, struct problem *problem) {
    char text[DATA_SOURCE_DIGITS + sizeof joined_mark];
    int size = snprintf(text, sizeof text, "%s%s", source->name, joined_mark);
    int r = source->joined ? 0 : os_replace(d->os, source->path, bytes_of(text, (size_t)size));
    return r ? problem_of_result(problem, "cannot write", source->path, r) : 0;
}

/* Of a journal that processes share. */
static int check_lanes(unsigned has, unsigned partitions, char why[EVENTS_REDIS_WHY_MAX]) {
    if (has == partitions)
        return 0;
    snprintf(why, EVENTS_REDIS_WHY_MAX,
             "its events are divided into %u partitions, not %u: give partitions=%u in --journal; "
             "or, to begin anew, another prefix in both --events and --journal",
             has, partitions, has);
    return EVENTS_REDIS_E_REFUSED;
}

/* source NULL: only looks, before there is a journal. */
static int join_redis(struct data *d, const char *source, bool create, unsigned lanes,
                      char why[EVENTS_REDIS_WHY_MAX]) {
    lsn_t positions[WORK_LANES_MAX];
    unsigned has = lanes;
    int r = source ? events_redis_join(d->events_redis, source, create, &has, why)
                   : events_redis_look(d->events_redis, &has, why);
    if (!r && d->shared)
        r = check_lanes(has, lanes, why);
    if (!source)
        return r == EVENTS_REDIS_E_NONE ? 0 : r;
    if (!r && has > WORK_LANES_MAX) {
        snprintf(why, EVENTS_REDIS_WHY_MAX, "its events are dealt to %u lanes, more than %d", has,
                 WORK_LANES_MAX);
        return EVENTS_REDIS_E_REFUSED;
    }
    return r ? r : events_redis_positions(d->events_redis, 0, has, positions, why);
}

static int say_missing(const char *why, struct problem *problem) {
    problem_say(problem, "%s", why);
    return DATA_E_NO_STORE;
}

/* Before the first append: no lsn may be given that the cluster has seen (invariant 2). */
static int reach_redis(struct data *d, const char *source, bool create, unsigned lanes,
                       struct problem *problem) {
    char why[EVENTS_REDIS_WHY_MAX] = "";
    for (;;) {
        int r = join_redis(d, source, create, lanes, why);
        if (r == EVENTS_REDIS_E_DOWN && d->options.unreachable) {
            r = d->options.unreachable(d->options.context, "events", why, problem);
            if (r)
                return r;
            continue;
        }
        if (r == EVENTS_REDIS_E_NONE)
            return say_missing(why, problem);
        if (r > 0)
            return problem_say(problem, "--events: %s", why);
        return r ? problem_say(problem, "out of memory") : 0;
    }
}

static void hear_events(void *data, const char *sentence) {
    const struct data *d = data;
    if (d->options.tell)
        d->options.tell(d->options.context, "events", sentence);
}

static int make_events_redis(struct data *d, struct problem *problem) {
    const struct events_redis_options redis = {
        .url = d->options.events_url, .alone = !d->shared, .tell = hear_events, .context = d};
    char why[EVENTS_REDIS_WHY_MAX] = "";
    int r = events_redis_open(d->os, &redis, &d->events_redis, why);
    if (r > 0)
        return problem_say(problem, "--events: the URL %s", why);
    return r ? problem_say(problem, "out of memory") : 0;
}

int data_open_shared_events(struct data *d, const char *source, bool create, unsigned lanes,
                            struct problem *problem) {
    struct data_store *store = &d->stores[DATA_EVENTS];
    int r = reach_redis(d, source, create, lanes, problem);
    if (r)
        return r;
    store->ops = &redis_ops;
    store->store = d->events_redis;
    store->letters = d->shared ? events_redis_letter_box(d->events_redis) : own_letters(store);
    return 0;
}

static void hear_tasks(void *data, const char *sentence) {
    const struct data *d = data;
    if (d->options.tell)
        d->options.tell(d->options.context, "tasks", sentence);
}

/* Tries until who keeps them is there, or whoever is asked gives up. */
static int reach_tasks(struct data *d, const struct tasks_store_options *options, char *why,
                       size_t why_size, struct problem *problem) {
    for (;;) {
        int r = tasks_store_open(d->os, d->stores[DATA_TASKS].directory, options, &d->tasks,
                                 &d->tasks_report, why, why_size);
        if (r != TASKS_E_UNAVAILABLE || !d->options.unreachable)
            return r;
        r = d->options.unreachable(d->options.context, "tasks", why, problem);
        if (r)
            return r;
    }
}

static int make_tasks_remote(struct data *d, struct problem *problem) {
    const struct tasks_redis_options options = {
        .url = d->options.tasks_url, .tell = hear_tasks, .context = d};
    if (tasks_redis_new(d->os, &options, &d->tasks_remote))
        return problem_say(problem, "out of memory");
    data_show_url(options.url, d->tasks_url);
    return 0;
}

/* It was joined before. */
static int say_emptied(struct problem *problem) {
    const struct problem missing = *problem;
    return problem_say(problem,
                       "--events: %s any more: was it emptied? Restore it from a backup; or, to "
                       "begin without what is lost, remove the file events-redis/SOURCE of the "
                       "data directory",
                       missing.text);
}

static int open_own_redis(struct data *d, const struct data_options *options,
                          struct problem *problem) {
    enum { REDIS_LANES = 4 };
    unsigned lanes = options->events.lanes ? options->events.lanes : REDIS_LANES;
    struct source source;
    int r = load_source(d, &source, problem);
    if (!r)
        r = data_open_shared_events(d, source.name, !source.joined, lanes, problem);
    if (r == DATA_E_NO_STORE)
        return say_emptied(problem);
    return r ? r : note_joined(d, &source, problem);
}

int data_open_tasks(struct data *d, const struct data_options *options, struct problem *problem) {
    struct data_store *store = &d->stores[DATA_TASKS];
    struct tasks_store_options tasks = options->tasks;
    char why[TASKS_REMOTE_WHY_MAX] = "";
    tasks.remote = d->tasks_remote;
    problem->text[0] = '\0';
    int r = reach_tasks(d, &tasks, why, sizeof why, problem);
    if (problem->text[0])
        return SERVE_E_PROBLEM;
    if (r == TASKS_E_UNAVAILABLE || r == TASKS_E_REFUSED)
        return problem_say(problem, "the tasks cannot be kept by %s: %s", d->tasks_url, why);
    if (r == -EPROTO)
        return problem_say(problem, "the database in %s is damaged: %s", store->directory, why);
    if (r)
        return problem_of_result(problem, "cannot open the tasks in", store->directory, r);
    store->ops = &tasks_ops;
    store->store = d->tasks;
    store->letters = own_letters(store);
    return 0;
}

/* source NULL: only looks, before there is a journal. */
static int join_tasks(struct data *d, const char *source, bool create, unsigned partitions,
                      struct problem *problem) {
    char why[TASKS_SHARED_WHY_MAX] = "";
    int r;
    while ((r = tasks_shared_join(d->tasks_shared, source, create, partitions, why)) ==
               TASKS_E_UNAVAILABLE &&
           d->options.unreachable) {
        r = d->options.unreachable(d->options.context, "tasks", why, problem);
        if (r)
            return r;
    }
    if (r == TASKS_E_NOT_FOUND)
        return source ? say_missing(why, problem) : 0;
    if (r > 0)
        return problem_say(problem, "--tasks: %s", why);
    return r ? problem_say(problem, "out of memory") : 0;
}

static int make_tasks_shared(struct data *d, struct problem *problem) {
    const struct tasks_shared_options options = {.url = d->options.tasks_url,
                                                 .queued_max = d->options.tasks.queued_max,
                                                 .keep_ms = d->options.tasks.keep_ms,
                                                 .lease_ms = d->options.task_lease_ms,
                                                 .tell = hear_tasks,
                                                 .context = d};
    char why[TASKS_SHARED_WHY_MAX] = "";
    int r = tasks_shared_open(d->os, &options, &d->tasks_shared, why);
    if (r > 0)
        return problem_say(problem, "--tasks: the URL %s", why);
    data_show_url(d->options.tasks_url, d->tasks_url);
    return r ? problem_say(problem, "out of memory") : 0;
}

int data_open_shared_tasks(struct data *d, const char *source, bool create, unsigned partitions,
                           struct problem *problem) {
    struct data_store *store = &d->stores[DATA_TASKS];
    int r = join_tasks(d, source, create, partitions, problem);
    if (r)
        return r;
    store->ops = &shared_tasks_ops;
    store->store = d->tasks_shared;
    store->letters = tasks_shared_letter_box(d->tasks_shared);
    return 0;
}

int data_open_events(struct data *d, const struct data_options *options, struct problem *problem) {
    return options->events_url ? open_own_redis(d, options, problem)
                               : open_embedded_events(d, options, problem);
}

/* ---- Before anything is made ---- */

int data_prepare_stores(struct data *d, struct problem *problem) {
    int r = d->options.qdrant ? make_cluster(d, problem) : 0;
    if (!r && d->options.events_url)
        r = make_events_redis(d, problem);
    if (!r && d->options.tasks_url)
        r = d->shared ? make_tasks_shared(d, problem) : make_tasks_remote(d, problem);
    return r;
}

int data_look_at_shared(struct data *d, unsigned partitions, struct problem *problem) {
    int r = d->events_redis ? reach_redis(d, NULL, false, partitions, problem) : 0;
    return r || !d->tasks_shared ? r : join_tasks(d, NULL, false, partitions, problem);
}
