/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of the runner on their way to the journal: in order, each once. What the journal refuses
 * stays and is tried again. Belongs to the runner's thread.
 */
#ifndef MILLRACE_TASKS_OUTBOX_H
#define MILLRACE_TASKS_OUTBOX_H

#include "tasks/task.h"

struct outbox {
    struct os *os;
    struct buffer bytes;   /* the records' payloads */
    struct buffer entries; /* struct outbox_entry each */
};

void outbox_init(struct outbox *o, struct os *os);
void outbox_deinit(struct outbox *o);
/* Takes it in whatever comes: where memory is out, it waits for some. */
void outbox_add(struct outbox *o, const struct task_record *record);
/* Appends as much as the journal takes. */
void outbox_send(struct outbox *o, struct journal *j);

static inline bool outbox_is_empty(const struct outbox *o) {
    return o->entries.size == 0;
}

#endif
