/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The OpenAPI 3.1 document, from the rows that the router is made of: what is served and what is
 * documented cannot differ.
 */
#include "http/http.h"

#include <ctype.h>

struct document {
    const struct http_route_table *tables;
    size_t n_tables;
    size_t n; /* rows of all of them */
    struct http_schema_names names;
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
    "\"responses\":{";

static const struct http_schema error_schemas[] = {
    {"Error", "{error!: {code!: string, message!: string, field: string}}"},
    {"QdrantError", "{status!: {error!: string}, time!: number}"},
};

/* How the errors of a style look: their schema, and an example of one with this message. */
struct error_style {
    const char *name;
    const char *schema;
    void (*example)(struct buffer *out, const struct http_error_row *row);
};

static void example_error(struct buffer *out, const struct http_error_row *row) {
    buffer_append_format(out, "{\"error\":{\"code\":\"%s\",\"message\":", row->code);
    json_append_cstring(out, row->message);
    buffer_append_string(out, "}}");
}

static void example_qdrant_error(struct buffer *out, const struct http_error_row *row) {
    buffer_append_string(out, "{\"status\":{\"error\":");
    json_append_cstring(out, row->message);
    buffer_append_string(out, "},\"time\":0.0001}");
}

static const struct error_style error_styles[] = {
    {"error", "Error", example_error},
    {"qdrant_error", "QdrantError", example_qdrant_error},
};

/* Every row of errors.def is an example of what a route may answer. */
static void append_error_style(struct buffer *out, const struct error_style *style) {
    buffer_append_format(out,
                         "\"%s\":{\"description\":\"What is wrong, and what to change.\","
                         "\"content\":{\"application/json\":{\"schema\":{\"$ref\":"
                         "\"#/components/schemas/%s\"},\"examples\":{",
                         style->name, style->schema);
    for (unsigned i = 0; i < HTTP_ERRORS; i++) {
        const struct http_error_row *row = &http_error_rows[i];
        buffer_append_format(out, "%s\"%s\":{\"summary\":\"%u\",\"value\":", i ? "," : "",
                             row->code, row->status);
        style->example(out, row);
        buffer_append_u8(out, '}');
    }
    buffer_append_string(out, "}}}}");
}

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

/* ---- Parameters ---- */

static bool is_in_path(const struct http_route *route, struct bytes name) {
    for (const char *at = strchr(route->path, '{'); at; at = strchr(at, '{')) {
        size_t n = strcspn(++at, "}");
        if (bytes_equal(bytes_of(at, n), name))
            return true;
    }
    return false;
}

/* As the row describes it; a parameter of the path that it does not is a string. */
static struct http_schema_member find_member(const struct http_route *route, struct bytes name) {
    struct http_schema_member member;
    for (const char *at = route->query ? route->query : ""; *at;) {
        at = http_schema_next(at, &member);
        if (bytes_equal(member.name, name))
            return member;
    }
    return (struct http_schema_member){.name = name, .text = "string"};
}

static void append_parameter(const struct document *d, bool first,
                             const struct http_schema_member *member, bool in_path) {
    struct buffer *out = d->out;
    buffer_append_string(out, first ? "{\"name\":" : ",{\"name\":");
    json_append_string(out, member->name);
    buffer_append_format(out,
                         ",\"in\":\"%s\",\"required\":%s,\"schema\":", in_path ? "path" : "query",
                         in_path || member->required ? "true" : "false");
    http_schema_append_member(out, member);
    buffer_append_string(out, ",\"example\":");
    http_schema_example_member(out, member, &d->names);
    buffer_append_u8(out, '}');
}

static void append_parameters(const struct document *d, const struct http_route *route) {
    bool first = true;
    struct http_schema_member member;
    buffer_append_string(d->out, ",\"parameters\":[");
    for (const char *at = strchr(route->path, '{'); at; at = strchr(at, '{')) {
        size_t n = strcspn(++at, "}");
        member = find_member(route, bytes_of(at, n));
        append_parameter(d, first, &member, true);
        first = false;
    }
    for (const char *at = route->query ? route->query : ""; *at;) {
        at = http_schema_next(at, &member);
        if (is_in_path(route, member.name))
            continue;
        append_parameter(d, first, &member, false);
        first = false;
    }
    buffer_append_string(d->out, "]");
}

/* ---- Bodies ---- */

static void append_content(const struct document *d, const char *schema) {
    buffer_append_string(d->out, "\"content\":{\"application/json\":{\"schema\":");
    http_schema_append(d->out, schema);
    buffer_append_string(d->out, ",\"example\":");
    http_schema_example(d->out, schema, &d->names);
    buffer_append_string(d->out, "}}");
}

static void append_answers(const struct document *d, const struct http_route *route) {
    struct buffer *out = d->out;
    bool events = route->flags & HTTP_ROUTE_EVENTS;
    const char *media = events ? "text/event-stream" : route->media;
    buffer_append_format(out, ",\"responses\":{\"2XX\":{\"description\":\"%s\"",
                         events ? "A stream of server-sent events." : "Done.");
    if (route->answer && !events) {
        buffer_append_string(out, ",");
        append_content(d, route->answer);
    } else if (media) {
        buffer_append_format(out, ",\"content\":{\"%s\":{\"schema\":{\"type\":\"string\"}}}",
                             media);
    }
    const char *error = route->style == HTTP_STYLE_QDRANT ? "qdrant_error" : "error";
    buffer_append_format(out,
                         "},\"4XX\":{\"$ref\":\"#/components/responses/%s\"},"
                         "\"5XX\":{\"$ref\":\"#/components/responses/%s\"}}",
                         error, error);
}

static void append_operation(const struct document *d, const struct http_route *route) {
    struct buffer *out = d->out;
    buffer_append_format(out, "\"%s\":{", methods[route->method]);
    append_operation_id(out, route);
    buffer_append_string(out, ",\"summary\":");
    json_append_cstring(out, route->summary ? route->summary : "");
    if (route->tag) {
        buffer_append_string(out, ",\"tags\":[");
        json_append_cstring(out, route->tag);
        buffer_append_string(out, "]");
    }
    append_parameters(d, route);
    if (route->request) {
        buffer_append_string(out, ",\"requestBody\":{\"required\":true,");
        append_content(d, route->request);
        buffer_append_string(out, "}");
    }
    append_answers(d, route);
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
    append_operation(d, first);
    for (size_t i = start + 1; i < d->n; i++) {
        const struct http_route *route = route_at(d, i);
        if (strcmp(route->path, first->path) != 0)
            continue;
        buffer_append_string(d->out, ",");
        append_operation(d, route);
    }
    buffer_append_string(d->out, "}");
}

static void append_schema(struct buffer *out, const struct http_schema *schema) {
    json_append_cstring(out, schema->name);
    buffer_append_u8(out, ':');
    http_schema_append(out, schema->text);
}

static void append_components(const struct document *d) {
    buffer_append_string(d->out, components);
    for (size_t i = 0; i < ARRAY_LENGTH(error_styles); i++) {
        buffer_append_string(d->out, i ? "," : "");
        append_error_style(d->out, &error_styles[i]);
    }
    buffer_append_string(d->out, "},\"schemas\":{");
    for (size_t i = 0; i < ARRAY_LENGTH(error_schemas); i++) {
        buffer_append_string(d->out, i ? "," : "");
        append_schema(d->out, &error_schemas[i]);
    }
    for (size_t t = 0; t < d->n_tables; t++)
        for (size_t i = 0; i < d->tables[t].n_schemas; i++) {
            buffer_append_u8(d->out, ',');
            append_schema(d->out, &d->tables[t].schemas[i]);
        }
    buffer_append_string(d->out, "}}");
}

static const struct http_schema *find_schema(const void *context, struct bytes name) {
    const struct document *d = context;
    for (size_t t = 0; t < d->n_tables; t++)
        for (size_t i = 0; i < d->tables[t].n_schemas; i++)
            if (bytes_equal(bytes_of_string(d->tables[t].schemas[i].name), name))
                return &d->tables[t].schemas[i];
    return NULL;
}

void http_openapi(const struct http_route_table *tables, size_t n_tables, const char *title,
                  const char *version, struct buffer *out) {
    struct document d = {.tables = tables, .n_tables = n_tables, .out = out};
    d.names = (struct http_schema_names){find_schema, &d};
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
    append_components(&d);
    buffer_append_string(out, "}");
}
