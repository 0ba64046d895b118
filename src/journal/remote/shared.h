/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The private parts of a shared journal: one that many processes write and many read, a topic of
 * several partitions on Kafka. There is no order over all of it, and no lsn before the broker has
 * given an offset, so only stores that need neither are fed by it (docs/scale.md).
 *
 *   api processes ─append─▶ window ─chunks─▶ a message a partition ─▶ the topic
 *                                                                       │ a consumer group
 *   worker processes ◀── records of whole messages, in their order ◀────┘ (group.c)
 *
 * For whoever appends it is a journal like others (shared.c): but lsns are its own, mean nothing to
 * others, and are gone with it. A record's place is its partition, and there the lsn that offset
 * and place in the message make (shared_lsn).
 *
 * Nothing is sent twice: a message that Kafka may have is waited for until librdkafka's idempotent
 * producer knows. Only what it says was not persisted is sent again.
 */
#ifndef MILLRACE_JOURNAL_REMOTE_SHARED_H
#define MILLRACE_JOURNAL_REMOTE_SHARED_H

#include "journal/core.h"
#include "journal/group.h"
#include "journal/remote/kafka.h"

enum {
    SHARED_HEAD_BYTES = 16,
    SHARED_MESSAGE_BYTES_MAX = 900000, /* a broker takes 1 MiB, unless told otherwise */
    SHARED_INDEX_BITS = 20,            /* of a lsn: the place in the message */
};
static_assert(SHARED_MESSAGE_BYTES_MAX / FRAME_HEADER_BYTES < 1 << SHARED_INDEX_BITS,
              "every record of a message has a place");

static inline lsn_t shared_lsn(uint64_t offset, uint64_t index) {
    return (offset + 1) << SHARED_INDEX_BITS | index;
}
/* The message to read first when all up to lsn was seen: its own, as it may have more. */
static inline uint64_t shared_offset(lsn_t lsn) {
    return lsn ? (lsn >> SHARED_INDEX_BITS) - 1 : 0;
}

/* ---- messages: shared_message.c ---- */

/* Begins a message in out, which is empty. */
void shared_message_begin(struct buffer *out);
/* The message is whole: n frames were appended, with the salt. */
void shared_message_end(struct buffer *out, uint32_t salt, uint32_t n);
/* Appends the records of the message at offset, as struct journal_record, with their lsns; payloads
 * point into message. False: it is none, or damaged; nothing was appended. */
bool shared_message_load(struct bytes message, uint64_t offset, struct buffer *records) MUST_USE;

/* ---- the topic: shared_topic.c ---- */

/* A topic's name and connection, of a URL with `partitions`; connects to nothing. LOG_E_REFUSED
 * with k->log.why. */
int shared_topic_init(struct kafka_log *k, struct os *os,
                      const struct log_options *options) MUST_USE;

/* ---- producing: shared_producer.c ---- */

struct shared_message {
    unsigned partition;
    uint32_t n; /* records */
    struct buffer bytes;
    bool sent;
    bool delivered;
};

struct shared_producer {
    struct kafka_log topic; /* its producer is ours */
    size_t waiting;         /* messages whose report is to come */
    const char *lost;       /* nobody knows what became of a message: final. Static */
};
/* Makes the topic if it is missing, and checks it. LOG_E_…, with p->topic.log.why. */
int shared_producer_open(struct shared_producer *p, struct os *os,
                         const struct log_options *options) MUST_USE;
void shared_producer_close(struct shared_producer *p);
/* Sends what was not sent yet, and waits until all are delivered. After LOG_E_UNAVAILABLE it is
 * called again with the same messages, which have stayed where they are. LOG_E_REFUSED: what became
 * of one of them will never be known; final. */
int shared_producer_deliver(struct shared_producer *p, struct shared_message *messages,
                            size_t n) MUST_USE;

#endif
