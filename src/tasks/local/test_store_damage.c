/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flipped bytes: what is read is right, or damage; never wrong data. And values whose bytes are not
 * what they should be, below RocksDB's checksums: damage of that one task, the others go on.
 */
#include "tasks/local/internal.h"
#include "tasks/local/test_fixture.h"

enum { FLIPS_A_FILE = 8, FILES_MAX = 16 };

/* ---- Files ---- */
struct files {
    const char *directory;
    size_t n;
    char paths[FILES_MAX][OS_PATH_MAX];
};

static bool ends_with(const char *path, const char *end) {
    size_t length = strlen(path), n = strlen(end);
    return length >= n && strcmp(path + length - n, end) == 0;
}

/* What is read when the store is opened, or later. */
static void remember_file(void *context, const char *name) {
    struct files *files = context;
    if (ends_with(name, ".sst") || ends_with(name, ".copy") || strcmp(name, "CURRENT") == 0 ||
        strncmp(name, "MANIFEST-", 9) == 0)
        assert_int_equal(os_path_join(files->paths[files->n++], files->directory, "%s", name), 0);
    assert_true(files->n < FILES_MAX);
}

static void find_files(struct fixture *f, struct files *files) {
    char directory[OS_PATH_MAX];
    files->directory = f->directory;
    assert_int_equal(os_list(os_real(), f->directory, remember_file, files), 0);
    assert_int_equal(os_path_join(directory, f->directory, "rocksdb"), 0);
    files->directory = directory;
    assert_int_equal(os_list(os_real(), directory, remember_file, files), 0);
}

static void copy_tree(const char *from, const char *to) {
    int status;
    pid_t child = fork();
    if (child == 0) {
        execlp("cp", "cp", "-a", "--", from, to, (char *)NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* The k-th of some places that are spread over the file. */
static void flip(const char *path, unsigned k) {
    struct os_file *file;
    uint64_t size;
    uint8_t byte;
    size_t n;
    assert_int_equal(os_open(os_real(), path, OS_OPEN_WRITE, &file), 0);
    assert_int_equal(os_size(os_real(), file, &size), 0);
    uint64_t where = size * (2 * k + 1) / (2 * FLIPS_A_FILE);
    assert_int_equal(os_read(os_real(), file, &byte, 1, where, &n), 0);
    byte ^= 0x20;
    assert_int_equal(os_write(os_real(), file, &byte, 1, where, &n), 0);
    os_close(os_real(), file);
}

/* Whatever is shown is the model's. */
static bool expect_known(void *context, const struct task *task) {
    const struct task *known = model_find(context, task->id);
    assert_non_null(known);
    expect_task(task, known, false);
    return true;
}

static void expect_running(void *context, const struct task *task) {
    assert_int_equal(task->status, TASK_RUNNING);
    expect_known(context, task);
}

/* The answers are the model's, or damage was found. Returns whether. */
static bool read_all(struct fixture *f) {
    bool damaged = f->report.damages > 0;
    const struct tasks_filter filters[] = {{.limit = SIZE_MAX}, {.statuses = 3, .limit = SIZE_MAX}};
    for (size_t i = 0; i < f->n_tasks; i++) {
        struct task_ref ref;
        int r = tasks_store_get(f->store, f->tasks[i].id, true, &ref);
        damaged |= r != 0;
        assert_true(r == 0 || r == -EBADMSG);
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
    /* What the runner asks before all else: damage stops no start. */
    assert_int_equal(tasks_store_each_running(f->store, expect_running, f), 0);
    return damaged;
}

/* The store goes on: what comes now is there, also when it is opened again. */
static void goes_on(struct fixture *f) {
    struct task_ref ref;
    f->only_new_ids = true;
    struct task_id id = log_create(f, 0, 5, 0);
    f->only_new_ids = false;
    apply_all(f);
    assert_int_equal(tasks_store_checkpoint(f->store), 0);
    fixture_close(f);
    assert_int_equal(fixture_open(f), 0);
    assert_int_equal(f->applied, f->n_log);
    assert_int_equal(tasks_store_get(f->store, id, false, &ref), 0);
    task_unref(&ref);
    (void)read_all(f);
    free((void *)(uintptr_t)f->log[--f->n_log].payload.data);
    f->n_tasks--;
}

static bool damage_is_found(struct fixture *f, unsigned *mended) {
    struct tasks_store_report found;
    assert_int_equal(tasks_store_verify(&f->os.os, f->directory, NULL, NULL, &found), 0);
    assert_int_equal(fixture_open(f), 0);
    assert_true(f->report.damages >= f->report.mended);
    *mended += f->report.mended > 0;
    bool met = read_all(f);
    goes_on(f);
    fixture_close(f);
    assert_true(found.damages > 0 || !met);
    return found.damages > 0;
}

static void make_store(struct fixture *f, char pristine[80]) {
    fixture_init(f, 1);
    f->options.hot_bytes_max = 8 << 20;
    assert_int_equal(fixture_open(f), 0);
    for (unsigned i = 0; i < 3; i++) {
        log_some(f, 600);
        apply_all(f);
        assert_int_equal(tasks_store_checkpoint(f->store), 0);
    }
    fixture_close(f);
    snprintf(pristine, 80, "%s.pristine", f->directory);
    copy_tree(f->directory, pristine);
}

/* Anywhere in any file: the store opens, answers what is right or that it is damaged, and goes on.
 * What all else depends on is mended. A table has bytes that nobody reads. */
static void test_a_byte_flipped_anywhere(void **state UNUSED) {
    struct fixture f;
    struct files files = {.n = 0};
    unsigned mended = 0;
    char pristine[80];
    make_store(&f, pristine);
    find_files(&f, &files);
    assert_int_equal(files.n, 7); /* three tables, CURRENT, the manifest, two copies */
    assert_false(damage_is_found(&f, &mended));
    for (size_t i = 0; i < files.n; i++) {
        unsigned found = 0;
        for (unsigned k = 0; k < FLIPS_A_FILE; k++) {
            remove_tree(f.directory);
            copy_tree(pristine, f.directory);
            flip(files.paths[i], k);
            found += damage_is_found(&f, &mended);
        }
        print_message("%s: %u of %u found\n", strrchr(files.paths[i], '/') + 1, found,
                      FLIPS_A_FILE);
        assert_true(ends_with(files.paths[i], ".sst") ? found > 0 : found == FLIPS_A_FILE);
    }
    assert_true(mended >= FLIPS_A_FILE); /* at least all of the manifest's */
    remove_tree(pristine);
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

/* The state comes from its copy: the one before the checkpoint if a crash came before its ingest.
 */
static void test_a_damaged_state(void **state UNUSED) {
    struct fixture f;
    struct key key;
    char why[128] = "";
    struct tasks_store *store;
    fixture_init(&f, 5);
    assert_int_equal(fixture_open(&f), 0);
    log_some(&f, 100);
    apply_all(&f);
    assert_int_equal(tasks_store_checkpoint(f.store), 0);
    check_store(&f);
    fixture_close(&f);
    key_begin(&key, KEY_STATE);
    put(&f, &key, BYTES_LITERAL("\1\0\0\0and nothing else"));
    assert_int_equal(fixture_open(&f), 0);
    assert_int_equal(f.report.mended, 1);
    assert_int_equal(f.applied, f.n_log);
    check_store(&f);
    log_some(&f, 100);
    apply_all(&f);
    assert_int_equal(tasks_store_checkpoint(f.store), 0);
    fixture_close(&f);
    assert_int_equal(fixture_open(&f), 0);
    assert_int_equal(f.report.damages, 0);
    check_store(&f);
    fixture_close(&f);
    put(&f, &key, BYTES_LITERAL("\1\0\0\0and nothing else"));
    char copy[OS_PATH_MAX];
    assert_int_equal(os_path_join(copy, f.directory, "STATE.copy"), 0);
    flip(copy, 5);
    assert_int_equal(
        tasks_store_open(&f.os.os, f.directory, &f.options, &store, &f.report, why, sizeof why),
        -EPROTO);
    assert_true(strlen(why) > 10);
    fixture_deinit(&f);
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
        cmocka_unit_test(test_a_byte_flipped_anywhere),
        cmocka_unit_test(test_a_damaged_state),
        cmocka_unit_test(test_one_bad_state),
        cmocka_unit_test(test_bad_index),
        cmocka_unit_test(test_bad_store),
        cmocka_unit_test(test_any_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
