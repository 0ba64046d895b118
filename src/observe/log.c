/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A line is put together in a buffer under the lock and leaves in one write, so that lines of
 * several threads never mix and a reader never sees half of one. The file is appended to; the
 * standard error stream goes through stdio, because what stands behind it may be a socket that
 * cannot be opened again by name.
 */
#include "observe/log.h"

#include "base/json.h"
#include "os/file.h"
#include "os/process.h"
#include "os/sync.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { STANDARD_ERROR = 2 };

struct log {
    struct os *os;
    struct mutex lock;
    struct os_file *file; /* NULL: standard error */
    char *path;           /* NULL: standard error */
    bool terminal;
    struct buffer line;
    _Atomic int level;
    _Atomic uint64_t dropped;
};

struct level_row {
    const char *name;
    const char *colour;
};
static const struct level_row levels[] = {
    [LOG_DEBUG] = {"debug", "\033[2m"},
    [LOG_INFO] = {"info", "\033[32m"},
    [LOG_WARN] = {"warn", "\033[33m"},
    [LOG_ERROR] = {"error", "\033[31m"},
};

/* Conditions of the file become what they mean to whoever named the path. */
static int open_file(struct log *l, struct os_file **ret_file) {
    int r = os_open(l->os, l->path, OS_OPEN_WRITE | OS_OPEN_CREATE | OS_OPEN_APPEND, ret_file);
    if (r == OS_E_DENIED)
        return error_origin(-EACCES);
    if (r == OS_E_NOT_FOUND)
        return error_origin(-ENOENT);
    if (r == OS_E_FULL)
        return error_origin(-ENOSPC);
    return error_fold(r);
}

int log_new(struct os *os, const char *path, enum log_level level, struct log **ret_log) {
    struct log *l = calloc(1, sizeof *l);
    if (!l)
        return error_origin(-ENOMEM);
    l->os = os;
    l->level = (int)level;
    mutex_init(&l->lock, LOCK_RANK_LOG);
    int r = 0;
    if (path) {
        l->path = strdup(path);
        r = l->path ? open_file(l, &l->file) : error_origin(-ENOMEM);
    } else {
        l->terminal = process_is_terminal(STANDARD_ERROR);
    }
    if (r) {
        log_free(l);
        return error_trace(r);
    }
    *ret_log = l;
    return 0;
}

struct log *log_free(struct log *l) {
    if (!l)
        return NULL;
    os_close(l->os, l->file);
    buffer_deinit(&l->line);
    mutex_deinit(&l->lock);
    free(l->path);
    free(l);
    return NULL;
}

void log_set_level(struct log *l, enum log_level level) {
    atomic_store_explicit(&l->level, (int)level, memory_order_relaxed);
}

enum log_level log_level_of(const struct log *l) {
    return (enum log_level)atomic_load_explicit(&l->level, memory_order_relaxed);
}

int log_reopen(struct log *l) {
    if (!l->path)
        return 0;
    struct os_file *file = NULL;
    int r = open_file(l, &file);
    if (r)
        return error_trace(r); /* the old file stays */
    mutex_lock(&l->lock);
    struct os_file *old = l->file;
    l->file = file;
    mutex_unlock(&l->lock);
    os_close(l->os, old);
    return 0;
}

static void append_time(struct buffer *b, uint64_t wall_us) {
    time_t seconds = (time_t)(wall_us / 1000000);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    buffer_append_format(b, "%04d-%02d-%02dT%02d:%02d:%02d.%03uZ", tm.tm_year + 1900, tm.tm_mon + 1,
                         tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
                         (unsigned)(wall_us / 1000 % 1000));
}

static void append_json(struct buffer *b, uint64_t wall_us, enum log_level level,
                        const char *message, const struct log_field *fields, size_t n) {
    buffer_append_string(b, "{\"time\":\"");
    append_time(b, wall_us);
    buffer_append_format(b, "\",\"level\":\"%s\",\"message\":", levels[level].name);
    json_append_cstring(b, message);
    for (size_t i = 0; i < n; i++) {
        buffer_append_string(b, ",");
        json_append_cstring(b, fields[i].key);
        buffer_append_string(b, ":");
        if (fields[i].text)
            json_append_cstring(b, fields[i].text);
        else
            json_append_i64(b, fields[i].number);
    }
    buffer_append_string(b, "}\n");
}

static void append_plain(struct buffer *b, uint64_t wall_us, enum log_level level,
                         const char *message, const struct log_field *fields, size_t n) {
    buffer_append_string(b, "\033[2m");
    append_time(b, wall_us);
    buffer_append_format(b, "\033[0m %s%-5s\033[0m %s", levels[level].colour, levels[level].name,
                         message);
    for (size_t i = 0; i < n; i++) {
        buffer_append_format(b, " \033[2m%s=\033[0m", fields[i].key);
        if (fields[i].text)
            json_append_cstring(b, fields[i].text); /* a quoted text cannot fake a second line */
        else
            json_append_i64(b, fields[i].number);
    }
    buffer_append_string(b, "\n");
}

/* True when the whole line left. */
static bool write_out(struct log *l) {
    if (buffer_check(&l->line))
        return false;
    if (l->file)
        return os_write_all(l->os, l->file, l->line.data, l->line.size, 0) == 0;
    return fwrite(l->line.data, 1, l->line.size, stderr) == l->line.size;
}

void log_write(struct log *l, enum log_level level, const char *message,
               const struct log_field *fields, size_t n) {
    assert(level <= LOG_ERROR);
    if (level < log_level_of(l))
        return;
    uint64_t now = os_wall_us(l->os);
    mutex_lock(&l->lock);
    buffer_clear(&l->line);
    if (l->terminal)
        append_plain(&l->line, now, level, message, fields, n);
    else
        append_json(&l->line, now, level, message, fields, n);
    if (!write_out(l))
        atomic_fetch_add_explicit(&l->dropped, 1, memory_order_relaxed);
    mutex_unlock(&l->lock);
}

uint64_t log_dropped(const struct log *l) {
    return atomic_load_explicit(&l->dropped, memory_order_relaxed);
}
