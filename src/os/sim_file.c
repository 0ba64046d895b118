/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sector is in one of three states:
 *
 *   clean  written and synced hold the same      --write, truncate--> dirty
 *   dirty  a sync will copy written to synced    --sync--> clean, --failed sync--> lost
 *   lost   written and synced differ, but the    --write, truncate--> dirty
 *          system takes it for clean             --evict--> clean (what was written is gone)
 *
 * dirty[] tells dirty from the other two; clean and lost are told apart by comparing the bytes.
 * Whatever happens to a sector at a power cut or a failed sync, each of its bytes is then the
 * synced one, the written one, or zero, and a byte on which both agree is never touched: real disks
 * write a sector whole or report it as damaged, and zeros come from blocks that were given to a
 * file and never written, so what was synced before survives a later write to the same sector.
 */
#include "os/sim_file.h"

#include "base/hash.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { CHANCES = 256, CAPACITY_MIN = 8 * SIM_SECTOR_BYTES };

uint64_t sim_random_next(struct sim_random *random) {
    return hash64_u64(random->state++);
}

uint64_t sim_random_below(struct sim_random *random, uint64_t n) {
    assert(n > 0);
    return sim_random_next(random) % n;
}

static bool chance(struct sim_random *random, unsigned of_256) {
    return sim_random_below(random, CHANCES) < of_256;
}

struct sim_mood sim_mood_draw(struct sim_random *random) {
    static const unsigned keep[] = {0, 32, 128, 224, CHANCES};
    static const unsigned damage[] = {0, 0, 64, 192};
    return (struct sim_mood){.keep = keep[sim_random_below(random, sizeof keep / sizeof *keep)],
                             .damage =
                                 damage[sim_random_below(random, sizeof damage / sizeof *damage)]};
}

bool sim_mood_keeps(struct sim_mood mood, struct sim_random *random) {
    return chance(random, mood.keep);
}

void *sim_allocate(size_t count, size_t size) {
    void *p = calloc(count ? count : 1, size);
    assert(p && "no memory for the simulation");
    return p;
}

void *sim_reallocate(void *p, size_t count, size_t size) {
    p = reallocarray(p, count, size);
    assert(p && "no memory for the simulation");
    return p;
}

char *sim_copy_string(const char *s) {
    size_t size = strlen(s) + 1;
    return memcpy(sim_allocate(size, 1), s, size);
}

void sim_file_deinit(struct sim_file *f) {
    free(f->written);
    free(f->synced);
    free(f->dirty);
    *f = (struct sim_file){0};
}

/* A larger copy; calloc and not realloc, so that the zeros of a large file cost no memory. */
static uint8_t *grown(uint8_t *old, uint64_t old_size, uint64_t size) {
    uint8_t *new = sim_allocate(size, 1);
    if (old_size)
        memcpy(new, old, old_size);
    free(old);
    return new;
}

static void reserve(struct sim_file *f, uint64_t size) {
    if (size <= f->capacity)
        return;
    uint64_t capacity = f->capacity ? f->capacity : CAPACITY_MIN;
    while (capacity < size)
        capacity *= 2;
    f->written = grown(f->written, f->capacity, capacity);
    f->synced = grown(f->synced, f->capacity, capacity);
    f->dirty = grown(f->dirty, f->capacity / SIM_SECTOR_BYTES, capacity / SIM_SECTOR_BYTES);
    f->capacity = capacity;
}

void sim_file_copy(struct sim_file *to, const struct sim_file *from) {
    *to = *from;
    if (!from->capacity)
        return;
    size_t sectors = from->capacity / SIM_SECTOR_BYTES;
    to->written = memcpy(sim_allocate(from->capacity, 1), from->written, from->capacity);
    to->synced = memcpy(sim_allocate(from->capacity, 1), from->synced, from->capacity);
    to->dirty = memcpy(sim_allocate(sectors, 1), from->dirty, sectors);
}

static void mark_dirty(struct sim_file *f, uint64_t start, uint64_t end) {
    if (start == end)
        return;
    uint64_t first = start / SIM_SECTOR_BYTES;
    uint64_t last = (end - 1) / SIM_SECTOR_BYTES;
    memset(f->dirty + first, 1, last - first + 1);
    f->unsynced = true;
}

static void set_size(struct sim_file *f, uint64_t size) {
    f->size = size;
    if (size < f->size_min)
        f->size_min = size;
    f->unsynced = true;
}

void sim_file_write(struct sim_file *f, const void *data, size_t size, uint64_t offset) {
    if (size == 0)
        return;
    reserve(f, offset + size);
    memcpy(f->written + offset, data, size);
    mark_dirty(f, offset, offset + size);
    if (offset + size > f->size)
        set_size(f, offset + size);
    if (offset + size > f->allocated)
        f->allocated = offset + size;
}

void sim_file_truncate(struct sim_file *f, uint64_t size) {
    reserve(f, size);
    if (size < f->size) {
        memset(f->written + size, 0, f->size - size);
        mark_dirty(f, size, f->size);
    }
    if (size != f->size)
        set_size(f, size);
    if (size < f->allocated)
        f->allocated = size;
}

/* Walks the dirty sectors, from the sector *at on. */
static bool next_dirty(const struct sim_file *f, uint64_t *at) {
    uint64_t sectors = f->capacity / SIM_SECTOR_BYTES;
    const uint8_t *found = *at < sectors ? memchr(f->dirty + *at, 1, sectors - *at) : NULL;
    if (found)
        *at = (uint64_t)(found - f->dirty);
    return found;
}

void sim_file_sync(struct sim_file *f) {
    for (uint64_t i = 0; next_dirty(f, &i); i++) {
        uint64_t offset = i * SIM_SECTOR_BYTES;
        memcpy(f->synced + offset, f->written + offset, SIM_SECTOR_BYTES);
        f->dirty[i] = 0;
    }
    f->synced_size = f->size_min = f->size;
    f->unsynced = false;
}

/* The first or the last bytes of the sector are the new ones. */
static void tear(uint8_t *disk, const uint8_t *new, struct sim_random *random) {
    size_t at = 1 + sim_random_below(random, SIM_SECTOR_BYTES - 1);
    if (chance(random, CHANCES / 2))
        memcpy(disk, new, at);
    else
        memcpy(disk + at, new + at, SIM_SECTOR_BYTES - at);
}

/* Only what the write would have changed. */
static void zero(uint8_t *disk, const uint8_t *new) {
    for (size_t i = 0; i < SIM_SECTOR_BYTES; i++)
        if (disk[i] != new[i])
            disk[i] = 0;
}

/* Decides what became of a dirty sector on its way to the disk. */
static void settle(struct sim_file *f, uint64_t sector, struct sim_mood mood,
                   struct sim_random *random) {
    uint8_t *disk = f->synced + sector * SIM_SECTOR_BYTES;
    const uint8_t *new = f->written + sector *SIM_SECTOR_BYTES;
    if (chance(random, mood.damage)) {
        if (chance(random, CHANCES / 2))
            tear(disk, new, random);
        else
            zero(disk, new);
    } else if (sim_mood_keeps(mood, random)) {
        memcpy(disk, new, SIM_SECTOR_BYTES);
    }
    f->dirty[sector] = 0;
}

/* What reads see of a sector is what is on the disk again. */
static void forget(struct sim_file *f, uint64_t sector) {
    uint64_t start = sector * SIM_SECTOR_BYTES;
    if (start >= f->size)
        return;
    uint64_t size = f->size - start < SIM_SECTOR_BYTES ? f->size - start : SIM_SECTOR_BYTES;
    memcpy(f->written + start, f->synced + start, size);
}

void sim_file_fail_sync(struct sim_file *f, struct sim_random *random) {
    struct sim_mood mood = sim_mood_draw(random);
    bool invalidated = chance(random, CHANCES / 2); /* file systems differ in this */
    for (uint64_t i = 0; next_dirty(f, &i); i++) {
        settle(f, i, mood, random);
        if (invalidated)
            forget(f, i);
        f->lost = true;
    }
    /* The size stays unsynced: it belongs to the file system's own log, which tries again. */
    f->unsynced = f->size != f->synced_size || f->size_min != f->size;
}

/* The old size, the new one, the smallest in between, or, as a file grew, anything on the way. */
static uint64_t size_after_cut(const struct sim_file *f, struct sim_mood mood,
                               struct sim_random *random) {
    if (mood.keep == 0)
        return f->synced_size;
    if (mood.keep == CHANCES)
        return f->size;
    switch (sim_random_below(random, 4)) {
    case 0:
        return f->synced_size;
    case 1:
        return f->size_min < f->synced_size ? f->size_min : f->synced_size;
    case 2:
        if (f->size > f->synced_size)
            return f->synced_size + sim_random_below(random, f->size - f->synced_size);
        return f->size;
    default:
        return f->size;
    }
}

void sim_file_cut(struct sim_file *f, struct sim_random *random) {
    if (!f->unsynced && !f->lost)
        return;
    struct sim_mood mood = sim_mood_draw(random);
    for (uint64_t i = 0; next_dirty(f, &i); i++)
        settle(f, i, mood, random);
    uint64_t size = size_after_cut(f, mood, random);
    memset(f->synced + size, 0, f->capacity - size);
    memcpy(f->written, f->synced, f->capacity);
    f->size = f->size_min = f->synced_size = size;
    if (f->allocated > size)
        f->allocated = size;
    f->unsynced = f->lost = false;
}

void sim_file_evict(struct sim_file *f, struct sim_random *random) {
    if (!f->lost)
        return;
    for (uint64_t i = 0; i * SIM_SECTOR_BYTES < f->size; i++)
        if (!f->dirty[i] && chance(random, CHANCES / 2))
            forget(f, i);
}
