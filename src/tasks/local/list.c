/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listing: several sources, each by descending key, are walked side by side.
 *
 *   hot ──────┐  in chunks, copied under the lock: what a chunk says of a task overrides
 *   frozen ───┤  all below it, also that it is not wanted any more
 *   database ─┘  the index of each status and type that is wanted; or, when all are, or too many
 *                to walk side by side, the states themselves
 *
 * All are taken together at the beginning, so each task is seen once, as it is when its chunk is
 * copied, or as it was at the beginning.
 */
#include "tasks/local/internal.h"

#include <errno.h>

enum {
#ifdef MILLRACE_TINY
    CHUNK = 3,
    CURSORS_MAX = 4,
#else
    CHUNK = 256,
    CURSORS_MAX = 24,
#endif
};

/* A generation, some of it copied. */
struct memory_source {
    struct generation *generation;
    uint64_t below; /* what is not copied yet; 0: all */
    bool ended;
    size_t n;
    size_t at;
    struct memory_task {
        uint64_t key;
        struct value *state; /* NULL: it is not wanted */
    } chunk[CHUNK];
};

/* An index, or the states. */
struct base_source {
    struct base_cursor cursor;
    uint8_t prefix[3];
    uint8_t prefix_size;
    bool ended;
    uint64_t key; /* it is at */
    struct bytes value;
};

struct list {
    struct tasks_store *store;
    unsigned statuses; /* wanted */
    unsigned type;     /* likewise, or TYPES_MAX: all */
    struct memory_source hot;
    struct memory_source frozen;
    struct base *base;
    size_t n_cursors;
    struct base_source cursors[CURSORS_MAX];
};

/* ---- Memory ---- */
static bool is_wanted(const struct list *l, const struct entry *e) {
    return e && (l->type == TYPES_MAX || l->type == e->type);
}

static void memory_drop(struct memory_source *m) {
    while (m->at < m->n)
        value_unref(m->chunk[m->at++].state);
    m->n = m->at = 0;
}

static void memory_fill(struct list *l, struct memory_source *m) {
    struct pairs_cursor c;
    struct entry *e;
    uint64_t key;
    m->n = m->at = 0;
    mutex_lock(&l->store->lock);
    generation_walk(&c, m->generation, m->below);
    while (m->n < CHUNK && generation_next_of(&c, l->statuses, &key, &e))
        m->chunk[m->n++] =
            (struct memory_task){.key = key, .state = is_wanted(l, e) ? value_ref(e->state) : NULL};
    mutex_unlock(&l->store->lock);
    m->ended = m->n < CHUNK;
    if (m->n > 0)
        m->below = m->chunk[m->n - 1].key;
}

/* 0: it is at its end. Tasks that are not wanted are passed while no source below is at one of
 * them, or beyond. */
static uint64_t memory_key(struct list *l, struct memory_source *m, uint64_t below) {
    for (;;) {
        while (m->at < m->n && !m->chunk[m->at].state && m->chunk[m->at].key > below)
            m->at++;
        if (m->at < m->n)
            return m->chunk[m->at].key;
        if (m->ended)
            return 0;
        memory_fill(l, m);
    }
}

/* If it is at the key, moves on: true. *ret_state is the caller's then. */
static bool memory_take(struct memory_source *m, uint64_t key, struct value **ret_state) {
    if (m->at == m->n || m->chunk[m->at].key != key)
        return false;
    *ret_state = m->chunk[m->at++].state;
    return true;
}

/* ---- The database ---- */
static int base_settle(struct base_source *b) {
    struct bytes key;
    int error = 0;
    b->ended = !base_cursor_at(&b->cursor, &key, &b->value, &error) ||
               key.size != b->prefix_size + sizeof(uint64_t) ||
               memcmp(key.data, b->prefix, b->prefix_size) != 0;
    b->key = b->ended ? 0 : key_task_of(key);
    return error;
}

static int base_open(struct list *l, const struct key *prefix, uint64_t below) {
    struct base_source *b = &l->cursors[l->n_cursors++];
    struct key from = *prefix;
    *b = (struct base_source){.prefix_size = (uint8_t)prefix->size};
    memcpy(b->prefix, prefix->bytes, prefix->size);
    base_cursor_init(&b->cursor, l->base, false);
    key_u64(&from, below ? ~below + 1 : 0);
    base_cursor_seek(&b->cursor, key_view(&from));
    return base_settle(b);
}

static int open_index(struct list *l, unsigned status, unsigned type, uint64_t below) {
    struct key k;
    key_begin(&k, KEY_INDEX);
    key_u8(&k, (uint8_t)status);
    key_u8(&k, (uint8_t)type);
    return base_open(l, &k, below);
}

static int open_states(struct list *l, uint64_t below) {
    struct key k;
    key_begin(&k, KEY_TASK);
    return base_open(l, &k, below);
}

static int open_base(struct list *l, uint64_t below, unsigned types) {
    const unsigned all = (1U << TASK_STATUSES) - 1;
    unsigned first = l->type == TYPES_MAX ? 0 : l->type;
    unsigned end = l->type == TYPES_MAX ? types : l->type + 1;
    unsigned statuses = (unsigned)__builtin_popcount(l->statuses);
    int r = 0;
    if ((l->type == TYPES_MAX && l->statuses == all) || statuses * (end - first) > CURSORS_MAX)
        return open_states(l, below);
    for (unsigned status = 0; status < TASK_STATUSES; status++)
        for (unsigned type = first; r == 0 && type < end && (l->statuses >> status & 1); type++)
            r = open_index(l, status, type, below);
    return r;
}

/* The cursor that is at the key, or NULL. */
static struct base_source *base_at(struct list *l, uint64_t key) {
    for (size_t i = 0; i < l->n_cursors; i++)
        if (!l->cursors[i].ended && l->cursors[i].key == key)
            return &l->cursors[i];
    return NULL;
}

static int base_advance(struct base_source *b) {
    base_cursor_advance(&b->cursor);
    return base_settle(b);
}

/* ---- All of them ---- */
static void list_deinit(struct list *l) {
    memory_drop(&l->hot);
    memory_drop(&l->frozen);
    tasks_generation_unref(l->hot.generation);
    tasks_generation_unref(l->frozen.generation);
    for (size_t i = 0; i < l->n_cursors; i++)
        base_cursor_deinit(&l->cursors[i].cursor);
    base_unref(l->base);
}

static int list_init(struct list *l, struct tasks_store *s, const struct tasks_filter *filter) {
    const unsigned all = (1U << TASK_STATUSES) - 1;
    l->store = s;
    l->statuses = filter->statuses ? filter->statuses & all : all;
    mutex_lock(&s->lock);
    unsigned types = s->types.n;
    l->type = filter->type.size > 0 ? types_find(&s->types, filter->type) : TYPES_MAX;
    bool none = filter->type.size > 0 && l->type == TYPES_MAX;
    l->hot.generation = tasks_generation_ref(s->hot);
    l->frozen.generation = s->frozen ? tasks_generation_ref(s->frozen) : NULL;
    l->base = base_ref(s->base);
    mutex_unlock(&s->lock);
    l->hot.below = l->frozen.below = filter->below;
    l->hot.ended = none;
    l->frozen.ended = none || !l->frozen.generation;
    return none ? 0 : open_base(l, filter->below, types);
}

static uint64_t next_key(struct list *l) {
    uint64_t key = 0, of;
    for (size_t i = 0; i < l->n_cursors; i++)
        if (!l->cursors[i].ended && l->cursors[i].key > key)
            key = l->cursors[i].key;
    of = memory_key(l, &l->frozen, key);
    key = of > key ? of : key;
    of = memory_key(l, &l->hot, key);
    return of > key ? of : key;
}

/* What the database has of the task its cursor is at: its state, in f when it has to be read. */
static int base_state(const struct list *l, const struct base_source *b, struct found *f,
                      struct bytes *ret_state) {
    if (b->prefix[0] == KEY_TASK) {
        *ret_state = b->value;
        return 0;
    }
    f->base = base_ref(l->base);
    int r = found_load(b->key, f);
    *ret_state = value_bytes(f->state);
    return r == TASKS_E_NOT_FOUND ? error_origin(-EBADMSG) : r;
}

static bool is_task_wanted(const struct list *l, const struct task *t) {
    return (l->statuses >> t->status & 1) &&
           (l->type == TYPES_MAX ||
            bytes_equal(t->request.type, bytes_of(l->store->types.names[l->type].bytes,
                                                  l->store->types.names[l->type].size)));
}

/* Shows the task of the key, if it is wanted: *ret_shown. *ret_more: each wants more. */
static int show(struct list *l, uint64_t key, bool (*each)(void *context, const struct task *task),
                void *context, bool *ret_shown, bool *ret_more) {
    CLEANUP(found_deinit) struct found f = {0};
    struct value *older = NULL;
    struct base_source *b = base_at(l, key);
    struct bytes state = {0};
    struct task task;
    bool has_args;
    int r = 0;
    bool in_hot = memory_take(&l->hot, key, &f.state);
    bool in_frozen = memory_take(&l->frozen, key, in_hot ? &older : &f.state);
    value_unref(older);
    if (in_hot || in_frozen)
        state = value_bytes(f.state);
    else if (b)
        r = base_state(l, b, &f, &state);
    if (r < 0 && r != -EBADMSG)
        return r;
    if (state.size > 0 && task_state_decode(key, state, &task, &has_args)) {
        *ret_shown = is_task_wanted(l, &task);
        *ret_more = !*ret_shown || each(context, &task);
    } else if (r < 0 || state.size > 0) {
        atomic_fetch_add_explicit(&l->store->damages, 1, memory_order_relaxed);
    }
    return b ? base_advance(b) : 0;
}

int tasks_store_list(struct tasks_store *s, const struct tasks_filter *filter,
                     bool (*each)(void *context, const struct task *task), void *context) {
    struct list *l = calloc(1, sizeof *l);
    if (!l)
        return error_origin(-ENOMEM);
    int r = list_init(l, s, filter);
    bool more = true;
    for (size_t n = 0; r == 0 && more && n < filter->limit;) {
        uint64_t key = next_key(l);
        bool shown = false;
        if (key == 0)
            break;
        r = show(l, key, each, context, &shown, &more);
        n += shown;
    }
    list_deinit(l);
    free(l);
    return error_trace(r);
}

/* ---- What runs ---- */
struct running {
    void (*each)(void *context, const struct task *task);
    void *context;
};

static bool each_running(void *context, const struct task *task) {
    struct running *r = context;
    if (task->status == TASK_RUNNING)
        r->each(r->context, task);
    return true;
}

int tasks_store_each_running(struct tasks_store *s,
                             void (*each)(void *context, const struct task *task), void *context) {
    struct running running = {.each = each, .context = context};
    struct tasks_filter filter = {.statuses = 1U << TASK_RUNNING, .limit = SIZE_MAX};
    int r = tasks_store_list(s, &filter, each_running, &running);
    if (r == -EBADMSG) { /* in the index: then all, as far as they can be read */
        filter.statuses = 0;
        r = tasks_store_list(s, &filter, each_running, &running);
    }
    return r == -EBADMSG ? 0 : error_trace(r); /* it was counted */
}
