/* SPDX-License-Identifier: Apache-2.0 */
/* Both ways of a payload: what the plain one takes comes out as the parser's, whatever else is left
 * to the parser. That the bytes are Qdrant's messages, test_encode.c holds. */
#include "points/qdrant/payload.h"
#include "points/test_support.h"

static const char *const PLAIN[] = {
    "{}",
    "{\"\":\"\"}",
    "{\"a\":true,\"b\":false,\"c\":null}",
    "{\"a\":0,\"b\":-0,\"c\":-1,\"d\":999999999999999999,\"e\":-999999999999999999,\"f\":127}",
    "{\"g\":128}",
    "{\"a\":0.5,\"b\":-0.0,\"c\":52.0,\"d\":0.00000000000001,\"e\":123456.789012345,\"f\":0.1}",
    "{\"a\":[],\"b\":{},\"c\":[1,[2,[\"x\"]],{\"y\":[{}]}]}",
    "{\"seven..\":\"eight...\",\"nine.....\":\"a text that takes more than two words\"}",
    "{\"\u017c\u00f3\u0142w\":\"\u4e16\u754c \xf0\x9f\x90\xa2\"}",
};

/* Right, but the parser's; the last of each pair differs in what the plain way looks at. */
static const char *const NOT_PLAIN[] = {
    " {}",
    "{} ",
    "{\"a\": 1}",
    "{\"a\":1 }",
    "{\"a\":[1, 2]}",
    "{\"a\\n\":1}",
    "{\"a\":\"\\u00e9\"}",
    "{\"a\":1e3}",
    "{\"a\":1000000000000000000}",
    "{\"a\":-9223372036854775808}",
    "{\"a\":0.1234567890123456}",
};

static const char *const WRONG[] = {
    "",
    "[]",
    "1",
    "{",
    "}",
    "{]",
    "{\"a\"}",
    "{\"a\":}",
    "{\"a\":1,}",
    "{,}",
    "{\"a\":01}",
    "{\"a\":-}",
    "{\"a\":.5}",
    "{\"a\":5.}",
    "{\"a\":1.-5}",
    "{\"a\":+1}",
    "{\"a\":truE}",
    "{\"a\":nul}",
    "{\"a\":[1}",
    "{\"a\":[1]]}",
    "{\"a\":{}",
    "{\"a\":1}}",
    "{\"a\":1}{}",
    "{\"a\":\"\n\"}",
    "{\"a\":\"}",
    "{a:1}",
    "{\"a\":\"four\tand more\"}",
    "{\"a\":1 2}",
    "{\"a\":\"b\"c}",
    "{\"a\":[\"b\",]}",
    "{\"a\":--1}",
};

/* A copy with nothing behind it, which a sanitizer watches. */
static bool plain(struct bytes text, struct buffer *out) {
    uint8_t *copy = malloc(text.size ? text.size : 1);
    assert_non_null(copy);
    memcpy(copy, text.data, text.size);
    bool taken = payload_append_plain(out, bytes_of(copy, text.size));
    free(copy);
    return taken;
}

static int parsed(struct bytes text, struct buffer *out) {
    CLEANUP(payload_reader_deinit) struct payload_reader reader = PAYLOAD_READER_INIT;
    return payload_append_parsed(&reader, out, text);
}

static void expect_same(struct bytes text) {
    CLEANUP(buffer_deinit) struct buffer one = BUFFER_INIT;
    CLEANUP(buffer_deinit) struct buffer other = BUFFER_INIT;
    buffer_append_u8(&one, '!'); /* what stands there is left alone */
    buffer_append_u8(&other, '!');
    if (!plain(text, &one))
        fail_msg("not taken for plain: %.*s", (int)text.size, (const char *)text.data);
    assert_int_equal(parsed(text, &other), 0);
    assert_int_equal(one.size, other.size);
    assert_memory_equal(one.data, other.data, one.size);
}

static void test_a_plain_payload_comes_out_as_by_the_parser(void **state UNUSED) {
    for (size_t i = 0; i < ARRAY_LENGTH(PLAIN); i++)
        expect_same(bytes_of_string(PLAIN[i]));
}

static void test_what_is_not_plain_is_left_to_the_parser(void **state UNUSED) {
    for (size_t i = 0; i < ARRAY_LENGTH(NOT_PLAIN); i++) {
        CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
        CLEANUP(payload_reader_deinit) struct payload_reader reader = PAYLOAD_READER_INIT;
        struct bytes text = bytes_of_string(NOT_PLAIN[i]);
        assert_false(plain(text, &out));
        assert_int_equal(out.size, 0);
        assert_int_equal(payload_append(&reader, &out, text), 0);
    }
}

static void test_what_is_wrong_is_so_both_ways(void **state UNUSED) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    for (size_t i = 0; i < ARRAY_LENGTH(WRONG); i++) {
        assert_false(plain(bytes_of_string(WRONG[i]), &out));
        assert_int_equal(parsed(bytes_of_string(WRONG[i]), &out), PAYLOAD_E_WRONG);
        assert_int_equal(out.size, 0);
    }
}

/* Wherever the text ends: refused, and nothing behind it is read. */
static void test_a_text_that_is_cut(void **state UNUSED) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    for (size_t i = 0; i < ARRAY_LENGTH(PLAIN); i++) {
        struct bytes text = bytes_of_string(PLAIN[i]);
        for (size_t size = 0; size < text.size; size++)
            assert_false(plain(bytes_of(text.data, size), &out));
    }
    assert_int_equal(out.size, 0);
}

/* n times text between brackets, levels of them. */
static void repeat(struct buffer *out, const char *text, size_t n, size_t levels) {
    buffer_append_string(out, "{\"a\":");
    for (size_t i = 0; i < levels; i++)
        buffer_append_u8(out, '[');
    for (size_t i = 0; i < n; i++) {
        buffer_append_string(out, i ? "," : "");
        buffer_append_string(out, text);
    }
    for (size_t i = 0; i < levels; i++)
        buffer_append_u8(out, ']');
    buffer_append_u8(out, '}');
}

/* What grows most, in messages whose lengths take one byte to four. */
static void test_there_is_room_for_what_grows_most(void **state UNUSED) {
    static const char *const texts[] = {"-1", "9.5", "0", "[]", "{}", "{\"\":-1}", "\"\"", "null"};
    static const size_t numbers[] = {1, 9, 10, 31, 127, 1300, 16000, 200000};
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++)
        for (size_t j = 0; j < ARRAY_LENGTH(numbers); j++) {
            CLEANUP(buffer_deinit) struct buffer text = BUFFER_INIT;
            repeat(&text, texts[i], numbers[j], 1 + (i + j) % (PAYLOAD_DEPTH_MAX - 2));
            if (text.size <= POINT_PAYLOAD_MAX)
                expect_same(buffer_bytes(&text));
        }
}

static void test_levels(void **state UNUSED) {
    for (size_t levels = PAYLOAD_DEPTH_MAX - 1; levels <= PAYLOAD_DEPTH_MAX; levels++) {
        CLEANUP(buffer_deinit) struct buffer text = BUFFER_INIT;
        CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
        repeat(&text, "1", 1, levels);
        assert_int_equal(plain(buffer_bytes(&text), &out), levels < PAYLOAD_DEPTH_MAX);
        buffer_clear(&out);
        assert_int_equal(parsed(buffer_bytes(&text), &out),
                         levels < PAYLOAD_DEPTH_MAX ? 0 : PAYLOAD_E_WRONG);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_plain_payload_comes_out_as_by_the_parser),
        cmocka_unit_test(test_what_is_not_plain_is_left_to_the_parser),
        cmocka_unit_test(test_what_is_wrong_is_so_both_ways),
        cmocka_unit_test(test_a_text_that_is_cut),
        cmocka_unit_test(test_there_is_room_for_what_grows_most),
        cmocka_unit_test(test_levels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
