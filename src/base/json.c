/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads values from the tape of a parsed document (json_tape.h says how it is laid out). The
 * document was checked as a whole by json_parse, so nothing here can meet broken input.
 */
#include "base/json.h"

#include "base/json_tape.h"

#include <assert.h>

static const struct json_tape *tape_of(const void *doc) {
    return doc;
}

static uint64_t word_at(struct json_value v, size_t offset) {
    return tape_of(v.doc)->words[v.at + offset];
}

static uint8_t tag_of(uint64_t word) {
    return (uint8_t)(word >> 56);
}

static uint8_t tag_at(struct json_value v) {
    return tag_of(word_at(v, 0));
}

static double double_of(uint64_t word) {
    double d;
    memcpy(&d, &word, sizeof d);
    return d;
}

const char *json_error_text(int condition) {
    switch (condition) {
    case JSON_E_SYNTAX:
        return "is not valid JSON: a bracket, comma, colon, quote or value is missing, or "
               "one too many";
    case JSON_E_EMPTY:
        return "is not valid JSON: it is empty";
    case JSON_E_QUOTE:
        return "is not valid JSON: a string has no closing quote";
    case JSON_E_STRING:
        return "is not valid JSON: a string has a wrong escape, or a control character";
    case JSON_E_WORD:
        return "is not valid JSON: a value is no number, true, false or null";
    case JSON_E_UTF8:
        return "has a string that is not valid UTF-8";
    case JSON_E_NUMBER:
        return "has a number that is out of range";
    case JSON_E_DEPTH:
        return "is nested too deeply";
    case JSON_E_TOO_LARGE:
        return "is too large";
    default:
        return "cannot be read";
    }
}

enum json_type json_type_of(struct json_value v) {
    switch (tag_at(v)) {
    case 't':
    case 'f':
        return JSON_BOOL;
    case 'l':
        return JSON_INT;
    case 'u':
        return JSON_UINT;
    case 'd':
        return JSON_DOUBLE;
    case '"':
        return JSON_STRING;
    case '[':
        return JSON_ARRAY;
    case '{':
        return JSON_OBJECT;
    default:
        return JSON_NULL;
    }
}

struct json_value json_empty_object(void) {
    static const uint64_t words[] = {(uint64_t)'r' << 56 | 3, (uint64_t)'{' << 56 | 3,
                                     (uint64_t)'}' << 56 | 1};
    static const struct json_tape tape = {.words = words};
    return (struct json_value){.doc = &tape, .at = JSON_TAPE_ROOT};
}

bool json_get_bool(struct json_value v, bool *ret) {
    uint8_t tag = tag_at(v);
    if (tag != 't' && tag != 'f')
        return false;
    *ret = tag == 't';
    return true;
}

bool json_get_i64(struct json_value v, int64_t *ret) {
    if (tag_at(v) != 'l')
        return false; /* a 'u' is always above INT64_MAX */
    *ret = (int64_t)word_at(v, 1);
    return true;
}

bool json_get_u64(struct json_value v, uint64_t *ret) {
    uint8_t tag = tag_at(v);
    if (tag != 'u' && (tag != 'l' || (int64_t)word_at(v, 1) < 0))
        return false;
    *ret = word_at(v, 1);
    return true;
}

bool json_get_double(struct json_value v, double *ret) {
    switch (tag_at(v)) {
    case 'd':
        *ret = double_of(word_at(v, 1));
        return true;
    case 'l':
        *ret = (double)(int64_t)word_at(v, 1);
        return true;
    case 'u':
        *ret = (double)word_at(v, 1);
        return true;
    default:
        return false;
    }
}

static struct bytes string_at(const struct json_tape *tape, size_t at) {
    const uint8_t *s = tape->strings + (tape->words[at] & UINT64_C(0x00ffffffffffffff));
    return bytes_of(s + sizeof(uint32_t), load_u32(s));
}

bool json_get_string(struct json_value v, struct bytes *ret) {
    if (tag_at(v) != '"')
        return false;
    *ret = string_at(tape_of(v.doc), v.at);
    return true;
}

/* The index behind the value at an index. */
static size_t index_after(const uint64_t *words, size_t at) {
    switch (tag_of(words[at])) {
    case '[':
    case '{':
        return (uint32_t)words[at];
    case 'l':
    case 'u':
    case 'd':
        return at + 2;
    default:
        return at + 1;
    }
}

/* Its elements are not on the tape. */
static bool is_lifted(struct json_value v) {
    return v.at == tape_of(v.doc)->lifted_at;
}

struct json_iterator json_iterate(struct json_value v) {
    assert(!is_lifted(v));
    struct json_iterator it = {.doc = v.doc, .at = v.at + 1, .end = v.at + 1};
    uint8_t tag = tag_at(v);
    if (tag == '[' || tag == '{') {
        it.end = (uint32_t)word_at(v, 0) - 1;
        it.object = tag == '{';
    }
    return it;
}

bool json_next(struct json_iterator *it, struct bytes *key, struct json_value *value) {
    if (it->at >= it->end)
        return false;
    const struct json_tape *tape = tape_of(it->doc);
    if (key)
        *key = it->object ? string_at(tape, it->at) : (struct bytes){0};
    it->at += it->object;
    *value = (struct json_value){.doc = it->doc, .at = it->at};
    it->at = index_after(tape->words, it->at);
    return true;
}

size_t json_size(struct json_value v) {
    uint8_t tag = tag_at(v);
    if (tag != '[' && tag != '{')
        return 0;
    if (is_lifted(v))
        return tape_of(v.doc)->n_floats;
    size_t count = (word_at(v, 0) >> 32) & JSON_TAPE_COUNT_MAX;
    if (count < JSON_TAPE_COUNT_MAX)
        return count;
    struct json_iterator it = json_iterate(v);
    struct json_value element;
    for (count = 0; json_next(&it, NULL, &element); count++)
        continue;
    return count;
}

bool json_find(struct json_value object, const char *key, struct json_value *ret) {
    if (tag_at(object) != '{')
        return false;
    struct bytes wanted = bytes_of_string(key), name;
    struct json_iterator it = json_iterate(object);
    struct json_value value;
    bool found = false;
    while (json_next(&it, &name, &value)) {
        if (bytes_equal(name, wanted)) {
            *ret = value;
            found = true;
        }
    }
    return found;
}

/* The number at words as a float; false when it is no number. */
static bool number_as_float(const uint64_t *words, float *out) {
    switch (tag_of(words[0])) {
    case 'd':
        *out = (float)double_of(words[1]);
        return true;
    case 'l':
        *out = (float)(int64_t)words[1];
        return true;
    case 'u':
        *out = (float)words[1];
        return true;
    default:
        return false;
    }
}

/* Four doubles in a row, as nearly all are, without a branch for each: what the payload of a 'd'
 * word holds is always 0. False when one of them is something else. */
static inline bool four_doubles(const uint64_t *words, float *out) {
    const uint64_t tag = (uint64_t)'d' << 56;
    if ((words[0] ^ tag) | (words[2] ^ tag) | (words[4] ^ tag) | (words[6] ^ tag))
        return false;
    out[0] = (float)double_of(words[1]);
    out[1] = (float)double_of(words[3]);
    out[2] = (float)double_of(words[5]);
    out[3] = (float)double_of(words[7]);
    return true;
}

static bool copy_floats(const uint64_t *words, float *out, size_t count) {
    size_t i = 0;
    while (i < count) {
        if (count - i >= 4 && four_doubles(words + 2 * i, out + i))
            i += 4;
        else if (number_as_float(words + 2 * i, out + i))
            i++;
        else
            return false;
    }
    return true;
}

/* In a loop of its own, which the compiler vectorises. */
static bool all_finite(const float *f, size_t count) {
    const uint32_t infinity = 0x7f800000;
    uint32_t broken = 0;
    for (size_t i = 0; i < count; i++)
        broken |= (load_u32(&f[i]) & infinity) == infinity;
    return !broken;
}

int json_get_floats(struct json_value v, float *out, size_t max, size_t *ret_count) {
    if (tag_at(v) != '[')
        return JSON_FLOATS_E_TYPE;
    size_t count = json_size(v);
    if (count > max) {
        *ret_count = count;
        return JSON_FLOATS_E_LENGTH;
    }
    if (is_lifted(v)) {
        memcpy(out, tape_of(v.doc)->floats.data, count * sizeof *out);
        *ret_count = count;
        return 0;
    }
    if (!copy_floats(tape_of(v.doc)->words + v.at + 1, out, count))
        return JSON_FLOATS_E_TYPE;
    if (!all_finite(out, count))
        return JSON_FLOATS_E_RANGE;
    *ret_count = count;
    return 0;
}
