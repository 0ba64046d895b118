/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cancelling and retrying. Both are one record; what becomes of it is decided where it stands in
 * the journal, so the answer shows the task as it is then.
 */
#include "tasks/api_parts.h"

#include <errno.h>

enum { VISIBLE_TIMEOUT_MS = 2000 };

struct change {
    struct tasks_api *api;
    struct task_id id;
    enum task_op op;
    unsigned status;    /* of the answer */
    struct bytes shown; /* of a task that processes share: as it was after the change, or empty */
    lsn_t lsn;
};

static bool fits(enum task_op op, enum task_status status) {
    return op == TASK_OP_CANCEL ? !task_status_is_end(status)
                                : status == TASK_FAILED || status == TASK_CANCELLED;
}

static unsigned render(struct http_request *r, enum http_write_outcome outcome UNUSED,
                       struct buffer *body) {
    const struct change *c = http_state(r);
    struct task_ref ref;
    char id[TASK_ID_SIZE];
    if (c->shown.size) {
        buffer_append_bytes(body, c->shown);
    } else if (!c->api->shared && task_find(c->api, c->id, false, &ref) == 0) {
        task_append_json(body, &ref.task, c->api->runner);
        task_unref(&ref);
    } else {
        task_id_text(c->id, id);
        buffer_append_format(body, "{\"id\":\"%s\"}", id);
    }
    return c->status;
}

/* The task of the path, if it can be changed so now. Of the embedded store it may do I/O of one
 * block, on the loop: these are few. */
static int find(struct tasks_api *api, struct http_request *r, enum task_op op,
                struct task_id *ret_id, struct task_fault *f) {
    struct task_ref ref;
    if (!task_parse_id(http_path_parameter(r, "id"), ret_id))
        return TASKS_E_NOT_FOUND;
    int result = task_find(api, *ret_id, false, &ref);
    if (result)
        return error_trace(result);
    enum task_status status = ref.task.status;
    task_unref(&ref);
    if (fits(op, status))
        return 0;
    return task_fault_set(f, HTTP_ERROR_CONFLICT, "id", "the task is %s; only %s can be %s",
                          task_status_names[status],
                          op == TASK_OP_CANCEL ? "a queued or running one"
                                               : "a failed or cancelled one",
                          op == TASK_OP_CANCEL ? "cancelled" : "tried again");
}

/* False: the request has failed. */
static bool append(struct change *c, struct http_request *r) {
    const struct task_record record = {.op = c->op, .id = c->id};
    struct buffer *bytes = http_scratch(r);
    task_record_encode(bytes, &record);
    struct journal_record journalled = {
        .key_hash = record.id.key, .kind = JOURNAL_KIND_TASKS, .payload = buffer_bytes(bytes)};
    int result = buffer_check(bytes);
    if (!result)
        result = journal_append(c->api->journal, &journalled, 1);
    c->lsn = journalled.lsn;
    if (result > 0)
        http_fail_journal(r, result);
    else if (result < 0)
        task_fail(r, result, NULL);
    return result == 0;
}

static void await(void *context, struct http_request *r) {
    struct change *c = context;
    const struct http_write write = {.first = c->lsn,
                                     .last = c->lsn,
                                     .lane_mask = 1,
                                     .work = c->api->work,
                                     .wait_visible = c->api->work != NULL,
                                     .timeout_ms = VISIBLE_TIMEOUT_MS,
                                     .render = render};
    http_set_state(r, c);
    http_await_write(r, &write);
}

/* ---- Of a task that processes share: some worker process applies it ---- */
static void show(struct change *c, struct http_request *r, const struct task *task) {
    CLEANUP(buffer_deinit) struct buffer json = BUFFER_INIT;
    task_append_json(&json, task, NULL);
    const char *copy = json.failed ? NULL : arena_copy_string(http_arena(r), buffer_bytes(&json));
    c->shown = bytes_of(copy, copy ? json.size : 0);
}

/* Until it is another by what was appended, or by something else. */
static void watch(struct change *c, struct http_request *r) {
    enum { AGAIN_NS = 5000000 };
    uint64_t end_ns = os_monotonic_ns(c->api->os) + VISIBLE_TIMEOUT_MS * UINT64_C(1000000);
    struct task_ref ref;
    bool seen = false;
    while (!seen && task_find(c->api, c->id, false, &ref) == 0) {
        seen = !fits(c->op, ref.task.status) || os_monotonic_ns(c->api->os) >= end_ns;
        if (seen)
            show(c, r, &ref.task);
        task_unref(&ref);
        if (!seen)
            os_sleep_ns(c->api->os, AGAIN_NS);
    }
}

static void change_job(void *context, struct http_request *r) {
    struct change *c = context;
    struct task_fault fault;
    int result = find(c->api, r, c->op, &c->id, &fault);
    if (result) {
        task_fail(r, result, &fault);
        return;
    }
    if (!append(c, r))
        return;
    watch(c, r);
    http_resume(r, await, c);
}

/* ---- Both ---- */
static void make(struct tasks_api *api, struct http_request *r, enum task_op op) {
    struct task_fault fault;
    struct change *c = arena_calloc(http_arena(r), 1, sizeof *c);
    if (!c) {
        task_fail(r, -ENOMEM, NULL);
        return;
    }
    *c = (struct change){.api = api, .op = op, .status = op == TASK_OP_CANCEL ? 200 : 202};
    if (api->shared) {
        http_offload_waiting(r, change_job, c);
        return;
    }
    int result = find(api, r, op, &c->id, &fault);
    if (result)
        task_fail(r, result, &fault);
    else if (append(c, r))
        await(c, r);
}

void task_delete(void *api, struct http_request *r) {
    make(api, r, TASK_OP_CANCEL);
}

void task_retry(void *api, struct http_request *r) {
    make(api, r, TASK_OP_RETRY);
}
