/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is in a record: the journal's own fields, and what the decoded payload says. A payload that
 * does not decode is shown as such, never skipped.
 */
#include "cli/record_print.h"

#include "base/json.h"
#include "base/time_text.h"
#include "base/uuid.h"
#include "events/tag.h"
#include "points/point.h"
#include "tasks/task.h"
#include "work/letters.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

enum { TIME_TEXT_MAX = 48 };

static const char *const kind_names[JOURNAL_KINDS] = {
    [JOURNAL_KIND_JOURNAL] = "journal",
    [JOURNAL_KIND_POINTS] = "points",
    [JOURNAL_KIND_EVENTS] = "events",
    [JOURNAL_KIND_TASKS] = "tasks",
};

static const char *kind_name(uint8_t kind) {
    return kind < JOURNAL_KINDS ? kind_names[kind] : "unknown";
}

static const char *op_name(enum point_op op) {
    switch (op) {
    case POINT_UPSERT:
        return "upsert";
    case POINT_DELETE:
        return "delete";
    case POINT_CREATE:
        return "create_collection";
    case POINT_DROP:
        return "drop_collection";
    case POINT_BULK:
        return "bulk_task_ended";
    }
    return "unknown";
}

static void format_time(uint64_t wall_us, char out[TIME_TEXT_MAX]) {
    time_t seconds = (time_t)(wall_us / 1000000);
    struct tm tm;
    if (!gmtime_r(&seconds, &tm)) {
        snprintf(out, TIME_TEXT_MAX, "%" PRIu64 " us", wall_us);
        return;
    }
    size_t size = strftime(out, TIME_TEXT_MAX, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out + size, TIME_TEXT_MAX - size, ".%06uZ", (unsigned)(wall_us % 1000000));
}

static bool of_a_point(const struct point_record *point) {
    return point->op == POINT_UPSERT || point->op == POINT_DELETE;
}

static void append_point_json(struct buffer *out, const struct point_record *point) {
    buffer_append_format(out, ",\"op\":\"%s\"", op_name(point->op));
    if (of_a_point(point) || point->op == POINT_DROP)
        buffer_append_format(out, ",\"incarnation\":%" PRIu64, point->incarnation);
    if (of_a_point(point)) {
        buffer_append_string(out, ",\"id\":");
        point_id_append_json(out, point->id);
    }
    if (point->op == POINT_UPSERT) {
        buffer_append_format(out, ",\"vector_numbers\":%zu", point->vectors.size / sizeof(float));
        if (point->payload.size > 0) {
            buffer_append_string(out, ",\"payload\":");
            buffer_append_bytes(out, point->payload);
        }
    }
    if (point->op == POINT_CREATE) {
        buffer_append_string(out, ",\"collection\":");
        json_append_string(out, point->name);
    }
}

static const char *event_op_name(enum event_op op) {
    switch (op) {
    case EVENT_TAG:
    case EVENT_FULL_TAG:
    case EVENT_ONCE_TAG:
        return "tag";
    case EVENT_ERASE:
        return "erase_profile";
    case EVENT_ELEMENT:
        return "new_element";
    case EVENT_ONCE:
        return "idempotency_key";
    }
    return "unknown";
}

static bool is_tag(const struct event_record *event) {
    return event->op == EVENT_TAG || event->op == EVENT_FULL_TAG;
}

static bool of_a_cookie(const struct event_record *event) {
    return is_tag(event) || event->op == EVENT_ERASE;
}

static void append_event_json(struct buffer *out, const struct event_record *event) {
    buffer_append_format(out, ",\"op\":\"%s\"", event_op_name(event->op));
    if (of_a_cookie(event)) {
        buffer_append_string(out, ",\"cookie\":");
        json_append_string(out, event->tag.cookie);
    }
    if (is_tag(event)) {
        char tag_time[TIME_TEXT_BYTES + 1];
        time_text(event->tag.time_ms * 1000, tag_time);
        buffer_append_format(out, ",\"tag_time\":\"%s\",\"action\":\"%s\",\"price\":%" PRId32,
                             tag_time, event_action_names[event->tag.action], event->tag.measure);
    }
    if (event->op == EVENT_ELEMENT) {
        buffer_append_string(out, ",\"collection\":");
        json_append_string(out, event->collection);
        buffer_append_format(out, ",\"id\":%" PRIu32 ",\"element\":", event->id);
        json_append_string(out, event->element);
    }
}

static void append_event_line(struct buffer *out, const struct event_record *event) {
    buffer_append_format(out, " %s", event_op_name(event->op));
    if (of_a_cookie(event)) {
        buffer_append_u8(out, ' ');
        json_append_string(out, event->tag.cookie);
    } else if (event->op == EVENT_ELEMENT) {
        buffer_append_u8(out, ' ');
        json_append_string(out, event->collection);
        buffer_append_format(out, " %" PRIu32 " ", event->id);
        json_append_string(out, event->element);
    }
}

/* ---- Tasks ---- */

static const char *const task_op_names[] = {
    [TASK_OP_CREATE] = "create", [TASK_OP_START] = "start",     [TASK_OP_SAVE] = "save",
    [TASK_OP_END] = "end",       [TASK_OP_RELEASE] = "release", [TASK_OP_CANCEL] = "cancel",
    [TASK_OP_RETRY] = "retry",
};
static const char *const task_outcome_names[] = {
    [TASK_OUTCOME_SUCCEEDED] = "succeeded",
    [TASK_OUTCOME_FAILED] = "failed",
    [TASK_OUTCOME_REFUSED] = "refused",
    [TASK_OUTCOME_DIED] = "died",
};

static bool has_progress(const struct task_record *task) {
    return task->op == TASK_OP_SAVE || task->op == TASK_OP_END || task->op == TASK_OP_RELEASE;
}

static void append_task_json(struct buffer *out, const struct task_record *task) {
    char id[UUID_TEXT_BYTES + 1];
    uuid_format(task->id.key, task->id.low, id);
    buffer_append_format(out, ",\"op\":\"%s\",\"id\":\"%s\"", task_op_names[task->op], id);
    if (task->op == TASK_OP_CREATE) {
        buffer_append_string(out, ",\"type\":");
        json_append_string(out, task->request.type);
    }
    if (task->attempt)
        buffer_append_format(out, ",\"attempt\":%" PRIu32, task->attempt);
    if (task->op == TASK_OP_START) {
        buffer_append_string(out, ",\"worker\":");
        json_append_string(out, task->worker);
    }
    if (has_progress(task))
        buffer_append_format(out, ",\"current\":%" PRIu64 ",\"total\":%" PRIu64, task->current,
                             task->total);
    if (task->op == TASK_OP_END)
        buffer_append_format(out, ",\"outcome\":\"%s\"", task_outcome_names[task->outcome]);
}

static void append_task_line(struct buffer *out, const struct task_record *task) {
    char id[UUID_TEXT_BYTES + 1];
    uuid_format(task->id.key, task->id.low, id);
    buffer_append_format(out, " %s %s", task_op_names[task->op], id);
    if (task->op == TASK_OP_CREATE) {
        buffer_append_u8(out, ' ');
        json_append_string(out, task->request.type);
    }
    if (task->attempt)
        buffer_append_format(out, " attempt %" PRIu32, task->attempt);
    if (task->op == TASK_OP_END)
        buffer_append_format(out, " %s", task_outcome_names[task->outcome]);
}

/* ---- About dead letters, of any kind ---- */

static const char *letter_op_name(const struct work_letter_record *letter) {
    return letter->op == WORK_LETTER_DROP ? "letter_drop" : "letter_replay";
}

static void append_letter_json(struct buffer *out, const struct journal_record *record) {
    struct work_letter_record letter;
    if (work_letter_decode(record->payload, &letter))
        buffer_append_format(out, ",\"op\":\"%s\",\"letter\":%" PRIu64 ",\"force\":%s",
                             letter_op_name(&letter), letter.letter,
                             letter.force ? "true" : "false");
    else
        buffer_append_string(out, ",\"op\":\"unknown\"");
}

static void append_letter_line(struct buffer *out, const struct journal_record *record) {
    struct work_letter_record letter;
    if (work_letter_decode(record->payload, &letter))
        buffer_append_format(out, " %s of %" PRIu64 "%s", letter_op_name(&letter), letter.letter,
                             letter.force ? ", forced" : "");
    else
        buffer_append_string(out, " does not decode");
}

void record_append_json(struct buffer *out, const struct journal_record *record) {
    char time[TIME_TEXT_MAX];
    struct point_record point;
    struct event_record event;
    struct task_record task;
    format_time(record->wall_us, time);
    buffer_append_format(out,
                         "\"lsn\":%" PRIu64 ",\"time\":\"%s\",\"kind\":\"%s\",\"control\":%s,"
                         "\"more\":%s,\"bytes\":%zu",
                         record->lsn, time, kind_name(record->kind),
                         record->flags & JOURNAL_CONTROL ? "true" : "false",
                         record->flags & JOURNAL_MORE ? "true" : "false", record->payload.size);
    if (record->flags & JOURNAL_LETTER)
        append_letter_json(out, record);
    else if (record->kind == JOURNAL_KIND_POINTS && point_record_decode(record->payload, &point))
        append_point_json(out, &point);
    else if (record->kind == JOURNAL_KIND_EVENTS && event_record_decode(record->payload, &event))
        append_event_json(out, &event);
    else if (record->kind == JOURNAL_KIND_TASKS && task_record_decode(record->payload, &task))
        append_task_json(out, &task);
    else if (record->kind != JOURNAL_KIND_JOURNAL)
        buffer_append_string(out, ",\"op\":\"unknown\"");
}

static void append_point_line(struct buffer *out, const struct point_record *point) {
    buffer_append_format(out, " %s", op_name(point->op));
    if (of_a_point(point)) {
        buffer_append_string(out, " ");
        point_id_append_json(out, point->id);
        buffer_append_format(out, " of collection %" PRIu64, point->incarnation);
    } else if (point->op == POINT_CREATE) {
        buffer_append_string(out, " ");
        json_append_string(out, point->name);
    } else if (point->op == POINT_DROP) {
        buffer_append_format(out, " %" PRIu64, point->incarnation);
    }
}

void record_append_line(struct buffer *out, const struct journal_record *record) {
    char time[TIME_TEXT_MAX];
    struct point_record point;
    struct event_record event;
    struct task_record task;
    format_time(record->wall_us, time);
    buffer_append_format(out, "%10" PRIu64 "  %s  %-7s %6zu bytes ", record->lsn, time,
                         kind_name(record->kind), record->payload.size);
    if (record->flags & JOURNAL_LETTER)
        append_letter_line(out, record);
    else if (record->kind == JOURNAL_KIND_POINTS && point_record_decode(record->payload, &point))
        append_point_line(out, &point);
    else if (record->kind == JOURNAL_KIND_EVENTS && event_record_decode(record->payload, &event))
        append_event_line(out, &event);
    else if (record->kind == JOURNAL_KIND_TASKS && task_record_decode(record->payload, &task))
        append_task_line(out, &task);
    else if (record->kind != JOURNAL_KIND_JOURNAL)
        buffer_append_string(out, " does not decode");
}
