/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signals come by a signalfd, so that they wait in the same poll as keys and sockets, and no
 * handler runs. With keys, the terminal makes no signals of them: Ctrl-Z would stop the process
 * with the terminal changed.
 */
#include "os/terminal.h"

#include "os/socket.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

struct terminal {
    int signals;
    bool keys;
    struct termios before;
    sigset_t blocked_before;
};

static void signals_of_interest(sigset_t *set) {
    sigemptyset(set);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGHUP);
    sigaddset(set, SIGWINCH);
}

static int take_signals(struct terminal *t) {
    sigset_t set;
    signals_of_interest(&set);
    int error = pthread_sigmask(SIG_BLOCK, &set, &t->blocked_before);
    if (error)
        return error_origin(-error);
    t->signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return t->signals < 0 ? error_origin(-errno) : 0;
}

static int take_keys(struct terminal *t) {
    struct termios raw;
    if (tcgetattr(STDIN_FILENO, &t->before))
        return error_origin(-errno);
    raw = t->before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO | ISIG);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    if (tcsetattr(STDIN_FILENO, TCSADRAIN, &raw))
        return error_origin(-errno);
    t->keys = true;
    return 0;
}

int terminal_open(bool keys, struct terminal **ret_terminal) {
    struct terminal *t = calloc(1, sizeof *t);
    if (!t)
        return error_origin(-ENOMEM);
    t->signals = -1;
    int r = take_signals(t);
    if (!r && keys)
        r = take_keys(t);
    if (r) {
        terminal_close(t);
        return error_trace(r);
    }
    *ret_terminal = t;
    return 0;
}

struct terminal *terminal_close(struct terminal *t) {
    if (!t)
        return NULL;
    if (t->keys)
        (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &t->before); /* it may be gone */
    if (t->signals >= 0)
        close(t->signals);
    (void)pthread_sigmask(SIG_SETMASK, &t->blocked_before, NULL);
    free(t);
    return NULL;
}

/* False: there was none after all. */
static bool read_signal(struct terminal *t, enum terminal_event *ret_event) {
    struct signalfd_siginfo info;
    if (read(t->signals, &info, sizeof info) != (ssize_t)sizeof info)
        return false;
    *ret_event = info.ssi_signo == SIGWINCH ? TERMINAL_RESIZED : TERMINAL_STOP;
    return true;
}

static enum terminal_event read_key(char *ret_key) {
    ssize_t n = read(STDIN_FILENO, ret_key, 1);
    return n == 1 ? TERMINAL_KEY : TERMINAL_STOP;
}

enum terminal_event terminal_wait(struct terminal *t, int fd, short events, uint64_t deadline_ns,
                                  char *ret_key) {
    enum terminal_event event;
    for (;;) {
        struct pollfd fds[] = {
            {.fd = t->signals, .events = POLLIN},
            {.fd = t->keys ? STDIN_FILENO : -1, .events = POLLIN},
            {.fd = fd, .events = events},
        };
        uint64_t now = os_monotonic_ns(os_real());
        int64_t rest = deadline_ns > now ? (int64_t)(deadline_ns - now) : 0;
        int ready = socket_poll_ns(fds, ARRAY_LENGTH(fds), rest);
        if (ready < 0)
            return TERMINAL_STOP;
        if (fds[0].revents && read_signal(t, &event))
            return event;
        if (fds[1].revents)
            return read_key(ret_key);
        if (fds[2].revents)
            return TERMINAL_READY;
        if (ready == 0)
            return TERMINAL_TIME;
    }
}

bool terminal_size(int fd, unsigned *ret_columns, unsigned *ret_rows) {
    struct winsize size;
    if (ioctl(fd, TIOCGWINSZ, &size) || size.ws_col == 0 || size.ws_row == 0)
        return false;
    *ret_columns = size.ws_col;
    *ret_rows = size.ws_row;
    return true;
}
