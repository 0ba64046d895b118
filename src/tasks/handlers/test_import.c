/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Imports: which arguments are taken, and what is saved and told of one. What one does is tested on
 * the real server (tests/api/test_import.py).
 */
#include "tasks/handler.h"
#include "tasks/handlers/import_state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { SENTENCE_SIZE = 256 };

static bool check(const char *args, char sentence[SENTENCE_SIZE]) {
    CLEANUP(buffer_deinit) struct buffer text = BUFFER_INIT;
    struct json_parser *parser;
    struct json_value root;
    buffer_append_string(&text, args);
    assert_non_null(buffer_reserve(&text, JSON_PADDING));
    assert_int_equal(json_parser_new(1 << 20, &parser), 0);
    assert_int_equal(json_parse(parser, buffer_bytes(&text), &root), 0);
    bool good =
        task_handler_find(BYTES_LITERAL("import"))->check(root, NULL, sentence, SENTENCE_SIZE);
    json_parser_free(parser);
    return good;
}

static void test_arguments(void **state) {
    (void)state;
    static const struct {
        const char *args;
        const char *sentence; /* NULL: good */
    } rows[] = {
        {"{\"path\":\"a\",\"collection\":\"c\"}", NULL},
        {"{\"path\":\"a/b.gz\",\"events\":true}", NULL},
        {"{\"url\":\"https://h/x\",\"events\":true,\"stall_s\":3600}", NULL},
        {"{\"url\":\"https://h/x\",\"collection\":\"c\",\"events\":false}", NULL},
        {"{}", "args must have one of path and url"},
        {"{\"path\":\"a\",\"url\":\"b\"}", "args must have one of path and url"},
        {"{\"path\":\"a\"}", "args must have one of collection and events (true)"},
        {"{\"path\":\"a\",\"events\":false}", "args must have one of collection and events (true)"},
        {"{\"path\":\"a\",\"events\":true,\"collection\":\"c\"}",
         "args must have one of collection and events (true)"},
        {"{\"path\":\"\",\"events\":true}", "args.path must be a path of 1 to 4096 bytes"},
        {"{\"path\":\"a\\u0000b\",\"events\":true}", "args.path must be a path of 1 to 4096 bytes"},
        {"{\"url\":\"\",\"events\":true}", "args.url must be a URL of 1 to 8192 bytes"},
        {"{\"path\":\"a\",\"collection\":\"\"}",
         "args.collection must be a name of 1 to 255 bytes"},
        {"{\"path\":1,\"events\":true}", "args.path must be a string"},
        {"{\"path\":\"a\",\"events\":\"yes\"}", "args.events must be true or false"},
        {"{\"path\":\"a\",\"events\":true,\"stall_s\":0}",
         "args.stall_s must be a whole number from 1 to 3600"},
        {"{\"file\":\"a\"}",
         "args.file is not known; there is path, url, collection, events and stall_s"},
        {"null", "args must be an object"},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
        char sentence[SENTENCE_SIZE] = "";
        bool good = check(rows[i].args, sentence);
        if (good != !rows[i].sentence)
            fail_msg("%s: %s", rows[i].args, sentence);
        assert_string_equal(sentence, rows[i].sentence ? rows[i].sentence : "");
    }
}

static void test_what_is_saved_is_loaded(void **state) {
    (void)state;
    CLEANUP(buffer_deinit) struct buffer saved = BUFFER_INIT, before = BUFFER_INIT;
    CLEANUP(buffer_deinit) struct buffer after = BUFFER_INIT;
    CLEANUP(import_state_deinit)
    struct import_state from = {.source = 7, .seen = 10, .accepted = 8, .rejected = 2};
    CLEANUP(import_state_deinit) struct import_state to = {0};
    import_state_note(&from, 3, BYTES_LITERAL("a \"quoted\" word"));
    import_state_note(&from, 9, BYTES_LITERAL("b"));
    import_state_save(&from, &saved);
    assert_true(import_state_load(&to, buffer_bytes(&saved)));
    assert_int_equal(to.source, 7);
    assert_int_equal(to.seen, 10);
    assert_int_equal(to.n_errors, 2);
    import_state_append_result(&from, &before);
    import_state_append_result(&to, &after);
    assert_true(bytes_equal(buffer_bytes(&before), buffer_bytes(&after)));
    assert_true(bytes_equal(
        buffer_bytes(&after),
        BYTES_LITERAL("{\"accepted\":8,\"rejected\":2,\"errors\":[{\"line\":3,\"error\":\"a "
                      "\\\"quoted\\\" word\"},{\"line\":9,\"error\":\"b\"}]}")));
    assert_true(bytes_equal(import_state_first_error(&to),
                            BYTES_LITERAL("{\"line\":3,\"error\":\"a \\\"quoted\\\" word\"}")));
    for (size_t size = 0; size < saved.size; size++) /* cut anywhere, it is nothing */
        assert_false(import_state_load(&to, bytes_of(saved.data, size)));
    saved.data[0] = 2;
    assert_false(import_state_load(&to, buffer_bytes(&saved)));
    assert_int_equal(to.accepted, 8);
}

static void test_errors_are_bounded(void **state) {
    (void)state;
    CLEANUP(import_state_deinit) struct import_state s = {0};
    for (uint64_t i = 1; i <= 2 * IMPORT_ERRORS_MAX; i++)
        import_state_note(&s, i, BYTES_LITERAL("short"));
    assert_int_equal(s.n_errors, IMPORT_ERRORS_MAX);
    import_state_deinit(&s);
    s = (struct import_state){0};
    uint8_t *text = calloc(1, 1000);
    assert_non_null(text);
    for (size_t i = 0; i < 999; i += 3)
        memcpy(text + i, "\xe2\x82\xac", 3); /* of which 256 is no multiple: cut between two */
    for (uint64_t i = 1; i <= IMPORT_ERRORS_MAX; i++)
        import_state_note(&s, i, bytes_of(text, 999));
    free(text);
    assert_true(s.n_errors > 10 && s.n_errors < IMPORT_ERRORS_MAX);
    assert_true(s.errors.size <= IMPORT_ERRORS_BYTES_MAX);
    struct bytes first = import_state_first_error(&s);
    assert_int_equal(first.size, strlen("{\"line\":1,\"error\":\"\"}") + 255);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_what_is_saved_is_loaded),
        cmocka_unit_test(test_errors_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
