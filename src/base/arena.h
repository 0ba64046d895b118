/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A capped bump arena: one a request or batch, passed as a parameter, freed as a whole. Owned by
 * whoever made it; used by one thread at a time. It never grows past its cap: allocation then
 * returns NULL and the caller answers "too large".
 */
#ifndef MILLRACE_BASE_ARENA_H
#define MILLRACE_BASE_ARENA_H

#include "base/bytes.h"

#include <stdarg.h>

struct arena_block;

struct arena {
    struct arena_block *blocks; /* newest first */
    size_t used_bytes;          /* handed out, over all blocks */
    size_t max_bytes;
};

#define ARENA_INIT(max) ((struct arena){.max_bytes = (max)})
void arena_deinit(struct arena *a);
/* Keeps the first block for reuse, frees the others. Everything handed out is invalid. */
void arena_reset(struct arena *a);
/* size bytes aligned for any type, not zeroed; NULL past the cap or when memory is out. */
void *arena_alloc(struct arena *a, size_t size);
/* As arena_alloc, zeroed; NULL also when count * size overflows. */
void *arena_calloc(struct arena *a, size_t count, size_t size);
/* NUL-terminated copies; NULL as arena_alloc. */
char *arena_copy_string(struct arena *a, struct bytes b);
char *arena_format(struct arena *a, const char *format, ...) PRINTF_LIKE(2, 3);
char *arena_vformat(struct arena *a, const char *format, va_list args) PRINTF_LIKE(2, 0);

#endif
