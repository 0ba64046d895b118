/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dead letters of tasks. Most are ends of tasks that took their last worker with them: such a task
 * is replayed by being tried again, from where it had got to; edited, it is a new task. The others
 * are tasks that the store did not take, as there were too many types.
 */
#include "tasks/api_parts.h"

#include "base/time_text.h"

#include <errno.h>

static const char does_not_decode[] =
    "the record does not decode as a task, so it can only be dropped";

static void append_key(void *context UNUSED, const struct work_letter *letter, struct buffer *out) {
    struct task_record record;
    char id[TASK_ID_SIZE];
    if (!task_record_decode(letter->record.payload, &record))
        return;
    task_id_text(record.id, id);
    buffer_append_string(out, id);
}

/* ---- As JSON ---- */

static void append_request(struct buffer *out, const struct task_request *q) {
    char time[TIME_TEXT_BYTES + 1];
    buffer_append_string(out, "{\"type\":");
    json_append_string(out, q->type);
    buffer_append_string(out, ",\"args\":");
    buffer_append_bytes(out, q->args.size ? q->args : BYTES_LITERAL("{}"));
    buffer_append_format(out, ",\"priority\":%u,\"max_retries\":%u", (unsigned)q->priority,
                         (unsigned)q->max_retries);
    if (q->timeout_ms) {
        buffer_append_string(out, ",\"timeout\":");
        json_append_double(out, (double)q->timeout_ms / 1000);
    }
    time_text((int64_t)q->run_at_us, time);
    if (q->run_at_us)
        buffer_append_format(out, ",\"run_at\":\"%s\"", time);
    buffer_append_u8(out, '}');
}

/* A task that has run is not to wait for its hour again. */
static int append_task(struct tasks_api *api, struct task_id id, struct buffer *out,
                       char sentence[WORK_LETTER_SENTENCE]) {
    struct task_ref ref;
    int r = task_find(api, id, true, &ref);
    if (r == TASKS_E_NOT_FOUND)
        return work_letter_refuse(sentence, "the task is gone, so it can only be dropped");
    if (r)
        return error_trace(r);
    ref.task.request.run_at_us = 0;
    append_request(out, &ref.task.request);
    task_unref(&ref);
    return error_trace(buffer_check(out));
}

static int append_record(void *context, const struct work_letter *letter, struct buffer *out,
                         char sentence[WORK_LETTER_SENTENCE]) {
    struct task_record record;
    if (!task_record_decode(letter->record.payload, &record))
        return work_letter_refuse(sentence, "%s", does_not_decode);
    if (record.op != TASK_OP_CREATE)
        return append_task(context, record.id, out, sentence);
    append_request(out, &record.request);
    return error_trace(buffer_check(out));
}

/* ---- Writing it again ---- */

struct rewriting {
    struct buffer text;
    struct buffer args;
    struct json_parser *parser;
};

static void rewriting_deinit(struct rewriting *w) {
    json_parser_free(w->parser);
    buffer_deinit(&w->text);
    buffer_deinit(&w->args);
}

/* A new task as the edited record asks for it. */
static int make_new(struct tasks_api *api, struct rewriting *w, struct work_letter_replay *replay,
                    struct task_record *record) {
    struct task_fault fault;
    struct json_value v;
    uint64_t now_us = os_wall_us(api->os);
    buffer_append_bytes(&w->text, *replay->edited);
    if (!buffer_reserve(&w->text, JSON_PADDING))
        return error_origin(-ENOMEM);
    int r = json_parser_new(w->text.size + 1, &w->parser);
    if (!r)
        r = json_parse(w->parser, buffer_bytes(&w->text), &v);
    if (r)
        return r > 0 ? work_letter_refuse(replay->sentence, "the record %s", json_error_text(r))
                     : error_trace(r);
    r = task_parse_request(v, now_us, NULL, &w->args, &record->request, &fault);
    if (r == TASKS_API_E_FAULT)
        return work_letter_refuse(replay->sentence, "%s", fault.sentence);
    if (!r && record->request.idempotency_key.size)
        return work_letter_refuse(replay->sentence,
                                  "leave `idempotency_key` out: the letter is replayed once");
    record->op = TASK_OP_CREATE;
    record->id = api->tasks.ops->new_id(api->tasks.store, now_us);
    return error_trace(r);
}

/* The record that the letter is written again as. */
static int choose(struct tasks_api *api, struct rewriting *w, struct work_letter_replay *replay,
                  struct task_record *record) {
    struct task_record old;
    *record = (struct task_record){0};
    if (replay->edited)
        return make_new(api, w, replay, record);
    if (!task_record_decode(replay->letter->record.payload, &old))
        return work_letter_refuse(replay->sentence, "%s", does_not_decode);
    if (old.op == TASK_OP_CREATE)
        *record = old;
    else
        *record = (struct task_record){.op = TASK_OP_RETRY, .id = old.id};
    return 0;
}

static int append(struct tasks_api *api, struct work_letter_replay *replay,
                  const struct task_record *record) {
    CLEANUP(buffer_deinit) struct buffer bytes = BUFFER_INIT;
    const struct work_letter_record about = {
        .op = WORK_LETTER_REPLAY, .force = replay->force, .letter = replay->letter->record.lsn};
    work_letter_encode(&bytes, &about);
    task_record_encode(&bytes, record);
    /* Where processes share the tasks a task's records are all in its partition, and the letters of
     * all are looked up together; else in the letter's own. */
    uint64_t key_hash = api->shared ? record->id.key : replay->letter->record.key_hash;
    struct journal_record journalled = {.key_hash = key_hash,
                                        .kind = JOURNAL_KIND_TASKS,
                                        .flags = JOURNAL_LETTER,
                                        .payload = buffer_bytes(&bytes)};
    int r = buffer_check(&bytes);
    if (!r)
        r = journal_append(api->journal, &journalled, 1);
    if (r > 0) {
        replay->condition = r;
        return WORK_LETTER_E_JOURNAL;
    }
    replay->first = replay->last = journalled.lsn;
    return error_trace(r);
}

static int replay_letter(void *context, struct work_letter_replay *replay) {
    CLEANUP(rewriting_deinit) struct rewriting w = {0};
    struct tasks_api *api = context;
    struct task_record record;
    int r = choose(api, &w, replay, &record);
    return r ? error_trace(r) : append(api, replay, &record);
}

const struct work_letter_kind tasks_letters = {
    .append_key = append_key,
    .append_record = append_record,
    .replay = replay_letter,
};
