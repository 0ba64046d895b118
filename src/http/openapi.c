/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The OpenAPI 3.1 document, from the rows that the router is made of: what is served and what is
 * documented cannot differ.
 */
#include "http/http.h"

#include <ctype.h>

struct document {
    const struct http_route_table *tables;
    size_t n; /* rows of all of them */
    struct buffer *out;
};

static const char *const methods[HTTP_METHODS] = {
    [HTTP_GET] = "get",     [HTTP_POST] = "post",     [HTTP_PUT] = "put",
    [HTTP_PATCH] = "patch", [HTTP_DELETE] = "delete",
};

static const char components[] =
    "\"components\":{"
    "\"securitySchemes\":{"
    "\"api_key\":{\"type\":\"apiKey\",\"in\":\"header\",\"name\":\"api-key\"},"
    "\"bearer\":{\"type\":\"http\",\"scheme\":\"bearer\"}},"
    "\"responses\":{"
    "\"error\":{\"description\":\"What is wrong, and what to change.\",\"content\":{"
    "\"application/json\":{\"schema\":{\"$ref\":\"#/components/schemas/Error\"}}}},"
    "\"qdrant_error\":{\"description\":\"What is wrong, as Qdrant says it.\",\"content\":{"
    "\"application/json\":{\"schema\":{\"$ref\":\"#/components/schemas/QdrantError\"}}}}},"
    "\"schemas\":{";

static const struct http_schema error_schemas[] = {
    {"Error", "{error!: {code!: string, message!: string, field: string}}"},
    {"QdrantError", "{status!: {error!: string}, time!: number}"},
};

/* "get" and "/a/{id}/b" make "get_a_id_b", which is unique because the rows are. */
/* The method and the words of the path; "/docs/" is told from "/docs" by a `_` at its end. */
static void append_operation_id(struct buffer *out, const struct http_route *route) {
    buffer_append_format(out, "\"operationId\":\"%s", methods[route->method]);
    bool gap = true;
    for (const char *c = route->path; *c; c++) {
        if (!isalnum((unsigned char)*c)) {
            gap = true;
            continue;
        }
        if (gap)
            buffer_append_string(out, "_");
        buffer_append_u8(out, (uint8_t)*c);
        gap = false;
    }
    buffer_append_string(out, route->path[strlen(route->path) - 1] == '/' ? "_\"" : "\"");
}

static void append_parameter(struct buffer *out, bool *first, struct bytes name, bool in_path) {
    buffer_append_string(out, *first ? "{\"name\":" : ",{\"name\":");
    json_append_string(out, name);
    buffer_append_format(out, ",\"in\":\"%s\",\"required\":%s,\"schema\":{\"type\":\"string\"}}",
                         in_path ? "path" : "query", in_path ? "true" : "false");
    *first = false;
}

static void append_parameters(struct buffer *out, const struct http_route *route) {
    bool first = true;
    buffer_append_string(out, ",\"parameters\":[");
    for (const char *at = strchr(route->path, '{'); at; at = strchr(at, '{')) {
        size_t n = strcspn(++at, "}");
        append_parameter(out, &first, bytes_of(at, n), true);
    }
    for (const char *at = route->query ? route->query : ""; *at;) {
        size_t n = strcspn(at, ",");
        append_parameter(out, &first, bytes_of(at, n), false);
        at += n + (at[n] == ',');
    }
    buffer_append_string(out, "]");
}

static void append_content(struct buffer *out, const char *schema) {
    buffer_append_string(out, "\"content\":{\"application/json\":{\"schema\":");
    http_schema_append(out, schema);
    buffer_append_string(out, "}}");
}

static void append_answers(struct buffer *out, const struct http_route *route) {
    bool events = route->flags & HTTP_ROUTE_EVENTS;
    buffer_append_format(out, ",\"responses\":{\"2XX\":{\"description\":\"%s\"",
                         events ? "A stream of server-sent events." : "Done.");
    if (events) {
        buffer_append_string(
            out, ",\"content\":{\"text/event-stream\":{\"schema\":{\"type\":\"string\"}}}");
    } else if (route->answer) {
        buffer_append_string(out, ",");
        append_content(out, route->answer);
    }
    const char *error = route->style == HTTP_STYLE_QDRANT ? "qdrant_error" : "error";
    buffer_append_format(out,
                         "},\"4XX\":{\"$ref\":\"#/components/responses/%s\"},"
                         "\"5XX\":{\"$ref\":\"#/components/responses/%s\"}}",
                         error, error);
}

static void append_operation(struct buffer *out, const struct http_route *route) {
    buffer_append_format(out, "\"%s\":{", methods[route->method]);
    append_operation_id(out, route);
    buffer_append_string(out, ",\"summary\":");
    json_append_cstring(out, route->summary ? route->summary : "");
    if (route->tag) {
        buffer_append_string(out, ",\"tags\":[");
        json_append_cstring(out, route->tag);
        buffer_append_string(out, "]");
    }
    append_parameters(out, route);
    if (route->request) {
        buffer_append_string(out, ",\"requestBody\":{\"required\":true,");
        append_content(out, route->request);
        buffer_append_string(out, "}");
    }
    append_answers(out, route);
    if (route->flags & HTTP_ROUTE_OPEN)
        buffer_append_string(out, ",\"security\":[]");
    buffer_append_string(out, "}");
}

/* The rows in order, over all tables. */
static const struct http_route *route_at(const struct document *d, size_t i) {
    size_t t = 0;
    while (i >= d->tables[t].n)
        i -= d->tables[t++].n;
    return &d->tables[t].routes[i];
}

static bool path_seen(const struct document *d, size_t end) {
    const char *path = route_at(d, end)->path;
    for (size_t i = 0; i < end; i++)
        if (strcmp(route_at(d, i)->path, path) == 0)
            return true;
    return false;
}

/* All methods of one path stand together in the document. */
static void append_path(const struct document *d, size_t start) {
    const struct http_route *first = route_at(d, start);
    json_append_cstring(d->out, first->path);
    buffer_append_string(d->out, ":{");
    append_operation(d->out, first);
    for (size_t i = start + 1; i < d->n; i++) {
        const struct http_route *route = route_at(d, i);
        if (strcmp(route->path, first->path) != 0)
            continue;
        buffer_append_string(d->out, ",");
        append_operation(d->out, route);
    }
    buffer_append_string(d->out, "}");
}

static void append_schema(struct buffer *out, const struct http_schema *schema) {
    json_append_cstring(out, schema->name);
    buffer_append_u8(out, ':');
    http_schema_append(out, schema->text);
}

static void append_components(const struct document *d, size_t n_tables) {
    buffer_append_string(d->out, components);
    for (size_t i = 0; i < ARRAY_LENGTH(error_schemas); i++) {
        buffer_append_string(d->out, i ? "," : "");
        append_schema(d->out, &error_schemas[i]);
    }
    for (size_t t = 0; t < n_tables; t++)
        for (size_t i = 0; i < d->tables[t].n_schemas; i++) {
            buffer_append_u8(d->out, ',');
            append_schema(d->out, &d->tables[t].schemas[i]);
        }
    buffer_append_string(d->out, "}}");
}

void http_openapi(const struct http_route_table *tables, size_t n_tables, const char *title,
                  const char *version, struct buffer *out) {
    struct document d = {.tables = tables, .out = out};
    for (size_t t = 0; t < n_tables; t++)
        d.n += tables[t].n;
    buffer_append_string(out, "{\"openapi\":\"3.1.0\",\"info\":{\"title\":");
    json_append_cstring(out, title);
    buffer_append_string(out, ",\"version\":");
    json_append_cstring(out, version);
    /* {}: a server on loopback may ask for no key. */
    buffer_append_string(out, "},\"security\":[{},{\"api_key\":[]},{\"bearer\":[]}],\"paths\":{");
    bool any = false;
    for (size_t i = 0; i < d.n; i++) {
        if (path_seen(&d, i))
            continue;
        if (any)
            buffer_append_string(out, ",");
        any = true;
        append_path(&d, i);
    }
    buffer_append_string(out, "},");
    append_components(&d, n_tables);
    buffer_append_string(out, "}");
}
