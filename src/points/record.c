/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of a point record, as the journal keeps them. Little-endian; the framing, the checksum
 * and the lsn are the journal's.
 *
 *   every record           UPSERT                    DELETE
 *   0  u8  version (1, 2)  16 u64 id, high           16 u64 id, high
 *   1  u8  op              24 u64 id, low            24 u64 id, low
 *   2  u8  1: id is a UUID 32 u64 mask of vectors    32 end
 *   3  u8  ordering        40 float32 × n_floats
 *   4  u32 n_floats        …  payload, to the end
 *   8  u64 incarnation
 *
 *   CREATE                 DROP                      BULK
 *   16 u32 length of name  16 u64 applied            16 task, to the end (bulk.c)
 *   20 name                24 end
 *   …  configuration
 *
 * The ordering (enum point_ordering) is 0 in version 1, and 2 is only written for another one.
 * n_floats is 0 but for UPSERT, the incarnation is 0 for CREATE (its own lsn is it) and BULK.
 * applied is what the workers had applied when the collection was dropped. Where it is missing, as
 * in the first records, all had been: UINT64_MAX.
 * The vectors of the mask follow each other in the order of the configuration; they start 40 bytes
 * in, so they are aligned whenever the record is.
 *
 * A configuration:
 *
 *   u8 version (1), u8 number of vectors, then for each: u32 dimension, u8 distance, u8 on_disk
 *   (enum point_flag), u32 length and name; u8 number of settings given, then for each:
 *   u8 number (its row in settings.def), f64 value.
 *
 * To change a layout: raise its version, keep decoding the old one, add a test with its bytes.
 */
#include "points/point.h"

#include <assert.h>

enum {
    RECORD_VERSION = 1,
    ORDERED_VERSION = 2,
    CONFIG_VERSION = 1,
    COMMON_SIZE = 16,
    DELETE_SIZE = 32
};

static void encode_common(uint8_t *out, enum point_op op, lsn_t incarnation, bool uuid,
                          uint32_t n_floats) {
    out[0] = RECORD_VERSION;
    out[1] = (uint8_t)op;
    out[2] = uuid;
    out[3] = 0;
    store_u32(out + 4, n_floats);
    store_u64(out + 8, incarnation);
}

static void append_common(struct buffer *out, enum point_op op, lsn_t incarnation) {
    uint8_t *at = buffer_reserve(out, COMMON_SIZE);
    if (!at)
        return;
    encode_common(at, op, incarnation, false, 0);
    out->size += COMMON_SIZE;
}

void point_record_store_header(uint8_t *out, lsn_t incarnation, struct point_id id,
                               uint64_t vector_mask, size_t n_floats) {
    assert(n_floats <= (size_t)POINT_VECTORS_MAX * POINT_DIMENSION_MAX);
    encode_common(out, POINT_UPSERT, incarnation, id.uuid, (uint32_t)n_floats);
    store_u64(out + 16, id.high);
    store_u64(out + 24, id.low);
    store_u64(out + 32, vector_mask);
}

void point_record_encode_upsert(struct buffer *out, lsn_t incarnation, struct point_id id,
                                uint64_t vector_mask, const float *vectors, size_t n_floats,
                                struct bytes payload) {
    uint8_t *at = buffer_reserve(out, POINT_RECORD_HEADER);
    if (!at)
        return;
    point_record_store_header(at, incarnation, id, vector_mask, n_floats);
    out->size += POINT_RECORD_HEADER;
    buffer_append(out, vectors, n_floats * sizeof *vectors);
    buffer_append_bytes(out, payload);
}

void point_record_encode_delete(struct buffer *out, lsn_t incarnation, struct point_id id) {
    uint8_t *at = buffer_reserve(out, DELETE_SIZE);
    if (!at)
        return;
    encode_common(at, POINT_DELETE, incarnation, id.uuid, 0);
    store_u64(at + 16, id.high);
    store_u64(at + 24, id.low);
    out->size += DELETE_SIZE;
}

void point_record_encode_create(struct buffer *out, struct bytes name,
                                const struct point_config *config) {
    append_common(out, POINT_CREATE, 0);
    buffer_append_block(out, name);
    point_config_encode(out, config);
}

void point_record_encode_drop(struct buffer *out, lsn_t incarnation, lsn_t applied) {
    append_common(out, POINT_DROP, incarnation);
    buffer_append_u64(out, applied);
}

void point_record_encode_bulk(struct buffer *out, struct bytes task) {
    append_common(out, POINT_BULK, 0);
    buffer_append_bytes(out, task);
}

void point_record_set_ordering(uint8_t *record, enum point_ordering ordering) {
    assert(record[1] == POINT_UPSERT || record[1] == POINT_DELETE);
    record[0] = ordering == POINT_ORDERING_WEAK ? RECORD_VERSION : ORDERED_VERSION;
    record[3] = (uint8_t)ordering;
}

static struct bytes reader_rest(struct reader *r) {
    return reader_bytes(r, (size_t)(r->end - r->at));
}

/* One decoder an op: fills what follows the common part. */
static bool decode_id(struct reader *r, struct point_record *record) {
    record->id.high = reader_u64(r);
    record->id.low = reader_u64(r);
    return !r->failed && (record->id.uuid || record->id.high == 0);
}

static bool decode_upsert(struct reader *r, uint32_t n_floats, struct point_record *record) {
    if (!decode_id(r, record))
        return false;
    record->vector_mask = reader_u64(r);
    record->vectors = reader_bytes(r, (size_t)n_floats * sizeof(float));
    if (r->failed || (record->vector_mask == 0) != (n_floats == 0))
        return false;
    record->payload = reader_rest(r);
    return true;
}

static bool decode_create(struct reader *r, struct point_record *record) {
    record->name = reader_block(r);
    record->body = reader_rest(r);
    return !r->failed && record->name.size > 0 && record->name.size <= POINT_NAME_MAX;
}

static bool decode_drop(struct reader *r, struct point_record *record) {
    record->applied = r->at == r->end ? UINT64_MAX : reader_u64(r);
    return !r->failed && r->at == r->end;
}

static bool decode_op(struct reader *r, uint32_t n_floats, struct point_record *record) {
    if (n_floats != 0 && record->op != POINT_UPSERT)
        return false;
    switch (record->op) {
    case POINT_UPSERT:
        return decode_upsert(r, n_floats, record);
    case POINT_DELETE:
        return decode_id(r, record) && r->at == r->end;
    case POINT_CREATE:
        return decode_create(r, record);
    case POINT_DROP:
        return decode_drop(r, record);
    case POINT_BULK:
        record->body = reader_rest(r);
        return true;
    }
    return false;
}

static bool ordering_fits(uint8_t version, enum point_op op, uint8_t ordering) {
    if (version == RECORD_VERSION)
        return ordering == POINT_ORDERING_WEAK;
    return version == ORDERED_VERSION && (op == POINT_UPSERT || op == POINT_DELETE) &&
           ordering > POINT_ORDERING_WEAK && ordering <= POINT_ORDERING_STRONG;
}

bool point_record_decode(struct bytes payload, struct point_record *ret_record) {
    struct reader r = reader_of(payload);
    struct point_record record = {0};
    uint8_t version = reader_u8(&r);
    record.op = reader_u8(&r);
    uint8_t uuid = reader_u8(&r);
    uint8_t ordering = reader_u8(&r);
    uint32_t n_floats = reader_u32(&r);
    record.incarnation = reader_u64(&r);
    record.id.uuid = uuid == 1;
    record.ordering = ordering;
    if (r.failed || !ordering_fits(version, record.op, ordering) || uuid > 1 ||
        !decode_op(&r, n_floats, &record))
        return false;
    *ret_record = record;
    return true;
}

bool point_record_fits(const struct point_config *config, const struct point_record *record) {
    size_t floats = 0;
    uint64_t mask = record->vector_mask;
    if (config->n_vectors < 64 && mask >> config->n_vectors)
        return false;
    for (uint32_t i = 0; i < config->n_vectors; i++)
        if (mask >> i & 1)
            floats += config->vectors[i].dimension;
    return record->vectors.size == floats * sizeof(float);
}

/* ---- Configurations ---- */

void point_config_encode(struct buffer *out, const struct point_config *config) {
    assert(config->n_vectors <= POINT_VECTORS_MAX);
    buffer_append_u8(out, CONFIG_VERSION);
    buffer_append_u8(out, (uint8_t)config->n_vectors);
    for (uint32_t i = 0; i < config->n_vectors; i++) {
        const struct point_vector_config *v = &config->vectors[i];
        buffer_append_u32(out, v->dimension);
        buffer_append_u8(out, (uint8_t)v->distance);
        buffer_append_u8(out, (uint8_t)v->on_disk);
        buffer_append_block(out, bytes_of_string(v->name));
    }
    buffer_append_u8(out, (uint8_t)__builtin_popcount(config->settings_given));
    for (unsigned i = 0; i < POINT_SETTINGS; i++) {
        if (!(config->settings_given & 1u << i))
            continue;
        buffer_append_u8(out, (uint8_t)i);
        buffer_append(out, &config->settings[i], sizeof config->settings[i]);
    }
}

static bool decode_vector(struct reader *r, struct point_vector_config *v) {
    v->dimension = reader_u32(r);
    uint8_t distance = reader_u8(r);
    uint8_t on_disk = reader_u8(r);
    struct bytes name = reader_block(r);
    if (r->failed || v->dimension == 0 || v->dimension > POINT_DIMENSION_MAX ||
        distance >= DISTANCES || on_disk > POINT_FLAG_TRUE || name.size > POINT_NAME_MAX)
        return false;
    v->distance = distance;
    v->on_disk = on_disk;
    if (name.size)
        memcpy(v->name, name.data, name.size);
    v->name[name.size] = '\0';
    return strlen(v->name) == name.size;
}

static bool decode_settings(struct reader *r, struct point_config *config) {
    for (unsigned n = reader_u8(r); n > 0 && !r->failed; n--) {
        uint8_t number = reader_u8(r);
        uint64_t bits = reader_u64(r);
        if (r->failed || number >= POINT_SETTINGS)
            return false;
        memcpy(&config->settings[number], &bits, sizeof bits);
        config->settings_given |= 1u << number;
    }
    return !r->failed && r->at == r->end;
}

bool point_config_decode(struct bytes body, struct point_config *ret_config) {
    struct reader r = reader_of(body);
    struct point_config config = {0};
    uint8_t version = reader_u8(&r);
    config.n_vectors = reader_u8(&r);
    if (r.failed || version != CONFIG_VERSION || config.n_vectors > POINT_VECTORS_MAX)
        return false;
    for (uint32_t i = 0; i < config.n_vectors; i++)
        if (!decode_vector(&r, &config.vectors[i]))
            return false;
    if (!decode_settings(&r, &config))
        return false;
    point_config_finish(&config);
    *ret_config = config;
    return true;
}
