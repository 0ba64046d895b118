/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The path is resolved twice: once without opening (O_PATH), to see what is there, and once to
 * read. What was put in its place in between is seen by the second look.
 */
#include "os/beneath.h"

#include "base/hash.h"
#include "os/result.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int resolve(int directory, const char *path, uint64_t flags, int *ret_fd) {
    const struct open_how how = {.flags = flags | O_CLOEXEC,
                                 .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    long fd = syscall(SYS_openat2, directory, path, &how, sizeof how);
    if (fd >= 0) {
        *ret_fd = (int)fd;
        return 0;
    }
    if (errno == EXDEV || errno == ELOOP)
        return BENEATH_E_OUTSIDE;
    if (errno == ENOTDIR || errno == ENAMETOOLONG)
        return OS_E_NOT_FOUND;
    return os_result(errno);
}

static int look(int fd, struct stat *ret_status) {
    if (fstat(fd, ret_status) < 0)
        return os_result(errno);
    return S_ISREG(ret_status->st_mode) ? 0 : BENEATH_E_NO_FILE;
}

static int check(int directory, const char *path) {
    struct stat status;
    int fd = -1;
    int r = resolve(directory, path, O_PATH, &fd);
    if (r)
        return error_trace(r);
    r = look(fd, &status);
    (void)close(fd); /* nothing was written */
    return error_trace(r);
}

static uint64_t version_of(const struct stat *s) {
    const uint64_t parts[] = {s->st_dev,
                              s->st_ino,
                              (uint64_t)s->st_size,
                              (uint64_t)s->st_mtim.tv_sec,
                              (uint64_t)s->st_mtim.tv_nsec,
                              (uint64_t)s->st_ctim.tv_sec,
                              (uint64_t)s->st_ctim.tv_nsec};
    return hash64(parts, sizeof parts);
}

static int open_in(int directory, const char *path, struct beneath *ret_file) {
    struct stat status;
    int fd = -1;
    int r = check(directory, path);
    if (r == 0)
        r = resolve(directory, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, &fd);
    if (r)
        return error_trace(r);
    r = look(fd, &status);
    if (r) {
        (void)close(fd);
        return error_trace(r);
    }
    *ret_file = (struct beneath){fd, (uint64_t)status.st_size, version_of(&status)};
    return 0;
}

static int open_directory(const char *directory, int *ret_fd) {
    *ret_fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return *ret_fd < 0 ? os_result(errno) : 0;
}

int beneath_check(const char *directory) {
    int at;
    int r = open_directory(directory, &at);
    if (r == 0)
        (void)close(at);
    return error_trace(r);
}

int beneath_open(const char *directory, const char *path, struct beneath *ret_file) {
    int at;
    int r = open_directory(directory, &at);
    if (r)
        return error_trace(r);
    r = open_in(at, path, ret_file);
    (void)close(at);
    return error_trace(r);
}

int beneath_read(const struct beneath *file, void *data, size_t size, uint64_t offset,
                 size_t *ret_size) {
    ssize_t n;
    do
        n = pread(file->fd, data, size, (off_t)offset);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return os_result(errno);
    *ret_size = (size_t)n;
    return 0;
}

void beneath_close(struct beneath *file) {
    (void)close(file->fd); /* nothing was written */
}
