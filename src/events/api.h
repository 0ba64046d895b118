/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The HTTP routes of events, one table: tags in, profiles, aggregates and ids out. The handlers run
 * as http.h says, on any loop or query thread. struct events_api borrows everything; it must
 * outlive the server.
 */
#ifndef MILLRACE_EVENTS_API_H
#define MILLRACE_EVENTS_API_H

#include "events/redis.h"
#include "events/store.h"
#include "http/http.h"

struct events_api {
    struct os *os;
    struct journal *journal;
    struct work *work; /* NULL: others apply, too */
    bool shared;       /* so an erasure is seen once it is applied, by whomever */
    /* Who keeps the events: a Redis Cluster; or, NULL, the store, with a dictionary and keys. */
    struct events_redis *redis;
    struct event_dictionary *dictionary;
    struct event_once *once;
    struct events_store *store;
};

struct http_route_table events_routes(struct events_api *api);

/* Dead letters; its context is the struct events_api. */
extern const struct work_letter_kind events_letters;

#endif
