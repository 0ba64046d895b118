/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The HTTP routes of points, one table a file: Qdrant's REST API, the qdapi and Alioth routes, bulk
 * ingest. The tables are given to http_server_new; their handlers run as http.h says,
 * on any loop or query thread. struct points_api borrows everything; it must outlive the server.
 */
#ifndef MILLRACE_POINTS_API_H
#define MILLRACE_POINTS_API_H

#include "http/http.h"
#include "points/qdrant.h"
#include "points/store.h"
#include "work/follow.h"

enum { API_PASSED_ROWS_MAX = 32, API_PASSED_AREAS = 6 };

struct points_api {
    struct os *os;
    struct journal *journal;
    struct work *work;
    struct points_catalog *catalog;
    struct points_store *store;
    struct qdrant_cluster *cluster; /* that has the points; NULL: the store has them */
    struct follow *follow;          /* the journal is shared: then there is no store, the catalog is
                                       what was heard of the cluster, and work is its. NULL: it is
                                       one order */
    struct bulk_tasks *tasks;
    struct budget *budget;    /* of answers being made and of uploads; NULL: none */
    unsigned search_threads;  /* that may help one search; 0: one */
    _Atomic unsigned uploads; /* under way; the routes' own */
    struct http_route passed_rows[API_PASSED_ROWS_MAX]; /* api_pass.c's own, as what follows */
    size_t n_passed_rows;
    struct http_area passed_areas[API_PASSED_AREAS];
};

/* Collections: GET /, /collections… */
struct http_route_table api_qdrant_collections_routes(struct points_api *api);
/* Points: upsert, delete, get, retrieve, scroll, count. */
struct http_route_table api_qdrant_points_routes(struct points_api *api);
/* search, query and their batches. */
struct http_route_table api_qdrant_search_routes(struct points_api *api);
struct http_route_table api_qdapi_routes(struct points_api *api);
struct http_route_table api_alioth_routes(struct points_api *api);
struct http_route_table api_ingest_routes(struct points_api *api);
/* With a cluster: table number i of what is left of Qdrant's API, from 0 on; n is 0 and area NULL
 * behind the last. */
struct http_route_table api_pass_routes(struct points_api *api, size_t i);

/* Dead letters; its context is the struct points_api. */
extern const struct work_letter_kind points_letters;

/* Encodes a point as JSON, {"id","vector","payload"}, as a record of the collection. Its
 * bytes are appended to out, which must outlive the record. Positive: the point is refused, and the
 * sentence, cut at size, says why. */
int points_encode_point(const struct points_collection *collection, const struct work *work,
                        struct bytes json, struct buffer *out, struct journal_record *ret_record,
                        char *sentence, size_t size) MUST_USE;

#endif
