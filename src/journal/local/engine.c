/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine on disk, put together: opening, closing, and what it tells the journal.
 */
#include "journal/local/local.h"

#include <errno.h>
#include <stdlib.h>

/* ---- opening and closing ---- */

static int lock_directory(struct journal *j) {
    char path[OS_PATH_MAX];
    int r = os_make_path(j->os, j->directory);
    if (r)
        return error_fold(r);
    r = os_path_join(path, j->directory, "LOCK");
    if (r)
        return error_trace(r);
    r = os_open(j->os, path, OS_OPEN_WRITE | OS_OPEN_CREATE, &j->local->lock_file);
    if (r)
        return error_fold(r);
    r = os_lock(j->os, j->local->lock_file);
    if (r == OS_E_LOCKED)
        return JOURNAL_E_LOCKED;
    return r ? error_fold(r) : 0;
}

/* Where the positions stand after recovery. */
static void place_positions(struct journal *j) {
    const struct segments *s = &j->local->segments;
    lsn_t last = s->n ? s->table[s->n - 1].last_lsn : 0;
    j->synced_lsn = last;
    j->synced_stream = segments_stream_at(j, UINT64_MAX);
    atomic_store(&j->durable, last);
    j->local->recovered_lsn = j->next_lsn - 1;
}

static void choose_sizes(struct journal_options *o) {
    uint64_t bytes = o->segment_bytes ? o->segment_bytes : SEGMENT_BYTES;
    o->segment_bytes = align_up(bytes, SECTOR_BYTES);
    if (o->segment_bytes < 2 * HEADER_BYTES)
        o->segment_bytes = 2 * HEADER_BYTES;
}

static int local_open(struct journal *j, struct journal_recovery *ret_recovery) {
    bool writes = !j->options.read_only;
    j->local = calloc(1, sizeof *j->local);
    if (!j->local)
        return error_origin(-ENOMEM);
    mutex_init(&j->local->files_lock, LOCK_RANK_JOURNAL_FILES);
    choose_sizes(&j->options);
    j->local->staging = writes ? aligned_alloc(PAGE_BYTES, STAGING_BYTES) : NULL;
    if (writes && !j->local->staging)
        return error_origin(-ENOMEM);
    int r = writes ? lock_directory(j) : 0;
    if (!r)
        r = journal_recover(j, ret_recovery);
    if (r)
        return error_trace(r);
    place_positions(j);
    return 0;
}

static void local_close(struct journal *j) {
    struct local *l = j->local;
    if (!l)
        return;
    os_close(j->os, l->active.file);
    os_close(j->os, l->lock_file);
    segments_deinit(&l->segments);
    mutex_deinit(&l->files_lock);
    free(l->staging);
    free(l);
    j->local = NULL;
}

/* ---- state ---- */

/* Half of the reserve is for control records and deletes: they are what makes room again. */
static bool local_refuses(const struct journal *j, const struct journal_record *records, size_t n) {
    return atomic_load(&j->local->space_low) &&
           (atomic_load(&j->local->space_out) || !journal_makes_room(records, n));
}

static const char *local_complaint(const struct journal *j) {
    int error = atomic_load(&j->refusing);
    if (error == OS_E_FULL)
        return "No space left on device";
    if (error == OS_E_DENIED)
        return "Permission denied";
    if (error < 0)
        return strerrordesc_np(-error);
    if (error > 0)
        return "The journal's directory does not take files";
    return atomic_load(&j->local->space_low) ? "The disk is nearly full" : NULL;
}

static void local_stats(struct journal *j, struct journal_stats *stats) {
    const struct segments *s = &j->local->segments;
    mutex_lock(&j->local->files_lock);
    stats->segments = s->n;
    stats->damaged_records = s->damaged_records;
    stats->damaged_bytes = s->damaged_bytes;
    for (size_t i = 0; i < s->n; i++)
        stats->disk_bytes += s->table[i].file_bytes;
    for (size_t i = 0; i < s->spares_n; i++)
        stats->disk_bytes += s->spares[i].file_bytes;
    mutex_unlock(&j->local->files_lock);
}

const struct journal_engine journal_local = {
    .open = local_open,
    .close = local_close,
    .commit = local_commit,
    .housekeep = local_housekeep,
    .finish = local_finish,
    .refuses = local_refuses,
    .complaint = local_complaint,
    .stream_at = segments_stream_at,
    .stats = local_stats,
    .holds = local_holds,
    .read = local_read,
    .leave = local_leave,
};
