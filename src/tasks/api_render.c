/* SPDX-License-Identifier: Apache-2.0 */
/* A task as JSON. */
#include "tasks/api_parts.h"

#include "base/time_text.h"
#include "base/uuid.h"

static_assert(TASK_ID_SIZE == UUID_TEXT_BYTES + 1, "the text of a UUID and a NUL");

void task_id_text(struct task_id id, char out[TASK_ID_SIZE]) {
    uuid_format(id.key, id.low, out);
}

static void append_time(struct buffer *out, const char *key, uint64_t wall_us) {
    char text[TIME_TEXT_BYTES + 1];
    time_text((int64_t)wall_us, text);
    if (wall_us)
        buffer_append_format(out, ",\"%s\":\"%s\"", key, text);
    else
        buffer_append_format(out, ",\"%s\":null", key);
}

static void append_text(struct buffer *out, const char *key, struct bytes text) {
    buffer_append_format(out, ",\"%s\":", key);
    if (text.size)
        json_append_string(out, text);
    else
        buffer_append_string(out, "null");
}

static double part_done(const struct task *t) {
    if (t->status == TASK_SUCCEEDED)
        return 1;
    if (t->total == 0)
        return 0;
    return t->current < t->total ? (double)t->current / (double)t->total : 1;
}

static void append_progress(struct buffer *out, const struct task *t) {
    buffer_append_string(out, ",\"progress\":");
    json_append_double(out, part_done(t));
    buffer_append_format(out, ",\"current\":%llu,\"total\":", (unsigned long long)t->current);
    if (t->total)
        json_append_u64(out, t->total);
    else
        buffer_append_string(out, "null");
}

void task_append_json(struct buffer *out, const struct task *task, struct tasks_runner *runner) {
    struct task t = *task;
    char id[TASK_ID_SIZE];
    if (runner && t.status == TASK_RUNNING)
        (void)tasks_runner_progress(runner, t.id, t.attempts, &t.current, &t.total);
    task_id_text(t.id, id);
    buffer_append_format(out, "{\"id\":\"%s\",\"type\":", id);
    json_append_string(out, t.request.type);
    buffer_append_format(out, ",\"status\":\"%s\"", task_status_names[t.status]);
    append_progress(out, &t);
    buffer_append_format(out, ",\"priority\":%u", (unsigned)t.request.priority);
    append_time(out, "run_at", t.status == TASK_QUEUED ? t.due_us : 0);
    append_time(out, "created_at", t.created_us);
    append_time(out, "started_at", t.started_us);
    append_time(out, "finished_at", t.finished_us);
    buffer_append_format(out, ",\"attempts\":%u,\"max_retries\":%u", t.attempts,
                         t.request.max_retries);
    append_text(out, "worker", t.worker);
    buffer_append_string(out, ",\"result\":");
    if (t.result.size)
        buffer_append_bytes(out, t.result);
    else
        buffer_append_string(out, "null");
    append_text(out, "error", t.error);
    buffer_append_u8(out, '}');
}
