/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Committing, as far as it is the same for every engine: what was appended is given to the engine,
 * which makes it durable; then everybody is told.
 *
 *            ┌────────────── append ──────────────┐
 *   sleeping ┴▶ gathering ─▶ engine ─▶ published ─┴▶ sleeping
 *                              └─failed─▶ refusing ── COMMIT_RETRY_NS ──▶ engine
 */
#include "journal/core.h"

#define MS_NS UINT64_C(1000000)
#define GATHER_NS (2 * MS_NS)
/* How long to sleep when nothing is to be done, and when something is watched. */
#define NAP_NS (1000 * MS_NS)
#define SHORT_NAP_NS (200 * MS_NS)
enum {
    GATHER_GROUPS = 4,        /* one sync for so many is cheap enough to wait for no more */
    GATHER_BYTES = 256 << 10, /* nor for more than so many */
};

/* ---- what to write ---- */

bool commit_unwritten(struct journal *j, struct chunk *ret_chunk) {
    mutex_lock(&j->lock);
    struct place *from = &j->window.written;
    place_settle(from);
    const struct block *b = from->block;
    bool some = b && from->at < b->used;
    if (some)
        *ret_chunk = (struct chunk){.data = b->data + from->at,
                                    .bytes = b->used - from->at,
                                    .first_lsn = frame_lsn(b->data + from->at),
                                    .last_lsn = b->last_lsn};
    mutex_unlock(&j->lock);
    return some;
}

bool commit_pending(struct journal *j) {
    struct chunk chunk;
    return commit_unwritten(j, &chunk);
}

size_t group_bytes(const uint8_t *data, lsn_t *ret_last_lsn) {
    size_t bytes = 0;
    struct frame f;
    do {
        frame_load(data + bytes, &f);
        bytes += frame_bytes(f.payload.size);
    } while (f.flags & JOURNAL_MORE);
    *ret_last_lsn = f.lsn;
    return bytes;
}

void chunk_cut(struct chunk *c, uint64_t max) {
    if (c->bytes <= max)
        return;
    lsn_t last;
    size_t taken = group_bytes(c->data, &last);
    c->last_lsn = last;
    while (taken < c->bytes) {
        size_t more = group_bytes(c->data + taken, &last);
        if (taken + more > max)
            break;
        taken += more;
        c->last_lsn = last;
    }
    c->bytes = taken;
}

/* ---- after it ---- */

void commit_written(struct journal *j, size_t bytes) {
    mutex_lock(&j->lock);
    j->window.written.at += bytes;
    mutex_unlock(&j->lock);
}

void commit_settle(struct journal *j, lsn_t last, uint64_t stream_bytes) {
    if (last > atomic_load(&j->durable))
        atomic_store(&j->durable, last);
    mutex_lock(&j->lock);
    struct place *from = &j->window.synced, *to = &j->window.written;
    place_settle(from);
    for (struct block *b = from->block; b; b = b == to->block ? NULL : b->next)
        j->pending_bytes -= (b == to->block ? to->at : b->used) - (b == from->block ? from->at : 0);
    *from = *to;
    j->synced_lsn = last;
    j->synced_stream += stream_bytes;
    window_trim(&j->window, j->options.window_bytes);
    mutex_unlock(&j->lock);
}

void commit_refused(struct journal *j, int error) {
    mutex_lock(&j->lock);
    place_settle(&j->window.synced);
    j->window.written = j->window.synced;
    j->stats.sync_failures++;
    mutex_unlock(&j->lock);
    atomic_store(&j->refusing, error);
    j->retry_at_ns = os_monotonic_ns(j->os) + COMMIT_RETRY_NS;
}

/* Listeners and the observer are called without the lock, while journal_unlisten waits. */
static void commit_notify(struct journal *j, lsn_t durable, const struct commit *c) {
    mutex_lock(&j->lock);
    struct journal_listener *listeners = j->listeners;
    struct journal_observer *observer = j->observer;
    j->notifying = true;
    mutex_unlock(&j->lock);
    if (observer)
        observer->committed(observer, c->write_ns, c->sync_ns, c->bytes, c->records);
    for (struct journal_listener *l = listeners; l; l = l->next)
        l->durable(l, durable);
    mutex_lock(&j->lock);
    j->notifying = false;
    condition_broadcast(&j->notified);
    mutex_unlock(&j->lock);
}

void commit_publish(struct journal *j, lsn_t durable, const struct commit *c) {
    if (durable > atomic_load(&j->durable))
        atomic_store(&j->durable, durable);
    atomic_store(&j->refusing, 0);
    j->last_commit_ns = os_monotonic_ns(j->os);
    mutex_lock(&j->lock);
    j->groups_active = j->groups - j->groups_before;
    j->stats.commits++;
    j->stats.sync_ns_total += c->sync_ns;
    if (j->waiters)
        condition_broadcast(&j->durable_moved);
    mutex_unlock(&j->lock);
    commit_notify(j, durable, c);
}

/* ---- when ---- */

/* Lets those who wrote at the time of the last commit write again, so that one sync serves them
 * all: the sync, and waking everybody, cost as much for one group as for a few. A lone writer never
 * waits, as its last commit saw no other, nor does anybody when the last commit is some time ago.
 */
static void commit_gather(struct journal *j) {
    uint64_t until = j->last_commit_ns + GATHER_NS;
    bool in_time = j->options.sync == JOURNAL_SYNC_GROUP;
    mutex_lock(&j->lock);
    uint64_t wanted = j->groups_active < GATHER_GROUPS ? j->groups_active : GATHER_GROUPS;
    j->groups_wake = j->groups_taken + wanted;
    while (in_time && j->groups < j->groups_wake && j->pending_bytes < GATHER_BYTES &&
           !j->closing) {
        j->sleeping = true;
        in_time = condition_wait_until(&j->wake, &j->lock, until);
        j->sleeping = false;
    }
    j->groups_wake = 0;
    j->groups_before = j->groups_taken;
    j->groups_taken = j->groups;
    mutex_unlock(&j->lock);
}

int commit_all(struct journal *j) {
    int r = 0;
    while (!r && commit_pending(j))
        r = j->engine->commit(j);
    return error_trace(r);
}

/* True if there is something to write now; else sleeps until there may be. */
static bool commit_wait(struct journal *j) {
    bool pending = commit_pending(j);
    uint64_t now = os_monotonic_ns(j->os);
    if (pending && (!atomic_load(&j->refusing) || now >= j->retry_at_ns))
        return true;
    bool watching = j->engine->housekeep(j, !pending) || pending;
    uint64_t until = os_monotonic_ns(j->os) + (watching ? SHORT_NAP_NS : NAP_NS);
    mutex_lock(&j->lock);
    place_settle(&j->window.written);
    const struct place *next = &j->window.written;
    bool arrived = !pending && next->block && next->at < next->block->used;
    bool release = j->release_wanted && !atomic_load(&j->refusing);
    if (!arrived && !j->closing && !release) {
        j->sleeping = true;
        condition_wait_until(&j->wake, &j->lock, until);
        j->sleeping = false;
    }
    mutex_unlock(&j->lock);
    return false;
}

static bool commit_closing(struct journal *j) {
    mutex_lock(&j->lock);
    bool closing = j->closing;
    mutex_unlock(&j->lock);
    return closing;
}

void commit_thread(void *journal) {
    struct journal *j = journal;
    while (!commit_closing(j)) {
        if (!commit_wait(j))
            continue;
        commit_gather(j);
        ignore_error(j->engine->commit(j)); /* kept in refusing, which journal_state tells */
        j->engine->housekeep(j, false);
    }
}
