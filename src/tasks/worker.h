/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker process: the same binary, started by the runner, with a socket to it. It does one task
 * at a time; a second thread listens, so that a task can be stopped, and says every second that the
 * worker is alive. It ends when the socket does.
 */
#ifndef MILLRACE_TASKS_WORKER_H
#define MILLRACE_TASKS_WORKER_H

#include "os/os.h"

/* The subcommand that the runner starts itself with, not for users. */
#define TASK_WORKER_COMMAND "task-worker"
enum { TASK_WORKER_SOCKET = 3 };

/* Returns the process's exit status. */
int task_worker_main(struct os *os, int socket) MUST_USE;

#endif
