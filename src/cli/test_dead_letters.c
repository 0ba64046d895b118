/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dead letters of a real data directory through the command line: a record with a vector of the
 * wrong length is rejected, listed, refused again, edited, replayed only while its point is
 * unchanged, and dropped.
 */
#include "cli/cli.h"

#include "os/process.h"
#include "serve/data.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

enum { DIMENSION = 2, ID = 7 };

struct fixture {
    char directory[64];
    char input[80];
    char output[80];
    struct metrics *metrics;
    struct data *data;
};

static struct data_options options_of(const struct fixture *f) {
    return (struct data_options){.directory = f->directory, .journal = {.segment_bytes = 64 << 10}};
}

static void open_data(struct fixture *f) {
    const struct data_options options = options_of(f);
    struct problem problem;
    assert_int_equal(metrics_new(&f->metrics), 0);
    assert_int_equal(data_open(os_real(), &options, f->metrics, &f->data, &problem), 0);
    assert_int_equal(work_catch_up(f->data->stores[DATA_POINTS].work, NULL, NULL), 0);
}

static void close_data(struct fixture *f) {
    assert_int_equal(data_checkpoint(f->data, DATA_POINTS), 0);
    f->data = data_close(f->data);
    f->metrics = metrics_free(f->metrics);
}

/* ---- What is in the directory ---- */

static void create_collection(struct fixture *f) {
    struct point_config config = {.n_vectors = 1};
    lsn_t lsn;
    int condition;
    config.vectors[0].dimension = DIMENSION;
    point_config_finish(&config);
    assert_int_equal(points_catalog_create(f->data->catalog, f->data->journal, BYTES_LITERAL("c"),
                                           &config, &lsn, &condition),
                     0);
}

static void append_point(struct fixture *f, size_t n_floats) {
    struct buffer bytes CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct points_collection *c = points_catalog_find(f->data->catalog, BYTES_LITERAL("c"));
    const struct point_id id = {.low = ID};
    const float vector[8] = {1};
    int condition;
    assert_non_null(c);
    point_record_encode_upsert(&bytes, c->incarnation, id, 1, vector, n_floats,
                               BYTES_LITERAL("{\"a\":1}"));
    struct journal_record record = {.key_hash = point_key_hash(c->incarnation, id),
                                    .kind = JOURNAL_KIND_POINTS,
                                    .payload = buffer_bytes(&bytes)};
    assert_int_equal(
        points_catalog_append(f->data->catalog, f->data->journal, c, &record, 1, &condition), 0);
    assert_int_equal(journal_wait(f->data->journal, record.lsn, 5000), 0);
    assert_int_equal(work_catch_up(f->data->stores[DATA_POINTS].work, NULL, NULL), 0);
    points_collection_unref(c);
}

/* 0 when the point is not there. */
static float first_number(struct fixture *f) {
    struct points_collection *c = points_catalog_find(f->data->catalog, BYTES_LITERAL("c"));
    struct points_view *view;
    struct point_row row;
    assert_non_null(c);
    assert_int_equal(points_view_new(f->data->points, c, &view), 0);
    int r = points_view_get(view, (struct point_id){.low = ID}, &row);
    float number = r ? 0 : row.vectors[0];
    points_view_free(view);
    points_collection_unref(c);
    return number;
}

static int setup(void **state) {
    static struct fixture f;
    f = (struct fixture){0};
    snprintf(f.directory, sizeof f.directory, "/tmp/millrace-test-letters-%d", (int)process_id());
    snprintf(f.input, sizeof f.input, "%s/input.json", f.directory);
    snprintf(f.output, sizeof f.output, "%s/output", f.directory);
    open_data(&f);
    create_collection(&f);
    append_point(&f, 5);
    close_data(&f);
    *state = &f;
    return 0;
}

static void remove_entries(struct os *os, const char *directory);

struct removal {
    struct os *os;
    const char *directory;
};

static void remove_entry(void *context, const char *name) {
    const struct removal *removal = context;
    char path[OS_PATH_MAX];
    assert_int_equal(os_path_join(path, removal->directory, "%s", name), 0);
    if (os_unlink(removal->os, path))
        remove_entries(removal->os, path);
}

static void remove_entries(struct os *os, const char *directory) {
    struct removal removal = {os, directory};
    assert_int_equal(os_list(os, directory, remove_entry, &removal), 0);
    assert_int_equal(os_rmdir(os, directory), 0);
}

static int teardown(void **state) {
    const struct fixture *f = *state;
    remove_entries(os_real(), f->directory);
    return 0;
}

/* ---- The command line ---- */

/* Runs `millrace journal dead-letters …` and returns its status; what it printed is in f->output.
 */
static int run(const struct fixture *f, const char *action, const char *number, const char *more) {
    static const struct cli_command *const commands[] = {
        &cli_serve,  &cli_load,    &cli_journal, &cli_check,
        &cli_status, &cli_version, &cli_options, &cli_help,
    };
    char directory[80];
    char *argv[8] = {(char *)(uintptr_t) "millrace", (char *)(uintptr_t) "journal",
                     (char *)(uintptr_t) "dead-letters", directory, (char *)(uintptr_t)action};
    int argc = 5;
    snprintf(directory, sizeof directory, "--data-dir=%s", f->directory);
    if (number)
        argv[argc++] = (char *)(uintptr_t)number;
    if (more)
        argv[argc++] = (char *)(uintptr_t)more;
    fflush(NULL);
    int saved_out = dup(1);
    int saved_err = dup(2);
    int file = open(f->output, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(saved_out >= 0 && saved_err >= 0 && file >= 0);
    dup2(file, 1);
    dup2(file, 2);
    int status = cli_main(commands, ARRAY_LENGTH(commands), argc, argv);
    fflush(NULL);
    dup2(saved_out, 1);
    dup2(saved_err, 2);
    close(saved_out);
    close(saved_err);
    close(file);
    return status;
}

static void assert_printed(const struct fixture *f, const char *words) {
    struct buffer text CLEANUP(buffer_deinit) = BUFFER_INIT;
    assert_int_equal(os_load(os_real(), f->output, 1 << 20, &text), 0);
    buffer_append_u8(&text, 0);
    if (!strstr((const char *)text.data, words))
        fail_msg("\"%s\" does not say \"%s\"", (const char *)text.data, words);
}

static void write_input(const struct fixture *f, const char *text) {
    assert_int_equal(os_replace(os_real(), f->input, bytes_of_string(text)), 0);
}

static void assert_point(struct fixture *f, float number) {
    open_data(f);
    assert_true(first_number(f) == number);
    close_data(f);
}

/* The collection is record 1, the point that does not fit record 2. */
static void test_list(void **state) {
    struct fixture *f = *state;
    assert_int_equal(run(f, "list", "--json", NULL), CLI_OK);
    assert_printed(f, "{\"kind\":\"points\",\"number\":2,\"key\":\"c/7\",\"at\":\"2");
    assert_printed(f, "\"reason\":\"the vectors do not fit the collection's configuration\",");
    assert_printed(f, "\"changed\":false}\n");
    assert_int_equal(run(f, "list", NULL, NULL), CLI_OK);
    assert_printed(f, "\"c/7\"\n            the vectors do not fit");
    assert_int_equal(run(f, "list", "--kind=events", NULL), CLI_OK);
    assert_printed(f, "no dead letters");
    assert_int_equal(run(f, "show", "2", NULL), CLI_OK);
    assert_printed(f, "{\"id\":7,\"vector\":[1.0,0.0,0.0,0.0,0.0],\"payload\":{\"a\":1}}\n");
}

static void test_usage(void **state) {
    struct fixture *f = *state;
    assert_int_equal(run(f, "replay", NULL, NULL), CLI_USAGE);
    assert_int_equal(run(f, "replay", "x", NULL), CLI_USAGE);
    assert_int_equal(run(f, "burn", "2", NULL), CLI_USAGE);
    assert_int_equal(run(f, "replay", "9", NULL), CLI_FAILED);
    assert_printed(f, "there is no dead letter 9");
    assert_int_equal(run(f, "drop", "2", "--kind=tasks"), CLI_FAILED);
    assert_printed(f, "there is no dead letter 2");
    open_data(f);
    assert_int_equal(run(f, "drop", "2", NULL), CLI_USAGE);
    assert_printed(f, "in use by another millrace");
    assert_printed(f, "GET /dead-letters");
    close_data(f);
}

static void test_replay_is_rejected_again(void **state) {
    struct fixture *f = *state;
    assert_int_equal(run(f, "replay", "2", NULL), CLI_FAILED);
    assert_printed(f, "nothing is changed: the vectors do not fit");
    assert_int_equal(run(f, "list", "--json", NULL), CLI_OK);
    assert_printed(f, "\"number\":2,");
}

static void test_edit(void **state) {
    struct fixture *f = *state;
    char input[96];
    snprintf(input, sizeof input, "--input=%s", f->input);
    write_input(f, "{\"id\":7,\"vector\":[1,2,3]}");
    assert_int_equal(run(f, "edit", "2", input), CLI_FAILED);
    assert_printed(f, "the corrected record is refused: ");
    write_input(f, "{\"id\":8,\"vector\":[1,2]}");
    assert_int_equal(run(f, "edit", "2", input), CLI_FAILED);
    assert_printed(f, "must keep the id");
    write_input(f, "{\"id\":7,");
    assert_int_equal(run(f, "edit", "2", input), CLI_FAILED);
    assert_point(f, 0);
    write_input(f, "{\"id\":7,\"vector\":[3,4],\"payload\":{}}");
    assert_int_equal(run(f, "edit", "2", input), CLI_OK);
    assert_printed(f, "written as lsn 3");
    assert_int_equal(run(f, "list", NULL, NULL), CLI_OK);
    assert_printed(f, "no dead letters");
    assert_point(f, 0.6F); /* of length 1, as Cosine keeps them */
    assert_int_equal(run(f, "edit", "2", input), CLI_FAILED);
    assert_printed(f, "there is no dead letter 2");
}

static void test_changed_since(void **state) {
    struct fixture *f = *state;
    char input[96];
    snprintf(input, sizeof input, "--input=%s", f->input);
    write_input(f, "{\"id\":7,\"vector\":[-2,0]}");
    open_data(f);
    append_point(f, DIMENSION);
    close_data(f);
    assert_int_equal(run(f, "edit", "2", input), CLI_FAILED);
    assert_printed(f, "its key was written again");
    assert_int_equal(run(f, "list", "--json", NULL), CLI_OK);
    assert_printed(f, "\"changed\":true");
    assert_point(f, 1);
    setenv("MILLRACE_FORCE", "true", 1);
    assert_int_equal(run(f, "edit", "2", input), CLI_OK);
    unsetenv("MILLRACE_FORCE");
    assert_point(f, -1);
}

static void test_drop(void **state) {
    struct fixture *f = *state;
    assert_int_equal(run(f, "drop", "2", NULL), CLI_OK);
    assert_int_equal(run(f, "drop", "2", NULL), CLI_FAILED);
    assert_int_equal(run(f, "list", NULL, NULL), CLI_OK);
    assert_printed(f, "no dead letters");
    assert_point(f, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_list, setup, teardown),
        cmocka_unit_test_setup_teardown(test_usage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_replay_is_rejected_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_edit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_changed_since, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drop, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
