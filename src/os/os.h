/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The seam to the operating system: files, clocks, random numbers, sockets and threads are reached
 * only through struct os, so that a test can put the simulated twin (os/sim.h) in its place: a disk
 * that forgets what was not synced, a clock that is set by hand, the nth call that fails. os_real()
 * is the real one. Everything here is thread-safe except that one os_file is not to be closed while
 * it is in use. The calls are primitives: reads and writes may be short or interrupted as the
 * kernel's are; os/file.h has the loops around them. This room never logs.
 */
#ifndef MILLRACE_OS_OS_H
#define MILLRACE_OS_OS_H

#include "base/bytes.h"
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Conditions of the file calls. Whatever else goes wrong is a negative -errno: -EIO, -ENOMEM, …
 * Only os_read and os_write are ever OS_E_INTERRUPTED. */
enum {
    _OS_E_SUCCESS,
    OS_E_NOT_FOUND,
    OS_E_EXISTS,      /* also: a directory that is not empty */
    OS_E_FULL,        /* ENOSPC, EDQUOT */
    OS_E_LOCKED,      /* somebody else holds the lock, be it in this process */
    OS_E_INTERRUPTED, /* EINTR: call again */
    OS_E_DENIED,      /* EACCES, EPERM, EROFS */
    OS_E_IN_USE,      /* EADDRINUSE */
    OS_E_AGAIN,       /* EAGAIN on a socket that does not block */
    OS_E_CLOSED,      /* the peer reset or closed the connection, or refused it */
};

enum os_open_flags {
    OS_OPEN_READ = 0,
    OS_OPEN_WRITE = 1,     /* reading and writing */
    OS_OPEN_CREATE = 2,    /* create it when it is missing */
    OS_OPEN_EXCLUSIVE = 4, /* with CREATE: OS_E_EXISTS when it is there */
    OS_OPEN_APPEND = 8,    /* every write goes to the end (log files) */
    OS_OPEN_DIRECT = 16,   /* writes go past the page cache, see below */
};

/* What is written once, synced, and not read again soon needs no place in the page cache, and half
 * the CPU without. A hint: it holds as long as the offset, size and address of each write are
 * multiples of this, and the file system knows how; from the first write on for which that is not
 * so the file is like any other. What is read is read through another os_file. */
enum { OS_DIRECT_BYTES = 512 };

struct os;
struct os_file; /* each implementation has its own */
struct os_thread;

/* The table. Implementers fill it; users call the functions below it. */
struct os_ops {
    int (*open)(struct os *os, const char *path, unsigned flags, struct os_file **ret_file);
    void (*close)(struct os *os, struct os_file *file);
    int (*read)(struct os *os, struct os_file *file, void *data, size_t size, uint64_t offset,
                size_t *ret_size);
    int (*write)(struct os *os, struct os_file *file, const void *data, size_t size,
                 uint64_t offset, size_t *ret_size);
    int (*sync)(struct os *os, struct os_file *file);
    int (*truncate)(struct os *os, struct os_file *file, uint64_t size);
    int (*size)(struct os *os, struct os_file *file, uint64_t *ret_size);
    int (*lock)(struct os *os, struct os_file *file);
    int (*map)(struct os *os, struct os_file *file, uint64_t size, const void **ret_data);
    void (*unmap)(struct os *os, const void *data, uint64_t size);
    int (*rename)(struct os *os, const char *from, const char *to);
    int (*unlink)(struct os *os, const char *path);
    int (*mkdir)(struct os *os, const char *path);
    int (*rmdir)(struct os *os, const char *path);
    int (*list)(struct os *os, const char *path, void (*each)(void *context, const char *name),
                void *context);
    int (*sync_directory)(struct os *os, const char *path);
    int (*disk_space)(struct os *os, const char *path, uint64_t *ret_free, uint64_t *ret_total);
    uint64_t (*monotonic_ns)(struct os *os);
    uint64_t (*wall_us)(struct os *os);
    void (*sleep_ns)(struct os *os, uint64_t ns);
    int (*random)(struct os *os, void *data, size_t size);
    int (*thread_start)(struct os *os, const char *name, void (*run)(void *), void *argument,
                        struct os_thread **ret_thread);
    void (*thread_join)(struct os *os, struct os_thread *thread);
};

/* An implementation embeds this as its first member. */
struct os {
    const struct os_ops *ops;
};

/* The real one; static, never freed. */
struct os *os_real(void);

static inline int MUST_USE os_open(struct os *os, const char *path, unsigned flags,
                                   struct os_file **ret_file) {
    return os->ops->open(os, path, flags, ret_file);
}
/* Takes NULL. */
static inline void os_close(struct os *os, struct os_file *file) {
    if (file)
        os->ops->close(os, file);
}
/* 0 bytes read means the end of the file. */
static inline int MUST_USE os_read(struct os *os, struct os_file *file, void *data, size_t size,
                                   uint64_t offset, size_t *ret_size) {
    return os->ops->read(os, file, data, size, offset, ret_size);
}
static inline int MUST_USE os_write(struct os *os, struct os_file *file, const void *data,
                                    size_t size, uint64_t offset, size_t *ret_size) {
    return os->ops->write(os, file, data, size, offset, ret_size);
}
/* fdatasync. Any result but 0 is a failure, -EINTR too. After it failed, nothing written since the
 * last success may be trusted, and calling it again on this file proves nothing (the kernel marks
 * failed pages clean). */
static inline int MUST_USE os_sync(struct os *os, struct os_file *file) {
    return os->ops->sync(os, file);
}
static inline int MUST_USE os_truncate(struct os *os, struct os_file *file, uint64_t size) {
    return os->ops->truncate(os, file, size);
}
static inline int MUST_USE os_size(struct os *os, struct os_file *file, uint64_t *ret_size) {
    return os->ops->size(os, file, ret_size);
}
/* An exclusive lock of the whole file for this process, gone when it ends. OS_E_LOCKED. */
static inline int MUST_USE os_lock(struct os *os, struct os_file *file) {
    return os->ops->lock(os, file);
}
/* The first size bytes (> 0), read-only, starting on a page; the file may be closed while it is
 * mapped. Whether later writes show in it is not said. -EINVAL when the file is shorter. */
static inline int MUST_USE os_map(struct os *os, struct os_file *file, uint64_t size,
                                  const void **ret_data) {
    return os->ops->map(os, file, size, ret_data);
}
static inline void os_unmap(struct os *os, const void *data, uint64_t size) {
    if (data)
        os->ops->unmap(os, data, size);
}
/* Atomic; replaces to. Durable once the directory is synced. */
static inline int MUST_USE os_rename(struct os *os, const char *from, const char *to) {
    return os->ops->rename(os, from, to);
}
static inline int MUST_USE os_unlink(struct os *os, const char *path) {
    return os->ops->unlink(os, path);
}
/* Mode 0700. OS_E_EXISTS. */
static inline int MUST_USE os_mkdir(struct os *os, const char *path) {
    return os->ops->mkdir(os, path);
}
static inline int MUST_USE os_rmdir(struct os *os, const char *path) {
    return os->ops->rmdir(os, path);
}
/* Calls each for every entry but . and .., in no order. OS_E_NOT_FOUND. */
static inline int MUST_USE os_list(struct os *os, const char *path,
                                   void (*each)(void *context, const char *name), void *context) {
    return os->ops->list(os, path, each, context);
}
static inline int MUST_USE os_sync_directory(struct os *os, const char *path) {
    return os->ops->sync_directory(os, path);
}
static inline int MUST_USE os_disk_space(struct os *os, const char *path, uint64_t *ret_free,
                                         uint64_t *ret_total) {
    return os->ops->disk_space(os, path, ret_free, ret_total);
}
static inline uint64_t os_monotonic_ns(struct os *os) {
    return os->ops->monotonic_ns(os);
}
/* Microseconds since 1970, UTC. */
static inline uint64_t os_wall_us(struct os *os) {
    return os->ops->wall_us(os);
}
static inline void os_sleep_ns(struct os *os, uint64_t ns) {
    os->ops->sleep_ns(os, ns);
}
static inline int MUST_USE os_random(struct os *os, void *data, size_t size) {
    return os->ops->random(os, data, size);
}
/* name: at most 15 characters, shown by top and gdb. */
static inline int MUST_USE os_thread_start(struct os *os, const char *name, void (*run)(void *),
                                           void *argument, struct os_thread **ret_thread) {
    return os->ops->thread_start(os, name, run, argument, ret_thread);
}
/* Waits for the end and frees it. Takes NULL. */
static inline void os_thread_join(struct os *os, struct os_thread *thread) {
    if (thread)
        os->ops->thread_join(os, thread);
}

#endif
