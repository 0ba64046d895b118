/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gRPC calls over one HTTP/2 connection, one after the other: a POST whose body is one message, and
 * an answer whose trailers say how it went. nghttp2 makes and reads the frames; this drives it over
 * a transport, which it owns, and no other file knows it. Belongs to one thread at a time.
 *
 * What is kept of an answer is bounded: RPC_ANSWER_MAX of its body, and a sentence.
 */
#ifndef MILLRACE_POINTS_QDRANT_RPC_H
#define MILLRACE_POINTS_QDRANT_RPC_H

#include "points/qdrant/transport.h"

struct rpc;

enum {
    RPC_ANSWER_MAX = 16 << 10,
    RPC_SENTENCE_MAX = 256,
};

/* The statuses of gRPC that are spoken of by name (doc/statuscodes.md). */
enum grpc_status {
    GRPC_OK = 0,
    GRPC_UNKNOWN = 2,
    GRPC_INVALID_ARGUMENT = 3,
    GRPC_DEADLINE_EXCEEDED = 4,
    GRPC_NOT_FOUND = 5,
    GRPC_ALREADY_EXISTS = 6,
    GRPC_PERMISSION_DENIED = 7,
    GRPC_OUT_OF_RANGE = 11,
    GRPC_UNIMPLEMENTED = 12,
    GRPC_INTERNAL = 13,
    GRPC_UNAVAILABLE = 14,
    GRPC_UNAUTHENTICATED = 16,
    GRPC_STATUS_MAX = 16,
};

struct rpc_request {
    const char *scheme; /* "http" or "https" */
    const char *authority;
    const char *api_key; /* or NULL */
    const char *method;  /* "/qdrant.Points/Upsert" */
    struct bytes body;   /* with gRPC's prefix */
    uint64_t deadline_ns;
    uint64_t send_by_ns; /* from then on no more of it is written: RPC_E_LATE. 0: never */
};

/* The answer of a call that ended: also of one that the server cut off, which has the status that
 * gRPC gives to that. */
struct rpc_answer {
    unsigned status; /* 0 … 16 */
    char sentence[RPC_SENTENCE_MAX];
    struct bytes body; /* with gRPC's prefix; in the rpc, until its next call */
};

enum {
    _RPC_E_SUCCESS,
    RPC_E_NOT_SEEN, /* the server says that it did nothing with it: it may be sent again */
    RPC_E_LOST,     /* the connection ended, or broke the protocol; who knows what was done */
    RPC_E_DEADLINE, /* passed; who knows what was done */
    RPC_E_LATE,     /* the server has no whole request, and will not get it */
};

/* Takes the transport, also when it fails. -ENOMEM. */
int rpc_new(struct os *os, struct transport *transport, struct rpc **ret_rpc) MUST_USE;
struct rpc *rpc_free(struct rpc *c);
/* After any condition, and when rpc_is_usable says no, it can only be freed. -ENOMEM. */
int rpc_call(struct rpc *c, const struct rpc_request *request,
             struct rpc_answer *ret_answer) MUST_USE;
/* Reads what came since the last call: false when the server has ended the connection, or is about
 * to. */
bool rpc_is_usable(struct rpc *c);

/* Decodes %41 and the like, in grpc-message; what is no such sequence stays. Always ends with a
 * NUL; cut at size. */
void rpc_decode_sentence(struct bytes text, char *out, size_t size);

#endif
