/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the route files of points share, and nobody else includes: faults (what is wrong with a
 * request, told in the style of the route), batches (points as JSON, encoded straight into
 * journal records), selectors (which part of a row is answered), and collections as JSON. A handler
 * reads: parse everything, then append or look, then answer; the first fault ends it.
 */
#ifndef MILLRACE_POINTS_API_PARTS_H
#define MILLRACE_POINTS_API_PARTS_H

#include "base/json_split.h"
#include "points/api.h"

/* ---- Faults (api_fault.c) ---- */

enum { API_E_FAULT = 200 }; /* the request is wrong, the fault says how */

enum api_fault_kind {
    API_FAULT_SYNTAX, /* not JSON */
    API_FAULT_MISSING,
    API_FAULT_FORMAT, /* a wrong type */
    API_FAULT_RANGE,  /* a value out of its range */
    API_FAULT_DIMENSION,
    API_FAULT_INPUT, /* does not fit the collection, or is not supported */
    API_FAULT_EMPTY, /* nothing to do */
    API_FAULT_KINDS
};
struct api_fault {
    enum api_fault_kind kind;
    const char *field; /* static storage, NULL for none */
    char sentence[256];
};
/* Each returns API_E_FAULT. field may be NULL. */
int api_fault_set(struct api_fault *f, enum api_fault_kind kind, const char *field,
                  const char *format, ...) MUST_USE PRINTF_LIKE(4, 5);
int api_fault_missing(struct api_fault *f, const char *field) MUST_USE;
/* A JSON_E_… of `what` ("the body"); -ENOMEM passes unchanged. */
int api_fault_json(struct api_fault *f, int r, const char *what) MUST_USE;
/* A JSON_SPLIT_E_… */
int api_fault_split(struct api_fault *f, int r, const char *what) MUST_USE;

/* Answers r: API_E_FAULT as the fault says, negatives as 503 (memory) or 500. In Qdrant's words or
 * in ours, by the style of the route. */
void api_fail(struct http_request *r, int result, const struct api_fault *f);
void api_fail_collection(struct http_request *r, struct bytes name);
/* Text from a request, for a sentence: cut, NUL-terminated, without control characters. */
struct api_text {
    char text[128];
};
struct api_text api_text_of(struct bytes b);

/* ---- Fields of a JSON object ---- */

/* The member, unless it is missing or null. */
bool api_given(struct json_value object, const char *key, struct json_value *ret);
/* ret keeps its value when the member is missing or null. */
int api_get_size(struct json_value object, const char *key, uint64_t least, uint64_t most,
                 uint64_t *ret, struct api_fault *f) MUST_USE;
int api_get_flag(struct json_value object, const char *key, bool *ret,
                 struct api_fault *f) MUST_USE;
/* A required string of at least one byte. */
int api_get_text(struct json_value object, const char *key, struct bytes *ret,
                 struct api_fault *f) MUST_USE;
/* The whole body as an object. Parsing takes many times its memory, so a long one is a fault where
 * memory is small, and -ENOMEM when it is short. */
int api_parse_object(struct http_request *r, struct json_value *ret, struct api_fault *f) MUST_USE;
/* The same of one point, whose `vector` may be as long as vectors are: json_parse_lifted. */
int api_parse_point(struct http_request *r, struct json_value *ret, struct api_fault *f) MUST_USE;
/* A filter without conditions is none; any other is not supported yet. */
int api_check_filter(struct json_value object, struct api_fault *f) MUST_USE;
int api_get_id(struct json_value v, struct point_id *ret, struct api_fault *f) MUST_USE;
/* Qdrant's `timeout`, in seconds; 0 when it is not given. */
int api_get_timeout_ms(struct http_request *r, uint64_t *ret, struct api_fault *f) MUST_USE;

void api_collection_unref(struct points_collection **c); /* for CLEANUP */

/* ---- Batches (api_batch.c) ---- */

/*
 * Records of one collection, encoded one behind the other. While a batch grows its bytes may move,
 * so a record's payload.data is an offset until api_batch_records. A point that turns out to be
 * wrong is taken back: the batch is as before.
 */
struct api_batch {
    const struct points_collection *collection;
    const struct work *work;
    struct buffer *bytes;  /* borrowed */
    struct buffer records; /* of struct journal_record */
    size_t n;
    uint64_t lane_mask;
    enum point_ordering ordering; /* of the records to come; weak at first */
    bool grows;                   /* it has points, which will take memory of the store */
    bool placed;                  /* the offsets are pointers */
    size_t start;                 /* of the point under way, behind its home (home.h) */
    uint64_t vector_mask;
    size_t n_floats;
};
void api_batch_init(struct api_batch *b, const struct points_collection *collection,
                    const struct work *work, struct buffer *bytes);
void api_batch_deinit(struct api_batch *b);
/* Forgets the records, keeps the memory. */
void api_batch_clear(struct api_batch *b);

/* A point in steps: begin, vectors by ascending place, payload, end. */
int api_batch_begin(struct api_batch *b) MUST_USE;
int api_batch_vector(struct api_batch *b, unsigned place, struct json_value v,
                     struct api_fault *f) MUST_USE;
int api_batch_floats(struct api_batch *b, unsigned place, const void *floats,
                     struct api_fault *f) MUST_USE;
/* An array, or an object of named ones. */
int api_batch_vectors(struct api_batch *b, struct json_value v, struct api_fault *f) MUST_USE;
/* An object or null. */
int api_batch_payload(struct api_batch *b, struct json_value v, struct api_fault *f) MUST_USE;
int api_batch_end(struct api_batch *b, struct point_id id, struct api_fault *f) MUST_USE;
void api_batch_take_back(struct api_batch *b);

/* A whole point {"id","vector","payload"}, taken back when it is wrong. what: "a point". */
int api_batch_point(struct api_batch *b, struct json_parser *parser, struct bytes text,
                    const char *what, struct api_fault *f) MUST_USE;
/* All points of Qdrant's two forms, as raw JSON: [point…] and {"ids","vectors","payloads"}. */
int api_batch_list(struct api_batch *b, struct json_parser *parser, struct bytes list,
                   struct api_fault *f) MUST_USE;
int api_batch_columns(struct api_batch *b, struct json_parser *parser, struct bytes raw,
                      struct api_fault *f) MUST_USE;
int api_batch_delete(struct api_batch *b, struct point_id id) MUST_USE;
/* A control record whose payload was encoded behind b->bytes from `start` on. */
int api_batch_control(struct api_batch *b, size_t start) MUST_USE;
/* The n records, ready to append. Nothing may be added until api_batch_clear. -ENOMEM. */
int api_batch_records(struct api_batch *b, struct journal_record **ret_records) MUST_USE;

/* ---- Writing (api_write.c) ---- */

enum { API_E_GONE = 201, API_E_REFUSED, API_E_LETTERS_FULL }; /* of api_append */
/* One group. API_E_GONE: the collection was dropped; API_E_REFUSED: *ret_condition of the journal;
 * API_E_LETTERS_FULL: so many dead letters wait that no points are taken. */
int api_append(struct points_api *api, struct points_collection *collection, struct api_batch *b,
               lsn_t *ret_first, lsn_t *ret_last, int *ret_condition) MUST_USE;
/* Answers what api_append returned, but for 0. */
void api_fail_append(struct http_request *r, const struct points_collection *collection, int result,
                     int condition);
/* The same for API_E_LETTERS_FULL alone. */
void api_fail_letters(struct http_request *r);
/* Drops a collection; conditions as points_catalog_drop. */
int api_drop(struct points_api *api, struct bytes name, lsn_t *ret_lsn,
             int *ret_condition) MUST_USE;
/* What a write's renderer needs: kept as the request's state. */
struct api_written {
    lsn_t lsn;
    const char *text; /* a part of the answer; its meaning is the renderer's */
};
struct api_written *api_written_new(struct http_request *r);
typedef unsigned (*api_render)(struct http_request *r, enum http_write_outcome outcome,
                               struct buffer *body);
/* Appends what is encoded and answers, when it went well by render (with api_written's lsn). */
void api_write(struct points_api *api, struct http_request *r, struct points_collection *c,
               struct api_batch *b, bool wait, uint64_t timeout_ms, api_render render);
/* Awaits records first to last of the lanes. */
void api_await(struct points_api *api, struct http_request *r, lsn_t first, lsn_t last,
               uint64_t lane_mask, bool wait, uint64_t timeout_ms, api_render render);

/* ---- Rows as JSON (api_row.c) ---- */

struct api_payload_selector {
    enum { API_PAYLOAD_NONE, API_PAYLOAD_ALL, API_PAYLOAD_INCLUDE, API_PAYLOAD_EXCLUDE } mode;
    size_t n;
    struct bytes *keys; /* paths: "a", "a.b"; "[]" is taken out */
};
struct api_selector {
    struct api_payload_selector payload;
    uint64_t vectors; /* bit i: vector i is wanted */
    bool with_vector;
};
/* with_payload and with_vector of a request; keys are copied into the arena. */
int api_selector_parse(struct json_value object, bool payload_default,
                       const struct point_config *config, struct arena *arena,
                       struct api_selector *ret, struct api_fault *f) MUST_USE;
extern const struct api_selector api_selector_whole; /* payload and all vectors */
/* Appends ,"payload":…,"vector":… as selected, after the fields the caller wrote. scratch and
 * parser are used for a payload that is cut. */
void api_row_append(struct buffer *out, const struct point_config *config,
                    const struct point_row *row, const struct api_selector *selector,
                    struct json_parser *parser);
/* {"id":…,"payload":…,"vector":…} */
void api_record_append(struct buffer *out, const struct point_config *config,
                       const struct point_row *row, const struct api_selector *selector,
                       struct json_parser *parser);

/* ---- Reading (api_read.c) ---- */

/* One read of one collection, under way. */
struct api_reading {
    struct points_collection *collection;
    struct points_view *view;
    struct arena arena; /* of what is taken out of the body: rendering may parse payloads */
    struct buffer out;
    struct budget *budget; /* of answers, and how much of it this read has */
    uint64_t taken_bytes;
    uint64_t out_bytes; /* of them, for out */
    struct api_fault fault;
};
/* Takes memory of the budget until it is given back, or the reading ends: -ENOMEM, answered 503. */
int api_reading_take(struct api_reading *g, uint64_t bytes) MUST_USE;
void api_reading_give(struct api_reading *g, uint64_t bytes);
/* An answer may not grow without bound: a fault once it is larger than any may be, -ENOMEM when
 * there is no memory for it now. To be asked as it grows. */
int api_check_answer(struct api_reading *g) MUST_USE;
/* POINTS_E_NOT_FOUND. Deinit in any case. */
int api_reading_open(struct api_reading *g, struct points_api *api, struct bytes name) MUST_USE;
/* On Qdrant's routes, of the collection {name}: answers and returns false when it fails. */
bool api_reading_init(struct api_reading *g, struct points_api *api, struct http_request *r);
void api_reading_deinit(struct api_reading *g);
/* Ends a job on Qdrant's routes: the answer in g->out, or the error. */
void api_reading_answer(struct api_reading *g, struct http_request *r, int result);

/* ---- Collections as JSON (api_config.c) ---- */

int api_config_parse(struct json_value body, struct point_config *ret,
                     struct api_fault *f) MUST_USE;
int api_name_check(struct bytes name, const char *what, struct api_fault *f) MUST_USE;
/* {"params":…,"hnsw_config":…,…} */
void api_config_append(struct buffer *out, const struct point_config *config);
bool api_distance_from_text(struct bytes text, enum point_distance *ret);

/* ---- Schemas, in the notation of http/schema.h ---- */

/* Qdrant's envelope. */
#define QDRANT(result) "{result: " result ", status: string = \"ok\", time: number = 0.0002}"

/* The parameters of Qdrant's routes, as their rows describe them. */
#define QDRANT_NAME "name: string = \"movies\""
#define QDRANT_TIMEOUT "timeout: uint = 60"
#define QDRANT_CONSISTENCY "consistency: string = \"majority\""
#define QDRANT_WAIT "wait: boolean = true, ordering: 'weak' | 'medium' | 'strong', " QDRANT_TIMEOUT

#endif
