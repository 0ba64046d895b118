/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For implementers: somebody else's engine (Kafka, RabbitMQ, Redis) as the ground of the journal.
 * A driver keeps one **log**: messages in one order, each with a position that grows. What they
 * hold, lsns, groups, retries, the window and retention is the business of remote/, the same for
 * all drivers; a driver connects, appends, reads and trims, and knows nothing of records.
 *
 *   journal ──▶ remote/ ──messages──▶ driver ──▶ the engine
 *      ▲ window, lsns     │              │ append: returns once they are durable as the engine
 *      └──────────────────┘◀── reader ───┘         promises it (journal/README.md has the table)
 *
 * One owner. From open on nobody else appends to the log: an earlier owner that still runs, or
 * wakes after a pause, is refused by the engine itself (a fence), whatever it has in flight.
 * LOG_E_FENCED says that this process is the one that was put out: it is final.
 *
 * Threads: append, trim and close belong to one thread at a time; each reader to one, and readers
 * work beside everything else. All calls block, and none for longer than about timeout_ms of the
 * options: then LOG_E_UNAVAILABLE.
 *
 * Errors: LOG_E_… with a sentence in log_why(), -ENOMEM. A driver reconnects by itself, inside the
 * next call. One test suite runs against every driver: test_driver.c.
 */
#ifndef MILLRACE_JOURNAL_DRIVER_H
#define MILLRACE_JOURNAL_DRIVER_H

#include "base/bytes.h"
#include "base/error.h"
#include "base/service_url.h"
#include "os/os.h"

enum {
    _LOG_E_SUCCESS,
    LOG_E_UNAVAILABLE, /* not now: not reachable, no leader, overloaded. Try again later */
    LOG_E_REFUSED,     /* it will go no better the next time: a wrong option, no right, too large */
    LOG_E_FENCED,      /* another process has taken the log over */
    LOG_E_END,         /* nothing there to read */
    LOG_E_UNKNOWN,     /* of shared logs: what was sent may be there or not, for good */
};

enum { LOG_HEAD_BYTES = 48, LOG_WHY_MAX = 256 };

/* A message to append: head and body one behind the other; borrowed during the call. */
struct log_message {
    uint64_t lsn;  /* of its last record. Messages come in the order of (lsn, part), */
    uint32_t part; /* so an engine may make its ids of the two */
    uint8_t head[LOG_HEAD_BYTES];
    struct bytes body;
};

struct log_options {
    const struct service_url *url; /* borrowed until close; its parameters are the driver's */
    const char *name;              /* of a shared log; NULL: of one with one owner. Static */
    uint64_t timeout_ms;           /* of one call */
    bool existing; /* of a shared log that is written: nothing is made. LOG_E_END: there is none */
    /* Told, during open, of settings of the engine that are weaker than its row of the table; may
     * be NULL. */
    void (*warn)(void *context, const char *sentence);
    void *context;
};

/* What a driver's structs begin with. */
struct log {
    const struct log_driver *driver;
    char why[LOG_WHY_MAX]; /* why the last call of append, trim or open failed */
};
struct log_reader {
    const struct log_driver *driver;
    char why[LOG_WHY_MAX];
};

struct log_driver {
    const char *const *schemes; /* of URLs, NULL behind the last */
    const char *const
        *parameters; /* that its URLs may have, NULL behind the last; open refuses others */
    size_t message_bytes_max; /* head and body together */

    /* Whether open would refuse the URL; connects to nothing. LOG_E_REFUSED, with the sentence. */
    int (*check)(const struct service_url *url, char why[LOG_WHY_MAX]) MUST_USE;

    /* Connects, makes what is missing (topic, stream), checks the engine's settings and becomes the
     * owner. *ret_log is set, for its `why` and for close, also when this fails; NULL: -ENOMEM. */
    int (*open)(struct os *os, const struct log_options *options, struct log **ret_log) MUST_USE;
    /* Ends ownership. Takes no failure: what it can't do in time it leaves. */
    void (*close)(struct log *l);

    /* Appends n ≥ 1 messages, in order, and returns once all are durable; fills ret_positions[n].
     * After LOG_E_UNAVAILABLE nothing is known of them: some, all or none may be there, or come to
     * be. The caller then appends the same again, beginning with the same message, until it
     * succeeds: messages may so be in the log twice (a reader leaves out what it has seen), but
     * never one before another that it follows. */
    int (*append)(struct log *l, const struct log_message *messages, size_t n,
                  uint64_t *ret_positions) MUST_USE;
    /* Called every second or so, by the thread that appends, also when nothing is appended. NULL:
     * the driver needs no such thing. */
    void (*tick)(struct log *l);
    /* What lies before position may go, as far as the engine can (a stream with a bound of size
     * cannot: 0). */
    int (*trim)(struct log *l, uint64_t position) MUST_USE;
    /* Appends the newest message there is to out, once this process is the owner. LOG_E_END: the
     * log is empty (or was trimmed to nothing). */
    int (*last)(struct log *l, struct buffer *out, uint64_t *ret_position) MUST_USE;
    /* Bytes that the engine may keep at most, when it drops the oldest by itself; 0: no bound. */
    uint64_t (*bound)(const struct log *l);

    /* A reader whose first message is the first at or after position (0: the oldest there is).
     * Connects with its first read. */
    int (*reader_new)(struct log *l, uint64_t position, struct log_reader **ret_reader) MUST_USE;
    /* The next message, head and body in one piece, valid until the next call. LOG_E_END: no more
     * came within wait_ms. LOG_E_UNAVAILABLE: the reader goes on where it was, once that is over.
     */
    int (*read)(struct log_reader *r, uint64_t wait_ms, struct bytes *ret_message,
                uint64_t *ret_position) MUST_USE;
    /* Takes NULL. */
    void (*reader_free)(struct log_reader *r);
};

/* The driver of a scheme, or NULL. */
const struct log_driver *log_driver_find(struct bytes scheme);
extern const struct log_driver log_kafka, log_redis, log_rabbitmq;
extern const char log_no_driver[]; /* the sentence when there is none */

/* For drivers: log_fail(why, result, format, …) writes the sentence, and is result. (A macro, so
 * that analyzers see what is returned.) */
#define log_fail(why, result, ...) (log_say((why), __VA_ARGS__), (result))
/* The log has another number of partitions than the URL says. */
#define log_refuse_partitions(why, log, has, asked, prefix)                                        \
    log_fail(why, LOG_E_REFUSED,                                                                   \
             "the journal %.100s has %u partitions, not %u: give partitions=%u in its URL, or "    \
             "another " prefix " for a new journal",                                               \
             log, has, asked, has)
void log_say(char why[LOG_WHY_MAX], const char *format, ...) PRINTF_LIKE(2, 3);

#endif
