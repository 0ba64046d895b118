/* SPDX-License-Identifier: Apache-2.0 */
/* The notation of schemas, form by form. */
#include "http/schema.h"

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
// clang-format on

static void assert_schema(const char *text, const char *json) {
    struct buffer out CLEANUP(buffer_deinit) = BUFFER_INIT;
    http_schema_append(&out, text);
    buffer_append_u8(&out, 0);
    assert_int_equal(buffer_check(&out), 0);
    assert_string_equal((const char *)out.data, json);
}

static void test_types(void **state) {
    (void)state;
    assert_schema("any", "{}");
    assert_schema(" uint ", "{\"type\":\"integer\",\"minimum\":0}");
    assert_schema("1..65536", "{\"type\":\"integer\",\"minimum\":1,\"maximum\":65536}");
    assert_schema("'A' | 'b c'", "{\"type\":\"string\",\"enum\":[\"A\",\"b c\"]}");
    assert_schema("Point", "{\"$ref\":\"#/components/schemas/Point\"}");
}

static void test_containers(void **state) {
    (void)state;
    assert_schema("[[number]]", "{\"type\":\"array\",\"items\":"
                                "{\"type\":\"array\",\"items\":{\"type\":\"number\"}}}");
    assert_schema("<boolean>",
                  "{\"type\":\"object\",\"additionalProperties\":{\"type\":\"boolean\"}}");
    assert_schema("{}", "{\"type\":\"object\",\"properties\":{}}");
    assert_schema("{a!: {b!: string}, c_1: any, d!: [any]}",
                  "{\"type\":\"object\",\"required\":[\"a\",\"d\"],\"properties\":{"
                  "\"a\":{\"type\":\"object\",\"required\":[\"b\"],\"properties\":{"
                  "\"b\":{\"type\":\"string\"}}},"
                  "\"c_1\":{},\"d\":{\"type\":\"array\",\"items\":{}}}}");
}

static void test_choices(void **state) {
    (void)state;
    assert_schema("string?", "{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"null\"}]}");
    assert_schema("Id | [Id] | 'x'?", "{\"anyOf\":[{\"$ref\":\"#/components/schemas/Id\"},"
                                      "{\"type\":\"array\",\"items\":"
                                      "{\"$ref\":\"#/components/schemas/Id\"}},"
                                      "{\"type\":\"string\",\"enum\":[\"x\"]},"
                                      "{\"type\":\"null\"}]}");
}

static void test_examples(void **state) {
    (void)state;
    assert_schema("{a: any = [1,{\"b\":2}], c: string = \"x, y\"}",
                  "{\"type\":\"object\",\"properties\":{\"a\":{\"examples\":[[1,{\"b\":2}]]},"
                  "\"c\":{\"type\":\"string\",\"examples\":[\"x, y\"]}}}");
}

static const struct http_schema *find_pair(const void *context UNUSED, struct bytes name) {
    static const struct http_schema schemas[] = {{"Pair", "{x!: Number, y: string? = \"why\"}"},
                                                 {"Number", "number | [number] = 2.5"}};
    for (size_t i = 0; i < ARRAY_LENGTH(schemas); i++)
        if (bytes_equal(bytes_of_string(schemas[i].name), name))
            return &schemas[i];
    return NULL;
}

static void assert_example(const char *text, const char *json) {
    const struct http_schema_names names = {find_pair, NULL};
    struct buffer out CLEANUP(buffer_deinit) = BUFFER_INIT;
    http_schema_example(&out, text, &names);
    buffer_append_u8(&out, 0);
    assert_int_equal(buffer_check(&out), 0);
    assert_string_equal((const char *)out.data, json);
}

static void test_values_that_are_examples(void **state) {
    (void)state;
    assert_example("string", "\"text\"");
    assert_example("any = {\"a\":[1]}", "{\"a\":[1]}");
    assert_example("3..9", "3");
    assert_example("'A' | 'b c'", "\"A\"");
    assert_example("[[number]?] | string", "[[0.5]]");
    assert_example("<boolean>", "{\"name\":true}");
    assert_example("{a!: uint? = 7, b: 'x' | 'y', c: Pair}",
                   "{\"a\":7,\"b\":\"x\",\"c\":{\"x\":2.5,\"y\":\"why\"}}");
}

static void test_a_list_of_members(void **state) {
    (void)state;
    struct http_schema_member member;
    const char *at =
        http_schema_next("plain, a!: 'x' | 'y' = \"y\", b: {c: uint, d: [any]}", &member);
    assert_true(bytes_equal(member.name, BYTES_LITERAL("plain")));
    assert_string_equal(member.text, "string");
    at = http_schema_next(at, &member);
    assert_true(bytes_equal(member.name, BYTES_LITERAL("a")) && member.required);
    at = http_schema_next(at, &member);
    assert_true(bytes_equal(member.name, BYTES_LITERAL("b")) && !member.required);
    assert_string_equal(at, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_containers),
        cmocka_unit_test(test_choices),
        cmocka_unit_test(test_examples),
        cmocka_unit_test(test_values_that_are_examples),
        cmocka_unit_test(test_a_list_of_members),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
