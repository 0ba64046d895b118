/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the runner and a worker process say to each other, over a pair of sockets. A frame is
 *
 *   u32 size of what follows   u8 message   u64 key   u32 attempt   body
 *
 *   runner ─▶ worker                           worker ─▶ runner
 *   HELLO   settings                           BEGAN
 *   RUN     block type, args, saved            PROGRESS  u64 current, u64 total, block saved
 *   STOP    stop the task under way            ENDED     u8 outcome, u64 current, u64 total,
 *   RECALL  give back what has not begun                 block text, block saved
 *                                              RETURNED  not begun, after a RECALL
 *                                              ALIVE     every second, whatever the handler does
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

#endif
