/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dead letters of a store that processes share and that keeps none itself: in a log beside the
 * journal (journal/kept.h), which any of them reads. What becomes of a letter is no record in the
 * journal here, as no process would be the one to apply it: it is taken away there.
 *
 * A letter is known by its number, which is that of its record's lsn and partition together.
 *
 * Thread-safe; each call blocks as those of kept.h do.
 */
#ifndef MILLRACE_WORK_KEPT_LETTERS_H
#define MILLRACE_WORK_KEPT_LETTERS_H

#include "journal/kept.h"
#include "work/letters.h"

struct kept_letters;
/* Of the journal of that name: its log is the name and "-dead-letters". JOURNAL_E_REFUSED: why says
 * it; -ENOMEM. */
int kept_letters_open(struct os *os, const struct service_url *url, const char *name,
                      struct kept_letters **ret_letters, char why[GROUP_WHY_MAX]) MUST_USE;
/* Takes NULL. */
struct kept_letters *kept_letters_close(struct kept_letters *l);

/* Durable at its return; once more is harmless. As kept_put. */
int kept_letters_keep(struct kept_letters *l, unsigned partition,
                      const struct journal_record *record, const char *reason) MUST_USE;
/* Harmless when it is not there. As kept_put. */
int kept_letters_drop(struct kept_letters *l, lsn_t number, char why[GROUP_WHY_MAX]) MUST_USE;

/* Reads what there is, for the two below, which know no more than this. As kept_read. */
int kept_letters_refresh(struct kept_letters *l, char why[GROUP_WHY_MAX]) MUST_USE;
/* As of struct work_store_ops: the lsns are numbers. */
struct work_letters *kept_letters_index(struct kept_letters *l);
int kept_letters_read(struct kept_letters *l, const lsn_t *numbers, size_t n,
                      void (*each)(void *context, const struct work_letter *letter),
                      void *context) MUST_USE;

#endif
