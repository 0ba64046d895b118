/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Results of the rooms below as sentences.
 */
#include "serve/problem.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

int problem_say(struct problem *p, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(p->text, sizeof p->text, format, args);
    va_end(args);
    return SERVE_E_PROBLEM;
}

static const char *reason_of(int r) {
    switch (r) {
    case OS_E_NOT_FOUND:
        return "there is no such place; choose another --data-dir";
    case OS_E_EXISTS:
        return "something else of that name is there";
    case OS_E_FULL:
    case -ENOSPC:
        return "no space left on the disk; make room or choose another --data-dir";
    case OS_E_LOCKED:
        return "another process has it locked";
    case OS_E_DENIED:
    case -EACCES:
    case -EPERM:
    case -EROFS:
        return "this user may not write there; change its owner or choose another --data-dir";
    case -ENOTDIR:
        return "a part of the path is a file, not a directory";
    default:
        return r < 0 ? strerror(-r) : "it failed";
    }
}

int problem_of_result(struct problem *p, const char *doing, const char *path, int r) {
    return problem_say(p, "%s %s: %s", doing, path, reason_of(r));
}
