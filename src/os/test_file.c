/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file.h on the simulated system: whatever call fails and whenever the power goes, os_replace
 * leaves the old or the new contents, and what it returned 0 for stays.
 */
#include "os/file.h"
#include "os/sim.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { SEEDS = 40 };

static const char old_text[] = "the old contents";

static void ok(int r) {
    assert_int_equal(r, 0);
}

/* Longer than a few sectors, so that it can be torn. */
static struct bytes new_contents(void) {
    static char text[3000];
    memset(text, 'n', sizeof text);
    return bytes_of(text, sizeof text);
}

static struct sim *sim_with_old(uint64_t seed) {
    struct sim *s = NULL;
    ok(sim_new(seed, &s));
    ok(os_make_path(sim_os(s), "a/b"));
    ok(os_replace(sim_os(s), "a/b/f", bytes_of_string(old_text)));
    sim_set_faults(s, NULL);
    return s;
}

static bool holds(struct sim *s, struct bytes expected) {
    struct buffer b = BUFFER_INIT;
    ok(os_load(sim_os(s), "a/b/f", 1 << 20, &b));
    bool equal = bytes_equal(buffer_bytes(&b), expected);
    buffer_deinit(&b);
    return equal;
}

/* Old or new; new if the call said so. */
static void assert_outcome(struct sim *s, int result) {
    bool new = holds(s, new_contents());
    assert_true(new || holds(s, bytes_of_string(old_text)));
    assert_true(new || result != 0);
}

static void test_replace_under_power_cuts(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        bool faulted = true;
        for (uint64_t n = 1; faulted; n++) {
            struct sim *s = sim_with_old(seed);
            sim_set_faults(s, &(struct sim_faults){.crash_at = n});
            int r = os_replace(sim_os(s), "a/b/f", new_contents());
            faulted = sim_faulted(s);
            assert_true((r == 0) == !faulted);
            sim_power_cut(s);
            assert_outcome(s, r);
            ok(os_replace(sim_os(s), "a/b/f", new_contents())); /* whatever is left over */
            sim_power_cut(s);
            assert_outcome(s, 0);
            sim_free(s);
        }
    }
}

static void sweep_replace(int error, bool kill) {
    bool faulted = true;
    for (uint64_t n = 1; faulted; n++) {
        struct sim *s = sim_with_old(n);
        sim_set_faults(
            s, &(struct sim_faults){.fail_at = n, .fail_error = error, .short_transfers = true});
        int r = os_replace(sim_os(s), "a/b/f", new_contents());
        faulted = sim_faulted(s);
        assert_true(r == 0 || faulted);
        if (kill)
            sim_kill(s);
        else
            sim_power_cut(s);
        sim_set_faults(s, NULL);
        assert_outcome(s, r);
        sim_free(s);
    }
}

static void test_replace_under_failing_calls(void **state) {
    (void)state;
    static const int errors[] = {-EIO, -ENOMEM, OS_E_FULL, OS_E_INTERRUPTED};
    for (size_t i = 0; i < ARRAY_LENGTH(errors); i++) {
        sweep_replace(errors[i], false);
        sweep_replace(errors[i], true);
    }
}

/* A failed sync is not repeated on the same file: the second try starts from a fresh one. */
static void test_replace_after_a_failed_sync(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct sim *s = sim_with_old(seed);
        sim_set_faults(s, &(struct sim_faults){.refuse_error = -EIO});
        assert_int_equal(os_replace(sim_os(s), "a/b/f", new_contents()), -EIO);
        sim_set_faults(s, NULL);
        ok(os_replace(sim_os(s), "a/b/f", new_contents()));
        sim_power_cut(s);
        assert_outcome(s, 0);
        sim_free(s);
    }
}

static void test_replace_on_a_full_disk(void **state) {
    (void)state;
    struct sim *s = sim_with_old(1);
    struct os *os = sim_os(s);
    sim_set_space(s, 1000);
    assert_int_equal(os_replace(os, "a/b/f", new_contents()), OS_E_FULL);
    uint64_t free_bytes, total;
    ok(os_disk_space(os, "/", &free_bytes, &total));
    assert_int_equal(free_bytes, 1000); /* nothing is left behind */
    assert_true(holds(s, bytes_of_string(old_text)));
    sim_free(s);
}

static void test_replace_in_the_root(void **state) {
    (void)state;
    struct sim *s = NULL;
    ok(sim_new(1, &s));
    ok(os_replace(sim_os(s), "f", bytes_of_string("1")));
    ok(os_replace(sim_os(s), "/g", bytes_of_string("2")));
    sim_power_cut(s);
    struct buffer b = BUFFER_INIT;
    ok(os_load(sim_os(s), "f", 10, &b));
    ok(os_load(sim_os(s), "g", 10, &b)); /* appends */
    assert_true(bytes_equal(buffer_bytes(&b), BYTES_LITERAL("12")));
    buffer_deinit(&b);
    sim_free(s);
}

static void test_load(void **state) {
    (void)state;
    struct sim *s = sim_with_old(1);
    struct buffer b = BUFFER_INIT;
    size_t size = strlen(old_text);
    assert_int_equal(os_load(sim_os(s), "a/b/f", size - 1, &b), -EFBIG);
    assert_int_equal(os_load(sim_os(s), "a/b/g", size, &b), OS_E_NOT_FOUND);
    assert_int_equal(b.size, 0);
    ok(os_load(sim_os(s), "a/b/f", size, &b));
    assert_int_equal(b.size, size);
    for (uint64_t n = 1; n <= 3; n++) { /* open, size, read */
        sim_set_faults(s, &(struct sim_faults){.fail_at = n, .fail_error = -EIO});
        assert_int_equal(os_load(sim_os(s), "a/b/f", size, &b), -EIO);
        assert_int_equal(b.size, size);
    }
    buffer_deinit(&b);
    sim_free(s);
}

static void ignore_name(void *context UNUSED, const char *name UNUSED) {
}

static bool is_directory(struct sim *s, const char *path) {
    return os_list(sim_os(s), path, ignore_name, NULL) == 0;
}

static void test_make_path(void **state) {
    (void)state;
    static const char *const paths[] = {"x/y/z", "/x/y/z", "x//y/./z/", "./x/y/z//"};
    for (size_t i = 0; i < ARRAY_LENGTH(paths); i++) {
        struct sim *s = NULL;
        ok(sim_new(i, &s));
        ok(os_make_path(sim_os(s), paths[i]));
        ok(os_make_path(sim_os(s), paths[i]));
        sim_power_cut(s);
        assert_true(is_directory(s, "x/y/z"));
        ok(os_replace(sim_os(s), "f", bytes_of_string("")));
        assert_int_equal(os_make_path(sim_os(s), "f/d"), -ENOTDIR);
        assert_int_equal(os_make_path(sim_os(s), ""), -EINVAL);
        ok(os_make_path(sim_os(s), "/"));
        sim_free(s);
    }
}

/* Killed at any change and started again: then it is durable, though the first had made a part. */
static void test_make_path_resumed(void **state) {
    (void)state;
    bool faulted = true;
    for (uint64_t n = 1; faulted; n++) {
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
            struct sim *s = NULL;
            ok(sim_new(seed, &s));
            sim_set_faults(s, &(struct sim_faults){.crash_at = n});
            int r = os_make_path(sim_os(s), "x/y/z");
            faulted = sim_faulted(s);
            assert_true((r == 0) == !faulted);
            sim_kill(s);
            ok(os_make_path(sim_os(s), "x/y/z"));
            sim_power_cut(s);
            assert_true(is_directory(s, "x/y/z"));
            sim_free(s);
        }
    }
}

static void test_remove(void **state) {
    (void)state;
    struct sim *s = sim_with_old(1);
    ok(os_remove(sim_os(s), "a/b/f"));
    ok(os_remove(sim_os(s), "a/b/f"));
    sim_set_faults(s, &(struct sim_faults){.fail_at = 1, .fail_error = -EIO});
    assert_int_equal(os_remove(sim_os(s), "a/b/f"), -EIO);
    sim_free(s);
}

static void test_path_join(void **state) {
    (void)state;
    char out[OS_PATH_MAX];
    ok(os_path_join(out, "/data", "%04u.seg", 7u));
    assert_string_equal(out, "/data/0007.seg");
    char longest[OS_PATH_MAX];
    memset(longest, 'x', sizeof longest);
    longest[OS_PATH_MAX - 3] = '\0';
    ok(os_path_join(out, longest, "%s", "y"));
    assert_int_equal(os_path_join(out, longest, "%s", "yy"), -ENAMETOOLONG);
    longest[OS_PATH_MAX - 3] = 'x';
    longest[OS_PATH_MAX - 1] = '\0';
    assert_int_equal(os_path_join(out, longest, "%s", ""), -ENAMETOOLONG);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replace_under_power_cuts),
        cmocka_unit_test(test_replace_under_failing_calls),
        cmocka_unit_test(test_replace_after_a_failed_sync),
        cmocka_unit_test(test_replace_on_a_full_disk),
        cmocka_unit_test(test_replace_in_the_root),
        cmocka_unit_test(test_load),
        cmocka_unit_test(test_make_path),
        cmocka_unit_test(test_make_path_resumed),
        cmocka_unit_test(test_remove),
        cmocka_unit_test(test_path_join),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
