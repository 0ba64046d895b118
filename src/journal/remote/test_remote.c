/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal on somebody else's engine, with a log in memory for its driver that does what engines
 * do: says no with all, some or none of the messages in the log, loses its owner, has messages
 * twice. A model keeps what was acknowledged.
 */
#include "journal/driver.h"
#include "journal/test_support.h"

#include <errno.h>

/* ---- a log in memory ---- */

enum { STORE_MAX = 4096, MESSAGE_MAX = 400000 };

struct stored {
    uint8_t *data;
    size_t size;
    uint64_t position;
};

/* What an engine keeps while its clients come and go. */
static struct store {
    struct stored messages[STORE_MAX];
    size_t n;
    size_t trimmed; /* so many of the oldest are gone */
    unsigned owner;
    uint64_t bound;
    /* How the next appends go: */
    unsigned fails;   /* so many say LOG_E_UNAVAILABLE, */
    unsigned keeps;   /* although so many of their messages are there */
    unsigned appends; /* that succeeded */
    int open_result;
} store;

struct memory_log {
    struct log log;
    unsigned owner;
};
struct memory_reader {
    struct log_reader reader;
    uint64_t next;
};

static void store_clear(void) {
    for (size_t i = 0; i < store.n; i++)
        free(store.messages[i].data);
    store = (struct store){0};
}

static void store_add(const struct log_message *m) {
    assert_true(store.n < STORE_MAX);
    size_t size = LOG_HEAD_BYTES + m->body.size;
    uint8_t *data = malloc(size);
    assert_non_null(data);
    assert_true(size <= MESSAGE_MAX);
    memcpy(data, m->head, LOG_HEAD_BYTES);
    memcpy(data + LOG_HEAD_BYTES, m->body.data, m->body.size);
    store.messages[store.n] =
        (struct stored){.data = data, .size = size, .position = 10 + 3 * store.n};
    store.n++;
}

extern const struct log_driver memory_driver;

static int memory_open(struct os *os UNUSED, const struct log_options *options,
                       struct log **ret_log) {
    struct memory_log *l = calloc(1, sizeof *l);
    assert_non_null(l);
    l->log.driver = &memory_driver;
    *ret_log = &l->log;
    if (store.open_result)
        return log_fail(l->log.why, store.open_result, "it is down");
    options->warn(options->context, "it forgets everything");
    l->owner = ++store.owner;
    return 0;
}

static void memory_close(struct log *l) {
    free(l);
}

static int memory_append(struct log *l, const struct log_message *messages, size_t n,
                         uint64_t *ret_positions) {
    if (((struct memory_log *)(void *)l)->owner != store.owner)
        return log_fail(l->why, LOG_E_FENCED, "another has it");
    bool fails = store.fails > 0;
    size_t keeps = fails ? store.keeps : n;
    store.fails -= fails;
    for (size_t i = 0; i < n && i < keeps; i++) {
        store_add(&messages[i]);
        ret_positions[i] = store.messages[store.n - 1].position;
    }
    if (fails)
        return log_fail(l->why, LOG_E_UNAVAILABLE, "it does not answer");
    store.appends++;
    return 0;
}

static int memory_trim(struct log *l UNUSED, uint64_t position) {
    while (store.trimmed < store.n && store.messages[store.trimmed].position < position)
        store.trimmed++;
    return 0;
}

static int memory_last(struct log *l UNUSED, struct buffer *out, uint64_t *ret_position) {
    if (store.n == store.trimmed)
        return LOG_E_END;
    const struct stored *m = &store.messages[store.n - 1];
    buffer_append(out, m->data, m->size);
    *ret_position = m->position;
    return 0;
}

static uint64_t memory_bound(const struct log *l UNUSED) {
    return store.bound;
}

static int memory_reader_new(struct log *l UNUSED, uint64_t position,
                             struct log_reader **ret_reader) {
    struct memory_reader *r = calloc(1, sizeof *r);
    assert_non_null(r);
    r->next = store.trimmed;
    while (r->next < store.n && store.messages[r->next].position < position)
        r->next++;
    *ret_reader = &r->reader;
    return 0;
}

static int memory_read(struct log_reader *reader, uint64_t wait_ms UNUSED,
                       struct bytes *ret_message, uint64_t *ret_position) {
    struct memory_reader *r = (struct memory_reader *)(void *)reader;
    if (r->next == store.n)
        return LOG_E_END;
    const struct stored *m = &store.messages[r->next++];
    *ret_message = bytes_of(m->data, m->size);
    *ret_position = m->position;
    return 0;
}

static void memory_reader_free(struct log_reader *r) {
    free(r);
}

const struct log_driver memory_driver = {
    .schemes = (const char *const[]){"memory", NULL},
    .parameters = (const char *const[]){NULL},
    .message_bytes_max = MESSAGE_MAX,
    .open = memory_open,
    .close = memory_close,
    .append = memory_append,
    .trim = memory_trim,
    .last = memory_last,
    .bound = memory_bound,
    .reader_new = memory_reader_new,
    .read = memory_read,
    .reader_free = memory_reader_free,
};

/* ---- a journal over it ---- */

static struct service_url url;
static char told[256];

static void hear(void *context UNUSED, const char *sentence) {
    snprintf(told, sizeof told, "%s", sentence);
}

static struct bench remote_bench_of(uint64_t seed) {
    struct bench b = bench_new(seed);
    const char *why;
    assert_true(service_url_parse("memory://here", &url, &why));
    told[0] = '\0';
    b.options.url = &url;
    b.options.driver = &memory_driver;
    b.options.tell = hear;
    return b;
}

static struct bench remote_bench(void) {
    return remote_bench_of(1);
}

static void remote_bench_free(struct bench *b) {
    bench_free(b);
    store_clear();
}

static int open_again(struct bench *b) {
    bench_close(b);
    return journal_open(b->os, DIRECTORY, &b->options, &b->j, &b->found);
}

/* Reads from the lsn on, and leaves out the records that say that somebody opened it. */
static void read_data(struct journal *j, lsn_t from, struct reading *out) {
    size_t n = 0;
    assert_int_equal(read_from(j, from, out), JOURNAL_E_END);
    for (size_t i = 0; i < out->n; i++)
        if (out->seen[i].kind != JOURNAL_KIND_JOURNAL)
            out->seen[n++] = out->seen[i];
    out->n = n;
}

/* Everything from lsn 1 on has the ids 1, 2, 3, … in the order of its lsns. */
static void check_ids(struct journal *j, size_t n) {
    struct reading all CLEANUP(reading_deinit) = READING_INIT;
    read_data(j, 1, &all);
    assert_int_equal(all.n, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(all.seen[i].id, i + 1);
}

static void test_records_come_back(void **state UNUSED) {
    struct bench b = remote_bench();
    bench_open(&b);
    assert_string_equal(told, "it forgets everything");
    for (uint64_t id = 1; id <= 30; id += 3)
        assert_int_equal(append_group(b.j, id, 3, 700, NULL), 0);
    assert_int_equal(journal_durable(b.j), 1);
    assert_int_equal(journal_commit(b.j), 0);
    assert_int_equal(journal_durable(b.j), 31);
    check_ids(b.j, 30);
    bench_reopen(&b);
    assert_true(b.found.next_lsn > 31);
    assert_int_equal(b.found.first_lsn, 1);
    check_ids(b.j, 30);
    assert_int_equal(append_one(b.j, 31, 100), b.found.next_lsn + 1);
    assert_int_equal(journal_commit(b.j), 0);
    check_ids(b.j, 31);
    remote_bench_free(&b);
}

/* More than a message holds: parts, and small groups before and behind. */
static void test_a_large_group_goes_in_parts(void **state UNUSED) {
    struct bench b = remote_bench();
    bench_open(&b);
    append_one(b.j, 1, 100);
    assert_int_equal(append_group(b.j, 2, 9, 130000, NULL), 0);
    append_one(b.j, 11, 100);
    assert_int_equal(journal_commit(b.j), 0);
    assert_true(store.n >= 5);
    bench_reopen(&b);
    check_ids(b.j, 11);
    remote_bench_free(&b);
}

/* A process that ended between the parts of a group: none of it counts, and its lsns are over. */
static void test_a_group_without_its_end_is_none(void **state UNUSED) {
    struct bench b = remote_bench();
    bench_open(&b);
    append_one(b.j, 1, 100);
    assert_int_equal(journal_commit(b.j), 0);
    assert_int_equal(append_group(b.j, 100, 9, 130000, NULL), 0);
    store.fails = 1;
    store.keeps = 2;
    assert_int_equal(journal_commit(b.j), JOURNAL_E_UNAVAILABLE);
    assert_int_equal(store.n, 4);
    store.fails = 1; /* closing cannot either */
    store.keeps = 0;
    bench_close(&b);
    store.fails = 0;
    bench_open(&b);
    assert_true(b.found.next_lsn > 11);
    append_one(b.j, 2, 100);
    assert_int_equal(append_group(b.j, 3, 9, 130000, NULL), 0);
    assert_int_equal(journal_commit(b.j), 0);
    check_ids(b.j, 11);
    bench_reopen(&b);
    check_ids(b.j, 11);
    remote_bench_free(&b);
}

/* All of a commit landed, nobody knew, and of the same that came again only the first: the newest
 * message is older than others. Nothing of what is written next may be taken for what was before.
 */
static void test_invariant_2_no_lsn_is_given_twice(void **state UNUSED) {
    struct bench b = remote_bench();
    bench_open(&b);
    for (uint64_t id = 1; id <= 5; id += 2)
        assert_int_equal(append_group(b.j, id, 2, 150000, NULL), 0);
    store.fails = 3;
    store.keeps = 3;
    assert_int_equal(journal_commit(b.j), JOURNAL_E_UNAVAILABLE);
    store.keeps = 1;
    assert_int_equal(journal_commit(b.j), JOURNAL_E_UNAVAILABLE);
    store.keeps = 0;
    bench_reopen(&b);
    for (uint64_t id = 7; id <= 20; id++)
        append_one(b.j, id, 100);
    assert_int_equal(journal_commit(b.j), 0);
    check_ids(b.j, 20);
    bench_reopen(&b);
    check_ids(b.j, 20);
    remote_bench_free(&b);
}

static uint64_t chance(uint64_t *at, uint64_t below) {
    *at = hash64_u64(*at);
    return *at % below;
}

/* The same messages come again until they are there: each record is read once, in order. */
static void test_what_is_appended_again_counts_once(void **state UNUSED) {
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct bench b = remote_bench();
        uint64_t at = seed, id = 1, durable = 0;
        bench_open(&b);
        for (int step = 0; step < 25; step++) {
            size_t n = 1 + chance(&at, 5);
            size_t size = chance(&at, 8) ? 8 + chance(&at, 3000) : 200000;
            assert_int_equal(append_group(b.j, id, n, size, NULL), 0);
            id += n;
            store.fails = (unsigned)chance(&at, 3);
            store.keeps = (unsigned)chance(&at, 6);
            while (journal_commit(b.j))
                assert_int_equal(journal_state(b.j), JOURNAL_REFUSING);
            assert_int_equal(journal_state(b.j), JOURNAL_OK);
            durable = id - 1;
            assert_true(journal_durable(b.j) > durable);
            if (chance(&at, 6) == 0)
                bench_reopen(&b);
        }
        check_ids(b.j, durable);
        bench_reopen(&b);
        check_ids(b.j, durable);
        remote_bench_free(&b);
    }
}

/* While the engine says no, appends are refused, and what waits goes as soon as it says yes. */
static void test_a_refusal_is_a_state_that_heals(void **state UNUSED) {
    struct bench b = remote_bench();
    bench_open(&b);
    append_one(b.j, 1, 100);
    store.fails = 1;
    assert_int_equal(journal_commit(b.j), JOURNAL_E_UNAVAILABLE);
    assert_int_equal(journal_state(b.j), JOURNAL_REFUSING);
    assert_string_equal(journal_state_text(b.j), "it does not answer");
    assert_int_equal(append_group(b.j, 2, 1, 100, NULL), JOURNAL_E_UNAVAILABLE);
    assert_int_equal(journal_commit(b.j), 0);
    assert_int_equal(journal_state(b.j), JOURNAL_OK);
    append_one(b.j, 2, 100);
    assert_int_equal(journal_commit(b.j), 0);
    check_ids(b.j, 2);
    remote_bench_free(&b);
}

static void test_only_one_owner(void **state UNUSED) {
    struct bench b = remote_bench();
    bench_open(&b);
    append_one(b.j, 1, 100);
    assert_int_equal(journal_commit(b.j), 0);
    store.owner++; /* somebody else opened it */
    append_one(b.j, 2, 100);
    assert_int_equal(journal_commit(b.j), JOURNAL_E_UNAVAILABLE);
    assert_string_equal(journal_state_text(b.j), "another has it");
    assert_int_equal(journal_durable(b.j), 2);
    remote_bench_free(&b);
}

static void test_what_cannot_be_opened_says_why(void **state UNUSED) {
    struct bench b = remote_bench();
    store.open_result = LOG_E_UNAVAILABLE;
    assert_int_equal(open_again(&b), JOURNAL_E_UNAVAILABLE);
    assert_string_equal(told, "it is down");
    store.open_result = LOG_E_REFUSED;
    assert_int_equal(open_again(&b), JOURNAL_E_REFUSED);
    store.open_result = 0;
    b.options.driver = NULL; /* and nobody knows the scheme */
    assert_int_equal(open_again(&b), JOURNAL_E_REFUSED);
    remote_bench_free(&b);
}

/* Stores know lsns of one journal. */
static void test_another_journal_is_refused(void **state UNUSED) {
    struct bench b = remote_bench();
    struct journal_consumer *c;
    bench_open(&b);
    assert_int_equal(journal_consumer_new(b.j, "events", JOURNAL_KIND_EVENTS, 0, &c), 0);
    append_one(b.j, 1, 100);
    assert_int_equal(journal_commit(b.j), 0); /* from here on the directory is this journal's */
    bench_close(&b);
    store_clear();
    struct bench other = remote_bench_of(2); /* another salt */
    bench_open(&other);
    append_one(other.j, 1, 100);
    assert_int_equal(journal_commit(other.j), 0);
    bench_free(&other);
    assert_int_equal(open_again(&b), JOURNAL_E_REFUSED);
    assert_non_null(strstr(told, "another journal"));
    store.messages[store.n - 1].data[0] ^= 1; /* nobody's message */
    assert_int_equal(open_again(&b), JOURNAL_E_REFUSED);
    assert_non_null(strstr(told, "none of millrace"));
    remote_bench_free(&b);
}

/* What all have persisted goes, and a start reads from what is left. */
static void test_invariant_3_retention_follows_what_is_persisted(void **state UNUSED) {
    struct bench b = remote_bench();
    struct journal_consumer *c;
    struct reading rest CLEANUP(reading_deinit) = READING_INIT;
    bench_open(&b);
    assert_int_equal(journal_consumer_new(b.j, "events", JOURNAL_KIND_EVENTS, 0, &c), 0);
    for (uint64_t id = 1; id <= 20; id++) {
        append_one(b.j, id, 4000);
        assert_int_equal(journal_commit(b.j), 0);
    }
    assert_int_equal(store.trimmed, 0);
    journal_consumer_persisted(c, 13);
    assert_int_equal(journal_commit(b.j), 0);
    assert_true(store.trimmed > 8 && store.trimmed <= 13);
    bench_reopen(&b);
    read_data(b.j, 14, &rest);
    assert_int_equal(rest.n, 8);
    assert_int_equal(rest.seen[0].id, 13);
    struct journal_stats stats;
    journal_stats(b.j, &stats);
    assert_int_equal(stats.damaged_records, 0);
    remote_bench_free(&b);
}

/* Somebody else's retention took what a store still needs: noticed, counted. */
static void test_what_is_gone_is_counted(void **state UNUSED) {
    struct bench b = remote_bench();
    struct reading rest CLEANUP(reading_deinit) = READING_INIT;
    struct journal_stats stats;
    bench_open(&b);
    for (uint64_t id = 1; id <= 20; id++) {
        append_one(b.j, id, 4000);
        assert_int_equal(journal_commit(b.j), 0);
    }
    bench_reopen(&b);
    store.trimmed = 6;
    read_data(b.j, 4, &rest);
    assert_int_equal(rest.n, 15);
    journal_stats(b.j, &stats);
    assert_int_equal(stats.damaged_records, 3);
    remote_bench_free(&b);
}

/* Each byte of a message changed in turn: what is in it may be lost, and is counted, but nothing
 * else and nothing false is read. */
static void test_invariant_7_damage_is_found_and_counted(void **state UNUSED) {
    struct bench b = remote_bench();
    bench_open(&b);
    for (uint64_t id = 1; id <= 3; id++) {
        append_one(b.j, id, 60);
        assert_int_equal(journal_commit(b.j), 0);
    }
    bench_reopen(&b);
    for (size_t i = 0; i < store.messages[2].size; i++) {
        struct reading all CLEANUP(reading_deinit) = READING_INIT;
        struct journal_stats before, after;
        journal_stats(b.j, &before);
        store.messages[2].data[i] ^= 0x10;
        read_data(b.j, 1, &all);
        store.messages[2].data[i] ^= 0x10;
        journal_stats(b.j, &after);
        assert_true(all.n == 3 || after.damaged_bytes > before.damaged_bytes);
        assert_true(all.n >= 2 && all.seen[0].id == 1 && all.seen[all.n - 1].id == 3);
    }
    remote_bench_free(&b);
}

static void test_a_bound_of_the_engine_bounds_what_is_pinned(void **state UNUSED) {
    struct bench b = remote_bench();
    struct journal_consumer *c;
    store.bound = 20000;
    bench_open(&b);
    assert_int_equal(journal_consumer_new(b.j, "events", JOURNAL_KIND_EVENTS, 0, &c), 0);
    int r = 0;
    uint64_t id = 1;
    for (; !r && id < 100; id++) {
        r = append_group(b.j, id, 1, 1000, NULL);
        assert_int_equal(journal_commit(b.j), 0);
    }
    assert_int_equal(r, JOURNAL_E_PINNED);
    assert_true(id > 7 && id < 13);
    remote_bench_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records_come_back),
        cmocka_unit_test(test_a_large_group_goes_in_parts),
        cmocka_unit_test(test_a_group_without_its_end_is_none),
        cmocka_unit_test(test_invariant_2_no_lsn_is_given_twice),
        cmocka_unit_test(test_what_is_appended_again_counts_once),
        cmocka_unit_test(test_a_refusal_is_a_state_that_heals),
        cmocka_unit_test(test_only_one_owner),
        cmocka_unit_test(test_what_cannot_be_opened_says_why),
        cmocka_unit_test(test_another_journal_is_refused),
        cmocka_unit_test(test_invariant_3_retention_follows_what_is_persisted),
        cmocka_unit_test(test_what_is_gone_is_counted),
        cmocka_unit_test(test_invariant_7_damage_is_found_and_counted),
        cmocka_unit_test(test_a_bound_of_the_engine_bounds_what_is_pinned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
