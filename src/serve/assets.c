/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Embedded files: looking them up and decompressing them.
 */
#include "serve/assets.h"

#include "base/error.h"

#include <assert.h>
#include <errno.h>
#include <zlib.h>

const struct asset *asset_find(struct bytes name) {
    for (size_t i = 0; i < asset_rows_n; i++)
        if (bytes_equal(bytes_of_string(asset_rows[i].name), name))
            return &asset_rows[i];
    return NULL;
}

int asset_decompress(const struct asset *asset, struct buffer *out) {
    enum { GZIP_WINDOW = 15 + 16 };
    uint8_t *to = buffer_reserve(out, asset->size + 1);
    z_stream z = {.next_in = (Bytef *)(uintptr_t)asset->gzip, .avail_in = (uInt)asset->gzip_size};
    if (!to || inflateInit2(&z, GZIP_WINDOW) != Z_OK)
        return error_origin(-ENOMEM);
    z.next_out = to;
    z.avail_out = (uInt)asset->size;
    int r = inflate(&z, Z_FINISH);
    (void)inflateEnd(&z);
    assert(r == Z_STREAM_END && z.avail_out == 0); /* it was made by our own build */
    to[asset->size] = '\0';
    out->size += asset->size;
    return 0;
}
