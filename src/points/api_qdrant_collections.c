/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Qdrant's routes of collections. All is answered on the loop: the catalog and the store's counters
 * are in memory.
 */
#include "points/api_parts.h"
#include "points/api_schema.h"

#define VERSION_TOLD "1.18.2" /* clients compare it with their own */

static void get_root(void *context, struct http_request *r) {
    (void)context;
    http_respond(r, 200, NULL,
                 BYTES_LITERAL("{\"title\":\"qdrant - vector search engine\",\"version\":"
                               "\"" VERSION_TOLD "\",\"commit\":\"millrace " MILLRACE_VERSION
                               "\"}"));
}

/* ---- Looking ---- */

static void append_name(void *context, struct points_collection *c) {
    struct buffer *out = context;
    buffer_append_string(out, out->data[out->size - 1] == '[' ? "{\"name\":" : ",{\"name\":");
    json_append_cstring(out, c->name);
    buffer_append_string(out, "}");
}

static void list_collections(void *context, struct http_request *r) {
    struct points_api *api = context;
    struct buffer *out = http_scratch(r);
    buffer_append_string(out, "{\"collections\":[");
    if (!out->failed)
        points_catalog_each(api->catalog, append_name, out);
    buffer_append_string(out, "]}");
    int result = buffer_check(out);
    if (result)
        api_fail_qdrant(r, result, NULL);
    else
        http_respond_qdrant(r, buffer_bytes(out));
}

static int append_info(struct points_api *api, struct points_collection *c, struct buffer *out) {
    struct points_view *view;
    int r = points_view_new(api->store, c, &view);
    if (r)
        return error_fold(r);
    uint64_t points = points_view_count(view);
    points_view_free(view);
    buffer_append_format(out,
                         "{\"status\":\"green\",\"optimizer_status\":\"ok\","
                         "\"indexed_vectors_count\":0,\"points_count\":%llu,"
                         "\"segments_count\":%u,\"config\":",
                         (unsigned long long)points, points_store_lanes(api->store));
    api_config_append(out, &c->config);
    buffer_append_string(out, ",\"payload_schema\":{}}");
    return error_trace(buffer_check(out));
}

static void get_collection(void *context, struct http_request *r) {
    struct points_api *api = context;
    struct bytes name = http_path_parameter(r, "name");
    CLEANUP(api_collection_unref)
    struct points_collection *c = points_catalog_find(api->catalog, name);
    if (!c) {
        api_fail_collection_qdrant(r, name);
        return;
    }
    struct buffer *out = http_scratch(r);
    int result = append_info(api, c, out);
    if (result)
        api_fail_qdrant(r, result, NULL);
    else
        http_respond_qdrant(r, buffer_bytes(out));
}

static void collection_exists(void *context, struct http_request *r) {
    struct points_api *api = context;
    CLEANUP(api_collection_unref)
    struct points_collection *c = points_catalog_find(api->catalog, http_path_parameter(r, "name"));
    http_respond_qdrant(r, c ? BYTES_LITERAL("{\"exists\":true}")
                             : BYTES_LITERAL("{\"exists\":false}"));
}

/* ---- Changing ---- */

static unsigned render_true(struct http_request *r, enum http_write_outcome outcome,
                            struct buffer *body) {
    (void)outcome; /* the catalog changed at once */
    buffer_append_string(body, "{\"result\":true,\"status\":\"ok\",\"time\":");
    json_append_double(body, http_elapsed(r));
    buffer_append_string(body, "}");
    return 200;
}

static unsigned render_false(struct http_request *r, enum http_write_outcome outcome,
                             struct buffer *body) {
    (void)outcome;
    buffer_append_string(body, "{\"result\":false,\"status\":\"ok\",\"time\":");
    json_append_double(body, http_elapsed(r));
    buffer_append_string(body, "}");
    return 200;
}

static void create_collection(void *context, struct http_request *r) {
    struct points_api *api = context;
    struct bytes name = http_path_parameter(r, "name");
    struct point_config config;
    struct json_value body;
    struct api_fault f;
    lsn_t lsn = 0;
    int condition = 0;
    int result = api_name_check(name, "name", &f);
    if (result == 0)
        result = api_parse_object(r, &body, &f);
    if (result == 0)
        result = api_config_parse(body, &config, &f);
    if (result) {
        api_fail_qdrant(r, result, &f);
        return;
    }
    result = points_catalog_create(api->catalog, api->journal, name, &config, &lsn, &condition);
    if (result == 0)
        api_await(api, r, lsn, lsn, 0, false, 0, render_true);
    else if (result == POINTS_E_EXISTS)
        http_fail(r, HTTP_ERROR_EXISTS, NULL, "Wrong input: Collection `%s` already exists!",
                  api_text_of(name).text);
    else if (result == POINTS_E_JOURNAL)
        http_fail_journal(r, condition);
    else
        api_fail_qdrant(r, error_fold(result), NULL);
}

static void delete_collection(void *context, struct http_request *r) {
    struct points_api *api = context;
    lsn_t lsn = 0;
    int condition = 0;
    int result = api_drop(api, http_path_parameter(r, "name"), &lsn, &condition);
    if (result == 0)
        api_await(api, r, lsn, lsn, 0, false, 0, render_true);
    else if (result == POINTS_E_NOT_FOUND) /* once the drop before is durable */
        api_await(api, r, 0, points_catalog_lsn(api->catalog), 0, false, 0, render_false);
    else if (result == POINTS_E_JOURNAL)
        http_fail_journal(r, condition);
    else
        api_fail_qdrant(r, error_fold(result), NULL);
}

#define SCHEMA_VECTOR_CONFIG                                                                       \
    SCHEMA_REQUIRED(                                                                               \
        "\"size\",\"distance\"",                                                                   \
        SCHEMA_FIELD("size",                                                                       \
                     "{\"type\":\"integer\",\"minimum\":1,"                                        \
                     "\"maximum\":65536}") "," SCHEMA_FIELD("distance",                            \
                                                            "{\"type\":\"string\","                \
                                                            "\"enum\":[\"Cosine\","                \
                                                            "\"Dot\","                             \
                                                            "\"Euclid\",\"Manhattan\"]"            \
                                                            "}") "," SCHEMA_FIELD("on_"            \
                                                                                  "dis"            \
                                                                                  "k",             \
                                                                                  SCHEMA_BOOLEAN))

static const struct http_route routes[] = {
    {.method = HTTP_GET,
     .path = "/",
     .handler = get_root,
     .style = HTTP_STYLE_QDRANT,
     .tag = "Collections",
     .summary = "The title and version that Qdrant's clients look for",
     .answer_json = SCHEMA_OBJECT(SCHEMA_FIELD("title", SCHEMA_STRING) "," SCHEMA_FIELD(
         "version", SCHEMA_STRING) "," SCHEMA_FIELD("commit", SCHEMA_STRING)),
     .query = ""},
    {.method = HTTP_GET,
     .path = "/collections",
     .handler = list_collections,
     .style = HTTP_STYLE_QDRANT,
     .tag = "Collections",
     .summary = "Lists the collections",
     .answer_json = SCHEMA_QDRANT(SCHEMA_OBJECT(SCHEMA_FIELD(
         "collections", SCHEMA_ARRAY(SCHEMA_OBJECT(SCHEMA_FIELD("name", SCHEMA_STRING)))))),
     .query = ""},
    {.method = HTTP_GET,
     .path = "/collections/{name}",
     .handler = get_collection,
     .style = HTTP_STYLE_QDRANT,
     .tag = "Collections",
     .summary = "A collection's configuration and counters",
     .answer_json = SCHEMA_QDRANT(SCHEMA_OBJECT(
         SCHEMA_FIELD("status", SCHEMA_STRING) "," SCHEMA_FIELD("optimizer_status", SCHEMA_STRING) "," SCHEMA_FIELD("points_count", SCHEMA_INTEGER) "," SCHEMA_FIELD(
             "indexed_vectors_count",
             SCHEMA_INTEGER) "," SCHEMA_FIELD("segments_count",
                                              SCHEMA_INTEGER) "," SCHEMA_FIELD("config",
                                                                               SCHEMA_MAP) "," SCHEMA_FIELD("payload_schema",
                                                                                                            SCHEMA_MAP))),
     .query = ""},
    {.method = HTTP_GET,
     .path = "/collections/{name}/exists",
     .handler = collection_exists,
     .style = HTTP_STYLE_QDRANT,
     .tag = "Collections",
     .summary = "Whether a collection of that name is there",
     .answer_json = SCHEMA_QDRANT(SCHEMA_OBJECT(SCHEMA_FIELD("exists", SCHEMA_BOOLEAN))),
     .query = ""},
    {.method = HTTP_PUT,
     .path = "/collections/{name}",
     .handler = create_collection,
     .flags = HTTP_ROUTE_WRITES,
     .style = HTTP_STYLE_QDRANT,
     .tag = "Collections",
     .summary = "Creates a collection of one unnamed vector, or of several named ones",
     .request_json = SCHEMA_OBJECT(SCHEMA_FIELD(
         "vectors",
         "{\"anyOf\":[" SCHEMA_VECTOR_CONFIG ",{\"type\":\"object\","
         "\"additionalProperties\""
         ":" SCHEMA_VECTOR_CONFIG
         "}]}") "," SCHEMA_FIELD("shard_number",
                                 SCHEMA_INTEGER) "," SCHEMA_FIELD("replication_factor",
                                                                  SCHEMA_INTEGER) "," SCHEMA_FIELD("write_consistency_factor",
                                                                                                   SCHEMA_INTEGER) "," SCHEMA_FIELD("on_disk_payload",
                                                                                                                                    SCHEMA_BOOLEAN) "," SCHEMA_FIELD("hnsw_config",
                                                                                                                                                                     SCHEMA_MAP) "," SCHEMA_FIELD("optimizers_config",
                                                                                                                                                                                                  SCHEMA_MAP) "," SCHEMA_FIELD("wal_config",
                                                                                                                                                                                                                               SCHEMA_MAP)),
     .answer_json = SCHEMA_QDRANT(SCHEMA_BOOLEAN),
     .query = "timeout"},
    {.method = HTTP_DELETE,
     .path = "/collections/{name}",
     .handler = delete_collection,
     .flags = HTTP_ROUTE_WRITES | HTTP_ROUTE_ANY_BODY,
     .style = HTTP_STYLE_QDRANT,
     .tag = "Collections",
     .summary = "Drops a collection; the result is false if there was none",
     .answer_json = SCHEMA_QDRANT(SCHEMA_BOOLEAN),
     .query = "timeout"},
};

struct http_route_table api_qdrant_collections_routes(struct points_api *api) {
    return (struct http_route_table){.routes = routes, .n = ARRAY_LENGTH(routes), .context = api};
}
