/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding one task. Under the lock a reader takes references to what it needs; the database is read
 * without it. Also what goes with one task: the queue's takers, and idempotency keys.
 */
#include "tasks/local/internal.h"

#include <assert.h>
#include <errno.h>

void found_deinit(struct found *f) {
    value_unref(f->state);
    value_unref(f->args);
    base_unref(f->base);
    *f = (struct found){0};
}

void find_locked(struct tasks_store *s, uint64_t key, struct found *ret_found) {
    const struct entry *hot = tasks_generation_find(s->hot, key);
    const struct entry *frozen = s->frozen ? tasks_generation_find(s->frozen, key) : NULL;
    const struct entry *e = hot ? hot : frozen;
    *ret_found = (struct found){.state = value_ref(e ? e->state : NULL),
                                .args = value_ref(e && e->args ? e->args
                                                  : frozen     ? frozen->args
                                                               : NULL),
                                .forgotten = e && e->forgotten,
                                .indexed = frozen ? frozen->status : NOT_INDEXED,
                                .base = base_ref(s->base)};
}

/* A copy of what the base has. TASKS_E_NOT_FOUND; -EBADMSG, -ENOMEM. */
static int load(struct base *base, enum key_kind kind, uint64_t key, struct value **ret_value) {
    CLEANUP(pinned_deinit) rocksdb_pinnableslice_t *slice = NULL;
    struct key k;
    key_task(&k, kind, key);
    int r = base_get(base, key_view(&k), &slice);
    if (r < 0)
        return error_trace(r);
    if (!slice)
        return TASKS_E_NOT_FOUND;
    struct value *v = value_new(pinned_bytes(slice));
    if (!v)
        return error_origin(-ENOMEM);
    *ret_value = v;
    return 0;
}

int found_load(uint64_t key, struct found *f) {
    if (f->forgotten)
        return TASKS_E_NOT_FOUND;
    if (f->state)
        return 0;
    int r = load(f->base, KEY_TASK, key, &f->state);
    assert(r != 0 || f->state);
    if (r == 0 && f->state->size > 1)
        f->indexed = f->state->bytes[1];
    return r;
}

/* ---- One task ---- */
struct held {
    struct task_held held;
    struct value *state;
    struct value *args;
};

static void release(struct task_held *task_held) {
    struct held *held = CONTAINER_OF(task_held, struct held, held);
    value_unref(held->state);
    value_unref(held->args);
    free(held);
}

/* The arguments of one that has succeeded are gone. */
static int load_args(struct found *f, struct task *task, bool has_args) {
    if (task->status == TASK_SUCCEEDED)
        return 0;
    if (!has_args) {
        task->request.args = BYTES_LITERAL("{}");
        return 0;
    }
    int r = f->args ? 0 : load(f->base, KEY_ARGS, task->id.key, &f->args);
    if (r == TASKS_E_NOT_FOUND)
        r = error_origin(-EBADMSG);
    if (r == 0)
        task->request.args = value_bytes(f->args);
    return r;
}

/* Of a task found, whose base is not needed any more then. Takes over its references. */
static int hold(uint64_t key, struct found *f, bool with_args, struct task_ref *ret_ref) {
    struct task task;
    bool has_args;
    int r = found_load(key, f);
    if (r != 0)
        return r;
    if (!task_state_decode(key, value_bytes(f->state), &task, &has_args))
        return error_origin(-EBADMSG);
    if (with_args && (r = load_args(f, &task, has_args)) != 0)
        return r;
    struct held *held = malloc(sizeof *held);
    if (!held)
        return error_origin(-ENOMEM);
    *held = (struct held){.held.release = release, .state = f->state, .args = f->args};
    f->state = f->args = NULL;
    *ret_ref = (struct task_ref){.task = task, .held = &held->held};
    return 0;
}

static int count_damage(struct tasks_store *s, int r) {
    if (r == -EBADMSG)
        atomic_fetch_add_explicit(&s->damages, 1, memory_order_relaxed);
    return r;
}

int tasks_store_get(struct tasks_store *s, struct task_id id, bool with_args,
                    struct task_ref *ret_ref) {
    CLEANUP(found_deinit) struct found f = {0};
    struct task_ref ref;
    mutex_lock(&s->lock);
    find_locked(s, id.key, &f);
    mutex_unlock(&s->lock);
    int r = count_damage(s, hold(id.key, &f, with_args, &ref));
    if (r != 0)
        return error_trace(r);
    if (ref.task.id.low != id.low) {
        task_unref(&ref);
        return TASKS_E_NOT_FOUND;
    }
    *ret_ref = ref;
    return 0;
}

/* ---- The queue ---- */
/* The best that is due, or TASKS_E_NOT_FOUND: none is. A task that cannot be read stays taken. */
static int take_one(struct tasks_store *s, uint64_t now_us, struct task_ref *ret_ref) {
    for (;;) {
        CLEANUP(found_deinit) struct found f = {0};
        struct task_ref ref;
        uint64_t key;
        mutex_lock(&s->lock);
        bool any = queue_take(&s->queue, now_us, &key);
        if (any)
            find_locked(s, key, &f);
        mutex_unlock(&s->lock);
        if (!any)
            return TASKS_E_NOT_FOUND;
        int r = count_damage(s, hold(key, &f, true, &ref));
        if (r == 0) {
            *ret_ref = ref;
            return 0;
        }
        if (r == -EBADMSG || r == TASKS_E_NOT_FOUND)
            continue;
        tasks_store_give_back(s, (struct task_id){.key = key});
        return error_trace(r);
    }
}

int tasks_store_take(struct tasks_store *s, uint64_t now_us, size_t n, struct task_ref *ret_refs,
                     size_t *ret_n) {
    size_t taken = 0;
    int r = 0;
    while (r == 0 && taken < n)
        if ((r = take_one(s, now_us, &ret_refs[taken])) == 0)
            taken++;
    if (r < 0 && taken == 0)
        return r;
    *ret_n = taken;
    return 0;
}

void tasks_store_give_back(struct tasks_store *s, struct task_id id) {
    mutex_lock(&s->lock);
    queue_give_back(&s->queue, id.key);
    mutex_unlock(&s->lock);
}

uint64_t tasks_store_next_due_us(struct tasks_store *s) {
    mutex_lock(&s->lock);
    uint64_t next = queue_next_due_us(&s->queue);
    mutex_unlock(&s->lock);
    return next;
}

/* ---- Idempotency keys ---- */
/* A task that has the key in the database. */
static int find_persisted(struct tasks_store *s, struct once_hash hash, struct task_id *ret_id) {
    CLEANUP(found_deinit) struct found f = {0};
    CLEANUP(pinned_deinit) rocksdb_pinnableslice_t *slice = NULL; /* goes before the base */
    struct key k;
    mutex_lock(&s->lock);
    f.base = base_ref(s->base);
    mutex_unlock(&s->lock);
    key_once(&k, hash.high, hash.low);
    int r = base_get(f.base, key_view(&k), &slice);
    if (r == 0 && !slice)
        r = TASKS_E_NOT_FOUND;
    else if (r == 0 && !tasks_once_decode(pinned_bytes(slice), ret_id))
        r = error_origin(-EBADMSG);
    return count_damage(s, r);
}

/* A task that is being forgotten is gone already, and its key with it. */
static bool is_forgotten(struct tasks_store *s, struct task_id id) {
    CLEANUP(found_deinit) struct found f = {0};
    mutex_lock(&s->lock);
    find_locked(s, id.key, &f);
    mutex_unlock(&s->lock);
    return f.forgotten;
}

static int find_once(struct tasks_store *s, struct once_hash hash, struct task_id *ret_id) {
    const struct once_slot *slot = once_find(&s->once, hash);
    if (slot) {
        *ret_id = slot->id;
        return 0;
    }
    int r = find_persisted(s, hash, ret_id);
    return r == 0 && is_forgotten(s, *ret_id) ? TASKS_E_NOT_FOUND : error_trace(r);
}

int tasks_store_once(struct tasks_store *s, struct bytes key, struct task_id id,
                     int (*append)(void *context), void *context, struct task_id *ret_id,
                     bool *ret_new) {
    struct once_slot new = {.hash = once_hash_of(key), .id = id};
    struct task_id known;
    mutex_lock(&s->once_lock);
    int r = find_once(s, new.hash, &known);
    bool is_new = r == TASKS_E_NOT_FOUND;
    if (is_new)
        r = once_reserve(&s->once) ? append(context) : error_origin(-ENOMEM);
    if (is_new && r == 0)
        once_add(&s->once, &new);
    mutex_unlock(&s->once_lock);
    if (r != 0)
        return error_trace(r);
    *ret_id = is_new ? id : known;
    *ret_new = is_new;
    return 0;
}
