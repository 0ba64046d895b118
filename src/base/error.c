/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The trace of a thread's last error. It is the one thread-local state of the program: an error's
 * way up must survive returns through functions that know nothing of it. The first marks are kept
 * when there are more than fit, because the birth of an error says more than its last miles; the
 * others are counted.
 */
#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { MARKS_MAX = 16 };

struct mark {
    const char *file;
    int line;
};

struct trace {
    int result;     /* of the last mark, 0 before the first */
    unsigned count; /* marks made, of which the first MARKS_MAX are kept */
    struct mark marks[MARKS_MAX];
};

static _Thread_local struct trace current;

static void add_mark(int r, const char *file, int line) {
    current.result = r;
    if (current.count < MARKS_MAX)
        current.marks[current.count] = (struct mark){.file = file, .line = line};
    current.count++;
}

void error_note_origin(int r, const char *file, int line) {
    current.count = 0;
    add_mark(r, file, line);
}

void error_note_trace(int r, const char *file, int line) {
    if (r != current.result)
        current.count = 0; /* the marks are of an older error: this one has no origin */
    add_mark(r, file, line);
}

void error_note_fold(int r, const char *file, int line) {
    if (r != current.result)
        current.count = 0;
    add_mark(-ENOTRECOVERABLE, file, line);
}

/* Meson compiles from inside the build directory: "../src/base/x.c" reads better without it. */
static const char *trim(const char *file) {
    while (strncmp(file, "../", 3) == 0)
        file += 3;
    return file;
}

static int write_result(char *out, size_t size) {
    const char *name = current.result < 0 ? strerrorname_np(-current.result) : NULL;
    if (name)
        return snprintf(out, size, "%s", name);
    return snprintf(out, size, "%s %d", current.result < 0 ? "error" : "condition", current.result);
}

void error_trace_text(char *out, size_t size) {
    if (size == 0)
        return;
    if (current.count == 0) {
        out[0] = '\0';
        return;
    }
    size_t at = (size_t)write_result(out, size);
    unsigned kept = current.count < MARKS_MAX ? current.count : MARKS_MAX;
    for (unsigned i = 0; i < kept && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, " %s %s:%d", i == 0 ? "at" : "<",
                               trim(current.marks[i].file), current.marks[i].line);
    if (kept < current.count && at < size)
        snprintf(out + at, size - at, " < %u more", current.count - kept);
}
