/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers read straight as floats, held bit for bit against the whole parse, and json_parse_vector
 * against json_parse: both must say the same of every text.
 */
#include "base/json_floats.h"

#include "base/hash.h"
#include "base/json.h"
#include "base/json_tape.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

enum { NUMBERS = 64, ARRAYS = 20000, TEXT_MAX = 1 << 14 };

struct fixture {
    struct json_parser *parser;
    struct json_parser *other;
    uint64_t seed;
};

static int set_up(void **state) {
    struct fixture *f = calloc(1, sizeof *f);
    *state = f;
    return !f || json_parser_new(TEXT_MAX, &f->parser) || json_parser_new(TEXT_MAX, &f->other);
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    json_parser_free(f->parser);
    json_parser_free(f->other);
    free(f);
    return 0;
}

static uint64_t next(struct fixture *f) {
    return hash64_u64(f->seed++);
}

static double next_double(struct fixture *f) {
    return (double)(next(f) >> 11) * 0x1p-53;
}

/* ---- Numbers of all forms ---- */

static void any_double(struct fixture *f, struct buffer *out) {
    uint64_t bits = next(f);
    double d;
    memcpy(&d, &bits, sizeof d);
    json_append_double(out, isfinite(d) ? d : 0);
}

static void any_float(struct fixture *f, struct buffer *out) {
    uint32_t bits = (uint32_t)next(f);
    float v;
    memcpy(&v, &bits, sizeof v);
    json_append_float(out, isfinite(v) ? v : 0);
}

static void float_as_double(struct fixture *f, struct buffer *out) {
    json_append_double(out, (double)(float)(next_double(f) * 2 - 1));
}

static void unit_double(struct fixture *f, struct buffer *out) {
    json_append_double(out, next_double(f) * 2 - 1);
}

static void small_double(struct fixture *f, struct buffer *out) {
    json_append_double(out, (next_double(f) - 0.5) * pow(10, (double)(next(f) % 60) - 50));
}

static void unit_float(struct fixture *f, struct buffer *out) {
    json_append_float(out, (float)next_double(f));
}

/* Half-way between two floats, or next to it, in as many digits as it takes or fewer. */
static void half_way(struct fixture *f, struct buffer *out) {
    uint32_t bits = (uint32_t)next(f) % 0x7f000000;
    float v;
    memcpy(&v, &bits, sizeof v);
    double d = ((double)v + (double)nextafterf(v, INFINITY)) / 2;
    for (uint64_t n = next(f) % 4; n > 0; n--)
        d = nextafter(d, next(f) % 2 ? INFINITY : 0);
    if (next(f) % 2)
        json_append_double(out, d);
    else
        buffer_append_format(out, "%.*f", (int)(1 + next(f) % 24), d);
}

static void fixed(struct fixture *f, struct buffer *out) {
    double d = (next_double(f) * 2 - 1) * pow(10, (double)(next(f) % 9));
    buffer_append_format(out, "%.*f", (int)(next(f) % 24), d);
}

static void integer(struct fixture *f, struct buffer *out) {
    buffer_append_format(out, "%lld", (long long)next(f) >> next(f) % 64);
}

static void large_integer(struct fixture *f, struct buffer *out) {
    buffer_append_format(out, "%llu", (unsigned long long)next(f));
}

/* As printed by printf, with its exponents. */
static void exponent(struct fixture *f, struct buffer *out) {
    buffer_append_format(out, next(f) % 2 ? "%.*e" : "%.*E", (int)(next(f) % 20),
                         next_double(f) * pow(10, (double)(next(f) % 60) - 30));
}

/* Digits and marks as they come: mostly no number at all. */
static void noise(struct fixture *f, struct buffer *out) {
    static const char MARKS[] = "0123456789012345678900..--eE+ ";
    for (uint64_t n = 1 + next(f) % 6; n > 0; n--)
        buffer_append_u8(out, (uint8_t)MARKS[next(f) % (sizeof MARKS - 1)]);
}

static void odd(struct fixture *f, struct buffer *out) {
    static const char *const TEXTS[] = {
        "-0",
        "-0.0",
        "0.0",
        "-0e0",
        "0e5",
        "1E+2",
        "1e-2",
        "3.4e38",
        "3.4028235677973366e38",
        "1e39",
        "1e-45",
        "7.0064923216240854e-46",
        "1.1754943508222875e-38",
        "1.17549428e-38",
        "0.000000000000000000000000000000000000011754943",
        "9007199254740993.0",
        "16777217.0",
        "16777217",
        "16777219.00",
        "1.000000059604644775390625",
        "0.1000000000000000055511151231257827",
        "3.5e38",
        "0.00034028235677973366e42",
        "18446744073709551615",
        "-9223372036854775808",
        "123456789012345678.5",
        "0.00000000000000000000001",
        "99999999.9",
        "999999999.9",
        "0.9999999999999999999999",
        "0.999999999999999999999999",
        "0.92199999999999999999999",
    };
    buffer_append_string(out, TEXTS[next(f) % ARRAY_LENGTH(TEXTS)]);
}

static void malformed(struct fixture *f, struct buffer *out) {
    static const char *const TEXTS[] = {
        "",
        "+1",
        "01",
        "-01",
        "00.5",
        "-00.5",
        ".5",
        "-.5",
        "5.",
        "5.e1",
        "1e",
        "1e+",
        "--1",
        "1.2.3",
        "1 2",
        "0x10",
        "NaN",
        "null",
        "true",
        "\"1\"",
        "[1]",
        "{}",
        "1e999",
        "-1e999",
        "18446744073709551616",
        "-9223372036854775809",
        "1,",
        "1]",
        "1}",
        "\\",
        "1e5.5",
        "-",
        "- 1",
        "1\xff",
        "0.5f",
        "1_000",
        "Infinity",
        "0.5e",
        "0.5-",
        "\v1",
        "0. 5",
    };
    buffer_append_string(out, TEXTS[next(f) % ARRAY_LENGTH(TEXTS)]);
}

typedef void (*write_number)(struct fixture *f, struct buffer *out);
static const write_number FORMS[] = {
    unit_double, unit_float, float_as_double, fixed,    small_double,  any_double,
    any_float,   half_way,   integer,         exponent, large_integer, odd,
};

static void separate(struct fixture *f, struct buffer *out) {
    static const char *const TEXTS[] = {",", ", ", ",", ", ", " , ", ",\n\t"};
    buffer_append_string(out, TEXTS[next(f) % ARRAY_LENGTH(TEXTS)]);
}

/* Up to NUMBERS numbers, of one form or of any, the last maybe of another. */
static void write_array(struct fixture *f, write_number last, struct buffer *out) {
    write_number form = FORMS[next(f) % ARRAY_LENGTH(FORMS)];
    bool mixed = next(f) % 4 == 0;
    size_t n = 1 + next(f) % NUMBERS, changed = last ? next(f) % n : n;
    buffer_append_u8(out, '[');
    for (size_t i = 0; i < n; i++) {
        if (i)
            separate(f, out);
        if (mixed)
            form = FORMS[next(f) % ARRAY_LENGTH(FORMS)];
        (i == changed ? last : form)(f, out);
    }
    buffer_append_u8(out, ']');
}

/* ---- Two ways ---- */

/* Exactly as long as it must be, so that asan sees a read past the padding, which misleads. */
static struct bytes padded(struct bytes text, uint8_t padding) {
    uint8_t *copy = malloc(text.size + JSON_PADDING);
    assert_non_null(copy);
    memcpy(copy, text.data, text.size);
    memset(copy + text.size, padding, JSON_PADDING);
    return bytes_of(copy, text.size);
}

static void release(struct bytes *text) {
    free((void *)(uintptr_t)text->data);
}

static void assert_same_floats(struct bytes text, const float *a, const float *b, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (load_u32(&a[i]) != load_u32(&b[i]))
            fail_msg("number %zu is %.9g, must be %.9g: %.*s", i, (double)a[i], (double)b[i],
                     (int)text.size, (const char *)text.data);
}

/* What the quick way takes is what the parser gives; true when it takes it. */
static bool compare_quick(struct fixture *f, struct bytes text) {
    float quick[NUMBERS], portable[NUMBERS], wanted[NUMBERS];
    size_t n = 0, n_portable = 0, n_wanted = 0, size = 0, size_portable = 0;
    bool taken = json_floats_read(text, &size, quick, NUMBERS, &n);
    bool taken_portable =
        json_floats_read_portable(text, &size_portable, portable, NUMBERS, &n_portable);
    assert_true(taken <= taken_portable || n > 0);
    if (!taken)
        return false;
    struct json_value v;
    struct bytes array CLEANUP(release) = padded(bytes_of(text.data, size), '1');
    assert_int_equal(json_parse(f->other, array, &v), 0);
    assert_int_equal(json_get_floats(v, wanted, NUMBERS, &n_wanted), 0);
    assert_int_equal(n, n_wanted);
    assert_same_floats(text, quick, wanted, n);
    if (taken_portable) {
        assert_int_equal(size, size_portable);
        assert_same_floats(text, portable, wanted, n);
    }
    return true;
}

static void test_floats_as_the_parser_gives_them(void **state) {
    struct fixture *f = *state;
    size_t n_taken = 0;
    for (int i = 0; i < ARRAYS; i++) {
        CLEANUP(buffer_deinit) struct buffer b = BUFFER_INIT;
        write_array(f, NULL, &b);
        struct bytes text CLEANUP(release) = padded(buffer_bytes(&b), i % 2 ? '1' : ',');
        n_taken += compare_quick(f, text);
    }
    assert_true(n_taken > ARRAYS / 3);
}

/* What clients send is not left to the parser. */
static void test_usual_numbers_are_taken(void **state) {
    static const write_number USUAL[] = {unit_double, unit_float, float_as_double, integer};
    struct fixture *f = *state;
    for (size_t form = 0; form < ARRAY_LENGTH(USUAL); form++) {
        for (int i = 0; i < 1000; i++) {
            CLEANUP(buffer_deinit) struct buffer b = BUFFER_INIT;
            buffer_append_u8(&b, '[');
            for (int n = 0; n < NUMBERS; n++) {
                buffer_append_string(&b, n ? ", " : "");
                USUAL[form](f, &b);
            }
            buffer_append_u8(&b, ']');
            struct bytes text CLEANUP(release) = padded(buffer_bytes(&b), 0);
            assert_true(compare_quick(f, text));
        }
    }
}

static void test_bounds(void **state) {
    static const char TEXT[] = "  [0.25,1.5,-2.75,3.5,4.5,5.5,6.5,7.5,8.5,9.5]x";
    float out[10];
    size_t n = 99, at = 2;
    (void)state;
    struct bytes text CLEANUP(release) = padded(BYTES_LITERAL(TEXT), '1');
    assert_true(json_floats_read(text, &at, out, 10, &n));
    assert_int_equal(n, 10);
    assert_int_equal(at, sizeof TEXT - 2);
    at = 2;
    assert_true(out[0] == 0.25f && out[2] == -2.75f && out[9] == 9.5f);
    for (size_t max = 0; max < 10; max++)
        assert_false(json_floats_read(text, &at, out, max, &n));
    for (size_t cut = 0; cut < sizeof TEXT - 2; cut++) {
        struct bytes shorter CLEANUP(release) = padded(bytes_of(TEXT, cut), ']');
        assert_false(json_floats_read(shorter, &at, out, 10, &n));
        struct bytes digits CLEANUP(release) = padded(bytes_of(TEXT, cut), '1');
        assert_false(json_floats_read(digits, &at, out, 10, &n));
    }
    assert_int_equal(at, 2);
}

/* ---- Whole objects ---- */

/* Both values must say the same, down to the numbers. */
static void assert_same_value(struct bytes text, struct json_value a, struct json_value b) {
    struct json_iterator other = json_iterate(b);
    struct json_value left, right;
    struct bytes name, other_name;
    assert_int_equal(json_type_of(a), json_type_of(b));
    assert_int_equal(json_size(a), json_size(b));
    if (json_type_of(a) == JSON_ARRAY) {
        float x[NUMBERS], y[NUMBERS];
        size_t n = 0;
        int r = json_get_floats(b, y, NUMBERS, &n);
        assert_int_equal(json_get_floats(a, x, NUMBERS, &n), r);
        if (r == 0)
            assert_same_floats(text, x, y, n);
    }
    if (json_type_of(a) != JSON_OBJECT)
        return;
    for (struct json_iterator it = json_iterate(a); json_next(&it, &name, &left);) {
        assert_true(json_next(&other, &other_name, &right));
        assert_true(bytes_equal(name, other_name));
        assert_same_value(text, left, right);
    }
}

static bool compare_parses(struct fixture *f, struct bytes text, const char *key) {
    struct json_value v, wanted;
    int r = json_parse(f->other, text, &wanted);
    assert_int_equal(json_parse_vector(f->parser, text, key, &v), r);
    if (r)
        return false;
    assert_same_value(text, v, wanted);
    bool lifted = ((const struct json_tape *)v.doc)->lifted_at != 0;
    assert_int_equal(json_parse_lifted(f->parser, text, key, &v), lifted);
    if (lifted)
        assert_same_value(text, v, wanted);
    assert_int_equal(json_parse(f->parser, text, &v), 0); /* of which nothing is left then */
    assert_same_value(text, v, wanted);
    return lifted;
}

static bool compare_text(struct fixture *f, const char *text, const char *key) {
    struct bytes copy CLEANUP(release) = padded(bytes_of_string(text), '1');
    return compare_parses(f, copy, key);
}

static void test_lifted(void **state) {
    static const char *const TEXTS[] = {
        "{\"vector\":[1]}",
        " { \"vector\" : [ 1 , 2.5 ] } ",
        "{\"id\":1,\"vector\":[0.5,0.25],\"payload\":{\"vector\":[\"a\"]}}",
        "{\"payload\":{\"vector\":[1]},\"vector\":[2]}",
        "{\"payload\":[{\"vector\":[1]}],\"a\":\"\\\"vector\\\":[3]\",\"vector\":[2]}",
        "{\"vectorX:[1,2]\":3,\"vector\":[4]}",
        "{\"vectors\":[1],\"vector\":[2],\"Vector\":[3]}",
    };
    for (size_t i = 0; i < ARRAY_LENGTH(TEXTS); i++)
        assert_true(compare_text(*state, TEXTS[i], "vector"));
    assert_true(compare_text(*state, " [1,2.5,3e1] ", NULL));
}

static void test_left_to_the_parser(void **state) {
    static const char *const TEXTS[] = {
        "",
        "{",
        "{}",
        "[0.5]",
        "{\"vector\":[]}",
        "{\"vector\":1}",
        "{\"vector\":{\"a\":[1]}}",
        "{\"vector\":[1],\"vector\":[2]}",
        "{\"vector\":[1],\"vector\":\"x\"}",
        "{\"vector\":[1],\"v\\u0065ctor\":[2]}",
        "{\"v\\u0065ctor\":[2],\"vector\":[1]}",
        "{\"v\\u0065ctor\":[2]}",
        "{\"payload\":{\"vector\":[1]}}",
        "{\"vector\":[[1]]}",
        "{\"vector\":[1}]",
        "{\"vector\":[1]",
        "{\"vector\":[1]]",
        "{\"vector\":[1]} x",
        "{\"vector\":[1],}",
        "{,\"vector\":[1]}",
        "{\"a\":\"\xff\",\"vector\":[1]}",
        "{\"vector\":[1],\"a\":\"\xff\"}",
        "{\"vector\":[1],\"a\":01}",
        "{\"vector\":[1],\"a\":1e999}",
        "{\"a\":\"x\"{\"vector\":[1]}}",
        "{\"a\":1 \"vector\":[1]}",
        "{\"a\" \"vector\":[1]}",
        "{\"a\":[}],\"vector\":[1]}",
        "[{\"vector\":[1]}]",
        "\"vector\":[1]",
        "{\"vector\":[1,1e39]}",
        "{\"vector\"",
        "{\"vector",
        "{\"vector\":[1,2,null]}",
    };
    for (size_t i = 0; i < ARRAY_LENGTH(TEXTS); i++)
        assert_false(compare_text(*state, TEXTS[i], "vector"));
    assert_false(compare_text(*state, "[]", NULL));
    assert_false(compare_text(*state, "[1,2] 3", NULL));
    assert_false(compare_text(*state, "{}", NULL));
}

/* A text that is too long, and one nested too deeply, are refused as ever. */
static void test_limits(void **state) {
    CLEANUP(buffer_deinit) struct buffer b = BUFFER_INIT;
    buffer_append_string(&b, "{\"vector\":[0.5");
    while (b.size < TEXT_MAX)
        buffer_append_string(&b, ",0.5");
    buffer_append_string(&b, "]}");
    struct bytes text CLEANUP(release) = padded(buffer_bytes(&b), 0);
    assert_false(compare_parses(*state, text, "vector"));
    for (size_t depth = JSON_DEPTH_MAX - 2; depth <= JSON_DEPTH_MAX; depth++) {
        buffer_clear(&b);
        buffer_append_string(&b, "{\"vector\":[1],\"a\":");
        for (size_t i = 0; i < depth; i++)
            buffer_append_u8(&b, '[');
        buffer_append_u8(&b, '1');
        for (size_t i = 0; i < depth; i++)
            buffer_append_u8(&b, ']');
        buffer_append_u8(&b, '}');
        struct bytes deep CLEANUP(release) = padded(buffer_bytes(&b), 0);
        assert_int_equal(compare_parses(*state, deep, "vector"), depth < JSON_DEPTH_MAX);
    }
}

/* Objects with one number that is malformed, or nearly so: the same error, or the same value. */
static void test_malformed_numbers(void **state) {
    struct fixture *f = *state;
    for (int i = 0; i < ARRAYS; i++) {
        CLEANUP(buffer_deinit) struct buffer b = BUFFER_INIT;
        buffer_append_string(&b, "{\"id\":1,\"vector\":");
        write_array(f, next(f) % 2 ? malformed : noise, &b);
        buffer_append_string(&b, ",\"payload\":{\"a\":1}}");
        struct bytes text CLEANUP(release) = padded(buffer_bytes(&b), '1');
        compare_parses(f, text, "vector");
        struct bytes array CLEANUP(release) = padded(bytes_of(b.data + 17, b.size - 37), '1');
        compare_parses(f, array, NULL);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_floats_as_the_parser_gives_them, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_usual_numbers_are_taken, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bounds, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_lifted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_left_to_the_parser, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_limits, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_malformed_numbers, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
