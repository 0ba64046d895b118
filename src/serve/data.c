/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a data directory. The order matters: the lock before anything is looked at, the version
 * before anything is changed, the journal before the stores, and the journal's next lsn above every
 * position before the first append (invariant 2).
 */
#include "serve/data.h"

#include "os/process.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static const char format_prefix[] = "millrace-data ";
enum { SMALL_FILE_MAX = 64 };

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

static int take_lock(struct os *os, const char *directory, struct os_file **ret_file,
                     struct problem *problem) {
    char path[OS_PATH_MAX];
    struct os_file *file;
    if (os_path_join(path, directory, "LOCK"))
        return problem_say(problem, "the path of the data directory is too long");
    int r = os_open(os, path, OS_OPEN_WRITE | OS_OPEN_CREATE, &file);
    if (r)
        return problem_of_result(problem, "cannot write to the data directory", directory, r);
    r = os_lock(os, file);
    if (r == OS_E_LOCKED)
        problem_say(problem,
                    "%s is in use by another millrace (pid %" PRIu64
                    "); stop it first, or choose another --data-dir",
                    directory, lock_owner(os, file));
    else if (r || (r = write_owner(os, file)))
        problem_of_result(problem, "cannot lock the data directory", directory, r);
    if (r) {
        os_close(os, file);
        return SERVE_E_PROBLEM;
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

static int join_paths(const char *directory, char journal[OS_PATH_MAX], char points[OS_PATH_MAX],
                      struct problem *problem) {
    if (os_path_join(journal, directory, "journal") || os_path_join(points, directory, "points"))
        return problem_say(problem, "the path of the data directory is too long");
    return 0;
}

int data_paths(struct os *os, const char *directory, char journal[OS_PATH_MAX],
               char points[OS_PATH_MAX], struct problem *problem) {
    int r = read_format(os, directory, false, problem);
    return r ? r : join_paths(directory, journal, points, problem);
}

/* ---- What is inside ---- */

static int make_directory(struct data *d, const char *path, struct problem *problem) {
    int r = os_make_path(d->os, path);
    return r ? problem_of_result(problem, "cannot make the data directory", path, r) : 0;
}

static int open_journal(struct data *d, const struct data_options *options,
                        struct problem *problem) {
    int r = journal_open(d->os, d->journal_directory, &options->journal, &d->journal, &d->recovery);
    if (r == JOURNAL_E_LOCKED)
        return problem_say(problem, "%s is in use by another process", d->journal_directory);
    if (r == JOURNAL_E_VERSION)
        return problem_say(problem, "%s was written by a newer millrace; run that version",
                           d->journal_directory);
    if (r)
        return problem_of_result(problem, "cannot open the journal", d->journal_directory, r);
    return 0;
}

static int open_points(struct data *d, const struct data_options *options,
                       struct problem *problem) {
    int r = points_catalog_new(&d->catalog);
    if (!r)
        r = bulk_tasks_new(d->os, &d->tasks);
    if (!r)
        r = points_store_open(d->os, d->points_directory, d->catalog, d->tasks, &options->points,
                              &d->points, &d->report);
    if (r == -EPROTO)
        return problem_say(problem,
                           "the manifest of %s is damaged; run `millrace check --data-dir %s`",
                           d->points_directory, d->directory);
    if (r)
        return problem_of_result(problem, "cannot open the points in", d->points_directory, r);
    return 0;
}

/* Invariant 2: a store that knows more than the journal is noticed, and its lsns are not given
 * again. */
static int compare_positions(struct data *d, const lsn_t *positions, struct problem *problem) {
    lsn_t above = points_catalog_lsn(d->catalog);
    for (unsigned lane = 0; lane < points_store_lanes(d->points); lane++)
        if (positions[lane] > above)
            above = positions[lane];
    if (above >= d->recovery.next_lsn)
        d->ahead = above;
    int r = journal_advance(d->journal, above, &d->gap);
    if (r)
        return problem_of_result(problem, "cannot write to the journal", d->journal_directory, r);
    return 0;
}

static int make_workers(struct data *d, const struct data_options *options, struct metrics *metrics,
                        struct problem *problem) {
    lsn_t positions[WORK_LANES_MAX] = {0};
    unsigned lanes = points_store_lanes(d->points);
    struct work_options work = {.lanes = lanes,
                                .threads_min = options->workers_min ? options->workers_min : 1,
                                .threads_max =
                                    options->workers_max ? options->workers_max : process_cores(),
                                .queue_bytes_max = options->queue_bytes_max};
    assert(lanes >= 1 && lanes <= WORK_LANES_MAX);
    if (work.threads_max < work.threads_min)
        work.threads_max = work.threads_min;
    points_store_positions(d->points, positions);
    int r = compare_positions(d, positions, problem);
    if (r)
        return r;
    r = work_new(d->os, d->journal, &points_store_work_ops, d->points, positions, &work, metrics,
                 &d->work);
    return r ? problem_of_result(problem, "cannot make the workers of", d->directory, r) : 0;
}

static int open_parts(struct data *d, const struct data_options *options, struct metrics *metrics,
                      struct problem *problem) {
    int r = join_paths(d->directory, d->journal_directory, d->points_directory, problem);
    if (!r)
        r = make_directory(d, d->directory, problem);
    if (!r)
        r = take_lock(d->os, d->directory, &d->lock, problem);
    if (!r)
        r = read_format(d->os, d->directory, true, problem);
    if (!r)
        r = make_directory(d, d->journal_directory, problem);
    if (!r)
        r = make_directory(d, d->points_directory, problem);
    if (!r)
        r = open_journal(d, options, problem);
    if (!r)
        r = open_points(d, options, problem);
    if (!r)
        r = make_workers(d, options, metrics, problem);
    return r;
}

int data_open(struct os *os, const struct data_options *options, struct metrics *metrics,
              struct data **ret_data, struct problem *problem) {
    struct data *d = calloc(1, sizeof *d);
    if (!d)
        return problem_say(problem, "out of memory");
    d->os = os;
    int size = snprintf(d->directory, sizeof d->directory, "%s", options->directory);
    int r = size < (int)sizeof d->directory
                ? open_parts(d, options, metrics, problem)
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
    work_free(d->work);
    journal_close(d->journal);
    points_store_close(d->points);
    bulk_tasks_free(d->tasks);
    points_catalog_free(d->catalog);
    os_close(d->os, d->lock);
    free(d);
    return NULL;
}

int data_checkpoint(struct data *d) {
    lsn_t positions[WORK_LANES_MAX] = {0};
    int r = points_store_checkpoint(d->points, d->journal);
    /* Also when it failed: a file that cannot be removed after the manifest must not stop the
     * journal's retention. */
    points_store_positions(d->points, positions);
    work_persisted(d->work, positions);
    return error_trace(r);
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

static int verify_parts(struct os *os, const char *journal, const char *points,
                        struct verifier *verifier, struct data_findings *findings,
                        struct problem *problem) {
    int r = journal_verify(os, journal, count_damage, verifier, &findings->journal);
    if (r)
        return problem_of_result(problem, "cannot read the journal", journal, r);
    r = points_store_verify(os, points, count_damage, verifier, &findings->points);
    if (r)
        return problem_of_result(problem, "cannot read the points in", points, r);
    return 0;
}

int data_verify(struct os *os, const char *directory,
                void (*each)(void *context, const char *sentence), void *context,
                struct data_findings *ret_findings, struct problem *problem) {
    struct verifier verifier = {.each = each, .context = context};
    struct data_findings findings = {0};
    char journal[OS_PATH_MAX];
    char points[OS_PATH_MAX];
    struct os_file *lock;
    int r = data_lock(os, directory, &lock, problem);
    if (r)
        return r;
    r = join_paths(directory, journal, points, problem);
    if (!r)
        r = verify_parts(os, journal, points, &verifier, &findings, problem);
    os_close(os, lock);
    if (r)
        return r;
    findings.damages = verifier.damages;
    *ret_findings = findings;
    return verifier.damages ? SERVE_E_DAMAGE : 0;
}
