/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the route files of events share, and nobody else includes: failing, and writes (tags as
 * JSON, encoded straight into journal records, appended as one group). A handler reads: parse
 * everything, then append or look, then answer; the first fault ends it.
 */
#ifndef MILLRACE_EVENTS_API_PARTS_H
#define MILLRACE_EVENTS_API_PARTS_H

#include "events/api.h"
#include "events/parse.h"

/* ---- Failing (api_fault.c) ---- */

/* What may be wrong with a request, beside EVENT_E_FAULT and the journal's conditions. */
enum {
    EVENT_API_E_KEYS_FULL = 120, /* no room for another Idempotency-Key */
    EVENT_API_E_KEY_REUSED,      /* it came with another body */
    EVENT_API_E_BEHIND,          /* too many erasures are still to be applied */
};
struct event_failure {
    int result;    /* EVENT_E_FAULT, EVENTS_E_…, EVENTS_REDIS_E_…, EVENT_API_E_…, negative */
    int condition; /* of EVENTS_E_JOURNAL */
    struct event_fault fault;       /* of EVENT_E_FAULT */
    char why[EVENTS_REDIS_WHY_MAX]; /* of EVENTS_REDIS_E_DOWN */
};
/* Answers it. */
void event_api_fail(struct http_request *r, const struct event_failure *failure);
/* The cookie of the path: EVENT_E_FAULT. */
int event_api_cookie(const struct http_request *r, struct bytes *ret_cookie,
                     struct event_fault *f) MUST_USE;
/* A query parameter that must be there; right says what it must be. EVENT_E_FAULT. */
int event_api_parameter(const struct http_request *r, const char *name, const char *right,
                        struct bytes *ret_value, struct event_fault *f) MUST_USE;

/* Queries wait for a disk, or for a cluster: on the threads that are for that. */
static inline void event_api_offload(struct events_api *api, struct http_request *r,
                                     http_handler job) {
    if (api->redis)
        http_offload_waiting(r, job, api);
    else
        http_offload(r, job, api);
}

/* ---- Writes (api_write.c) ---- */

/*
 * Records of one group, encoded one behind the other; all memory is the request's. Elements that
 * the dictionary does not know yet are noted with the place of their id, which the append fills.
 */
struct event_write {
    struct events_api *api;
    struct arena *arena;
    struct buffer *bytes;           /* the thread's scratch */
    struct journal_record *records; /* without the payloads' places until the append */
    size_t n;
    size_t records_max;
    struct event_newcomer *newcomers;
    size_t *id_places; /* in bytes, one a newcomer */
    size_t n_newcomers;
    size_t newcomers_max;
    struct bytes
        once; /* on a cluster: the key that the tags came with, event_once_encode; else empty */
    bool known_only; /* the dictionary is full: a tag with a value never seen is at fault */
};
void event_write_init(struct event_write *w, struct events_api *api, struct http_request *r);
/* On a cluster, before its first tag: all tags come with this key (event_write_claim). -ENOMEM. */
int event_write_key(struct event_write *w, const char *key, const char *route,
                    struct bytes body) MUST_USE;
/* A tag as JSON, with JSON_PADDING readable bytes behind it. Nothing is added when it fails:
 * EVENT_E_FAULT, -ENOMEM. */
int event_write_tag(struct event_write *w, struct json_parser *parser, struct bytes text,
                    struct event_fault *f) MUST_USE;
/* A tag's record, decoded; whether it is late is decided anew. */
int event_write_decoded(struct event_write *w, const struct event_record *record) MUST_USE;
int event_write_erase(struct event_write *w, struct bytes cookie) MUST_USE;
/* Appends all as one group. With an Idempotency-Key (NULL: none) for this route and body, what that
 * key was first used for stands for it. Fills `failure` and returns its result when it fails.
 * *ret_first and *ret_last are 0 when nothing needs to be waited for. */
int event_write_append(struct event_write *w, const char *key, const char *route, struct bytes body,
                       lsn_t *ret_first, lsn_t *ret_last, struct event_failure *failure) MUST_USE;

/* EVENT_E_FAULT. */
int event_write_check_key(const char *key, struct event_fault *f) MUST_USE;
/* On a cluster, on a thread that may wait: whether the key is for this body. Fills `failure` and
 * returns its result when it is not, or who knows. */
int event_write_claim(struct events_api *api, const char *key, const char *route, struct bytes body,
                      struct event_failure *failure) MUST_USE;

/* ---- The handlers ---- */

void event_post_tag(void *api, struct http_request *r);       /* api_tags.c */
void event_post_tags(void *api, struct http_request *r);      /* api_tags.c */
void event_get_profile(void *api, struct http_request *r);    /* api_profiles.c */
void event_delete_profile(void *api, struct http_request *r); /* api_profiles.c */
void event_get_aggregates(void *api, struct http_request *r); /* api_aggregates.c */
void event_post_id(void *api, struct http_request *r);        /* api_ids.c */

#endif
