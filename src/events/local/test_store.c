/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store against a model that keeps every tag. SEED=n repeats a run.
 */
#include "events/local/test_fixture.h"

static uint64_t seed(void) {
    const char *text = getenv("SEED");
    return text ? strtoull(text, NULL, 10) : 1;
}

static void reopen(struct fixture *f) {
    fixture_close(f);
    assert_int_equal(fixture_open(f), 0);
    apply_all(f);
}

/* Tags in any order, erasures, checkpoints, and openings with replay, at random. */
static void random_run(uint64_t number, unsigned lanes) {
    struct fixture f;
    fixture_init(&f, number, lanes);
    assert_int_equal(fixture_open(&f), 0);
    for (unsigned step = 0; step < 30; step++) {
        log_some(&f, rng_below(&f.rng, 300));
        apply_all(&f);
        if (rng_below(&f.rng, 3) == 0)
            assert_int_equal(events_store_checkpoint(f.store, NULL), 0);
        if (rng_below(&f.rng, 5) == 0)
            reopen(&f);
        if (rng_below(&f.rng, 3) == 0)
            check_store(&f);
    }
    reopen(&f);
    check_store(&f);
    fixture_deinit(&f);
}

static void test_against_model(void **state) {
    (void)state;
    static const unsigned lanes[] = {1, 4, 7};
    for (size_t i = 0; i < ARRAY_LENGTH(lanes); i++)
        random_run(seed() + i, lanes[i]);
}

/* A bucket of more rows than 16 bits count, prices at both ends. */
static void test_a_large_bucket(void **state) {
    (void)state;
    struct fixture f;
    fixture_init(&f, seed(), 2);
    f.options.hot_bytes_max = 1 << 20;
    assert_int_equal(fixture_open(&f), 0);
    for (unsigned i = 0; i < 75000; i++) {
        struct event_tag tag = some_tag(&f);
        tag.time_ms = TEST_MINUTE * EVENT_MINUTE_MS + i % 60000;
        tag.measure = i % 2 ? INT32_MAX : INT32_MIN + (int32_t)(i % 3);
        log_tag(&f, i % COOKIES, tag, false);
        if (i == 30000) {
            apply_all(&f);
            assert_int_equal(events_store_checkpoint(f.store, NULL), 0);
        }
    }
    apply_all(&f);
    check_aggregates(&f, TEST_MINUTE - 1);
    reopen(&f);
    check_aggregates(&f, TEST_MINUTE);
    fixture_deinit(&f);
}

/* A cookie that nobody has, a limit of nothing. */
static void test_nothing(void **state) {
    (void)state;
    struct fixture f;
    fixture_init(&f, seed(), 0);
    assert_int_equal(fixture_open(&f), 0);
    assert_int_equal(events_store_lanes(f.store), 4);
    check_store(&f);
    log_some(&f, 100);
    apply_all(&f);
    check_profile(&f, 1, INT64_MIN, INT64_MAX, 0);
    check_profile(&f, 1, 5, 5, 10);
    assert_int_equal(events_store_checkpoint(f.store, NULL), 0);
    check_profile(&f, 1, INT64_MIN, INT64_MAX, 0);
    fixture_deinit(&f);
}

/* It loses nothing: what it froze is read, erased, and is in the next one. */
static void test_a_checkpoint_that_fails(void **state) {
    (void)state;
    struct fixture f;
    fixture_init(&f, seed(), 3);
    f.options = (struct events_store_options){.lanes = 3, .hot_bytes_max = 8 << 20};
    assert_int_equal(fixture_open(&f), 0);
    for (unsigned round = 0; round < 4; round++) {
        log_some(&f, 300);
        apply_all(&f);
        expect_failure(&f);
        log_some(&f, 100);
        for (unsigned cookie = 0; cookie < COOKIES; cookie += 3)
            log_erase(&f, cookie);
        log_some(&f, 50);
        apply_all(&f);
        check_store(&f);
        expect_failure(&f);
        if (round < 3) /* the last time it is killed as it is */
            assert_int_equal(events_store_checkpoint(f.store, NULL), 0);
        check_store(&f);
    }
    reopen(&f);
    check_store(&f);
    fixture_deinit(&f);
}

/* While what is frozen cannot be written and as much is hot again, apply says retry. */
static void test_memory_is_bounded(void **state) {
    (void)state;
    struct fixture f;
    struct work_verdict v = {.outcome = WORK_OK};
    fixture_init(&f, seed(), 1);
    f.options = (struct events_store_options){.lanes = 1, .hot_bytes_max = 16 << 10};
    assert_int_equal(fixture_open(&f), 0);
    log_some(&f, 2000);
    const struct journal_record *first = &f.log[0].record;
    assert_int_equal(events_store_work_ops.apply(f.store, 0, &first, 1, &v), 0);
    expect_failure(&f);
    for (size_t i = 1; i < f.n_log && v.outcome == WORK_OK; i++) {
        const struct journal_record *record = &f.log[i].record;
        assert_int_equal(events_store_work_ops.apply(f.store, 0, &record, 1, &v), 0);
    }
    assert_int_equal(v.outcome, WORK_RETRY);
    assert_int_equal(v.applied, 0);
    assert_in_range(events_store_dirty_bytes(f.store), 16 << 10, 24 << 10);
    assert_int_equal(events_store_checkpoint(f.store, NULL), 0);
    assert_int_equal(events_store_dirty_bytes(f.store), 0);
    fixture_deinit(&f);
}

/* What does not decode becomes a dead letter; the rest goes on. */
static void test_dead_letters(void **state) {
    (void)state;
    struct fixture f;
    struct events_store_stats stats;
    struct buffer bad = BUFFER_INIT;
    fixture_init(&f, seed(), 3);
    assert_int_equal(fixture_open(&f), 0);
    log_some(&f, 50);
    buffer_append_string(&bad, "no record");
    log_append(&f, &bad, 7);
    log_some(&f, 50);
    apply_all(&f);
    check_store(&f);
    assert_int_equal(events_store_checkpoint(f.store, NULL), 0);
    fixture_close(&f);
    assert_int_equal(fixture_open(&f), 0);
    events_store_stats(f.store, &stats);
    assert_int_equal(stats.dead_letters, 1);
    fixture_deinit(&f);
}

/* A record about the letter, for its lane. */
static void log_letter(struct fixture *f, lsn_t letter, uint64_t hash, struct bytes payload) {
    struct buffer b = BUFFER_INIT;
    const struct work_letter_record about = {.op = payload.size ? WORK_LETTER_REPLAY
                                                                : WORK_LETTER_DROP,
                                             .letter = letter,
                                             .payload = payload};
    work_letter_encode(&b, &about);
    log_append(f, &b, hash);
    f->log[f->n_log - 1].record.flags = JOURNAL_LETTER;
}

static size_t letters_there(struct fixture *f) {
    return (size_t)work_letters_n(events_store_work_ops.letters(f->store));
}

static void take_payload(void *context, const struct work_letter *letter) {
    struct buffer *out = context;
    buffer_append_bytes(out, letter->record.payload);
    assert_true(letter->reason.size > 5);
}

static void expect_letter(struct fixture *f, lsn_t lsn, const char *payload) {
    CLEANUP(buffer_deinit) struct buffer found = BUFFER_INIT;
    assert_int_equal(events_store_work_ops.read_letters(f->store, &lsn, 1, take_payload, &found),
                     0);
    assert_true(bytes_equal(buffer_bytes(&found), bytes_of_string(payload)));
}

static void reopen_store(struct fixture *f, bool checkpoint) {
    if (checkpoint)
        assert_int_equal(events_store_checkpoint(f->store, NULL), 0);
    fixture_close(f);
    assert_int_equal(fixture_open(f), 0);
    apply_all(f);
}

static uint64_t tags_of(struct fixture *f, struct bytes cookie) {
    CLEANUP(arena_deinit) struct arena arena = ARENA_INIT(1 << 20);
    struct event_profile profile = {.arena = &arena};
    assert_int_equal(events_store_profile(f->store, cookie, INT64_MIN, INT64_MAX, 200, &profile),
                     0);
    return profile.lists[0].n + profile.lists[1].n;
}

/* Letters are read, dropped, written again as a tag, once, and go with their user: in the
 * generation that they came in, and from the database. */
static void test_what_becomes_of_letters(void **state) {
    (void)state;
    struct fixture f;
    CLEANUP(buffer_deinit) struct buffer tag_bytes = BUFFER_INIT;
    const struct bytes cookie = BYTES_LITERAL("somebody");
    const uint64_t hash = event_key_hash(cookie);
    struct event_tag tag = {.time_ms = 1650000000000, .cookie = cookie};
    for (unsigned i = 1; i < EVENT_COLLECTIONS_FIXED; i++)
        tag.ids[i] = i;
    event_record_encode_tag(&tag_bytes, &tag, false);
    fixture_init(&f, seed(), 3);
    assert_int_equal(fixture_open(&f), 0);
    for (unsigned round = 0; round < 2; round++) { /* persisted before, or not */
        lsn_t letters[4];
        for (unsigned i = 0; i < 4; i++) {
            struct buffer bad = BUFFER_INIT;
            buffer_append_string(&bad, "no record");
            log_append(&f, &bad, hash);
            letters[i] = f.n_log;
        }
        apply_all(&f);
        reopen_store(&f, round == 0);
        assert_int_equal(letters_there(&f), 4);
        expect_letter(&f, letters[2], "no record");
        log_letter(&f, letters[0], hash, (struct bytes){0});
        log_letter(&f, letters[1], hash, buffer_bytes(&tag_bytes));
        log_letter(&f, letters[1], hash, buffer_bytes(&tag_bytes)); /* gone */
        log_letter(&f, letters[2], hash, BYTES_LITERAL("no tag"));
        apply_all(&f);
        assert_int_equal(letters_there(&f), 2);
        assert_int_equal(tags_of(&f, cookie), 1);
        reopen_store(&f, round == 0);
        assert_int_equal(letters_there(&f), 2);
        assert_int_equal(tags_of(&f, cookie), 1);
        struct buffer erase = BUFFER_INIT;
        event_record_encode_erase(&erase, cookie);
        log_append(&f, &erase, hash);
        apply_all(&f);
        assert_int_equal(letters_there(&f), 0);
        reopen_store(&f, round == 0);
        assert_int_equal(letters_there(&f), 0);
        assert_int_equal(tags_of(&f, cookie), 0);
    }
    fixture_deinit(&f);
}

/* The dictionary comes back, in its order, and goes on from there. */
static void test_the_dictionary_is_kept(void **state) {
    (void)state;
    struct fixture f;
    fixture_init(&f, seed(), 3);
    assert_int_equal(fixture_open(&f), 0);
    log_element(&f, "origin", 1, "one");
    log_element(&f, "other", 1, "uno");
    apply_all(&f);
    assert_int_equal(events_store_checkpoint(f.store, NULL), 0);
    log_element(&f, "origin", 2, "two");
    apply_all(&f);
    assert_int_equal(events_store_checkpoint(f.store, NULL), 0);
    fixture_close(&f);
    assert_int_equal(fixture_open(&f), 0);
    assert_int_equal(f.report.elements, 3);
    uint32_t origin = event_dictionary_collection(f.dictionary, bytes_of_string("origin"));
    uint32_t other = event_dictionary_collection(f.dictionary, bytes_of_string("other"));
    assert_int_equal(origin, EVENT_COLLECTION_ORIGIN);
    lsn_t lsn = 99;
    assert_int_equal(event_dictionary_find(f.dictionary, origin, bytes_of_string("two"), &lsn), 2);
    assert_int_equal(lsn, 0); /* nobody waits for the journal, which may have lost it */
    assert_int_equal(event_dictionary_find(f.dictionary, other, bytes_of_string("uno"), NULL), 1);
    log_element(&f, "origin", 3, "three");
    apply_all(&f);
    assert_int_equal(event_dictionary_find(f.dictionary, origin, bytes_of_string("three"), NULL),
                     3);
    fixture_deinit(&f);
}

/* An erasure that is durable and not applied hides what is; then what came after it shows. */
static void test_an_erasure_hides_at_once(void **state) {
    (void)state;
    struct fixture f;
    fixture_init(&f, 9, 2);
    f.options.hot_bytes_max = 1 << 20;
    assert_int_equal(fixture_open(&f), 0);
    for (unsigned i = 0; i < 5; i++)
        log_tag(&f, 7, some_tag(&f), false);
    log_tag(&f, 8, some_tag(&f), false);
    apply_all(&f);
    assert_int_equal(events_store_checkpoint(f.store, NULL), 0);
    uint64_t hash = event_key_hash(cookie_text(7));
    assert_true(events_store_takes_erasure(f.store, hash));
    log_erase(&f, 7);
    lsn_t erased = f.n_log;
    events_store_erased(f.store, hash, erased);
    check_profile(&f, 7, INT64_MIN, INT64_MAX, EVENT_PROFILE_KEEP); /* the model has erased */
    check_profile(&f, 8, INT64_MIN, INT64_MAX, EVENT_PROFILE_KEEP);
    log_tag(&f, 7, some_tag(&f), false);
    apply_all(&f);
    check_profile(&f, 7, INT64_MIN, INT64_MAX, EVENT_PROFILE_KEEP);
    for (lsn_t lsn = f.n_log + 1; events_store_takes_erasure(f.store, hash); lsn++)
        events_store_erased(f.store, hash, lsn); /* a bound */
    check_profile(&f, 8, INT64_MIN, INT64_MAX, EVENT_PROFILE_KEEP);
    fixture_deinit(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_erasure_hides_at_once),
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_against_model),
        cmocka_unit_test(test_a_large_bucket),
        cmocka_unit_test(test_a_checkpoint_that_fails),
        cmocka_unit_test(test_memory_is_bounded),
        cmocka_unit_test(test_dead_letters),
        cmocka_unit_test(test_what_becomes_of_letters),
        cmocka_unit_test(test_the_dictionary_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
