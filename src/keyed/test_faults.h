/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults under RocksDB, for tests of what is above it: the C library's functions that it writes and
 * syncs with, standing in front of the library's own as the test's program comes first. What they
 * fail for are files whose path has a text in it, after some calls that go well.
 */
#ifndef MILLRACE_KEYED_TEST_FAULTS_H
#define MILLRACE_KEYED_TEST_FAULTS_H

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum fault_kind { FAULT_NONE, FAULT_SYNC, FAULT_WRITE, FAULT_TORN_WRITE };

/* One row of a test's table. */
struct fault {
    enum fault_kind kind;
    const char *path;
    int skip; /* calls that go well first */
};

static struct {
    _Atomic(const struct fault *) fault; /* NULL: all is well */
    atomic_int calls;
} faults;

static inline void faults_begin(const struct fault *fault) {
    atomic_store(&faults.calls, 0);
    atomic_store(&faults.fault, fault);
}

static inline void faults_end(void) {
    atomic_store(&faults.fault, NULL);
}

static inline bool fails(int fd, bool sync, bool *ret_torn) {
    const struct fault *fault = atomic_load(&faults.fault);
    char link[64], path[1024];
    if (!fault || (fault->kind == FAULT_SYNC) != sync)
        return false;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    path[size < 0 ? 0 : size] = '\0';
    *ret_torn = fault->kind == FAULT_TORN_WRITE;
    return strstr(path, fault->path) && atomic_fetch_add(&faults.calls, 1) >= fault->skip;
}

/* Nothing is really synced: no power is cut here. */
static inline int sync_or_fail(int fd) {
    bool torn;
    if (!fails(fd, true, &torn))
        return 0;
    errno = EIO;
    return -1;
}

int fdatasync(int fildes) {
    return sync_or_fail(fildes);
}

int fsync(int fd) {
    return sync_or_fail(fd);
}

ssize_t write(int fd, const void *buf, size_t n) {
    bool torn;
    if (!fails(fd, false, &torn))
        return syscall(SYS_write, fd, buf, n);
    if (torn)
        syscall(SYS_write, fd, buf, n / 2);
    errno = EIO;
    return -1;
}

/* RocksDB's, for a second after each compaction that failed: here a millisecond. */
int usleep(useconds_t useconds) {
    const struct timespec pause = {.tv_nsec = useconds < 1000 ? useconds * 1000L : 1000000};
    return nanosleep(&pause, NULL);
}

/* Where a checkpoint can fail such that RocksDB keeps the error, or does not know itself what its
 * manifest says: at the record before that of the new table, at that record, at a new manifest. */
static const struct fault manifest_faults[] = {
    {FAULT_SYNC, "MANIFEST", 0},       {FAULT_SYNC, "MANIFEST", 1},
    {FAULT_WRITE, "MANIFEST", 0},      {FAULT_WRITE, "MANIFEST", 1},
    {FAULT_WRITE, "MANIFEST", 2},      {FAULT_TORN_WRITE, "MANIFEST", 1},
    {FAULT_TORN_WRITE, "MANIFEST", 0}, {FAULT_SYNC, "/rocksdb", 0},
    {FAULT_SYNC, "/rocksdb", 1},       {FAULT_SYNC, "/rocksdb", 2},
};

#endif
