/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of a partition into states.
 *
 *   take what decodes ─▶ read the position, then the tasks ─▶ transitions, one after the other
 *        ▲                                                          │
 *        └── again, from there ◀── the position is another by now ◀─┴─▶ one script: applied
 *
 * The position is read before the tasks, and the script compares it: so what the tasks were when
 * they were read is what they are when they are written. A task's records are all in one partition,
 * whose position every change of them moves, so that nobody else has written the task since.
 *
 * No answer means: not applied, as far as is known. It is tried again, and what was done is then
 * below the position.
 *
 * A record about a letter is what its payload says, with the letter gone, if the script finds it
 * there; else it changes nothing, so that of several the first has its effect.
 */
#include "tasks/redis/internal.h"

#include <errno.h>
#include <stdio.h>

/* So much goes into one script, which keeps Redis from all else. */
enum {
#ifdef MILLRACE_TINY
    STAGE_RECORDS = 5,
#else
    STAGE_RECORDS = 512,
#endif
    STAGE_BYTES = 1 << 20,
    ROUNDS_MAX = 8,
    REASON_MAX = 512,
};

/* A task that the batch is about. */
struct staged {
    struct task_id id;
    bool there; /* it is, after what was applied so far */
    bool changed;
    bool starts;  /* an attempt, so that its lease begins */
    bool created; /* by this batch */
    bool tried;   /* again: a letter of its end goes */
    bool ready;   /* queued: it is not to wait until it is due */
    bool has_args;
    const struct journal_record *death; /* it took its last worker with it */
    struct task task;
    struct bytes args;
};

/* A letter that a record is about. */
struct staged_letter {
    lsn_t number; /* 0: it is about none */
    bool gone;    /* the script said */
    bool goes;    /* the record has its effect */
};

struct stage {
    struct arena arena;
    const struct journal_record *const *records;
    struct task_record *decoded;
    struct staged_letter *letters; /* of each record */
    size_t n;
    struct staged *tasks;
    size_t n_tasks;
    struct redis_command read[2]; /* the position, the states */
    lsn_t position;               /* that was read */
    uint64_t ended[TASK_STATUSES];
    uint64_t deaths;
    bool queued; /* something is */
};

static void stage_deinit(struct stage *g) {
    redis_commands_free(g->read, ARRAY_LENGTH(g->read));
    arena_deinit(&g->arena);
}

/* ---- What the batch is about ---- */

static struct staged *find(struct stage *g, struct task_id id) {
    for (size_t i = 0; i < g->n_tasks; i++)
        if (g->tasks[i].id.key == id.key && g->tasks[i].id.low == id.low)
            return &g->tasks[i];
    return NULL;
}

static bool decode(const struct journal_record *record, struct task_record *ret_task,
                   lsn_t *ret_letter) {
    struct work_letter_record about = {.payload = record->payload};
    if (record->flags & JOURNAL_LETTER &&
        (!work_letter_decode(record->payload, &about) || about.op != WORK_LETTER_REPLAY))
        return false;
    *ret_letter = about.letter;
    return task_record_decode(about.payload, ret_task);
}

/* Those before the first that does not decode. -ENOMEM. */
static int stage(struct stage *g, const struct journal_record *const *records, size_t n) {
    size_t most = n < STAGE_RECORDS ? n : STAGE_RECORDS, bytes = 0;
    g->records = records;
    g->decoded = arena_calloc(&g->arena, most, sizeof *g->decoded);
    g->letters = arena_calloc(&g->arena, most, sizeof *g->letters);
    g->tasks = arena_calloc(&g->arena, most, sizeof *g->tasks);
    if (!g->decoded || !g->letters || !g->tasks)
        return error_origin(-ENOMEM);
    for (; g->n < most && bytes < STAGE_BYTES; g->n++) {
        struct task_record *record = &g->decoded[g->n];
        if (!decode(records[g->n], record, &g->letters[g->n].number))
            break;
        if (!find(g, record->id))
            g->tasks[g->n_tasks++] = (struct staged){.id = record->id};
        bytes += records[g->n]->payload.size;
    }
    return 0;
}

/* ---- Reading ---- */

static int ask(struct tasks_shared *s, struct stage *g, unsigned partition,
               char why[REDIS_WHY_MAX]) {
    struct bytes *words = arena_calloc(&g->arena, 5 + g->n_tasks, sizeof *words);
    char *digits = arena_calloc(&g->arena, g->n_tasks, ID_DIGITS + 1);
    char *number = arena_format(&g->arena, "%u", partition);
    if (!words || !digits || !number)
        return error_origin(-ENOMEM);
    words[0] = BYTES_LITERAL("HGET");
    words[1] = key_of(s, KEY_POSITIONS);
    words[2] = bytes_of_string(number);
    words[3] = BYTES_LITERAL("HMGET");
    words[4] = key_of(s, KEY_STATES);
    for (size_t i = 0; i < g->n_tasks; i++, digits += ID_DIGITS + 1) {
        id_digits(g->tasks[i].id, digits);
        words[5 + i] = bytes_of(digits, ID_DIGITS);
    }
    redis_commands_free(g->read, ARRAY_LENGTH(g->read));
    g->read[0] = (struct redis_command){.key = words[1], .arguments = words, .n = 3};
    g->read[1] =
        (struct redis_command){.key = words[4], .arguments = words + 3, .n = 2 + g->n_tasks};
    return tasks_ask(s, g->read, 2, false, WRITE_TIMEOUT_MS, why);
}

static int take_state(struct staged *t, const redisReply *reply, char why[REDIS_WHY_MAX]) {
    *t = (struct staged){.id = t->id};
    if (reply->type == REDIS_REPLY_NIL)
        return 0;
    t->there = true;
    return task_state_decode(t->id.key, reply_text(reply), &t->task, &t->has_args) ? 0
                                                                                   : tasks_odd(why);
}

/* What is read is a view of the replies, which stay as long as the stage. */
static int read_tasks(struct tasks_shared *s, struct stage *g, unsigned partition,
                      char why[REDIS_WHY_MAX]) {
    int r = ask(s, g, partition, why);
    if (r)
        return r;
    const redisReply *position = g->read[0].reply, *states = g->read[1].reply;
    g->position = 0;
    if (position->type != REDIS_REPLY_NIL &&
        !position_of_digits(reply_text(position), &g->position))
        return tasks_odd(why);
    if (states->type != REDIS_REPLY_ARRAY || states->elements != g->n_tasks)
        return tasks_odd(why);
    for (size_t i = 0; !r && i < g->n_tasks; i++)
        r = take_state(&g->tasks[i], states->element[i], why);
    return r;
}

/* ---- Transitions ---- */

static void create(struct staged *t, const struct task_record *record, uint64_t wall_us) {
    uint64_t run_at_us = record->request.run_at_us;
    t->args = record->request.args;
    t->has_args = t->args.size > 0 && !bytes_equal(t->args, BYTES_LITERAL("{}"));
    t->there = t->created = t->changed = true;
    t->task = (struct task){.id = record->id,
                            .request = record->request,
                            .status = TASK_QUEUED,
                            .created_us = wall_us,
                            .due_us = run_at_us > wall_us ? run_at_us : wall_us};
}

/* False: it does not fit. */
static bool change(struct stage *g, struct staged *t, const struct task_record *record,
                   const struct journal_record *journal) {
    if (!t->there || !task_transition(&t->task, record, journal->wall_us))
        return false;
    t->changed = true;
    t->starts = t->starts || record->op == TASK_OP_START;
    t->tried = t->tried || record->op == TASK_OP_RETRY;
    bool died = record->op == TASK_OP_END && record->outcome == TASK_OUTCOME_DIED;
    t->death = died && t->task.status == TASK_FAILED ? journal : NULL;
    g->ended[t->task.status] += task_status_is_end(t->task.status);
    g->deaths += died;
    return true;
}

/* The record's letter is gone, or an earlier record takes it. */
static bool is_spent(const struct stage *g, size_t record) {
    const struct staged_letter *letter = &g->letters[record];
    bool spent = letter->gone;
    for (size_t i = 0; letter->number && i < record; i++)
        spent = spent || (g->letters[i].number == letter->number && g->letters[i].goes);
    return spent;
}

/* Those behind the position, of all that are staged. */
static void transit(struct stage *g) {
    memset(g->ended, 0, sizeof g->ended);
    g->deaths = 0;
    for (size_t i = 0; i < g->n; i++) {
        const struct journal_record *journal = g->records[i];
        const struct task_record *record = &g->decoded[i];
        struct staged *t = find(g, record->id);
        struct staged_letter *letter = &g->letters[i];
        letter->goes = false;
        if (!t || journal->lsn <= g->position || is_spent(g, i))
            continue;
        bool fits = record->op == TASK_OP_CREATE ? !t->there : change(g, t, record, journal);
        if (fits && record->op == TASK_OP_CREATE)
            create(t, record, journal->wall_us);
        letter->goes = letter->number && fits;
        t->ready = t->task.due_us <= journal->wall_us;
    }
}

/* ---- Writing ---- */

static void add_task(struct call *c, struct staged *t, struct buffer *states) {
    char what[8];
    size_t n = 0, start = states->size;
    const struct {
        bool is;
        char letter;
    } all[] = {{t->created, 'n'},
               {t->ready, 'r'},
               {t->starts, 'l'},
               {t->created && t->has_args, 'a'},
               {t->created && t->task.request.idempotency_key.size, 'k'},
               {t->tried, 't'}};
    for (size_t i = 0; i < ARRAY_LENGTH(all); i++)
        if (all[i].is)
            what[n++] = all[i].letter;
    task_state_encode(states, &t->task, t->has_args);
    c->failed = c->failed || states->failed;
    if (c->failed)
        return;
    char *state =
        arena_copy_string(&c->arena, bytes_of(states->data + start, states->size - start));
    call_add_id(c, t->id);
    call_add_text(c, arena_copy_string(&c->arena, bytes_of(what, n)));
    call_add(c, bytes_of(state, states->size - start));
    call_add(c, t->created && t->has_args ? t->args : BYTES_LITERAL(""));
    c->failed = c->failed || !state;
}

static void add_death(struct call *c, unsigned partition, const struct staged *t) {
    char reason[REASON_MAX];
    struct bytes error = t->task.error;
    snprintf(reason, sizeof reason, "it took %d workers with it; of the last one: %.*s",
             TASK_DEATHS_MAX, (int)(error.size < REASON_MAX ? error.size : 0),
             (const char *)error.data);
    tasks_letter_add(c, partition, t->death, reason);
    call_add_id(c, t->id);
}

static size_t count_changed(const struct stage *g) {
    size_t n = 0;
    for (size_t i = 0; i < g->n_tasks; i++)
        n += g->tasks[i].changed;
    return n;
}

static size_t count_letters(const struct stage *g) {
    size_t n = 0;
    for (size_t i = 0; i < g->n; i++)
        n += g->letters[i].goes;
    return n;
}

static void add_changes(struct call *c, unsigned partition, struct stage *g,
                        struct buffer *states) {
    for (size_t i = 0; i < g->n_tasks; i++)
        if (g->tasks[i].changed)
            add_task(c, &g->tasks[i], states);
    for (size_t i = 0; i < g->n; i++)
        if (g->letters[i].goes)
            call_add_position(c, g->letters[i].number);
    for (size_t i = 0; i < g->n_tasks; i++)
        if (g->tasks[i].death)
            add_death(c, partition, &g->tasks[i]);
}

/* The script named those of its letters that it did not find. */
static void mark_gone(struct stage *g, const redisReply *reply) {
    for (size_t i = 0; i < reply->elements; i++) {
        lsn_t number;
        bool good = position_of_digits(reply_text(reply->element[i]), &number);
        for (size_t k = 0; good && k < g->n; k++)
            g->letters[k].gone = g->letters[k].gone || g->letters[k].number == number;
    }
}

static int write_tasks(struct tasks_shared *s, struct stage *g, unsigned partition,
                       bool *ret_overtaken, char why[REDIS_WHY_MAX]) {
    CLEANUP(buffer_deinit) struct buffer states = BUFFER_INIT;
    CLEANUP(call_deinit) struct call c;
    call_init(&c, s, SCRIPT_APPLY);
    call_add_number(&c, partition);
    call_add_position(&c, g->position);
    call_add_position(&c, g->records[g->n - 1]->lsn);
    call_add_number(&c, s->options.lease_ms);
    call_add_number(&c, count_changed(g));
    call_add_number(&c, count_letters(g));
    add_changes(&c, partition, g, &states);
    int r = call_run(&c, s, true, WRITE_TIMEOUT_MS);
    if (r > 0)
        redis_say(why, "%s", c.why);
    if (r)
        return r;
    *ret_overtaken = c.command.reply->type != REDIS_REPLY_INTEGER;
    if (c.command.reply->type == REDIS_REPLY_ARRAY)
        mark_gone(g, c.command.reply);
    return 0;
}

static void note(struct tasks_shared *s, const struct stage *g) {
    bool queued = false;
    for (size_t i = 0; i < TASK_STATUSES; i++)
        atomic_fetch_add(&s->ended[i], g->ended[i]);
    atomic_fetch_add(&s->deaths, g->deaths);
    for (size_t i = 0; i < g->n_tasks; i++)
        queued = queued || (g->tasks[i].changed && g->tasks[i].task.status == TASK_QUEUED);
    if (queued)
        shared_wake(s);
}

/* ---- A batch ---- */

/* What Redis has of a partition never goes back, unless it was emptied, restored from a backup, or
 * failed over to a replica that had not heard of it: the data went back with it, and the journal
 * has the rest; but it is read from a position only when the partition becomes somebody's. */
static int check_lost(struct tasks_shared *s, unsigned partition, const struct stage *g,
                      char why[REDIS_WHY_MAX]) {
    if (g->position >= atomic_load(&s->partitions[partition].applied))
        return 0;
    return redis_fail(
        why, TASKS_E_UNAVAILABLE,
        "Redis has lost what it had applied: it was emptied, restored, or failed over "
        "without its newest writes; started again, Millrace goes on, or says what is to be done");
}

static int try_stage(struct tasks_shared *s, struct stage *g, unsigned partition, bool *ret_done,
                     char why[REDIS_WHY_MAX]) {
    bool overtaken = false;
    int r = read_tasks(s, g, partition, why);
    if (!r)
        r = check_lost(s, partition, g, why);
    if (r)
        return r;
    lsn_t last = g->records[g->n - 1]->lsn;
    if (g->position >= last) { /* as far as this server knows: others may not have it yet */
        r = tasks_ask_position(s, partition, &g->position, why);
        *ret_done = !r && g->position >= last;
        return r;
    }
    transit(g);
    r = write_tasks(s, g, partition, &overtaken, why);
    *ret_done = !r && !overtaken;
    if (*ret_done)
        note(s, g);
    atomic_fetch_add(&s->overtaken, overtaken);
    return r;
}

static int apply_stage(struct tasks_shared *s, struct stage *g, unsigned partition,
                       char why[REDIS_WHY_MAX]) {
    struct partition *p = &s->partitions[partition];
    for (unsigned round = 0; round < ROUNDS_MAX; round++) {
        bool done = false;
        int r = try_stage(s, g, partition, &done, why);
        if (r)
            return r;
        if (!done)
            continue;
        lsn_t last = g->records[g->n - 1]->lsn;
        atomic_store(&p->applied, last > g->position ? last : g->position);
        return 0;
    }
    return redis_fail(why, TASKS_E_UNAVAILABLE,
                      "somebody else applies the same partition at the same time");
}

static void stop(struct partition *p, struct work_verdict *v, int r, const char *why) {
    snprintf(p->reason, sizeof p->reason, "%s", r > 0 ? why : "memory is out");
    v->outcome = r > 0 ? WORK_DOWN : WORK_RETRY;
    v->reason = p->reason;
}

static void apply_some(struct tasks_shared *s, unsigned partition,
                       const struct journal_record *const *records, size_t n,
                       struct work_verdict *v) {
    CLEANUP(stage_deinit) struct stage g = {.arena = ARENA_INIT(ARENA_BYTES_MAX)};
    char why[REDIS_WHY_MAX] = "";
    int r = stage(&g, records, n);
    if (!r && g.n == 0) {
        *v = (struct work_verdict){WORK_REJECT, v->applied, "not a record of tasks"};
        return;
    }
    if (!r)
        r = apply_stage(s, &g, partition, why);
    if (r)
        stop(&s->partitions[partition], v, r, why);
    else
        v->applied += g.n;
}

/* ---- The workers' table ---- */

static int apply(void *store, unsigned lane, const struct journal_record *const *records, size_t n,
                 struct work_verdict *ret_verdict) {
    struct tasks_shared *s = store;
    struct work_verdict v = {.outcome = WORK_OK};
    while (v.outcome == WORK_OK && v.applied < n) {
        if (records[v.applied]->lsn <= atomic_load(&s->partitions[lane].applied))
            v.applied++;
        else
            apply_some(s, lane, records + v.applied, n - v.applied, &v);
    }
    *ret_verdict = v;
    return 0;
}

/* Tasks have no record that is for all partitions. */
static int control(void *store UNUSED, const struct journal_record *record UNUSED) {
    return 0;
}

static int reject(void *store, unsigned lane, const struct journal_record *record,
                  const char *reason) {
    struct tasks_shared *s = store;
    CLEANUP(call_deinit) struct call c;
    call_init(&c, s, SCRIPT_REJECT);
    call_add_number(&c, lane);
    call_add_position(&c, atomic_load(&s->partitions[lane].applied));
    call_add_position(&c, record->lsn);
    if (!(record->flags & JOURNAL_LETTER))
        tasks_letter_add_rejected(&c, lane, record, reason);
    int r = call_run(&c, s, true, WRITE_TIMEOUT_MS);
    if (r)
        return r > 0 ? error_origin(-EIO) : error_trace(r);
    const redisReply *reply = c.command.reply;
    if (reply->type == REDIS_REPLY_INTEGER && reply->integer == 2)
        return WORK_LETTER_E_FULL;
    if (reply->type != REDIS_REPLY_INTEGER || reply->integer != 1)
        return error_origin(-EIO); /* as check_lost says, of the next record that is one */
    if (record->lsn > atomic_load(&s->partitions[lane].applied))
        atomic_store(&s->partitions[lane].applied, record->lsn);
    return 0;
}

/* How far a partition has come, Redis says. */
static void passed(void *store UNUSED, unsigned lane UNUSED, lsn_t lsn UNUSED) {
}

const struct work_store_ops tasks_shared_work_ops = {.name = "tasks",
                                                     .kind = JOURNAL_KIND_TASKS,
                                                     .apply = apply,
                                                     .control = control,
                                                     .reject = reject,
                                                     .passed = passed};
