/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A Redis Cluster that keeps the events: what is behind `--events redis+cluster://…`. The same
 * profiles, aggregates and ids as the embedded store's (store.h), and nothing of them in the data
 * directory: no dictionary, no files. events/redis/README.md tells the layout and which
 * promise holds where; in short:
 *
 *   records of a lane ─▶ dealt to buckets, combined ─▶ a script a bucket ─▶ the lane has come up to
 *                                    ▲                        │             here: applied
 *                                    └── dropped what it has ─┘ "I have more than you think"
 *
 * Every bucket keeps a position a lane, moved by the same script that changes its data: whatever is
 * sent again, by whomever, has its effect once. A lane is any sequence of records whose lsns only
 * grow: a lane of struct work, or a partition of a log that several processes share. The store
 * depends on nothing else, so a process needs no journal and no data directory to use it.
 *
 *   open ─▶ join (what the cluster is, agreed) ─▶ positions (of the lanes that are ours) ─▶ apply …
 *
 * The cluster may be away at any time: calls say EVENTS_REDIS_E_DOWN, with a sentence. Thread-safe,
 * one apply a lane at a time; every call may block for seconds.
 */
#ifndef MILLRACE_EVENTS_REDIS_H
#define MILLRACE_EVENTS_REDIS_H

#include "base/arena.h"
#include "base/service_url.h"
#include "events/store.h"
#include "journal/group.h"
#include "work/work.h"

struct events_redis;

enum {
    EVENTS_REDIS_WHY_MAX = 320,
    EVENTS_REDIS_LANES_MAX = 1024,
#ifdef MILLRACE_TINY
    EVENTS_REDIS_BATCH = 5,
#else
    EVENTS_REDIS_BATCH = 2048, /* records at a time: what is of one bucket is combined */
#endif
};
enum {
    _EVENTS_REDIS_E_SUCCESS,
    EVENTS_REDIS_E_DOWN = 260, /* no answer: the sentence says why */
    EVENTS_REDIS_E_REFUSED,    /* it will not have it, ever: another's, another layout */
    EVENTS_REDIS_E_FULL,       /* a collection has no ids left */
    EVENTS_REDIS_E_NONE,       /* there are none under the prefix, and none are to be made */
};

/* ---- Life ---- */

struct events_redis_options {
    /* redis+cluster://HOST,HOST/?replicas=1&prefix=millrace-, and what redis/cluster.h takes else.
     * Borrowed until close. */
    const struct service_url *url;
    /* All lanes are applied by this process alone, which puts another that applies them out when it
     * asks for their positions: that is DOWN from then on. */
    bool alone;
    /* Told which settings of the cluster promise less than they could, by a thread of its own;
     * NULL: nobody. */
    void (*tell)(void *context, const char *sentence);
    void *context;
};
/* Connects to nothing that would have to be there. EVENTS_REDIS_E_REFUSED: nothing can be made of
 * the URL. */
int events_redis_open(struct os *os, const struct events_redis_options *options,
                      struct events_redis **ret_store, char why[EVENTS_REDIS_WHY_MAX]) MUST_USE;
/* No call may be under way. Takes NULL. */
struct events_redis *events_redis_close(struct events_redis *s);

/*
 * Agrees with the cluster on what its keys mean, or says so in a new one. source names the log
 * whose lsns the positions are, and is kept: records of another would be taken for old ones, so a
 * store of another is refused. create is false where it was joined before, and for who only
 * reads: a cluster that knows nothing of it is EVENTS_REDIS_E_NONE. *lanes is how many there should
 * be in a new one, and becomes how many it was made with; who deals by another number must see to
 * each key's order himself. EVENTS_REDIS_E_DOWN, _REFUSED.
 */
int events_redis_join(struct events_redis *s, const char *source, bool create, unsigned *lanes,
                      char why[EVENTS_REDIS_WHY_MAX]) MUST_USE;
/* Who has not joined yet, and makes nothing: whether it could, whatever log it has. *ret_lanes is
 * how many there are. EVENTS_REDIS_E_DOWN, _REFUSED, _NONE. */
int events_redis_look(struct events_redis *s, unsigned *ret_lanes,
                      char why[EVENTS_REDIS_WHY_MAX]) MUST_USE;
/* What joining said. */
unsigned events_redis_lanes(const struct events_redis *s);
/* Likewise: by what a store that was made is known, and one that is emptied and made anew is not;
 * "" where it was not to be made, and is of a version that gave it none. */
const char *events_redis_identity(const struct events_redis *s);
/* How far each of n lanes from `first` on has come: all that is at or below has had its effect.
 * Where to read from, at a start and whenever a lane becomes ours. EVENTS_REDIS_E_DOWN, -ENOMEM. */
int events_redis_positions(struct events_redis *s, unsigned first, unsigned n, lsn_t *ret_positions,
                           char why[EVENTS_REDIS_WHY_MAX]) MUST_USE;

/* The numbers of a lane's messages, where those are its lsns (journal/group.h): as of struct
 * group_options. What is applied of the lane is then persisted when apply returns. */
int events_redis_number(struct events_redis *s, unsigned lane,
                        struct group_numbers *numbers) MUST_USE;

/* ---- Writing ---- */

/* Its context is the struct events_redis. apply: all n records, or a prefix of them, or none;
 * retry and down when the cluster does not answer, and what it did of them all the same is noticed
 * the next time. With replicas in the URL, what is applied is on that many of them. Rejected are
 * records that are none, or are meant for the embedded store. */
extern const struct work_store_ops events_redis_work_ops;
/* Has the cluster remember how far the lanes have come, which apply does as well, a batch late: so
 * a start does not read more than it need, and journal may go. EVENTS_REDIS_E_DOWN: it remembers
 * what it did. */
int events_redis_checkpoint(struct events_redis *s) MUST_USE;
/* What it remembers. */
lsn_t events_redis_persisted(const struct events_redis *s, unsigned lane);
/* No bucket has seen a larger lsn of the lanes that are ours: where a log that gives lsns itself,
 * and may have lost its newest, must go on above. */
lsn_t events_redis_highest(const struct events_redis *s);

/* The letters of lanes that processes share; of one that applies all lanes its own index has them,
 * as events_redis_work_ops says. What is written again is a record about the letter. */
struct letter_box events_redis_letter_box(struct events_redis *s);

/* As events_store_takes_erasure and _erased, for a process that applies all lanes, by the number
 * that events_redis_join said. An erasure in a lane that is not ours, whose positions were not
 * asked for, hides nothing: who must not be seen from the answer on is then waited for. */
bool events_redis_takes_erasure(struct events_redis *s, uint64_t key_hash);
void events_redis_erased(struct events_redis *s, uint64_t key_hash, lsn_t lsn);

/* ---- Reading, from any process ---- */

/* Tags of one action, newest first: FULL_TAGs without their cookie. */
struct events_redis_list {
    struct event_record *tags;
    size_t n;
};
struct events_redis_profile {
    struct events_redis_list lists[EVENT_ACTIONS];
    struct arena *arena; /* borrowed: what the tags and their texts are allocated from */
};
/* As events_store_profile. EVENTS_REDIS_E_DOWN, -ENOMEM; -EBADMSG: what is there is no tag. */
int events_redis_profile(struct events_redis *s, struct bytes cookie, int64_t from_ms,
                         int64_t to_ms, size_t limit, struct events_redis_profile *ret_profile,
                         char why[EVENTS_REDIS_WHY_MAX]) MUST_USE;

struct events_redis_query {
    int64_t first_minute;
    unsigned minutes; /* 0 to EVENT_RANGE_MINUTES_MAX */
    enum event_action action;
    bool filtered[EVENT_FILTERS];
    struct bytes filters[EVENT_FILTERS];
};
/* Fills out[minutes]. EVENTS_REDIS_E_DOWN, -ENOMEM. */
int events_redis_aggregate(struct events_redis *s, const struct events_redis_query *query,
                           struct event_aggregate *out, char why[EVENTS_REDIS_WHY_MAX]) MUST_USE;

/* Whether the key is for this body, of which the cluster remembers the first for 24 hours. Asked
 * before tags with the key are appended (event_record_encode_once_head); which of them have come
 * before, apply finds out. EVENTS_REDIS_E_DOWN, -ENOMEM: who knows. */
int events_redis_claim(struct events_redis *s, const struct event_once_entry *entry,
                       bool *ret_is_ours, char why[EVENTS_REDIS_WHY_MAX]) MUST_USE;

/* The id of an element, durable in the cluster; 0: there is none, and it was not to be created.
 * EVENTS_REDIS_E_DOWN: it may have been created; EVENTS_REDIS_E_FULL, -ENOMEM. */
int events_redis_id(struct events_redis *s, struct bytes collection, struct bytes element,
                    bool create, uint32_t *ret_id, char why[EVENTS_REDIS_WHY_MAX]) MUST_USE;

/* ---- What there is to know ---- */

struct events_redis_status {
    const char *url;                   /* without secrets; the store's */
    bool reachable;                    /* all of it */
    char reason[EVENTS_REDIS_WHY_MAX]; /* unless it is reachable */
    unsigned masters;
    uint64_t tags;      /* applied by this process */
    uint64_t scripts;   /* that changed a bucket */
    uint64_t overtaken; /* answered that the bucket has more: what it has was left out */
};
void events_redis_status(struct events_redis *s, struct events_redis_status *ret_status);

#endif
