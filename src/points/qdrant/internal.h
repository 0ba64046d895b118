/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cluster, as the files of this folder see it:
 *
 *   client.c    gRPC (client.h)
 *   cluster.c   its life, the sink of the lanes, and the thread that asks whether it is there
 *   rest.c      questions by REST
 *   url.c       its address
 */
#ifndef MILLRACE_POINTS_QDRANT_INTERNAL_H
#define MILLRACE_POINTS_QDRANT_INTERNAL_H

#include "http/transfer.h"
#include "os/sync.h"
#include "points/qdrant.h"
#include "points/qdrant/client.h"

enum { QDRANT_KEY_MAX = 1024, QDRANT_ASKERS_MAX = 64 };

struct qdrant_cluster {
    struct os *os;
    struct qdrant_url url;
    char text[QDRANT_URL_TEXT_MAX];                       /* of the URL, without secrets */
    char base[QDRANT_URL_TEXT_MAX];                       /* of the REST API: http://host:port */
    char key_header[QDRANT_KEY_MAX + sizeof "api-key: "]; /* "": there is no key */
    struct points_sink sink;
    struct points_aliases aliases;
    struct qdrant_client *client;
    struct qdrant_client *watcher; /* with a short patience */
    struct os_thread *thread;
    _Atomic uint64_t stop_ns; /* when who waits for REST is let go */

    /* rest.c */
    _Atomic bool silent;  /* nobody was there for the last question; not: it took too long */
    _Atomic bool probing; /* then one at a time asks */

    struct mutex lock; /* LOCK_RANK_QDRANT_CLUSTER: what follows */
    struct condition wake;
    bool stopping;
    bool reachable;
    char reason[POINTS_SINK_SENTENCE];
    struct transfers *askers[QDRANT_ASKERS_MAX]; /* not in use */
    size_t n_askers;
};

#endif
