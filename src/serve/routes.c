/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The routes of the server itself: health on both ports, /metrics on the side one, the OpenAPI
 * document and its page, the console. Documents are made or embedded once and answered from memory.
 */
#include "serve/assets.h"
#include "serve/internal.h"

#include <stdlib.h>

static const char title[] = "Millrace";
static const char html[] = "text/html; charset=utf-8";

static const char *const method_names[HTTP_METHODS] = {
    [HTTP_GET] = "GET",     [HTTP_POST] = "POST",     [HTTP_PUT] = "PUT",
    [HTTP_PATCH] = "PATCH", [HTTP_DELETE] = "DELETE",
};

/* ---- Health ---- */

static void answer_health(struct serve *s, struct http_request *r, enum health_question question) {
    struct buffer *out = http_scratch(r);
    unsigned status = health_append(s, question, out);
    http_respond(r, status, NULL, buffer_bytes(out));
}

static void get_alive(void *context, struct http_request *r) {
    answer_health(context, r, HEALTH_ALIVE);
}

static void get_ready(void *context, struct http_request *r) {
    answer_health(context, r, HEALTH_READY);
}

static void get_whole(void *context, struct http_request *r) {
    answer_health(context, r, HEALTH_WHOLE);
}

/* ---- The OpenAPI document and its page ---- */

static void get_openapi(void *context, struct http_request *r) {
    struct serve *s = context;
    http_respond_static(r, NULL, buffer_bytes(&s->openapi), NULL);
}

static bool takes_gzip(const struct http_request *r) {
    const char *accepted = http_header(r, "Accept-Encoding");
    return accepted && strstr(accepted, "gzip");
}

static void answer_asset(struct http_request *r, const struct asset *asset) {
    struct buffer *out = http_scratch(r);
    http_set_header(r, "Vary", "Accept-Encoding");
    if (takes_gzip(r)) {
        http_set_header(r, "Content-Encoding", "gzip");
        http_respond_static(r, asset->content_type, bytes_of(asset->gzip, asset->gzip_size),
                            asset->etag);
    } else if (asset_decompress(asset, out)) {
        http_fail(r, HTTP_ERROR_OVERLOADED, NULL, "out of memory");
    } else {
        http_respond(r, 200, asset->content_type, buffer_bytes(out));
    }
}

/* Swagger UI's page is of use only with Swagger UI, which a build without npm has not. */
static void get_docs(void *context, struct http_request *r) {
    struct serve *s = context;
    const struct asset *page = asset_find(BYTES_LITERAL("docs/index.html"));
    if (page && asset_find(BYTES_LITERAL("docs/swagger-ui-bundle.js")))
        answer_asset(r, page);
    else
        http_respond_static(r, html, buffer_bytes(&s->routes_page), NULL);
}

/* The asset of the directory, "docs/", that the path's {file} names. */
static void answer_file(struct http_request *r, const char *directory) {
    enum { NAME_MAX_BYTES = 128 };
    struct bytes file = http_path_parameter(r, "file");
    char name[NAME_MAX_BYTES];
    size_t prefix = strlen(directory);
    const struct asset *asset = NULL;
    if (prefix + file.size <= sizeof name) {
        memcpy(name, directory, prefix);
        memcpy(name + prefix, file.data, file.size); /* any bytes, a NUL too */
        asset = asset_find(bytes_of(name, prefix + file.size));
    }
    if (asset)
        answer_asset(r, asset);
    else
        http_fail(r, HTTP_ERROR_UNKNOWN_PATH, NULL, NULL);
}

static void get_docs_file(void *context UNUSED, struct http_request *r) {
    answer_file(r, "docs/");
}

/* ---- The console ---- */

/* It asks nobody but its own server, runs nothing that is not one of its files, and stands in no
 * other page. */
static void protect_page(struct http_request *r) {
    http_set_header(r, "Content-Security-Policy",
                    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; "
                    "frame-ancestors 'none'");
    http_set_header(r, "X-Content-Type-Options", "nosniff");
    http_set_header(r, "Referrer-Policy", "no-referrer");
}

static void get_console(void *context UNUSED, struct http_request *r) {
    protect_page(r);
    answer_asset(r, asset_find(BYTES_LITERAL("console/index.html")));
}

static void get_console_file(void *context UNUSED, struct http_request *r) {
    protect_page(r);
    answer_file(r, "console/");
}

/* ---- The tables ---- */

static const struct http_schema schemas[] = {
    {"Health", "{status!: 'ok' | 'not ready' | 'stalled', version!: string = \"0.1.0\", "
               "parts!: <{ready!: boolean, reason: string, url: string, "
               "reachable: boolean, lag_messages: uint, warning: string}> = "
               "{\"server\":{\"ready\":true}}}"},
};

static const struct http_route routes[] = {
    {.method = HTTP_GET,
     .path = "/healthz",
     .handler = get_whole,
     .flags = HTTP_ROUTE_OPEN,
     .tag = "Health",
     .summary = "How each part is; 503 only when the server should be restarted",
     .answer = "Health",
     .query = ""},
    {.method = HTTP_GET,
     .path = "/health",
     .handler = get_whole,
     .flags = HTTP_ROUTE_OPEN,
     .tag = "Health",
     .summary = "The same as /healthz",
     .answer = "Health",
     .query = ""},
    {.method = HTTP_GET,
     .path = "/livez",
     .handler = get_alive,
     .flags = HTTP_ROUTE_OPEN,
     .tag = "Health",
     .summary = "503 when a part has stalled and only a restart helps",
     .answer = "Health",
     .query = ""},
    {.method = HTTP_GET,
     .path = "/readyz",
     .handler = get_ready,
     .flags = HTTP_ROUTE_OPEN,
     .tag = "Health",
     .summary = "503 while writes or reads are refused, with the part that is not ready",
     .answer = "Health",
     .query = ""},
    {.method = HTTP_GET,
     .path = "/openapi.json",
     .handler = get_openapi,
     .flags = HTTP_ROUTE_OPEN,
     .tag = "Docs",
     .summary = "The OpenAPI 3.1 document of these routes",
     .answer = "object = {\"openapi\":\"3.1.0\"}",
     .query = ""},
    {.method = HTTP_GET,
     .path = "/docs",
     .handler = get_docs,
     .flags = HTTP_ROUTE_OPEN,
     .tag = "Docs",
     .summary = "A page to read and try the routes",
     .media = "text/html",
     .query = ""},
    {.method = HTTP_GET,
     .path = "/docs/",
     .handler = get_docs,
     .flags = HTTP_ROUTE_OPEN,
     .tag = "Docs",
     .summary = "The same as /docs",
     .media = "text/html",
     .query = ""},
    {.method = HTTP_GET,
     .path = "/docs/{file}",
     .handler = get_docs_file,
     .flags = HTTP_ROUTE_OPEN,
     .tag = "Docs",
     .summary = "The files of that page",
     .media = "text/css",
     .query = "file: string = \"swagger-ui.css\""},
    {.method = HTTP_GET,
     .path = "/console",
     .handler = get_console,
     .flags = HTTP_ROUTE_OPEN,
     .tag = "Operation",
     .summary = "The console: a page to see and steer this server by",
     .media = "text/html",
     .query = ""},
    {.method = HTTP_GET,
     .path = "/console/",
     .handler = get_console,
     .flags = HTTP_ROUTE_OPEN,
     .tag = "Operation",
     .summary = "The same as /console",
     .media = "text/html",
     .query = ""},
    {.method = HTTP_GET,
     .path = "/console/{file}",
     .handler = get_console_file,
     .flags = HTTP_ROUTE_OPEN,
     .tag = "Operation",
     .summary = "The files of that page",
     .media = "text/css",
     .query = "file: string = \"style.css\""},
};

struct http_route_table routes_table(struct serve *s) {
    return (struct http_route_table){.routes = routes,
                                     .n = ARRAY_LENGTH(routes),
                                     .context = s,
                                     .schemas = schemas,
                                     .n_schemas = ARRAY_LENGTH(schemas)};
}

static void append_route(struct buffer *out, const struct http_route *route) {
    buffer_append_format(out, "<tr><td>%s</td><td><code>%s</code></td><td>%s</td></tr>\n",
                         method_names[route->method], route->path, route->summary);
}

static void append_page(struct serve *s, struct buffer *out) {
    buffer_append_string(out,
                         "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">"
                         "<title>Millrace API</title><h1>Millrace API</h1><p>This build has no "
                         "Swagger UI; the routes with their schemas are in <a "
                         "href=\"/openapi.json\">/openapi.json</a>.</p>\n<table>\n");
    for (size_t i = 0; i < s->n_tables; i++)
        for (size_t k = 0; k < s->tables[i].n; k++)
            append_route(out, &s->tables[i].routes[k]);
    buffer_append_string(out, "</table></html>\n");
}

int routes_prepare(struct serve *s) {
    http_openapi(s->tables, s->n_tables, title, MILLRACE_VERSION, &s->openapi);
    append_page(s, &s->routes_page);
    int r = buffer_check(&s->openapi);
    if (!r)
        r = buffer_check(&s->routes_page);
    return r ? error_trace(r) : 0;
}

/* ---- The side server ---- */

static unsigned side_health(void *context, enum health_question question, struct buffer *body,
                            const char **ret_content_type) {
    *ret_content_type = "application/json";
    return health_append(context, question, body);
}

static unsigned side_alive(void *context, struct buffer *body, const char **ret_content_type) {
    return side_health(context, HEALTH_ALIVE, body, ret_content_type);
}

static unsigned side_ready(void *context, struct buffer *body, const char **ret_content_type) {
    return side_health(context, HEALTH_READY, body, ret_content_type);
}

static unsigned side_whole(void *context, struct buffer *body, const char **ret_content_type) {
    return side_health(context, HEALTH_WHOLE, body, ret_content_type);
}

static unsigned side_metrics(void *context, struct buffer *body, const char **ret_content_type) {
    struct serve *s = context;
    *ret_content_type = "text/plain; version=0.0.4; charset=utf-8";
    metrics_render(s->metrics, body);
    return 200;
}

void routes_side(struct serve *s, struct http_side_route out[SERVE_SIDE_ROUTES]) {
    const struct http_side_route side[SERVE_SIDE_ROUTES] = {
        {"/metrics", side_metrics, s}, {"/healthz", side_whole, s}, {"/health", side_whole, s},
        {"/livez", side_alive, s},     {"/readyz", side_ready, s},
    };
    memcpy(out, side, sizeof side);
}
