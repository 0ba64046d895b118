/* SPDX-License-Identifier: Apache-2.0 */
/*
 * New ids of tasks: UUIDs of version 7, whose first half is the number of an id, 60 bits that grow:
 * 48 of milliseconds, 12 that count on within one. Ids of one struct are unique by their first
 * half; those of several processes as a whole, by the chance in the second. Lock-free.
 */
#ifndef MILLRACE_TASKS_IDS_H
#define MILLRACE_TASKS_IDS_H

#include "os/os.h"
#include "tasks/task.h"

#include <stdatomic.h>

struct task_ids {
    _Atomic uint64_t last; /* number */
    uint64_t seed;
};
/* -EIO and the like: there is no chance to be had. */
int task_ids_init(struct task_ids *ids, struct os *os) MUST_USE;
struct task_id task_ids_new(struct task_ids *ids, uint64_t wall_us);
/* New ids are larger than this key. */
void task_ids_seen(struct task_ids *ids, uint64_t key);

#endif
