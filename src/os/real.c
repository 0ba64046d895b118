/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The real operating system: Linux. Each function is one system call, or the few that make the
 * primitive whole. Only read and write let an interrupted call through to the caller; the others
 * take it up again, but for sync: an interrupted fdatasync has said nothing about the data, so it
 * counts as failed.
 */
#include "os/result.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum { NS_PER_S = 1000000000, THREAD_NAME_MAX = 15 };

struct os_file {
    int fd;
    bool direct; /* O_DIRECT is set */
};

struct os_thread {
    pthread_t thread;
    void (*run)(void *);
    void *argument;
    char name[THREAD_NAME_MAX + 1];
};

static int open_retrying(const char *path, int flags) {
    int fd;
    do
        fd = open(path, flags | O_CLOEXEC | O_NOCTTY, 0600);
    while (fd < 0 && errno == EINTR);
    return fd;
}

static int open_mode(unsigned flags) {
    return (flags & (OS_OPEN_WRITE | OS_OPEN_APPEND) ? O_RDWR : O_RDONLY) |
           (flags & OS_OPEN_CREATE ? O_CREAT : 0) | (flags & OS_OPEN_EXCLUSIVE ? O_EXCL : 0) |
           (flags & OS_OPEN_APPEND ? O_APPEND : 0);
}

/* Not every file system has O_DIRECT. */
static void open_fd(struct os_file *file, const char *path, unsigned flags) {
    file->direct = flags & OS_OPEN_DIRECT;
    file->fd = open_retrying(path, open_mode(flags) | (file->direct ? O_DIRECT : 0));
    if (file->fd < 0 && errno == EINVAL && file->direct) {
        file->direct = false;
        /* It may have been made before it was refused. */
        file->fd = open_retrying(path, open_mode(flags & ~(unsigned)OS_OPEN_EXCLUSIVE));
    }
}

static int real_open(struct os *os UNUSED, const char *path, unsigned flags,
                     struct os_file **ret_file) {
    struct os_file *file = malloc(sizeof *file);
    if (!file)
        return error_origin(-ENOMEM);
    open_fd(file, path, flags);
    if (file->fd < 0) {
        int r = os_result(errno);
        free(file);
        return r;
    }
    *ret_file = file;
    return 0;
}

static void real_close(struct os *os UNUSED, struct os_file *file) {
    /* What matters was synced before, so an error here tells nothing new. */
    (void)close(file->fd);
    free(file);
}

static int real_read(struct os *os UNUSED, struct os_file *file, void *data, size_t size,
                     uint64_t offset, size_t *ret_size) {
    ssize_t n = pread(file->fd, data, size, (off_t)offset);
    if (n < 0)
        return os_result(errno);
    *ret_size = (size_t)n;
    return 0;
}

/* A direct write that the file system cannot do: no other is tried. */
static bool give_up_direct(struct os_file *file) {
    int flags = file->direct && errno == EINVAL ? fcntl(file->fd, F_GETFL) : -1;
    if (flags < 0 || fcntl(file->fd, F_SETFL, flags & ~O_DIRECT) < 0)
        return false;
    file->direct = false;
    return true;
}

static int real_write(struct os *os UNUSED, struct os_file *file, const void *data, size_t size,
                      uint64_t offset, size_t *ret_size) {
    /* On Linux a file opened with O_APPEND takes pwrite at its end, whatever the offset. */
    ssize_t n = pwrite(file->fd, data, size, (off_t)offset);
    if (n < 0 && give_up_direct(file))
        n = pwrite(file->fd, data, size, (off_t)offset);
    if (n < 0)
        return os_result(errno);
    *ret_size = (size_t)n;
    return 0;
}

static int real_sync(struct os *os UNUSED, struct os_file *file) {
    if (fdatasync(file->fd) < 0)
        return errno == EINTR ? error_origin(-EINTR) : os_result(errno);
    return 0;
}

static int real_truncate(struct os *os UNUSED, struct os_file *file, uint64_t size) {
    int r;
    do
        r = ftruncate(file->fd, (off_t)size);
    while (r < 0 && errno == EINTR);
    return r < 0 ? os_result(errno) : 0;
}

static int real_size(struct os *os UNUSED, struct os_file *file, uint64_t *ret_size) {
    struct stat st;
    if (fstat(file->fd, &st) < 0)
        return os_result(errno);
    *ret_size = (uint64_t)st.st_size;
    return 0;
}

static int real_lock(struct os *os UNUSED, struct os_file *file) {
    /* flock belongs to the open file, not to the process: a second open by ourselves is refused. */
    int r;
    do
        r = flock(file->fd, LOCK_EX | LOCK_NB);
    while (r < 0 && errno == EINTR);
    if (r < 0)
        return errno == EWOULDBLOCK ? OS_E_LOCKED : os_result(errno);
    return 0;
}

static int real_map(struct os *os UNUSED, struct os_file *file, uint64_t size,
                    const void **ret_data) {
    struct stat st;
    if (fstat(file->fd, &st) < 0)
        return os_result(errno);
    if (size == 0 || size > (uint64_t)st.st_size) /* reading behind the end would be SIGBUS */
        return error_origin(-EINVAL);
    void *data = mmap(NULL, size, PROT_READ, MAP_SHARED, file->fd, 0);
    if (data == MAP_FAILED)
        return os_result(errno);
    *ret_data = data;
    return 0;
}

static void real_unmap(struct os *os UNUSED, const void *data, uint64_t size) {
    int r = munmap((void *)(uintptr_t)data, size);
    assert(r == 0);
    (void)r;
}

static int real_rename(struct os *os UNUSED, const char *from, const char *to) {
    return rename(from, to) < 0 ? os_result(errno) : 0;
}

static int real_unlink(struct os *os UNUSED, const char *path) {
    return unlink(path) < 0 ? os_result(errno) : 0;
}

static int real_mkdir(struct os *os UNUSED, const char *path) {
    return mkdir(path, 0700) < 0 ? os_result(errno) : 0;
}

static int real_rmdir(struct os *os UNUSED, const char *path) {
    return rmdir(path) < 0 ? os_result(errno) : 0;
}

static int real_list(struct os *os UNUSED, const char *path,
                     void (*each)(void *context, const char *name), void *context) {
    DIR *directory = opendir(path);
    if (!directory)
        return os_result(errno);
    struct dirent *entry;
    for (errno = 0; (entry = readdir(directory)); errno = 0)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            each(context, entry->d_name);
    int r = errno ? os_result(errno) : 0;
    (void)closedir(directory); /* it was only read */
    return r;
}

static int real_sync_directory(struct os *os UNUSED, const char *path) {
    int fd = open_retrying(path, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return os_result(errno);
    int r = 0;
    if (fsync(fd) < 0)
        r = errno == EINTR ? error_origin(-EINTR) : os_result(errno);
    (void)close(fd); /* it was only read */
    return r;
}

static int real_disk_space(struct os *os UNUSED, const char *path, uint64_t *ret_free,
                           uint64_t *ret_total) {
    struct statvfs st;
    int r;
    do
        r = statvfs(path, &st);
    while (r < 0 && errno == EINTR);
    if (r < 0)
        return os_result(errno);
    *ret_free = (uint64_t)st.f_bavail * st.f_frsize;
    *ret_total = (uint64_t)st.f_blocks * st.f_frsize;
    return 0;
}

static struct timespec now(clockid_t clock) {
    struct timespec ts;
    int r = clock_gettime(clock, &ts);
    assert(r == 0);
    (void)r;
    return ts;
}

static uint64_t real_monotonic_ns(struct os *os UNUSED) {
    struct timespec ts = now(CLOCK_MONOTONIC);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static uint64_t real_wall_us(struct os *os UNUSED) {
    struct timespec ts = now(CLOCK_REALTIME);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void real_sleep_ns(struct os *os UNUSED, uint64_t ns) {
    struct timespec rest = {.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &rest, &rest) == EINTR)
        ;
}

static int real_random(struct os *os UNUSED, void *data, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t n = getrandom((uint8_t *)data + done, size - done, 0);
        if (n >= 0)
            done += (size_t)n;
        else if (errno != EINTR)
            return os_result(errno);
    }
    return 0;
}

static void *thread_main(void *argument) {
    struct os_thread *thread = argument;
    (void)pthread_setname_np(pthread_self(), thread->name); /* only for whoever looks */
    thread->run(thread->argument);
    return NULL;
}

static int real_thread_start(struct os *os UNUSED, const char *name, void (*run)(void *),
                             void *argument, struct os_thread **ret_thread) {
    struct os_thread *thread = malloc(sizeof *thread);
    if (!thread)
        return error_origin(-ENOMEM);
    *thread = (struct os_thread){.run = run, .argument = argument};
    (void)snprintf(thread->name, sizeof thread->name, "%s", name); /* cut if longer */

    /* A thread inherits the mask: with all blocked here, signals go to the main thread alone. */
    sigset_t all, before;
    sigfillset(&all);
    int r = pthread_sigmask(SIG_SETMASK, &all, &before);
    assert(r == 0);
    r = pthread_create(&thread->thread, NULL, thread_main, thread);
    int restored = pthread_sigmask(SIG_SETMASK, &before, NULL);
    assert(restored == 0);
    (void)restored;
    if (r != 0) {
        free(thread);
        return error_origin(-r);
    }
    *ret_thread = thread;
    return 0;
}

static void real_thread_join(struct os *os UNUSED, struct os_thread *thread) {
    int r = pthread_join(thread->thread, NULL);
    assert(r == 0);
    (void)r;
    free(thread);
}

static const struct os_ops real_ops = {
    .open = real_open,
    .close = real_close,
    .read = real_read,
    .write = real_write,
    .sync = real_sync,
    .truncate = real_truncate,
    .size = real_size,
    .lock = real_lock,
    .map = real_map,
    .unmap = real_unmap,
    .rename = real_rename,
    .unlink = real_unlink,
    .mkdir = real_mkdir,
    .rmdir = real_rmdir,
    .list = real_list,
    .sync_directory = real_sync_directory,
    .disk_space = real_disk_space,
    .monotonic_ns = real_monotonic_ns,
    .wall_us = real_wall_us,
    .sleep_ns = real_sleep_ns,
    .random = real_random,
    .thread_start = real_thread_start,
    .thread_join = real_thread_join,
};

struct os *os_real(void) {
    /* Not const only because struct os is passed as such; nothing in it changes. */
    static struct os real = {.ops = &real_ops};
    return &real;
}
