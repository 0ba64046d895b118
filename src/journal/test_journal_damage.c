/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Damage: every bit of a small journal is flipped, every file is cut at every size. What is damaged
 * is found and counted, no more than that is lost, and the rest is served.
 */
#include "journal/test_support.h"

enum { RECORDS = 14, SEGMENTS = 3, HEADER = 4096 };

static void segment_name(char out[OS_PATH_MAX], unsigned number) {
    assert_int_equal(os_path_join(out, DIRECTORY, "segment-%012u", number), 0);
}

/* Three segments, because it is opened three times. closed: the last time it was closed in order,
 * so that its last segment says that everything is synced. */
static struct bench make_journal(bool closed) {
    struct bench b = bench_new(7);
    uint64_t id = 0;
    for (unsigned life = 0; life < SEGMENTS; life++) {
        bench_open(&b);
        while (id < (life + 1) * RECORDS / SEGMENTS) {
            id++;
            append_one(b.j, id, 8 + id * 3);
            assert_int_equal(journal_commit(b.j), 0);
        }
        if (!closed && life + 1 == SEGMENTS)
            sim_kill(b.sim);
        bench_close(&b);
    }
    assert_int_equal(count_files(b.os, DIRECTORY, "segment-"), SEGMENTS);
    return b;
}

/* What is left of the journal after somebody changed its files. */
struct outcome {
    struct journal_recovery found;
    struct journal_stats stats;
    struct reading got;
    size_t missing;
    size_t set_aside;
};

static void outcome_deinit(struct outcome *o) {
    reading_deinit(&o->got);
}

static void look(struct sim *sim, struct outcome *o) {
    struct bench b = bench_new(1);
    sim_free(b.sim);
    b.sim = sim;
    b.os = sim_os(sim);
    bench_open(&b);
    *o = (struct outcome){.found = b.found};
    assert_int_equal(read_from(b.j, 1, &o->got), JOURNAL_E_END);
    for (size_t i = 0; i < o->got.n; i++)
        assert_int_equal(o->got.seen[i].lsn, o->got.seen[i].id); /* nothing false */
    o->missing = RECORDS - o->got.n;
    journal_stats(b.j, &o->stats);
    o->set_aside = count_files(b.os, DIRECTORY "/damaged", "segment-");
    struct reading again = READING_INIT;
    struct journal_stats stats;
    assert_int_equal(read_from(b.j, 1, &again), JOURNAL_E_END);
    journal_stats(b.j, &stats);
    assert_int_equal(stats.damaged_records, o->stats.damaged_records); /* counted once */
    assert_int_equal(again.n, o->got.n);
    reading_deinit(&again);
    /* The journal goes on after what it had. */
    lsn_t next = b.found.next_lsn;
    assert_int_equal(append_one(b.j, next, 50), next);
    assert_int_equal(journal_commit(b.j), 0);
    bench_close(&b);
}

static uint64_t file_size(struct os *os, const char *path) {
    struct os_file *file;
    uint64_t size;
    assert_int_equal(os_open(os, path, OS_OPEN_READ, &file), 0);
    assert_int_equal(os_size(os, file, &size), 0);
    os_close(os, file);
    return size;
}

static void look_at_flipped(const struct bench *b, const char *path, uint64_t bit,
                            struct outcome *o) {
    struct sim *sim;
    assert_int_equal(sim_clone(b->sim, bit + 1, &sim), 0);
    assert_int_equal(sim_flip_bit(sim, path, bit), 0);
    look(sim, o);
    sim_free(sim);
}

static void test_invariant_7_a_flipped_bit_loses_at_most_its_record(void **state UNUSED) {
    struct bench b = make_journal(true);
    size_t lost = 0;
    for (unsigned number = 1; number <= SEGMENTS; number++) {
        char path[OS_PATH_MAX];
        segment_name(path, number);
        uint64_t frames_end = HEADER + 512 * (RECORDS / SEGMENTS + 2);
        for (uint64_t bit = HEADER * 8; bit < frames_end * 8; bit++) {
            struct outcome o;
            look_at_flipped(&b, path, bit, &o);
            assert_true(o.missing <= 1);
            assert_int_equal(o.stats.damaged_records, o.missing);
            assert_int_equal(o.found.next_lsn, RECORDS + 1);
            assert_true(o.set_aside >= o.missing);
            lost += o.missing;
            outcome_deinit(&o);
        }
    }
    /* 40 bytes of header, 8 + 3 id of payload: each of their bits was found. */
    size_t bits = 0;
    for (size_t id = 1; id <= RECORDS; id++)
        bits += 8 * (48 + 3 * id);
    assert_true(lost >= bits);
    bench_free(&b);
}

static void test_invariant_7_a_flipped_bit_of_a_header_loses_nothing(void **state UNUSED) {
    struct bench b = make_journal(true);
    for (unsigned number = 1; number <= SEGMENTS; number++) {
        char path[OS_PATH_MAX];
        segment_name(path, number);
        for (uint64_t byte = 0; byte < HEADER; byte++) {
            struct outcome o;
            look_at_flipped(&b, path, byte * 8 + byte % 8, &o);
            assert_int_equal(o.missing, 0);
            assert_true(o.stats.damaged_bytes > 0);
            assert_int_equal(o.found.next_lsn, RECORDS + 1);
            outcome_deinit(&o);
        }
    }
    bench_free(&b);
}

/* After kill -9 the last commit or two cannot be told from a torn tail; everything before can. */
static void test_a_flipped_bit_after_a_kill_is_damage_below_the_last_mark(void **state UNUSED) {
    struct bench b = make_journal(false);
    char path[OS_PATH_MAX];
    segment_name(path, SEGMENTS);
    for (uint64_t bit = HEADER * 8; bit < (HEADER + 512 * 7) * 8; bit += 3) {
        struct outcome o;
        look_at_flipped(&b, path, bit, &o);
        assert_true(o.missing <= 2);
        if (o.missing && o.got.seen[o.got.n - 1].lsn == RECORDS)
            assert_int_equal(o.stats.damaged_records, 1);
        for (size_t i = 0; i < o.got.n; i++) /* what is lost is the hit one, or the end */
            assert_true(o.got.seen[i].lsn == i + 1 || o.missing == 1);
        outcome_deinit(&o);
    }
    bench_free(&b);
}

static void test_a_truncated_segment_loses_only_what_was_cut(void **state UNUSED) {
    struct bench b = make_journal(true);
    for (unsigned number = 1; number <= SEGMENTS; number++) {
        char path[OS_PATH_MAX];
        segment_name(path, number);
        uint64_t whole = file_size(b.os, path);
        for (uint64_t size = 0; size < whole; size += size < HEADER ? 257 : 3) {
            struct sim *sim;
            struct os_file *file;
            struct outcome o;
            assert_int_equal(sim_clone(b.sim, size + 1, &sim), 0);
            assert_int_equal(os_open(sim_os(sim), path, OS_OPEN_WRITE, &file), 0);
            assert_int_equal(os_truncate(sim_os(sim), file, size), 0);
            os_close(sim_os(sim), file);
            look(sim, &o);
            assert_true(o.missing <= RECORDS / SEGMENTS + 1);
            if (o.missing)
                assert_true(o.stats.damaged_bytes + o.stats.damaged_records > 0);
            if (size > HEADER && number < SEGMENTS)
                assert_int_equal(o.stats.damaged_records, o.missing);
            outcome_deinit(&o);
            sim_free(sim);
        }
    }
    bench_free(&b);
}

static void note_sentence(void *context, const char *sentence) {
    (*(unsigned *)context)++;
    assert_non_null(strstr(sentence, "damaged"));
}

static void test_verify_names_damage(void **state UNUSED) {
    struct bench b = make_journal(true);
    struct journal_recovery found;
    unsigned sentences = 0;
    char path[OS_PATH_MAX];
    segment_name(path, 1);
    assert_int_equal(sim_flip_bit(b.sim, path, 100), 0);               /* header */
    assert_int_equal(sim_flip_bit(b.sim, path, (HEADER + 45) * 8), 0); /* record 1 */
    segment_name(path, 2);
    assert_int_equal(sim_flip_bit(b.sim, path, (HEADER + 520) * 8), 0); /* its second record */
    sim_set_faults(b.sim, NULL);
    assert_int_equal(journal_verify(b.os, DIRECTORY, note_sentence, &sentences, &found), 0);
    assert_int_equal(sentences, 3);
    assert_int_equal(found.damaged_records, 2);
    assert_int_equal(sim_disk_changes(b.sim), 0);
    bench_free(&b);
}

/* A group whose middle is damaged keeps its other records: damage is not a crash. */
static void test_damage_inside_a_group_loses_one_record(void **state UNUSED) {
    struct bench b = bench_new(9);
    struct outcome o;
    bench_open(&b);
    assert_int_equal(append_group(b.j, 1, RECORDS, 100, NULL), 0);
    assert_int_equal(journal_commit(b.j), 0);
    bench_close(&b);
    look_at_flipped(&b, DIRECTORY "/segment-000000000001", (HEADER + 144 * 5 + 60) * 8, &o);
    assert_int_equal(o.missing, 1);
    assert_int_equal(o.got.seen[5].lsn, 7);
    assert_int_equal(o.stats.damaged_records, 1);
    outcome_deinit(&o);
    bench_free(&b);
}

/* Both copies of the header of a journal's only segment: the salt is in a file of its own. */
static void test_invariant_7_a_lost_header_of_the_only_segment_loses_nothing(void **state UNUSED) {
    struct bench b = bench_new(9);
    struct outcome o;
    bench_open(&b);
    assert_int_equal(append_group(b.j, 1, RECORDS, 100, NULL), 0);
    assert_int_equal(journal_commit(b.j), 0);
    bench_close(&b);
    assert_int_equal(sim_flip_bit(b.sim, DIRECTORY "/segment-000000000001", 100), 0);
    look_at_flipped(&b, DIRECTORY "/segment-000000000001", 2048 * 8 + 100, &o);
    assert_int_equal(o.missing, 0);
    assert_true(o.stats.damaged_bytes > 0);
    outcome_deinit(&o);
    bench_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_invariant_7_a_lost_header_of_the_only_segment_loses_nothing),
        cmocka_unit_test(test_invariant_7_a_flipped_bit_loses_at_most_its_record),
        cmocka_unit_test(test_invariant_7_a_flipped_bit_of_a_header_loses_nothing),
        cmocka_unit_test(test_a_flipped_bit_after_a_kill_is_damage_below_the_last_mark),
        cmocka_unit_test(test_a_truncated_segment_loses_only_what_was_cut),
        cmocka_unit_test(test_verify_names_damage),
        cmocka_unit_test(test_damage_inside_a_group_loses_one_record),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
