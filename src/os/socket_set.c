/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A set of sockets: epoll, level-triggered. Its own wait knows milliseconds only (epoll_pwait2 is
 * younger than the systems we run on), so the set itself is polled before it is read; while sockets
 * keep being ready, that call is saved.
 */
#include "os/socket.h"

#include "os/result.h"

#include <assert.h>
#include <errno.h>
#include <sys/epoll.h>

int socket_set_init(struct socket_set *set) {
    int fd = epoll_create1(EPOLL_CLOEXEC);
    if (fd < 0)
        return os_result(errno);
    set->fd = fd;
    return 0;
}

void socket_set_deinit(struct socket_set *set) {
    if (set->fd >= 0)
        socket_close(set->fd);
    set->fd = -1;
}

static int control(struct socket_set *set, int operation, int fd, short events, void *owner) {
    struct epoll_event event = {.data.ptr = owner};
    event.events = (events & POLLIN ? EPOLLIN : 0U) | (events & POLLOUT ? EPOLLOUT : 0U);
    return epoll_ctl(set->fd, operation, fd, &event) < 0 ? os_result(errno) : 0;
}

int socket_set_add(struct socket_set *set, int fd, short events, void *owner) {
    return control(set, EPOLL_CTL_ADD, fd, events, owner);
}

int socket_set_change(struct socket_set *set, int fd, short events, void *owner) {
    return control(set, EPOLL_CTL_MOD, fd, events, owner);
}

/* Those that are ready now. */
static int take_ready(struct socket_set *set, void *ret_owners[SOCKET_SET_READY_MAX]) {
    struct epoll_event events[SOCKET_SET_READY_MAX];
    int n = epoll_wait(set->fd, events, SOCKET_SET_READY_MAX, 0);
    if (n < 0) /* EINTR too: it does not wait, so nothing is cut short */
        return errno == EINTR ? 0 : error_origin(-errno);
    for (int i = 0; i < n; i++)
        ret_owners[i] = events[i].data.ptr;
    return n;
}

int socket_set_wait(struct socket_set *set, int64_t timeout_ns,
                    void *ret_owners[SOCKET_SET_READY_MAX]) {
    int n = take_ready(set, ret_owners);
    if (n != 0 || timeout_ns == 0)
        return n;
    struct pollfd poll = {.fd = set->fd, .events = POLLIN};
    n = socket_poll_ns(&poll, 1, timeout_ns);
    return n > 0 ? take_ready(set, ret_owners) : n;
}
