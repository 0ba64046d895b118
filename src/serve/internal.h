/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of this room share: the running server. Everything in it is set before the threads
 * start and stays, except what is atomic or stands under the lock.
 */
#ifndef MILLRACE_SERVE_INTERNAL_H
#define MILLRACE_SERVE_INTERNAL_H

#include "base/budget.h"
#include "events/api.h"
#include "os/sync.h"
#include "points/api.h"
#include "serve/letters.h"
#include "serve/serve.h"
#include "tasks/api.h"
#include "work/backlog.h"
#include "work/share.h"

enum serve_state { SERVE_STARTING, SERVE_READY, SERVE_STOPPING };

/* Gauges and journal timings (gauges.c). */
struct gauges;
struct gauges_observer {
    struct journal_observer observer;
    struct gauges *gauges;
};
struct gauges {
    struct metrics_source source;
    struct gauges_observer observers[DATA_STORES]; /* of each journal */
    struct serve *serve;
    struct metric_series *write_seconds;
    struct metric_series *sync_seconds;
    struct metric_series *commit_records;
};

/* Persists one store; the first one also watches over health. */
struct keeper {
    struct serve *serve;
    struct os_thread *thread;
    enum data_store_kind kind;
    bool watches;        /* over health, too: the first of them */
    uint64_t due_ns;     /* since when one is due, and waits; 0: none is */
    uint64_t checked_ns; /* when the last checkpoint ended, or was tried */
    uint64_t counted_ns; /* when dead letters were */
    uint64_t looked_ns;  /* when it was, whether others apply */
    bool warned;         /* that they do not */
    lsn_t persisted;     /* what was visible when the last one was begun */
    bool failing;        /* the last one failed */
};

/* The housekeeping: a thread a store, so that none waits for another's disk (housekeeper.c). */
struct housekeeper {
    struct keeper keepers[DATA_STORES];
    const char *complaining; /* the part that the log last complained of, or NULL */
    struct mutex lock;       /* LOCK_RANK_SERVE: what follows */
    struct condition wake;
    bool stopping;
    uint64_t interval_ms;
    uint64_t dirty_max_bytes;
};

struct serve_key {
    struct serve_key *next;
    char text[];
};

enum { SERVE_TABLES_MAX = 18, SERVE_SIDE_ROUTES = 5 };

/* waiting.c: who answers until the engines of all parts have been reached. */
enum { WAITING_SIDES = 2, WAITING_ROUTES = 5 };
struct waiting {
    struct os *os;
    struct log *log;
    const struct serve_options *options;
    struct http_side *sides[WAITING_SIDES]; /* NULL: nobody has to wait */
    struct http_side_route routes[WAITING_ROUTES];
    struct mutex lock; /* LOCK_RANK_SERVE: what follows */
    const char *part;  /* static */
    char reason[PROBLEM_TEXT_MAX];
};

struct serve {
    struct os *os;
    struct budget budget; /* borrowed by everything below */
    struct log *log;
    struct metrics *metrics;
    struct waiting waiting; /* told by the engines of data, as long as there are any */
    struct data *data;
    struct http_server *http;              /* NULL: this process is no API */
    struct share *shares[DATA_STORES];     /* NULL: it applies none of a shared journal */
    struct backlog *backlogs[DATA_STORES]; /* whether others do; NULL: it does, or none is shared */
    struct http_side *side;
    struct http_side_route side_routes[SERVE_SIDE_ROUTES];
    struct points_api points_api;
    struct events_api events_api;
    struct tasks_api tasks_api;
    struct task_settings task_settings; /* of tasks that processes share */
    struct letters_of letters;
    struct gauges gauges;
    struct housekeeper housekeeper;
    struct http_route_table tables[SERVE_TABLES_MAX];
    size_t n_tables;
    struct buffer openapi; /* made once */
    struct buffer routes_page;
    struct mutex settings_lock; /* LOCK_RANK_SERVE: settings, which status_set_settings replaces */
    struct buffer settings;
    struct serve_key *keys; /* set by serve_reload, newest first: old ones may be in use */
    char url[300];          /* of the API from this machine, for imports */
    char own_key[65];       /* that imports ask it with; "" when there are none */
    bool key_needed;        /* wider than loopback, and not --insecure */
    uint64_t stop_timeout_ms;
    void (*stuck)(void *context);
    void *stuck_context;
    _Atomic int state; /* enum serve_state */
    bool working;      /* the workers were started */
};

/* ---- waiting.c ---- */

void waiting_init(struct waiting *w, struct os *os, struct log *log,
                  const struct serve_options *options);
/* Leaves the addresses to those whose they are. It can still be told things. */
void waiting_end(struct waiting *w);
void waiting_deinit(struct waiting *w);
/* For data_options.journal.tell, .tell and .unreachable; the context is the struct waiting. */
void waiting_hear_journal(void *waiting, const char *sentence);
void waiting_hear(void *waiting, const char *part, const char *sentence);
int waiting_again(void *waiting, const char *part, const char *why,
                  struct problem *problem) MUST_USE;

/* For data_options.locked: an engine that is opened puts its former owner out, so a start that has
 * to fail must do so before; and from here on somebody stands in, if there are engines. */
int waiting_locked(void *waiting, struct problem *problem) MUST_USE;

/* serve.c: whether this process is to listen for requests; whether it can listen where it is to. */
bool serve_has_api(const struct serve_options *options);
int serve_try_addresses(const struct serve_options *options, struct problem *problem) MUST_USE;
/* The sentence for a result of listening. */
int serve_cannot_listen(struct problem *problem, const char *flag, const char *address,
                        int r) MUST_USE;

/* replay.c: has the stores catch up with the journal, and says how far it is. */
int serve_replay(struct serve *s, const struct serve_options *options,
                 struct problem *problem) MUST_USE;

/* gauges.c: registers with the metrics and the journal; before the first append. */
void gauges_init(struct gauges *g, struct serve *s);

/* housekeeper.c */
void housekeeper_init(struct housekeeper *h, const struct serve_options *options);
int housekeeper_start(struct serve *s) MUST_USE;
/* Ends the threads; checkpoints under way are finished. Harmless when it was not started. */
void housekeeper_stop(struct serve *s);
void housekeeper_deinit(struct housekeeper *h);

/* health.c: answers to the three questions, on either port. */
enum health_question {
    HEALTH_ALIVE, /* should it be left running? */
    HEALTH_READY, /* does it take writes and answer reads? */
    HEALTH_WHOLE, /* what is there to know? 200 as long as it is alive */
};
/* Appends the JSON, returns the status. Thread-safe; does not block. */
unsigned health_append(struct serve *s, enum health_question question, struct buffer *out);
/* The name of the first part that is not as it should be, with its reason; NULL when all is well.
 * The server itself is none: that it starts or stops is no complaint. */
const char *health_complaint(struct serve *s, char *reason, size_t size);

/* tasks.c: the runner, and bulk uploads among the tasks. -ENOMEM. */
int serve_tasks_prepare(struct serve *s, const struct serve_options *options) MUST_USE;
/* Once the API answers. -errno. */
int serve_tasks_start(struct serve *s, const struct serve_options *options) MUST_USE;

/* letters_api.c */
struct http_route_table letters_routes(struct letters_of *letters);

/* status.c: GET /status and GET /settings. */
struct http_route_table status_table(struct serve *s);
/* What /settings answers from now on. -ENOMEM: what it did. */
int status_set_settings(struct serve *s, struct bytes json) MUST_USE;

/* routes.c: health, /openapi.json, /docs and /console. */
struct http_route_table routes_table(struct serve *s);
/* Makes openapi and routes_page from the tables. */
int routes_prepare(struct serve *s) MUST_USE;
/* The routes of the side server. */
void routes_side(struct serve *s, struct http_side_route out[SERVE_SIDE_ROUTES]);

#endif
