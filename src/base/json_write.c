/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON out. Strings go out in runs of bytes that need no escape; of an object's duplicate members
 * only the last goes out, which takes a hash table of its keys and so linear time, whoever chose
 * the keys.
 */
#include "base/json.h"

#include "base/hash.h"
#include "base/json_tape.h"

#include <math.h>
#include <stdlib.h>

#ifdef MILLRACE_TINY
enum { SLOTS_ON_STACK = 4 };
#else
enum { SLOTS_ON_STACK = 64 };
#endif

/* The length of the UTF-8 sequence at p, 0 when it is none (RFC 3629: no overlong form, no
 * surrogate, nothing above U+10FFFF). */
static size_t utf8_length(const uint8_t *p, const uint8_t *end) {
    static const struct {
        uint8_t first_min, first_max, second_min, second_max, length;
    } FORMS[] = {
        {0x00, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };
    size_t i = 0;
    while (i < ARRAY_LENGTH(FORMS) && (p[0] < FORMS[i].first_min || p[0] > FORMS[i].first_max))
        i++;
    if (i == ARRAY_LENGTH(FORMS) || (size_t)(end - p) < FORMS[i].length)
        return 0;
    size_t length = FORMS[i].length;
    if (length > 1 && (p[1] < FORMS[i].second_min || p[1] > FORMS[i].second_max))
        return 0;
    for (size_t j = 2; j < length; j++)
        if ((p[j] & 0xc0) != 0x80)
            return 0;
    return length;
}

bool json_is_utf8(struct bytes text) {
    size_t length;
    for (size_t at = 0; at < text.size; at += length) {
        length = utf8_length(text.data + at, text.data + text.size);
        if (length == 0)
            return false;
    }
    return true;
}

/* The end of the run at p that goes out as it is. */
static const uint8_t *plain_run(const uint8_t *p, const uint8_t *end) {
    while (p < end && *p >= 0x20 && *p != '"' && *p != '\\') {
        size_t length = utf8_length(p, end);
        if (length == 0)
            break;
        p += length;
    }
    return p;
}

/* A byte that plain_run stopped at. */
static void append_escape(struct buffer *out, uint8_t c) {
    static const char SHORT[32] = {
        ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};
    static const char HEX[] = "0123456789abcdef";
    if (c >= 0x80)
        buffer_append_string(out, "\xef\xbf\xbd");
    else if (c == '"' || c == '\\')
        buffer_append(out, (char[]){'\\', (char)c}, 2);
    else if (SHORT[c])
        buffer_append(out, (char[]){'\\', SHORT[c]}, 2);
    else
        buffer_append(out, (char[]){'\\', 'u', '0', '0', HEX[c >> 4], HEX[c & 15]}, 6);
}

void json_append_string(struct buffer *out, struct bytes text) {
    const uint8_t *p = text.data, *end = text.data + text.size;
    buffer_append_u8(out, '"');
    while (p < end) {
        const uint8_t *stop = plain_run(p, end);
        buffer_append(out, p, (size_t)(stop - p));
        if (stop < end)
            append_escape(out, *stop++);
        p = stop;
    }
    buffer_append_u8(out, '"');
}

void json_append_cstring(struct buffer *out, const char *text) {
    json_append_string(out, bytes_of_string(text));
}

void json_append_u64(struct buffer *out, uint64_t v) {
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    buffer_append(out, digits + at, sizeof digits - at);
}

void json_append_i64(struct buffer *out, int64_t v) {
    if (v < 0)
        buffer_append_u8(out, '-');
    json_append_u64(out, v < 0 ? -(uint64_t)v : (uint64_t)v);
}

void json_append_double(struct buffer *out, double v) {
    uint8_t *to = buffer_reserve(out, JSON_NUMBER_TEXT_MAX);
    if (!isfinite(v))
        buffer_append_string(out, "null");
    else if (to)
        out->size += json_double_text(v, (char *)to);
}

void json_append_float(struct buffer *out, float v) {
    uint8_t *to = buffer_reserve(out, JSON_NUMBER_TEXT_MAX);
    if (!isfinite(v))
        buffer_append_string(out, "null");
    else if (to)
        out->size += json_float_text(v, (char *)to);
}

static void append_array(struct buffer *out, struct json_value v) {
    struct json_iterator it = json_iterate(v);
    struct json_value element;
    const char *separator = "";
    buffer_append_u8(out, '[');
    while (json_next(&it, NULL, &element)) {
        buffer_append_string(out, separator);
        json_append_value(out, element);
        separator = ",";
    }
    buffer_append_u8(out, ']');
}

/* Open addressing, at most half full: for each key of an object its last value. */
struct last_members {
    struct {
        struct bytes key;
        size_t at; /* of the value on the tape; 0, which is never a value, in an empty slot */
    } on_stack[SLOTS_ON_STACK], *slots;
    size_t mask;
};

static bool last_members_init(struct last_members *m, size_t members) {
    size_t count = SLOTS_ON_STACK;
    while (count < 2 * members)
        count *= 2;
    m->mask = count - 1;
    m->slots = m->on_stack;
    if (count > SLOTS_ON_STACK)
        m->slots = calloc(count, sizeof *m->slots);
    else
        memset(m->on_stack, 0, sizeof m->on_stack);
    return m->slots != NULL;
}

static void last_members_deinit(struct last_members *m) {
    if (m->slots != m->on_stack)
        free(m->slots);
}

static size_t slot_of(const struct last_members *m, struct bytes key) {
    size_t i = hash64(key.data, key.size) & m->mask;
    while (m->slots[i].at && !bytes_equal(m->slots[i].key, key))
        i = (i + 1) & m->mask;
    return i;
}

static void note_members(struct last_members *m, struct json_value object) {
    struct json_iterator it = json_iterate(object);
    struct bytes key;
    struct json_value value;
    while (json_next(&it, &key, &value)) {
        size_t i = slot_of(m, key);
        m->slots[i].key = key;
        m->slots[i].at = value.at;
    }
}

static void append_members(struct buffer *out, const struct last_members *m,
                           struct json_value object) {
    struct json_iterator it = json_iterate(object);
    struct bytes key;
    struct json_value value;
    const char *separator = "";
    while (json_next(&it, &key, &value)) {
        if (m->slots[slot_of(m, key)].at != value.at)
            continue; /* a later member has the same key */
        buffer_append_string(out, separator);
        json_append_string(out, key);
        buffer_append_u8(out, ':');
        json_append_value(out, value);
        separator = ",";
    }
}

static void append_object(struct buffer *out, struct json_value v) {
    struct last_members members;
    if (!last_members_init(&members, json_size(v))) {
        out->failed = true;
        return;
    }
    note_members(&members, v);
    buffer_append_u8(out, '{');
    append_members(out, &members, v);
    buffer_append_u8(out, '}');
    last_members_deinit(&members);
}

static void append_number(struct buffer *out, struct json_value v) {
    int64_t i;
    uint64_t u;
    double d;
    if (json_get_i64(v, &i))
        json_append_i64(out, i);
    else if (json_get_u64(v, &u))
        json_append_u64(out, u);
    else if (json_get_double(v, &d))
        json_append_double(out, d);
}

/* Recursion is bounded by JSON_DEPTH_MAX. */
void json_append_value(struct buffer *out, struct json_value v) {
    struct bytes text;
    bool truth;
    switch (json_type_of(v)) {
    case JSON_NULL:
        buffer_append_string(out, "null");
        break;
    case JSON_BOOL:
        buffer_append_string(out, json_get_bool(v, &truth) && truth ? "true" : "false");
        break;
    case JSON_INT:
    case JSON_UINT:
    case JSON_DOUBLE:
        append_number(out, v);
        break;
    case JSON_STRING:
        if (json_get_string(v, &text))
            json_append_string(out, text);
        break;
    case JSON_ARRAY:
        append_array(out, v);
        break;
    case JSON_OBJECT:
        append_object(out, v);
        break;
    }
}
