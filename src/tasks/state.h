/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A task as the stores keep it: everything but its arguments, which lie apart, as most that is done
 * to a task does not need them. The bytes stand in state.c. Plain values; no locks, no I/O.
 */
#ifndef MILLRACE_TASKS_STATE_H
#define MILLRACE_TASKS_STATE_H

#include "tasks/task.h"

void task_state_encode(struct buffer *out, const struct task *task, bool has_args);
/* Views into value. */
bool task_state_decode(uint64_t key, struct bytes value, struct task *ret_task,
                       bool *ret_has_args) MUST_USE;

#endif
