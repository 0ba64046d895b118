/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cutting a source into chunks: see cutter.h.
 *
 * The form is told by the first byte that is not white space. A row is put behind a gap of
 * NPY_HEADER_BYTES, into which the header goes once it is known how many there are.
 */
#include "tasks/handlers/cutter.h"

#include "base/error.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

enum {
    NPY_HEADER_BYTES = 128, /* all of it, a multiple of 64 as NumPy writes it */
    NPY_PREFIX_BYTES = 10,
    NPY_FIRST_BYTE = 0x93,
};

void cutter_init(struct cutter *c, size_t record_max_bytes, uint64_t skip) {
    *c = (struct cutter){
        .record_max_bytes = record_max_bytes, .skip = skip, .seen = skip, .npy = NPY_INIT};
}

void cutter_deinit(struct cutter *c) {
    if (c->form == CUTTER_LINES || c->form == CUTTER_ARRAY)
        json_stream_deinit(&c->stream);
    npy_deinit(&c->npy);
    buffer_deinit(&c->chunk);
}

/* Takes the white space off the piece, whose lines are counted. */
static void sniff(struct cutter *c, struct bytes *piece) {
    while (piece->size && piece->data[0] && strchr(" \t\r\n", piece->data[0])) {
        c->lines_before += piece->data[0] == '\n';
        *piece = bytes_of(piece->data + 1, piece->size - 1);
    }
    if (piece->size == 0)
        return;
    uint8_t first = piece->data[0];
    c->form = first == NPY_FIRST_BYTE ? CUTTER_ROWS : first == '[' ? CUTTER_ARRAY : CUTTER_LINES;
    if (c->form != CUTTER_ROWS)
        json_stream_init(&c->stream,
                         c->form == CUTTER_ARRAY ? JSON_STREAM_ARRAY : JSON_STREAM_LINES,
                         c->record_max_bytes);
}

/* A held record is a view into what is fed: it is asked for first. */
int cutter_feed(struct cutter *c, struct bytes piece) {
    assert(!c->held.data);
    if (c->form == CUTTER_UNKNOWN)
        sniff(c, &piece);
    if (c->form == CUTTER_UNKNOWN)
        return 0;
    return c->form == CUTTER_ROWS ? npy_feed(&c->npy, piece) : json_stream_feed(&c->stream, piece);
}

void cutter_finish(struct cutter *c) {
    if (c->form == CUTTER_LINES || c->form == CUTTER_ARRAY)
        json_stream_finish(&c->stream);
    npy_finish(&c->npy);
}

static int break_off(struct cutter *c, const char *sentence) {
    c->sentence = sentence;
    return CUTTER_E_BROKEN;
}

/* ---- Records ---- */

/* As cutter_next, but for END. */
static int next_piece(struct cutter *c, struct bytes *ret_record, uint64_t *ret_number) {
    int r = json_stream_next(&c->stream, ret_record);
    *ret_number = c->stream.pieces + (c->form == CUTTER_LINES ? c->lines_before : 0);
    switch (r) {
    case JSON_SPLIT_E_MORE:
        return c->stream.ended ? break_off(c, "the JSON array ends too early") : CUTTER_E_MORE;
    case JSON_SPLIT_E_END:
        return CUTTER_E_END;
    case JSON_SPLIT_E_SYNTAX:
        return break_off(c, "from there on it is no JSON array");
    case JSON_SPLIT_E_TOO_LARGE:
        return CUTTER_E_TOO_LARGE;
    default:
        return error_trace(r);
    }
}

static int next_row(struct cutter *c, struct bytes *ret_record, uint64_t *ret_number) {
    int r = npy_header(&c->npy);
    if (r == 0 && c->npy.dimension * sizeof(float) > c->record_max_bytes)
        return break_off(c, "the array's rows are too long");
    if (r == 0)
        r = npy_next(&c->npy, ret_record);
    *ret_number = c->npy.row;
    if (r == NPY_E_BROKEN)
        return break_off(c, c->npy.sentence);
    return r == NPY_E_MORE ? CUTTER_E_MORE : r == NPY_E_END ? CUTTER_E_END : error_trace(r);
}

static int next_record(struct cutter *c, struct bytes *ret_record, uint64_t *ret_number) {
    if (c->held.data) {
        *ret_record = c->held;
        *ret_number = c->held_number;
        c->held = (struct bytes){0};
        return 0;
    }
    return c->form == CUTTER_ROWS ? next_row(c, ret_record, ret_number)
                                  : next_piece(c, ret_record, ret_number);
}

/* ---- The chunk ---- */

static size_t bytes_it_takes(const struct cutter *c, struct bytes record, uint64_t number) {
    return c->form == CUTTER_ROWS ? record.size : record.size + 1 + (number - c->next);
}

static bool fits(const struct cutter *c, struct bytes record, uint64_t number) {
    return c->n == 0 || c->chunk.size + bytes_it_takes(c, record, number) <= CUTTER_CHUNK_BYTES;
}

/* A line break inside an element is white space, or, in a string, as wrong as a tab is. */
static void append_element(struct buffer *out, struct bytes element) {
    size_t from = out->size;
    buffer_append_bytes(out, element);
    for (size_t i = from; !out->failed && i < out->size; i++)
        if (out->data[i] == '\n' || out->data[i] == '\r')
            out->data[i] = '\t';
}

static void take(struct cutter *c, struct bytes record, uint64_t number) {
    if (c->n == 0) {
        c->first = c->next = number;
        if (c->form == CUTTER_ROWS && buffer_reserve(&c->chunk, NPY_HEADER_BYTES))
            c->chunk.size = NPY_HEADER_BYTES;
    }
    for (; c->next < number; c->next++)
        buffer_append_u8(&c->chunk, '\n');
    if (c->form == CUTTER_ARRAY)
        append_element(&c->chunk, record);
    else
        buffer_append_bytes(&c->chunk, record);
    if (c->form != CUTTER_ROWS)
        buffer_append_u8(&c->chunk, '\n');
    c->next = number + 1;
    c->seen = number;
    c->n++;
}

int cutter_next(struct cutter *c) {
    struct bytes record;
    uint64_t number = 0;
    int r = 0;
    if (c->form == CUTTER_UNKNOWN)
        return c->npy.finished ? CUTTER_E_END : CUTTER_E_MORE;
    while ((r = next_record(c, &record, &number)) == 0 || r == CUTTER_E_TOO_LARGE) {
        if (number <= c->skip)
            continue;
        if (r) {
            c->seen = number;
            return r;
        }
        if (!fits(c, record, number)) {
            c->held = record;
            c->held_number = number;
            return buffer_check(&c->chunk);
        }
        take(c, record, number);
    }
    int failed = buffer_check(&c->chunk);
    return failed ? error_trace(failed) : error_trace(r);
}

int cutter_body(struct cutter *c, struct bytes *ret_body) {
    uint8_t *at = c->chunk.data;
    assert(c->n > 0);
    if (c->form == CUTTER_ROWS) {
        char text[NPY_HEADER_BYTES];
        int size = snprintf(text, sizeof text,
                            "{'descr': '<f4', 'fortran_order': False, 'shape': (%" PRIu64
                            ", %" PRIu64 "), }",
                            c->n, c->npy.dimension);
        assert(size > 0 && size < NPY_HEADER_BYTES - NPY_PREFIX_BYTES);
        memcpy(at, "\x93NUMPY\x01\x00", 8);
        store_u16(at + 8, NPY_HEADER_BYTES - NPY_PREFIX_BYTES);
        memset(at + NPY_PREFIX_BYTES, ' ', NPY_HEADER_BYTES - NPY_PREFIX_BYTES);
        memcpy(at + NPY_PREFIX_BYTES, text, (size_t)size);
        at[NPY_HEADER_BYTES - 1] = '\n';
    }
    *ret_body = buffer_bytes(&c->chunk);
    return buffer_check(&c->chunk);
}

void cutter_clear(struct cutter *c) {
    buffer_clear(&c->chunk);
    c->first = c->next = c->n = 0;
}
