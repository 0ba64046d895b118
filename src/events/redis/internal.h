/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of this room share: the store and its lanes.
 *
 *   store.c    life, joining, positions, status
 *   apply.c    records into buckets; the table for workers
 *   once.c     what came with an Idempotency-Key, and came before
 *   letters.c  dead letters, kept beside a lane's position
 *   read.c     profiles, aggregates, ids
 *   batch.c    from records to scripts; keys.c, scripts.c what they are made of
 *
 * A lane's `applied` is moved by whoever applies it, and by events_redis_positions; read by anyone.
 * The lock guards erasures, and is never held across a call of the cluster.
 */
#ifndef MILLRACE_EVENTS_REDIS_INTERNAL_H
#define MILLRACE_EVENTS_REDIS_INTERNAL_H

#include "events/erasures.h"
#include "events/redis.h"
#include "events/redis/keys.h"
#include "events/redis/scripts.h"
#include "os/sync.h"
#include "redis/durable.h"
#include "redis/numbers.h"

enum {
    PREFIX_MAX = 64,
    JOIN_TIMEOUT_MS = 2000,
    WRITE_TIMEOUT_MS = 10000,
    WRITE_DOWN_TIMEOUT_MS = 500, /* while it is known that something does not answer */
    READ_TIMEOUT_MS = 3000,
    READ_DOWN_TIMEOUT_MS = 250,
    ARENA_BYTES_MAX = 256 << 20,
};

struct lane {
    _Atomic lsn_t applied;
    _Atomic lsn_t persisted; /* as the cluster remembers */
    _Atomic lsn_t high;      /* as it was told: nothing of the lane above it was sent by anyone */
    atomic_bool ours;        /* its positions were asked for */
    atomic_bool numbered;    /* its messages were: what is applied does not come again */
    struct event_erasures *erasures;   /* NULL: there were none */
    char reason[EVENTS_REDIS_WHY_MAX]; /* of who applies it */
};

struct events_redis {
    struct os *os;
    struct redis_cluster *cluster;
    struct scripts scripts;
    char prefix[PREFIX_MAX + sizeof "events"]; /* the URL's, and what it is of */
    char url[SERVICE_TEXT_MAX];
    char owner[REDIS_TOKEN_SIZE];       /* of all lanes; "": processes share them */
    char identity[REDIS_IDENTITY_SIZE]; /* as joined; "": none */
    _Atomic unsigned n_lanes;           /* as joined; 0: not yet */
    struct work_letters letters;        /* of an owner */
    _Atomic uint64_t tags;
    _Atomic uint64_t scripts_run;
    _Atomic uint64_t overtaken;
    struct mutex lock;
    struct lane lanes[EVENTS_REDIS_LANES_MAX];
};

static inline bool redis_is_shared(const struct events_redis *s) {
    return !s->owner[0];
}

/* ---- store.c ---- */

/* redis_cluster_run, its results as this room's: 0, EVENTS_REDIS_E_DOWN, -ENOMEM. */
int redis_ask(struct events_redis *s, struct redis_command *commands, size_t n, bool durable,
              uint64_t timeout_ms, char why[EVENTS_REDIS_WHY_MAX]) MUST_USE;
uint64_t redis_write_timeout(struct events_redis *s);
/* For who waits for an answer to a request. */
uint64_t redis_read_timeout(struct events_redis *s);
/* Before anything of it is sent: tells the cluster that the lane of that number may come up to
 * high.
 */
int redis_announce(struct events_redis *s, unsigned number, lsn_t high,
                   char why[EVENTS_REDIS_WHY_MAX]) MUST_USE;
/* Of a lane whose messages are numbered here: tells the cluster that all up to what is applied is.
 */
int redis_settle(struct events_redis *s, unsigned number, char why[EVENTS_REDIS_WHY_MAX]) MUST_USE;
/* A reply that no server of ours gives: EVENTS_REDIS_E_DOWN, with the sentence. */
int redis_odd(char why[EVENTS_REDIS_WHY_MAX]) MUST_USE;
static inline struct bytes redis_text(const redisReply *reply) {
    return bytes_of(reply->str, reply->len);
}
/* A plain command of at most so many words; the first word behind its name is the key. */
enum { WORDS_MAX = 8 };
struct redis_command redis_plain(const struct bytes *words, size_t n);

/* ---- apply.c ---- */

/* Whether an erasure that is not applied yet hides the cookie. */
bool redis_is_hidden(struct events_redis *s, uint64_t key_hash);

/* ---- once.c ---- */

struct batch_item;
/* Leaves out the tags that came before, with the same key and body. EVENTS_REDIS_E_DOWN, -ENOMEM:
 * ask again. */
int redis_once_sift(struct events_redis *s, unsigned lane, struct arena *a,
                    struct batch_item *items, size_t *n, char why[EVENTS_REDIS_WHY_MAX]) MUST_USE;

/* ---- letters.c ---- */

/* Puts the record among the letters of the lane. WORK_LETTER_E_FULL. */
int redis_letters_keep(struct events_redis *s, unsigned lane, const struct journal_record *record,
                       const char *reason, char why[EVENTS_REDIS_WHY_MAX]) MUST_USE;
int redis_letters_remove(struct events_redis *s, unsigned lane, lsn_t letter, uint64_t key_hash,
                         char why[EVENTS_REDIS_WHY_MAX]) MUST_USE;
/* Whether the lane has it. */
int redis_letters_look(struct events_redis *s, unsigned lane, lsn_t letter, uint64_t key_hash,
                       bool *ret_there, char why[EVENTS_REDIS_WHY_MAX]) MUST_USE;
/* All of a key. */
int redis_letters_remove_all(struct events_redis *s, unsigned lane, uint64_t key_hash,
                             char why[EVENTS_REDIS_WHY_MAX]) MUST_USE;
/* Of an owner: the command that names a lane's letters, and its answer taken into the index. */
int redis_letters_ask(struct events_redis *s, struct arena *a, unsigned lane,
                      struct redis_command *ret_command) MUST_USE;
int redis_letters_take(struct events_redis *s, const redisReply *reply) MUST_USE;
/* As the tables of struct work_store_ops. */
struct work_letters *redis_letters_of(void *store);
int redis_letters_read(void *store, const lsn_t *lsns, size_t n,
                       void (*each)(void *context, const struct work_letter *letter),
                       void *context) MUST_USE;

#endif
