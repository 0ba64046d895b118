/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP sockets, always non-blocking and close-on-exec, poll, and a set of sockets that many waits
 * share. Real only: the simulation has no network (libmicrohttpd reads and writes its own sockets).
 * Thread-safe, but for a set: it belongs to one thread.
 */
#ifndef MILLRACE_OS_SOCKET_H
#define MILLRACE_OS_SOCKET_H

#include "os/os.h"

#include <poll.h>
#include <sys/socket.h>

/* A host and port as text: "127.0.0.1:8000", "[::1]:8000", "localhost:8000". */
struct socket_address {
    struct sockaddr_storage storage;
    socklen_t size;
};
/* -EINVAL when the text is not an address that resolves. */
int socket_address_parse(const char *text, struct socket_address *ret_address) MUST_USE;
bool socket_address_is_loopback(const struct socket_address *address);
uint16_t socket_address_port(const struct socket_address *address);
bool socket_address_is_same(const struct socket_address *a, const struct socket_address *b);

/* OS_E_IN_USE, OS_E_DENIED. Port 0 takes a free one; ret_port says which. */
int socket_listen(const struct socket_address *address, int *ret_fd, uint16_t *ret_port) MUST_USE;
/* OS_E_AGAIN when nobody waits (or descriptors are out). */
int socket_accept(int listener, int *ret_fd, struct socket_address *ret_peer) MUST_USE;
/* Starts to connect; writable once it did. OS_E_CLOSED when it is refused at once. */
int socket_connect(const struct socket_address *address, int *ret_fd) MUST_USE;
/* OS_E_AGAIN, OS_E_CLOSED. ret_size is never 0 on success. */
int socket_read(int fd, void *data, size_t size, size_t *ret_size) MUST_USE;
int socket_write(int fd, const void *data, size_t size, size_t *ret_size) MUST_USE;
/* The peer has ended, and all it sent was read. */
bool socket_has_ended(int fd) MUST_USE;
void socket_close(int fd);
/* Closes it, and throws away what was written and is not sent yet: the peer never gets it, and sees
 * a reset. */
void socket_abort(int fd);
/* Ends the sending direction (after what is written was sent), or both; the descriptor stays. */
void socket_shutdown(int fd, bool both);
/* The connection counts as lost when what is written is not taken by the peer for so long; also
 * when the peer is there and has no room. For sockets that a library reads and writes. */
void socket_set_patience(int fd, uint64_t ms);
/* poll(2) that takes up an interrupted wait again; timeout_ms -1 waits for ever. The number ready.
 */
int socket_poll(struct pollfd *fds, size_t n, int timeout_ms) MUST_USE;
int socket_poll_ns(struct pollfd *fds, size_t n, int64_t timeout_ns) MUST_USE;

/* ---- Many sockets ---- */

/* What is waited for stays from one wait to the next, so that a wait costs what is ready, not what
 * there is. A socket that is closed leaves the set by itself. */
struct socket_set {
    int fd;
};

int socket_set_init(struct socket_set *set) MUST_USE;
void socket_set_deinit(struct socket_set *set);
/* events as of poll(2): POLLIN, POLLOUT. A wait returns the owner while any of them, or an error,
 * is there. */
int socket_set_add(struct socket_set *set, int fd, short events, void *owner) MUST_USE;
int socket_set_change(struct socket_set *set, int fd, short events, void *owner) MUST_USE;
enum { SOCKET_SET_READY_MAX = 64 };
/* The number of owners that are ready; 0 after the timeout, which is never cut short. */
int socket_set_wait(struct socket_set *set, int64_t timeout_ns,
                    void *ret_owners[SOCKET_SET_READY_MAX]) MUST_USE;

#endif
