/* SPDX-License-Identifier: Apache-2.0 */
/* Ids, configurations, scaling, and the bytes of records: whole, cut and damaged. */
#include "points/test_support.h"

#include <float.h>
#include <math.h>

/* ---- Ids ---- */

static bool from_json(const char *text, struct point_id *ret_id) {
    char padded[256] = {0};
    struct json_parser *parser;
    struct json_value v;
    snprintf(padded, sizeof padded - JSON_PADDING, "%s", text);
    assert_int_equal(json_parser_new(4096, &parser), 0);
    assert_int_equal(json_parse(parser, bytes_of_string(padded), &v), 0);
    bool good = point_id_from_json(v, ret_id);
    json_parser_free(parser);
    return good;
}

static void expect_json(struct point_id id, const char *text) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    point_id_append_json(&out, id);
    buffer_append_u8(&out, 0);
    assert_string_equal((const char *)out.data, text);
}

static void test_ids_from_json(void **state UNUSED) {
    static const char uuid[] = "\"f81d4fae-7dec-11d0-a765-00a0c91e6bf6\"";
    static const char *const forms[] = {
        uuid,
        "\"F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6\"",
        "\"f81d4fae7dec11d0a76500a0c91e6bf6\"",
        "\"urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6\"",
        "\"{f81d4fae-7dec-11d0-a765-00a0c91e6bf6}\"",
    };
    static const char *const wrong[] = {"-1",
                                        "1.5",
                                        "1.0",
                                        "\"5\"",
                                        "\"\"",
                                        "true",
                                        "null",
                                        "[1]",
                                        "{\"a\":1}",
                                        "\"f81d4fae-7dec-11d0-a765\"",
                                        "\"f81d4fae-7dec-11d0-a765-00a0c91e6bfg\""};
    struct point_id id;
    assert_true(from_json("0", &id));
    expect_json(id, "0");
    assert_true(from_json("18446744073709551615", &id));
    expect_json(id, "18446744073709551615");
    for (size_t i = 0; i < ARRAY_LENGTH(forms); i++) {
        assert_true(from_json(forms[i], &id));
        assert_true(id.uuid);
        expect_json(id, uuid);
    }
    for (size_t i = 0; i < ARRAY_LENGTH(wrong); i++)
        assert_false(from_json(wrong[i], &id));
}

static void test_ids_from_text(void **state UNUSED) {
    struct point_id id;
    assert_true(point_id_from_text(BYTES_LITERAL("42"), &id));
    assert_false(id.uuid);
    assert_int_equal(id.low, 42);
    assert_true(point_id_from_text(BYTES_LITERAL("18446744073709551615"), &id));
    assert_false(point_id_from_text(BYTES_LITERAL("18446744073709551616"), &id));
    assert_false(point_id_from_text(BYTES_LITERAL(""), &id));
    assert_false(point_id_from_text(BYTES_LITERAL("-1"), &id));
    assert_false(point_id_from_text(BYTES_LITERAL("4 2"), &id));
    assert_true(point_id_from_text(BYTES_LITERAL("00000000000000000000000000000001"), &id));
    assert_true(id.uuid || id.low == 1); /* digits that fit are a number */
    assert_true(point_id_from_text(BYTES_LITERAL("11111111111111111111111111111111"), &id));
    assert_true(id.uuid); /* digits that do not fit are a UUID */
}

static void test_ids_order_and_hash(void **state UNUSED) {
    const struct point_id ascending[] = {
        {.low = 0},
        {.low = 7},
        {.low = UINT64_MAX},
        {.uuid = true},
        {.low = 7, .uuid = true},
        {.high = 1, .uuid = true},
        {.high = UINT64_MAX, .low = UINT64_MAX, .uuid = true},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(ascending); i++)
        for (size_t k = 0; k < ARRAY_LENGTH(ascending); k++) {
            int order = point_id_compare(ascending[i], ascending[k]);
            assert_int_equal((order > 0) - (order < 0), (i > k) - (i < k));
        }
    /* Never changes: records in old journals carry it. */
    assert_int_equal(point_key_hash(1, (struct point_id){.low = 1}), 0x86d6fd953217ae03u);
    assert_int_not_equal(point_key_hash(1, (struct point_id){.low = 1}),
                         point_key_hash(2, (struct point_id){.low = 1}));
    assert_int_not_equal(point_id_hash((struct point_id){.low = 1}),
                         point_id_hash((struct point_id){.low = 1, .uuid = true}));
}

/* ---- Scaling ---- */

static double length_of(const float *v, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)v[i] * (double)v[i];
    return sqrt(sum);
}

static void test_normalize(void **state UNUSED) {
    float v[100];
    for (size_t n = 1; n <= ARRAY_LENGTH(v); n++) {
        for (size_t i = 0; i < n; i++)
            v[i] = (float)i - 17.5f;
        point_normalize(v, n);
        assert_float_equal(length_of(v, n), 1, 1e-6);
        assert_true(v[0] < 0);
    }
    float zero[3] = {0, 0, 0};
    point_normalize(zero, 3);
    assert_true(zero[0] == 0 && zero[1] == 0 && zero[2] == 0);
    float huge[2] = {FLT_MAX, -FLT_MAX};
    point_normalize(huge, 2);
    assert_float_equal(length_of(huge, 2), 1, 1e-6);
    float unit[2] = {0.6f, 0.8f}, same[2] = {0.6f, 0.8f};
    point_normalize(unit, 2); /* kept bit by bit */
    assert_memory_equal(unit, same, sizeof unit);
}

/* ---- Records ---- */

static struct point_config named_config(void) {
    struct point_config c = {.n_vectors = 3, .settings_given = 5};
    static const char *const names[] = {"text", "", "image"};
    for (uint32_t i = 0; i < 3; i++) {
        snprintf(c.vectors[i].name, sizeof c.vectors[i].name, "%s", names[i]);
        c.vectors[i].dimension = i + 2;
        c.vectors[i].distance = (enum point_distance)i;
    }
    c.vectors[1].on_disk = POINT_FLAG_FALSE;
    c.settings[0] = 32;
    c.settings[2] = 0.25;
    point_config_finish(&c);
    return c;
}

/* One record of each op, encoded. */
enum { RECORDS = 6 };
static void encode_all(struct buffer out[RECORDS]) {
    const float vectors[6] = {1, -2, 3.5f, 4, 5, 6};
    const struct point_id number = {.low = 77};
    const struct point_id uuid = {.high = 5, .low = 6, .uuid = true};
    struct point_config config = named_config();
    point_record_encode_upsert(&out[0], 9, uuid, 5, vectors, 6, BYTES_LITERAL("{\"a\":1}"));
    point_record_encode_upsert(&out[1], 9, number, 0, NULL, 0, bytes_of(NULL, 0));
    point_record_encode_delete(&out[2], 9, number);
    point_record_encode_create(&out[3], BYTES_LITERAL("movies"), &config);
    point_record_encode_drop(&out[4], 9, 8);
    point_record_encode_bulk(&out[5], BYTES_LITERAL("task"));
}

static void free_all(struct buffer out[RECORDS]) {
    for (size_t i = 0; i < RECORDS; i++)
        buffer_deinit(&out[i]);
}

static void test_records_round_trip(void **state UNUSED) {
    static const enum point_op ops[RECORDS] = {POINT_UPSERT, POINT_UPSERT, POINT_DELETE,
                                               POINT_CREATE, POINT_DROP,   POINT_BULK};
    struct buffer encoded[RECORDS] = {0};
    struct point_record r[RECORDS];
    encode_all(encoded);
    for (size_t i = 0; i < RECORDS; i++) {
        assert_int_equal(buffer_check(&encoded[i]), 0);
        assert_true(point_record_decode(buffer_bytes(&encoded[i]), &r[i]));
        assert_int_equal(r[i].op, ops[i]);
    }
    const float vectors[6] = {1, -2, 3.5f, 4, 5, 6};
    assert_int_equal(r[0].incarnation, 9);
    assert_true(r[0].id.uuid && r[0].id.high == 5 && r[0].id.low == 6);
    assert_int_equal(r[0].vector_mask, 5);
    assert_int_equal(r[0].vectors.size, sizeof vectors);
    assert_memory_equal(r[0].vectors.data, vectors, sizeof vectors);
    assert_int_equal((r[0].vectors.data - encoded[0].data), POINT_RECORD_HEADER);
    assert_true(bytes_equal(r[0].payload, BYTES_LITERAL("{\"a\":1}")));
    assert_int_equal(r[1].vectors.size + r[1].payload.size, 0);
    assert_int_equal(r[2].id.low, 77);
    assert_true(bytes_equal(r[3].name, BYTES_LITERAL("movies")));
    assert_int_equal(r[4].incarnation, 9);
    assert_int_equal(r[4].applied, 8);
    assert_true(bytes_equal(r[5].body, BYTES_LITERAL("task")));
    free_all(encoded);
}

/* Version 2 says how an update is ordered; what is weak stays version 1, as it always was. */
static void test_orderings_of_records(void **state UNUSED) {
    struct buffer encoded[RECORDS] = {0};
    struct point_record r;
    encode_all(encoded);
    for (size_t i = 0; i <= 2; i++) { /* the upserts, and the delete */
        struct bytes payload = buffer_bytes(&encoded[i]);
        point_record_set_ordering(encoded[i].data, POINT_ORDERING_STRONG);
        assert_true(point_record_decode(payload, &r));
        assert_int_equal(r.ordering, POINT_ORDERING_STRONG);
        assert_memory_equal(encoded[i].data, ((const uint8_t[]){2, (uint8_t)r.op, r.id.uuid, 2}),
                            4);
        point_record_set_ordering(encoded[i].data, POINT_ORDERING_WEAK);
        assert_true(point_record_decode(payload, &r));
        assert_int_equal(r.ordering, POINT_ORDERING_WEAK);
        assert_int_equal(encoded[i].data[0], 1);
        encoded[i].data[3] = POINT_ORDERING_MEDIUM;
        assert_false(point_record_decode(payload, &r)); /* not in version 1 */
        encoded[i].data[0] = 2;
        encoded[i].data[3] = POINT_ORDERING_STRONG + 1;
        assert_false(point_record_decode(payload, &r));
    }
    encoded[3].data[0] = 2;
    encoded[3].data[3] = POINT_ORDERING_STRONG;
    assert_false(point_record_decode(buffer_bytes(&encoded[3]), &r)); /* collections have none */
    free_all(encoded);
}

/* In exact memory, so that asan sees a byte too many. */
static bool decode_exact(const uint8_t *data, size_t size) {
    struct point_record r = {0};
    struct point_config config;
    uint8_t *copy = malloc(size ? size : 1);
    assert_non_null(copy);
    if (size)
        memcpy(copy, data, size);
    bool good = point_record_decode(bytes_of(size ? copy : NULL, size), &r);
    if (good && r.op == POINT_CREATE)
        good = point_config_decode(r.body, &config);
    free(copy);
    return good;
}

static void test_cut_records(void **state UNUSED) {
    /* The shortest that still decodes: payloads and tasks run to the end, so a cut in them does. */
    static const size_t shortest[RECORDS] = {
        POINT_RECORD_HEADER + 24, POINT_RECORD_HEADER, 32, SIZE_MAX, 24, 16};
    struct buffer encoded[RECORDS] = {0};
    encode_all(encoded);
    for (size_t i = 0; i < RECORDS; i++)
        for (size_t size = 0; size <= encoded[i].size; size++) {
            bool whole = size == encoded[i].size;
            bool first = i == 4 && size == 16; /* a drop as it was written before `applied` */
            assert_int_equal(decode_exact(encoded[i].data, size),
                             whole || first || size >= shortest[i]);
        }
    free_all(encoded);
}

static void test_damaged_records(void **state UNUSED) {
    struct buffer encoded[RECORDS] = {0};
    uint64_t seed = 12345;
    encode_all(encoded);
    for (unsigned turn = 0; turn < 200000; turn++) {
        struct buffer *b = &encoded[turn % RECORDS];
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        size_t at = (size_t)(seed >> 33) % b->size;
        uint8_t before = b->data[at];
        b->data[at] = (uint8_t)(seed >> 24);
        (void)decode_exact(b->data, b->size);
        if (turn % 3)
            b->data[at] = before; /* the others pile up */
    }
    free_all(encoded);
}

static void test_wrong_records(void **state UNUSED) {
    struct buffer encoded[RECORDS] = {0};
    encode_all(encoded);
    encoded[4].data[0] = 2; /* version */
    assert_false(decode_exact(encoded[4].data, encoded[4].size));
    encoded[2].data[1] = 6; /* op */
    assert_false(decode_exact(encoded[2].data, encoded[2].size));
    encoded[1].data[24 - 8] = 1; /* the high half of an integer */
    assert_false(decode_exact(encoded[1].data, encoded[1].size));
    store_u32(encoded[0].data + 4, UINT32_MAX); /* more floats than there are */
    assert_false(decode_exact(encoded[0].data, encoded[0].size));
    free_all(encoded);
    encode_all(encoded);
    buffer_append_u8(&encoded[2], 0); /* bytes behind the end */
    buffer_append_u8(&encoded[4], 0);
    assert_false(decode_exact(encoded[2].data, encoded[2].size));
    assert_false(decode_exact(encoded[4].data, encoded[4].size));
    store_u32(encoded[5].data + 4, 1); /* floats where none are */
    assert_false(decode_exact(encoded[5].data, encoded[5].size));
    free_all(encoded);
}

static void test_config_round_trip(void **state UNUSED) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    struct point_config config = named_config(), back;
    point_config_encode(&out, &config);
    assert_true(point_config_decode(buffer_bytes(&out), &back));
    assert_int_equal(back.n_vectors, 3);
    assert_int_equal(back.row_floats, 9);
    assert_int_equal(back.offsets[2], 5);
    assert_string_equal(back.vectors[2].name, "image");
    assert_int_equal(back.vectors[1].on_disk, POINT_FLAG_FALSE);
    assert_int_equal(back.vectors[2].distance, DISTANCE_EUCLID);
    assert_int_equal(back.settings_given, 5);
    assert_true(back.settings[0] == 32 && back.settings[2] == 0.25);
    assert_int_equal(point_config_find(&back, BYTES_LITERAL("image")), 2);
    assert_int_equal(point_config_find(&back, BYTES_LITERAL("")), 1);
    assert_int_equal(point_config_find(&back, BYTES_LITERAL("imag")), -1);
    for (size_t size = 0; size < out.size; size++)
        assert_false(point_config_decode(bytes_of(out.data, size), &back));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids_from_json),      cmocka_unit_test(test_ids_from_text),
        cmocka_unit_test(test_ids_order_and_hash), cmocka_unit_test(test_normalize),
        cmocka_unit_test(test_records_round_trip), cmocka_unit_test(test_orderings_of_records),
        cmocka_unit_test(test_cut_records),        cmocka_unit_test(test_damaged_records),
        cmocka_unit_test(test_wrong_records),      cmocka_unit_test(test_config_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
