/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Child processes: started with chosen descriptors and nothing else of ours, in a process group of
 * their own; waited for with poll; ended together with whatever they started, also what left their
 * group. Real only, like sockets. A struct child belongs to one thread.
 */
#ifndef MILLRACE_OS_CHILD_H
#define MILLRACE_OS_CHILD_H

#include "os/os.h"

enum { CHILD_FILES = 4 };

/* A variable by which all that descends from a child is known (child_kill_strays): it goes into the
 * environment of the child, and from there into that of every child of its own. */
#define CHILD_MARK "MILLRACE_DESCENDS_FROM="

/* Bounds on each process of a command; 0: none. */
struct child_limits {
    uint64_t memory_bytes; /* of address space */
    uint64_t cpu_s;        /* then SIGXCPU, and a second later SIGKILL */
};

struct child_options {
    const char *program;          /* a path; NULL: this program */
    const char *const *arguments; /* from argv[0] on, NULL behind the last */
    const char *const *variables; /* the environment, likewise; NULL: ours */
    const char *mark;             /* CHILD_MARK with a value; NULL: ours, if we have one */
    int files[CHILD_FILES];       /* what is to be its descriptor i. -1: /dev/null for 0, ours for
                                     1 and 2, none for 3 */
    const struct child_limits *limits; /* not NULL: a command, which also ends when the thread that
                                          started it does. The process is copied for a moment:
                                          for small ones only */
};

struct child {
    uint64_t pid;
    int fd; /* readable once it has ended */
};

/* How it ended: one of the two is 0. */
struct child_end {
    int status;
    int signal;
};

/* OS_E_NOT_FOUND, OS_E_DENIED: there is no such program to run. -ENOEXEC and the like. */
int child_start(const struct child_options *options, struct child *ret_child) MUST_USE;
/* OS_E_AGAIN: not yet. Once it returned 0 the child is gone, and what it was is freed. */
int child_ended(struct child *c, struct child_end *ret_end) MUST_USE;
/* SIGKILL to it and its group. Not after child_ended said 0. */
void child_kill(const struct child *c);
/* Kills, and waits for the end. */
void child_destroy(struct child *c);

/* From now on what our children's children leave behind becomes ours, and child_kill_strays finds
 * it; and a child's end is ours to see, whatever whoever started us made of SIGCHLD. For the whole
 * process; for good. */
int child_adopt_strays(void) MUST_USE;
/* Kills every process that descends from us, but for the known children and theirs, and waits for
 * their ends, for 2 s at most. mark: only what began with it, or descends from what did, so that it
 * spares what whoever started us left us with, and what the first process of a container inherits.
 * NULL: all. -ENOMEM. */
int child_kill_strays(const uint64_t *known, size_t n, const char *mark) MUST_USE;

/* A pair of connected sockets, close-on-exec; ours does not block. */
int child_socket_pair(int *ret_ours, int *ret_theirs) MUST_USE;
/* A pipe, close-on-exec; the end that is ours does not block. */
int child_pipe_from(int *ret_ours, int *ret_theirs) MUST_USE;
int child_pipe_to(int *ret_ours, int *ret_theirs) MUST_USE;
/* As socket_read and socket_write. SIGPIPE must be ignored. */
int child_read(int fd, void *data, size_t size, size_t *ret_size) MUST_USE;
int child_write(int fd, const void *data, size_t size, size_t *ret_size) MUST_USE;
void child_close(int fd);

/* "SIGKILL"; never NULL. */
const char *child_signal_name(int number, char out[16]);

#endif
