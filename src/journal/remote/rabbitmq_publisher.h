/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sending on a link with publisher confirms. RabbitMQ counts a connection's messages from 1, and
 * says of each once it is durable. A window of them may be on its way; who wants to send more waits
 * until there is room again.
 *
 *   sent ──confirmed, in any order──▶ forgotten
 *     └─ RabbitMQ says no, or the link fails: nobody knows what became of it
 *
 * LOG_E_END, with link.why: it was not confirmed in time, and may be yet. After another failure the
 * link is of no more use. It belongs to one thread.
 */
#ifndef MILLRACE_JOURNAL_REMOTE_RABBITMQ_PUBLISHER_H
#define MILLRACE_JOURNAL_REMOTE_RABBITMQ_PUBLISHER_H

#include "journal/remote/rabbitmq_link.h"

enum {
#ifdef MILLRACE_TINY
    PUBLISHER_WINDOW = 4, /* messages */
#else
    PUBLISHER_WINDOW = 64,
#endif
    PUBLISHER_WINDOW_BYTES = 4 << 20,
};

struct publisher {
    struct link *link;
    uint64_t first; /* the oldest that is not confirmed */
    uint64_t next;  /* the number of the next to be sent */
    size_t bytes;   /* of first…next */
    struct {
        size_t bytes;
        bool confirmed;
    } slots[PUBLISHER_WINDOW];
    /* What else the broker says on the link: LOG_E_…, with link.why. NULL: it is for nobody. */
    int (*take)(void *context, const amqp_method_t *method);
    void *context;
};

/* Nothing is on its way. link is borrowed; take is set behind it. */
void publisher_init(struct publisher *p, struct link *link);
/* On a connection that is new. */
int publisher_begin(struct publisher *p) MUST_USE;
/* Takes in what is there. */
int publisher_take(struct publisher *p) MUST_USE;
/* Until a message of so many bytes may be sent. */
int publisher_make_room(struct publisher *p, size_t bytes, uint64_t deadline_ns) MUST_USE;
/* Sends one for which room was made, to a queue that is there. */
int publisher_send(struct publisher *p, const char *queue,
                   const amqp_basic_properties_t *properties, struct bytes body) MUST_USE;
/* Until all are confirmed. */
int publisher_finish(struct publisher *p, uint64_t deadline_ns) MUST_USE;
bool publisher_is_waiting(const struct publisher *p);

#endif
