/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Content-Encoding: gzip, deflate and zstd, a piece at a time, into memory that the caller bounds:
 * a bomb costs what the caller gives it and no more. One decoder belongs to one request.
 */
#ifndef MILLRACE_HTTP_DECODE_H
#define MILLRACE_HTTP_DECODE_H

#include "base/bytes.h"
#include "base/error.h"

enum decode_encoding { DECODE_IDENTITY, DECODE_GZIP, DECODE_DEFLATE, DECODE_ZSTD };
/* The encoding that a Content-Encoding names; false for one we do not know, or a list. */
bool decode_encoding_parse(const char *header, enum decode_encoding *ret_encoding);

enum {
    _DECODE_E_SUCCESS,
    DECODE_E_CORRUPT, /* not what the encoding says, or a window larger than 8 MiB */
};

struct decoder;
int decoder_new(enum decode_encoding encoding, struct decoder **ret_decoder) MUST_USE;
struct decoder *decoder_free(struct decoder *d);
/* Decodes from *in, which moves past what was taken, into at most capacity bytes at out. A full out
 * means: call again, even when *in is empty. DECODE_E_CORRUPT, -ENOMEM. */
int decoder_run(struct decoder *d, struct bytes *in, void *out, size_t capacity,
                size_t *ret_size) MUST_USE;
/* True when the last call filled its out: there may be more without further input. */
bool decoder_full(const struct decoder *d);
/* True at the end of a stream: what came so far is complete. */
bool decoder_complete(const struct decoder *d);
/* Bytes that it holds now, for the bound on bodies. */
size_t decoder_memory(const struct decoder *d);

#endif
