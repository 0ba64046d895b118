/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `millrace task-worker`: what the server starts itself as to run tasks; of no use to anybody else.
 */
#include "cli/cli.h"

#include "tasks/worker.h"

static int run(const struct cli *cli) {
    return task_worker_main(cli->os, TASK_WORKER_SOCKET);
}

const struct cli_command cli_task_worker = {
    .name = TASK_WORKER_COMMAND,
    .bit = FOR_TASK_WORKER,
    .hidden = true,
    .summary = "run tasks for the server that started it",
    .arguments = "",
    .prose = "Started by `millrace serve`, with a socket at descriptor 3.\n",
    .examples = "",
    .run = run,
};
