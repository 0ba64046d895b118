/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What runs inside the cluster: a script a kind of change, each atomic, each on keys of one slot.
 * A number of Lua is a double: so positions are texts of a fixed number of digits (keys.h), and
 * sums are added in halves. A script that finds its work done writes the position again, so that
 * WAIT waits for what was done before.
 *
 * The two that apply take a range of a lane, (from, last]. The bucket may have less than `from`, as
 * none of the lane's records before it were for this bucket; when it has more, nothing is changed,
 * and the answer is how much: the range is then to be combined anew, from there.
 */
#ifndef MILLRACE_EVENTS_REDIS_SCRIPTS_H
#define MILLRACE_EVENTS_REDIS_SCRIPTS_H

#include "redis/cluster.h"

struct scripts {
    struct redis_script cookies;
    struct redis_script minute;
    struct redis_script join; /* the hash of what the keys mean */
    struct redis_script lane; /* what is known of a lane */
    struct redis_script position;
    struct redis_script id;
    struct redis_script once;   /* which of a lane's tags with a key are the first */
    struct redis_script claim;  /* the body that a key is for */
    struct redis_script keep;   /* a letter */
    struct redis_script forget; /* one */
    struct redis_script number; /* redis/numbers.h */
};
extern const char script_cookies[], script_minute[], script_join[], script_lane[],
    script_position[], script_id[], script_once[], script_claim[], script_keep[], script_forget[];

#endif
