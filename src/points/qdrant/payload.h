/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A payload, which a record has as JSON, as the fields of a point's message: a map of Values
 * (messages.proto). Most are written as Millrace itself writes JSON (json_append_value): without
 * white space, with short numbers and hardly an escape. Such a text is read and written in one
 * pass; whatever else it has is the parser's to read and to judge, and what both read comes out the
 * same. Whether strings are UTF-8 was looked at when the record was made.
 *
 * One thread at a time.
 */
#ifndef MILLRACE_POINTS_QDRANT_PAYLOAD_H
#define MILLRACE_POINTS_QDRANT_PAYLOAD_H

#include "base/json.h"

enum {
    _PAYLOAD_E_SUCCESS,
    PAYLOAD_E_WRONG, /* no JSON object, or nested too deep */
};

/* Levels of objects and arrays in a payload, itself the first. Readers of Protocol Buffers stop at
 * 100 messages one inside the other, and a level takes up to three. */
enum { PAYLOAD_DEPTH_MAX = 32 };

/* What reading needs, kept from one payload to the next. */
struct payload_reader {
    struct json_parser *parser; /* made when it is first needed */
    struct buffer text;         /* a payload with the padding that the parser asks for */
};
#define PAYLOAD_READER_INIT ((struct payload_reader){0})
void payload_reader_deinit(struct payload_reader *r);

/* Appends the members of payload. Empty: nothing. PAYLOAD_E_WRONG; -ENOMEM of the parser's memory,
 * that of out is out's to tell. */
int payload_append(struct payload_reader *r, struct buffer *out, struct bytes payload) MUST_USE;

/* Its two ways, for the tests. False: not written plainly, or wrong; nothing was appended. */
bool payload_append_plain(struct buffer *out, struct bytes payload);
int payload_append_parsed(struct payload_reader *r, struct buffer *out,
                          struct bytes payload) MUST_USE;

#endif
