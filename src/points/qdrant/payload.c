/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both ways are recursive, at most PAYLOAD_DEPTH_MAX deep.
 *
 * The plain way has room for the worst text before it begins, so that it writes without a look at
 * the buffer. A message inside begins with one byte for its length, and is moved up when it turns
 * out longer than that can say.
 */
#include "points/qdrant/payload.h"

#include "points/point.h"
#include "points/qdrant/wire.h"

#include <assert.h>
#include <stdlib.h>

enum { SMALL_BYTES = 1 }; /* a guess of a message's size (wire_open) */

/* Numbers of the fields, as in messages.proto. */
enum {
    POINT_PAYLOAD = 3,
    ENTRY_KEY = 1, /* of every map */
    ENTRY_VALUE = 2,
    STRUCT_FIELDS = 1,
    LIST_VALUES = 1,
    VALUE_NULL = 1,
    VALUE_DOUBLE = 2,
    VALUE_INTEGER = 3,
    VALUE_STRING = 4,
    VALUE_BOOL = 5,
    VALUE_STRUCT = 6,
    VALUE_LIST = 7,
};

void payload_reader_deinit(struct payload_reader *r) {
    r->parser = json_parser_free(r->parser);
    buffer_deinit(&r->text);
}

/* ---- The plain way ---- */

enum {
    /* The most that a byte of text becomes: "-1," is 3 bytes of a list, and 13 of the message. */
    PLAIN_GROWTH = 5,
    PLAIN_ROOM = 64, /* and a text of no length, or the rest of a word */
    WORD = sizeof(uint64_t),
    PLAIN_INTEGER_DIGITS = 18, /* any of them fits int64_t */
    PLAIN_DOUBLE_DIGITS = 15,  /* any of them is a double, and so is 10^15 */
};

/* How far the text is read and the message written; both NULL: it is not plain. Goes by value, to
 * stay in registers: any byte that is written might otherwise have changed it. */
struct plain {
    const uint8_t *at;
    uint8_t *out;
};
static const struct plain NOT_PLAIN = {NULL, NULL};

static bool sees(struct plain p, const uint8_t *end, char c) {
    return p.at < end && *p.at == (uint8_t)c;
}

static uint8_t *put_key(uint8_t *out, unsigned field, enum wire_type type) {
    *out = (uint8_t)(field << 3 | (unsigned)type);
    return out + 1;
}

/* Leaves one byte for the length. */
static struct plain open_plain(struct plain p, unsigned field) {
    return (struct plain){p.at, put_key(p.out, field, WIRE_LENGTH) + 1};
}

/* content is where what was opened begins. */
static struct plain close_plain(struct plain p, uint8_t *content) {
    size_t size = (size_t)(p.out - content);
    if (size < 0x80) {
        content[-1] = (uint8_t)size;
        return p;
    }
    size_t more = wire_varint_size(size) - 1;
    memmove(content + more, content, size);
    (void)wire_varint_store(content - 1, size);
    return (struct plain){p.at, p.out + more};
}

/* The place of the first byte, in memory's order, that a string does not simply go on with: a
 * quote, a backslash, a control character; WORD: there is none (Mycroft's test for a zero byte,
 * 1987: a false hit comes only behind a true one). */
static size_t plain_stop(uint64_t word) {
    const uint64_t ones = UINT64_MAX / 0xff;
    const uint64_t tops = ones << 7;
    uint64_t quotes = word ^ ones * '"';
    uint64_t backslashes = word ^ ones * '\\';
    uint64_t hits = ((quotes - ones) & ~quotes) | ((backslashes - ones) & ~backslashes) |
                    ((word - ones * ' ') & ~word);
    return hits & tops ? (size_t)__builtin_ctzll(hits & tops) / 8 : WORD;
}

/* From its opening quote up to and with the closing one. Its bytes are written by words. */
static struct plain plain_string(struct plain p, const uint8_t *end, unsigned field) {
    p = open_plain(p, field);
    uint8_t *content = p.out;
    size_t n = WORD;
    for (p.at++; n == WORD && end - p.at >= WORD; p.at += n, p.out += n) {
        uint64_t word = load_u64(p.at);
        store_u64(p.out, word);
        n = plain_stop(word);
    }
    if (n == WORD)
        while (p.at < end && *p.at >= ' ' && *p.at != '"' && *p.at != '\\')
            *p.out++ = *p.at++;
    if (!sees(p, end, '"'))
        return NOT_PLAIN;
    p.at++;
    return close_plain(p, content);
}

/* Appends digits to *value; returns behind them. */
static const uint8_t *plain_digits(const uint8_t *at, const uint8_t *end, uint64_t *value) {
    for (; at < end && *at >= '0' && *at <= '9'; at++)
        *value = *value * 10 + (*at - '0');
    return at;
}

/* From its point on, n digits before it. A number of so few is a quotient of two exact doubles, and
 * rounded once: it is the double that a parser finds (Clinger, How to Read Floating Point Numbers
 * Accurately, 1990). */
static struct plain plain_fraction(struct plain p, const uint8_t *end, size_t n, uint64_t digits,
                                   bool negative) {
    static const double powers[] = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                    1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
    const uint8_t *start = p.at + 1;
    p.at = plain_digits(start, end, &digits);
    size_t places = (size_t)(p.at - start);
    if (places == 0 || n + places > PLAIN_DOUBLE_DIGITS)
        return NOT_PLAIN;
    double value = (double)digits / powers[places];
    value = negative ? -value : value;
    p.out = put_key(p.out, VALUE_DOUBLE, WIRE_FIXED64);
    memcpy(p.out, &value, sizeof value);
    p.out += sizeof value;
    return p;
}

/* What it ends with is looked at by who goes on behind it. */
static struct plain plain_number(struct plain p, const uint8_t *end) {
    uint64_t digits = 0;
    bool negative = *p.at == '-';
    const uint8_t *start = p.at + negative;
    p.at = plain_digits(start, end, &digits);
    size_t n = (size_t)(p.at - start);
    if (n == 0 || n > PLAIN_INTEGER_DIGITS || (*start == '0' && n > 1))
        return NOT_PLAIN;
    if (sees(p, end, '.'))
        return plain_fraction(p, end, n, digits, negative);
    p.out = put_key(p.out, VALUE_INTEGER, WIRE_VARINT);
    p.out += wire_varint_store(p.out, negative ? 0 - digits : digits);
    return p;
}

static struct plain plain_word(struct plain p, const uint8_t *end, struct bytes word,
                               unsigned field, bool value) {
    if ((size_t)(end - p.at) < word.size || memcmp(p.at, word.data, word.size) != 0)
        return NOT_PLAIN;
    p.out = put_key(p.out, field, WIRE_VARINT);
    *p.out++ = value;
    p.at += word.size;
    return p;
}

static struct plain plain_value(struct plain p, const uint8_t *end, unsigned depth, unsigned field);

/* "key":value */
static struct plain plain_member(struct plain p, const uint8_t *end, unsigned depth,
                                 unsigned field) {
    if (!sees(p, end, '"'))
        return NOT_PLAIN;
    p = open_plain(p, field);
    uint8_t *content = p.out;
    p = plain_string(p, end, ENTRY_KEY);
    if (!p.at || !sees(p, end, ':'))
        return NOT_PLAIN;
    p.at++;
    p = plain_value(p, end, depth, ENTRY_VALUE);
    return p.at ? close_plain(p, content) : NOT_PLAIN;
}

/* From the opening bracket up to and with the closing one. field: of each member, or element. */
static struct plain plain_all(struct plain p, const uint8_t *end, unsigned depth, unsigned field) {
    bool object = *p.at == '{';
    char close = object ? '}' : ']';
    p.at++;
    if (sees(p, end, close))
        return (struct plain){p.at + 1, p.out};
    for (;;) {
        p = object ? plain_member(p, end, depth, field) : plain_value(p, end, depth, field);
        if (!p.at || p.at == end || (*p.at != ',' && *p.at != (uint8_t)close))
            return NOT_PLAIN;
        if (*p.at++ != ',')
            return p;
    }
}

static struct plain plain_container(struct plain p, const uint8_t *end, unsigned depth) {
    bool object = *p.at == '{';
    if (depth == PAYLOAD_DEPTH_MAX)
        return NOT_PLAIN;
    p = open_plain(p, object ? VALUE_STRUCT : VALUE_LIST);
    uint8_t *content = p.out;
    p = plain_all(p, end, depth + 1, object ? STRUCT_FIELDS : LIST_VALUES);
    return p.at ? close_plain(p, content) : NOT_PLAIN;
}

static struct plain plain_content(struct plain p, const uint8_t *end, unsigned depth) {
    switch (*p.at) {
    case '"':
        return plain_string(p, end, VALUE_STRING);
    case '{':
    case '[':
        return plain_container(p, end, depth);
    case 't':
        return plain_word(p, end, BYTES_LITERAL("true"), VALUE_BOOL, true);
    case 'f':
        return plain_word(p, end, BYTES_LITERAL("false"), VALUE_BOOL, false);
    case 'n':
        return plain_word(p, end, BYTES_LITERAL("null"), VALUE_NULL, false);
    default:
        return plain_number(p, end);
    }
}

static struct plain plain_value(struct plain p, const uint8_t *end, unsigned depth,
                                unsigned field) {
    if (p.at == end)
        return NOT_PLAIN;
    p = open_plain(p, field);
    uint8_t *content = p.out;
    p = plain_content(p, end, depth);
    return p.at ? close_plain(p, content) : NOT_PLAIN;
}

bool payload_append_plain(struct buffer *out, struct bytes payload) {
    size_t room = PLAIN_GROWTH * payload.size + PLAIN_ROOM;
    const uint8_t *end = payload.data + payload.size;
    struct plain p = {payload.data, buffer_reserve(out, room)};
    if (!p.out || !sees(p, end, '{'))
        return false;
    p = plain_all(p, end, 1, POINT_PAYLOAD);
    if (p.at != end)
        return false;
    size_t size = (size_t)(p.out - (out->data + out->size));
    assert(size <= room);
    out->size += size;
    return true;
}

/* ---- By the parser ---- */

struct parsed {
    struct buffer *out;
    unsigned depth;
    bool too_deep;
};

static void append_value(struct parsed *p, unsigned field, struct json_value v);

static void append_members(struct parsed *p, unsigned field, struct json_value object) {
    struct json_iterator it = json_iterate(object);
    struct bytes key;
    struct json_value value;
    while (json_next(&it, &key, &value)) {
        struct wire_message entry = wire_open(p->out, field, SMALL_BYTES);
        wire_bytes(p->out, ENTRY_KEY, key);
        append_value(p, ENTRY_VALUE, value);
        wire_close(p->out, entry);
    }
}

static void append_elements(struct parsed *p, struct json_value array) {
    struct json_iterator it = json_iterate(array);
    struct json_value value;
    while (json_next(&it, NULL, &value))
        append_value(p, LIST_VALUES, value);
}

/* An integer above INT64_MAX becomes a double, as in Qdrant's own reading of JSON. */
static void append_number(struct buffer *out, struct json_value v) {
    int64_t integer;
    double real = 0;
    if (json_get_i64(v, &integer))
        wire_varint(out, VALUE_INTEGER, (uint64_t)integer);
    else if (json_get_double(v, &real))
        wire_double(out, VALUE_DOUBLE, real);
}

static void append_container(struct parsed *p, struct json_value v) {
    if (p->depth == PAYLOAD_DEPTH_MAX) {
        p->too_deep = true;
        return;
    }
    p->depth++;
    bool object = json_type_of(v) == JSON_OBJECT;
    struct wire_message m = wire_open(p->out, object ? VALUE_STRUCT : VALUE_LIST, SMALL_BYTES);
    if (object)
        append_members(p, STRUCT_FIELDS, v);
    else
        append_elements(p, v);
    wire_close(p->out, m);
    p->depth--;
}

static void append_value(struct parsed *p, unsigned field, struct json_value v) {
    struct wire_message m = wire_open(p->out, field, SMALL_BYTES);
    bool truth;
    struct bytes text;
    if (json_get_string(v, &text))
        wire_bytes(p->out, VALUE_STRING, text);
    else if (json_get_bool(v, &truth))
        wire_varint(p->out, VALUE_BOOL, truth);
    else if (json_type_of(v) == JSON_NULL)
        wire_varint(p->out, VALUE_NULL, 0);
    else if (json_type_of(v) == JSON_OBJECT || json_type_of(v) == JSON_ARRAY)
        append_container(p, v);
    else
        append_number(p->out, v);
    wire_close(p->out, m);
}

static int parse(struct payload_reader *r, struct bytes payload, struct json_value *ret_root) {
    if (!r->parser) {
        int result = json_parser_new(POINT_PAYLOAD_MAX, &r->parser);
        if (result)
            return error_trace(result);
    }
    buffer_clear(&r->text);
    uint8_t *text = buffer_reserve(&r->text, payload.size + JSON_PADDING);
    if (!text)
        return error_origin(-ENOMEM);
    memcpy(text, payload.data, payload.size);
    memset(text + payload.size, 0, JSON_PADDING);
    return json_parse(r->parser, bytes_of(text, payload.size), ret_root);
}

int payload_append_parsed(struct payload_reader *r, struct buffer *out, struct bytes payload) {
    struct json_value root;
    struct parsed p = {.out = out, .depth = 1};
    int result = parse(r, payload, &root);
    if (result < 0)
        return error_trace(result);
    if (result > 0 || json_type_of(root) != JSON_OBJECT)
        return PAYLOAD_E_WRONG;
    append_members(&p, POINT_PAYLOAD, root);
    return p.too_deep ? PAYLOAD_E_WRONG : 0;
}

int payload_append(struct payload_reader *r, struct buffer *out, struct bytes payload) {
    if (payload.size == 0 || payload_append_plain(out, payload))
        return 0;
    return error_trace(payload_append_parsed(r, out, payload));
}
