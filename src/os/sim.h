/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated twin of the operating system, for tests. One seed decides everything it does.
 *
 * The disk: a file has contents as written and contents as synced; a directory has its entries as
 * made and as synced. sim_power_cut() throws away what was not synced, sector by sector (512
 * bytes): each unsynced sector is, by the seed, kept, dropped, torn (part new, part old) or
 * zeroed; each unsynced directory entry, rename or unlink is kept or dropped (in order of issue
 * within one directory: a later one is not kept without the earlier ones). A size that was not
 * synced may be the old one. After a failed sync the pages count as clean: a later sync of the same
 * file succeeds and saves nothing of them.
 *
 * Faults: fail_at = n makes the nth counted call fail with fail_error; the calls counted are those
 * of the disk, memory for mapping and random. short_transfers makes reads and writes short and
 * interrupted at random. refuse_errors makes every write and sync fail until it is cleared. hang:
 * sync takes hang_ns of the simulated clock. crash_at = n makes the nth write, sync or directory
 * call, and all after it, fail with -EIO without effect: the moment the power went.
 *
 * Clock: stands still except that every call takes 1 us and sleep_ns advances it. Threads are real
 * ones; deterministic tests start none. Thread-safe.
 */
#ifndef MILLRACE_OS_SIM_H
#define MILLRACE_OS_SIM_H

#include "os/os.h"

struct sim; /* embeds struct os as its first member */

struct sim_faults {
    uint64_t fail_at; /* 0: none */
    int fail_error; /* what the failing call returns: OS_E_FULL, -EIO, OS_E_INTERRUPTED, -ENOMEM */
    uint64_t crash_at; /* 0: none */
    int refuse_error;  /* 0: none */
    bool short_transfers;
};

int sim_new(uint64_t seed, struct sim **ret_sim) MUST_USE;
struct sim *sim_free(struct sim *s);
struct os *sim_os(struct sim *s);
void sim_set_faults(struct sim *s, const struct sim_faults *faults);
/* How many calls were counted so far (for fail_at), and of those that change the disk (crash_at).
 */
uint64_t sim_calls(const struct sim *s);
uint64_t sim_disk_changes(const struct sim *s);
/* True when fail_at or crash_at came to pass. */
bool sim_faulted(const struct sim *s);
/* What the disk looks like when the power returns. Clears the faults; open files are invalid. */
void sim_power_cut(struct sim *s);
/* As kill -9: what was written stays, locks are gone, open files are invalid. */
void sim_kill(struct sim *s);
/* Flips one bit of a file, as written and as synced. */
int sim_flip_bit(struct sim *s, const char *path, uint64_t bit) MUST_USE;
/* Free space of the disk, in bytes; writes beyond it get OS_E_FULL. UINT64_MAX at first. */
void sim_set_space(struct sim *s, uint64_t free_bytes);

#endif
