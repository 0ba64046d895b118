/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `millrace serve`: options to a running server, then signals until it is time to stop.
 *
 *   SIGTERM, SIGINT   stop in order; a second one ends the process at once with status 1
 *   SIGHUP            open the log file again, read again what the rows marked `reload` say
 */
#include "cli/part_urls.h"
#include "cli/url.h"

#include "http/hosts.h"
#include "os/beneath.h"
#include "os/process.h"
#include "serve/serve.h"
#include "tasks/handler.h"

extern char **environ;

static unsigned seconds(const struct options *o, enum option_id id) {
    return (unsigned)((options_number(o, id) + 999) / 1000);
}

static struct data_options data_options_of(const struct options *o) {
    static const unsigned roles[] = {DATA_ROLE_API | DATA_ROLE_WORKER, DATA_ROLE_API,
                                     DATA_ROLE_WORKER};
    struct data_options data = {
        .roles = roles[options_number(o, OPTION_ROLES)],
        .directory = options_text(o, OPTION_DATA_DIR),
        .journal = {.sync = (enum journal_sync)options_number(o, OPTION_SYNC),
                    .segment_bytes = options_number(o, OPTION_SEGMENT_SIZE),
                    .keep_bytes = options_number(o, OPTION_KEEP_JOURNAL_SIZE),
                    .keep_seconds = options_number(o, OPTION_KEEP_JOURNAL_TIME) / 1000},
        .points = {.lanes = (unsigned)options_number(o, OPTION_LANES)},
        .events = {.lanes = (unsigned)options_number(o, OPTION_LANES)},
        .dictionary = {.bytes_max = options_number(o, OPTION_DICTIONARY_SIZE)},
        .tasks = {.queued_max = options_number(o, OPTION_TASKS_QUEUED_MAX),
                  .keep_ms = options_number(o, OPTION_TASKS_KEEP)},
        .once = {.keys_max = options_number(o, OPTION_IDEMPOTENCY_MAX)},
        .workers_min = (unsigned)options_number(o, OPTION_MIN_WORKERS),
        .workers_max = (unsigned)options_number(o, OPTION_MAX_WORKERS),
    };
    for (size_t kind = 0; kind < JOURNAL_KINDS; kind++) {
        data.journal.pin_bytes_max[kind] = options_number(o, OPTION_PIN_MAX);
        data.journal.pin_ms_max[kind] = options_number(o, OPTION_PIN_MAX_TIME);
    }
    return data;
}

static struct tasks_runner_options tasks_options_of(const struct options *o) {
    unsigned min = (unsigned)options_number(o, OPTION_MIN_WORKERS);
    unsigned max = (unsigned)options_number(o, OPTION_MAX_WORKERS);
    if (max == 0)
        max = process_cores();
    return (struct tasks_runner_options){
        .workers_min = min,
        .workers_max = max > min ? max : min,
        .settings = {.commands = options_text(o, OPTION_TASK_COMMANDS),
                     .imports = {.directory = options_text(o, OPTION_IMPORT_DIR),
                                 .hosts = options_text(o, OPTION_IMPORT_HOSTS),
                                 .max_bytes = options_number(o, OPTION_IMPORT_MAX_SIZE)}}};
}

static struct http_options http_options_of(const struct options *o, const char *key) {
    return (struct http_options){
        .threads = (unsigned)options_number(o, OPTION_THREADS),
        .query_threads = (unsigned)options_number(o, OPTION_QUERY_THREADS),
        .body_max_bytes = options_number(o, OPTION_MAX_BODY_SIZE),
        .header_max_bytes = options_number(o, OPTION_MAX_HEADER_SIZE),
        .connections_max = (unsigned)options_number(o, OPTION_MAX_CONNECTIONS),
        .idle_timeout_s = seconds(o, OPTION_IDLE_TIMEOUT),
        .body_timeout_s = seconds(o, OPTION_BODY_TIMEOUT),
        .commit_timeout_ms = options_number(o, OPTION_COMMIT_TIMEOUT),
        .api_key = *key ? key : NULL,
        .cors_origin = options_text(o, OPTION_CORS_ORIGIN),
        .title = "Millrace",
        .version = MILLRACE_VERSION,
    };
}

/* A replay may take seconds: SIGTERM ends it at once, which is safe at any moment. */
static void stop_while_replaying(void *context UNUSED, lsn_t at UNUSED, lsn_t end UNUSED) {
    if (process_wait_signal(0) == PROCESS_SIGNAL_STOP)
        process_exit(CLI_OK);
}

/* Whatever was acknowledged is in the journal, which the next start replays. */
static void give_up(void *context UNUSED) {
    process_exit(cli_fail(CLI_FAILED,
                          "the disk does not answer: ended without the last checkpoint; "
                          "nothing that was acknowledged is lost"));
}

static int cannot_resolve(const char *flag, const char *text) {
    return cli_fail(CLI_USAGE, "%s %s does not resolve to an address of this machine", flag, text);
}

static int check_hosts(const char *hosts) {
    struct bytes wrong;
    if (!hosts || hosts_check(hosts, &wrong))
        return CLI_OK;
    return cli_fail(CLI_USAGE, "--import-hosts: \"%.*s\" is no host, nor host:port, nor *.domain",
                    (int)wrong.size, (const char *)wrong.data);
}

/* What only tasks read: a slip is told here, not by the first task that fails. */
static int check_task_files(struct os *os, const struct task_settings *s) {
    char sentence[TASK_SENTENCE_MAX];
    const char *directory = s->imports.directory;
    int r = s->commands && *s->commands ? task_commands_check(os, s->commands, sentence) : 0;
    if (r)
        return cli_fail(CLI_USAGE, "--task-commands %s: %s", s->commands,
                        r > 0 ? sentence : "out of memory");
    r = directory && *directory ? beneath_check(directory) : 0;
    if (r)
        return cli_fail(CLI_USAGE, "--import-dir %s: %s", directory,
                        r == OS_E_NOT_FOUND ? "there is no such directory"
                        : r == OS_E_DENIED  ? "this user may not look there"
                                            : "it is no directory");
    return CLI_OK;
}

static int serve_options_of(const struct cli *cli, const char *key, struct part_urls *urls,
                            struct serve_options *ret_options) {
    const struct options *o = cli->options;
    struct serve_options s = {
        .data = data_options_of(o),
        .http = http_options_of(o, key),
        .tasks = tasks_options_of(o),
        .listen_text = options_text(o, OPTION_LISTEN),
        .metrics_listen_text = options_text(o, OPTION_METRICS_LISTEN),
        .insecure = options_flag(o, OPTION_INSECURE),
        .checkpoint_interval_ms = options_number(o, OPTION_CHECKPOINT_INTERVAL),
        .checkpoint_bytes = options_number(o, OPTION_CHECKPOINT_SIZE),
        .stop_timeout_ms = options_number(o, OPTION_STOP_TIMEOUT),
        .memory_max_bytes = options_number(o, OPTION_MEMORY_LIMIT),
        .replaying = stop_while_replaying,
        .stuck = give_up,
    };
    if (options_address(o, OPTION_LISTEN, &s.http.listen))
        return cannot_resolve("--listen", s.listen_text);
    if (options_address(o, OPTION_METRICS_LISTEN, &s.metrics_listen))
        return cannot_resolve("--metrics-listen", s.metrics_listen_text);
    int status = part_urls_set(o, urls, &s.data);
    *ret_options = s;
    if (!status)
        status = check_hosts(s.tasks.settings.imports.hosts);
    return status ? status : check_task_files(cli->os, &s.tasks.settings);
}

/* http://HOST:PORT to reach what listens there from this machine. */
static const char *url_of(const struct options *o, enum option_id id, unsigned port,
                          char out[URL_HOST_MAX + 16]) {
    const char *text = options_text(o, id);
    const char *colon = strrchr(text, ':');
    int size = colon ? (int)(colon - text) : 0;
    bool wide = strncmp(text, "0.0.0.0:", 8) == 0 || strncmp(text, "[::]:", 5) == 0;
    if (size == 0 || size > URL_HOST_MAX || wide)
        snprintf(out, URL_HOST_MAX + 16, "http://127.0.0.1:%u", port);
    else
        snprintf(out, URL_HOST_MAX + 16, "http://%.*s:%u", size, text, port);
    return out;
}

static void print_banner(const struct cli *cli, const struct serve *s) {
    const struct options *o = cli->options;
    char api[URL_HOST_MAX + 16];
    char metrics[URL_HOST_MAX + 16];
    if (!process_is_terminal(fileno(stdout)))
        return;
    const char *bold = cli_color(stdout) ? "\033[1m" : "";
    const char *off = cli_color(stdout) ? "\033[0m" : "";
    url_of(o, OPTION_LISTEN, serve_port(s), api);
    url_of(o, OPTION_METRICS_LISTEN, serve_metrics_port(s), metrics);
    bool usual = strcmp(api, option_rows[OPTION_URL].fallback) == 0;
    printf("\n  %sMillrace %s%s\n\n", bold, MILLRACE_VERSION, off);
    printf("  API       %s   docs at /docs\n", api);
    printf("  console   %s/console\n", api);
    printf("  metrics   %s/metrics\n", metrics);
    printf("  data      %s\n\n", options_text(o, OPTION_DATA_DIR));
    printf("  Try, in another terminal:\n\n    %s%s load movies%s%s%s\n\n", bold, cli->program,
           usual ? "" : " --url ", usual ? "" : api, off);
    printf("  Ctrl-C stops it; nothing acknowledged is lost.\n\n");
    fflush(stdout);
}

/* Reads again what a SIGHUP can change. CLI_OK, or a status with the sentence in problem. */
static int apply_again(const struct cli *cli, const struct options *o, struct serve *s,
                       struct log *log, struct problem *problem) {
    CLEANUP(buffer_deinit) struct buffer json = BUFFER_INIT;
    char key[API_KEY_MAX + 1];
    if (cli_api_key(cli, o, key)) {
        problem_say(problem, "the API key cannot be read; see standard error");
        return CLI_FAILED;
    }
    settings_append_json(&json, cli->options, o);
    const struct serve_settings settings = {
        .api_key = *key ? key : NULL,
        .settings = buffer_bytes(&json),
        .checkpoint_interval_ms = options_number(o, OPTION_CHECKPOINT_INTERVAL),
        .checkpoint_bytes = options_number(o, OPTION_CHECKPOINT_SIZE),
    };
    int r = buffer_check(&json);
    if (!r)
        r = serve_reload(s, &settings, problem);
    if (r < 0)
        problem_say(problem, "out of memory");
    if (r)
        return CLI_FAILED;
    log_set_level(log, (enum log_level)options_number(o, OPTION_LOG_LEVEL));
    return CLI_OK;
}

/* SIGHUP. What is wrong now is said in the log, and nothing changes. */
static void reload(const struct cli *cli, struct serve *s, struct log *log) {
    struct options options CLEANUP(options_deinit);
    struct problem problem;
    if (log_reopen(log))
        log_write(log, LOG_ERROR, "the log file cannot be opened again", NULL, 0);
    int r = options_load(&options, cli->os, FOR_SERVE, cli->argv, cli->n_argv, environ);
    if (r)
        problem_say(&problem, "%s", r > 0 ? options.error : "out of memory");
    else
        r = apply_again(cli, &options, s, log, &problem);
    if (r)
        log_line(log, LOG_ERROR, "the options cannot be read again; nothing was changed",
                 LOG_TEXT("error", problem.text));
    else
        log_write(log, LOG_INFO, "options read again", NULL, 0);
}

static int run_server(const struct cli *cli, const struct serve_options *options, struct log *log) {
    struct problem problem;
    struct serve *s;
    int r = serve_start(cli->os, options, log, &s, &problem);
    if (r)
        return cli_fail(CLI_FAILED, "%s", problem.text);
    print_banner(cli, s);
    while (process_wait_signal(-1) == PROCESS_SIGNAL_RELOAD)
        reload(cli, s, log);
    process_exit_on_signal();
    serve_stop(s);
    return CLI_OK;
}

static int open_log(const struct cli *cli, struct log **ret_log) {
    const char *path = options_text(cli->options, OPTION_LOG_FILE);
    enum log_level level = (enum log_level)options_number(cli->options, OPTION_LOG_LEVEL);
    int r = log_new(cli->os, path, level, ret_log);
    if (r)
        return cli_fail(CLI_FAILED, "--log-file %s cannot be opened for writing",
                        path ? path : "(standard error)");
    return CLI_OK;
}

static int run(const struct cli *cli) {
    CLEANUP(buffer_deinit) struct buffer settings = BUFFER_INIT;
    char key[API_KEY_MAX + 1];
    struct serve_options options;
    struct part_urls urls;
    struct log *log;
    int status = cli_api_key(cli, cli->options, key);
    if (!status)
        status = serve_options_of(cli, key, &urls, &options);
    if (status)
        return status;
    settings_append_json(&settings, cli->options, cli->options);
    if (buffer_check(&settings))
        return cli_fail(CLI_FAILED, "out of memory");
    options.settings = buffer_bytes(&settings);
    process_ignore_broken_pipes();
    process_return_memory();
    if (process_block_signals())
        return cli_fail(CLI_FAILED, "the signals cannot be set up");
    status = open_log(cli, &log);
    if (status)
        return status;
    status = run_server(cli, &options, log);
    log_free(log);
    return status;
}

const struct cli_command cli_serve = {
    .name = "serve",
    .bit = FOR_SERVE,
    .summary = "run the server",
    .arguments = "",
    .prose = "Takes data in over HTTP, acknowledges it once it is durable, and answers queries.\n"
             "SIGTERM stops it in order, SIGHUP opens the log file and reads the options again.\n",
    .examples = "    millrace serve\n"
                "    millrace serve --listen 0.0.0.0:8000 --api-key-file /etc/millrace/key\n"
                "    millrace serve --config /etc/millrace/millrace.ini --log-file serve.log\n"
                "    millrace serve --journal 'kafka://one:9092,two:9092/?replication=3'\n"
                "    millrace serve --import-dir /srv/imports --import-hosts files.example.org\n"
                "    PORT=9000 METRICS_PORT=9100 millrace serve --data-dir /var/lib/millrace\n",
    .run = run,
};
