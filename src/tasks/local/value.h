/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes that never change, counted by reference: the encoded state of a task at one moment, its
 * arguments. Whoever holds one reads it without a lock. Thread-safe.
 */
#ifndef MILLRACE_TASKS_LOCAL_VALUE_H
#define MILLRACE_TASKS_LOCAL_VALUE_H

#include "base/bytes.h"

#include <stdatomic.h>
#include <stdlib.h>

struct value {
    atomic_uint references;
    uint32_t size;
    uint8_t bytes[];
};

/* NULL when memory is out. */
static inline struct value *value_new(struct bytes bytes) {
    struct value *v = malloc(sizeof *v + bytes.size);
    if (!v)
        return NULL;
    atomic_init(&v->references, 1);
    v->size = (uint32_t)bytes.size;
    if (bytes.size > 0)
        memcpy(v->bytes, bytes.data, bytes.size);
    return v;
}

/* Takes NULL. */
static inline struct value *value_ref(struct value *v) {
    if (v)
        atomic_fetch_add_explicit(&v->references, 1, memory_order_relaxed);
    return v;
}

/* Takes NULL. Returns NULL. */
static inline struct value *value_unref(struct value *v) {
    if (v && atomic_fetch_sub_explicit(&v->references, 1, memory_order_acq_rel) == 1)
        free(v);
    return NULL;
}

static inline struct bytes value_bytes(const struct value *v) {
    return v ? bytes_of(v->bytes, v->size) : (struct bytes){0};
}
static inline size_t value_memory(const struct value *v) {
    return v ? sizeof *v + v->size : 0;
}

#endif
