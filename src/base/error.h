/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one law of return values, in the whole program:
 *
 *   0         success;
 *   negative  a fatal error (-errno): passed on unchanged by everybody, logged once at the top;
 *   positive  one of the module's own documented conditions (an enum in its header, named
 *             MODULE_E_…), which the caller must handle or fold.
 *
 * An error is marked where it is born (error_origin), where it is passed on (error_trace) and where
 * an unexpected condition becomes fatal (error_fold). The marks of the current thread's last error
 * make a trace that the top prints; outputs named ret_* are untouched when a function fails.
 *
 * Thread-safe: the trace belongs to the calling thread. (The idiom is dbus-broker's.)
 */
#ifndef MILLRACE_BASE_ERROR_H
#define MILLRACE_BASE_ERROR_H

#include "base/compiler.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>

/* Marks the birth of a fatal error; starts a new trace. r must be negative. Returns r. */
#define error_origin(r) error_mark_origin((r), __FILE__, __LINE__)
/* Marks the passing on of any non-zero result. Returns r. */
#define error_trace(r) error_mark_trace((r), __FILE__, __LINE__)
/* Makes a condition that cannot happen here a fatal -ENOTRECOVERABLE; negatives pass unchanged. */
#define error_fold(r) error_mark_fold((r), __FILE__, __LINE__)

/* Begins a new trace with a mark; adds one; adds one that folds the condition r. */
void error_note_origin(int r, const char *file, int line);
void error_note_trace(int r, const char *file, int line);
void error_note_fold(int r, const char *file, int line);

/* In line, so that success costs a comparison and analyzers see what is returned. */
static inline int error_mark_origin(int r, const char *file, int line) {
    assert(r < 0);
    error_note_origin(r, file, line);
    return r;
}
static inline int error_mark_trace(int r, const char *file, int line) {
    if (r != 0)
        error_note_trace(r, file, line);
    return r;
}
static inline int error_mark_fold(int r, const char *file, int line) {
    if (r <= 0)
        return error_mark_trace(r, file, line);
    error_note_fold(r, file, line);
    return -ENOTRECOVERABLE;
}

/* Writes the calling thread's trace, "EIO at a.c:10 < b.c:20", NUL-terminated and cut at size. */
void error_trace_text(char *out, size_t size);

#endif
