/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dead letters of a store that processes share and that keeps none itself: in a log beside the
 * journal (journal/kept.h), which any of them reads. What becomes of a letter is no record in the
 * journal here, as no process would be the one to apply it: it is taken away there.
 *
 * Of the letters a process knows where they lie (32 bytes each), and reads those that are shown.
 * There is a bound on how many there are, and on their bytes; of several workers each may go past
 * it by what it keeps within a second.
 *
 * Thread-safe; each call blocks as those of kept.h do.
 */
#ifndef MILLRACE_WORK_KEPT_LETTERS_H
#define MILLRACE_WORK_KEPT_LETTERS_H

#include "journal/kept.h"
#include "work/letters.h"

enum {
#ifdef MILLRACE_TINY
    KEPT_LETTERS_MAX = 50,
    KEPT_LETTERS_BYTES_MAX = 1 << 20,
#else
    KEPT_LETTERS_MAX = 10000,
    KEPT_LETTERS_BYTES_MAX = 64 << 20,
#endif
};

struct kept_letters;
/* Of the journal of that name: its log is the name and "-dead-letters". JOURNAL_E_REFUSED: why says
 * it; -ENOMEM. */
int kept_letters_open(struct os *os, const struct service_url *url, const char *name, bool existing,
                      struct kept_letters **ret_letters, char why[GROUP_WHY_MAX]) MUST_USE;
/* Takes NULL. */
struct kept_letters *kept_letters_close(struct kept_letters *l);

/* Durable at its return; once more is harmless. WORK_LETTER_E_FULL; JOURNAL_E_UNAVAILABLE,
 * _REFUSED; -ENOMEM. */
int kept_letters_keep(struct kept_letters *l, unsigned partition,
                      const struct journal_record *record, const char *reason) MUST_USE;
/* For who shows them. What is written again is the record anew. */
struct letter_box kept_letters_box(struct kept_letters *l);

#endif
