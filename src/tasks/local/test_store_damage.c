/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flipped bytes: what is read is right, or damage; never wrong data. And values whose bytes are not
 * what they should be, below RocksDB's checksums: damage of that one task, the others go on.
 */
#include "tasks/local/internal.h"
#include "tasks/local/test_fixture.h"

enum { FLIPS = 24 };

/* ---- Files ---- */
struct found_file {
    const char *directory;
    char path[OS_PATH_MAX];
};

static void remember_table(void *context, const char *name) {
    struct found_file *found = context;
    size_t length = strlen(name);
    if (length > 4 && strcmp(name + length - 4, ".sst") == 0)
        assert_int_equal(os_path_join(found->path, found->directory, "%s", name), 0);
}

static void flip(struct fixture *f, uint64_t where) {
    char directory[OS_PATH_MAX];
    struct found_file found = {.directory = directory};
    struct os_file *file;
    uint64_t size;
    uint8_t byte;
    size_t n;
    assert_int_equal(os_path_join(directory, f->directory, "rocksdb"), 0);
    assert_int_equal(os_list(os_real(), directory, remember_table, &found), 0);
    assert_int_equal(os_open(os_real(), found.path, OS_OPEN_WRITE, &file), 0);
    assert_int_equal(os_size(os_real(), file, &size), 0);
    assert_int_equal(os_read(os_real(), file, &byte, 1, where % size, &n), 0);
    byte ^= 0x20;
    assert_int_equal(os_write(os_real(), file, &byte, 1, where % size, &n), 0);
    os_close(os_real(), file);
}

/* Whatever is shown is the model's. */
static bool expect_known(void *context, const struct task *task) {
    const struct task *known = model_find(context, task->id);
    assert_non_null(known);
    expect_task(task, known, false);
    return true;
}

/* The answers are the model's, or damage was found. Returns whether. */
static bool read_all(struct fixture *f) {
    bool damaged = f->report.damages > 0;
    const struct tasks_filter filters[] = {{.limit = SIZE_MAX}, {.statuses = 3, .limit = SIZE_MAX}};
    for (size_t i = 0; i < f->n_tasks; i++) {
        struct task_ref ref;
        int r = tasks_store_get(f->store, f->tasks[i].id, true, &ref);
        damaged |= r != 0;
        assert_true(r == 0 || r == -EBADMSG || r == TASKS_E_NOT_FOUND);
        if (r != 0)
            continue;
        expect_task(&ref.task, &f->tasks[i], true);
        task_unref(&ref);
    }
    for (size_t i = 0; i < ARRAY_LENGTH(filters); i++) {
        int r = tasks_store_list(f->store, &filters[i], expect_known, f);
        damaged |= r != 0;
        assert_true(r == 0 || r == -EBADMSG);
    }
    return damaged;
}

static bool is_damaged(struct fixture *f) {
    struct tasks_store_report found;
    assert_int_equal(tasks_store_verify(&f->os.os, f->directory, NULL, NULL, &found), 0);
    int r = fixture_open(f);
    if (r != 0) {
        assert_int_equal(r, -EPROTO);
        assert_true(found.damages > 0);
        return true;
    }
    if (read_all(f))
        assert_true(found.damages > 0);
    fixture_close(f);
    return found.damages > 0;
}

static void test_flipped_bytes(void **state UNUSED) {
    struct fixture f;
    unsigned found = 0;
    fixture_init(&f, 1);
    f.options.hot_bytes_max = 8 << 20;
    assert_int_equal(fixture_open(&f), 0);
    log_some(&f, 4000);
    apply_all(&f);
    assert_int_equal(tasks_store_checkpoint(f.store), 0);
    fixture_close(&f);
    assert_false(is_damaged(&f));
    for (unsigned i = 0; i < FLIPS; i++) {
        uint64_t where = rng_next(&f.rng);
        flip(&f, where);
        found += is_damaged(&f);
        flip(&f, where);
    }
    assert_false(is_damaged(&f));
    print_message("%u of %u flips found\n", found, FLIPS);
    assert_true(found > FLIPS / 2);
    fixture_deinit(&f);
}

/* ---- Values ---- */
/* Puts a value into a store that is closed. */
static void put(struct fixture *f, const struct key *key, struct bytes value) {
    struct database d;
    struct ingest i;
    char why[64];
    assert_int_equal(
        tasks_database_open(&d, &f->os.os, f->directory, 1 << 20, false, why, sizeof why), 0);
    assert_int_equal(ingest_begin(&i, &d), 0);
    ingest_put(&i, key_view(key), value);
    assert_int_equal(ingest_finish(&i), 0);
    ingest_deinit(&i);
    database_close(&d);
}

/* A state that does not decode: that task is left out, everywhere; the others are there. */
static void test_one_bad_state(void **state UNUSED) {
    struct fixture f;
    struct task_id ids[3];
    struct task_ref refs[3];
    struct tasks_store_report found;
    struct tasks_store_stats stats;
    struct key key;
    size_t n;
    fixture_init(&f, 2);
    assert_int_equal(fixture_open(&f), 0);
    for (unsigned i = 0; i < 3; i++)
        ids[i] = log_create(&f, 0, 5, 0);
    apply_all(&f);
    assert_int_equal(tasks_store_checkpoint(f.store), 0);
    fixture_close(&f);
    key_task(&key, KEY_TASK, ids[1].key);
    put(&f, &key, BYTES_LITERAL("\1\0nothing"));
    assert_int_equal(tasks_store_verify(&f.os.os, f.directory, NULL, NULL, &found), 0);
    assert_true(found.damages == 1 && found.tasks == 2);
    assert_int_equal(fixture_open(&f), 0);
    assert_int_equal(tasks_store_get(f.store, ids[1], false, &refs[0]), -EBADMSG);
    f.forgotten[1] = true; /* as lists and the queue see it */
    check_lists(&f);
    assert_int_equal(tasks_store_take(f.store, f.os.wall_us, 3, refs, &n), 0);
    assert_int_equal(n, 2);
    task_unref(&refs[0]);
    task_unref(&refs[1]);
    log_op(&f, TASK_OP_CANCEL, ids[1], 0, 0); /* changes nothing, and stops nothing */
    log_op(&f, TASK_OP_CANCEL, ids[2], 0, 0);
    apply_all(&f);
    assert_int_equal(tasks_store_checkpoint(f.store), 0);
    check_lists(&f);
    tasks_store_stats(f.store, &stats);
    assert_int_equal(stats.by_status[TASK_CANCELLED], 1);
    fixture_deinit(&f);
}

/* An entry of the index that is none is counted at opening, and left out. */
static void test_bad_index(void **state UNUSED) {
    struct fixture f;
    struct key key;
    fixture_init(&f, 3);
    assert_int_equal(fixture_open(&f), 0);
    log_create(&f, 0, 5, 0);
    apply_all(&f);
    assert_int_equal(tasks_store_checkpoint(f.store), 0);
    fixture_close(&f);
    key_index(&key, TASK_QUEUED, 0, 17);
    put(&f, &key, BYTES_LITERAL("short"));
    assert_int_equal(fixture_open(&f), 0);
    assert_true(f.report.damages == 1 && f.report.queued == 1);
    check_queue(&f);
    fixture_deinit(&f);
}

/* A newer version's store, and a state that is damaged, are refused, with a sentence. */
static void expect_refused(struct fixture *f, struct bytes state) {
    struct tasks_store_report report;
    struct tasks_store *store;
    struct key key;
    char why[128] = "";
    key_begin(&key, KEY_STATE);
    put(f, &key, state);
    assert_int_equal(
        tasks_store_open(&f->os.os, f->directory, &f->options, &store, &report, why, sizeof why),
        -EPROTO);
    assert_true(strlen(why) > 10);
}

static void test_bad_store(void **state UNUSED) {
    struct fixture f;
    fixture_init(&f, 4);
    assert_int_equal(fixture_open(&f), 0);
    fixture_close(&f);
    expect_refused(&f, BYTES_LITERAL("\2\0\0\0and what it has"));
    expect_refused(&f, BYTES_LITERAL("\1\0\0\0and nothing else"));
    fixture_deinit(&f);
}

/* Any bytes at all are decoded within their bounds, for the sanitizers. */
static void test_any_bytes(void **state UNUSED) {
    const struct task task = {
        .id = {5, 6},
        .request = {.type = BYTES_LITERAL("exec"), .idempotency_key = BYTES_LITERAL("k")},
        .worker = BYTES_LITERAL("w"),
        .result = BYTES_LITERAL("{}"),
        .saved = BYTES_LITERAL("s")};
    CLEANUP(buffer_deinit) struct buffer value = BUFFER_INIT;
    struct rng rng = {7};
    task_state_encode(&value, &task, true);
    for (unsigned round = 0; round < 20000; round++) {
        size_t size = value.size - rng_below(&rng, 3);
        uint8_t *exact = malloc(size);
        struct task decoded;
        bool has_args;
        assert_non_null(exact);
        memcpy(exact, value.data, size);
        exact[rng_below(&rng, (unsigned)size)] = (uint8_t)rng_next(&rng);
        if (task_state_decode(5, bytes_of(exact, size), &decoded, &has_args))
            assert_true(decoded.request.type.size > 0 && decoded.status < TASK_STATUSES);
        free(exact);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flipped_bytes), cmocka_unit_test(test_one_bad_state),
        cmocka_unit_test(test_bad_index),     cmocka_unit_test(test_bad_store),
        cmocka_unit_test(test_any_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
