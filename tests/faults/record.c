/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records what a process does to the files below one directory, by standing in front of the C
 * library (LD_PRELOAD): RECORD_ROOT names the directory, RECORD_LOG the file that takes the
 * entries. A write is logged after it was done; a sync is logged when it begins and when it has
 * succeeded, so that a reader of the log knows which writes it covers. test_power.py builds from
 * the log what a disk that honours flushes may hold when the power goes.
 *
 * RocksDB's writes pass here too, as it is a library that calls the C library's functions; only its
 * own log, written with stdio, does not.
 *
 * An entry: u32 type, u32 length of text, u32 length of data, u32 unused, u64 file, u64 offset,
 * text, data; little-endian. file is the inode, which may be used again once its last name is gone.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum entry {
    ENTRY_OPEN = 1,
    ENTRY_WRITE,
    ENTRY_SYNC_BEGIN,
    ENTRY_SYNC_END,
    ENTRY_TRUNCATE,
    ENTRY_RENAME,
    ENTRY_UNLINK,
    ENTRY_MKDIR,
    ENTRY_RMDIR,
    ENTRY_DIRECTORY_SYNC_BEGIN,
    ENTRY_DIRECTORY_SYNC_END,
    ENTRY_LINK,
};

enum { DESCRIPTORS = 65536, PATH_SIZE = 1024 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;
static char paths[DESCRIPTORS][PATH_SIZE]; /* of the descriptors below the root; else empty */
static uint64_t inodes[DESCRIPTORS];

/* Sets a pointer to the C library's own function of that name (POSIX's way around ISO C, which has
 * no conversion between the two kinds of pointer). */
static void real(const char *name, void *function) {
    *(void **)function = dlsym(RTLD_NEXT, name);
}

static int below_root(const char *path) {
    const char *root = getenv("RECORD_ROOT");
    return root && strncmp(path, root, strlen(root)) == 0;
}

static void put(enum entry type, uint64_t file, uint64_t offset, const char *text, const void *data,
                size_t size) {
    ssize_t (*real_write)(int, const void *, size_t);
    real("write", &real_write);
    int (*real_open)(const char *, int, ...);
    real("open", &real_open);
    size_t text_size = text ? strlen(text) : 0;
    uint32_t head[4] = {(uint32_t)type, (uint32_t)text_size, (uint32_t)size, 0};
    uint64_t numbers[2] = {file, offset};
    char *entry = malloc(sizeof head + sizeof numbers + text_size + size);
    if (!entry)
        abort();
    memcpy(entry, head, sizeof head);
    memcpy(entry + sizeof head, numbers, sizeof numbers);
    if (text)
        memcpy(entry + sizeof head + sizeof numbers, text, text_size);
    if (size)
        memcpy(entry + sizeof head + sizeof numbers + text_size, data, size);
    size_t total = sizeof head + sizeof numbers + text_size + size;
    pthread_mutex_lock(&lock);
    if (log_fd < 0)
        log_fd = real_open(getenv("RECORD_LOG"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (real_write(log_fd, entry, total) != (ssize_t)total)
        abort();
    pthread_mutex_unlock(&lock);
    free(entry);
}

int open(const char *path, int flags, ...) {
    int (*real_open)(const char *, int, ...);
    real("open", &real_open);
    va_list args;
    va_start(args, flags);
    mode_t mode = (flags & O_CREAT) ? va_arg(args, mode_t) : 0;
    va_end(args);
    int existed = access(path, F_OK) == 0;
    int fd = real_open(path, flags, mode);
    if (fd < 0 || fd >= DESCRIPTORS)
        return fd;
    paths[fd][0] = 0;
    struct stat status;
    if (!below_root(path) || strlen(path) >= PATH_SIZE || fstat(fd, &status) < 0)
        return fd;
    strncpy(paths[fd], path, PATH_SIZE - 1);
    inodes[fd] = status.st_ino;
    if (!existed)
        put(ENTRY_OPEN, status.st_ino, 0, path, NULL, 0);
    else if (flags & O_TRUNC)
        put(ENTRY_TRUNCATE, status.st_ino, 0, NULL, NULL, 0);
    return fd;
}

int close(int fd) {
    int (*real_close)(int);
    real("close", &real_close);
    if (fd >= 0 && fd < DESCRIPTORS)
        paths[fd][0] = 0;
    return real_close(fd);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
    real("pwrite", &real_pwrite);
    ssize_t n = real_pwrite(fd, data, size, offset);
    if (n > 0 && fd < DESCRIPTORS && paths[fd][0])
        put(ENTRY_WRITE, inodes[fd], (uint64_t)offset, NULL, data, (size_t)n);
    return n;
}

/* Where descriptors stand is the kernel's to know: the write ended there. */
ssize_t write(int fd, const void *data, size_t size) {
    ssize_t (*real_write)(int, const void *, size_t);
    real("write", &real_write);
    ssize_t n = real_write(fd, data, size);
    if (n > 0 && fd < DESCRIPTORS && paths[fd][0])
        put(ENTRY_WRITE, inodes[fd], (uint64_t)(lseek(fd, 0, SEEK_CUR) - n), NULL, data, (size_t)n);
    return n;
}

static int sync_with(const char *name, int fd) {
    int (*real_sync)(int);
    real(name, &real_sync);
    if (fd < 0 || fd >= DESCRIPTORS || !paths[fd][0])
        return real_sync(fd);
    struct stat status;
    int directory = fstat(fd, &status) == 0 && S_ISDIR(status.st_mode);
    put(directory ? ENTRY_DIRECTORY_SYNC_BEGIN : ENTRY_SYNC_BEGIN, inodes[fd], 0, paths[fd], NULL,
        0);
    int r = real_sync(fd);
    if (r == 0)
        put(directory ? ENTRY_DIRECTORY_SYNC_END : ENTRY_SYNC_END, inodes[fd], 0, paths[fd], NULL,
            0);
    return r;
}

int fdatasync(int fd) {
    return sync_with("fdatasync", fd);
}

int fsync(int fd) {
    return sync_with("fsync", fd);
}

int ftruncate(int fd, off_t size) {
    int (*real_ftruncate)(int, off_t);
    real("ftruncate", &real_ftruncate);
    int r = real_ftruncate(fd, size);
    if (r == 0 && fd < DESCRIPTORS && paths[fd][0])
        put(ENTRY_TRUNCATE, inodes[fd], (uint64_t)size, NULL, NULL, 0);
    return r;
}

int rename(const char *from, const char *to) {
    int (*real_rename)(const char *, const char *);
    real("rename", &real_rename);
    int r = real_rename(from, to);
    if (r == 0 && below_root(from))
        put(ENTRY_RENAME, 0, 0, from, to, strlen(to));
    return r;
}

int link(const char *from, const char *to) {
    int (*real_link)(const char *, const char *);
    real("link", &real_link);
    struct stat status;
    int r = real_link(from, to);
    if (r == 0 && below_root(to) && stat(to, &status) == 0)
        put(ENTRY_LINK, status.st_ino, 0, to, NULL, 0);
    return r;
}

static int path_call(const char *name, enum entry type, const char *path) {
    int (*real_call)(const char *);
    real(name, &real_call);
    int r = real_call(path);
    if (r == 0 && below_root(path))
        put(type, 0, 0, path, NULL, 0);
    return r;
}

int unlink(const char *path) {
    return path_call("unlink", ENTRY_UNLINK, path);
}

int rmdir(const char *path) {
    return path_call("rmdir", ENTRY_RMDIR, path);
}

/* This file and the program are compiled for 64-bit offsets, whose functions have names of their
 * own (open64, …); RocksDB calls the plain names, which mean the same here. */
int plain_open(const char *path, int flags, ...) __asm__("open");
ssize_t plain_pwrite(int fd, const void *data, size_t size, off_t offset) __asm__("pwrite");
int plain_ftruncate(int fd, off_t size) __asm__("ftruncate");

int plain_open(const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    mode_t mode = (flags & O_CREAT) ? va_arg(args, mode_t) : 0;
    va_end(args);
    return open(path, flags, mode);
}

ssize_t plain_pwrite(int fd, const void *data, size_t size, off_t offset) {
    return pwrite(fd, data, size, offset);
}

int plain_ftruncate(int fd, off_t size) {
    return ftruncate(fd, size);
}

int mkdir(const char *path, mode_t mode) {
    int (*real_mkdir)(const char *, mode_t);
    real("mkdir", &real_mkdir);
    int r = real_mkdir(path, mode);
    if (r == 0 && below_root(path))
        put(ENTRY_MKDIR, 0, 0, path, NULL, 0);
    return r;
}
