/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The drivers of RabbitMQ for shared journals, over AMQP 0-9-1: N streams, `<prefix>events-0` and
 * so on; or, with `queues=quorum` in the URL, N quorum queues, `<prefix>events-q0` and so on.
 * rabbitmq_writer.c writes both, rabbitmq_member.c reads streams, rabbitmq_queues.c reads queues,
 * rabbitmq_mark.c has the mark; how one is spoken to is rabbitmq_link.h.
 *
 * There is no way to send a message to a stream again that would be known for the same one (that is
 * for publishers of the stream protocol alone, and they must be one a name). So what was not
 * confirmed when its connection was lost is never sent again: LOG_E_UNKNOWN.
 */
#ifndef MILLRACE_JOURNAL_REMOTE_RABBITMQ_SHARED_H
#define MILLRACE_JOURNAL_REMOTE_RABBITMQ_SHARED_H

#include "journal/remote/rabbitmq_link.h"
#include "journal/shared_driver.h"

enum {
    RABBITMQ_PREFIX_MAX = 128,
    RABBITMQ_NAME_MAX = RABBITMQ_PREFIX_MAX + 48,
    RABBITMQ_ID_MAX = 48,
    RABBITMQ_HEARTBEAT_S = 5, /* a silent connection ends after two to three of these */
};

/* What the URL says of the streams, or queues. */
struct rabbitmq_streams {
    bool queues;                 /* they are */
    bool existing;               /* none is made */
    char log[RABBITMQ_NAME_MAX]; /* prefix and name */
    unsigned n;
    struct stream_bounds bounds;                       /* of each */
    void (*warn)(void *context, const char *sentence); /* of the options */
    void *context;
};
/* LOG_E_REFUSED. */
int rabbitmq_streams_init(struct rabbitmq_streams *s, const struct log_options *options,
                          char why[LOG_WHY_MAX]) MUST_USE;
/* The name of something of one of them. */
const char *rabbitmq_name(const struct rabbitmq_streams *s, const char *what, unsigned number,
                          char out[RABBITMQ_NAME_MAX]);
/* The name of one itself. */
const char *rabbitmq_stream(const struct rabbitmq_streams *s, unsigned number,
                            char out[RABBITMQ_NAME_MAX]);
/* One is not there that was: warns. */
void rabbitmq_warn_removed(const struct rabbitmq_streams *s, unsigned number);

/* The mark, as struct shared_driver has it. */
int rabbitmq_mark(struct os *os, const struct log_options *options, const char *text,
                  struct journal_mark *ret_mark, char why[LOG_WHY_MAX]) MUST_USE;

extern const struct shared_member_ops rabbitmq_stream_member_ops, rabbitmq_queue_member_ops;

#endif
