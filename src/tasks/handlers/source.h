/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an import reads: a file below the configured directory, or a URL of a configured host; gzip
 * and zstd decompressed, which is told by its first bytes, whatever its name or its server say.
 * Bounded memory. Conditions are those of http/transfer.h. A struct source belongs to one thread.
 */
#ifndef MILLRACE_TASKS_HANDLERS_SOURCE_H
#define MILLRACE_TASKS_HANDLERS_SOURCE_H

#include "http/decode.h"
#include "http/transfer.h"
#include "os/beneath.h"

enum { SOURCE_PIECE_BYTES = 64 << 10, SOURCE_SENTENCE_SIZE = 512 };

struct source_options {
    const char *path;      /* NULL: */
    const char *url;       /* … this */
    const char *directory; /* that path is of */
    const char *hosts;     /* that url may be of */
    uint64_t stall_ms;
    uint64_t max_bytes; /* decompressed */
};

struct source {
    const char *path;
    struct transfers *transfers; /* whose downloads it uses */
    struct download *download;   /* NULL: a file */
    struct beneath file;
    uint64_t max_bytes;
    uint64_t version;     /* another one: not the same source any more */
    uint64_t total_bytes; /* 0: unknown */
    uint64_t read_bytes;  /* of total_bytes */
    uint64_t given_bytes; /* decompressed */
    bool sniffed;
    bool ended;
    struct decoder *decoder; /* NULL: it is not compressed */
    struct buffer head;      /* its first bytes, until there are enough */
    struct bytes raw;        /* read, and not yet decompressed */
    uint8_t *piece;          /* of a file */
    uint8_t *decoded;
    char sentence[SOURCE_SENTENCE_SIZE];
};

/* Every wait looks at what transfers looks at. After an error it needs no deinit. */
int source_open(struct source *s, struct transfers *transfers,
                const struct source_options *options) MUST_USE;
void source_deinit(struct source *s);
/* The next piece, never empty, valid until the next call. TRANSFER_E_END. */
int source_read(struct source *s, struct bytes *ret_piece) MUST_USE;

#endif
