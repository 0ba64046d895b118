/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A Qdrant cluster that keeps the points: what is behind `--points qdrant://…`. Writes go to it by
 * gRPC, through the store's lanes (it is their sink); everything else is asked by REST, a request
 * at a time, with the cluster's key. points/qdrant/README.md says which promise holds where.
 *
 * Thread-safe. A thread of its own asks now and then whether the cluster is there.
 */
#ifndef MILLRACE_POINTS_QDRANT_H
#define MILLRACE_POINTS_QDRANT_H

#include "os/file.h"
#include "points/aliases.h"
#include "points/sink.h"

/* ---- Its address ---- */

enum { QDRANT_HOST_MAX = 255, QDRANT_URL_TEXT_MAX = 320 };
/*
 * qdrant://HOST[:PORT][?rest=PORT&api_key_file=FILE&ca_file=FILE]; qdrants:// with TLS; or
 * HOST[:PORT] alone. The ports are 6334 and 6333 unless they are given.
 */
struct qdrant_url {
    char host[QDRANT_HOST_MAX + 1]; /* an IPv6 address without its brackets */
    uint16_t port;
    uint16_t rest_port;
    bool tls;
    char api_key_file[OS_PATH_MAX]; /* "": there is no key */
    char ca_file[OS_PATH_MAX];      /* "": the system's */
};
/* Whether the text says that the store keeps its points itself: nothing, or "local:". */
bool qdrant_url_is_local(const char *text);
/* False: why says what is wrong with it, as "has no host". */
bool qdrant_url_parse(const char *text, struct qdrant_url *ret_url,
                      char why[POINTS_SINK_SENTENCE]) MUST_USE;

/* ---- The cluster ---- */

struct qdrant_cluster;
enum {
    _QDRANT_E_SUCCESS,
    QDRANT_E_KEY = 240, /* the file of the key cannot be read, or is empty */
    QDRANT_E_DOWN,      /* no answer: the sentence says why */
};
/* Asks nothing yet: that it is away is a state of it. QDRANT_E_KEY. */
int qdrant_cluster_new(struct os *os, const struct qdrant_url *url,
                       struct qdrant_cluster **ret_cluster) MUST_USE;
/* Nobody may be using it. Takes NULL. */
struct qdrant_cluster *qdrant_cluster_free(struct qdrant_cluster *c);
/* Starts looking after it. -errno. */
int qdrant_cluster_start(struct qdrant_cluster *c) MUST_USE;
/* From deadline_ns on, who asks by REST is answered at once that there is no answer. */
void qdrant_cluster_stop_by(struct qdrant_cluster *c, uint64_t deadline_ns);
/* Of a struct qdrant_cluster: whether it is that late. */
bool qdrant_cluster_stopped(const void *cluster);

const struct points_sink *qdrant_cluster_sink(const struct qdrant_cluster *c);
/* What who asks by REST has heard of its aliases. */
struct points_aliases *qdrant_cluster_aliases(struct qdrant_cluster *c);

/* ---- REST ---- */

struct qdrant_question {
    const char *method;
    struct bytes target; /* "/collections?…", percent-encoded */
    struct bytes body;
    const char *content_type; /* NULL: JSON */
    uint64_t timeout_ms;      /* 0: a minute */
    bool reads;               /* it changes nothing, so it may be given up early */
    uint64_t answer_max_bytes;
    struct budget *budget; /* counts the answer as it comes; NULL: nobody does */
};
enum { QDRANT_TYPE_MAX = 128 };
struct qdrant_reply {
    unsigned status;
    char content_type[QDRANT_TYPE_MAX]; /* "": it does not say */
    struct buffer body;
    struct budget *budget; /* where counted_bytes of the body are counted as answers */
    uint64_t counted_bytes;
    char sentence[POINTS_SINK_SENTENCE]; /* of QDRANT_E_DOWN */
};
void qdrant_reply_deinit(struct qdrant_reply *reply);
/* Blocks. While the cluster cannot be reached one asks at a time, for a short while if it reads,
 * and the others get QDRANT_E_DOWN at once. -ENOMEM; also when the budget has no room for the
 * answer. The reply may be one that was used before. */
int qdrant_ask(struct qdrant_cluster *c, const struct qdrant_question *question,
               struct qdrant_reply *reply) MUST_USE;

/* ---- What there is to know ---- */

struct qdrant_cluster_status {
    const char *url; /* without secrets; the cluster's */
    bool reachable;
    char reason[POINTS_SINK_SENTENCE]; /* unless it is reachable */
    uint64_t calls;                    /* by gRPC */
    uint64_t calls_failed;
    uint64_t bytes_sent;
    uint64_t latency_us; /* a moving average */
    unsigned connections;
    unsigned concurrency; /* calls that may be under way */
};
void qdrant_cluster_status(struct qdrant_cluster *c, struct qdrant_cluster_status *ret_status);

#endif
