/* SPDX-License-Identifier: Apache-2.0 */
/* The OpenAPI document, the side server, and what the router refuses to be built from. */
#include "http/router.h"
#include "http/test_support.h"

static struct json_parser *parser;

static struct json_value member(struct json_value v, const char *key) {
    struct json_value found;
    if (!json_find(v, key, &found))
        fail_msg("no member %s", key);
    return found;
}

static bool has(struct json_value v, const char *key) {
    struct json_value found;
    return json_find(v, key, &found);
}

static void assert_text(struct json_value v, const char *expected) {
    struct bytes text;
    assert_true(json_get_string(v, &text));
    assert_true(bytes_equal(text, bytes_of_string(expected)));
}

static void test_openapi(void **state) {
    (void)state;
    static const struct http_route first[] = {
        {.method = HTTP_GET,
         .path = "/things/{id}/parts/{part}",
         .tag = "things",
         .summary = "Reads a \"part\"",
         .answer = "object",
         .query = "limit,offset"},
        {.method = HTTP_PUT, .path = "/b", .style = HTTP_STYLE_QDRANT, .query = ""},
        {.method = HTTP_GET, .path = "/b", .flags = HTTP_ROUTE_EVENTS, .query = ""},
    };
    static const struct http_route second[] = {
        {.method = HTTP_DELETE, .path = "/things/{id}/parts/{part}", .query = ""},
        {.method = HTTP_POST,
         .path = "/b",
         .request = "[any]",
         .flags = HTTP_ROUTE_OPEN,
         .query = ""},
    };
    const struct http_route_table tables[] = {{.routes = first, .n = ARRAY_LENGTH(first)},
                                              {.routes = second, .n = 2}};
    struct buffer out = BUFFER_INIT;
    http_openapi(tables, 2, "A title", "1.2.3", &out);
    assert_non_null(buffer_reserve(&out, JSON_PADDING));
    assert_int_equal(json_parser_new(1 << 20, &parser), 0);
    struct json_value root;
    assert_int_equal(json_parse(parser, buffer_bytes(&out), &root), 0);
    assert_text(member(root, "openapi"), "3.1.0");
    assert_text(member(member(root, "info"), "title"), "A title");
    struct json_value paths = member(root, "paths");
    assert_int_equal(json_size(paths), 2);
    struct json_value parts = member(paths, "/things/{id}/parts/{part}");
    assert_true(has(parts, "delete"));
    struct json_value get_part = member(parts, "get");
    assert_text(member(get_part, "operationId"), "get_things_id_parts_part");
    assert_text(member(get_part, "summary"), "Reads a \"part\"");
    assert_int_equal(json_size(member(get_part, "parameters")), 4);
    assert_false(has(get_part, "requestBody"));
    struct json_value b = member(paths, "/b");
    assert_true(has(member(b, "post"), "requestBody"));
    assert_int_equal(json_size(member(member(b, "post"), "security")), 0);
    assert_text(member(member(member(member(b, "put"), "responses"), "4XX"), "$ref"),
                "#/components/responses/qdrant_error");
    struct json_value done = member(member(member(b, "get"), "responses"), "2XX");
    assert_true(has(member(done, "content"), "text/event-stream"));
    assert_true(has(member(member(root, "components"), "schemas"), "Error"));
    parser = json_parser_free(parser);
    buffer_deinit(&out);
}

static void test_tables_that_contradict_themselves(void **state) {
    (void)state;
    static const struct http_route twice[] = {
        {.method = HTTP_GET, .path = "/a/{x}", .query = ""},
        {.method = HTTP_GET, .path = "/a/{y}", .query = ""},
    };
    static const struct http_route deep[] = {
        {.method = HTTP_GET, .path = "/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17", .query = ""},
    };
    static const struct http_route many[] = {
        {.method = HTTP_GET, .path = "/{a}/{b}/{c}/{d}/{e}", .query = ""},
    };
    const struct http_route_table tables[] = {
        {.routes = twice, .n = 2}, {.routes = deep, .n = 1}, {.routes = many, .n = 1}};
    for (size_t i = 0; i < ARRAY_LENGTH(tables); i++) {
        struct router *r = NULL;
        assert_true(router_new(&tables[i], 1, &r) < 0);
        assert_null(r);
    }
}

static void test_errors_are_rows(void **state) {
    (void)state;
    for (unsigned i = 0; i < HTTP_ERRORS; i++) {
        const struct http_error_row *row = &http_error_rows[i];
        assert_true(row->status >= 400 && row->status < 600);
        assert_true(strspn(row->code, "abcdefghijklmnopqrstuvwxyz_") == strlen(row->code));
        assert_true(strlen(row->message) > 10);
    }
}

static unsigned render_metrics(void *context, struct buffer *body, const char **ret_type) {
    *ret_type = "text/plain; version=0.0.4";
    buffer_append_string(body, context);
    return 200;
}

static unsigned render_unwell(void *context, struct buffer *body, const char **ret_type) {
    (void)context;
    (void)ret_type;
    buffer_append_string(body, "not ready: journal");
    return 503;
}

static void test_side_server(void **state) {
    (void)state;
    char text[] = "up 1\n";
    const struct http_side_route routes[] = {{"/metrics", render_metrics, text},
                                             {"/readyz", render_unwell, NULL}};
    struct socket_address listen;
    assert_int_equal(socket_address_parse("127.0.0.1:0", &listen), 0);
    struct http_side *side = NULL;
    assert_int_equal(http_side_new(os_real(), &listen, routes, 2, &side), 0);
    char name[32];
    (void)snprintf(name, sizeof name, "127.0.0.1:%u", http_side_port(side));
    struct site client;
    assert_int_equal(socket_address_parse(name, &client.address), 0);

    struct answer a = get(&client.address, "/metrics");
    assert_int_equal(a.status, 200);
    assert_string_equal(a.body, "up 1\n");
    assert_string_equal(header_of(&a, "Content-Type:"), "text/plain; version=0.0.4");
    a = get(&client.address, "/readyz?x=1");
    assert_int_equal(a.status, 503);
    assert_string_equal(a.body, "not ready: journal");
    assert_int_equal(get(&client.address, "/other").status, 404);
    a = post(&client.address, "/metrics", "", "body", 4);
    assert_int_equal(a.status, 405);
    assert_string_equal(header_of(&a, "Allow:"), "GET, HEAD");

    struct http_side *second = NULL;
    assert_int_equal(http_side_new(os_real(), &client.address, routes, 2, &second), OS_E_IN_USE);
    assert_null(second);
    assert_null(http_side_free(side));
    assert_null(http_side_free(NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_openapi),
        cmocka_unit_test(test_tables_that_contradict_themselves),
        cmocka_unit_test(test_errors_are_rows),
        cmocka_unit_test(test_side_server),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
