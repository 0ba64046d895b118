/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Alioth's routes, as that service has them, for its clients and its load test. An ingest is one
 * atomic write: its points and the record that ends its task are one journal group.
 */
#include "points/api_pass.h"

#include <errno.h>

static void get_root(void *context, struct http_request *r) {
    (void)context;
    http_respond(r, 200, NULL,
                 BYTES_LITERAL("{\"status_code\":200,\"name\":\"Alioth\",\"description\":"
                               "\"Ingest, back up and restore collections of vectors\","
                               "\"version\":\"" MILLRACE_VERSION "\"}"));
}

/* ---- POST /alioth/ingest ---- */

struct ingest {
    struct bytes name;  /* of the collection, in the arena */
    struct bytes batch; /* raw */
};

static int take_name(struct http_request *r, struct bytes raw, struct ingest *i,
                     struct api_fault *f) {
    struct json_value v;
    struct bytes text;
    int result = json_parse(http_json_parser(r), raw, &v);
    if (result)
        return api_fault_json(f, result, "`collection_name`");
    if (!json_get_string(v, &text) || text.size == 0)
        return api_fault_set(f, API_FAULT_FORMAT, "collection_name",
                             "`collection_name` must be a string that is not empty");
    const char *copy = arena_copy_string(http_arena(r), text);
    if (!copy)
        return error_origin(-ENOMEM);
    i->name = bytes_of(copy, text.size);
    return 0;
}

static int take_field(struct http_request *r, struct bytes key, struct bytes value,
                      struct ingest *i, struct api_fault *f) {
    struct json_value ignored; /* but it must be JSON */
    if (bytes_equal(key, BYTES_LITERAL("collection_name")))
        return error_trace(take_name(r, value, i, f));
    if (bytes_equal(key, BYTES_LITERAL("batch"))) {
        if (i->batch.size)
            return api_fault_set(f, API_FAULT_FORMAT, "batch", "duplicate field `batch`");
        i->batch = value;
        return 0;
    }
    int result = json_parse(http_json_parser(r), value, &ignored);
    return result ? api_fault_json(f, result, "a field of the body") : 0;
}

static int parse(struct http_request *r, struct ingest *i, struct api_fault *f) {
    struct json_members members;
    struct bytes key, value;
    *i = (struct ingest){0};
    int result = json_members_init(&members, http_body(r));
    if (result || !members.object)
        return api_fault_set(f, API_FAULT_SYNTAX, NULL, "the body must be a JSON object");
    while ((result = json_members_next(&members, &key, &value)) == 0) {
        result = take_field(r, key, value, i, f);
        if (result)
            return error_trace(result);
    }
    if (result != JSON_SPLIT_E_END)
        return api_fault_split(f, result, "the body");
    if (!i->name.size)
        return api_fault_missing(f, "collection_name");
    return i->batch.size ? 0 : api_fault_missing(f, "batch");
}

/* The record that ends the task, as the last of the group. */
static int encode_end(struct api_batch *b, struct bulk_task *task) {
    size_t start = b->bytes->size;
    bulk_task_accepted(task, 0, 0, b->n);
    bulk_task_encode_end(task, BULK_SUCCEEDED, NULL, b->bytes);
    return error_trace(api_batch_control(b, start));
}

static unsigned render_ingest(struct http_request *r, enum http_write_outcome outcome,
                              struct buffer *body) {
    const struct api_written *written = http_state(r);
    (void)outcome;
    buffer_append_string(body, "{\"status_code\":200,\"task_id\":");
    if (written->text)
        json_append_cstring(body, written->text);
    else
        buffer_append_string(body, "null");
    buffer_append_string(body, ",\"message\":\"the batch is durable and will be applied\"}");
    return 200;
}

/* Appends the group of a task. On failure the task is still there. */
static int append_group(struct points_api *api, struct http_request *r, struct points_collection *c,
                        struct api_batch *b, struct bulk_task *task, lsn_t *ret_last,
                        int *ret_condition) {
    lsn_t first;
    struct api_written *written = api_written_new(r);
    const char *id = arena_copy_string(http_arena(r), bytes_of_string(bulk_task_id(task)));
    if (!written || !id)
        return error_origin(-ENOMEM);
    written->text = id;
    int result = encode_end(b, task);
    if (result)
        return error_trace(result);
    return error_trace(api_append(api, c, b, &first, ret_last, ret_condition));
}

static void write_group(struct points_api *api, struct http_request *r, struct points_collection *c,
                        struct api_batch *b) {
    struct bulk_task *task;
    lsn_t last = 0;
    int condition = 0;
    int result = bulk_task_begin(api->tasks, "alioth_ingest", c->name, c->incarnation, &task);
    if (result) {
        api_fail(r, error_fold(result), NULL);
        return;
    }
    result = append_group(api, r, c, b, task, &last, &condition);
    if (result)
        bulk_task_abandon(task);
    else
        bulk_task_ended(task, last);
    if (result)
        api_fail_append(r, c, result, condition);
    else
        api_await(api, r, last, last, 0, false, 0, render_ingest);
}

static void ingest(void *context, struct http_request *r) {
    struct points_api *api = context;
    struct ingest i;
    struct api_fault f;
    int result = parse(r, &i, &f);
    if (result) {
        api_fail(r, result, &f);
        return;
    }
    CLEANUP(api_collection_unref)
    struct points_collection *c = api_find_collection(api, i.name);
    if (!c) {
        api_unknown_collection(api, r, i.name, ingest);
        return;
    }
    CLEANUP(api_batch_deinit) struct api_batch b;
    api_batch_init(&b, c, api->work, http_scratch(r));
    result = api_batch_columns(&b, http_json_parser(r), i.batch, &f);
    if (result == 0 && b.n == 0)
        result = api_fault_set(&f, API_FAULT_RANGE, "batch", "`batch` holds no points");
    if (result)
        api_fail(r, result, &f);
    else if (api->follow) /* nobody but this process would know the task */
        api_write(api, r, c, &b, false, 0, render_ingest);
    else
        write_group(api, r, c, &b);
}

static const struct http_route routes[] = {
    {.method = HTTP_GET,
     .path = "/alioth/",
     .handler = get_root,
     .style = HTTP_STYLE_MILLRACE,
     .tag = "Alioth",
     .summary = "Name, description and version",
     .answer = "{status_code: integer, name: string, description: string, version: string}",
     .query = ""},
    {.method = HTTP_POST,
     .path = "/alioth/ingest",
     .handler = ingest,
     .flags = HTTP_ROUTE_WRITES,
     .style = HTTP_STYLE_MILLRACE,
     .tag = "Alioth",
     .summary = "Takes a batch of points; workers apply it",
     .request = "{collection_name!: string = \"movies\", batch!: Batch}",
     .answer = "{status_code: integer, task_id: string?, message: string}",
     .query = ""},
};

struct http_route_table api_alioth_routes(struct points_api *api) {
    return (struct http_route_table){
        .routes = routes, .n = ARRAY_LENGTH(routes), .context = api, .journal = api->journal};
}
