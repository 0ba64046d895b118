/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store against a plain model: random transitions, checkpoints, restarts with and without one;
 * then each promise by itself.
 */
#include "tasks/local/internal.h"
#include "tasks/local/test_fixture.h"

enum { ROUNDS = 40, RECORDS_A_ROUND = 60 };

static void reopen(struct fixture *f) {
    fixture_close(f);
    assert_int_equal(fixture_open(f), 0);
    assert_int_equal(f->report.damages, 0);
    apply_all(f);
}

static void expect_sound(struct fixture *f) {
    struct tasks_store_report found;
    fixture_close(f);
    assert_int_equal(tasks_store_verify(&f->os.os, f->directory, NULL, NULL, &found), 0);
    assert_int_equal(found.damages, 0);
    assert_int_equal(fixture_open(f), 0);
    assert_int_equal(found.queued, f->report.queued);
    assert_int_equal(found.running, f->report.running);
    assert_int_equal(found.tasks, f->report.tasks);
    apply_all(f);
}

/* What may happen between records. */
static void happen(struct fixture *f) {
    unsigned dice = rng_below(&f->rng, 8);
    f->os.wall_us += rng_below(&f->rng, 4) * SECOND_US;
    if (dice == 0) { /* a kill: what was applied since the checkpoint is applied again */
        reopen(f);
    } else if (dice == 1) {
        expect_failure(f);
    } else if (dice == 2) {
        expect_sound(f);
    } else if (dice < 6) {
        assert_int_equal(tasks_store_checkpoint(f->store), 0);
        assert_int_equal(tasks_store_position(f->store), f->n_log);
    }
}

static void run_model(uint64_t seed) {
    struct fixture f;
    fixture_init(&f, seed);
    assert_int_equal(fixture_open(&f), 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        log_some(&f, 1 + rng_below(&f.rng, RECORDS_A_ROUND));
        apply_all(&f);
        happen(&f);
        if (i % 3 == 0)
            check_store(&f);
    }
    check_store(&f);
    assert_int_equal(tasks_store_checkpoint(f.store), 0);
    reopen(&f);
    check_store(&f);
    fixture_deinit(&f);
}

static void test_model(void **state UNUSED) {
    const char *seed = getenv("SEED");
    if (seed)
        run_model(strtoull(seed, NULL, 10));
    for (uint64_t i = 1; !seed && i <= 3; i++)
        run_model(i);
}

/* ---- One promise each ---- */
static void begin(struct fixture *f) {
    fixture_init(f, 7);
    assert_int_equal(fixture_open(f), 0);
}

static size_t take(struct fixture *f, size_t n, struct task_id *ret_ids) {
    struct task_ref refs[8];
    size_t taken = 0;
    assert_true(n <= 8);
    assert_int_equal(tasks_store_take(f->store, f->os.wall_us, n, refs, &taken), 0);
    for (size_t i = 0; i < taken; i++) {
        ret_ids[i] = refs[i].task.id;
        task_unref(&refs[i]);
    }
    return taken;
}

/* Taken is not taken again, unless it is given back; one that was cancelled meanwhile is not. */
static void test_taken_once(void **state UNUSED) {
    struct fixture f;
    struct task_id ids[8], a, b;
    begin(&f);
    a = log_create(&f, 0, 5, 0);
    b = log_create(&f, 0, 5, 0);
    apply_all(&f);
    assert_int_equal(take(&f, 8, ids), 2);
    assert_int_equal(take(&f, 8, ids), 0);
    tasks_store_give_back(f.store, a);
    tasks_store_give_back(f.store, a);
    assert_int_equal(take(&f, 8, ids), 1);
    assert_true(ids[0].key == a.key);
    log_op(&f, TASK_OP_CANCEL, a, 0, 0);
    log_op(&f, TASK_OP_START, b, 1, 0);
    apply_all(&f);
    tasks_store_give_back(f.store, a);
    tasks_store_give_back(f.store, b);
    assert_int_equal(take(&f, 8, ids), 0);
    log_op(&f, TASK_OP_RETRY, a, 0, 0);
    apply_all(&f);
    assert_int_equal(take(&f, 8, ids), 1);
    fixture_deinit(&f);
}

struct heard {
    struct tasks_listener listener;
    unsigned queued;
    unsigned cancelled;
    unsigned fenced;
    struct task_id id;
    uint32_t attempt;
};
static void on_queued(struct tasks_listener *l) {
    ((struct heard *)l)->queued++;
}
static void on_cancelled(struct tasks_listener *l, struct task_id id) {
    ((struct heard *)l)->cancelled++;
    ((struct heard *)l)->id = id;
}
static void on_fenced(struct tasks_listener *l, struct task_id id, uint32_t attempt) {
    ((struct heard *)l)->fenced++;
    ((struct heard *)l)->id = id;
    ((struct heard *)l)->attempt = attempt;
}

static void expect_heard(struct fixture *f, struct heard *h, unsigned queued, unsigned cancelled,
                         unsigned fenced) {
    apply_all(f);
    assert_int_equal(h->queued, queued);
    assert_int_equal(h->cancelled, cancelled);
    assert_int_equal(h->fenced, fenced);
    h->queued = h->cancelled = h->fenced = 0;
}

static void test_listener(void **state UNUSED) {
    struct heard h = {.listener = {on_queued, on_cancelled, on_fenced}};
    struct fixture f;
    begin(&f);
    tasks_store_listen(f.store, &h.listener);
    struct task_id a = log_create(&f, 0, 5, 0);
    expect_heard(&f, &h, 1, 0, 0);
    log_create(&f, 0, 5, f.os.wall_us + 10 * SECOND_US);
    expect_heard(&f, &h, 1, 0, 0); /* earlier than all others: none waited */
    log_create(&f, 0, 5, f.os.wall_us + 20 * SECOND_US);
    expect_heard(&f, &h, 0, 0, 0);
    log_op(&f, TASK_OP_START, a, 1, 0);
    log_op(&f, TASK_OP_SAVE, a, 1, 0);
    expect_heard(&f, &h, 0, 0, 0);
    log_op(&f, TASK_OP_SAVE, a, 2, 0);
    expect_heard(&f, &h, 0, 0, 1);
    assert_true(h.id.key == a.key && h.attempt == 2);
    log_op(&f, TASK_OP_CANCEL, a, 0, 0);
    expect_heard(&f, &h, 0, 1, 0);
    assert_true(h.id.key == a.key);
    log_op(&f, TASK_OP_CANCEL, a, 0, 0); /* it is already: nobody is told */
    expect_heard(&f, &h, 0, 0, 0);
    log_op(&f, TASK_OP_END, a, 1, TASK_OUTCOME_SUCCEEDED);
    log_op(&f, TASK_OP_START, (struct task_id){77, 77}, 1, 0);
    expect_heard(&f, &h, 0, 0, 2);
    log_op(&f, TASK_OP_RETRY, a, 0, 0);
    expect_heard(&f, &h, 1, 0, 0);
    fixture_deinit(&f);
}

/* ---- Idempotency keys ---- */
struct appending {
    struct fixture *f;
    struct task_id id;
    struct bytes key;
    int result;
};

static int append_create(void *context) {
    struct appending *a = context;
    const struct task_record r = {
        .op = TASK_OP_CREATE,
        .id = a->id,
        .request = {.type = BYTES_LITERAL("exec"), .idempotency_key = a->key}};
    if (a->result == 0)
        log_record(a->f, &r);
    return a->result;
}

/* The task that has the key. */
static struct task_id once(struct fixture *f, const char *key, int result, bool expect_new) {
    struct appending a = {f, tasks_store_new_id(f->store, f->os.wall_us), bytes_of_string(key),
                          result};
    struct task_id id = {0};
    bool is_new = false;
    assert_int_equal(tasks_store_once(f->store, a.key, a.id, append_create, &a, &id, &is_new),
                     result);
    assert_int_equal(is_new, expect_new && result == 0);
    return id;
}

static void test_once(void **state UNUSED) {
    struct fixture f;
    begin(&f);
    once(&f, "a", JOURNAL_E_OVERLOAD, true); /* nothing happened */
    struct task_id a = once(&f, "a", 0, true), b = once(&f, "b", 0, true);
    assert_true(a.key != b.key);
    assert_true(once(&f, "a", 0, false).key == a.key);
    apply_all(&f);
    assert_true(once(&f, "a", 0, false).key == a.key);
    reopen(&f); /* from the journal alone */
    assert_true(once(&f, "a", 0, false).key == a.key);
    assert_int_equal(tasks_store_checkpoint(f.store), 0);
    assert_true(once(&f, "a", 0, false).low == a.low);
    struct task_id c = once(&f, "c", 0, true); /* appended, not applied: past two checkpoints */
    tasks_store_work_ops.passed(f.store, 0, f.applied);
    assert_int_equal(tasks_store_checkpoint(f.store), 0);
    assert_true(once(&f, "c", 0, false).key == c.key);
    apply_all(&f);
    assert_int_equal(tasks_store_checkpoint(f.store), 0);
    assert_true(once(&f, "c", 0, false).key == c.key);
    reopen(&f);
    assert_true(once(&f, "c", 0, false).key == c.key);
    assert_true(once(&f, "a", 0, false).key == a.key);
    fixture_deinit(&f);
}

/* ---- Retention ---- */
static struct task_id log_ended(struct fixture *f, enum task_outcome outcome) {
    struct task_id id = log_create(f, 0, 5, 0);
    log_op(f, TASK_OP_START, id, 1, 0);
    log_op(f, TASK_OP_END, id, 1, outcome);
    return id;
}

static void forget_in_model(struct fixture *f, uint64_t before_us) {
    for (size_t i = 0; i < f->n_tasks; i++)
        f->forgotten[i] |=
            task_status_is_end(f->tasks[i].status) && f->tasks[i].finished_us < before_us;
}

static void test_retention(void **state UNUSED) {
    struct fixture f;
    fixture_init(&f, 3);
    f.options.keep_ms = 100000;
    assert_int_equal(fixture_open(&f), 0);
    struct task_id retried = log_ended(&f, TASK_OUTCOME_REFUSED);
    struct task_id again = log_ended(&f, TASK_OUTCOME_REFUSED);
    for (unsigned i = 0; i < 40; i++) /* more than are forgotten at a time */
        log_ended(&f, i % 2 ? TASK_OUTCOME_SUCCEEDED : TASK_OUTCOME_REFUSED);
    struct task_id queued = log_create(&f, 0, 5, 0);
    struct task_id key = once(&f, "key", 0, true);
    log_op(&f, TASK_OP_CANCEL, key, 0, 0);
    apply_all(&f);
    assert_int_equal(tasks_store_checkpoint(f.store), 0);
    f.os.wall_us += 60 * SECOND_US;
    log_ended(&f, TASK_OUTCOME_SUCCEEDED); /* stays */
    log_op(&f, TASK_OP_RETRY, retried, 0, 0);
    log_op(&f, TASK_OP_RETRY, again, 0, 0);
    log_op(&f, TASK_OP_CANCEL, again, 0, 0);
    apply_all(&f);
    assert_int_equal(tasks_store_checkpoint(f.store), 0);
    check_store(&f);
    f.os.wall_us += 60 * SECOND_US;
    for (unsigned i = 0; i < 5; i++) /* a bounded number each */
        assert_int_equal(tasks_store_checkpoint(f.store), 0);
    forget_in_model(&f, f.os.wall_us - 100 * SECOND_US);
    assert_non_null(model_find(&f, retried));
    assert_non_null(model_find(&f, again));
    assert_non_null(model_find(&f, queued));
    check_store(&f);
    log_op(&f, TASK_OP_RETRY, key, 0, 0); /* gone is gone */
    apply_all(&f);
    check_store(&f);
    assert_true(once(&f, "key", 0, true).key != key.key);
    apply_all(&f);
    expect_sound(&f);
    check_store(&f);
    fixture_deinit(&f);
}

/* Forgotten in the same checkpoint in which a retry comes: the retry is too late, before and after
 * a kill. */
static void test_retry_of_what_is_being_forgotten(void **state UNUSED) {
    struct fixture f;
    fixture_init(&f, 4);
    f.options.keep_ms = 1000;
    assert_int_equal(fixture_open(&f), 0);
    struct task_id id = log_ended(&f, TASK_OUTCOME_REFUSED);
    apply_all(&f);
    assert_int_equal(tasks_store_checkpoint(f.store), 0);
    f.os.wall_us += 10 * SECOND_US;
    expect_failure(&f); /* marked, frozen, and not written */
    f.forgotten[0] = true;
    check_store(&f);
    log_op(&f, TASK_OP_RETRY, id, 0, 0);
    apply_all(&f);
    check_store(&f);
    assert_int_equal(tasks_store_checkpoint(f.store), 0);
    check_store(&f);
    expect_sound(&f);
    check_store(&f);
    fixture_deinit(&f);
}

/* Many are marked at a time: they are held without their texts. */
static void test_what_is_being_forgotten_is_small(void **state UNUSED) {
    enum { TASKS = 8, RESULT_BYTES = 30000 };
    static char result[RESULT_BYTES];
    struct fixture f;
    fixture_init(&f, 7);
    f.options.keep_ms = 1000;
    f.options.hot_bytes_max = 1 << 20;
    assert_int_equal(fixture_open(&f), 0);
    memset(result, '1', sizeof result);
    for (unsigned i = 0; i < TASKS; i++) {
        struct task_id id = log_create(&f, 0, 5, 0);
        log_op(&f, TASK_OP_START, id, 1, 0);
        const struct task_record end = {.op = TASK_OP_END,
                                        .id = id,
                                        .attempt = 1,
                                        .outcome = TASK_OUTCOME_SUCCEEDED,
                                        .text = bytes_of(result, sizeof result)};
        log_record(&f, &end);
    }
    apply_all(&f);
    assert_true(tasks_store_dirty_bytes(f.store) > TASKS * RESULT_BYTES);
    assert_int_equal(tasks_store_checkpoint(f.store), 0);
    f.os.wall_us += 10 * SECOND_US;
    expect_failure(&f);
    assert_in_range(atomic_load(&f.store->frozen_bytes), 1, RESULT_BYTES);
    assert_int_equal(tasks_store_checkpoint(f.store), 0);
    fixture_deinit(&f);
}

/* Its key is free, though what forgets it is not written yet: whoever has it is a new task. */
static void test_the_key_of_what_is_being_forgotten(void **state UNUSED) {
    struct fixture f;
    fixture_init(&f, 6);
    f.options.keep_ms = 1000;
    assert_int_equal(fixture_open(&f), 0);
    struct task_id old = once(&f, "key", 0, true);
    log_op(&f, TASK_OP_CANCEL, old, 0, 0);
    apply_all(&f);
    for (unsigned i = 0; i < 3; i++) /* the key is known by the database alone then */
        assert_int_equal(tasks_store_checkpoint(f.store), 0);
    f.os.wall_us += 10 * SECOND_US;
    assert_true(tasks_store_wants_checkpoint(f.store));
    expect_failure(&f);
    struct task_id new = once(&f, "key", 0, true);
    assert_true(new.key != old.key);
    apply_all(&f);
    assert_int_equal(tasks_store_checkpoint(f.store), 0);
    assert_true(once(&f, "key", 0, false).key == new.key);
    assert_int_equal(tasks_store_checkpoint(f.store), 0);
    reopen(&f);
    assert_true(once(&f, "key", 0, false).key == new.key);
    assert_int_equal(tasks_store_wants_checkpoint(f.store), f.options.remote != NULL);
    fixture_deinit(&f);
}

/* A retry that is applied, and not persisted yet, keeps the task, with its arguments. */
static void test_retry_before_forgetting(void **state UNUSED) {
    struct fixture f;
    fixture_init(&f, 5);
    f.options.keep_ms = 1000;
    assert_int_equal(fixture_open(&f), 0);
    for (unsigned i = 0; i < 8; i++)
        log_ended(&f, TASK_OUTCOME_REFUSED);
    apply_all(&f);
    assert_int_equal(tasks_store_checkpoint(f.store), 0);
    for (size_t i = 0; i < f.n_tasks; i++)
        log_op(&f, TASK_OP_RETRY, f.tasks[i].id, 0, 0);
    apply_all(&f);
    f.os.wall_us += 10 * SECOND_US;
    assert_int_equal(tasks_store_checkpoint(f.store), 0);
    check_store(&f);
    expect_sound(&f);
    check_store(&f);
    fixture_deinit(&f);
}

/* ---- Dead letters ---- */
/* A task that takes three workers with it. */
static struct task_id log_deadly(struct fixture *f) {
    struct task_id id = log_create(f, 0, 5, 0);
    for (unsigned i = 1; i <= TASK_DEATHS_MAX; i++) {
        uint32_t attempt = model_find(f, id)->attempts + 1;
        log_op(f, TASK_OP_START, id, attempt, 0);
        log_op(f, TASK_OP_END, id, attempt, TASK_OUTCOME_DIED);
    }
    assert_int_equal(model_find(f, id)->status, TASK_FAILED);
    return id;
}

static void test_letters(void **state UNUSED) {
    struct fixture f;
    begin(&f);
    struct task_id first = log_deadly(&f);
    struct task_id second = log_deadly(&f);
    struct task_id third = log_deadly(&f);
    apply_all(&f);
    check_store(&f);
    log_letter(&f, &f.letters[0], true); /* in the same checkpoint as it came */
    apply_all(&f);
    assert_int_equal(tasks_store_checkpoint(f.store), 0);
    check_store(&f);
    assert_int_equal(model_find(&f, first)->status, TASK_FAILED);
    log_letter(&f, &f.letters[1], false);
    log_letter(&f, &f.letters[1], false); /* once */
    log_op(&f, TASK_OP_RETRY, third, 0, 0);
    apply_all(&f);
    assert_int_equal(model_find(&f, second)->status, TASK_QUEUED);
    assert_int_equal(model_find(&f, second)->deaths, 0);
    check_store(&f);
    expect_failure(&f); /* frozen, and not written */
    check_store(&f);
    assert_int_equal(tasks_store_checkpoint(f.store), 0);
    check_store(&f);
    expect_sound(&f);
    check_store(&f);
    fixture_deinit(&f);
}

static void test_letters_are_forgotten_with_their_tasks(void **state UNUSED) {
    struct fixture f;
    fixture_init(&f, 8);
    f.options.keep_ms = 1000;
    assert_int_equal(fixture_open(&f), 0);
    log_deadly(&f);
    apply_all(&f);
    assert_int_equal(tasks_store_checkpoint(f.store), 0);
    f.os.wall_us += 10 * SECOND_US;
    assert_int_equal(tasks_store_checkpoint(f.store), 0);
    f.forgotten[0] = true;
    check_store(&f);
    log_letter(&f, &f.letters[0], false); /* gone is gone */
    apply_all(&f);
    expect_sound(&f);
    check_store(&f);
    fixture_deinit(&f);
}

/* ---- Bounds ---- */
static struct work_verdict apply_one(struct fixture *f, struct journal_record *r) {
    const struct journal_record *batch[] = {r};
    struct work_verdict v;
    assert_int_equal(tasks_store_work_ops.apply(f->store, 0, batch, 1, &v), 0);
    return v;
}

static void test_rejected(void **state UNUSED) {
    struct fixture f;
    struct tasks_store_report found;
    begin(&f);
    struct journal_record bad = {
        .lsn = 1, .kind = JOURNAL_KIND_TASKS, .payload = BYTES_LITERAL("no record")};
    struct work_verdict v = apply_one(&f, &bad);
    assert_true(v.outcome == WORK_REJECT && v.applied == 0 && v.reason);
    assert_int_equal(tasks_store_work_ops.reject(f.store, 0, &bad, v.reason), 0);
    assert_int_equal(tasks_store_checkpoint(f.store), 0);
    assert_int_equal(tasks_store_position(f.store), 1);
    fixture_close(&f);
    assert_int_equal(tasks_store_verify(&f.os.os, f.directory, NULL, NULL, &found), 0);
    assert_int_equal(found.damages, 0);
    fixture_deinit(&f);
}

static void test_too_many_types(void **state UNUSED) {
    struct fixture f;
    struct work_verdict v = {0};
    begin(&f);
    for (unsigned i = 0; i < 65; i++) {
        CLEANUP(buffer_deinit) struct buffer payload = BUFFER_INIT;
        char type[16];
        snprintf(type, sizeof type, "type-%u", i);
        const struct task_record r = {.op = TASK_OP_CREATE,
                                      .id = tasks_store_new_id(f.store, f.os.wall_us),
                                      .request = {.type = bytes_of_string(type)}};
        task_record_encode(&payload, &r);
        struct journal_record record = {.lsn = i + 1, .payload = buffer_bytes(&payload)};
        while ((v = apply_one(&f, &record)).outcome == WORK_RETRY)
            assert_int_equal(tasks_store_checkpoint(f.store), 0);
        assert_int_equal(v.outcome, i < 64 ? WORK_OK : WORK_REJECT);
    }
    fixture_deinit(&f);
}

/* While a checkpoint cannot write, memory is bounded: apply says retry. */
static void test_memory(void **state UNUSED) {
    struct fixture f;
    struct work_verdict v = {.outcome = WORK_OK};
    begin(&f);
    f.options.hot_bytes_max = 4096;
    fixture_close(&f);
    assert_int_equal(fixture_open(&f), 0);
    for (unsigned i = 0; i < 400 && v.outcome == WORK_OK; i++) {
        log_create(&f, 0, 5, 0);
        v = apply_one(&f, &f.log[f.applied]);
        f.applied += v.applied;
        if (i == 3)
            expect_failure(&f);
    }
    assert_int_equal(v.outcome, WORK_RETRY);
    assert_true(tasks_store_dirty_bytes(f.store) >= 4096);
    assert_true(tasks_store_dirty_bytes(f.store) < 16384);
    assert_int_equal(tasks_store_checkpoint(f.store), 0);
    apply_all(&f);
    check_store(&f);
    fixture_deinit(&f);
}

static void test_admit(void **state UNUSED) {
    struct fixture f;
    begin(&f);
    fixture_close(&f);
    f.options.queued_max = 3;
    assert_int_equal(fixture_open(&f), 0);
    struct task_id a = log_create(&f, 0, 5, 0);
    log_create(&f, 0, 5, 0);
    apply_all(&f);
    assert_int_equal(tasks_store_admit(f.store, 1), 0);
    assert_int_equal(tasks_store_admit(f.store, 2), TASKS_E_FULL);
    assert_int_equal(tasks_store_admit(f.store, UINT64_MAX), TASKS_E_FULL);
    log_op(&f, TASK_OP_CANCEL, a, 0, 0);
    apply_all(&f);
    assert_int_equal(tasks_store_admit(f.store, 2), 0);
    assert_int_equal(tasks_store_checkpoint(f.store), 0);
    reopen(&f);
    assert_int_equal(tasks_store_admit(f.store, 3), TASKS_E_FULL);
    fixture_deinit(&f);
}

/* Increasing, whatever the clock does, also over a restart; UUIDs of version 7, variant 1. */
static void test_ids(void **state UNUSED) {
    struct fixture f;
    uint64_t last = 0;
    begin(&f);
    for (unsigned i = 0; i < 10000; i++) {
        struct task_id id = tasks_store_new_id(f.store, f.os.wall_us - i % 3);
        assert_true(id.key > last);
        assert_int_equal(id.key >> 12 & 15, 7);
        assert_int_equal(id.low >> 62, 2);
        last = id.key;
    }
    assert_true(last >> 16 >= f.os.wall_us / 1000);
    last = log_create(&f, 0, 5, 0).key;
    apply_all(&f);
    assert_int_equal(tasks_store_checkpoint(f.store), 0);
    f.os.wall_us -= 3600 * SECOND_US;
    reopen(&f);
    assert_true(tasks_store_new_id(f.store, f.os.wall_us).key > last);
    fixture_deinit(&f);
}

static void count_running(void *context, const struct task *task) {
    assert_int_equal(task->status, TASK_RUNNING);
    (*(size_t *)context)++;
}

static void test_running(void **state UNUSED) {
    struct fixture f;
    size_t n = 0;
    begin(&f);
    for (unsigned i = 0; i < 10; i++) {
        struct task_id id = log_create(&f, i % TYPES, 5, 0);
        if (i % 2)
            log_op(&f, TASK_OP_START, id, 1, 0);
        if (i == 5)
            assert_int_equal(tasks_store_checkpoint(f.store), 0);
        apply_all(&f);
    }
    assert_int_equal(tasks_store_each_running(f.store, count_running, &n), 0);
    assert_int_equal(n, 5);
    fixture_deinit(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_taken_once),
        cmocka_unit_test(test_listener),
        cmocka_unit_test(test_once),
        cmocka_unit_test(test_what_is_being_forgotten_is_small),
        cmocka_unit_test(test_the_key_of_what_is_being_forgotten),
        cmocka_unit_test(test_retention),
        cmocka_unit_test(test_retry_of_what_is_being_forgotten),
        cmocka_unit_test(test_retry_before_forgetting),
        cmocka_unit_test(test_letters),
        cmocka_unit_test(test_letters_are_forgotten_with_their_tasks),
        cmocka_unit_test(test_rejected),
        cmocka_unit_test(test_too_many_types),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_admit),
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_running),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
