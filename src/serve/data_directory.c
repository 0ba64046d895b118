/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A data directory as it lies on the disk: its lock, its version, which store is where and whose,
 * and checking it while nobody has it open.
 */
#include "serve/data_parts.h"

#include "os/process.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static const char format_prefix[] = "millrace-data ";
enum {
    ORPHANED_LOCK_TIMEOUT_MS = 5000,
    ORPHANED_LOCK_POLL_MS = 5,
};

/* ---- The lock ---- */

/* The number that the process which has the lock wrote into it; 0 when it is not there. */
static uint64_t lock_owner(struct os *os, struct os_file *file) {
    char text[DATA_SMALL_FILE_MAX + 1] = "";
    size_t size = 0;
    uint64_t pid = 0;
    if (os_read_all(os, file, text, DATA_SMALL_FILE_MAX, 0, &size))
        return 0;
    for (size_t i = 0; i < size && text[i] >= '0' && text[i] <= '9'; i++)
        pid = pid * 10 + (uint64_t)(text[i] - '0');
    return pid;
}

static int write_owner(struct os *os, struct os_file *file) {
    char text[DATA_SMALL_FILE_MAX];
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

int data_take_lock(struct os *os, const char *directory, struct os_file **ret_file,
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
    char text[DATA_SMALL_FILE_MAX];
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

int data_read_format(struct os *os, const char *directory, bool create, struct problem *problem) {
    struct buffer text CLEANUP(buffer_deinit) = BUFFER_INIT;
    char path[OS_PATH_MAX];
    if (os_path_join(path, directory, "FORMAT"))
        return problem_say(problem, "the path of the data directory is too long");
    int r = os_load(os, path, DATA_SMALL_FILE_MAX, &text);
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
    int r = data_read_format(os, directory, false, problem);
    if (r)
        return r;
    r = data_take_lock(os, directory, &lock, problem);
    if (r)
        return r;
    *ret_lock = lock;
    return 0;
}
const char *const data_store_names[DATA_STORES] = {"points", "events", "tasks"};

static void ignore(void *context UNUSED, const char *name UNUSED) {
}

static bool exists(struct os *os, const char *directory) {
    return os_list(os, directory, ignore, NULL) != OS_E_NOT_FOUND;
}

static void count(void *entries, const char *name UNUSED) {
    ++*(size_t *)entries;
}

/* The directory of a start that never reached its engine binds nobody: it is empty, or has a name
 * that the cluster was not told. */
static bool is_in_use(struct os *os, const char *directory) {
    CLEANUP(buffer_deinit) struct buffer source = BUFFER_INIT;
    char path[OS_PATH_MAX];
    size_t entries = 0;
    if (os_list(os, directory, count, &entries) == OS_E_NOT_FOUND || entries == 0)
        return false;
    return entries > 1 || os_path_join(path, directory, DATA_SOURCE_FILE) ||
           os_load(os, path, DATA_SMALL_FILE_MAX, &source) || source.size != DATA_SOURCE_DIGITS;
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
    if (os_path_join(paths->stores[kind], directory, "%s%s", data_store_names[kind],
                     paths->elsewhere[kind] ? others[kind].suffix : ""))
        return problem_say(problem, "the path of the data directory is too long");
    return 0;
}

int data_join_paths(const char *directory, const bool elsewhere[DATA_STORES],
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
    int r = data_join_paths(directory, elsewhere, paths, problem);
    for (int kind = 0; !r && kind < DATA_STORES; kind++)
        if (paths->elsewhere[kind] && !is_in_use(os, paths->stores[kind]))
            r = join_path(directory, kind, false, paths, problem);
    return r;
}

int data_check_kind(struct os *os, const char *directory, int kind, bool elsewhere,
                    struct problem *problem) {
    struct data_paths other;
    int r = others[kind].suffix ? join_path(directory, kind, !elsewhere, &other, problem) : 0;
    if (r || !others[kind].suffix || !is_in_use(os, other.stores[kind]))
        return r;
    if (elsewhere)
        return problem_say(problem,
                           "%s keeps its %s itself, in %s; with %s choose another --data-dir, and "
                           "copy the %s by the API",
                           directory, data_store_names[kind], other.stores[kind],
                           others[kind].option, data_store_names[kind]);
    return problem_say(problem, "the %s of %s are %s: give %s again, or choose another --data-dir",
                       data_store_names[kind], directory, others[kind].owner, others[kind].flag);
}

int data_find_paths(struct os *os, const char *directory, struct data_paths *ret_paths,
                    struct problem *problem) {
    int r = data_read_format(os, directory, false, problem);
    return r ? r : find_paths(os, directory, ret_paths, problem);
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
