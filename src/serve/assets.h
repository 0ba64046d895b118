/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files inside the binary, gzip-compressed: the console, Swagger UI for /docs, and the movies that
 * `millrace load movies` sends. web/embed.py makes the table at build time; without npm it holds
 * only our own pages. Read-only data; thread-safe.
 */
#ifndef MILLRACE_SERVE_ASSETS_H
#define MILLRACE_SERVE_ASSETS_H

#include "base/bytes.h"

struct asset {
    const char *name; /* "docs/swagger-ui.css" */
    const char *content_type;
    const char *etag; /* quoted */
    const uint8_t *gzip;
    size_t gzip_size;
    size_t size; /* decompressed */
};
/* Made by web/embed.py. */
extern const struct asset asset_rows[];
extern const size_t asset_rows_n;

/* NULL when the binary was built without it. */
const struct asset *asset_find(struct bytes name);
/* Appends the decompressed contents, with a NUL behind them that is not counted. -ENOMEM. */
int asset_decompress(const struct asset *asset, struct buffer *out) MUST_USE;

#endif
