/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated system: the table of os.h over a simulated disk (sim_disk.c). Each call first goes
 * through begin(), the one place that counts calls and decides which fail; what may happen to which
 * call is a row of the table below.
 */
#include "os/sim.h"

#include "os/sim_disk.h"
#include "os/sync.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum { NS_PER_CALL = 1000, MAP_ALIGNMENT = 4096 };

static const uint64_t file_bytes_max = UINT64_C(1) << 33;
static const uint64_t start_ns = UINT64_C(1000) * 1000000000;    /* the machine is up for a while */
static const uint64_t start_us = UINT64_C(1767225600) * 1000000; /* 2026-01-01 */

enum call {
    CALL_OPEN,
    CALL_CREATE, /* an open that creates */
    CALL_READ,
    CALL_WRITE,
    CALL_SYNC,
    CALL_TRUNCATE,
    CALL_SIZE,
    CALL_LOCK,
    CALL_MAP,
    CALL_RENAME,
    CALL_UNLINK,
    CALL_MKDIR,
    CALL_RMDIR,
    CALL_LIST,
    CALL_SYNC_DIRECTORY,
    CALL_DISK_SPACE,
    CALL_RANDOM,
    CALL_COUNT,
};

static const struct call_traits {
    bool changes;   /* the disk: counted for crash_at */
    bool refusable; /* by refuse_error */
    bool fills;     /* may find the disk full */
    bool transfers; /* may be short or interrupted */
    bool syncs;     /* an interruption is a failure */
} call_traits[CALL_COUNT] = {
    [CALL_CREATE] = {.changes = true, .refusable = true, .fills = true},
    [CALL_READ] = {.transfers = true},
    [CALL_WRITE] = {.changes = true, .refusable = true, .fills = true, .transfers = true},
    [CALL_SYNC] = {.changes = true, .refusable = true, .fills = true, .syncs = true},
    [CALL_TRUNCATE] = {.changes = true, .refusable = true, .fills = true},
    [CALL_RENAME] = {.changes = true, .fills = true},
    [CALL_UNLINK] = {.changes = true},
    [CALL_MKDIR] = {.changes = true, .refusable = true, .fills = true},
    [CALL_RMDIR] = {.changes = true},
    [CALL_SYNC_DIRECTORY] = {.changes = true, .refusable = true, .fills = true, .syncs = true},
};

/* An open file. node is NULL once a cut or a kill has made it invalid. */
struct os_file {
    struct sim_node *node;
    unsigned flags;
    struct os_file *next;
    struct os_file **link; /* what points to it in the list of open files */
};

struct sim {
    struct os os;
    struct mutex lock; /* of everything below */
    struct condition released;
    struct sim_disk disk;
    struct sim_random random;
    struct sim_faults faults;
    struct os_file *files;
    uint64_t calls;
    uint64_t changes;
    uint64_t now_ns;
    bool faulted;
    bool crashed;
};

static struct sim *sim_of(struct os *os) {
    return (struct sim *)(void *)os;
}

/* Also for what only looks: the lock is no part of what a const sim promises to keep. */
static struct sim *locked(const struct sim *s) {
    struct sim *mutable = (struct sim *)(uintptr_t)s;
    mutex_lock(&mutable->lock);
    return mutable;
}

static int unlocked(struct sim *s, int r) {
    mutex_unlock(&s->lock);
    return r;
}

/* An error of the caller's choice, as this call can have it on the real system. */
static int injected(enum call call, int error) {
    const struct call_traits *traits = &call_traits[call];
    if (error == OS_E_INTERRUPTED && !traits->transfers)
        return traits->syncs ? error_origin(-EINTR) : 0;
    if (error == OS_E_FULL && !traits->fills)
        return error_origin(-EIO);
    return error < 0 ? error_origin(error) : error;
}

/* Whether the power is gone, be it with this call. */
static bool crash(struct sim *s, bool changes) {
    if (changes && s->faults.crash_at && s->changes >= s->faults.crash_at)
        s->crashed = s->faulted = true;
    return s->crashed;
}

/* Without the lock, because it is there to clone us. */
static void tell_of_change(struct sim *s) {
    if (!s->faults.each_change)
        return;
    void (*each_change)(void *) = s->faults.each_change;
    void *context = s->faults.context;
    mutex_unlock(&s->lock);
    each_change(context);
    mutex_lock(&s->lock);
}

/* Counts a call and returns what it fails with, or 0 when it goes ahead. */
static int begin(struct sim *s, enum call call) {
    const struct call_traits *traits = &call_traits[call];
    s->now_ns += NS_PER_CALL;
    s->calls++;
    s->changes += traits->changes;
    if (traits->changes)
        tell_of_change(s);
    if (crash(s, traits->changes))
        return error_origin(-EIO);
    if (s->calls == s->faults.fail_at) {
        s->faulted = true;
        return injected(call, s->faults.fail_error);
    }
    if (s->faults.refuse_error && traits->refusable)
        return injected(call, s->faults.refuse_error);
    if (s->faults.short_transfers && traits->transfers && sim_random_below(&s->random, 8) == 0)
        return OS_E_INTERRUPTED;
    return 0;
}

/* The same for a call on an open file. */
static int begin_on(struct sim *s, enum call call, const struct os_file *file) {
    int r = begin(s, call);
    return !r && !file->node ? error_origin(-EBADF) : r;
}

/* How much of a transfer of size bytes is done. */
static size_t transfer_size(struct sim *s, size_t size) {
    if (!s->faults.short_transfers || size == 0 || sim_random_below(&s->random, 2))
        return size;
    return 1 + (size_t)sim_random_below(&s->random, size);
}

static struct os_file *add_file(struct sim *s, struct sim_node *node, unsigned flags) {
    struct os_file *file = sim_allocate(1, sizeof *file);
    *file = (struct os_file){.node = node, .flags = flags, .next = s->files, .link = &s->files};
    if (s->files)
        s->files->link = &file->next;
    s->files = file;
    node->handles++;
    return file;
}

static void release_node(struct os_file *file) {
    if (!file->node)
        return;
    file->node->handles--;
    if (file->node->lock_holder == file)
        file->node->lock_holder = NULL;
    file->node = NULL;
}

static void remove_file(struct os_file *file) {
    release_node(file);
    *file->link = file->next;
    if (file->next)
        file->next->link = file->link;
    free(file);
}

static int open_locked(struct sim *s, const char *path, unsigned flags, struct os_file **ret_file) {
    struct sim_node *node = NULL;
    int found = sim_disk_find(&s->disk, path, &node);
    bool creates = found == OS_E_NOT_FOUND && flags & OS_OPEN_CREATE;
    int r = begin(s, creates ? CALL_CREATE : CALL_OPEN);
    if (r)
        return r;
    r = creates ? sim_disk_create(&s->disk, path, false, &node) : found;
    if (r)
        return r;
    if (!creates && flags & OS_OPEN_CREATE && flags & OS_OPEN_EXCLUSIVE)
        return OS_E_EXISTS;
    if (node->directory)
        return error_origin(-EISDIR);
    *ret_file = add_file(s, node, flags);
    return 0;
}

static int sim_open(struct os *os, const char *path, unsigned flags, struct os_file **ret_file) {
    struct sim *s = locked(sim_of(os));
    return unlocked(s, open_locked(s, path, flags, ret_file));
}

static void sim_close(struct os *os, struct os_file *file) {
    struct sim *s = locked(sim_of(os));
    s->now_ns += NS_PER_CALL;
    remove_file(file);
    mutex_unlock(&s->lock);
}

static int sim_read(struct os *os, struct os_file *file, void *data, size_t size, uint64_t offset,
                    size_t *ret_size) {
    struct sim *s = locked(sim_of(os));
    int r = begin_on(s, CALL_READ, file);
    if (r)
        return unlocked(s, r);
    const struct sim_file *f = &file->node->file;
    uint64_t rest = offset < f->size ? f->size - offset : 0;
    size_t n = transfer_size(s, rest < size ? (size_t)rest : size);
    if (n)
        memcpy(data, f->written + offset, n);
    *ret_size = n;
    return unlocked(s, 0);
}

/* How much of a write finds space: all, a part, or OS_E_FULL. */
static int fit(const struct sim *s, const struct sim_file *f, uint64_t offset, size_t *size) {
    uint64_t end = offset + *size;
    uint64_t space = sim_disk_free(&s->disk);
    if (end <= f->allocated || end - f->allocated <= space)
        return 0;
    uint64_t end_max = f->allocated + space;
    if (end_max <= offset)
        return OS_E_FULL;
    *size = (size_t)(end_max - offset);
    return 0;
}

static int write_locked(struct sim *s, struct os_file *file, const void *data, size_t size,
                        uint64_t offset, size_t *ret_size) {
    int r = begin_on(s, CALL_WRITE, file);
    if (r)
        return r;
    if (!(file->flags & (OS_OPEN_WRITE | OS_OPEN_APPEND)))
        return error_origin(-EBADF);
    struct sim_file *f = &file->node->file;
    if (file->flags & OS_OPEN_APPEND)
        offset = f->size;
    if (offset > file_bytes_max || size > file_bytes_max - offset)
        return error_origin(-EFBIG);
    size = transfer_size(s, size);
    r = fit(s, f, offset, &size);
    if (r)
        return r;
    sim_file_write(f, data, size, offset);
    *ret_size = size;
    return 0;
}

static int sim_write(struct os *os, struct os_file *file, const void *data, size_t size,
                     uint64_t offset, size_t *ret_size) {
    struct sim *s = locked(sim_of(os));
    return unlocked(s, write_locked(s, file, data, size, offset, ret_size));
}

static void hang(struct sim *s) {
    s->now_ns += s->faults.hang_ns;
    while (s->faults.hold_syncs)
        condition_wait(&s->released, &s->lock);
}

static int sync_locked(struct sim *s, struct os_file *file) {
    hang(s);
    int r = begin_on(s, CALL_SYNC, file);
    if (!r)
        sim_file_sync(&file->node->file);
    else if (!s->crashed && file->node) /* after a crash nothing has an effect */
        sim_file_fail_sync(&file->node->file, &s->random);
    return r;
}

static int sim_sync(struct os *os, struct os_file *file) {
    struct sim *s = locked(sim_of(os));
    return unlocked(s, sync_locked(s, file));
}

static int truncate_locked(struct sim *s, struct os_file *file, uint64_t size) {
    int r = begin_on(s, CALL_TRUNCATE, file);
    if (r)
        return r;
    if (!(file->flags & (OS_OPEN_WRITE | OS_OPEN_APPEND)))
        return error_origin(-EINVAL);
    if (size > file_bytes_max)
        return error_origin(-EFBIG);
    sim_file_truncate(&file->node->file, size);
    return 0;
}

static int sim_truncate(struct os *os, struct os_file *file, uint64_t size) {
    struct sim *s = locked(sim_of(os));
    return unlocked(s, truncate_locked(s, file, size));
}

static int sim_size(struct os *os, struct os_file *file, uint64_t *ret_size) {
    struct sim *s = locked(sim_of(os));
    int r = begin_on(s, CALL_SIZE, file);
    if (!r)
        *ret_size = file->node->file.size;
    return unlocked(s, r);
}

static int sim_lock(struct os *os, struct os_file *file) {
    struct sim *s = locked(sim_of(os));
    int r = begin_on(s, CALL_LOCK, file);
    if (!r && file->node->lock_holder && file->node->lock_holder != file)
        r = OS_E_LOCKED;
    if (!r)
        file->node->lock_holder = file;
    return unlocked(s, r);
}

static int map_locked(struct sim *s, const struct os_file *file, uint64_t size,
                      const void **ret_data) {
    int r = begin_on(s, CALL_MAP, file);
    if (r)
        return r;
    if (size == 0 || size > file->node->file.size)
        return error_origin(-EINVAL);
    size_t whole = (size + MAP_ALIGNMENT - 1) / MAP_ALIGNMENT * MAP_ALIGNMENT;
    void *data = aligned_alloc(MAP_ALIGNMENT, whole);
    if (!data)
        return error_origin(-ENOMEM);
    memcpy(data, file->node->file.written, size);
    memset((uint8_t *)data + size, 0, whole - size);
    *ret_data = data;
    return 0;
}

static int sim_map(struct os *os, struct os_file *file, uint64_t size, const void **ret_data) {
    struct sim *s = locked(sim_of(os));
    return unlocked(s, map_locked(s, file, size, ret_data));
}

static void sim_unmap(struct os *os UNUSED, const void *data, uint64_t size UNUSED) {
    free((void *)(uintptr_t)data);
}

static int sim_rename(struct os *os, const char *from, const char *to) {
    struct sim *s = locked(sim_of(os));
    int r = begin(s, CALL_RENAME);
    return unlocked(s, r ? r : sim_disk_rename(&s->disk, from, to));
}

static int sim_unlink(struct os *os, const char *path) {
    struct sim *s = locked(sim_of(os));
    int r = begin(s, CALL_UNLINK);
    return unlocked(s, r ? r : sim_disk_remove(&s->disk, path, false));
}

static int sim_mkdir(struct os *os, const char *path) {
    struct sim *s = locked(sim_of(os));
    struct sim_node *ignored;
    int r = begin(s, CALL_MKDIR);
    return unlocked(s, r ? r : sim_disk_create(&s->disk, path, true, &ignored));
}

static int sim_rmdir(struct os *os, const char *path) {
    struct sim *s = locked(sim_of(os));
    int r = begin(s, CALL_RMDIR);
    return unlocked(s, r ? r : sim_disk_remove(&s->disk, path, true));
}

static int find_directory(struct sim *s, const char *path, struct sim_node **ret_directory) {
    struct sim_node *node;
    int r = sim_disk_find(&s->disk, path, &node);
    if (r)
        return r;
    if (!node->directory)
        return error_origin(-ENOTDIR);
    *ret_directory = node;
    return 0;
}

/* Copies of the names, starting anywhere, so that nobody relies on their order. */
static char **copy_names(struct sim *s, const struct sim_entries *entries) {
    char **names = sim_allocate(entries->n, sizeof *names);
    size_t first = entries->n ? (size_t)sim_random_below(&s->random, entries->n) : 0;
    for (size_t i = 0; i < entries->n; i++)
        names[i] = sim_copy_string(entries->items[(first + i) % entries->n].name);
    return names;
}

static int sim_list(struct os *os, const char *path, void (*each)(void *context, const char *name),
                    void *context) {
    struct sim *s = locked(sim_of(os));
    struct sim_node *directory = NULL;
    int r = begin(s, CALL_LIST);
    if (!r)
        r = find_directory(s, path, &directory);
    if (r)
        return unlocked(s, r);
    size_t n = directory->made.n;
    char **names = copy_names(s, &directory->made);
    mutex_unlock(&s->lock); /* each may call us */
    for (size_t i = 0; i < n; i++) {
        each(context, names[i]);
        free(names[i]);
    }
    free(names);
    return 0;
}

static int sim_sync_directory(struct os *os, const char *path) {
    struct sim *s = locked(sim_of(os));
    struct sim_node *directory = NULL;
    hang(s);
    int r = begin(s, CALL_SYNC_DIRECTORY);
    if (!r)
        r = find_directory(s, path, &directory);
    if (!r)
        sim_disk_sync_directory(&s->disk, directory);
    return unlocked(s, r);
}

static int sim_disk_space(struct os *os, const char *path, uint64_t *ret_free,
                          uint64_t *ret_total) {
    struct sim *s = locked(sim_of(os));
    struct sim_node *ignored;
    int r = begin(s, CALL_DISK_SPACE);
    if (!r)
        r = sim_disk_find(&s->disk, path, &ignored);
    if (r)
        return unlocked(s, r);
    *ret_free = sim_disk_free(&s->disk);
    *ret_total = s->disk.space_max;
    return unlocked(s, 0);
}

static uint64_t sim_monotonic_ns(struct os *os) {
    struct sim *s = locked(sim_of(os));
    uint64_t now_ns = s->now_ns += NS_PER_CALL;
    mutex_unlock(&s->lock);
    return now_ns;
}

static uint64_t sim_wall_us(struct os *os) {
    return start_us + (sim_monotonic_ns(os) - start_ns) / 1000;
}

static void sim_sleep_ns(struct os *os, uint64_t ns) {
    struct sim *s = locked(sim_of(os));
    s->now_ns += NS_PER_CALL + ns;
    mutex_unlock(&s->lock);
}

static int sim_random(struct os *os, void *data, size_t size) {
    struct sim *s = locked(sim_of(os));
    int r = begin(s, CALL_RANDOM);
    if (r)
        return unlocked(s, r);
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)data)[i] = (uint8_t)sim_random_next(&s->random);
    return unlocked(s, 0);
}

static int sim_thread_start(struct os *os UNUSED, const char *name, void (*run)(void *),
                            void *argument, struct os_thread **ret_thread) {
    return os_thread_start(os_real(), name, run, argument, ret_thread);
}

static void sim_thread_join(struct os *os UNUSED, struct os_thread *thread) {
    os_thread_join(os_real(), thread);
}

static const struct os_ops sim_ops = {
    .open = sim_open,
    .close = sim_close,
    .read = sim_read,
    .write = sim_write,
    .sync = sim_sync,
    .truncate = sim_truncate,
    .size = sim_size,
    .lock = sim_lock,
    .map = sim_map,
    .unmap = sim_unmap,
    .rename = sim_rename,
    .unlink = sim_unlink,
    .mkdir = sim_mkdir,
    .rmdir = sim_rmdir,
    .list = sim_list,
    .sync_directory = sim_sync_directory,
    .disk_space = sim_disk_space,
    .monotonic_ns = sim_monotonic_ns,
    .wall_us = sim_wall_us,
    .sleep_ns = sim_sleep_ns,
    .random = sim_random,
    .thread_start = sim_thread_start,
    .thread_join = sim_thread_join,
};

/* All but the disk. */
static int allocate(uint64_t seed, struct sim **ret_sim) {
    struct sim *s = malloc(sizeof *s);
    if (!s)
        return error_origin(-ENOMEM);
    /* Seeds 1, 2, 3, … must not give the same chances, shifted by one. */
    struct sim_random seeds = {.state = seed};
    *s = (struct sim){
        .os.ops = &sim_ops, .random.state = sim_random_next(&seeds), .now_ns = start_ns};
    mutex_init(&s->lock, LOCK_RANK_SIM);
    condition_init(&s->released);
    *ret_sim = s;
    return 0;
}

int sim_new(uint64_t seed, struct sim **ret_sim) {
    struct sim *s = NULL;
    int r = allocate(seed, &s);
    if (r)
        return error_trace(r);
    sim_disk_init(&s->disk);
    *ret_sim = s;
    return 0;
}

int sim_clone(const struct sim *from, uint64_t seed, struct sim **ret_sim) {
    struct sim *s = NULL;
    int r = allocate(seed, &s);
    if (r)
        return error_trace(r);
    struct sim *original = locked(from);
    sim_disk_copy(&s->disk, &original->disk);
    s->now_ns = original->now_ns;
    mutex_unlock(&original->lock);
    *ret_sim = s;
    return 0;
}

struct sim *sim_free(struct sim *s) {
    if (!s)
        return NULL;
    /* remove_file takes its file off the list's head, which the analyzer does not follow. */
    while (s->files)
        remove_file(s->files); /* NOLINT(clang-analyzer-unix.Malloc) */
    sim_disk_deinit(&s->disk);
    condition_deinit(&s->released);
    mutex_deinit(&s->lock);
    free(s);
    return NULL;
}

struct os *sim_os(struct sim *s) {
    return &s->os;
}

static void clear_faults(struct sim *s) {
    s->faults = (struct sim_faults){0};
    s->crashed = false;
    condition_broadcast(&s->released);
}

void sim_set_faults(struct sim *s, const struct sim_faults *faults) {
    locked(s);
    clear_faults(s);
    if (faults)
        s->faults = *faults;
    s->calls = s->changes = 0;
    s->faulted = false;
    mutex_unlock(&s->lock);
}

uint64_t sim_calls(const struct sim *s) {
    struct sim *mutable = locked(s);
    uint64_t calls = mutable->calls;
    mutex_unlock(&mutable->lock);
    return calls;
}

uint64_t sim_disk_changes(const struct sim *s) {
    struct sim *mutable = locked(s);
    uint64_t changes = mutable->changes;
    mutex_unlock(&mutable->lock);
    return changes;
}

bool sim_faulted(const struct sim *s) {
    struct sim *mutable = locked(s);
    bool faulted = mutable->faulted;
    mutex_unlock(&mutable->lock);
    return faulted;
}

static void invalidate_files(struct sim *s) {
    for (struct os_file *file = s->files; file; file = file->next)
        release_node(file);
}

void sim_power_cut(struct sim *s) {
    locked(s);
    clear_faults(s);
    invalidate_files(s);
    sim_disk_cut(&s->disk, &s->random);
    mutex_unlock(&s->lock);
}

void sim_kill(struct sim *s) {
    locked(s);
    s->crashed = false;
    s->faults.crash_at = 0;
    invalidate_files(s);
    sim_disk_evict(&s->disk, &s->random);
    mutex_unlock(&s->lock);
}

static int flip_bit(struct sim *s, const char *path, uint64_t bit) {
    struct sim_node *node;
    int r = sim_disk_find(&s->disk, path, &node);
    if (r)
        return r;
    if (node->directory || bit / 8 >= node->file.size)
        return error_origin(-EINVAL);
    uint8_t mask = (uint8_t)(1 << bit % 8);
    node->file.written[bit / 8] ^= mask;
    node->file.synced[bit / 8] ^= mask;
    return 0;
}

int sim_flip_bit(struct sim *s, const char *path, uint64_t bit) {
    locked(s);
    return unlocked(s, flip_bit(s, path, bit));
}

void sim_set_space(struct sim *s, uint64_t free_bytes) {
    locked(s);
    uint64_t used = sim_disk_used(&s->disk);
    s->disk.space_max = free_bytes > UINT64_MAX - used ? UINT64_MAX : free_bytes + used;
    mutex_unlock(&s->lock);
}
