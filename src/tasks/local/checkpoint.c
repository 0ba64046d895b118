/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checkpoint, in this order:
 *
 *   1. forget    tasks that ended too long ago are marked in the hot generation: some each time
 *   2. freeze    under the lock: frozen = hot, hot = a new one; position and counts are noted
 *   3. write     one sorted file: arguments, ends, index, keys, states, letters, the store's state;
 *                all of it also to the remote that keeps the tasks, if there is one (remote.c);
 *                then of the last a copy beside the database (keyed/copies.h)
 *   4. ingest    atomic and synced (keyed/database.c)
 *   5. switch    under the lock: base = the database as it now is, frozen = none
 *
 * If 3 or 4 fails, what is frozen stays so, readable as before, and the next checkpoint begins with
 * it: a change is in one file that was taken in, never in two. If 4 fails, it is not known which it
 * was until the database was opened again (reopen.c).
 *
 * Forgetting goes through the hot generation, so that it has its place among the transitions: once
 * a task is marked, no retry brings it back.
 */
#include "tasks/local/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum {
#ifdef MILLRACE_TINY
    FORGET_MAX = 16,
#else
    FORGET_MAX = 20000,
#endif
};

/* What a checkpoint carries from step to step. */
struct run {
    struct tasks_store *s;
    struct generation *g; /* the frozen one */
    struct ingest ingest;
    struct state state; /* what it will be */
    struct buffer value;
    struct buffer changes; /* of keys that are not in the order of the entries */
    struct key key;
    struct base *base; /* made before, taken after the ingest: nothing fails in between */
};

static void run_deinit(struct run *run) {
    ingest_deinit(&run->ingest);
    buffer_deinit(&run->value);
    buffer_deinit(&run->changes);
    base_unref(run->base);
}

/* ---- 1. Forgetting ---- */
/* What of a state is needed to delete its keys: many are marked at a time, and the texts are large.
 * NULL: memory is out. */
static struct value *without_texts(const struct task *task, bool has_args) {
    CLEANUP(buffer_deinit) struct buffer state = BUFFER_INIT;
    struct task bare = *task;
    bare.worker = bare.result = bare.error = bare.saved = BYTES_LITERAL("");
    task_state_encode(&state, &bare, has_args);
    return buffer_check(&state) == 0 ? value_new(buffer_bytes(&state)) : NULL;
}

/* Of the base, as no generation is frozen now. The task is a view of the entry's state.
 * TASKS_E_NOT_FOUND: it is not there, or has not ended. */
static int load_ended(struct base *base, uint64_t key, struct entry *ret_entry, struct task *task) {
    CLEANUP(found_deinit) struct found f = {.base = base_ref(base)};
    bool has_args;
    int r = found_load(key, &f);
    if (r != 0)
        return r;
    if (!task_state_decode(key, value_bytes(f.state), task, &has_args) ||
        !task_status_is_end(task->status))
        return TASKS_E_NOT_FOUND;
    struct value *state = without_texts(task, has_args);
    if (!state)
        return error_origin(-ENOMEM);
    bool decodes = task_state_decode(key, value_bytes(state), task, &has_args);
    assert(decodes);
    *ret_entry = (struct entry){.key = key,
                                .state = state,
                                .status = (uint8_t)task->status,
                                .indexed = (uint8_t)task->status,
                                .has_args = has_args,
                                .forgotten = true};
    return 0;
}

/* Its dead letters go with it. Under the lock. */
static int add_forgotten(struct tasks_store *s, struct entry *entry) {
    CLEANUP(buffer_deinit) struct buffer letters = BUFFER_INIT;
    int r = tasks_letters_of(s, entry->key, &letters);
    if (r == 0 && !tasks_generation_add(s->hot, entry))
        r = error_origin(-ENOMEM);
    if (r < 0)
        return r;
    tasks_letters_remove(s, entry->key, buffer_bytes(&letters));
    entry->state = NULL;
    s->counts[entry->status]--;
    return 0;
}

static int mark_forgotten(struct tasks_store *s, struct entry *entry, struct bytes type) {
    int r = 0;
    mutex_lock(&s->lock);
    unsigned number = types_find(&s->types, type);
    entry->type = (uint8_t)number;
    if (!tasks_generation_find(s->hot, entry->key) && number < TYPES_MAX)
        r = add_forgotten(s, entry);
    atomic_store_explicit(&s->hot_bytes, generation_bytes(s->hot), memory_order_relaxed);
    mutex_unlock(&s->lock);
    value_unref(entry->state);
    return r;
}

/* The task of a key of KEY_FINISHED: forgotten, if it ended then. That key goes in any case. */
static int forget(struct tasks_store *s, struct base *base, uint64_t finished_us, uint64_t key) {
    const struct pair finished = {finished_us, key};
    struct entry entry;
    struct task task;
    int r = load_ended(base, key, &entry, &task);
    if (r < 0 && r != -EBADMSG)
        return r;
    if (r == 0 && task.finished_us == finished_us)
        r = mark_forgotten(s, &entry, task.request.type);
    else if (r == 0)
        value_unref(entry.state);
    if (r == -ENOMEM)
        return r;
    mutex_lock(&s->lock);
    buffer_append(&s->hot->finished, &finished, sizeof finished);
    r = buffer_check(&s->hot->finished);
    mutex_unlock(&s->lock);
    return r;
}

/* How many at a time: twice what came since the last time, so that they do not become ever more. */
static size_t forget_max(struct tasks_store *s) {
    mutex_lock(&s->lock);
    size_t n = 2 * s->hot->entries.n;
    mutex_unlock(&s->lock);
    return n > FORGET_MAX ? n : FORGET_MAX;
}

/* An error only means that it goes on next time. What is behind damage is kept: the checkpoint is
 * good without that. */
static int forget_some(struct tasks_store *s, size_t *ret_n) {
    struct base_cursor cursor;
    struct bytes key, value;
    struct key first;
    int r = 0, error = 0;
    size_t n = 0, max = forget_max(s);
    uint64_t now_us = os_wall_us(s->os), keep_us = s->options.keep_ms * 1000;
    uint64_t before_us = now_us > keep_us ? now_us - keep_us : 0;
    key_begin(&first, KEY_FINISHED);
    base_cursor_init(&cursor, s->base, false); /* only a checkpoint changes it */
    for (base_cursor_seek(&cursor, key_view(&first));
         r == 0 && n < max && base_cursor_at(&cursor, &key, &value, &error) &&
         key.data[0] == KEY_FINISHED && key.size == KEY_FINISHED_SIZE;
         base_cursor_advance(&cursor), n++) {
        uint64_t finished_us = be64toh(load_u64(key.data + 1));
        if (finished_us >= before_us)
            break;
        r = forget(s, s->base, finished_us, key_task_of(key));
    }
    base_cursor_deinit(&cursor);
    if (error == -EBADMSG)
        atomic_fetch_add_explicit(&s->damages, 1, memory_order_relaxed);
    *ret_n = n;
    return r < 0 || error == -EBADMSG ? r : error;
}

void note_oldest_end(struct tasks_store *s) {
    struct base_cursor cursor;
    struct bytes key, value;
    struct key first;
    uint64_t oldest_us = UINT64_MAX;
    int error = 0;
    key_begin(&first, KEY_FINISHED);
    base_cursor_init(&cursor, s->base, false); /* only a checkpoint changes it */
    base_cursor_seek(&cursor, key_view(&first));
    if (base_cursor_at(&cursor, &key, &value, &error) && key.data[0] == KEY_FINISHED &&
        key.size == KEY_FINISHED_SIZE)
        oldest_us = be64toh(load_u64(key.data + 1));
    base_cursor_deinit(&cursor);
    atomic_store_explicit(&s->oldest_end_us, oldest_us, memory_order_relaxed);
}

/* With a remote, always: to hear how it is. Some at once rather than each alone: up to a sixteenth
 * of the time, at most a minute, later. */
bool tasks_store_wants_checkpoint(const struct tasks_store *s) {
    static const uint64_t slack_max_us = UINT64_C(60) * 1000000;
    uint64_t keep_us = s->options.keep_ms * 1000;
    uint64_t slack_us = keep_us / 16 < slack_max_us ? keep_us / 16 : slack_max_us;
    uint64_t oldest_us = atomic_load_explicit(&s->oldest_end_us, memory_order_relaxed);
    uint64_t now_us = os_wall_us(s->os);
    if (s->options.remote)
        return true;
    return oldest_us < now_us && now_us - oldest_us > keep_us + slack_us;
}

/* ---- 2. Freezing ---- */
static int freeze(struct tasks_store *s) {
    struct generation *fresh = tasks_generation_new(s->hot->number + 1);
    if (!fresh)
        return error_origin(-ENOMEM);
    mutex_lock(&s->lock);
    s->frozen = s->hot;
    s->hot = fresh;
    s->frozen->position = s->position;
    s->frozen->newest = s->newest;
    memcpy(s->frozen->counts, s->counts, sizeof s->counts);
    atomic_store_explicit(&s->hot_bytes, generation_bytes(fresh), memory_order_relaxed);
    mutex_unlock(&s->lock);
    atomic_store_explicit(&s->frozen_bytes, generation_bytes(s->frozen), memory_order_relaxed);
    return 0;
}

/* ---- 3. Writing: what is in the order of the entries ---- */
static int write_each(struct run *run, int (*each)(struct run *run, const struct entry *e)) {
    struct pairs_cursor c;
    const struct entry *e;
    int r = 0;
    generation_walk(&c, run->g, 0);
    while (r == 0 && (e = tasks_generation_next(&c)))
        r = each(run, e);
    return r;
}

static int write_args(struct run *run, const struct entry *e) {
    bool has = e->has_args && !e->forgotten && e->status != TASK_SUCCEEDED;
    bool had = e->has_args && e->indexed != NOT_INDEXED && e->indexed != TASK_SUCCEEDED;
    key_task(&run->key, KEY_ARGS, e->key);
    if (has && e->args)
        ingest_put(&run->ingest, key_view(&run->key), value_bytes(e->args));
    else if (had && !has)
        ingest_delete(&run->ingest, key_view(&run->key));
    return 0;
}

static int write_task(struct run *run, const struct entry *e) {
    key_task(&run->key, KEY_TASK, e->key);
    if (!e->forgotten)
        ingest_put(&run->ingest, key_view(&run->key), value_bytes(e->state));
    else if (e->indexed != NOT_INDEXED)
        ingest_delete(&run->ingest, key_view(&run->key));
    return 0;
}

/* ---- 3. Writing: what is not ---- */
/* A key to put, or to delete; where both are asked for, it is put. */
struct key_change {
    uint8_t key[KEY_ONCE_SIZE]; /* zeros behind its end */
    uint8_t size;
    uint8_t value_size;
    uint8_t value[16];
    bool put;
};
static_assert(KEY_INDEX_SIZE <= KEY_ONCE_SIZE && KEY_FINISHED_SIZE <= KEY_ONCE_SIZE, "a key fits");

static void add_change(struct run *run, bool put, const void *value, size_t value_size) {
    struct key_change change = {
        .size = (uint8_t)run->key.size, .put = put, .value_size = (uint8_t)value_size};
    memcpy(change.key, run->key.bytes, run->key.size);
    if (value_size > 0)
        memcpy(change.value, value, value_size);
    buffer_append(&run->changes, &change, sizeof change);
}

static int compare_changes(const void *a, const void *b) {
    const struct key_change *x = a, *y = b;
    int order = memcmp(x->key, y->key, sizeof x->key);
    return order ? order : x->put - y->put;
}

static int write_changes(struct run *run) {
    struct key_change *list = (void *)run->changes.data;
    size_t n = run->changes.size / sizeof *list;
    int r = buffer_check(&run->changes);
    if (r < 0)
        return r;
    if (n > 1)
        qsort(list, n, sizeof *list, compare_changes);
    for (size_t i = 0; i < n; i++) {
        if (i + 1 < n && memcmp(list[i].key, list[i + 1].key, sizeof list[i].key) == 0)
            continue;
        struct bytes key = bytes_of(list[i].key, list[i].size);
        if (list[i].put)
            ingest_put(&run->ingest, key, bytes_of(list[i].value, list[i].value_size));
        else
            ingest_delete(&run->ingest, key);
    }
    buffer_clear(&run->changes);
    return 0;
}

static void add_index(struct run *run, const struct entry *e, const struct task *t) {
    uint8_t value[9];
    bool queued = e->status == TASK_QUEUED;
    bool moved = e->forgotten || e->indexed != e->status;
    if (moved && e->indexed != NOT_INDEXED) {
        key_index(&run->key, e->indexed, e->type, e->key);
        add_change(run, false, NULL, 0);
    }
    if (e->forgotten || (!moved && !queued))
        return;
    key_index(&run->key, e->status, e->type, e->key);
    index_encode(value, t->due_us, t->request.priority);
    add_change(run, true, value, queued ? sizeof value : 0);
}

static void add_once(struct run *run, const struct entry *e, const struct task *t) {
    uint8_t id[16];
    if (t->request.idempotency_key.size == 0 || (!e->forgotten && e->indexed != NOT_INDEXED))
        return;
    struct once_hash hash = once_hash_of(t->request.idempotency_key);
    key_once(&run->key, hash.high, hash.low);
    store_u64(id, t->id.key);
    store_u64(id + 8, t->id.low);
    add_change(run, !e->forgotten, id, e->forgotten ? 0 : sizeof id);
}

/* The order of keys.h comes from sorting: f, i and k are neighbours. */
static int gather_entry(struct run *run, const struct entry *e) {
    struct task task;
    bool has_args;
    bool good = task_state_decode(e->key, value_bytes(e->state), &task, &has_args);
    assert(good);
    if (task_status_is_end(e->status) && !e->forgotten) {
        key_finished(&run->key, task.finished_us, e->key);
        add_change(run, true, NULL, 0);
    }
    add_index(run, e, &task);
    add_once(run, e, &task);
    return buffer_check(&run->changes);
}

static int write_gathered(struct run *run) {
    struct bytes finished = buffer_bytes(&run->g->finished);
    for (size_t at = 0; at < finished.size; at += sizeof(struct pair)) {
        struct pair p;
        memcpy(&p, finished.data + at, sizeof p);
        key_finished(&run->key, p.high, p.low);
        add_change(run, false, NULL, 0);
    }
    int r = write_each(run, gather_entry);
    return r == 0 ? write_changes(run) : r;
}

/* ---- 3. Writing: the rest ---- */
static int write_letters(struct run *run) {
    const struct letters *list = &run->g->letters;
    return letters_write(&list, 1, &run->ingest);
}

static int write_state(struct run *run) {
    struct persisted *p = &run->s->persisted;
    buffer_clear(&p->next);
    int r = tasks_state_encode(&run->state, &p->next);
    if (r < 0)
        return error_trace(r);
    key_begin(&run->key, KEY_STATE);
    ingest_put(&run->ingest, key_view(&run->key), buffer_bytes(&p->next));
    return 0;
}

static int copy_state(struct tasks_store *s) {
    return copies_write_state(&s->copies, database_sequence(&s->database),
                              buffer_bytes(&s->persisted.state), buffer_bytes(&s->persisted.next));
}

/* What the state will be with the frozen generation. Types that came after it are written too: they
 * keep their numbers when they come again. */
static void next_state(struct run *run) {
    const struct persisted *p = &run->s->persisted;
    run->state =
        (struct state){.position = run->g->position,
                       .number = p->number + 1,
                       .newest = run->g->newest,
                       .letters = p->letters + run->g->letters.n - letters_gone(&run->g->letters)};
    memcpy(run->state.counts, run->g->counts, sizeof run->state.counts);
    mutex_lock(&run->s->lock);
    run->state.types = run->s->types;
    mutex_unlock(&run->s->lock);
}

static int write_all(struct run *run) {
    int r = write_each(run, write_args);
    if (r == 0)
        r = write_gathered(run);
    if (r == 0)
        r = write_each(run, write_task);
    if (r == 0)
        r = write_letters(run);
    if (r == 0)
        r = write_state(run);
    return r;
}

/* ---- 5. Switching ---- */
void switch_over(struct tasks_store *s, struct base *base) {
    struct generation *frozen = s->frozen;
    struct persisted *p = &s->persisted;
    struct buffer before = p->state;
    *p = (struct persisted){.number = p->number + 1,
                            .letters =
                                p->letters + frozen->letters.n - letters_gone(&frozen->letters),
                            .state = p->next,
                            .next = before};
    mutex_lock(&s->lock);
    struct base *old = s->base;
    s->base = base_ref(base);
    s->last_persisted = frozen->position;
    s->frozen = NULL;
    mutex_unlock(&s->lock);
    atomic_store_explicit(&s->frozen_bytes, 0, memory_order_relaxed);
    mutex_lock(&s->once_lock);
    once_persisted(&s->once, frozen->number);
    mutex_unlock(&s->once_lock);
    tasks_generation_unref(frozen);
    base_unref(old);
    copies_follow_manifest(&s->copies);
}

/* ---- The whole ---- */
static int persist_frozen(struct tasks_store *s) {
    CLEANUP(run_deinit) struct run run = {.s = s, .g = s->frozen};
    next_state(&run);
    int r = base_new(&s->database, &run.base);
    if (r == 0)
        r = tasks_remote_begin(s);
    if (r == 0)
        r = ingest_begin(&run.ingest, &s->database);
    if (r == 0 && s->options.remote)
        run.ingest.witness = &s->witness;
    if (r == 0)
        r = write_all(&run);
    if (r == 0)
        r = tasks_remote_finish(s);
    if (r == 0)
        r = copy_state(s);
    if (r == 0)
        r = ingest_finish(&run.ingest);
    s->unsure = database_is_stuck(&s->database);
    if (r == 0) {
        base_take(run.base);
        switch_over(s, run.base);
    }
    return error_trace(r);
}

static bool is_persisted(struct tasks_store *s) {
    mutex_lock(&s->lock);
    bool same = s->position == s->last_persisted && s->persisted.number > 0;
    mutex_unlock(&s->lock);
    return same;
}

static int checkpoint(struct tasks_store *s) {
    size_t forgotten = 0;
    int forgetting, r = tasks_make_sure(s);
    if (r < 0)
        return r;
    if (s->frozen)
        r = persist_frozen(s);
    if (r < 0)
        return r;
    forgetting = forget_some(s, &forgotten);
    if (is_persisted(s) && forgotten == 0) {
        r = tasks_remote_look(s);
        return r < 0 ? r : forgetting;
    }
    r = freeze(s);
    if (r == 0)
        r = persist_frozen(s);
    return r < 0 ? r : forgetting;
}

int tasks_store_checkpoint(struct tasks_store *s) {
    mutex_lock(&s->checkpoint);
    int r = checkpoint(s);
    note_oldest_end(s);
    mutex_unlock(&s->checkpoint);
    return error_trace(r);
}
