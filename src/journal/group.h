/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a shared journal (remote/shared.h): the processes of one group divide its partitions
 * among themselves, and divide them anew when one comes or goes. What a group member is given it
 * reads from the position that the store has; one that the engine remembers is then only a hint for
 * who watches the lag. Of a store that keeps none, the engine's are the positions.
 *
 * A member that was stopped and wakes may hold records of a partition that is another's by now: the
 * store must refuse what is behind its position (it says so itself, in struct work_store_ops), or,
 * where it keeps none, send nothing after group_lease_ns.
 *
 * One thread at a time, but for group_status.
 */
#ifndef MILLRACE_JOURNAL_GROUP_H
#define MILLRACE_JOURNAL_GROUP_H

#include "base/service_url.h"
#include "journal/journal.h"

enum { GROUP_PARTITIONS_MAX = 64, GROUP_WHY_MAX = 256, GROUP_SOURCE_MAX = 224 };
enum { GROUP_IDENTITY_MAX = 64 };

/* Whether there can be a journal of the URL, shared or not; connects to nothing. JOURNAL_E_REFUSED:
 * why says it. -ENOMEM. */
int journal_url_check(const struct service_url *url, char why[GROUP_WHY_MAX]) MUST_USE;
/* Whether the URL of a journal names one that is shared: by an engine that can be, with
 * `partitions`. */
bool journal_url_is_shared(const struct service_url *url);
/* Whether the engine of one that is shared keeps positions, for a store that keeps none. */
bool journal_url_keeps_positions(const struct service_url *url);
/* How many partitions it names; 0: it is not shared, or the number is wrong. */
unsigned journal_url_partitions(const struct service_url *url);

/* What a store may remember the journal of that name by, "" when it is too long. */
void journal_url_source(const struct service_url *url, const char *name,
                        char out[GROUP_SOURCE_MAX]);

/*
 * Of an engine whose messages have no offsets, and come again until they are acknowledged
 * (RabbitMQ's quorum queues): the store numbers them, and the numbers are their offsets.
 *
 * A partition is read in **sessions**, one after the other. Without messages a session begins, and
 * those before it are over: who numbers in one of them gets JOURNAL_E_END, so that what somebody
 * who slept has in his hands is never numbered again. With messages they are told by what each has
 * of its own: one that was numbered before has the number that it had, the others get the next
 * ones, in the order in which they came. What the store answered it does not forget while the
 * message may come again.
 */
struct group_numbers {
    uint64_t session;        /* in; without messages it is given */
    const struct bytes *ids; /* of the messages; at most GROUP_NUMBERS_MAX */
    size_t n;
    uint64_t *offsets; /* of as many, to be given */
};
enum {
    GROUP_NUMBERS_MAX = 64,
/* So many of a partition are remembered at least. No message may come again behind as many
 * others: an engine has far fewer under way at a time. */
#ifdef MILLRACE_TINY
    GROUP_NUMBERS_KEPT = 64,
#else
    GROUP_NUMBERS_KEPT = 4096,
#endif
};

struct group;
struct group_options {
    const struct service_url *url; /* borrowed until close */
    const char *name;              /* of the journal, as journal_options has it; static */
    uint64_t timeout_ms;           /* of a call; 0: 5,000 */
    /* Told of settings of the engine that are weaker than they should be; may be NULL. */
    void (*tell)(void *context, const char *sentence);
    /* The lsn up to which the store has persisted the partition; 0: nothing. Called when the
     * partition became ours, and until it returns 0, with time between. NULL: the store keeps no
     * positions, and those that group_persisted said, and the engine has, are gone on from. */
    int (*position)(void *context, unsigned partition, lsn_t *ret_lsn);
    /* JOURNAL_E_END: the session is over. JOURNAL_E_UNAVAILABLE: ask again; -ENOMEM. NULL: the
     * store numbers nothing, and is fed only from engines that have offsets. */
    int (*number)(void *context, unsigned partition, struct group_numbers *numbers);
    void *context;
};
/* Joins. JOURNAL_E_UNAVAILABLE, JOURNAL_E_REFUSED: why says it. -ENOMEM. */
int group_open(struct os *os, const struct group_options *options, struct group **ret_group,
               char why[GROUP_WHY_MAX]) MUST_USE;
/* Leaves: others get its partitions at once. Takes NULL. */
struct group *group_close(struct group *g);

/* Records of one partition, in order; valid until the next call. */
struct group_batch {
    unsigned partition;
    const struct journal_record *records;
    size_t n;
};
/* The next batch; JOURNAL_E_END: none came within wait_ms, or what came was behind the position. */
int group_read(struct group *g, uint64_t wait_ms, struct group_batch *ret_batch) MUST_USE;
/* While a batch waits for its store: keeps the member in the group. False: its partition is
 * another's by now, and the batch is to be dropped. */
bool group_hold(struct group *g, unsigned partition, uint64_t wait_ms);
/* Until when, by the monotonic clock, what this member reads is its own for certain: the group knew
 * it as a member then, and gives its partitions to nobody before its session is over. Only where
 * the positions are the engine's; group_read and group_hold renew it. 0: not yet. */
uint64_t group_lease_ns(const struct group *g);
/* All of the partition up to lsn is persisted. */
void group_persisted(struct group *g, unsigned partition, lsn_t lsn);

struct group_status {
    unsigned partitions;       /* that this process reads */
    uint64_t lag_messages;     /* in them, not persisted yet, when that was last looked at */
    uint64_t strange_messages; /* passed over: none of ours */
    uint64_t lost_messages;    /* gone from the log before they were applied */
    bool reachable;
    char why[GROUP_WHY_MAX]; /* it is not, or some of it cannot be read; "" */
};
/* Any thread. */
void group_status(struct group *g, struct group_status *ret_status);

#endif
