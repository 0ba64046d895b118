/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One attempt of a task: what becomes of it goes to the journal. Its end is recorded by its
 * outcome, unless it was stopped before: then by the reason for that. A stopped one that is no
 * longer the task's attempt is released all the same: the store drops what does not fit, and should
 * it fit after all (as the START came behind a CANCEL and a RETRY), the task runs again.
 */
#include "tasks/runner_parts.h"

#include "base/hash.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    SAVE_MS = 1000,
    RETRY_MAX_MS = 3600000,
    ERROR_MAX = 256,
};

struct attempt *attempt_new(struct task_ref *ref) {
    struct attempt *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    a->ref = *ref;
    a->number = ref->task.attempts + 1;
    a->deadline_ns = UINT64_MAX;
    if (ref->task.saved.size) {
        a->current = ref->task.current;
        a->total = ref->task.total;
    }
    return a;
}

void attempt_free(struct attempt *a) {
    task_unref(&a->ref);
    buffer_deinit(&a->saved);
    free(a);
}

static struct task_record record_of(const struct attempt *a, enum task_op op) {
    return (struct task_record){.op = op,
                                .id = a->ref.task.id,
                                .attempt = a->number,
                                .current = a->current,
                                .total = a->total,
                                .saved = buffer_bytes(&a->saved)};
}

void attempt_begin(struct tasks_runner *r, struct task_worker *w, struct attempt *a,
                   uint64_t now_ns) {
    struct task_record record = record_of(a, TASK_OP_START);
    record.worker = bytes_of_string(w->name);
    outbox_add(&r->outbox, &record);
    a->begun = true;
    a->begun_lsn = journal_appended(r->journal);
    a->begun_ns = a->saved_ns = now_ns;
    uint64_t timeout_ms = a->ref.task.request.timeout_ms;
    if (a->stop == STOP_NOT && timeout_ms && timeout_ms < UINT64_MAX / RUNNER_NS_PER_MS / 2)
        a->deadline_ns = now_ns + timeout_ms * RUNNER_NS_PER_MS;
}

void attempt_progress(struct attempt *a, const struct wire_progress *progress) {
    a->unsaved = a->unsaved || a->current != progress->current || a->total != progress->total ||
                 progress->saved.size > 0;
    a->unshown = a->unshown || a->current != progress->current || a->total != progress->total;
    a->current = progress->current;
    a->total = progress->total;
    if (progress->saved.size == 0)
        return;
    struct buffer saved = BUFFER_INIT; /* the older one stays when memory is out */
    buffer_append_bytes(&saved, progress->saved);
    if (buffer_check(&saved)) {
        buffer_deinit(&saved);
        return;
    }
    buffer_deinit(&a->saved);
    a->saved = saved;
}

void attempt_save(struct tasks_runner *r, struct attempt *a, uint64_t now_ns) {
    if (!a->begun || !a->unsaved || now_ns - a->saved_ns < (uint64_t)SAVE_MS * RUNNER_NS_PER_MS ||
        !outbox_is_empty(&r->outbox))
        return;
    struct task_record record = record_of(a, TASK_OP_SAVE);
    outbox_add(&r->outbox, &record);
    a->saved_ns = now_ns;
    a->unsaved = false;
}

/* Any pause up to 1 s · 2^failures, so that what failed together does not come back together. */
static uint64_t retry_us(struct tasks_runner *r, uint32_t failures) {
    uint64_t bound_ms = failures < 22 ? r->retry_ms << failures : RETRY_MAX_MS;
    if (bound_ms > RETRY_MAX_MS)
        bound_ms = RETRY_MAX_MS;
    return os_wall_us(r->os) + hash64_u64(r->random++) % (bound_ms * 1000 + 1);
}

static void record_end(struct tasks_runner *r, const struct attempt *a, enum task_outcome outcome,
                       struct bytes text) {
    struct task_record record = record_of(a, TASK_OP_END);
    record.outcome = outcome;
    record.text = text;
    if (outcome == TASK_OUTCOME_FAILED)
        record.due_us = retry_us(r, a->ref.task.failures);
    if (outcome == TASK_OUTCOME_DIED)
        record.due_us = os_wall_us(r->os);
    outbox_add(&r->outbox, &record);
    lease_note_ended(r, a);
}

/* What was stopped before it had an outcome of its own. */
static void record_stop(struct tasks_runner *r, const struct attempt *a) {
    char error[ERROR_MAX];
    if (a->stop == STOP_TIMEOUT) {
        (void)snprintf(error, sizeof error, "timed out after %" PRIu64 " ms",
                       a->ref.task.request.timeout_ms);
        record_end(r, a, TASK_OUTCOME_FAILED, bytes_of_string(error));
        return;
    }
    struct task_record record = record_of(a, TASK_OP_RELEASE);
    outbox_add(&r->outbox, &record);
    lease_note_ended(r, a);
}

static void observe(struct tasks_runner *r, const struct attempt *a, uint64_t now_ns) {
    for (size_t i = 0; i < task_handlers_n; i++)
        if (bytes_equal(bytes_of_string(task_handlers[i]->type), a->ref.task.request.type))
            metric_observe(r->metric_seconds[i], (now_ns - a->begun_ns) / 1000);
}

void attempt_end(struct tasks_runner *r, struct attempt *a, const struct wire_ended *ended,
                 uint64_t now_ns) {
    attempt_progress(a, &ended->progress);
    observe(r, a, now_ns);
    bool void_by_now = a->stop == STOP_CANCELLED || a->stop == STOP_FENCED;
    if (ended->outcome == WIRE_STOPPED || void_by_now)
        record_stop(r, a);
    else
        record_end(r, a, (enum task_outcome)ended->outcome, ended->text);
}

void attempt_die(struct tasks_runner *r, struct attempt *a, const char *why) {
    char error[ERROR_MAX];
    if (a->stop != STOP_NOT) {
        record_stop(r, a);
        return;
    }
    (void)snprintf(error, sizeof error, "its worker %s", why);
    record_end(r, a, TASK_OUTCOME_DIED, bytes_of_string(error));
}
