/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The punctuation between the pieces. Arrays, objects and streams of one array share one machine
 * (next_state), in which c is the next byte that is not white space:
 *
 *   START  --[-->  FIRST  --any but ]-->  PIECE  --(its end)-->  BEHIND  --,-->  OTHER
 *                    |                      ^                      |               |
 *                    ']'                    +----------any---------|---------------+
 *                    +-----> CLOSED <-------------------']'--------+
 *
 * What no arrow allows leads to BROKEN, which is never left. A PIECE that starts with punctuation
 * is refused by json_scan_value.
 *
 * A stream keeps what is not yet handed out in one buffer: at most a chunk and a piece.
 */
#include "base/json_split.h"

#include "base/error.h"
#include "base/json.h"
#include "base/json_scan.h"

#include <assert.h>
#include <errno.h>

enum { START, FIRST, PIECE, BEHIND, OTHER, CLOSED, BROKEN };

static int next_state(int state, uint8_t c, uint8_t opening, uint8_t closing) {
    switch (state) {
    case START:
        return c == opening ? FIRST : BROKEN;
    case FIRST:
        return c == closing ? CLOSED : PIECE;
    case OTHER:
        return PIECE;
    case BEHIND:
        return c == ',' ? OTHER : c == closing ? CLOSED : BROKEN;
    default:
        return BROKEN;
    }
}

/* Steps over white space and punctuation to the start of the next piece. JSON_SPLIT_E_END: the
 * text ends behind the closing bracket. JSON_SPLIT_E_MORE, JSON_SPLIT_E_SYNTAX. */
static int find_piece(int *state, bool object, struct bytes text, size_t *at) {
    while (*state != PIECE) {
        if (*state == BROKEN)
            return JSON_SPLIT_E_SYNTAX;
        *at = json_skip_space(text, *at);
        if (*at == text.size)
            return *state == CLOSED ? JSON_SPLIT_E_END : JSON_SPLIT_E_MORE;
        assert(text.data);
        *state = next_state(*state, text.data[*at], object ? '{' : '[', object ? '}' : ']');
        if (*state != PIECE)
            ++*at;
    }
    return 0;
}

static struct bytes bytes_behind(struct bytes b, size_t size) {
    return bytes_of(b.data + size, b.size - size);
}

int json_members_init(struct json_members *m, struct bytes text) {
    size_t at = json_skip_space(text, 0);
    if (at == text.size || (text.data[at] != '{' && text.data[at] != '['))
        return JSON_SPLIT_E_SYNTAX;
    *m = (struct json_members){
        .rest = bytes_of(text.data + at, text.size - at),
        .object = text.data[at] == '{',
        .state = START,
    };
    return 0;
}

/* One value at text[*at]; *ret is a view of it. */
static int take_value(struct bytes text, size_t *at, struct bytes *ret) {
    struct bytes rest = bytes_behind(text, *at);
    size_t size = 0;
    int r = json_value_extent(rest, false, &size);
    if (r)
        return r;
    *ret = bytes_of(rest.data, size);
    *at += size;
    return 0;
}

/* "key": and the white space around the colon. */
static int take_key(struct bytes text, size_t *at, struct bytes *ret) {
    if (text.data[*at] != '"')
        return JSON_SPLIT_E_SYNTAX;
    struct bytes quoted;
    int r = take_value(text, at, &quoted);
    if (r)
        return r;
    *at = json_skip_space(text, *at);
    if (*at == text.size)
        return JSON_SPLIT_E_MORE;
    if (text.data[*at] != ':')
        return JSON_SPLIT_E_SYNTAX;
    *at = json_skip_space(text, *at + 1);
    *ret = bytes_of(quoted.data + 1, quoted.size - 2);
    return 0;
}

int json_members_next(struct json_members *m, struct bytes *ret_key, struct bytes *ret_value) {
    struct bytes key = {0}, value;
    size_t at = 0;
    int r = find_piece(&m->state, m->object, m->rest, &at);
    m->rest = bytes_behind(m->rest, at);
    if (r)
        return r;
    at = 0;
    if (m->object)
        r = take_key(m->rest, &at, &key);
    if (!r)
        r = take_value(m->rest, &at, &value);
    if (r == JSON_SPLIT_E_SYNTAX)
        m->state = BROKEN;
    if (r)
        return r;
    m->rest = bytes_behind(m->rest, at);
    m->state = BEHIND;
    if (ret_key)
        *ret_key = key;
    *ret_value = value;
    return 0;
}

void json_stream_init(struct json_stream *s, enum json_stream_form form, size_t piece_max_bytes) {
    *s = (struct json_stream){.form = form, .piece_max_bytes = piece_max_bytes, .state = START};
}

void json_stream_deinit(struct json_stream *s) {
    if (s)
        buffer_deinit(&s->pending);
}

static struct bytes unread(const struct json_stream *s) {
    if (!s->pending.data)
        return (struct bytes){0};
    return bytes_of(s->pending.data + s->at, s->pending.size - s->at);
}

/* Moves what is unread to the front; that is less than a piece where the caller took them all. */
static void compact(struct json_stream *s) {
    if (s->at == 0)
        return;
    struct bytes rest = unread(s);
    memmove(s->pending.data, rest.data, rest.size);
    s->pending.size = rest.size;
    s->at = 0;
}

int json_stream_feed(struct json_stream *s, struct bytes chunk) {
    if (chunk.size > SIZE_MAX - JSON_PADDING)
        return error_origin(-ENOMEM);
    compact(s);
    uint8_t *to = buffer_reserve(&s->pending, chunk.size + JSON_PADDING);
    if (!to)
        return error_origin(-ENOMEM);
    if (chunk.size)
        memcpy(to, chunk.data, chunk.size);
    memset(to + chunk.size, 0, JSON_PADDING);
    s->pending.size += chunk.size;
    return 0;
}

void json_stream_finish(struct json_stream *s) {
    s->ended = true;
}

/* Forgets the bytes looked at in vain; the piece they belong to is dropped to its end. */
static void drop_scanned(struct json_stream *s) {
    s->dropping = true;
    s->at += s->scanned;
    s->scanned = 0;
}

/* The piece goes on behind the text. The first time it is seen to be too large, says so. */
static int piece_goes_on(struct json_stream *s) {
    bool dropping = s->dropping;
    if (!dropping && s->scanned <= s->piece_max_bytes)
        return JSON_SPLIT_E_MORE;
    drop_scanned(s);
    if (dropping)
        return JSON_SPLIT_E_MORE;
    s->pieces++;
    return JSON_SPLIT_E_TOO_LARGE;
}

/* The piece ends with the first size unread bytes. *ret_cut says whether it is to be handed out. */
static int piece_ends(struct json_stream *s, size_t size, bool *ret_cut, struct bytes *ret_piece) {
    struct bytes piece = bytes_of(unread(s).data, size);
    bool dropped = s->dropping;
    s->at += size;
    s->scanned = 0;
    s->dropping = false;
    s->pieces += !dropped; /* a dropped one was counted when it was found to be too large */
    if (!dropped && size > s->piece_max_bytes)
        return JSON_SPLIT_E_TOO_LARGE;
    *ret_cut = !dropped;
    *ret_piece = piece;
    return 0;
}

/* One step of a stream of elements: 0 with *ret_cut unset where a dropped one ended. */
static int cut_element(struct json_stream *s, bool *ret_cut, struct bytes *ret_piece) {
    size_t at = 0;
    if (s->state != PIECE) {
        int r = find_piece(&s->state, false, unread(s), &at);
        s->at += at;
        if (r)
            return r == JSON_SPLIT_E_END && !s->ended ? JSON_SPLIT_E_MORE : r;
    }
    int r = json_scan_value(&s->scan, unread(s), &s->scanned);
    if (r == JSON_SPLIT_E_MORE)
        return piece_goes_on(s);
    s->scan = (struct json_scan){0};
    s->state = r ? BROKEN : BEHIND;
    return r ? r : piece_ends(s, s->scanned, ret_cut, ret_piece);
}

static bool is_blank(struct bytes line) {
    return json_skip_space(line, 0) == line.size;
}

/* One step of a stream of lines: 0 with *ret_cut unset where a dropped or a blank one ended. */
static int cut_line(struct json_stream *s, bool *ret_cut, struct bytes *ret_piece) {
    struct bytes rest = unread(s), line;
    if (rest.size == 0)
        return s->ended ? JSON_SPLIT_E_END : JSON_SPLIT_E_MORE;
    const uint8_t *newline = memchr(rest.data + s->scanned, '\n', rest.size - s->scanned);
    if (!newline && !s->ended) {
        s->scanned = rest.size;
        return piece_goes_on(s);
    }
    size_t size = newline ? (size_t)(newline - rest.data) : rest.size;
    bool cut = false;
    int r = piece_ends(s, size, &cut, &line);
    s->at += newline != NULL;
    if (r)
        return r;
    *ret_cut = cut && !is_blank(line);
    line.size -= line.size > 0 && line.data[line.size - 1] == '\r';
    *ret_piece = line;
    return 0;
}

int json_stream_next(struct json_stream *s, struct bytes *ret_piece) {
    struct bytes piece;
    bool cut = false;
    while (!cut) {
        int r =
            s->form == JSON_STREAM_ARRAY ? cut_element(s, &cut, &piece) : cut_line(s, &cut, &piece);
        if (r)
            return r;
    }
    *ret_piece = piece;
    return 0;
}
