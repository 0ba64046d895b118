/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whatever a server answers is one of the four outcomes, with a sentence that ends; and only an
 * answer of a whole message is taken for a good one.
 */
#include "fuzz.h"

#include "points/qdrant/answer.h"

static void check(const struct qdrant_answer *a, struct bytes body) {
    FUZZ_CHECK(a->outcome <= QDRANT_DOWN);
    FUZZ_CHECK(memchr(a->sentence, '\0', sizeof a->sentence));
    if (a->outcome == QDRANT_OK)
        FUZZ_CHECK(body.size >= 5 && body.data[0] == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char sentence[RPC_SENTENCE_MAX];
    struct qdrant_answer answer;
    const struct rpc_answer raw = {.status = GRPC_OK, .body = bytes_of(data, size)};
    answer_of_update(&raw, &answer);
    check(&answer, raw.body);
    answer_of_health(&raw, &answer);
    check(&answer, raw.body);
    rpc_decode_sentence(raw.body, sentence, sizeof sentence);
    FUZZ_CHECK(strlen(sentence) <= size);
    return 0;
}
