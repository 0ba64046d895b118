/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the shared store (tasks/shared.h) share.
 *
 *   shared.c   life, joining, positions, what there is to know
 *   apply.c    records into states; the table for workers
 *   queue.c    taking, giving back, leases: for runners
 *   watch.c    the thread that reads what is watched
 *   letters.c  dead letters: for workers, who keep them, and for the routes
 *   read.c     tasks, pages of them, idempotency keys: for the routes; the table for both
 *   scripts.c  what runs inside Redis
 *
 * (remote.c beside them is of the store that has a copy in a directory, and knows none of this.)
 */
#ifndef MILLRACE_TASKS_REDIS_INTERNAL_H
#define MILLRACE_TASKS_REDIS_INTERNAL_H

#include "base/arena.h"
#include "os/sync.h"
#include "redis/durable.h"
#include "redis/numbers.h"
#include "tasks/ids.h"
#include "tasks/redis/scripts.h"
#include "tasks/shared.h"
#include "tasks/state.h"

#include <stdatomic.h>

enum {
    LAYOUT_VERSION = 1,
    PARTITIONS_MAX = 64,
    POSITION_DIGITS = 20,
    ID_DIGITS = 32,
#ifdef MILLRACE_TINY
    LEASE_MS = 2000,
    WRITE_TIMEOUT_MS = 2000,
#else
    LEASE_MS = 10000,
    WRITE_TIMEOUT_MS = 10000,
#endif
    READ_TIMEOUT_MS = 3000,
    RUNNER_TIMEOUT_MS = 1000, /* its thread has workers to hear */
    DOWN_TIMEOUT_MS = 250,    /* while it is known that Redis does not answer */
    ARENA_BYTES_MAX = 256 << 20,
    KEY_TEXT_MAX = 192,
};

struct partition {
    _Atomic lsn_t applied;             /* as Redis said last */
    char reason[TASKS_SHARED_WHY_MAX]; /* of who applies it */
};

struct tasks_shared {
    struct os *os;
    struct tasks_shared_options options;
    struct redis_cluster *cluster;
    struct redis_script scripts[SCRIPTS];
    struct redis_script number; /* redis/numbers.h */
    char keys[KEYS][KEY_TEXT_MAX];
    char numbers[KEY_TEXT_MAX]; /* what the keys of a partition's numbers begin with */
    char url[SERVICE_TEXT_MAX];
    char identity[REDIS_IDENTITY_SIZE];    /* as joined; "": none */
    char runner[2 * sizeof(uint64_t) + 1]; /* by which Redis knows this process's */
    struct task_ids ids;
    struct tasks_listener *listener;
    struct buffer returned;   /* struct returned (queue.c): the runner's thread's */
    _Atomic uint64_t take_ns; /* the queue was empty: not asked again before; 0: at once */
    _Atomic uint64_t overtaken;
    _Atomic uint64_t ended[TASK_STATUSES]; /* applied here */
    _Atomic uint64_t deaths;
    struct os_thread *watcher;
    struct mutex lock; /* LOCK_RANK_TASK_STORE: what follows, but the partitions */
    struct condition wake;
    bool stopping;
    struct tasks_watch *watches;
    uint64_t watch_number;         /* of the newest */
    struct tasks_store_stats seen; /* by the last look */
    struct tasks_at_work at_work;
    struct partition partitions[PARTITIONS_MAX];
};

/* ---- shared.c ---- */

/* A call of a script: words, of which the first KEYS are the keys. */
struct call {
    struct arena arena;
    struct bytes *words;
    size_t n, n_max;
    struct redis_command command;
    bool failed; /* memory is out */
    char why[REDIS_WHY_MAX];
};
void call_init(struct call *c, struct tasks_shared *s, enum script script);
void call_deinit(struct call *c);
/* The bytes are borrowed until the call was run. */
void call_add(struct call *c, struct bytes word);
void call_add_text(struct call *c, const char *word);
void call_add_number(struct call *c, uint64_t number);
void call_add_position(struct call *c, lsn_t position);
void call_add_id(struct call *c, struct task_id id);
/* c->command.reply is there after 0. TASKS_E_UNAVAILABLE, -ENOMEM. */
int call_run(struct call *c, struct tasks_shared *s, bool durable, uint64_t timeout_ms) MUST_USE;
/* Several commands of one slot, in order: the same. */
int tasks_ask(struct tasks_shared *s, struct redis_command *commands, size_t n, bool durable,
              uint64_t timeout_ms, char why[REDIS_WHY_MAX]) MUST_USE;
/* How far the partition has come, on the replicas as well. TASKS_E_UNAVAILABLE, -ENOMEM. */
int tasks_ask_position(struct tasks_shared *s, unsigned partition, lsn_t *ret_lsn,
                       char why[REDIS_WHY_MAX]) MUST_USE;
/* A reply that no script of ours gives. */
int tasks_odd(char why[REDIS_WHY_MAX]) MUST_USE;

static inline struct bytes reply_text(const redisReply *reply) {
    return reply->type == REDIS_REPLY_STRING ? bytes_of(reply->str, reply->len) : (struct bytes){0};
}
static inline struct bytes key_of(const struct tasks_shared *s, enum key key) {
    return bytes_of_string(s->keys[key]);
}
void id_digits(struct task_id id, char out[ID_DIGITS + 1]);
bool id_of_digits(struct bytes digits, struct task_id *ret_id) MUST_USE;
bool position_of_digits(struct bytes digits, lsn_t *ret_position) MUST_USE;

/* ---- read.c ---- */

/* A task of its own: copies state and args (which may be empty: "{}"), and takes the progress, if
 * it is of this attempt. -EBADMSG, -ENOMEM. */
int tasks_hold(struct task_id id, struct bytes state, struct bytes args, struct bytes progress,
               struct task_ref *ret_ref) MUST_USE;

/* Reads up to READ_SOME tasks: two commands to be freed, whose replies have as many elements:
 * states and progress. TASKS_E_UNAVAILABLE. */
enum { READ_SOME = 256 };
int tasks_read_some(struct tasks_shared *s, const struct task_id *ids, size_t n,
                    struct redis_command commands[2]) MUST_USE;

/* ---- letters.c ---- */

/* To the arguments of a script: the field and the value of a record's letter; and, for one that was
 * rejected, how many of those there may be. */
void tasks_letter_add(struct call *c, unsigned partition, const struct journal_record *record,
                      const char *reason);
void tasks_letter_add_rejected(struct call *c, unsigned partition,
                               const struct journal_record *record, const char *reason);

/* ---- watch.c ---- */
int watch_start(struct tasks_shared *s) MUST_USE;
void watch_stop(struct tasks_shared *s);

/* ---- queue.c: of the table that read.c has ---- */
int shared_take(void *store, uint64_t now_us, size_t n, struct task_ref *ret_refs,
                size_t *ret_n) MUST_USE;
void shared_give_back(void *store, const struct task_ref *ref);
uint64_t shared_next_due_us(void *store);
int shared_renew(void *store, const struct tasks_at_work *at_work, struct tasks_renewal *renewals,
                 size_t n) MUST_USE;
int shared_each_expired(void *store, void (*each)(void *context, const struct task *task),
                        void *context) MUST_USE;
/* Something is ready that was not: the next take asks. */
void shared_wake(struct tasks_shared *s);

#endif
