/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The HTTP routes of tasks, one table. The handlers run as http.h says, on any loop or query
 * thread. struct tasks_api borrows everything; it must outlive the server.
 */
#ifndef MILLRACE_TASKS_API_H
#define MILLRACE_TASKS_API_H

#include "http/http.h"
#include "tasks/runner.h"
#include "tasks/shared.h"

/* Tasks of another kind, which are shown among ours: bulk uploads, whose work the stores do. All
 * thread-safe. */
struct tasks_foreign {
    /* Appends the JSON of one; ret_ended: it will not change any more. TASKS_E_NOT_FOUND. */
    int (*describe)(void *context, struct bytes id, struct buffer *out, bool *ret_ended);
    /* Calls each for at most limit of them with keys below `below` (0: all), newest first, with
     * their JSON. */
    int (*list)(void *context, struct bytes status, struct bytes type, uint64_t below, size_t limit,
                void (*each)(void *each_context, uint64_t key, struct bytes json),
                void *each_context);
    void *context;
};

struct tasks_api {
    struct os *os;
    struct journal *journal;
    struct work *work; /* NULL: processes share the tasks */
    struct tasks_backend tasks;
    struct tasks_shared *shared; /* that is behind them; NULL: the tasks are this process's own */
    struct tasks_runner *runner; /* NULL: none in this process */
    const struct task_settings *settings;
    struct budget *budget;        /* of answers being made; NULL: none */
    struct tasks_foreign foreign; /* its functions are NULL: there are none */
};

struct http_route_table tasks_routes(struct tasks_api *api);

/* Dead letters; its context is the struct tasks_api. */
extern const struct work_letter_kind tasks_letters;

#endif
