/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated system: its seed, its faults one by one, its clock, clones. */
#include "os/test_sim.h"

/* Everything that the disk shows, as one text: what a seed decides. */
static void add_entry(void *context, const char *name) {
    uint64_t *sum = context;
    for (; *name; name++)
        *sum += (uint64_t)(unsigned char)*name << (*sum % 7);
}

static uint64_t cut_a_run(uint64_t seed) {
    struct sim *s = NULL;
    ok(sim_new(seed, &s));
    char path[32];
    for (int i = 0; i < 40; i++) {
        (void)snprintf(path, sizeof path, "f%d", i % 7);
        put(s, path, (char)('a' + i), i % 3 == 0);
        if (i % 5 == 0)
            sync_directory(s, "/");
    }
    sim_power_cut(s);
    uint64_t sum = 0;
    for (int i = 0; i < 7; i++) {
        struct buffer b = BUFFER_INIT;
        (void)snprintf(path, sizeof path, "f%d", i);
        if (os_load(sim_os(s), path, BLOCK, &b) == 0)
            for (size_t k = 0; k < b.size; k++)
                sum = sum * 31 + b.data[k];
        buffer_deinit(&b);
    }
    ok(os_list(sim_os(s), "/", add_entry, &sum));
    sim_free(s);
    return sum;
}

static void test_a_seed_decides_everything(void **state) {
    (void)state;
    unsigned same = 0;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        assert_int_equal(cut_a_run(seed), cut_a_run(seed));
        same += cut_a_run(seed) == cut_a_run(seed + 1);
    }
    assert_true(same < 10);
}

/* What a call answers when a given error is injected into it. */
static int call_open(struct sim *s, struct os_file *file UNUSED) {
    struct os_file *other = NULL;
    int r = os_open(sim_os(s), "f", OS_OPEN_READ, &other);
    os_close(sim_os(s), other);
    return r;
}
static int call_create(struct sim *s, struct os_file *file UNUSED) {
    struct os_file *other = NULL;
    int r = os_open(sim_os(s), "g", OS_OPEN_WRITE | OS_OPEN_CREATE, &other);
    os_close(sim_os(s), other);
    return r;
}
static int call_read(struct sim *s, struct os_file *file) {
    size_t n;
    return os_read(sim_os(s), file, &(char){0}, 1, 0, &n);
}
static int call_write(struct sim *s, struct os_file *file) {
    size_t n;
    return os_write(sim_os(s), file, "x", 1, 0, &n);
}
static int call_sync(struct sim *s, struct os_file *file) {
    return os_sync(sim_os(s), file);
}
static int call_truncate(struct sim *s, struct os_file *file) {
    return os_truncate(sim_os(s), file, 1);
}
static int call_size(struct sim *s, struct os_file *file) {
    uint64_t size;
    return os_size(sim_os(s), file, &size);
}
static int call_lock(struct sim *s, struct os_file *file) {
    return os_lock(sim_os(s), file);
}
static int call_map(struct sim *s, struct os_file *file) {
    const void *data = NULL;
    int r = os_map(sim_os(s), file, 1, &data);
    os_unmap(sim_os(s), data, 1);
    return r;
}
static int call_rename(struct sim *s, struct os_file *file UNUSED) {
    return os_rename(sim_os(s), "f", "g");
}
static int call_unlink(struct sim *s, struct os_file *file UNUSED) {
    return os_unlink(sim_os(s), "f");
}
static int call_mkdir(struct sim *s, struct os_file *file UNUSED) {
    return os_mkdir(sim_os(s), "e");
}
static int call_rmdir(struct sim *s, struct os_file *file UNUSED) {
    return os_rmdir(sim_os(s), "d");
}
static int call_list(struct sim *s, struct os_file *file UNUSED) {
    uint64_t sum = 0;
    return os_list(sim_os(s), "d", add_entry, &sum);
}
static int call_sync_directory(struct sim *s, struct os_file *file UNUSED) {
    return os_sync_directory(sim_os(s), "d");
}
static int call_disk_space(struct sim *s, struct os_file *file UNUSED) {
    uint64_t free_bytes, total;
    return os_disk_space(sim_os(s), "d", &free_bytes, &total);
}
static int call_random(struct sim *s, struct os_file *file UNUSED) {
    return os_random(sim_os(s), &(char){0}, 1);
}

static const struct {
    int (*call)(struct sim *s, struct os_file *file);
    bool changes;    /* counts as a change of the disk */
    bool refused;    /* while the disk refuses */
    int full;        /* its answer to OS_E_FULL */
    int interrupted; /* and to OS_E_INTERRUPTED */
} calls[] = {
    {call_open, false, false, -EIO, 0},
    {call_create, true, true, OS_E_FULL, 0},
    {call_read, false, false, -EIO, OS_E_INTERRUPTED},
    {call_write, true, true, OS_E_FULL, OS_E_INTERRUPTED},
    {call_sync, true, true, OS_E_FULL, -EINTR},
    {call_truncate, true, true, OS_E_FULL, 0},
    {call_size, false, false, -EIO, 0},
    {call_lock, false, false, -EIO, 0},
    {call_map, false, false, -EIO, 0},
    {call_rename, true, false, OS_E_FULL, 0},
    {call_unlink, true, false, -EIO, 0},
    {call_mkdir, true, true, OS_E_FULL, 0},
    {call_rmdir, true, false, -EIO, 0},
    {call_list, false, false, -EIO, 0},
    {call_sync_directory, true, true, OS_E_FULL, -EINTR},
    {call_disk_space, false, false, -EIO, 0},
    {call_random, false, false, -EIO, 0},
};

/* Makes call i on a fresh disk under these faults. */
static int call_under(size_t i, const struct sim_faults *faults, uint64_t *ret_calls,
                      uint64_t *ret_changes) {
    struct sim *s = NULL;
    ok(sim_new(1, &s));
    put_old(s);
    ok(os_mkdir(sim_os(s), "d"));
    struct os_file *file = open_new(s, "f");
    sim_set_faults(s, faults);
    int r = calls[i].call(s, file);
    *ret_calls = sim_calls(s);
    *ret_changes = sim_disk_changes(s);
    sim_free(s); /* closes the file too */
    return r;
}

static void test_faults_of_each_call(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(calls); i++) {
        uint64_t n, changes;
#define UNDER(...) call_under(i, &(struct sim_faults){__VA_ARGS__}, &n, &changes)
        assert_int_equal(UNDER(0), 0);
        assert_int_equal(n, 1);
        assert_int_equal(changes, calls[i].changes);
        assert_int_equal(UNDER(.fail_at = 1, .fail_error = -ENOMEM), -ENOMEM);
        assert_int_equal(UNDER(.fail_at = 2, .fail_error = -ENOMEM), 0);
        assert_int_equal(UNDER(.fail_at = 1, .fail_error = OS_E_FULL), calls[i].full);
        assert_int_equal(UNDER(.fail_at = 1, .fail_error = OS_E_INTERRUPTED), calls[i].interrupted);
        assert_int_equal(UNDER(.refuse_error = -EROFS), calls[i].refused ? -EROFS : 0);
        assert_int_equal(UNDER(.crash_at = 1), calls[i].changes ? -EIO : 0);
#undef UNDER
    }
}

static void test_short_transfers(void **state) {
    (void)state;
    struct sim *s = NULL;
    ok(sim_new(1, &s));
    struct os_file *file = open_new(s, "f");
    sim_set_faults(s, &(struct sim_faults){.short_transfers = true});
    unsigned interrupted = 0, shorter = 0, whole = 0;
    for (int i = 0; i < 200; i++) {
        size_t n = 0;
        int r = os_write(sim_os(s), file, "0123456789", 10, 0, &n);
        assert_true(r == OS_E_INTERRUPTED || (r == 0 && n >= 1 && n <= 10));
        interrupted += r != 0;
        shorter += r == 0 && n < 10;
        whole += n == 10;
    }
    assert_true(interrupted && shorter && whole);
    char text[10];
    size_t n = 0;
    ok(os_write_all(sim_os(s), file, "abcdefghij", 10, 0));
    ok(os_read_all(sim_os(s), file, text, 10, 0, &n));
    assert_int_equal(n, 10);
    assert_memory_equal(text, "abcdefghij", 10);
    os_close(sim_os(s), file);
    sim_free(s);
}

static void test_space(void **state) {
    (void)state;
    struct sim *s = NULL;
    ok(sim_new(1, &s));
    struct os *os = sim_os(s);
    put(s, "f", 'x', true);
    struct os_file *file = open_new(s, "g");
    sim_set_space(s, 100);
    size_t n = 0;
    char data[300] = {0};
    ok(os_write(os, file, data, 300, 0, &n)); /* what fits */
    assert_int_equal(n, 100);
    assert_int_equal(os_write(os, file, data, 1, 100, &n), OS_E_FULL);
    ok(os_write(os, file, data, 100, 0, &n)); /* in place */
    assert_int_equal(os_mkdir(os, "d"), OS_E_FULL);
    struct os_file *other = open_new(s, "f");
    ok(os_unlink(os, "f"));
    assert_int_equal(os_write(os, file, data, 1, 100, &n), OS_E_FULL); /* f is still open */
    os_close(os, other);
    uint64_t free_bytes, total;
    ok(os_disk_space(os, "/", &free_bytes, &total));
    assert_int_equal(free_bytes, BLOCK);
    assert_int_equal(total, BLOCK + 100);
    ok(os_write(os, file, data, 300, 100, &n));
    ok(os_truncate(os, file, 0));
    ok(os_disk_space(os, "/", &free_bytes, &total));
    assert_int_equal(free_bytes, total);
    put(s, "h", 'x', true);
    ok(os_rename(os, "g", "h")); /* frees what it replaces */
    ok(os_disk_space(os, "/", &free_bytes, &total));
    assert_int_equal(free_bytes, total);
    os_close(os, file);
    sim_free(s);
}

static void test_files_after_a_cut(void **state) {
    (void)state;
    struct sim *s = NULL;
    ok(sim_new(1, &s));
    put_old(s);
    for (int kill = 0; kill < 2; kill++) {
        struct os_file *file = open_new(s, "f");
        ok(os_lock(sim_os(s), file));
        if (kill)
            sim_kill(s);
        else
            sim_power_cut(s);
        size_t n;
        assert_int_equal(os_read(sim_os(s), file, &(char){0}, 1, 0, &n), -EBADF);
        assert_int_equal(os_sync(sim_os(s), file), -EBADF);
        struct os_file *again = open_new(s, "f");
        ok(os_lock(sim_os(s), again)); /* the lock went with its holder */
        os_close(sim_os(s), file);
        os_close(sim_os(s), again);
    }
    sim_free(s);
}

static void test_an_unlinked_file_is_gone_after_a_cut(void **state) {
    (void)state;
    struct sim *s = NULL;
    ok(sim_new(1, &s));
    put_old(s);
    struct os_file *file = open_new(s, "f");
    ok(os_unlink(sim_os(s), "f"));
    sync_directory(s, "/");
    fill(s, file, 'n', BLOCK, 0);
    ok(os_sync(sim_os(s), file));
    sim_power_cut(s);
    assert_false(exists(s, "f"));
    os_close(sim_os(s), file);
    sim_free(s);
}

static void test_an_unlinked_file_lives_while_open(void **state) {
    (void)state;
    struct sim *s = NULL;
    ok(sim_new(1, &s));
    struct os_file *file = open_new(s, "f");
    fill(s, file, 'n', BLOCK, 0);
    for (int i = 0; i < 200; i++) { /* long enough for the rest to be swept away */
        ok(os_unlink(sim_os(s), "f"));
        sync_directory(s, "/");
        put(s, "f", 'o', true);
    }
    uint8_t data[BLOCK];
    size_t n = 0;
    ok(os_read_all(sim_os(s), file, data, BLOCK, 0, &n));
    assert_int_equal(classify(data, n), NEW);
    os_close(sim_os(s), file);
    sim_free(s);
}

static void test_flip_bit(void **state) {
    (void)state;
    struct sim *s = NULL;
    ok(sim_new(1, &s));
    put_old(s);
    assert_int_equal(sim_flip_bit(s, "x", 0), OS_E_NOT_FOUND);
    assert_int_equal(sim_flip_bit(s, "f", 8 * BLOCK), -EINVAL);
    ok(sim_flip_bit(s, "f", 8 * 3 + 1));
    for (int cut = 0; cut < 2; cut++) {
        struct buffer b = BUFFER_INIT;
        ok(os_load(sim_os(s), "f", BLOCK, &b));
        assert_int_equal(b.data[2], 'o');
        assert_int_equal(b.data[3], 'o' ^ 2);
        buffer_deinit(&b);
        sim_power_cut(s);
    }
    sim_free(s);
}

static void test_clock_and_hanging_syncs(void **state) {
    (void)state;
    struct sim *s = NULL;
    ok(sim_new(1, &s));
    struct os *os = sim_os(s);
    uint64_t before_ns = os_monotonic_ns(os);
    uint64_t before_us = os_wall_us(os);
    os_sleep_ns(os, 5000000);
    assert_int_equal(os_monotonic_ns(os), before_ns + 5000000 + 3000); /* three calls */
    assert_int_equal(os_wall_us(os), before_us + 5000 + 3);
    struct os_file *file = open_new(s, "f");
    sim_set_faults(s, &(struct sim_faults){.hang_ns = 10000000000});
    before_ns = os_monotonic_ns(os);
    ok(os_sync(os, file));
    assert_true(os_monotonic_ns(os) >= before_ns + 10000000000);
    os_close(os, file);
    sim_free(s);
}

struct syncer {
    struct sim *sim;
    struct os_file *file;
    int result;
};

static void run_syncer(void *argument) {
    struct syncer *syncer = argument;
    syncer->result = os_sync(sim_os(syncer->sim), syncer->file);
}

static void test_held_syncs(void **state) {
    (void)state;
    struct sim *s = NULL;
    ok(sim_new(1, &s));
    struct syncer syncer = {.sim = s, .file = open_new(s, "f"), .result = -1};
    struct os_thread *thread = NULL;
    sim_set_faults(s, &(struct sim_faults){.hold_syncs = true});
    ok(os_thread_start(sim_os(s), "syncer", run_syncer, &syncer, &thread));
    os_sleep_ns(os_real(), 20000000);
    assert_int_equal(sim_disk_changes(s), 0); /* it waits, and others go on */
    fill(s, syncer.file, 'n', BLOCK, 0);
    sim_set_faults(s, NULL);
    os_thread_join(sim_os(s), thread);
    assert_int_equal(syncer.result, 0);
    os_close(sim_os(s), syncer.file);
    sim_free(s);
}

static void test_clones_are_equal(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct sim *s = NULL, *a = NULL, *b = NULL;
        ok(sim_new(seed, &s));
        struct os_file *open = open_new(s, "unlinked");
        os_sleep_ns(sim_os(s), 1000000);
        ok(os_unlink(sim_os(s), "unlinked"));
        make_two_directories(s);
        put(s, "d/a", 'o', true);
        put(s, "d/a", 'n', false);
        ok(os_rename(sim_os(s), "d/a", "e/a"));
        ok(sim_clone(s, seed, &a));
        ok(sim_clone(s, seed, &b));
        assert_true(os_monotonic_ns(sim_os(a)) > os_monotonic_ns(sim_os(s)) - 10000);
        enum outcome one = cut_and_look(a, "e/a");
        assert_int_equal(cut_and_look(b, "e/a"), one);
        assert_int_equal(look(s, "e/a"), NEW);
        os_close(sim_os(s), open);
        sim_free(a);
        sim_free(b);
        sim_free(s);
    }
}

struct watch {
    struct sim *sim;
    uint64_t changes;
    unsigned after_cut; /* outcomes seen in clones */
};

static void cut_here(void *context) {
    struct watch *w = context;
    struct sim *clone = NULL;
    w->changes++;
    assert_int_equal(sim_disk_changes(w->sim), w->changes);
    ok(sim_clone(w->sim, w->changes, &clone));
    w->after_cut |= cut_and_look(clone, "f");
    sim_free(clone);
}

/* One run, cut at every change of the disk. */
static void test_each_change(void **state) {
    (void)state;
    struct watch w = {0};
    ok(sim_new(1, &w.sim));
    put_old(w.sim);
    sim_set_faults(w.sim, &(struct sim_faults){.each_change = cut_here, .context = &w});
    for (int i = 0; i < 100; i++) {
        ok(os_replace(sim_os(w.sim), "f", bytes_of_string("")));
        put(w.sim, "f.new", 'n', true);
        ok(os_rename(sim_os(w.sim), "f.new", "f"));
    }
    assert_int_equal(sim_disk_changes(w.sim), w.changes);
    assert_int_equal(w.changes, 100 * (1 + 4 + 4)); /* unlink; create, sync, rename, sync; … */
    assert_int_equal(w.after_cut, OLD | EMPTY | NEW);
    sim_free(w.sim);
}

static void test_parent_paths_are_refused(void **state) {
    (void)state;
    struct sim *s = NULL;
    ok(sim_new(1, &s));
    assert_int_equal(os_mkdir(sim_os(s), "a/.."), OS_E_NOT_FOUND);
    assert_int_equal(os_mkdir(sim_os(s), "../a"), -EINVAL);
    assert_int_equal(os_rmdir(sim_os(s), "/"), -EBUSY);
    assert_int_equal(os_mkdir(sim_os(s), "/"), OS_E_EXISTS);
    sim_free(s);
    assert_null(sim_free(NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_seed_decides_everything),
        cmocka_unit_test(test_faults_of_each_call),
        cmocka_unit_test(test_short_transfers),
        cmocka_unit_test(test_space),
        cmocka_unit_test(test_files_after_a_cut),
        cmocka_unit_test(test_an_unlinked_file_is_gone_after_a_cut),
        cmocka_unit_test(test_an_unlinked_file_lives_while_open),
        cmocka_unit_test(test_flip_bit),
        cmocka_unit_test(test_clock_and_hanging_syncs),
        cmocka_unit_test(test_held_syncs),
        cmocka_unit_test(test_clones_are_equal),
        cmocka_unit_test(test_each_change),
        cmocka_unit_test(test_parent_paths_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
