/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `millrace check`: reads everything in a data directory and checks it, changing nothing. Exits 0
 * when all is well, 1 when something is damaged, 2 when it could not look.
 */
#include "cli/cli.h"

#include "serve/data.h"

#include <inttypes.h>

static void print_damage(void *context, const char *sentence) {
    const bool *json = context;
    if (*json)
        cli_print_damage(sentence);
    else
        printf("damaged: %s\n", sentence);
}

static void print_findings(const struct data_findings *f, bool json) {
    if (json)
        printf("{\"damages\":%" PRIu64 ",\"journal\":{\"first_lsn\":%" PRIu64
               ",\"next_lsn\":%" PRIu64 ",\"segments\":%" PRIu64 ",\"torn_bytes\":%" PRIu64
               ",\"damaged_records\":%" PRIu64 "},\"points\":{\"segments\":%" PRIu64
               ",\"points\":%" PRIu64 ",\"damaged_rows\":%" PRIu64
               "},\"events\":{\"profiles\":%" PRIu64 ",\"minutes\":%" PRIu64
               ",\"elements\":%" PRIu64 ",\"on_redis\":%s},\"tasks\":{\"tasks\":%" PRIu64
               ",\"on_redis\":%s}}\n",
               f->damages, f->journal.first_lsn, f->journal.next_lsn, f->journal.segments,
               f->journal.torn_bytes, f->journal.damaged_records, f->points.segments,
               f->points.points, f->points.damaged_rows, f->events.profiles, f->events.minutes,
               f->events.elements, f->events_elsewhere ? "true" : "false", f->tasks.tasks,
               f->tasks_elsewhere ? "true" : "false");
    else
        printf("journal: lsn %" PRIu64 " to before %" PRIu64 " in %" PRIu64
               " segments\npoints: %" PRIu64 " in %" PRIu64 " segments\nevents: about %" PRIu64
               " profiles, %" PRIu64 " minutes%s\ntasks: %" PRIu64 "%s\n%" PRIu64
               " pieces of damage%s\n",
               f->journal.first_lsn, f->journal.next_lsn, f->journal.segments, f->points.points,
               f->points.segments, f->events.profiles, f->events.minutes,
               f->events_elsewhere ? ": they are in a Redis Cluster, which has to look after them"
                                   : "",
               f->tasks.tasks,
               f->tasks_elsewhere ? ": they are on Redis, which has to look after them" : "",
               f->damages, f->damages ? "" : ": all is well");
}

static int run(const struct cli *cli) {
    bool json = options_flag(cli->options, OPTION_JSON);
    struct data_findings findings;
    struct problem problem;
    int r = data_verify(cli->os, options_text(cli->options, OPTION_DATA_DIR), print_damage, &json,
                        &findings, &problem);
    if (r == SERVE_E_PROBLEM || r == SERVE_E_IN_USE)
        return cli_fail(CLI_USAGE, "%s", problem.text);
    print_findings(&findings, json);
    return r == SERVE_E_DAMAGE ? CLI_FAILED : CLI_OK;
}

const struct cli_command cli_check = {
    .name = "check",
    .bit = FOR_CHECK,
    .summary = "check every byte of a data directory",
    .arguments = "",
    .prose = "Reads the journal and the stores and checks every checksum; changes nothing. The\n"
             "server must be stopped. Exits 0 when all is well, 1 when something is damaged (each\n"
             "piece gets a line), 2 when it could not look.\n",
    .examples = "    millrace check --data-dir /var/lib/millrace\n"
                "    millrace check --json\n",
    .run = run,
};
