/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `millrace load records|movies|tags`: sends them, waits until they are visible, reports. Exits
 * non-zero when anything was not acknowledged, did not become visible, or was answered wrongly.
 * Interrupted, it stops sending, waits for the answers under way and reports; a second time, it
 * ends at once.
 */
#include "cli/cli.h"
#include "cli/load_admin.h"
#include "cli/load_records.h"
#include "cli/load_tags.h"

#include "os/process.h"

#include <inttypes.h>

enum {
    TURN_MS = 100,  /* of the progress bar */
    LINE_MS = 5000, /* of the progress lines */
    WATCH_MS = 10,  /* between looks whether it has ended */
};
enum { RECORDS_DEFAULT = 10000, TAGS_DEFAULT = 100000, TAG_CONNECTIONS = 64 };

/* ---- Until all is acknowledged ---- */

/* True when it was interrupted. */
static bool watch(const struct load_plan *plan, struct load_run *run, bool quiet) {
    bool interrupted = false;
    bool terminal = process_is_terminal(fileno(stderr));
    uint64_t interval_ms = terminal ? TURN_MS : LINE_MS;
    uint64_t passed_ms = 0;
    while (load_running(run)) {
        if (process_wait_signal(WATCH_MS) != PROCESS_SIGNAL_NONE) {
            interrupted = true;
            load_stop(run);
            process_exit_on_signal();
        }
        passed_ms += WATCH_MS;
        if (!quiet && passed_ms % interval_ms == 0)
            load_print_progress(stderr, terminal, plan, load_progress_of(run), false);
    }
    if (!quiet)
        load_print_progress(stderr, terminal, plan, load_progress_of(run), true);
    process_exit_on_signal();
    return interrupted;
}

/* ---- The whole ---- */

static int report_and_judge(const struct cli *cli, const struct load_report *report) {
    uint64_t errors = atomic_load(&report->progress->errors);
    uint64_t wrong = atomic_load(&report->progress->wrong);
    if (options_flag(cli->options, OPTION_JSON))
        load_print_json(stdout, report);
    else
        load_print_report(stdout, report);
    if (errors > 0)
        return cli_fail(CLI_FAILED, "%llu requests failed; the first: %s",
                        (unsigned long long)errors, report->result->sample);
    if (wrong > 0)
        return cli_fail(CLI_FAILED, "%llu answers were wrong", (unsigned long long)wrong);
    return report->complete ? CLI_OK : CLI_FAILED;
}

static int run_load(const struct cli *cli, const struct load_plan *plan, struct admin *admin) {
    struct load_run *run;
    const struct load_ops *ops = plan->source->ops;
    if (ops->begin(admin))
        return cli_fail(CLI_FAILED, "%s", admin->error);
    if (process_block_signals() || load_start(plan, &run))
        return cli_fail(CLI_FAILED, "the threads cannot be started");
    bool interrupted = watch(plan, run, options_flag(cli->options, OPTION_JSON));
    struct load_report report = {.plan = plan,
                                 .run = run,
                                 .progress = load_progress_of(run),
                                 .result = load_join(run),
                                 .applied_s = -1,
                                 .complete = !interrupted};
    report.acknowledged_s = load_seconds(report.progress, report.result->last_ns);
    if (interrupted)
        cli_fail(CLI_FAILED, "interrupted; what was acknowledged is kept");
    else if (!options_flag(cli->options, OPTION_NO_DRAIN) && ops->end(admin, &report)) {
        report.complete = false;
        cli_fail(CLI_FAILED, "%s", admin->error);
    }
    int status = report_and_judge(cli, &report);
    load_free(run);
    return status;
}

/* Where the load goes, and the key. */
static int set_target(const struct cli *cli, char *key, struct load_plan *plan) {
    const char *text = options_text(cli->options, OPTION_URL);
    char authority[URL_HOST_MAX + 8];
    int status = cli_api_key(cli, cli->options, key);
    if (status)
        return status;
    plan->target.api_key = key;
    if (url_parse(text, &plan->target.url))
        return cli_fail(CLI_USAGE, "--url %s is not a URL as http://127.0.0.1:8000", text);
    url_authority(&plan->target.url, authority);
    if (socket_address_parse(authority, &plan->address))
        return cli_fail(CLI_FAILED, "--url %s: there is no such host", text);
    return CLI_OK;
}

/* What every source has. */
static struct load_source make_base(const struct options *o) {
    return (struct load_source){.count = options_number(o, OPTION_COUNT),
                                .batch = options_number(o, OPTION_BATCH_SIZE),
                                .seed = options_number(o, OPTION_SEED),
                                .rate = options_number(o, OPTION_RATE)};
}

static int run_source(const struct cli *cli, struct load_source *source) {
    const struct options *o = cli->options;
    struct admin admin CLEANUP(admin_deinit) = {.client = {.fd = -1}};
    struct load_plan plan = {.os = cli->os,
                             .source = source,
                             .connections = (unsigned)options_number(o, OPTION_CONNECTIONS),
                             .threads = (unsigned)options_number(o, OPTION_LOAD_THREADS)};
    char key[API_KEY_MAX + 1];
    if (source->ops == &tag_ops && !options_given(o, OPTION_CONNECTIONS))
        plan.connections = TAG_CONNECTIONS;
    int status = set_target(cli, key, &plan);
    if (status)
        return status;
    process_ignore_broken_pipes();
    if (admin_init(&admin, &plan))
        return cli_fail(CLI_FAILED, "out of memory");
    return run_load(cli, &plan, &admin);
}

/* ---- Its kinds ---- */

static int run_points(const struct cli *cli, bool movies) {
    const struct options *o = cli->options;
    const char *collection = options_text(o, OPTION_COLLECTION);
    struct record_source source CLEANUP(record_source_deinit) = {
        .base = make_base(o), .dimension = (unsigned)options_number(o, OPTION_DIMENSION)};
    if (collection && strlen(collection) > LOAD_COLLECTION_MAX)
        return cli_fail(CLI_USAGE, "--collection is longer than %d bytes", LOAD_COLLECTION_MAX);
    int r = movies ? record_source_movies(&source, collection ? collection : "movies")
                   : record_source_records(&source, collection ? collection : "test_collection",
                                           options_flag(o, OPTION_WAIT));
    if (r == LOAD_E_NO_MOVIES)
        return cli_fail(CLI_FAILED,
                        "this millrace was built without the movies; build it with npm");
    if (r)
        return cli_fail(CLI_FAILED, "out of memory");
    if (source.base.count == 0)
        source.base.count = movies ? source.n_movies : RECORDS_DEFAULT;
    return run_source(cli, &source.base);
}

static int run_records(const struct cli *cli) {
    return run_points(cli, false);
}

static int run_movies(const struct cli *cli) {
    return run_points(cli, true);
}

static int run_tags(const struct cli *cli) {
    const struct options *o = cli->options;
    struct tag_source source CLEANUP(tag_source_deinit) = {
        .base = make_base(o),
        .cookies = options_number(o, OPTION_COOKIES),
        .heavy = options_number(o, OPTION_HEAVY_COOKIES),
        .visible_ns = options_number(o, OPTION_VISIBLE_WITHIN) * 1000000,
        .queries = !options_flag(o, OPTION_NO_QUERIES)};
    if (!options_given(o, OPTION_BATCH_SIZE))
        source.base.batch = 1;
    if (source.base.count == 0)
        source.base.count = source.base.rate ? source.base.rate * 60 : TAGS_DEFAULT;
    int r = tag_source_init(&source, cli->os, options_text(o, OPTION_START));
    if (r == TAGS_E_START)
        return cli_fail(CLI_USAGE, "--start %s is not a time as 2022-03-22T12:00:00",
                        options_text(o, OPTION_START));
    if (r == TAGS_E_HEAVY)
        return cli_fail(CLI_USAGE, "--heavy-cookies must be fewer than --cookies, %" PRIu64,
                        source.cookies);
    if (r)
        return cli_fail(CLI_FAILED, "the system has no random numbers");
    return run_source(cli, &source.base);
}

struct load_kind {
    const char *name;
    int (*run)(const struct cli *cli);
};
static const struct load_kind kinds[] = {
    {"records", run_records}, {"movies", run_movies}, {"tags", run_tags}};

static int run(const struct cli *cli) {
    const struct options *o = cli->options;
    if (o->n_arguments == 0)
        return cli_fail(CLI_USAGE,
                        "say what to load: millrace load records, load movies, or load tags");
    for (size_t i = 0; o->n_arguments == 1 && i < ARRAY_LENGTH(kinds); i++)
        if (strcmp(o->arguments[0], kinds[i].name) == 0)
            return kinds[i].run(cli);
    return cli_fail(CLI_USAGE, "load takes one of records, movies and tags, not \"%.80s\"",
                    o->arguments[o->n_arguments > 1]);
}

const struct cli_command cli_load = {
    .name = "load",
    .bit = FOR_LOAD,
    .summary = "send records or tags to a server, measure it and check its answers",
    .arguments = "records|movies|tags",
    .prose =
        "records  points with a city, a location and a random vector, by PUT "
        "/collections/…/points\n"
        "movies   the movies of vega-datasets with random vectors, by POST /alioth/ingest\n"
        "tags     user tags, with a profile query for every 10 and an aggregate query for every\n"
        "         1,000. A sample of the answers is checked as it goes, and when all is applied\n"
        "         every tag is counted; any wrong answer fails the run. Without --batch-size each\n"
        "         tag is a request.\n"
        "\nLatency counts from the first byte sent (with --rate: from when it was due) to the\n"
        "whole answer. A 429 or 503 is waited out and sent again; a tag whose answer was lost is\n"
        "not, as it would count twice.\n",
    .examples = "    millrace load movies\n"
                "    millrace load records --count 1000000 --batch-size 1000 --threads 2\n"
                "    millrace load records --rate 5000 --connections 64 --batch-size 1 --json\n"
                "    millrace load tags --rate 1000 --count 60000\n"
                "    millrace load tags --count 20000000 --batch-size 1000 --no-queries\n"
                "    ALIOTH_LOAD_TEST_BATCH_SIZE=500 millrace load movies --collection films\n",
    .run = run,
};
