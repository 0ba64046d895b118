/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the members of a group divide the partitions of a shared journal on RabbitMQ: by **locks**,
 * queues that are exclusive to the connection that declared them. The broker frees them when that
 * connection is gone, and has nobody else declare them before. A lock `…-worker-K` is a seat;
 * members take the lowest that is free, and so sit on 0 to M-1 once those who moved up have done
 * so, where M is the number of consumers of the queue `…-workers`, which each member is. Who sits
 * on K has the partitions p with p mod M = K, and of those only such whose lock `…-reader-P` it has
 * got: so none is read by two for long, and safety rests on neither. (Of quorum queues they are
 * `…-q-worker-K` and so on.)
 *
 *   no seat ──lowest free──▶ seat K ──locks of its partitions──▶ given ──M or K moves──▶ given back
 *      ▲                                                           │
 *      └───────────────── the connection is lost ──────────────────┘
 *
 * It belongs to one thread.
 */
#ifndef MILLRACE_JOURNAL_REMOTE_RABBITMQ_SEATS_H
#define MILLRACE_JOURNAL_REMOTE_RABBITMQ_SEATS_H

#include "journal/remote/rabbitmq_shared.h"

struct rabbitmq_seats {
    struct shared_member *member; /* whose seat it is; what the seats say of it is in here */
    struct os *os;
    struct rabbitmq_streams streams;
    uint64_t timeout_ms;
    struct link link; /* why it is not there, says its `why` */
    unsigned members; /* when they were last counted */
    int seat;         /* -1: none */
    uint64_t given;   /* how many partitions were, so far */
    uint64_t looked_ns;
    bool has[GROUP_PARTITIONS_MAX];
    /* The partition is about to be another's, or may be already. */
    void (*take)(struct shared_member *member, unsigned partition);
};

/* Reads the URL, connects, and is counted. LOG_E_…, with the member's `why`; to be left also
 * then. */
int rabbitmq_seats_join(struct rabbitmq_seats *s, struct os *os, const struct log_options *options,
                        struct shared_member *member,
                        void (*take)(struct shared_member *member, unsigned partition)) MUST_USE;
void rabbitmq_seats_leave(struct rabbitmq_seats *s);
/* To be called often: answers heartbeats, looks after the share now and then, and connects anew.
 * Says in the member whether it is reachable. */
void rabbitmq_seats_look(struct rabbitmq_seats *s);
/* Answers heartbeats, and nothing else: for who waits meanwhile. After a failure the connection is
 * lost, and all partitions with it. */
int rabbitmq_seats_breathe(struct rabbitmq_seats *s) MUST_USE;
/* The connection is of no more use, as link.why says. */
void rabbitmq_seats_lose(struct rabbitmq_seats *s);
/* A partition that is the member's counts as given anew. */
void rabbitmq_seats_renew(struct rabbitmq_seats *s, unsigned partition);

#endif
