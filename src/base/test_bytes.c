/* SPDX-License-Identifier: Apache-2.0 */
/* Buffers and readers: what is written is read back, and nothing is read past the end. */
#include "base/bytes.h"

#include <errno.h>

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

static void test_round_trip(void **state) {
    (void)state;
    CLEANUP(buffer_deinit) struct buffer b = BUFFER_INIT;
    buffer_append_u8(&b, 0xfe);
    buffer_append_u16(&b, 0xfedc);
    buffer_append_u32(&b, 0xfedcba98);
    buffer_append_u64(&b, 0xfedcba9876543210);
    buffer_append_block(&b, BYTES_LITERAL("block"));
    buffer_append_block(&b, BYTES_LITERAL(""));
    buffer_append_string(&b, "tail");
    assert_int_equal(buffer_check(&b), 0);

    struct reader r = reader_of(buffer_bytes(&b));
    assert_int_equal(reader_u8(&r), 0xfe);
    assert_int_equal(reader_u16(&r), 0xfedc);
    assert_int_equal(reader_u32(&r), 0xfedcba98);
    assert_true(reader_u64(&r) == 0xfedcba9876543210);
    assert_true(bytes_equal(reader_block(&r), BYTES_LITERAL("block")));
    assert_int_equal(reader_block(&r).size, 0);
    assert_true(bytes_equal(reader_bytes(&r, 4), BYTES_LITERAL("tail")));
    assert_false(r.failed);
    assert_ptr_equal(r.at, r.end);
}

static void test_every_truncation_fails(void **state) {
    (void)state;
    CLEANUP(buffer_deinit) struct buffer b = BUFFER_INIT;
    buffer_append_u64(&b, UINT64_MAX);
    buffer_append_block(&b, BYTES_LITERAL("xyz"));
    for (size_t size = 0; size < b.size; size++) {
        struct reader r = reader_of(bytes_of(b.data, size));
        uint64_t number = reader_u64(&r);
        struct bytes block = reader_block(&r);
        assert_true(r.failed);
        assert_true(number == (size < 8 ? 0 : UINT64_MAX));
        assert_int_equal(block.size, 0);
        assert_int_equal(reader_u8(&r), 0); /* once failed, always failed */
    }
}

static void test_block_longer_than_source(void **state) {
    (void)state;
    uint8_t raw[8];
    store_u32(raw, UINT32_MAX);
    struct reader r = reader_of(bytes_of(raw, sizeof raw));
    assert_int_equal(reader_block(&r).size, 0);
    assert_true(r.failed);
}

static void test_format_and_growth(void **state) {
    (void)state;
    CLEANUP(buffer_deinit) struct buffer b = BUFFER_INIT;
    for (int i = 0; i < 1000; i++)
        buffer_append_format(&b, "%03d,", i);
    assert_int_equal(buffer_check(&b), 0);
    assert_int_equal(b.size, 4000);
    assert_memory_equal(b.data + 4 * 517, "517,", 4);
    buffer_clear(&b);
    assert_int_equal(b.size, 0);
    assert_true(b.capacity >= 4000);
}

static void test_failure_is_remembered(void **state) {
    (void)state;
    CLEANUP(buffer_deinit) struct buffer b = BUFFER_INIT;
    buffer_append_string(&b, "x");
    assert_null(buffer_reserve(&b, SIZE_MAX));
    buffer_append_string(&b, "y");
    assert_int_equal(b.size, 1);
    assert_int_equal(buffer_check(&b), -ENOMEM);
    buffer_clear(&b);
    buffer_append_string(&b, "z");
    assert_int_equal(buffer_check(&b), 0);
    assert_true(bytes_equal(buffer_bytes(&b), BYTES_LITERAL("z")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_every_truncation_fails),
        cmocka_unit_test(test_block_longer_than_source),
        cmocka_unit_test(test_format_and_growth),
        cmocka_unit_test(test_failure_is_remembered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
