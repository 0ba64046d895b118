/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a process asks of its system beside files and sockets: its signals as a queue that one
 * thread reads, its number, whether a descriptor is a terminal. Real only, like sockets.
 */
#ifndef MILLRACE_OS_PROCESS_H
#define MILLRACE_OS_PROCESS_H

#include "base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum process_signal {
    PROCESS_SIGNAL_NONE,   /* the time is over */
    PROCESS_SIGNAL_STOP,   /* SIGTERM, SIGINT */
    PROCESS_SIGNAL_RELOAD, /* SIGHUP */
};

/* Blocks the signals above in the calling thread, and so in those it starts later. Called once,
 * before any other thread is there. */
int process_block_signals(void) MUST_USE;
/* The next signal; timeout_ms -1 waits for ever. */
enum process_signal process_wait_signal(int timeout_ms);
/* Writing to a connection that is gone is an error then, not the end of the process. */
void process_ignore_broken_pipes(void);
/* From now on SIGTERM and SIGINT end the process at once with status 1. */
void process_exit_on_signal(void);
/* Ends the process at once, as a signal would: nothing is flushed or freed. */
NORETURN void process_exit(int status);

/* From now on the calling thread runs only when nothing else wants its core, as far as the system
 * allows it. */
void process_thread_idle(void);

uint64_t process_id(void);
/* Whether there is a process of this number (> 0) that this one can see. */
bool process_exists(uint64_t id);
/* The name of this machine, cut at size. */
void process_host_name(char *out, size_t size);
bool process_is_terminal(int fd);
/* Cores that this process may use; at least 1. */
unsigned process_cores(void);
uint64_t process_page_bytes(void);
/* Memory that this process may use: what the machine has, or less where a cgroup (of either
 * version) says so. root is "" but in tests: where /proc and /sys are looked for. */
uint64_t process_memory_bytes(const char *root);
/* Makes the allocator give large blocks back to the system when they are freed, whatever was freed
 * before: called once, before there are threads. */
void process_return_memory(void);
/* How many descriptors it may have open, as many as the system lets it ask for. */
uint64_t process_descriptors(void);
/* User and system time of all threads so far. */
uint64_t process_cpu_ms(void);

#endif
