/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Idempotency keys: a request that carries one has its effect once, however often it is sent. The
 * key is decided together with the append: one EVENT_ONCE record stands in the same group as what
 * the request writes, so a crash leaves both or neither. A batch is one group too, so a key stands
 * for all its lines.
 *
 *   unknown ──append──▶ kept (with the group's lsns and a hash of the body) ──24 h──▶ forgotten
 *
 * The same key again: the same body waits for the same lsn and gets the same answer; another body
 * is refused. Keys are kept 24 h of wall-clock time from their record, at most keys_max of them,
 * and at most what the budget's part has room for; past it EVENTS_E_FULL, never forgetting one
 * early.
 *
 * Thread-safe, one lock (LOCK_RANK_EVENT_ONCE), held across decision and append. Owned by serve.
 */
#ifndef MILLRACE_EVENTS_ONCE_H
#define MILLRACE_EVENTS_ONCE_H

#include "events/dictionary.h"
#include "os/os.h"

enum { EVENT_ONCE_KEY_MAX = 255, EVENT_ONCE_HOURS = 24, EVENT_ONCE_BODY = 24 };

struct event_once;
struct event_once_options {
    uint64_t keys_max;
    struct budget *budget; /* they are counted in; NULL: none */
};
int event_once_new(struct os *os, const struct event_once_options *options,
                   struct event_once **ret_once) MUST_USE;
struct event_once *event_once_free(struct event_once *o);

/* What a key stands for. */
struct event_once_entry {
    uint8_t key[16];    /* a 128-bit hash of route and key */
    uint64_t body_hash; /* of the decoded body */
    uint64_t wall_us;   /* of its record */
    lsn_t first;        /* of the group it stands in, its own record included; 0, 0 when it is of */
    lsn_t last;         /* an earlier life of the process: durable for long */
};

enum event_once_decision {
    EVENT_ONCE_NEW,   /* the caller appends under the lock, then says so */
    EVENT_ONCE_AGAIN, /* known with this body: wait for ret_entry's last lsn, answer the same */
    EVENT_ONCE_OTHER, /* known with another body: 422 */
};
/* Decides. After EVENT_ONCE_NEW the lock is held until event_once_end: entry's body
 * (event_once_encode) goes into the group. EVENTS_E_FULL. */
int event_once_begin(struct event_once *o, struct bytes route, struct bytes key, uint64_t body_hash,
                     enum event_once_decision *ret_decision,
                     struct event_once_entry *ret_entry) MUST_USE;
/* appended: the group's lsns are in entry and it is kept; else nothing happened. */
void event_once_end(struct event_once *o, const struct event_once_entry *entry, bool appended);

/* What a key stands for when its records are told apart by who applies them (redis.h): the key, and
 * the hash of the body. Only hashes; -ENOMEM. */
int event_once_describe(struct bytes route, struct bytes key, uint64_t body_hash,
                        struct event_once_entry *ret_entry) MUST_USE;

/* The body of an EVENT_ONCE record: EVENT_ONCE_BODY bytes. */
void event_once_encode(struct buffer *out, const struct event_once_entry *entry);
/* Applies an EVENT_ONCE record; what is known changes nothing. -EPROTO. */
int event_once_replay(struct event_once *o, lsn_t lsn, uint64_t wall_us,
                      struct bytes body) MUST_USE;

/* ---- For the checkpoint ---- */
/* Entries are numbered from 0 in the order in which they came, and forgotten in that order. Calls
 * each for every entry from the one numbered `from` on, while its lsn is at most upto; ret_next is
 * the number of the one after the last. Stops at what each returns, if it is not 0. */
int event_once_each(struct event_once *o, uint64_t from, lsn_t upto,
                    int (*each)(void *context, const struct event_once_entry *entry), void *context,
                    uint64_t *ret_next) MUST_USE;
/* An entry as each gave it, in any order, before anything else is done with it. */
int event_once_restore(struct event_once *o, const struct event_once_entry *entry) MUST_USE;
/* Forgets what is too old; each is told, so that it can be deleted from disk too. */
void event_once_expire(struct event_once *o, void (*each)(void *context, const uint8_t key[16]),
                       void *context);
uint64_t event_once_size(struct event_once *o);

#endif
