/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Qdrant's routes of collections. All is answered on the loop: the catalog and the store's counters
 * are in memory.
 */
#include "points/api_pass.h"

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
        api_fail(r, result, NULL);
    else
        http_respond_qdrant(r, buffer_bytes(out));
}

static int append_info(struct points_api *api, struct points_collection *c, struct buffer *out) {
    struct points_view *view;
    int r = points_view_new(api->store, c, &view);
    if (r)
        return error_fold(r);
    uint64_t points = points_view_count(view);
    uint64_t segments = points_view_segments(view);
    points_view_free(view);
    buffer_append_format(out,
                         "{\"status\":\"green\",\"optimizer_status\":\"ok\","
                         "\"indexed_vectors_count\":0,\"points_count\":%llu,"
                         "\"segments_count\":%llu,\"config\":",
                         (unsigned long long)points, (unsigned long long)segments);
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
        api_fail_collection(r, name);
        return;
    }
    struct buffer *out = http_scratch(r);
    int result = append_info(api, c, out);
    if (result)
        api_fail(r, result, NULL);
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
    if (api->cluster) { /* which judges it, and may know what is not known here */
        const struct api_change change = {
            .name = name, .body = http_body(r), .config = result ? NULL : &config};
        api_pass_create(api, r, &change);
        return;
    }
    if (result) {
        api_fail(r, result, &f);
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
        api_fail(r, error_fold(result), NULL);
}

static void delete_collection(void *context, struct http_request *r) {
    struct points_api *api = context;
    struct bytes name = http_path_parameter(r, "name");
    lsn_t lsn = 0;
    int condition = 0;
    if (api->cluster) {
        api_pass_drop(api, r, &(struct api_change){.name = name});
        return;
    }
    int result = api_drop(api, name, &lsn, &condition);
    if (result == 0)
        api_await(api, r, lsn, lsn, 0, false, 0, render_true);
    else if (result == POINTS_E_NOT_FOUND) /* once the drop before is durable */
        api_await(api, r, 0, points_catalog_lsn(api->catalog), 0, false, 0, render_false);
    else if (result == POINTS_E_JOURNAL)
        http_fail_journal(r, condition);
    else
        api_fail(r, error_fold(result), NULL);
}

/* What the routes of all files name. */
static const struct http_schema api_schemas[] = {
    {"Id", "uint | uuid"},
    {"Vector", "[number] | <[number]> = [0.1,0.2,0.3,0.4]"},
    {"Point", "{id!: Id, vector!: Vector, payload: object? = {\"title\":\"Dune\"}}"},
    {"Batch", "{ids!: [Id], vectors!: any = [[0.1,0.2,0.3,0.4]], "
              "payloads: [object?] = [{\"title\":\"Dune\"}]}"},
    {"Record", "{id: Id, payload: object = {\"title\":\"Dune\"}, vector: Vector}"},
    {"Hit", "{id: Id, version: uint, score: number = 0.96, "
            "payload: object = {\"title\":\"Dune\"}, vector: Vector}"},
    {"Update", "{operation_id: uint, status: 'acknowledged' | 'completed'}"},
    {"Search", "{vector!: any = [0.1,0.2,0.3,0.4], limit!: uint = 10, offset: uint = 0, "
               "score_threshold: number = 0, params: object, with_payload: any = true, "
               "with_vector: any = false}"},
    {"Query",
     "{query: any = [0.1,0.2,0.3,0.4], using: string = \"\", limit: uint = 10, "
     "offset: uint = 0, score_threshold: number = 0, params: object, with_payload: any = true, "
     "with_vector: any = false}"},
    {"VectorConfig", "{size!: 1..65536 = 4, distance!: 'Cosine' | 'Dot' | 'Euclid' | 'Manhattan', "
                     "on_disk: boolean}"},
    {"Collection",
     "{status: string = \"green\", optimizer_status: string = \"ok\", points_count: uint, "
     "indexed_vectors_count: uint, segments_count: uint, config: object, "
     "payload_schema: object}"},
};

static const struct http_route routes[] = {
    {.method = HTTP_GET,
     .path = "/",
     .handler = get_root,
     .style = HTTP_STYLE_QDRANT,
     .tag = "Collections",
     .summary = "The title and version that Qdrant's clients look for",
     .answer = "{title: string, version: string, commit: string}",
     .query = ""},
    {.method = HTTP_GET,
     .path = "/collections",
     .handler = list_collections,
     .style = HTTP_STYLE_QDRANT,
     .tag = "Collections",
     .summary = "Lists the collections",
     .answer = QDRANT("{collections: [{name: string}]}"),
     .query = ""},
    {.method = HTTP_GET,
     .path = "/collections/{name}",
     .handler = get_collection,
     .style = HTTP_STYLE_QDRANT,
     .tag = "Collections",
     .summary = "A collection's configuration and counters",
     .answer = QDRANT("Collection"),
     .query = QDRANT_NAME},
    {.method = HTTP_GET,
     .path = "/collections/{name}/exists",
     .handler = collection_exists,
     .style = HTTP_STYLE_QDRANT,
     .tag = "Collections",
     .summary = "Whether a collection of that name is there",
     .answer = QDRANT("{exists: boolean}"),
     .query = QDRANT_NAME},
    {.method = HTTP_PUT,
     .path = "/collections/{name}",
     .handler = create_collection,
     .flags = HTTP_ROUTE_WRITES,
     .style = HTTP_STYLE_QDRANT,
     .tag = "Collections",
     .summary = "Creates a collection of one unnamed vector, or of several named ones",
     .request =
         "{vectors!: VectorConfig | <VectorConfig>, shard_number: uint, "
         "replication_factor: uint, write_consistency_factor: uint, on_disk_payload: boolean, "
         "hnsw_config: object, optimizers_config: object, wal_config: object}",
     .answer = QDRANT("boolean"),
     .query = QDRANT_NAME ", " QDRANT_TIMEOUT},
    {.method = HTTP_DELETE,
     .path = "/collections/{name}",
     .handler = delete_collection,
     .flags = HTTP_ROUTE_WRITES | HTTP_ROUTE_ANY_BODY,
     .style = HTTP_STYLE_QDRANT,
     .tag = "Collections",
     .summary = "Drops a collection; the result is false if there was none",
     .answer = QDRANT("boolean"),
     .query = QDRANT_NAME ", " QDRANT_TIMEOUT},
};

static const struct http_area area = {
    .segment = "collections",
    .style = HTTP_STYLE_QDRANT,
    .unsupported =
        "Millrace does not support this route of Qdrant's yet; see /docs for those it has",
};

struct http_route_table api_qdrant_collections_routes(struct points_api *api) {
    const struct http_route_table table = {.routes = routes,
                                           .n = ARRAY_LENGTH(routes),
                                           .context = api,
                                           .journal = api->journal,
                                           .schemas = api_schemas,
                                           .n_schemas = ARRAY_LENGTH(api_schemas),
                                           .area = &area};
    return api_passing(api, table);
}
