/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tree. Leaves hold pairs; an inner node holds its children, and for each but the first a pair
 * that is not above anything in it, and above everything in the child before (the first's is never
 * looked at). All leaves are at one depth; none but a lone root is empty.
 *
 * A full node is split in the middle; where the new pair is the first or the last, beside all that
 * there is: keys and times mostly come in order, so nodes are full then. Two neighbours that fit
 * into half of one become one. Leaves are not linked: a cursor at the end of one looks for what
 * comes next from the root, every 64 pairs.
 */
#include "tasks/local/pairs.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#ifdef MILLRACE_TINY
enum { NODE_PAIRS = 4 };
#else
enum { NODE_PAIRS = 64 };
#endif

struct pairs_node {
    unsigned n;
    struct pair pairs[NODE_PAIRS];
    struct pairs_node *children[]; /* NODE_PAIRS of an inner node */
};
enum {
    LEAF_BYTES = sizeof(struct pairs_node),
    INNER_BYTES = sizeof(struct pairs_node) + NODE_PAIRS * sizeof(struct pairs_node *),
};

static bool is_less(struct pair a, struct pair b) {
    return a.high != b.high ? a.high < b.high : a.low < b.low;
}

/* How many are less than x. */
static unsigned rank(const struct pairs_node *node, struct pair x) {
    unsigned low = 0, high = node->n;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (is_less(node->pairs[middle], x))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool is_at(const struct pairs_node *leaf, unsigned i, struct pair x) {
    return i < leaf->n && !is_less(x, leaf->pairs[i]);
}

/* Where x is, or would be: the last whose pair is not above it, or the first. */
static unsigned child_of(const struct pairs_node *inner, struct pair x) {
    unsigned low = 1, high = inner->n;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (is_less(x, inner->pairs[middle]))
            high = middle;
        else
            low = middle + 1;
    }
    return low - 1;
}

/* ---- Memory ---- */
static void free_below(struct pairs_node *node, unsigned level) {
    for (unsigned i = 0; level > 0 && i < node->n; i++)
        free_below(node->children[i], level - 1);
    free(node);
}

void pairs_deinit(struct pairs *p) {
    if (p->root)
        free_below(p->root, p->height);
    free(p->spare_leaf);
    while (p->n_spare_inner > 0)
        free(p->spare_inner[--p->n_spare_inner]);
    *p = (struct pairs){0};
}

static struct pairs_node *new_node(struct pairs *p, size_t size) {
    struct pairs_node *node = malloc(size);
    if (node) {
        node->n = 0;
        p->bytes += size;
    }
    return node;
}

/* A leaf, and an inner node for each level and for a new root. */
bool pairs_reserve(struct pairs *p) {
    if (!p->root && !(p->root = new_node(p, LEAF_BYTES)))
        return false;
    if (!p->spare_leaf && !(p->spare_leaf = new_node(p, LEAF_BYTES)))
        return false;
    assert(p->height + 1 < PAIRS_HEIGHT_MAX);
    while (p->n_spare_inner <= p->height) {
        struct pairs_node *inner = new_node(p, INNER_BYTES);
        if (!inner)
            return false;
        p->spare_inner[p->n_spare_inner++] = inner;
    }
    return true;
}

static struct pairs_node *take_spare(struct pairs *p, unsigned level) {
    struct pairs_node *node = p->spare_leaf;
    if (level > 0) {
        assert(p->n_spare_inner > 0);
        return p->spare_inner[--p->n_spare_inner];
    }
    assert(node);
    p->spare_leaf = NULL;
    return node;
}

static void give_node(struct pairs *p, struct pairs_node *node, unsigned level) {
    p->bytes -= level > 0 ? INNER_BYTES : LEAF_BYTES;
    free(node);
}

/* ---- Inserting ---- */
static void put_at(struct pairs_node *node, unsigned i, struct pair x, struct pairs_node *child) {
    memmove(&node->pairs[i + 1], &node->pairs[i], (node->n - i) * sizeof *node->pairs);
    node->pairs[i] = x;
    if (child) {
        memmove(&node->children[i + 1], &node->children[i], (node->n - i) * sizeof(void *));
        node->children[i] = child;
    }
    node->n++;
}

/* Moves what is from i on behind to's own. */
static void move_from(struct pairs_node *from, unsigned i, struct pairs_node *to, bool inner) {
    unsigned n = from->n - i;
    memcpy(&to->pairs[to->n], &from->pairs[i], n * sizeof *to->pairs);
    if (inner)
        memcpy(&to->children[to->n], &from->children[i], n * sizeof(void *));
    to->n += n;
    from->n = i;
}

/* Puts x at i into a node; returns the node that it was split off for it, or NULL. */
static struct pairs_node *put_or_split(struct pairs *p, struct pairs_node *node, unsigned level,
                                       unsigned i, struct pair x, struct pairs_node *child) {
    if (node->n < NODE_PAIRS) {
        put_at(node, i, x, child);
        return NULL;
    }
    struct pairs_node *right = take_spare(p, level);
    unsigned at = i == NODE_PAIRS || (i == 0 && level == 0) ? i : NODE_PAIRS / 2;
    right->n = 0;
    move_from(node, at, right, level > 0);
    if (i < at || (i == at && i != NODE_PAIRS))
        put_at(node, i, x, child);
    else
        put_at(right, i - at, x, child);
    return right;
}

static struct pairs_node *insert_below(struct pairs *p, struct pairs_node *node, unsigned level,
                                       struct pair x, bool *ret_new) {
    if (level == 0) {
        unsigned i = rank(node, x);
        *ret_new = !is_at(node, i, x);
        return *ret_new ? put_or_split(p, node, 0, i, x, NULL) : NULL;
    }
    unsigned i = child_of(node, x);
    struct pairs_node *split = insert_below(p, node->children[i], level - 1, x, ret_new);
    return split ? put_or_split(p, node, level, i + 1, split->pairs[0], split) : NULL;
}

bool pairs_insert(struct pairs *p, struct pair x) {
    bool is_new = false;
    assert(p->root);
    struct pairs_node *split = insert_below(p, p->root, p->height, x, &is_new);
    if (split) {
        struct pairs_node *root = take_spare(p, p->height + 1);
        root->n = 0;
        put_at(root, 0, (struct pair){0}, p->root);
        put_at(root, 1, split->pairs[0], split);
        p->root = root;
        p->height++;
    }
    p->n += is_new;
    return is_new;
}

/* ---- Removing ---- */
static void cut_at(struct pairs_node *node, unsigned i, bool inner) {
    node->n--;
    memmove(&node->pairs[i], &node->pairs[i + 1], (node->n - i) * sizeof *node->pairs);
    if (inner)
        memmove(&node->children[i], &node->children[i + 1], (node->n - i) * sizeof(void *));
}

/* Joins the children i and i + 1 if they fit into half of one. */
static void join(struct pairs *p, struct pairs_node *node, unsigned level, unsigned i) {
    if (i + 1 >= node->n)
        return;
    struct pairs_node *left = node->children[i], *right = node->children[i + 1];
    if (left->n + right->n > NODE_PAIRS / 2)
        return;
    if (level > 1)
        right->pairs[0] = node->pairs[i + 1]; /* it becomes one that is looked at */
    move_from(right, 0, left, level > 1);
    cut_at(node, i + 1, true);
    give_node(p, right, level - 1);
}

static bool remove_below(struct pairs *p, struct pairs_node *node, unsigned level, struct pair x) {
    if (level == 0) {
        unsigned i = rank(node, x);
        if (!is_at(node, i, x))
            return false;
        cut_at(node, i, false);
        return true;
    }
    unsigned i = child_of(node, x);
    struct pairs_node *child = node->children[i];
    if (!remove_below(p, child, level - 1, x))
        return false;
    if (child->n == 0) {
        cut_at(node, i, true);
        give_node(p, child, level - 1);
        return true;
    }
    join(p, node, level, i);
    if (i > 0)
        join(p, node, level, i - 1);
    return true;
}

bool pairs_remove(struct pairs *p, struct pair x) {
    if (!p->root || !remove_below(p, p->root, p->height, x))
        return false;
    p->n--;
    while (p->height > 0 && p->root->n == 1) {
        struct pairs_node *root = p->root;
        p->root = root->children[0];
        give_node(p, root, p->height--);
    }
    return true;
}

/* ---- Finding ---- */
static bool find_below(struct pairs_node *node, unsigned level, struct pair from,
                       struct pairs_cursor *c) {
    if (level == 0) {
        c->leaf = node;
        c->at = rank(node, from);
        return c->at < node->n;
    }
    for (unsigned i = child_of(node, from); i < node->n; i++)
        if (find_below(node->children[i], level - 1, from, c))
            return true;
    return false;
}

void pairs_cursor_init(struct pairs_cursor *c, const struct pairs *p, struct pair from) {
    *c = (struct pairs_cursor){.pairs = p};
    if (!p->root || !find_below(p->root, p->height, from, c))
        c->leaf = NULL;
}

bool pairs_next(struct pairs_cursor *c, struct pair *ret_pair) {
    if (!c->leaf)
        return false;
    struct pair x = c->leaf->pairs[c->at++];
    if (c->at == c->leaf->n) {
        struct pair next = {x.high + (x.low == UINT64_MAX), x.low + 1};
        if (next.high < x.high)
            c->leaf = NULL;
        else
            pairs_cursor_init(c, c->pairs, next);
    }
    *ret_pair = x;
    return true;
}

uint64_t *pairs_low_of(const struct pairs *p, uint64_t high) {
    struct pairs_cursor c;
    pairs_cursor_init(&c, p, (struct pair){high, 0});
    return c.leaf && c.leaf->pairs[c.at].high == high ? &c.leaf->pairs[c.at].low : NULL;
}

bool pairs_first(const struct pairs *p, struct pair from, struct pair *ret_pair) {
    struct pairs_cursor c;
    pairs_cursor_init(&c, p, from);
    if (!c.leaf)
        return false;
    *ret_pair = c.leaf->pairs[c.at];
    return true;
}
