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
    unsigned status; /* of the answer */
};

static unsigned render(struct http_request *r, enum http_write_outcome outcome UNUSED,
                       struct buffer *body) {
    const struct change *c = http_state(r);
    struct task_ref ref;
    char id[TASK_ID_SIZE];
    if (tasks_store_get(c->api->store, c->id, false, &ref) == 0) {
        task_append_json(body, &ref.task, c->api->runner);
        task_unref(&ref);
    } else {
        task_id_text(c->id, id);
        buffer_append_format(body, "{\"id\":\"%s\"}", id);
    }
    return c->status;
}

/* The task of the path, if it can be changed so now. It may do I/O of one block, on the loop: these
 * are few. */
static int find(struct tasks_api *api, struct http_request *r, enum task_op op,
                struct task_id *ret_id, struct task_fault *f) {
    struct task_ref ref;
    if (!task_parse_id(http_path_parameter(r, "id"), ret_id))
        return TASKS_E_NOT_FOUND;
    int result = tasks_store_get(api->store, *ret_id, false, &ref);
    if (result)
        return error_trace(result);
    enum task_status status = ref.task.status;
    task_unref(&ref);
    bool fits = op == TASK_OP_CANCEL ? !task_status_is_end(status)
                                     : status == TASK_FAILED || status == TASK_CANCELLED;
    if (fits)
        return 0;
    return task_fault_set(f, HTTP_ERROR_CONFLICT, "id", "the task is %s; only %s can be %s",
                          task_status_names[status],
                          op == TASK_OP_CANCEL ? "a queued or running one"
                                               : "a failed or cancelled one",
                          op == TASK_OP_CANCEL ? "cancelled" : "tried again");
}

static void append(struct tasks_api *api, struct http_request *r, const struct task_record *record,
                   struct change *change) {
    struct buffer *bytes = http_scratch(r);
    task_record_encode(bytes, record);
    struct journal_record journalled = {
        .key_hash = record->id.key, .kind = JOURNAL_KIND_TASKS, .payload = buffer_bytes(bytes)};
    int result = buffer_check(bytes);
    if (!result)
        result = journal_append(api->journal, &journalled, 1);
    if (result > 0) {
        http_fail_journal(r, result);
        return;
    }
    if (result < 0) {
        task_fail(r, result, NULL);
        return;
    }
    const struct http_write write = {.first = journalled.lsn,
                                     .last = journalled.lsn,
                                     .lane_mask = 1,
                                     .work = api->work,
                                     .wait_visible = true,
                                     .timeout_ms = VISIBLE_TIMEOUT_MS,
                                     .render = render};
    http_set_state(r, change);
    http_await_write(r, &write);
}

static void make(struct tasks_api *api, struct http_request *r, enum task_op op) {
    struct task_record record = {.op = op};
    struct task_fault fault;
    struct change *change = arena_calloc(http_arena(r), 1, sizeof *change);
    int result = change ? find(api, r, op, &record.id, &fault) : -ENOMEM;
    if (result) {
        task_fail(r, result, &fault);
        return;
    }
    *change =
        (struct change){.api = api, .id = record.id, .status = op == TASK_OP_CANCEL ? 200 : 202};
    append(api, r, &record, change);
}

void task_delete(void *api, struct http_request *r) {
    make(api, r, TASK_OP_CANCEL);
}

void task_retry(void *api, struct http_request *r) {
    make(api, r, TASK_OP_RETRY);
}
