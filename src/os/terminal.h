/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A terminal that is watched: its keys one by one, its size, and the signals that ask to end, as
 * events that one thread waits for, so that the terminal is always given back as it was found.
 * Works without a terminal too: then there are only the signals. Real only, like sockets.
 */
#ifndef MILLRACE_OS_TERMINAL_H
#define MILLRACE_OS_TERMINAL_H

#include "os/os.h"

struct terminal;

enum terminal_event {
    TERMINAL_TIME,    /* the time is over */
    TERMINAL_READY,   /* the descriptor that was also waited for is ready */
    TERMINAL_KEY,     /* a byte was typed; Ctrl-C is one too, 3 */
    TERMINAL_RESIZED, /* the window has another size */
    TERMINAL_STOP,    /* SIGINT, SIGTERM, SIGHUP, or the terminal is gone */
};

enum { TERMINAL_CTRL_C = 3 };

/* From now on the signals wait for terminal_wait; with keys, standard input (which must be a
 * terminal) shows nothing of what is typed. At most one at a time, before other threads are there.
 */
int terminal_open(bool keys, struct terminal **ret_terminal) MUST_USE;
/* Gives the terminal back as it was. Takes NULL. */
struct terminal *terminal_close(struct terminal *t);
/* Waits for the next event, also for events of fd unless that is -1, until deadline_ns on the
 * monotonic clock. */
enum terminal_event terminal_wait(struct terminal *t, int fd, short events, uint64_t deadline_ns,
                                  char *ret_key);
/* Of the terminal at fd; false when it is none. */
bool terminal_size(int fd, unsigned *ret_columns, unsigned *ret_rows);

#endif
