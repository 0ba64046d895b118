/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the suite of all drivers of shared journals (test_shared_driver.c) cannot ask of Redis,
 * where it takes somebody who spoils what lies there:
 *
 *   MILLRACE_TEST_JOURNAL='redis://127.0.0.1:6379/?prefix=LOG-&partitions=2' \
 *       build-debug/src/test-journal-redis_shared
 *
 * LOG becomes a name of each test's own. Without the variable every test is skipped.
 */
#include "journal/remote/test_shared_support.h"

#include "journal/remote/redis_shared.h"

enum { WORDS = 6, PARTITIONS = 2 };

struct own_rig {
    struct rig rig;         /* first */
    struct redis_link link; /* of who spoils */
    char why[REDIS_WHY_MAX];
    char answer[TEXT_MAX];
    char keys[WORDS][TEXT_MAX];
};

static int setup(void **state) {
    *state = calloc(1, sizeof(struct own_rig));
    return *state ? 0 : -1;
}

static int teardown(void **state) {
    struct own_rig *own = *state;
    rig_close(&own->rig);
    redis_link_deinit(&own->link);
    free(own);
    return 0;
}

static struct rig *start(void **state) {
    struct own_rig *own = *state;
    rig_open(&own->rig, "");
    redis_link_init(&own->link, own->rig.os, &own->rig.url, TIMEOUT_MS, own->why);
    return &own->rig;
}

/* ---- Who spoils ---- */

/* "@" begins the name of something of the journal: "@-0" is the first stream. */
static struct bytes word(struct rig *rig, const char *text, char key[TEXT_MAX]) {
    if (*text != '@')
        return bytes_of_string(text);
    return bytes_of_string(name_in_log(rig, text + 1, key));
}

/* The reply as text, a number too; of arrays, what comes first in them. */
static const char *tell(struct rig *rig, const char *const words[WORDS]) {
    struct own_rig *own = CONTAINER_OF(rig, struct own_rig, rig);
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    struct bytes arguments[WORDS];
    size_t n = 0;
    for (; n < WORDS && words[n]; n++)
        arguments[n] = word(rig, words[n], own->keys[n]);
    redis_link_begin(&own->link, 0);
    if (redis_link_command(&own->link, arguments, n, &reply))
        fail_msg("%s: %s", words[0], own->why);
    own->answer[0] = '\0';
    const redisReply *first = reply;
    while (first->type == REDIS_REPLY_ARRAY && first->elements > 0)
        first = first->element[0];
    if (first->type == REDIS_REPLY_STRING)
        snprintf(own->answer, sizeof own->answer, "%s", first->str);
    if (first->type == REDIS_REPLY_INTEGER)
        snprintf(own->answer, sizeof own->answer, "%lld", first->integer);
    return own->answer;
}
#define TELL(rig, ...) tell(rig, (const char *const[WORDS]){__VA_ARGS__})

/* ---- Writing ---- */

/* A message to each of the partitions, of one record. */
static int deliver(struct rig *rig) {
    struct shared_message messages[PARTITIONS];
    for (unsigned p = 0; p < PARTITIONS; p++)
        make_message(&messages[p], p, 3);
    return deliver_messages(rig, messages, PARTITIONS);
}

static void deliver_all(struct rig *rig, unsigned n) {
    while (n-- > 0)
        assert_int_equal(deliver(rig), 0);
}

/* Another run of this master, as far as the journal can see. */
static void be_another_master(struct rig *rig) {
    for (unsigned p = 0; p < PARTITIONS; p++) {
        char key[] = "@-0:server", said[TEXT_MAX];
        key[2] = (char)('0' + p);
        snprintf(said, sizeof said, "another %s", strchr(TELL(rig, "GET", key), ' ') + 1);
        TELL(rig, "SET", key, said);
    }
}

/* The offset behind the newest message of a stream, by its id; 0: it has none. */
static uint64_t end_of(struct rig *rig, unsigned partition) {
    return strtoull(TELL(rig, "XREVRANGE", partition ? "@-1" : "@-0", "+", "-", "COUNT", "1"), NULL,
                    10);
}

/* What of the journal a replica may have, or not have. */
static void copy_all(struct rig *rig, const char *from, const char *to) {
    static const char *const what[] = {"", ":server", ":jumps"};
    for (unsigned i = 0; i < PARTITIONS * ARRAY_LENGTH(what); i++) {
        char source[64], destination[64];
        snprintf(source, sizeof source, "@%s-%zu%s", from, i / ARRAY_LENGTH(what),
                 what[i % ARRAY_LENGTH(what)]);
        snprintf(destination, sizeof destination, "@%s-%zu%s", to, i / ARRAY_LENGTH(what),
                 what[i % ARRAY_LENGTH(what)]);
        TELL(rig, "DEL", destination);
        TELL(rig, "COPY", source, destination);
    }
}

/* ---- Tests ---- */

/* What cannot be written in the middle is said before anything is: so it may be sent again. */
static void test_a_stream_that_is_none_has_nothing_appended_twice(void **state) {
    struct rig *rig = start(state);
    TELL(rig, "SET", "@-1", "no stream");
    assert_int_equal(deliver(rig), LOG_E_UNAVAILABLE);
    assert_non_null(strstr(rig->writer->why, "WRONGTYPE"));
    TELL(rig, "DEL", "@-1");
    assert_int_equal(deliver(rig), 0);
    assert_string_equal(TELL(rig, "XLEN", "@-0"), "1");
    assert_string_equal(TELL(rig, "XLEN", "@-1"), "1");
}

/* And where it shows only then, what was appended before is known. */
static void test_what_fails_behind_what_was_appended_is_not_sent_again(void **state) {
    struct rig *rig = start(state);
    TELL(rig, "XADD", "@-1", "18446744073709551615-1", "m", "the last that a stream can have");
    assert_int_equal(deliver(rig), LOG_E_UNKNOWN);
    assert_string_equal(TELL(rig, "XLEN", "@-0"), "1");
}

/* What was never given is neither lost nor behind. */
static void test_a_jump_of_ids_is_no_loss(void **state) {
    struct rig *rig = start(state);
    join(rig);
    deliver_all(rig, 2);
    until(rig, true, rig->read == 4);
    be_another_master(rig);
    deliver_all(rig, 3);
    until(rig, false, rig->read == 10);
    until(rig, false, status_of(rig).lag_messages > 0);
    assert_in_range(status_of(rig).lag_messages, 6, 8); /* the last that is persisted may count */
    assert_int_equal(status_of(rig).lost_messages, 0);
    assert_true(end_of(rig, 0) > (rig->positions[0] >> SHARED_INDEX_BITS) + 100);
    rig->read = 0;
    join(rig); /* behind the jump */
    until(rig, true, rig->read == 6);
    be_another_master(rig);
    deliver_all(rig, 1);
    TELL(rig, "DEL", "@-0", "@-1"); /* in front of one that nobody knows yet */
    be_another_master(rig);
    deliver_all(rig, 1);
    until(rig, true, rig->read == 8);
    assert_int_equal(status_of(rig).lost_messages, 2);
}

/* While nothing is read, as the store is down, the lag is told by them alone. */
static void test_jumps_between_two_looks_are_no_lag(void **state) {
    struct rig *rig = start(state);
    join(rig);
    deliver_all(rig, 1);
    until(rig, true, rig->read == 2);
    (void)group_hold(rig->group, 0, 20);
    for (unsigned i = 0; i < 3; i++) {
        be_another_master(rig);
        deliver_all(rig, 1);
    }
    uint64_t until_ns = os_monotonic_ns(rig->os) + PATIENCE_MS * MS_NS;
    while (status_of(rig).lag_messages == 0 && os_monotonic_ns(rig->os) < until_ns)
        (void)group_hold(rig->group, 0, 20);
    assert_in_range(status_of(rig).lag_messages, 6, 8); /* the last that is persisted may count */
    until(rig, true, rig->read == 8);
    assert_int_equal(status_of(rig).lost_messages, 0);
}

/* A master that has nothing of what the one between gave, all of which was applied. */
static void test_ids_are_not_given_again_by_who_was_master_before(void **state) {
    struct rig *rig = start(state);
    join(rig);
    copy_all(rig, "", "-empty");
    deliver_all(rig, 2);
    until(rig, true, rig->read == 4);
    copy_all(rig, "", "-first");
    for (unsigned i = 0; i < 3; i++) {
        be_another_master(rig);
        deliver_all(rig, 3);
        until(rig, true, rig->read == 4 + 6);
        copy_all(rig, i < 2 ? "-first" : "-empty", "");
        if (i < 2)
            be_another_master(rig);
        deliver_all(rig, 1);
        until(rig, true, rig->read == 4 + 6 + 2);
        rig->read = 4;
    }
    assert_int_equal(status_of(rig).lost_messages, 0);
}

/* Of whoever else uses the name: his ids are far above ours. */
static void test_entries_of_somebody_else_are_no_loss(void **state) {
    struct rig *rig = start(state);
    join(rig);
    deliver_all(rig, 1);
    TELL(rig, "XADD", "@-1", "*", "m", "of somebody else");
    assert_int_equal(deliver(rig), LOG_E_UNKNOWN); /* it finds out */
    deliver_all(rig, 1);
    until(rig, true, rig->read == 3 + 2);
    until(rig, true, status_of(rig).lag_messages == 0);
    assert_int_equal(status_of(rig).strange_messages, 1);
    assert_int_equal(status_of(rig).lost_messages, 0);
}

/* What was trimmed had been done with, also where the store's position is behind it: it knows
 * nothing of what is passed over. */
static void test_what_was_trimmed_is_no_loss(void **state) {
    struct rig *rig = start(state);
    const struct log_options options = options_of(rig);
    struct shared_member *member;
    deliver_all(rig, 3);
    for (unsigned p = 0; p < PARTITIONS; p++)
        rig->positions[p] = shared_lsn(end_of(rig, p) - 3, 0);
    assert_int_equal(shared_redis.member->join(rig->os, &options, &member), 0);
    assert_int_equal(shared_redis.member->trim(member, 0, end_of(rig, 0) - 1), 0);
    assert_int_equal(shared_redis.member->trim(member, 1, end_of(rig, 1)), 0); /* all of it */
    assert_string_equal(TELL(rig, "XLEN", "@-0"), "1");
    assert_string_equal(TELL(rig, "XLEN", "@-1"), "0");
    shared_redis.member->leave(member);
    join(rig);
    until(rig, true, rig->read == 1);
    deliver_all(rig, 1);
    until(rig, true, rig->read == 3);
    until(rig, true, status_of(rig).lag_messages == 0);
    assert_int_equal(status_of(rig).lost_messages, 0);
    assert_true(status_of(rig).reachable);
}

static void test_what_others_delete_is_lost(void **state) {
    struct rig *rig = start(state);
    char id[TEXT_MAX];
    deliver_all(rig, 3);
    snprintf(id, sizeof id, "%s", TELL(rig, "XREVRANGE", "@-1", "+", "-", "COUNT", "1"));
    deliver_all(rig, 2);
    TELL(rig, "XTRIM", "@-0", "MAXLEN", "2"); /* before anything is read */
    TELL(rig, "XDEL", "@-1", id);
    join(rig);
    until(rig, true, rig->read == 2 + 4);
    assert_int_equal(status_of(rig).lost_messages, 3 + 1);
    rig->group = group_close(rig->group);
    deliver_all(rig, 3);
    TELL(rig, "DEL", "@-1"); /* what follows has the offsets behind */
    deliver_all(rig, 1);
    join(rig);
    until(rig, true, rig->read == 6 + 4 + 1);
    assert_int_equal(status_of(rig).lost_messages, 3);
    deliver_all(rig, 1);
    until(rig, true, rig->read == 13);
    rig->positions[0] = shared_lsn(end_of(rig, 0) + 1, 0);
    join(rig); /* the store knows more than there ever was */
    until(rig, true, status_of(rig).why[0]);
    assert_non_null(strstr(status_of(rig).why, "ahead of the journal"));
}

/* What begins again below what readers have would be passed over. */
static void test_a_redis_that_was_emptied_is_refused(void **state) {
    struct rig *rig = start(state);
    char identity[TEXT_MAX], why[GROUP_WHY_MAX];
    join(rig);
    deliver_all(rig, 2);
    until(rig, true, rig->read == 4);
    snprintf(identity, sizeof identity, "%s", TELL(rig, "GET", "@:identity"));
    static const char *const others[] = {NULL, "made anew by another process"};
    for (unsigned i = 0; i < ARRAY_LENGTH(others); i++) {
        copy_all(rig, "-none", "");
        TELL(rig, "DEL", "@:identity", "@:partitions", "@:workers");
        if (others[i])
            TELL(rig, "SET", "@:identity", others[i]);
        assert_int_equal(deliver(rig), LOG_E_UNAVAILABLE);
        assert_non_null(strstr(rig->writer->why, "has lost the journal"));
        until(rig, true, !status_of(rig).reachable);
        assert_non_null(strstr(status_of(rig).why, "has lost the journal"));
        assert_string_equal(TELL(rig, "EXISTS", "@-0", "@-1", "@:workers", "@-0:server"), "0");
    }
    TELL(rig, "DEL", "@:identity");
    struct group *late;
    const struct group_options options = options_of_group(rig);
    assert_int_equal(group_open(rig->os, &options, &late, why), JOURNAL_E_UNAVAILABLE);
    assert_string_equal(TELL(rig, "EXISTS", "@:identity"), "0"); /* it has made none */
    TELL(rig, "SET", "@:identity", identity);
    deliver_all(rig, 1);
    until(rig, true, rig->read == 6);
    assert_true(status_of(rig).reachable);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_stream_that_is_none_has_nothing_appended_twice,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_fails_behind_what_was_appended_is_not_sent_again,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_jump_of_ids_is_no_loss, setup, teardown),
        cmocka_unit_test_setup_teardown(test_jumps_between_two_looks_are_no_lag, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ids_are_not_given_again_by_who_was_master_before,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_entries_of_somebody_else_are_no_loss, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_was_trimmed_is_no_loss, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_others_delete_is_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_redis_that_was_emptied_is_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
