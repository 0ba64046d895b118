/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When a cluster keeps the points (api->cluster is set): what the route files ask there instead of
 * the store. Handlers and their parts, as those of api_parts.h.
 */
#ifndef MILLRACE_POINTS_API_PASS_H
#define MILLRACE_POINTS_API_PASS_H

#include "points/api_parts.h"

/* The rows of a table of Qdrant's, those that read replaced: the cluster is asked instead. Without
 * a cluster, the table as it is. */
struct http_route_table api_passing(struct points_api *api, struct http_route_table table);
/* A handler: asks the cluster the same, on a waiting thread, and answers what it answers. What
 * changes something there first waits for the writes before it, and a start does not send those
 * again: it comes behind them, once. */
void api_pass(void *context, struct http_request *r);
/* The same on a route that writes. */
void api_pass_write(void *context, struct http_request *r);
/* Creates and drops there, then in the catalog. body: Qdrant's, for target (NULL: made of the
 * name); config NULL: what is created cannot be written to by records. render NULL: what the
 * cluster says is the answer. All is copied. */
struct api_change {
    struct bytes name;
    struct bytes body;
    const struct point_config *config;
    api_render render;
};
void api_pass_create(struct points_api *api, struct http_request *r,
                     const struct api_change *change);
void api_pass_drop(struct points_api *api, struct http_request *r, const struct api_change *change);
/* A reference to the collection of that name or alias, or NULL: it is not known here. */
struct points_collection *api_find_collection(struct points_api *api, struct bytes name);
/* For when it is not. Ends the request; or, when the cluster has it, the
 * catalog learns it and handler takes the request again. */
void api_unknown_collection(struct points_api *api, struct http_request *r, struct bytes name,
                            http_handler handler);
/* For jobs on waiting threads: GET of what the format says; what is put into it must be
 * percent-encoded. QDRANT_E_DOWN; also when the answer is neither 2xx nor 404: it says nothing then
 * of what is there. */
int api_cluster_get(struct points_api *api, const char *path, struct bytes segment,
                    struct qdrant_reply *reply) MUST_USE;
/* Answers QDRANT_E_DOWN and negatives. */
void api_fail_cluster(struct http_request *r, int result, const struct qdrant_reply *reply);

#endif
