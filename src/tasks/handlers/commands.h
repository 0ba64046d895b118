/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands that exec may run, from a file that only who runs the server writes:
 *
 *   {"commands": {"resize": {"argv": ["/usr/bin/python3", "/opt/resize.py"],
 *                            "memory_mb": 512, "cpu_s": 60, "time_s": 300,
 *                            "env": {"HOME": "/var/lib/resize"}}}}
 *
 * argv[0] is an absolute path. A command sees nothing of the server's environment: its own is PATH
 * and LANG, which are fixed, its env, and MILLRACE_DESCENDS_FROM (os/child.h).
 */
#ifndef MILLRACE_TASKS_HANDLERS_COMMANDS_H
#define MILLRACE_TASKS_HANDLERS_COMMANDS_H

#include "os/child.h"
#include "tasks/handler.h"

enum {
    COMMAND_ARGUMENTS_MAX = 64,
    COMMAND_VARIABLES_MAX = 64,
    COMMAND_SENTENCE_MAX = TASK_SENTENCE_MAX,
};

struct command {
    char *arguments[COMMAND_ARGUMENTS_MAX + 1]; /* NULL behind the last */
    char *variables[COMMAND_VARIABLES_MAX + 1];
    struct child_limits limits;
    uint64_t time_s; /* 0: no limit */
};

enum {
    _COMMANDS_E_SUCCESS,
    COMMANDS_E_REFUSED, /* the file, the name or its row is wrong: sentence says how */
};

/* Reads the command of that name from the file; "" is no file. COMMANDS_E_REFUSED; -ENOMEM. */
int command_load(struct os *os, const char *path, struct bytes name, struct command *ret_command,
                 char sentence[COMMAND_SENTENCE_MAX]) MUST_USE;
void command_deinit(struct command *c);

#endif
