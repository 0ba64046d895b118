/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Few things that all processes of a shared journal keep together, beside it: bytes by a key, of
 * which the newest value counts. It is a compacted log of one partition: who reads it follows it
 * from where he was, remembers where each value lies, and gets those that he wants.
 *
 *   put ─▶ log ─follow─▶ keys and offsets of the values, in order ─get─▶ some values
 *
 * Thread-safe, one put at a time; each call blocks for a few times the timeout at most, or as long
 * as there is more to be followed.
 */
#ifndef MILLRACE_JOURNAL_KEPT_H
#define MILLRACE_JOURNAL_KEPT_H

#include "base/service_url.h"
#include "journal/group.h"

struct kept;
struct kept_options {
    const struct service_url *url; /* of the journal; borrowed until close */
    const char *name;              /* of the log, behind the prefix; static */
    uint64_t timeout_ms;           /* of a call of the engine; 0: 5,000 */
    bool existing;                 /* the log is not made: as if it were empty */
};
enum {
    _KEPT_E_SUCCESS,
    KEPT_E_ANEW = 270, /* the log was made anew */
};
/* What was removed from the log because its key has a newer value may be gone for good so soon, the
 * newer one too if it is empty: who follows begins anew when he was away for as long. */
enum { KEPT_REMOVED_MS = 24 * 60 * 60 * 1000 };

/* Connects to nothing. JOURNAL_E_REFUSED: why says it; -ENOMEM. */
int kept_open(struct os *os, const struct kept_options *options, struct kept **ret_kept,
              char why[GROUP_WHY_MAX]) MUST_USE;
/* No call may be under way. Takes NULL. */
struct kept *kept_close(struct kept *k);

/* Durable at its return; an empty value takes the key away. JOURNAL_E_UNAVAILABLE, _REFUSED with
 * why: it may be there all the same, and is to be put again. */
int kept_put(struct kept *k, struct bytes key, struct bytes value,
             char why[GROUP_WHY_MAX]) MUST_USE;

struct kept_message {
    uint64_t offset;
    struct bytes key;
    struct bytes value; /* empty: the key is taken away */
};
typedef void kept_each(void *context, const struct kept_message *message);
/* Calls each for all from *at on, in order, up to the end that there is by now; what it is given is
 * valid during the call. *at is behind what it was called for, also after a failure; it begins with
 * 0. JOURNAL_E_UNAVAILABLE, _REFUSED with why; KEPT_E_ANEW: there is less than that. */
int kept_follow(struct kept *k, uint64_t *at, kept_each *each, void *context,
                char why[GROUP_WHY_MAX]) MUST_USE;
/* Calls each for those of n messages, by their offsets, ascending, that are still there. As
 * kept_follow. */
int kept_get(struct kept *k, const uint64_t *offsets, size_t n, kept_each *each, void *context,
             char why[GROUP_WHY_MAX]) MUST_USE;

#endif
