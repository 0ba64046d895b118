/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a source: see source.h.
 */
#include "tasks/handlers/source.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAGIC_BYTES = 4 };

static int PRINTF_LIKE(3, 4) say(struct source *s, int condition, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(s->sentence, sizeof s->sentence, format, arguments);
    va_end(arguments);
    return condition;
}

static int say_transfer(struct source *s, int r) {
    return r > TRANSFER_E_END ? say(s, r, "%s", transfers_sentence(s->transfers)) : error_trace(r);
}

/* ---- Opening ---- */

static int open_file(struct source *s, const char *directory) {
    const char *path = s->path;
    int r = beneath_open(directory, path, &s->file);
    switch (r) {
    case 0:
        s->version = s->file.version;
        s->total_bytes = s->file.size;
        return 0;
    case OS_E_NOT_FOUND:
        return say(s, TRANSFER_E_REFUSED, "there is no file %s below --import-dir", path);
    case OS_E_DENIED:
        return say(s, TRANSFER_E_REFUSED, "this user may not read the file %s", path);
    case BENEATH_E_OUTSIDE:
        return say(s, TRANSFER_E_REFUSED, "%s leads out of --import-dir", path);
    case BENEATH_E_NO_FILE:
        return say(s, TRANSFER_E_REFUSED, "%s is no regular file", path);
    default:
        return say(s, TRANSFER_E_FAILED, "the file %s cannot be opened: %s", path,
                   r < 0 ? strerror(-r) : "it failed");
    }
}

static int open_url(struct source *s, const struct source_options *options) {
    const struct download_options download = {
        .url = options->url, .hosts = options->hosts, .stall_ms = options->stall_ms};
    int r = download_open(s->transfers, &download, &s->download);
    if (r)
        return say_transfer(s, r);
    s->version = download_version(s->download);
    s->total_bytes = download_length(s->download);
    return 0;
}

int source_open(struct source *s, struct transfers *transfers,
                const struct source_options *options) {
    *s = (struct source){.path = options->path,
                         .transfers = transfers,
                         .max_bytes = options->max_bytes,
                         .file.fd = -1};
    s->piece = malloc(SOURCE_PIECE_BYTES);
    s->decoded = malloc(SOURCE_PIECE_BYTES);
    int r = s->piece && s->decoded ? 0 : error_origin(-ENOMEM);
    if (r == 0)
        r = options->path ? open_file(s, options->directory) : open_url(s, options);
    if (r)
        source_deinit(s);
    return error_trace(r);
}

void source_deinit(struct source *s) {
    download_close(s->download);
    if (s->file.fd >= 0)
        beneath_close(&s->file);
    decoder_free(s->decoder);
    buffer_deinit(&s->head);
    free(s->piece);
    free(s->decoded);
    s->download = NULL;
    s->file.fd = -1;
    s->decoder = NULL;
    s->piece = s->decoded = NULL;
}

/* ---- As it lies there ---- */

/* Up to the size that it had when it was opened. */
static int read_file(struct source *s, struct bytes *ret_piece) {
    uint64_t left = s->total_bytes - s->read_bytes;
    size_t n = 0;
    if (left == 0)
        return TRANSFER_E_END;
    int r = beneath_read(&s->file, s->piece, left < SOURCE_PIECE_BYTES ? left : SOURCE_PIECE_BYTES,
                         s->read_bytes, &n);
    if (r)
        return say(s, TRANSFER_E_FAILED, "the file %s cannot be read: %s", s->path,
                   r < 0 ? strerror(-r) : "it failed");
    if (n == 0)
        return say(s, TRANSFER_E_REFUSED, "the file %s became shorter while it was read", s->path);
    *ret_piece = bytes_of(s->piece, n);
    return 0;
}

static int read_raw(struct source *s, struct bytes *ret_piece) {
    int r = s->download ? say_transfer(s, download_read(s->download, ret_piece))
                        : read_file(s, ret_piece);
    if (r == 0)
        s->read_bytes += ret_piece->size;
    return error_trace(r);
}

/* ---- Decompressing ---- */

static int sniff(struct source *s) {
    static const struct {
        uint8_t magic[MAGIC_BYTES];
        size_t size;
        enum decode_encoding encoding;
    } rows[] = {
        {{0x1f, 0x8b}, 2, DECODE_GZIP},
        {{0x28, 0xb5, 0x2f, 0xfd}, 4, DECODE_ZSTD},
    };
    s->sniffed = true;
    s->raw = buffer_bytes(&s->head);
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++)
        if (s->raw.size >= rows[i].size && memcmp(s->raw.data, rows[i].magic, rows[i].size) == 0)
            return error_trace(decoder_new(rows[i].encoding, &s->decoder));
    return 0;
}

/* Reads on; notes the end. */
static int refill(struct source *s) {
    struct bytes piece = {0};
    int r = read_raw(s, &piece);
    s->ended = r == TRANSFER_E_END;
    if (r && !s->ended)
        return error_trace(r);
    if (s->sniffed) {
        s->raw = s->ended ? (struct bytes){0} : piece;
        return 0;
    }
    if (!s->ended)
        buffer_append_bytes(&s->head, piece);
    r = buffer_check(&s->head);
    return r || (s->head.size < MAGIC_BYTES && !s->ended) ? error_trace(r) : sniff(s);
}

static int decompress(struct source *s, struct bytes *ret_piece) {
    size_t n = 0;
    int r = decoder_run(s->decoder, &s->raw, s->decoded, SOURCE_PIECE_BYTES, &n);
    if (r == DECODE_E_CORRUPT)
        return say(s, TRANSFER_E_REFUSED, "what is compressed in the source is damaged");
    *ret_piece = bytes_of(s->decoded, n);
    return error_trace(r);
}

/* What can be given without reading on; may be nothing. */
static int give(struct source *s, struct bytes *ret_piece) {
    if (s->decoder && (s->raw.size || decoder_full(s->decoder)))
        return decompress(s, ret_piece);
    *ret_piece = s->decoder ? (struct bytes){0} : s->raw;
    s->raw = (struct bytes){0};
    return 0;
}

static int end(struct source *s) {
    if (s->decoder && !decoder_complete(s->decoder))
        return say(s, TRANSFER_E_REFUSED, "what is compressed in the source ends too early");
    return TRANSFER_E_END;
}

int source_read(struct source *s, struct bytes *ret_piece) {
    struct bytes piece = {0};
    int r = give(s, &piece);
    while (r == 0 && piece.size == 0) {
        if (s->ended)
            return end(s);
        r = refill(s);
        if (r == 0 && s->sniffed)
            r = give(s, &piece);
    }
    if (r)
        return error_trace(r);
    s->given_bytes += piece.size;
    if (s->given_bytes > s->max_bytes)
        return say(s, TRANSFER_E_REFUSED,
                   "the source is longer than the %" PRIu64 " bytes of --import-max-size",
                   s->max_bytes);
    *ret_piece = piece;
    return 0;
}
