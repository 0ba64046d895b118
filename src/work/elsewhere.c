/* SPDX-License-Identifier: Apache-2.0 */
/* Positions that are told, instead of made: see elsewhere.h. */
#include "work/elsewhere.h"

#include "work/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

int work_new_elsewhere(struct os *os, unsigned lanes, void (*asked)(void *context), void *context,
                       struct work **ret_work) {
    assert(lanes >= 1 && lanes <= WORK_LANES_MAX);
    struct work *w = calloc(1, sizeof *w);
    if (!w)
        return error_origin(-ENOMEM);
    w->os = os;
    w->options.lanes = lanes;
    w->asked = asked;
    w->asked_context = context;
    mutex_init(&w->pool, LOCK_RANK_WORK_POOL);
    condition_init(&w->wake);
    int r = rejections_init(&w->rejections);
    if (r) {
        work_free(w);
        return error_trace(r);
    }
    *ret_work = w;
    return 0;
}

void work_reached(struct work *w, unsigned lane, lsn_t lsn) {
    assert(lane < w->options.lanes);
    if (lsn <= atomic_load(&w->visible[lane]))
        return;
    atomic_store(&w->visible[lane], lsn);
    work_notify(w, lsn);
}

bool work_is_awaited(struct work *w) {
    for (struct work_listener *l = atomic_load(&w->listeners); l; l = l->next)
        if (atomic_load(&l->wanted) != UINT64_MAX)
            return true;
    return false;
}
