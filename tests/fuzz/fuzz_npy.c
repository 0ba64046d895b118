/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A .npy stream comes to the same end with the same rows in whatever chunks it arrives, and keeps
 * no more than a header, a row and a chunk.
 */
#include "fuzz.h"

#include "base/hash.h"
#include "base/npy.h"

#include <string.h>

enum { HELD_MAX = 4096 + 12 };

struct outcome {
    int end;
    uint64_t rows;
    uint64_t hash;
    char sentence[128];
};

static int step(struct npy *n, struct outcome *o) {
    struct bytes row;
    int r = npy_header(n);
    if (r == 0)
        r = npy_next(n, &row);
    if (r == 0) {
        FUZZ_CHECK(row.size == n->dimension * 4);
        o->rows++;
        o->hash = hash64_u64(o->hash ^ hash64(row.data, row.size));
    }
    return r;
}

static struct outcome run(struct bytes text, size_t chunk) {
    struct npy n = NPY_INIT;
    struct outcome o = {0};
    for (size_t fed = 0; o.end != NPY_E_END && o.end != NPY_E_BROKEN;) {
        o.end = step(&n, &o);
        if (o.end != NPY_E_MORE)
            continue;
        size_t size = text.size - fed < chunk ? text.size - fed : chunk;
        FUZZ_CHECK(n.pending.size - n.at <= HELD_MAX + n.dimension * 4);
        FUZZ_CHECK(npy_feed(&n, bytes_of(text.data + fed, size)) == 0);
        fed += size;
        if (size == 0)
            npy_finish(&n);
    }
    FUZZ_CHECK(o.rows <= n.rows || !n.header_read);
    memcpy(o.sentence, n.sentence, sizeof o.sentence);
    npy_deinit(&n);
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    struct bytes text = bytes_of(data + 1, size - 1);
    struct outcome whole = run(text, size), cut = run(text, 1 + data[0] % 64);
    FUZZ_CHECK(whole.end == cut.end && whole.rows == cut.rows && whole.hash == cut.hash);
    FUZZ_CHECK(strcmp(whole.sentence, cut.sentence) == 0);
    return 0;
}
