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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_containers),
        cmocka_unit_test(test_choices),
        cmocka_unit_test(test_examples),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
