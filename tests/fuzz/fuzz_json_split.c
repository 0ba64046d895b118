/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The splitter against the parser: an array is JSON exactly when the splitter cuts it to its end
 * and every piece is JSON; and the chunks it comes in do not matter. The input's first byte chooses
 * the form and the size of the chunks.
 */
#include "fuzz.h"

#include "base/hash.h"
#include "base/json.h"
#include "base/json_split.h"

enum { PIECE_MAX = 200, MAX_BYTES = 1 << 20 };

/* What a run over a text came to. */
struct outcome {
    int end;       /* the condition that ended it */
    uint64_t hash; /* of the pieces and conditions on the way */
    uint64_t pieces;
    bool valid;    /* every piece parsed */
    bool too_deep; /* some piece did not for its depth */
    bool too_large;
};

static void note_piece(struct json_parser *p, struct bytes piece, struct outcome *o) {
    struct json_value v;
    int r = json_parse(p, piece, &v);
    o->hash = hash64_u64(o->hash ^ hash64(piece.data, piece.size));
    o->valid &= r == 0;
    o->too_deep |= r == JSON_E_DEPTH;
}

static struct outcome run(struct json_parser *p, enum json_stream_form form, struct bytes text,
                          size_t chunk) {
    CLEANUP(json_stream_deinit) struct json_stream s;
    struct outcome o = {.valid = true};
    json_stream_init(&s, form, PIECE_MAX);
    for (size_t fed = 0; !o.end;) {
        struct bytes piece;
        int r = json_stream_next(&s, &piece);
        if (r == 0) {
            note_piece(p, piece, &o);
        } else if (r == JSON_SPLIT_E_TOO_LARGE) {
            o.too_large = true;
            o.hash = hash64_u64(o.hash + s.pieces);
        } else if (r == JSON_SPLIT_E_MORE && !s.ended) {
            size_t size = text.size - fed < chunk ? text.size - fed : chunk;
            FUZZ_CHECK(json_stream_feed(&s, bytes_of(text.data + fed, size)) == 0);
            fed += size;
            if (size == 0)
                json_stream_finish(&s);
            FUZZ_CHECK(s.pending.size <= PIECE_MAX + 1 + chunk);
        } else {
            o.end = r;
        }
    }
    o.pieces = s.pieces;
    return o;
}

static void check_members(struct bytes text) {
    struct json_members m;
    struct bytes key, value;
    int r = json_members_init(&m, text);
    while (!r) {
        r = json_members_next(&m, &key, &value);
        if (!r)
            FUZZ_CHECK(value.size > 0 && value.data + value.size <= text.data + text.size);
    }
}

/* Whether whole, an array, is JSON is what the pieces said. */
static void check_against_parser(struct json_parser *p, struct bytes whole, struct outcome o) {
    struct json_value v;
    int r = json_parse(p, whole, &v);
    if (r == JSON_E_DEPTH || o.too_deep || o.too_large || r == JSON_E_TOO_LARGE)
        return;
    bool array = r == 0 && json_type_of(v) == JSON_ARRAY;
    FUZZ_CHECK(array == (o.end == JSON_SPLIT_E_END && o.valid));
    if (array)
        FUZZ_CHECK(json_size(v) == o.pieces);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct json_parser *p;
    if (size == 0 || size > MAX_BYTES || json_parser_new(MAX_BYTES, &p))
        return 0;
    CLEANUP(buffer_deinit) struct buffer text = BUFFER_INIT;
    buffer_append(&text, data + 1, size - 1);
    FUZZ_CHECK(buffer_reserve(&text, JSON_PADDING));
    enum json_stream_form form = data[0] & 1 ? JSON_STREAM_LINES : JSON_STREAM_ARRAY;
    struct outcome whole = run(p, form, buffer_bytes(&text), size);
    struct outcome cut = run(p, form, buffer_bytes(&text), 1 + data[0] / 2);
    FUZZ_CHECK(whole.end == cut.end && whole.hash == cut.hash && whole.pieces == cut.pieces);
    if (form == JSON_STREAM_ARRAY)
        check_against_parser(p, buffer_bytes(&text), whole);
    check_members(buffer_bytes(&text));
    json_parser_free(p);
    return 0;
}
