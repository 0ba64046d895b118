/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ring of the newest rejections. The lsns stand apart from the reasons, so that a search reads 8
 * KiB and not the whole ring; and a question about lsns above every rejection, which is nearly
 * every question, takes no lock.
 */
#include "work/rejections.h"

#include <errno.h>
#include <stdlib.h>

int rejections_init(struct rejections *r) {
    char(*reasons)[REJECTION_REASON_SIZE] = calloc(REJECTIONS_MAX, sizeof *reasons);
    if (!reasons)
        return error_origin(-ENOMEM);
    *r = (struct rejections){.reasons = reasons};
    mutex_init(&r->lock, LOCK_RANK_WORK_REJECTIONS);
    return 0;
}

void rejections_deinit(struct rejections *r) {
    if (!r->reasons)
        return;
    mutex_deinit(&r->lock);
    free(r->reasons);
    r->reasons = NULL;
}

/* Copies text, cut at size, always NUL-terminated. */
static void copy_cut(char *out, size_t size, const char *text) {
    if (size == 0)
        return;
    size_t n = strnlen(text, size - 1);
    memcpy(out, text, n);
    out[n] = '\0';
}

void rejections_add(struct rejections *r, lsn_t lsn, const char *reason) {
    mutex_lock(&r->lock);
    size_t slot = r->n++ % REJECTIONS_MAX;
    r->lsns[slot] = lsn;
    copy_cut(r->reasons[slot], REJECTION_REASON_SIZE, reason);
    if (lsn > atomic_load(&r->newest))
        atomic_store(&r->newest, lsn);
    mutex_unlock(&r->lock);
}

bool rejections_find(struct rejections *r, lsn_t first, lsn_t last, char *reason, size_t size) {
    if (first > atomic_load(&r->newest))
        return false;
    mutex_lock(&r->lock);
    size_t found = REJECTIONS_MAX;
    for (size_t i = 0; i < REJECTIONS_MAX; i++)
        if (r->lsns[i] != 0 && r->lsns[i] >= first && r->lsns[i] <= last &&
            (found == REJECTIONS_MAX || r->lsns[i] < r->lsns[found]))
            found = i;
    if (found != REJECTIONS_MAX)
        copy_cut(reason, size, r->reasons[found]);
    mutex_unlock(&r->lock);
    return found != REJECTIONS_MAX;
}
