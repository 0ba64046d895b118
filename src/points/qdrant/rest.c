/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions by REST, each on a struct transfers of its own: they are kept with their connections,
 * and as many as ever asked at a time.
 *
 *   heard ──nobody there──▶ silent: one at a time asks, who reads with a short patience; the others
 *     ▲                       │ are told so at once, and no thread waits for what does not come
 *     └── an answer, or health┘
 *
 * A question that took longer than it was given says nothing: it may be a large one.
 */
#include "points/qdrant/internal.h"

#include <stdarg.h>
#include <stdio.h>

enum { PATIENCE_MS = 60000, PROBE_MS = 3000, NS_PER_MS = 1000000 };

bool qdrant_cluster_stopped(const void *cluster) {
    const struct qdrant_cluster *c = cluster;
    return os_monotonic_ns(c->os) >= atomic_load(&c->stop_ns);
}

static int take_asker(struct qdrant_cluster *c, struct transfers **ret_asker) {
    const struct transfers_options options = {.stopped = qdrant_cluster_stopped, .context = c};
    struct transfers *asker = NULL;
    mutex_lock(&c->lock);
    if (c->n_askers > 0)
        asker = c->askers[--c->n_askers];
    mutex_unlock(&c->lock);
    if (!asker)
        return error_trace(transfers_new(&options, ret_asker));
    *ret_asker = asker;
    return 0;
}

static void give_asker(struct qdrant_cluster *c, struct transfers *asker) {
    mutex_lock(&c->lock);
    bool kept = c->n_askers < QDRANT_ASKERS_MAX;
    if (kept)
        c->askers[c->n_askers++] = asker;
    mutex_unlock(&c->lock);
    if (!kept)
        transfers_free(asker);
}

static int PRINTF_LIKE(2, 3) no_answer(struct qdrant_reply *reply, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(reply->sentence, sizeof reply->sentence, format, arguments);
    va_end(arguments);
    return QDRANT_E_DOWN;
}

/* What a reply held is given back; its memory may be kept for the next. */
static void uncount(struct qdrant_reply *reply) {
    budget_give(reply->budget, BUDGET_ANSWERS, reply->counted_bytes);
    reply->counted_bytes = 0;
}

void qdrant_reply_deinit(struct qdrant_reply *reply) {
    uncount(reply);
    buffer_deinit(&reply->body);
}

static int ask(struct qdrant_cluster *c, const struct qdrant_question *q, uint64_t timeout_ms,
               struct qdrant_reply *reply) {
    CLEANUP(buffer_deinit) struct buffer url = BUFFER_INIT;
    char type[QDRANT_TYPE_MAX + sizeof "Content-Type: "];
    struct question_answer answer = {.body = reply->body};
    struct transfers *asker;
    uint64_t begun_ns = os_monotonic_ns(c->os);
    uncount(reply);
    buffer_append_string(&url, c->base);
    buffer_append_bytes(&url, q->target);
    buffer_append_u8(&url, 0);
    int r = buffer_check(&url);
    if (!r)
        r = take_asker(c, &asker);
    if (r)
        return error_trace(r);
    (void)snprintf(type, sizeof type, "Content-Type: %s",
                   q->content_type ? q->content_type : "application/json");
    const struct question question = {
        .method = q->method,
        .url = (const char *)url.data,
        .ca_file = c->url.ca_file[0] ? c->url.ca_file : NULL,
        .headers = {type, c->key_header[0] ? c->key_header : NULL},
        .body = q->body,
        .timeout_ms = timeout_ms,
        .answer_max_bytes = q->answer_max_bytes,
        .budget = q->budget,
    };
    r = transfers_ask(asker, &question, &answer);
    /* Less a bit: the clock by which it was given up is another. */
    bool in_time = os_monotonic_ns(c->os) - begun_ns < timeout_ms * NS_PER_MS / 8 * 7;
    if (r == 0 || (r == TRANSFER_E_FAILED && in_time))
        atomic_store(&c->silent, r != 0);
    if (r > 0)
        r = no_answer(reply, "Qdrant at %s: %.150s", c->base, transfers_sentence(asker));
    give_asker(c, asker);
    reply->body = answer.body;
    reply->budget = q->budget;
    reply->counted_bytes = answer.counted_bytes;
    reply->status = answer.status;
    (void)snprintf(reply->content_type, sizeof reply->content_type, "%s", answer.content_type);
    return error_trace(r);
}

int qdrant_ask(struct qdrant_cluster *c, const struct qdrant_question *question,
               struct qdrant_reply *reply) {
    uint64_t timeout_ms = question->timeout_ms ? question->timeout_ms : PATIENCE_MS;
    bool silent = atomic_load(&c->silent);
    if (silent && atomic_exchange(&c->probing, true))
        return no_answer(reply, "Qdrant at %s does not answer", c->base);
    if (silent && question->reads && timeout_ms > PROBE_MS)
        timeout_ms = PROBE_MS;
    int r = ask(c, question, timeout_ms, reply);
    if (silent)
        atomic_store(&c->probing, false);
    return error_trace(r);
}
