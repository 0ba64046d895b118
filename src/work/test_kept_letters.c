/* SPDX-License-Identifier: Apache-2.0 */
/* Dead letters beside a shared journal: the functions of journal/kept.h are the test's own, which
 * looks at what others see while they are read. */
#include "work/kept_letters.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { LETTERS_MAX = 8, PARTITION = 3 };

static struct {
    uint8_t keys[LETTERS_MAX][8];
    struct buffer values[LETTERS_MAX];
    size_t n;
    bool away;
    uint64_t seen_meanwhile; /* in the index, during the newest reading */
} log_state;
static struct kept_letters *letters;

int kept_open(struct os *os UNUSED, const struct kept_options *options UNUSED,
              struct kept **ret_kept, char why[GROUP_WHY_MAX] UNUSED) {
    *ret_kept = (struct kept *)&log_state;
    return 0;
}

struct kept *kept_close(struct kept *k UNUSED) {
    return NULL;
}

int kept_put(struct kept *k UNUSED, struct bytes key, struct bytes value,
             char why[GROUP_WHY_MAX] UNUSED) {
    size_t i = 0;
    while (i < log_state.n && memcmp(log_state.keys[i], key.data, sizeof log_state.keys[i]) != 0)
        i++;
    assert_true(i < LETTERS_MAX);
    log_state.n += i == log_state.n;
    memcpy(log_state.keys[i], key.data, sizeof log_state.keys[i]);
    buffer_clear(&log_state.values[i]);
    buffer_append_bytes(&log_state.values[i], value);
    return buffer_check(&log_state.values[i]);
}

int kept_read(struct kept *k UNUSED,
              void (*each)(void *context, struct bytes key, struct bytes value), void *context,
              char why[GROUP_WHY_MAX] UNUSED) {
    log_state.seen_meanwhile = work_letters_n(kept_letters_index(letters));
    for (size_t i = log_state.n; i-- > 0 && !log_state.away;)
        if (log_state.values[i].size)
            each(context, bytes_of(log_state.keys[i], sizeof log_state.keys[i]),
                 buffer_bytes(&log_state.values[i]));
    return log_state.away ? JOURNAL_E_UNAVAILABLE : 0;
}

/* ---- The rig ---- */

static int start(void **state UNUSED) {
    char why[GROUP_WHY_MAX];
    memset(&log_state, 0, sizeof log_state);
    return kept_letters_open(NULL, NULL, "points", &letters, why);
}

static int stop(void **state UNUSED) {
    letters = kept_letters_close(letters);
    for (size_t i = 0; i < LETTERS_MAX; i++)
        buffer_deinit(&log_state.values[i]);
    return 0;
}

static void keep(lsn_t lsn, const char *reason) {
    const struct journal_record record = {
        .lsn = lsn, .key_hash = 7 * lsn, .wall_us = 5, .payload = BYTES_LITERAL("payload")};
    assert_int_equal(kept_letters_keep(letters, PARTITION, &record, reason), 0);
}

static lsn_t number_of(lsn_t lsn) {
    return lsn * GROUP_PARTITIONS_MAX + PARTITION;
}

static int refresh(void) {
    char why[GROUP_WHY_MAX];
    return kept_letters_refresh(letters, why);
}

static void see(void *reason, const struct work_letter *letter) {
    assert_true(bytes_equal(letter->reason, bytes_of_string(*(const char **)reason)));
    assert_true(bytes_equal(letter->record.payload, BYTES_LITERAL("payload")));
    *(const char **)reason = NULL;
}

static bool reads(lsn_t lsn, const char *reason) {
    lsn_t number = number_of(lsn);
    assert_int_equal(kept_letters_read(letters, &number, 1, see, &reason), 0);
    return !reason;
}

/* ---- Tests ---- */

static void test_what_is_kept_is_read_until_it_is_dropped(void **state UNUSED) {
    char why[GROUP_WHY_MAX];
    for (lsn_t lsn = 1; lsn <= 4; lsn++)
        keep(lsn, lsn == 2 ? "two" : "other");
    assert_int_equal(refresh(), 0);
    assert_int_equal(work_letters_n(kept_letters_index(letters)), 4);
    assert_true(reads(2, "two"));
    assert_int_equal(kept_letters_drop(letters, number_of(2), why), 0);
    keep(5, "five");
    assert_int_equal(refresh(), 0);
    assert_int_equal(work_letters_n(kept_letters_index(letters)), 4);
    assert_false(reads(2, "two"));
    assert_true(reads(5, "five"));
}

/* Another request has read them just now, and looks at what it read. */
static void test_while_they_are_read_anew_nobody_misses_one(void **state UNUSED) {
    keep(1, "one");
    keep(2, "two");
    assert_int_equal(refresh(), 0);
    assert_int_equal(refresh(), 0);
    assert_int_equal(log_state.seen_meanwhile, 2);
    log_state.away = true;
    assert_int_equal(refresh(), JOURNAL_E_UNAVAILABLE);
    assert_true(reads(1, "one"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_kept_is_read_until_it_is_dropped, start, stop),
        cmocka_unit_test_setup_teardown(test_while_they_are_read_anew_nobody_misses_one, start,
                                        stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
