/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the runner and a worker process say to each other, over a pair of sockets. A frame is
 *
 *   u32 size of what follows   u8 message   u64 key   u32 attempt   body
 *
 *   runner ─▶ worker                           worker ─▶ runner
 *   HELLO   u32 alive_ms, settings             BEGAN
 *   RUN     block type, args, saved            PROGRESS  u64 current, u64 total, block saved
 *   STOP    stop the task; if it has not       ENDED     u8 outcome, u64 current, u64 total,
 *           begun, give it back                          block text, block saved
 *   RECALL  give back what has not begun       RETURNED  not begun, after a RECALL or a STOP
 *                                              ALIVE     at the start, and every alive_ms, whatever
 *                                                        the handler does
 *
 * A worker does its tasks in the order in which they came. Frames are batched: one write carries
 * all that is there. Little-endian; both ends are the same program. Plain values; the caller does
 * the I/O.
 */
#ifndef MILLRACE_TASKS_WIRE_H
#define MILLRACE_TASKS_WIRE_H

#include "tasks/task.h"

enum wire_message {
    WIRE_HELLO = 1,
    WIRE_RUN,
    WIRE_STOP,
    WIRE_RECALL,
    WIRE_BEGAN,
    WIRE_PROGRESS,
    WIRE_ENDED,
    WIRE_RETURNED,
    WIRE_ALIVE,
};
enum { WIRE_FRAME_MAX = TASK_ARGS_MAX + TASK_SAVED_MAX + TASK_TYPE_MAX + 64 };

struct wire_frame {
    enum wire_message message;
    uint64_t key;
    uint32_t attempt;
    struct bytes body;
};

/* Appends a frame: begin, then append the body to out, then end. */
size_t wire_begin(struct buffer *out, enum wire_message message, uint64_t key, uint32_t attempt);
void wire_end(struct buffer *out, size_t begun);
/* The next whole frame of what was received, from *at on, which moves. 1: there is none yet.
 * -EPROTO: not a frame, or larger than WIRE_FRAME_MAX. */
int wire_next(struct bytes received, size_t *at, struct wire_frame *ret_frame) MUST_USE;

/* ---- Bodies: views. What is read is checked against the bounds of task.h ---- */
struct wire_hello {
    uint32_t alive_ms;
    struct bytes commands; /* task_settings */
    struct bytes import_directory, import_hosts, url, key;
    uint64_t import_max_bytes;
};
void wire_append_hello(struct buffer *out, const struct wire_hello *hello);
bool wire_read_hello(struct bytes body, struct wire_hello *ret_hello) MUST_USE;

struct wire_run {
    struct bytes type, args, saved;
};
void wire_append_run(struct buffer *out, uint64_t key, uint32_t attempt,
                     const struct wire_run *run);
bool wire_read_run(struct bytes body, struct wire_run *ret_run) MUST_USE;

struct wire_progress {
    uint64_t current, total;
    struct bytes saved;
};
void wire_append_progress(struct buffer *out, uint64_t key, uint32_t attempt,
                          const struct wire_progress *p);
bool wire_read_progress(struct bytes body, struct wire_progress *ret_progress) MUST_USE;

enum { WIRE_STOPPED = 0 }; /* the outcome of a handler that was stopped before it returned */
struct wire_ended {
    uint8_t outcome; /* enum task_outcome, or WIRE_STOPPED */
    struct wire_progress progress;
    struct bytes text;
};
void wire_append_ended(struct buffer *out, uint64_t key, uint32_t attempt,
                       const struct wire_ended *e);
bool wire_read_ended(struct bytes body, struct wire_ended *ret_ended) MUST_USE;

#endif
