/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tasks that many processes share, on a Redis: what is behind `--tasks redis://…` where the journal
 * has partitions. All of them is there, and nothing in a directory: states, the queue, leases,
 * progress, idempotency keys. redis/README.md tells the layout, and why each record has its effect
 * once.
 *
 *   records of a partition ─▶ transitions, here ─▶ one script: the new states, and the position,
 *                                                  if that is where it was when they were read
 *   runners ─▶ claim what is due ─▶ START ─▶ renew the lease, again and again
 *   API processes ─▶ read
 *
 *   open ─▶ join (what the keys mean, agreed) ─▶ position (of a partition that becomes ours) ─▶
 *   apply …
 *
 * Redis may be away at any time: calls say TASKS_E_UNAVAILABLE. Thread-safe, one apply a partition
 * at a time; every call may block for seconds, but those that say otherwise.
 */
#ifndef MILLRACE_TASKS_SHARED_H
#define MILLRACE_TASKS_SHARED_H

#include "base/service_url.h"
#include "journal/group.h"
#include "tasks/backend.h"
#include "work/work.h"

struct tasks_shared;

enum { TASKS_SHARED_WHY_MAX = 320 };

struct tasks_shared_options {
    const struct service_url *url; /* as tasks_redis_check_url (redis.h) has it. Borrowed */
    uint64_t queued_max;           /* as of the embedded store, about */
    uint64_t keep_ms;              /* likewise */
    uint64_t lease_ms;             /* 0: 10,000; the same for all processes */
    /* Told which settings of the server promise less than they could; may be NULL. */
    void (*tell)(void *context, const char *sentence);
    void *context;
};
/* Connects to nothing that would have to be there. TASKS_E_REFUSED: nothing can be made of the URL.
 */
int tasks_shared_open(struct os *os, const struct tasks_shared_options *options,
                      struct tasks_shared **ret_store, char why[TASKS_SHARED_WHY_MAX]) MUST_USE;
/* No call may be under way. Takes NULL. */
struct tasks_shared *tasks_shared_close(struct tasks_shared *s);

/* Agrees with Redis on what its keys mean. source names the journal whose lsns the positions are:
 * tasks of another are refused (NULL: it is not known yet), and so is another number of partitions.
 * create is false where it was joined before, and for who only reads: a Redis that knows nothing of
 * it is TASKS_E_NOT_FOUND. TASKS_E_UNAVAILABLE, TASKS_E_REFUSED; all with the sentence. */
int tasks_shared_join(struct tasks_shared *s, const char *source, bool create, unsigned partitions,
                      char why[TASKS_SHARED_WHY_MAX]) MUST_USE;
/* What joining said: by what a store that was made is known, and one that is emptied and made anew
 * is not; "" where it was not to be made, and is of a version that gave it none. */
const char *tasks_shared_identity(const struct tasks_shared *s);
/* Where to read a partition from, when it becomes ours. TASKS_E_UNAVAILABLE. */
int tasks_shared_position(struct tasks_shared *s, unsigned partition, lsn_t *ret_lsn) MUST_USE;

/* The numbers of a partition's messages, where those are its lsns (journal/group.h): as of struct
 * group_options. */
int tasks_shared_number(struct tasks_shared *s, unsigned partition,
                        struct group_numbers *numbers) MUST_USE;

/* Its context is the struct tasks_shared; lanes are partitions. What is applied is persisted. */
extern const struct work_store_ops tasks_shared_work_ops;

struct tasks_backend tasks_shared_backend(struct tasks_shared *s);
/* Its dead letters. What is written again is a record about the letter. */
struct letter_box tasks_shared_letter_box(struct tasks_shared *s);

/* ---- Watching ---- */

/* A task that somebody watches: all that are watched are read some times a second, together, by a
 * thread of the store ("tasks"), so that who watches does not wait. */
struct tasks_watch;
/* -ENOMEM. None of these blocks. */
int tasks_shared_watch(struct tasks_shared *s, struct task_id id,
                       struct tasks_watch **ret_watch) MUST_USE;
/* As it was when it was read last. TASKS_E_UNAVAILABLE: it was not yet, or could not be.
 * TASKS_E_NOT_FOUND; -EBADMSG, -ENOMEM. */
int tasks_shared_watched(struct tasks_shared *s, const struct tasks_watch *w,
                         struct task_ref *ret_ref) MUST_USE;
void tasks_shared_unwatch(struct tasks_shared *s, struct tasks_watch *w);

/* ---- What there is to know ---- */

/* Looks, for tasks_shared_stats and for whether the queue has room, and forgets some of what ended
 * long ago. Some times a minute at least, by every process. TASKS_E_UNAVAILABLE. */
int tasks_shared_look(struct tasks_shared *s) MUST_USE;
/* As of the last look; ended and deaths are what this process applied. Does not block. */
void tasks_shared_stats(struct tasks_shared *s, struct tasks_store_stats *ret_stats);
/* How many runners' workers there are, of all processes. As of the last look; does not block. */
void tasks_shared_runners(struct tasks_shared *s, struct tasks_at_work *ret_at_work);

struct tasks_shared_status {
    const char *url; /* without secrets; the store's */
    bool reachable;
    char reason[TASKS_SHARED_WHY_MAX]; /* unless it is reachable */
    uint64_t overtaken;                /* batches that began anew, as another had applied some */
};
/* Does not block. */
void tasks_shared_status(struct tasks_shared *s, struct tasks_shared_status *ret_status);

#endif
