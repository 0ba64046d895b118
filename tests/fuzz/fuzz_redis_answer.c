/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a node says of who serves what, be it an error or an answer to CLUSTER SLOTS: whatever is
 * taken for good names a node that can be dialled, and slots that there are.
 */
#include "fuzz.h"

#include "redis/slots.h"

#include <stdlib.h>

static bool can_be_dialled(const struct redis_address *a) {
    return a->port > 0 && memchr(a->host, '\0', sizeof a->host) && a->host[0] != '\0';
}

static void *no_large_array(const redisReadTask *task, int elements) {
    const redisReplyObjectFunctions *usual = task->privdata;
    return elements < 0 || elements > 4096 ? NULL : usual->createArray(task, elements);
}

static void check_topology(const uint8_t *data, size_t size, const struct redis_address *asked) {
    redisReader *reader = redisReaderCreate();
    struct redis_topology *t = malloc(sizeof *t);
    void *reply = NULL;
    FUZZ_CHECK(reader && t);
    redisReplyObjectFunctions *usual = reader->fn, bounded = *usual;
    bounded.createArray = no_large_array;
    reader->fn = &bounded;
    reader->privdata = usual;
    if (redisReaderFeed(reader, (const char *)data, size) == REDIS_OK &&
        redisReaderGetReply(reader, &reply) == REDIS_OK && reply &&
        redis_topology_parse(reply, asked, t)) {
        FUZZ_CHECK(t->n_masters > 0 && t->n_masters <= REDIS_MASTERS_MAX);
        for (size_t i = 0; i < t->n_masters; i++)
            FUZZ_CHECK(can_be_dialled(&t->masters[i]));
        for (size_t i = 0; i < REDIS_SLOTS; i++)
            FUZZ_CHECK(t->owner[i] < t->n_masters || t->owner[i] == REDIS_NOBODY);
    }
    if (reply)
        freeReplyObject(reply);
    redisReaderFree(reader);
    free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const struct redis_address asked = {.host = "10.0.0.1", .port = 6379};
    struct redis_redirect redirect;
    char *error = malloc(size + 1);
    FUZZ_CHECK(error);
    memcpy(error, data, size);
    error[size] = '\0';
    if (redis_redirect_parse(error, &asked, &redirect))
        FUZZ_CHECK(redirect.slot < REDIS_SLOTS && can_be_dialled(&redirect.to));
    free(error);
    FUZZ_CHECK(redis_slot(bytes_of(data, size)) < REDIS_SLOTS);
    check_topology(data, size, &asked);
    return 0;
}
