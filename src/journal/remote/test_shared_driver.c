/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every driver of a shared journal promises (shared_driver.h), on the engine of a URL:
 *
 *   MILLRACE_TEST_JOURNAL='kafka://127.0.0.1:9092/?topic-prefix=LOG&partitions=4' \
 *       build-debug/src/test-journal-shared_driver
 *
 * LOG becomes a name of each test's own. Without the variable every test is skipped.
 */
#include "base/hash.h"
#include "journal/remote/shared.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum {
    TIMEOUT_MS = 5000,
    PATIENCE_MS = 60000,
    MESSAGES = 40,
    TEXT_MAX = 2048,
    NUMBERED_MAX = 1000
};
#define URL_VARIABLE "MILLRACE_TEST_JOURNAL"
#define NAME "events"

/* What a store remembers of the messages that it numbered, of a log that has no offsets. */
struct numbered {
    uint64_t session;
    uint64_t ids[NUMBERED_MAX]; /* hashes of them: of each its number is its place */
    unsigned n;
};

struct rig {
    struct os *os;
    struct service_url url;
    char text[TEXT_MAX];
    unsigned partitions;
    const struct shared_driver *driver;
    struct shared_writer *writer;
    struct shared_member *members[2];
    unsigned written[GROUP_PARTITIONS_MAX];
    unsigned read[GROUP_PARTITIONS_MAX];          /* the number of the next message to come */
    uint64_t offsets[GROUP_PARTITIONS_MAX][1000]; /* of those that were read */
    struct numbered numbered[GROUP_PARTITIONS_MAX];
    bool keep; /* what was read is not committed, so that it comes again */
};

static bool rename_log(struct rig *rig, const char *form) {
    uint64_t number;
    const char *why, *at = strstr(form, "LOG");
    if (!at || os_random(rig->os, &number, sizeof number))
        return false;
    snprintf(rig->text, sizeof rig->text, "%.*s%016llx-%s", (int)(at - form), form,
             (unsigned long long)number, at + 3);
    return service_url_parse(rig->text, &rig->url, &why);
}

static struct log_options options_of(struct rig *rig) {
    return (struct log_options){.url = &rig->url, .name = NAME, .timeout_ms = TIMEOUT_MS};
}

/* An engine that is busy makes what is missing slowly. */
static int open_patiently(struct rig *rig) {
    const struct log_options options = options_of(rig);
    uint64_t until = os_monotonic_ns(rig->os) + PATIENCE_MS * UINT64_C(1000000);
    int r;
    while ((r = rig->driver->writer->open(rig->os, &options, &rig->writer)) == LOG_E_UNAVAILABLE &&
           os_monotonic_ns(rig->os) < until)
        rig->driver->writer->close(rig->writer);
    return r;
}

static int setup(void **state) {
    struct rig *rig = calloc(1, sizeof *rig);
    const char *form = getenv(URL_VARIABLE);
    if (!rig)
        return -1;
    *state = rig;
    if (!form)
        return 0;
    rig->os = os_real();
    if (!rename_log(rig, form))
        return -1;
    rig->driver = shared_driver_find(&rig->url);
    rig->partitions = journal_url_partitions(&rig->url);
    return open_patiently(rig);
}

static void leave(struct rig *rig, int i) {
    if (rig->members[i])
        rig->driver->member->leave(rig->members[i]);
    rig->members[i] = NULL;
}

static int teardown(void **state) {
    struct rig *rig = *state;
    leave(rig, 0);
    leave(rig, 1);
    if (rig->writer)
        rig->driver->writer->close(rig->writer);
    free(rig);
    return 0;
}

/* ---- Doing ---- */

/* Messages that say which they are: their partition and their number there. */
static void write_some(struct rig *rig, unsigned n) {
    struct shared_message messages[MESSAGES] = {0};
    assert_true(n <= MESSAGES);
    for (unsigned i = 0; i < n; i++) {
        struct shared_message *m = &messages[i];
        m->partition = i % rig->partitions;
        m->n = 1;
        buffer_append_u32(&m->bytes, m->partition);
        buffer_append_u32(&m->bytes, rig->written[m->partition]++);
    }
    int r;
    do
        r = rig->driver->writer->deliver(rig->writer, messages, n);
    while (r == LOG_E_UNAVAILABLE);
    assert_int_equal(r, 0);
    for (unsigned i = 0; i < n; i++)
        buffer_deinit(&messages[i].bytes);
}

static uint64_t number_of(struct numbered *all, struct bytes id) {
    uint64_t hash = hash64(id.data, id.size);
    for (unsigned i = 0; i < all->n; i++)
        if (all->ids[i] == hash)
            return i;
    assert_true(all->n < NUMBERED_MAX);
    all->ids[all->n] = hash;
    return all->n++;
}

static int number(void *context, unsigned partition, struct group_numbers *numbers) {
    struct numbered *all = &((struct rig *)context)->numbered[partition];
    if (numbers->n == 0)
        numbers->session = ++all->session;
    if (numbers->session != all->session)
        return JOURNAL_E_END;
    for (size_t i = 0; i < numbers->n; i++)
        numbers->offsets[i] = number_of(all, numbers->ids[i]);
    return 0;
}

static void join(struct rig *rig, int i) {
    const struct log_options options = options_of(rig);
    assert_int_equal(rig->driver->member->join(rig->os, &options, &rig->members[i]), 0);
    rig->members[i]->number = number;
    rig->members[i]->context = rig;
    assert_true(rig->members[i]->reachable);
}

static unsigned owned(const struct rig *rig, int i) {
    unsigned n = 0;
    for (unsigned p = 0; p < rig->partitions; p++)
        n += rig->members[i]->generation[p] != 0;
    return n;
}

/* Takes a message in, if there is one, and looks whether it is the one that had to come. */
static bool take(struct rig *rig, int i, uint64_t wait_ms) {
    struct shared_delivery d;
    int r = rig->driver->member->next(rig->members[i], wait_ms, &d);
    if (r) {
        assert_int_equal(r, LOG_E_END);
        return false;
    }
    size_t size = d.bytes.size;
    uint32_t partition = size == 8 ? load_u32(d.bytes.data) : UINT32_MAX;
    uint32_t found = size == 8 ? load_u32(d.bytes.data + 4) : UINT32_MAX;
    rig->driver->member->release(
        &d); /* before anything fails: who leaves with one in hand may wait for it */
    assert_int_equal(size, 8);
    assert_int_equal(partition, d.partition);
    unsigned number = rig->read[d.partition]++;
    assert_int_equal(found, number);
    rig->offsets[d.partition][number] = d.offset;
    if (number)
        assert_true(d.offset > rig->offsets[d.partition][number - 1]);
    const struct shared_position position = {d.partition, d.offset + 1};
    if (rig->driver->member->numbered && !rig->keep)
        rig->driver->member->commit(rig->members[i], &position, 1);
    return true;
}

static bool all_read(const struct rig *rig) {
    for (unsigned p = 0; p < rig->partitions; p++)
        if (rig->read[p] < rig->written[p])
            return false;
    return true;
}

#define until(rig, member, what)                                                                   \
    do {                                                                                           \
        uint64_t until_ = os_monotonic_ns((rig)->os) + PATIENCE_MS * UINT64_C(1000000);            \
        while (!(what) && os_monotonic_ns((rig)->os) < until_)                                     \
            (void)take(rig, member, 20);                                                           \
        assert_true(what);                                                                         \
    } while (0)

/* Until the engine does it. */
static int seek(struct rig *rig, int i, unsigned p, bool known, uint64_t offset) {
    uint64_t end = os_monotonic_ns(rig->os) + PATIENCE_MS * UINT64_C(1000000);
    int r;
    do
        r = rig->driver->member->seek(rig->members[i], p, known, &offset);
    while (r == LOG_E_UNAVAILABLE && os_monotonic_ns(rig->os) < end);
    return r;
}

static void seek_all(struct rig *rig, int i) {
    for (unsigned p = 0; p < rig->partitions; p++)
        if (rig->members[i]->generation[p])
            assert_int_equal(seek(rig, i, p, false, 0), 0);
}

static struct rig *start(void **state) {
    struct rig *rig = *state;
    if (!rig->os)
        skip();
    return rig;
}

/* ---- Tests ---- */

static void test_what_is_written_is_read_in_order(void **state) {
    struct rig *rig = start(state);
    write_some(rig, MESSAGES);
    join(rig, 0);
    until(rig, 0, owned(rig, 0) == rig->partitions);
    assert_false(take(rig, 0, 300)); /* nothing was sought */
    seek_all(rig, 0);
    until(rig, 0, all_read(rig));
    write_some(rig, MESSAGES);
    until(rig, 0, all_read(rig));
    assert_false(take(rig, 0, 50));
    for (unsigned p = 0; p < rig->partitions; p++) {
        uint64_t end = rig->driver->member->end ? rig->driver->member->end(rig->members[0], p) : 0;
        assert_true(end == 0 || end > rig->offsets[p][rig->read[p] - 1]);
    }
}

static void test_reading_begins_where_it_was_sought(void **state) {
    struct rig *rig = start(state);
    if (rig->driver->member->numbered) /* what was read is gone */
        return;
    write_some(rig, MESSAGES);
    join(rig, 0);
    until(rig, 0, owned(rig, 0) == rig->partitions);
    seek_all(rig, 0);
    until(rig, 0, all_read(rig));
    unsigned last = rig->read[0] - 1;
    rig->read[0] = 2;
    assert_int_equal(seek(rig, 0, 0, true, rig->offsets[0][2]), 0);
    until(rig, 0, all_read(rig));
    rig->read[0] = last;
    assert_int_equal(seek(rig, 0, 0, true, rig->offsets[0][last]), 0);
    until(rig, 0, all_read(rig));
    assert_int_equal(seek(rig, 0, 0, false, rig->offsets[0][last] + 1), 0); /* its end */
    assert_int_equal(seek(rig, 0, 0, true, rig->offsets[0][last] + 1), LOG_E_END);
    assert_int_equal(seek(rig, 0, 0, true, rig->offsets[0][last] + 1000), LOG_E_END);
}

static void test_a_partition_that_is_paused_goes_on_where_it_was(void **state) {
    struct rig *rig = start(state);
    join(rig, 0);
    until(rig, 0, owned(rig, 0) == rig->partitions);
    seek_all(rig, 0);
    rig->driver->member->pause(rig->members[0], 0, true);
    while (take(rig, 0, 100)) /* what is on its way */
        ;
    write_some(rig, MESSAGES);
    rig->read[0] = rig->written[0]; /* nothing is expected of it */
    until(rig, 0, all_read(rig));
    assert_false(take(rig, 0, 300));
    rig->read[0] = 0;
    rig->driver->member->pause(rig->members[0], 0, false);
    until(rig, 0, all_read(rig));
}

/* Two of them divide the partitions, and who stays gets those of who leaves. */
static void test_members_divide(void **state) {
    struct rig *rig = start(state);
    join(rig, 0);
    until(rig, 0, owned(rig, 0) == rig->partitions);
    join(rig, 1);
    until(
        rig, 0,
        (take(rig, 1, 20), owned(rig, 1) > 0 && owned(rig, 0) + owned(rig, 1) == rig->partitions));
    assert_int_equal(owned(rig, 0), rig->partitions / 2);
    for (unsigned p = 0; p < rig->partitions; p++)
        assert_true(!rig->members[0]->generation[p] != !rig->members[1]->generation[p]);
    uint64_t before[GROUP_PARTITIONS_MAX];
    memcpy(before, rig->members[1]->generation, sizeof before);
    leave(rig, 0);
    until(rig, 1, owned(rig, 1) == rig->partitions);
    for (unsigned p = 0; p < rig->partitions; p++)
        if (before[p] == 0)
            assert_int_equal(seek(rig, 1, p, false, 0), 0);
}

/* What was not acknowledged comes again, with the numbers that it had and before what is new, to
 * whoever has the partition next; and nothing of what was is lost or comes twice. */
static void test_what_was_not_acknowledged_comes_again(void **state) {
    struct rig *rig = start(state);
    if (!rig->driver->member->numbered)
        return;
    write_some(rig, MESSAGES);
    join(rig, 0);
    until(rig, 0, owned(rig, 0) == rig->partitions);
    seek_all(rig, 0);
    until(rig, 0, rig->read[0] == 2);
    rig->keep = true;
    until(rig, 0, rig->read[0] == 4);
    uint64_t third = rig->offsets[0][2];
    unsigned before[GROUP_PARTITIONS_MAX];
    memcpy(before, rig->read, sizeof before);
    leave(rig, 0);
    rig->keep = false;
    rig->read[0] = 2;
    join(rig, 1);
    until(rig, 1, owned(rig, 1) == rig->partitions);
    for (unsigned p = 0; p < rig->partitions; p++) {
        uint64_t last = p == 0 ? 1 : before[p] - 1;
        rig->read[p] = (unsigned)last + 1;
        assert_int_equal(seek(rig, 1, p, true, before[p] ? rig->offsets[p][last] + 1 : 0), 0);
    }
    until(rig, 1, all_read(rig));
    assert_int_equal(rig->offsets[0][2], third);
    for (unsigned p = 0; p < rig->partitions; p++)
        assert_int_equal(rig->numbered[p].n, rig->written[p]);
}

/* A session that is not the newest is over: its partition is to be sought anew. */
static void test_who_was_put_out_seeks_anew(void **state) {
    struct rig *rig = start(state);
    if (!rig->driver->member->numbered)
        return;
    join(rig, 0);
    until(rig, 0, owned(rig, 0) == rig->partitions);
    seek_all(rig, 0);
    uint64_t generation = rig->members[0]->generation[0];
    rig->numbered[0].session++;
    write_some(rig, MESSAGES);
    until(rig, 0, rig->members[0]->generation[0] != generation);
    assert_int_equal(rig->read[0], 0);
    assert_int_equal(seek(rig, 0, 0, false, 0), 0);
    until(rig, 0, all_read(rig));
}

static void test_what_was_trimmed_is_gone_and_the_rest_is_not(void **state) {
    struct rig *rig = start(state);
    write_some(rig, MESSAGES);
    join(rig, 0);
    until(rig, 0, owned(rig, 0) == rig->partitions);
    seek_all(rig, 0);
    until(rig, 0, all_read(rig));
    if (!rig->driver->member->trim)
        return;
    assert_int_equal(rig->driver->member->trim(rig->members[0], 0, rig->offsets[0][3]), 0);
    uint64_t offset, end = os_monotonic_ns(rig->os) + PATIENCE_MS * UINT64_C(1000000);
    int r;
    do { /* asked for, and done in a while */
        offset = 0;
        r = rig->driver->member->seek(rig->members[0], 0, false, &offset);
        assert_true(r == 0 || r == LOG_E_UNAVAILABLE);
    } while (offset == 0 && os_monotonic_ns(rig->os) < end);
    assert_int_equal(offset, rig->offsets[0][3]);
    rig->read[0] = 3;
    until(rig, 0, all_read(rig));
}

static void test_another_number_of_partitions_is_refused(void **state) {
    struct rig *rig = start(state);
    static const int more[] = {1, 2, -1, -2};
    for (size_t i = 0; i < ARRAY_LENGTH(more); i++) {
        char text[TEXT_MAX], number[32];
        struct service_url url;
        const char *why, *at = strstr(rig->text, "partitions=");
        struct shared_writer *writer;
        assert_non_null(at);
        snprintf(number, sizeof number, "%d", (int)rig->partitions + more[i]);
        at += strlen("partitions=");
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - rig->text), rig->text, number,
                 at + strspn(at, "0123456789"));
        assert_true(service_url_parse(text, &url, &why));
        struct log_options options = options_of(rig);
        options.url = &url;
        assert_int_equal(rig->driver->writer->open(rig->os, &options, &writer), LOG_E_REFUSED);
        snprintf(text, sizeof text, "has %u partitions, not %s: give partitions=%u",
                 rig->partitions, number, rig->partitions);
        assert_non_null(strstr(writer->why, text));
        rig->driver->writer->close(writer);
    }
}

/* Once the engine does it. */
static int try_mark(struct rig *rig, const char *text, struct journal_mark *ret_mark) {
    const struct journal_mark_options options = {
        .url = &rig->url, .name = NAME, .timeout_ms = TIMEOUT_MS};
    uint64_t end = os_monotonic_ns(rig->os) + PATIENCE_MS * UINT64_C(1000000);
    char why[GROUP_WHY_MAX] = "";
    int r;
    do
        r = journal_mark(rig->os, &options, text, ret_mark, why);
    while (r == JOURNAL_E_UNAVAILABLE && os_monotonic_ns(rig->os) < end);
    if (r)
        print_error("%s\n", why);
    return r;
}

static struct journal_mark mark_of(struct rig *rig, const char *text) {
    struct journal_mark mark;
    assert_int_equal(try_mark(rig, text, &mark), 0);
    assert_non_null(strstr(mark.place, NAME));
    return mark;
}

/* The engine may not say what it is, or only the beginning. */
static void assert_is(const struct journal_mark *mark, bool ours, const char *text) {
    assert_true(mark->there);
    assert_int_equal(mark->ours, ours);
    assert_int_equal(strncmp(mark->text, text, strlen(mark->text)), 0);
}

static void test_the_first_mark_stays(void **state) {
    struct rig *rig = start(state);
    struct journal_mark mark = mark_of(rig, NULL);
    assert_false(mark.there || mark.ours);
    mark = mark_of(rig, NULL); /* looking leaves none */
    assert_false(mark.there);
    mark = mark_of(rig, "mill/1");
    assert_is(&mark, true, "mill/1");
    mark = mark_of(rig, "mill/2");
    assert_is(&mark, false, "mill/1");
    assert_string_equal(mark.text, "mill/1");
    mark = mark_of(rig, "mill/1");
    assert_is(&mark, true, "mill/1");
    mark = mark_of(rig, NULL);
    assert_is(&mark, false, "mill/1");
}

struct leaver {
    struct rig *rig;
    struct os_thread *thread;
    char text[JOURNAL_MARK_MAX];
    struct journal_mark mark;
    int result;
};

static void leave_mark(void *leaver) {
    struct leaver *l = leaver;
    l->result = try_mark(l->rig, l->text, &l->mark);
}

/* Texts as long as may be: one of them, whole. */
static void test_of_many_marks_at_once_one_stays(void **state) {
    enum { LEAVERS = 4 };
    struct rig *rig = start(state);
    static struct leaver leavers[LEAVERS];
    unsigned ours = 0, winner = 0;
    for (unsigned i = 0; i < LEAVERS; i++) {
        leavers[i] = (struct leaver){.rig = rig};
        memset(leavers[i].text, 'a' + (int)i, sizeof leavers[i].text - 1);
        assert_int_equal(
            os_thread_start(rig->os, "leaver", leave_mark, &leavers[i], &leavers[i].thread), 0);
    }
    for (unsigned i = 0; i < LEAVERS; i++) {
        os_thread_join(rig->os, leavers[i].thread);
        assert_int_equal(leavers[i].result, 0);
        ours += leavers[i].mark.ours;
        winner = leavers[i].mark.ours ? i : winner;
    }
    assert_int_equal(ours, 1);
    for (unsigned i = 0; i < LEAVERS; i++)
        assert_is(&leavers[i].mark, i == winner, leavers[winner].text);
    const struct journal_mark mark = mark_of(rig, leavers[winner].text);
    assert_is(&mark, true, leavers[winner].text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_written_is_read_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reading_begins_where_it_was_sought, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_partition_that_is_paused_goes_on_where_it_was, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_members_divide, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_was_not_acknowledged_comes_again, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_who_was_put_out_seeks_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_was_trimmed_is_gone_and_the_rest_is_not, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_another_number_of_partitions_is_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_the_first_mark_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(test_of_many_marks_at_once_one_stays, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
