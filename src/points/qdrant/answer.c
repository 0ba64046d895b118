/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server's trouble is tried again, and only what is said of the request itself rejects it: a
 * wrong RETRY costs time, a wrong REJECT a point. So what Qdrant answers when a disk is full or a
 * replica is missing (INTERNAL), and when it is locked or a shard is not ready
 * (FAILED_PRECONDITION: its StorageError::Locked and PreconditionFailed), is tried again too.
 */
#include "points/qdrant/answer.h"

#include "base/arena.h"
#include "points/qdrant/encode.h"
#include "points/qdrant/messages.pb-c.h"

#include <stdio.h>

enum { PARSE_BYTES_MAX = 1 << 20 };

enum qdrant_outcome answer_outcome(unsigned grpc_status) {
    switch (grpc_status) {
    case GRPC_OK:
        return QDRANT_OK;
    case GRPC_INVALID_ARGUMENT:
    case GRPC_NOT_FOUND:
    case GRPC_ALREADY_EXISTS:
    case GRPC_OUT_OF_RANGE:
        return QDRANT_REJECT;
    case GRPC_PERMISSION_DENIED:
    case GRPC_UNAUTHENTICATED:
    case GRPC_UNIMPLEMENTED: /* whoever it is, it is not Qdrant */
        return QDRANT_DOWN;
    default:
        return QDRANT_RETRY;
    }
}

static void set_sentence(struct qdrant_answer *a, enum qdrant_outcome outcome,
                         const char *sentence) {
    a->outcome = outcome;
    (void)snprintf(a->sentence, sizeof a->sentence, "%s", sentence);
}

static void copy_status(const struct rpc_answer *a, struct qdrant_answer *out) {
    out->grpc_status = a->status;
    set_sentence(out, answer_outcome(a->status), a->sentence);
}

/* The generated parsers allocate a piece a field: from an arena on the caller's stack of calls. */
static void *parse_alloc(void *arena, size_t size) {
    return arena_alloc(arena, size);
}

static void parse_free(void *arena, void *data) {
    (void)arena;
    (void)data;
}

/* Exactly one message, not compressed (nobody asked for that). */
static bool message_of(struct bytes body, struct bytes *ret_message) {
    if (body.size < GRPC_PREFIX_BYTES || body.data[0] != 0)
        return false;
    size_t size = 0;
    for (unsigned i = 1; i < GRPC_PREFIX_BYTES; i++)
        size = size << 8 | body.data[i];
    if (size != body.size - GRPC_PREFIX_BYTES)
        return false;
    *ret_message = bytes_of(body.data + GRPC_PREFIX_BYTES, size);
    return true;
}

/* NULL when it is not that message. */
static const ProtobufCMessage *parse(struct arena *arena, struct bytes body,
                                     const ProtobufCMessageDescriptor *type) {
    ProtobufCAllocator allocator = {parse_alloc, parse_free, arena};
    struct bytes message;
    if (!message_of(body, &message))
        return NULL;
    return protobuf_c_message_unpack(type, &allocator, message.size, message.data);
}

/* wait was asked for: what is less than done is not done. */
static void judge_status(const Qdrant__UpdateResult *result, struct qdrant_answer *out) {
    if (!result || result->status != QDRANT__UPDATE_STATUS__Completed)
        set_sentence(out, QDRANT_RETRY, "the update was accepted, but is not applied yet");
}

void answer_of_update(const struct rpc_answer *a, struct qdrant_answer *ret_answer) {
    copy_status(a, ret_answer);
    if (ret_answer->outcome != QDRANT_OK)
        return;
    struct arena arena = ARENA_INIT(PARSE_BYTES_MAX);
    const Qdrant__PointsOperationResponse *response =
        (const void *)parse(&arena, a->body, &qdrant__points_operation_response__descriptor);
    if (response)
        judge_status(response->result, ret_answer);
    else
        set_sentence(ret_answer, QDRANT_RETRY, "the answer is not one of Qdrant's");
    arena_deinit(&arena);
}

void answer_of_health(const struct rpc_answer *a, struct qdrant_answer *ret_answer) {
    copy_status(a, ret_answer);
    if (ret_answer->outcome != QDRANT_OK)
        return;
    struct arena arena = ARENA_INIT(PARSE_BYTES_MAX);
    const Qdrant__HealthCheckReply *reply =
        (const void *)parse(&arena, a->body, &qdrant__health_check_reply__descriptor);
    if (reply)
        (void)snprintf(ret_answer->sentence, sizeof ret_answer->sentence, "%s %s", reply->title,
                       reply->version);
    else
        set_sentence(ret_answer, QDRANT_DOWN, "the answer is not one of Qdrant's");
    arena_deinit(&arena);
}
