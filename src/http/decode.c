/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several members or frames behind one another count as one stream, as gzip(1) and zstd(1) write
 * when files are concatenated.
 */
#include "http/decode.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <strings.h>
#include <zlib.h>
#include <zstd.h>

enum {
    ZSTD_WINDOW_LOG = 23, /* 8 MiB: what RFC 8878 asks every decoder to support, and no more */
    GZIP_FORMAT = 16,     /* added to zlib's window bits */
    PIECE_MAX = 1 << 30,  /* zlib counts in unsigned int */
    ZLIB_MEMORY = 48 << 10,
};

struct decoder {
    enum decode_encoding encoding;
    z_stream zlib;
    ZSTD_DStream *zstd;
    bool full;
    bool complete;
};

bool decode_encoding_parse(const char *header, enum decode_encoding *ret_encoding) {
    static const struct {
        const char *name;
        enum decode_encoding encoding;
    } rows[] = {
        {"identity", DECODE_IDENTITY}, {"gzip", DECODE_GZIP}, {"x-gzip", DECODE_GZIP},
        {"deflate", DECODE_DEFLATE},   {"zstd", DECODE_ZSTD},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
        if (strcasecmp(header, rows[i].name) == 0) {
            *ret_encoding = rows[i].encoding;
            return true;
        }
    }
    return false;
}

static int decoder_init(struct decoder *d) {
    if (d->encoding != DECODE_ZSTD) {
        int bits = MAX_WBITS + (d->encoding == DECODE_GZIP ? GZIP_FORMAT : 0);
        return inflateInit2(&d->zlib, bits) == Z_OK ? 0 : error_origin(-ENOMEM);
    }
    d->zstd = ZSTD_createDStream();
    if (!d->zstd ||
        ZSTD_isError(ZSTD_DCtx_setParameter(d->zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG)))
        return error_origin(-ENOMEM);
    return 0;
}

int decoder_new(enum decode_encoding encoding, struct decoder **ret_decoder) {
    struct decoder *d = calloc(1, sizeof *d);
    if (!d)
        return error_origin(-ENOMEM);
    d->encoding = encoding;
    int r = decoder_init(d);
    if (r) {
        decoder_free(d);
        return error_trace(r);
    }
    *ret_decoder = d;
    return 0;
}

struct decoder *decoder_free(struct decoder *d) {
    if (!d)
        return NULL;
    if (d->encoding == DECODE_ZSTD)
        ZSTD_freeDStream(d->zstd);
    else
        inflateEnd(&d->zlib);
    free(d);
    return NULL;
}

static int run_zlib(struct decoder *d, struct bytes *in, void *out, size_t capacity,
                    size_t *ret_size) {
    z_stream *z = &d->zlib;
    size_t given = in->size < PIECE_MAX ? in->size : PIECE_MAX;
    size_t room = capacity < PIECE_MAX ? capacity : PIECE_MAX;
    /* zlib never writes to its input, it only lacks the const. */
    z->next_in = (Bytef *)(uintptr_t)in->data;
    z->avail_in = (uInt)given;
    z->next_out = out;
    z->avail_out = (uInt)room;
    int r = Z_OK;
    while (z->avail_out > 0 && r == Z_OK) {
        if (d->complete) { /* another member begins */
            if (z->avail_in == 0)
                break;
            d->complete = false;
            r = inflateReset(z);
        }
        if (r == Z_OK)
            r = inflate(z, Z_NO_FLUSH);
        if (r == Z_STREAM_END) {
            d->complete = true;
            r = Z_OK;
        }
    }
    if (r == Z_MEM_ERROR)
        return error_origin(-ENOMEM);
    if (r != Z_OK && r != Z_BUF_ERROR) /* BUF_ERROR: nothing more to do with this input */
        return DECODE_E_CORRUPT;
    in->data += given - z->avail_in;
    in->size -= given - z->avail_in;
    *ret_size = room - z->avail_out;
    d->full = z->avail_out == 0;
    return 0;
}

static int run_zstd(struct decoder *d, struct bytes *in, void *out, size_t capacity,
                    size_t *ret_size) {
    ZSTD_inBuffer source = {.src = in->data, .size = in->size};
    ZSTD_outBuffer sink = {.dst = out, .size = capacity};
    do {
        if (d->complete && source.pos == source.size)
            break;
        size_t hint = ZSTD_decompressStream(d->zstd, &sink, &source);
        if (ZSTD_isError(hint))
            return DECODE_E_CORRUPT;
        d->complete = hint == 0;
    } while (source.pos < source.size && sink.pos < sink.size);
    in->data += source.pos;
    in->size -= source.pos;
    *ret_size = sink.pos;
    d->full = sink.pos == sink.size;
    return 0;
}

int decoder_run(struct decoder *d, struct bytes *in, void *out, size_t capacity, size_t *ret_size) {
    return d->encoding == DECODE_ZSTD ? run_zstd(d, in, out, capacity, ret_size)
                                      : run_zlib(d, in, out, capacity, ret_size);
}

bool decoder_full(const struct decoder *d) {
    return d->full;
}

bool decoder_complete(const struct decoder *d) {
    return d->complete;
}

size_t decoder_memory(const struct decoder *d) {
    return d->encoding == DECODE_ZSTD ? ZSTD_sizeof_DStream(d->zstd) : ZLIB_MEMORY;
}
