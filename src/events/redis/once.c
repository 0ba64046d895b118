/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Idempotency keys on a cluster. Whether a tag with a key is the first that its lane has had of its
 * key, body and index depends on the lane's records alone: so the same is decided whenever they are
 * applied again, by whomever, and nobody needs to know whether a request was appended that had no
 * answer, or a part of it: what is missing is appended with all the rest, and only that has an
 * effect.
 *
 *   API:    key ─▶ the body that it is for, kept 24 h ─▶ another body: refused
 *   worker: runs of tags with one key ─▶ the lane's script: up to which index it had come before
 *           this lsn ─▶ those are left out, the others applied
 *
 * A request's tags come to a lane in their order, or their first ones only. So that a key has come
 * up to an index at some lsn says that all before have, and is all that is kept.
 */
#include "events/once.h"

#include "events/redis/batch.h"
#include "events/redis/internal.h"

#include <errno.h>
#include <stdio.h>

#define HOUR_MS INT64_C(3600000)
/* A lane that lags knows longer what it has had. */
enum { KEPT_HOURS = 2 * EVENT_ONCE_HOURS };

/* ---- The body that a key is for ---- */

int events_redis_claim(struct events_redis *s, const struct event_once_entry *entry,
                       bool *ret_is_ours, char why[EVENTS_REDIS_WHY_MAX]) {
    CLEANUP(arena_deinit) struct arena a = ARENA_INIT(ARENA_BYTES_MAX);
    const struct bytes words[] = {key_claim(&a, s->prefix, bytes_of(entry->key, sizeof entry->key)),
                                  bytes_of(&entry->body_hash, sizeof entry->body_hash),
                                  key_format(&a, "%lld", (long long)(EVENT_ONCE_HOURS * HOUR_MS))};
    if (!words[0].data || !words[2].data)
        return error_origin(-ENOMEM);
    struct redis_command command = {.key = words[0],
                                    .script = &s->scripts.claim,
                                    .n_keys = 1,
                                    .arguments = words,
                                    .n = ARRAY_LENGTH(words)};
    int r = redis_ask(s, &command, 1, true, redis_read_timeout(s), why);
    if (!r && command.reply->type != REDIS_REPLY_INTEGER)
        r = redis_odd(why);
    if (!r)
        *ret_is_ours = command.reply->integer == 1;
    redis_commands_free(&command, 1);
    return r > 0 ? r : error_trace(r);
}

/* ---- The tags that are the first ---- */

/* Tags of one key with growing indexes, one behind the other. */
struct run {
    size_t at; /* of the items */
    size_t n;
};

static bool has_key(const struct batch_item *item) {
    return item->record.body.size > 0;
}

static bool goes_on(const struct batch_item *before, const struct batch_item *item) {
    return bytes_equal(before->record.body, item->record.body) &&
           item->record.index > before->record.index;
}

static size_t find_runs(const struct batch_item *items, size_t n, struct run *runs) {
    size_t n_runs = 0;
    for (size_t i = 0; i < n; i++) {
        if (!has_key(&items[i]))
            continue;
        struct run *last = n_runs ? &runs[n_runs - 1] : NULL;
        if (last && last->at + last->n == i && goes_on(&items[i - 1], &items[i]))
            last->n++;
        else
            runs[n_runs++] = (struct run){.at = i, .n = 1};
    }
    return n_runs;
}

static void add_run(const struct batch_item *first, const struct batch_item *last, struct arena *a,
                    struct bytes *words) {
    words[0] = key_format(a, "%u", (unsigned)first->record.index);
    words[1] = key_format(a, "%u", (unsigned)last->record.index);
    words[2] = key_position(a, first->lsn);
    words[3] = key_position(a, last->lsn);
    words[4] = key_format(a, "%llu", (unsigned long long)(first->wall_us / 1000));
}

/* One script for all of them, as their order counts. */
static int make_command(struct events_redis *s, unsigned lane, struct arena *a,
                        const struct batch_item *items, const struct run *runs, size_t n_runs,
                        struct redis_command *ret_command) {
    enum { TIMES = 2, WORDS_A_RUN = 5 };
    size_t n = n_runs * (1 + WORDS_A_RUN) + TIMES;
    struct bytes *words = arena_calloc(a, n, sizeof *words);
    if (!words)
        return error_origin(-ENOMEM);
    words[n_runs] = key_format(a, "%lld", (long long)(EVENT_ONCE_HOURS * HOUR_MS));
    words[n_runs + 1] = key_format(a, "%lld", (long long)(KEPT_HOURS * HOUR_MS));
    for (size_t i = 0; i < n_runs; i++) {
        const struct batch_item *first = &items[runs[i].at];
        words[i] = key_once(a, s->prefix, lane, first->record.body);
        add_run(first, first + runs[i].n - 1, a, &words[n_runs + TIMES + i * WORDS_A_RUN]);
    }
    for (size_t i = 0; i < n; i++)
        if (!words[i].data)
            return error_origin(-ENOMEM);
    *ret_command = (struct redis_command){
        .key = words[0], .script = &s->scripts.once, .n_keys = n_runs, .arguments = words, .n = n};
    return 0;
}

/* Marks the tags that had come before. */
static int take_answer(const redisReply *reply, const struct run *runs, size_t n_runs,
                       struct batch_item *items, char why[EVENTS_REDIS_WHY_MAX]) {
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != n_runs)
        return redis_odd(why);
    for (size_t i = 0; i < n_runs; i++) {
        if (reply->element[i]->type != REDIS_REPLY_INTEGER)
            return redis_odd(why);
        for (size_t k = 0; k < runs[i].n; k++) {
            struct batch_item *item = &items[runs[i].at + k];
            item->repeated = (long long)item->record.index <= reply->element[i]->integer;
        }
    }
    return 0;
}

static size_t leave_out(struct batch_item *items, size_t n) {
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (!items[i].repeated)
            items[kept++] = items[i];
    return kept;
}

int redis_once_sift(struct events_redis *s, unsigned lane, struct arena *a,
                    struct batch_item *items, size_t *n, char why[EVENTS_REDIS_WHY_MAX]) {
    struct redis_command command;
    struct run *runs = arena_calloc(a, *n, sizeof *runs);
    size_t n_runs = runs ? find_runs(items, *n, runs) : 0;
    if (!runs)
        return error_origin(-ENOMEM);
    if (n_runs == 0)
        return 0;
    int r = make_command(s, lane, a, items, runs, n_runs, &command);
    if (r)
        return error_trace(r);
    r = redis_ask(s, &command, 1, true, redis_write_timeout(s), why);
    if (!r)
        r = take_answer(command.reply, runs, n_runs, items, why);
    redis_commands_free(&command, 1);
    if (r)
        return r > 0 ? r : error_trace(r);
    *n = leave_out(items, *n);
    return 0;
}
