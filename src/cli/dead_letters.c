/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dead letters of a directory that no server has open: the records that the stores rejected. The
 * directory is opened whole, as the server does it, so that what can be said of a letter, and what
 * becomes of it, is the same as by the routes: a record of the journal, made durable, applied,
 * persisted (serve/letters.h).
 *
 * Of a journal that processes share, which may all run: this is one more of them then, that makes
 * nothing that is missing and applies nothing.
 */
#include "cli/dead_letters.h"

#include "base/json.h"
#include "base/time_text.h"
#include "cli/part_urls.h"
#include "events/api.h"
#include "points/api.h"
#include "serve/letters.h"
#include "tasks/api.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

enum { WAIT_MS = 30000, INPUT_MAX_BYTES = 64 << 20, PAGE = 200 };

/* ---- The directory ---- */

struct desk {
    const struct cli *cli;
    struct part_urls urls;
    struct metrics *metrics;
    struct data *data;
    struct points_api points;
    struct events_api events;
    struct tasks_api tasks;
    struct letters_of letters;
    unsigned kind; /* of --kind; DATA_STORES: all */
};

static void desk_close(struct desk *d) {
    data_close(d->data);
    metrics_free(d->metrics);
}

/* A store that has no room for more until it was persisted asks to try again; nobody else makes
 * checkpoints here. One that fails is tried again at the next step. */
struct replaying {
    struct data *data;
    enum data_store_kind kind;
};

static void make_room(void *context, lsn_t at UNUSED, lsn_t end UNUSED) {
    const struct replaying *replaying = context;
    struct work_status status;
    work_status(replaying->data->stores[replaying->kind].work, &status);
    if (status.lanes_retrying > 0)
        (void)!data_checkpoint(replaying->data, replaying->kind);
}

static int catch_up(struct desk *d, enum data_store_kind kind) {
    struct replaying replaying = {d->data, kind};
    int r = work_catch_up(d->data->stores[kind].work, make_room, &replaying);
    return r ? cli_fail(CLI_FAILED, "the journal cannot be replayed: %s",
                        r < 0 ? strerror(-r) : "the store is down")
             : CLI_OK;
}

static void make_apis(struct desk *d) {
    struct data *data = d->data;
    const struct data_store *stores = data->stores;
    d->points = (struct points_api){.os = d->cli->os,
                                    .journal = stores[DATA_POINTS].journal,
                                    .work = data->follow ? follow_work(data->follow)
                                                         : stores[DATA_POINTS].work,
                                    .catalog = data->catalog,
                                    .store = data->points,
                                    .cluster = data->cluster,
                                    .follow = data->follow,
                                    .tasks = data->bulk};
    d->events = (struct events_api){.os = d->cli->os,
                                    .journal = stores[DATA_EVENTS].journal,
                                    .work = stores[DATA_EVENTS].work,
                                    .redis = data->events_redis,
                                    .shared = data->shared,
                                    .dictionary = data->dictionary,
                                    .once = data->once,
                                    .store = data->events};
    d->tasks =
        (struct tasks_api){.os = d->cli->os,
                           .journal = stores[DATA_TASKS].journal,
                           .work = stores[DATA_TASKS].work,
                           .tasks = data->tasks_shared ? tasks_shared_backend(data->tasks_shared)
                                                       : tasks_embedded(data->tasks),
                           .shared = data->tasks_shared};
    d->letters = (struct letters_of){.data = data, .apis = {&d->points, &d->events, &d->tasks}};
}

static void choose_kind(struct desk *d) {
    enum data_store_kind kind;
    bool one = letters_kind(&d->letters,
                            bytes_of_string(options_text(d->cli->options, OPTION_KIND)), &kind);
    d->kind = one ? kind : DATA_STORES;
}

static bool is_shared(const struct data_options *options) {
    return options->journal.url && journal_url_is_shared(options->journal.url);
}

static int open_data(struct desk *d, const struct data_options *options) {
    struct data_paths paths;
    struct problem problem;
    if (!is_shared(options) && data_find_paths(d->cli->os, options->directory, &paths, &problem))
        return cli_fail(CLI_USAGE, "%s", problem.text);
    int r = data_open(d->cli->os, options, d->metrics, &d->data, &problem);
    if (r == SERVE_E_IN_USE)
        return cli_fail(CLI_USAGE,
                        "%s. While a server has it open, use its console, or its routes: "
                        "GET /dead-letters, POST /dead-letters/{kind}/{number}/replay, DELETE",
                        problem.text);
    return r ? cli_fail(CLI_USAGE, "%s", problem.text) : CLI_OK;
}

static int desk_open(struct desk *d) {
    const char *directory = options_text(d->cli->options, OPTION_DATA_DIR);
    struct data_options options = {
        .directory = directory, .roles = DATA_ROLE_API, .existing = true};
    int status = part_urls_set(d->cli->options, &d->urls, &options);
    if (status)
        return status;
    if (!is_shared(&options)) /* whoever opens a part of one process puts that process out */
        options = (struct data_options){.directory = directory};
    if (metrics_new(&d->metrics))
        return cli_fail(CLI_FAILED, "out of memory");
    status = open_data(d, &options);
    if (status)
        return status;
    make_apis(d);
    choose_kind(d);
    for (int i = 0; i < DATA_STORES && !status && !d->data->shared; i++)
        status = catch_up(d, (enum data_store_kind)i);
    return status;
}

static int cannot_read(int r, const char *why) {
    return cli_fail(CLI_FAILED, "the dead letters cannot be read: %s",
                    r == WORK_LETTER_E_UNREACHABLE ? why : strerror(-r));
}

/* ---- list, show ---- */

static void show_line(struct buffer *out, const struct letter_shown *shown) {
    const struct work_letter *letter = shown->letter;
    char at[TIME_TEXT_BYTES + 1];
    time_text((int64_t)letter->record.wall_us, at);
    buffer_append_format(out, "%10" PRIu64 "  %s  %-7s %6zu bytes  ", letter->record.lsn, at,
                         shown->kind, letter->record.payload.size);
    json_append_string(out, shown->key);
    bool changed = letter->changed && letter->changed != WORK_LETTER_NOBODY_KNOWS;
    buffer_append_format(out, "%s\n            ", changed ? "  (changed since)" : "");
    buffer_append_bytes(out, letter->reason);
}

static void show_json_line(struct buffer *out, const struct letter_shown *shown) {
    letters_show_json(out, shown);
    buffer_append_u8(out, '}');
}

static int list(struct desk *d, uint64_t number UNUSED) {
    bool json = options_flag(d->cli->options, OPTION_JSON);
    struct letters_query q = {
        .kind = d->kind, .limit = PAGE, .show = json ? show_json_line : show_line, .between = "\n"};
    size_t n = 0, all = 0;
    do {
        CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
        char why[WORK_LETTER_WHY_MAX] = "";
        int r = letters_list(&d->letters, &q, &out, &n, &q.from, why);
        if (r)
            return cannot_read(r, why);
        if (n)
            printf("%.*s\n", (int)out.size, (const char *)out.data);
        all += n;
    } while (q.from.number);
    if (!json && all == 0)
        printf("no dead letters\n");
    return CLI_OK;
}

/* A number says the kind, too, as it is the record's place in the journal; but where processes
 * share it each kind has one of its own. */
static int find_letter(struct desk *d, uint64_t number, struct letter_held *held) {
    char why[WORK_LETTER_WHY_MAX] = "";
    int found = 0;
    for (int i = 0; i < DATA_STORES; i++) {
        struct letter_held one = {0};
        if (d->kind != DATA_STORES && d->kind != (unsigned)i)
            continue;
        int r = letters_get(&d->letters, (enum data_store_kind)i, number, &one, why);
        if (r && r != WORK_LETTER_E_GONE)
            return cannot_read(r, why);
        if (r)
            continue;
        letter_held_deinit(held);
        *held = one;
        found++;
    }
    if (found == 0)
        return cli_fail(CLI_FAILED, "there is no dead letter %" PRIu64, number);
    return found == 1
               ? CLI_OK
               : cli_fail(CLI_USAGE, "several kinds have a dead letter %" PRIu64 ": give --kind",
                          number);
}

static int show(struct desk *d, uint64_t number) {
    CLEANUP(letter_held_deinit) struct letter_held held = {0};
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    char sentence[WORK_LETTER_SENTENCE];
    int status = find_letter(d, number, &held);
    if (status)
        return status;
    int r = letters_append_record(&d->letters, &held, &out, sentence);
    if (r)
        return cli_fail(CLI_FAILED, "%s", r > 0 ? sentence : strerror(-r));
    printf("%.*s\n", (int)out.size, (const char *)out.data);
    return CLI_OK;
}

/* ---- replay, edit, drop ---- */

/* Waits until the record about the letter is durable, and applies it. */
static int apply(struct desk *d, enum data_store_kind kind, lsn_t first, lsn_t last) {
    char reason[256];
    int r = journal_wait(d->data->journal, last, WAIT_MS);
    if (r)
        return cli_fail(CLI_FAILED, "the record cannot be written: %s",
                        r < 0 ? strerror(-r) : journal_state_text(d->data->journal));
    int status = catch_up(d, kind);
    if (status)
        return status;
    bool rejected = work_rejection(d->data->stores[kind].work, first, last, reason, sizeof reason);
    r = data_checkpoint(d->data, kind);
    if (rejected)
        return cli_fail(CLI_FAILED, "nothing is changed: %s", reason);
    return r ? cli_fail(CLI_FAILED,
                        "the record is written (lsn %" PRIu64 ") but not yet persisted: %s", last,
                        strerror(-r))
             : CLI_OK;
}

static int refused_by_journal(const struct desk *d) {
    const char *why = journal_state_text(d->data->journal);
    return cli_fail(CLI_FAILED, "the journal takes nothing now: %s",
                    *why ? why : "a store is too far behind");
}

/* Of letters that processes share: the workers apply it. */
static int settle(struct desk *d, const struct letter_held *held,
                  const struct work_letter_replay *replay) {
    char why[WORK_LETTER_WHY_MAX] = "";
    bool gone = false;
    int r = letters_settle(&d->letters, held, replay, &gone, why);
    if (r)
        return cli_fail(CLI_FAILED, "%s%s",
                        r == WORK_LETTER_E_JOURNAL
                            ? "it may have been written again, or not; look again"
                            : "it was written again, but the letter cannot be looked at: ",
                        r == WORK_LETTER_E_UNREACHABLE ? why
                        : r < 0                        ? strerror(-r)
                                                       : "");
    printf("written again%s\n", gone ? "" : "; the letter goes when a worker has applied it");
    return CLI_OK;
}

static int write_again(struct desk *d, uint64_t number, const struct bytes *edited) {
    CLEANUP(letter_held_deinit) struct letter_held held = {0};
    struct work_letter_replay replay = {.edited = edited,
                                        .force = options_flag(d->cli->options, OPTION_FORCE)};
    int status = find_letter(d, number, &held);
    if (status)
        return status;
    if (!replay.force && letters_must_be_forced(&d->letters, held.kind))
        return cli_fail(CLI_FAILED, "%s", letters_unforced);
    int r = letters_replay(&d->letters, &held, &replay);
    if (r == WORK_LETTER_E_JOURNAL)
        return refused_by_journal(d);
    if (r)
        return cli_fail(CLI_FAILED, "%s%s", edited ? "the corrected record is refused: " : "",
                        r > 0 ? replay.sentence : strerror(-r));
    if (letters_are_shared(&d->letters))
        return settle(d, &held, &replay);
    status = apply(d, held.kind, replay.first, replay.last);
    if (!status)
        printf("written as lsn %" PRIu64 "\n", replay.last);
    return status;
}

static int replay(struct desk *d, uint64_t number) {
    return write_again(d, number, NULL);
}

static int load_input(const struct cli *cli, struct buffer *out) {
    const char *path = options_text(cli->options, OPTION_INPUT);
    size_t size;
    if (strcmp(path, "-") != 0) {
        int r = os_load(cli->os, path, INPUT_MAX_BYTES, out);
        return r ? cli_fail(CLI_FAILED, "--input %s cannot be read", path) : CLI_OK;
    }
    do {
        uint8_t *room = buffer_reserve(out, BUFSIZ);
        if (!room || out->size > INPUT_MAX_BYTES)
            return cli_fail(CLI_FAILED, "the input is too large");
        size = fread(room, 1, BUFSIZ, stdin);
        out->size += size;
    } while (size > 0);
    return CLI_OK;
}

static int edit(struct desk *d, uint64_t number) {
    CLEANUP(buffer_deinit) struct buffer input = BUFFER_INIT;
    int status = load_input(d->cli, &input);
    if (status)
        return status;
    const struct bytes edited = buffer_bytes(&input);
    return write_again(d, number, &edited);
}

static int drop_shared(struct desk *d, const struct letter_held *held) {
    char why[WORK_LETTER_WHY_MAX] = "";
    int r = letters_drop_shared(&d->letters, held->kind, held->letter.record.lsn, why);
    return r ? cli_fail(CLI_FAILED, "it cannot be dropped: %s",
                        r == WORK_LETTER_E_GONE ? "it is gone"
                        : r > 0                 ? why
                                                : strerror(-r))
             : CLI_OK;
}

static int drop(struct desk *d, uint64_t number) {
    CLEANUP(letter_held_deinit) struct letter_held held = {0};
    uint64_t key_hash;
    lsn_t lsn;
    int condition;
    int status = find_letter(d, number, &held);
    if (status || letters_are_shared(&d->letters))
        return status ? status : drop_shared(d, &held);
    int r = letters_drop(&d->letters, held.kind, number, &lsn, &key_hash, &condition);
    if (r == WORK_LETTER_E_JOURNAL)
        return refused_by_journal(d);
    if (r)
        return cli_fail(CLI_FAILED, "it cannot be dropped: %s",
                        r < 0 ? strerror(-r) : "it is gone");
    return apply(d, held.kind, lsn, lsn);
}

/* ---- Which of them ---- */

struct action {
    const char *name;
    bool takes_number;
    int (*run)(struct desk *d, uint64_t number);
};
static const struct action actions[] = {{"list", false, list},
                                        {"show", true, show},
                                        {"replay", true, replay},
                                        {"edit", true, edit},
                                        {"drop", true, drop}};

static int parse_number(const struct cli *cli, const struct action *action, uint64_t *ret) {
    const struct options *o = cli->options;
    char *end = NULL;
    if (!action->takes_number)
        return o->n_arguments == 2 ? CLI_OK
                                   : cli_fail(CLI_USAGE,
                                              "`millrace journal dead-letters %s` takes no "
                                              "argument \"%.80s\"",
                                              action->name, o->arguments[2]);
    if (o->n_arguments != 3)
        return cli_fail(CLI_USAGE, "say which: millrace journal dead-letters %s NUMBER",
                        action->name);
    uint64_t number = strtoull(o->arguments[2], &end, 10);
    if (number == 0 || *end)
        return cli_fail(CLI_USAGE, "\"%.80s\" is not the number of a dead letter", o->arguments[2]);
    *ret = number;
    return CLI_OK;
}

static int run_action(const struct cli *cli, const struct action *action) {
    struct desk desk = {.cli = cli};
    uint64_t number = 0;
    int status = parse_number(cli, action, &number);
    if (status)
        return status;
    status = desk_open(&desk);
    if (!status)
        status = action->run(&desk, number);
    desk_close(&desk);
    return status;
}

int dead_letters_run(const struct cli *cli) {
    const struct options *o = cli->options;
    const char *name = o->n_arguments > 1 ? o->arguments[1] : "";
    for (size_t i = 0; i < ARRAY_LENGTH(actions); i++)
        if (strcmp(name, actions[i].name) == 0)
            return run_action(cli, &actions[i]);
    return cli_fail(CLI_USAGE, "dead-letters takes one of list, show, replay, edit and drop");
}
