/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For implementers: somebody else's engine as the ground of a shared journal (group.h). A driver
 * keeps one **log of N partitions**, each of messages in one order with an offset that grows. What
 * the messages hold, positions, gaps, what is held in memory and what the lag is are the business
 * of remote/shared.c (writing) and remote/group.c (reading), the same for all drivers.
 *
 * Writing: any number of processes, none of which puts another out. Reading: the processes of one
 * group, each partition by one of them at a time as far as the engine can see to it. Nobody relies
 * on that: a store compares positions.
 *
 * Threads: a writer belongs to one thread, and so does a member or a watch, which may be another.
 * All calls block, none for longer than about timeout_ms of the options; mark for a few times that.
 *
 * Errors: LOG_E_… (driver.h) with a sentence in `why`, -ENOMEM. A driver reconnects by itself,
 * inside the next call. One test suite runs against every driver: test_shared_driver.c.
 */
#ifndef MILLRACE_JOURNAL_SHARED_DRIVER_H
#define MILLRACE_JOURNAL_SHARED_DRIVER_H

#include "journal/driver.h"
#include "journal/mark.h"

struct shared_writer;
struct shared_member;
struct shared_watch;
struct shared_message;
struct shared_delivery;
struct shared_position;

struct shared_driver {
    const char *name;              /* by which a store remembers whose log it was fed from */
    const char *const *schemes;    /* of URLs, NULL behind the last */
    const char *queues;            /* what the URL's parameter `queues` says; NULL: it has none */
    const char *const *parameters; /* that its URLs may have, likewise */
    const char *prefix;            /* which of them names what the log's name begins with */
    const struct shared_writer_ops *writer;
    const struct shared_member_ops *member;
    /* As check of struct log_driver, of what its parameters say. */
    int (*check)(const struct service_url *url, char why[LOG_WHY_MAX]) MUST_USE;
    const struct shared_watch_ops *watch; /* NULL: it cannot tell cheaply what waits */
    /* The mark of a log that a writer has opened, as journal_mark (mark.h) has it. Of any number
     * that are left at the same time one stays, and everybody is told the same. */
    int (*mark)(struct os *os, const struct log_options *options, const char *text,
                struct journal_mark *ret_mark, char why[LOG_WHY_MAX]) MUST_USE;
};

struct shared_writer_ops {
    /* Connects, makes what is missing, checks the engine's settings and that there are as many
     * partitions as the options say. *ret is set, for its `why` and for close, also when this
     * fails; NULL: -ENOMEM. */
    int (*open)(struct os *os, const struct log_options *options,
                struct shared_writer **ret_writer) MUST_USE;
    void (*close)(struct shared_writer *w);
    /* Sends what was not sent yet, those of a partition in their order, and waits until all are
     * durable. After LOG_E_UNAVAILABLE it is called again with the same messages, which have stayed
     * where they are: nothing is sent again that the engine may have. LOG_E_UNKNOWN: what became of
     * some of them will never be known, and nothing of them is kept. */
    int (*deliver)(struct shared_writer *w, struct shared_message *messages, size_t n) MUST_USE;
    /* Called every second or so while nothing is on its way: whether the engine answers, within
     * timeout_ms. Connects anew what was lost. LOG_E_UNAVAILABLE, LOG_E_REFUSED: it would take
     * nothing now. */
    int (*probe)(struct shared_writer *w, uint64_t timeout_ms) MUST_USE;
};

struct shared_member_ops {
    /* Messages have no offsets: the store gives them numbers as they come, and those are the
     * offsets (`number` of struct shared_member). */
    bool numbered;
    unsigned own_offsets; /* that the engine may take for itself in front of a message, beside those
                             that are `empty` */

    /* Joins the group, as open. */
    int (*join)(struct os *os, const struct log_options *options,
                struct shared_member **ret_member) MUST_USE;
    /* Others get its partitions at once. */
    void (*leave)(struct shared_member *m);
    /* The next message of any partition that is the member's and was sought. Must be called, or
     * hold: who is silent for long loses its partitions. LOG_E_END: none came within wait_ms. */
    int (*next)(struct shared_member *m, uint64_t wait_ms,
                struct shared_delivery *ret_delivery) MUST_USE;
    void (*release)(struct shared_delivery *d);
    /* From now on the partition is read, from *offset on; when that is gone, from the oldest that
     * there is, which *offset becomes if the engine says it. known: somebody has read the message
     * at that offset. LOG_E_END: the log ends before it, so it is another one. */
    int (*seek)(struct shared_member *m, unsigned partition, bool known, uint64_t *offset) MUST_USE;
    /* Nothing more of the partition comes, but for what is on its way; or it goes on. */
    void (*pause)(struct shared_member *m, unsigned partition, bool pause);
    /* The offset that the next message to come will have at least, as far as is known without
     * asking; 0: it is not. */
    uint64_t (*end)(struct shared_member *m, unsigned partition);
    /* How many of the offsets from `from` on and below `to` hold nothing that could be missed: they
     * were never given, or a member trimmed them. NULL: the engine passes over offsets, and nobody
     * knows which; only what is gone at the beginning counts as lost then. */
    uint64_t (*empty)(struct shared_member *m, unsigned partition, uint64_t from, uint64_t to);
    /* Tells the group that all before these offsets is persisted: for who watches its lag; of an
     * engine that keeps positions, for `committed`, and answered later (`turn`); of one that is
     * numbered, so that those messages may go. NULL: it is for nobody. */
    void (*commit)(struct shared_member *m, const struct shared_position *positions, size_t n);
    /* The offset that was committed last, 0: none. NULL: the engine keeps none. */
    int (*committed)(struct shared_member *m, unsigned partition, uint64_t *ret_offset) MUST_USE;
    /* What lies before the offset may go. NULL: the engine drops it by its own bound. */
    int (*trim)(struct shared_member *m, unsigned partition, uint64_t offset) MUST_USE;
};

struct shared_watch_ops {
    /* As that of a writer, but makes nothing that is missing. */
    int (*open)(struct os *os, const struct log_options *options,
                struct shared_watch **ret_watch) MUST_USE;
    void (*close)(struct shared_watch *w);
    /* How many messages there are at these offsets, one a partition, and behind them. */
    int (*count)(struct shared_watch *w, const uint64_t *offsets, uint64_t *ret_messages) MUST_USE;
};

/* What a driver's structs begin with. */
struct shared_watch {
    const struct shared_watch_ops *ops;
    char why[LOG_WHY_MAX]; /* why the last call failed */
};
struct shared_writer {
    const struct shared_writer_ops *ops;
    char why[LOG_WHY_MAX]; /* why the last call failed */
    /* Once it is open: which of all such engines it is, for ever; "" when it does not say. */
    char identity[GROUP_IDENTITY_MAX];
};
struct shared_member {
    const struct shared_member_ops *ops;
    char why[LOG_WHY_MAX]; /* why the last call failed, or the engine is not reachable */
    bool reachable;        /* as far as the last call saw */
    /* 0: the partition is another's. Else another number each time it is given to this member.
     * Moves within calls. A partition that was given is not read before it is sought. */
    uint64_t generation[GROUP_PARTITIONS_MAX];
    /* Messages that went with a partition which somebody removed, as far as is known; for the
     * reader of this to take. */
    uint64_t lost;
    /* Where a partition ended when there was no more of it since it was sought; 0: not yet, or the
     * engine does not say. */
    uint64_t ended[GROUP_PARTITIONS_MAX];

    /* Of an engine that keeps positions. A commit that the group takes is its word that this is a
     * member, and none that it has put out: its partitions go to nobody for session_ns then. */
    uint64_t session_ns;
    uint64_t sent_ns;    /* the newest commit */
    uint64_t taken_ns;   /* when the newest that was taken had been sent; 0: none was */
    unsigned unanswered; /* commits, the first of them sent at sent_ns */
    bool refused;        /* one of them was not taken; for the reader of this to take back */
    /* Called within calls: a commit was answered, or (taking) partitions are about to be another's.
     * It may commit. May be NULL. */
    void (*turn)(void *context, bool taking);
    /* Of one that is numbered: as of struct group_options, from within its calls. */
    int (*number)(void *context, unsigned partition, struct group_numbers *numbers) MUST_USE;
    void *context;
};

struct shared_position {
    unsigned partition;
    uint64_t offset;
};

/* A message to write; of the driver's are only the last two. */
struct shared_message {
    unsigned partition;
    uint32_t n; /* records */
    struct buffer bytes;
    bool sent;
    bool delivered;
};

/* A message that was read; its bytes live until it is released. */
struct shared_delivery {
    unsigned partition;
    uint64_t offset;
    struct bytes bytes;
    void *owner; /* the driver's */
};

/* The driver of a URL, or NULL. */
const struct shared_driver *shared_driver_find(const struct service_url *url);
extern const struct shared_driver shared_kafka, shared_rabbitmq, shared_rabbitmq_queues,
    shared_redis;

#endif
