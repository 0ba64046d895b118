/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What json_parser.cc hands to json.c, inside this room only: the parsed document as simdjson lays
 * it out, a tape of 64-bit words and a buffer of strings.
 *
 * The top byte of a word is its tag, the lower 56 bits its payload:
 *
 *   r       the root, words[0]; the document's value starts at words[1]
 *   n t f   null, true, false
 *   l u d   int64_t, uint64_t, double: the value is the next word
 *   "       payload: offset in strings of a u32 length, the bytes, and a NUL
 *   [ {     payload, low 32 bits: the index of the word behind the matching ] or };
 *           then 24 bits: the number of elements or members, stuck at 0xffffff
 *   ] }     the end. Between { and }, each member is a string word and a value.
 *
 * simdjson documents this layout (doc/tape.md) and has kept it since its first release; test_json
 * would notice a change.
 */
#ifndef MILLRACE_BASE_JSON_TAPE_H
#define MILLRACE_BASE_JSON_TAPE_H

#include "base/bytes.h"

enum { JSON_TAPE_ROOT = 1, JSON_TAPE_COUNT_MAX = 0xffffff };

struct json_tape {
    const uint64_t *words;
    const uint8_t *strings;
    size_t lifted_at; /* the word of the array whose numbers are in floats; 0: there is none */
    size_t n_floats;  /* how many they are; its words say that it is empty */
    struct buffer floats;
    struct buffer rest; /* the text without them, while it is parsed */
};
/* Of json_parse_vector (json_lift.c): the numbers of the array that is key's value in text, or, for
 * NULL, all of text, go to tape->floats, the text without them to tape->rest. False: not to be done
 * with this text. */
bool json_lift(struct json_tape *tape, struct bytes text, const char *key) MUST_USE;
/* Marks the value that tape->rest, now parsed, has for key; false when it is not the only one. */
bool json_lift_mark(struct json_tape *tape, const char *key) MUST_USE;

enum { JSON_NUMBER_TEXT_MAX = 32 };
/* The shortest decimal text of a finite number, always with a point or an exponent so that it is
 * read back as a double. Returns its length, at most JSON_NUMBER_TEXT_MAX; not NUL-terminated. */
size_t json_double_text(double v, char *out);
size_t json_float_text(float v, char *out);

#endif
