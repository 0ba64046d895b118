/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a method and the segments of a path to a row of a route table: a tree whose edges are
 * segments. A literal segment goes before a parameter, and a path that only another method takes is
 * told from one that does not exist. Built once, then read by every thread.
 */
#ifndef MILLRACE_HTTP_ROUTER_H
#define MILLRACE_HTTP_ROUTER_H

#include "http/http.h"

enum { ROUTER_SEGMENTS_MAX = 16, ROUTER_PARAMETERS_MAX = 4, ROUTER_AREAS_MAX = 8 };

/* The segments between the slashes, percent-decoded; "/" is one empty segment. */
struct router_path {
    struct bytes segments[ROUTER_SEGMENTS_MAX];
    size_t n;
};

struct router_parameter {
    struct bytes name;
    size_t segment; /* its place in every path that matches */
};

struct router_entry {
    const struct http_route *route;
    void *context;
    struct journal *journal; /* that it appends to; NULL: none */
    size_t index;            /* over all tables */
    struct router_parameter parameters[ROUTER_PARAMETERS_MAX];
    size_t n_parameters;
};

struct router;
/* -EINVAL when there are more areas, or a path has more segments or parameters, than the bounds, or
 * two rows are the same. */
int router_new(const struct http_route_table *tables, size_t n_tables,
               struct router **ret_router) MUST_USE;
struct router *router_free(struct router *r);
size_t router_size(const struct router *r);
const struct router_entry *router_entry_at(const struct router *r, size_t index);
/* NULL when there is none; ret_allowed: bit i for every method i that the path takes. */
const struct router_entry *router_find(const struct router *r, const struct router_path *path,
                                       enum http_method method, unsigned *ret_allowed);

/* The area that the path lies in, or NULL; with the entry of its fallback, or NULL. */
const struct http_area *router_area(const struct router *r, const struct router_path *path,
                                    const struct router_entry **ret_fallback);

#endif
