/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A message may be written in pieces: parts that follow each other are read as one (this is
 * promised: "Last One Wins" in Protocol Buffers' encoding.md). So the head of a request is packed
 * by the generated code, and its points are appended by hand: a record's floats are the message's
 * as they lie in memory, and one copy of them is all that a point's vector costs.
 */
#include "points/qdrant/encode.h"

#include "base/uuid.h"
#include "points/qdrant/messages.pb-c.h"
#include "points/qdrant/wire.h"

#include <assert.h>
#include <stdlib.h>

/* Numbers of the fields that are written by hand, as in messages.proto. */
enum {
    UPSERT_POINTS = 3,
    DELETE_POINTS = 3,
    SELECTOR_POINTS = 1,
    IDS_LIST_IDS = 1,
    POINT_ID = 1,
    POINT_VECTORS = 4,
    ID_NUM = 1,
    ID_UUID = 2,
    VECTORS_VECTOR = 1,
    VECTORS_NAMED = 2,
    VECTOR_DATA = 1,
    NAMED_VECTORS = 1,
    ENTRY_KEY = 1,
    ENTRY_VALUE = 2,
};

/* Guesses of a message's size (wire_open); more than PAYLOAD_GROWTH does a payload rarely grow. */
enum { SMALL_BYTES = 1, PAYLOAD_GROWTH = 2, POINT_OVERHEAD_BYTES = 64 };

/* ---- Ids and vectors ---- */
static void append_id(struct buffer *out, unsigned field, struct point_id id) {
    struct wire_message m = wire_open(out, field, SMALL_BYTES);
    if (id.uuid) {
        char text[UUID_TEXT_BYTES + 1];
        uuid_format(id.high, id.low, text);
        wire_bytes(out, ID_UUID, bytes_of(text, UUID_TEXT_BYTES));
    } else {
        wire_varint(out, ID_NUM, id.low);
    }
    wire_close(out, m);
}

static size_t vector_message_size(struct bytes floats) {
    return 1 + wire_varint_size(floats.size) + floats.size;
}

static void append_vector(struct buffer *out, unsigned field, struct bytes floats) {
    wire_key_value(out, field, WIRE_LENGTH, vector_message_size(floats));
    wire_bytes(out, VECTOR_DATA, floats);
}

static void append_named(struct buffer *out, struct bytes name, struct bytes floats) {
    size_t size = vector_message_size(floats);
    struct wire_message entry = wire_open(out, NAMED_VECTORS, name.size + size + 4);
    wire_bytes(out, ENTRY_KEY, name);
    append_vector(out, ENTRY_VALUE, floats);
    wire_close(out, entry);
}

static void append_named_vectors(struct buffer *out, const struct point_config *config,
                                 const struct qdrant_point *p) {
    struct wire_message named = wire_open(out, VECTORS_NAMED, p->vectors.size + 8);
    size_t at = 0;
    for (uint32_t i = 0; i < config->n_vectors; i++) {
        if (!(p->vector_mask >> i & 1))
            continue;
        size_t size = config->vectors[i].dimension * sizeof(float);
        assert(at + size <= p->vectors.size);
        append_named(out, bytes_of_string(config->vectors[i].name),
                     bytes_of(p->vectors.data + at, size));
        at += size;
    }
    wire_close(out, named);
}

/* A point without vectors has an empty map of named ones: Qdrant refuses one that says nothing. */
static void append_vectors(struct buffer *out, const struct point_config *config,
                           const struct qdrant_point *p) {
    bool unnamed = config->n_vectors == 1 && config->vectors[0].name[0] == '\0';
    struct wire_message vectors = wire_open(out, POINT_VECTORS, p->vectors.size + 8);
    if (unnamed && p->vector_mask)
        append_vector(out, VECTORS_VECTOR, p->vectors);
    else
        append_named_vectors(out, config, p);
    wire_close(out, vectors);
}

/* ---- Requests ---- */
static void open_request(struct buffer *out) {
    static const uint8_t prefix[GRPC_PREFIX_BYTES] = {0};
    buffer_clear(out);
    buffer_append(out, prefix, sizeof prefix);
}

/* The prefix: not compressed, and the length of the message, most significant byte first. */
static int close_request(struct buffer *out) {
    if (buffer_check(out))
        return error_origin(-ENOMEM);
    size_t size = out->size - GRPC_PREFIX_BYTES;
    if (size > UINT32_MAX)
        return error_origin(-ENOMEM);
    for (unsigned i = 0; i < sizeof(uint32_t); i++)
        out->data[1 + i] = (uint8_t)(size >> (24 - 8 * i));
    return 0;
}

static void append_packed(struct buffer *out, const ProtobufCMessage *message) {
    size_t size = protobuf_c_message_get_packed_size(message);
    uint8_t *at = buffer_reserve(out, size);
    if (at)
        out->size += protobuf_c_message_pack(message, at);
}

/* The generated structs hold plain C strings: a name that the catalog has takes POINT_NAME_MAX. */
static char *name_of(struct bytes collection, char text[POINT_NAME_MAX + 1]) {
    assert(collection.size <= POINT_NAME_MAX);
    memcpy(text, collection.data, collection.size);
    text[collection.size] = '\0';
    return text;
}

static Qdrant__WriteOrdering ordering_of(enum qdrant_ordering ordering) {
    static const Qdrant__WriteOrderingType types[] = {
        [QDRANT_WEAK] = QDRANT__WRITE_ORDERING_TYPE__Weak,
        [QDRANT_MEDIUM] = QDRANT__WRITE_ORDERING_TYPE__Medium,
        [QDRANT_STRONG] = QDRANT__WRITE_ORDERING_TYPE__Strong,
    };
    Qdrant__WriteOrdering message = QDRANT__WRITE_ORDERING__INIT;
    message.type = types[ordering];
    return message;
}

static int append_point(struct payload_reader *reader, struct buffer *out,
                        const struct point_config *config, const struct qdrant_point *p) {
    size_t guess = p->vectors.size + PAYLOAD_GROWTH * p->payload.size + POINT_OVERHEAD_BYTES;
    struct wire_message m = wire_open(out, UPSERT_POINTS, guess);
    append_id(out, POINT_ID, p->id);
    append_vectors(out, config, p);
    int r = payload_append(reader, out, p->payload);
    wire_close(out, m);
    return r;
}

int encode_upsert(struct payload_reader *reader, struct bytes collection,
                  const struct point_config *config, const struct qdrant_point *points, size_t n,
                  enum qdrant_ordering ordering, struct buffer *out, size_t *ret_bad) {
    char name[POINT_NAME_MAX + 1];
    Qdrant__WriteOrdering order = ordering_of(ordering);
    Qdrant__UpsertPoints head = QDRANT__UPSERT_POINTS__INIT;
    head.collection_name = name_of(collection, name);
    head.wait = true;
    head.ordering = &order;
    open_request(out);
    append_packed(out, &head.base);
    for (size_t i = 0; i < n; i++) {
        int r = append_point(reader, out, config, &points[i]);
        if (r == PAYLOAD_E_WRONG)
            *ret_bad = i;
        if (r)
            return error_trace(r);
    }
    return close_request(out);
}

int encode_delete(struct bytes collection, const struct point_id *ids, size_t n,
                  enum qdrant_ordering ordering, struct buffer *out) {
    char name[POINT_NAME_MAX + 1];
    Qdrant__WriteOrdering order = ordering_of(ordering);
    Qdrant__DeletePoints head = QDRANT__DELETE_POINTS__INIT;
    head.collection_name = name_of(collection, name);
    head.wait = true;
    head.ordering = &order;
    open_request(out);
    append_packed(out, &head.base);
    struct wire_message selector = wire_open(out, DELETE_POINTS, n * UUID_TEXT_BYTES);
    struct wire_message list = wire_open(out, SELECTOR_POINTS, n * UUID_TEXT_BYTES);
    for (size_t i = 0; i < n; i++)
        append_id(out, IDS_LIST_IDS, ids[i]);
    wire_close(out, list);
    wire_close(out, selector);
    return close_request(out);
}

int encode_health(struct buffer *out) {
    open_request(out); /* a message without fields has no bytes */
    return close_request(out);
}
