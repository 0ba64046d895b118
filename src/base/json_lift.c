/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json_parse_vector: an object's array of numbers is lifted out of its text, and the rest is parsed
 * with an empty array in its place:
 *
 *   {"id":7,"vector":[0.25,1.5],"payload":{…}}   →   {"id":7,"vector":[],"payload":{…}}   and
 * 0.25 1.5
 *
 * Every byte is checked by one of the two, and both texts are JSON, or neither is: an array of
 * numbers stands wherever an empty one may. That it is this member's value is certain once the rest
 * was parsed, because then all before it was well-formed as the splitter walked over it, and if no
 * other member, however spelled, has the same key. Whatever is not so, and every error, is left to
 * json_parse of the whole text.
 */
#include "base/json.h"
#include "base/json_floats.h"
#include "base/json_scan.h"
#include "base/json_tape.h"

enum {
    FLOATS_MAX = 1 << 16,
    REST_MAX_BYTES = 1 << 16, /* beside a longer rest the numbers do not count */
};

static bool skip_byte(struct bytes text, size_t *at, uint8_t c) {
    *at = json_skip_space(text, *at);
    if (*at == text.size || text.data[*at] != c)
        return false;
    ++*at;
    return true;
}

static bool skip_key(struct bytes text, size_t *at, struct bytes key) {
    if (!skip_byte(text, at, '"') || text.size - *at <= key.size ||
        !bytes_equal(bytes_of(text.data + *at, key.size), key))
        return false;
    *at += key.size;
    return text.data[(*at)++] == '"';
}

/* Whether the next member is key with an array, that starts at rest.data[*ret_at]. */
static bool array_is_next(const struct json_members *m, struct bytes key, size_t *ret_at) {
    size_t at = 0;
    bool first = m->rest.size > 0 && m->rest.data[0] == '{';
    if (!skip_byte(m->rest, &at, first ? '{' : ',') || !skip_key(m->rest, &at, key) ||
        !skip_byte(m->rest, &at, ':') || !skip_byte(m->rest, &at, '['))
        return false;
    *ret_at = at - 1;
    return true;
}

/* Where the array starts. */
static bool find_array(struct bytes text, const char *key, size_t *ret_at) {
    struct json_members members;
    struct bytes skipped_key, skipped;
    size_t at;
    if (!key) {
        *ret_at = json_skip_space(text, 0);
        return true;
    }
    if (json_members_init(&members, text) != 0 || !members.object)
        return false;
    while (!array_is_next(&members, bytes_of_string(key), &at))
        if (json_members_next(&members, &skipped_key, &skipped) != 0)
            return false;
    *ret_at = (size_t)(members.rest.data - text.data) + at;
    return true;
}

bool json_lift(struct json_tape *tape, struct bytes text, const char *key) {
    size_t start, end;
    if (!find_array(text, key, &start))
        return false;
    size_t max = (text.size - start) / 2 < FLOATS_MAX ? (text.size - start) / 2 : FLOATS_MAX;
    buffer_clear(&tape->floats);
    float *floats = (void *)buffer_reserve(&tape->floats, max * sizeof *floats);
    end = start;
    if (!floats || !json_floats_read(text, &end, floats, max, &tape->n_floats) ||
        text.size - (end - start) > REST_MAX_BYTES)
        return false;
    buffer_clear(&tape->rest);
    buffer_append(&tape->rest, text.data, start);
    buffer_append_string(&tape->rest, "[]");
    buffer_append(&tape->rest, text.data + end, text.size - end);
    return buffer_reserve(&tape->rest, JSON_PADDING) != NULL;
}

/* The place of the only member of that name; 0, which is none, when there are several. */
static size_t place_of_only(struct json_value object, struct bytes key) {
    struct json_iterator it = json_iterate(object);
    struct json_value value;
    struct bytes name;
    size_t at = 0, n = 0;
    while (json_next(&it, &name, &value)) {
        if (!bytes_equal(name, key))
            continue;
        at = value.at;
        n++;
    }
    return n == 1 ? at : 0;
}

bool json_lift_mark(struct json_tape *tape, const char *key) {
    struct json_value root = {.doc = tape, .at = JSON_TAPE_ROOT};
    tape->lifted_at = key ? place_of_only(root, bytes_of_string(key)) : root.at;
    return tape->lifted_at != 0;
}
