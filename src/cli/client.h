/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our own small HTTP/1.1 client: one connection, one request under way, kept open between requests.
 * Either driven step by step with poll, many at a time in one thread (the load generator), or as a
 * blocking call (client_ask). Belongs to one thread.
 */
#ifndef MILLRACE_CLI_CLIENT_H
#define MILLRACE_CLI_CLIENT_H

#include "cli/url.h"
#include "os/socket.h"

struct client_answer {
    unsigned status;
    struct bytes body;       /* valid until the next request */
    uint64_t retry_after_ms; /* of Retry-After; 0 when there is none */
};

enum client_state { CLIENT_CLOSED, CLIENT_CONNECTING, CLIENT_WRITING, CLIENT_READING, CLIENT_IDLE };

struct client {
    struct socket_address address;
    int fd;
    enum client_state state;
    struct bytes request; /* what is left to write; the caller's */
    struct buffer in;
    struct buffer body; /* of a chunked answer */
    bool last;          /* the server closes after this answer */
};

enum {
    _CLIENT_E_SUCCESS,
    CLIENT_E_MORE,     /* not yet: poll again */
    CLIENT_E_CLOSED,   /* refused, reset, or closed before the answer was there */
    CLIENT_E_PROTOCOL, /* the answer is not HTTP/1.1, or too long */
    CLIENT_E_TIMEOUT,
};

void client_init(struct client *c, const struct socket_address *address);
void client_deinit(struct client *c);
/* The next client_begin opens a new connection. */
void client_close(struct client *c);
/* Starts to send a request (head and body), which must stay until the answer is there. */
int client_begin(struct client *c, struct bytes request) MUST_USE;
/* What to poll fd for. */
short client_events(const struct client *c);
/* Goes on when fd is ready. 0: the answer is there. CLIENT_E_MORE; after any other the connection
 * is closed, and the next client_begin opens a new one. */
int client_step(struct client *c, struct client_answer *ret_answer) MUST_USE;
/* Sends and waits for the answer, at most timeout_ms. */
int client_ask(struct client *c, struct os *os, struct bytes request, uint64_t timeout_ms,
               struct client_answer *ret_answer) MUST_USE;

/* Parses an answer as far as it is there. complete: nothing more will come. CLIENT_E_MORE,
 * CLIENT_E_PROTOCOL. chunks gets the body of a chunked answer. */
int client_parse(struct bytes in, bool complete, struct buffer *chunks,
                 struct client_answer *ret_answer, bool *ret_last) MUST_USE;

/* What every request's head starts with. */
struct client_target {
    struct url url;
    const char *api_key; /* "" for none */
};
struct client_head {
    const char *method;
    const char *path;
    const char *content_type; /* NULL: application/json */
    size_t body_size;
};
/* Appends the head: method, the URL's path and then path, and the headers. */
void client_append_head(struct buffer *out, const struct client_target *target,
                        const struct client_head *head);
/* A sentence fragment for a condition or a negative error. */
const char *client_reason(int r);

#endif
