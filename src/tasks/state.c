/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of a task (little-endian; block: u32 size, then the bytes). Part of the disk format,
 * and of what scripts inside a Redis read (redis/scripts.c).
 *
 *   0   u8 version 1, u8 status, u8 priority, u8 has arguments
 *   4   u32 attempts, failures, deaths, max_retries
 *   20  u64 low half of the id, created, started, finished, due, run_at (µs), timeout (ms),
 *       current, total
 *   92  block type, idempotency key, worker, result, error, saved
 */
#include "tasks/state.h"

enum { TASK_VERSION = 1 };

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
