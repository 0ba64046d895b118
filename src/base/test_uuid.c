/* SPDX-License-Identifier: Apache-2.0 */
/* UUIDs in every accepted form, and what is close to one. */
#include "base/uuid.h"

#include "base/hash.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

static void test_forms(void **state) {
    (void)state;
    static const char *const FORMS[] = {
        "123e4567-e89b-12d3-a456-426614174000",
        "123E4567-E89B-12D3-A456-426614174000",
        "123e4567e89b12d3a456426614174000",
        "{123e4567-e89b-12d3-a456-426614174000}",
        "urn:uuid:123e4567-e89b-12d3-a456-426614174000",
        "URN:UUID:123e4567-e89b-12d3-a456-426614174000",
    };
    for (size_t i = 0; i < ARRAY_LENGTH(FORMS); i++) {
        uint64_t high = 0, low = 0;
        assert_true(uuid_parse(bytes_of_string(FORMS[i]), &high, &low));
        assert_true(high == 0x123e4567e89b12d3);
        assert_true(low == 0xa456426614174000);
    }
}

static void test_refused(void **state) {
    (void)state;
    static const char *const BROKEN[] = {
        "",
        "1",
        "123e4567-e89b-12d3-a456-42661417400",
        "123e4567-e89b-12d3-a456-4266141740000",
        "123e4567-e89b-12d3-a456-42661417400g",
        "123e4567-e89b-12d3-a4564-26614174000",
        "123e4567ee89b-12d3-a456-426614174000",
        "123e4567e89b12d3a45642661417400-",
        "{123e4567-e89b-12d3-a456-426614174000",
        "{123e4567-e89b-12d3-a456-426614174000)",
        "{123e4567e89b12d3a456426614174000}",
        "urn:uuid:123e4567e89b12d3a456426614174000",
        "urn:guid:123e4567-e89b-12d3-a456-426614174000",
    };
    for (size_t i = 0; i < ARRAY_LENGTH(BROKEN); i++) {
        uint64_t high = 7, low = 8;
        if (uuid_parse(bytes_of_string(BROKEN[i]), &high, &low))
            fail_msg("accepted %s", BROKEN[i]);
        assert_true(high == 7 && low == 8);
    }
}

static void test_round_trip(void **state) {
    (void)state;
    char text[UUID_TEXT_BYTES + 1];
    uuid_format(0x00112233445566ff, 0x8899aabbccddeeff, text);
    assert_string_equal(text, "00112233-4455-66ff-8899-aabbccddeeff");
    for (uint64_t i = 0; i < 1000; i++) {
        uint64_t high, low;
        uuid_format(hash64_u64(i), hash64_u64(~i), text);
        assert_true(uuid_parse(bytes_of_string(text), &high, &low));
        assert_true(high == hash64_u64(i) && low == hash64_u64(~i));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
