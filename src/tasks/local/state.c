/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The values (little-endian; block8: u8 size, then the bytes).
 *
 *   task     tasks/state.c
 *   index    of a queued one: u64 due_us, u8 priority; else nothing
 *   once     u64 key, u64 low
 *   letter   keyed/letter.h
 *   state    u32 version 1, u64 position, number of the checkpoint, newest key, letters,
 *            u32 n, then n counts by status u64, u32 n, then n names of types, block8
 *
 * RocksDB checks every block it reads (crc32c), so values have no checksum of their own; one that
 * does not decode is damage of that one task.
 */
#include "tasks/local/internal.h"

#include <errno.h>

enum { STATE_VERSION = 1 };

void index_encode(uint8_t out[9], uint64_t due_us, uint8_t priority) {
    store_u64(out, due_us);
    out[8] = priority;
}

bool index_decode(struct bytes value, uint64_t *ret_due_us, uint8_t *ret_priority) {
    if (value.size != 9 || value.data[8] >= TASK_PRIORITIES)
        return false;
    *ret_due_us = load_u64(value.data);
    *ret_priority = value.data[8];
    return true;
}

bool tasks_once_decode(struct bytes value, struct task_id *ret_id) {
    if (value.size != 16)
        return false;
    *ret_id = (struct task_id){.key = load_u64(value.data), .low = load_u64(value.data + 8)};
    return true;
}

/* ---- Types ---- */
static struct bytes type_name(const struct types *t, unsigned i) {
    return bytes_of(t->names[i].bytes, t->names[i].size);
}

unsigned types_find(const struct types *t, struct bytes name) {
    for (unsigned i = 0; i < t->n; i++)
        if (bytes_equal(type_name(t, i), name))
            return i;
    return TYPES_MAX;
}

unsigned types_number(struct types *t, struct bytes name) {
    unsigned i = types_find(t, name);
    if (i < TYPES_MAX || t->n == TYPES_MAX)
        return i;
    t->names[t->n].size = (uint8_t)name.size;
    memcpy(t->names[t->n].bytes, name.data, name.size);
    return t->n++;
}

/* ---- The store ---- */
int tasks_state_encode(const struct state *s, struct buffer *out) {
    buffer_append_u32(out, STATE_VERSION);
    buffer_append_u64(out, s->position);
    buffer_append_u64(out, s->number);
    buffer_append_u64(out, s->newest);
    buffer_append_u64(out, s->letters);
    buffer_append_u32(out, TASK_STATUSES);
    for (unsigned i = 0; i < TASK_STATUSES; i++)
        buffer_append_u64(out, s->counts[i]);
    buffer_append_u32(out, s->types.n);
    for (unsigned i = 0; i < s->types.n; i++) {
        buffer_append_u8(out, s->types.names[i].size);
        buffer_append_bytes(out, type_name(&s->types, i));
    }
    return buffer_check(out);
}

static bool decode_types(struct reader *r, struct types *t) {
    uint32_t n = reader_u32(r);
    if (n > TYPES_MAX)
        return false;
    for (uint32_t i = 0; i < n && !r->failed; i++) {
        struct bytes name = reader_bytes(r, reader_u8(r));
        if (name.size == 0 || name.size > TASK_TYPE_MAX || types_number(t, name) != i)
            return false;
    }
    return true;
}

int tasks_state_decode(struct bytes value, struct state *ret_state) {
    struct state s = {0};
    struct reader r = reader_of(value);
    uint32_t version = reader_u32(&r);
    if (!r.failed && version > STATE_VERSION)
        return error_origin(-EPROTONOSUPPORT);
    s.position = reader_u64(&r);
    s.number = reader_u64(&r);
    s.newest = reader_u64(&r);
    s.letters = reader_u64(&r);
    if (reader_u32(&r) != TASK_STATUSES || version != STATE_VERSION)
        return error_origin(-EBADMSG);
    for (unsigned i = 0; i < TASK_STATUSES; i++)
        s.counts[i] = reader_u64(&r);
    if (!decode_types(&r, &s.types) || r.failed || r.at != r.end)
        return error_origin(-EBADMSG);
    *ret_state = s;
    return 0;
}
