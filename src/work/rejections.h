/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The newest rejections, so that whoever waits for a write (wait=true) can be told that its record
 * was rejected and why. A ring of fixed size, one a struct work; the dead letters themselves are
 * the store's. Thread-safe, with a lock of its own (LOCK_RANK_WORK_REJECTIONS).
 */
#ifndef MILLRACE_WORK_REJECTIONS_H
#define MILLRACE_WORK_REJECTIONS_H

#include "journal/journal.h"
#include "os/sync.h"

#include <stdatomic.h>

enum { REJECTIONS_MAX = 1024, REJECTION_REASON_SIZE = 248 };

struct rejections {
    struct mutex lock;
    uint64_t n;                 /* so far; the newest stand in the ring */
    _Atomic lsn_t newest;       /* the highest lsn among them: most questions end here */
    lsn_t lsns[REJECTIONS_MAX]; /* 0: no entry */
    char (*reasons)[REJECTION_REASON_SIZE];
};

/* -ENOMEM */
int rejections_init(struct rejections *r) MUST_USE;
void rejections_deinit(struct rejections *r);
/* Remembers it, cut at REJECTION_REASON_SIZE; the oldest entry goes. */
void rejections_add(struct rejections *r, lsn_t lsn, const char *reason);
/* Copies the reason of the first record rejected in first … last, cut at size. */
bool rejections_find(struct rejections *r, lsn_t first, lsn_t last, char *reason, size_t size);

#endif
