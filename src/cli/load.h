/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The load generator's parts: what is sent (load_source.c), how it is sent (load_run.c: threads,
 * each with its connections), what is told about it (load_report.c). command_load.c puts them
 * together.
 */
#ifndef MILLRACE_CLI_LOAD_H
#define MILLRACE_CLI_LOAD_H

#include "base/json.h"
#include "cli/client.h"
#include "cli/histogram.h"
#include "os/sync.h"

#include <stdatomic.h>
#include <stdio.h>

/* ---- What is sent ---- */

enum { LOAD_COLLECTION_MAX = 255, LOAD_PATH_MAX = 1024 };

struct load_source {
    const char *name; /* "records", "movies" */
    const char *method;
    char path[LOAD_PATH_MAX];
    char collection[LOAD_COLLECTION_MAX + 1];
    bool makes_tasks; /* an answer names a task_id */
    uint64_t count;   /* records in all */
    uint64_t batch;
    uint64_t seed;
    unsigned dimension;
    char (*digits)[4];    /* "0000" to "9999" */
    struct buffer movies; /* the payloads, one behind the other */
    uint32_t *movie_ends; /* where each ends */
    uint32_t n_movies;
};

/* wait: ask for wait=true. -ENOMEM. */
int load_source_records(struct load_source *source, const char *collection, bool wait) MUST_USE;
enum { LOAD_E_NO_MOVIES = 1 }; /* the binary was built without them */
int load_source_movies(struct load_source *source, const char *collection) MUST_USE;
void load_source_deinit(struct load_source *source);
/* Appends the body with the records first to first + n - 1. */
void load_append_body(const struct load_source *source, uint64_t first, uint64_t n,
                      struct buffer *out);
/* Appends n random numbers from -1 to 1 with eight decimals, as "0.12345678,-0.5…". */
void load_append_vector(const struct load_source *source, uint64_t seed, struct buffer *out);
/* Appends name as one segment of a path. */
void load_append_segment(struct buffer *out, const char *name);

/* ---- How it is sent ---- */

enum { LOAD_STATUSES = 600, LOAD_SAMPLE_MAX = 300 };

struct load_plan {
    struct os *os;
    struct client_target target;
    struct socket_address address;
    const struct load_source *source;
    unsigned connections;
    unsigned threads;
    uint64_t rate; /* records a second; 0: no limit */
};

/* Counted while it runs, by every thread. */
struct load_progress {
    _Atomic uint64_t next; /* the first record that nobody has taken */
    _Atomic uint64_t acknowledged;
    _Atomic uint64_t errors; /* requests that failed for good */
    _Atomic uint64_t throttled;
    _Atomic bool stop;
    uint64_t start_ns;
};

struct load_result {
    uint64_t statuses[LOAD_STATUSES]; /* answers by status; [0]: connections lost for good */
    struct histogram latency;         /* ns, of requests that were acknowledged */
    uint64_t last_ns;                 /* when the last acknowledgement came */
    char sample[LOAD_SAMPLE_MAX];     /* of the first error */
    struct buffer tasks;              /* ids of tasks, each NUL-terminated */
};

struct load_run;
/* Starts the threads. */
int load_start(const struct load_plan *plan, struct load_run **ret_run) MUST_USE;
const struct load_progress *load_progress_of(const struct load_run *run);
bool load_running(const struct load_run *run);
/* The threads end once what they have sent is answered. */
void load_stop(struct load_run *run);
/* Waits for the threads; the result is valid until load_free. */
const struct load_result *load_join(struct load_run *run);
struct load_run *load_free(struct load_run *run);

/* ---- What is told ---- */

struct load_report {
    const struct load_plan *plan;
    const struct load_progress *progress;
    const struct load_result *result;
    double acknowledged_s; /* until the last acknowledgement */
    double applied_s;      /* until all was visible; negative: not waited for, or not reached */
    bool complete;         /* everything acknowledged became visible, or was not waited for */
};

/* One turn of the progress bar (a terminal) or line; final ends it. */
void load_print_progress(FILE *out, bool terminal, const struct load_plan *plan,
                         const struct load_progress *progress, bool final);
void load_print_report(FILE *out, const struct load_report *report);
void load_print_json(FILE *out, const struct load_report *report);

#endif
