/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The segments on disk: their table, how one begins and ends, retention, spares, damage set aside.
 *
 *   spare-N ─segments_start─▶ unnamed ─segments_name─▶ active ─segments_end─▶ sealed
 *   (zeros, or an old segment)   └─segments_end─▶ removed        segments_release ├─▶ spare-M
 *                                                                                 └─▶ unlinked
 *
 * A segment gets its name only after its header and its first records are synced: so a file called
 * segment-N always has a whole header, unless it was damaged, and whatever it takes over from the
 * segment that its header seals is already in it.
 */
#include "journal/local/local.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

int journal_segment_path(char out[OS_PATH_MAX], const struct journal *j, uint64_t number) {
    return os_path_join(out, j->directory, "segment-%012llu", (unsigned long long)number);
}

int spare_path(char out[OS_PATH_MAX], const struct journal *j, uint64_t number) {
    return os_path_join(out, j->directory, "spare-%llu", (unsigned long long)number);
}

void segments_deinit(struct segments *s) {
    free(s->table);
    free(s->damages);
    *s = (struct segments){0};
}

/* ---- the table ---- */

static int segments_reserve(struct segments *s) {
    if (s->n < s->capacity)
        return 0;
    size_t capacity = s->capacity ? 2 * s->capacity : 16;
    struct segment *table = realloc(s->table, capacity * sizeof *table);
    if (!table)
        return error_origin(-ENOMEM);
    s->table = table;
    s->capacity = capacity;
    return 0;
}

static uint64_t segment_stream_end(const struct segment *segment) {
    return segment->stream_start + segment->end - HEADER_BYTES;
}

int segments_add(struct journal *j, const struct segment *segment) {
    struct segments *s = &j->local->segments;
    mutex_lock(&j->local->files_lock);
    int r = segments_reserve(s);
    if (!r) {
        assert(s->n == 0 || s->table[s->n - 1].number < segment->number);
        s->table[s->n] = *segment;
        s->table[s->n].stream_start = s->n ? segment_stream_end(&s->table[s->n - 1]) : 0;
        s->n++;
    }
    mutex_unlock(&j->local->files_lock);
    return error_trace(r);
}

static int segments_reserve_row(struct journal *j) {
    mutex_lock(&j->local->files_lock);
    int r = segments_reserve(&j->local->segments);
    mutex_unlock(&j->local->files_lock);
    return error_trace(r);
}

/* The index of the first segment with a record at or after lsn, or n. One whose records all went to
 * its successor is empty: its last_lsn is base_lsn - 1. */
static size_t segments_search(const struct segments *s, lsn_t lsn) {
    size_t low = 0, high = s->n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (s->table[middle].last_lsn < lsn)
            low = middle + 1;
        else
            high = middle;
    }
    while (low < s->n && s->table[low].last_lsn < s->table[low].base_lsn)
        low++;
    return low;
}

bool segments_find(struct journal *j, lsn_t lsn, struct segment *ret_segment) {
    mutex_lock(&j->local->files_lock);
    size_t i = segments_search(&j->local->segments, lsn);
    bool found = i < j->local->segments.n;
    if (found)
        *ret_segment = j->local->segments.table[i];
    mutex_unlock(&j->local->files_lock);
    return found;
}

static bool segments_has_locked(const struct segments *s, uint64_t number) {
    for (size_t i = 0; i < s->n; i++)
        if (s->table[i].number == number)
            return true;
    return false;
}

bool segments_has(struct journal *j, uint64_t number) {
    mutex_lock(&j->local->files_lock);
    bool has = segments_has_locked(&j->local->segments, number);
    mutex_unlock(&j->local->files_lock);
    return has;
}

static uint64_t stream_within(const struct segment *g, lsn_t lsn) {
    if (lsn < g->base_lsn)
        return g->stream_start;
    double part = (double)(lsn - g->base_lsn + 1) / (double)(g->last_lsn - g->base_lsn + 1);
    return g->stream_start + (uint64_t)(part * (double)(g->end - HEADER_BYTES));
}

uint64_t segments_stream_at(struct journal *j, lsn_t lsn) {
    struct segments *s = &j->local->segments;
    uint64_t at = 0;
    mutex_lock(&j->local->files_lock);
    size_t i = segments_search(s, lsn);
    if (i < s->n)
        at = stream_within(&s->table[i], lsn);
    else if (s->n)
        at = segment_stream_end(&s->table[s->n - 1]);
    mutex_unlock(&j->local->files_lock);
    return at;
}

/* ---- beginning and ending ---- */

/* Takes the spare that is allocated furthest; only for a segment of the usual size. */
static bool spare_take(struct journal *j, uint64_t limit, struct spare *ret_spare) {
    struct segments *s = &j->local->segments;
    size_t best = 0;
    mutex_lock(&j->local->files_lock);
    bool take = s->spares_n > 0 && limit == j->options.segment_bytes;
    for (size_t i = 1; i < s->spares_n; i++)
        if (s->spares[i].file_bytes > s->spares[best].file_bytes)
            best = i;
    if (take) {
        *ret_spare = s->spares[best];
        s->spares[best] = s->spares[--s->spares_n];
    }
    mutex_unlock(&j->local->files_lock);
    return take;
}

static void spare_put(struct journal *j, const struct spare *spare) {
    mutex_lock(&j->local->files_lock);
    assert(j->local->segments.spares_n < SPARES_MAX);
    j->local->segments.spares[j->local->segments.spares_n++] = *spare;
    mutex_unlock(&j->local->files_lock);
}

/* What the header of the segment about to begin says. */
static struct header segment_header(struct journal *j, lsn_t base_lsn, uint64_t file_bytes) {
    struct segments *s = &j->local->segments;
    struct header h = {
        .version = FORMAT_VERSION,
        .salt = j->salt,
        .base_lsn = base_lsn,
        .created_us = os_wall_us(j->os),
        .file_bytes = file_bytes,
    };
    mutex_lock(&j->local->files_lock);
    h.number = s->next_number++; /* a number is never used twice, even if this fails */
    if (s->n) {
        const struct segment *previous = &s->table[s->n - 1];
        h.previous_number = previous->number;
        h.previous_end = previous->end;
        h.previous_last_lsn = previous->last_lsn;
        h.previous_clean = previous->clean;
    }
    mutex_unlock(&j->local->files_lock);
    return h;
}

static int segment_open(struct journal *j, const struct spare *spare, const struct header *h,
                        struct os_file **ret_file) {
    char path[OS_PATH_MAX];
    alignas(PAGE_BYTES) uint8_t bytes[HEADER_BYTES];
    struct os_file *file;
    int r = spare_path(path, j, spare->number);
    if (!r)
        r = os_open(j->os, path, segments_open_flags(j), &file);
    if (r)
        return error_trace(r);
    header_store(bytes, h);
    r = os_write_all(j->os, file, bytes, sizeof bytes, 0);
    if (!r && spare->file_bytes < h->file_bytes)
        r = os_truncate(j->os, file, h->file_bytes); /* a shorter file was cut */
    if (r) {
        os_close(j->os, file);
        ignore_error(os_remove(j->os, path)); /* the next open removes it */
        return error_trace(r);
    }
    *ret_file = file;
    return 0;
}

int segments_start(struct journal *j, lsn_t base_lsn, uint64_t bytes) {
    uint64_t limit = j->options.segment_bytes;
    if (limit < HEADER_BYTES + bytes)
        limit = HEADER_BYTES + bytes;
    struct spare spare = {.number = 0, .file_bytes = 0};
    int r = segments_reserve_row(j);
    if (r)
        return error_trace(r);
    if (!spare_take(j, limit, &spare))
        spare.number = j->local->segments.next_spare++;
    uint64_t allocated = spare.file_bytes > HEADER_BYTES ? spare.file_bytes : HEADER_BYTES;
    struct header h = segment_header(j, base_lsn, limit);
    struct os_file *file;
    r = segment_open(j, &spare, &h, &file);
    if (r)
        return error_trace(r);
    j->local->active = (struct active){.file = file,
                                       .number = h.number,
                                       .spare_number = spare.number,
                                       .created_us = h.created_us,
                                       .offset = HEADER_BYTES,
                                       .written = HEADER_BYTES,
                                       .synced = HEADER_BYTES,
                                       .allocated = allocated,
                                       .limit = limit,
                                       .base_lsn = base_lsn,
                                       .next_lsn = base_lsn,
                                       .marked_lsn = base_lsn - 1};
    return 0;
}

int segments_name(struct journal *j) {
    struct active *a = &j->local->active;
    char from[OS_PATH_MAX], to[OS_PATH_MAX];
    int r = spare_path(from, j, a->spare_number);
    if (!r)
        r = journal_segment_path(to, j, a->number);
    if (!r)
        r = os_rename(j->os, from, to);
    if (!r)
        r = os_sync_directory(j->os, j->directory);
    if (r)
        return error_trace(r);
    a->named = true;
    return error_trace(segments_add(j, &(struct segment){.number = a->number,
                                                         .base_lsn = a->base_lsn,
                                                         .last_lsn = a->base_lsn - 1,
                                                         .end = HEADER_BYTES,
                                                         .file_bytes = a->allocated,
                                                         .created_us = a->created_us}));
}

/* Takes an unnamed segment away. Its sync or that of its name failed, so it may have the name by
 * now; if it cannot be removed it is void, because no header will ever name it as the previous
 * one: the next segment has a larger number. */
static void segment_abandon(struct journal *j, const struct active *a) {
    char path[OS_PATH_MAX];
    if (spare_path(path, j, a->spare_number) == 0)
        ignore_error(os_remove(j->os, path));
    if (journal_segment_path(path, j, a->number) == 0)
        ignore_error(os_remove(j->os, path));
}

void segments_end(struct journal *j, bool clean) {
    struct segments *s = &j->local->segments;
    struct active *a = &j->local->active;
    if (!a->file)
        return;
    os_close(j->os, a->file);
    if (a->named) {
        mutex_lock(&j->local->files_lock);
        struct segment *row = &s->table[s->n - 1];
        assert(row->number == a->number);
        row->end = a->synced;
        row->clean = clean;
        mutex_unlock(&j->local->files_lock);
    } else {
        segment_abandon(j, a);
    }
    *a = (struct active){0};
}

void segments_synced(struct journal *j, lsn_t last_lsn) {
    struct segments *s = &j->local->segments;
    mutex_lock(&j->local->files_lock);
    struct segment *row = &s->table[s->n - 1];
    assert(row->number == j->local->active.number && row->last_lsn <= last_lsn);
    row->last_lsn = last_lsn;
    row->end = j->local->active.synced;
    if (row->file_bytes < j->local->active.allocated)
        row->file_bytes = j->local->active.allocated;
    mutex_unlock(&j->local->files_lock);
}

/* ---- retention and spares ---- */

/* The last segment always stays: it knows the next lsn. */
static bool oldest_releasable(const struct journal *j, lsn_t persisted, uint64_t now_us) {
    const struct segments *s = &j->local->segments;
    if (s->n < 2 || s->table[0].last_lsn > persisted)
        return false;
    uint64_t kept = segment_stream_end(&s->table[s->n - 1]) - s->table[1].stream_start;
    uint64_t ended_us = s->table[1].created_us;
    uint64_t age_us = now_us > ended_us ? now_us - ended_us : 0;
    return kept >= j->options.keep_bytes && age_us / 1000000 >= j->options.keep_seconds;
}

/* Takes the oldest segment out of the table, so that no cursor will look for it, before its file is
 * touched. */
static bool segments_take_oldest(struct journal *j, lsn_t persisted, struct segment *ret_segment) {
    struct segments *s = &j->local->segments;
    uint64_t now_us = os_wall_us(j->os);
    mutex_lock(&j->local->files_lock);
    bool take = oldest_releasable(j, persisted, now_us);
    if (take) {
        *ret_segment = s->table[0];
        memmove(s->table, s->table + 1, (s->n - 1) * sizeof *s->table);
        s->n--;
    }
    mutex_unlock(&j->local->files_lock);
    return take;
}

/* The name is synced before the file is used again: else a power cut could bring back the old name
 * with the new contents. */
static int segment_recycle(struct journal *j, const struct segment *segment, const char *from) {
    char to[OS_PATH_MAX];
    struct spare spare = {.number = j->local->segments.next_spare++,
                          .file_bytes = segment->file_bytes};
    int r = spare_path(to, j, spare.number);
    if (!r)
        r = os_rename(j->os, from, to);
    if (!r)
        r = os_sync_directory(j->os, j->directory);
    if (r) {
        ignore_error(os_remove(j->os, to));
        return error_trace(r);
    }
    spare_put(j, &spare);
    return 0;
}

static int segment_discard(struct journal *j, const struct segment *segment) {
    char path[OS_PATH_MAX];
    int r = journal_segment_path(path, j, segment->number);
    if (r)
        return error_trace(r);
    bool reusable = segment->clean && segment->file_bytes <= j->options.segment_bytes &&
                    segment->file_bytes >= j->options.segment_bytes / 2 &&
                    j->local->segments.spares_n < SPARES_MAX && !atomic_load(&j->local->space_low);
    if (reusable && segment_recycle(j, segment, path) == 0)
        return 0;
    return error_trace(os_remove(j->os, path));
}

static void segments_put_back_oldest(struct journal *j, const struct segment *segment) {
    struct segments *s = &j->local->segments;
    mutex_lock(&j->local->files_lock);
    assert(s->n < s->capacity);
    memmove(s->table + 1, s->table, s->n * sizeof *s->table);
    s->table[0] = *segment;
    s->n++;
    mutex_unlock(&j->local->files_lock);
}

/* Strictly oldest first, so that what is left is always one stretch: a segment that cannot be
 * removed holds up the others until a consumer moves again. */
void segments_release(struct journal *j) {
    lsn_t persisted = journal_lowest_persisted(j);
    struct segment segment;
    while (segments_take_oldest(j, persisted, &segment)) {
        commit_io_begin(j);
        int r = segment_discard(j, &segment);
        commit_io_end(j);
        if (r) {
            segments_put_back_oldest(j, &segment);
            return;
        }
    }
}

int segments_write_zeros(struct journal *j, struct os_file *file, uint64_t *at, uint64_t to) {
    memset(j->local->staging, 0, STAGING_BYTES);
    *at = align_up(*at, SECTOR_BYTES);
    while (*at < to) {
        uint64_t left = align_up(to - *at, SECTOR_BYTES);
        size_t size = left < STAGING_BYTES ? (size_t)left : STAGING_BYTES;
        int r = os_write_all(j->os, file, j->local->staging, size, *at);
        if (r)
            return error_trace(r);
        *at += size;
    }
    return 0;
}

/* Writes a stretch of zeros and syncs it, so that a waiting commit is held up by little. */
static int spare_grow(struct journal *j, struct os_file *file, struct spare *spare) {
    uint64_t at = spare->file_bytes, to = at + ZERO_AHEAD_BYTES;
    if (to > j->options.segment_bytes)
        to = j->options.segment_bytes;
    int r = segments_write_zeros(j, file, &at, to);
    if (!r)
        r = os_sync(j->os, file);
    if (!r)
        spare->file_bytes = to;
    return error_trace(r);
}

void segments_prepare_spare(struct journal *j) {
    struct spare spare = {.number = j->local->segments.next_spare};
    struct os_file *file;
    char path[OS_PATH_MAX];
    if (j->local->segments.spares_n > 0 || spare_path(path, j, spare.number) ||
        os_open(j->os, path, segments_open_flags(j) | OS_OPEN_EXCLUSIVE, &file))
        return; /* a segment begins without a spare as well, only slower */
    j->local->segments.next_spare++;
    int r = 0;
    while (!r && spare.file_bytes < j->options.segment_bytes && !commit_pending(j)) {
        commit_io_begin(j);
        r = spare_grow(j, file, &spare);
        commit_io_end(j);
    }
    os_close(j->os, file);
    if (r || spare.file_bytes == 0)
        ignore_error(os_remove(j->os, path));
    else
        spare_put(j, &spare);
}

void segments_drop_spares(struct journal *j) {
    char path[OS_PATH_MAX];
    struct spare spare;
    while (spare_take(j, j->options.segment_bytes, &spare))
        if (spare_path(path, j, spare.number) == 0)
            ignore_error(os_remove(j->os, path)); /* the next open removes it */
}

/* ---- damage ---- */

static int damage_copy(struct journal *j, struct os_file *from, uint64_t offset, uint64_t bytes,
                       const char *path) {
    uint8_t part[4096];
    struct os_file *to;
    int r = os_open(j->os, path, OS_OPEN_WRITE | OS_OPEN_CREATE | OS_OPEN_EXCLUSIVE, &to);
    if (r)
        return error_trace(r); /* OS_E_EXISTS: it was set aside before */
    for (uint64_t at = 0; !r && at < bytes;) {
        size_t want = bytes - at < sizeof part ? (size_t)(bytes - at) : sizeof part, got = 0;
        r = os_read_all(j->os, from, part, want, offset + at, &got);
        if (!r)
            r = os_write_all(j->os, to, part, got, at);
        at += want;
    }
    if (!r)
        r = os_sync(j->os, to);
    os_close(j->os, to);
    return error_trace(r);
}

/* The damaged bytes stay in their segment as long as that lives; this copy is for whoever wants to
 * look later, so a failure to make it is not one of the journal. */
static void damage_set_aside(struct journal *j, uint64_t number, struct os_file *file,
                             uint64_t offset, uint64_t bytes) {
    char directory[OS_PATH_MAX], path[OS_PATH_MAX];
    if (os_path_join(directory, j->directory, "damaged") ||
        os_path_join(path, directory, "segment-%012llu-%llu", (unsigned long long)number,
                     (unsigned long long)offset))
        return;
    ignore_error(os_mkdir(j->os, directory));
    ignore_error(damage_copy(j, file, offset, bytes, path));
    ignore_error(os_sync_directory(j->os, directory));
}

static bool damage_known(const struct segments *s, uint64_t number, uint64_t offset) {
    for (size_t i = 0; i < s->damages_n; i++)
        if (s->damages[i].number == number && s->damages[i].offset == offset)
            return true;
    return false;
}

/* When memory is out the damage is counted again the next time. */
static void damage_remember(struct segments *s, uint64_t number, uint64_t offset) {
    if (s->damages_n == s->damages_capacity) {
        size_t capacity = s->damages_capacity ? 2 * s->damages_capacity : 16;
        struct damage *damages = realloc(s->damages, capacity * sizeof *damages);
        if (!damages)
            return;
        s->damages = damages;
        s->damages_capacity = capacity;
    }
    s->damages[s->damages_n++] = (struct damage){.number = number, .offset = offset};
}

bool segments_damaged(struct journal *j, uint64_t number, struct os_file *file, uint64_t offset,
                      uint64_t bytes, uint64_t records) {
    struct segments *s = &j->local->segments;
    mutex_lock(&j->local->files_lock);
    bool has = segments_has_locked(s, number);
    bool new = has && !damage_known(s, number, offset);
    if (new) {
        damage_remember(s, number, offset);
        s->damaged_records += records;
        s->damaged_bytes += bytes;
    }
    mutex_unlock(&j->local->files_lock);
    if (new &&bytes > 0 && !j->options.read_only)
        damage_set_aside(j, number, file, offset, bytes);
    return has;
}
