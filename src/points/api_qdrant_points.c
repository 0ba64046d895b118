/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Qdrant's routes of points: writing (upsert, delete) and reading by id, by page, by count. Writes
 * and short reads are done on the loop; long reads go to a query thread, which parses the body
 * itself, so that a request is parsed once.
 */
#include "points/api_pass.h"

#include <errno.h>
#include <stdlib.h>

enum {
    SCROLL_LIMIT_DEFAULT = 10,
    IDS_MAX = 1000000, /* of one request */
    SCROLL_PAGE = 256, /* rows taken from the store at a time */
    INLINE_IDS_MAX = 16,
    INLINE_BODY_MAX = 4096, /* a longer body of retrieve has more ids than that */
};

/* ---- Writing ---- */

static unsigned render_update(struct http_request *r, enum http_write_outcome outcome,
                              struct buffer *body) {
    const struct api_written *written = http_state(r);
    buffer_append_string(body, "{\"result\":{\"operation_id\":");
    json_append_u64(body, written->lsn);
    buffer_append_string(body, outcome == HTTP_WRITE_VISIBLE ? ",\"status\":\"completed\"}"
                                                             : ",\"status\":\"acknowledged\"}");
    buffer_append_string(body, ",\"status\":\"ok\",\"time\":");
    json_append_double(body, http_elapsed(r));
    buffer_append_string(body, "}");
    return 200;
}

static int check_empty(const struct api_batch *b, struct api_fault *f) {
    if (b->n)
        return 0;
    return api_fault_set(f, API_FAULT_EMPTY, "points", "Empty update request");
}

/* Fields of an upsert beside the points: read, so that they are JSON, and refused where leaving
 * them out would change what happens. */
static int check_extra(struct json_parser *parser, struct bytes key, struct bytes value,
                       struct api_fault *f) {
    struct json_value v;
    struct bytes text;
    int r = json_parse(parser, value, &v);
    if (r)
        return api_fault_json(f, r, "a field of the body");
    if (json_type_of(v) == JSON_NULL)
        return 0;
    if (bytes_equal(key, BYTES_LITERAL("update_filter")))
        return api_fault_set(f, API_FAULT_INPUT, "update_filter",
                             "`update_filter` is not supported yet");
    if (bytes_equal(key, BYTES_LITERAL("update_mode")) &&
        !(json_get_string(v, &text) && bytes_equal(text, BYTES_LITERAL("upsert"))))
        return api_fault_set(f, API_FAULT_INPUT, "update_mode",
                             "only the update mode `upsert` is supported yet");
    return 0;
}

/* The body's two forms: {"points":[…]} and {"batch":{…}}. */
static int encode_upsert(struct http_request *r, struct api_batch *b, struct api_fault *f) {
    struct json_parser *parser = http_json_parser(r);
    struct json_members members;
    struct bytes key, value;
    bool given = false;
    int result = json_members_init(&members, http_body(r));
    if (result || !members.object)
        return api_fault_set(f, API_FAULT_SYNTAX, NULL, "the body must be a JSON object");
    while ((result = json_members_next(&members, &key, &value)) == 0) {
        bool list = bytes_equal(key, BYTES_LITERAL("points"));
        bool columns = bytes_equal(key, BYTES_LITERAL("batch"));
        if ((list || columns) && given)
            return api_fault_set(f, API_FAULT_FORMAT, "points",
                                 "`points` and `batch` may be given once in all");
        given |= list || columns;
        if (list)
            result = api_batch_list(b, parser, value, f);
        else if (columns)
            result = api_batch_columns(b, parser, value, f);
        else
            result = check_extra(parser, key, value, f);
        if (result)
            return error_trace(result);
    }
    if (result != JSON_SPLIT_E_END)
        return api_fault_split(f, result, "the body");
    return given ? check_empty(b, f) : api_fault_missing(f, "points");
}

static int encode_ids(struct json_value ids, struct api_batch *b, struct api_fault *f) {
    struct json_iterator it = json_iterate(ids);
    struct json_value v;
    struct point_id id;
    if (json_type_of(ids) != JSON_ARRAY)
        return api_fault_set(f, API_FAULT_FORMAT, "points", "`points` must be an array of ids");
    while (json_next(&it, NULL, &v)) {
        int r = api_get_id(v, &id, f);
        if (r == 0)
            r = api_batch_delete(b, id);
        if (r)
            return error_trace(r);
    }
    return check_empty(b, f);
}

static int encode_delete(struct http_request *r, struct api_batch *b, struct api_fault *f) {
    struct json_value body, v;
    int result = api_parse_object(r, &body, f);
    if (result)
        return error_trace(result);
    if (api_given(body, "filter", &v))
        return api_fault_set(f, API_FAULT_INPUT, "filter",
                             "deleting by filter is not supported yet; give the ids as `points`");
    if (!api_given(body, "points", &v))
        return api_fault_missing(f, "points");
    return error_trace(encode_ids(v, b, f));
}

/* Who keeps the points here has them in one place, and need not know. */
static int get_ordering(struct http_request *r, enum point_ordering *ret, struct api_fault *f) {
    struct bytes text;
    if (!http_query_parameter(r, "ordering", &text) || point_ordering_from_text(text, ret))
        return 0;
    return api_fault_set(f, API_FAULT_INPUT, "ordering",
                         "`ordering` must be weak, medium or strong");
}

/* What upsert and delete share: nothing is appended before everything is right. */
static void write_points(struct points_api *api, struct http_request *r, http_handler handler,
                         int (*encode)(struct http_request *r, struct api_batch *b,
                                       struct api_fault *f)) {
    struct bytes name = http_path_parameter(r, "name");
    CLEANUP(api_collection_unref)
    struct points_collection *c = api_find_collection(api, name);
    if (!c) {
        api_unknown_collection(api, r, name, handler);
        return;
    }
    CLEANUP(api_batch_deinit) struct api_batch b;
    struct api_fault f;
    uint64_t timeout_ms = 0;
    api_batch_init(&b, c, api->work, http_scratch(r));
    int result = api_get_timeout_ms(r, &timeout_ms, &f);
    if (result == 0 && api->cluster)
        result = get_ordering(r, &b.ordering, &f);
    if (result == 0)
        result = encode(r, &b, &f);
    if (result)
        api_fail(r, result, &f);
    else
        api_write(api, r, c, &b, http_query_flag(r, "wait", false), timeout_ms, render_update);
}

static void upsert_points(void *context, struct http_request *r) {
    write_points(context, r, upsert_points, encode_upsert);
}

/* What only a cluster can do. */
static bool deletes_by_filter(struct http_request *r) {
    struct json_value body, v;
    struct api_fault f;
    return api_parse_object(r, &body, &f) == 0 && api_given(body, "filter", &v);
}

static void delete_points(void *context, struct http_request *r) {
    struct points_api *api = context;
    if (api->cluster && deletes_by_filter(r))
        api_pass_write(api, r);
    else
        write_points(api, r, delete_points, encode_delete);
}

/* ---- By id ---- */

static void get_point(void *context, struct http_request *r) {
    CLEANUP(api_reading_deinit) struct api_reading g;
    struct bytes text = http_path_parameter(r, "id");
    struct point_id id;
    struct point_row row;
    if (!api_reading_init(&g, context, r))
        return;
    if (!point_id_from_text(text, &id)) {
        http_fail(r, HTTP_ERROR_BAD_REQUEST, "id",
                  "Wrong input: Can not recognize \"%s\" as point id", api_text_of(text).text);
        return;
    }
    int result = points_view_get(g.view, id, &row);
    if (result == POINTS_E_NOT_FOUND) {
        http_fail(r, HTTP_ERROR_NOT_FOUND, "id", "Not found: Point with id %s does not exists!",
                  api_text_of(text).text);
        return;
    }
    if (result == 0)
        api_record_append(&g.out, &g.collection->config, &row, &api_selector_whole,
                          http_json_parser(r));
    api_reading_answer(&g, r, error_fold(result));
}

/* The ids are taken out of the parsed body first: rendering may parse payloads. */
static int parse_ids(struct api_reading *g, struct json_value body, struct point_id **ret_ids,
                     size_t *ret_n) {
    struct json_value list, v;
    size_t n = 0;
    if (!api_given(body, "ids", &list))
        return api_fault_missing(&g->fault, "ids");
    if (json_type_of(list) != JSON_ARRAY)
        return api_fault_set(&g->fault, API_FAULT_FORMAT, "ids", "`ids` must be an array");
    if (json_size(list) > IDS_MAX)
        return api_fault_set(&g->fault, API_FAULT_INPUT, "ids", "at most %d ids at a time",
                             IDS_MAX);
    struct point_id *ids = arena_calloc(&g->arena, json_size(list) + 1, sizeof *ids);
    if (!ids)
        return error_origin(-ENOMEM);
    struct json_iterator it = json_iterate(list);
    while (json_next(&it, NULL, &v)) {
        int r = api_get_id(v, &ids[n++], &g->fault);
        if (r)
            return error_trace(r);
    }
    *ret_ids = ids;
    *ret_n = n;
    return 0;
}

/* Ids that are not there are left out. A damaged row is an error: silence would be a lie. */
static int append_points(struct api_reading *g, const struct point_id *ids, size_t n,
                         const struct api_selector *selector, struct json_parser *parser) {
    struct point_row row;
    const char *comma = "";
    buffer_append_string(&g->out, "[");
    for (size_t i = 0; i < n; i++) {
        int r = points_view_get(g->view, ids[i], &row);
        if (r == POINTS_E_NOT_FOUND)
            continue;
        if (r)
            return error_fold(r);
        buffer_append_string(&g->out, comma);
        api_record_append(&g->out, &g->collection->config, &row, selector, parser);
        r = api_check_answer(g);
        if (r)
            return error_trace(r);
        comma = ",";
    }
    buffer_append_string(&g->out, "]");
    return 0;
}

static int retrieve(struct api_reading *g, struct http_request *r) {
    struct json_value body;
    struct api_selector selector;
    struct point_id *ids = NULL;
    size_t n = 0;
    int result = api_parse_object(r, &body, &g->fault);
    if (result == 0)
        result = parse_ids(g, body, &ids, &n);
    if (result == 0)
        result =
            api_selector_parse(body, true, &g->collection->config, &g->arena, &selector, &g->fault);
    if (result)
        return error_trace(result);
    return error_trace(append_points(g, ids, n, &selector, http_json_parser(r)));
}

static void retrieve_job(void *context, struct http_request *r) {
    CLEANUP(api_reading_deinit) struct api_reading g;
    if (api_reading_init(&g, context, r))
        api_reading_answer(&g, r, retrieve(&g, r));
}

/* Few enough ids to look them up on the loop. */
static bool few_ids(struct http_request *r) {
    struct json_value root, ids;
    return http_body(r).size <= INLINE_BODY_MAX &&
           json_parse(http_json_parser(r), http_body(r), &root) == 0 &&
           (!json_find(root, "ids", &ids) || json_size(ids) <= INLINE_IDS_MAX);
}

static void retrieve_points(void *context, struct http_request *r) {
    if (few_ids(r))
        retrieve_job(context, r);
    else
        http_offload(r, retrieve_job, context);
}

/* ---- By page ---- */

struct scroll {
    struct api_selector selector;
    struct point_id from;
    bool has_from;
    uint64_t limit;
};

static int parse_scroll(struct api_reading *g, struct http_request *r, struct scroll *s) {
    struct json_value body, v;
    struct api_fault *f = &g->fault;
    *s = (struct scroll){.limit = SCROLL_LIMIT_DEFAULT};
    int result = api_parse_object(r, &body, f);
    if (result == 0)
        result = api_check_filter(body, f);
    if (result == 0)
        result = api_get_size(body, "limit", 1, UINT64_MAX, &s->limit, f);
    if (result == 0 && api_given(body, "offset", &v)) {
        s->has_from = true;
        result = api_get_id(v, &s->from, f);
    }
    if (result == 0 && api_given(body, "order_by", &v))
        result = api_fault_set(f, API_FAULT_INPUT, "order_by", "`order_by` is not supported yet");
    if (result == 0)
        result = api_selector_parse(body, true, &g->collection->config, &g->arena, &s->selector, f);
    return error_trace(result);
}

/* One page after the other, each held only while it is written. */
static int append_pages(struct api_reading *g, struct scroll *s, struct point_row *rows,
                        bool *ret_more, struct json_parser *parser) {
    const char *comma = "";
    bool more = true;
    while (more && s->limit) {
        size_t n = 0, want = s->limit < SCROLL_PAGE ? (size_t)s->limit : SCROLL_PAGE;
        int r = points_view_scroll(g->view, s->has_from ? &s->from : NULL, want, rows, &n, &s->from,
                                   &more);
        if (r)
            return error_fold(r);
        for (size_t i = 0; i < n; i++) {
            buffer_append_string(&g->out, comma);
            api_record_append(&g->out, &g->collection->config, &rows[i], &s->selector, parser);
            comma = ",";
        }
        r = api_check_answer(g);
        if (r)
            return error_trace(r);
        s->has_from = true;
        s->limit -= n;
    }
    *ret_more = more;
    return 0;
}

static int scroll(struct api_reading *g, struct http_request *r) {
    struct scroll s;
    bool more = false;
    int result = parse_scroll(g, r, &s);
    if (result)
        return error_trace(result);
    struct point_row *rows = arena_calloc(&g->arena, SCROLL_PAGE, sizeof *rows);
    if (!rows)
        return error_origin(-ENOMEM);
    buffer_append_string(&g->out, "{\"points\":[");
    result = append_pages(g, &s, rows, &more, http_json_parser(r));
    if (result)
        return error_trace(result);
    buffer_append_string(&g->out, "],\"next_page_offset\":");
    if (more)
        point_id_append_json(&g->out, s.from);
    else
        buffer_append_string(&g->out, "null");
    buffer_append_string(&g->out, "}");
    return 0;
}

static void scroll_job(void *context, struct http_request *r) {
    CLEANUP(api_reading_deinit) struct api_reading g;
    if (api_reading_init(&g, context, r))
        api_reading_answer(&g, r, scroll(&g, r));
}

static void scroll_points(void *context, struct http_request *r) {
    http_offload(r, scroll_job, context);
}

/* ---- By count ---- */

static int count(struct api_reading *g, struct http_request *r) {
    struct json_value body;
    bool exact;
    int result = api_parse_object(r, &body, &g->fault);
    if (result == 0)
        result = api_check_filter(body, &g->fault);
    if (result == 0)
        result = api_get_flag(body, "exact", &exact, &g->fault);
    if (result)
        return error_trace(result);
    buffer_append_string(&g->out, "{\"count\":");
    json_append_u64(&g->out, points_view_count(g->view));
    buffer_append_string(&g->out, "}");
    return 0;
}

static void count_points(void *context, struct http_request *r) {
    CLEANUP(api_reading_deinit) struct api_reading g;
    if (api_reading_init(&g, context, r))
        api_reading_answer(&g, r, count(&g, r));
}

/* ---- Routes ---- */

static const struct http_route routes[] = {
    {.method = HTTP_PUT,
     .path = "/collections/{name}/points",
     .handler = upsert_points,
     .flags = HTTP_ROUTE_WRITES,
     .style = HTTP_STYLE_QDRANT,
     .tag = "Points",
     .summary = "Inserts or replaces points, as one atomic write",
     .request = "{points!: [Point]} | {batch!: Batch}",
     .answer = QDRANT("Update"),
     .query = QDRANT_NAME ", " QDRANT_WAIT},
    {.method = HTTP_POST,
     .path = "/collections/{name}/points/delete",
     .handler = delete_points,
     .flags = HTTP_ROUTE_WRITES,
     .style = HTTP_STYLE_QDRANT,
     .tag = "Points",
     .summary = "Deletes points by id, as one atomic write",
     .request = "{points!: [Id]}",
     .answer = QDRANT("Update"),
     .query = QDRANT_NAME ", " QDRANT_WAIT},
    {.method = HTTP_GET,
     .path = "/collections/{name}/points/{id}",
     .handler = get_point,
     .style = HTTP_STYLE_QDRANT,
     .tag = "Points",
     .summary = "One point by its id",
     .answer = QDRANT("Record"),
     .query = QDRANT_NAME ", "
                          "id: Id = 1"
                          ", " QDRANT_CONSISTENCY},
    {.method = HTTP_POST,
     .path = "/collections/{name}/points",
     .handler = retrieve_points,
     .style = HTTP_STYLE_QDRANT,
     .tag = "Points",
     .summary = "Several points by their ids; those that are not there are left out",
     .request = "{ids!: [Id], with_payload: any = true, with_vector: any = false}",
     .answer = QDRANT("[Record]"),
     .query = QDRANT_NAME ", " QDRANT_CONSISTENCY ", " QDRANT_TIMEOUT},
    {.method = HTTP_POST,
     .path = "/collections/{name}/points/scroll",
     .handler = scroll_points,
     .style = HTTP_STYLE_QDRANT,
     .tag = "Points",
     .summary = "A page of points in the order of ids",
     .request = "{offset: Id, limit: uint, with_payload: any = true, with_vector: any = false}",
     .answer = QDRANT("{points: [Record], next_page_offset: Id?}"),
     .query = QDRANT_NAME ", " QDRANT_CONSISTENCY ", " QDRANT_TIMEOUT},
    {.method = HTTP_POST,
     .path = "/collections/{name}/points/count",
     .handler = count_points,
     .style = HTTP_STYLE_QDRANT,
     .tag = "Points",
     .summary = "How many points there are; always exact",
     .request = "{exact: boolean}",
     .answer = QDRANT("{count: uint}"),
     .query = QDRANT_NAME ", " QDRANT_TIMEOUT},
};

struct http_route_table api_qdrant_points_routes(struct points_api *api) {
    const struct http_route_table table = {
        .routes = routes, .n = ARRAY_LENGTH(routes), .context = api, .journal = api->journal};
    return api_passing(api, table);
}
