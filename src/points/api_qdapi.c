/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The qdapi routes, as that service has them. A write is answered once it is visible; every field
 * of an upsert that is not id, collectionName or vector is payload.
 */
#include "points/api_pass.h"

#include <errno.h>
#include <math.h>

enum { VECTOR_SIZE_DEFAULT = 100 };

static void respond(struct http_request *r, struct buffer *out) {
    buffer_append_string(out, "}");
    int result = buffer_check(out);
    if (result)
        api_fail(r, result, NULL);
    else
        http_respond(r, 200, NULL, buffer_bytes(out));
}

static void begin_result(struct buffer *out) {
    buffer_append_string(out, "{\"status\":\"ok\",\"result\":");
}

static unsigned render_true(struct http_request *r, enum http_write_outcome outcome,
                            struct buffer *body) {
    (void)r;
    (void)outcome; /* the catalog changed at once */
    buffer_append_string(body, "{\"status\":\"ok\",\"result\":true}");
    return 200;
}

/* ---- GET /all ---- */

/* References are taken under the catalog's lock, and looked at after it. */
static void collect(void *context, struct points_collection *c) {
    struct buffer *list = context;
    points_collection_ref(c);
    buffer_append(list, &c, sizeof c);
    if (list->failed)
        points_collection_unref(c);
}

static int append_state(struct points_api *api, struct points_collection *c, struct buffer *out) {
    struct points_view *view;
    int r = points_view_new(api->store, c, &view);
    if (r)
        return error_fold(r);
    buffer_append_string(out, "{\"name\":");
    json_append_cstring(out, c->name);
    buffer_append_string(out, ",\"status\":\"green\",\"points_count\":");
    json_append_u64(out, points_view_count(view));
    buffer_append_string(out, "}");
    points_view_free(view);
    return 0;
}

/* ---- The same, of a cluster ---- */

static int append_state_there(struct points_api *api, struct json_parser *parser, struct bytes name,
                              struct buffer *out) {
    struct qdrant_reply reply = {.body = BUFFER_INIT};
    struct json_value v, points;
    struct bytes status = BYTES_LITERAL("unknown");
    uint64_t n = 0;
    int r = api_cluster_get(api, "/collections/", name, &reply);
    if (!r && !buffer_reserve(&reply.body, JSON_PADDING))
        r = error_origin(-ENOMEM);
    if (!r && json_parse(parser, buffer_bytes(&reply.body), &v) == 0 &&
        json_find(v, "result", &v) && json_find(v, "points_count", &points)) {
        (void)json_get_u64(points, &n);
        if (json_find(v, "status", &v))
            (void)json_get_string(v, &status);
    }
    buffer_append_string(out, "{\"name\":");
    json_append_string(out, name);
    buffer_append_string(out, ",\"status\":");
    json_append_string(out, status);
    buffer_append_string(out, ",\"points_count\":");
    json_append_u64(out, n);
    buffer_append_string(out, "}");
    qdrant_reply_deinit(&reply);
    return error_trace(r);
}

/* The names are copied: one parser reads the list, and then each of its collections. */
static int list_names(struct http_request *r, struct buffer *body, struct bytes **ret_names,
                      size_t *ret_n) {
    struct json_value list, v;
    if (!buffer_reserve(body, JSON_PADDING))
        return error_origin(-ENOMEM);
    if (json_parse(http_json_parser(r), buffer_bytes(body), &list) ||
        !json_find(list, "result", &list) || !json_find(list, "collections", &list) ||
        json_type_of(list) != JSON_ARRAY) {
        *ret_n = 0;
        return 0;
    }
    struct json_iterator it = json_iterate(list);
    struct bytes *names = arena_calloc(http_arena(r), json_size(list) + 1, sizeof *names);
    size_t n = 0;
    while (names && json_next(&it, NULL, &v)) {
        struct bytes name;
        if (!json_find(v, "name", &v) || !json_get_string(v, &name))
            continue;
        const char *copy = arena_copy_string(http_arena(r), name);
        if (!copy)
            return error_origin(-ENOMEM);
        names[n++] = bytes_of(copy, name.size);
    }
    *ret_names = names;
    *ret_n = n;
    return names ? 0 : error_origin(-ENOMEM);
}

static void all_job(void *context, struct http_request *r) {
    struct points_api *api = context;
    struct qdrant_reply reply = {.body = BUFFER_INIT};
    struct buffer *out = http_scratch(r);
    struct bytes *names = NULL;
    size_t n = 0;
    int result = api_cluster_get(api, "/collections", BYTES_LITERAL(""), &reply);
    if (!result)
        result = list_names(r, &reply.body, &names, &n);
    begin_result(out);
    buffer_append_string(out, "[");
    for (size_t i = 0; !result && i < n; i++) {
        buffer_append_string(out, i ? "," : "");
        result = append_state_there(api, http_json_parser(r), names[i], out);
    }
    buffer_append_string(out, "]");
    if (result)
        api_fail_cluster(r, result, &reply);
    else
        respond(r, out);
    qdrant_reply_deinit(&reply);
}

static void all(void *context, struct http_request *r) {
    struct points_api *api = context;
    if (api->cluster) {
        http_offload_waiting(r, all_job, api);
        return;
    }
    CLEANUP(buffer_deinit) struct buffer list = BUFFER_INIT;
    struct buffer *out = http_scratch(r);
    points_catalog_each(api->catalog, collect, &list);
    struct points_collection **collections = (void *)list.data;
    int result = buffer_check(&list);
    begin_result(out);
    buffer_append_string(out, "[");
    for (size_t i = 0; i < list.size / sizeof *collections; i++) {
        buffer_append_string(out, i ? "," : "");
        if (result == 0)
            result = append_state(api, collections[i], out);
        points_collection_unref(collections[i]);
    }
    buffer_append_string(out, "]");
    if (result)
        api_fail(r, result, NULL);
    else
        respond(r, out);
}

/* ---- POST /all ---- */

static int parse_replicas(struct json_value body, const char *key, enum point_setting setting,
                          struct point_config *config, struct api_fault *f) {
    uint64_t n = 0;
    int r = api_get_size(body, key, 1, 1000000, &n, f);
    if (r)
        return error_trace(r);
    if (n) {
        config->settings[setting] = (double)n;
        config->settings_given |= 1u << setting;
    }
    return 0;
}

static int parse_config(struct json_value body, struct point_config *config, struct api_fault *f) {
    struct json_value v;
    struct bytes text;
    uint64_t size = VECTOR_SIZE_DEFAULT;
    *config = (struct point_config){.n_vectors = 1};
    int r = api_get_size(body, "vectorSize", 1, POINT_DIMENSION_MAX, &size, f);
    if (r == 0)
        r = parse_replicas(body, "shards", POINT_SETTING_SHARDS, config, f);
    if (r == 0)
        r = parse_replicas(body, "replicas", POINT_SETTING_REPLICATION, config, f);
    if (r)
        return error_trace(r);
    if (api_given(body, "distance", &v) &&
        !(json_get_string(v, &text) && api_distance_from_text(text, &config->vectors[0].distance)))
        return api_fault_set(f, API_FAULT_FORMAT, "distance",
                             "`distance` must be Cosine, Dot, Euclid or Manhattan");
    config->vectors[0].dimension = (uint32_t)size;
    point_config_finish(config);
    return 0;
}

/* What Qdrant's own route would have been sent. */
static void create_there(struct points_api *api, struct http_request *r, struct bytes name,
                         const struct point_config *config) {
    static const struct {
        enum point_setting setting;
        const char *name;
    } settings[] = {{POINT_SETTING_SHARDS, "shard_number"},
                    {POINT_SETTING_REPLICATION, "replication_factor"}};
    struct buffer *body = http_scratch(r);
    buffer_append_format(body, "{\"vectors\":{\"size\":%u,\"distance\":\"%s\"}",
                         config->vectors[0].dimension,
                         point_distance_names[config->vectors[0].distance]);
    for (size_t i = 0; i < ARRAY_LENGTH(settings); i++)
        if (config->settings_given & 1u << settings[i].setting)
            buffer_append_format(body, ",\"%s\":%.0f", settings[i].name,
                                 config->settings[settings[i].setting]);
    buffer_append_string(body, "}");
    const struct api_change change = {
        .name = name, .body = buffer_bytes(body), .config = config, .render = render_true};
    int result = buffer_check(body);
    if (result)
        api_fail(r, result, NULL);
    else
        api_pass_create(api, r, &change);
}

static void create(void *context, struct http_request *r) {
    struct points_api *api = context;
    struct json_value body;
    struct point_config config;
    struct api_fault f;
    struct bytes name;
    lsn_t lsn = 0;
    int condition = 0;
    int result = api_parse_object(r, &body, &f);
    if (result == 0)
        result = api_get_text(body, "collectionName", &name, &f);
    if (result == 0)
        result = api_name_check(name, "collectionName", &f);
    if (result == 0)
        result = parse_config(body, &config, &f);
    if (result) {
        api_fail(r, result, &f);
        return;
    }
    if (api->cluster) {
        create_there(api, r, name, &config);
        return;
    }
    result = points_catalog_create(api->catalog, api->journal, name, &config, &lsn, &condition);
    if (result == 0)
        api_await(api, r, lsn, lsn, 0, false, 0, render_true);
    else if (result == POINTS_E_EXISTS)
        http_fail(r, HTTP_ERROR_EXISTS, "collectionName", "collection `%s` exists already",
                  api_text_of(name).text);
    else if (result == POINTS_E_JOURNAL)
        http_fail_journal(r, condition);
    else
        api_fail(r, error_fold(result), NULL);
}

/* ---- POST /upsert ---- */

static bool reserved(struct bytes key) {
    return bytes_equal(key, BYTES_LITERAL("id")) ||
           bytes_equal(key, BYTES_LITERAL("collectionName")) ||
           bytes_equal(key, BYTES_LITERAL("vector"));
}

/* The other fields, as an object. Its duplicates are still there: the parser that reads it again
 * keeps the last. */
static int rest_as_payload(struct json_value body, struct buffer *text) {
    struct json_iterator it = json_iterate(body);
    struct json_value v;
    struct bytes key;
    buffer_append_string(text, "{");
    while (json_next(&it, &key, &v)) {
        if (reserved(key))
            continue;
        buffer_append_string(text, text->size > 1 ? "," : "");
        json_append_string(text, key);
        buffer_append_string(text, ":");
        json_append_value(text, v);
    }
    buffer_append_string(text, "}");
    return buffer_reserve(text, JSON_PADDING) ? error_trace(buffer_check(text))
                                              : error_origin(-ENOMEM);
}

/* Vector and id are taken before the parser is used for the payload. */
static int encode(struct http_request *r, struct json_value body, struct point_id id,
                  struct api_batch *b, struct api_fault *f) {
    CLEANUP(buffer_deinit) struct buffer text = BUFFER_INIT;
    struct json_value v;
    int result = api_batch_begin(b);
    if (result == 0 && api_given(body, "vector", &v))
        result = api_batch_vectors(b, v, f);
    if (result == 0)
        result = rest_as_payload(body, &text);
    if (result)
        return error_trace(result);
    result = json_parse(http_json_parser(r), buffer_bytes(&text), &v);
    if (result)
        return api_fault_json(f, result, "the payload");
    if (json_size(v) > 0)
        result = api_batch_payload(b, v, f);
    return result ? error_trace(result) : error_trace(api_batch_end(b, id, f));
}

static unsigned render_upsert(struct http_request *r, enum http_write_outcome outcome,
                              struct buffer *body) {
    const struct api_written *written = http_state(r);
    buffer_append_string(body, "{\"status\":\"ok\",\"result\":{\"operation_id\":");
    json_append_u64(body, written->lsn);
    buffer_append_string(body, outcome == HTTP_WRITE_VISIBLE ? ",\"status\":\"completed\"}}"
                                                             : ",\"status\":\"acknowledged\"}}");
    return 200;
}

/* What /upsert and /data/id begin with. */
static int parse_key(struct http_request *r, struct json_value *ret_body, struct bytes *ret_name,
                     struct point_id *ret_id, struct api_fault *f) {
    struct json_value v;
    int result = api_parse_point(r, ret_body, f);
    if (result == 0)
        result = api_get_text(*ret_body, "collectionName", ret_name, f);
    if (result)
        return error_trace(result);
    return api_given(*ret_body, "id", &v) ? error_trace(api_get_id(v, ret_id, f))
                                          : api_fault_missing(f, "id");
}

static void upsert(void *context, struct http_request *r) {
    struct points_api *api = context;
    struct json_value body;
    struct point_id id;
    struct bytes name;
    struct api_fault f;
    int result = parse_key(r, &body, &name, &id, &f);
    if (result) {
        api_fail(r, result, &f);
        return;
    }
    CLEANUP(api_collection_unref)
    struct points_collection *c = api_find_collection(api, name);
    if (!c) {
        api_unknown_collection(api, r, name, upsert);
        return;
    }
    CLEANUP(api_batch_deinit) struct api_batch b;
    api_batch_init(&b, c, api->work, http_scratch(r));
    result = encode(r, body, id, &b, &f);
    if (result)
        api_fail(r, result, &f);
    else
        api_write(api, r, c, &b, true, 0, render_upsert);
}

/* ---- POST /data/id ---- */

struct wanted {
    struct points_api *api;
    const char *path; /* of the collection, up to the id */
    char id[64];
};

/* The answer has Qdrant's envelope, which is this route's with a time in it. */
static void get_job(void *context, struct http_request *r) {
    struct wanted *w = context;
    struct qdrant_reply reply = {.body = BUFFER_INIT};
    int result = api_cluster_get(w->api, w->path, bytes_of_string(w->id), &reply);
    if (result)
        api_fail_cluster(r, result, &reply);
    else if (reply.status == 200)
        http_respond(r, 200, NULL, buffer_bytes(&reply.body));
    else
        http_fail(r, HTTP_ERROR_NOT_FOUND, "id", "no point of that id in that collection");
    qdrant_reply_deinit(&reply);
}

static void get_there(struct points_api *api, struct http_request *r, struct bytes name,
                      struct point_id id) {
    struct wanted *w = arena_calloc(http_arena(r), 1, sizeof *w);
    CLEANUP(buffer_deinit) struct buffer path = BUFFER_INIT;
    struct buffer *text = http_scratch(r);
    buffer_append_string(&path, "/collections/");
    http_segment_append(name, &path);
    buffer_append_string(&path, "/points/");
    point_id_append_json(text, id);
    struct bytes bare = buffer_bytes(text);
    if (id.uuid) /* without its quotes */
        bare = bytes_of(bare.data + 1, bare.size - 2);
    if (w)
        w->path = arena_copy_string(http_arena(r), buffer_bytes(&path));
    if (!w || !w->path || path.failed || text->failed || bare.size >= sizeof w->id) {
        api_fail(r, -ENOMEM, NULL);
        return;
    }
    w->api = api;
    memcpy(w->id, bare.data, bare.size);
    http_offload_waiting(r, get_job, w);
}

static void data_by_id(void *context, struct http_request *r) {
    CLEANUP(api_reading_deinit) struct api_reading g = {0};
    struct points_api *api = context;
    struct json_value body;
    struct point_row row;
    struct point_id id;
    struct bytes name;
    int result = parse_key(r, &body, &name, &id, &g.fault);
    if (result) {
        api_fail(r, result, &g.fault);
        return;
    }
    if (api->cluster) {
        get_there(api, r, name, id);
        return;
    }
    result = api_reading_open(&g, api, name);
    if (result == POINTS_E_NOT_FOUND) {
        api_fail_collection(r, name);
        return;
    }
    if (result == 0)
        result = points_view_get(g.view, id, &row);
    if (result == POINTS_E_NOT_FOUND) {
        http_fail(r, HTTP_ERROR_NOT_FOUND, "id", "no point of that id in `%s`",
                  api_text_of(name).text);
        return;
    }
    if (result) {
        api_fail(r, error_fold(result), NULL);
        return;
    }
    begin_result(&g.out);
    api_record_append(&g.out, &g.collection->config, &row, &api_selector_whole,
                      http_json_parser(r));
    respond(r, &g.out);
}

/* ---- DELETE /collection/delete ---- */

static void drop(void *context, struct http_request *r) {
    struct points_api *api = context;
    struct json_value body;
    struct bytes name;
    struct api_fault f;
    lsn_t lsn = 0;
    int condition = 0;
    int result = api_parse_object(r, &body, &f);
    if (result == 0)
        result = api_get_text(body, "collectionName", &name, &f);
    if (result) {
        api_fail(r, result, &f);
        return;
    }
    if (api->cluster) {
        api_pass_drop(api, r, &(struct api_change){.name = name, .render = render_true});
        return;
    }
    result = api_drop(api, name, &lsn, &condition);
    if (result == 0)
        api_await(api, r, lsn, lsn, 0, false, 0, render_true);
    else if (result == POINTS_E_NOT_FOUND)
        api_fail_collection(r, name);
    else if (result == POINTS_E_JOURNAL)
        http_fail_journal(r, condition);
    else
        api_fail(r, error_fold(result), NULL);
}

/* ---- Routes ---- */

#define ANSWER(result) "{status: string = \"ok\", result: " result "}"

static const struct http_route routes[] = {
    {.method = HTTP_GET,
     .path = "/all",
     .handler = all,
     .style = HTTP_STYLE_MILLRACE,
     .tag = "qdapi",
     .summary = "Every collection's name and state",
     .answer = ANSWER("[{name: string, status: string, points_count: uint}]"),
     .query = ""},
    {.method = HTTP_POST,
     .path = "/all",
     .handler = create,
     .flags = HTTP_ROUTE_WRITES,
     .style = HTTP_STYLE_MILLRACE,
     .tag = "qdapi",
     .summary = "Creates a collection",
     .request = "{collectionName!: string = \"movies\", vectorSize: 1..65536 = 4, distance: string "
                "= \"Cosine\", "
                "shards: integer, replicas: integer}",
     .answer = ANSWER("boolean"),
     .query = ""},
    {.method = HTTP_POST,
     .path = "/upsert",
     .handler = upsert,
     .flags = HTTP_ROUTE_WRITES,
     .style = HTTP_STYLE_MILLRACE,
     .tag = "qdapi",
     .summary = "Inserts or replaces one point; every other field is payload",
     .request = "{id!: Id, collectionName!: string = \"movies\", vector: any = [0.1,0.2,0.3,0.4]}",
     .answer = ANSWER("{operation_id: uint, status: string}"),
     .query = ""},
    {.method = HTTP_POST,
     .path = "/data/id",
     .handler = data_by_id,
     .style = HTTP_STYLE_MILLRACE,
     .tag = "qdapi",
     .summary = "One point by its id",
     .request = "{id!: Id, collectionName!: string = \"movies\"}",
     .answer = ANSWER("Record"),
     .query = ""},
    {.method = HTTP_DELETE,
     .path = "/collection/delete",
     .handler = drop,
     .flags = HTTP_ROUTE_WRITES,
     .style = HTTP_STYLE_MILLRACE,
     .tag = "qdapi",
     .summary = "Drops a collection",
     .request = "{collectionName!: string = \"movies\"}",
     .answer = ANSWER("boolean"),
     .query = ""},
};

struct http_route_table api_qdapi_routes(struct points_api *api) {
    return (struct http_route_table){
        .routes = routes, .n = ARRAY_LENGTH(routes), .context = api, .journal = api->journal};
}
