/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dead letters of the store: why one is refused, the file and its copies, what an earlier version
 * left. (Random records about letters, with kills and power cuts, are among those of test_store.c
 * and test_store_sim.c.)
 */
#include "points/local/test_fixture.h"

#include "os/file.h"
#include "os/sim.h"
#include "points/local/dead.h"

static const char dir[] = "/data/points";
static const struct work_store_ops *const ops = &points_store_work_ops;

static void begin(struct fixture *f, struct sim **ret_sim) {
    assert_int_equal(sim_new(3, ret_sim), 0);
    fixture_init(f, sim_os(*ret_sim), dir, 3);
    assert_int_equal(fixture_open(f), 0);
    op_create(f, 0);
}

static void end(struct fixture *f, struct sim *sim) {
    fixture_deinit(f);
    sim_free(sim);
}

/* Applies the newest record, which is refused. */
static const char *refusal(struct fixture *f) {
    const struct journal_record *record = &f->log[f->n_log - 1];
    unsigned lane = work_lane_of_hash(record->key_hash, TEST_LANES);
    struct work_verdict verdict = {0};
    assert_int_equal(ops->apply(f->store, lane, &record, 1, &verdict), 0);
    assert_int_equal(verdict.outcome, WORK_REJECT);
    assert_int_equal(ops->reject(f->store, lane, record, verdict.reason), 0);
    return verdict.reason;
}

static void checkpoint(struct fixture *f) {
    assert_int_equal(points_store_checkpoint(f->store, NULL), 0);
}

static void reopen(struct fixture *f) {
    fixture_close(f);
    assert_int_equal(fixture_open(f), 0);
    assert_int_equal(replay(f), 0);
}

static void test_refusals(void **state) {
    (void)state;
    struct fixture f;
    struct sim *sim;
    begin(&f, &sim);
    op_misfit(&f, 1, BYTES_LITERAL("{}"));
    assert_int_equal(apply_from(&f, 1), 0);
    op_letter_replay(&f, &f.letters[0], false, false);
    assert_string_equal(refusal(&f), misfit_reason);
    op_upsert(&f, 0, 1);
    assert_int_equal(apply_from(&f, f.n_log), 0);
    op_letter_replay(&f, &f.letters[0], true, false);
    assert_string_equal(refusal(&f), work_letter_changed);
    compare(&f);
    op_letter_replay(&f, &f.letters[0], true, true);
    assert_int_equal(apply_from(&f, f.n_log), 0);
    op_letter_replay(&f, &f.letters[0], true, true);
    assert_string_equal(refusal(&f), work_letter_gone);
    op_letter_drop(&f, &f.letters[0]);
    assert_string_equal(refusal(&f), work_letter_gone);
    struct buffer junk = BUFFER_INIT;
    buffer_append_string(&junk, "junk");
    log_append(&f, &junk, 1, false);
    f.log[f.n_log - 1].flags = JOURNAL_LETTER;
    assert_string_equal(refusal(&f), work_letter_unknown);
    compare(&f);
    end(&f, sim);
}

/* A point that was deleted since has changed too, and no restart forgets it. */
static void test_deletes_are_changes(void **state) {
    (void)state;
    struct fixture f;
    struct sim *sim;
    begin(&f, &sim);
    op_misfit(&f, 1, BYTES_LITERAL("{}"));
    op_delete(&f, 0, 1);
    op_misfit(&f, 1, BYTES_LITERAL("{}"));
    assert_int_equal(apply_from(&f, 1), 0);
    compare(&f);
    checkpoint(&f);
    reopen(&f);
    compare(&f);
    op_letter_replay(&f, &f.letters[0], true, false);
    assert_string_equal(refusal(&f), work_letter_changed);
    op_letter_replay(&f, &f.letters[1], true, false);
    assert_int_equal(apply_from(&f, f.n_log), 0);
    compare(&f);
    end(&f, sim);
}

static void count_file(void *context, const char *name) {
    uint64_t *bytes = context;
    uint32_t generation;
    *bytes += dead_file_name(name, &generation);
}

static uint64_t files(struct fixture *f) {
    uint64_t n = 0;
    assert_int_equal(os_list(f->os, dir, count_file, &n), 0);
    return n;
}

/* Letters that are gone leave the file, while the store is open and when it is opened. */
static void test_the_file_is_copied(void **state) {
    (void)state;
    enum { LETTERS = 30 };
    struct fixture f;
    struct sim *sim;
    begin(&f, &sim);
    for (unsigned i = 0; i < LETTERS; i++)
        op_misfit(&f, i, BYTES_LITERAL("{}"));
    assert_int_equal(apply_from(&f, 1), 0);
    checkpoint(&f);
    compare(&f);
    for (unsigned i = 0; i < LETTERS - 1; i++) {
        op_letter_drop(&f, &f.letters[i]);
        assert_int_equal(apply_from(&f, f.n_log), 0);
        if (i % 7 == 0)
            checkpoint(&f);
        compare(&f);
    }
    checkpoint(&f);
    compare(&f);
    assert_int_equal(files(&f), 1);
    reopen(&f);
    compare(&f);
    op_misfit(&f, 1, BYTES_LITERAL("{}"));
    assert_int_equal(apply_from(&f, f.n_log), 0);
    checkpoint(&f);
    compare(&f);
    assert_int_equal(files(&f), 1);
    end(&f, sim);
}

/* Before there were marks a file had the numbers of letters that were gone: here they are lsns. */
static void test_numbers_of_an_earlier_version(void **state) {
    (void)state;
    struct buffer gone CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct fixture f;
    struct sim *sim;
    begin(&f, &sim);
    for (unsigned i = 0; i < 3; i++)
        op_misfit(&f, i, BYTES_LITERAL("{}"));
    assert_int_equal(apply_from(&f, 1), 0);
    checkpoint(&f);
    fixture_close(&f);
    buffer_append_u64(&gone, f.letters[1].lsn);
    buffer_append_u32(&gone, crc32c(0, gone.data, gone.size));
    assert_int_equal(os_replace(f.os, "/data/points/DEAD.dropped", buffer_bytes(&gone)), 0);
    f.letters[1].there = false;
    reopen(&f);
    compare(&f);
    op_upsert(&f, 0, 7);
    assert_int_equal(apply_from(&f, f.n_log), 0);
    checkpoint(&f);
    buffer_clear(&gone);
    assert_int_equal(os_load(f.os, "/data/points/DEAD.dropped", 100, &gone), OS_E_NOT_FOUND);
    reopen(&f);
    compare(&f);
    end(&f, sim);
}

/* ---- With threads ---- */

struct beside {
    struct fixture *f;
    atomic_bool stop;
    atomic_uint rounds;
    atomic_uint seen;
};

static void checkpoints(void *context) {
    struct beside *b = context;
    while (!atomic_load(&b->stop)) {
        if (points_store_checkpoint(b->f->store, NULL) == 0)
            atomic_fetch_add(&b->rounds, 1);
    }
}

static void see(void *context, const struct work_letter *letter) {
    struct beside *b = context;
    if (bytes_equal(letter->reason, bytes_of_string(misfit_reason)))
        atomic_fetch_add(&b->seen, 1);
}

static void reads(void *context) {
    struct beside *b = context;
    while (!atomic_load(&b->stop)) {
        lsn_t lsns[16];
        size_t n = 0;
        if (work_letters_page(ops->letters(b->f->store), 0, ARRAY_LENGTH(lsns), lsns, &n) == 0 &&
            ops->read_letters(b->f->store, lsns, n, see, b) == 0)
            atomic_fetch_add(&b->rounds, 1);
    }
}

/* Letters are read while they come and go, and while the file is written and copied. */
static void test_reading_beside_checkpoints(void **state) {
    (void)state;
    enum { ROUNDS = 300, ENOUGH = 20 };
    struct fixture f;
    struct sim *sim;
    struct os_thread *keeper, *reader;
    begin(&f, &sim);
    struct beside keeps = {.f = &f}, looks = {.f = &f};
    assert_int_equal(apply_from(&f, 1), 0);
    assert_int_equal(os_thread_start(os_real(), "keeper", checkpoints, &keeps, &keeper), 0);
    assert_int_equal(os_thread_start(os_real(), "reader", reads, &looks, &reader), 0);
    for (unsigned i = 0; i < ROUNDS || atomic_load(&keeps.rounds) < ENOUGH ||
                         atomic_load(&looks.rounds) < ENOUGH || atomic_load(&looks.seen) == 0;
         i++) {
        if (i < ROUNDS && i % 3 == 2)
            op_letter(&f);
        else if (i < ROUNDS)
            op_misfit(&f, i % IDS, BYTES_LITERAL("{}"));
        else
            continue;
        assert_int_equal(apply_from(&f, f.n_log), 0);
    }
    atomic_store(&keeps.stop, true);
    atomic_store(&looks.stop, true);
    os_thread_join(os_real(), keeper);
    os_thread_join(os_real(), reader);
    compare(&f);
    checkpoint(&f);
    reopen(&f);
    compare(&f);
    end(&f, sim);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_deletes_are_changes),
        cmocka_unit_test(test_the_file_is_copied),
        cmocka_unit_test(test_numbers_of_an_earlier_version),
        cmocka_unit_test(test_reading_beside_checkpoints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
