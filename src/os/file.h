/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every user of files needs on top of the primitives of os.h: loops around short and
 * interrupted calls, small files read and replaced as a whole, paths. Thread-safe, owns nothing.
 */
#ifndef MILLRACE_OS_FILE_H
#define MILLRACE_OS_FILE_H

#include "os/os.h"

/* Reads until size bytes or the end of the file; ret_size says how many. */
int os_read_all(struct os *os, struct os_file *file, void *data, size_t size, uint64_t offset,
                size_t *ret_size) MUST_USE;
/* Writes all of it. OS_E_FULL when the disk is full (a part may have been written). */
int os_write_all(struct os *os, struct os_file *file, const void *data, size_t size,
                 uint64_t offset) MUST_USE;
/* Appends the whole file to out. OS_E_NOT_FOUND; -EFBIG past max_bytes. */
int os_load(struct os *os, const char *path, size_t max_bytes, struct buffer *out) MUST_USE;
/* Atomically makes path hold data: writes path + ".new", syncs, renames, syncs the directory. After
 * a crash either the old or the new contents are there. OS_E_FULL, OS_E_DENIED. */
int os_replace(struct os *os, const char *path, struct bytes data) MUST_USE;
/* mkdir -p, with the directories synced. */
int os_make_path(struct os *os, const char *path) MUST_USE;
/* Unlinks; a file that is not there is no error. */
int os_remove(struct os *os, const char *path) MUST_USE;

enum { OS_PATH_MAX = 1024 };
/* Writes "directory/name"; -ENAMETOOLONG. */
int os_path_join(char out[OS_PATH_MAX], const char *directory, const char *format, ...) MUST_USE
    PRINTF_LIKE(3, 4);

#endif
