/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the load generator sends: valid JSON of the right shape, the same for the same seed however
 * it is cut into batches, numbers from -1 to 1 that are spread evenly.
 */
#include "base/json.h"
#include "cli/load_records.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { DIMENSION = 100, TEXT_MAX = 4 << 20 };

static void make_body(const struct record_source *source, uint64_t first, uint64_t n,
                      struct buffer *out) {
    record_append_body(source, first, n, out);
    assert_non_null(buffer_reserve(out, JSON_PADDING));
    assert_int_equal(buffer_check(out), 0);
}

static struct json_value member(struct json_value object, const char *key) {
    struct json_value value;
    assert_true(json_find(object, key, &value));
    return value;
}

static void check_record(struct json_value point, uint64_t id, double *sum) {
    float vector[DIMENSION];
    uint64_t found;
    size_t n;
    double degrees;
    struct json_value payload = member(point, "payload");
    struct json_value location = member(payload, "location");
    assert_true(json_get_u64(member(point, "id"), &found) && found == id);
    assert_int_equal(json_type_of(member(payload, "city")), JSON_STRING);
    assert_true(json_get_double(member(location, "lat"), &degrees));
    assert_true(degrees > -90 && degrees < 90);
    assert_true(json_get_double(member(location, "lon"), &degrees));
    assert_true(degrees > -180 && degrees < 180);
    assert_int_equal(json_get_floats(member(point, "vector"), vector, DIMENSION, &n), 0);
    assert_int_equal(n, DIMENSION);
    for (size_t i = 0; i < n; i++) {
        assert_true(vector[i] >= -1 && vector[i] <= 1);
        *sum += (double)vector[i];
    }
}

static void test_records(void **state UNUSED) {
    struct record_source source CLEANUP(record_source_deinit) = {.dimension = DIMENSION,
                                                                 .base.seed = 7};
    struct buffer body CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct json_parser *parser;
    struct json_value root;
    struct json_value point;
    uint64_t id = 1000000;
    double sum = 0;
    assert_int_equal(record_source_records(&source, "a/b c", true), 0);
    assert_string_equal(source.path, "/collections/a%2Fb%20c/points?wait=true");
    make_body(&source, id, 500, &body);
    assert_int_equal(json_parser_new(TEXT_MAX, &parser), 0);
    assert_int_equal(json_parse(parser, buffer_bytes(&body), &root), 0);
    struct json_iterator it = json_iterate(member(root, "points"));
    while (json_next(&it, NULL, &point))
        check_record(point, id++, &sum);
    assert_int_equal(id, 1000500);
    assert_true(sum > -1000 && sum < 1000); /* of 50,000 numbers: 7 standard deviations */
    json_parser_free(parser);
}

/* The text between the outer brackets. */
static struct bytes inner(const struct buffer *body) {
    size_t head = strlen("{\"points\":[");
    return bytes_of(body->data + head, body->size - head - 2);
}

static void test_records_do_not_depend_on_the_batch(void **state UNUSED) {
    struct record_source source CLEANUP(record_source_deinit) = {.dimension = 3, .base.seed = 1};
    struct buffer whole CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct buffer one CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct buffer joined CLEANUP(buffer_deinit) = BUFFER_INIT;
    assert_int_equal(record_source_records(&source, "c", false), 0);
    make_body(&source, 5, 4, &whole);
    for (uint64_t id = 5; id < 9; id++) {
        buffer_clear(&one);
        make_body(&source, id, 1, &one);
        buffer_append_string(&joined, id > 5 ? "," : "");
        buffer_append_bytes(&joined, inner(&one));
    }
    assert_true(bytes_equal(inner(&whole), buffer_bytes(&joined)));
    source.base.seed = 2;
    buffer_clear(&one);
    make_body(&source, 5, 4, &one);
    assert_false(bytes_equal(buffer_bytes(&one), buffer_bytes(&whole)));
}

static void test_movies(void **state UNUSED) {
    struct record_source source CLEANUP(record_source_deinit) = {.dimension = DIMENSION};
    struct buffer body CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct json_parser *parser;
    struct json_value batch;
    int r = record_source_movies(&source, "films \"x\"");
    if (r == LOAD_E_NO_MOVIES)
        skip();
    assert_int_equal(r, 0);
    assert_true(source.n_movies > 3000);
    make_body(&source, source.n_movies - 2, 5, &body); /* round the end */
    assert_int_equal(json_parser_new(TEXT_MAX, &parser), 0);
    assert_int_equal(json_parse(parser, buffer_bytes(&body), &batch), 0);
    batch = member(batch, "batch");
    assert_int_equal(json_size(member(batch, "ids")), 5);
    assert_int_equal(json_size(member(batch, "vectors")), 5);
    assert_int_equal(json_size(member(batch, "payloads")), 5);
    struct json_iterator it = json_iterate(member(batch, "payloads"));
    struct json_value movie;
    while (json_next(&it, NULL, &movie))
        (void)member(movie, "Title");
    json_parser_free(parser);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_records),
                                       cmocka_unit_test(test_records_do_not_depend_on_the_batch),
                                       cmocka_unit_test(test_movies)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
