/* SPDX-License-Identifier: Apache-2.0 */
/* Aliases: how long what was heard holds, and that what was forgotten does not come back. */
#include "points/aliases.h"
#include "points/test_support.h"

#define START UINT64_C(1000000000000)

static struct points_aliases aliases;
static char found[POINT_NAME_MAX + 1];

static int begin(void **state UNUSED) {
    points_aliases_init(&aliases);
    return 0;
}

static int end(void **state UNUSED) {
    points_aliases_deinit(&aliases);
    return 0;
}

static void learn(const char *name, const char *collection, uint64_t now_ns) {
    points_aliases_learn(&aliases, points_aliases_ask(&aliases, now_ns), bytes_of_string(name),
                         bytes_of_string(collection));
}

static bool find(const char *name, uint64_t now_ns) {
    return points_aliases_find(&aliases, bytes_of_string(name), now_ns, found);
}

static void test_one_asks_again_and_the_others_go_on(void **state UNUSED) {
    assert_false(find("a", START));
    learn("a", "one", START);
    assert_true(find("a", START + ALIAS_FRESH_NS - 1));
    assert_string_equal(found, "one");
    assert_false(find("a", START + ALIAS_FRESH_NS));
    assert_true(find("a", START + ALIAS_FRESH_NS)); /* another meanwhile */
    assert_true(find("a", START + 2 * ALIAS_FRESH_NS - 1));
    assert_false(find("a", START + 2 * ALIAS_FRESH_NS)); /* the first takes too long */
    assert_false(find("a", START + ALIAS_HOLD_NS));      /* and then nobody goes on */
    assert_false(find("a", START + ALIAS_HOLD_NS));
    learn("a", "two", START + ALIAS_HOLD_NS);
    assert_true(find("a", START + ALIAS_HOLD_NS));
    assert_string_equal(found, "two");
}

static void test_without_an_answer_it_holds_on(void **state UNUSED) {
    assert_false(points_aliases_keep(&aliases, BYTES_LITERAL("a"), START));
    learn("a", "one", START);
    assert_false(find("a", START + ALIAS_HOLD_NS));
    assert_true(points_aliases_keep(&aliases, BYTES_LITERAL("a"), START + ALIAS_HOLD_NS));
    assert_true(find("a", START + ALIAS_HOLD_NS));
}

static void test_what_is_forgotten_stays_so(void **state UNUSED) {
    learn("a", "one", START);
    learn("b", "two", START);
    learn("a", "", START); /* it is no alias any more */
    assert_false(find("a", START));
    assert_true(find("b", START));
    struct points_alias_question q = points_aliases_ask(&aliases, START);
    points_aliases_forget(&aliases);
    assert_false(find("b", START));
    points_aliases_learn(&aliases, q, BYTES_LITERAL("b"), BYTES_LITERAL("two"));
    assert_false(find("b", START)); /* the answer may be older than the change */
}

static void test_the_oldest_makes_room(void **state UNUSED) {
    char name[8];
    for (unsigned i = 0; i <= ALIASES_MAX; i++) {
        (void)snprintf(name, sizeof name, "%u", i);
        learn(name, "one", START + i);
    }
    assert_false(find("0", START + ALIASES_MAX));
    assert_true(find("1", START + ALIASES_MAX));
    assert_true(find(name, START + ALIASES_MAX));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_asks_again_and_the_others_go_on, begin, end),
        cmocka_unit_test_setup_teardown(test_without_an_answer_it_holds_on, begin, end),
        cmocka_unit_test_setup_teardown(test_what_is_forgotten_stays_so, begin, end),
        cmocka_unit_test_setup_teardown(test_the_oldest_makes_room, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
