/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was durable before the positions were seen to move is taken for applied: it may wait yet,
 * but somebody is at work. So what is not known to be applied is never too much.
 */
#include "work/backlog.h"

#include "journal/progress.h"
#include "journal/watch.h"
#include "os/sync.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define MS_NS UINT64_C(1000000)
enum {
    CALL_MS = 2000,
#ifdef MILLRACE_TINY
    STILL_MS = 3000,
#else
    STILL_MS = 30000, /* a group takes so long at most to divide what another had */
#endif
};

struct backlog {
    struct os *os;
    struct backlog_options options;
    unsigned partitions;
    struct progress *progress; /* NULL: the store is asked for positions, */
    struct group_watch *watch; /* and this for what waits; NULL: nobody is */
    uint64_t positions[GROUP_PARTITIONS_MAX];
    bool looked;       /* there are positions */
    lsn_t settled;     /* of this process's records, those that wait are above it */
    uint64_t still_ns; /* since when something waits, and nothing moved */
    struct mutex lock; /* LOCK_RANK_WORK_POOL: status */
    struct backlog_status status;
};

/* ---- Looking ---- */

static int ask_store(struct backlog *b, uint64_t *ret_positions, uint64_t *ret_waiting) {
    int r = 0;
    for (unsigned p = 0; !r && p < b->partitions; p++)
        r = b->options.position(b->options.store, p, &ret_positions[p]);
    return r || !b->watch ? r : group_watch_count(b->watch, ret_positions, ret_waiting);
}

/* Ends first, so that what comes between is not taken for what waits. */
static int ask_group(struct backlog *b, uint64_t *ret_positions, uint64_t *ret_waiting) {
    uint64_t ends[GROUP_PARTITIONS_MAX];
    int r = progress_ends(b->progress, ends);
    if (!r)
        r = progress_positions(b->progress, ret_positions);
    *ret_waiting = 0;
    for (unsigned p = 0; !r && p < b->partitions; p++)
        *ret_waiting += ends[p] > ret_positions[p] ? ends[p] - ret_positions[p] : 0;
    return r;
}

static bool have_moved(struct backlog *b, const uint64_t *positions) {
    size_t bytes = b->partitions * sizeof *positions;
    bool moved = !b->looked || memcmp(b->positions, positions, bytes) != 0;
    memcpy(b->positions, positions, bytes);
    b->looked = true;
    return moved;
}

/* Of those up to durable. What nobody knows of may not be there at all. */
static uint64_t own_waiting(struct backlog *b, lsn_t durable, bool moved) {
    lsn_t unknown = journal_unknown(b->options.journal);
    if (moved)
        b->settled = durable;
    if (unknown > b->settled)
        b->settled = unknown;
    return durable > b->settled ? durable - b->settled : 0;
}

void backlog_look(struct backlog *b) {
    uint64_t positions[GROUP_PARTITIONS_MAX] = {0}, waiting = 0;
    lsn_t durable = journal_durable(b->options.journal);
    int r = b->progress ? ask_group(b, positions, &waiting) : ask_store(b, positions, &waiting);
    uint64_t now_ns = os_monotonic_ns(b->os);
    bool moved = !r && have_moved(b, positions);
    if (!r && !b->status.messages)
        waiting = own_waiting(b, durable, moved);
    if (moved || (!r && waiting == 0))
        b->still_ns = now_ns;
    mutex_lock(&b->lock);
    b->status.known = r == 0;
    if (!r)
        b->status.waiting = waiting;
    b->status.still_ms = b->status.waiting ? (now_ns - b->still_ns) / MS_NS : 0;
    mutex_unlock(&b->lock);
}

/* ---- Telling ---- */

void backlog_status(struct backlog *b, struct backlog_status *ret_status) {
    mutex_lock(&b->lock);
    *ret_status = b->status;
    mutex_unlock(&b->lock);
}

bool backlog_warning(const struct backlog_status *status, char out[BACKLOG_TEXT_MAX]) {
    if (!status->known || status->still_ms < STILL_MS)
        return false;
    snprintf(out, BACKLOG_TEXT_MAX, "no worker has applied anything for %llu s: %llu %s wait",
             (unsigned long long)status->still_ms / 1000, (unsigned long long)status->waiting,
             status->messages ? "messages of the journal" : "records of this process");
    return true;
}

/* ---- Life ---- */

int backlog_new(struct os *os, const struct backlog_options *options, struct backlog **ret_backlog,
                char why[GROUP_WHY_MAX]) {
    struct backlog *b = calloc(1, sizeof *b);
    if (!b)
        return error_origin(-ENOMEM);
    b->os = os;
    b->options = *options;
    b->partitions = journal_url_partitions(options->url);
    mutex_init(&b->lock, LOCK_RANK_WORK_POOL);
    int r = journal_url_keeps_positions(options->url)
                ? progress_open(os, options->url, options->name, CALL_MS, &b->progress, why)
                : group_watch_new(os, options->url, options->name, CALL_MS, &b->watch);
    if (r) {
        backlog_free(b);
        return r > 0 ? r : error_trace(r);
    }
    b->status.messages = b->progress || b->watch;
    *ret_backlog = b;
    return 0;
}

struct backlog *backlog_free(struct backlog *b) {
    if (!b)
        return NULL;
    progress_close(b->progress);
    group_watch_free(b->watch);
    mutex_deinit(&b->lock);
    free(b);
    return NULL;
}
