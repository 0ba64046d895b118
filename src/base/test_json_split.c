/* SPDX-License-Identifier: Apache-2.0 */
/* The splitter: what it cuts, what it refuses, and that neither the chunks nor the CPU matter. */
#include "base/json_split.h"

#include "base/hash.h"
#include "base/json.h"
#include "base/json_scan.h"

#include <stdio.h>

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

static void test_extent(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool last;
        int condition;
        size_t size;
    } CASES[] = {
        {"{\"a\":[1,{}]},x", false, 0, 12},
        {"[\"]\\\"]\", 1]]", false, 0, 11},
        {"\"a\\\\\" ", false, 0, 5},
        {"\"a\\\"b\"", false, 0, 6},
        {"12.5e3,", false, 0, 6},
        {"true]", false, 0, 4},
        {"null", true, 0, 4},
        {"null", false, JSON_SPLIT_E_MORE, 0},
        {"[1", true, JSON_SPLIT_E_MORE, 0},
        {"\"abc", true, JSON_SPLIT_E_MORE, 0},
        {"\"abc\\\"", true, JSON_SPLIT_E_MORE, 0},
        {"", true, JSON_SPLIT_E_MORE, 0},
        {",", true, JSON_SPLIT_E_SYNTAX, 0},
        {"]", true, JSON_SPLIT_E_SYNTAX, 0},
        {" 1", true, JSON_SPLIT_E_SYNTAX, 0},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(CASES); i++) {
        size_t size = 0;
        int r = json_value_extent(bytes_of_string(CASES[i].text), CASES[i].last, &size);
        if (r != CASES[i].condition || size != CASES[i].size)
            fail_msg("%s: %d, %zu", CASES[i].text, r, size);
    }
}

/* "key=value|" for every member, then the condition that ended the walk. */
static const char *walk(const char *text, char *out, size_t size) {
    struct json_members m;
    struct bytes key, value;
    size_t at = 0;
    int r = json_members_init(&m, bytes_of_string(text));
    out[0] = '\0';
    while (!r && !(r = json_members_next(&m, &key, &value)))
        at += (size_t)snprintf(out + at, size - at, "%.*s=%.*s|", (int)key.size,
                               key.size ? (const char *)key.data : "", (int)value.size,
                               (const char *)value.data);
    if (at > 0) /* every later call says the same */
        assert_int_equal(json_members_next(&m, &key, &value), r);
    snprintf(out + at, size - at, "%d", r);
    return out;
}

static void test_members(void **state) {
    (void)state;
    static const struct {
        const char *text, *walked;
    } CASES[] = {
        {" [ ] ", "2"},
        {"{}", "2"},
        {"[1,\"a,]\" , {\"x\":[2]},[],null]\n", "=1|=\"a,]\"|={\"x\":[2]}|=[]|=null|2"},
        {" { \"a\" : 1 , \"b\\\"\":[1,2],\"\":{} } ", "a=1|b\\\"=[1,2]|={}|2"},
        {"[1,]", "=1|3"},
        {"[,1]", "3"},
        {"[1 2]", "=1|3"},
        {"[1:2]", "=1|3"},
        {"[1]x", "=1|3"},
        {"[1}", "=1|3"},
        {"{\"a\":1]", "a=1|3"},
        {"{\"a\",1}", "3"},
        {"{a:1}", "3"},
        {"{\"a\":}", "3"},
        {"{\"a\":1,}", "a=1|3"},
        {"[1,2", "=1|1"},
        {"[", "1"},
        {"[1", "1"},
        {"[1,", "=1|1"},
        {"{\"a", "1"},
        {"{\"a\"", "1"},
        {"{\"a\":", "1"},
        {"{\"a\":1", "1"},
        {"1", "3"},
        {"", "3"},
    };
    char out[200];
    for (size_t i = 0; i < ARRAY_LENGTH(CASES); i++)
        assert_string_equal(walk(CASES[i].text, out, sizeof out), CASES[i].walked);
}

enum { PIECE_MAX = 12 };

/* Feeds text in chunks of the given size and writes what comes out: "number:piece|", "number!" for
 * one that is too large, and last the condition. */
static void stream(struct buffer *out, enum json_stream_form form, struct bytes text,
                   size_t chunk) {
    CLEANUP(json_stream_deinit) struct json_stream s;
    json_stream_init(&s, form, PIECE_MAX);
    buffer_clear(out);
    size_t fed = 0;
    for (;;) {
        struct bytes piece;
        int r = json_stream_next(&s, &piece);
        if (r == 0) {
            buffer_append_format(out, "%u:%.*s|", (unsigned)s.pieces, (int)piece.size,
                                 (const char *)piece.data);
        } else if (r == JSON_SPLIT_E_TOO_LARGE) {
            buffer_append_format(out, "%u!", (unsigned)s.pieces);
        } else if (r == JSON_SPLIT_E_MORE && fed < text.size) {
            size_t size = text.size - fed < chunk ? text.size - fed : chunk;
            assert_int_equal(json_stream_feed(&s, bytes_of(text.data + fed, size)), 0);
            fed += size;
            assert_true(s.pending.size <= PIECE_MAX + 1 + chunk);
        } else if (r == JSON_SPLIT_E_MORE && !s.ended) {
            json_stream_finish(&s);
        } else {
            buffer_append_format(out, "%d", r);
            break;
        }
    }
    buffer_append_u8(out, 0);
    assert_int_equal(buffer_check(out), 0);
}

static void test_streams(void **state) {
    (void)state;
    static const struct {
        enum json_stream_form form;
        const char *text, *cut;
    } CASES[] = {
        {JSON_STREAM_ARRAY, " [ ] ", "2"},
        {JSON_STREAM_ARRAY, "[1, {\"a\":[2]} ,\"x]\\\"\"]\n", "1:1|2:{\"a\":[2]}|3:\"x]\\\"\"|2"},
        {JSON_STREAM_ARRAY, "[[1,2,3,4,5,6],7,\"aaaaaaaaaaaaaaaaaa\"]", "1!2:7|3!2"},
        {JSON_STREAM_ARRAY, "[1,[2", "1:1|1"},
        {JSON_STREAM_ARRAY, "[1,2", "1:1|1"},
        {JSON_STREAM_ARRAY, "", "1"},
        {JSON_STREAM_ARRAY, "{}", "3"},
        {JSON_STREAM_ARRAY, "[1,,2]", "1:1|3"},
        {JSON_STREAM_ARRAY, "[1] [2]", "1:1|3"},
        {JSON_STREAM_LINES, "", "2"},
        {JSON_STREAM_LINES, "a\r\n\n \t\r\n{\"b\":\n1}", "1:a|4:{\"b\":|5:1}|2"},
        {JSON_STREAM_LINES, "0123456789ab\n0123456789abc\nx\n", "1:0123456789ab|2!3:x|2"},
        {JSON_STREAM_LINES, "0123456789abcdefghijklmnopqrstuvwxyz", "1!2"},
        {JSON_STREAM_LINES, "\r\n\r", "2"},
    };
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    for (size_t i = 0; i < ARRAY_LENGTH(CASES); i++)
        for (size_t chunk = 1; chunk < 50; chunk++) {
            stream(&out, CASES[i].form, bytes_of_string(CASES[i].text), chunk);
            if (strcmp((char *)out.data, CASES[i].cut) != 0)
                fail_msg("%s by %zu: %s", CASES[i].text, chunk, (char *)out.data);
        }
}

/* Text of the bytes that matter; plain ones often enough that blocks of every kind occur. */
static size_t random_text(uint64_t seed, uint8_t *out, size_t max) {
    static const char BYTES[] = "[]{}\"\\,: \n1a[]{}\"\"11111111111111";
    size_t size = hash64_u64(seed) % max;
    size_t range = 4 + hash64_u64(seed + 1) % (sizeof BYTES - 5);
    for (size_t i = 0; i < size; i++)
        out[i] = (uint8_t)BYTES[hash64_u64(seed + 2 + i) % range];
    return size;
}

static void test_chunks_do_not_matter(void **state) {
    (void)state;
    CLEANUP(buffer_deinit) struct buffer whole = BUFFER_INIT;
    CLEANUP(buffer_deinit) struct buffer cut = BUFFER_INIT;
    for (uint64_t i = 0; i < 3000; i++) {
        uint8_t text[200] = "[";
        uint64_t seed = i << 32;
        size_t size = 1 + random_text(seed, text + 1, sizeof text - 1);
        enum json_stream_form form = i % 4 ? JSON_STREAM_ARRAY : JSON_STREAM_LINES;
        stream(&whole, form, bytes_of(text, size), size);
        stream(&cut, form, bytes_of(text, size), 1);
        assert_string_equal((char *)cut.data, (char *)whole.data);
        stream(&cut, form, bytes_of(text, size), 1 + hash64_u64(seed) % 70);
        assert_string_equal((char *)cut.data, (char *)whole.data);
    }
}

/* Scans in two steps, from the start to cut and from there on. */
static bool scan_in_two(bool (*scan)(struct json_scan *, struct bytes, size_t *), struct bytes text,
                        size_t cut, struct json_scan *s, size_t *at) {
    *s = (struct json_scan){.depth = 1};
    *at = 0;
    return scan(s, bytes_of(text.data, cut), at) || scan(s, text, at);
}

static void test_paths_agree(void **state) {
    (void)state;
    for (uint64_t i = 0; i < 20000; i++) {
        uint8_t raw[400];
        uint64_t seed = i << 32;
        struct bytes text = bytes_of(raw, random_text(seed, raw, sizeof raw));
        size_t cut = text.size ? hash64_u64(seed + 1000) % text.size : 0;
        struct json_scan a, b;
        size_t a_at, b_at;
        bool a_found = scan_in_two(json_scan_nested, text, cut, &a, &a_at);
        bool b_found = scan_in_two(json_scan_nested_portable, text, text.size, &b, &b_at);
        assert_int_equal(a_found, b_found);
        assert_int_equal(a_at, b_at);
        if (a_found)
            continue;
        assert_int_equal(a.depth, b.depth);
        assert_int_equal(a.in_string, b.in_string);
        assert_int_equal(a.escaped, b.escaped);
    }
}

/* A long array of what a client sends, cut and parsed: nothing lost, in order. */
static void test_pieces_parse(void **state) {
    (void)state;
    CLEANUP(buffer_deinit) struct buffer text = BUFFER_INIT;
    buffer_append_u8(&text, '[');
    for (int i = 0; i < 500; i++)
        buffer_append_format(&text,
                             "%s{\"id\": %d, \"city\": \"\\\"{[%d\\\\\", \"v\": [0.%d, -1e-3]}",
                             i ? ",\n" : "", i, i, i);
    buffer_append_u8(&text, ']');
    assert_int_equal(buffer_check(&text), 0);

    CLEANUP(json_stream_deinit) struct json_stream s;
    json_stream_init(&s, JSON_STREAM_ARRAY, 1000);
    assert_int_equal(json_stream_feed(&s, buffer_bytes(&text)), 0);
    struct json_parser *parser;
    assert_int_equal(json_parser_new(1000, &parser), 0);
    struct bytes piece;
    int r;
    while (!(r = json_stream_next(&s, &piece))) {
        struct json_value v, id;
        int64_t n = -1;
        assert_int_equal(json_parse(parser, piece, &v), 0);
        assert_true(json_find(v, "id", &id) && json_get_i64(id, &n));
        assert_int_equal(n + 1, s.pieces);
    }
    assert_int_equal(r, JSON_SPLIT_E_MORE);
    json_stream_finish(&s);
    assert_int_equal(json_stream_next(&s, &piece), JSON_SPLIT_E_END);
    assert_int_equal(s.pieces, 500);
    json_parser_free(parser);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_extent),      cmocka_unit_test(test_members),
        cmocka_unit_test(test_streams),     cmocka_unit_test(test_chunks_do_not_matter),
        cmocka_unit_test(test_paths_agree), cmocka_unit_test(test_pieces_parse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
