/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dead letters: the records that a store rejected. Replaying one is a new write with a new lsn
 * (invariant 5), so it goes the whole way: appended, made durable, applied, persisted; only then is
 * the letter marked as done with. It is refused when the point has changed since the record was
 * written, or when that can no longer be told, unless --force says so.
 */
#include "cli/dead_letters.h"

#include "cli/record_print.h"
#include "points/api.h"
#include "serve/data.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

enum { WAIT_MS = 30000, INPUT_MAX_BYTES = 64 << 20 };

/* ---- list ---- */

struct listing {
    bool json;
    uint64_t n;
};

static void print_letter(void *context, const struct points_dead_letter *letter) {
    struct buffer out CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct listing *listing = context;
    if (letter->dropped)
        return;
    listing->n++;
    if (listing->json) {
        buffer_append_format(&out, "{\"number\":%" PRIu64 ",\"reason\":", letter->number);
        json_append_cstring(&out, letter->reason);
        buffer_append_u8(&out, ',');
        record_append_json(&out, &letter->record);
        buffer_append_string(&out, "}\n");
    } else {
        buffer_append_format(&out, "%6" PRIu64 "  ", letter->number);
        record_append_line(&out, &letter->record);
        buffer_append_format(&out, "\n        %s\n", letter->reason);
    }
    if (buffer_check(&out) == 0)
        fwrite(out.data, 1, out.size, stdout);
}

static int list(const struct cli *cli) {
    struct listing listing = {.json = options_flag(cli->options, OPTION_JSON)};
    struct data_paths paths;
    struct problem problem;
    if (data_find_paths(cli->os, options_text(cli->options, OPTION_DATA_DIR), &paths, &problem))
        return cli_fail(CLI_USAGE, "%s", problem.text);
    const char *points = paths.stores[DATA_POINTS];
    int r = points_dead_letters_each(cli->os, points, print_letter, &listing);
    if (r) {
        problem_of_result(&problem, "cannot read the dead letters in", points, r);
        return cli_fail(CLI_USAGE, "%s", problem.text);
    }
    if (!listing.json && listing.n == 0)
        printf("no dead letters\n");
    return CLI_OK;
}

/* ---- One letter ---- */

/* A letter, copied out of the file. */
struct letter {
    uint64_t number; /* looked for */
    bool found;
    struct journal_record record;
    struct buffer payload;
};

static void letter_deinit(struct letter *letter) {
    buffer_deinit(&letter->payload);
}

static void take_letter(void *context, const struct points_dead_letter *letter) {
    struct letter *wanted = context;
    if (letter->number != wanted->number || letter->dropped)
        return;
    wanted->found = true;
    wanted->record = letter->record;
    buffer_clear(&wanted->payload);
    buffer_append_bytes(&wanted->payload, letter->record.payload);
    wanted->record.payload = buffer_bytes(&wanted->payload);
}

static int find_letter(const struct cli *cli, const char *points, struct letter *letter) {
    struct problem problem;
    int r = points_dead_letters_each(cli->os, points, take_letter, letter);
    if (r) {
        problem_of_result(&problem, "cannot read the dead letters in", points, r);
        return cli_fail(CLI_USAGE, "%s", problem.text);
    }
    if (!letter->found)
        return cli_fail(CLI_FAILED, "there is no dead letter %" PRIu64, letter->number);
    return buffer_check(&letter->payload) ? cli_fail(CLI_FAILED, "out of memory") : CLI_OK;
}

static int drop_letter(const struct cli *cli, const char *points, uint64_t number) {
    struct problem problem;
    int r = points_dead_letter_drop(cli->os, points, number);
    if (r == POINTS_E_NOT_FOUND)
        return cli_fail(CLI_FAILED, "there is no dead letter %" PRIu64, number);
    if (r) {
        problem_of_result(&problem, "cannot write the dead letters in", points, r);
        return cli_fail(CLI_FAILED, "%s", problem.text);
    }
    return CLI_OK;
}

static int drop(const struct cli *cli, uint64_t number) {
    const char *directory = options_text(cli->options, OPTION_DATA_DIR);
    struct data_paths paths;
    struct os_file *lock;
    struct problem problem;
    if (data_find_paths(cli->os, directory, &paths, &problem) ||
        data_lock(cli->os, directory, &lock, &problem))
        return cli_fail(CLI_USAGE, "%s", problem.text);
    int status = drop_letter(cli, paths.stores[DATA_POINTS], number);
    os_close(cli->os, lock);
    return status;
}

/* ---- Has the point changed since? ---- */

static bool same_point(const struct journal_record *record, const struct point_record *wanted) {
    struct point_record point;
    return record->kind == JOURNAL_KIND_POINTS && point_record_decode(record->payload, &point) &&
           (point.op == POINT_UPSERT || point.op == POINT_DELETE) &&
           point.incarnation == wanted->incarnation && point_id_compare(point.id, wanted->id) == 0;
}

/* Sets ret_lsn to a later record of the same point, 0 when the journal has none. */
static int find_later(struct journal *j, const struct letter *letter,
                      const struct point_record *wanted, lsn_t *ret_lsn) {
    struct journal_cursor *cursor;
    struct journal_batch *batch;
    int r = journal_cursor_new(j, letter->record.lsn + 1, &cursor);
    if (r)
        return error_trace(r);
    *ret_lsn = 0;
    while (*ret_lsn == 0 && !(r = journal_read(cursor, &batch))) {
        for (size_t i = 0; i < batch->n; i++)
            if (batch->records[i].lsn > letter->record.lsn &&
                same_point(&batch->records[i], wanted))
                *ret_lsn = batch->records[i].lsn;
        journal_batch_unref(batch);
    }
    journal_cursor_free(cursor);
    return r == JOURNAL_E_END ? 0 : r;
}

/* The lsn that the store has the point from, 0 when it has none. */
static int find_stored(struct data *d, struct points_collection *collection,
                       const struct point_record *wanted, lsn_t *ret_lsn) {
    struct points_view *view;
    struct point_row row;
    int r = points_view_new(d->points, collection, &view);
    if (r)
        return error_trace(r);
    *ret_lsn = 0;
    r = points_view_get(view, wanted->id, &row);
    if (!r)
        *ret_lsn = row.lsn;
    points_view_free(view);
    return r == POINTS_E_NOT_FOUND ? 0 : r;
}

static int check_unchanged(struct data *d, const struct letter *letter,
                           const struct point_record *point, struct points_collection *collection) {
    lsn_t later = 0;
    int r = find_stored(d, collection, point, &later);
    if (!r && later <= letter->record.lsn)
        r = find_later(d->journal, letter, point, &later);
    if (r)
        return cli_fail(CLI_FAILED, "the point cannot be looked up: %s",
                        r < 0 ? strerror(-r) : "it failed");
    if (later > letter->record.lsn)
        return cli_fail(CLI_FAILED,
                        "the point was written again (lsn %" PRIu64
                        ") since the record was rejected; --force writes it all the same",
                        later);
    if (d->recovery.first_lsn > letter->record.lsn + 1)
        return cli_fail(CLI_FAILED,
                        "the journal no longer holds what came after the record, so the point may "
                        "have been deleted since; --force writes it all the same");
    return CLI_OK;
}

/* ---- replay and edit ---- */

/* A store that has no room for more until it was persisted asks to try again; nobody else makes
 * checkpoints here. One that fails is tried again at the next step. */
static void make_room(void *context, lsn_t at, lsn_t end) {
    struct data *d = context;
    struct work_status status;
    (void)at;
    (void)end;
    work_status(d->stores[DATA_POINTS].work, &status);
    if (status.lanes_retrying > 0)
        (void)!data_checkpoint(d, DATA_POINTS);
}

/* Appends, waits until it is durable, applies. */
static int write_record(struct data *d, struct points_collection *collection,
                        struct journal_record *record) {
    char reason[256];
    int condition = 0;
    int r = points_catalog_append(d->catalog, d->journal, collection, record, 1, &condition);
    if (!r)
        r = journal_wait(d->journal, record->lsn, WAIT_MS);
    if (!r)
        r = work_catch_up(d->stores[DATA_POINTS].work, make_room, d);
    if (r)
        return cli_fail(CLI_FAILED, "the record cannot be written: %s",
                        r < 0 ? strerror(-r) : journal_state_text(d->journal));
    bool rejected = work_rejection(d->stores[DATA_POINTS].work, record->lsn, record->lsn, reason,
                                   sizeof reason);
    r = data_checkpoint(d, DATA_POINTS);
    if (r)
        return cli_fail(CLI_FAILED,
                        "the record is written (lsn %" PRIu64 ") but not yet persisted: %s",
                        record->lsn, strerror(-r));
    if (rejected)
        return cli_fail(CLI_FAILED, "it was rejected again: %s; both letters are kept", reason);
    printf("written as lsn %" PRIu64 "\n", record->lsn);
    return CLI_OK;
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

/* The letter's record with the contents of --input. */
static int edit_record(const struct cli *cli, struct data *d, struct points_collection *collection,
                       const struct point_record *old, struct buffer *bytes,
                       struct journal_record *record) {
    struct buffer input CLEANUP(buffer_deinit) = BUFFER_INIT;
    char sentence[300];
    int status = load_input(cli, &input);
    if (status)
        return status;
    int r = points_encode_point(collection, d->stores[DATA_POINTS].work, buffer_bytes(&input),
                                bytes, record, sentence, sizeof sentence);
    if (r)
        return cli_fail(CLI_FAILED, "the corrected point is refused: %s",
                        r > 0 ? sentence : strerror(-r));
    if (!same_point(record, old))
        return cli_fail(CLI_FAILED, "the corrected point must keep the id of the record");
    return CLI_OK;
}

static int write_letter(const struct cli *cli, struct data *d, struct letter *letter, bool edit) {
    struct buffer bytes CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct journal_record record = letter->record;
    struct point_record point;
    if (!point_record_decode(letter->record.payload, &point) ||
        (point.op != POINT_UPSERT && point.op != POINT_DELETE))
        return cli_fail(CLI_FAILED,
                        "the record does not decode as a point, so it can only be dropped");
    struct points_collection *collection =
        points_catalog_find_incarnation(d->catalog, point.incarnation);
    if (!collection)
        return cli_fail(CLI_FAILED, "its collection is gone, so it can only be dropped");
    int status = CLI_OK;
    if (!options_flag(cli->options, OPTION_FORCE))
        status = check_unchanged(d, letter, &point, collection);
    if (!status && edit)
        status = edit_record(cli, d, collection, &point, &bytes, &record);
    if (!status)
        status = write_record(d, collection, &record);
    points_collection_unref(collection);
    return status;
}

static int write_again(const struct cli *cli, uint64_t number, bool edit) {
    struct data_options options = {.directory = options_text(cli->options, OPTION_DATA_DIR)};
    struct letter letter CLEANUP(letter_deinit) = {.number = number};
    struct data_paths paths;
    struct problem problem;
    struct metrics *metrics;
    struct data *d;
    if (data_find_paths(cli->os, options.directory, &paths, &problem))
        return cli_fail(CLI_USAGE, "%s", problem.text);
    if (metrics_new(&metrics))
        return cli_fail(CLI_FAILED, "out of memory");
    if (data_open(cli->os, &options, metrics, &d, &problem)) {
        metrics_free(metrics);
        return cli_fail(CLI_USAGE, "%s", problem.text);
    }
    int r = work_catch_up(d->stores[DATA_POINTS].work, make_room, d);
    int status = r ? cli_fail(CLI_FAILED, "the journal cannot be replayed: %s",
                              r < 0 ? strerror(-r) : "the store is down")
                   : find_letter(cli, paths.stores[DATA_POINTS], &letter);
    if (!status)
        status = write_letter(cli, d, &letter, edit);
    data_close(d);
    metrics_free(metrics);
    return status ? status : drop(cli, number);
}

static int replay(const struct cli *cli, uint64_t number) {
    return write_again(cli, number, false);
}

static int edit(const struct cli *cli, uint64_t number) {
    return write_again(cli, number, true);
}

/* ---- Which of them ---- */

struct action {
    const char *name;
    int (*run)(const struct cli *cli, uint64_t number);
};
static const struct action actions[] = {{"replay", replay}, {"edit", edit}, {"drop", drop}};

static int run_on_number(const struct cli *cli, const struct action *action) {
    const struct options *o = cli->options;
    char *end = NULL;
    if (o->n_arguments != 3)
        return cli_fail(CLI_USAGE, "say which: millrace journal dead-letters %s NUMBER",
                        action->name);
    uint64_t number = strtoull(o->arguments[2], &end, 10);
    if (number == 0 || *end)
        return cli_fail(CLI_USAGE, "\"%.80s\" is not the number of a dead letter", o->arguments[2]);
    return action->run(cli, number);
}

int dead_letters_run(const struct cli *cli) {
    const struct options *o = cli->options;
    const char *name = o->n_arguments > 1 ? o->arguments[1] : "";
    if (strcmp(name, "list") == 0 && o->n_arguments == 2)
        return list(cli);
    if (strcmp(name, "list") == 0)
        return cli_fail(CLI_USAGE,
                        "`millrace journal dead-letters list` takes no argument "
                        "\"%.80s\"",
                        o->arguments[2]);
    for (size_t i = 0; i < ARRAY_LENGTH(actions); i++)
        if (strcmp(name, actions[i].name) == 0)
            return run_on_number(cli, &actions[i]);
    return cli_fail(CLI_USAGE, "dead-letters takes one of list, replay, edit and drop");
}
