/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A data directory, opened: its lock, its version, the journal, the stores, and the workers that
 * bring the one into the others. The server uses it, and so do the tools that write.
 *
 *   DIR/LOCK      locked while a process has the directory open; holds that process's number
 *   DIR/FORMAT    "millrace-data 1\n": a newer number is refused
 *   DIR/journal/  journal/FORMAT.md
 *   DIR/points/   points/local/FORMAT.md; with a cluster, DIR/points-qdrant/ in the same format
 *   DIR/events/   events/local/FORMAT.md; with a cluster, DIR/events-redis/SOURCE: what the cluster
 *                 knows this directory's records by, 32 hexadecimal digits
 *   DIR/tasks/    tasks/local/FORMAT.md; with a Redis, DIR/tasks-redis/ in the same format
 *
 * Opened and closed by one thread; what it holds is as thread-safe as the headers of those rooms
 * say.
 */
#ifndef MILLRACE_SERVE_DATA_H
#define MILLRACE_SERVE_DATA_H

#include "events/redis.h"
#include "events/store.h"
#include "os/file.h"
#include "points/qdrant.h"
#include "points/shared.h"
#include "points/store.h"
#include "serve/problem.h"
#include "tasks/redis.h"
#include "tasks/shared.h"
#include "tasks/store.h"
#include "work/follow.h"

enum { DATA_FORMAT = 1 };

/* What a process does of append, acknowledge, apply. One role alone needs a journal that several
 * processes share. */
enum data_roles {
    DATA_ROLE_API = 1,    /* takes writes, answers queries */
    DATA_ROLE_WORKER = 2, /* applies */
};

struct data_options {
    const char *directory;
    unsigned roles; /* enum data_roles; 0: all */
    bool existing;  /* of what processes share: nothing is made, and what is missing is refused */
    struct journal_options journal;
    struct points_store_options points;
    const struct qdrant_url *qdrant; /* the cluster that keeps the points; NULL: the store does */
    struct events_store_options events;
    const struct service_url *events_url; /* of the cluster that keeps the events; NULL: the store
                                        does. Borrowed until the close */
    struct event_dictionary_options dictionary;
    struct tasks_store_options tasks;
    const struct service_url *tasks_url; /* of the Redis that keeps the tasks; NULL: the store */
    uint64_t task_lease_ms;         /* of tasks that processes share; 0: as tasks/shared.h has it */
    struct event_once_options once; /* keys_max 0: 1,000,000 */
    /* The engine of a part ("journal", "events", "tasks") cannot be reached: asked whether to try
     * again (it waits a while, and returns 0), or to give up. NULL: the opening fails. */
    int (*unreachable)(void *context, const char *part, const char *why, struct problem *problem);
    /* The directory, if there is one, is locked, and no engine was asked yet: may refuse. NULL:
     * nobody looks. */
    int (*locked)(void *context, struct problem *problem);
    /* Told what the engine of a part says of itself, as that it promises little. NULL: nobody. */
    void (*tell)(void *context, const char *part, const char *sentence);
    void *context;
    bool no_keyed;        /* on a simulated system: RocksDB does its own I/O */
    unsigned workers_min; /* of each store, 0: 1 */
    unsigned workers_max; /* 0: one a core */
    size_t queue_bytes_max;
};

/* The stores, in the order in which they are opened and replayed. */
enum data_store_kind { DATA_POINTS, DATA_EVENTS, DATA_TASKS, DATA_STORES };
extern const char *const data_store_names[DATA_STORES];

/* What opening, replaying and persisting need to know of a store. */
struct data_store_ops {
    const struct work_store_ops *work;
    unsigned (*lanes)(void *store);
    void (*positions)(void *store, lsn_t *ret_positions);
    int (*checkpoint)(void *store, struct journal *j) MUST_USE;
    uint64_t (*dirty_bytes)(void *store);
    bool (*is_behind)(void *store);        /* a checkpoint had better wait a little; NULL: never */
    bool (*wants_checkpoint)(void *store); /* for something other than records; NULL: never */
    /* As of struct share_options, for a store that processes share. */
    int (*position)(void *store, unsigned partition, lsn_t *ret_lsn) MUST_USE;
    int (*number)(void *store, unsigned partition, struct group_numbers *numbers) MUST_USE;
    void (*until)(void *store, uint64_t monotonic_ns);
};

/* A store with its workers; ops is NULL when this process has none of it. */
struct data_store {
    const struct data_store_ops *ops;
    void *store;
    struct work *work; /* not started; NULL with a shared journal: share_start */
    /* That its records are appended to: the one of all stores, or, shared, one of its own. NULL:
     * this process is no API, and of tasks no worker. */
    struct journal *journal;
    struct letter_box letters;  /* its dead letters */
    _Atomic uint64_t n_letters; /* of those that processes share, by data_count_letters */
    char directory[OS_PATH_MAX];
};

struct data {
    struct os *os;
    struct data_options options;
    char directory[OS_PATH_MAX];
    char journal_directory[OS_PATH_MAX];
    struct os_file *lock;
    struct journal *journal; /* that is one order; NULL: it is shared */
    struct points_catalog *catalog;
    struct bulk_tasks *bulk;
    struct points_store *points;
    struct qdrant_cluster *cluster;      /* NULL: none */
    struct points_shared *points_shared; /* NULL: none; else there is no store of points */
    struct kept_letters *letters;        /* its dead letters */
    struct follow *follow;               /* of an API, who applies its points; NULL: itself */
    struct event_dictionary *dictionary;
    struct event_once *once;
    struct events_store *events;
    struct events_redis
        *events_redis; /* NULL: none; else there are no events, dictionary and keys */
    struct tasks_remote *tasks_remote; /* NULL: none */
    struct tasks_store *tasks;
    struct tasks_shared *tasks_shared; /* NULL: none; else there is no store and no remote */
    struct data_store stores[DATA_STORES];
    bool shared;                        /* each store's journal is: there is no directory, and of
                                           the stores only those that processes share */
    char journal_url[SERVICE_TEXT_MAX]; /* of its engine, without secrets; "": local */
    char tasks_url[SERVICE_TEXT_MAX];   /* likewise */
    bool had_remote;                    /* its journal was on another engine before */
    char told[PROBLEM_TEXT_MAX];        /* what the journal's engine said last */
    struct journal_recovery recovery;
    struct points_store_report points_report;
    struct events_store_report events_report;
    struct tasks_store_report tasks_report;
    lsn_t ahead;  /* the largest lsn that a store knows and the journal does not; 0: none */
    lsn_t behind; /* what a store has persisted, when the journal begins later; 0: it does not */
    uint64_t gap; /* lsns that the journal left out because of it */
};

/* Opens or creates it; nothing is replayed yet. With a journal that is shared nothing is created,
 * and there are no workers: share_start (work/share.h). SERVE_E_PROBLEM, SERVE_E_IN_USE. */
int data_open(struct os *os, const struct data_options *options, struct metrics *metrics,
              struct data **ret_data, struct problem *problem) MUST_USE;
/* Closes without a checkpoint. The workers must have been stopped. Takes NULL. */
struct data *data_close(struct data *d);
/* Persists what the store has applied and tells the journal's retention. Negative: as
 * points_store_checkpoint. Two stores may be persisted at once. */
int data_checkpoint(struct data *d, enum data_store_kind kind) MUST_USE;
/* Counts the dead letters, if processes share them and the store does not tell otherwise. May block
 * for seconds; who cannot be asked leaves the number as it is. */
void data_count_letters(struct data *d, enum data_store_kind kind);
/* Bytes that the store has applied since its last checkpoint. */
uint64_t data_dirty_bytes(const struct data *d, enum data_store_kind kind);
bool data_is_behind(const struct data *d, enum data_store_kind kind);
bool data_wants_checkpoint(const struct data *d, enum data_store_kind kind);

/* Only the lock and the version, for tools that read a directory no server has open. The file is
 * for os_close. SERVE_E_PROBLEM, SERVE_E_IN_USE. */
int data_lock(struct os *os, const char *directory, struct os_file **ret_lock,
              struct problem *problem) MUST_USE;

struct data_paths {
    char journal[OS_PATH_MAX];
    char stores[DATA_STORES][OS_PATH_MAX];
    bool elsewhere[DATA_STORES]; /* another program keeps what is in the store */
};
/* The directories inside, without opening anything. SERVE_E_PROBLEM: there is no data directory. */
int data_find_paths(struct os *os, const char *directory, struct data_paths *ret_paths,
                    struct problem *problem) MUST_USE;

struct data_findings {
    struct journal_recovery journal;
    struct points_store_report points;
    struct events_store_report events;
    struct tasks_store_report tasks;
    bool events_elsewhere; /* a Redis Cluster keeps them: there is nothing to check here */
    bool tasks_elsewhere;  /* a Redis keeps them: the directory has a copy, which is not checked */
    uint64_t damages;      /* sentences that each was called with */
};
/* Checks every record and every row of a directory that no process has open, changing nothing; each
 * gets a sentence for every piece of damage. SERVE_E_DAMAGE, SERVE_E_PROBLEM, SERVE_E_IN_USE. */
int data_verify(struct os *os, const char *directory,
                void (*each)(void *context, const char *sentence), void *context,
                struct data_findings *ret_findings, struct problem *problem) MUST_USE;

#endif
