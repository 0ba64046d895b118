/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Invariants:
 *   1. A directory's entries as made are its entries as synced with all changes that name it
 *      applied in order.
 *   2. Changes reach the synced side in order within each directory. A rename between two
 *      directories is in the order of both, and reaches both or neither.
 *   3. Moving a directory to another parent waits for every change before it, so that no
 *      subset of moves can tie a directory into itself.
 *   4. A node lives while an entry (made or synced), a change or an open file leads to it.
 */
#include "os/sim_disk.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum { NAME_BYTES_MAX = 255, SWEEP_AFTER = 64 };

static struct sim_entry *entries_find(const struct sim_entries *e, const char *name) {
    for (size_t i = 0; i < e->n; i++)
        if (strcmp(e->items[i].name, name) == 0)
            return &e->items[i];
    return NULL;
}

/* Makes room in an array of n items for one more. */
static void *with_room(void *items, size_t n, size_t *capacity, size_t item_size) {
    if (n < *capacity)
        return items;
    *capacity = *capacity ? *capacity * 2 : 8;
    return sim_reallocate(items, *capacity, item_size);
}

static void entries_set(struct sim_entries *e, const char *name, struct sim_node *node) {
    struct sim_entry *old = entries_find(e, name);
    if (old) {
        old->node = node;
        return;
    }
    e->items = with_room(e->items, e->n, &e->capacity, sizeof *e->items);
    e->items[e->n++] = (struct sim_entry){.name = sim_copy_string(name), .node = node};
}

static void entries_remove(struct sim_entries *e, const char *name) {
    struct sim_entry *old = entries_find(e, name);
    assert(old);
    free(old->name);
    *old = e->items[--e->n];
}

static void entries_deinit(struct sim_entries *e) {
    for (size_t i = 0; i < e->n; i++)
        free(e->items[i].name);
    free(e->items);
    *e = (struct sim_entries){0};
}

/* The copy's node i stands for the original's node i. */
static void entries_copy(struct sim_entries *to, const struct sim_entries *from,
                         struct sim_node *const *nodes) {
    for (size_t i = 0; i < from->n; i++)
        entries_set(to, from->items[i].name, nodes[from->items[i].node->index]);
}

static void node_free(struct sim_node *node) {
    sim_file_deinit(&node->file);
    entries_deinit(&node->made);
    entries_deinit(&node->synced);
    free(node);
}

static struct sim_node *add_node(struct sim_disk *d, bool directory) {
    struct sim_node *node = sim_allocate(1, sizeof *node);
    node->index = d->nodes_n;
    node->directory = directory;
    node->linked = true;
    d->nodes = with_room(d->nodes, d->nodes_n, &d->nodes_capacity, sizeof(struct sim_node *));
    d->nodes[d->nodes_n++] = node;
    return node;
}

static void mark(struct sim_node *node) {
    if (!node || node->marked)
        return;
    node->marked = true;
    for (size_t i = 0; i < node->made.n; i++)
        mark(node->made.items[i].node);
    for (size_t i = 0; i < node->synced.n; i++)
        mark(node->synced.items[i].node);
}

/* Frees the nodes to which nothing leads (invariant 4). */
static void sweep(struct sim_disk *d) {
    mark(d->nodes[0]);
    for (size_t i = 0; i < d->changes_n; i++) {
        mark(d->changes[i].from);
        mark(d->changes[i].to);
        mark(d->changes[i].node);
    }
    for (size_t i = 0; i < d->nodes_n; i++)
        if (d->nodes[i]->handles)
            mark(d->nodes[i]);

    size_t kept = 0;
    for (size_t i = 0; i < d->nodes_n; i++) {
        struct sim_node *node = d->nodes[i];
        if (!node->marked) {
            node_free(node);
            continue;
        }
        node->marked = false;
        node->index = kept;
        d->nodes[kept++] = node;
    }
    d->nodes_n = kept;
    d->removed_n = 0;
}

static void change_deinit(struct sim_change *c) {
    free(c->from_name);
    free(c->to_name);
}

void sim_disk_init(struct sim_disk *d) {
    *d = (struct sim_disk){.space_max = UINT64_MAX};
    add_node(d, true);
}

void sim_disk_deinit(struct sim_disk *d) {
    for (size_t i = 0; i < d->changes_n; i++)
        change_deinit(&d->changes[i]);
    for (size_t i = 0; i < d->nodes_n; i++)
        node_free(d->nodes[i]);
    free(d->changes);
    free(d->nodes);
    *d = (struct sim_disk){0};
}

static struct sim_change change_copy(const struct sim_change *c, struct sim_node *const *nodes) {
    return (struct sim_change){
        .from = c->from ? nodes[c->from->index] : NULL,
        .to = c->to ? nodes[c->to->index] : NULL,
        .from_name = c->from_name ? sim_copy_string(c->from_name) : NULL,
        .to_name = c->to_name ? sim_copy_string(c->to_name) : NULL,
        .node = nodes[c->node->index],
    };
}

void sim_disk_copy(struct sim_disk *to, const struct sim_disk *from) {
    *to = (struct sim_disk){.space_max = from->space_max};
    for (size_t i = 0; i < from->nodes_n; i++) {
        struct sim_node *node = add_node(to, from->nodes[i]->directory);
        node->linked = from->nodes[i]->linked;
        sim_file_copy(&node->file, &from->nodes[i]->file);
    }
    for (size_t i = 0; i < from->nodes_n; i++) {
        entries_copy(&to->nodes[i]->made, &from->nodes[i]->made, to->nodes);
        entries_copy(&to->nodes[i]->synced, &from->nodes[i]->synced, to->nodes);
    }
    to->changes = sim_allocate(from->changes_n, sizeof *to->changes);
    to->changes_n = to->changes_capacity = from->changes_n;
    for (size_t i = 0; i < from->changes_n; i++)
        to->changes[i] = change_copy(&from->changes[i], to->nodes);
    sweep(to); /* what only an open file led to */
}

/* Where a path leads: the entry name of directory, or the root itself when name is empty. */
struct place {
    struct sim_node *directory;
    char name[NAME_BYTES_MAX + 1];
};

/* Enters the directory that the place names, and names the next component there. */
static int descend(struct place *place, const char *component, size_t size) {
    if (place->name[0]) {
        struct sim_entry *entry = entries_find(&place->directory->made, place->name);
        if (!entry)
            return OS_E_NOT_FOUND;
        if (!entry->node->directory)
            return error_origin(-ENOTDIR);
        place->directory = entry->node;
    }
    if (size > NAME_BYTES_MAX)
        return error_origin(-ENAMETOOLONG);
    memcpy(place->name, component, size);
    place->name[size] = '\0';
    return strcmp(place->name, "..") == 0 ? error_origin(-EINVAL) : 0; /* nobody needs it */
}

/* "a//b", "/a/./b" and "a/b/" are all the same place. */
static int locate(struct sim_disk *d, const char *path, struct place *ret_place) {
    struct place place = {.directory = d->nodes[0]};
    while (*path) {
        size_t size = strcspn(path, "/");
        bool counts = size > 0 && !(size == 1 && path[0] == '.');
        int r = counts ? descend(&place, path, size) : 0;
        if (r)
            return r;
        path += size;
        path += strspn(path, "/");
    }
    *ret_place = place;
    return 0;
}

/* NULL when nothing is there. */
static struct sim_node *node_at(const struct place *place) {
    assert(place->directory);
    if (!place->name[0])
        return place->directory;
    struct sim_entry *entry = entries_find(&place->directory->made, place->name);
    return entry ? entry->node : NULL;
}

static int locate_node(struct sim_disk *d, const char *path, struct place *ret_place,
                       struct sim_node **ret_node) {
    int r = locate(d, path, ret_place);
    if (r)
        return r;
    struct sim_node *node = node_at(ret_place);
    if (!node)
        return OS_E_NOT_FOUND;
    *ret_node = node;
    return 0;
}

int sim_disk_find(struct sim_disk *d, const char *path, struct sim_node **ret_node) {
    struct place place;
    return locate_node(d, path, &place, ret_node);
}

static struct sim_change *add_change(struct sim_disk *d, struct sim_node *node) {
    d->changes = with_room(d->changes, d->changes_n, &d->changes_capacity, sizeof *d->changes);
    struct sim_change *c = &d->changes[d->changes_n++];
    *c = (struct sim_change){.node = node};
    return c;
}

static void change_from(struct sim_change *c, const struct place *place) {
    c->from = place->directory;
    c->from_name = sim_copy_string(place->name);
}

static void change_to(struct sim_change *c, const struct place *place) {
    c->to = place->directory;
    c->to_name = sim_copy_string(place->name);
}

int sim_disk_create(struct sim_disk *d, const char *path, bool directory,
                    struct sim_node **ret_node) {
    struct place place;
    int r = locate(d, path, &place);
    if (r)
        return r;
    if (node_at(&place))
        return OS_E_EXISTS;
    if (sim_disk_free(d) == 0)
        return OS_E_FULL;
    struct sim_node *node = add_node(d, directory);
    entries_set(&place.directory->made, place.name, node);
    change_to(add_change(d, node), &place);
    *ret_node = node;
    return 0;
}

static void unlink_node(struct sim_disk *d, struct sim_node *node) {
    node->linked = false;
    d->removed_n++;
}

static int check_removable(const struct place *place, const struct sim_node *node, bool directory) {
    if (!directory)
        return node->directory ? error_origin(-EISDIR) : 0;
    if (!node->directory)
        return error_origin(-ENOTDIR);
    if (!place->name[0])
        return error_origin(-EBUSY);
    return node->made.n ? OS_E_EXISTS : 0;
}

int sim_disk_remove(struct sim_disk *d, const char *path, bool directory) {
    struct place place;
    struct sim_node *node;
    int r = locate_node(d, path, &place, &node);
    if (!r)
        r = check_removable(&place, node, directory);
    if (r)
        return r;
    entries_remove(&place.directory->made, place.name);
    change_from(add_change(d, node), &place);
    unlink_node(d, node);
    if (d->removed_n >= SWEEP_AFTER)
        sweep(d);
    return 0;
}

/* Whether inner is directory, or below it. */
static bool contains(const struct sim_node *directory, const struct sim_node *inner) {
    if (directory == inner)
        return true;
    for (size_t i = 0; i < directory->made.n; i++)
        if (contains(directory->made.items[i].node, inner))
            return true;
    return false;
}

/* What rename(2) refuses. over may be NULL. */
static int check_rename(const struct place *from, const struct place *to,
                        const struct sim_node *node, const struct sim_node *over) {
    if (!from->name[0] || !to->name[0])
        return error_origin(-EBUSY);
    if (node->directory && contains(node, to->directory))
        return error_origin(-EINVAL);
    if (over && contains(over, from->directory))
        return OS_E_EXISTS;
    if (over && node->directory && !over->directory)
        return error_origin(-ENOTDIR);
    if (over && !node->directory && over->directory)
        return error_origin(-EISDIR);
    return over && over->made.n ? OS_E_EXISTS : 0;
}

int sim_disk_rename(struct sim_disk *d, const char *from_path, const char *to_path) {
    struct place from, to;
    int r = locate(d, from_path, &from);
    if (!r)
        r = locate(d, to_path, &to);
    if (r)
        return r;
    struct sim_node *node = node_at(&from);
    struct sim_node *over = node_at(&to);
    if (!node)
        return OS_E_NOT_FOUND;
    if (over == node)
        return 0;
    r = check_rename(&from, &to, node, over);
    if (r)
        return r;
    entries_remove(&from.directory->made, from.name);
    entries_set(&to.directory->made, to.name, node);
    struct sim_change *c = add_change(d, node);
    change_from(c, &from);
    change_to(c, &to);
    if (over)
        unlink_node(d, over);
    if (d->removed_n >= SWEEP_AFTER)
        sweep(d);
    return 0;
}

/* Invariant 3 is about these. */
static bool moves_directory(const struct sim_change *c) {
    return c->node->directory && c->from && c->to && c->from != c->to;
}

static bool touches_marked(const struct sim_change *c) {
    return (c->from && c->from->marked) || (c->to && c->to->marked);
}

static void mark_touched(const struct sim_change *c) {
    if (c->from)
        c->from->marked = true;
    if (c->to)
        c->to->marked = true;
}

static void unmark_all(struct sim_disk *d) {
    for (size_t i = 0; i < d->nodes_n; i++)
        d->nodes[i]->marked = false;
}

/* Brings a change to the synced side. */
static void persist(const struct sim_change *c) {
    if (c->from)
        entries_remove(&c->from->synced, c->from_name);
    if (c->to)
        entries_set(&c->to->synced, c->to_name, c->node);
}

void sim_disk_sync_directory(struct sim_disk *d, struct sim_node *directory) {
    /* From the newest back: a change is needed if it touches a directory in which a later change
     * is needed (invariant 2). Needed ones are told by a flag beside the list. */
    bool *needed = sim_allocate(d->changes_n, sizeof *needed);
    bool everything = false;
    directory->marked = true;
    for (size_t i = d->changes_n; i-- > 0;) {
        needed[i] = everything || touches_marked(&d->changes[i]);
        if (needed[i]) {
            mark_touched(&d->changes[i]);
            everything |= moves_directory(&d->changes[i]);
        }
    }
    size_t kept = 0;
    for (size_t i = 0; i < d->changes_n; i++) {
        if (needed[i]) {
            persist(&d->changes[i]);
            change_deinit(&d->changes[i]);
        } else {
            d->changes[kept++] = d->changes[i];
        }
    }
    d->changes_n = kept;
    unmark_all(d);
    free(needed);
}

/* Keeps some of the changes, in order, and forgets the others; marks the directories in which one
 * was forgotten: no later one is kept there. */
static void cut_changes(struct sim_disk *d, struct sim_mood mood, struct sim_random *random) {
    bool forgotten = false;
    for (size_t i = 0; i < d->changes_n; i++) {
        struct sim_change *c = &d->changes[i];
        bool possible = !touches_marked(c) && !(forgotten && moves_directory(c));
        if (possible && sim_mood_keeps(mood, random)) {
            persist(c);
        } else {
            mark_touched(c);
            forgotten = true;
        }
        change_deinit(c);
    }
    d->changes_n = 0;
}

void sim_disk_cut(struct sim_disk *d, struct sim_random *random) {
    cut_changes(d, sim_mood_draw(random), random);
    for (size_t i = 0; i < d->nodes_n; i++) {
        struct sim_node *node = d->nodes[i];
        if (node->marked) { /* else all that was made is synced */
            entries_deinit(&node->made);
            entries_copy(&node->made, &node->synced, d->nodes);
        }
        sim_file_cut(&node->file, random);
    }
    unmark_all(d);
    sweep(d);
    for (size_t i = 0; i < d->nodes_n; i++)
        d->nodes[i]->linked = true;
}

void sim_disk_evict(struct sim_disk *d, struct sim_random *random) {
    for (size_t i = 0; i < d->nodes_n; i++)
        sim_file_evict(&d->nodes[i]->file, random);
}

uint64_t sim_disk_used(const struct sim_disk *d) {
    uint64_t used = 0;
    for (size_t i = 0; i < d->nodes_n; i++)
        if (d->nodes[i]->linked || d->nodes[i]->handles)
            used += d->nodes[i]->file.allocated;
    return used;
}

uint64_t sim_disk_free(const struct sim_disk *d) {
    if (d->space_max == UINT64_MAX)
        return UINT64_MAX;
    uint64_t used = sim_disk_used(d);
    return used < d->space_max ? d->space_max - used : 0;
}
