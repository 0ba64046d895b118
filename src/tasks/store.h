/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The embedded task store: every task that is kept, the ready queue, idempotency keys. It applies
 * the transitions in the journal's order; it makes none itself.
 *
 *   apply ─▶ hot (memory: what changed since the last checkpoint) ──freeze, ingest──▶ RocksDB
 *      └──▶ the queue (memory: 17 to 32 bytes a queued task, by priority and time)
 *
 * One lane: a record costs about a microsecond, and the queue is one anyway. As with events, a
 * checkpoint is one sorted file, taken in atomically with the position. A task that is created and
 * ends between two checkpoints is written once. It numbers the names of types itself, at most 64 of
 * them: a task of one more is a dead letter. So is the end of a task that took its last worker with
 * it: that letter goes when the task is tried again or forgotten.
 *
 * Thread-safe.
 */
#ifndef MILLRACE_TASKS_STORE_H
#define MILLRACE_TASKS_STORE_H

#include "os/os.h"
#include "tasks/remote.h"
#include "tasks/task.h"
#include "work/work.h"

struct tasks_store;

struct tasks_store_options {
    uint64_t hot_bytes_max;      /* past it, while a checkpoint is under way, apply says retry.
                                    0: 64 MiB (debug builds: 16 KiB) */
    uint64_t cache_bytes;        /* RocksDB's block cache; 0: 32 MiB */
    uint64_t queued_max;         /* tasks queued at a time, then TASKS_E_FULL; 0: 10,000,000 */
    uint64_t keep_ms;            /* how long a task is kept after its end; 0: 7 days */
    struct tasks_remote *remote; /* who keeps the tasks, borrowed; NULL: the directory */
};

struct tasks_store_report {
    uint64_t tasks; /* kept, about */
    uint64_t queued;
    uint64_t running; /* when the server ended: the runner releases them */
    uint64_t damages; /* found by verify, or met at opening: of these */
    uint64_t mended;  /* were made good from the copies */
};

enum {
    _TASKS_E_SUCCESS,
    TASKS_E_NOT_FOUND,
    TASKS_E_FULL,        /* queued_max */
    TASKS_E_UNAVAILABLE, /* the remote is not there now */
    TASKS_E_REFUSED,     /* the remote will not do it */
};

/* Opens or creates the store in directory (of the real file system). -EPROTO: the database is
 * damaged, and why says what RocksDB says. With a remote, the directory is emptied and filled from
 * it: TASKS_E_UNAVAILABLE, TASKS_E_REFUSED, why says. */
int tasks_store_open(struct os *os, const char *directory,
                     const struct tasks_store_options *options, struct tasks_store **ret_store,
                     struct tasks_store_report *ret_report, char *why, size_t why_size) MUST_USE;
/* Frees without persisting; call tasks_store_checkpoint before. Takes NULL. */
struct tasks_store *tasks_store_close(struct tasks_store *s);

/* Its context is the struct tasks_store. */
extern const struct work_store_ops tasks_store_work_ops;
/* The persisted position of the one lane. */
lsn_t tasks_store_position(const struct tasks_store *s);
/* Persists what is applied, and forgets tasks that ended more than keep_ms ago (some each time).
 * One at a time; applying and reading go on. Negative: nothing was lost, call again later. */
int tasks_store_checkpoint(struct tasks_store *s) MUST_USE;
/* Tasks are due to be forgotten: a checkpoint would do it, though nothing else may be new. */
bool tasks_store_wants_checkpoint(const struct tasks_store *s);
uint64_t tasks_store_dirty_bytes(const struct tasks_store *s);
/* A checkpoint had better wait, for seconds at most: compactions are behind. */
bool tasks_store_is_behind(struct tasks_store *s);

struct tasks_remote_status {
    bool reachable; /* it took the last checkpoint, or would have */
    char why[TASKS_REMOTE_WHY_MAX];
};
/* False: there is no remote. */
bool tasks_store_remote_status(struct tasks_store *s, struct tasks_remote_status *ret_status);

/* ---- Writing: for the API ---- */
/* A new id; wall_us is the clock's. Lock-free, unique, increasing. */
struct task_id tasks_store_new_id(struct tasks_store *s, uint64_t wall_us);
/* TASKS_E_FULL when n more would not fit among the queued. Nothing is reserved: the bound may be
 * passed by what is appended at the same time. */
int tasks_store_admit(const struct tasks_store *s, uint64_t n) MUST_USE;
/* Exactly one task for an idempotency key (while it is kept): finds the task that has it, or calls
 * append (which appends the CREATE record of id) under the lock of the keys, and remembers it if
 * append returns 0. *ret_id is the task that has the key now, *ret_new whether it is ours. Returns
 * what append did. -EBADMSG, -ENOMEM. */
int tasks_store_once(struct tasks_store *s, struct bytes key, struct task_id id,
                     int (*append)(void *context), void *context, struct task_id *ret_id,
                     bool *ret_new) MUST_USE;

/* ---- Reading ---- */
/* A task, held: its views live until task_unref. */
struct task_held {
    void (*release)(struct task_held *held);
};
struct task_ref {
    struct task task;
    struct task_held *held; /* the store's; NULL: nothing is held */
};
/* As of what is applied. with_args: request.args too. TASKS_E_NOT_FOUND; -EBADMSG, -ENOMEM. May do
 * I/O of one block. */
int tasks_store_get(struct tasks_store *s, struct task_id id, bool with_args,
                    struct task_ref *ret_ref) MUST_USE;
void task_unref(struct task_ref *ref);

struct tasks_filter {
    unsigned statuses; /* bit i: status i; 0: all */
    struct bytes type; /* empty: all */
    uint64_t below;    /* only keys below it; 0: all */
    size_t limit;
};
/* Calls each for tasks by descending key (newest first), until it returns false, or limit. Does
 * I/O. -EBADMSG, -ENOMEM. */
int tasks_store_list(struct tasks_store *s, const struct tasks_filter *filter,
                     bool (*each)(void *context, const struct task *task), void *context) MUST_USE;

/* ---- The queue: for the runner, one thread ---- */
/* Takes up to n tasks that are due, best first: higher priority, then longer due, then older. They
 * stay queued until their START is applied, but are not taken twice unless given back. refs have
 * args and saved. *ret_n may be 0. */
int tasks_store_take(struct tasks_store *s, uint64_t now_us, size_t n, struct task_ref *ret_refs,
                     size_t *ret_n) MUST_USE;
/* Back to the queue, for a task that was taken and not started. */
void tasks_store_give_back(struct tasks_store *s, struct task_id id);
/* When the next task that is not due yet will be; UINT64_MAX: none waits. */
uint64_t tasks_store_next_due_us(struct tasks_store *s);
/* Calls each for every task that is running as of what is applied: at start, before any worker. */
int tasks_store_each_running(struct tasks_store *s,
                             void (*each)(void *context, const struct task *task),
                             void *context) MUST_USE;

/* Told by the worker that applies, no lock held; must not block. Set before work_start. */
struct tasks_listener {
    /* Something became due, or a due time earlier than all others was added. */
    void (*queued)(struct tasks_listener *l);
    /* A task that is not to run any more was cancelled: it may have been taken. */
    void (*cancelled)(struct tasks_listener *l, struct task_id id);
    /* A START, SAVE, END or RELEASE did not fit: the attempt is void. */
    void (*fenced)(struct tasks_listener *l, struct task_id id, uint32_t attempt);
};
void tasks_store_listen(struct tasks_store *s, struct tasks_listener *listener);

struct tasks_store_stats {
    uint64_t by_status[TASK_STATUSES]; /* kept; queued and running exactly, ended ones about */
    uint64_t oldest_due_us;            /* of what is queued and due; 0: nothing is */
    uint64_t ended[TASK_STATUSES];     /* since the opening */
    uint64_t deaths;
    uint64_t dead_letters;
    uint64_t memory_bytes; /* hot, queue, cache, tables */
    uint64_t disk_bytes;
    uint64_t damages; /* met when the store was opened, and by queries since */
    uint64_t compactions_failed;
};
void tasks_store_stats(struct tasks_store *s, struct tasks_store_stats *ret_stats);

/* Checks every block and every value of a store that is not open. Negative on I/O. */
int tasks_store_verify(struct os *os, const char *directory,
                       void (*each)(void *context, const char *sentence), void *context,
                       struct tasks_store_report *ret_found) MUST_USE;

#endif
