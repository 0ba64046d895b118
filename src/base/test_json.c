/* SPDX-License-Identifier: Apache-2.0 */
/* JSON in and out: every type, every condition, and texts that survive the round trip. */
#include "base/json.h"

#include "base/hash.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

enum { MAX_BYTES = 1 << 16 };

struct fixture {
    struct json_parser *parser;
    char *text; /* exactly as long as it must be, so that asan sees a read past the padding */
};

static int set_up(void **state) {
    struct fixture *f = calloc(1, sizeof *f);
    *state = f;
    return !f || json_parser_new(MAX_BYTES, &f->parser);
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    f->parser = json_parser_free(f->parser);
    free(f->text);
    free(f);
    return 0;
}

static int parse_bytes(struct fixture *f, struct bytes text, struct json_value *ret) {
    free(f->text);
    f->text = malloc(text.size + JSON_PADDING);
    assert_non_null(f->text);
    memcpy(f->text, text.data, text.size);
    memset(f->text + text.size, '1', JSON_PADDING); /* their value is ignored */
    return json_parse(f->parser, bytes_of(f->text, text.size), ret);
}

static int parse(struct fixture *f, const char *text, struct json_value *ret) {
    return parse_bytes(f, bytes_of_string(text), ret);
}

static struct json_value parsed(struct fixture *f, const char *text) {
    struct json_value v = {0};
    assert_int_equal(parse(f, text, &v), 0);
    return v;
}

static void test_conditions(void **state) {
    static const struct {
        const char *text;
        int condition;
    } CASES[] = {
        {"", JSON_E_EMPTY},
        {"  \n", JSON_E_EMPTY},
        {"{", JSON_E_SYNTAX},
        {"[1,]", JSON_E_SYNTAX},
        {"[1 2]", JSON_E_SYNTAX},
        {"{\"a\":1,}", JSON_E_SYNTAX},
        {"{\"a\" 1}", JSON_E_SYNTAX},
        {"{a:1}", JSON_E_SYNTAX},
        {"1 2", JSON_E_SYNTAX},
        {"{} x", JSON_E_SYNTAX},
        {"nul", JSON_E_WORD},
        {"NaN", JSON_E_SYNTAX},
        {"[Infinity]", JSON_E_SYNTAX},
        {"[-Infinity]", JSON_E_WORD},
        {"'a'", JSON_E_SYNTAX},
        {"\"a", JSON_E_QUOTE},
        {"\"\\x\"", JSON_E_STRING},
        {"\"\\ud800\"", JSON_E_STRING},
        {"\"\n\"", JSON_E_STRING},
        {"01", JSON_E_WORD},
        {"[-01]", JSON_E_WORD},
        {"[1.]", JSON_E_WORD},
        {"[1.e1]", JSON_E_WORD},
        {"[.5]", JSON_E_SYNTAX},
        {"[+1]", JSON_E_SYNTAX},
        {"[-]", JSON_E_WORD},
        {"[1e]", JSON_E_WORD},
        {"[1e+]", JSON_E_WORD},
        {"[0x10]", JSON_E_WORD},
        {"[1a]", JSON_E_WORD},
        {"[\"\\\"01\", 1e999]", JSON_E_NUMBER},
        {"1e999", JSON_E_NUMBER},
        {"[-1e999]", JSON_E_NUMBER},
        {"{\"a\":1180591620717411303424}", JSON_E_NUMBER},
        {"18446744073709551616", JSON_E_NUMBER},
        {"-9223372036854775809", JSON_E_NUMBER},
        {"\"\xff\"", JSON_E_UTF8},
        {"{\"a\":\"\xc0\x80\"}", JSON_E_UTF8},
        {"\"\xed\xa0\x80\"", JSON_E_UTF8},
        {"[\"\xe2\x82\"]", JSON_E_UTF8},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(CASES); i++) {
        struct json_value v = {.at = 77};
        int r = parse(*state, CASES[i].text, &v);
        if (r != CASES[i].condition)
            fail_msg("%s: %d, not %d", CASES[i].text, r, CASES[i].condition);
        assert_int_equal(v.at, 77);
        assert_non_null(json_error_text(r));
    }
}

static int parse_nested(struct fixture *f, size_t depth) {
    CLEANUP(buffer_deinit) struct buffer b = BUFFER_INIT;
    for (size_t i = 0; i < depth; i++)
        buffer_append_string(&b, i % 2 ? "[" : "{\"a\":");
    buffer_append_string(&b, "1");
    for (size_t i = depth; i-- > 0;)
        buffer_append_string(&b, i % 2 ? "]" : "}");
    assert_int_equal(buffer_check(&b), 0);
    struct json_value v;
    return parse_bytes(f, buffer_bytes(&b), &v);
}

static void test_depth(void **state) {
    assert_int_equal(parse_nested(*state, JSON_DEPTH_MAX), 0);
    assert_int_equal(parse_nested(*state, JSON_DEPTH_MAX + 1), JSON_E_DEPTH);
    assert_int_equal(parse_nested(*state, 5000), JSON_E_DEPTH);
}

static void test_size(void **state) {
    static char text[MAX_BYTES + 2];
    memset(text, ' ', sizeof text - 1);
    text[0] = '1';
    struct json_value v;
    assert_int_equal(parse(*state, text, &v), JSON_E_TOO_LARGE);
    text[MAX_BYTES] = '\0';
    assert_int_equal(parse(*state, text, &v), 0);
    parsed(*state, "[]"); /* and small ones still work */
}

static void test_scalars(void **state) {
    int64_t i = 5;
    uint64_t u = 5;
    double d = 5;
    bool b = true;
    struct json_value v = parsed(*state, "-9223372036854775808");
    assert_int_equal(json_type_of(v), JSON_INT);
    assert_true(json_get_i64(v, &i) && i == INT64_MIN);
    assert_false(json_get_u64(v, &u));
    assert_true(json_get_double(v, &d) && d == -0x1p63);

    v = parsed(*state, "18446744073709551615");
    assert_int_equal(json_type_of(v), JSON_UINT);
    assert_true(json_get_u64(v, &u) && u == UINT64_MAX);
    i = 5;
    assert_false(json_get_i64(v, &i));
    assert_int_equal(i, 5);
    assert_true(json_get_double(v, &d) && d == 0x1p64);

    v = parsed(*state, " 1.0 ");
    assert_int_equal(json_type_of(v), JSON_DOUBLE);
    assert_true(json_get_double(v, &d) && d == 1);
    assert_false(json_get_i64(v, &i) || json_get_u64(v, &u) || json_get_bool(v, &b));

    v = parsed(*state, "false");
    assert_int_equal(json_type_of(v), JSON_BOOL);
    assert_true(json_get_bool(v, &b) && !b);
    v = parsed(*state, "null");
    assert_int_equal(json_type_of(v), JSON_NULL);
    assert_int_equal(json_size(v), 0);
}

static void test_strings(void **state) {
    struct bytes s;
    struct json_value v = parsed(*state, "\"a\\u0000\\n\\u00e9\\ud83d\\ude00\\/\"");
    assert_int_equal(json_type_of(v), JSON_STRING);
    assert_true(json_get_string(v, &s));
    assert_true(bytes_equal(s, BYTES_LITERAL("a\0\n\xc3\xa9\xf0\x9f\x98\x80/")));
    assert_false(json_get_string(parsed(*state, "1"), &s));
}

static void test_members(void **state) {
    struct json_value v =
        parsed(*state, "{\"a\":[1,{\"x\":2.5},[]],\"b\":3,\"a\":\"last\",\"\":-1}");
    static const char *const KEYS[] = {"a", "b", "a", ""};
    static const enum json_type TYPES[] = {JSON_ARRAY, JSON_INT, JSON_STRING, JSON_INT};
    struct json_iterator it = json_iterate(v);
    struct bytes key;
    struct json_value value;
    size_t n = 0;
    for (; json_next(&it, &key, &value); n++) {
        assert_true(bytes_equal(key, bytes_of_string(KEYS[n])));
        assert_int_equal(json_type_of(value), TYPES[n]);
    }
    assert_int_equal(n, 4);
    assert_int_equal(json_size(v), 4);
    assert_true(json_find(v, "a", &value));
    assert_int_equal(json_type_of(value), JSON_STRING);
    assert_true(json_find(v, "", &value));
    assert_false(json_find(v, "c", &value));
    assert_false(json_find(value, "a", &value));
    it = json_iterate(value); /* a number has no members */
    assert_false(json_next(&it, NULL, &value));
}

static void test_floats(void **state) {
    float out[9] = {0};
    size_t count = 99;
    assert_int_equal(
        json_get_floats(parsed(*state, "[0.5,1.5,2.5,3.5,4,5.5,6.5,7.5,8.5]"), out, 9, &count), 0);
    assert_int_equal(count, 9);
    for (size_t i = 0; i < 9; i++)
        assert_true(out[i] == (float)i + (i == 4 ? 0 : 0.5f));
    assert_int_equal(json_get_floats(parsed(*state, "[0.5,1.5,2.5,null]"), out, 9, &count),
                     JSON_FLOATS_E_TYPE);
    assert_int_equal(
        json_get_floats(parsed(*state, "[1,-2.5,18446744073709551615,1e-60,0.1]"), out, 5, &count),
        0);
    assert_int_equal(count, 5);
    assert_true(out[0] == 1 && out[1] == -2.5f && out[2] == 0x1p64f && out[3] == 0);
    assert_true(out[4] == 0.1f);
    assert_int_equal(json_get_floats(parsed(*state, "[]"), out, 0, &count), 0);
    assert_int_equal(count, 0);
    assert_int_equal(json_get_floats(parsed(*state, "[1,2,3]"), out, 2, &count),
                     JSON_FLOATS_E_LENGTH);
    assert_int_equal(count, 3);
    assert_int_equal(json_get_floats(parsed(*state, "[1,\"2\"]"), out, 5, &count),
                     JSON_FLOATS_E_TYPE);
    assert_int_equal(json_get_floats(parsed(*state, "[[1],2]"), out, 5, &count),
                     JSON_FLOATS_E_TYPE);
    assert_int_equal(json_get_floats(parsed(*state, "{\"a\":1}"), out, 5, &count),
                     JSON_FLOATS_E_TYPE);
    assert_int_equal(json_get_floats(parsed(*state, "[1,-1e39]"), out, 5, &count),
                     JSON_FLOATS_E_RANGE);
    assert_int_equal(count, 3);
}

static void assert_written(struct json_value v, const char *wanted) {
    CLEANUP(buffer_deinit) struct buffer b = BUFFER_INIT;
    json_append_value(&b, v);
    buffer_append_u8(&b, 0);
    assert_int_equal(buffer_check(&b), 0);
    assert_string_equal((char *)b.data, wanted);
}

static void test_write_values(void **state) {
    assert_written(parsed(*state, " { \"a\" : [ 1 , -2 , 1.0 , 18446744073709551615 ] , "
                                  "\"b\\n\" : { \"t\" : true , \"n\" : null } , \"e\" : [ ] } "),
                   "{\"a\":[1,-2,1.0,18446744073709551615],"
                   "\"b\\n\":{\"t\":true,\"n\":null},\"e\":[]}");
    assert_written(parsed(*state, "{\"a\":1,\"b\":2,\"a\":3,\"c\":{},\"a\":4}"),
                   "{\"b\":2,\"c\":{},\"a\":4}");
    assert_written(parsed(*state, "-0.0"), "-0.0");
}

/* An object of members whose keys repeat after distinct, written and read back. */
static void check_duplicates(struct fixture *f, int members, int distinct) {
    CLEANUP(buffer_deinit) struct buffer b = BUFFER_INIT;
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    struct json_value v, value;
    int64_t last = -1;
    buffer_append_u8(&b, '{');
    for (int i = 0; i < members; i++)
        buffer_append_format(&b, "%s\"%d\":%d", i ? "," : "", i % distinct, i);
    buffer_append_u8(&b, '}');
    assert_int_equal(parse_bytes(f, buffer_bytes(&b), &v), 0);
    json_append_value(&out, v);
    assert_int_equal(buffer_check(&out), 0);
    assert_int_equal(parse_bytes(f, buffer_bytes(&out), &v), 0);
    assert_int_equal(json_size(v), members < distinct ? members : distinct);
    if (members == 0)
        return;
    char key[12];
    snprintf(key, sizeof key, "%d", (members - 1) % distinct);
    assert_true(json_find(v, key, &value) && json_get_i64(value, &last));
    assert_int_equal(last, members - 1);
}

static void test_many_members(void **state) {
    for (int members = 0; members < 300; members++) {
        check_duplicates(*state, members, INT32_MAX);
        check_duplicates(*state, members, 7);
    }
    check_duplicates(*state, 3000, 1000);
}

static void test_write_strings(void **state) {
    (void)state;
    static const struct {
        const char *in, *out;
    } CASES[] = {
        {"", "\"\""},
        {"plain", "\"plain\""},
        {"q\"b\\s/\b\f\n\r\t\x01\x1f", "\"q\\\"b\\\\s/\\b\\f\\n\\r\\t\\u0001\\u001f\""},
        {"\x7f\xc3\xa9\xf0\x9f\x98\x80", "\"\x7f\xc3\xa9\xf0\x9f\x98\x80\""},
        {"a\xff"
         "b",
         "\"a\xef\xbf\xbd"
         "b\""},
        {"\xc0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\""},
        {"\xe2\x82", "\"\xef\xbf\xbd\xef\xbf\xbd\""},
        {"\xed\xa0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
        {"\xf4\x90\x80\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(CASES); i++) {
        CLEANUP(buffer_deinit) struct buffer b = BUFFER_INIT;
        json_append_cstring(&b, CASES[i].in);
        buffer_append_u8(&b, 0);
        assert_string_equal((char *)b.data, CASES[i].out);
    }
}

/* Whatever bytes go in, what comes out is JSON; if they were UTF-8, it reads back as the same. */
static void test_random_strings(void **state) {
    for (uint64_t seed = 0; seed < 2000; seed++) {
        uint8_t raw[64];
        size_t size = hash64_u64(seed) % sizeof raw;
        for (size_t i = 0; i < size; i++)
            raw[i] = (uint8_t)(hash64_u64(seed * 64 + i) >> (seed % 2 ? 0 : 57));
        CLEANUP(buffer_deinit) struct buffer b = BUFFER_INIT;
        json_append_string(&b, bytes_of(raw, size));
        struct json_value v;
        struct bytes back;
        assert_int_equal(parse_bytes(*state, buffer_bytes(&b), &v), 0);
        assert_true(json_get_string(v, &back));
        if (seed % 2 == 0) /* ASCII only */
            assert_true(bytes_equal(back, bytes_of(raw, size)));
        assert_int_equal(json_is_utf8(bytes_of(raw, size)), bytes_equal(back, bytes_of(raw, size)));
    }
}

static void assert_text(struct buffer *b, const char *wanted) {
    buffer_append_u8(b, 0);
    assert_string_equal((char *)b->data, wanted);
    buffer_clear(b);
}

static void test_write_numbers(void **state) {
    (void)state;
    CLEANUP(buffer_deinit) struct buffer b = BUFFER_INIT;
    json_append_u64(&b, 0);
    assert_text(&b, "0");
    json_append_u64(&b, UINT64_MAX);
    assert_text(&b, "18446744073709551615");
    json_append_i64(&b, INT64_MIN);
    assert_text(&b, "-9223372036854775808");
    json_append_double(&b, 100000);
    assert_text(&b, "100000.0");
    json_append_double(&b, 0.1);
    assert_text(&b, "0.1");
    json_append_double(&b, -1e300);
    assert_text(&b, "-1e+300");
    json_append_float(&b, 0.1f);
    assert_text(&b, "0.1");
    json_append_float(&b, 16777216.0f);
    assert_text(&b, "16777216.0");
    json_append_double(&b, NAN);
    assert_text(&b, "null");
    json_append_float(&b, -INFINITY);
    assert_text(&b, "null");
}

static void test_numbers_round_trip(void **state) {
    for (uint64_t seed = 0; seed < 20000; seed++) {
        uint64_t bits = hash64_u64(seed);
        double d, back;
        float f, fback;
        memcpy(&d, &bits, sizeof d);
        memcpy(&f, &bits, sizeof f);
        if (!isfinite(d) || !isfinite(f))
            continue;
        CLEANUP(buffer_deinit) struct buffer b = BUFFER_INIT;
        struct json_value v;
        size_t count;
        json_append_double(&b, d);
        assert_int_equal(parse_bytes(*state, buffer_bytes(&b), &v), 0);
        assert_int_equal(json_type_of(v), JSON_DOUBLE);
        assert_true(json_get_double(v, &back) && back == d);
        buffer_clear(&b);
        buffer_append_u8(&b, '[');
        json_append_float(&b, f);
        buffer_append_u8(&b, ']');
        assert_int_equal(parse_bytes(*state, buffer_bytes(&b), &v), 0);
        assert_int_equal(json_get_floats(v, &fback, 1, &count), 0);
        assert_true(fback == f);
    }
}

static void test_the_empty_object(void **state) {
    (void)state;
    struct buffer out CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct json_value v = json_empty_object(), member;
    struct json_iterator it = json_iterate(v);
    assert_int_equal(json_type_of(v), JSON_OBJECT);
    assert_int_equal(json_size(v), 0);
    assert_false(json_find(v, "a", &member));
    assert_false(json_next(&it, NULL, &member));
    json_append_value(&out, v);
    assert_memory_equal(out.data, "{}", 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_conditions, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_depth, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_size, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_scalars, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_strings, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_members, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_floats, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_write_values, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_many_members, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_write_strings, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_random_strings, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_write_numbers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_numbers_round_trip, set_up, tear_down),
        cmocka_unit_test(test_the_empty_object),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
