/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tree lies in one array; a node's children are a list, because the widest node has a few dozen
 * and comparing sizes first settles nearly all of them. Lookup tries the literal child, then the
 * parameter: /a/{id} still takes GET /a/search when /a/search only takes POST.
 */
#include "http/router.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

struct node {
    struct bytes literal;
    struct node *first_child; /* literals */
    struct node *next;        /* sibling */
    struct node *parameter;   /* the child that takes any segment */
    const struct router_entry *entries[HTTP_METHODS];
};

struct router {
    struct node root;
    struct router_entry *entries;
    size_t n;
    const struct http_area *areas[ROUTER_AREAS_MAX];
    const struct router_entry *fallbacks[ROUTER_AREAS_MAX];
    size_t n_areas;
};

static struct node *node_free(struct node *node) {
    if (!node)
        return NULL;
    node_free(node->parameter);
    for (struct node *c = node->first_child, *next; c; c = next) {
        next = c->next;
        node_free(c);
    }
    free(node);
    return NULL;
}

static struct node *node_child(const struct node *node, struct bytes segment) {
    for (struct node *c = node->first_child; c; c = c->next)
        if (bytes_equal(c->literal, segment))
            return c;
    return NULL;
}

static bool is_parameter(struct bytes segment) {
    return segment.size >= 2 && segment.data[0] == '{' && segment.data[segment.size - 1] == '}';
}

/* The child for a segment of a template, made when it is not there; NULL without memory. */
static struct node *node_grow(struct node *node, struct bytes segment) {
    bool parameter = is_parameter(segment);
    struct node *child = parameter ? node->parameter : node_child(node, segment);
    if (child)
        return child;
    child = calloc(1, sizeof *child);
    if (!child)
        return NULL;
    child->literal = segment;
    if (parameter) {
        node->parameter = child;
    } else {
        child->next = node->first_child;
        node->first_child = child;
    }
    return child;
}

static int entry_add_parameter(struct router_entry *e, struct bytes segment, size_t at) {
    if (e->n_parameters == ROUTER_PARAMETERS_MAX)
        return error_origin(-EINVAL);
    e->parameters[e->n_parameters++] = (struct router_parameter){
        .name = bytes_of(segment.data + 1, segment.size - 2), .segment = at};
    return 0;
}

/* Walks the template and hangs the entry at its end. */
static int router_add(struct router *r, struct router_entry *e) {
    struct node *node = &r->root;
    const char *at = e->route->path;
    assert(at[0] == '/');
    for (size_t i = 0; *at == '/'; i++) {
        size_t n = strcspn(at + 1, "/");
        struct bytes segment = bytes_of(at + 1, n);
        if (i == ROUTER_SEGMENTS_MAX)
            return error_origin(-EINVAL);
        int parameter = is_parameter(segment) ? entry_add_parameter(e, segment, i) : 0;
        if (parameter)
            return error_trace(parameter);
        node = node_grow(node, segment);
        if (!node)
            return error_origin(-ENOMEM);
        at += 1 + n;
    }
    if (node->entries[e->route->method])
        return error_origin(-EINVAL);
    node->entries[e->route->method] = e;
    return 0;
}

static int router_add_area(struct router *r, const struct http_area *area,
                           struct journal *journal) {
    if (r->n_areas == ROUTER_AREAS_MAX)
        return error_origin(-EINVAL);
    if (area->fallback) {
        struct router_entry *e = &r->entries[r->n];
        *e = (struct router_entry){
            .route = area->fallback, .context = area->context, .journal = journal, .index = r->n++};
        r->fallbacks[r->n_areas] = e;
    }
    r->areas[r->n_areas++] = area;
    return 0;
}

static int router_add_table(struct router *r, const struct http_route_table *table) {
    int added = table->area ? router_add_area(r, table->area, table->journal) : 0;
    for (size_t i = 0; i < table->n && !added; i++) {
        struct router_entry *e = &r->entries[r->n];
        *e = (struct router_entry){.route = &table->routes[i],
                                   .context = table->context,
                                   .journal = table->journal,
                                   .index = r->n};
        added = router_add(r, e);
        r->n += !added;
    }
    return error_trace(added);
}

static int router_fill(struct router *r, const struct http_route_table *tables, size_t n_tables) {
    for (size_t t = 0; t < n_tables; t++) {
        int added = router_add_table(r, &tables[t]);
        if (added)
            return error_trace(added);
    }
    return 0;
}

int router_new(const struct http_route_table *tables, size_t n_tables, struct router **ret_router) {
    size_t n = 0;
    for (size_t t = 0; t < n_tables; t++)
        n += tables[t].n + (tables[t].area && tables[t].area->fallback);
    struct router *router = calloc(1, sizeof *router);
    if (!router)
        return error_origin(-ENOMEM);
    router->entries = calloc(n ? n : 1, sizeof *router->entries);
    int r = router->entries ? router_fill(router, tables, n_tables) : error_origin(-ENOMEM);
    if (r) {
        router_free(router);
        return error_trace(r);
    }
    *ret_router = router;
    return 0;
}

struct router *router_free(struct router *r) {
    if (!r)
        return NULL;
    node_free(r->root.parameter);
    for (struct node *c = r->root.first_child, *next; c; c = next) {
        next = c->next;
        node_free(c);
    }
    free(r->entries);
    free(r);
    return NULL;
}

size_t router_size(const struct router *r) {
    return r->n;
}

const struct router_entry *router_entry_at(const struct router *r, size_t index) {
    assert(index < r->n);
    return &r->entries[index];
}

/* What the end of a path takes; adds its methods to *allowed. */
static const struct router_entry *node_entry(const struct node *node, enum http_method method,
                                             unsigned *allowed) {
    for (unsigned m = 0; m < HTTP_METHODS; m++)
        if (node->entries[m])
            *allowed |= 1u << m;
    return node->entries[method];
}

/* At most ROUTER_SEGMENTS_MAX deep. */
static const struct router_entry *node_find(const struct node *node, const struct router_path *path,
                                            size_t at, enum http_method method, unsigned *allowed) {
    if (at == path->n)
        return node_entry(node, method, allowed);
    struct bytes segment = path->segments[at];
    const struct node *literal = node_child(node, segment);
    const struct router_entry *found =
        literal ? node_find(literal, path, at + 1, method, allowed) : NULL;
    if (!found && node->parameter && segment.size > 0)
        found = node_find(node->parameter, path, at + 1, method, allowed);
    return found;
}

const struct router_entry *router_find(const struct router *r, const struct router_path *path,
                                       enum http_method method, unsigned *ret_allowed) {
    unsigned allowed = 0;
    const struct router_entry *found = node_find(&r->root, path, 0, method, &allowed);
    *ret_allowed = allowed;
    return found;
}

const struct http_area *router_area(const struct router *r, const struct router_path *path,
                                    const struct router_entry **ret_fallback) {
    *ret_fallback = NULL;
    for (size_t i = 0; path->n > 0 && i < r->n_areas; i++) {
        if (!bytes_equal(path->segments[0], bytes_of_string(r->areas[i]->segment)))
            continue;
        *ret_fallback = r->fallbacks[i];
        return r->areas[i];
    }
    return NULL;
}
