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
    struct buffer told; /* the JSON of the last event */
};

static bool next(void *api, struct http_request *r, struct buffer *out) {
    struct watch *w = http_state(r);
    CLEANUP(buffer_deinit) struct buffer json = BUFFER_INIT;
    bool ended;
    if (task_describe(api, http_path_parameter(r, "id"), &json, &ended) != 0 || json.failed)
        return false; /* it is kept no more, or memory is short: the reader comes back */
    if (bytes_equal(buffer_bytes(&json), buffer_bytes(&w->told)))
        return true;
    http_event_append(out, ended ? "end" : "progress", NULL, buffer_bytes(&json));
    struct buffer told = w->told;
    w->told = json;
    json = told;
    return !ended;
}

static void closed(void *api UNUSED, struct http_request *r) {
    struct watch *w = http_state(r);
    buffer_deinit(&w->told);
}

void task_get_events(void *api, struct http_request *r) {
    static const struct http_events events = {
        .next = next, .closed = closed, .interval_ms = INTERVAL_MS};
    struct buffer *out = http_scratch(r);
    bool ended;
    struct watch *w = arena_calloc(http_arena(r), 1, sizeof *w);
    int result = w ? task_describe(api, http_path_parameter(r, "id"), out, &ended) : -ENOMEM;
    if (result) {
        task_fail(r, result, NULL);
        return;
    }
    http_set_state(r, w);
    http_respond_events(r, &events);
}
