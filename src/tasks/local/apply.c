/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Applying transitions, one after the other: one thread does, readers and a checkpoint meanwhile.
 *
 *   decode ─▶ find the task (hot, frozen, database) ─▶ transition ─▶ encode its new state
 *          ─▶ lock ─▶ put it, move it in the queue, count, move the position ─▶ unlock ─▶ tell
 *
 * Only the last part is under the lock, and all that can fail comes first. Another generation may
 * have become the hot one in between: then what was found is looked for again, as a checkpoint may
 * have forgotten the task.
 */
#include "tasks/local/internal.h"

#include <errno.h>

enum { HOT_FACTOR_MAX = 4 };

/* What one record does. */
struct change {
    const struct journal_record *journal;
    struct task_record record;
    uint64_t now_us;
    struct found found;
    uint64_t generation; /* that was hot when it was found */
    struct task before;
    struct task after;
    bool has_args;
    struct value *state;
    struct value *args;
};

enum {
    _CHANGE_E_SUCCESS,
    CHANGE_E_MISFIT,  /* it does not fit what the task is */
    CHANGE_E_KNOWN,   /* a task that was made before */
    CHANGE_E_AGAIN,   /* another generation is hot */
    CHANGE_E_TYPES,   /* there are too many */
    CHANGE_E_UNKNOWN, /* no record of ours */
};

static void change_deinit(struct change *c) {
    found_deinit(&c->found);
    c->state = value_unref(c->state);
    c->args = value_unref(c->args);
}

/* ---- Before the lock ---- */
/* As found_load, and decodes it. */
static int find(struct tasks_store *s, struct change *c) {
    mutex_lock(&s->lock);
    find_locked(s, c->record.id.key, &c->found);
    c->generation = s->hot->number;
    mutex_unlock(&s->lock);
    int r = found_load(c->record.id.key, &c->found);
    if (r == 0 &&
        !task_state_decode(c->record.id.key, value_bytes(c->found.state), &c->before, &c->has_args))
        r = error_origin(-EBADMSG);
    if (r == -EBADMSG)
        atomic_fetch_add_explicit(&s->damages, 1, memory_order_relaxed);
    return r;
}

static int encode(struct tasks_store *s, struct change *c) {
    buffer_clear(&s->scratch);
    task_state_encode(&s->scratch, &c->after, c->has_args);
    int r = buffer_check(&s->scratch);
    if (r < 0)
        return r;
    c->state = value_new(buffer_bytes(&s->scratch));
    return c->state ? 0 : error_origin(-ENOMEM);
}

static int prepare_new(struct tasks_store *s, struct change *c) {
    const struct task_record *record = &c->record;
    const struct bytes args = record->request.args;
    uint64_t wall_us = c->journal->wall_us, run_at_us = record->request.run_at_us;
    /* Keys grow, so most need not be looked for. */
    if (record->id.key > s->newest) {
        c->found.indexed = NOT_INDEXED;
    } else {
        int r = find(s, c);
        if (r == 0 || r == -EBADMSG || c->found.forgotten)
            return CHANGE_E_KNOWN;
        if (r < 0)
            return r;
    }
    c->has_args = args.size > 0 && !bytes_equal(args, BYTES_LITERAL("{}"));
    c->after = (struct task){.id = record->id,
                             .request = record->request,
                             .status = TASK_QUEUED,
                             .created_us = wall_us,
                             .due_us = run_at_us > wall_us ? run_at_us : wall_us};
    if (c->has_args && !(c->args = value_new(args)))
        return error_origin(-ENOMEM);
    return encode(s, c);
}

static int prepare(struct tasks_store *s, struct change *c) {
    if (!task_record_decode(c->journal->payload, &c->record))
        return CHANGE_E_UNKNOWN;
    if (c->record.op == TASK_OP_CREATE)
        return prepare_new(s, c);
    int r = find(s, c);
    if (r == TASKS_E_NOT_FOUND || r == -EBADMSG)
        return CHANGE_E_MISFIT;
    if (r < 0)
        return r;
    c->after = c->before;
    if (c->after.id.low != c->record.id.low ||
        !task_transition(&c->after, &c->record, c->journal->wall_us))
        return CHANGE_E_MISFIT;
    return encode(s, c);
}

/* ---- Under the lock ---- */
static void moved(struct tasks_store *s, const struct change *c) {
    s->position = c->journal->lsn;
    atomic_store_explicit(&s->hot_bytes, generation_bytes(s->hot), memory_order_relaxed);
    atomic_store_explicit(&s->queued, s->counts[TASK_QUEUED], memory_order_relaxed);
}

/* Takes over what the change holds. */
static int add_entry(struct tasks_store *s, struct change *c) {
    unsigned type = types_number(&s->types, c->after.request.type);
    if (type == TYPES_MAX)
        return CHANGE_E_TYPES;
    const struct entry entry = {.key = c->after.id.key,
                                .state = c->state,
                                .args = c->args,
                                .status = (uint8_t)c->after.status,
                                .type = (uint8_t)type,
                                .indexed = c->found.indexed,
                                .has_args = c->has_args};
    if (!tasks_generation_add(s->hot, &entry))
        return error_origin(-ENOMEM);
    c->state = c->args = NULL;
    return 0;
}

static int put_entry(struct tasks_store *s, struct change *c) {
    struct entry *e = tasks_generation_find(s->hot, c->after.id.key);
    if (!e)
        return add_entry(s, c);
    if (e->forgotten)
        return CHANGE_E_MISFIT;
    generation_change(s->hot, e, c->state, c->after.status);
    c->state = NULL;
    return 0;
}

/* True when somebody is to look at the queue. */
static bool move_in_queue(struct tasks_store *s, const struct change *c) {
    const struct task *t = &c->after;
    bool was = c->record.op != TASK_OP_CREATE && c->before.status == TASK_QUEUED;
    if (was)
        queue_drop(&s->queue, t->id.key, c->before.due_us, t->request.priority);
    return t->status == TASK_QUEUED &&
           queue_push(&s->queue, t->id.key, t->due_us, t->request.priority, c->now_us);
}

static void count(struct tasks_store *s, const struct change *c) {
    if (c->record.op == TASK_OP_CREATE) {
        s->newest = c->after.id.key > s->newest ? c->after.id.key : s->newest;
        id_seen(s, s->newest);
    } else {
        s->counts[c->before.status]--;
    }
    s->counts[c->after.status]++;
    s->ended[c->after.status] += task_status_is_end(c->after.status);
    s->deaths += c->record.op == TASK_OP_END && c->record.outcome == TASK_OUTCOME_DIED;
}

static int put_locked(struct tasks_store *s, struct change *c, bool *wake) {
    if (c->generation != 0 && c->generation != s->hot->number)
        return CHANGE_E_AGAIN;
    if (!queue_reserve(&s->queue))
        return error_origin(-ENOMEM);
    int r = put_entry(s, c);
    if (r != 0)
        return r;
    *wake |= move_in_queue(s, c);
    count(s, c);
    moved(s, c);
    return 0;
}

static int put(struct tasks_store *s, struct change *c, bool *wake) {
    mutex_lock(&s->lock);
    int r = put_locked(s, c, wake);
    mutex_unlock(&s->lock);
    return r;
}

/* A task with an idempotency key: the table is told which generation has it. */
static int put_once(struct tasks_store *s, struct change *c, bool *wake) {
    struct once_slot new = {.hash = once_hash_of(c->record.request.idempotency_key),
                            .id = c->record.id};
    mutex_lock(&s->once_lock);
    int r = once_reserve(&s->once) ? 0 : error_origin(-ENOMEM);
    if (r == 0) {
        mutex_lock(&s->lock);
        r = put_locked(s, c, wake);
        new.generation = s->hot->number;
        mutex_unlock(&s->lock);
    }
    struct once_slot *slot = r == 0 ? once_find(&s->once, new.hash) : NULL;
    if (slot && slot->id.key == new.id.key)
        slot->generation = new.generation;
    else if (r == 0 && !slot)
        once_add(&s->once, &new);
    mutex_unlock(&s->once_lock);
    return r;
}

static void pass(struct tasks_store *s, lsn_t lsn) {
    mutex_lock(&s->lock);
    s->position = lsn > s->position ? lsn : s->position;
    mutex_unlock(&s->lock);
}

/* ---- After it ---- */
static void tell(struct tasks_store *s, const struct change *c, int r) {
    struct tasks_listener *l = s->listener;
    if (!l)
        return;
    if (r == 0 && c->record.op == TASK_OP_CANCEL && l->cancelled)
        l->cancelled(l, c->record.id);
    if (r == CHANGE_E_MISFIT && c->record.attempt != 0 && l->fenced)
        l->fenced(l, c->record.id, c->record.attempt);
}

static int apply_once(struct tasks_store *s, const struct journal_record *record, uint64_t now_us,
                      bool *wake) {
    CLEANUP(change_deinit) struct change c = {.journal = record, .now_us = now_us};
    int r = prepare(s, &c);
    if (r == 0 && c.record.request.idempotency_key.size > 0)
        r = put_once(s, &c, wake);
    else if (r == 0)
        r = put(s, &c, wake);
    if (r == CHANGE_E_MISFIT || r == CHANGE_E_KNOWN)
        pass(s, record->lsn);
    tell(s, &c, r);
    return r == CHANGE_E_MISFIT || r == CHANGE_E_KNOWN ? 0 : r;
}

/* Memory is bounded: what is hot waits for what is frozen. Without a checkpoint under way it may
 * grow larger, as its owner has yet to notice. */
static bool must_wait(struct tasks_store *s) {
    uint64_t hot = atomic_load_explicit(&s->hot_bytes, memory_order_relaxed);
    if (hot < s->options.hot_bytes_max)
        return false;
    mutex_lock(&s->lock);
    bool frozen = s->frozen != NULL;
    mutex_unlock(&s->lock);
    return frozen || hot >= HOT_FACTOR_MAX * s->options.hot_bytes_max;
}

static struct work_verdict verdict_of(int r, size_t applied) {
    if (r == CHANGE_E_UNKNOWN)
        return (struct work_verdict){WORK_REJECT, applied, "not a record of tasks"};
    if (r == CHANGE_E_TYPES)
        return (struct work_verdict){WORK_REJECT, applied, "there are too many types of tasks"};
    if (r == -ENOMEM)
        return (struct work_verdict){WORK_RETRY, applied, "memory is out"};
    return (struct work_verdict){WORK_DOWN, applied, "the database cannot be read"};
}

static int apply(void *store, unsigned lane UNUSED, const struct journal_record *const *records,
                 size_t n, struct work_verdict *ret_verdict) {
    struct tasks_store *s = store;
    struct work_verdict v = {.outcome = WORK_OK};
    uint64_t now_us = os_wall_us(s->os);
    bool wake = false;
    while (v.outcome == WORK_OK && v.applied < n) {
        if (must_wait(s)) {
            v = (struct work_verdict){WORK_RETRY, v.applied, "memory is full until the checkpoint"};
            break;
        }
        int r = apply_once(s, records[v.applied], now_us, &wake);
        if (r == 0)
            v.applied++;
        else if (r != CHANGE_E_AGAIN)
            v = verdict_of(r, v.applied);
    }
    if (wake && s->listener && s->listener->queued)
        s->listener->queued(s->listener);
    *ret_verdict = v;
    return 0;
}

/* Tasks have no record that is not for the one lane. */
static int control(void *store UNUSED, const struct journal_record *record UNUSED) {
    return 0;
}

static int reject(void *store, unsigned lane UNUSED, const struct journal_record *record,
                  const char *reason) {
    struct tasks_store *s = store;
    mutex_lock(&s->lock);
    int r = letters_add(&s->hot->letters, record, reason, &s->hot->bytes);
    if (r == 0) {
        s->position = record->lsn;
        atomic_store_explicit(&s->hot_bytes, generation_bytes(s->hot), memory_order_relaxed);
    }
    mutex_unlock(&s->lock);
    if (r == 0)
        atomic_fetch_add_explicit(&s->letters, 1, memory_order_relaxed);
    return error_trace(r);
}

static void passed(void *store, unsigned lane UNUSED, lsn_t lsn) {
    pass(store, lsn);
}

const struct work_store_ops tasks_store_work_ops = {.name = "tasks",
                                                    .kind = JOURNAL_KIND_TASKS,
                                                    .apply = apply,
                                                    .control = control,
                                                    .reject = reject,
                                                    .passed = passed};
