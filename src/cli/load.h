/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The load generator's parts: what is sent (a source: load_records.c, load_tags.c), how it is sent
 * (load_run.c: threads, each with its connections), what is told about it (load_report.c).
 * command_load.c puts them together.
 *
 * A source gives each thread a worker. The run asks the worker for its next request whenever a
 * connection is idle, sends it when it is due, and shows it the answer. A worker belongs to its
 * thread while the run goes on, to the caller after load_join.
 */
#ifndef MILLRACE_CLI_LOAD_H
#define MILLRACE_CLI_LOAD_H

#include "cli/client.h"
#include "cli/histogram.h"
#include "os/sync.h"

#include <stdatomic.h>
#include <stdio.h>

enum {
    LOAD_KINDS_MAX = 3, /* of requests, of one source */
    LOAD_PATH_MAX = 1024,
    LOAD_STATUSES = 600,
    LOAD_SAMPLE_MAX = 300,
    LOAD_LATE_MS = 200, /* an answer that takes longer is counted as late */
};

struct admin;
struct load_plan;
struct load_report;

/* ---- What is sent ---- */

/* Sources embed this as their first member. */
struct load_source {
    const struct load_ops *ops;
    uint64_t count; /* records or tags in all */
    uint64_t batch; /* in one request */
    uint64_t seed;
    uint64_t rate; /* a second; 0: no limit */
};

/* Counted while it runs, by every thread. */
struct load_progress {
    _Atomic uint64_t next;         /* for the source: the first record that nobody has taken */
    _Atomic uint64_t acknowledged; /* records */
    _Atomic uint64_t errors;       /* requests that failed for good */
    _Atomic uint64_t throttled;
    _Atomic uint64_t wrong; /* answers, by the source's own count */
    _Atomic bool stop;
    uint64_t start_ns;
};

struct load_kind_result {
    struct histogram latency; /* ns, of answers that were taken */
    uint64_t late;
};

struct load_result {
    uint64_t statuses[LOAD_STATUSES]; /* answers by status; [0]: connections lost for good */
    struct load_kind_result kinds[LOAD_KINDS_MAX];
    uint64_t last_ns;             /* when the last acknowledgement came */
    char sample[LOAD_SAMPLE_MAX]; /* of the first error */
    struct buffer tasks;          /* ids of tasks, each NUL-terminated */
};

/* What one thread has of a source. Sources that keep more embed this as their first member. */
struct load_worker {
    const struct load_plan *plan;
    struct load_progress *progress;
    struct load_result *result;
    unsigned index; /* of n threads */
    unsigned n;
};

/* A request; filled by take. */
struct load_request {
    unsigned kind; /* its place among the source's kinds */
    const char *method;
    const char *content_type;
    char path[LOAD_PATH_MAX];
    struct buffer text; /* take appends the body */
    uint64_t items;     /* records that the answer acknowledges; 0 for a query */
    bool timed;         /* to be sent due_ns after the start; else at once */
    uint64_t due_ns;
    bool repeatable; /* may be sent again when its connection is lost and nobody knows whether it
                        was taken */
    void *question;  /* question_size bytes of the source's own, kept until the answer is there */
};

struct load_ops {
    const char *name;  /* of the command line: "records" */
    const char *items; /* what is counted: "records", "tags" */
    const char *kinds[LOAD_KINDS_MAX];
    unsigned n_kinds;
    size_t worker_size;
    size_t question_size;
    /* Before the run, blocking: ADMIN_E_FAILED with a sentence in the admin. */
    int (*begin)(struct admin *a);
    /* May be NULL. */
    int (*worker_init)(struct load_worker *w);
    void (*worker_deinit)(struct load_worker *w);
    /* When the next request is due, in ns after the start; 0 when there are no more. NULL: take
     * says it, and may say a time to come. With it a request is made only when it is due. */
    uint64_t (*due)(const struct load_worker *w);
    /* The next request; false when there are no more. */
    bool (*take)(struct load_worker *w, struct load_request *request);
    /* A 2xx answer came. NULL, or what is wrong with it: it then counts as an error. */
    const char *(*answered)(struct load_worker *w, struct load_request *request,
                            const struct client_answer *answer);
    /* After the run, blocking: waits until everything acknowledged is visible. */
    int (*end)(struct admin *a, struct load_report *report);
    /* The source's own lines of the report, and members of its JSON, each with a comma behind. */
    void (*print)(FILE *out, const struct load_report *report);
    void (*append_json)(struct buffer *out, const struct load_report *report);
};

/* ---- How it is sent ---- */

struct load_plan {
    struct os *os;
    struct client_target target;
    struct socket_address address;
    struct load_source *source;
    unsigned connections;
    unsigned threads;
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
unsigned load_workers(const struct load_run *run);
struct load_worker *load_worker_of(const struct load_run *run, unsigned index);
struct load_run *load_free(struct load_run *run);

/* ---- What is told ---- */

struct load_report {
    const struct load_plan *plan;
    struct load_run *run;
    const struct load_progress *progress;
    const struct load_result *result;
    double acknowledged_s; /* until the last acknowledgement */
    double applied_s;      /* until all was visible; negative: not waited for, or not reached */
    bool complete;         /* everything acknowledged became visible, or was not waited for */
};

/* From the start to end_ns. */
double load_seconds(const struct load_progress *progress, uint64_t end_ns);
/* One turn of the progress bar (a terminal) or line; final ends it. */
void load_print_progress(FILE *out, bool terminal, const struct load_plan *plan,
                         const struct load_progress *progress, bool final);
void load_print_report(FILE *out, const struct load_report *report);
void load_print_json(FILE *out, const struct load_report *report);

#endif
