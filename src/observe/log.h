/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log lines: one JSON object a line, to a file or standard error, whole lines only. Only http,
 * serve and cli log; the rooms below return errors and count. Thread-safe; owns its file. A line
 * that cannot be written is dropped and counted.
 *
 *   {"time":"2026-01-02T03:04:05.678Z","level":"info","message":"listening","address":"…"}
 */
#ifndef MILLRACE_OBSERVE_LOG_H
#define MILLRACE_OBSERVE_LOG_H

#include "os/os.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

struct log;
/* path NULL: standard error (as plain text with colour when it is a terminal). */
int log_new(struct os *os, const char *path, enum log_level level, struct log **ret_log) MUST_USE;
struct log *log_free(struct log *l);
void log_set_level(struct log *l, enum log_level level);
enum log_level log_level_of(const struct log *l);
/* Closes and opens the file again, after it was moved away. */
int log_reopen(struct log *l) MUST_USE;

struct log_field {
    const char *key;
    const char *text; /* NULL: the number */
    int64_t number;
};
#define LOG_TEXT(k, v) ((struct log_field){.key = (k), .text = (v)})
#define LOG_NUMBER(k, v) ((struct log_field){.key = (k), .number = (int64_t)(v)})
#define log_line(l, level, message, ...)                                                           \
    log_write((l), (level), (message), (const struct log_field[]){__VA_ARGS__},                    \
              sizeof((const struct log_field[]){__VA_ARGS__}) / sizeof(struct log_field))
/* fields may be empty: log_write(l, level, message, NULL, 0). */
void log_write(struct log *l, enum log_level level, const char *message,
               const struct log_field *fields, size_t n);
uint64_t log_dropped(const struct log *l);

#endif
