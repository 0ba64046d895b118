/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The contents of one simulated file, twice: as written (what reads see: the page cache) and as
 * synced (what is on the disk), with the set of sectors in which they are meant to differ. For
 * sim*.c only; the caller holds the simulation's lock. Memory that cannot be had ends the test.
 */
#ifndef MILLRACE_OS_SIM_FILE_H
#define MILLRACE_OS_SIM_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SIM_SECTOR_BYTES = 512 };

/* The one source of chance of a simulation. */
struct sim_random {
    uint64_t state;
};
uint64_t sim_random_next(struct sim_random *random);
/* Evenly from 0 to n - 1; n > 0. */
uint64_t sim_random_below(struct sim_random *random, uint64_t n);

/*
 * How kind a power cut or a failed sync is to one file, drawn once for it: with an even coin for
 * every sector, "all of it" and "nothing of it" would hardly ever happen. In 256ths.
 */
struct sim_mood {
    unsigned keep;   /* an unsynced sector, or the next operation of a directory, is kept */
    unsigned damage; /* a sector is torn or zeroed instead */
};
struct sim_mood sim_mood_draw(struct sim_random *random);
bool sim_mood_keeps(struct sim_mood mood, struct sim_random *random);

struct sim_file {
    uint8_t *written;   /* zero from size to capacity */
    uint8_t *synced;    /* what is on the disk; zero where nothing was ever synced */
    uint8_t *dirty;     /* one byte a sector: the next sync saves it */
    uint64_t capacity;  /* of written and synced, in bytes, whole sectors */
    uint64_t size;      /* as written */
    uint64_t size_min;  /* the smallest size since the last sync */
    uint64_t allocated; /* bytes that take space: the end of what was ever written, not truncated */
    uint64_t synced_size;
    bool unsynced; /* a sector is dirty or the size is not synced */
    bool lost;     /* a sync failed: clean sectors may differ from what is on the disk */
};

void sim_file_deinit(struct sim_file *f);
void sim_file_copy(struct sim_file *to, const struct sim_file *from);
void sim_file_write(struct sim_file *f, const void *data, size_t size, uint64_t offset);
void sim_file_truncate(struct sim_file *f, uint64_t size);
void sim_file_sync(struct sim_file *f);
/* A sync that returned an error: any part of the dirty sectors is on the disk, all count as clean,
 * and the page cache still shows what was written, or no longer. */
void sim_file_fail_sync(struct sim_file *f, struct sim_random *random);
/* The page cache is gone, and what was not synced is kept, dropped, torn or zeroed. */
void sim_file_cut(struct sim_file *f, struct sim_random *random);
/* The page cache drops some of the clean pages, of which a failed sync has lost some. */
void sim_file_evict(struct sim_file *f, struct sim_random *random);

/* malloc, calloc and realloc for the simulation: never NULL. */
void *sim_allocate(size_t count, size_t size);
void *sim_reallocate(void *p, size_t count, size_t size);
char *sim_copy_string(const char *s);

#endif
