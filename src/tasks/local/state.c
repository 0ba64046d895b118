/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The values (little-endian; block: u32 size, then the bytes; block8: u8 size).
 *
 *   task     u8 version 1, u8 status, u8 priority, u8 has arguments,
 *            u32 attempts, failures, deaths, max_retries,
 *            u64 low half of the id, created, started, finished, due, run_at (µs), timeout (ms),
 *            current, total,
 *            block type, idempotency key, worker, result, error, saved
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

enum { TASK_VERSION = 1, STATE_VERSION = 1 };

/* ---- Tasks ---- */
void task_state_encode(struct buffer *out, const struct task *task, bool has_args) {
    const uint64_t numbers[] = {
        task->id.low, task->created_us,        task->started_us,         task->finished_us,
        task->due_us, task->request.run_at_us, task->request.timeout_ms, task->current,
        task->total};
    const uint8_t head[] = {TASK_VERSION, (uint8_t)task->status, task->request.priority, has_args};
    const uint32_t counts[] = {task->attempts, task->failures, task->deaths,
                               task->request.max_retries};
    buffer_append(out, head, sizeof head);
    buffer_append(out, counts, sizeof counts);
    buffer_append(out, numbers, sizeof numbers);
    buffer_append_block(out, task->request.type);
    buffer_append_block(out, task->request.idempotency_key);
    buffer_append_block(out, task->worker);
    buffer_append_block(out, task->result);
    buffer_append_block(out, task->error);
    buffer_append_block(out, task->saved);
}

static void decode_numbers(struct reader *r, struct task *t) {
    t->attempts = reader_u32(r);
    t->failures = reader_u32(r);
    t->deaths = reader_u32(r);
    t->request.max_retries = reader_u32(r);
    t->id.low = reader_u64(r);
    t->created_us = reader_u64(r);
    t->started_us = reader_u64(r);
    t->finished_us = reader_u64(r);
    t->due_us = reader_u64(r);
    t->request.run_at_us = reader_u64(r);
    t->request.timeout_ms = reader_u64(r);
    t->current = reader_u64(r);
    t->total = reader_u64(r);
}

bool task_state_decode(uint64_t key, struct bytes value, struct task *ret_task,
                       bool *ret_has_args) {
    struct reader r = reader_of(value);
    struct task t = {.id.key = key};
    uint8_t version = reader_u8(&r);
    uint8_t status = reader_u8(&r);
    t.status = (enum task_status)status;
    t.request.priority = reader_u8(&r);
    uint8_t has_args = reader_u8(&r);
    decode_numbers(&r, &t);
    t.request.type = reader_block(&r);
    t.request.idempotency_key = reader_block(&r);
    t.worker = reader_block(&r);
    t.result = reader_block(&r);
    t.error = reader_block(&r);
    t.saved = reader_block(&r);
    if (r.failed || r.at != r.end || version != TASK_VERSION || status >= TASK_STATUSES ||
        t.request.priority >= TASK_PRIORITIES || has_args > 1 || t.request.type.size == 0 ||
        t.request.type.size > TASK_TYPE_MAX || t.request.idempotency_key.size > TASK_KEY_MAX)
        return false;
    *ret_task = t;
    *ret_has_args = has_args;
    return true;
}

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
