/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests as bytes: the messages of messages.proto, behind the five bytes that gRPC puts before
 * each. What there are few of is packed by the code generated from it; points, of which there are
 * many, are written here field by field, straight from the record, without a tree of structs in
 * between. One thread at a time.
 */
#ifndef MILLRACE_POINTS_QDRANT_ENCODE_H
#define MILLRACE_POINTS_QDRANT_ENCODE_H

#include "points/qdrant/client.h"

/* What encoding needs beside the output, kept from one request to the next. */
struct encoder {
    struct json_parser *parser; /* of payloads; made at the first */
    struct buffer text;         /* a payload with the padding that the parser asks for */
};
#define ENCODER_INIT ((struct encoder){0})
void encoder_deinit(struct encoder *e);

enum {
    _ENCODE_E_SUCCESS,
    ENCODE_E_PAYLOAD, /* a payload that is no JSON object, or nested too deep */
};

/* Levels of objects and arrays in a payload, itself the first. Readers of Protocol Buffers stop at
 * 100 messages one inside the other, and a level takes up to three. */
enum { GRPC_PREFIX_BYTES = 5, PAYLOAD_DEPTH_MAX = 32 };

/* Each replaces what out holds. -ENOMEM, too when memory for it is out. ret_bad of
 * ENCODE_E_PAYLOAD: the place of the point. */
int encode_upsert(struct encoder *e, struct bytes collection, const struct point_config *config,
                  const struct qdrant_point *points, size_t n, enum qdrant_ordering ordering,
                  struct buffer *out, size_t *ret_bad) MUST_USE;
int encode_delete(struct bytes collection, const struct point_id *ids, size_t n,
                  enum qdrant_ordering ordering, struct buffer *out) MUST_USE;
int encode_health(struct buffer *out) MUST_USE;

#endif
