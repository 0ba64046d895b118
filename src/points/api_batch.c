/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hot path of every write: JSON points become journal records in one pass. Long arrays are cut
 * into elements (json_split.h), each element is parsed once, and its numbers are written where the
 * record has them. Nothing is allocated for a point.
 *
 *   │ home │ header 40 │ vectors of the mask │ payload as JSON │ 0–7 zeros │ home │ …
 *          ▲ start: a multiple of 8, so that the vectors are aligned
 *
 * The home is empty but in a journal that many processes share (home.h).
 */
#include "points/api_parts.h"

#include <assert.h>
#include <errno.h>
#include <math.h>

void api_batch_init(struct api_batch *b, const struct points_collection *collection,
                    const struct work *work, struct buffer *bytes) {
    *b = (struct api_batch){
        .collection = collection, .work = work, .bytes = bytes, .records = BUFFER_INIT};
    buffer_clear(bytes);
}

void api_batch_deinit(struct api_batch *b) {
    buffer_deinit(&b->records);
}

void api_batch_clear(struct api_batch *b) {
    buffer_clear(b->bytes);
    buffer_clear(&b->records);
    b->n = 0;
    b->lane_mask = 0;
    b->grows = false;
    b->placed = false;
}

/* ---- Records ---- */

/* The record is b->bytes from start on; its data pointer is an offset until api_batch_records. */
static int add_record(struct api_batch *b, size_t start, uint64_t key_hash, uint8_t flags) {
    assert(!b->placed);
    int r = buffer_check(b->bytes);
    if (r)
        return error_trace(r);
    struct journal_record *record = (void *)buffer_reserve(&b->records, sizeof *record);
    if (!record)
        return error_origin(-ENOMEM);
    *record = (struct journal_record){
        .key_hash = key_hash,
        .kind = JOURNAL_KIND_POINTS,
        .flags = flags,
        .payload = {.data = (const uint8_t *)start, .size = b->bytes->size - start}};
    b->records.size += sizeof *record;
    b->n++;
    return 0;
}

static int add_point_record(struct api_batch *b, size_t start, struct point_id id, uint8_t flags) {
    uint64_t hash = point_key_hash(b->collection->incarnation, id);
    if (b->ordering != POINT_ORDERING_WEAK && !b->bytes->failed)
        point_record_set_ordering(b->bytes->data + start, b->ordering);
    int r = add_record(b, start - b->collection->home.size, hash, flags);
    if (r)
        return error_trace(r);
    b->lane_mask |= 1ull << work_lane_of(b->work, hash);
    return 0;
}

int api_batch_records(struct api_batch *b, struct journal_record **ret_records) {
    struct journal_record *records = (void *)b->records.data;
    int r = buffer_check(b->bytes);
    if (r)
        return error_trace(r);
    for (size_t i = 0; i < b->n && !b->placed; i++)
        records[i].payload.data = b->bytes->data + (uintptr_t)records[i].payload.data;
    b->placed = true;
    *ret_records = records;
    return 0;
}

int api_batch_delete(struct api_batch *b, struct point_id id) {
    buffer_append_bytes(b->bytes, buffer_bytes(&b->collection->home));
    size_t start = b->bytes->size;
    point_record_encode_delete(b->bytes, b->collection->incarnation, id);
    return error_trace(add_point_record(b, start, id, JOURNAL_DELETES));
}

int api_batch_control(struct api_batch *b, size_t start) {
    return error_trace(add_record(b, start, 0, JOURNAL_CONTROL));
}

/* ---- A point, in steps ---- */

int api_batch_begin(struct api_batch *b) {
    const struct buffer *home = &b->collection->home;
    size_t padding = -(b->bytes->size + home->size) % 8;
    uint8_t *at = buffer_reserve(b->bytes, padding + home->size + POINT_RECORD_HEADER);
    if (!at)
        return error_origin(-ENOMEM);
    memset(at, 0, padding);
    if (home->size)
        memcpy(at + padding, home->data, home->size);
    b->start = b->bytes->size + padding + home->size;
    b->bytes->size = b->start + POINT_RECORD_HEADER;
    b->vector_mask = 0;
    b->n_floats = 0;
    return 0;
}

void api_batch_take_back(struct api_batch *b) {
    b->bytes->size = b->start - b->collection->home.size;
}

static void add_vector(struct api_batch *b, unsigned place, float *vector) {
    assert(place < b->collection->config.n_vectors);
    assert(b->vector_mask >> place == 0); /* by ascending place */
    const struct point_vector_config *config = &b->collection->config.vectors[place];
    if (config->distance == DISTANCE_COSINE)
        point_normalize(vector, config->dimension);
    b->vector_mask |= 1ull << place;
    b->n_floats += config->dimension;
    b->bytes->size += config->dimension * sizeof *vector;
}

static int vector_fault(const struct point_vector_config *config, int r, size_t count,
                        struct api_fault *f) {
    if (r == JSON_FLOATS_E_TYPE)
        return api_fault_set(f, API_FAULT_FORMAT, "vector",
                             "`vector` must be an array of numbers, or an object of them by name");
    if (r == JSON_FLOATS_E_RANGE)
        return api_fault_set(f, API_FAULT_INPUT, "vector",
                             "a number of the vector is out of the range of float32");
    return api_fault_set(f, API_FAULT_DIMENSION, "vector",
                         "Vector dimension error: expected dim: %u, got %zu", config->dimension,
                         count);
}

int api_batch_vector(struct api_batch *b, unsigned place, struct json_value v,
                     struct api_fault *f) {
    const struct point_vector_config *config = &b->collection->config.vectors[place];
    size_t count = 0;
    float *vector = (void *)buffer_reserve(b->bytes, config->dimension * sizeof *vector);
    if (!vector)
        return error_origin(-ENOMEM);
    int r = json_get_floats(v, vector, config->dimension, &count);
    if (r || count != config->dimension)
        return vector_fault(config, r, count, f);
    add_vector(b, place, vector);
    return 0;
}

int api_batch_floats(struct api_batch *b, unsigned place, const void *floats, struct api_fault *f) {
    const struct point_vector_config *config = &b->collection->config.vectors[place];
    float *vector = (void *)buffer_reserve(b->bytes, config->dimension * sizeof *vector);
    if (!vector)
        return error_origin(-ENOMEM);
    memcpy(vector, floats, config->dimension * sizeof *vector);
    for (uint32_t i = 0; i < config->dimension; i++)
        if (!isfinite(vector[i]))
            return api_fault_set(f, API_FAULT_INPUT, "vector", "number %u is not finite", i + 1);
    add_vector(b, place, vector);
    return 0;
}

static int unknown_vector(struct bytes name, struct api_fault *f) {
    return api_fault_set(f, API_FAULT_INPUT, "vector", "Not existing vector name error: %s",
                         api_text_of(name).text);
}

static int add_named(struct api_batch *b, struct json_value object, struct api_fault *f) {
    struct json_value values[POINT_VECTORS_MAX];
    uint64_t mask = 0;
    struct json_iterator it = json_iterate(object);
    struct json_value v;
    struct bytes name;
    while (json_next(&it, &name, &v)) {
        int place = point_config_find(&b->collection->config, name);
        if (place < 0)
            return unknown_vector(name, f);
        values[place] = v;
        mask |= 1ull << place;
    }
    for (; mask; mask &= mask - 1) {
        unsigned place = (unsigned)__builtin_ctzll(mask);
        int r = api_batch_vector(b, place, values[place], f);
        if (r)
            return error_trace(r);
    }
    return 0;
}

int api_batch_vectors(struct api_batch *b, struct json_value v, struct api_fault *f) {
    if (json_type_of(v) == JSON_OBJECT)
        return error_trace(add_named(b, v, f));
    int place = point_config_find(&b->collection->config, BYTES_LITERAL(""));
    if (json_type_of(v) == JSON_ARRAY && place < 0)
        return unknown_vector(BYTES_LITERAL(""), f);
    if (place < 0)
        return vector_fault(NULL, JSON_FLOATS_E_TYPE, 0, f);
    return error_trace(api_batch_vector(b, (unsigned)place, v, f));
}

int api_batch_payload(struct api_batch *b, struct json_value v, struct api_fault *f) {
    if (json_type_of(v) == JSON_NULL)
        return 0;
    if (json_type_of(v) != JSON_OBJECT)
        return api_fault_set(f, API_FAULT_FORMAT, "payload", "`payload` must be an object or null");
    json_append_value(b->bytes, v);
    return 0;
}

int api_batch_end(struct api_batch *b, struct point_id id, struct api_fault *f) {
    int r = buffer_check(b->bytes);
    b->grows = true;
    if (r)
        return error_trace(r);
    size_t payload = b->bytes->size - b->start - POINT_RECORD_HEADER - b->n_floats * sizeof(float);
    if (payload > POINT_PAYLOAD_MAX)
        return api_fault_set(f, API_FAULT_INPUT, "payload",
                             "the payload has %zu bytes as JSON, at most %d are taken", payload,
                             POINT_PAYLOAD_MAX);
    point_record_store_header(b->bytes->data + b->start, b->collection->incarnation, id,
                              b->vector_mask, b->n_floats);
    return error_trace(add_point_record(b, b->start, id, 0));
}

/* ---- A whole point ---- */

struct point_fields {
    struct json_value id;
    struct json_value vector;
    struct json_value payload;
    bool has_id;
    bool has_vector;
    bool has_payload;
};

/* In one pass; of duplicates the last counts. */
static void find_fields(struct json_value point, struct point_fields *fields) {
    struct json_iterator it = json_iterate(point);
    struct json_value v;
    struct bytes key;
    *fields = (struct point_fields){0};
    while (json_next(&it, &key, &v)) {
        if (bytes_equal(key, BYTES_LITERAL("id"))) {
            fields->id = v;
            fields->has_id = true;
        } else if (bytes_equal(key, BYTES_LITERAL("vector"))) {
            fields->vector = v;
            fields->has_vector = true;
        } else if (bytes_equal(key, BYTES_LITERAL("payload"))) {
            fields->payload = v;
            fields->has_payload = true;
        }
    }
}

static int add_point(struct api_batch *b, const struct point_fields *fields, struct api_fault *f) {
    struct point_id id;
    int r = api_get_id(fields->id, &id, f);
    if (r)
        return error_trace(r);
    r = api_batch_vectors(b, fields->vector, f);
    if (r)
        return error_trace(r);
    if (fields->has_payload) {
        r = api_batch_payload(b, fields->payload, f);
        if (r)
            return error_trace(r);
    }
    return error_trace(api_batch_end(b, id, f));
}

int api_batch_point(struct api_batch *b, struct json_parser *parser, struct bytes text,
                    const char *what, struct api_fault *f) {
    struct point_fields fields;
    struct json_value point;
    int r = json_parse_vector(parser, text, "vector", &point);
    if (r)
        return api_fault_json(f, r, what);
    if (json_type_of(point) != JSON_OBJECT)
        return api_fault_set(f, API_FAULT_FORMAT, NULL, "a point must be an object");
    find_fields(point, &fields);
    if (!fields.has_id)
        return api_fault_missing(f, "id");
    if (!fields.has_vector)
        return api_fault_missing(f, "vector");
    r = api_batch_begin(b);
    if (r)
        return error_trace(r);
    r = add_point(b, &fields, f);
    if (r)
        api_batch_take_back(b);
    return error_trace(r);
}

int api_batch_list(struct api_batch *b, struct json_parser *parser, struct bytes list,
                   struct api_fault *f) {
    struct json_members members;
    struct bytes key, element;
    int r = json_members_init(&members, list);
    if (r || members.object)
        return api_fault_set(f, API_FAULT_FORMAT, "points", "`points` must be an array");
    while ((r = json_members_next(&members, &key, &element)) == 0) {
        r = api_batch_point(b, parser, element, "a point", f);
        if (r)
            return error_trace(r);
    }
    return r == JSON_SPLIT_E_END ? 0 : api_fault_split(f, r, "`points`");
}

/* ---- Columns: {"ids":[…],"vectors":[…] or {name:[…]},"payloads":[…]} ---- */

/* A column that is walked. */
struct column {
    struct json_members members;
    const char *name;
    unsigned place; /* of a column of vectors */
    bool given;
};
struct columns {
    struct column ids;
    struct column payloads;
    struct column vectors[POINT_VECTORS_MAX];
    size_t n_vectors;
};

static int column_open(struct column *c, const char *name, struct bytes raw, struct api_fault *f) {
    *c = (struct column){.name = name, .given = true};
    if (json_members_init(&c->members, raw) || c->members.object)
        return api_fault_set(f, API_FAULT_FORMAT, name, "`%s` must be an array", name);
    return 0;
}

/* The next element, parsed; JSON_SPLIT_E_END behind the last. */
static int column_next(struct column *c, struct json_parser *parser, struct json_value *ret,
                       struct api_fault *f) {
    struct bytes key, element;
    int r = json_members_next(&c->members, &key, &element);
    if (r == JSON_SPLIT_E_END)
        return r;
    if (r)
        return api_fault_split(f, r, c->name);
    r = json_parse_vector(parser, element, NULL, ret);
    return r ? api_fault_json(f, r, c->name) : 0;
}

/* How many elements follow. */
static size_t column_rest(struct column *c) {
    struct bytes key, element;
    size_t n = 0;
    while (json_members_next(&c->members, &key, &element) == 0)
        n++;
    return n;
}

/* The columns do not have one length: so many were read of each, the rest is counted. */
static int length_fault(struct column *ids, size_t n_ids, struct column *other, size_t n_others,
                        struct api_fault *f) {
    n_ids += column_rest(ids);
    n_others += column_rest(other);
    return api_fault_set(f, API_FAULT_RANGE, "batch",
                         "[batch.batch: number of ids and %s must be equal (%zu != %zu)]",
                         other->name, n_ids, n_others);
}

/* By ascending place, as records have them. */
static void sort_in(struct columns *c, struct column column) {
    size_t at = c->n_vectors++;
    for (; at > 0 && c->vectors[at - 1].place > column.place; at--)
        c->vectors[at] = c->vectors[at - 1];
    c->vectors[at] = column;
}

static int open_vectors_column(struct api_batch *b, struct columns *c, struct bytes name,
                               struct bytes raw, struct api_fault *f) {
    struct column column;
    int place = point_config_find(&b->collection->config, name);
    if (place < 0)
        return unknown_vector(name, f);
    int r = column_open(&column, "vectors", raw, f);
    if (r)
        return error_trace(r);
    column.place = (unsigned)place;
    for (size_t i = 0; i < c->n_vectors; i++)
        if (c->vectors[i].place == column.place)
            return api_fault_set(f, API_FAULT_FORMAT, "vectors", "duplicate field `%s`",
                                 api_text_of(name).text);
    sort_in(c, column);
    return 0;
}

static int open_vectors(struct api_batch *b, struct columns *c, struct bytes raw,
                        struct api_fault *f) {
    struct json_members members;
    struct bytes name, element;
    int r = json_members_init(&members, raw);
    if (r)
        return api_fault_set(f, API_FAULT_FORMAT, "vectors",
                             "`vectors` must be an array, or an object of arrays by name");
    if (!members.object)
        return error_trace(open_vectors_column(b, c, BYTES_LITERAL(""), raw, f));
    while ((r = json_members_next(&members, &name, &element)) == 0) {
        r = open_vectors_column(b, c, name, element, f);
        if (r)
            return error_trace(r);
    }
    return r == JSON_SPLIT_E_END ? 0 : api_fault_split(f, r, "`vectors`");
}

static int open_field(struct api_batch *b, struct json_parser *parser, struct columns *c,
                      struct bytes key, struct bytes value, bool *vectors_given,
                      struct api_fault *f) {
    if (bytes_equal(key, BYTES_LITERAL("ids")) && !c->ids.given)
        return error_trace(column_open(&c->ids, "ids", value, f));
    if (bytes_equal(key, BYTES_LITERAL("vectors")) && !*vectors_given) {
        *vectors_given = true;
        return error_trace(open_vectors(b, c, value, f));
    }
    if (bytes_equal(key, BYTES_LITERAL("payloads")) && !c->payloads.given) {
        if (bytes_equal(value, BYTES_LITERAL("null")))
            return 0;
        return error_trace(column_open(&c->payloads, "payloads", value, f));
    }
    struct json_value ignored; /* but it must be JSON */
    int r = json_parse(parser, value, &ignored);
    return r ? api_fault_json(f, r, "a field of `batch`") : 0;
}

static int open_columns(struct api_batch *b, struct json_parser *parser, struct bytes raw,
                        struct columns *c, struct api_fault *f) {
    struct json_members members;
    struct bytes key, value;
    bool vectors_given = false;
    int r = json_members_init(&members, raw);
    if (r || !members.object)
        return api_fault_set(f, API_FAULT_FORMAT, "batch", "`batch` must be an object");
    while ((r = json_members_next(&members, &key, &value)) == 0) {
        r = open_field(b, parser, c, key, value, &vectors_given, f);
        if (r)
            return error_trace(r);
    }
    if (r != JSON_SPLIT_E_END)
        return api_fault_split(f, r, "`batch`");
    if (!c->ids.given)
        return api_fault_missing(f, "ids");
    return vectors_given ? 0 : api_fault_missing(f, "vectors");
}

/* One row: every column's next element into one record. The id is parsed already. */
static int add_row(struct api_batch *b, struct json_parser *parser, struct columns *c,
                   struct point_id id, struct api_fault *f) {
    struct json_value v;
    int r = api_batch_begin(b);
    if (r)
        return error_trace(r);
    for (size_t i = 0; i < c->n_vectors; i++) {
        r = column_next(&c->vectors[i], parser, &v, f);
        if (r == JSON_SPLIT_E_END)
            return length_fault(&c->ids, b->n + 1, &c->vectors[i], b->n, f);
        if (r == 0)
            r = api_batch_vector(b, c->vectors[i].place, v, f);
        if (r)
            return error_trace(r);
    }
    if (c->payloads.given) {
        r = column_next(&c->payloads, parser, &v, f);
        if (r == JSON_SPLIT_E_END)
            return length_fault(&c->ids, b->n + 1, &c->payloads, b->n, f);
        if (r == 0)
            r = api_batch_payload(b, v, f);
        if (r)
            return error_trace(r);
    }
    return error_trace(api_batch_end(b, id, f));
}

/* Behind the last id no column may go on. */
static int check_ends(struct api_batch *b, struct columns *c, struct api_fault *f) {
    struct bytes key, element;
    for (size_t i = 0; i <= c->n_vectors; i++) {
        struct column *column = i < c->n_vectors ? &c->vectors[i] : &c->payloads;
        if (!column->given)
            continue;
        int r = json_members_next(&column->members, &key, &element);
        if (r == 0)
            return length_fault(&c->ids, b->n, column, b->n + 1, f);
        if (r != JSON_SPLIT_E_END)
            return api_fault_split(f, r, column->name);
    }
    return 0;
}

int api_batch_columns(struct api_batch *b, struct json_parser *parser, struct bytes raw,
                      struct api_fault *f) {
    struct columns c;
    struct json_value v;
    struct point_id id;
    c.ids.given = c.payloads.given = false;
    c.n_vectors = 0;
    int r = open_columns(b, parser, raw, &c, f);
    if (r)
        return error_trace(r);
    while ((r = column_next(&c.ids, parser, &v, f)) == 0) {
        r = api_get_id(v, &id, f);
        if (r == 0)
            r = add_row(b, parser, &c, id, f);
        if (r)
            return error_trace(r);
    }
    return r == JSON_SPLIT_E_END ? check_ends(b, &c, f) : error_trace(r);
}
