/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json_parse_vector beside json_parse: of any text both say the same, and give the same values.
 */
#include "fuzz.h"

#include "base/json.h"
#include "base/json_floats.h"

enum { NUMBERS_MAX = 64 };

static void compare_floats(struct json_value a, struct json_value b) {
    float left[NUMBERS_MAX], right[NUMBERS_MAX];
    size_t n = 0, n_other = 0;
    int r = json_get_floats(a, left, NUMBERS_MAX, &n);
    FUZZ_CHECK(r == json_get_floats(b, right, NUMBERS_MAX, &n_other));
    FUZZ_CHECK(n == n_other);
    FUZZ_CHECK(r || n == 0 || memcmp(left, right, n * sizeof *left) == 0);
}

/* An array is looked at only as json_parse_vector allows it. */
static void compare(struct json_value a, struct json_value b) {
    struct json_iterator other = json_iterate(b);
    struct json_value left, right;
    struct bytes name, other_name;
    FUZZ_CHECK(json_type_of(a) == json_type_of(b));
    FUZZ_CHECK(json_size(a) == json_size(b));
    compare_floats(a, b);
    if (json_type_of(a) != JSON_OBJECT)
        return;
    for (struct json_iterator it = json_iterate(a); json_next(&it, &name, &left);) {
        FUZZ_CHECK(json_next(&other, &other_name, &right));
        FUZZ_CHECK(bytes_equal(name, other_name));
        compare(left, right);
    }
}

static void parse_both(struct json_parser *p, struct json_parser *whole, struct bytes text,
                       const char *key) {
    struct json_value v, wanted;
    int r = json_parse(whole, text, &wanted);
    FUZZ_CHECK(json_parse_vector(p, text, key, &v) == r);
    if (r == 0)
        compare(v, wanted);
}

/* The two ways through an array agree on what both take. */
static void read_both(struct bytes text, size_t at) {
    float a[NUMBERS_MAX], b[NUMBERS_MAX];
    size_t n = 0, n_other = 0, end = at, end_other = at;
    if (!json_floats_read(text, &end, a, NUMBERS_MAX, &n) ||
        !json_floats_read_portable(text, &end_other, b, NUMBERS_MAX, &n_other))
        return;
    FUZZ_CHECK(n == n_other && end == end_other && end <= text.size);
    FUZZ_CHECK(memcmp(a, b, n * sizeof *a) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct json_parser *p, *whole;
    CLEANUP(buffer_deinit) struct buffer text = BUFFER_INIT;
    if (json_parser_new(1 << 24, &p))
        return 0;
    if (json_parser_new(1 << 24, &whole)) {
        json_parser_free(p);
        return 0;
    }
    buffer_append(&text, data, size);
    uint8_t *padding = buffer_reserve(&text, JSON_PADDING);
    FUZZ_CHECK(padding);
    memset(padding, size % 2 ? ']' : '1', JSON_PADDING);
    parse_both(p, whole, buffer_bytes(&text), "vector");
    parse_both(p, whole, buffer_bytes(&text), NULL);
    for (size_t at = 0; at < size && at < 64; at++)
        if (data[at] == '[')
            read_both(buffer_bytes(&text), at);
    json_parser_free(p);
    json_parser_free(whole);
    return 0;
}
