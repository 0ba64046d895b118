/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the route files of tasks share, and nobody else includes: faults, tasks from JSON and back.
 */
#ifndef MILLRACE_TASKS_API_PARTS_H
#define MILLRACE_TASKS_API_PARTS_H

#include "base/json.h"
#include "tasks/api.h"

/* ---- Faults (api_parse.c) ---- */
enum { TASKS_API_E_FAULT = 150 }; /* the request is wrong, the fault says how */

struct task_fault {
    enum http_error error;
    const char *field; /* static storage; NULL: the whole */
    char sentence[256];
};
/* Returns TASKS_API_E_FAULT. field may be NULL. */
int task_fault_set(struct task_fault *f, enum http_error error, const char *field,
                   const char *format, ...) MUST_USE PRINTF_LIKE(4, 5);
/* A JSON_E_…; -ENOMEM passes unchanged. */
int task_fault_json(struct task_fault *f, int r) MUST_USE;

/* ---- Tasks from JSON (api_parse.c) ---- */
/* A task as it is asked for. The texts are the parser's: valid until its next parse. args is where
 * the arguments are written, and must outlive the request. now_us: the clock. settings: of the
 * server that is to run it; NULL: not known. TASKS_API_E_FAULT, -ENOMEM. */
int task_parse_request(struct json_value v, uint64_t now_us, const struct task_settings *settings,
                       struct buffer *args, struct task_request *ret_request,
                       struct task_fault *f) MUST_USE;
bool task_parse_id(struct bytes text, struct task_id *ret_id) MUST_USE;

/* ---- Tasks as JSON (api_render.c) ---- */
enum { TASK_ID_SIZE = 37 };
void task_id_text(struct task_id id, char out[TASK_ID_SIZE]);
/* With what the runner knows of its progress; runner may be NULL. */
void task_append_json(struct buffer *out, const struct task *task, struct tasks_runner *runner);

/* Appends the JSON of the task, ours or another's, that has the id. TASKS_E_NOT_FOUND, -EBADMSG,
 * -ENOMEM. */
int task_describe(struct tasks_api *api, struct bytes id_text, struct buffer *out,
                  bool *ret_ended) MUST_USE; /* api_read.c */
/* Runs a job that reads tasks, where it may wait for what it waits for. */
void task_offload(struct tasks_api *api, struct http_request *r, http_handler job); /* api_read.c */

/* A task by the functions of its store. */
static inline int MUST_USE task_find(const struct tasks_api *api, struct task_id id, bool with_args,
                                     struct task_ref *ret_ref) {
    return api->tasks.ops->get(api->tasks.store, id, with_args, ret_ref);
}

/* ---- Answers ---- */
/* Answers r: TASKS_API_E_FAULT as the fault says, TASKS_E_FULL, TASKS_E_NOT_FOUND (of the path's
 * id), negatives as 503 (memory) or 500. */
void task_fail(struct http_request *r, int result, const struct task_fault *f); /* api_parse.c */

/* ---- The handlers ---- */
void task_post(void *api, struct http_request *r);           /* api_create.c */
void task_post_batch(void *api, struct http_request *r);     /* api_create.c */
void task_delete(void *api, struct http_request *r);         /* api_change.c */
void task_retry(void *api, struct http_request *r);          /* api_change.c */
void task_get(void *api, struct http_request *r);            /* api_read.c */
void task_list(void *api, struct http_request *r);           /* api_read.c */
void task_get_queue(void *context, struct http_request *r);  /* api_read.c */
void task_get_types(void *context, struct http_request *r);  /* api_read.c */
void task_get_events(void *context, struct http_request *r); /* api_events.c */

#endif
