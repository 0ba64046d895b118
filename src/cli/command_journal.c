/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `millrace journal dump|tail|verify|dead-letters …`: looks into the journal of a data directory.
 * dump and tail only read, also beside a running server; verify and whatever writes take the lock.
 */
#include "cli/cli.h"
#include "cli/dead_letters.h"
#include "cli/record_print.h"

#include "serve/data.h"

#include <inttypes.h>

enum { TAIL_RECORDS = 10, FOLLOW_MS = 300 };

/* ---- Reading ---- */

/* The journal of the directory, opened without writing. */
struct journal_reading {
    struct journal *journal;
    struct journal_recovery recovery;
    char directory[OS_PATH_MAX];
};

/* The journal keeps a pointer to the path, so it is opened in its final place. */
static int open_reading(const struct cli *cli, struct journal_reading *reading) {
    const char *directory = options_text(cli->options, OPTION_DATA_DIR);
    struct journal_options options = {.read_only = true};
    struct data_paths paths;
    struct problem problem;
    if (data_find_paths(cli->os, directory, &paths, &problem))
        return cli_fail(CLI_USAGE, "%s", problem.text);
    memcpy(reading->directory, paths.journal, sizeof paths.journal);
    int r =
        journal_open(cli->os, reading->directory, &options, &reading->journal, &reading->recovery);
    if (r) {
        problem_of_result(&problem, "cannot read the journal", reading->directory, r);
        return cli_fail(CLI_USAGE, "%s", problem.text);
    }
    return CLI_OK;
}

static void print_record(const struct journal_record *record, bool json, struct buffer *out) {
    buffer_clear(out);
    buffer_append_string(out, json ? "{" : "");
    (json ? record_append_json : record_append_line)(out, record);
    buffer_append_string(out, json ? "}\n" : "\n");
    if (buffer_check(out) == 0)
        fwrite(out->data, 1, out->size, stdout);
}

/* Prints the records from `from` on, at most limit; ret_next is where to go on. */
static int print_records(struct journal *j, lsn_t from, uint64_t limit, bool json,
                         lsn_t *ret_next) {
    struct buffer out CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct journal_cursor *cursor;
    struct journal_batch *batch;
    uint64_t printed = 0;
    int r = journal_cursor_new(j, from, &cursor);
    if (r)
        return error_trace(r);
    while (printed < limit && !(r = journal_read(cursor, &batch))) {
        size_t n = batch->n < limit - printed ? batch->n : (size_t)(limit - printed);
        for (size_t i = 0; i < n; i++)
            print_record(&batch->records[i], json, &out);
        printed += n;
        *ret_next = n < batch->n ? batch->records[n].lsn : batch->next_lsn;
        journal_batch_unref(batch);
    }
    journal_cursor_free(cursor);
    return r == JOURNAL_E_END ? 0 : r;
}

static int show(const struct cli *cli, lsn_t from, uint64_t limit, lsn_t *ret_next) {
    struct journal_reading reading = {0};
    int status = open_reading(cli, &reading);
    if (status)
        return status;
    lsn_t start = from ? from : reading.recovery.first_lsn;
    *ret_next = start;
    int r = print_records(reading.journal, start, limit, options_flag(cli->options, OPTION_JSON),
                          ret_next);
    journal_close(reading.journal);
    if (r)
        return cli_fail(CLI_FAILED, "%s: cannot be read: %s", reading.directory,
                        r < 0 ? strerror(-r) : "it failed");
    return CLI_OK;
}

static uint64_t limit_of(const struct cli *cli) {
    uint64_t limit = options_number(cli->options, OPTION_LIMIT);
    return limit ? limit : UINT64_MAX;
}

static int dump(const struct cli *cli) {
    lsn_t next;
    return show(cli, options_number(cli->options, OPTION_FROM), limit_of(cli), &next);
}

static int tail_start(const struct cli *cli, lsn_t *ret_from) {
    struct journal_reading reading = {0};
    lsn_t from = options_number(cli->options, OPTION_FROM);
    int status = open_reading(cli, &reading);
    if (status)
        return status;
    uint64_t n = options_number(cli->options, OPTION_LIMIT);
    if (n == 0)
        n = TAIL_RECORDS;
    if (from == 0 && reading.recovery.next_lsn > n)
        from = reading.recovery.next_lsn - n;
    *ret_from = from;
    journal_close(reading.journal);
    return CLI_OK;
}

/* Following opens the journal again at every look: another process is writing it. */
static int tail(const struct cli *cli) {
    lsn_t from;
    int status = tail_start(cli, &from);
    if (!status)
        status = show(cli, from, limit_of(cli), &from);
    while (!status && options_flag(cli->options, OPTION_FOLLOW)) {
        fflush(stdout);
        os_sleep_ns(cli->os, (uint64_t)FOLLOW_MS * 1000000);
        status = show(cli, from, UINT64_MAX, &from);
    }
    return status;
}

/* ---- Checking ---- */

static void print_damage(void *context, const char *sentence) {
    const bool *json = context;
    if (*json)
        cli_print_damage(sentence);
    else
        printf("%s\n", sentence);
}

static int verify(const struct cli *cli) {
    const char *directory = options_text(cli->options, OPTION_DATA_DIR);
    bool json = options_flag(cli->options, OPTION_JSON);
    struct journal_recovery found;
    struct data_paths paths;
    struct os_file *lock;
    struct problem problem;
    if (data_find_paths(cli->os, directory, &paths, &problem) ||
        data_lock(cli->os, directory, &lock, &problem))
        return cli_fail(CLI_USAGE, "%s", problem.text);
    int r = journal_verify(cli->os, paths.journal, print_damage, &json, &found);
    os_close(cli->os, lock);
    if (r) {
        problem_of_result(&problem, "cannot read the journal", paths.journal, r);
        return cli_fail(CLI_USAGE, "%s", problem.text);
    }
    printf(json ? "{\"first_lsn\":%" PRIu64 ",\"next_lsn\":%" PRIu64 ",\"segments\":%" PRIu64
                  ",\"torn_bytes\":%" PRIu64 ",\"damaged_records\":%" PRIu64
                  ",\"damaged_bytes\":%" PRIu64 "}\n"
                : "lsn %" PRIu64 " to before %" PRIu64 " in %" PRIu64 " segments, %" PRIu64
                  " bytes torn at the end, %" PRIu64 " records (%" PRIu64 " bytes) damaged\n",
           found.first_lsn, found.next_lsn, found.segments, found.torn_bytes, found.damaged_records,
           found.damaged_bytes);
    return found.damaged_records > 0 || found.damaged_bytes > 0 ? CLI_FAILED : CLI_OK;
}

/* ---- The command ---- */

struct action {
    const char *name;
    size_t arguments_max; /* its name included */
    bool local;           /* reads the files of a journal */
    int (*run)(const struct cli *cli);
};

static const struct action actions[] = {
    {"dump", 1, true, dump},
    {"tail", 1, true, tail},
    {"verify", 1, true, verify},
    {"dead-letters", 3, false, dead_letters_run},
};

static int cannot_read_engines(const struct action *action) {
    return cli_fail(CLI_USAGE,
                    "`millrace journal %s` reads the files of a journal that lies in a data "
                    "directory (--journal local:). What an engine keeps its own tools show; what a "
                    "store rejected of it, `millrace journal dead-letters`",
                    action->name);
}

/* A directory that is given without its flag must not be taken for the default one. */
static int run_action(const struct cli *cli, const struct action *action) {
    const struct options *o = cli->options;
    if (o->n_arguments > action->arguments_max)
        return cli_fail(CLI_USAGE, "`millrace journal %s` takes no argument \"%.80s\"",
                        action->name, o->arguments[action->arguments_max]);
    if (action->local && strcmp(options_text(o, OPTION_JOURNAL), "local:") != 0)
        return cannot_read_engines(action);
    return action->run(cli);
}

static int run(const struct cli *cli) {
    const struct options *o = cli->options;
    const char *names[ARRAY_LENGTH(actions)];
    for (size_t i = 0; i < ARRAY_LENGTH(actions); i++) {
        names[i] = actions[i].name;
        if (o->n_arguments > 0 && strcmp(o->arguments[0], names[i]) == 0)
            return run_action(cli, &actions[i]);
    }
    if (o->n_arguments == 0)
        return cli_fail(CLI_USAGE, "say what to do: dump, tail, verify or dead-letters");
    const char *nearest = nearest_name(o->arguments[0], names, ARRAY_LENGTH(actions));
    return cli_fail(CLI_USAGE, "unknown journal command \"%.80s\"; did you mean %s?",
                    o->arguments[0], nearest ? nearest : "dump, tail, verify or dead-letters");
}

const struct cli_command cli_journal = {
    .name = "journal",
    .bit = FOR_JOURNAL,
    .summary = "look into the journal of a data directory, and at its dead letters",
    .arguments = "dump|tail|verify|dead-letters",
    .nested = "dead-letters list|show|replay|edit|drop",
    .prose =
        "dump                    every record, from --from on, at most --limit\n"
        "tail                    the last --limit (ten); --follow goes on with those that come\n"
        "verify                  check every checksum; exits 1 when something is damaged\n"
        "dead-letters list       the records that a store rejected, with the reason\n"
        "dead-letters show N     one of them, as the JSON that edit takes\n"
        "dead-letters replay N   write it again, as a new record\n"
        "dead-letters edit N     write a corrected one (--input) in its place\n"
        "dead-letters drop N     forget one\n"
        "\ndump, tail and verify read the files of a journal in a data directory, not one that an\n"
        "engine keeps. What is about dead letters, and verify, needs the server stopped; a server\n"
        "that runs has routes for dead letters, and its console. Those of a journal that "
        "processes\n"
        "share are there by the --journal, --points, --events and --tasks that the processes "
        "have,\n"
        "which may run meanwhile; for a data directory these are not looked at.\n",
    .examples =
        "    millrace journal dump --limit 5 --json\n"
        "    millrace journal tail --follow --data-dir /var/lib/millrace\n"
        "    millrace journal verify\n"
        "    millrace journal dead-letters list\n"
        "    millrace journal dead-letters replay 1234\n"
        "    echo '{\"id\":7,\"vector\":[0.1,0.2]}' | millrace journal dead-letters edit 1234\n",
    .run = run,
};
