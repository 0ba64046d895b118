/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of Qdrant's gRPC API, as far as writing points needs it.
 *
 * A call blocks its thread until Qdrant has answered or the deadline is over: the workers' lanes
 * are what goes on side by side, one call in flight a lane. A pool of HTTP/2 connections (nghttp2)
 * is shared by all threads: each call takes one out, and opens another while fewer than
 * connections_max are there; how many calls may be under way follows the latency that they see
 * (adaptive concurrency). Nothing is sent twice by the client itself: what a call did is its
 * caller's to judge (writes of points are convergent).
 *
 * Thread-safe.
 */
#ifndef MILLRACE_POINTS_QDRANT_CLIENT_H
#define MILLRACE_POINTS_QDRANT_CLIENT_H

#include "os/os.h"
#include "points/point.h"

struct qdrant_client;

struct qdrant_client_options {
    const char *host;         /* a name or an address; borrowed, as all here */
    uint16_t port;            /* 6334 */
    const char *api_key;      /* NULL: none */
    bool tls;                 /* qdrants:// */
    const char *ca_file;      /* NULL: the system's */
    unsigned connections_max; /* 0: 8 */
    uint64_t timeout_ms;      /* of a call, connecting included; 0: 30,000 */
};

/* Connects to nobody yet. -ENOMEM; -EINVAL: there are no certificates in ca_file. */
int qdrant_client_new(struct os *os, const struct qdrant_client_options *options,
                      struct qdrant_client **ret_client) MUST_USE;
/* No call may be under way. Takes NULL. */
struct qdrant_client *qdrant_client_free(struct qdrant_client *c);

/* How a call ended. The sentence of an answer lives in its buffer. */
enum qdrant_outcome {
    QDRANT_OK,
    QDRANT_RETRY,  /* the server's trouble: UNAVAILABLE, RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED,
                      ABORTED,  INTERNAL, FAILED_PRECONDITION (Qdrant is locked, or a shard not
                      ready), …, a  reset stream */
    QDRANT_REJECT, /* it will go no better the next time: INVALID_ARGUMENT, NOT_FOUND,
                      ALREADY_EXISTS, OUT_OF_RANGE, or a payload that cannot be sent */
    QDRANT_DOWN,   /* nobody answers: refused, unreachable, UNAUTHENTICATED, PERMISSION_DENIED,
                      UNIMPLEMENTED (not a Qdrant) */
};
struct qdrant_answer {
    enum qdrant_outcome outcome;
    unsigned grpc_status; /* 0 … 16, as in gRPC's table; 14 when there was no answer */
    char sentence[256];
};

enum qdrant_ordering { QDRANT_WEAK, QDRANT_MEDIUM, QDRANT_STRONG };

/* A point to write, as point_record has it: raw floats of the vectors of the mask, JSON payload. */
struct qdrant_point {
    struct point_id id;
    uint64_t vector_mask;
    struct bytes vectors;
    struct bytes payload;
};

struct qdrant_update {
    struct bytes collection;
    enum qdrant_ordering ordering;
    uint64_t send_by_ns; /* by the monotonic clock: from then on no more of it is sent, and the
                            server has no whole request. 0: never */
};
/* qdrant.Points/Upsert and Delete (by ids), one request each. wait is always asked for: an answer
 * says that it is applied. -ENOMEM, else 0 with the answer filled in. n ≥ 1. */
int qdrant_upsert(struct qdrant_client *c, const struct qdrant_update *update,
                  const struct point_config *config, const struct qdrant_point *points, size_t n,
                  struct qdrant_answer *ret_answer) MUST_USE;
int qdrant_delete(struct qdrant_client *c, const struct qdrant_update *update,
                  const struct point_id *ids, size_t n, struct qdrant_answer *ret_answer) MUST_USE;
/* qdrant.Qdrant/HealthCheck. */
int qdrant_health(struct qdrant_client *c, struct qdrant_answer *ret_answer) MUST_USE;

struct qdrant_client_stats {
    uint64_t calls;
    uint64_t calls_failed; /* other than QDRANT_OK */
    uint64_t bytes_sent;
    uint64_t latency_us; /* a moving average */
    unsigned connections;
    unsigned concurrency; /* calls that may be under way now */
};
void qdrant_client_stats(struct qdrant_client *c, struct qdrant_client_stats *ret_stats);

#endif
