/* SPDX-License-Identifier: Apache-2.0 */
/* The arena: alignment, the cap, reuse after a reset. */
#include "base/arena.h"

#include <stdalign.h>

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

static void test_alignment_and_contents(void **state) {
    (void)state;
    CLEANUP(arena_deinit) struct arena a = ARENA_INIT(1 << 20);
    uint8_t *parts[200];
    for (size_t i = 0; i < ARRAY_LENGTH(parts); i++) {
        parts[i] = arena_alloc(&a, i * 7);
        assert_non_null(parts[i]);
        assert_int_equal((uintptr_t)parts[i] % alignof(max_align_t), 0);
        memset(parts[i], (int)i, i * 7);
    }
    for (size_t i = 0; i < ARRAY_LENGTH(parts); i++)
        for (size_t j = 0; j < i * 7; j++)
            assert_int_equal(parts[i][j], i);
}

static void test_cap(void **state) {
    (void)state;
    CLEANUP(arena_deinit) struct arena a = ARENA_INIT(1024);
    assert_null(arena_alloc(&a, 1025));
    assert_null(arena_alloc(&a, SIZE_MAX));
    assert_non_null(arena_alloc(&a, 1000));
    assert_null(arena_alloc(&a, 100));
    assert_non_null(arena_alloc(&a, 16));
    assert_true(a.used_bytes <= a.max_bytes);
    arena_reset(&a);
    assert_int_equal(a.used_bytes, 0);
    assert_non_null(arena_alloc(&a, 1024));
    assert_null(arena_alloc(&a, 1));
}

static void test_reset_keeps_one_block(void **state) {
    (void)state;
    CLEANUP(arena_deinit) struct arena a = ARENA_INIT(1 << 20);
    void *first = arena_alloc(&a, 10);
    for (int i = 0; i < 100; i++)
        assert_non_null(arena_alloc(&a, 1000));
    arena_reset(&a);
    assert_ptr_equal(arena_alloc(&a, 10), first);
}

static void test_zeroed(void **state) {
    (void)state;
    CLEANUP(arena_deinit) struct arena a = ARENA_INIT(4096);
    memset(arena_alloc(&a, 256), 0xff, 256);
    arena_reset(&a);
    static const uint8_t zeros[256];
    uint8_t *p = arena_calloc(&a, 16, 16);
    assert_non_null(p);
    assert_memory_equal(p, zeros, 256);
    assert_null(arena_calloc(&a, SIZE_MAX / 2, 3));
}

static void test_strings(void **state) {
    (void)state;
    CLEANUP(arena_deinit) struct arena a = ARENA_INIT(256);
    assert_string_equal(arena_copy_string(&a, BYTES_LITERAL("text")), "text");
    assert_string_equal(arena_copy_string(&a, (struct bytes){0}), "");
    assert_string_equal(arena_format(&a, "%d-%s", 7, "x"), "7-x");
    assert_null(arena_format(&a, "%300d", 1));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alignment_and_contents),
        cmocka_unit_test(test_cap),
        cmocka_unit_test(test_reset_keeps_one_block),
        cmocka_unit_test(test_zeroed),
        cmocka_unit_test(test_strings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
