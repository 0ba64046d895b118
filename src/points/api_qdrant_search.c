/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Qdrant's search and query for the nearest vectors, one or a batch at a time, on a query thread.
 * Every search of a batch is parsed before the first is run, so that a wrong one costs nothing;
 * parsed means: taken out of the JSON into the reading's arena, since rendering parses payloads.
 *
 * search and query say the same in two ways:
 *
 *             search                              query
 *   vector    "vector": […] or {"name","vector"}  "query": […], {"nearest": …}, or a point's id
 *   its name  in "vector"                         "using"
 *   limit     required                            10
 *   answer    […]                                 {"points":[…]}
 *
 * A query without "query" pages through the points by id, as in Qdrant.
 */
#include "points/api_pass.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

enum {
    QUERY_LIMIT_DEFAULT = 10,
    HITS_MAX = 1000000,   /* limit + offset */
    SEARCHES_MAX = 10000, /* in a batch */
    CANDIDATE_BYTES = 32,
    UNCOUNTED_BYTES = 256 << 10,
};

struct search {
    struct api_selector selector;
    float *vector; /* NULL: page by id */
    unsigned place;
    bool by_id;
    struct point_id id; /* whose vector it is; left out of the hits */
    uint64_t limit;
    uint64_t offset;
    bool has_threshold;
    float threshold;
};

/* How a route reads its body and wraps its answer. */
struct form {
    int (*parse)(struct api_reading *g, struct json_value object, struct search *s);
    const char *prefix;
    const char *suffix;
};

/* ---- Parsing: what both have ---- */

static int no_such_vector(const struct point_config *config, struct bytes name,
                          struct api_fault *f) {
    CLEANUP(buffer_deinit) struct buffer names = BUFFER_INIT;
    if (name.size)
        return api_fault_set(f, API_FAULT_INPUT, "using", "Not existing vector name error: %s",
                             api_text_of(name).text);
    for (uint32_t i = 0; i < config->n_vectors; i++)
        buffer_append_format(&names, "%s%s", i ? ", " : "", config->vectors[i].name);
    return api_fault_set(f, API_FAULT_INPUT, "using",
                         "Collection requires specified vector name in the request, available "
                         "names: %s",
                         api_text_of(buffer_bytes(&names)).text);
}

static int find_vector(struct api_reading *g, struct bytes name, struct search *s) {
    int place = point_config_find(&g->collection->config, name);
    if (place < 0)
        return no_such_vector(&g->collection->config, name, &g->fault);
    s->place = (unsigned)place;
    return 0;
}

/* Numbers into the arena; s->place is known. */
static int parse_floats(struct api_reading *g, struct json_value v, struct search *s) {
    uint32_t dimension = g->collection->config.vectors[s->place].dimension;
    size_t count = 0;
    float *vector = arena_calloc(&g->arena, dimension, sizeof *vector);
    if (!vector)
        return error_origin(-ENOMEM);
    int r = json_get_floats(v, vector, dimension, &count);
    if (r == JSON_FLOATS_E_TYPE)
        return api_fault_set(&g->fault, API_FAULT_FORMAT, "query",
                             "the vector must be an array of numbers");
    if (r == JSON_FLOATS_E_RANGE)
        return api_fault_set(&g->fault, API_FAULT_INPUT, "query",
                             "a number of the vector is out of the range of float32");
    if (r || count != dimension)
        return api_fault_set(&g->fault, API_FAULT_DIMENSION, "query",
                             "Vector dimension error: expected dim: %u, got %zu", dimension, count);
    s->vector = vector;
    return 0;
}

static int parse_threshold(struct api_reading *g, struct json_value object, struct search *s) {
    struct json_value v;
    double threshold;
    if (!api_given(object, "score_threshold", &v))
        return 0;
    if (!json_get_double(v, &threshold))
        return api_fault_set(&g->fault, API_FAULT_FORMAT, "score_threshold",
                             "`score_threshold` must be a number");
    s->has_threshold = true;
    s->threshold = (float)threshold;
    return 0;
}

static int parse_common(struct api_reading *g, struct json_value object, struct search *s) {
    struct api_fault *f = &g->fault;
    if (json_type_of(object) != JSON_OBJECT)
        return api_fault_set(f, API_FAULT_FORMAT, NULL, "a search must be an object");
    int r = api_check_filter(object, f);
    if (r == 0)
        r = api_get_size(object, "limit", 1, UINT64_MAX, &s->limit, f);
    if (r == 0)
        r = api_get_size(object, "offset", 0, UINT64_MAX, &s->offset, f);
    if (r == 0)
        r = parse_threshold(g, object, s);
    if (r == 0)
        r = api_selector_parse(object, false, &g->collection->config, &g->arena, &s->selector, f);
    return error_trace(r);
}

/* ---- search ---- */

static int parse_search(struct api_reading *g, struct json_value object, struct search *s) {
    struct json_value v, name_value, vector;
    struct bytes name = BYTES_LITERAL("");
    int r = parse_common(g, object, s);
    if (r)
        return error_trace(r);
    if (!api_given(object, "limit", &v))
        return api_fault_missing(&g->fault, "limit");
    if (!api_given(object, "vector", &vector))
        return api_fault_missing(&g->fault, "vector");
    if (json_type_of(vector) == JSON_OBJECT) {
        if (!json_find(vector, "name", &name_value) || !json_get_string(name_value, &name))
            return api_fault_missing(&g->fault, "name");
        if (!json_find(vector, "vector", &v))
            return api_fault_missing(&g->fault, "vector");
        vector = v;
    }
    r = find_vector(g, name, s);
    return r ? error_trace(r) : error_trace(parse_floats(g, vector, s));
}

/* ---- query ---- */

/* What would change the answer and is not there yet. */
static int check_unsupported(struct api_reading *g, struct json_value object) {
    static const char *const fields[] = {"prefetch", "lookup_from", "group_by"};
    struct json_value v;
    for (size_t i = 0; i < ARRAY_LENGTH(fields); i++)
        if (api_given(object, fields[i], &v) && (json_type_of(v) != JSON_ARRAY || json_size(v) > 0))
            return api_fault_set(&g->fault, API_FAULT_INPUT, fields[i], "`%s` is not supported yet",
                                 fields[i]);
    return 0;
}

/* The vector of a point that is there. */
static int take_vector(struct api_reading *g, struct json_value id, struct search *s) {
    const struct point_config *config = &g->collection->config;
    uint32_t dimension = config->vectors[s->place].dimension;
    struct point_row row;
    int r = api_get_id(id, &s->id, &g->fault);
    if (r)
        return error_trace(r);
    r = points_view_get(g->view, s->id, &row);
    if (r == POINTS_E_NOT_FOUND || (r == 0 && !(row.vector_mask >> s->place & 1)))
        return POINTS_E_NOT_FOUND;
    if (r)
        return error_fold(r);
    s->by_id = true;
    s->vector = arena_calloc(&g->arena, dimension, sizeof(*s->vector));
    if (!s->vector)
        return error_origin(-ENOMEM);
    memcpy(s->vector, row.vectors + config->offsets[s->place], dimension * sizeof(*s->vector));
    return 0;
}

static int parse_nearest(struct api_reading *g, struct json_value query, struct search *s) {
    struct json_value nearest, mmr;
    if (json_type_of(query) == JSON_OBJECT) {
        if (!api_given(query, "nearest", &nearest) || api_given(query, "mmr", &mmr))
            return api_fault_set(&g->fault, API_FAULT_INPUT, "query",
                                 "only queries for the nearest points are supported yet: an array, "
                                 "a point's id, or {\"nearest\":…}");
        query = nearest;
    }
    if (json_type_of(query) == JSON_ARRAY)
        return error_trace(parse_floats(g, query, s));
    return error_trace(take_vector(g, query, s));
}

static int parse_query(struct api_reading *g, struct json_value object, struct search *s) {
    struct json_value v;
    struct bytes name = BYTES_LITERAL("");
    s->limit = QUERY_LIMIT_DEFAULT;
    int r = parse_common(g, object, s);
    if (r == 0)
        r = check_unsupported(g, object);
    if (r)
        return error_trace(r);
    if (!api_given(object, "query", &v))
        return 0;
    struct json_value using;
    if (api_given(object, "using", &using) && !json_get_string(using, &name))
        return api_fault_set(&g->fault, API_FAULT_FORMAT, "using", "`using` must be a string");
    r = find_vector(g, name, s);
    return r ? error_trace(r) : error_trace(parse_nearest(g, v, s));
}

/* ---- Running ---- */

static void append_hit(struct api_reading *g, const struct search *s, const struct point_row *row,
                       float score, struct json_parser *parser) {
    buffer_append_string(&g->out, "{\"id\":");
    point_id_append_json(&g->out, row->id);
    buffer_append_string(&g->out, ",\"version\":");
    json_append_u64(&g->out, row->lsn);
    buffer_append_string(&g->out, ",\"score\":");
    json_append_float(&g->out, score);
    api_row_append(&g->out, &g->collection->config, row, &s->selector, parser);
    buffer_append_string(&g->out, "}");
}

/* How many to ask the store for: bounded by what there is. */
static int hits_wanted(struct api_reading *g, const struct search *s, size_t *ret_n) {
    uint64_t points = points_view_count(g->view) + s->by_id;
    uint64_t wanted = s->offset > UINT64_MAX - s->limit ? UINT64_MAX : s->offset + s->limit;
    if (wanted < UINT64_MAX)
        wanted += s->by_id;
    if (wanted > points)
        wanted = points;
    if (wanted > HITS_MAX)
        return api_fault_set(&g->fault, API_FAULT_INPUT, "limit",
                             "limit + offset may be at most %d; scroll through more", HITS_MAX);
    *ret_n = (size_t)wanted;
    return 0;
}

/* Appends hits number offset to offset + limit, the queried point itself left out. */
static int append_hits(struct api_reading *g, const struct search *s, const struct points_hit *hits,
                       size_t n, struct json_parser *parser) {
    uint64_t seen = 0, written = 0;
    for (size_t i = 0; i < n && written < s->limit; i++) {
        if (s->by_id && point_id_compare(hits[i].row.id, s->id) == 0)
            continue;
        if (seen++ < s->offset)
            continue;
        buffer_append_string(&g->out, written++ ? "," : "");
        append_hit(g, s, &hits[i].row, hits[i].score, parser);
        int r = api_check_answer(g);
        if (r)
            return error_trace(r);
    }
    return 0;
}

/* Takes memory for n results until give_room: a batch holds those of one search at a time. A little
 * is not counted. NULL: -ENOMEM. */
static void *take_room(struct api_reading *g, size_t n, size_t size, size_t more,
                       uint64_t *ret_taken) {
    uint64_t bytes = n * (size + more);
    if (bytes > UNCOUNTED_BYTES && api_reading_take(g, bytes))
        return NULL;
    *ret_taken = bytes > UNCOUNTED_BYTES ? bytes : 0;
    void *room = calloc(n, size);
    if (!room)
        api_reading_give(g, *ret_taken);
    return room;
}

static void give_room(struct api_reading *g, void *room, uint64_t taken) {
    free(room);
    api_reading_give(g, taken);
}

static int run_nearest(struct points_api *api, struct api_reading *g, const struct search *s,
                       size_t wanted, struct json_parser *parser) {
    const struct points_search search = {.vector = s->place,
                                         .query = s->vector,
                                         .limit = wanted,
                                         .has_threshold = s->has_threshold,
                                         .threshold = s->threshold,
                                         .threads = api->search_threads};
    /* Beside the hits, what each thread and their gathering keep of them. */
    size_t n = 0, more = CANDIDATE_BYTES * (search.threads + 1);
    uint64_t taken = 0;
    struct points_hit *hits = take_room(g, wanted, sizeof *hits, more, &taken);
    if (!hits)
        return error_origin(-ENOMEM);
    int r = points_view_search(g->view, &search, hits, &n);
    r = r ? error_fold(r) : append_hits(g, s, hits, n, parser);
    give_room(g, hits, taken);
    return error_trace(r);
}

static int run_paging(struct api_reading *g, const struct search *s, size_t wanted,
                      struct json_parser *parser) {
    struct point_id next;
    bool more;
    size_t n = 0;
    uint64_t taken = 0;
    struct point_row *rows = take_room(g, wanted, sizeof *rows, 0, &taken);
    if (!rows)
        return error_origin(-ENOMEM);
    int r = points_view_scroll(g->view, NULL, wanted, rows, &n, &next, &more);
    for (size_t i = (size_t)s->offset; r == 0 && i < n; i++) {
        buffer_append_string(&g->out, i > s->offset ? "," : "");
        append_hit(g, s, &rows[i], 0, parser);
        r = api_check_answer(g);
    }
    give_room(g, rows, taken);
    return r == API_E_FAULT ? r : error_fold(r);
}

static int run(struct points_api *api, struct api_reading *g, const struct search *s,
               const struct form *form, struct json_parser *parser) {
    size_t wanted = 0;
    buffer_append_string(&g->out, form->prefix);
    int r = hits_wanted(g, s, &wanted);
    if (r)
        return error_trace(r);
    if (wanted > 0)
        r = s->vector ? run_nearest(api, g, s, wanted, parser) : run_paging(g, s, wanted, parser);
    buffer_append_string(&g->out, form->suffix);
    return error_trace(r);
}

static int search_one(struct points_api *api, struct api_reading *g, struct http_request *r,
                      const struct form *form) {
    struct json_value body;
    struct search s = {0};
    int result = api_parse_object(r, &body, &g->fault);
    if (result == 0)
        result = form->parse(g, body, &s);
    if (result)
        return error_trace(result);
    return error_trace(run(api, g, &s, form, http_json_parser(r)));
}

static int parse_batch(struct api_reading *g, struct http_request *r, const struct form *form,
                       struct search **ret_searches, size_t *ret_n) {
    struct json_value body, list, v;
    size_t n = 0;
    int result = api_parse_object(r, &body, &g->fault);
    if (result)
        return error_trace(result);
    if (!api_given(body, "searches", &list))
        return api_fault_missing(&g->fault, "searches");
    if (json_type_of(list) != JSON_ARRAY || json_size(list) > SEARCHES_MAX)
        return api_fault_set(&g->fault, API_FAULT_FORMAT, "searches",
                             "`searches` must be an array of at most %d", SEARCHES_MAX);
    struct search *searches = arena_calloc(&g->arena, json_size(list) + 1, sizeof *searches);
    if (!searches)
        return error_origin(-ENOMEM);
    struct json_iterator it = json_iterate(list);
    while (json_next(&it, NULL, &v)) {
        result = form->parse(g, v, &searches[n++]);
        if (result)
            return error_trace(result);
    }
    *ret_searches = searches;
    *ret_n = n;
    return 0;
}

static int search_batch(struct points_api *api, struct api_reading *g, struct http_request *r,
                        const struct form *form) {
    struct search *searches = NULL;
    size_t n = 0;
    int result = parse_batch(g, r, form, &searches, &n);
    if (result)
        return error_trace(result);
    buffer_append_string(&g->out, "[");
    for (size_t i = 0; i < n; i++) {
        buffer_append_string(&g->out, i ? "," : "");
        result = run(api, g, &searches[i], form, http_json_parser(r));
        if (result)
            return error_trace(result);
    }
    buffer_append_string(&g->out, "]");
    return 0;
}

/* ---- Handlers ---- */

static const struct form search_form = {parse_search, "[", "]"};
static const struct form query_form = {parse_query, "{\"points\":[", "]}"};

static void job(struct points_api *api, struct http_request *r, const struct form *form,
                int (*look)(struct points_api *, struct api_reading *, struct http_request *,
                            const struct form *)) {
    CLEANUP(api_reading_deinit) struct api_reading g;
    if (!api_reading_init(&g, api, r))
        return;
    int result = look(api, &g, r, form);
    if (result == POINTS_E_NOT_FOUND)
        http_fail(r, HTTP_ERROR_NOT_FOUND, "query",
                  "Not found: no point with the id of `query` has that vector");
    else
        api_reading_answer(&g, r, result);
}

static void search_job(void *context, struct http_request *r) {
    job(context, r, &search_form, search_one);
}
static void search_batch_job(void *context, struct http_request *r) {
    job(context, r, &search_form, search_batch);
}
static void query_job(void *context, struct http_request *r) {
    job(context, r, &query_form, search_one);
}
static void query_batch_job(void *context, struct http_request *r) {
    job(context, r, &query_form, search_batch);
}

static void search_points(void *context, struct http_request *r) {
    http_offload(r, search_job, context);
}
static void search_points_batch(void *context, struct http_request *r) {
    http_offload(r, search_batch_job, context);
}
static void query_points(void *context, struct http_request *r) {
    http_offload(r, query_job, context);
}
static void query_points_batch(void *context, struct http_request *r) {
    http_offload(r, query_batch_job, context);
}

/* ---- Routes ---- */

static const struct http_route routes[] = {
    {.method = HTTP_POST,
     .path = "/collections/{name}/points/search",
     .handler = search_points,
     .style = HTTP_STYLE_QDRANT,
     .tag = "Search",
     .summary = "The nearest points to a vector",
     .request = "Search",
     .answer = QDRANT("[Hit]"),
     .query = QDRANT_NAME ", " QDRANT_CONSISTENCY ", " QDRANT_TIMEOUT},
    {.method = HTTP_POST,
     .path = "/collections/{name}/points/search/batch",
     .handler = search_points_batch,
     .style = HTTP_STYLE_QDRANT,
     .tag = "Search",
     .summary = "Several searches of one collection",
     .request = "{searches!: [Search]}",
     .answer = QDRANT("[[Hit]]"),
     .query = QDRANT_NAME ", " QDRANT_CONSISTENCY ", " QDRANT_TIMEOUT},
    {.method = HTTP_POST,
     .path = "/collections/{name}/points/query",
     .handler = query_points,
     .style = HTTP_STYLE_QDRANT,
     .tag = "Search",
     .summary = "The nearest points to a vector, or to a point",
     .request = "Query",
     .answer = QDRANT("{points: [Hit]}"),
     .query = QDRANT_NAME ", " QDRANT_CONSISTENCY ", " QDRANT_TIMEOUT},
    {.method = HTTP_POST,
     .path = "/collections/{name}/points/query/batch",
     .handler = query_points_batch,
     .style = HTTP_STYLE_QDRANT,
     .tag = "Search",
     .summary = "Several queries of one collection",
     .request = "{searches!: [Query]}",
     .answer = QDRANT("[{points: [Hit]}]"),
     .query = QDRANT_NAME ", " QDRANT_CONSISTENCY ", " QDRANT_TIMEOUT},
};

struct http_route_table api_qdrant_search_routes(struct points_api *api) {
    const struct http_route_table table = {
        .routes = routes, .n = ARRAY_LENGTH(routes), .context = api, .journal = api->journal};
    return api_passing(api, table);
}
