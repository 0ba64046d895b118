/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cuts long JSON into the pieces that json.h parses, without building anything: the elements of an
 * array, the members of an object, the lines of NDJSON. It works in bounded memory on text that
 * arrives in chunks, and is vectorised (64 bytes at a time). It checks the punctuation between the
 * pieces; what is inside a piece is left to json_parse, the kinds of its brackets too. One
 * splitter belongs to one thread.
 */
#ifndef MILLRACE_BASE_JSON_SPLIT_H
#define MILLRACE_BASE_JSON_SPLIT_H

#include "base/bytes.h"

enum {
    _JSON_SPLIT_E_SUCCESS,
    JSON_SPLIT_E_MORE,      /* the text ends inside a piece: feed more, or it is truncated */
    JSON_SPLIT_E_END,       /* no further piece */
    JSON_SPLIT_E_SYNTAX,    /* punctuation that JSON does not allow at this place */
    JSON_SPLIT_E_TOO_LARGE, /* one piece is longer than the caller's bound */
};

/* Finds the end of the JSON value that starts at text (no white space before it).
 * Sets ret_size on success. A bare scalar ends at , : ] } or white space; at the end of the text it
 * is complete only if last is set. JSON_SPLIT_E_MORE, JSON_SPLIT_E_SYNTAX. */
int json_value_extent(struct bytes text, bool last, size_t *ret_size) MUST_USE;

/* Walks an array or an object that is in memory as a whole. */
struct json_members {
    struct bytes rest;
    bool object;
    int state;
};
/* text must hold exactly one array or object, with white space around it; JSON_SPLIT_E_SYNTAX when
 * it does not start as one. Bytes behind its end are found by the last json_members_next. */
int json_members_init(struct json_members *m, struct bytes text) MUST_USE;
/* The next element or member; key is the raw text between the quotes (escapes are not undone),
 * empty for arrays. JSON_SPLIT_E_END once the closing bracket was read and nothing but white space
 * follows; JSON_SPLIT_E_SYNTAX; JSON_SPLIT_E_MORE when the text is truncated. Each of them is also
 * what every later call says. */
int json_members_next(struct json_members *m, struct bytes *ret_key,
                      struct bytes *ret_value) MUST_USE;

/* How far the look for the end of one value has come; all zero before its first byte. */
struct json_scan {
    int kind;       /* what its first byte made it: nested, string, scalar */
    size_t depth;   /* open brackets */
    bool in_string; /* inside quotes */
    bool escaped;   /* the next byte stands behind a backslash */
};

/* Cuts a stream of bytes: one JSON array, or NDJSON. */
enum json_stream_form { JSON_STREAM_ARRAY, JSON_STREAM_LINES };
struct json_stream {
    enum json_stream_form form;
    struct buffer pending; /* what is not yet a whole piece */
    size_t at;             /* start of the unread part of pending */
    size_t scanned;        /* how much of it was looked at in vain */
    size_t piece_max_bytes;
    uint64_t pieces; /* cut so far, dropped ones and blank lines too: the number of the last one, of
                        an element or a line, from 1 */
    struct json_scan scan;
    int state;
    bool dropping; /* inside a piece that was too large */
    bool ended;
};
void json_stream_init(struct json_stream *s, enum json_stream_form form, size_t piece_max_bytes);
void json_stream_deinit(struct json_stream *s);
/* Adds a chunk (copied). -ENOMEM. */
int json_stream_feed(struct json_stream *s, struct bytes chunk) MUST_USE;
/* Says that no more comes. */
void json_stream_finish(struct json_stream *s);
/* The next whole piece, valid until the next call on s, with JSON_PADDING readable bytes behind it.
 * A line comes without its newline and \r; blank lines are skipped.
 * JSON_SPLIT_E_MORE: feed, or, after json_stream_finish, the array is truncated; JSON_SPLIT_E_END;
 * JSON_SPLIT_E_SYNTAX: the array is broken from here on, nothing further is handed out;
 * JSON_SPLIT_E_TOO_LARGE: this piece is dropped, the next call goes on behind it. */
int json_stream_next(struct json_stream *s, struct bytes *ret_piece) MUST_USE;

#endif
