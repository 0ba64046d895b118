/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Readers race with the one that applies and with checkpoints, for ThreadSanitizer and for two
 * laws: a list shows each task exactly once, and a task never goes back to what it was. And threads
 * race for idempotency keys while what they append is applied and persisted. Broken laws are
 * counted, not asserted: the threads are not cmocka's.
 */
#include "tasks/local/test_fixture.h"

enum { TASKS = 400, READERS = 2, KEYS = 60, RACERS = 4 };

struct race {
    struct fixture f;
    struct task_id ids[TASKS];
    _Atomic size_t made; /* of ids: created, and applied */
    atomic_bool done;
    atomic_uint faults;
    /* For keys. */
    _Atomic size_t logged;
    atomic_uint appended[KEYS];
    _Atomic uint64_t owners[KEYS]; /* key of the task that has it */
    atomic_uint racers;
};

static void fault_if(struct race *race, bool broken, const char *law) {
    if (broken && atomic_fetch_add(&race->faults, 1) < 5)
        fprintf(stderr, "broken: %s\n", law);
}

static bool apply_one(struct race *race, const struct journal_record *record) {
    struct work_verdict v;
    fault_if(race, tasks_store_work_ops.apply(race->f.store, 0, &record, 1, &v) != 0, "apply");
    fault_if(race, v.outcome != WORK_OK && v.outcome != WORK_RETRY, "outcome");
    if (v.applied == 0) /* a checkpoint is to come */
        os_sleep_ns(os_real(), 100000);
    return v.applied == 1;
}

static void checkpoint_all_the_time(void *argument) {
    struct race *race = argument;
    while (!atomic_load(&race->done)) {
        fault_if(race, tasks_store_checkpoint(race->f.store) != 0, "checkpoint");
        os_sleep_ns(os_real(), 1000000);
    }
}

/* ---- Readers ---- */
/* Every task is made, started and ends well; records i, TASKS + i, … are of one. */
static void apply_lives(void *argument) {
    struct race *race = argument;
    for (size_t i = 0; i < race->f.n_log; i++) {
        while (!apply_one(race, &race->f.log[i]))
            ;
        if (i % 3 == 0)
            atomic_store(&race->made, i / 3 + 1);
    }
    atomic_store(&race->done, true);
}

struct seen {
    struct race *race;
    size_t made; /* before the list began */
    size_t n;    /* of those, shown */
    uint64_t last;
    enum task_status status[TASKS];
};

static size_t index_of(const struct race *race, uint64_t key) {
    size_t low = 0, high = TASKS;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (race->ids[middle].key < key)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool see(void *context, const struct task *t) {
    struct seen *seen = context;
    size_t i = index_of(seen->race, t->id.key);
    fault_if(seen->race, seen->last != 0 && t->id.key >= seen->last, "keys descend");
    fault_if(seen->race, i == TASKS || t->status < seen->status[i], "a task never goes back");
    seen->last = t->id.key;
    seen->n += i < seen->made;
    if (i < TASKS)
        seen->status[i] = t->status;
    return true;
}

static void read_all(struct seen *seen) {
    const struct tasks_filter all = {.limit = SIZE_MAX};
    const struct tasks_filter each = {
        .statuses = 31, .type = BYTES_LITERAL("exec"), .limit = SIZE_MAX};
    seen->n = 0;
    seen->last = 0;
    seen->made = atomic_load(&seen->race->made);
    const struct tasks_filter *filter = seen->made % 2 ? &all : &each;
    fault_if(seen->race, tasks_store_list(seen->race->f.store, filter, see, seen) != 0, "list");
    fault_if(seen->race, seen->n != seen->made, "each task is seen once");
}

static void get_some(struct seen *seen, struct rng *rng) {
    struct task_ref ref;
    if (seen->made == 0)
        return;
    size_t i = rng_below(rng, (unsigned)seen->made);
    int r = tasks_store_get(seen->race->f.store, seen->race->ids[i], true, &ref);
    fault_if(seen->race, r != 0, "a task that was made is there");
    if (r != 0)
        return;
    fault_if(seen->race, ref.task.status < seen->status[i], "a task never goes back (get)");
    fault_if(seen->race,
             ref.task.status != TASK_SUCCEEDED &&
                 !bytes_equal(ref.task.request.args, BYTES_LITERAL("{\"a\":1}")),
             "arguments are there until it has succeeded");
    seen->status[i] = ref.task.status;
    task_unref(&ref);
}

static void read_all_the_time(void *argument) {
    struct seen seen = {.race = argument};
    struct tasks_store_stats stats;
    struct rng rng = {99};
    while (!atomic_load(&seen.race->done)) {
        read_all(&seen);
        for (unsigned i = 0; i < 20; i++)
            get_some(&seen, &rng);
        tasks_store_stats(seen.race->f.store, &stats);
    }
    read_all(&seen);
}

static void log_lives(struct race *race) {
    struct fixture *f = &race->f;
    for (size_t i = 0; i < TASKS; i++) {
        struct task_record r = {
            .op = TASK_OP_CREATE,
            .id = tasks_store_new_id(f->store, f->os.wall_us),
            .request = {.type = BYTES_LITERAL("exec"), .args = BYTES_LITERAL("{\"a\":1}")}};
        race->ids[i] = r.id;
        log_record(f, &r);
        log_op(f, TASK_OP_START, r.id, 1, 0);
        log_op(f, TASK_OP_END, r.id, 1, TASK_OUTCOME_SUCCEEDED);
    }
}

static void start(struct os_thread **threads, size_t *n, void (*run)(void *), void *argument) {
    assert_int_equal(os_thread_start(os_real(), "test", run, argument, &threads[*n]), 0);
    ++*n;
}

static void test_readers(void **state UNUSED) {
    struct race *race = calloc(1, sizeof *race);
    struct os_thread *threads[READERS + 2];
    size_t n = 0;
    assert_non_null(race);
    fixture_init(&race->f, 1);
    assert_int_equal(fixture_open(&race->f), 0);
    log_lives(race);
    for (unsigned i = 0; i < READERS; i++)
        start(threads, &n, read_all_the_time, race);
    start(threads, &n, checkpoint_all_the_time, race);
    start(threads, &n, apply_lives, race);
    while (n > 0)
        os_thread_join(os_real(), threads[--n]);
    assert_int_equal(atomic_load(&race->faults), 0);
    race->f.applied = race->f.n_log;
    check_store(&race->f);
    assert_int_equal(tasks_store_checkpoint(race->f.store), 0);
    fixture_close(&race->f);
    struct tasks_store_report found;
    assert_int_equal(tasks_store_verify(&race->f.os.os, race->f.directory, NULL, NULL, &found), 0);
    assert_true(found.damages == 0 && found.tasks == TASKS);
    fixture_deinit(&race->f);
    free(race);
}

/* ---- Idempotency keys ---- */
struct attempt {
    struct race *race;
    unsigned key;
    struct task_id id;
};

/* Under the lock of the keys, so one at a time. */
static int append(void *context) {
    struct attempt *a = context;
    char text[16];
    snprintf(text, sizeof text, "key-%u", a->key);
    const struct task_record r = {
        .op = TASK_OP_CREATE,
        .id = a->id,
        .request = {.type = BYTES_LITERAL("exec"), .idempotency_key = bytes_of_string(text)}};
    atomic_fetch_add(&a->race->appended[a->key], 1);
    log_record(&a->race->f, &r);
    atomic_store(&a->race->logged, a->race->f.n_log);
    return 0;
}

static void ask_for(struct race *race, unsigned key) {
    struct attempt a = {race, key,
                        tasks_store_new_id(race->f.store, atomic_load(&race->f.os.wall_us))};
    struct task_id id = {0};
    bool is_new = false;
    char text[16];
    uint64_t none = 0;
    snprintf(text, sizeof text, "key-%u", key);
    fault_if(
        race,
        tasks_store_once(race->f.store, bytes_of_string(text), a.id, append, &a, &id, &is_new) != 0,
        "once");
    fault_if(race, is_new != (id.key == a.id.key), "new is ours");
    if (!atomic_compare_exchange_strong(&race->owners[key], &none, id.key))
        fault_if(race, none != id.key, "all get the same task");
}

static void race_for_keys(void *argument) {
    struct race *race = argument;
    for (unsigned again = 0; again < 3; again++)
        for (unsigned key = 0; key < KEYS; key++) {
            ask_for(race, key);
            os_sleep_ns(os_real(), 50000);
        }
    atomic_fetch_sub(&race->racers, 1);
}

static void apply_what_is_logged(void *argument) {
    struct race *race = argument;
    size_t applied = 0;
    while (atomic_load(&race->racers) > 0 || applied < atomic_load(&race->logged))
        if (applied < atomic_load(&race->logged))
            applied += apply_one(race, &race->f.log[applied]);
        else
            os_sleep_ns(os_real(), 100000);
    atomic_store(&race->done, true);
}

static void test_keys(void **state UNUSED) {
    struct race *race = calloc(1, sizeof *race);
    struct os_thread *threads[RACERS + 2];
    size_t n = 0;
    assert_non_null(race);
    fixture_init(&race->f, 2);
    assert_int_equal(fixture_open(&race->f), 0);
    atomic_store(&race->racers, RACERS);
    start(threads, &n, apply_what_is_logged, race);
    start(threads, &n, checkpoint_all_the_time, race);
    for (unsigned i = 0; i < RACERS; i++)
        start(threads, &n, race_for_keys, race);
    while (n > 0)
        os_thread_join(os_real(), threads[--n]);
    assert_int_equal(atomic_load(&race->faults), 0);
    for (unsigned key = 0; key < KEYS; key++)
        assert_int_equal(atomic_load(&race->appended[key]), 1);
    fixture_deinit(&race->f);
    free(race);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_readers),
        cmocka_unit_test(test_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
