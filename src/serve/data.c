/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a data directory. The order matters: the lock before anything is looked at, the version
 * before anything is changed, the journal before the stores, and the journal's next lsn above every
 * position before the first append (invariant 2).
 *
 * Or what processes share, without a directory: those who keep the stores are looked at before a
 * journal is made; then, of each kind, the journal, its mark (journal/mark.h), the store.
 */
#include "journal/mark.h"
#include "os/process.h"
#include "serve/data_parts.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { RECOVERED_TIMEOUT_MS = 20000 };

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
static int reach_journal(struct data *d, const char *name, struct journal **ret_journal,
                         struct problem *problem) {
    struct journal_options options = d->options.journal;
    options.name = name;
    options.existing = d->options.existing;
    options.tell = hear_journal;
    options.tell_context = d;
    for (;;) {
        int r = journal_open(d->os, d->journal_directory, &options, ret_journal, &d->recovery);
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
void data_show_url(const struct service_url *url, char out[SERVICE_TEXT_MAX]) {
    CLEANUP(buffer_deinit) struct buffer text = BUFFER_INIT;
    if (!url)
        return;
    service_url_append_public(&text, url);
    buffer_append_u8(&text, 0);
    if (!buffer_check(&text))
        snprintf(out, SERVICE_TEXT_MAX, "%s", (const char *)text.data);
}

static int open_journal(struct data *d, struct problem *problem) {
    data_show_url(d->options.journal.url, d->journal_url);
    problem->text[0] = '\0';
    int r = check_ground(d, problem);
    if (r)
        return r;
    r = reach_journal(d, NULL, &d->journal, problem);
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
    for (int i = 0; i < DATA_STORES; i++)
        d->stores[i].journal = d->journal;
    return await_recovered(d, problem);
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
    int r = data_join_paths(d->directory, elsewhere, &paths, problem);
    for (int i = 0; !r && i < DATA_STORES; i++)
        r = data_check_kind(d->os, d->directory, i, elsewhere[i], problem);
    if (!r)
        r = make_directory(d, d->directory, problem);
    if (!r)
        r = data_take_lock(d->os, d->directory, &d->lock, problem);
    if (!r)
        r = data_read_format(d->os, d->directory, true, problem);
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
    if (!r && options->locked)
        r = options->locked(options->context, problem);
    if (!r)
        r = open_journal(d, problem);
    if (!r)
        r = data_open_points(d, options, problem);
    if (!r && !options->no_keyed)
        r = data_open_events(d, options, problem);
    if (!r && !options->no_keyed)
        r = data_open_tasks(d, options, problem);
    if (!r)
        r = compare_positions(d, problem);
    for (int i = 0; !r && i < DATA_STORES; i++)
        if (d->stores[i].ops)
            r = make_workers(d, &d->stores[i], options, metrics, problem);
    return r;
}

/* ---- One of many processes ---- */

/* Everything that several processes do to a store has to be the same whoever does it, and in
 * whatever order their records come: so it is with tags and tasks, whose stores they share, and
 * with points, whose records converge. */
static int check_shared(const struct data_options *options, struct problem *problem) {
    unsigned all = DATA_ROLE_API | DATA_ROLE_WORKER;
    bool shared = options->journal.url && journal_url_is_shared(options->journal.url);
    if (!shared && options->roles && options->roles != all)
        return problem_say(problem, "--roles divides the work among processes that share a "
                                    "journal: give --journal kafka://…/?partitions=12, and "
                                    "--events redis+cluster://…, --points qdrant://… or --tasks "
                                    "redis://…");
    if (shared && !options->events_url && !options->qdrant && !options->tasks_url)
        return problem_say(problem, "a journal with partitions is for stores that all processes "
                                    "share: give --events redis+cluster://…, --points qdrant://… "
                                    "or --tasks redis://…, or leave partitions out of --journal");
    if (shared && options->qdrant && !journal_url_keeps_positions(options->journal.url))
        return problem_say(problem, "a Qdrant cluster keeps no positions, and of the engines of a "
                                    "journal with partitions Kafka alone does: give --journal "
                                    "kafka://…, or leave out --points here");
    return 0;
}

static int check_journal(const struct data_options *options, struct problem *problem) {
    char why[GROUP_WHY_MAX];
    int r = options->journal.url ? journal_url_check(options->journal.url, why) : 0;
    if (r > 0)
        return problem_say(problem, "--journal: %s", why);
    return r ? problem_say(problem, "out of memory") : 0;
}

/* Each kind of records has a journal of its own: one whose store is away stops no other. Opened
 * before the store, so that its log is known to have so many partitions before the store remembers
 * the number. Who only applies needs no more of the journal than that; but who applies tasks runs
 * them, and says what becomes of them. */
static int open_shared_journal(struct data *d, enum data_store_kind kind,
                               char ret_identity[GROUP_IDENTITY_MAX], struct problem *problem) {
    struct data_store *store = &d->stores[kind];
    problem->text[0] = '\0';
    int r = reach_journal(d, data_store_names[kind], &store->journal, problem);
    if (r && !problem->text[0])
        problem_say(problem, "the journal cannot be opened: %s", r > 0 ? d->told : "out of memory");
    if (!r)
        snprintf(ret_identity, GROUP_IDENTITY_MAX, "%s", journal_identity(store->journal));
    if (!r && !(d->options.roles & DATA_ROLE_API) && kind != DATA_TASKS)
        store->journal = journal_close(store->journal);
    return r ? SERVE_E_PROBLEM : 0;
}

/* With what its store is to remember it by. */
enum { SOURCE_TEXT_MAX = GROUP_SOURCE_MAX + GROUP_IDENTITY_MAX + 1 };
static int open_known_journal(struct data *d, enum data_store_kind kind,
                              char ret_source[SOURCE_TEXT_MAX], struct problem *problem) {
    char log[GROUP_SOURCE_MAX], identity[GROUP_IDENTITY_MAX] = "";
    journal_url_source(d->options.journal.url, data_store_names[kind], log);
    int r = open_shared_journal(d, kind, identity, problem);
    snprintf(ret_source, SOURCE_TEXT_MAX, "%s%s%s", log, *identity ? "@" : "", identity);
    return r;
}

/* Leaves the text as the journal's mark (journal/mark.h), if it has none; NULL looks. Waits as
 * reach_journal. */
static int reach_mark(struct data *d, enum data_store_kind kind, const char *text,
                      struct journal_mark *ret_mark, struct problem *problem) {
    const struct journal_mark_options options = {.url = d->options.journal.url,
                                                 .name = data_store_names[kind],
                                                 .timeout_ms = d->options.journal.call_timeout_ms};
    char why[GROUP_WHY_MAX] = "";
    int r;
    while ((r = journal_mark(d->os, &options, text, ret_mark, why)) == JOURNAL_E_UNAVAILABLE &&
           d->options.unreachable) {
        r = d->options.unreachable(d->options.context, "journal", why, problem);
        if (r)
            return r;
    }
    return r ? problem_say(problem, "the journal cannot be opened: %s",
                           r > 0 ? why : "out of memory")
             : 0;
}

/* given: what was, or what is wrong with it. */
static int say_other_store(const struct data *d, enum data_store_kind kind,
                           const struct journal_mark *mark, const char *given,
                           struct problem *problem) {
    char log[GROUP_SOURCE_MAX];
    journal_url_source(d->options.journal.url, data_store_names[kind], log);
    return problem_say(
        problem,
        "--%s: the journal %s belongs to %s%s, and what is given is another: %s. "
        "Give what its other processes have, or another journal, by its prefix. If "
        "that store was emptied, restore it; if it has moved, or cannot be restored, "
        "stop all processes and remove %s: the journal then goes on with the store "
        "that is given next, without what the other had",
        data_store_names[kind], log, *mark->text ? "the store " : "another store", mark->text,
        given, mark->place);
}

/* The journal belongs to the store of that name, from now on at the latest; mark: what was seen. */
static int claim_journal(struct data *d, enum data_store_kind kind, const char *name,
                         struct journal_mark *mark, struct problem *problem) {
    if (mark->there ? strcmp(mark->text, name) == 0 : d->options.existing)
        return 0;
    if (!*name)
        return say_other_store(d, kind, mark, "it was made by an earlier version", problem);
    int r = reach_mark(d, kind, name, mark, problem);
    return r || mark->ours ? r : say_other_store(d, kind, mark, name, problem);
}

/* Of one that was to be there. */
static int say_no_store(const struct data *d, enum data_store_kind kind,
                        const struct journal_mark *mark, struct problem *problem) {
    const struct problem missing = *problem;
    if (mark->there)
        return say_other_store(d, kind, mark, missing.text, problem);
    return problem_say(problem, "--%s: %s", data_store_names[kind], missing.text);
}

/* A store is made only where the journal has none: so a prefix that is wrong stays free. */
static int open_marked_store(struct data *d, enum data_store_kind kind, unsigned partitions,
                             struct problem *problem) {
    char source[SOURCE_TEXT_MAX];
    struct journal_mark mark;
    int r = open_known_journal(d, kind, source, problem);
    if (!r)
        r = reach_mark(d, kind, NULL, &mark, problem);
    if (r)
        return r;
    bool create = !mark.there && !d->options.existing;
    r = kind == DATA_EVENTS ? data_open_shared_events(d, source, create, partitions, problem)
                            : data_open_shared_tasks(d, source, create, partitions, problem);
    if (r)
        return r == DATA_E_NO_STORE ? say_no_store(d, kind, &mark, problem) : r;
    const char *name = kind == DATA_EVENTS ? events_redis_identity(d->events_redis)
                                           : tasks_shared_identity(d->tasks_shared);
    return claim_journal(d, kind, name, &mark, problem);
}

/* A Qdrant has nothing to be known by but where it is. */
static int open_shared_points(struct data *d, struct problem *problem) {
    const struct qdrant_url *url = d->options.qdrant;
    char identity[GROUP_IDENTITY_MAX]; /* of the journal: the store does not remember it */
    char name[JOURNAL_MARK_MAX];
    struct journal_mark mark;
    int size = snprintf(name, sizeof name, "qdrant://%s:%u", url->host, url->port);
    assert(size < (int)sizeof name);
    int r = open_shared_journal(d, DATA_POINTS, identity, problem);
    if (!r)
        r = reach_mark(d, DATA_POINTS, NULL, &mark, problem);
    if (!r)
        r = claim_journal(d, DATA_POINTS, name, &mark, problem);
    return r ? r : data_open_shared_points(d, problem);
}

static int open_shared(struct data *d, struct problem *problem) {
    const struct service_url *url = d->options.journal.url;
    unsigned lanes = journal_url_partitions(url);
    data_show_url(url, d->journal_url);
    int r = d->options.locked ? d->options.locked(d->options.context, problem) : 0;
    if (!r)
        r = data_look_at_shared(d, lanes, problem);
    if (!r && d->options.qdrant)
        r = open_shared_points(d, problem);
    if (!r && d->options.events_url)
        r = open_marked_store(d, DATA_EVENTS, lanes, problem);
    if (!r && d->options.tasks_url)
        r = open_marked_store(d, DATA_TASKS, lanes, problem);
    return r;
}

/* What the options say comes first: who is refused for it leaves nothing behind, neither here nor
 * on an engine. */
static int open_all(struct data *d, const struct data_options *options, struct metrics *metrics,
                    struct problem *problem) {
    d->shared = options->journal.url && journal_url_is_shared(options->journal.url);
    int r = check_journal(options, problem);
    if (!r)
        r = check_shared(options, problem);
    if (!r)
        r = data_prepare_stores(d, problem);
    if (r)
        return r;
    return d->shared ? open_shared(d, problem) : open_parts(d, options, metrics, problem);
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
    follow_free(d->follow);
    for (int i = 0; d->shared && i < DATA_STORES; i++)
        journal_close(d->stores[i].journal);
    journal_close(d->journal);
    tasks_store_close(d->tasks);
    tasks_redis_free(d->tasks_remote);
    tasks_shared_close(d->tasks_shared);
    events_store_close(d->events);
    events_redis_close(d->events_redis);
    event_once_free(d->once);
    event_dictionary_free(d->dictionary);
    points_store_close(d->points);
    points_shared_free(d->points_shared);
    kept_letters_close(d->letters);
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

void data_count_letters(struct data *d, enum data_store_kind kind) {
    struct data_store *store = &d->stores[kind];
    const struct letter_box *box = &store->letters;
    char why[WORK_LETTER_WHY_MAX];
    uint64_t n;
    if (box->ops && box->ops->count && box->ops->count(box->store, &n, why) == 0)
        atomic_store(&store->n_letters, n);
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
