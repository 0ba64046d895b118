/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handlers: what each type of task does, one file each in handlers/, one row each in handlers.def.
 * A handler runs in a worker process (worker.h), alone on its main thread: it may block, and if it
 * crashes or is killed, it takes nobody with it.
 */
#ifndef MILLRACE_TASKS_HANDLER_H
#define MILLRACE_TASKS_HANDLER_H

#include "base/json.h"
#include "os/os.h"
#include "tasks/task.h"

/* What imports may read, and where they send it. */
struct task_imports {
    const char *directory; /* paths are of files below it */
    const char *hosts;     /* http/hosts.h: that URLs may be of */
    uint64_t max_bytes;    /* of a source, once it is decompressed */
    const char *url;       /* of our own API, "http://127.0.0.1:8000" */
    const char *key;       /* that it takes from us */
};

/* What handlers are told of the server at the start of their worker; NULL or "" where there is
 * none. */
struct task_settings {
    const char *commands; /* the file of commands that exec may run */
    bool no_api;          /* processes share the journal: a worker need have no API to post to */
    struct task_imports imports;
};

enum { TASK_SENTENCE_MAX = 256 };
/* That the file of commands can be read and is JSON, when the server starts; a row is looked at
 * when it is to run. Above 0: sentence says what is wrong; -ENOMEM. */
int task_commands_check(struct os *os, const char *path, char sentence[TASK_SENTENCE_MAX]) MUST_USE;

/* A task as its handler sees it. */
struct task_run;
uint64_t task_run_key(const struct task_run *r);      /* of the task, the same for each attempt */
struct bytes task_run_args(const struct task_run *r); /* JSON; checked before by the handler */
/* The same, parsed; valid until run returns. Null when memory is out, or a newer version wrote what
 * this one cannot read: checked again all the same. */
struct json_value task_run_arguments(struct task_run *r);
struct bytes task_run_saved(const struct task_run *r); /* by an earlier attempt, or empty */
const struct task_settings *task_run_settings(const struct task_run *r);
/* Reports progress; cheap enough to call at every step (it is sent at most every 50 ms, but for the
 * last). saved is what a later attempt can go on from; empty: as before. */
void task_run_progress(struct task_run *r, uint64_t current, uint64_t total, struct bytes saved);
/* True once the task is to stop: cancelled, out of time, or the server ends. A handler looks at
 * least every 100 ms; one that does not is killed. */
bool task_run_stopped(const struct task_run *r);
/* Waits, but not past being stopped. */
void task_run_sleep_ms(struct task_run *r, uint64_t ms);
/* Text for the result (JSON) or the error (a sentence): what run appends here. */
struct buffer *task_run_text(struct task_run *r);

struct task_handler {
    const char *type;
    const char *summary; /* a line of prose */
    const char *args;    /* the arguments, in the notation of http/schema.h */
    bool posts;          /* to our own API */
    /* Checks the arguments when the task is asked for, and that the server was started with what
     * they need (settings; NULL: that is not known here): false, and a sentence of what would be
     * right. Called by the API's threads: no I/O. */
    bool (*check)(struct json_value args, const struct task_settings *settings, char *sentence,
                  size_t size);
    /* Does the work. TASK_OUTCOME_SUCCEEDED, _FAILED, _REFUSED; what it returns once it was stopped
     * does not count. */
    enum task_outcome (*run)(struct task_run *r);
};
extern const struct task_handler *const task_handlers[];
extern const size_t task_handlers_n;
/* NULL: there is none of that type. */
const struct task_handler *task_handler_find(struct bytes type);
/* Whether a server with these settings (NULL: not known) could ever run it. */
bool task_handler_is_offered(const struct task_handler *h, const struct task_settings *settings);

#endif
