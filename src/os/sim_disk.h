/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated disk: the tree of directories as made and as synced, and the operations on entries
 * that are not synced yet, in order. For sim.c only; the caller holds the simulation's lock.
 */
#ifndef MILLRACE_OS_SIM_DISK_H
#define MILLRACE_OS_SIM_DISK_H

#include "os/os.h"
#include "os/sim_file.h"

struct sim_node;

struct sim_entry {
    char *name;
    struct sim_node *node;
};

struct sim_entries {
    struct sim_entry *items;
    size_t n;
    size_t capacity;
};

/* A file or a directory, with or without a name. Lives until nothing leads to it any more. */
struct sim_node {
    size_t index; /* in the disk's nodes */
    bool directory;
    bool linked;      /* an entry as made leads to it */
    bool marked;      /* scratch of one pass over the nodes */
    unsigned handles; /* open files */
    const struct os_file *lock_holder;
    struct sim_file file;
    struct sim_entries made;   /* of a directory */
    struct sim_entries synced; /* of a directory */
};

/* One unsynced operation: an entry removed (from), made (to), or both at once (a rename). */
struct sim_change {
    struct sim_node *from;
    struct sim_node *to;
    char *from_name;
    char *to_name;
    struct sim_node *node;
};

struct sim_disk {
    struct sim_node **nodes; /* the first is the root */
    size_t nodes_n;
    size_t nodes_capacity;
    struct sim_change *changes; /* oldest first */
    size_t changes_n;
    size_t changes_capacity;
    size_t removed_n;   /* nodes that lost their name since the last sweep */
    uint64_t space_max; /* for all files; UINT64_MAX: no bound */
};

void sim_disk_init(struct sim_disk *d);
void sim_disk_deinit(struct sim_disk *d);
/* A disk in the same state, synced and unsynced; its files are closed and unlocked. */
void sim_disk_copy(struct sim_disk *to, const struct sim_disk *from);

/* The results are those of os.h. */
int sim_disk_find(struct sim_disk *d, const char *path, struct sim_node **ret_node) MUST_USE;
int sim_disk_create(struct sim_disk *d, const char *path, bool directory,
                    struct sim_node **ret_node) MUST_USE;
int sim_disk_remove(struct sim_disk *d, const char *path, bool directory) MUST_USE;
int sim_disk_rename(struct sim_disk *d, const char *from, const char *to) MUST_USE;
void sim_disk_sync_directory(struct sim_disk *d, struct sim_node *directory);

/* Both expect that no file is open. */
void sim_disk_cut(struct sim_disk *d, struct sim_random *random);
void sim_disk_evict(struct sim_disk *d, struct sim_random *random);

uint64_t sim_disk_used(const struct sim_disk *d);
uint64_t sim_disk_free(const struct sim_disk *d);

#endif
