/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which store the records of a shared journal go to. A store knows its journal, by the source of
 * its positions; the other way the journal has a **mark** beside its log: a text by which its store
 * is known, left there by whoever comes first, for good. Everybody else compares it with his own:
 * who took records into another store would take them from the right one.
 *
 *   the log is there ─▶ look: no mark ─▶ the store may be made ─────▶ leave: ours, or, of two who
 *                          └─ a mark ──▶ the store must be there ──┘  come first, the other's
 *
 * A log that was used before it had marks gets one in the same way. Nobody takes one away but an
 * operator, who finds it where `place` says.
 *
 * Any thread; a connection for the one call, which blocks for a few times the timeout at most.
 */
#ifndef MILLRACE_JOURNAL_MARK_H
#define MILLRACE_JOURNAL_MARK_H

#include "journal/group.h"

enum { JOURNAL_MARK_MAX = 320, JOURNAL_PLACE_MAX = 224 };

struct journal_mark {
    bool there;                    /* there is one */
    bool ours;                     /* it is the text */
    char text[JOURNAL_MARK_MAX];   /* what it is, as far as the engine says it; "": it does not */
    char place[JOURNAL_PLACE_MAX]; /* what it is to the engine: "the topic millrace-events-store" */
};

struct journal_mark_options {
    const struct service_url *url; /* of a journal that was opened */
    const char *name;              /* as journal_options has it */
    uint64_t timeout_ms;           /* of a call of the engine; 0: 5,000 */
};
/* Leaves the text, unless there is a mark; NULL only looks, and makes nothing. Durable at its
 * return. JOURNAL_E_UNAVAILABLE: it may be there all the same, and is to be left again;
 * JOURNAL_E_REFUSED: both with why. -ENOMEM. */
int journal_mark(struct os *os, const struct journal_mark_options *options, const char *text,
                 struct journal_mark *ret_mark, char why[GROUP_WHY_MAX]) MUST_USE;

#endif
