/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection to RabbitMQ with one channel, how a stream is made on it, and a consumer of a stream
 * on such a connection. Over librabbitmq, which makes its own sockets; here every call of it gets
 * an end in time, and every way in which it or the broker says no becomes a LOG_E_… with a sentence
 * in `why`.
 *
 * After a failure a link is of no more use: link_drop. It belongs to one thread at a time.
 * Deadlines are of os_monotonic_ns.
 */
#ifndef MILLRACE_JOURNAL_REMOTE_RABBITMQ_LINK_H
#define MILLRACE_JOURNAL_REMOTE_RABBITMQ_LINK_H

#include "journal/driver.h"
#include "os/socket.h"

#include <amqp.h>

enum {
    LINK_CHANNEL = 1,
    LINK_CODE_NOT_FOUND = 404,
    LINK_CODE_LOCKED = 405, /* somebody else's exclusive queue */
    LINK_CODE_PRECONDITION_FAILED = 406,
};

struct link {
    struct os *os;
    const struct service_url *url;
    uint64_t patience_ms;          /* for what is sent to be taken by the broker's side */
    amqp_connection_state_t state; /* NULL: down */
    size_t host;                   /* of the URL, that is tried first */
    char peer[160];                /* "RabbitMQ at host:port" */
    int code;     /* with which the broker refused last; 0: it was not the broker */
    bool blocked; /* it takes no messages now, as blocked_why says */
    char blocked_why[LOG_WHY_MAX];
    char why[LOG_WHY_MAX];
};

/* url is borrowed. */
void link_init(struct link *l, struct os *os, const struct service_url *url, uint64_t patience_ms);
/* Tries the URL's hosts in turn, and opens the channel. The broker ends a connection from which it
 * has heard nothing for two to three times heartbeat_s. */
int link_connect(struct link *l, int heartbeat_s, uint64_t deadline_ns) MUST_USE;
/* Closes it with a word to the broker if that is to be had within the deadline; 0: without. */
void link_drop(struct link *l, uint64_t deadline_ns);
/* The channel again, after the broker closed it (link.code). */
int link_reopen(struct link *l) MUST_USE;
/* How a call to the broker ended. what: as "declaring the stream"; NULL: no more is to be said. */
int link_check(struct link *l, amqp_rpc_reply_t reply, const char *what) MUST_USE;
int link_check_status(struct link *l, int status, const char *what) MUST_USE;
/* Calls to the broker end by then. */
int link_set_deadline(struct link *l, uint64_t deadline_ns) MUST_USE;
/* The next frame that is for the user. LOG_E_END: none came by the deadline (0: none is there). */
int link_wait(struct link *l, uint64_t deadline_ns, amqp_frame_t *ret_frame) MUST_USE;
/* Sends a message to a queue; mandatory: it comes back where there is none. properties NULL: it has
 * none. */
int link_publish(struct link *l, const char *queue, bool mandatory,
                 const amqp_basic_properties_t *properties, struct bytes body) MUST_USE;

/* ---- Making a stream ---- */

struct stream_bounds {
    uint64_t max_bytes;
    uint64_t segment_bytes;
};
/* What the URL says of them: LOG_E_REFUSED. */
int stream_bounds_read(struct stream_bounds *b, const struct service_url *url,
                       char why[LOG_WHY_MAX]) MUST_USE;
/* One that is there stays; LOG_E_REFUSED: it was made with other bounds. */
int link_declare_stream(struct link *l, const char *stream,
                        const struct stream_bounds *bounds) MUST_USE;

/* ---- Reading a stream ---- */

enum { TAP_LAST = -1 }; /* the newest chunk of messages, instead of an offset */

struct tap {
    struct link link;
    struct buffer body; /* of the message that is being read */
    uint64_t body_size;
    uint64_t tag;
    uint64_t offset;
    uint64_t consumer; /* of the message that was read */
    bool has_header;
    unsigned prefetch; /* messages that the broker sends ahead of their acknowledgement */
    unsigned unacknowledged;
};

void tap_init(struct tap *t, struct os *os, const struct service_url *url, uint64_t patience_ms);
void tap_deinit(struct tap *t);
/* Connects anew; no stream is read yet. */
int tap_connect(struct tap *t, uint64_t deadline_ns) MUST_USE;
/* Reads a stream from an offset on (the oldest there is, when that is gone), or TAP_LAST, beside
 * others; what comes of it says consumer. After a failure the tap is detached. */
int tap_consume(struct tap *t, const char *stream, int64_t offset, uint64_t consumer,
                uint64_t deadline_ns) MUST_USE;
/* Ends that; what is on its way comes yet. After a failure the tap is detached. */
void tap_cancel(struct tap *t, uint64_t consumer);
/* Both, of one stream alone. */
int tap_attach(struct tap *t, const char *stream, int64_t offset, uint64_t deadline_ns) MUST_USE;
/* Valid until the next call. LOG_E_END: none came by the deadline. After another failure it is
 * detached: tap_attach. */
int tap_next(struct tap *t, uint64_t deadline_ns, struct bytes *ret_body,
             uint64_t *ret_offset) MUST_USE;

#endif
