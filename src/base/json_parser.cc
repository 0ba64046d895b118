/* SPDX-License-Identifier: Apache-2.0 */
/*
 * simdjson behind json.h, and shortest number texts by the C++ library: the one C++ file. No
 * exception leaves it (simdjson is used by its error codes, memory by new(nothrow)). What it parsed
 * is read by json.c straight from the tape (json_tape.h).
 */
#include <charconv>
#include <cmath>
#include <cstring>
#include <new>

#include <simdjson.h>

extern "C" {
#include "base/error.h"
#include "base/json.h"
#include "base/json_tape.h"
}

#include <cerrno>

static_assert(JSON_PADDING >= simdjson::SIMDJSON_PADDING, "simdjson reads past our padding");

/* simdjson wants about 14 bytes of memory for a byte of text. What a longer text took is given back
 * at the next short one. */
static constexpr size_t KEPT_CAPACITY_BYTES = 1 << 20;
static constexpr size_t FIRST_CAPACITY_BYTES = 1 << 12;

struct json_parser {
    simdjson::dom::parser dom{};
    json_tape tape{};
    size_t max_bytes = 0;
};

extern "C" int json_parser_new(size_t max_bytes, json_parser **ret_parser) {
    json_parser *p = new (std::nothrow) json_parser;
    if (!p)
        return error_origin(-ENOMEM);
    p->max_bytes = max_bytes;
    *ret_parser = p;
    return 0;
}

extern "C" json_parser *json_parser_free(json_parser *p) {
    if (p) {
        buffer_deinit(&p->tape.floats);
        buffer_deinit(&p->tape.rest);
    }
    delete p;
    return nullptr;
}

static size_t capacity_for(size_t size) {
    size_t capacity = FIRST_CAPACITY_BYTES;
    while (capacity < size)
        capacity *= 2;
    return capacity;
}

/* Doubling, because simdjson itself would grow to each new longest text by a few bytes. */
static simdjson::error_code make_room(json_parser *p, size_t size) {
    size_t capacity = p->dom.capacity();
    bool too_small = capacity < size || p->dom.doc.capacity() < size;
    bool too_large = capacity > KEPT_CAPACITY_BYTES && size <= KEPT_CAPACITY_BYTES / 2;
    if (!too_small && !too_large)
        return simdjson::SUCCESS;
    capacity = capacity_for(size);
    simdjson::error_code error = p->dom.doc.allocate(capacity);
    /* simdjson refuses a depth that reaches its bound, ours is still allowed. */
    return error ? error : p->dom.allocate(capacity, JSON_DEPTH_MAX + 1);
}

static bool is_digit(uint8_t c) {
    return c >= '0' && c <= '9';
}

static const uint8_t *skip_digits(const uint8_t *p, const uint8_t *end) {
    while (p < end && is_digit(*p))
        p++;
    return p;
}

static bool ends_value(uint8_t c) {
    return c == '\0' || std::strchr(" \t\r\n,:[]{}\"", c) != nullptr;
}

/* Moves *at over the number that starts there; false when JSON's grammar does not know it. */
static bool skip_number(const uint8_t **at, const uint8_t *end) {
    const uint8_t *p = *at + (**at == '-');
    const uint8_t *digits = p;
    p = skip_digits(p, end);
    if (p == digits || (*digits == '0' && p - digits > 1))
        return false;
    if (p < end && *p == '.') {
        digits = ++p;
        p = skip_digits(p, end);
        if (p == digits)
            return false;
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        p += p < end && (*p == '+' || *p == '-');
        digits = p;
        p = skip_digits(p, end);
        if (p == digits)
            return false;
    }
    *at = p;
    return p == end || ends_value(*p);
}

static const uint8_t *skip_string(const uint8_t *p, const uint8_t *end) {
    for (p++; p < end && *p != '"'; p++)
        p += *p == '\\';
    return p < end ? p + 1 : end;
}

/* simdjson has one error for 01 and 1e999. Looks through a text that has it, on that path only:
 * a text without a malformed number has one that is out of range. */
static int classify_number_error(bytes text) {
    const uint8_t *p = text.data, *end = text.data + text.size;
    while (p < end) {
        if (*p == '"')
            p = skip_string(p, end);
        else if (*p != '-' && !is_digit(*p))
            p++;
        else if (!skip_number(&p, end))
            return JSON_E_WORD;
    }
    return JSON_E_NUMBER;
}

static int condition_of(simdjson::error_code error, bytes text) {
    switch (error) {
    case simdjson::SUCCESS:
        return 0;
    case simdjson::MEMALLOC:
        return error_origin(-ENOMEM);
    case simdjson::CAPACITY:
        return JSON_E_TOO_LARGE;
    case simdjson::DEPTH_ERROR:
        return JSON_E_DEPTH;
    case simdjson::UTF8_ERROR:
        return JSON_E_UTF8;
    case simdjson::NUMBER_ERROR:
        return classify_number_error(text);
    case simdjson::EMPTY:
        return JSON_E_EMPTY;
    case simdjson::UNCLOSED_STRING:
        return JSON_E_QUOTE;
    case simdjson::STRING_ERROR:
    case simdjson::UNESCAPED_CHARS:
        return JSON_E_STRING;
    case simdjson::T_ATOM_ERROR:
    case simdjson::F_ATOM_ERROR:
    case simdjson::N_ATOM_ERROR:
        return JSON_E_WORD;
    default:
        return JSON_E_SYNTAX;
    }
}

extern "C" int json_parse(json_parser *p, bytes text, json_value *ret_root) {
    if (text.size > p->max_bytes)
        return JSON_E_TOO_LARGE;
    if (text.size == 0)
        return JSON_E_EMPTY;
    simdjson::error_code error = make_room(p, text.size);
    if (!error)
        error = p->dom.parse(text.data, text.size, false).error();
    if (error)
        return condition_of(error, text);
    p->tape.words = p->dom.doc.tape.get();
    p->tape.strings = p->dom.doc.string_buf.get();
    p->tape.lifted_at = 0;
    ret_root->doc = &p->tape;
    ret_root->at = JSON_TAPE_ROOT;
    return 0;
}

extern "C" bool json_parse_lifted(json_parser *p, bytes text, const char *key,
                                  json_value *ret_root) {
    json_value root;
    if (text.size > p->max_bytes || !json_lift(&p->tape, text, key) ||
        json_parse(p, buffer_bytes(&p->tape.rest), &root) != 0 || !json_lift_mark(&p->tape, key))
        return false;
    *ret_root = root;
    return true;
}

extern "C" int json_parse_vector(json_parser *p, bytes text, const char *key,
                                 json_value *ret_root) {
    return json_parse_lifted(p, text, key, ret_root) ? 0 : json_parse(p, text, ret_root);
}

/* The library picks 1e+05 for 100000 because it is shorter; people expect an exponent only where
 * the digits would not be exact or the zeros many. */
template <typename T> static size_t number_text(T v, char *out) {
    T size = std::fabs(v);
    bool plain = size == 0 || (size >= T(1e-5) && size < T(1e16));
    auto format = plain ? std::chars_format::fixed : std::chars_format::scientific;
    char *end = std::to_chars(out, out + JSON_NUMBER_TEXT_MAX - 2, v, format).ptr;
    if (plain && !std::memchr(out, '.', size_t(end - out))) {
        *end++ = '.';
        *end++ = '0';
    }
    return size_t(end - out);
}

extern "C" size_t json_double_text(double v, char *out) {
    return number_text(v, out);
}

extern "C" size_t json_float_text(float v, char *out) {
    return number_text(v, out);
}
