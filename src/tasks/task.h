/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a task is: work that outlives its request; and the transitions of tasks, which are their
 * records in the journal (record.c: the bytes stand there).
 *
 * The journal's order decides: a transition that does not fit the state the task is in when its
 * turn comes changes nothing. So a task has exactly one recorded end, whoever raced for it, and
 * `attempt` is a fencing token: what a worker says counts only while its attempt is the task's. It
 * only grows; a number may be left out, where it was given to a runner that died before its START.
 *
 *                        START (a later attempt)          END succeeded
 *   CREATE ──▶ queued ───────────────────────▶ running ──────────────────▶ succeeded
 *                ▲ │                             │ │ │   END failed, no retry left
 *                │ │ CANCEL                      │ │ └───────────────────▶ failed
 *                │ └──────────▶ cancelled ◀──────┘ │ CANCEL
 *                │      RELEASE; END failed, with a retry left; END died, not the third time
 *                ├─────────────────────────────────┘
 *                └── RETRY ── failed, cancelled
 *
 * Plain values; no locks, no I/O.
 */
#ifndef MILLRACE_TASKS_TASK_H
#define MILLRACE_TASKS_TASK_H

#include "base/bytes.h"
#include "journal/journal.h"

enum {
    TASK_TYPE_MAX = 64,         /* bytes of a type's name */
    TASK_ARGS_MAX = 1 << 20,    /* bytes of JSON */
    TASK_RESULT_MAX = 64 << 10, /* of a result or an error: longer ones are cut by the runner */
    TASK_SAVED_MAX = 64 << 10,  /* of what a handler saves to go on from */
    TASK_KEY_MAX = 256,         /* of an idempotency key */
    TASK_WORKER_MAX = 96,       /* of a worker's name, "host:pid" */
    TASK_PRIORITIES = 10,       /* 9 is first; 5 unless said otherwise */
    TASK_DEATHS_MAX = 3,        /* workers that it may take with it: then it is failed */
};

/* Part of the disk formats: never renumbered. */
enum task_status {
    TASK_QUEUED,
    TASK_RUNNING,
    TASK_SUCCEEDED,
    TASK_FAILED,
    TASK_CANCELLED,
    TASK_STATUSES,
};
/* "queued", … */
extern const char *const task_status_names[TASK_STATUSES];
/* false when there is no such. */
bool task_status_from_name(struct bytes name, enum task_status *ret_status);
static inline bool task_status_is_end(enum task_status s) {
    return s >= TASK_SUCCEEDED;
}

/* A UUID of version 7. The first half alone is the task's key: unique, and larger than that of
 * every task made before it on this data directory. */
struct task_id {
    uint64_t key;
    uint64_t low;
};

/* What a POST asks for, and a CREATE record carries. */
struct task_request {
    struct bytes type;
    struct bytes args;            /* JSON, an object; "{}" when none were given */
    struct bytes idempotency_key; /* empty: none */
    uint64_t run_at_us;           /* wall clock; 0: at once */
    uint64_t timeout_ms;          /* of one attempt; 0: none */
    uint32_t max_retries;         /* after a failure; deaths of workers are not counted here */
    uint8_t priority;
};

/* A task as it stands; views into whatever it was decoded from. */
struct task {
    struct task_id id;
    struct task_request request; /* args is empty where it is not asked for */
    enum task_status status;
    uint32_t attempts; /* of the last start; the fencing token of the one under way */
    uint32_t failures; /* since it was created or retried by a user */
    uint32_t deaths;   /* of workers, likewise */
    uint64_t created_us;
    uint64_t started_us;  /* the last start; 0: not yet */
    uint64_t finished_us; /* 0: not yet */
    uint64_t due_us;      /* queued: when it may start */
    uint64_t current;     /* progress, as far as it was journalled */
    uint64_t total;       /* 0: unknown */
    struct bytes worker;  /* of the last attempt */
    struct bytes result;  /* JSON, or empty */
    struct bytes error;   /* a sentence, or empty */
    struct bytes saved;   /* what the handler goes on from, or empty */
};

/* ---- Transitions ---- */
/* Part of the disk format: never renumbered. */
enum task_op {
    TASK_OP_CREATE = 1,
    TASK_OP_START = 2,   /* attempt, worker */
    TASK_OP_SAVE = 3,    /* attempt, progress, saved */
    TASK_OP_END = 4,     /* attempt, progress, outcome, text, saved, due_us of the next try */
    TASK_OP_RELEASE = 5, /* attempt, progress, saved: back to the queue, nobody's fault */
    TASK_OP_CANCEL = 6,
    TASK_OP_RETRY = 7,
};
enum task_outcome {
    TASK_OUTCOME_SUCCEEDED = 1, /* text is the result */
    TASK_OUTCOME_FAILED = 2,    /* text is the error; tried again at due_us if retries are left */
    TASK_OUTCOME_REFUSED = 3,   /* likewise, but trying again would be in vain */
    TASK_OUTCOME_DIED = 4,      /* its worker ended under it; tried again, up to TASK_DEATHS_MAX */
};
struct task_record {
    enum task_op op;
    struct task_id id;
    uint32_t attempt;
    enum task_outcome outcome;
    uint64_t current;
    uint64_t total;
    uint64_t due_us;
    struct bytes worker;
    struct bytes text;
    struct bytes saved;
    struct task_request request; /* CREATE */
};

/* Appends the record's bytes; asserts the bounds above. */
void task_record_encode(struct buffer *out, const struct task_record *record);
/* Gives a record that was encoded another id. */
void task_record_set_id(uint8_t *payload, struct task_id id);
/* false: it is no record of ours. Views into payload. */
bool task_record_decode(struct bytes payload, struct task_record *ret_record) MUST_USE;

/* What a transition does to a task, as the drawing above says: no I/O, no clock but the record's
 * own (journal_record.wall_us). False: it does not fit, and nothing was changed. CREATE is not for
 * here. The texts of the record are borrowed by the task. */
bool task_transition(struct task *task, const struct task_record *record, uint64_t wall_us);

#endif
