/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regular files below one directory, opened by paths that somebody else chose. The kernel keeps the
 * path inside (openat2 with RESOLVE_BENEATH, Linux 5.6): neither "..", nor a leading "/", nor a
 * symbolic link leads out, whoever renames what meanwhile. Nothing but a regular file is ever
 * opened for reading: no device that does something when it is, no pipe that waits. Real only, like
 * sockets. A struct beneath belongs to one thread.
 */
#ifndef MILLRACE_OS_BENEATH_H
#define MILLRACE_OS_BENEATH_H

#include "os/os.h"

struct beneath {
    int fd;
    uint64_t size;
    uint64_t version; /* another one once the file was replaced or written to */
};

enum {
    BENEATH_E_OUTSIDE = 100, /* the path leads out of the directory */
    BENEATH_E_NO_FILE,       /* what it names is no regular file */
};

/* That there is such a directory: OS_E_NOT_FOUND, OS_E_DENIED, -ENOTDIR. */
int beneath_check(const char *directory) MUST_USE;
/* Also OS_E_NOT_FOUND, OS_E_DENIED; -ENOSYS on an older kernel. */
int beneath_open(const char *directory, const char *path, struct beneath *ret_file) MUST_USE;
/* 0 bytes: the end. */
int beneath_read(const struct beneath *file, void *data, size_t size, uint64_t offset,
                 size_t *ret_size) MUST_USE;
void beneath_close(struct beneath *file);

#endif
