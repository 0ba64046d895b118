/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `millrace load records|movies`: makes the collection, sends the records, waits until they are
 * visible, reports. Exits non-zero when anything was not acknowledged or did not become visible.
 * Interrupted, it stops sending, waits for the answers under way and reports; a second time, it
 * ends at once.
 */
#include "cli/cli.h"
#include "cli/load_admin.h"

#include "os/process.h"

enum {
    TURN_MS = 100,         /* of the progress bar */
    LINE_MS = 5000,        /* of the progress lines */
    DRAIN_TURN_MS = 10,    /* between looks at how much is visible */
    DRAIN_STUCK_MS = 60000 /* without progress: it will not become visible */
};
enum { RECORDS_DEFAULT = 10000 };

/* ---- Until all is acknowledged ---- */

/* True when it was interrupted. */
static bool watch(const struct load_plan *plan, struct load_run *run, bool quiet) {
    bool interrupted = false;
    bool terminal = process_is_terminal(fileno(stderr));
    uint64_t interval_ms = terminal ? TURN_MS : LINE_MS;
    uint64_t passed_ms = 0;
    while (load_running(run)) {
        if (process_wait_signal(DRAIN_TURN_MS) != PROCESS_SIGNAL_NONE) {
            interrupted = true;
            load_stop(run);
            process_exit_on_signal();
        }
        passed_ms += DRAIN_TURN_MS;
        if (!quiet && passed_ms % interval_ms == 0)
            load_print_progress(stderr, terminal, plan, load_progress_of(run), false);
    }
    if (!quiet)
        load_print_progress(stderr, terminal, plan, load_progress_of(run), true);
    process_exit_on_signal();
    return interrupted;
}

/* ---- Until all is visible ---- */

struct drain {
    struct admin *admin;
    const struct load_report *report;
    uint64_t wanted;  /* points that there will be; 0: cannot be told from their number */
    const char *task; /* the first that has not ended */
};

/* One look. ret_seen grows as long as there is progress. */
static int look(struct drain *d, bool *ret_done, uint64_t *ret_seen) {
    const struct buffer *tasks = &d->report->result->tasks;
    const struct load_source *source = d->report->plan->source;
    bool ended = true;
    int r = 0;
    if (source->makes_tasks) {
        const char *end = (const char *)tasks->data + tasks->size;
        while (ended && d->task < end && !(r = admin_task_ended(d->admin, d->task, &ended)))
            if (ended)
                d->task += strlen(d->task) + 1;
        *ret_seen = tasks->size - (uint64_t)(end - d->task);
        *ret_done = !r && d->task >= end;
    } else if (d->wanted > 0) {
        r = admin_count(d->admin, ret_seen);
        *ret_done = !r && *ret_seen >= d->wanted;
    } else {
        uint64_t n = source->batch < source->count ? source->batch : source->count;
        r = admin_repeat(d->admin, source->count - n, n);
        *ret_done = !r;
    }
    return r;
}

static int drain(struct drain *d, const struct load_plan *plan) {
    uint64_t moved_ns = os_monotonic_ns(plan->os);
    uint64_t before = 0;
    for (;;) {
        bool done = false;
        uint64_t seen = before;
        int r = look(d, &done, &seen);
        if (r || done)
            return r;
        uint64_t now = os_monotonic_ns(plan->os);
        if (seen != before)
            moved_ns = now;
        if (now - moved_ns > (uint64_t)DRAIN_STUCK_MS * 1000000) {
            snprintf(d->admin->error, sizeof d->admin->error,
                     "what was acknowledged has not become visible for %d s",
                     DRAIN_STUCK_MS / 1000);
            return ADMIN_E_FAILED;
        }
        before = seen;
        os_sleep_ns(plan->os, (uint64_t)DRAIN_TURN_MS * 1000000);
    }
}

static double seconds_from(const struct load_progress *progress, uint64_t end_ns) {
    return end_ns > progress->start_ns ? (double)(end_ns - progress->start_ns) * 1e-9 : 0;
}

/* before: points that were there when it began. */
static int wait_until_visible(struct load_report *report, struct admin *admin, uint64_t before) {
    uint64_t acknowledged = atomic_load(&report->progress->acknowledged);
    struct drain d = {.admin = admin,
                      .report = report,
                      .wanted = before == 0 ? acknowledged : 0,
                      .task = (const char *)report->result->tasks.data};
    if (acknowledged == 0)
        return 0;
    int r = drain(&d, report->plan);
    if (r)
        return r;
    report->applied_s = seconds_from(report->progress, os_monotonic_ns(report->plan->os));
    return 0;
}

/* ---- The whole ---- */

static int report_and_judge(const struct cli *cli, const struct load_report *report) {
    uint64_t errors = atomic_load(&report->progress->errors);
    if (options_flag(cli->options, OPTION_JSON))
        load_print_json(stdout, report);
    else
        load_print_report(stdout, report);
    if (errors > 0)
        return cli_fail(CLI_FAILED, "%llu requests failed; the first: %s",
                        (unsigned long long)errors, report->result->sample);
    return report->complete ? CLI_OK : CLI_FAILED;
}

static int run_load(const struct cli *cli, const struct load_plan *plan, struct admin *admin) {
    struct load_run *run;
    uint64_t before = 0;
    if (admin_ensure_collection(admin) || admin_count(admin, &before))
        return cli_fail(CLI_FAILED, "%s", admin->error);
    if (process_block_signals() || load_start(plan, &run))
        return cli_fail(CLI_FAILED, "the threads cannot be started");
    bool interrupted = watch(plan, run, options_flag(cli->options, OPTION_JSON));
    struct load_report report = {.plan = plan,
                                 .progress = load_progress_of(run),
                                 .result = load_join(run),
                                 .applied_s = -1,
                                 .complete = !interrupted};
    report.acknowledged_s = seconds_from(report.progress, report.result->last_ns);
    if (interrupted)
        cli_fail(CLI_FAILED, "interrupted; what was acknowledged is kept");
    else if (!options_flag(cli->options, OPTION_NO_DRAIN) &&
             wait_until_visible(&report, admin, before)) {
        report.complete = false;
        cli_fail(CLI_FAILED, "%s", admin->error);
    }
    int status = report_and_judge(cli, &report);
    load_free(run);
    return status;
}

static int make_plan(const struct cli *cli, const struct load_source *source, char *key,
                     struct load_plan *ret_plan) {
    const struct options *o = cli->options;
    const char *text = options_text(o, OPTION_URL);
    char authority[URL_HOST_MAX + 8];
    struct load_plan plan = {.os = cli->os,
                             .source = source,
                             .connections = (unsigned)options_number(o, OPTION_CONNECTIONS),
                             .threads = (unsigned)options_number(o, OPTION_LOAD_THREADS),
                             .rate = options_number(o, OPTION_RATE)};
    int status = cli_api_key(cli, o, key);
    if (status)
        return status;
    plan.target.api_key = key;
    if (url_parse(text, &plan.target.url))
        return cli_fail(CLI_USAGE, "--url %s is not a URL as http://127.0.0.1:8000", text);
    url_authority(&plan.target.url, authority);
    if (socket_address_parse(authority, &plan.address))
        return cli_fail(CLI_FAILED, "--url %s: there is no such host", text);
    *ret_plan = plan;
    return CLI_OK;
}

static int make_source(const struct cli *cli, struct load_source *source) {
    const struct options *o = cli->options;
    const char *kind = o->arguments[0];
    const char *collection = options_text(o, OPTION_COLLECTION);
    bool movies = strcmp(kind, "movies") == 0;
    if (o->n_arguments > 1 || (!movies && strcmp(kind, "records") != 0))
        return cli_fail(CLI_USAGE, "load takes one of records and movies, not \"%.80s\"",
                        o->n_arguments > 1 ? o->arguments[1] : kind);
    if (collection && strlen(collection) > LOAD_COLLECTION_MAX)
        return cli_fail(CLI_USAGE, "--collection is longer than %d bytes", LOAD_COLLECTION_MAX);
    source->dimension = (unsigned)options_number(o, OPTION_DIMENSION);
    source->batch = options_number(o, OPTION_BATCH_SIZE);
    source->seed = options_number(o, OPTION_SEED);
    int r = movies ? load_source_movies(source, collection ? collection : "movies")
                   : load_source_records(source, collection ? collection : "test_collection",
                                         options_flag(o, OPTION_WAIT));
    if (r == LOAD_E_NO_MOVIES)
        return cli_fail(CLI_FAILED,
                        "this millrace was built without the movies; build it with npm");
    if (r)
        return cli_fail(CLI_FAILED, "out of memory");
    source->count = options_number(o, OPTION_COUNT);
    if (source->count == 0)
        source->count = movies ? source->n_movies : RECORDS_DEFAULT;
    return CLI_OK;
}

static int run(const struct cli *cli) {
    struct load_source source CLEANUP(load_source_deinit) = {0};
    struct admin admin CLEANUP(admin_deinit) = {.client = {.fd = -1}};
    struct load_plan plan;
    char key[API_KEY_MAX + 1];
    if (cli->options->n_arguments == 0)
        return cli_fail(CLI_USAGE, "say what to load: millrace load records, or load movies");
    int status = make_source(cli, &source);
    if (!status)
        status = make_plan(cli, &source, key, &plan);
    if (status)
        return status;
    process_ignore_broken_pipes();
    if (admin_init(&admin, &plan))
        return cli_fail(CLI_FAILED, "out of memory");
    return run_load(cli, &plan, &admin);
}

const struct cli_command cli_load = {
    .name = "load",
    .bit = FOR_LOAD,
    .summary = "send records to a server and measure it",
    .arguments = "records|movies",
    .prose =
        "records  points with a city, a location and a random vector, by PUT "
        "/collections/…/points\n"
        "movies   the movies of vega-datasets with random vectors, by POST /alioth/ingest\n"
        "\nLatency counts from the first byte sent (with --rate: from when it was due) to the\n"
        "whole answer. A 429 or 503 is waited out and sent again.\n",
    .examples = "    millrace load movies\n"
                "    millrace load records --count 1000000 --batch-size 1000 --threads 2\n"
                "    millrace load records --rate 5000 --connections 64 --batch-size 1 --json\n"
                "    ALIOTH_LOAD_TEST_BATCH_SIZE=500 millrace load movies --collection films\n",
    .run = run,
};
