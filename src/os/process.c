/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signals, the process's number, terminals, cores and memory.
 */
#include "os/process.h"

#include "base/error.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

void process_thread_idle(void) {
    struct sched_param none = {0};
    int error = pthread_setschedparam(pthread_self(), SCHED_IDLE, &none);
    (void)error; /* then it competes like any other */
}

uint64_t process_id(void) {
    return (uint64_t)getpid();
}

bool process_exists(uint64_t id) {
    return kill((pid_t)id, 0) == 0 || errno != ESRCH;
}

void process_host_name(char *out, size_t size) {
    if (gethostname(out, size) < 0)
        (void)snprintf(out, size, "localhost"); /* it was longer than size */
    out[size - 1] = '\0';
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

/* ---- Memory ---- */

enum { SMALL_TEXT = 4096, BLOCK_RETURNED_BYTES = 4 << 20 };

/* The start of a small file, "" when it cannot be read. */
static void read_text(const char *path, char out[SMALL_TEXT]) {
    size_t n = 0;
    FILE *f = fopen(path, "re");
    if (f) {
        n = fread(out, 1, SMALL_TEXT - 1, f);
        fclose(f);
    }
    out[n] = '\0';
}

/* The number in the file, UINT64_MAX when there is none ("max"). */
static uint64_t read_bound(const char *root, const char *group, size_t group_size,
                           const char *file) {
    char path[SMALL_TEXT], text[SMALL_TEXT];
    int n =
        snprintf(path, sizeof path, "%s/sys/fs/cgroup%.*s/%s", root, (int)group_size, group, file);
    if (n < 0 || (size_t)n >= sizeof path)
        return UINT64_MAX;
    read_text(path, text);
    return text[0] >= '0' && text[0] <= '9' ? strtoull(text, NULL, 10) : UINT64_MAX;
}

/* The least of a cgroup's bound and those of the groups it is in. In a container the outermost one
 * that can be seen stands at the root, whatever /proc says. */
static uint64_t least_bound(const char *root, const char *prefix, const char *group,
                            const char *file) {
    char path[SMALL_TEXT];
    uint64_t least = UINT64_MAX;
    size_t prefix_size = strlen(prefix);
    int n = snprintf(path, sizeof path, "%s%s", prefix, strcmp(group, "/") == 0 ? "" : group);
    size_t size = n < 0 || (size_t)n >= sizeof path ? prefix_size : (size_t)n;
    for (;;) {
        uint64_t bound = read_bound(root, path, size, file);
        least = bound < least ? bound : least;
        if (size <= prefix_size)
            return least;
        while (size > prefix_size && path[--size] != '/')
            continue;
    }
}

/* A line of /proc/self/cgroup: "0::/a/b" in version 2, "4:cpu,memory:/a/b" in version 1. */
static uint64_t bound_of_line(const char *root, char *line) {
    char *controllers = strchr(line, ':');
    char *group = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!group)
        return UINT64_MAX;
    *group++ = '\0';
    if (controllers[1] == '\0')
        return least_bound(root, "", group, "memory.max");
    return strstr(controllers + 1, "memory")
               ? least_bound(root, "/memory", group, "memory.limit_in_bytes")
               : UINT64_MAX;
}

uint64_t process_memory_bytes(const char *root) {
    char path[SMALL_TEXT], text[SMALL_TEXT], *rest = text, *line;
    uint64_t least = (uint64_t)sysconf(_SC_PHYS_PAGES) * process_page_bytes();
    (void)snprintf(path, sizeof path, "%s/proc/self/cgroup", root); /* cut: then there is none */
    read_text(path, text);
    while ((line = strsep(&rest, "\n"))) {
        uint64_t bound = bound_of_line(root, line);
        least = bound < least ? bound : least;
    }
    return least;
}

/* Else the threshold would rise with every large block freed, up to 32 MiB, and what is below it
 * stays with the process. */
void process_return_memory(void) {
    (void)mallopt(M_MMAP_THRESHOLD, BLOCK_RETURNED_BYTES);
    (void)mallopt(M_TRIM_THRESHOLD, 4 * BLOCK_RETURNED_BYTES);
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
