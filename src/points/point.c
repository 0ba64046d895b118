/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ids, names of vectors, and the scaling of Cosine vectors. The bytes of a record are in record.c.
 */
#include "points/point.h"

#include "base/hash.h"
#include "base/uuid.h"

#include <float.h>
#include <math.h>

const char *const point_distance_names[DISTANCES] = {
    [DISTANCE_COSINE] = "Cosine",
    [DISTANCE_DOT] = "Dot",
    [DISTANCE_EUCLID] = "Euclid",
    [DISTANCE_MANHATTAN] = "Manhattan",
};

int point_id_compare(struct point_id a, struct point_id b) {
    if (a.uuid != b.uuid)
        return a.uuid ? 1 : -1;
    if (a.high != b.high)
        return a.high < b.high ? -1 : 1;
    if (a.low != b.low)
        return a.low < b.low ? -1 : 1;
    return 0;
}

uint64_t point_id_hash(struct point_id id) {
    return id.uuid ? hash64_u64(id.low ^ hash64_u64(id.high)) : hash64_u64(id.low);
}

uint64_t point_key_hash(lsn_t incarnation, struct point_id id) {
    return hash64_u64(point_id_hash(id) + incarnation);
}

static bool uuid_from_text(struct bytes text, struct point_id *ret_id) {
    struct point_id id = {.uuid = true};
    if (!uuid_parse(text, &id.high, &id.low))
        return false;
    *ret_id = id;
    return true;
}

bool point_id_from_json(struct json_value v, struct point_id *ret_id) {
    uint64_t number;
    if (json_get_u64(v, &number)) {
        *ret_id = (struct point_id){.low = number};
        return true;
    }
    struct bytes text;
    return json_get_string(v, &text) && uuid_from_text(text, ret_id);
}

static bool number_from_text(struct bytes text, uint64_t *ret_number) {
    uint64_t number = 0;
    for (size_t i = 0; i < text.size; i++) {
        unsigned digit = (unsigned)text.data[i] - '0';
        if (digit > 9 || __builtin_mul_overflow(number, 10, &number) ||
            __builtin_add_overflow(number, digit, &number))
            return false;
    }
    if (text.size == 0)
        return false;
    *ret_number = number;
    return true;
}

bool point_id_from_text(struct bytes text, struct point_id *ret_id) {
    uint64_t number;
    if (!number_from_text(text, &number))
        return uuid_from_text(text, ret_id);
    *ret_id = (struct point_id){.low = number};
    return true;
}

void point_id_append_json(struct buffer *out, struct point_id id) {
    if (!id.uuid) {
        json_append_u64(out, id.low);
        return;
    }
    char text[UUID_TEXT_BYTES + 1];
    uuid_format(id.high, id.low, text);
    buffer_append_format(out, "\"%s\"", text);
}

int point_config_find(const struct point_config *c, struct bytes name) {
    for (uint32_t i = 0; i < c->n_vectors; i++)
        if (bytes_equal(bytes_of_string(c->vectors[i].name), name))
            return (int)i;
    return -1;
}

void point_config_finish(struct point_config *c) {
    c->row_floats = 0;
    for (uint32_t i = 0; i < c->n_vectors; i++) {
        c->offsets[i] = c->row_floats;
        c->row_floats += c->vectors[i].dimension;
    }
}

/* Eight sums side by side, which the compiler turns into vector instructions: it may not reorder a
 * single one. */
static float squares_sum(const float *vector, size_t dimension) {
    float sums[8] = {0};
    size_t i = 0;
    for (; i + 8 <= dimension; i += 8)
        for (size_t k = 0; k < 8; k++)
            sums[k] += vector[i + k] * vector[i + k];
    for (size_t k = 0; i < dimension; i++, k++)
        sums[k] += vector[i] * vector[i];
    return ((sums[0] + sums[4]) + (sums[1] + sums[5])) +
           ((sums[2] + sums[6]) + (sums[3] + sums[7]));
}

static double squares_sum_wide(const float *vector, size_t dimension) {
    double sum = 0;
    for (size_t i = 0; i < dimension; i++)
        sum += (double)vector[i] * (double)vector[i];
    return sum;
}

/* The bounds are Qdrant's: what is as good as zero or as good as normalised is kept bit by bit. */
bool point_ordering_from_text(struct bytes text, enum point_ordering *ret) {
    static const char *const names[] = {"weak", "medium", "strong"};
    for (unsigned i = 0; i < ARRAY_LENGTH(names); i++) {
        if (!bytes_equal(text, bytes_of_string(names[i])))
            continue;
        *ret = i;
        return true;
    }
    return false;
}

void point_normalize(float *vector, size_t dimension) {
    float squares = squares_sum(vector, dimension);
    if (squares < FLT_EPSILON || fabsf(squares - 1) <= 1e-6f)
        return;
    if (isfinite(squares)) {
        float length = sqrtf(squares);
        for (size_t i = 0; i < dimension; i++)
            vector[i] /= length;
        return;
    }
    double length = sqrt(squares_sum_wide(vector, dimension));
    for (size_t i = 0; i < dimension; i++)
        vector[i] = (float)(vector[i] / length);
}
