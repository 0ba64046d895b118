/* SPDX-License-Identifier: Apache-2.0 */
/*
 * os_replace never writes over a file that is in use, nor goes on with one whose sync may have
 * failed in an earlier life: it starts from a fresh path + ".new" every time.
 */
#include "os/file.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

int os_read_all(struct os *os, struct os_file *file, void *data, size_t size, uint64_t offset,
                size_t *ret_size) {
    size_t done = 0;
    while (done < size) {
        size_t n = 0;
        int r = os_read(os, file, (uint8_t *)data + done, size - done, offset + done, &n);
        if (r == OS_E_INTERRUPTED)
            continue;
        if (r)
            return error_trace(r);
        if (n == 0)
            break;
        done += n;
    }
    *ret_size = done;
    return 0;
}

int os_write_all(struct os *os, struct os_file *file, const void *data, size_t size,
                 uint64_t offset) {
    for (size_t done = 0; done < size;) {
        size_t n = 0;
        int r = os_write(os, file, (const uint8_t *)data + done, size - done, offset + done, &n);
        if (r == OS_E_INTERRUPTED)
            continue;
        if (r)
            return error_trace(r);
        if (n == 0) /* no error, no progress: never wait for ever */
            return error_origin(-EIO);
        done += n;
    }
    return 0;
}

/* Appends the file's contents to out, whose size is put back by the caller on failure. */
static int load_open(struct os *os, struct os_file *file, size_t max_bytes, struct buffer *out) {
    uint64_t size = 0;
    int r = os_size(os, file, &size);
    if (r)
        return error_trace(r);
    if (size > max_bytes)
        return error_origin(-EFBIG);
    uint8_t *room = buffer_reserve(out, (size_t)size);
    if (!room)
        return error_origin(-ENOMEM);
    size_t n = 0;
    r = os_read_all(os, file, room, (size_t)size, 0, &n);
    if (r)
        return error_trace(r);
    out->size += n;
    return 0;
}

int os_load(struct os *os, const char *path, size_t max_bytes, struct buffer *out) {
    struct os_file *file = NULL;
    int r = os_open(os, path, OS_OPEN_READ, &file);
    if (r)
        return error_trace(r);
    r = load_open(os, file, max_bytes, out);
    os_close(os, file);
    return error_trace(r);
}

static int write_new(struct os *os, const char *path, struct bytes data) {
    struct os_file *file = NULL;
    int r = os_open(os, path, OS_OPEN_WRITE | OS_OPEN_CREATE | OS_OPEN_EXCLUSIVE, &file);
    if (r)
        return error_trace(r);
    r = os_write_all(os, file, data.data, data.size, 0);
    if (!r)
        r = os_sync(os, file);
    os_close(os, file);
    return error_trace(r);
}

/* Where the last component of path starts. */
static size_t path_base(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

static int sync_parent(struct os *os, const char *path) {
    char parent[OS_PATH_MAX];
    size_t size = path_base(path);
    if (size >= sizeof parent)
        return error_origin(-ENAMETOOLONG);
    memcpy(parent, path, size);
    parent[size] = '\0';
    while (size > 1 && parent[size - 1] == '/')
        parent[--size] = '\0';
    return error_trace(os_sync_directory(os, size ? parent : "."));
}

int os_replace(struct os *os, const char *path, struct bytes data) {
    char fresh[OS_PATH_MAX];
    int n = snprintf(fresh, sizeof fresh, "%s.new", path);
    if (n < 0 || (size_t)n >= sizeof fresh)
        return error_origin(-ENAMETOOLONG);
    int r = os_remove(os, fresh);
    if (r)
        return error_trace(r);
    r = write_new(os, fresh, data);
    if (!r)
        r = os_rename(os, fresh, path);
    if (r) {
        int ignored = os_remove(os, fresh); /* the next os_replace removes it too */
        (void)ignored;
        return error_trace(r);
    }
    r = sync_parent(os, path);
    return error_trace(r);
}

/* mkdir, with the parent synced also when the directory is there: whoever made it may have been
 * killed before its sync. */
static int make_one(struct os *os, const char *path) {
    int r = os_mkdir(os, path);
    bool existed = r == OS_E_EXISTS;
    if (r && !existed)
        return error_trace(r);
    r = sync_parent(os, path);
    /* A parent that we may not sync, or that can't be, is none that we made. */
    if (existed && (r == OS_E_DENIED || r == -EINVAL))
        return 0;
    return error_trace(r);
}

int os_make_path(struct os *os, const char *path) {
    char cut[OS_PATH_MAX];
    size_t size = strlen(path);
    if (size == 0 || size >= sizeof cut)
        return error_origin(size ? -ENAMETOOLONG : -EINVAL);
    memcpy(cut, path, size + 1);
    /* From the top down, cutting behind each component in turn. */
    for (size_t at = 0; at < size;) {
        at += strspn(cut + at, "/");
        at += strcspn(cut + at, "/");
        cut[at] = '\0';
        int r = make_one(os, cut);
        if (r)
            return error_trace(r);
        cut[at] = path[at];
    }
    return 0;
}

int os_remove(struct os *os, const char *path) {
    int r = os_unlink(os, path);
    return r == OS_E_NOT_FOUND ? 0 : error_trace(r);
}

int os_path_join(char out[OS_PATH_MAX], const char *directory, const char *format, ...) {
    int n = snprintf(out, OS_PATH_MAX, "%s/", directory);
    if (n < 0 || n >= OS_PATH_MAX)
        return error_origin(-ENAMETOOLONG);
    va_list args;
    va_start(args, format);
    int m = vsnprintf(out + n, (size_t)(OS_PATH_MAX - n), format, args);
    va_end(args);
    return m < 0 || m >= OS_PATH_MAX - n ? error_origin(-ENAMETOOLONG) : 0;
}
