/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a point is: its id, the configuration of its collection's vectors, and the bytes of a point
 * record in the journal (record.c: the layout stands there). Plain values; no locks, no I/O.
 */
#ifndef MILLRACE_POINTS_POINT_H
#define MILLRACE_POINTS_POINT_H

#include "base/json.h"
#include "journal/journal.h"

/* An integer (high is 0) or a UUID. Integers sort before UUIDs, as in Qdrant's scroll. */
struct point_id {
    uint64_t high;
    uint64_t low;
    bool uuid;
};

int point_id_compare(struct point_id a, struct point_id b);
uint64_t point_id_hash(struct point_id id);
/* The key_hash of every record of that point: it decides the lane, and never changes. */
uint64_t point_key_hash(lsn_t incarnation, struct point_id id);
/* An integer ≥ 0, or a string that holds a UUID in any of its usual forms. False otherwise. */
bool point_id_from_json(struct json_value v, struct point_id *ret_id);
/* As in a path: digits, or a UUID. */
bool point_id_from_text(struct bytes text, struct point_id *ret_id);
void point_id_append_json(struct buffer *out, struct point_id id);

enum point_distance {
    DISTANCE_COSINE,
    DISTANCE_DOT,
    DISTANCE_EUCLID,
    DISTANCE_MANHATTAN,
    DISTANCES
};
/* "Cosine", … as in Qdrant's API. */
extern const char *const point_distance_names[DISTANCES];
/* Euclid and Manhattan: smaller is nearer. */
static inline bool point_distance_ascends(enum point_distance d) {
    return d == DISTANCE_EUCLID || d == DISTANCE_MANHATTAN;
}

enum {
    POINT_VECTORS_MAX = 64, /* named vectors of a collection */
    POINT_DIMENSION_MAX = 65536,
    POINT_NAME_MAX = 255,        /* bytes of a collection's or vector's name */
    POINT_PAYLOAD_MAX = 4 << 20, /* bytes of one point's payload as JSON */
};

/* A setting that may be left out. */
enum point_flag { POINT_FLAG_ABSENT, POINT_FLAG_FALSE, POINT_FLAG_TRUE };

struct point_vector_config {
    char name[POINT_NAME_MAX + 1]; /* "" for the one unnamed vector */
    uint32_t dimension;
    enum point_distance distance;
    enum point_flag on_disk; /* said at creation, given back, changes nothing */
};

/* What else was said at creation (settings.def), given back by the API: no answer depends on it. */
enum point_setting {
#define POINT_SETTING(id, section, name, type, fallback, least, most) POINT_SETTING_##id,
#include "points/settings.def"
#undef POINT_SETTING
    POINT_SETTINGS
};
_Static_assert(POINT_SETTINGS <= 32, "settings_given has a bit for each");

/* Vectors are numbered by their place here; offset: where a vector starts in a row of all of them.
 */
struct point_config {
    uint32_t n_vectors;
    uint32_t row_floats; /* the sum of all dimensions */
    uint32_t offsets[POINT_VECTORS_MAX];
    struct point_vector_config vectors[POINT_VECTORS_MAX];
    uint32_t settings_given; /* bit i: settings[i] was said */
    double settings[POINT_SETTINGS];
};

/* Fills offsets and row_floats from the vectors. */
void point_config_finish(struct point_config *c);

/* The place of the vector called name, or -1. */
int point_config_find(const struct point_config *c, struct bytes name);

/* Scales to length 1, as Qdrant does at upsert for Cosine; a zero vector stays as it is. */
void point_normalize(float *vector, size_t dimension);

/* ---- Records ---- */
enum point_op {
    POINT_UPSERT = 1, /* of a lane: the whole point, replacing an earlier one */
    POINT_DELETE = 2, /* of a lane: by id */
    POINT_CREATE = 3, /* control: a collection; its lsn is the incarnation */
    POINT_DROP = 4,   /* control: the collection of an incarnation */
    POINT_BULK = 5,   /* control: a bulk task ended (bulk.h) */
};

/* Qdrant's: how an update is ordered with others of its point that come by another of its nodes.
 * Only a cluster behind us asks for it. */
enum point_ordering { POINT_ORDERING_WEAK, POINT_ORDERING_MEDIUM, POINT_ORDERING_STRONG };
/* By its name in Qdrant's API. */
bool point_ordering_from_text(struct bytes text, enum point_ordering *ret);

/* A record, decoded: views into its payload. Which fields count depends on op. */
struct point_record {
    enum point_op op;
    lsn_t incarnation;            /* UPSERT, DELETE, DROP */
    lsn_t applied;                /* DROP: what the workers had applied by then */
    struct point_id id;           /* UPSERT, DELETE */
    enum point_ordering ordering; /* UPSERT, DELETE */
    uint64_t vector_mask;         /* UPSERT: bit i: vector i is there */
    struct bytes vectors;         /* UPSERT: float32, those of the mask in order, not aligned */
    struct bytes payload;         /* UPSERT: JSON object, or empty for none */
    struct bytes name;            /* CREATE */
    struct bytes body; /* CREATE: the configuration (point_config_decode); BULK: the task */
};

enum { POINT_RECORD_HEADER = 40 }; /* bytes before the vectors of an UPSERT */

/* Writes the POINT_RECORD_HEADER bytes of an UPSERT whose vectors and payload are encoded in place
 * behind them. */
void point_record_store_header(uint8_t *out, lsn_t incarnation, struct point_id id,
                               uint64_t vector_mask, size_t n_floats);
/* Appends the payload of a journal record. vectors: row floats of the mask in order. */
void point_record_encode_upsert(struct buffer *out, lsn_t incarnation, struct point_id id,
                                uint64_t vector_mask, const float *vectors, size_t n_floats,
                                struct bytes payload);
void point_record_encode_delete(struct buffer *out, lsn_t incarnation, struct point_id id);
void point_record_encode_create(struct buffer *out, struct bytes name,
                                const struct point_config *config);
void point_record_encode_drop(struct buffer *out, lsn_t incarnation, lsn_t applied);
void point_record_encode_bulk(struct buffer *out, struct bytes task);
/* Of an encoded UPSERT or DELETE, which is weak. */
void point_record_set_ordering(uint8_t *record, enum point_ordering ordering);
/* False when the bytes are not a record of a version known here; never reads outside payload.
 */
bool point_record_decode(struct bytes payload, struct point_record *ret_record) MUST_USE;

/* Whether the vectors of an UPSERT are those of its mask. */
bool point_record_fits(const struct point_config *config, const struct point_record *record);

void point_config_encode(struct buffer *out, const struct point_config *config);
bool point_config_decode(struct bytes body, struct point_config *ret_config) MUST_USE;

#endif
