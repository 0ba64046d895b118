/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Few things that all processes of a shared journal keep together, beside it: bytes by a key, of
 * which the newest value counts. It is a compacted log of one partition, so all of it is read to
 * know one: for what is looked at seldom, as dead letters are.
 *
 * Thread-safe, one call at a time; each blocks for a few times the timeout at most.
 */
#ifndef MILLRACE_JOURNAL_KEPT_H
#define MILLRACE_JOURNAL_KEPT_H

#include "base/service_url.h"
#include "journal/group.h"

enum { KEPT_BYTES_MAX = 64 << 20 }; /* of all that is read, also what newer values have replaced */

struct kept;
struct kept_options {
    const struct service_url *url; /* of the journal; borrowed until close */
    const char *name;              /* of the log, behind the prefix; static */
    uint64_t timeout_ms;           /* of a call of the engine; 0: 5,000 */
};
/* Connects to nothing. JOURNAL_E_REFUSED: why says it; -ENOMEM. */
int kept_open(struct os *os, const struct kept_options *options, struct kept **ret_kept,
              char why[GROUP_WHY_MAX]) MUST_USE;
/* No call may be under way. Takes NULL. */
struct kept *kept_close(struct kept *k);

/* Durable at its return; an empty value takes the key away. JOURNAL_E_UNAVAILABLE, _REFUSED with
 * why: it may be there all the same, and is to be put again. */
int kept_put(struct kept *k, struct bytes key, struct bytes value,
             char why[GROUP_WHY_MAX]) MUST_USE;
/* Calls each for every key that is there, with its value, in no order; both are valid during the
 * call. JOURNAL_E_UNAVAILABLE, _REFUSED with why; JOURNAL_E_TOO_LARGE: there are more than
 * KEPT_BYTES_MAX; -ENOMEM. */
int kept_read(struct kept *k, void (*each)(void *context, struct bytes key, struct bytes value),
              void *context, char why[GROUP_WHY_MAX]) MUST_USE;

#endif
