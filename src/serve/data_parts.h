/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files share that open a data directory, or what processes share: data.c opens and closes
 * it, data_directory.c knows what lies where, data_stores.c the stores. All say what is wrong in
 * problem.
 */
#ifndef MILLRACE_SERVE_DATA_PARTS_H
#define MILLRACE_SERVE_DATA_PARTS_H

#include "serve/data.h"

enum { DATA_SMALL_FILE_MAX = 64 };
/* In the directory of events that a cluster keeps: whose they are, in so many digits; and, behind
 * them, that the cluster was told. */
#define DATA_SOURCE_FILE "SOURCE"
enum { DATA_SOURCE_DIGITS = 32 };

/* data.c: the URL as it may be shown; NULL leaves out as it is. */
void data_show_url(const struct service_url *url, char out[SERVICE_TEXT_MAX]);

/* ---- data_directory.c ---- */

/* The lock, with this process's number in it; the file is for os_close. SERVE_E_IN_USE. */
int data_take_lock(struct os *os, const char *directory, struct os_file **ret_file,
                   struct problem *problem) MUST_USE;
/* Refuses a version that is not known; writes this one into a directory that has none, if create.
 */
int data_read_format(struct os *os, const char *directory, bool create,
                     struct problem *problem) MUST_USE;
/* elsewhere: of which stores somebody else keeps the data. */
int data_join_paths(const char *directory, const bool elsewhere[DATA_STORES],
                    struct data_paths *paths, struct problem *problem) MUST_USE;
/* A store that has missed what the journal let go of would be short of it for ever: so the kind of
 * a store never changes. */
int data_check_kind(struct os *os, const char *directory, int kind, bool elsewhere,
                    struct problem *problem) MUST_USE;

/* ---- data_stores.c ---- */

/* What connects to those who keep stores elsewhere: whatever is wrong with their URLs. Nothing is
 * made anywhere. */
int data_prepare_stores(struct data *d, struct problem *problem) MUST_USE;

/* Looks, before there is a journal, whether those who keep what processes share are there, and have
 * nothing that would have to be refused. Waits as the options say. */
int data_look_at_shared(struct data *d, unsigned partitions, struct problem *problem) MUST_USE;

/* Each of these sets the store's ops and store. */

enum {
    DATA_E_NO_STORE = 280, /* it was not to be made, and the problem is what is missing, no sentence
                              yet: "it has no tasks under the prefix mill-" */
};

int data_open_points(struct data *d, const struct data_options *options,
                     struct problem *problem) MUST_USE;
int data_open_events(struct data *d, const struct data_options *options,
                     struct problem *problem) MUST_USE;
int data_open_tasks(struct data *d, const struct data_options *options,
                    struct problem *problem) MUST_USE;
/* The points of a journal that processes share, whose part of it was opened. */
int data_open_shared_points(struct data *d, struct problem *problem) MUST_USE;
/* Tasks that processes share, as tasks_shared_join has it. Waits likewise. DATA_E_NO_STORE. */
int data_open_shared_tasks(struct data *d, const char *source, bool create, unsigned partitions,
                           struct problem *problem) MUST_USE;
/* The events of a Redis Cluster, as events_redis_join has it, also of one process's own. Waits for
 * the cluster as the options say. DATA_E_NO_STORE. */
int data_open_shared_events(struct data *d, const char *source, bool create, unsigned lanes,
                            struct problem *problem) MUST_USE;

#endif
