/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver of Kafka for shared journals: one topic of N partitions. kafka_writer.c writes it,
 * kafka_member.c reads it as a member of a consumer group; kafka_topic.c makes and checks it, as it
 * does for the journal with one owner.
 */
#ifndef MILLRACE_JOURNAL_REMOTE_KAFKA_SHARED_H
#define MILLRACE_JOURNAL_REMOTE_KAFKA_SHARED_H

#include "journal/remote/kafka.h"
#include "journal/shared_driver.h"

/* A topic's name and connection, as the options have it; connects to nothing. LOG_E_REFUSED with
 * k->log.why. */
int kafka_shared_init(struct kafka_log *k, struct os *os,
                      const struct log_options *options) MUST_USE;
enum { KAFKA_GROUP_MAX = KAFKA_TOPIC_MAX + 16 };
/* What Kafka knows the group of those who read it by. */
void kafka_group_id(const struct kafka_log *k, char out[KAFKA_GROUP_MAX]);

int kafka_member_join(struct os *os, const struct log_options *options,
                      struct shared_member **ret_member) MUST_USE;
void kafka_member_leave(struct shared_member *m);
int kafka_member_next(struct shared_member *m, uint64_t wait_ms,
                      struct shared_delivery *ret_delivery) MUST_USE;
void kafka_member_release(struct shared_delivery *d);
uint64_t kafka_member_end(struct shared_member *m, unsigned partition);
int kafka_member_seek(struct shared_member *m, unsigned partition, bool known,
                      uint64_t *offset) MUST_USE;
void kafka_member_pause(struct shared_member *m, unsigned partition, bool pause);
void kafka_member_commit(struct shared_member *m, const struct shared_position *positions,
                         size_t n);
int kafka_member_committed(struct shared_member *m, unsigned partition,
                           uint64_t *ret_offset) MUST_USE;
int kafka_member_trim(struct shared_member *m, unsigned partition, uint64_t offset) MUST_USE;

#endif
