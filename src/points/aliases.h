/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Other names of collections, which a cluster that keeps the points has given them: what was last
 * heard of those that are written by. Nothing of it is persisted: records carry collections, never
 * aliases, so that writes by either name are in one order.
 *
 *   ALIAS_FRESH_NS   a name holds so long without being asked for again
 *   ALIAS_HOLD_NS    and so long while somebody asks; a switch is noticed within that
 *
 * Thread-safe (LOCK_RANK_QDRANT_CLUSTER). Times are of the monotonic clock.
 */
#ifndef MILLRACE_POINTS_ALIASES_H
#define MILLRACE_POINTS_ALIASES_H

#include "os/sync.h"
#include "points/point.h"

#define ALIAS_FRESH_NS UINT64_C(1000000000)
#define ALIAS_HOLD_NS UINT64_C(5000000000)
enum { ALIASES_MAX = 64 }; /* one more takes the place of the one heard of longest ago */

struct points_alias {
    char name[POINT_NAME_MAX + 1];
    char collection[POINT_NAME_MAX + 1];
    uint64_t heard_ns;  /* when the question was begun whose answer this is */
    uint64_t asking_ns; /* when somebody was last told to ask */
};
struct points_aliases {
    struct mutex lock;
    uint64_t epoch; /* how often all was forgotten */
    size_t n;
    struct points_alias rows[ALIASES_MAX];
};
void points_aliases_init(struct points_aliases *a);
void points_aliases_deinit(struct points_aliases *a);

/* What the name stands for. False: the caller is to ask, as it is not known, or no longer. */
bool points_aliases_find(struct points_aliases *a, struct bytes name, uint64_t now_ns,
                         char ret_collection[POINT_NAME_MAX + 1]) MUST_USE;

/* To be taken before the cluster is asked: what it says counts only if nothing was forgotten since.
 */
struct points_alias_question {
    uint64_t epoch;
    uint64_t begun_ns;
};
struct points_alias_question points_aliases_ask(struct points_aliases *a, uint64_t now_ns);
/* collection "": the name is no alias. Both are at most POINT_NAME_MAX bytes. */
void points_aliases_learn(struct points_aliases *a, struct points_alias_question q,
                          struct bytes name, struct bytes collection);
/* There was no answer: what was heard before holds on. False: nothing was. */
bool points_aliases_keep(struct points_aliases *a, struct bytes name, uint64_t now_ns) MUST_USE;
/* Somebody may have changed them. */
void points_aliases_forget(struct points_aliases *a);

#endif
