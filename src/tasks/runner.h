/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runner: one thread that has queued tasks done by worker processes, and journals what becomes
 * of them. A process for each worker, because a task may crash, hang or be killed, and then only
 * its own worker is gone.
 *
 *   store ──take──▶ runner ──RUN──▶ worker process          (wire.h)
 *     ▲                │  ◀─ BEGAN, PROGRESS, ENDED ─┘
 *     └── apply ◀── journal ◀── START, SAVE, END, RELEASE
 *
 *   - A worker is handed tasks ahead, as many as it lately did in 10 ms (1 to 64), and they are
 *     recalled when one takes longer: short tasks cost no round trip each, long ones wait for
 *     nobody.
 *   - Transitions are appended without waiting: what is not durable did not happen, and the task
 *     runs again. Where the journal refuses, they are kept, in order, and tried again; nothing new
 *     is handed out meanwhile.
 *   - A worker whose process ended, or that was silent for the lease (10 s), is killed, and its
 *     task ends as DIED, with what it had saved. Its socket is gone, and its attempt is void:
 *     what a worker that was only asleep says later reaches nobody.
 *   - A task out of time, or cancelled, is stopped; its worker is killed if the handler does not
 *     return within half a second.
 *   - Number of workers: one more when a task that is due has waited 50 ms for a free one, one
 *     fewer when one was idle for 30 s; between min and max.
 *   - At most one SAVE a second is journalled of a task; newer progress is in memory, and is what
 *     tasks_runner_progress says.
 *   - Where the tasks are shared with other processes (backend.h), what it has in hand is renewed
 *     some times a second, with the newest progress, and stopped when it is worth nothing any more;
 *     and of tasks whose lease ran out, whoever had them, it journals that their worker died.
 *
 * Made, started, stopped and freed by one thread; the rest is thread-safe.
 */
#ifndef MILLRACE_TASKS_RUNNER_H
#define MILLRACE_TASKS_RUNNER_H

#include "observe/log.h"
#include "tasks/backend.h"
#include "tasks/handler.h"

struct tasks_runner;

struct tasks_runner_options {
    unsigned workers_min; /* 0: none is kept when there is nothing to do */
    unsigned workers_max; /* at least 1 */
    uint64_t lease_ms;    /* 0: 10 000 */
    const char *program;  /* what a worker process runs; NULL: this program */
    struct task_settings settings;
};

/* The store, journal, log (NULL: none) and metrics must outlive it. -ENOMEM. */
int tasks_runner_new(struct os *os, struct tasks_backend tasks, struct journal *j, struct log *log,
                     struct metrics *metrics, const struct tasks_runner_options *options,
                     struct tasks_runner **ret_runner) MUST_USE;
/* Releases what ran when the server last ended, starts the thread. The workers of the store must
 * run. url, key: as in struct task_imports; NULL where there are no imports. They must outlive the
 * runner. */
int tasks_runner_start(struct tasks_runner *r, const char *url, const char *key) MUST_USE;
/* Tells the workers to stop, waits for them up to grace_ms, kills the rest, and releases their
 * tasks. The journal must still take records. */
void tasks_runner_stop(struct tasks_runner *r, uint64_t grace_ms);
/* Once the workers of the store have ended: they call its listener. Takes NULL. */
struct tasks_runner *tasks_runner_free(struct tasks_runner *r);

/* What its workers are told: the options' own, which stay as they are. */
const struct task_settings *tasks_runner_settings(const struct tasks_runner *r);
/* Newer progress of a running task than the store has; false: there is none. */
bool tasks_runner_progress(struct tasks_runner *r, struct task_id id, uint32_t attempt,
                           uint64_t *ret_current, uint64_t *ret_total);

struct tasks_runner_status {
    unsigned workers;
    unsigned busy;
    uint64_t died; /* workers, since the start */
    bool stalled;  /* the thread has not gone round for 10 s: turns liveness red */
};
void tasks_runner_status(struct tasks_runner *r, struct tasks_runner_status *ret_status);

#endif
