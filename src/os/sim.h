/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated twin of the operating system, for tests. One seed decides everything it does.
 *
 * The disk: a file has contents as written and contents as synced; a directory has its entries as
 * made and as synced. sim_power_cut() throws away what was not synced, sector by sector (512
 * bytes): each unsynced sector is, by the seed, kept, dropped, torn (part new, part old) or
 * zeroed (where it was to change); each unsynced directory entry, rename or unlink is kept or
 * dropped (in order of issue within one directory: a later one is not kept without the earlier
 * ones). A size that was not synced may be the old one, or one on the way. After a failed sync the
 * pages count as clean: a later sync of the same file succeeds and saves nothing of them. The whole
 * of the fault model is in README.md.
 *
 * Paths are relative to the root, with or without a leading slash; ".." is refused.
 *
 * Clock: stands still except that every call takes 1 us and sleep_ns advances it. Threads are real
 * ones; deterministic tests start none. Thread-safe, except that a simulation is not freed in use.
 * When memory is out it aborts: it has no use for half a test.
 */
#ifndef MILLRACE_OS_SIM_H
#define MILLRACE_OS_SIM_H

#include "os/os.h"

struct sim; /* embeds struct os as its first member */

/*
 * Calls are counted from the last sim_set_faults on, from 1. Counted for fail_at: all of the disk,
 * random and map; not close, unmap, the clock and threads. Counted for crash_at: of those, the ones
 * that change the disk: write, sync, truncate, an open that creates, rename, unlink, mkdir, rmdir,
 * sync_directory.
 */
struct sim_faults {
    uint64_t fail_at; /* the nth call fails, without effect but for a failed sync's. 0: none */
    /* What it returns: OS_E_FULL, -EIO, OS_E_INTERRUPTED, -ENOMEM. A call that cannot be so on the
     * real system does what that would: an interrupted sync is -EINTR, other interrupted calls are
     * taken up again, and what takes no space gets -EIO for OS_E_FULL. */
    int fail_error;
    uint64_t crash_at; /* this change of the disk, and every call after it, fails with -EIO and
                          without effect: the power went; sim_power_cut is next. 0: none */
    int refuse_error;  /* what every write, sync, truncate, sync_directory and creation returns; the
                          disk refuses until it is cleared. 0: none */
    uint64_t hang_ns;  /* a sync takes so long, of the simulated clock */
    bool hold_syncs;   /* a sync waits, in its thread, until the next sim_set_faults or cut */
    bool short_transfers; /* reads and writes are short, or interrupted, at random */
    /* Called before each change of the disk, so that one run can be cut at every one of them. It
     * may clone, but not change, the simulation. NULL: none */
    void (*each_change)(void *context);
    void *context;
};

int sim_new(uint64_t seed, struct sim **ret_sim) MUST_USE;
/* A second simulation whose disk and clock are as those of the first now, with what is written and
 * not synced; nothing is open in it, it has no faults, and its chances are those of seed. Made to
 * cut one run at every change: clone, cut the clone, look, free it. */
int sim_clone(const struct sim *from, uint64_t seed, struct sim **ret_sim) MUST_USE;
/* Frees the files that are still open too. Takes NULL. */
struct sim *sim_free(struct sim *s);
struct os *sim_os(struct sim *s);
/* Sets them and starts the counts anew. NULL: none. */
void sim_set_faults(struct sim *s, const struct sim_faults *faults);
/* How many calls were counted so far (for fail_at), and of those that change the disk (crash_at).
 */
uint64_t sim_calls(const struct sim *s);
uint64_t sim_disk_changes(const struct sim *s);
/* True when fail_at or crash_at came to pass since the last sim_set_faults. */
bool sim_faulted(const struct sim *s);
/* What the disk looks like when the power returns. Clears the faults, not the counts. Open files
 * are invalid: every call but close gets -EBADF. Maps stay. */
void sim_power_cut(struct sim *s);
/* As kill -9: what was written stays (except what a failed sync lost: the system may drop it from
 * memory any time), locks are gone, open files are invalid. Leaves the faults, but for a crash. */
void sim_kill(struct sim *s);
/* Flips one bit of a file, as written and as synced. OS_E_NOT_FOUND; -EINVAL behind its end. */
int sim_flip_bit(struct sim *s, const char *path, uint64_t bit) MUST_USE;
/* Free space of the disk, in bytes; writes beyond it get OS_E_FULL, and so does what creates an
 * entry when none is left. What is deleted is free again. UINT64_MAX, at first: no bound. */
void sim_set_space(struct sim *s, uint64_t free_bytes);

#endif
