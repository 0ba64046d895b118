/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json_parse and everything that reads its values. What is accepted is written, and what was
 * written must be accepted and written as the same text.
 */
#include "fuzz.h"

#include "base/json.h"

static void walk(struct json_value v) {
    struct json_iterator it = json_iterate(v);
    struct json_value member, found;
    struct bytes key, text;
    double d;
    float floats[16];
    size_t count, n = 0;
    FUZZ_CHECK(json_type_of(v) <= JSON_OBJECT);
    for (; json_next(&it, &key, &member); n++)
        walk(member);
    FUZZ_CHECK(n == json_size(v));
    if (json_type_of(v) == JSON_OBJECT)
        (void)json_find(v, "a", &found);
    if (json_get_string(v, &text))
        FUZZ_CHECK(text.data[text.size] == 0);
    if (json_get_floats(v, floats, ARRAY_LENGTH(floats), &count) == 0)
        FUZZ_CHECK(count == n);
    bool number = json_type_of(v) >= JSON_INT && json_type_of(v) <= JSON_DOUBLE;
    FUZZ_CHECK(json_get_double(v, &d) == number);
}

/* Parses text, which it pads, and writes the value; false when the text is not accepted. */
static bool rewrite(struct json_parser *p, struct buffer *text, struct buffer *out) {
    uint8_t *padding = buffer_reserve(text, JSON_PADDING);
    FUZZ_CHECK(padding);
    memset(padding, '"', JSON_PADDING);
    struct json_value root;
    int r = json_parse(p, buffer_bytes(text), &root);
    FUZZ_CHECK(r >= 0 && r <= JSON_E_TOO_LARGE);
    if (r)
        return false;
    walk(root);
    json_append_value(out, root);
    FUZZ_CHECK(!out->failed);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct json_parser *p;
    CLEANUP(buffer_deinit) struct buffer text = BUFFER_INIT;
    CLEANUP(buffer_deinit) struct buffer once = BUFFER_INIT;
    CLEANUP(buffer_deinit) struct buffer twice = BUFFER_INIT;
    if (json_parser_new(1 << 24, &p))
        return 0;
    buffer_append(&text, data, size);
    if (rewrite(p, &text, &once)) {
        FUZZ_CHECK(rewrite(p, &once, &twice));
        FUZZ_CHECK(bytes_equal(buffer_bytes(&once), buffer_bytes(&twice)));
    }
    /* Any bytes at all make a string. */
    buffer_clear(&once);
    json_append_string(&once, bytes_of(data, size));
    buffer_clear(&twice);
    FUZZ_CHECK(rewrite(p, &once, &twice));
    json_parser_free(p);
    return 0;
}
