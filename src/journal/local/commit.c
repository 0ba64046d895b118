/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Committing: what was appended is written, synced, and only then durable.
 *
 *   writing ─▶ syncing ─▶ published
 *      └──failed──┴─▶ refusing ── COMMIT_RETRY_NS ──▶ writing, in a new segment
 *
 *  1. A frame is written to a segment at most once, in lsn order; after each sync the next frame
 *     starts a new sector, so that no synced sector is ever written again.
 *  2. After a failed write or sync the segment is ended at its synced offset and never touched
 *     again. The frames after that are still in the window: they go to the next segment.
 *  3. durable moves only to what a sync that succeeded covered (JOURNAL_SYNC_OS: to what was
 *     written; synced_lsn follows within a second, and the window keeps everything above it).
 *  4. A segment is synced to its last frame before the next one begins, or ended as in 2. The
 *     next one has a name, and so seals the one before, only once its first records are synced,
 *     all that it takes over from the one before among them.
 */
#include "journal/local/local.h"

#include <assert.h>

#define MS_NS UINT64_C(1000000)
#define SPACE_CHECK_NS (100 * MS_NS)
#define OS_SYNC_NS (1000 * MS_NS)
#define MARK_AFTER_NS (1000 * MS_NS)
enum {
    ZERO_AHEAD_COMMIT_MAX = 256 << 10,
    SPACE_RESERVE_BYTES = 256 << 20,
};

/* ---- writing ---- */

/* True if the chunk's first group may go to the active segment. */
static bool active_takes(const struct active *a, const struct chunk *c) {
    lsn_t last;
    return a->file && a->next_lsn == c->first_lsn && a->offset < a->limit &&
           group_bytes(c->data, &last) <= a->limit - a->offset;
}

/* Segments are written past the page cache, in whole sectors: copying frames to the staging buffer
 * costs a tenth of what pages for them did. Nobody reads them soon, the window has the newest. */

/* Writes what is staged, and zeros up to the end of its last sector: the sync that follows makes
 * the next frame begin behind them (invariant 1). Without such a sync (JOURNAL_SYNC_OS) the next
 * frame follows at once, and the sector is not filled up. */
static int active_flush(struct journal *j) {
    struct active *a = &j->local->active;
    size_t staged = (size_t)(a->offset - a->written), size = staged;
    if (j->options.sync != JOURNAL_SYNC_OS)
        size = (size_t)align_up(staged, SECTOR_BYTES);
    memset(j->local->staging + staged, 0, size - staged);
    int r = staged ? os_write_all(j->os, a->file, j->local->staging, size, a->written) : 0;
    if (!r)
        a->written = a->offset;
    return error_trace(r);
}

static int active_stage(struct journal *j, struct bytes frames) {
    struct active *a = &j->local->active;
    a->dirty = true;
    while (frames.size > 0) {
        size_t staged = (size_t)(a->offset - a->written);
        size_t part = frames.size < STAGING_BYTES - staged ? frames.size : STAGING_BYTES - staged;
        memcpy(j->local->staging + staged, frames.data, part);
        a->offset += part;
        frames = bytes_of(frames.data + part, frames.size - part);
        int r = staged + part == STAGING_BYTES ? active_flush(j) : 0;
        if (r)
            return error_trace(r);
    }
    return 0;
}

/* Small commits into space that is not allocated would pay for metadata at each sync: allocate more
 * at once. */
static int active_allocate(struct journal *j, uint64_t written) {
    struct active *a = &j->local->active;
    uint64_t to = a->offset;
    if (written < ZERO_AHEAD_COMMIT_MAX && a->offset < a->limit)
        to = a->limit - a->offset < ZERO_AHEAD_BYTES ? a->limit : a->offset + ZERO_AHEAD_BYTES;
    a->allocated = a->offset;
    int r = segments_write_zeros(j, a->file, &a->allocated, to);
    return r == OS_E_FULL ? 0 : error_trace(r); /* the frames themselves did fit */
}

static int active_write(struct journal *j, const struct chunk *c) {
    int r = active_stage(j, bytes_of(c->data, c->bytes));
    if (r)
        return error_trace(r);
    j->local->active.next_lsn = c->last_lsn + 1;
    commit_written(j, c->bytes);
    return 0;
}

/* The written frames are on disk now. */
static void commit_synced(struct journal *j) {
    struct active *a = &j->local->active;
    lsn_t last = a->next_lsn - 1;
    if (last > atomic_load(&j->durable))
        atomic_store(&j->durable, last); /* before cursors can find it on disk */
    uint64_t before = a->synced;
    a->synced = a->offset;
    a->offset = a->written = align_up(a->offset, SECTOR_BYTES);
    a->dirty = false;
    segments_synced(j, last);
    commit_settle(j, last, a->synced - before);
}

static int active_sync(struct journal *j, struct commit *c) {
    uint64_t start = os_monotonic_ns(j->os);
    assert(j->local->active.written == j->local->active.offset);
    int r = os_sync(j->os, j->local->active.file);
    if (!r && !j->local->active.named)
        r = segments_name(j);
    if (r)
        return error_trace(r);
    j->local->last_sync_ns = os_monotonic_ns(j->os);
    c->sync_ns += j->local->last_sync_ns - start;
    commit_synced(j);
    return 0;
}

/* What must be in a new segment before that seals the one before: records that were acknowledged,
 * or may have been before a crash, and are perhaps only in the page cache. */
static lsn_t lsn_to_take_over(const struct journal *j) {
    lsn_t durable = atomic_load(&j->durable);
    return durable > j->local->recovered_lsn ? durable : j->local->recovered_lsn;
}

/* Ends a full segment and begins the next. */
static int active_roll(struct journal *j, const struct chunk *next, struct commit *c) {
    lsn_t last;
    uint64_t bytes = group_bytes(next->data, &last);
    int r = j->local->active.dirty ? active_sync(j, c) : 0;
    if (r)
        return error_trace(r);
    segments_end(j, true);
    if (next->first_lsn <= lsn_to_take_over(j)) {
        mutex_lock(&j->lock);
        bytes = j->pending_bytes;
        mutex_unlock(&j->lock);
    }
    return error_trace(segments_start(j, next->first_lsn, bytes));
}

/* Writes as many groups as one sync should cover. */
static int commit_write(struct journal *j, struct commit *c) {
    uint64_t start = os_monotonic_ns(j->os);
    uint64_t max = j->options.sync == JOURNAL_SYNC_ALWAYS ? 1 : COMMIT_BYTES_MAX;
    struct chunk chunk;
    while (commit_unwritten(j, &chunk)) {
        bool take_over = chunk.first_lsn <= lsn_to_take_over(j);
        if (!take_over && c->bytes >= max)
            break;
        if (!active_takes(&j->local->active, &chunk)) {
            if (c->bytes > 0)
                break; /* first sync what is in the segment that is full */
            int r = active_roll(j, &chunk, c);
            if (r)
                return error_trace(r);
        }
        uint64_t room = j->local->active.limit - j->local->active.offset;
        chunk_cut(&chunk, take_over || room < max - c->bytes ? room : max - c->bytes);
        assert(chunk.bytes <= room);
        int r = active_write(j, &chunk);
        if (r)
            return error_trace(r);
        c->bytes += chunk.bytes;
        c->records += chunk.last_lsn - chunk.first_lsn + 1;
    }
    int r = active_flush(j);
    if (!r && j->local->active.offset > j->local->active.allocated)
        r = active_allocate(j, c->bytes);
    if (r)
        return error_trace(r);
    c->write_ns = os_monotonic_ns(j->os) - start - c->sync_ns;
    return 0;
}

static bool sync_due(const struct journal *j, uint64_t pending_bytes) {
    return j->options.sync != JOURNAL_SYNC_OS || !j->local->active.named ||
           pending_bytes > j->options.pending_bytes_max / 2 ||
           os_monotonic_ns(j->os) - j->local->last_sync_ns >= OS_SYNC_NS;
}

/* ---- after it ---- */

static void commit_failed(struct journal *j, int error) {
    segments_end(j, false);
    commit_refused(j, error);
}

int local_commit(struct journal *j) {
    struct commit c = {0};
    commit_io_begin(j);
    int r = commit_write(j, &c);
    lsn_t written = j->local->active.next_lsn - 1;
    mutex_lock(&j->lock);
    uint64_t pending_bytes = j->pending_bytes;
    mutex_unlock(&j->lock);
    if (!r && sync_due(j, pending_bytes))
        r = active_sync(j, &c);
    commit_io_end(j);
    if (r)
        commit_failed(j, r);
    else
        commit_publish(j, written, &c);
    return error_trace(r);
}

/* ---- housekeeping ---- */

static uint64_t space_reserve(const struct journal *j, uint64_t total) {
    if (j->options.disk_reserve_bytes)
        return j->options.disk_reserve_bytes;
    return SPACE_RESERVE_BYTES < total / 20 ? SPACE_RESERVE_BYTES : total / 20;
}

static void check_space(struct journal *j) {
    uint64_t available, total;
    if (os_disk_space(j->os, j->directory, &available, &total))
        return; /* as it was */
    uint64_t reserve = space_reserve(j, total);
    bool low = available < reserve;
    j->local->space_for_spare = !low && available - reserve > 4 * j->options.segment_bytes;
    atomic_store(&j->local->space_low, low);
    atomic_store(&j->local->space_out, available < reserve / 2);
    if (low)
        segments_drop_spares(j);
}

static void sync_lagging(struct journal *j) {
    struct commit c = {0};
    commit_io_begin(j);
    int r = active_sync(j, &c);
    commit_io_end(j);
    if (r)
        commit_failed(j, r);
}

/* Writes a mark that everything is synced, so that damage at the end is told from a torn tail. */
static void commit_mark(struct journal *j) {
    struct active *a = &j->local->active;
    uint8_t bytes[FRAME_HEADER_BYTES];
    if (!a->file || a->dirty || a->marked_lsn == a->next_lsn - 1)
        return;
    struct frame f = {.lsn = a->next_lsn,
                      .synced_lsn = a->next_lsn - 1,
                      .kind = JOURNAL_KIND_JOURNAL,
                      .flags = FRAME_FLAG_MARK};
    frame_store(bytes, j->salt, &f, frame_payload_crc(j->salt, f.payload));
    commit_io_begin(j);
    int r = active_stage(j, bytes_of(bytes, sizeof bytes));
    if (!r)
        r = active_flush(j);
    if (!r)
        r = os_sync(j->os, a->file);
    commit_io_end(j);
    if (r) {
        segments_end(j, false); /* nothing is lost: the next commit starts a new segment */
        return;
    }
    mutex_lock(&j->lock);
    j->synced_stream += a->offset - a->synced; /* as the segment's end counts it */
    mutex_unlock(&j->lock);
    a->synced = a->offset;
    a->offset = a->written = align_up(a->synced, SECTOR_BYTES);
    a->marked_lsn = a->next_lsn - 1;
    a->dirty = false;
}

void local_finish(struct journal *j) {
    if (j->local->active.dirty)
        sync_lagging(j);
    commit_mark(j);
}

bool local_housekeep(struct journal *j, bool idle) {
    uint64_t now = os_monotonic_ns(j->os);
    mutex_lock(&j->lock);
    bool release = j->release_wanted;
    mutex_unlock(&j->lock);
    if (now >= j->local->next_space_check_ns) {
        j->local->next_space_check_ns = now + SPACE_CHECK_NS;
        check_space(j);
    }
    if (release)
        segments_release(j);
    if (j->local->active.dirty && now - j->local->last_sync_ns >= OS_SYNC_NS)
        sync_lagging(j);
    if (idle && now - j->last_commit_ns >= MARK_AFTER_NS)
        commit_mark(j);
    if (idle && j->local->space_for_spare && !atomic_load(&j->refusing))
        segments_prepare_spare(j);
    return j->local->active.dirty || atomic_load(&j->local->space_low);
}
