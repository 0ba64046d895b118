/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of what becomes of a letter, and the index of letters. */
#include "work/letters.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void test_bytes(void **state) {
    (void)state;
    static const uint8_t drop[] = {1, 1, 0, 0, 0, 0, 0, 0, 9, 1, 0, 0, 0, 0, 0, 0};
    struct buffer b CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct work_letter_record record = {.op = WORK_LETTER_DROP, .letter = 0x109}, back;
    work_letter_encode(&b, &record);
    assert_int_equal(b.size, sizeof drop);
    assert_memory_equal(b.data, drop, sizeof drop);
    assert_true(work_letter_decode(buffer_bytes(&b), &back));
    assert_int_equal(back.letter, 0x109);
    record = (struct work_letter_record){
        .op = WORK_LETTER_REPLAY, .force = true, .letter = 3, .payload = BYTES_LITERAL("payload")};
    buffer_clear(&b);
    work_letter_encode(&b, &record);
    assert_int_equal(b.size, WORK_LETTER_HEADER + 7);
    assert_true(work_letter_decode(buffer_bytes(&b), &back));
    assert_true(back.force && back.op == WORK_LETTER_REPLAY && back.letter == 3);
    assert_true(bytes_equal(back.payload, record.payload));
}

static void test_foreign_bytes(void **state) {
    (void)state;
    uint8_t bytes[WORK_LETTER_HEADER + 1] = {1, 1, 0, 0, 0, 0, 0, 0, 9};
    const struct {
        size_t at;
        uint8_t value;
    } wrong[] = {{0, 0}, {0, 2}, {1, 0}, {1, 3}, {2, 2}, {3, 1}, {5, 1}, {8, 0}};
    struct work_letter_record back;
    assert_true(work_letter_decode(bytes_of(bytes, WORK_LETTER_HEADER), &back));
    assert_false(work_letter_decode(bytes_of(bytes, WORK_LETTER_HEADER + 1), &back));
    assert_false(work_letter_decode(bytes_of(bytes, WORK_LETTER_HEADER - 1), &back));
    for (size_t i = 0; i < ARRAY_LENGTH(wrong); i++) {
        uint8_t kept = bytes[wrong[i].at];
        bytes[wrong[i].at] = wrong[i].value;
        assert_false(work_letter_decode(bytes_of(bytes, WORK_LETTER_HEADER), &back));
        bytes[wrong[i].at] = kept;
    }
}

static void add(struct work_letters *l, lsn_t letter, uint64_t key_hash) {
    assert_int_equal(work_letters_add(l, letter, key_hash), 0);
}

static void test_index(void **state) {
    (void)state;
    struct work_letters l;
    lsn_t changed = 0;
    uint64_t hash = 0;
    work_letters_init(&l);
    assert_false(work_letters_change(&l, 7, 100));
    add(&l, 10, 7);
    add(&l, 20, 7);
    add(&l, 15, 8);
    add(&l, 15, 8); /* known */
    assert_int_equal(work_letters_n(&l), 3);
    assert_true(work_letters_change(&l, 7, 12)); /* only the older one */
    assert_false(work_letters_change(&l, 7, 13));
    assert_true(work_letters_find(&l, 10, 7, &changed));
    assert_int_equal(changed, 12);
    assert_true(work_letters_find(&l, 20, 7, &changed));
    assert_int_equal(changed, 0);
    assert_false(work_letters_find(&l, 10, 8, &changed));
    assert_true(work_letters_hash_of(&l, 15, &hash));
    assert_int_equal(hash, 8);
    work_letters_remove(&l, 15, 8);
    work_letters_remove(&l, 15, 8);
    assert_false(work_letters_hash_of(&l, 15, &hash));
    assert_int_equal(work_letters_n(&l), 2);
    struct buffer of CLEANUP(buffer_deinit) = BUFFER_INIT;
    work_letters_of_key(&l, 7, &of);
    assert_int_equal(of.size, 2 * sizeof(lsn_t));
    work_letters_deinit(&l);
}

static void test_pages(void **state) {
    (void)state;
    enum { LETTERS = 3000 };
    struct work_letters l;
    lsn_t page[100], below = 0, expected = LETTERS;
    size_t n = 0;
    work_letters_init(&l);
    for (lsn_t i = 1; i <= LETTERS; i++)
        add(&l, (i * 7) % LETTERS + 1, i % 5);
    do {
        assert_int_equal(work_letters_page(&l, below, ARRAY_LENGTH(page), page, &n), 0);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(page[i], expected--);
        below = n ? page[n - 1] : 0;
    } while (below > 1);
    assert_int_equal(expected, 0);
    work_letters_deinit(&l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_foreign_bytes),
        cmocka_unit_test(test_index),
        cmocka_unit_test(test_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
