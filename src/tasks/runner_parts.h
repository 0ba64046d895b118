/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the runner share. All of it belongs to the runner's thread, but for what lies
 * under the lock.
 *
 *   runner.c    the thread: what it is told, hands out, scales, waits
 *   pool.c      worker processes: start, feed, hear, kill, bury
 *   attempt.c   one attempt of a task, from hand-out to its end
 *   lease.c     what is in hand of tasks that are shared: renewed, and stopped when it is void
 *
 * An attempt:                      BEGAN                ENDED
 *   held ──▶ in hand of a worker ─────────▶ under way ──────────▶ END, RELEASE
 *              │ RETURNED                     │ cancelled, out of time, fenced, the server stops
 *              ▼                              ▼
 *           given back                     stopping ── ENDED, or killed after 500 ms ──▶ the same
 *
 * A worker: starting ─▶ (something heard) ─▶ alive ─▶ killed or ended ─▶ its tasks resolved ─▶ gone
 */
#ifndef MILLRACE_TASKS_RUNNER_PARTS_H
#define MILLRACE_TASKS_RUNNER_PARTS_H

#include "observe/metrics.h"
#include "os/child.h"
#include "os/socket.h"
#include "os/sync.h"
#include "tasks/outbox.h"
#include "tasks/runner.h"
#include "tasks/wire.h"

#include <stdatomic.h>

enum { RUNNER_NS_PER_MS = 1000000 };
enum { AHEAD_MAX = 64, NOTES_MAX = 256 };

enum attempt_stop {
    STOP_NOT,
    STOP_CANCELLED,
    STOP_FENCED,
    STOP_TIMEOUT,
    STOP_SERVER,
};

struct attempt {
    struct attempt *next; /* in the hand of its worker */
    struct task_ref ref;
    uint32_t number;
    bool begun;
    bool unsaved; /* progress that is not journalled */
    bool unshown; /* progress that was not renewed with */
    enum attempt_stop stop;
    uint64_t begun_ns;
    lsn_t begun_lsn;      /* its records are above */
    uint64_t deadline_ns; /* of its time, UINT64_MAX for none; once stopping, of its worker */
    uint64_t saved_ns;    /* the last SAVE */
    uint64_t current;
    uint64_t total;
    struct buffer saved; /* by this attempt */
};

struct task_worker {
    struct child child;
    int socket; /* -1: closed, nothing is heard or told any more */
    char name[TASK_WORKER_MAX];
    bool heard;       /* it has said something: it did start */
    bool dismissed;   /* to end, as there is nothing to do */
    bool recalled;    /* what it has not begun is on the way back */
    bool lost;        /* its tasks are resolved */
    char why[128];    /* it was killed */
    uint64_t kill_ns; /* of one that was dismissed or killed: what is left then is forced */
    uint64_t heard_ns;
    uint64_t moved_ns; /* it last began or ended a task, or was given one while it was idle */
    uint64_t mean_ns;  /* a task, lately */
    struct buffer in;
    struct buffer out;
    size_t out_sent;
    struct attempt *first, *last; /* in hand, in order */
    unsigned n;
    struct { /* under the runner's lock: for tasks_runner_progress */
        bool any;
        uint64_t key;
        uint32_t attempt;
        uint64_t current;
        uint64_t total;
    } shown;
};

/* What the listener tells the thread. */
struct runner_note {
    struct task_id id;
    uint32_t attempt; /* fenced; 0: cancelled */
};

struct tasks_runner {
    struct os *os;
    struct tasks_backend tasks;
    struct journal *journal;
    struct log *log;
    struct tasks_runner_options options;
    char host[64];
    char mark[64];     /* of the workers and all that descends from them */
    uint64_t retry_ms; /* the first pause after a failure */
    struct os_thread *thread;
    struct event wake;
    struct tasks_listener listener;
    _Atomic bool stopping;
    _Atomic uint64_t grace_ms;
    _Atomic uint64_t round_ns; /* the thread's last turn; 0: it does not run */
    _Atomic unsigned shown_workers, shown_busy;
    _Atomic uint64_t died;

    struct mutex lock;
    struct runner_note notes[NOTES_MAX];
    size_t n_notes;
    bool notes_lost; /* there were more: look at everything */

    struct outbox outbox;
    struct task_worker **workers; /* the array changes under the lock */
    unsigned n_workers;
    struct pollfd *pollfds; /* wake, then two a worker */
    uint64_t *known;        /* room for the workers' ids */
    struct attempt *held;   /* the next task, which no worker has room for */
    uint64_t random;
    uint64_t scaled_ns;
    uint64_t start_ns; /* no worker is started before */
    unsigned failed_starts;
    uint64_t started_us;
    uint64_t stop_ns;                /* stopping: when the rest is killed; 0: not yet */
    uint64_t renewed_ns, expired_ns; /* lease.c: when it last did */
    struct buffer ended;             /* lease.c: what may not be known to have ended */

    struct metric_series *metric_workers, *metric_busy, *metric_deaths, *metric_starts;
    struct metric_series **metric_seconds; /* by handler */
};

/* ---- attempt.c ---- */
/* Takes the ref over. NULL: memory is out, the ref is as before. */
struct attempt *attempt_new(struct task_ref *ref);
void attempt_free(struct attempt *a);
/* The worker has begun: START. */
void attempt_begin(struct tasks_runner *r, struct task_worker *w, struct attempt *a,
                   uint64_t now_ns);
void attempt_progress(struct attempt *a, const struct wire_progress *progress);
/* Journals progress, if it is time to. */
void attempt_save(struct tasks_runner *r, struct attempt *a, uint64_t now_ns);
/* Its end, as the worker said: END or RELEASE. */
void attempt_end(struct tasks_runner *r, struct attempt *a, const struct wire_ended *ended,
                 uint64_t now_ns);
/* Its worker is gone. */
void attempt_die(struct tasks_runner *r, struct attempt *a, const char *why);

/* ---- lease.c: nothing, where the tasks are this process's own ---- */
/* Renews what is in hand, if it is time to. */
void lease_renew(struct tasks_runner *r, uint64_t now_ns);
/* The attempt is over, and says so on its way through the journal: until that is applied its lease
 * is kept. */
void lease_note_ended(struct tasks_runner *r, const struct attempt *a);
/* The runner has ended. */
void lease_end(struct tasks_runner *r);

/* ---- runner.c ---- */
/* What it holds goes back to the queue. */
void runner_drop_held(struct tasks_runner *r);

/* ---- pool.c ---- */
/* Starts one more, if it is time to. */
void pool_start_worker(struct tasks_runner *r, uint64_t now_ns);
/* Hears what its descriptors are ready for; sees whether it has ended. */
void pool_serve(struct tasks_runner *r, struct task_worker *w, short socket_ready, bool ended,
                uint64_t now_ns);
/* Gives it the attempt. False: memory is out. */
bool pool_give(struct task_worker *w, struct attempt *a, uint64_t now_ns) MUST_USE;
/* How many more tasks it should be given. */
unsigned pool_room(const struct task_worker *w);
/* Has the attempt, which it has in hand, stopped; its worker is killed if it is not by deadline. */
void pool_stop_attempt(struct task_worker *w, struct attempt *a, enum attempt_stop why,
                       uint64_t deadline_ns);
/* Leases, time, recalls, saves: what is due. */
void pool_check(struct tasks_runner *r, struct task_worker *w, uint64_t now_ns);
/* Sends what is to be sent, as far as the socket takes it. */
void pool_flush(struct tasks_runner *r, struct task_worker *w, uint64_t now_ns);
void pool_kill(struct task_worker *w, uint64_t now_ns, const char *why);
/* Lets it go when it has nothing in hand. */
void pool_dismiss(struct task_worker *w, uint64_t now_ns);
/* Frees the workers that are gone. */
void pool_sweep(struct tasks_runner *r);

#endif
