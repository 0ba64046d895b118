/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of os.h, each test on the real system (in a temporary directory) and on the simulated
 * one: what the twin does when nothing fails must be what Linux does. At the end, a random run of
 * both side by side.
 */
#include "os/file.h"
#include "os/sim.h"

#include <errno.h>
#include <setjmp.h>
#include <stdalign.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct fixture {
    struct sim *sim; /* NULL: the real one */
    struct os *os;
    char root[64];
};

static char *in(const struct fixture *f, const char *name) {
    static char paths[4][OS_PATH_MAX]; /* enough for one statement */
    static unsigned next;
    char *path = paths[next++ % 4];
    assert_int_equal(os_path_join(path, f->root, "%s", name), 0);
    return path;
}

static int setup(void **state) {
    bool simulated = *(bool *)*state;
    struct fixture *f = calloc(1, sizeof *f);
    if (simulated) {
        assert_int_equal(sim_new(1, &f->sim), 0);
        f->os = sim_os(f->sim);
        strncpy(f->root, "/data", sizeof f->root - 1);
        assert_int_equal(os_mkdir(f->os, f->root), 0);
    } else {
        f->os = os_real();
        strncpy(f->root, "/tmp/millrace-test-XXXXXX", sizeof f->root - 1);
        assert_non_null(mkdtemp(f->root));
    }
    *state = f;
    return 0;
}

struct names {
    char text[64][32];
    size_t n;
};

static void add_name(void *context, const char *name) {
    struct names *names = context;
    assert_true(names->n < ARRAY_LENGTH(names->text));
    (void)snprintf(names->text[names->n++], sizeof names->text[0], "%s", name);
}

static void remove_tree(struct os *os, const char *path) {
    struct names *names = calloc(1, sizeof *names);
    if (os_list(os, path, add_name, names) != 0) {
        assert_int_equal(os_unlink(os, path), 0);
    } else {
        for (size_t i = 0; i < names->n; i++) {
            char inner[OS_PATH_MAX];
            assert_int_equal(os_path_join(inner, path, "%s", names->text[i]), 0);
            remove_tree(os, inner);
        }
        assert_int_equal(os_rmdir(os, path), 0);
    }
    free(names);
}

static int teardown(void **state) {
    struct fixture *f = *state;
    remove_tree(f->os, f->root);
    sim_free(f->sim);
    free(f);
    return 0;
}

static struct os_file *open_file(const struct fixture *f, const char *name, unsigned flags) {
    struct os_file *file = NULL;
    assert_int_equal(os_open(f->os, in(f, name), flags, &file), 0);
    return file;
}

static void make_file(const struct fixture *f, const char *name, const char *text) {
    struct os_file *file = open_file(f, name, OS_OPEN_WRITE | OS_OPEN_CREATE);
    assert_int_equal(os_write_all(f->os, file, text, strlen(text), 0), 0);
    os_close(f->os, file);
}

static void assert_text(const struct fixture *f, const char *name, const char *text) {
    struct buffer b = BUFFER_INIT;
    assert_int_equal(os_load(f->os, in(f, name), 1 << 20, &b), 0);
    assert_int_equal(b.size, strlen(text));
    assert_memory_equal(b.data, text, b.size);
    buffer_deinit(&b);
}

static int open_result(const struct fixture *f, const char *name, unsigned flags) {
    struct os_file *file = NULL;
    int r = os_open(f->os, in(f, name), flags, &file);
    os_close(f->os, file);
    return r;
}

static void test_open(void **state) {
    struct fixture *f = *state;
    assert_int_equal(open_result(f, "a", OS_OPEN_READ), OS_E_NOT_FOUND);
    assert_int_equal(open_result(f, "a", OS_OPEN_WRITE), OS_E_NOT_FOUND);
    assert_int_equal(open_result(f, "x/a", OS_OPEN_WRITE | OS_OPEN_CREATE), OS_E_NOT_FOUND);
    assert_int_equal(open_result(f, "a", OS_OPEN_WRITE | OS_OPEN_CREATE | OS_OPEN_EXCLUSIVE), 0);
    assert_int_equal(open_result(f, "a", OS_OPEN_WRITE | OS_OPEN_CREATE | OS_OPEN_EXCLUSIVE),
                     OS_E_EXISTS);
    assert_int_equal(open_result(f, "a", OS_OPEN_WRITE | OS_OPEN_CREATE), 0);
    assert_int_equal(open_result(f, "a/b", OS_OPEN_READ), -ENOTDIR);
    assert_int_equal(open_result(f, ".", OS_OPEN_WRITE), -EISDIR);
}

static void test_read_and_write(void **state) {
    struct fixture *f = *state;
    struct os_file *file = open_file(f, "a", OS_OPEN_WRITE | OS_OPEN_CREATE);
    char text[16] = {0};
    size_t n = 99;
    uint64_t size = 99;
    assert_int_equal(os_read(f->os, file, text, sizeof text, 0, &n), 0);
    assert_int_equal(n, 0);
    assert_int_equal(os_write(f->os, file, "cd", 2, 6, &n), 0); /* leaves a hole */
    assert_int_equal(n, 2);
    assert_int_equal(os_size(f->os, file, &size), 0);
    assert_int_equal(size, 8);
    assert_int_equal(os_read_all(f->os, file, text, sizeof text, 1, &n), 0);
    assert_int_equal(n, 7);
    assert_memory_equal(text, "\0\0\0\0\0cd", 7);
    assert_int_equal(os_read(f->os, file, text, sizeof text, 100, &n), 0);
    assert_int_equal(n, 0);
    assert_int_equal(os_sync(f->os, file), 0);
    os_close(f->os, file);
}

static void test_read_only(void **state) {
    struct fixture *f = *state;
    make_file(f, "a", "text");
    struct os_file *file = open_file(f, "a", OS_OPEN_READ);
    size_t n;
    assert_int_equal(os_write(f->os, file, "x", 1, 0, &n), -EBADF);
    assert_int_equal(os_truncate(f->os, file, 0), -EINVAL);
    assert_int_equal(os_sync(f->os, file), 0);
    os_close(f->os, file);
    assert_text(f, "a", "text");
}

/* Whole sectors go past the page cache, other writes are taken all the same. */
static void test_direct(void **state) {
    struct fixture *f = *state;
    alignas(4096) uint8_t sectors[2 * OS_DIRECT_BYTES], seen[sizeof sectors + 8];
    const unsigned flags = OS_OPEN_WRITE | OS_OPEN_CREATE | OS_OPEN_DIRECT;
    struct os_file *file = open_file(f, "a", flags | OS_OPEN_EXCLUSIVE);
    size_t n = 0;
    memset(sectors, 'x', sizeof sectors);
    assert_int_equal(os_write_all(f->os, file, sectors, sizeof sectors, 0), 0);
    assert_int_equal(os_write_all(f->os, file, "tail", 4, sizeof sectors), 0);
    memset(sectors, 'y', OS_DIRECT_BYTES);
    assert_int_equal(os_write_all(f->os, file, sectors, OS_DIRECT_BYTES, 0), 0);
    assert_int_equal(os_sync(f->os, file), 0);
    os_close(f->os, file);
    assert_int_equal(open_result(f, "a", flags | OS_OPEN_EXCLUSIVE), OS_E_EXISTS);
    file = open_file(f, "a", OS_OPEN_READ);
    assert_int_equal(os_read_all(f->os, file, seen, sizeof seen, 0, &n), 0);
    assert_int_equal(n, sizeof sectors + 4);
    assert_memory_equal(seen, sectors, sizeof sectors);
    assert_memory_equal(seen + sizeof sectors, "tail", 4);
    os_close(f->os, file);
}

static void test_append(void **state) {
    struct fixture *f = *state;
    make_file(f, "log", "one ");
    struct os_file *file = open_file(f, "log", OS_OPEN_APPEND | OS_OPEN_WRITE);
    assert_int_equal(os_write_all(f->os, file, "two", 3, 0), 0);
    assert_int_equal(os_truncate(f->os, file, 3), 0);
    assert_int_equal(os_write_all(f->os, file, "!", 1, 0), 0);
    os_close(f->os, file);
    assert_text(f, "log", "one!");
}

static void test_truncate(void **state) {
    struct fixture *f = *state;
    make_file(f, "a", "0123456789");
    struct os_file *file = open_file(f, "a", OS_OPEN_WRITE);
    assert_int_equal(os_truncate(f->os, file, 4), 0);
    assert_int_equal(os_truncate(f->os, file, 6), 0);
    char text[8];
    size_t n;
    assert_int_equal(os_read_all(f->os, file, text, sizeof text, 0, &n), 0);
    assert_int_equal(n, 6);
    assert_memory_equal(text, "0123\0\0", 6);
    os_close(f->os, file);
}

static void test_lock(void **state) {
    struct fixture *f = *state;
    struct os_file *first = open_file(f, "lock", OS_OPEN_WRITE | OS_OPEN_CREATE);
    struct os_file *second = open_file(f, "lock", OS_OPEN_WRITE);
    assert_int_equal(os_lock(f->os, first), 0);
    assert_int_equal(os_lock(f->os, first), 0); /* its own lock is no obstacle */
    assert_int_equal(os_lock(f->os, second), OS_E_LOCKED);
    os_close(f->os, first);
    assert_int_equal(os_lock(f->os, second), 0);
    os_close(f->os, second);
}

static void test_map(void **state) {
    struct fixture *f = *state;
    make_file(f, "a", "mapped");
    struct os_file *file = open_file(f, "a", OS_OPEN_READ);
    const void *data = NULL;
    assert_int_equal(os_map(f->os, file, 7, &data), -EINVAL);
    assert_int_equal(os_map(f->os, file, 0, &data), -EINVAL);
    assert_null(data);
    assert_int_equal(os_map(f->os, file, 6, &data), 0);
    os_close(f->os, file);
    assert_int_equal(os_unlink(f->os, in(f, "a")), 0);
    assert_memory_equal(data, "mapped", 6);
    assert_int_equal((uintptr_t)data % 4096, 0);
    os_unmap(f->os, data, 6);
}

static void test_unlink(void **state) {
    struct fixture *f = *state;
    assert_int_equal(os_unlink(f->os, in(f, "a")), OS_E_NOT_FOUND);
    make_file(f, "a", "old");
    struct os_file *file = open_file(f, "a", OS_OPEN_WRITE);
    assert_int_equal(os_unlink(f->os, in(f, "a")), 0);
    make_file(f, "a", "another");
    char text[8];
    size_t n;
    assert_int_equal(os_write_all(f->os, file, "er", 2, 3), 0); /* lives while it is open */
    assert_int_equal(os_read_all(f->os, file, text, sizeof text, 0, &n), 0);
    assert_int_equal(n, 5);
    assert_memory_equal(text, "older", 5);
    os_close(f->os, file);
    assert_text(f, "a", "another");
    assert_int_equal(os_mkdir(f->os, in(f, "d")), 0);
    assert_int_equal(os_unlink(f->os, in(f, "d")), -EISDIR);
}

static void test_rename(void **state) {
    struct fixture *f = *state;
    make_file(f, "a", "a");
    make_file(f, "b", "b");
    assert_int_equal(os_rename(f->os, in(f, "c"), in(f, "a")), OS_E_NOT_FOUND);
    assert_int_equal(os_rename(f->os, in(f, "a"), in(f, "x/a")), OS_E_NOT_FOUND);
    assert_int_equal(os_rename(f->os, in(f, "a"), in(f, "a")), 0);
    assert_int_equal(os_rename(f->os, in(f, "a"), in(f, "b")), 0);
    assert_int_equal(open_result(f, "a", OS_OPEN_READ), OS_E_NOT_FOUND);
    assert_text(f, "b", "a");
}

static void test_rename_directory(void **state) {
    struct fixture *f = *state;
    assert_int_equal(os_make_path(f->os, in(f, "d/inner")), 0);
    assert_int_equal(os_mkdir(f->os, in(f, "empty")), 0);
    make_file(f, "d/inner/a", "a");
    make_file(f, "b", "b");
    assert_int_equal(os_rename(f->os, in(f, "d"), in(f, "d/inner/d")), -EINVAL);
    assert_int_equal(os_rename(f->os, in(f, "d"), in(f, "b")), -ENOTDIR);
    assert_int_equal(os_rename(f->os, in(f, "b"), in(f, "d")), -EISDIR);
    assert_int_equal(os_rename(f->os, in(f, "empty"), in(f, "d")), OS_E_EXISTS);
    assert_int_equal(os_rename(f->os, in(f, "d"), in(f, "empty")), 0);
    assert_text(f, "empty/inner/a", "a");
    assert_int_equal(os_rename(f->os, in(f, "empty/inner"), in(f, "moved")), 0);
    assert_text(f, "moved/a", "a");
}

static void test_directories(void **state) {
    struct fixture *f = *state;
    assert_int_equal(os_mkdir(f->os, in(f, "d/e")), OS_E_NOT_FOUND);
    assert_int_equal(os_mkdir(f->os, in(f, "d")), 0);
    assert_int_equal(os_mkdir(f->os, in(f, "d")), OS_E_EXISTS);
    make_file(f, "d/a", "a");
    assert_int_equal(os_rmdir(f->os, in(f, "d")), OS_E_EXISTS);
    assert_int_equal(os_rmdir(f->os, in(f, "d/a")), -ENOTDIR);
    assert_int_equal(os_rmdir(f->os, in(f, "x")), OS_E_NOT_FOUND);
    assert_int_equal(os_sync_directory(f->os, in(f, "d")), 0);
    assert_int_equal(os_sync_directory(f->os, in(f, "x")), OS_E_NOT_FOUND);
    assert_int_equal(os_sync_directory(f->os, in(f, "d/a")), -ENOTDIR);
    assert_int_equal(os_unlink(f->os, in(f, "d/a")), 0);
    assert_int_equal(os_rmdir(f->os, in(f, "d")), 0);
}

static void test_list(void **state) {
    struct fixture *f = *state;
    struct names names = {0};
    assert_int_equal(os_list(f->os, in(f, "x"), add_name, &names), OS_E_NOT_FOUND);
    make_file(f, "a", "");
    assert_int_equal(os_list(f->os, in(f, "a"), add_name, &names), -ENOTDIR);
    assert_int_equal(os_mkdir(f->os, in(f, "d")), 0);
    assert_int_equal(os_list(f->os, f->root, add_name, &names), 0);
    assert_int_equal(names.n, 2);
    size_t a = strcmp(names.text[0], "a") != 0;
    assert_string_equal(names.text[a], "a");
    assert_string_equal(names.text[1 - a], "d");
}

static void test_long_names(void **state) {
    struct fixture *f = *state;
    char name[300];
    memset(name, 'n', sizeof name);
    name[256] = '\0';
    assert_int_equal(open_result(f, name, OS_OPEN_WRITE | OS_OPEN_CREATE), -ENAMETOOLONG);
    name[255] = '\0';
    assert_int_equal(open_result(f, name, OS_OPEN_WRITE | OS_OPEN_CREATE), 0);
    assert_int_equal(os_unlink(f->os, in(f, name)), 0);
}

static void test_disk_space(void **state) {
    struct fixture *f = *state;
    uint64_t free_bytes = 0;
    uint64_t total = 0;
    assert_int_equal(os_disk_space(f->os, f->root, &free_bytes, &total), 0);
    assert_true(total > 0 && free_bytes <= total);
    assert_int_equal(os_disk_space(f->os, in(f, "x"), &free_bytes, &total), OS_E_NOT_FOUND);
}

static void test_clock(void **state) {
    struct fixture *f = *state;
    uint64_t before = os_monotonic_ns(f->os);
    os_sleep_ns(f->os, 2000000);
    assert_true(os_monotonic_ns(f->os) >= before + 2000000);
    assert_true(os_wall_us(f->os) > UINT64_C(1700000000) * 1000000); /* after 2023 */
}

static void test_random(void **state) {
    struct fixture *f = *state;
    uint8_t a[300] = {0};
    uint8_t b[300] = {0};
    assert_int_equal(os_random(f->os, a, sizeof a), 0);
    assert_int_equal(os_random(f->os, b, sizeof b), 0);
    assert_memory_not_equal(a, b, sizeof a);
}

static void set_flag(void *flag) {
    *(int *)flag = 1;
}

static void test_thread(void **state) {
    struct fixture *f = *state;
    struct os_thread *thread = NULL;
    int flag = 0;
    assert_int_equal(os_thread_start(f->os, "test", set_flag, &flag, &thread), 0);
    os_thread_join(f->os, thread);
    assert_int_equal(flag, 1);
}

/* One step of the random run, on one of the two; everything it shows goes to out. */
struct step {
    unsigned kind;
    const char *path;
    const char *other;
    size_t size;
    uint64_t offset;
    uint8_t fill;
};

static int step_file(const struct fixture *f, const struct step *s, struct buffer *out) {
    struct os_file *file = NULL;
    unsigned flags = s->kind == 0 ? OS_OPEN_WRITE | OS_OPEN_CREATE : OS_OPEN_WRITE;
    int r = os_open(f->os, in(f, s->path), flags, &file);
    if (r)
        return r;
    uint8_t data[2000];
    memset(data, s->fill, sizeof data);
    if (s->kind == 0)
        r = os_write_all(f->os, file, data, s->size, s->offset);
    else if (s->kind == 1)
        r = os_truncate(f->os, file, s->offset);
    else
        r = os_sync(f->os, file);
    os_close(f->os, file);
    int loaded = os_load(f->os, in(f, s->path), 1 << 20, out);
    return r ? r : loaded;
}

static int step_run(const struct fixture *f, const struct step *s, struct buffer *out) {
    switch (s->kind) {
    case 3:
        return os_unlink(f->os, in(f, s->path));
    case 4:
        return os_mkdir(f->os, in(f, s->path));
    case 5:
        return os_rmdir(f->os, in(f, s->path));
    case 6:
        return os_rename(f->os, in(f, s->path), in(f, s->other));
    case 7:
        return os_sync_directory(f->os, in(f, s->path));
    default:
        return step_file(f, s, out);
    }
}

static uint64_t next_random(uint64_t *x) {
    *x = *x * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return *x >> 33;
}

static void test_side_by_side(void **state) {
    struct fixture *real = *state;
    static const char *paths[] = {"a", "b", "d", "e", "d/a", "d/b", "d/e", "e/a", "e/d", "d/e/a"};
    struct fixture twin = {0};
    assert_int_equal(sim_new(1, &twin.sim), 0);
    twin.os = sim_os(twin.sim);
    uint64_t x = 1;
    for (int i = 0; i < 6000; i++) {
        struct step s = {.kind = (unsigned)next_random(&x) % 8,
                         .path = paths[next_random(&x) % ARRAY_LENGTH(paths)],
                         .other = paths[next_random(&x) % ARRAY_LENGTH(paths)],
                         .size = next_random(&x) % 2000,
                         .offset = next_random(&x) % 3000,
                         .fill = (uint8_t)next_random(&x)};
        struct buffer expected = BUFFER_INIT;
        struct buffer found = BUFFER_INIT;
        int r = step_run(real, &s, &expected);
        int q = step_run(&twin, &s, &found);
        if (r != q || !bytes_equal(buffer_bytes(&expected), buffer_bytes(&found)))
            fail_msg("step %d: kind %u of %s (%s): real %d, twin %d", i, s.kind, s.path, s.other, r,
                     q);
        buffer_deinit(&expected);
        buffer_deinit(&found);
    }
    sim_free(twin.sim);
}

int main(void) {
    static bool real = false, simulated = true;
#define ON(test, where)                                                                            \
    { #test " (" #where ")", test, setup, teardown, &where }
#define ON_BOTH(test) ON(test, real), ON(test, simulated)
    const struct CMUnitTest tests[] = {
        ON_BOTH(test_open),
        ON_BOTH(test_read_and_write),
        ON_BOTH(test_read_only),
        ON_BOTH(test_append),
        ON_BOTH(test_direct),
        ON_BOTH(test_truncate),
        ON_BOTH(test_lock),
        ON_BOTH(test_map),
        ON_BOTH(test_unlink),
        ON_BOTH(test_rename),
        ON_BOTH(test_rename_directory),
        ON_BOTH(test_directories),
        ON_BOTH(test_list),
        ON_BOTH(test_long_names),
        ON_BOTH(test_disk_space),
        ON_BOTH(test_clock),
        ON_BOTH(test_random),
        ON_BOTH(test_thread),
        ON(test_side_by_side, real),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
