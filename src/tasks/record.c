/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of a task's transitions, as the journal keeps them, and what they do. Little-endian;
 * the framing, the checksum and the lsn are the journal's. A block is a u32 size, then the bytes.
 *
 *   every record            CREATE                       START
 *   0  u8  version (1)      24 u64 run_at_us             24 block worker
 *   1  u8  op               32 u64 timeout_ms
 *   2  u8  outcome (END)    40 u32 max_retries           SAVE, RELEASE
 *   3  u8  0                44 u32 priority              24 u64 current
 *   4  u32 attempt          48 block type                32 u64 total
 *   8  u64 key of the task  …  block idempotency key     40 block saved
 *   16 u64 low              …  block args
 *                                                        END
 *   CANCEL and RETRY                                     24 u64 current    32 u64 total
 *   end here                                             40 u64 due_us
 *                                                        48 block text     …  block saved
 *
 * outcome is 0 but in an END; attempt is 0 in CREATE, CANCEL and RETRY, and never in the others.
 * A record ends where its last block does.
 *
 * To change a layout: raise its version, keep decoding the old one, add a test with its bytes.
 */
#include "tasks/task.h"

#include <assert.h>

enum { RECORD_VERSION = 1 };

const char *const task_status_names[TASK_STATUSES] = {"queued", "running", "succeeded", "failed",
                                                      "cancelled"};

bool task_status_from_name(struct bytes name, enum task_status *ret_status) {
    for (unsigned i = 0; i < TASK_STATUSES; i++)
        if (bytes_equal(name, bytes_of_string(task_status_names[i]))) {
            *ret_status = (enum task_status)i;
            return true;
        }
    return false;
}

/* ---- Bounds ---- */
static bool request_is_sound(const struct task_request *q) {
    return q->type.size > 0 && q->type.size <= TASK_TYPE_MAX && q->args.size <= TASK_ARGS_MAX &&
           q->idempotency_key.size <= TASK_KEY_MAX && q->priority < TASK_PRIORITIES;
}

static bool is_of_an_attempt(enum task_op op) {
    return op == TASK_OP_START || op == TASK_OP_SAVE || op == TASK_OP_END || op == TASK_OP_RELEASE;
}

/* What the encoder promises and the decoder checks. */
static bool record_is_sound(const struct task_record *r) {
    return r->op >= TASK_OP_CREATE && r->op <= TASK_OP_RETRY && r->id.key != 0 &&
           (r->attempt != 0) == is_of_an_attempt(r->op) &&
           (r->op != TASK_OP_CREATE || request_is_sound(&r->request)) &&
           (r->op == TASK_OP_END
                ? r->outcome >= TASK_OUTCOME_SUCCEEDED && r->outcome <= TASK_OUTCOME_DIED
                : r->outcome == 0) &&
           r->worker.size <= TASK_WORKER_MAX && r->text.size <= TASK_RESULT_MAX &&
           r->saved.size <= TASK_SAVED_MAX;
}

/* ---- Bytes ---- */
static void encode_request(struct buffer *out, const struct task_request *q) {
    buffer_append_u64(out, q->run_at_us);
    buffer_append_u64(out, q->timeout_ms);
    buffer_append_u32(out, q->max_retries);
    buffer_append_u32(out, q->priority);
    buffer_append_block(out, q->type);
    buffer_append_block(out, q->idempotency_key);
    buffer_append_block(out, q->args);
}

static void encode_progress(struct buffer *out, const struct task_record *r) {
    buffer_append_u64(out, r->current);
    buffer_append_u64(out, r->total);
}

static void encode_body(struct buffer *out, const struct task_record *r) {
    switch (r->op) {
    case TASK_OP_CREATE:
        encode_request(out, &r->request);
        break;
    case TASK_OP_START:
        buffer_append_block(out, r->worker);
        break;
    case TASK_OP_SAVE:
    case TASK_OP_RELEASE:
        encode_progress(out, r);
        buffer_append_block(out, r->saved);
        break;
    case TASK_OP_END:
        encode_progress(out, r);
        buffer_append_u64(out, r->due_us);
        buffer_append_block(out, r->text);
        buffer_append_block(out, r->saved);
        break;
    case TASK_OP_CANCEL:
    case TASK_OP_RETRY:
        break;
    }
}

void task_record_encode(struct buffer *out, const struct task_record *record) {
    assert(record_is_sound(record));
    buffer_append_u8(out, RECORD_VERSION);
    buffer_append_u8(out, (uint8_t)record->op);
    buffer_append_u8(out, (uint8_t)record->outcome);
    buffer_append_u8(out, 0);
    buffer_append_u32(out, record->attempt);
    buffer_append_u64(out, record->id.key);
    buffer_append_u64(out, record->id.low);
    encode_body(out, record);
}

static bool decode_request(struct reader *r, struct task_request *q) {
    q->run_at_us = reader_u64(r);
    q->timeout_ms = reader_u64(r);
    q->max_retries = reader_u32(r);
    uint32_t priority = reader_u32(r);
    q->priority = (uint8_t)priority;
    q->type = reader_block(r);
    q->idempotency_key = reader_block(r);
    q->args = reader_block(r);
    return priority < TASK_PRIORITIES;
}

static void decode_progress(struct reader *r, struct task_record *record) {
    record->current = reader_u64(r);
    record->total = reader_u64(r);
}

static bool decode_body(struct reader *r, struct task_record *record) {
    switch (record->op) {
    case TASK_OP_CREATE:
        return decode_request(r, &record->request);
    case TASK_OP_START:
        record->worker = reader_block(r);
        return true;
    case TASK_OP_SAVE:
    case TASK_OP_RELEASE:
        decode_progress(r, record);
        record->saved = reader_block(r);
        return true;
    case TASK_OP_END:
        decode_progress(r, record);
        record->due_us = reader_u64(r);
        record->text = reader_block(r);
        record->saved = reader_block(r);
        return true;
    case TASK_OP_CANCEL:
    case TASK_OP_RETRY:
        return true;
    }
    return false;
}

void task_record_set_id(uint8_t *payload, struct task_id id) {
    enum { KEY_AT = 8, LOW_AT = 16 };
    store_u64(payload + KEY_AT, id.key);
    store_u64(payload + LOW_AT, id.low);
}

bool task_record_decode(struct bytes payload, struct task_record *ret_record) {
    struct reader r = reader_of(payload);
    struct task_record record = {0};
    uint8_t version = reader_u8(&r);
    record.op = reader_u8(&r);
    record.outcome = reader_u8(&r);
    uint8_t zero = reader_u8(&r);
    record.attempt = reader_u32(&r);
    record.id.key = reader_u64(&r);
    record.id.low = reader_u64(&r);
    if (r.failed || version != RECORD_VERSION || zero != 0 || !decode_body(&r, &record) ||
        r.failed || r.at != r.end || !record_is_sound(&record))
        return false;
    *ret_record = record;
    return true;
}

/* ---- Transitions ---- */
/*
 * The numbers count what the drawing in task.h says: attempts only grows, also when a user has the
 * task tried again, or it would not be a fencing token. What was saved is kept until the task
 * succeeds: every later attempt goes on from there, one that a user asked for too. Where nothing
 * was saved, a task that goes back to the queue has got nowhere.
 */
static void requeue(struct task *t, uint64_t due_us) {
    t->status = TASK_QUEUED;
    t->due_us = due_us;
    if (t->saved.size == 0)
        t->current = 0;
}

static void finish(struct task *t, enum task_status status, uint64_t wall_us) {
    t->status = status;
    t->finished_us = wall_us;
}

static void take_progress(struct task *t, const struct task_record *r) {
    t->current = r->current;
    t->total = r->total;
    if (r->saved.size > 0)
        t->saved = r->saved;
}

static void start(struct task *t, const struct task_record *r, uint64_t wall_us) {
    t->status = TASK_RUNNING;
    t->attempts = r->attempt;
    t->started_us = wall_us;
    t->worker = r->worker;
}

static void end_badly(struct task *t, const struct task_record *r, uint64_t wall_us) {
    bool again = false;
    t->error = r->text;
    if (r->outcome == TASK_OUTCOME_DIED) {
        again = ++t->deaths < TASK_DEATHS_MAX;
    } else {
        again = r->outcome == TASK_OUTCOME_FAILED && t->failures < t->request.max_retries;
        t->failures += t->failures < UINT32_MAX;
    }
    if (again)
        requeue(t, r->due_us ? r->due_us : wall_us);
    else
        finish(t, TASK_FAILED, wall_us);
}

static void end(struct task *t, const struct task_record *r, uint64_t wall_us) {
    take_progress(t, r);
    if (r->outcome != TASK_OUTCOME_SUCCEEDED) {
        end_badly(t, r, wall_us);
        return;
    }
    finish(t, TASK_SUCCEEDED, wall_us);
    t->result = r->text;
    t->error = t->saved = (struct bytes){0};
}

static void retry(struct task *t, uint64_t wall_us) {
    t->failures = t->deaths = 0;
    t->finished_us = 0;
    t->error = (struct bytes){0};
    requeue(t, wall_us);
}

static bool fits(const struct task *t, const struct task_record *r) {
    switch (r->op) {
    case TASK_OP_START:
        return t->status == TASK_QUEUED && r->attempt > t->attempts;
    case TASK_OP_SAVE:
    case TASK_OP_END:
    case TASK_OP_RELEASE:
        return t->status == TASK_RUNNING && r->attempt == t->attempts;
    case TASK_OP_CANCEL:
        return !task_status_is_end(t->status);
    case TASK_OP_RETRY:
        return t->status == TASK_FAILED || t->status == TASK_CANCELLED;
    case TASK_OP_CREATE:
        break;
    }
    return false;
}

bool task_transition(struct task *task, const struct task_record *record, uint64_t wall_us) {
    assert(record->op != TASK_OP_CREATE);
    if (!fits(task, record))
        return false;
    switch (record->op) {
    case TASK_OP_START:
        start(task, record, wall_us);
        break;
    case TASK_OP_SAVE:
        take_progress(task, record);
        break;
    case TASK_OP_END:
        end(task, record, wall_us);
        break;
    case TASK_OP_RELEASE:
        take_progress(task, record);
        requeue(task, task->due_us); /* it keeps its place */
        break;
    case TASK_OP_CANCEL:
        finish(task, TASK_CANCELLED, wall_us);
        break;
    case TASK_OP_RETRY:
        retry(task, wall_us);
        break;
    case TASK_OP_CREATE:
        break;
    }
    return true;
}
