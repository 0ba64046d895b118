/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the load generator asks a server beside the load: that the collection is there, how many
 * points it has, how far a task is. Blocking calls over one connection. One thread.
 */
#ifndef MILLRACE_CLI_LOAD_ADMIN_H
#define MILLRACE_CLI_LOAD_ADMIN_H

#include "cli/load.h"

struct admin {
    const struct load_plan *plan;
    struct client client;
    struct json_parser *parser;
    struct buffer request;
    char error[512]; /* the sentence of a failure */
};

enum {
    _ADMIN_E_SUCCESS,
    ADMIN_E_FAILED, /* error says why */
};

int admin_init(struct admin *a, const struct load_plan *plan) MUST_USE;
void admin_deinit(struct admin *a);
/* Creates the collection unless it is there. */
int admin_ensure_collection(struct admin *a) MUST_USE;
int admin_count(struct admin *a, uint64_t *ret_count) MUST_USE;
/* Sends the records first to first + n - 1 again and waits until they are visible. */
int admin_repeat(struct admin *a, uint64_t first, uint64_t n) MUST_USE;
/* ret_ended: everything of the task is applied. ADMIN_E_FAILED also when the task failed. */
int admin_task_ended(struct admin *a, const char *id, bool *ret_ended) MUST_USE;

#endif
