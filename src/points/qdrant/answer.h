/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What Qdrant's answers mean for the one who writes. Pure functions, thread-safe.
 */
#ifndef MILLRACE_POINTS_QDRANT_ANSWER_H
#define MILLRACE_POINTS_QDRANT_ANSWER_H

#include "points/qdrant/client.h"
#include "points/qdrant/rpc.h"

/* What a call that ended with this status is to its caller. */
enum qdrant_outcome answer_outcome(unsigned grpc_status);
/* Of an update (PointsOperationResponse) or a health check: looks into the body too, which may be
 * anything. */
void answer_of_update(const struct rpc_answer *a, struct qdrant_answer *ret_answer);
void answer_of_health(const struct rpc_answer *a, struct qdrant_answer *ret_answer);

#endif
