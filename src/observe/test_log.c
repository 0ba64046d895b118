/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines in a file of the real system: their form, levels, reopening, many threads. */
#include "observe/log.h"

#include "base/json.h"
#include "os/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static char directory[] = "/tmp/millrace-log-XXXXXX";
static char path[OS_PATH_MAX];
static char moved[OS_PATH_MAX];
static struct log *l;

static int start(void **state) {
    (void)state;
    memcpy(directory + sizeof directory - 7, "XXXXXX", 6);
    assert_non_null(mkdtemp(directory));
    assert_int_equal(os_path_join(path, directory, "log"), 0);
    assert_int_equal(os_path_join(moved, directory, "log.1"), 0);
    return log_new(os_real(), path, LOG_INFO, &l);
}

static int stop(void **state) {
    (void)state;
    l = log_free(l);
    assert_int_equal(os_remove(os_real(), path), 0);
    assert_int_equal(os_remove(os_real(), moved), 0);
    return os_rmdir(os_real(), directory);
}

static void load(const char *file, struct buffer *out) {
    assert_int_equal(os_load(os_real(), file, 1 << 20, out), 0);
}

static void test_form(void **state) {
    (void)state;
    log_line(l, LOG_WARN, "a \"quoted\"\nmessage", LOG_TEXT("path", "/x\ty"), LOG_NUMBER("n", -5));
    log_write(l, LOG_ERROR, "bare", NULL, 0);
    struct buffer text = BUFFER_INIT;
    load(path, &text);
    buffer_append_u8(&text, 0);
    const char *t = (const char *)text.data;
    assert_memory_equal(t, "{\"time\":\"20", 11);
    assert_int_equal(t[9 + 4], '-');
    assert_memory_equal(t + 9 + 23, "Z\"", 2);
    assert_string_equal(strchr(t, ','),
                        strstr(t, ",\"level\":\"warn\",\"message\":\"a \\\"quoted\\\"\\nmessage\","
                                  "\"path\":\"/x\\ty\",\"n\":-5}\n{\"time\""));
    assert_non_null(strstr(t, "\"level\":\"error\",\"message\":\"bare\"}\n"));
    buffer_deinit(&text);
}

static void test_levels(void **state) {
    (void)state;
    assert_int_equal(log_level_of(l), LOG_INFO);
    log_write(l, LOG_DEBUG, "hidden", NULL, 0);
    log_set_level(l, LOG_DEBUG);
    log_write(l, LOG_DEBUG, "shown", NULL, 0);
    log_set_level(l, LOG_ERROR);
    log_write(l, LOG_WARN, "hidden", NULL, 0);
    struct buffer text = BUFFER_INIT;
    load(path, &text);
    buffer_append_u8(&text, 0);
    assert_non_null(strstr((const char *)text.data, "shown"));
    assert_null(strstr((const char *)text.data, "hidden"));
    buffer_deinit(&text);
}

static void test_reopen(void **state) {
    (void)state;
    log_write(l, LOG_INFO, "first", NULL, 0);
    assert_int_equal(os_rename(os_real(), path, moved), 0);
    log_write(l, LOG_INFO, "second", NULL, 0);
    assert_int_equal(log_reopen(l), 0);
    log_write(l, LOG_INFO, "third", NULL, 0);
    struct buffer old = BUFFER_INIT, new = BUFFER_INIT;
    load(moved, &old);
    load(path, &new);
    buffer_append_u8(&old, 0);
    buffer_append_u8(&new, 0);
    assert_non_null(strstr((const char *)old.data, "second"));
    assert_null(strstr((const char *)old.data, "third"));
    assert_non_null(strstr((const char *)new.data, "third"));
    buffer_deinit(&old);
    buffer_deinit(&new);
}

static void test_no_such_directory(void **state) {
    (void)state;
    struct log *other = NULL;
    assert_true(log_new(os_real(), "/nonexistent/directory/log", LOG_INFO, &other) < 0);
    assert_null(other);
    assert_null(log_free(NULL));
}

static void write_many(void *name) {
    for (int i = 0; i < 500; i++)
        log_line(l, LOG_INFO, name, LOG_NUMBER("i", i));
}

static void test_lines_of_threads_do_not_mix(void **state) {
    (void)state;
    char names[4][8] = {"one", "two", "three", "four"};
    struct os_thread *threads[4];
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(os_thread_start(os_real(), "log", write_many, names[i], &threads[i]), 0);
    for (size_t i = 0; i < 4; i++)
        os_thread_join(os_real(), threads[i]);
    struct buffer text = BUFFER_INIT;
    load(path, &text);
    assert_non_null(buffer_reserve(&text, JSON_PADDING));
    struct json_parser *parser = NULL;
    assert_int_equal(json_parser_new(1 << 20, &parser), 0);
    size_t lines = 0;
    for (size_t at = 0; at < text.size; lines++) {
        const uint8_t *end = memchr(text.data + at, '\n', text.size - at);
        assert_non_null(end);
        size_t n = (size_t)(end - text.data) - at;
        struct json_value root;
        assert_int_equal(json_parse(parser, bytes_of(text.data + at, n), &root), 0);
        assert_int_equal(json_type_of(root), JSON_OBJECT);
        at += n + 1;
    }
    assert_int_equal(lines, 2000);
    assert_int_equal(log_dropped(l), 0);
    json_parser_free(parser);
    buffer_deinit(&text);
}

#define LOG_TEST(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void) {
    const struct CMUnitTest tests[] = {
        LOG_TEST(test_form),
        LOG_TEST(test_levels),
        LOG_TEST(test_reopen),
        LOG_TEST(test_no_such_directory),
        LOG_TEST(test_lines_of_threads_do_not_mix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
