/* SPDX-License-Identifier: Apache-2.0 */
/* What is written by hand is read back by the code generated from messages.proto. */
#include "points/qdrant/encode.h"
#include "points/qdrant/messages.pb-c.h"
#include "points/qdrant/wire.h"
#include "points/test_support.h"

#include <stdio.h>

static const struct point_config UNNAMED = {.n_vectors = 1, .vectors = {{.dimension = 4}}};
static const struct point_config NAMED = {
    .n_vectors = 3,
    .vectors = {{.name = "a", .dimension = 2},
                {.name = "b", .dimension = 40},
                {.name = "c", .dimension = 1}},
};
static const float FLOATS[64] = {1, -2.5F, 3, 1e30F, 5, 6, 7, 8};
static const struct point_id UUID = {0x123e4567e89b12d3, 0xa456426614174000, true};

static struct bytes floats(size_t n) {
    return bytes_of(FLOATS, n * sizeof(float));
}

static struct bytes message_of(const struct buffer *b) {
    assert_true(b->size >= GRPC_PREFIX_BYTES);
    size_t size = b->size - GRPC_PREFIX_BYTES;
    assert_int_equal(b->data[0], 0);
    assert_int_equal((size_t)b->data[1] << 24 | (size_t)b->data[2] << 16 | (size_t)b->data[3] << 8 |
                         b->data[4],
                     size);
    return bytes_of(b->data + GRPC_PREFIX_BYTES, size);
}

static Qdrant__UpsertPoints *upsert(const struct point_config *config,
                                    const struct qdrant_point *points, size_t n) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    CLEANUP(payload_reader_deinit) struct payload_reader reader = PAYLOAD_READER_INIT;
    size_t bad;
    assert_int_equal(encode_upsert(&reader, BYTES_LITERAL("films"), config, points, n,
                                   QDRANT_STRONG, &out, &bad),
                     0);
    struct bytes message = message_of(&out);
    Qdrant__UpsertPoints *read = qdrant__upsert_points__unpack(NULL, message.size, message.data);
    assert_non_null(read);
    assert_string_equal(read->collection_name, "films");
    assert_true(read->wait);
    assert_int_equal(read->ordering->type, QDRANT__WRITE_ORDERING_TYPE__Strong);
    assert_int_equal(read->n_points, n);
    return read;
}

static void expect_floats(const Qdrant__Vector *v, const float *expected, size_t n) {
    assert_int_equal(v->n_data, n);
    assert_memory_equal(v->data, expected, n * sizeof *expected);
}

static void test_ids_and_the_unnamed_vector(void **state UNUSED) {
    const struct qdrant_point points[] = {
        {.id = {.low = UINT64_MAX}, .vector_mask = 1, .vectors = floats(4)},
        {.id = UUID, .vector_mask = 1, .vectors = floats(4)},
        {.id = {0}, .vector_mask = 0},
    };
    Qdrant__UpsertPoints *read = upsert(&UNNAMED, points, ARRAY_LENGTH(points));
    assert_true(read->points[0]->id->num == UINT64_MAX);
    assert_string_equal(read->points[1]->id->uuid, "123e4567-e89b-12d3-a456-426614174000");
    assert_int_equal(read->points[2]->id->point_id_options_case,
                     QDRANT__POINT_ID__POINT_ID_OPTIONS_NUM);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(read->points[i]->vectors->vectors_options_case,
                         QDRANT__VECTORS__VECTORS_OPTIONS_VECTOR);
        expect_floats(read->points[i]->vectors->vector, FLOATS, 4);
    }
    /* Said to be none, not left out: Qdrant asks for that. */
    assert_int_equal(read->points[2]->vectors->vectors_options_case,
                     QDRANT__VECTORS__VECTORS_OPTIONS_VECTORS);
    assert_int_equal(read->points[2]->vectors->vectors->n_vectors, 0);
    qdrant__upsert_points__free_unpacked(read, NULL);
}

static void test_named_vectors(void **state UNUSED) {
    const struct qdrant_point points[] = {
        {.id = {.low = 1}, .vector_mask = 7, .vectors = floats(43)},
        {.id = {.low = 2}, .vector_mask = 6, .vectors = floats(41)},
    };
    Qdrant__UpsertPoints *read = upsert(&NAMED, points, 2);
    const Qdrant__NamedVectors *all = read->points[0]->vectors->vectors;
    assert_int_equal(all->n_vectors, 3);
    assert_string_equal(all->vectors[1]->key, "b");
    expect_floats(all->vectors[0]->value, FLOATS, 2);
    expect_floats(all->vectors[1]->value, FLOATS + 2, 40);
    expect_floats(all->vectors[2]->value, FLOATS + 42, 1);
    const Qdrant__NamedVectors *some = read->points[1]->vectors->vectors;
    assert_int_equal(some->n_vectors, 2);
    assert_string_equal(some->vectors[1]->key, "c");
    expect_floats(some->vectors[0]->value, FLOATS, 40);
    qdrant__upsert_points__free_unpacked(read, NULL);
}

static const Qdrant__Value *payload_of(const Qdrant__UpsertPoints *read, const char *key) {
    for (size_t i = 0; i < read->points[0]->n_payload; i++)
        if (strcmp(read->points[0]->payload[i]->key, key) == 0)
            return read->points[0]->payload[i]->value;
    fail_msg("no member %s", key);
    return NULL;
}

static void test_payloads(void **state UNUSED) {
    static const char json[] =
        "{\"null\":null,\"yes\":true,\"no\":false,\"small\":-9223372036854775808,"
        "\"large\":18446744073709551615,\"real\":2.0,\"empty\":\"\",\"text\":\"\\u00e9\\n\","
        "\"list\":[1,[],{\"x\":[]}],\"object\":{\"x\":{\"y\":-1}}}";
    const struct qdrant_point point = {
        .vector_mask = 1, .vectors = floats(4), .payload = bytes_of_string(json)};
    Qdrant__UpsertPoints *read = upsert(&UNNAMED, &point, 1);
    assert_int_equal(read->points[0]->n_payload, 10);
    assert_int_equal(payload_of(read, "null")->kind_case, QDRANT__VALUE__KIND_NULL_VALUE);
    assert_true(payload_of(read, "yes")->bool_value);
    assert_int_equal(payload_of(read, "no")->kind_case, QDRANT__VALUE__KIND_BOOL_VALUE);
    assert_false(payload_of(read, "no")->bool_value);
    assert_true(payload_of(read, "small")->integer_value == INT64_MIN);
    assert_int_equal(payload_of(read, "large")->kind_case, QDRANT__VALUE__KIND_DOUBLE_VALUE);
    assert_true(payload_of(read, "large")->double_value == 18446744073709551616.0);
    assert_int_equal(payload_of(read, "real")->kind_case, QDRANT__VALUE__KIND_DOUBLE_VALUE);
    assert_string_equal(payload_of(read, "empty")->string_value, "");
    assert_string_equal(payload_of(read, "text")->string_value, "\u00e9\n");
    const Qdrant__ListValue *list = payload_of(read, "list")->list_value;
    assert_int_equal(list->n_values, 3);
    assert_true(list->values[0]->integer_value == 1);
    assert_int_equal(list->values[1]->kind_case, QDRANT__VALUE__KIND_LIST_VALUE);
    assert_string_equal(list->values[2]->struct_value->fields[0]->key, "x");
    const Qdrant__Struct *object = payload_of(read, "object")->struct_value;
    assert_true(object->fields[0]->value->struct_value->fields[0]->value->integer_value == -1);
    qdrant__upsert_points__free_unpacked(read, NULL);
}

/* Lengths that take one byte, two and three, each with a guess that was too small. */
static void test_long_values(void **state UNUSED) {
    enum { LONGEST = 40000 };
    for (size_t size = 100; size <= LONGEST; size *= 20) {
        CLEANUP(buffer_deinit) struct buffer json = BUFFER_INIT;
        buffer_append_string(&json, "{\"x\":[\"");
        for (size_t i = 0; i < size; i++)
            buffer_append_u8(&json, 'z');
        buffer_append_string(&json, "\",7]}");
        const struct qdrant_point point = {
            .vector_mask = 1, .vectors = floats(4), .payload = buffer_bytes(&json)};
        Qdrant__UpsertPoints *read = upsert(&UNNAMED, &point, 1);
        const Qdrant__ListValue *list = payload_of(read, "x")->list_value;
        assert_int_equal(strlen(list->values[0]->string_value), size);
        assert_true(list->values[1]->integer_value == 7);
        qdrant__upsert_points__free_unpacked(read, NULL);
    }
}

/* A guess too large moves the bytes down. */
static void test_a_message_is_closed_whatever_the_guess(void **state UNUSED) {
    static const size_t guesses[] = {0, 127, 128, 100000};
    for (size_t i = 0; i < ARRAY_LENGTH(guesses); i++) {
        CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
        struct wire_message m = wire_open(&out, 1, guesses[i]);
        wire_varint(&out, 1, 300);
        wire_close(&out, m);
        assert_int_equal(out.size, 5);
        assert_memory_equal(out.data, "\x0a\x03\x08\xac\x02", 5);
    }
}

static int encode_payload(const char *json, size_t *ret_bad) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    CLEANUP(payload_reader_deinit) struct payload_reader reader = PAYLOAD_READER_INIT;
    const struct qdrant_point points[] = {
        {.vector_mask = 1, .vectors = floats(4)},
        {.vector_mask = 1, .vectors = floats(4), .payload = bytes_of_string(json)},
    };
    return encode_upsert(&reader, BYTES_LITERAL("c"), &UNNAMED, points, 2, QDRANT_WEAK, &out,
                         ret_bad);
}

static void test_payloads_that_cannot_be_sent(void **state UNUSED) {
    static const char *const wrong[] = {"[]", "1", "{", "{\"a\":}"};
    char deep[4 * PAYLOAD_DEPTH_MAX + 16] = "";
    for (size_t i = 0; i < ARRAY_LENGTH(wrong); i++) {
        size_t bad = 0;
        assert_int_equal(encode_payload(wrong[i], &bad), PAYLOAD_E_WRONG);
        assert_int_equal(bad, 1);
    }
    for (int levels = PAYLOAD_DEPTH_MAX; levels <= PAYLOAD_DEPTH_MAX + 1; levels++) {
        size_t bad;
        int arrays = levels - 1;
        snprintf(deep, sizeof deep, "{\"a\":%.*s%.*s}", arrays,
                 "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", arrays,
                 "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]");
        assert_int_equal(encode_payload(deep, &bad),
                         levels > PAYLOAD_DEPTH_MAX ? PAYLOAD_E_WRONG : 0);
    }
}

static void test_delete(void **state UNUSED) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    const struct point_id ids[] = {{.low = 7}, UUID, {.low = UINT64_MAX}};
    assert_int_equal(encode_delete(BYTES_LITERAL("c"), ids, ARRAY_LENGTH(ids), QDRANT_MEDIUM, &out),
                     0);
    struct bytes message = message_of(&out);
    Qdrant__DeletePoints *read = qdrant__delete_points__unpack(NULL, message.size, message.data);
    assert_non_null(read);
    assert_string_equal(read->collection_name, "c");
    assert_true(read->wait);
    assert_int_equal(read->ordering->type, QDRANT__WRITE_ORDERING_TYPE__Medium);
    const Qdrant__PointsIdsList *list = read->points->points;
    assert_int_equal(list->n_ids, ARRAY_LENGTH(ids));
    assert_true(list->ids[0]->num == 7);
    assert_string_equal(list->ids[1]->uuid, "123e4567-e89b-12d3-a456-426614174000");
    assert_true(list->ids[2]->num == UINT64_MAX);
    qdrant__delete_points__free_unpacked(read, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids_and_the_unnamed_vector),
        cmocka_unit_test(test_named_vectors),
        cmocka_unit_test(test_payloads),
        cmocka_unit_test(test_long_values),
        cmocka_unit_test(test_a_message_is_closed_whatever_the_guess),
        cmocka_unit_test(test_payloads_that_cannot_be_sent),
        cmocka_unit_test(test_delete),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
