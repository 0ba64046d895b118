/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many workers there should be. Up soon, as a task waits; down late, as a process costs little
 * while it is idle: what lies between, 50 ms and 30 s, is what keeps the number from flapping.
 * Pure.
 */
#ifndef MILLRACE_TASKS_SCALE_H
#define MILLRACE_TASKS_SCALE_H

#include "base/compiler.h"

#include <stdint.h>

enum {
    SCALE_UP_MS = 50,
    SCALE_DOWN_MS = 30000,
};

enum scale { SCALE_KEEP, SCALE_UP, SCALE_DOWN };

struct scale_inputs {
    unsigned workers; /* also those that are just starting */
    unsigned idle;    /* of them: with nothing in hand */
    unsigned min;
    unsigned max;
    uint64_t waited_ms; /* how long the next task has been due; UINT64_MAX: none waits */
    uint64_t idle_ms;   /* of the one that is idle longest */
    uint64_t since_ms;  /* the last change of their number */
};

enum scale scale_decide(const struct scale_inputs *in);

#endif
