/* SPDX-License-Identifier: Apache-2.0 */
/* The table of routes. */
#include "tasks/api_parts.h"

static const struct http_schema schemas[] = {
    {"Task",
     "{id!: uuid = \"01a1fe62-4d90-7000-8000-000000000001\", type!: string = \"long_task\", "
     "status!: 'queued' | 'running' | 'succeeded' | "
     "'failed' | 'cancelled', progress!: number = 0.25, current!: uint, total!: "
     "uint?, priority: 0..9, run_at: time?, created_at!: time, started_at!: time?, finished_at!: "
     "time?, attempts!: uint, max_retries: uint, worker!: string?, result!: any, error!: string?, "
     "collection: string}"},
    {"NewTask", "{type!: string = \"long_task\", args: object = {\"total\":1000,\"step\":100}, "
                "priority: 0..9 = 5, run_at: time | number = \"2099-01-01T00:00:00Z\", "
                "max_retries: 0..1000 = 3, timeout: number = 60, "
                "idempotency_key: string}"},
    {"TaskError", "{code!: string, message!: string, field!: string?}"},
};

static const struct http_route routes[] = {
    {.method = HTTP_POST,
     .path = "/tasks",
     .handler = task_post,
     .flags = HTTP_ROUTE_WRITES,
     .tag = "Tasks",
     .summary = "Queues a task: 202 once it is durable. With an idempotency_key, the task that has "
                "it already is answered instead",
     .request = "NewTask",
     .answer = "Task",
     .query = ""},
    {.method = HTTP_POST,
     .path = "/tasks/batch",
     .handler = task_post_batch,
     .flags = HTTP_ROUTE_WRITES,
     .tag = "Tasks",
     .summary = "Queues many tasks, as {\"tasks\":[…]} or a task a line (NDJSON): an id or an "
                "error for each, in their order",
     .request = "{tasks!: [NewTask]}",
     .answer = "{tasks!: [{id: uuid = \"01a1fe62-4d90-7000-8000-000000000001\", status: string = "
               "\"queued\", error: TaskError}]}",
     .query = ""},
    {.method = HTTP_GET,
     .path = "/tasks",
     .handler = task_list,
     .tag = "Tasks",
     .summary = "The tasks, newest first, a page at a time; bulk uploads are among them",
     .answer = "{tasks!: [Task], next!: string?}",
     .query =
         "status: string = \"running\", type: string = \"long_task\", limit: uint = 10, cursor"},
    {.method = HTTP_GET,
     .path = "/tasks/queue",
     .handler = task_get_queue,
     .tag = "Tasks",
     .summary = "How long the queue is and who works on it, for autoscalers",
     .answer = "{queued!: uint, running!: uint, oldest_seconds!: number, workers!: uint, busy!: "
               "uint}",
     .query = ""},
    {.method = HTTP_GET,
     .path = "/tasks/types",
     .handler = task_get_types,
     .tag = "Tasks",
     .summary = "The types of tasks that there are, each with the JSON Schema of its args",
     .answer = "{types!: [{type!: string = \"long_task\", summary!: string, args!: object}]}",
     .query = ""},
    {.method = HTTP_GET,
     .path = "/tasks/{id}",
     .handler = task_get,
     .tag = "Tasks",
     .summary = "A task: its status, its progress, its result or error; of a bulk upload, what was "
                "refused and why",
     .answer = "Task",
     .query = "id: string = \"01a1fe62-4d90-7000-8000-000000000001\""},
    {.method = HTTP_GET,
     .path = "/tasks/{id}/events",
     .handler = task_get_events,
     .flags = HTTP_ROUTE_EVENTS,
     .tag = "Tasks",
     .summary = "Server-sent events: `progress` whenever the task changes, `end` with its last "
                "state; the data is the task",
     .query = "id: string = \"01a1fe62-4d90-7000-8000-000000000001\""},
    {.method = HTTP_DELETE,
     .path = "/tasks/{id}",
     .handler = task_delete,
     .flags = HTTP_ROUTE_WRITES | HTTP_ROUTE_ANY_BODY,
     .tag = "Tasks",
     .summary = "Cancels: a queued task never starts, a running one stops within a second",
     .answer = "Task",
     .query = "id: string = \"01a1fe62-4d90-7000-8000-000000000001\""},
    {.method = HTTP_POST,
     .path = "/tasks/{id}/retry",
     .handler = task_retry,
     .flags = HTTP_ROUTE_WRITES | HTTP_ROUTE_ANY_BODY,
     .tag = "Tasks",
     .summary = "Queues a failed or cancelled task again",
     .answer = "Task",
     .query = "id: string = \"01a1fe62-4d90-7000-8000-000000000001\""},
};

struct http_route_table tasks_routes(struct tasks_api *api) {
    return (struct http_route_table){.routes = routes,
                                     .n = ARRAY_LENGTH(routes),
                                     .context = api,
                                     .journal = api->journal,
                                     .schemas = schemas,
                                     .n_schemas = ARRAY_LENGTH(schemas)};
}
