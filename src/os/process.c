/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signals, the process's number, terminals and cores.
 */
#include "os/process.h"

#include "base/error.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static void signals_awaited(sigset_t *set) {
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
}

int process_block_signals(void) {
    sigset_t set;
    signals_awaited(&set);
    int error = pthread_sigmask(SIG_BLOCK, &set, NULL);
    return error ? error_origin(-error) : 0;
}

enum process_signal process_wait_signal(int timeout_ms) {
    struct timespec timeout = {.tv_sec = timeout_ms / 1000,
                               .tv_nsec = (long)(timeout_ms % 1000) * 1000000};
    sigset_t set;
    int number;
    signals_awaited(&set);
    do
        number = timeout_ms < 0 ? sigwaitinfo(&set, NULL) : sigtimedwait(&set, NULL, &timeout);
    while (number < 0 && errno == EINTR);
    if (number == SIGHUP)
        return PROCESS_SIGNAL_RELOAD;
    return number < 0 ? PROCESS_SIGNAL_NONE : PROCESS_SIGNAL_STOP;
}

void process_ignore_broken_pipes(void) {
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    (void)sigaction(SIGPIPE, &ignore, NULL); /* fails only for a number that is no signal */
}

static void exit_at_once(int number UNUSED) {
    _exit(1);
}

void process_exit_on_signal(void) {
    struct sigaction action = {.sa_handler = exit_at_once};
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    /* These calls fail only for numbers that are no signals. */
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGINT, &action, NULL);
    (void)pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

void process_exit(int status) {
    _exit(status);
}

uint64_t process_id(void) {
    return (uint64_t)getpid();
}

bool process_is_terminal(int fd) {
    return isatty(fd) == 1;
}

unsigned process_cores(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) < 0 || CPU_COUNT(&set) < 1)
        return 1;
    return (unsigned)CPU_COUNT(&set);
}

uint64_t process_page_bytes(void) {
    return (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t process_descriptors(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return 1024; /* what there is nearly everywhere */
    const struct rlimit raised = {.rlim_cur = limit.rlim_max, .rlim_max = limit.rlim_max};
    if (limit.rlim_cur < limit.rlim_max && setrlimit(RLIMIT_NOFILE, &raised) == 0)
        limit = raised;
    return limit.rlim_cur;
}

uint64_t process_cpu_ms(void) {
    struct timespec t = {0};
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); /* fails only for a clock that is none */
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}
