/* SPDX-License-Identifier: Apache-2.0 */
/* Pages of dead letters over all kinds: where processes share a journal two kinds may have letters
 * of one number. The boxes are the test's own. */
#include "serve/letters.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { LETTERS = 6 };

/* Descending. */
struct box {
    lsn_t numbers[LETTERS];
    size_t n;
    bool away;
};

static int page(void *store, lsn_t below, size_t max, lsn_t *out, size_t *ret_n,
                char why[WORK_LETTER_WHY_MAX]) {
    const struct box *box = store;
    size_t n = 0;
    if (box->away) {
        snprintf(why, WORK_LETTER_WHY_MAX, "it is away");
        return WORK_LETTER_E_UNREACHABLE;
    }
    for (size_t i = 0; i < box->n && n < max; i++)
        if (below == 0 || box->numbers[i] < below)
            out[n++] = box->numbers[i];
    *ret_n = n;
    return 0;
}

static bool has(const struct box *box, lsn_t number) {
    for (size_t i = 0; i < box->n; i++)
        if (box->numbers[i] == number)
            return true;
    return false;
}

static int read_some(void *store, const lsn_t *numbers, size_t n,
                     void (*each)(void *context, const struct work_letter *letter), void *context,
                     char why[WORK_LETTER_WHY_MAX] UNUSED) {
    for (size_t i = n; i-- > 0;) {
        const struct work_letter letter = {.record = {.lsn = numbers[i]},
                                           .changed = WORK_LETTER_NOBODY_KNOWS};
        if (has(store, numbers[i]))
            each(context, &letter);
    }
    return 0;
}

static const struct letter_box_ops box_ops = {.page = page, .read = read_some};
static const struct work_store_ops works[DATA_STORES] = {[DATA_POINTS] = {.name = "points"},
                                                         [DATA_EVENTS] = {.name = "events"},
                                                         [DATA_TASKS] = {.name = "tasks"}};
static struct data_store_ops store_ops[DATA_STORES];
static struct box boxes[DATA_STORES];
static struct letters_of letters;

static int setup(void **state UNUSED) {
    letters = (struct letters_of){.data = calloc(1, sizeof *letters.data)};
    if (!letters.data)
        return -1;
    letters.data->shared = true;
    for (size_t i = 0; i < DATA_STORES; i++) {
        store_ops[i].work = &works[i];
        boxes[i] = (struct box){0};
        letters.data->stores[i].ops = &store_ops[i];
        letters.data->stores[i].letters = (struct letter_box){&box_ops, &boxes[i]};
    }
    return 0;
}

static int teardown(void **state UNUSED) {
    free(letters.data);
    return 0;
}

static void show(struct buffer *out, const struct letter_shown *shown) {
    buffer_append_format(out, "%s %u", shown->kind, (unsigned)shown->letter->record.lsn);
}

/* All pages, of so many each. */
static void assert_listed(unsigned kind, size_t limit, const char *expected) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    struct letters_query q = {.kind = kind, .limit = limit, .show = show, .between = ", "};
    char why[WORK_LETTER_WHY_MAX];
    do {
        size_t n = 0;
        if (out.size)
            buffer_append_string(&out, ", ");
        assert_int_equal(letters_list(&letters, &q, &out, &n, &q.from, why), 0);
        assert_true(n <= limit);
    } while (q.from.number);
    buffer_append_u8(&out, 0);
    assert_string_equal((const char *)out.data, expected);
}

static void test_pages_leave_none_out(void **state UNUSED) {
    boxes[DATA_POINTS] = (struct box){.numbers = {9, 7, 3}, .n = 3};
    boxes[DATA_EVENTS] = (struct box){.numbers = {9, 7, 1}, .n = 3};
    boxes[DATA_TASKS] = (struct box){.numbers = {9, 8, 7}, .n = 3};
    for (size_t limit = 1; limit <= 10; limit++)
        assert_listed(DATA_STORES, limit,
                      "points 9, events 9, tasks 9, tasks 8, points 7, events 7, tasks 7, "
                      "points 3, events 1");
    assert_listed(DATA_TASKS, 2, "tasks 9, tasks 8, tasks 7");
    letters.data->stores[DATA_EVENTS].letters = (struct letter_box){0};
    assert_listed(DATA_STORES, 2, "points 9, tasks 9, tasks 8, points 7, tasks 7, points 3");
}

static void test_what_cannot_be_asked_is_no_end(void **state UNUSED) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    const struct letters_query q = {.kind = DATA_STORES, .limit = 5, .show = show};
    struct letter_held held;
    struct letters_place next;
    char why[WORK_LETTER_WHY_MAX];
    size_t n;
    boxes[DATA_POINTS] = (struct box){.numbers = {9}, .n = 1};
    boxes[DATA_TASKS].away = true;
    assert_int_equal(letters_list(&letters, &q, &out, &n, &next, why), WORK_LETTER_E_UNREACHABLE);
    assert_string_equal(why, "it is away");
    letters.data->stores[DATA_TASKS].letters = (struct letter_box){0};
    assert_int_equal(letters_get(&letters, DATA_TASKS, 9, &held, why), WORK_LETTER_E_GONE);
}

static void test_no_letter_has_the_number_0(void **state UNUSED) {
    struct letter_held held;
    char why[WORK_LETTER_WHY_MAX];
    boxes[DATA_POINTS] = (struct box){.numbers = {9}, .n = 1};
    assert_int_equal(letters_get(&letters, DATA_POINTS, 8, &held, why), WORK_LETTER_E_GONE);
    assert_int_equal(letters_get(&letters, DATA_POINTS, 0, &held, why), WORK_LETTER_E_GONE);
    assert_int_equal(letters_get(&letters, DATA_POINTS, 9, &held, why), 0);
    letter_held_deinit(&held);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_pages_leave_none_out, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_cannot_be_asked_is_no_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_letter_has_the_number_0, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
