/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why something could not be started or opened: one sentence for a person, which says what to do.
 * Filled by the rooms that put things together, printed once by the command line. Plain value.
 */
#ifndef MILLRACE_SERVE_PROBLEM_H
#define MILLRACE_SERVE_PROBLEM_H

#include "os/os.h"

enum { PROBLEM_TEXT_MAX = 1024 };

struct problem {
    char text[PROBLEM_TEXT_MAX];
};

enum {
    _SERVE_E_SUCCESS,
    SERVE_E_PROBLEM, /* the problem's text says what it is */
    SERVE_E_DAMAGE,  /* data_verify: something was found */
    SERVE_E_IN_USE,  /* as SERVE_E_PROBLEM: by another process */
};

/* Writes the sentence; returns SERVE_E_PROBLEM. */
int problem_say(struct problem *p, const char *format, ...) PRINTF_LIKE(2, 3);
/* "DOING PATH: REASON" for a result of the os room or a negative error. Returns SERVE_E_PROBLEM. */
int problem_of_result(struct problem *p, const char *doing, const char *path, int r);

#endif
