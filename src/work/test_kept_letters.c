/* SPDX-License-Identifier: Apache-2.0 */
/* Dead letters beside a shared journal: the functions of journal/kept.h are the test's own, a log
 * that can be compacted, made anew and out of reach, and that counts what is read of it. */
#include "work/kept_letters.h"

#include "os/sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

enum { MESSAGES_MAX = 200, PARTITION = 3, OTHER = 4 };

struct message {
    bool there;
    uint8_t key[8];
    struct buffer value;
};
static struct {
    struct message messages[MESSAGES_MAX];
    size_t n;
    bool away;
    size_t followed, got; /* messages */
} log_state;
static struct sim *sim;
static struct kept_letters *letters;
static char why[WORK_LETTER_WHY_MAX];

int kept_open(struct os *os UNUSED, const struct kept_options *options UNUSED,
              struct kept **ret_kept, char sentence[GROUP_WHY_MAX] UNUSED) {
    *ret_kept = (struct kept *)&log_state;
    return 0;
}

struct kept *kept_close(struct kept *k UNUSED) {
    return NULL;
}

int kept_put(struct kept *k UNUSED, struct bytes key, struct bytes value,
             char sentence[GROUP_WHY_MAX] UNUSED) {
    if (log_state.away)
        return JOURNAL_E_UNAVAILABLE;
    assert_true(log_state.n < MESSAGES_MAX);
    struct message *m = &log_state.messages[log_state.n++];
    m->there = true;
    memcpy(m->key, key.data, sizeof m->key);
    buffer_append_bytes(&m->value, value);
    return buffer_check(&m->value);
}

static void tell(size_t i, kept_each *each, void *context) {
    const struct message *m = &log_state.messages[i];
    const struct kept_message message = {
        .offset = i, .key = bytes_of(m->key, sizeof m->key), .value = buffer_bytes(&m->value)};
    each(context, &message);
}

int kept_follow(struct kept *k UNUSED, uint64_t *at, kept_each *each, void *context,
                char sentence[GROUP_WHY_MAX]) {
    if (log_state.away) {
        snprintf(sentence, GROUP_WHY_MAX, "it is away");
        return JOURNAL_E_UNAVAILABLE;
    }
    if (*at > log_state.n)
        return KEPT_E_ANEW;
    for (; *at < log_state.n; ++*at) {
        if (log_state.messages[*at].there)
            tell(*at, each, context);
        log_state.followed++;
    }
    return 0;
}

int kept_get(struct kept *k UNUSED, const uint64_t *offsets, size_t n, kept_each *each,
             void *context, char sentence[GROUP_WHY_MAX] UNUSED) {
    for (size_t i = 0; i < n; i++) {
        assert_true(i == 0 || offsets[i - 1] < offsets[i]);
        log_state.got++;
        if (log_state.messages[offsets[i]].there)
            tell(offsets[i], each, context);
    }
    return 0;
}

/* Of each key the newest stays, of those that were taken away nothing. */
static void compact(void) {
    for (size_t i = 0; i < log_state.n; i++) {
        struct message *m = &log_state.messages[i];
        m->there = m->there && m->value.size;
        for (size_t k = i + 1; k < log_state.n; k++)
            m->there = m->there && memcmp(m->key, log_state.messages[k].key, sizeof m->key) != 0;
    }
}

/* ---- The rig ---- */

static void empty_log(void) {
    for (size_t i = 0; i < MESSAGES_MAX; i++)
        buffer_deinit(&log_state.messages[i].value);
    memset(&log_state, 0, sizeof log_state);
}

static int start(void **state UNUSED) {
    memset(&log_state, 0, sizeof log_state);
    return sim_new(1, &sim) || kept_letters_open(sim_os(sim), NULL, "points", false, &letters, why);
}

static int stop(void **state UNUSED) {
    letters = kept_letters_close(letters);
    sim = sim_free(sim);
    empty_log();
    return 0;
}

static int keep(lsn_t lsn, const char *reason) {
    const struct journal_record record = {
        .lsn = lsn, .key_hash = 7 * lsn, .wall_us = 5, .payload = BYTES_LITERAL("payload")};
    return kept_letters_keep(letters, PARTITION, &record, reason);
}

static lsn_t number_of(lsn_t lsn) {
    return lsn * GROUP_PARTITIONS_MAX + PARTITION;
}

static size_t page(lsn_t below, size_t max, lsn_t *out) {
    const struct letter_box box = kept_letters_box(letters);
    size_t n = 0;
    assert_int_equal(box.ops->page(box.store, below, max, out, &n, why), 0);
    return n;
}

static size_t count(void) {
    const struct letter_box box = kept_letters_box(letters);
    lsn_t numbers[MESSAGES_MAX];
    uint64_t n;
    assert_int_equal(box.ops->count(box.store, &n, why), 0);
    assert_int_equal(page(0, MESSAGES_MAX, numbers), n);
    return n;
}

static int drop(lsn_t lsn) {
    const struct letter_box box = kept_letters_box(letters);
    return box.ops->drop(box.store, number_of(lsn), why);
}

static void see(void *reason, const struct work_letter *letter) {
    assert_true(bytes_equal(letter->reason, bytes_of_string(*(const char **)reason)));
    assert_true(bytes_equal(letter->record.payload, BYTES_LITERAL("payload")));
    assert_true(letter->changed == WORK_LETTER_NOBODY_KNOWS);
    *(const char **)reason = NULL;
}

static bool reads(lsn_t lsn, const char *reason) {
    const struct letter_box box = kept_letters_box(letters);
    lsn_t number = number_of(lsn);
    assert_int_equal(box.ops->read(box.store, &number, 1, see, &reason, why), 0);
    return !reason;
}

static void sleep_ms(uint64_t ms) {
    os_sleep_ns(sim_os(sim), ms * UINT64_C(1000000));
}

/* ---- Tests ---- */

static void test_what_is_kept_is_read_until_it_is_dropped(void **state UNUSED) {
    for (lsn_t lsn = 1; lsn <= 4; lsn++)
        assert_int_equal(keep(lsn, lsn == 2 ? "two" : "other"), 0);
    assert_int_equal(count(), 4);
    assert_true(reads(2, "two"));
    log_state.got = 0;
    assert_int_equal(drop(2), 0);
    assert_int_equal(drop(2), WORK_LETTER_E_GONE);
    assert_int_equal(log_state.got, 0); /* no payload is needed for it */
    assert_int_equal(keep(5, "five"), 0);
    assert_int_equal(count(), 4);
    assert_false(reads(2, "two"));
    assert_true(reads(5, "five"));
    compact();
    assert_int_equal(count(), 4);
    assert_true(reads(5, "five"));
    log_state.away = true;
    assert_int_equal(drop(5), WORK_LETTER_E_UNREACHABLE);
    assert_string_equal(why, "it is away");
}

/* And follows each message once, however often it is asked. */
static void test_a_page_reads_no_more_than_it_shows(void **state UNUSED) {
    const struct letter_box box = kept_letters_box(letters);
    lsn_t numbers[8];
    for (lsn_t lsn = 20; lsn > 0; lsn--) /* of many partitions they come in no order */
        assert_int_equal(keep(lsn, "other"), 0);
    assert_int_equal(page(0, 3, numbers), 3);
    assert_true(numbers[0] == number_of(20) && numbers[2] == number_of(18));
    assert_int_equal(page(numbers[2], 8, numbers), 8);
    assert_true(numbers[0] == number_of(17) && numbers[7] == number_of(10));
    for (size_t i = 0; i < 3; i++)
        assert_true(reads(10, "other"));
    assert_int_equal(log_state.got, 3);
    assert_int_equal(log_state.followed, 20);
    assert_false(reads(21, "other"));
    const uint8_t strange[8] = {1};
    assert_int_equal(kept_put(NULL, bytes_of(strange, 8), BYTES_LITERAL("strange"), why), 0);
    bool gone = false;
    assert_int_equal(box.ops->settle(box.store, number_of(10), &gone, why), 0);
    assert_true(gone);
    assert_int_equal(count(), 19);
}

static void test_there_is_a_bound(void **state UNUSED) {
    lsn_t lsn = 1;
    for (; lsn <= KEPT_LETTERS_MAX - 1; lsn++)
        assert_int_equal(keep(lsn, "other"), 0);
    struct kept_letters *ours = letters;
    assert_int_equal(kept_letters_open(sim_os(sim), NULL, "points", false, &letters, why), 0);
    assert_int_equal(keep(lsn, "other"), 0);
    assert_int_equal(keep(lsn + 1, "other"), WORK_LETTER_E_FULL);
    letters = kept_letters_close(letters);
    letters = ours;
    sleep_ms(2000);
    assert_int_equal(keep(lsn + 1, "other"), WORK_LETTER_E_FULL); /* the other's counts */
    assert_int_equal(keep(1, "other"), 0);                        /* as it is there */
    assert_int_equal(count(), KEPT_LETTERS_MAX);
    assert_int_equal(drop(7), 0);
    assert_int_equal(keep(lsn + 1, "other"), 0);
    assert_int_equal(keep(lsn + 2, "other"), WORK_LETTER_E_FULL);
}

static void test_their_bytes_have_a_bound(void **state UNUSED) {
    static uint8_t payload[KEPT_LETTERS_BYTES_MAX / 2];
    struct journal_record record = {.lsn = 1, .payload = bytes_of(payload, sizeof payload)};
    assert_int_equal(kept_letters_keep(letters, OTHER, &record, ""), 0);
    record.lsn = 2;
    assert_int_equal(kept_letters_keep(letters, OTHER, &record, ""), WORK_LETTER_E_FULL);
    assert_int_equal(keep(3, "small"), 0);
}

static void test_a_log_that_is_made_anew_is_followed_from_its_beginning(void **state UNUSED) {
    for (lsn_t lsn = 1; lsn <= 3; lsn++)
        assert_int_equal(keep(lsn, "old"), 0);
    assert_int_equal(count(), 3);
    empty_log();
    assert_int_equal(count(), 0);
    assert_int_equal(keep(9, "new"), 0);
    assert_true(reads(9, "new"));
    assert_int_equal(count(), 1);
}

/* What was dropped may have left nothing behind that says so. */
static void test_who_was_away_for_long_begins_anew(void **state UNUSED) {
    assert_int_equal(keep(1, "one"), 0);
    assert_int_equal(keep(2, "two"), 0);
    assert_int_equal(count(), 2);
    uint8_t key[8];
    store_u64(key, number_of(1));
    assert_int_equal(kept_put(NULL, bytes_of(key, sizeof key), bytes_of(NULL, 0), why), 0);
    compact();
    sleep_ms(KEPT_REMOVED_MS);
    assert_int_equal(count(), 1);
    assert_true(reads(2, "two"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_kept_is_read_until_it_is_dropped, start, stop),
        cmocka_unit_test_setup_teardown(test_a_page_reads_no_more_than_it_shows, start, stop),
        cmocka_unit_test_setup_teardown(test_there_is_a_bound, start, stop),
        cmocka_unit_test_setup_teardown(test_their_bytes_have_a_bound, start, stop),
        cmocka_unit_test_setup_teardown(test_a_log_that_is_made_anew_is_followed_from_its_beginning,
                                        start, stop),
        cmocka_unit_test_setup_teardown(test_who_was_away_for_long_begins_anew, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
