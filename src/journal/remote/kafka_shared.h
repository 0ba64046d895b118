/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver of Kafka for shared journals: one topic of N partitions. kafka_writer.c writes it,
 * kafka_member.c reads it as a member of a consumer group, kafka_mark.c has its mark; kafka_topic.c
 * makes and checks it, as it does for the journal with one owner.
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

/* Whether the URL's parameters of members make sense. LOG_E_REFUSED. */
int kafka_member_check(const struct kafka_log *k, char why[LOG_WHY_MAX]) MUST_USE;
/* The mark, as struct shared_driver has it. */
int kafka_mark(struct os *os, const struct log_options *options, const char *text,
               struct journal_mark *ret_mark, char why[LOG_WHY_MAX]) MUST_USE;

extern const struct shared_member_ops kafka_member_ops;

#endif
