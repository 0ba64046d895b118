/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What became of bulk uploads: GET /tasks/{id} and the list, newest first.
 */
#include "points/api_parts.h"

enum { TASKS_LIMIT_DEFAULT = 100, TASKS_LIMIT_MAX = 1000 };

static void get_task(void *context, struct http_request *r) {
    struct points_api *api = context;
    struct bytes id = http_path_parameter(r, "id");
    struct buffer *out = http_scratch(r);
    int result =
        bulk_tasks_describe(api->tasks, id, work_visible_lsn(api->work), api->catalog, out);
    if (result == POINTS_E_NOT_FOUND) {
        http_fail(r, HTTP_ERROR_NOT_FOUND, "id", "no task `%s`", api_text_of(id).text);
        return;
    }
    result = result ? error_fold(result) : buffer_check(out);
    if (result)
        api_fail(r, result, NULL);
    else
        http_respond(r, 200, NULL, buffer_bytes(out));
}

/* A query parameter of digits; false, after an answer, when it is something else. */
static bool query_number(struct http_request *r, const char *name, uint64_t most, uint64_t *ret) {
    struct bytes text;
    struct point_id number; /* has the same digits */
    if (!http_query_parameter(r, name, &text))
        return true;
    if (point_id_from_text(text, &number) && !number.uuid && number.low > 0 && number.low <= most) {
        *ret = number.low;
        return true;
    }
    http_fail(r, HTTP_ERROR_INVALID_FIELD, name, "`%s` must be a number from 1 to %llu", name,
              (unsigned long long)most);
    return false;
}

static void list_tasks(void *context, struct http_request *r) {
    struct points_api *api = context;
    struct bytes status = BYTES_LITERAL(""), type = BYTES_LITERAL("");
    uint64_t limit = TASKS_LIMIT_DEFAULT, cursor = 0;
    if (!query_number(r, "limit", TASKS_LIMIT_MAX, &limit) ||
        !query_number(r, "cursor", UINT64_MAX, &cursor))
        return;
    (void)http_query_parameter(r, "status", &status);
    (void)http_query_parameter(r, "type", &type);
    struct buffer *out = http_scratch(r);
    bulk_tasks_list(api->tasks, status, type, (size_t)limit, cursor, work_visible_lsn(api->work),
                    api->catalog, out);
    int result = buffer_check(out);
    if (result)
        api_fail(r, result, NULL);
    else
        http_respond(r, 200, NULL, buffer_bytes(out));
}

static const struct http_route routes[] = {
    {.method = HTTP_GET,
     .path = "/tasks/{id}",
     .handler = get_task,
     .style = HTTP_STYLE_MILLRACE,
     .tag = "Tasks",
     .summary = "A task: its status, its progress, what was refused and why",
     .answer = "Task",
     .query = "id: string = \"01a1fe62-4d90-7000-8000-000000000001\""},
    {.method = HTTP_GET,
     .path = "/tasks",
     .handler = list_tasks,
     .style = HTTP_STYLE_MILLRACE,
     .tag = "Tasks",
     .summary = "The tasks, newest first, a page at a time",
     .answer = "{tasks: [Task], next: string?}",
     .query = "status: string = \"running\", type: string = \"ingest\", limit: uint = 10, cursor"},
};

struct http_route_table api_tasks_routes(struct points_api *api) {
    return (struct http_route_table){.routes = routes, .n = ARRAY_LENGTH(routes), .context = api};
}
