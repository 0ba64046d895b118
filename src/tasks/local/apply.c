/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Applying transitions, one after the other: one thread does, readers and a checkpoint meanwhile.
 *
 *   decode ─▶ find the task (hot, frozen, database) ─▶ transition ─▶ encode its new state
 *          ─▶ lock ─▶ put it, move it in the queue, count, move the position ─▶ unlock ─▶ tell
 *
 * A record about a dead letter (work/letters.h) is what its payload says, with the letter gone. The
 * END of a task that took its last worker with it is applied, and is a letter as well.
 *
 * Only the last part is under the lock, and all that can fail comes first. Another generation may
 * have become the hot one in between: then what was found is looked for again, as a checkpoint may
 * have forgotten the task.
 */
#include "tasks/local/internal.h"

#include <errno.h>
#include <stdio.h>

enum { HOT_FACTOR_MAX = 4, REASON_MAX = 512 };

/* What one record does. */
struct change {
    const struct journal_record *journal;
    lsn_t letter; /* that it takes away, 0: none */
    bool drops;   /* and does nothing else */
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
    CHANGE_E_CHANGED, /* the same, of a letter */
    CHANGE_E_NO_LETTER,
    CHANGE_E_UNKNOWN_LETTER,
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

static int prepare_task(struct tasks_store *s, struct change *c, struct bytes payload) {
    if (!task_record_decode(payload, &c->record))
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

static int prepare(struct tasks_store *s, struct change *c) {
    struct work_letter_record letter;
    lsn_t changed;
    if (!(c->journal->flags & JOURNAL_LETTER))
        return prepare_task(s, c, c->journal->payload);
    if (!work_letter_decode(c->journal->payload, &letter))
        return CHANGE_E_UNKNOWN_LETTER;
    if (!work_letters_find(&s->letters, letter.letter, c->journal->key_hash, &changed))
        return CHANGE_E_NO_LETTER;
    c->letter = letter.letter;
    c->drops = letter.op == WORK_LETTER_DROP;
    return c->drops ? 0 : prepare_task(s, c, letter.payload);
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
        task_ids_seen(&s->ids, s->newest);
    } else {
        s->counts[c->before.status]--;
    }
    s->counts[c->after.status]++;
    s->ended[c->after.status] += task_status_is_end(c->after.status);
    s->deaths += c->record.op == TASK_OP_END && c->record.outcome == TASK_OUTCOME_DIED;
}

/* ---- Under the lock: letters ---- */
static void remove_letter(struct tasks_store *s, lsn_t letter, uint64_t key_hash) {
    work_letters_remove(&s->letters, letter, key_hash);
    letters_remove(&s->hot->letters, letter);
}

int tasks_letters_of(struct tasks_store *s, uint64_t key, struct buffer *out) {
    work_letters_of_key(&s->letters, key, out);
    int r = buffer_check(out);
    return r < 0 ? r : letters_reserve(&s->hot->letters, out->size / sizeof(lsn_t) + 1);
}

void tasks_letters_remove(struct tasks_store *s, uint64_t key, struct bytes letters) {
    for (size_t i = 0; i < letters.size; i += sizeof(lsn_t))
        remove_letter(s, load_u64(letters.data + i), key);
}

static int keep_letter(struct tasks_store *s, const struct journal_record *record,
                       const char *reason) {
    int r = work_letters_add(&s->letters, record->lsn, record->key_hash);
    if (r == 0)
        r = letters_add(&s->hot->letters, record, reason, &s->hot->bytes);
    if (r < 0)
        work_letters_remove(&s->letters, record->lsn, record->key_hash);
    return error_trace(r);
}

/* The task took its last worker with it. */
static bool is_deadly(const struct change *c) {
    return c->record.op == TASK_OP_END && c->record.outcome == TASK_OUTCOME_DIED &&
           c->after.status == TASK_FAILED;
}

static void take_back_letter(struct tasks_store *s, const struct journal_record *record) {
    work_letters_remove(&s->letters, record->lsn, record->key_hash);
    letters_take_back(&s->hot->letters, &s->hot->bytes);
}

static int keep_deadly(struct tasks_store *s, const struct change *c) {
    char reason[REASON_MAX];
    snprintf(reason, sizeof reason, "it took %d workers with it; of the last one: %.*s",
             TASK_DEATHS_MAX, (int)(c->after.error.size < REASON_MAX ? c->after.error.size : 0),
             (const char *)c->after.error.data);
    return keep_letter(s, c->journal, reason);
}

/* ---- Under the lock: all of it ---- */
static int put_all(struct tasks_store *s, struct change *c, bool *wake) {
    int r = put_entry(s, c);
    if (r != 0)
        return r;
    *wake |= move_in_queue(s, c);
    count(s, c);
    return 0;
}

static int put_locked(struct tasks_store *s, struct change *c, bool *wake) {
    CLEANUP(buffer_deinit) struct buffer letters = BUFFER_INIT;
    uint64_t key = c->journal->key_hash;
    bool deadly = is_deadly(c);
    if (c->generation != 0 && c->generation != s->hot->number)
        return CHANGE_E_AGAIN;
    if (!queue_reserve(&s->queue))
        return error_origin(-ENOMEM);
    int r = c->letter || c->record.op == TASK_OP_RETRY ? tasks_letters_of(s, key, &letters) : 0;
    if (r == 0 && deadly)
        r = keep_deadly(s, c);
    if (r != 0)
        return r;
    if (!c->drops)
        r = put_all(s, c, wake);
    if (r != 0 && deadly)
        take_back_letter(s, c->journal);
    if (r != 0)
        return r;
    if (c->record.op == TASK_OP_RETRY)
        tasks_letters_remove(s, key, buffer_bytes(&letters));
    else if (c->letter)
        remove_letter(s, c->letter, key);
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
    bool fits = r != CHANGE_E_MISFIT && r != CHANGE_E_KNOWN;
    if (!fits && !c.letter)
        pass(s, record->lsn);
    tell(s, &c, r);
    return fits ? r : c.letter ? CHANGE_E_CHANGED : 0;
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

static const char *rejection_of(int r) {
    switch (r) {
    case CHANGE_E_UNKNOWN:
        return "not a record of tasks";
    case CHANGE_E_TYPES:
        return "there are too many types of tasks";
    case CHANGE_E_CHANGED:
        return work_letter_changed;
    case CHANGE_E_NO_LETTER:
        return work_letter_gone;
    case CHANGE_E_UNKNOWN_LETTER:
        return work_letter_unknown;
    default:
        return NULL;
    }
}

static struct work_verdict verdict_of(int r, size_t applied) {
    if (rejection_of(r))
        return (struct work_verdict){WORK_REJECT, applied, rejection_of(r)};
    if (r == -ENOMEM)
        return (struct work_verdict){WORK_RETRY, applied, "memory is out"};
    return (struct work_verdict){WORK_DOWN, applied, "the database cannot be read"};
}

/* Which may take long where a remote is away: down is no stall. */
static struct work_verdict full(struct tasks_store *s, size_t applied) {
    if (tasks_remote_is_away(s))
        return (struct work_verdict){WORK_DOWN, applied,
                                     "memory is full, and who keeps the tasks takes none"};
    return (struct work_verdict){WORK_RETRY, applied, "memory is full until the checkpoint"};
}

static int apply(void *store, unsigned lane UNUSED, const struct journal_record *const *records,
                 size_t n, struct work_verdict *ret_verdict) {
    struct tasks_store *s = store;
    struct work_verdict v = {.outcome = WORK_OK};
    uint64_t now_us = os_wall_us(s->os);
    bool wake = false;
    while (v.outcome == WORK_OK && v.applied < n) {
        if (must_wait(s)) {
            v = full(s, v.applied);
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
    int r = record->flags & JOURNAL_LETTER ? 0 : keep_letter(s, record, reason);
    if (r == 0) {
        s->position = record->lsn;
        atomic_store_explicit(&s->hot_bytes, generation_bytes(s->hot), memory_order_relaxed);
    }
    mutex_unlock(&s->lock);
    return error_trace(r);
}

static void passed(void *store, unsigned lane UNUSED, lsn_t lsn) {
    pass(store, lsn);
}

static struct work_letters *letters(void *store) {
    return &((struct tasks_store *)store)->letters;
}

static int read_letters(void *store, const lsn_t *lsns, size_t n,
                        void (*each)(void *context, const struct work_letter *letter),
                        void *context) {
    struct tasks_store *s = store;
    mutex_lock(&s->lock);
    struct generation *hot = tasks_generation_ref(s->hot);
    struct generation *frozen = s->frozen ? tasks_generation_ref(s->frozen) : NULL;
    const struct letter *newest[] = {hot->letters.newest, frozen ? frozen->letters.newest : NULL};
    struct base *base = base_ref(s->base);
    mutex_unlock(&s->lock);
    const struct letters_source source = {&s->letters, base, newest, ARRAY_LENGTH(newest)};
    int r = letters_read(&source, lsns, n, each, context);
    tasks_generation_unref(hot);
    tasks_generation_unref(frozen);
    base_unref(base);
    return error_trace(r);
}

const struct work_store_ops tasks_store_work_ops = {.name = "tasks",
                                                    .kind = JOURNAL_KIND_TASKS,
                                                    .apply = apply,
                                                    .control = control,
                                                    .reject = reject,
                                                    .passed = passed,
                                                    .letters = letters,
                                                    .read_letters = read_letters};
