/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks of doubling size in a list, newest first; only the newest is allocated from. The cap
 * bounds what is handed out; the blocks together hold at most about twice that.
 */
#include "base/arena.h"

#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef MILLRACE_TINY
enum { BLOCK_FIRST_BYTES = 64, BLOCK_MAX_BYTES = 1024 };
#else
enum { BLOCK_FIRST_BYTES = 4096, BLOCK_MAX_BYTES = 1 << 20 };
#endif

struct arena_block {
    struct arena_block *next;
    size_t size; /* of data */
    size_t used;
    alignas(max_align_t) uint8_t data[];
};

static void free_blocks(struct arena_block *block) {
    while (block) {
        struct arena_block *next = block->next;
        free(block);
        block = next;
    }
}

void arena_deinit(struct arena *a) {
    if (!a)
        return;
    free_blocks(a->blocks);
    a->blocks = NULL;
    a->used_bytes = 0;
}

void arena_reset(struct arena *a) {
    a->used_bytes = 0;
    struct arena_block *block = a->blocks;
    while (block && block->next) {
        struct arena_block *next = block->next;
        free(block);
        block = next;
    }
    a->blocks = block;
    if (block)
        block->used = 0;
}

static bool add_block(struct arena *a, size_t at_least) {
    size_t size = a->blocks ? a->blocks->size * 2 : BLOCK_FIRST_BYTES;
    if (size > BLOCK_MAX_BYTES)
        size = BLOCK_MAX_BYTES;
    if (size < at_least)
        size = at_least;
    struct arena_block *block = malloc(sizeof *block + size);
    if (!block)
        return false;
    *block = (struct arena_block){.next = a->blocks, .size = size};
    a->blocks = block;
    return true;
}

void *arena_alloc(struct arena *a, size_t size) {
    if (size > a->max_bytes)
        return NULL;
    size = (size + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
    if (size > a->max_bytes - a->used_bytes)
        return NULL;
    if ((!a->blocks || a->blocks->size - a->blocks->used < size) && !add_block(a, size))
        return NULL;
    void *p = a->blocks->data + a->blocks->used;
    a->blocks->used += size;
    a->used_bytes += size;
    return p;
}

void *arena_calloc(struct arena *a, size_t count, size_t size) {
    size_t total;
    if (__builtin_mul_overflow(count, size, &total))
        return NULL;
    void *p = arena_alloc(a, total);
    if (p)
        memset(p, 0, total);
    return p;
}

char *arena_copy_string(struct arena *a, struct bytes b) {
    if (b.size == SIZE_MAX)
        return NULL;
    char *s = arena_alloc(a, b.size + 1);
    if (!s)
        return NULL;
    if (b.size)
        memcpy(s, b.data, b.size);
    s[b.size] = '\0';
    return s;
}

char *arena_vformat(struct arena *a, const char *format, va_list args) {
    va_list again;
    va_copy(again, args);
    int size = vsnprintf(NULL, 0, format, args);
    char *s = size < 0 ? NULL : arena_alloc(a, (size_t)size + 1);
    if (s)
        vsnprintf(s, (size_t)size + 1, format, again);
    va_end(again);
    return s;
}

char *arena_format(struct arena *a, const char *format, ...) {
    va_list args;
    va_start(args, format);
    char *s = arena_vformat(a, format, args);
    va_end(args);
    return s;
}
