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
#include "points/qdrant/payload.h"

enum { GRPC_PREFIX_BYTES = 5 };

/* Each replaces what out holds. -ENOMEM, too when memory for it is out. PAYLOAD_E_WRONG, of the
 * point at ret_bad. */
int encode_upsert(struct payload_reader *reader, struct bytes collection,
                  const struct point_config *config, const struct qdrant_point *points, size_t n,
                  enum qdrant_ordering ordering, struct buffer *out, size_t *ret_bad) MUST_USE;
int encode_delete(struct bytes collection, const struct point_id *ids, size_t n,
                  enum qdrant_ordering ordering, struct buffer *out) MUST_USE;
int encode_health(struct buffer *out) MUST_USE;

#endif
