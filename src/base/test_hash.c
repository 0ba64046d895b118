/* SPDX-License-Identifier: Apache-2.0 */
/* crc32c against published vectors, and its two paths against each other. */
#include "base/hash.h"

#include "base/bytes.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

static void test_known_values(void **state) {
    (void)state;
    uint8_t bytes[48] = {0};
    assert_int_equal(crc32c(0, NULL, 0), 0);
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
    /* RFC 3720, B.4 */
    assert_int_equal(crc32c(0, bytes, 32), 0x8a9136aa);
    memset(bytes, 0xff, 32);
    assert_int_equal(crc32c(0, bytes, 32), 0x62a8ab43);
    for (uint8_t i = 0; i < 32; i++)
        bytes[i] = i;
    assert_int_equal(crc32c(0, bytes, 32), 0x46dd794e);
    assert_int_equal(crc32c_portable(0, bytes, 32), 0x46dd794e);
    assert_int_equal(crc32c_portable(0, "123456789", 9), 0xe3069283);
}

static void fill(uint8_t *data, size_t size, uint64_t seed) {
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)hash64_u64(seed + i);
}

static void test_paths_agree(void **state) {
    (void)state;
    static uint8_t data[5000];
    fill(data, sizeof data, 1);
    for (size_t size = 0; size <= sizeof data - 16; size += size < 1000 ? 1 : 37) {
        const uint8_t *p = data + size % 16;
        uint32_t start = (uint32_t)hash64_u64(size);
        assert_int_equal(crc32c(start, p, size), crc32c_portable(start, p, size));
    }
}

static void test_continues(void **state) {
    (void)state;
    uint8_t data[1500];
    fill(data, sizeof data, 2);
    uint32_t whole = crc32c(0, data, sizeof data);
    for (size_t cut = 0; cut <= sizeof data; cut++)
        assert_int_equal(crc32c(crc32c(0, data, cut), data + cut, sizeof data - cut), whole);
}

static void test_hash64(void **state) {
    (void)state;
    /* The empty input's value is XXH3's published one. */
    assert_true(hash64("", 0) == 0x2d06800538d394c2u);
    assert_true(hash64("a", 1) != hash64("b", 1));
    assert_true(hash64_u64(0) == 0xe220a8397b1dcdafu);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_values),
        cmocka_unit_test(test_paths_agree),
        cmocka_unit_test(test_continues),
        cmocka_unit_test(test_hash64),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
