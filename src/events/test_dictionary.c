/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dictionary: ids are dense and the same for ever; a refused append leaves nothing; two threads
 * that create the same elements agree; what was there is there again after a restart.
 */
#include "events/test_support.h"

struct rig {
    struct journal_rig journal;
    struct event_dictionary *d;
};

static void init_within(struct rig *r, uint64_t bytes_max, struct budget *budget) {
    const struct event_dictionary_options options = {.bytes_max = bytes_max, .budget = budget};
    rig_init(&r->journal);
    assert_int_equal(event_dictionary_new(&options, &r->d), 0);
}

static void init_with(struct rig *r, uint64_t bytes_max) {
    init_within(r, bytes_max, NULL);
}

static void deinit(struct rig *r) {
    event_dictionary_free(r->d);
    rig_deinit(&r->journal);
}

static struct event_newcomer newcomer(const char *collection, const char *element) {
    return (struct event_newcomer){.collection = text_of(collection), .element = text_of(element)};
}

/* Appends n newcomers and no records; the result. */
static int append(struct rig *r, struct event_newcomer *newcomers, size_t n, lsn_t *ret_last) {
    lsn_t first = 0;
    int condition = 0;
    return event_dictionary_append(r->d, r->journal.j, newcomers, n, NULL, NULL, NULL, 0, &first,
                                   ret_last, &condition);
}

static uint32_t create(struct rig *r, const char *collection, const char *element) {
    struct event_newcomer one = newcomer(collection, element);
    lsn_t last;
    assert_int_equal(append(r, &one, 1, &last), 0);
    return one.id;
}

static uint32_t find(struct rig *r, const char *collection, const char *element) {
    return event_dictionary_find(r->d, event_dictionary_collection(r->d, text_of(collection)),
                                 text_of(element), NULL);
}

static void test_ids_are_dense(void **state UNUSED) {
    struct rig r;
    init_with(&r, 0);
    assert_int_equal(event_dictionary_collection(r.d, text_of("country")),
                     EVENT_COLLECTION_COUNTRY);
    assert_int_equal(event_dictionary_collection(r.d, text_of("category")),
                     EVENT_COLLECTION_CATEGORY);
    assert_int_equal(event_dictionary_collection(r.d, text_of("other")), EVENT_COLLECTION_NONE);
    for (uint32_t i = 1; i <= 1000; i++) {
        char name[16];
        snprintf(name, sizeof name, "e%u", i);
        assert_int_equal(find(&r, "origin", name), 0);
        assert_int_equal(create(&r, "origin", name), i);
        assert_int_equal(create(&r, "other", name), i);
        assert_int_equal(create(&r, "origin", name), i);
        assert_int_equal(find(&r, "other", name), i);
    }
    uint32_t other = event_dictionary_collection(r.d, text_of("other"));
    assert_int_equal(other, EVENT_COLLECTIONS_FIXED);
    assert_true(bytes_equal(event_dictionary_text(r.d, other, 1000), text_of("e1000")));
    assert_int_equal(event_dictionary_text(r.d, other, 1001).size, 0);
    assert_int_equal(event_dictionary_text(r.d, other, 0).size, 0);
    assert_int_equal(event_dictionary_text(r.d, 99, 1).size, 0);
    assert_int_equal(find(&r, "brand", "e1"), 0);
    deinit(&r);
}

static void test_the_empty_element_is_one(void **state UNUSED) {
    struct rig r;
    init_with(&r, 0);
    assert_int_equal(find(&r, "origin", ""), 0);
    assert_int_equal(create(&r, "origin", ""), 1);
    assert_int_equal(find(&r, "origin", ""), 1);
    deinit(&r);
}

/* An id is where place is told, and the records come behind their elements, in one group. */
struct placing {
    struct event_newcomer *newcomers;
    uint32_t seen[3];
    unsigned calls;
};
static void place(void *context) {
    struct placing *p = context;
    for (size_t i = 0; i < 3; i++)
        p->seen[i] = p->newcomers[i].id;
    p->calls++;
}

static void test_append_is_one_group(void **state UNUSED) {
    struct rig r;
    init_with(&r, 0);
    struct event_newcomer three[] = {newcomer("brand", "a"), newcomer("brand", "b"),
                                     newcomer("brand", "a")};
    struct placing placing = {.newcomers = three};
    struct journal_record record = {.kind = JOURNAL_KIND_EVENTS, .payload = text_of("x")};
    lsn_t first = 0, last = 0;
    int condition = 0;
    assert_int_equal(event_dictionary_append(r.d, r.journal.j, three, 3, place, &placing, &record,
                                             1, &first, &last, &condition),
                     0);
    assert_int_equal(placing.calls, 1);
    assert_int_equal(placing.seen[0], 1);
    assert_int_equal(placing.seen[1], 2);
    assert_int_equal(placing.seen[2], 1);
    assert_true(first + 2 == last && record.lsn == last);
    assert_true(three[0].lsn == first && three[1].lsn == first + 1 && three[2].lsn == first);
    /* All known: nothing is appended, and the lsns are told. */
    three[1].lsn = 0;
    lsn_t none = 77;
    assert_int_equal(append(&r, three, 3, &none), 0);
    assert_int_equal(none, 0);
    assert_true(three[1].lsn == first + 1 && journal_appended(r.journal.j) == last);
    deinit(&r);
}

static void test_refused_append_assigns_nothing(void **state UNUSED) {
    struct rig r;
    init_with(&r, 0);
    assert_int_equal(create(&r, "brand", "first"), 1);
    sim_set_faults(r.journal.sim, &(struct sim_faults){.refuse_error = OS_E_FULL});
    assert_true(journal_commit(r.journal.j) != 0); /* from now on it refuses */
    struct event_newcomer two[] = {newcomer("brand", "second"), newcomer("new", "thing")};
    lsn_t first = 0, last = 5;
    int condition = 0;
    assert_int_equal(event_dictionary_append(r.d, r.journal.j, two, 2, NULL, NULL, NULL, 0, &first,
                                             &last, &condition),
                     EVENTS_E_JOURNAL);
    assert_int_equal(condition, JOURNAL_E_UNAVAILABLE);
    assert_int_equal(last, 5);
    assert_int_equal(find(&r, "brand", "second"), 0);
    assert_int_equal(event_dictionary_collection(r.d, text_of("new")), EVENT_COLLECTION_NONE);
    sim_set_faults(r.journal.sim, NULL);
    for (int i = 0; i < 100 && journal_commit(r.journal.j) != 0; i++)
        os_sleep_ns(r.journal.os, 1000000000);
    assert_int_equal(create(&r, "brand", "third"), 2);
    assert_int_equal(create(&r, "new", "thing"), 1);
    deinit(&r);
}

static uint64_t bytes_of_dictionary(const struct rig *r) {
    struct event_dictionary_stats stats;
    event_dictionary_stats(r->d, &stats);
    return stats.bytes;
}

/* r is an empty one with room for 4,096 bytes. */
static void fill(struct rig *r) {
    struct event_newcomer last = newcomer("origin", "");
    char name[16];
    lsn_t lsn;
    uint32_t n = 0;
    int result = 0;
    while (n < 1000 && result == 0) {
        snprintf(name, sizeof name, "%u", n);
        last.element = text_of(name);
        result = append(r, &last, 1, &lsn);
        n += result == 0;
    }
    assert_int_equal(result, EVENTS_E_FULL);
    assert_true(n > 0 && n < 100);
    assert_int_equal(create(r, "origin", "0"), 1); /* what is known is no growth */
    struct event_newcomer other = newcomer("another", "x");
    assert_int_equal(append(r, &other, 1, &lsn), EVENTS_E_FULL);
    struct event_dictionary_stats stats;
    event_dictionary_stats(r->d, &stats);
    assert_int_equal(stats.elements, n);
    assert_in_range(stats.bytes, 4096 - 256, 4096);
    /* What is durable comes back although it is full. */
    const struct event_record record = {.op = EVENT_ELEMENT,
                                        .id = n + 1,
                                        .collection = text_of("origin"),
                                        .element = text_of("more")};
    assert_int_equal(event_dictionary_replay(r->d, 9, &record), 0);
    assert_int_equal(find(r, "origin", "more"), n + 1);
}

static void test_bounded(void **state UNUSED) {
    struct rig r;
    init_with(&r, 4096);
    fill(&r);
    deinit(&r);
}

static void test_invariant_6_elements_stay_within_their_part_of_the_budget(void **state UNUSED) {
    struct rig r;
    struct budget budget;
    budget_init(&budget, UINT64_C(32) * 4096);
    init_within(&r, 1 << 20, &budget);
    assert_int_equal(budget_used(&budget, BUDGET_DICTIONARY), bytes_of_dictionary(&r));
    fill(&r);
    assert_int_equal(budget_used(&budget, BUDGET_DICTIONARY), bytes_of_dictionary(&r));
    deinit(&r);
    assert_int_equal(budget_used(&budget, BUDGET_DICTIONARY), 0);
}

/* ---- Restore and replay ---- */

static int copy(void *context, uint64_t number, lsn_t lsn, struct bytes collection, uint32_t id,
                struct bytes element) {
    struct rig *to = context;
    struct event_dictionary_stats stats;
    event_dictionary_stats(to->d, &stats);
    assert_int_equal(stats.elements, number);
    return event_dictionary_restore(to->d, lsn, collection, id, element);
}

static void test_restore(void **state UNUSED) {
    struct rig from, to;
    uint64_t next;
    init_with(&from, 0);
    init_with(&to, 0);
    assert_int_equal(create(&from, "brand", "a"), 1);
    assert_int_equal(create(&from, "x", "a"), 1);
    assert_int_equal(create(&from, "brand", "b"), 2);
    lsn_t lsn = journal_appended(from.journal.j);
    assert_int_equal(event_dictionary_each(from.d, 0, lsn - 1, copy, &to, &next), 0);
    assert_int_equal(next, 2);
    assert_int_equal(event_dictionary_each(from.d, next, lsn, copy, &to, &next), 0);
    assert_int_equal(next, 3);
    assert_int_equal(find(&to, "brand", "b"), 2);
    assert_int_equal(find(&to, "x", "a"), 1);
    assert_int_equal(create(&to, "brand", "c"), 3);
    assert_int_equal(event_dictionary_restore(to.d, 1, text_of("brand"), 4, text_of("a")), -EPROTO);
    assert_int_equal(event_dictionary_restore(to.d, 1, text_of("brand"), 3, text_of("z")), -EPROTO);
    deinit(&from);
    deinit(&to);
}

static int replay(struct rig *r, const char *collection, uint32_t id, const char *element) {
    const struct event_record record = {.op = EVENT_ELEMENT,
                                        .collection = text_of(collection),
                                        .id = id,
                                        .element = text_of(element)};
    return event_dictionary_replay(r->d, 1, &record);
}

static void test_replay(void **state UNUSED) {
    struct rig r;
    init_with(&r, 0);
    assert_int_equal(create(&r, "brand", "a"), 1);
    assert_int_equal(replay(&r, "brand", 1, "a"), 0); /* known: nothing */
    assert_int_equal(replay(&r, "brand", 2, "b"), 0);
    assert_int_equal(replay(&r, "late", 1, "a"), 0);
    assert_int_equal(find(&r, "brand", "b"), 2);
    assert_int_equal(find(&r, "late", "a"), 1);
    assert_int_equal(replay(&r, "brand", 2, "a"), -EPROTO);       /* another id than it has */
    assert_int_equal(replay(&r, "brand", 2, "c"), -EPROTO);       /* the id of another */
    assert_int_equal(replay(&r, "brand", 1 << 30, "c"), -EPROTO); /* too far */
    assert_int_equal(create(&r, "brand", "c"), 3);
    deinit(&r);
}

/* Records that the journal lost cost the elements that stood in them, not those behind them; and
 * what used their ids does not come to mean another element, here or after a restart. */
static void test_lost_elements(void **state UNUSED) {
    struct rig r, restored;
    uint64_t next;
    init_with(&r, 0);
    init_with(&restored, 0);
    assert_int_equal(replay(&r, "brand", 1, "a"), 0);
    assert_int_equal(replay(&r, "brand", 40, "d"), 0);
    assert_int_equal(replay(&r, "brand", 41, "e"), 0);
    assert_int_equal(replay(&r, "brand", 40, "c"), -EPROTO);
    assert_null(event_dictionary_text(r.d, EVENT_COLLECTION_BRAND, 3).data);
    assert_int_equal(event_dictionary_lost(r.d), 0); /* they were never in the store */
    assert_true(bytes_equal(event_dictionary_text(r.d, EVENT_COLLECTION_BRAND, 40), text_of("d")));
    assert_int_equal(create(&r, "brand", "c"), 42);
    assert_int_equal(event_dictionary_each(r.d, 0, UINT64_MAX, copy, &restored, &next), 0);
    assert_int_equal(next, 4);
    assert_int_equal(find(&restored, "brand", "d"), 40);
    assert_int_equal(event_dictionary_text(restored.d, EVENT_COLLECTION_BRAND, 39).size, 0);
    assert_int_equal(create(&restored, "brand", "f"), 43);
    deinit(&r);
    deinit(&restored);
}

static int collect_number(void *context, uint64_t number, lsn_t lsn UNUSED,
                          struct bytes collection UNUSED, uint32_t id UNUSED,
                          struct bytes element UNUSED) {
    uint64_t *numbers = context;
    *numbers |= UINT64_C(1) << number;
    return 0;
}

/* Elements whose values the store lost: neither their numbers nor their ids are given again, and a
 * replay may bring one back. */
static void test_elements_lost_in_the_store(void **state UNUSED) {
    struct rig r;
    uint64_t next, numbers = 0;
    init_with(&r, 0);
    assert_int_equal(event_dictionary_restore(r.d, 0, text_of("brand"), 1, text_of("a")), 0);
    assert_int_equal(event_dictionary_restore_lost(r.d, 2), 0); /* brands 2 and 3 */
    assert_int_equal(event_dictionary_restore(r.d, 0, text_of("brand"), 4, text_of("d")), 0);
    assert_int_equal(event_dictionary_restore_lost(r.d, 1), 0); /* of any collection */
    assert_int_equal(event_dictionary_leave_out(r.d, 3), 0);
    assert_int_equal(event_dictionary_lost(r.d), 3);
    assert_int_equal(replay(&r, "brand", 2, "b"), 0);
    assert_int_equal(replay(&r, "brand", 2, "b"), 0);
    assert_int_equal(replay(&r, "brand", 5, "e"), 0);
    assert_int_equal(create(&r, "brand", "new"), 8);
    assert_int_equal(create(&r, "origin", "new"), 4);
    assert_int_equal(find(&r, "brand", "b"), 2);
    assert_int_equal(find(&r, "brand", "e"), 5);
    assert_null(event_dictionary_text(r.d, EVENT_COLLECTION_BRAND, 3).data);
    assert_null(event_dictionary_text(r.d, EVENT_COLLECTION_BRAND, 7).data);
    assert_int_equal(event_dictionary_each(r.d, 0, UINT64_MAX, collect_number, &numbers, &next), 0);
    assert_int_equal(next, 9);
    assert_int_equal(numbers, 0x1e9);
    deinit(&r);
}

/* ---- Threads ---- */

enum { RACED = 3000 };
struct racer {
    struct rig *rig;
    uint32_t ids[RACED];
    unsigned faults;
};

static void race(void *argument) {
    struct racer *racer = argument;
    for (uint32_t i = 0; i < RACED; i++) {
        char name[16];
        snprintf(name, sizeof name, "%u", i);
        struct event_newcomer one = newcomer("raced", name);
        lsn_t last, lsn = 0;
        racer->faults += append(racer->rig, &one, 1, &last) != 0;
        racer->ids[i] = one.id;
        uint32_t collection = event_dictionary_collection(racer->rig->d, text_of("raced"));
        racer->faults +=
            event_dictionary_find(racer->rig->d, collection, text_of(name), &lsn) != one.id;
        racer->faults += lsn == 0 || lsn != one.lsn;
        racer->faults +=
            !bytes_equal(event_dictionary_text(racer->rig->d, collection, one.id), text_of(name));
    }
}

static void test_threads_agree(void **state UNUSED) {
    static struct racer racers[2];
    struct rig r;
    struct os_thread *threads[2];
    init_with(&r, 0);
    for (size_t i = 0; i < 2; i++) {
        racers[i].rig = &r;
        assert_int_equal(os_thread_start(os_real(), "racer", race, &racers[i], &threads[i]), 0);
    }
    for (size_t i = 0; i < 2; i++) {
        os_thread_join(os_real(), threads[i]);
        assert_int_equal(racers[i].faults, 0);
    }
    for (uint32_t i = 0; i < RACED; i++)
        assert_int_equal(racers[0].ids[i], racers[1].ids[i]);
    struct event_dictionary_stats stats;
    event_dictionary_stats(r.d, &stats);
    assert_int_equal(stats.elements, RACED);
    assert_true(journal_appended(r.journal.j) == RACED);
    deinit(&r);
}

/* A record is in the journal, and so may be applied and read, before its append has returned: the
 * ids in it have their texts from then on. */
enum { GROUPS = 5, A_GROUP = 20000 };
struct watcher {
    struct rig *rig;
    unsigned faults;
};

static void watch(void *argument) {
    struct watcher *w = argument;
    for (uint32_t id = A_GROUP; id <= GROUPS * A_GROUP; id += A_GROUP) {
        while (journal_appended(w->rig->journal.j) < id) {
        }
        w->faults += event_dictionary_text(w->rig->d, EVENT_COLLECTION_BRAND, id).size == 0;
    }
}

static void test_an_id_that_is_seen_has_its_text(void **state UNUSED) {
    struct rig r;
    struct watcher w = {.rig = &r};
    static struct event_newcomer newcomers[A_GROUP];
    struct os_thread *thread;
    static uint32_t names[A_GROUP];
    lsn_t last;
    init_with(&r, 0);
    assert_int_equal(os_thread_start(os_real(), "watcher", watch, &w, &thread), 0);
    for (uint32_t group = 0; group < GROUPS; group++) {
        for (uint32_t i = 0; i < A_GROUP; i++) {
            names[i] = group * A_GROUP + i;
            newcomers[i] = (struct event_newcomer){.collection = text_of("brand"),
                                                   .element = bytes_of(&names[i], sizeof names[i])};
        }
        assert_int_equal(append(&r, newcomers, A_GROUP, &last), 0);
        assert_int_equal(last, (group + 1) * A_GROUP);
    }
    os_thread_join(os_real(), thread);
    assert_int_equal(w.faults, 0);
    deinit(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids_are_dense),
        cmocka_unit_test(test_the_empty_element_is_one),
        cmocka_unit_test(test_append_is_one_group),
        cmocka_unit_test(test_refused_append_assigns_nothing),
        cmocka_unit_test(test_bounded),
        cmocka_unit_test(test_invariant_6_elements_stay_within_their_part_of_the_budget),
        cmocka_unit_test(test_restore),
        cmocka_unit_test(test_replay),
        cmocka_unit_test(test_lost_elements),
        cmocka_unit_test(test_elements_lost_in_the_store),
        cmocka_unit_test(test_threads_agree),
        cmocka_unit_test(test_an_id_that_is_seen_has_its_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
