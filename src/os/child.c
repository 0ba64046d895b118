/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two ways to start a child. Our own program by posix_spawn, which copies nothing of a process that
 * may have gigabytes. A command by fork, as limits and the wish to die with us can only be set
 * between fork and exec; there only calls are made that are safe while other threads were copied in
 * the middle of anything.
 */
#include "os/child.h"

#include "os/result.h"

#include <assert.h>
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static char *const *as_vector(const char *const *texts) {
    char *const *vector; /* exec takes what it does not change without const */
    memcpy(&vector, &texts, sizeof vector);
    return vector;
}

static bool is_mark(const char *variable) {
    return strncmp(variable, CHILD_MARK, strlen(CHILD_MARK)) == 0;
}

/* The environment of the child: what it is given, and the mark. Freed by the caller; NULL when
 * memory is out. */
static char **variables_of(const struct child_options *o) {
    char *const *given = o->variables ? as_vector(o->variables) : environ;
    char *mark = NULL;
    size_t n = 0;
    for (char **at = environ; !o->mark && *at; at++)
        mark = is_mark(*at) ? *at : mark;
    while (given[n])
        n++;
    char **all = calloc(n + 2, sizeof *all);
    if (!all)
        return NULL;
    n = 0;
    if (o->mark)
        memcpy(&all[n++], &o->mark, sizeof o->mark); /* exec takes it without const */
    else if (mark)
        all[n++] = mark;
    for (; *given; given++)
        if (!is_mark(*given))
            all[n++] = *given;
    return all;
}

/* ---- posix_spawn ---- */

static int add_files(posix_spawn_file_actions_t *actions, const struct child_options *o) {
    int r = 0;
    if (o->files[0] < 0)
        r = posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDONLY, 0);
    for (int i = 0; r == 0 && i < CHILD_FILES; i++)
        if (o->files[i] >= 0)
            r = posix_spawn_file_actions_adddup2(actions, o->files[i], i);
    int first_closed = o->files[CHILD_FILES - 1] >= 0 ? CHILD_FILES : CHILD_FILES - 1;
    return r ? r : posix_spawn_file_actions_addclosefrom_np(actions, first_closed);
}

static int set_attributes(posix_spawnattr_t *attributes) {
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    int r = posix_spawnattr_setsigmask(attributes, &none);
    if (r == 0)
        r = posix_spawnattr_setsigdefault(attributes, &all);
    if (r == 0)
        r = posix_spawnattr_setpgroup(attributes, 0);
    return r ? r
             : posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF |
                                                        POSIX_SPAWN_SETSIGMASK);
}

static int spawn_with(posix_spawn_file_actions_t *actions, posix_spawnattr_t *attributes,
                      const struct child_options *o, char *const *variables, pid_t *ret_pid) {
    const char *program = o->program ? o->program : "/proc/self/exe";
    int r = add_files(actions, o);
    if (r == 0)
        r = set_attributes(attributes);
    return r ? r
             : posix_spawn(ret_pid, program, actions, attributes, as_vector(o->arguments),
                           variables);
}

static int spawn(const struct child_options *o, char *const *variables, pid_t *ret_pid) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int r = posix_spawn_file_actions_init(&actions);
    if (r)
        return os_result(r);
    r = posix_spawnattr_init(&attributes);
    if (r == 0) {
        r = spawn_with(&actions, &attributes, o, variables, ret_pid);
        (void)posix_spawnattr_destroy(&attributes); /* always 0 */
    }
    (void)posix_spawn_file_actions_destroy(&actions);
    return r ? os_result(r) : 0;
}

/* ---- fork ---- */

static void default_signals(void) {
    const struct sigaction standard = {.sa_handler = SIG_DFL};
    sigset_t none;
    sigemptyset(&none);
    for (int i = 1; i < NSIG; i++)
        (void)sigaction(i, &standard, NULL); /* refused for SIGKILL and SIGSTOP */
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static int limit(__rlimit_resource_t what, uint64_t soft, uint64_t hard) {
    const struct rlimit l = {.rlim_cur = soft, .rlim_max = hard};
    return setrlimit(what, &l);
}

static int set_limits(const struct child_limits *l) {
    if (limit(RLIMIT_CORE, 0, 0) < 0)
        return -1;
    if (l->memory_bytes && limit(RLIMIT_AS, l->memory_bytes, l->memory_bytes) < 0)
        return -1;
    return l->cpu_s ? limit(RLIMIT_CPU, l->cpu_s, l->cpu_s + 1) : 0;
}

/* The sources may themselves lie in the way, so they go above all first. */
static int set_files(const int files[CHILD_FILES]) {
    int raised[CHILD_FILES] = {-1, -1, -1, -1};
    for (int i = 0; i < CHILD_FILES; i++) {
        int from = i == 0 && files[0] < 0 ? open("/dev/null", O_RDONLY | O_CLOEXEC) : files[i];
        raised[i] = from < 0 ? -1 : fcntl(from, F_DUPFD_CLOEXEC, CHILD_FILES);
        if (raised[i] < 0 && (i == 0 || files[i] >= 0))
            return -1;
    }
    for (int i = 0; i < CHILD_FILES; i++)
        if (raised[i] >= 0 && dup2(raised[i], i) < 0)
            return -1;
    int first_closed = raised[CHILD_FILES - 1] >= 0 ? CHILD_FILES : CHILD_FILES - 1;
    return close_range((unsigned)first_closed, ~0u, CLOSE_RANGE_CLOEXEC);
}

/* In the child; says what went wrong through the pipe, which exec closes. */
NORETURN static void become(const struct child_options *o, char *const *variables, pid_t parent,
                            int error_fd) {
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == parent && setpgid(0, 0) == 0) {
        default_signals();
        int kept = fcntl(error_fd, F_DUPFD_CLOEXEC, CHILD_FILES * 2);
        if (kept >= 0 && set_files(o->files) == 0 && set_limits(o->limits) == 0)
            (void)execve(o->program, as_vector(o->arguments), variables);
        error_fd = kept >= 0 ? kept : error_fd;
    }
    int e = errno;
    ssize_t n = write(error_fd, &e, sizeof e);
    _exit(n == (ssize_t)sizeof e ? 127 : 126);
}

static int copy(const struct child_options *o, char *const *variables, pid_t *ret_pid) {
    int fds[2], e = 0;
    assert(o->program);
    if (pipe2(fds, O_CLOEXEC) < 0)
        return os_result(errno);
    pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        become(o, variables, parent, fds[1]);
    int failed = errno;
    (void)close(fds[1]);
    ssize_t n = 0;
    do
        n = pid < 0 ? 0 : read(fds[0], &e, sizeof e);
    while (n < 0 && errno == EINTR);
    (void)close(fds[0]);
    if (pid < 0)
        return os_result(failed);
    if (n == (ssize_t)sizeof e) {
        (void)waitpid(pid, NULL, 0); /* it has said its last word */
        return os_result(e);
    }
    *ret_pid = pid;
    return 0;
}

/* ---- Start and end ---- */

int child_start(const struct child_options *options, struct child *ret_child) {
    pid_t pid = -1;
    char **variables = variables_of(options);
    if (!variables)
        return error_origin(-ENOMEM);
    int r = options->limits ? copy(options, variables, &pid) : spawn(options, variables, &pid);
    free(variables);
    if (r)
        return error_trace(r);
    int fd = pidfd_open(pid, 0); /* close-on-exec by itself */
    if (fd < 0) {
        r = os_result(errno);
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
        return r;
    }
    *ret_child = (struct child){.pid = (uint64_t)pid, .fd = fd};
    return 0;
}

static int wait_for(struct child *c, int flags, struct child_end *ret_end) {
    siginfo_t info = {0};
    int r;
    do
        r = waitid(P_PID, (id_t)c->pid, &info, WEXITED | flags);
    while (r < 0 && errno == EINTR);
    if (r < 0)
        return os_result(errno);
    if (info.si_pid == 0)
        return OS_E_AGAIN;
    bool exited = info.si_code == CLD_EXITED;
    child_close(c->fd);
    *ret_end = (struct child_end){.status = exited ? info.si_status : 0,
                                  .signal = exited ? 0 : info.si_status};
    return 0;
}

int child_ended(struct child *c, struct child_end *ret_end) {
    return wait_for(c, WNOHANG, ret_end);
}

void child_kill(const struct child *c) {
    assert(c->pid > 1);
    /* What is gone already needs no killing. */
    (void)kill((pid_t)c->pid, SIGKILL);
    (void)kill(-(pid_t)c->pid, SIGKILL);
}

void child_destroy(struct child *c) {
    struct child_end end;
    child_kill(c);
    int r = wait_for(c, 0, &end);
    assert(r == 0 && "our own child, not waited for before");
    (void)r;
}

/* ---- Strays ---- */

int child_adopt_strays(void) {
    const struct sigaction standard = {.sa_handler = SIG_DFL};
    if (sigaction(SIGCHLD, &standard, NULL) < 0) /* ignored, children would end unseen */
        return os_result(errno);
    return prctl(PR_SET_CHILD_SUBREAPER, 1) < 0 ? os_result(errno) : 0;
}

struct process {
    pid_t pid;
    pid_t parent;
    bool at_rest; /* stopped, or dead: it starts no more */
    bool stray;
};

/* The third and fourth field of /proc/PID/stat; the second, the name, may hold anything. */
static bool read_stat(const char *name, struct process *ret_process) {
    char path[64], text[512];
    int length = snprintf(path, sizeof path, "/proc/%.20s/stat", name);
    FILE *f = length > 0 ? fopen(path, "re") : NULL;
    if (!f)
        return false;
    size_t n = fread(text, 1, sizeof text - 1, f);
    (void)fclose(f);
    text[n] = '\0';
    const char *after = strrchr(text, ')');
    if (!after || strlen(after) < 5)
        return false;
    *ret_process = (struct process){.pid = (pid_t)strtol(name, NULL, 10),
                                    .parent = (pid_t)strtol(after + 4, NULL, 10),
                                    .at_rest = strchr("TtZX", after[2]) != NULL};
    return true;
}

/* All processes there are, as a buffer of struct process. */
static int list_processes(struct buffer *out) {
    DIR *directory = opendir("/proc");
    if (!directory)
        return os_result(errno);
    for (struct dirent *e; (e = readdir(directory));) {
        struct process p;
        if (isdigit((unsigned char)e->d_name[0]) && read_stat(e->d_name, &p))
            buffer_append(out, &p, sizeof p);
    }
    (void)closedir(directory);
    return buffer_check(out);
}

static const struct process *process_find(const struct process *all, size_t n, pid_t pid) {
    for (size_t i = 0; i < n; i++)
        if (all[i].pid == pid)
            return &all[i];
    return NULL;
}

static bool is_known(pid_t pid, const uint64_t *known, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (known[i] == (uint64_t)pid)
            return true;
    return false;
}

/* Whether the environment with which it began has the variable. */
static bool has_variable(pid_t pid, const char *variable) {
    char path[64], *text = NULL;
    size_t size = 0;
    bool found = false;
    (void)snprintf(path, sizeof path, "/proc/%d/environ", (int)pid);
    FILE *f = fopen(path, "re");
    while (f && !found && getdelim(&text, &size, '\0', f) > 0)
        found = strcmp(text, variable) == 0;
    free(text);
    if (f)
        (void)fclose(f);
    return found;
}

/* Who is to be killed. */
struct strays {
    struct process *all;
    size_t n;
    const uint64_t *known;
    size_t n_known;
    const char *mark;
    struct buffer *stopped; /* pid_t, in all rounds */
};

static bool was_stopped(const struct strays *s, pid_t pid) {
    const pid_t *stopped = (const void *)s->stopped->data;
    for (size_t i = 0; i < s->stopped->size / sizeof *stopped; i++)
        if (stopped[i] == pid)
            return true;
    return false;
}

/* Whether the way up from p comes to us, past the mark and past no known one. */
static bool is_stray(const struct strays *s, const struct process *p) {
    const struct process *first = p;
    bool ours = false, marked = !s->mark;
    for (size_t steps = 0; p && !ours && steps < s->n; steps++) {
        if (is_known(p->pid, s->known, s->n_known))
            return false;
        ours = p->parent == getpid();
        p = ours ? p : process_find(s->all, s->n, p->parent);
    }
    for (p = first; p && ours && !marked; p = process_find(s->all, s->n, p->parent)) {
        marked = has_variable(p->pid, s->mark);
        if (p->parent == getpid())
            break;
    }
    return ours && marked;
}

/* Stops those that were not stopped yet, so that they start no more; how many were still at work.
 * All are looked at before any is touched. */
static size_t stop_once(const struct strays *s) {
    size_t at_work = 0;
    for (size_t i = 0; i < s->n; i++) {
        bool told = was_stopped(s, s->all[i].pid);
        at_work += told && !s->all[i].at_rest;
        s->all[i].stray = !told && is_stray(s, &s->all[i]);
    }
    for (size_t i = 0; i < s->n; i++) {
        if (!s->all[i].stray)
            continue;
        bool noted = buffer_reserve(s->stopped, sizeof s->all[i].pid);
        at_work++;
        (void)kill(s->all[i].pid, noted ? SIGSTOP : SIGKILL); /* or it ended by itself */
        if (noted)
            buffer_append(s->stopped, &s->all[i].pid, sizeof s->all[i].pid);
    }
    return at_work;
}

/* Kills what was stopped; how many of them are not gone now. */
static size_t kill_once(const struct strays *s) {
    size_t left = 0;
    for (size_t i = 0; i < s->n; i++) {
        const struct process *p = &s->all[i];
        bool stray = was_stopped(s, p->pid);
        if (stray)
            (void)kill(p->pid, SIGKILL);
        /* Nobody else waits for what came to us. */
        bool direct = p->parent == getpid() && !is_known(p->pid, s->known, s->n_known);
        bool gone = direct && waitpid(p->pid, NULL, WNOHANG) == p->pid;
        left += stray && !gone;
    }
    return left;
}

/* Only before kill_once: what that waited for may be somebody else's number by now. */
static void kill_stopped(const struct buffer *stopped) {
    const pid_t *pids = (const void *)stopped->data;
    for (size_t i = 0; i < stopped->size / sizeof *pids; i++)
        (void)kill(pids[i], SIGKILL);
}

/* Round by round: first all are stopped, as the children of one that is dead show no mark of
 * theirs, then killed; what was killed may need its time to die. One that is told to stop in the
 * middle of a fork forks all the same, so all that was started is only sure to be in a list that
 * began when everything was at rest: the second one in which nothing was at work. */
int child_kill_strays(const uint64_t *known, size_t n, const char *mark) {
    enum { NS_PER_MS = 1000000, PAUSE_MS_MAX = 32 };
    uint64_t begin_ns = os_monotonic_ns(os_real()), now_ns = begin_ns;
    uint64_t kill_ns = begin_ns + UINT64_C(1000) * NS_PER_MS; /* what is stopped by then */
    uint64_t pause_ms = 1;
    unsigned rounds_at_rest = 0;
    bool stopping = true;
    CLEANUP(buffer_deinit) struct buffer stopped = BUFFER_INIT;
    do {
        CLEANUP(buffer_deinit) struct buffer list = BUFFER_INIT;
        int r = list_processes(&list);
        if (r) {
            if (stopping)
                kill_stopped(&stopped);
            return error_trace(r);
        }
        const struct strays strays = {.all = (void *)list.data,
                                      .n = list.size / sizeof(struct process),
                                      .known = known,
                                      .n_known = n,
                                      .mark = mark,
                                      .stopped = &stopped};
        if (stopping) {
            rounds_at_rest = stop_once(&strays) > 0 ? 0 : rounds_at_rest + 1;
            stopping = now_ns < kill_ns && rounds_at_rest < 2;
            if (stopping)
                continue;
        }
        if (kill_once(&strays) == 0)
            return buffer_check(&stopped);
        os_sleep_ns(os_real(), pause_ms * NS_PER_MS);
        pause_ms = pause_ms < PAUSE_MS_MAX ? pause_ms * 2 : pause_ms;
    } while ((now_ns = os_monotonic_ns(os_real())) < begin_ns + UINT64_C(2000) * NS_PER_MS);
    if (stopping)
        kill_stopped(&stopped);
    return buffer_check(&stopped);
}

/* ---- Channels ---- */

static int without_blocking(int ours, int theirs, int *ret_ours, int *ret_theirs) {
    if (fcntl(ours, F_SETFL, O_NONBLOCK) < 0) {
        int r = os_result(errno);
        child_close(ours);
        child_close(theirs);
        return r;
    }
    *ret_ours = ours;
    *ret_theirs = theirs;
    return 0;
}

int child_socket_pair(int *ret_ours, int *ret_theirs) {
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return os_result(errno);
    return without_blocking(fds[0], fds[1], ret_ours, ret_theirs);
}

int child_pipe_from(int *ret_ours, int *ret_theirs) {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return os_result(errno);
    return without_blocking(fds[0], fds[1], ret_ours, ret_theirs);
}

int child_pipe_to(int *ret_ours, int *ret_theirs) {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return os_result(errno);
    return without_blocking(fds[1], fds[0], ret_ours, ret_theirs);
}

int child_read(int fd, void *data, size_t size, size_t *ret_size) {
    ssize_t n;
    do
        n = read(fd, data, size);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return os_result(errno);
    if (n == 0)
        return OS_E_CLOSED;
    *ret_size = (size_t)n;
    return 0;
}

int child_write(int fd, const void *data, size_t size, size_t *ret_size) {
    ssize_t n;
    do
        n = write(fd, data, size);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return os_result(errno);
    *ret_size = (size_t)n;
    return 0;
}

void child_close(int fd) {
    (void)close(fd); /* nothing is lost by it that anybody could still get */
}

const char *child_signal_name(int number, char out[16]) {
    const char *name = sigabbrev_np(number);
    if (name)
        (void)snprintf(out, 16, "SIG%.12s", name);
    else
        (void)snprintf(out, 16, "signal %d", number);
    return out;
}
