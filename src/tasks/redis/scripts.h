/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What runs inside Redis: each script is atomic, and gets the same KEYS (enum key). They read
 * states at the places that tasks/state.c says.
 */
#ifndef MILLRACE_TASKS_REDIS_SCRIPTS_H
#define MILLRACE_TASKS_REDIS_SCRIPTS_H

#include "redis/cluster.h"

enum key {
    KEY_META,
    KEY_POSITIONS,
    KEY_STATES,
    KEY_ARGS,
    KEY_LISTS,
    KEY_READY,
    KEY_WAITING,
    KEY_CLAIMED,
    KEY_CLAIMS,
    KEY_LEASES,
    KEY_PROGRESS,
    KEY_COUNTS,
    KEY_ONCE,
    KEY_ENDED,
    KEY_LETTERS,
    KEY_NUMBERS,
    KEY_DEADLY,
    KEY_RUNNERS,
    KEYS,
};

enum script {
    SCRIPT_JOIN,
    SCRIPT_POSITION,
    SCRIPT_APPLY,
    SCRIPT_REJECT,
    SCRIPT_DROP,
    SCRIPT_TAKE,
    SCRIPT_GIVE_BACK,
    SCRIPT_RENEW,
    SCRIPT_EXPIRED,
    SCRIPT_CLAIM,
    SCRIPT_LOOK,
    SCRIPTS,
};
extern const char *const script_key_names[KEYS];
extern const char *const script_sources[SCRIPTS];

#endif
