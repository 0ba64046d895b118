/* SPDX-License-Identifier: Apache-2.0 */
/* Hashes of scripts: the examples of FIPS 180-4, and every length around a block. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "redis/cluster.h"

#include <stdio.h>

static void test_known_hashes(void **state) {
    (void)state;
    static const char *const known[][2] = {
        {"", "da39a3ee5e6b4b0d3255bfef95601890afd80709"},
        {"abc", "a9993e364706816aba3e25717850c26c9cd0d89d"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "84983e441c3bd26ebaae4aa1f95129e5e54670f1"},
        {"return 1", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(known); i++) {
        struct redis_script script;
        redis_script_init(&script, known[i][0]);
        assert_string_equal(script.sha, known[i][1]);
        assert_ptr_equal(script.source, known[i][0]);
    }
}

/* The hash of all hashes of n times 'a', n = 0 … 200, one behind the other. */
static void test_every_length_around_a_block(void **state) {
    (void)state;
    char source[201] = "", all[201 * 40 + 1];
    struct redis_script script;
    for (size_t n = 0; n <= 200; n++) {
        memset(source, 'a', n);
        redis_script_init(&script, source);
        snprintf(all + 40 * n, 41, "%s", script.sha);
    }
    redis_script_init(&script, all);
    assert_string_equal(script.sha, "7088615e42aaa1f4ebf506af750412752e1ef172");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_hashes),
        cmocka_unit_test(test_every_length_around_a_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
