/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options: every row from its flag, its environment variables and its INI key, with the right
 * precedence; every type with good and bad values; the sentences of errors.
 */
#include "cli/options.h"

#include "os/file.h"
#include "os/process.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static char *no_environment[] = {NULL};
static char ini_path[64];

static unsigned first_command(const struct option_row *row) {
    return row->commands & -row->commands;
}

static void write_ini(const char *text) {
    snprintf(ini_path, sizeof ini_path, "/tmp/millrace-test-%d.ini", (int)process_id());
    assert_int_equal(os_replace(os_real(), ini_path, bytes_of_string(text)), 0);
}

static int remove_ini(void **state UNUSED) {
    return ini_path[0] ? os_remove(os_real(), ini_path) : 0;
}

/* Two values that the row takes and that are not its default. */
static const char *sample(const struct option_row *row, unsigned which) {
    static const char *const samples[OPTION_TYPES][2] = {
        [OPTION_TYPE_STRING] = {"abc", "def"},
        [OPTION_TYPE_SECRET] = {"abc", "def"},
        [OPTION_TYPE_PATH] = {"/a/b", "c"},
        [OPTION_TYPE_ADDRESS] = {"127.0.0.1:1234", "[::1]:99"},
        [OPTION_TYPE_URL] = {"http://a:1", "http://b"},
        [OPTION_TYPE_SERVICE] = {"local:", "kafka://a:1"},
        [OPTION_TYPE_INTEGER] = {"7", "8"},
        [OPTION_TYPE_SIZE] = {"2M", "3M"},
        [OPTION_TYPE_DURATION] = {"11s", "12s"},
        [OPTION_TYPE_BOOL] = {"true", "false"},
    };
    if (row == &option_rows[OPTION_MAX_HEADER_SIZE])
        return which ? "2K" : "3K";
    if (row == &option_rows[OPTION_ROLES])
        return which ? "api" : "worker";
    if (row == &option_rows[OPTION_KIND])
        return which ? "events" : "tasks";
    if (row->type == OPTION_TYPE_ENUM)
        return row->placeholder[0] == 'a' ? (which ? "os" : "always") : (which ? "warn" : "error");
    return samples[row->type][which];
}

static void check_value(const struct options *o, enum option_id id, const char *text,
                        enum option_source source) {
    char why[OPTIONS_ERROR_MAX];
    uint64_t number = 0;
    assert_int_equal(o->values[id].source, source);
    assert_string_equal(o->values[id].text, text);
    assert_int_equal(option_parse(&option_rows[id], text, &number, why), 0);
    assert_int_equal(o->values[id].number, number);
}

static void test_every_row_from_its_flag(void **state UNUSED) {
    for (unsigned i = 0; i < OPTIONS; i++) {
        const struct option_row *row = &option_rows[i];
        char flag[80];
        char joined[160];
        struct options o;
        if (i == OPTION_CONFIG)
            continue;
        snprintf(flag, sizeof flag, "--%s", row->flag);
        snprintf(joined, sizeof joined, "--%s=%s", row->flag, sample(row, 1));
        char *separate[] = {flag, (char *)(uintptr_t)sample(row, 0)};
        char *both[] = {flag, separate[1], joined};
        size_t n = row->type == OPTION_TYPE_BOOL ? 1 : 2;
        assert_int_equal(
            options_load(&o, os_real(), first_command(row), separate, n, no_environment), 0);
        check_value(&o, (enum option_id)i, sample(row, 0), OPTION_FLAG);
        options_deinit(&o);
        if (row->type == OPTION_TYPE_BOOL)
            both[1] = joined;
        /* The last one wins. */
        assert_int_equal(
            options_load(&o, os_real(), first_command(row), both, n + 1, no_environment), 0);
        check_value(&o, (enum option_id)i, sample(row, 1), OPTION_FLAG);
        options_deinit(&o);
    }
}

static void check_variable(unsigned id, const char *name) {
    const struct option_row *row = &option_rows[id];
    char variable[160];
    char *environment[] = {(char *)(uintptr_t) "OTHER=1", variable, NULL};
    struct options o;
    snprintf(variable, sizeof variable, "%s=%s", name, sample(row, 0));
    assert_int_equal(options_load(&o, os_real(), first_command(row), NULL, 0, environment), 0);
    check_value(&o, (enum option_id)id, sample(row, 0), OPTION_ENVIRONMENT);
    options_deinit(&o);
    snprintf(variable, sizeof variable, "%s=", name); /* empty is not set */
    assert_int_equal(options_load(&o, os_real(), first_command(row), NULL, 0, environment), 0);
    assert_true(o.values[id].source <= OPTION_DEFAULT);
    options_deinit(&o);
}

static void test_every_row_from_the_environment(void **state UNUSED) {
    for (unsigned i = 0; i < OPTIONS; i++) {
        char name[OPTION_NAME_MAX];
        if (i == OPTION_CONFIG)
            continue;
        option_environment_name(&option_rows[i], name);
        check_variable(i, name);
    }
    check_variable(OPTION_LISTEN, "PORT");
    check_variable(OPTION_METRICS_LISTEN, "METRICS_PORT");
    check_variable(OPTION_BATCH_SIZE, "ALIOTH_LOAD_TEST_BATCH_SIZE");
}

static void test_environment_names(void **state UNUSED) {
    char name[OPTION_NAME_MAX];
    option_environment_name(&option_rows[OPTION_DATA_DIR], name);
    assert_string_equal(name, "MILLRACE_DATA_DIR");
}

static void test_every_row_from_the_file(void **state UNUSED) {
    for (unsigned i = 0; i < OPTIONS; i++) {
        const struct option_row *row = &option_rows[i];
        char text[256];
        struct options o;
        if (i == OPTION_CONFIG)
            continue;
        snprintf(text, sizeof text, "%s = %s\n", row->flag, sample(row, 0));
        write_ini(text);
        char *argv[] = {(char *)(uintptr_t) "--config", ini_path};
        assert_int_equal(options_load(&o, os_real(), first_command(row), argv, 2, no_environment),
                         0);
        check_value(&o, (enum option_id)i, sample(row, 0), OPTION_INI);
        options_deinit(&o);
    }
}

static void test_every_default_is_a_value(void **state UNUSED) {
    for (unsigned i = 0; i < OPTIONS; i++) {
        const struct option_row *row = &option_rows[i];
        struct options o;
        assert_int_equal(options_load(&o, os_real(), first_command(row), NULL, 0, no_environment),
                         0);
        if (row->fallback[0])
            check_value(&o, (enum option_id)i, row->fallback, OPTION_DEFAULT);
        else
            assert_null(options_text(&o, (enum option_id)i));
        assert_false(options_given(&o, (enum option_id)i));
        options_deinit(&o);
    }
}

static void test_rows_are_sound(void **state UNUSED) {
    for (unsigned i = 0; i < OPTIONS; i++) {
        assert_true(option_rows[i].prose[0] && option_rows[i].commands);
        for (unsigned j = 0; j < i; j++)
            assert_false(strcmp(option_rows[i].flag, option_rows[j].flag) == 0 &&
                         (option_rows[i].commands & option_rows[j].commands));
    }
}

static void test_precedence(void **state UNUSED) {
    char *environment[] = {(char *)(uintptr_t) "MILLRACE_DATA_DIR=/env",
                           (char *)(uintptr_t) "MILLRACE_LANES=5", NULL};
    char *argv[] = {(char *)(uintptr_t) "--data-dir=/flag", (char *)(uintptr_t) "--config",
                    ini_path};
    struct options o;
    write_ini("lanes = 6\nthreads = 7\n[load]\nthreads = 9\n[serve]\nquery-threads = 8\n");
    assert_int_equal(options_load(&o, os_real(), FOR_SERVE, argv, 3, environment), 0);
    assert_string_equal(options_text(&o, OPTION_DATA_DIR), "/flag");
    assert_int_equal(options_number(&o, OPTION_LANES), 5);
    assert_int_equal(options_number(&o, OPTION_THREADS), 7);
    assert_int_equal(options_number(&o, OPTION_QUERY_THREADS), 8);
    options_deinit(&o);
    assert_int_equal(options_load(&o, os_real(), FOR_LOAD, argv + 1, 2, environment), 0);
    assert_int_equal(options_number(&o, OPTION_LOAD_THREADS), 9);
    options_deinit(&o);
}

static void test_our_own_variable_wins_over_an_alias(void **state UNUSED) {
    char *environment[] = {(char *)(uintptr_t) "PORT=1", (char *)(uintptr_t) "MILLRACE_LISTEN=2",
                           NULL};
    struct options o;
    assert_int_equal(options_load(&o, os_real(), FOR_SERVE, NULL, 0, environment), 0);
    assert_string_equal(options_text(&o, OPTION_LISTEN), "2");
    options_deinit(&o);
}

struct value_case {
    enum option_id id;
    const char *text;
    int64_t number; /* -1: refused */
};
static const struct value_case value_cases[] = {
    {OPTION_THREADS, "0", 0},
    {OPTION_THREADS, "1024", 1024},
    {OPTION_THREADS, "1025", -1},
    {OPTION_THREADS, "-1", -1},
    {OPTION_THREADS, " 1", -1},
    {OPTION_THREADS, "1x", -1},
    {OPTION_THREADS, "", -1},
    {OPTION_THREADS, "99999999999999999999", -1},
    {OPTION_MIN_WORKERS, "0", -1},
    {OPTION_PIN_MAX, "1M", 1 << 20},
    {OPTION_PIN_MAX, "1048575", -1},
    {OPTION_PIN_MAX, "2GiB", 2ll << 30},
    {OPTION_PIN_MAX, "2gb", 2ll << 30},
    {OPTION_PIN_MAX, "1T", 1ll << 40},
    {OPTION_PIN_MAX, "2097152B", 2 << 20},
    {OPTION_PIN_MAX, "1.5G", -1},
    {OPTION_PIN_MAX, "1X", -1},
    {OPTION_PIN_MAX, "99999999999999T", -1},
    {OPTION_IDLE_TIMEOUT, "5", 5000},
    {OPTION_IDLE_TIMEOUT, "1500ms", 1500},
    {OPTION_IDLE_TIMEOUT, "2m", 120000},
    {OPTION_IDLE_TIMEOUT, "1h", 3600000},
    {OPTION_IDLE_TIMEOUT, "1d", 86400000},
    {OPTION_IDLE_TIMEOUT, "2d", -1},
    {OPTION_IDLE_TIMEOUT, "10ms", -1},
    {OPTION_IDLE_TIMEOUT, "s", -1},
    {OPTION_INSECURE, "yes", 1},
    {OPTION_INSECURE, "0", 0},
    {OPTION_INSECURE, "maybe", -1},
    {OPTION_SYNC, "always", 0},
    {OPTION_SYNC, "group", 1},
    {OPTION_SYNC, "os", 2},
    {OPTION_SYNC, "o", -1},
    {OPTION_SYNC, "", -1},
    {OPTION_SYNC, "always|group", -1},
    {OPTION_LISTEN, "8000", 0},
    {OPTION_LISTEN, "localhost:0", 0},
    {OPTION_LISTEN, "[::]:80", 0},
    {OPTION_LISTEN, ":80", -1},
    {OPTION_LISTEN, "localhost", -1},
    {OPTION_LISTEN, "localhost:65536", -1},
    {OPTION_URL, "ftp://x", -1},
    {OPTION_JOURNAL, "local:", 0},
    {OPTION_JOURNAL, "kafka://a:1,b:2/?replication=3", 0},
    {OPTION_JOURNAL, "kafka://a:1,/", -1},
    {OPTION_JOURNAL, "local", -1},
    {OPTION_DATA_DIR, "", -1},
};

static void test_values(void **state UNUSED) {
    for (size_t i = 0; i < ARRAY_LENGTH(value_cases); i++) {
        const struct value_case *c = &value_cases[i];
        char why[OPTIONS_ERROR_MAX];
        uint64_t number = 0;
        int r = option_parse(&option_rows[c->id], c->text, &number, why);
        assert_int_equal(r, c->number < 0 ? OPTIONS_E_INVALID : 0);
        if (c->number >= 0)
            assert_int_equal(number, c->number);
        else
            assert_true(strncmp(why, "must ", 5) == 0);
    }
}

struct error_case {
    unsigned command;
    const char *argument;
    const char *variable;
    const char *ini;
    const char *sentence;
};
static const struct error_case error_cases[] = {
    {FOR_SERVE, "--data-dri=x", NULL, NULL, "unknown option --data-dri; did you mean --data-dir?"},
    {FOR_SERVE, "--zzzzzzzz", NULL, NULL, "unknown option --zzzzzzzz; see --help"},
    {FOR_SERVE, "--url=x", NULL, NULL, "--url is not an option of this command; see --help"},
    {FOR_SERVE, "-x", NULL, NULL, "unknown option -x; options start with two dashes"},
    {FOR_SERVE, "--sync", NULL, NULL, "--sync needs a value: --sync always|group|os"},
    {FOR_SERVE, "--sync=fast", NULL, NULL, "--sync must be one of always|group|os, not \"fast\""},
    {FOR_SERVE, "--min-workers=0", NULL, NULL,
     "--min-workers must be at least 1 threads, not \"0\""},
    {FOR_SERVE, NULL, "PORT=x", NULL,
     "PORT must be HOST:PORT or a port, as 127.0.0.1:8000, not \"x\""},
    {FOR_SERVE, NULL, NULL, "\nsink = x\n", ":2: unknown option sink; did you mean sync?"},
    {FOR_SERVE, NULL, NULL, "[server]\nsync = os\n", ":2: unknown section [server]"},
    {FOR_SERVE, NULL, NULL, "[load]\nsync = os\n", ":2: unknown option sync"},
    {FOR_SERVE, NULL, NULL, "sync\n", ":1: neither \"key = value\" nor a [section]"},
    {FOR_SERVE, NULL, NULL, "sync = x\n", ":1: sync must be one of always|group|os, not \"x\""},
    {FOR_SERVE, "--config=/nowhere/x.ini", NULL, NULL,
     "--config /nowhere/x.ini: there is no such file"},
};

static void check_error(const struct error_case *c) {
    char *argv[2] = {NULL, NULL};
    char *environment[2] = {(char *)(uintptr_t)c->variable, NULL};
    char config[80];
    size_t n = 0;
    struct options o;
    if (c->argument)
        argv[n++] = (char *)(uintptr_t)c->argument;
    if (c->ini) {
        write_ini(c->ini);
        snprintf(config, sizeof config, "--config=%s", ini_path);
        argv[n++] = config;
    }
    assert_int_equal(options_load(&o, os_real(), c->command, argv, n, environment),
                     OPTIONS_E_INVALID);
    assert_string_equal(o.error + (c->ini ? strlen(ini_path) : 0), c->sentence);
    options_deinit(&o);
}

static void test_errors(void **state UNUSED) {
    for (size_t i = 0; i < ARRAY_LENGTH(error_cases); i++)
        check_error(&error_cases[i]);
}

static void test_arguments_and_help(void **state UNUSED) {
    char *argv[] = {(char *)(uintptr_t) "records", (char *)(uintptr_t) "--wait",
                    (char *)(uintptr_t) "-", (char *)(uintptr_t) "--",
                    (char *)(uintptr_t) "--help"};
    char *help[] = {(char *)(uintptr_t) "--sync=fast", (char *)(uintptr_t) "-h"};
    struct options o;
    assert_int_equal(options_load(&o, os_real(), FOR_LOAD, argv, 5, no_environment), 0);
    assert_int_equal(o.n_arguments, 3);
    assert_string_equal(o.arguments[0], "records");
    assert_string_equal(o.arguments[1], "-");
    assert_string_equal(o.arguments[2], "--help");
    assert_true(options_flag(&o, OPTION_WAIT));
    assert_false(o.help);
    options_deinit(&o);
    assert_int_equal(options_load(&o, os_real(), FOR_SERVE, help + 1, 1, no_environment), 0);
    assert_true(o.help);
    options_deinit(&o);
}

static void test_bare_port(void **state UNUSED) {
    char *argv[] = {(char *)(uintptr_t) "--listen=0", (char *)(uintptr_t) "--metrics-listen=9009"};
    struct socket_address address;
    struct options o;
    assert_int_equal(options_load(&o, os_real(), FOR_SERVE, argv, 2, no_environment), 0);
    assert_int_equal(options_address(&o, OPTION_LISTEN, &address), 0);
    assert_true(socket_address_is_loopback(&address));
    assert_int_equal(socket_address_port(&address), 0);
    assert_int_equal(options_address(&o, OPTION_METRICS_LISTEN, &address), 0);
    assert_int_equal(socket_address_port(&address), 9009);
    options_deinit(&o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_row_from_its_flag),
        cmocka_unit_test(test_every_row_from_the_environment),
        cmocka_unit_test(test_environment_names),
        cmocka_unit_test(test_every_row_from_the_file),
        cmocka_unit_test(test_every_default_is_a_value),
        cmocka_unit_test(test_rows_are_sound),
        cmocka_unit_test(test_precedence),
        cmocka_unit_test(test_our_own_variable_wins_over_an_alias),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_arguments_and_help),
        cmocka_unit_test(test_bare_port),
    };
    return cmocka_run_group_tests(tests, NULL, remove_ini);
}
