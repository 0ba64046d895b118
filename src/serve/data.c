/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a data directory. The order matters: the lock before anything is looked at, the version
 * before anything is changed, the journal before the stores, and the journal's next lsn above every
 * position before the first append (invariant 2).
 */
#include "serve/data.h"

#include "journal/group.h"

#include "os/process.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static const char format_prefix[] = "millrace-data ";
enum {
    SMALL_FILE_MAX = 64,
    RECOVERED_TIMEOUT_MS = 20000,
    ORPHANED_LOCK_TIMEOUT_MS = 5000,
    ORPHANED_LOCK_POLL_MS = 5,
};

/* ---- The lock ---- */

/* The number that the process which has the lock wrote into it; 0 when it is not there. */
static uint64_t lock_owner(struct os *os, struct os_file *file) {
    char text[SMALL_FILE_MAX + 1] = "";
    size_t size = 0;
    uint64_t pid = 0;
    if (os_read_all(os, file, text, SMALL_FILE_MAX, 0, &size))
        return 0;
    for (size_t i = 0; i < size && text[i] >= '0' && text[i] <= '9'; i++)
        pid = pid * 10 + (uint64_t)(text[i] - '0');
    return pid;
}

static int write_owner(struct os *os, struct os_file *file) {
    char text[SMALL_FILE_MAX];
    int size = snprintf(text, sizeof text, "%" PRIu64 "\n", process_id());
    int r = os_write_all(os, file, text, (size_t)size, 0);
    return r ? r : os_truncate(os, file, (uint64_t)size);
}

/*
 * os_lock, with patience for a server that was killed in the moment it started a worker: its lock
 * belongs to that child then, until it becomes the worker's program, which closes the file.
 */
static int lock_or_inherit(struct os *os, struct os_file *file) {
    for (int waited_ms = 0;; waited_ms += ORPHANED_LOCK_POLL_MS) {
        int r = os_lock(os, file);
        if (r != OS_E_LOCKED || waited_ms >= ORPHANED_LOCK_TIMEOUT_MS)
            return r;
        uint64_t owner = lock_owner(os, file);
        if (owner == 0 || process_exists(owner))
            return r;
        os_sleep_ns(os, ORPHANED_LOCK_POLL_MS * 1000000ull);
    }
}

static int take_lock(struct os *os, const char *directory, struct os_file **ret_file,
                     struct problem *problem) {
    char path[OS_PATH_MAX];
    struct os_file *file;
    if (os_path_join(path, directory, "LOCK"))
        return problem_say(problem, "the path of the data directory is too long");
    int r = os_open(os, path, OS_OPEN_WRITE | OS_OPEN_CREATE, &file);
    if (r)
        return problem_of_result(problem, "cannot write to the data directory", directory, r);
    r = lock_or_inherit(os, file);
    int result = r == OS_E_LOCKED ? SERVE_E_IN_USE : SERVE_E_PROBLEM;
    if (r == OS_E_LOCKED)
        problem_say(problem,
                    "%s is in use by another millrace (pid %" PRIu64
                    "); stop it first, or choose another --data-dir",
                    directory, lock_owner(os, file));
    else if (r || (r = write_owner(os, file)))
        problem_of_result(problem, "cannot lock the data directory", directory, r);
    if (r) {
        os_close(os, file);
        return result;
    }
    *ret_file = file;
    return 0;
}

/* ---- The version ---- */

static int write_format(struct os *os, const char *directory, const char *path,
                        struct problem *problem) {
    char text[SMALL_FILE_MAX];
    snprintf(text, sizeof text, "%s%d\n", format_prefix, DATA_FORMAT);
    int r = os_replace(os, path, bytes_of_string(text));
    return r ? problem_of_result(problem, "cannot write to the data directory", directory, r) : 0;
}

static int check_format(const char *directory, const char *text, struct problem *problem) {
    size_t prefix = sizeof format_prefix - 1;
    unsigned long version = 0;
    if (strncmp(text, format_prefix, prefix) == 0)
        version = strtoul(text + prefix, NULL, 10);
    if (version == 0)
        return problem_say(problem,
                           "%s/FORMAT is not what millrace wrote; run `millrace check --data-dir "
                           "%s`",
                           directory, directory);
    if (version > DATA_FORMAT)
        return problem_say(problem,
                           "%s was written by a newer millrace (format %lu, this one knows %d); "
                           "run that version",
                           directory, version, DATA_FORMAT);
    return 0;
}

static int read_format(struct os *os, const char *directory, bool create, struct problem *problem) {
    struct buffer text CLEANUP(buffer_deinit) = BUFFER_INIT;
    char path[OS_PATH_MAX];
    if (os_path_join(path, directory, "FORMAT"))
        return problem_say(problem, "the path of the data directory is too long");
    int r = os_load(os, path, SMALL_FILE_MAX, &text);
    if (r == OS_E_NOT_FOUND && create)
        return write_format(os, directory, path, problem);
    if (r == OS_E_NOT_FOUND)
        return problem_say(problem, "%s is not a data directory of millrace", directory);
    if (r && r != -EFBIG)
        return problem_of_result(problem, "cannot read", path, r);
    buffer_append_u8(&text, 0);
    if (buffer_check(&text))
        return problem_say(problem, "out of memory");
    return check_format(directory, (const char *)text.data, problem);
}

int data_lock(struct os *os, const char *directory, struct os_file **ret_lock,
              struct problem *problem) {
    struct os_file *lock = NULL;
    int r = read_format(os, directory, false, problem);
    if (r)
        return r;
    r = take_lock(os, directory, &lock, problem);
    if (r)
        return r;
    *ret_lock = lock;
    return 0;
}

static const char *const store_names[DATA_STORES] = {"points", "events", "tasks"};

static void ignore(void *context UNUSED, const char *name UNUSED) {
}

static bool exists(struct os *os, const char *directory) {
    return os_list(os, directory, ignore, NULL) != OS_E_NOT_FOUND;
}

/* Who else may keep a store's data. */
static const struct {
    const char *suffix; /* of the directory then; NULL: nobody */
    const char *option; /* as it is given */
    const char *flag;
    const char *owner;
} others[DATA_STORES] = {
    [DATA_POINTS] = {"-qdrant", "--points qdrant://…", "--points", "in a Qdrant cluster"},
    [DATA_EVENTS] = {"-redis", "--events redis+cluster://…", "--events", "in a Redis Cluster"},
    [DATA_TASKS] = {"-redis", "--tasks redis://…", "--tasks", "on Redis"},
};

static int join_path(const char *directory, int kind, bool elsewhere, struct data_paths *paths,
                     struct problem *problem) {
    paths->elsewhere[kind] = elsewhere && others[kind].suffix;
    if (os_path_join(paths->stores[kind], directory, "%s%s", store_names[kind],
                     paths->elsewhere[kind] ? others[kind].suffix : ""))
        return problem_say(problem, "the path of the data directory is too long");
    return 0;
}

static int join_paths(const char *directory, const bool elsewhere[DATA_STORES],
                      struct data_paths *paths, struct problem *problem) {
    if (os_path_join(paths->journal, directory, "journal"))
        return problem_say(problem, "the path of the data directory is too long");
    for (int kind = 0; kind < DATA_STORES; kind++) {
        int r = join_path(directory, kind, elsewhere[kind], paths, problem);
        if (r)
            return r;
    }
    return 0;
}

/* Whose directory is there decides; a new data directory has neither. */
static int find_paths(struct os *os, const char *directory, struct data_paths *paths,
                      struct problem *problem) {
    static const bool elsewhere[DATA_STORES] = {
        [DATA_POINTS] = true, [DATA_EVENTS] = true, [DATA_TASKS] = true};
    int r = join_paths(directory, elsewhere, paths, problem);
    for (int kind = 0; !r && kind < DATA_STORES; kind++)
        if (paths->elsewhere[kind] && !exists(os, paths->stores[kind]))
            r = join_path(directory, kind, false, paths, problem);
    return r;
}

/* A store that has missed what the journal let go of would be short of it for ever. */
static int check_kind(struct os *os, const char *directory, int kind, bool elsewhere,
                      struct problem *problem) {
    struct data_paths other;
    int r = others[kind].suffix ? join_path(directory, kind, !elsewhere, &other, problem) : 0;
    if (r || !others[kind].suffix || !exists(os, other.stores[kind]))
        return r;
    if (elsewhere)
        return problem_say(problem,
                           "%s keeps its %s itself, in %s; with %s choose another --data-dir, and "
                           "copy the %s by the API",
                           directory, store_names[kind], other.stores[kind], others[kind].option,
                           store_names[kind]);
    return problem_say(problem, "the %s of %s are %s: give %s again, or choose another --data-dir",
                       store_names[kind], directory, others[kind].owner, others[kind].flag);
}

int data_find_paths(struct os *os, const char *directory, struct data_paths *ret_paths,
                    struct problem *problem) {
    int r = read_format(os, directory, false, problem);
    return r ? r : find_paths(os, directory, ret_paths, problem);
}

/* ---- What is inside ---- */

static int make_directory(struct data *d, const char *path, struct problem *problem) {
    int r = os_make_path(d->os, path);
    return r ? problem_of_result(problem, "cannot make the data directory", path, r) : 0;
}

/* What recovery found whole, but perhaps not on disk, is written again by the journal. Until it is
 * durable no store sees it, though it may have been acknowledged: nobody may ask before. */
static int await_recovered(struct data *d, struct problem *problem) {
    int r = journal_wait(d->journal, journal_appended(d->journal), RECOVERED_TIMEOUT_MS);
    if (r == JOURNAL_E_TIMEOUT)
        return problem_say(problem,
                           "%s does not take again what was written last: %s; see to the disk, "
                           "and start again",
                           d->journal_directory, journal_state_text(d->journal));
    return r ? problem_of_result(problem, "cannot write to", d->journal_directory, r) : 0;
}

/* Keeps the sentence, and passes it on. */
static void hear_journal(void *data, const char *sentence) {
    struct data *d = data;
    const struct journal_options *options = &d->options.journal;
    snprintf(d->told, sizeof d->told, "%s", sentence);
    if (options->tell)
        options->tell(options->tell_context, sentence);
}

/* Tries until the engine is there, or whoever is asked gives up. */
static int reach_journal(struct data *d, struct problem *problem) {
    struct journal_options options = d->options.journal;
    options.tell = hear_journal;
    options.tell_context = d;
    for (;;) {
        int r = journal_open(d->os, d->journal_directory, &options, &d->journal, &d->recovery);
        if (r != JOURNAL_E_UNAVAILABLE || !d->options.unreachable)
            return r;
        r = d->options.unreachable(d->options.context, "journal", d->told, problem);
        if (r)
            return r;
    }
}

/* The file that says which log on another engine has the directory's records. */
static bool has_remote(const struct data *d) {
    char path[OS_PATH_MAX];
    struct os_file *file;
    if (os_path_join(path, d->journal_directory, "REMOTE") ||
        os_open(d->os, path, OS_OPEN_READ, &file))
        return false;
    os_close(d->os, file);
    return true;
}

/* A directory whose records are on another engine has none here to go on with. */
static int check_ground(struct data *d, struct problem *problem) {
    d->had_remote = has_remote(d);
    if (d->options.journal.url || !d->had_remote)
        return 0;
    return problem_say(problem,
                       "%s was written with a journal on another engine: start with the --journal "
                       "that it had",
                       d->directory);
}

/* The other way: what a journal on disk still has for the stores would be left behind. */
static int check_left_behind(struct data *d, lsn_t persisted, struct problem *problem) {
    const struct journal_options options = {.read_only = true};
    struct journal_recovery found;
    struct journal *j;
    if (!d->options.journal.url)
        return 0;
    int r = journal_open(d->os, d->journal_directory, &options, &j, &found);
    if (r)
        return problem_of_result(problem, "cannot read the journal", d->journal_directory, r);
    journal_close(j);
    if (d->had_remote || found.next_lsn - 1 <= persisted)
        return 0;
    return problem_say(problem,
                       "%s has records that the stores have not persisted yet: start once with "
                       "--journal local: and stop it in order, then change the journal",
                       d->journal_directory);
}

/* As it may be shown. */
static void name_url(const struct service_url *url, char out[SERVICE_TEXT_MAX]) {
    CLEANUP(buffer_deinit) struct buffer text = BUFFER_INIT;
    if (!url)
        return;
    service_url_append_public(&text, url);
    buffer_append_u8(&text, 0);
    if (!buffer_check(&text))
        snprintf(out, SERVICE_TEXT_MAX, "%s", (const char *)text.data);
}

static int open_journal(struct data *d, struct problem *problem) {
    name_url(d->options.journal.url, d->journal_url);
    problem->text[0] = '\0';
    int r = check_ground(d, problem);
    if (r)
        return r;
    r = reach_journal(d, problem);
    if (problem->text[0])
        return SERVE_E_PROBLEM;
    if (r == JOURNAL_E_UNAVAILABLE || r == JOURNAL_E_REFUSED)
        return problem_say(problem, "the journal cannot be opened: %s", d->told);
    if (r == JOURNAL_E_LOCKED)
        return problem_say(problem, "%s is in use by another process", d->journal_directory);
    if (r == JOURNAL_E_VERSION)
        return problem_say(problem, "%s was written by a newer millrace; run that version",
                           d->journal_directory);
    if (r)
        return problem_of_result(problem, "cannot open the journal", d->journal_directory, r);
    return await_recovered(d, problem);
}

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
static const struct data_store_ops redis_ops = {.work = &events_redis_work_ops,
                                                .lanes = redis_lanes,
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

/* Its lanes wait for the network: more of them than a disk would want. */
static int make_cluster(struct data *d, const struct qdrant_url *url,
                        struct points_store_options *points, struct problem *problem) {
    enum { CLUSTER_LANES = 16 };
    int r = qdrant_cluster_new(d->os, url, &d->cluster);
    if (r == QDRANT_E_KEY)
        return problem_say(problem, "--points: the key of the cluster cannot be read from %s",
                           url->api_key_file);
    if (r)
        return problem_of_result(problem, "cannot set up the connection to", url->host, r);
    points->sink = qdrant_cluster_sink(d->cluster);
    points->lanes = points->lanes ? points->lanes : CLUSTER_LANES;
    return 0;
}

static int open_points(struct data *d, const struct data_options *options,
                       struct problem *problem) {
    struct data_store *store = &d->stores[DATA_POINTS];
    struct points_store_options points = options->points;
    int r = options->qdrant ? make_cluster(d, options->qdrant, &points, problem) : 0;
    if (r)
        return r;
    r = points_catalog_new(&d->catalog);
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
    return 0;
}

static int open_events(struct data *d, const struct data_options *options,
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
    return 0;
}

/* ---- Events on a Redis Cluster ---- */

enum { SOURCE_MAX = 256, SOURCE_BYTES = 16, SOURCE_DIGITS = 2 * SOURCE_BYTES };

static int new_source(struct data *d, const char *path, char source[SOURCE_DIGITS + 1]) {
    uint8_t random[SOURCE_BYTES];
    int r = os_random(d->os, random, sizeof random);
    for (size_t i = 0; !r && i < SOURCE_BYTES; i++)
        snprintf(source + 2 * i, 3, "%02x", random[i]);
    return r ? r : os_replace(d->os, path, bytes_of(source, SOURCE_DIGITS));
}

/* The name by which the cluster knows this directory's records, made with the directory. */
static int take_source(struct data *d, char source[SOURCE_DIGITS + 1], struct problem *problem) {
    CLEANUP(buffer_deinit) struct buffer text = BUFFER_INIT;
    const char *directory = d->stores[DATA_EVENTS].directory;
    char path[OS_PATH_MAX];
    if (os_path_join(path, directory, "SOURCE"))
        return problem_say(problem, "the path of the data directory is too long");
    int r = os_load(d->os, path, SMALL_FILE_MAX, &text);
    if (r == OS_E_NOT_FOUND)
        r = new_source(d, path, source);
    else if (!r && text.size == SOURCE_DIGITS)
        memcpy(source, text.data, SOURCE_DIGITS);
    else if (!r)
        return problem_say(problem, "%s is not what millrace wrote; restore it from a backup",
                           path);
    source[SOURCE_DIGITS] = '\0';
    return r ? problem_of_result(problem, "cannot read or write", path, r) : 0;
}

static int join_redis(struct data *d, const char *source, unsigned lanes,
                      char why[EVENTS_REDIS_WHY_MAX]) {
    lsn_t positions[WORK_LANES_MAX];
    int r = events_redis_join(d->events_redis, source, &lanes, why);
    if (!r && lanes > WORK_LANES_MAX) {
        snprintf(why, EVENTS_REDIS_WHY_MAX, "its events are dealt to %u lanes, more than %d", lanes,
                 WORK_LANES_MAX);
        return EVENTS_REDIS_E_REFUSED;
    }
    return r ? r : events_redis_positions(d->events_redis, 0, lanes, positions, why);
}

/* Before the first append: no lsn may be given that the cluster has seen (invariant 2). */
static int reach_redis(struct data *d, const char *source, unsigned lanes,
                       struct problem *problem) {
    char why[EVENTS_REDIS_WHY_MAX] = "";
    for (;;) {
        int r = join_redis(d, source, lanes, why);
        if (r == EVENTS_REDIS_E_DOWN && d->options.unreachable) {
            r = d->options.unreachable(d->options.context, "events", why, problem);
            if (r)
                return r;
            continue;
        }
        if (r > 0)
            return problem_say(problem, "--events: %s", why);
        return r ? problem_say(problem, "out of memory") : 0;
    }
}

static int open_redis(struct data *d, const char *source, unsigned lanes, struct problem *problem) {
    const struct events_redis_options redis = {.url = d->options.events_url};
    struct data_store *store = &d->stores[DATA_EVENTS];
    char why[EVENTS_REDIS_WHY_MAX] = "";
    int r = events_redis_open(d->os, &redis, &d->events_redis, why);
    if (r > 0)
        return problem_say(problem, "--events: the URL %s", why);
    if (r)
        return problem_of_result(problem, "cannot open the events in", store->directory, r);
    r = reach_redis(d, source, lanes, problem);
    if (r)
        return r;
    store->ops = &redis_ops;
    store->store = d->events_redis;
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
    if (options.url && tasks_redis_new(d->os, &options, &d->tasks_remote))
        return problem_say(problem, "out of memory");
    name_url(options.url, d->tasks_url);
    return 0;
}

static int open_own_redis(struct data *d, const struct data_options *options,
                          struct problem *problem) {
    enum { REDIS_LANES = 4 };
    char source[SOURCE_DIGITS + 1];
    int r = take_source(d, source, problem);
    return r ? r
             : open_redis(d, source, options->events.lanes ? options->events.lanes : REDIS_LANES,
                          problem);
}

static int open_tasks(struct data *d, const struct data_options *options, struct problem *problem) {
    struct data_store *store = &d->stores[DATA_TASKS];
    struct tasks_store_options tasks = options->tasks;
    char why[TASKS_REMOTE_WHY_MAX] = "";
    int r = make_tasks_remote(d, problem);
    if (r)
        return r;
    tasks.remote = d->tasks_remote;
    problem->text[0] = '\0';
    r = reach_tasks(d, &tasks, why, sizeof why, problem);
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
    return 0;
}

/* The largest lsn that a store knows, and the one up to which every lane has persisted. */
static lsn_t newest_position(const struct data *d, lsn_t *ret_lowest) {
    lsn_t newest = points_catalog_lsn(d->catalog), lowest = UINT64_MAX;
    if (d->events_redis && events_redis_highest(d->events_redis) > newest)
        newest = events_redis_highest(d->events_redis);
    for (int i = 0; i < DATA_STORES; i++) {
        const struct data_store *store = &d->stores[i];
        lsn_t positions[WORK_LANES_MAX] = {0};
        unsigned lanes = store->ops ? store->ops->lanes(store->store) : 0;
        if (store->ops)
            store->ops->positions(store->store, positions);
        for (unsigned lane = 0; lane < lanes; lane++) {
            newest = positions[lane] > newest ? positions[lane] : newest;
            lowest = positions[lane] < lowest ? positions[lane] : lowest;
        }
    }
    *ret_lowest = lowest;
    return newest;
}

/* Invariant 2: a store that knows more than the journal is noticed, and its lsns are not given
 * again. */
static int compare_positions(struct data *d, struct problem *problem) {
    lsn_t lowest;
    lsn_t newest = newest_position(d, &lowest);
    int left = check_left_behind(d, lowest, problem);
    if (left)
        return left;
    if (newest >= d->recovery.next_lsn)
        d->ahead = newest;
    else if (lowest != UINT64_MAX && lowest + 1 < d->recovery.first_lsn)
        d->behind = lowest;
    int r = journal_advance(d->journal, newest, &d->gap);
    if (r)
        return problem_of_result(problem, "cannot write to the journal", d->journal_directory, r);
    return 0;
}

static int make_workers(struct data *d, struct data_store *store,
                        const struct data_options *options, struct metrics *metrics,
                        struct problem *problem) {
    lsn_t positions[WORK_LANES_MAX] = {0};
    unsigned lanes = store->ops->lanes(store->store);
    struct work_options work = {.lanes = lanes,
                                .threads_min = options->workers_min ? options->workers_min : 1,
                                .threads_max =
                                    options->workers_max ? options->workers_max : process_cores(),
                                .queue_bytes_max = options->queue_bytes_max};
    assert(lanes >= 1 && lanes <= WORK_LANES_MAX);
    if (store->store == d->events_redis)
        work.batch_records_max = EVENTS_REDIS_BATCH;
    if ((store->store == d->points && d->cluster) || store->store == d->events_redis)
        /* they wait for answers, not for a core */
        work.threads_max = lanes;
    if (work.threads_max < work.threads_min)
        work.threads_max = work.threads_min;
    store->ops->positions(store->store, positions);
    int r = work_new(d->os, d->journal, store->ops->work, store->store, positions, &work, metrics,
                     &store->work);
    return r ? problem_of_result(problem, "cannot make the workers of", store->directory, r) : 0;
}

static int open_directory(struct data *d, const struct data_options *options,
                          struct problem *problem) {
    const bool elsewhere[DATA_STORES] = {[DATA_POINTS] = options->qdrant,
                                         [DATA_EVENTS] = options->events_url,
                                         [DATA_TASKS] = options->tasks_url};
    struct data_paths paths;
    int r = join_paths(d->directory, elsewhere, &paths, problem);
    for (int i = 0; !r && i < DATA_STORES; i++)
        r = check_kind(d->os, d->directory, i, elsewhere[i], problem);
    if (!r)
        r = make_directory(d, d->directory, problem);
    if (!r)
        r = take_lock(d->os, d->directory, &d->lock, problem);
    if (!r)
        r = read_format(d->os, d->directory, true, problem);
    if (!r)
        r = make_directory(d, paths.journal, problem);
    for (int i = 0; !r && i < DATA_STORES; i++)
        if (i == DATA_POINTS || !options->no_keyed)
            r = make_directory(d, paths.stores[i], problem);
    if (r)
        return r;
    memcpy(d->journal_directory, paths.journal, sizeof paths.journal);
    for (int i = 0; i < DATA_STORES; i++)
        memcpy(d->stores[i].directory, paths.stores[i], sizeof paths.stores[i]);
    return 0;
}

static int open_parts(struct data *d, const struct data_options *options, struct metrics *metrics,
                      struct problem *problem) {
    int r = open_directory(d, options, problem);
    if (!r)
        r = open_journal(d, problem);
    if (!r)
        r = open_points(d, options, problem);
    if (!r && !options->no_keyed)
        r = options->events_url ? open_own_redis(d, options, problem)
                                : open_events(d, options, problem);
    if (!r && !options->no_keyed)
        r = open_tasks(d, options, problem);
    if (!r)
        r = compare_positions(d, problem);
    for (int i = 0; !r && i < DATA_STORES; i++)
        if (d->stores[i].ops)
            r = make_workers(d, &d->stores[i], options, metrics, problem);
    return r;
}

/* ---- One of many processes ---- */

/* Everything that several processes do to a store has to be the same whoever does it, and in
 * whatever order their records come: so it is with tags, whose store they share. */
static int check_shared(const struct data_options *options, struct problem *problem) {
    unsigned all = DATA_ROLE_API | DATA_ROLE_WORKER;
    bool shared = options->journal.url && journal_url_is_shared(options->journal.url);
    if (!shared && options->roles && options->roles != all)
        return problem_say(problem, "--roles divides the work among processes that share a "
                                    "journal: give --journal kafka://…/?partitions=12 and "
                                    "--events redis+cluster://…");
    if (shared && !options->events_url)
        return problem_say(problem, "a journal with partitions is for stores that all processes "
                                    "share: give --events redis+cluster://…, or leave partitions "
                                    "out of --journal");
    if (shared && (options->qdrant || options->tasks_url))
        return problem_say(problem, "points and tasks need one order of their records, and a "
                                    "journal with partitions has none: it carries events alone; "
                                    "leave out --points and --tasks here");
    return 0;
}

/* The topic by which the cluster knows whose records it has. */
static int name_source(const struct data *d, char source[SOURCE_MAX], struct problem *problem) {
    const char *prefix = service_url_parameter(d->options.journal.url, "topic-prefix");
    int size = snprintf(source, SOURCE_MAX, "kafka:%srecords", prefix ? prefix : "");
    return size < SOURCE_MAX ? 0 : problem_say(problem, "the topic-prefix is too long");
}

static int open_shared(struct data *d, struct problem *problem) {
    unsigned roles = d->options.roles, lanes = journal_url_partitions(d->options.journal.url);
    char source[SOURCE_MAX];
    d->shared = true;
    if (lanes == 0)
        return problem_say(problem, "--journal: partitions is a number from 1 to %d",
                           GROUP_PARTITIONS_MAX);
    name_url(d->options.journal.url, d->journal_url);
    int r = name_source(d, source, problem);
    if (!r)
        r = open_redis(d, source, lanes, problem);
    if (!r && events_redis_lanes(d->events_redis) != lanes)
        return problem_say(problem,
                           "--journal: the events of this cluster are divided into %u "
                           "partitions, not %u",
                           events_redis_lanes(d->events_redis), lanes);
    if (r || !(roles & DATA_ROLE_API))
        return r;
    problem->text[0] = '\0';
    r = reach_journal(d, problem);
    if (r && !problem->text[0])
        problem_say(problem, "the journal cannot be opened: %s", r > 0 ? d->told : "out of memory");
    return r ? SERVE_E_PROBLEM : 0;
}

static int open_all(struct data *d, const struct data_options *options, struct metrics *metrics,
                    struct problem *problem) {
    int r = check_shared(options, problem);
    if (r)
        return r;
    if (options->journal.url && journal_url_is_shared(options->journal.url))
        return open_shared(d, problem);
    return open_parts(d, options, metrics, problem);
}

int data_open(struct os *os, const struct data_options *options, struct metrics *metrics,
              struct data **ret_data, struct problem *problem) {
    struct data *d = calloc(1, sizeof *d);
    if (!d)
        return problem_say(problem, "out of memory");
    d->os = os;
    d->options = *options;
    if (d->options.roles == 0)
        d->options.roles = DATA_ROLE_API | DATA_ROLE_WORKER;
    int size = snprintf(d->directory, sizeof d->directory, "%s", options->directory);
    int r = size < (int)sizeof d->directory
                ? open_all(d, options, metrics, problem)
                : problem_say(problem, "the path of the data directory is too long");
    if (r) {
        data_close(d);
        return r;
    }
    *ret_data = d;
    return 0;
}

struct data *data_close(struct data *d) {
    if (!d)
        return NULL;
    for (int i = 0; i < DATA_STORES; i++)
        work_free(d->stores[i].work);
    journal_close(d->journal);
    tasks_store_close(d->tasks);
    tasks_redis_free(d->tasks_remote);
    events_store_close(d->events);
    events_redis_close(d->events_redis);
    event_once_free(d->once);
    event_dictionary_free(d->dictionary);
    points_store_close(d->points);
    qdrant_cluster_free(d->cluster);
    bulk_tasks_free(d->bulk);
    points_catalog_free(d->catalog);
    os_close(d->os, d->lock);
    free(d);
    return NULL;
}

int data_checkpoint(struct data *d, enum data_store_kind kind) {
    struct data_store *store = &d->stores[kind];
    lsn_t positions[WORK_LANES_MAX] = {0};
    int r = store->ops->checkpoint(store->store, d->journal);
    /* Also when it failed: a file that cannot be removed after the manifest must not stop the
     * journal's retention. */
    store->ops->positions(store->store, positions);
    if (store->work)
        work_persisted(store->work, positions);
    return error_trace(r);
}

uint64_t data_dirty_bytes(const struct data *d, enum data_store_kind kind) {
    const struct data_store *store = &d->stores[kind];
    return store->ops->dirty_bytes(store->store);
}

bool data_is_behind(const struct data *d, enum data_store_kind kind) {
    const struct data_store *store = &d->stores[kind];
    return store->ops->is_behind && store->ops->is_behind(store->store);
}

bool data_wants_checkpoint(const struct data *d, enum data_store_kind kind) {
    const struct data_store *store = &d->stores[kind];
    return store->ops->wants_checkpoint && store->ops->wants_checkpoint(store->store);
}

/* ---- Checking ---- */

struct verifier {
    void (*each)(void *context, const char *sentence);
    void *context;
    uint64_t damages;
};

static void count_damage(void *context, const char *sentence) {
    struct verifier *v = context;
    v->damages++;
    v->each(v->context, sentence);
}

static int verify_parts(struct os *os, const struct data_paths *paths, struct verifier *verifier,
                        struct data_findings *findings, struct problem *problem) {
    const char *points = paths->stores[DATA_POINTS];
    const char *events = paths->stores[DATA_EVENTS];
    const char *tasks = paths->stores[DATA_TASKS];
    int r = journal_verify(os, paths->journal, count_damage, verifier, &findings->journal);
    if (r)
        return problem_of_result(problem, "cannot read the journal", paths->journal, r);
    r = points_store_verify(os, points, count_damage, verifier, &findings->points);
    if (r)
        return problem_of_result(problem, "cannot read the points in", points, r);
    findings->events_elsewhere = paths->elsewhere[DATA_EVENTS];
    if (!findings->events_elsewhere && exists(os, events)) /* not of an earlier version */
        r = events_store_verify(os, events, count_damage, verifier, &findings->events);
    if (r)
        return problem_of_result(problem, "cannot read the events in", events, r);
    findings->tasks_elsewhere = paths->elsewhere[DATA_TASKS];
    if (exists(os, tasks) && !findings->tasks_elsewhere)
        r = tasks_store_verify(os, tasks, count_damage, verifier, &findings->tasks);
    if (r)
        return problem_of_result(problem, "cannot read the tasks in", tasks, r);
    return 0;
}

int data_verify(struct os *os, const char *directory,
                void (*each)(void *context, const char *sentence), void *context,
                struct data_findings *ret_findings, struct problem *problem) {
    struct verifier verifier = {.each = each, .context = context};
    struct data_findings findings = {0};
    struct data_paths paths;
    struct os_file *lock;
    int r = data_lock(os, directory, &lock, problem);
    if (r)
        return r;
    r = find_paths(os, directory, &paths, problem);
    if (!r)
        r = verify_parts(os, &paths, &verifier, &findings, problem);
    os_close(os, lock);
    if (r)
        return r;
    findings.damages = verifier.damages;
    *ret_findings = findings;
    return verifier.damages ? SERVE_E_DAMAGE : 0;
}
