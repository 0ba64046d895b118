/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stores rely on: new files are counted, and a merge that has no memory is told from damage,
 * and is over when there is memory again. Compactions that fail are counted.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "keyed/database.h"
#include "os/test_wait.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static _Atomic int merge_error; /* what merging answers */

static int merge(struct bytes key UNUSED, const struct bytes *values, size_t n,
                 struct buffer *out) {
    for (size_t i = 0; i < n; i++)
        buffer_append_bytes(out, values[i]);
    return merge_error;
}

struct fixture {
    char directory[40];
    struct database d;
};

static void fixture_init(struct fixture *f) {
    const struct database_options options = {
        .cache_bytes = 1 << 20, .merge = merge, .merge_name = "test"};
    char why[256];
    *f = (struct fixture){.directory = "/tmp/millrace-keyed-XXXXXX"};
    assert_non_null(mkdtemp(f->directory));
    assert_int_equal(database_open(&f->d, os_real(), f->directory, &options, why, sizeof why), 0);
    merge_error = 0;
}

static void fixture_deinit(struct fixture *f) {
    database_close(&f->d);
    pid_t child = fork();
    if (child == 0) {
        execlp("rm", "rm", "-rf", "--", f->directory, (char *)NULL);
        _exit(127);
    }
    waitpid(child, NULL, 0);
}

static void ingest_some(struct fixture *f) {
    struct ingest i;
    assert_int_equal(ingest_begin(&i, &f->d), 0);
    ingest_merge(&i, BYTES_LITERAL("a"), BYTES_LITERAL("x"));
    ingest_merge(&i, BYTES_LITERAL("b"), BYTES_LITERAL("y"));
    assert_int_equal(ingest_finish(&i), 0);
    ingest_deinit(&i);
}

/* Fewer than are compacted. */
static void test_new_files_are_counted(void **state UNUSED) {
    struct fixture f;
    fixture_init(&f);
    for (unsigned n = 0; n < 4; n++) {
        assert_int_equal(database_new_files(&f.d), n);
        ingest_some(&f);
    }
    assert_false(database_is_behind(&f.d));
    fixture_deinit(&f);
}

static int read_a(struct base *base, size_t *ret_size) {
    CLEANUP(pinned_deinit) rocksdb_pinnableslice_t *slice = NULL;
    int r = base_get(base, BYTES_LITERAL("a"), &slice);
    if (r == 0)
        *ret_size = pinned_bytes(slice).size;
    return r;
}

static int walk(struct base *base, unsigned *ret_n) {
    struct base_cursor cursor;
    struct bytes key, value;
    int error = 0;
    *ret_n = 0;
    base_cursor_init(&cursor, base, false);
    for (base_cursor_seek(&cursor, BYTES_LITERAL("a"));
         base_cursor_at(&cursor, &key, &value, &error); base_cursor_advance(&cursor))
        ++*ret_n;
    base_cursor_deinit(&cursor);
    return error;
}

static void expect(struct fixture *f, int error, size_t size) {
    struct base *base;
    size_t found = 0;
    unsigned n;
    assert_int_equal(base_new(&f->d, &base), 0);
    base_take(base);
    assert_int_equal(read_a(base, &found), error);
    assert_int_equal(found, size);
    assert_int_equal(walk(base, &n), error);
    assert_int_equal(n, error ? 0 : 2);
    base_unref(base);
}

static void test_a_merge_without_memory(void **state UNUSED) {
    struct fixture f;
    fixture_init(&f);
    ingest_some(&f);
    ingest_some(&f);
    expect(&f, 0, 2);
    merge_error = -EBADMSG;
    expect(&f, -EBADMSG, 0);
    merge_error = -ENOMEM;
    expect(&f, -ENOMEM, 0);
    merge_error = 0;
    ingest_some(&f);
    expect(&f, 0, 3);
    fixture_deinit(&f);
}

static void test_compactions_that_fail_are_counted(void **state UNUSED) {
    enum { ENOUGH = 8 }; /* for a compaction */
    struct fixture f;
    fixture_init(&f);
    assert_int_equal(database_failures(&f.d), 0);
    merge_error = -EBADMSG;
    for (unsigned n = 0; n < ENOUGH; n++)
        ingest_some(&f);
    UNTIL(database_failures(&f.d) > 0);
    fixture_deinit(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_new_files_are_counted),
        cmocka_unit_test(test_a_merge_without_memory),
        cmocka_unit_test(test_compactions_that_fail_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
