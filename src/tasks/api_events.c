/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Server-sent events of a task: an event "progress" with the task as JSON at once and whenever that
 * changes, and "end" with its last state, which closes the stream. A reader that comes back gets
 * the state of then: nothing is a history.
 */
#include "tasks/api_parts.h"

#include "http/sse.h"

#include <errno.h>

enum { INTERVAL_MS = 200 };

struct watch {
    struct buffer told;          /* the JSON of the last event */
    struct tasks_watch *watched; /* of a task that processes share; NULL: it is this process's */
};

/* Never waits: what processes share is looked at by another thread. */
static int look(struct tasks_api *api, struct http_request *r, const struct watch *w,
                struct buffer *json, bool *ret_ended) {
    struct task_ref ref;
    if (!w->watched)
        return task_describe(api, http_path_parameter(r, "id"), json, ret_ended);
    int result = tasks_shared_watched(api->shared, w->watched, &ref);
    if (result)
        return result;
    task_append_json(json, &ref.task, api->runner);
    *ret_ended = task_status_is_end(ref.task.status);
    task_unref(&ref);
    return 0;
}

static bool next(void *api, struct http_request *r, struct buffer *out) {
    struct watch *w = http_state(r);
    CLEANUP(buffer_deinit) struct buffer json = BUFFER_INIT;
    bool ended;
    int result = look(api, r, w, &json, &ended);
    if (result == TASKS_E_UNAVAILABLE)
        return true; /* it may be there again the next time */
    if (result || json.failed)
        return false; /* it is kept no more, or memory is short: the reader comes back */
    if (bytes_equal(buffer_bytes(&json), buffer_bytes(&w->told)))
        return true;
    http_event_append(out, ended ? "end" : "progress", NULL, buffer_bytes(&json));
    struct buffer told = w->told;
    w->told = json;
    json = told;
    return !ended;
}

static void closed(void *context, struct http_request *r) {
    struct tasks_api *api = context;
    struct watch *w = http_state(r);
    if (w->watched)
        tasks_shared_unwatch(api->shared, w->watched);
    buffer_deinit(&w->told);
}

static void begin(void *context, struct http_request *r) {
    static const struct http_events events = {
        .next = next, .closed = closed, .interval_ms = INTERVAL_MS};
    struct tasks_api *api = context;
    struct task_id id;
    struct watch *w = arena_calloc(http_arena(r), 1, sizeof *w);
    int result = w ? 0 : -ENOMEM;
    if (!result && api->shared && task_parse_id(http_path_parameter(r, "id"), &id))
        result = tasks_shared_watch(api->shared, id, &w->watched);
    if (result) {
        task_fail(r, result, NULL);
        return;
    }
    http_set_state(r, w);
    http_respond_events(r, &events);
}

static bool is_there(struct tasks_api *api, struct http_request *r) {
    bool ended;
    int result = task_describe(api, http_path_parameter(r, "id"), http_scratch(r), &ended);
    if (result)
        task_fail(r, result, NULL);
    return result == 0;
}

static void look_job(void *api, struct http_request *r) {
    if (is_there(api, r))
        http_resume(r, begin, api);
}

void task_get_events(void *context, struct http_request *r) {
    struct tasks_api *api = context;
    if (api->shared)
        http_offload_waiting(r, look_job, api);
    else if (is_there(api, r))
        begin(api, r);
}
