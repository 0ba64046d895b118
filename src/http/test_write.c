/* SPDX-License-Identifier: Apache-2.0 */
/* Writes: no 2xx before durability (invariant 1), and every other end that a wait can have. */
#include "http/test_support.h"

static struct site site;

static int start(void **state) {
    (void)state;
    site_start(&site, (struct http_options){.commit_timeout_ms = 10 * WAIT_MS});
    return 0;
}

static int start_impatient(void **state) {
    (void)state;
    site_start(&site, (struct http_options){.commit_timeout_ms = 400});
    return 0;
}

static int stop(void **state) {
    (void)state;
    site_stop(&site);
    return 0;
}

static int send_write(const char *target) {
    unsigned before = atomic_load(&site.writes);
    int fd = dial(&site.address);
    send_post(fd, target, "", "x", 1);
    until(&site.writes, before + 1);
    return fd;
}

static void expect(int fd, unsigned status, const char *body) {
    struct answer a = read_answer(fd);
    assert_int_equal(a.status, status);
    if (body)
        assert_string_equal(a.body, body);
    socket_close(fd);
}

static void test_no_answer_before_it_is_durable(void **state) {
    (void)state;
    int fd = send_write("/write");
    assert_true(no_answer_for(fd, 100));
    commit(&site.journal, atomic_load(&site.journal.appended) - 1);
    assert_true(no_answer_for(fd, 50));
    commit(&site.journal, atomic_load(&site.journal.appended));
    expect(fd, 201, "durable");
}

static void test_each_journal_answers_for_its_own(void **state) {
    (void)state;
    int fd = send_write("/write");
    int other = dial(&site.address);
    send_post(other, "/other", "", "x", 1);
    while (atomic_load(&site.other.appended) == 0)
        os_sleep_ns(os_real(), 1000000);
    commit(&site.other, 1);
    expect(other, 201, "durable");
    assert_true(no_answer_for(fd, 50));
    commit(&site.journal, 1);
    expect(fd, 201, "durable");
}

static void test_what_became_unknown_is_not_acknowledged(void **state) {
    (void)state;
    int lost = send_write("/write");
    lsn_t lsn = atomic_load(&site.journal.appended);
    int kept = send_write("/write");
    atomic_store(&site.journal.unknown, lsn);
    commit(&site.journal, lsn + 1);
    expect(lost, 503, NULL);
    expect(kept, 201, "durable");
    expect(send_write("/write?nothing=1"), 201, "durable");
}

static void test_durable_already(void **state) {
    (void)state;
    commit(&site.journal, atomic_load(&site.journal.appended) + 1);
    expect(send_write("/write"), 201, "durable");
}

static void test_reads_go_on_while_writes_wait(void **state) {
    (void)state;
    int fd = send_write("/write");
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(get(&site.address, "/empty").status, 204);
    commit(&site.journal, atomic_load(&site.journal.appended));
    expect(fd, 201, "durable");
}

static void test_many_writes_share_a_commit(void **state) {
    (void)state;
    enum { N = 100 };
    int fds[N];
    for (unsigned i = 0; i < N; i++)
        fds[i] = send_write("/write");
    lsn_t last = atomic_load(&site.journal.appended);
    for (unsigned i = 0; i < N; i += 10)
        commit(&site.journal, last - N + i);
    commit(&site.journal, last);
    for (unsigned i = 0; i < N; i++)
        expect(fds[i], 201, "durable");
}

/* Writes ten times; how many of them are answered at once when all is done that they wait for. */
static unsigned prompt_answers(bool visible) {
    unsigned prompt = 0;
    for (unsigned i = 0; i < 10; i++) {
        int fd = send_write(visible ? "/write?wait=true" : "/write");
        lsn_t lsn = atomic_load(&site.journal.appended);
        if (visible)
            commit(&site.journal, lsn);
        os_sleep_ns(os_real(), 1000000); /* so that the loop sleeps, mostly */
        uint64_t begin_ns = os_monotonic_ns(os_real());
        if (visible)
            make_visible(&site.work, lsn);
        else
            commit(&site.journal, lsn);
        expect(fd, 201, NULL);
        prompt += os_monotonic_ns(os_real()) - begin_ns < 10000000;
    }
    return prompt;
}

/* The sweep looks at everything ten times a second; a wake-up must not wait for it. Tried until
 * the machine has a quiet moment: of ten answers that a sweep gives, one comes within 10 ms. */
static void test_wake_ups_are_prompt(void **state) {
    (void)state;
    UNTIL(prompt_answers(false) >= 7);
    UNTIL(prompt_answers(true) >= 7);
}

/* A job on a waiting thread gives the request back, and it goes on as any other: it waits, or is
 * answered at once. Meanwhile the query threads are free. */
static void test_resumed(void **state) {
    (void)state;
    atomic_store(&site.hold, 1);
    atomic_store(&site.held, 0);
    int fd = dial(&site.address);
    send_post(fd, "/wait", "", "x", 1);
    UNTIL(atomic_load(&site.held) == 1);
    assert_int_equal(atomic_load(&site.writes), 0);
    int other = dial(&site.address);
    send_text(other, "GET /empty HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(read_answer(other).status, 204);
    socket_close(other);
    atomic_store(&site.hold, 0);
    UNTIL(atomic_load(&site.writes) == 1);
    lsn_t lsn = atomic_load(&site.journal.appended);
    assert_true(no_answer_for(fd, 50));
    commit(&site.journal, lsn);
    expect(fd, 201, "durable");
    expect(send_write("/wait?full=1"), 503, NULL);
}

static void test_outcome_unknown(void **state) {
    (void)state;
    int fd = send_write("/write");
    struct answer a = read_answer(fd); /* after commit_timeout_ms */
    assert_int_equal(a.status, 503);
    assert_non_null(strstr(a.body, "\"outcome_unknown\""));
    assert_string_equal(header_of(&a, "Retry-After:"), "1");
    commit(&site.journal, atomic_load(&site.journal.appended));
    send_text(fd, "GET /empty HTTP/1.1\r\nHost: x\r\n\r\n"); /* the connection is still good */
    assert_int_equal(read_answer(fd).status, 204);
    socket_close(fd);
}

static void test_visible(void **state) {
    (void)state;
    int fd = send_write("/write?wait=true");
    lsn_t lsn = atomic_load(&site.journal.appended);
    commit(&site.journal, lsn);
    assert_true(no_answer_for(fd, 50));
    make_visible(&site.work, lsn - 1);
    assert_true(no_answer_for(fd, 50));
    make_visible(&site.work, lsn);
    expect(fd, 201, "visible");
    /* Applied before the loop came to look. */
    make_visible(&site.work, lsn + 1);
    commit(&site.journal, lsn + 1);
    expect(send_write("/write?wait=true"), 201, "visible");
}

static void test_visible_is_never_before_durable(void **state) {
    (void)state;
    int fd = send_write("/write?wait=true");
    lsn_t lsn = atomic_load(&site.journal.appended);
    make_visible(&site.work, lsn);
    assert_true(no_answer_for(fd, 100));
    commit(&site.journal, lsn);
    expect(fd, 201, "visible");
}

static void test_many_visible_out_of_order(void **state) {
    (void)state;
    enum { N = 20 };
    int fds[N];
    for (unsigned i = 0; i < N; i++)
        fds[i] = send_write("/write?wait=true");
    lsn_t last = atomic_load(&site.journal.appended);
    commit(&site.journal, last);
    for (unsigned i = 0; i < N; i++) {
        make_visible(&site.work, last - N + 1 + i);
        expect(fds[i], 201, "visible");
    }
}

static void test_visible_timeout_is_still_a_success(void **state) {
    (void)state;
    int fd = send_write("/write?wait=true&timeout_ms=50");
    commit(&site.journal, atomic_load(&site.journal.appended));
    expect(fd, 201, "durable");
}

/* The time for it counts from when it was durable: a slow upload or commit has used none of it up.
 */
static void test_visible_timeout_begins_with_durability(void **state) {
    (void)state;
    int fd = send_write("/write?wait=true&timeout_ms=2000");
    os_sleep_ns(os_real(), UINT64_C(2100000000));
    lsn_t lsn = atomic_load(&site.journal.appended);
    commit(&site.journal, lsn);
    assert_true(no_answer_for(fd, 100));
    make_visible(&site.work, lsn);
    expect(fd, 201, "visible");
}

static void test_rejected(void **state) {
    (void)state;
    int fd = send_write("/write?wait=true");
    lsn_t lsn = atomic_load(&site.journal.appended);
    atomic_store(&site.work.rejected, lsn);
    commit(&site.journal, lsn);
    make_visible(&site.work, lsn);
    struct answer a = read_answer(fd);
    assert_int_equal(a.status, 400);
    assert_non_null(strstr(a.body, "the store does not want record"));
    socket_close(fd);
}

static void test_refused_by_the_journal(void **state) {
    (void)state;
    struct answer a = post(&site.address, "/write?full=1", "", "x", 1);
    assert_int_equal(a.status, 503);
    assert_non_null(strstr(a.body, "No space left on device"));
    assert_non_null(header_of(&a, "Retry-After:"));
}

static void test_pipelined_writes_run_once_each(void **state) {
    (void)state;
    unsigned before = atomic_load(&site.writes);
    int fd = dial(&site.address);
    send_post(fd, "/write", "", "a", 1);
    send_post(fd, "/write", "", "b", 1);
    until(&site.writes, before + 1);
    assert_true(no_answer_for(fd, 50));
    assert_int_equal(atomic_load(&site.writes), before + 1); /* the second waits for its turn */
    commit(&site.journal, atomic_load(&site.journal.appended));
    assert_int_equal(read_answer(fd).status, 201);
    until(&site.writes, before + 2);
    commit(&site.journal, atomic_load(&site.journal.appended));
    expect(fd, 201, "durable");
    assert_int_equal(atomic_load(&site.writes), before + 2);
}

static void test_client_gone_while_it_waits(void **state) {
    (void)state;
    for (unsigned i = 0; i < 10; i++)
        socket_close(send_write("/write"));
    for (unsigned i = 0; i < 10; i++)
        socket_close(send_write("/write?wait=true"));
    commit(&site.journal, atomic_load(&site.journal.appended));
    make_visible(&site.work, atomic_load(&site.journal.appended));
    for (unsigned i = 0; i < 10; i++)
        socket_close(send_write("/write")); /* these meet their deadline */
    assert_int_equal(get(&site.address, "/empty").status, 204);
}

/* A committer that races with the loops: no wake-up is lost, whatever the order. */
struct racer {
    _Atomic bool end;
};

static void race(void *argument) {
    struct racer *racer = argument;
    while (!atomic_load(&racer->end)) {
        lsn_t appended = atomic_load(&site.journal.appended);
        if (appended > atomic_load(&site.journal.durable))
            commit(&site.journal, appended);
        if (atomic_load(&site.work.visible) < appended)
            make_visible(&site.work, appended);
    }
}

static void test_no_wake_up_is_lost(void **state) {
    (void)state;
    struct racer racer = {false};
    struct os_thread *thread = NULL;
    assert_int_equal(os_thread_start(os_real(), "race", race, &racer, &thread), 0);
    int fds[4];
    for (size_t i = 0; i < ARRAY_LENGTH(fds); i++)
        fds[i] = dial(&site.address);
    for (unsigned round = 0; round < 500; round++) {
        for (size_t i = 0; i < ARRAY_LENGTH(fds); i++)
            send_post(fds[i], i % 2 ? "/write?wait=true" : "/write", "", "x", 1);
        for (size_t i = 0; i < ARRAY_LENGTH(fds); i++)
            assert_int_equal(read_answer(fds[i]).status, 201);
    }
    atomic_store(&racer.end, true);
    os_thread_join(os_real(), thread);
    for (size_t i = 0; i < ARRAY_LENGTH(fds); i++)
        socket_close(fds[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_no_answer_before_it_is_durable, start, stop),
        cmocka_unit_test_setup_teardown(test_each_journal_answers_for_its_own, start, stop),
        cmocka_unit_test_setup_teardown(test_what_became_unknown_is_not_acknowledged, start, stop),
        cmocka_unit_test_setup_teardown(test_durable_already, start, stop),
        cmocka_unit_test_setup_teardown(test_reads_go_on_while_writes_wait, start, stop),
        cmocka_unit_test_setup_teardown(test_many_writes_share_a_commit, start, stop),
        cmocka_unit_test_setup_teardown(test_wake_ups_are_prompt, start, stop),
        cmocka_unit_test_setup_teardown(test_resumed, start, stop),
        cmocka_unit_test_setup_teardown(test_outcome_unknown, start_impatient, stop),
        cmocka_unit_test_setup_teardown(test_visible, start, stop),
        cmocka_unit_test_setup_teardown(test_visible_is_never_before_durable, start, stop),
        cmocka_unit_test_setup_teardown(test_many_visible_out_of_order, start, stop),
        cmocka_unit_test_setup_teardown(test_visible_timeout_is_still_a_success, start, stop),
        cmocka_unit_test_setup_teardown(test_visible_timeout_begins_with_durability, start, stop),
        cmocka_unit_test_setup_teardown(test_rejected, start, stop),
        cmocka_unit_test_setup_teardown(test_refused_by_the_journal, start, stop),
        cmocka_unit_test_setup_teardown(test_pipelined_writes_run_once_each, start, stop),
        cmocka_unit_test_setup_teardown(test_client_gone_while_it_waits, start_impatient, stop),
        cmocka_unit_test_setup_teardown(test_no_wake_up_is_lost, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
