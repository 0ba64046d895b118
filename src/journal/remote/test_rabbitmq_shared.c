/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the suite of all drivers of shared journals (test_shared_driver.c) cannot ask of RabbitMQ:
 * streams that go under running processes, and a library that runs out of memory.
 *
 *   MILLRACE_TEST_JOURNAL='amqp://127.0.0.1:5672/?prefix=LOG-&partitions=3' \
 *       build-debug/src/test-journal-rabbitmq_shared
 *
 * LOG becomes a name of each test's own. Without the variable every test is skipped.
 */
#include "journal/remote/test_shared_support.h"

#include "journal/remote/rabbitmq_shared.h"

#include <dlfcn.h>

enum { PARTITIONS = 3, MESSAGES = MESSAGES_MAX };

struct own_rig {
    struct rig rig;   /* first */
    struct link link; /* of who spoils */
};

/* ---- In place of the library's ---- */

static unsigned publish_fails; /* that after so many; 0: none */
static unsigned breaks;        /* so many waits end with the connection's loss */
static bool hides;             /* the broker does not know the second stream for now */

/* Memory runs out: what was sent of the message before nobody knows. */
int amqp_basic_publish(amqp_connection_state_t state, amqp_channel_t channel, amqp_bytes_t exchange,
                       amqp_bytes_t key, amqp_boolean_t mandatory, amqp_boolean_t immediate,
                       struct amqp_basic_properties_t_ const *properties, amqp_bytes_t body) {
    static __typeof__(&amqp_basic_publish) real;
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "amqp_basic_publish");
    if (publish_fails && --publish_fails == 0)
        return AMQP_STATUS_NO_MEMORY;
    return real(state, channel, exchange, key, mandatory, immediate, properties, body);
}

int amqp_simple_wait_frame_noblock(amqp_connection_state_t state, amqp_frame_t *frame,
                                   const struct timeval *timeout) {
    static __typeof__(&amqp_simple_wait_frame_noblock) real;
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "amqp_simple_wait_frame_noblock");
    if (breaks == 0)
        return real(state, frame, timeout);
    breaks--;
    return AMQP_STATUS_CONNECTION_CLOSED;
}

amqp_basic_consume_ok_t *amqp_basic_consume(amqp_connection_state_t state, amqp_channel_t channel,
                                            amqp_bytes_t queue, amqp_bytes_t tag,
                                            amqp_boolean_t no_local, amqp_boolean_t no_ack,
                                            amqp_boolean_t exclusive, amqp_table_t arguments) {
    static __typeof__(&amqp_basic_consume) real;
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "amqp_basic_consume");
    bool is_second = queue.len > 0 && ((const char *)queue.bytes)[queue.len - 1] == '1';
    return real(state, channel, hides && is_second ? amqp_cstring_bytes("nowhere") : queue, tag,
                no_local, no_ack, exclusive, arguments);
}

/* ---- The rig ---- */

static struct rig *start(void **state, const char *more) {
    struct own_rig *own = *state;
    rig_open(&own->rig, more);
    link_init(&own->link, own->rig.os, &own->rig.url, TIMEOUT_MS);
    return &own->rig;
}

static int setup(void **state) {
    publish_fails = breaks = 0;
    hides = false;
    *state = calloc(1, sizeof(struct own_rig));
    return *state ? 0 : -1;
}

static int teardown(void **state) {
    struct own_rig *own = *state;
    rig_close(&own->rig);
    link_drop(&own->link, 0);
    free(own);
    return 0;
}

static const char *stream_name(struct rig *rig, unsigned partition, char out[TEXT_MAX]) {
    char what[16];
    snprintf(what, sizeof what, "-%u", partition);
    return name_in_log(rig, what, out);
}

/* Who spoils has a connection anew each time. */
static struct link *spoiler_of(struct rig *rig) {
    struct link *l = &CONTAINER_OF(rig, struct own_rig, rig)->link;
    link_drop(l, 0);
    assert_int_equal(link_connect(l, 0, os_monotonic_ns(rig->os) + TIMEOUT_MS * MS_NS), 0);
    return l;
}

static void delete_queue(struct link *l, const char *name) {
    amqp_queue_delete(l->state, LINK_CHANNEL, amqp_cstring_bytes(name), 0, 0);
    assert_int_equal(link_check(l, amqp_get_rpc_reply(l->state), "deleting a queue"), 0);
}

static void delete_stream(struct rig *rig, unsigned partition) {
    char name[TEXT_MAX];
    delete_queue(spoiler_of(rig), stream_name(rig, partition, name));
}

/* How many members are counted as such, by a queue that is made if it is missing. */
static unsigned count_workers(struct rig *rig, struct link *l) {
    char name[TEXT_MAX];
    const amqp_queue_declare_ok_t *ok = amqp_queue_declare(
        l->state, LINK_CHANNEL, amqp_cstring_bytes(name_in_log(rig, "-workers", name)), 0, 0, 0, 1,
        amqp_empty_table);
    assert_int_equal(link_check(l, amqp_get_rpc_reply(l->state), "counting the workers"), 0);
    return ok->consumer_count;
}

/* ---- Writing ---- */

/* n messages to one of the partitions, of one record each. */
static int deliver_sized(struct rig *rig, unsigned partition, unsigned n, size_t size) {
    struct shared_message messages[MESSAGES];
    assert_true(n <= MESSAGES);
    for (unsigned i = 0; i < n; i++)
        make_message(&messages[i], partition, size);
    return deliver_messages(rig, messages, n);
}

static int deliver(struct rig *rig, unsigned partition, unsigned n) {
    return deliver_sized(rig, partition, n, 3);
}

static void deliver_all(struct rig *rig, unsigned n) {
    for (unsigned p = 0; p < PARTITIONS; p++)
        assert_int_equal(deliver(rig, p, n), 0);
}

/* ---- Reading ---- */

static bool have_read(const struct rig *rig, unsigned n) {
    for (unsigned p = 0; p < PARTITIONS; p++)
        if (rig->records[p] != n)
            return false;
    return true;
}

/* ---- Tests ---- */

/* What had been sent is not known to be there then, nor not to be: it is said so, once. */
static void test_memory_that_runs_out_in_the_middle_hides_nothing(void **state) {
    struct rig *rig = start(state, "");
    publish_fails = 3;
    assert_int_equal(deliver(rig, 0, 5), LOG_E_UNKNOWN);
    assert_int_equal(deliver(rig, 0, 2), 0);
    join(rig);
    until(rig, true, rig->records[0] >= 2);
    for (unsigned i = 0; i < 10; i++)
        read_once(rig, true);
    assert_in_range(rig->records[0], 2, 2 + 2); /* of the five, two were sent */
}

/* Others go on; it is made anew by a process that starts, and what the store has of the former is
 * not taken for what comes then. */
static void test_a_stream_that_is_gone_stops_no_other(void **state) {
    struct rig *rig = start(state, "");
    char name[TEXT_MAX];
    join(rig);
    deliver_all(rig, 2);
    until(rig, true, have_read(rig, 2));
    delete_stream(rig, 1);
    assert_int_equal(deliver(rig, 0, 3), 0);
    assert_int_equal(deliver(rig, 2, 3), 0);
    until(rig, true, rig->records[0] == 5 && rig->records[2] == 5);
    until(rig, true, strstr(status_of(rig).why, stream_name(rig, 1, name)));
    int r = deliver(rig, 1, 1);
    assert_true(r == LOG_E_UNKNOWN);
    assert_int_equal(deliver(rig, 1, 1), LOG_E_UNAVAILABLE); /* and this process makes none */
    assert_non_null(strstr(rig->writer->why, "is gone"));
    open_writer(rig);
    for (unsigned i = 0; i < 4; i++) /* more than the former had */
        assert_int_equal(deliver(rig, 1, 1), 0);
    assert_int_equal(deliver(rig, 0, 1), 0);
    until(rig, true, rig->records[0] == 6);
    until(rig, true, strstr(status_of(rig).why, "ahead of the journal"));
    assert_int_equal(rig->records[1], 2);
}

static void test_a_stream_that_is_there_again_is_gone_no_more(void **state) {
    struct rig *rig = start(state, "");
    join(rig);
    deliver_all(rig, 2);
    until(rig, true, have_read(rig, 2));
    hides = true;
    breaks = 4; /* whoever waits next */
    until(rig, true, strstr(status_of(rig).why, "404"));
    assert_non_null(strstr(status_of(rig).why, "nowhere"));
    assert_int_equal(deliver(rig, 0, 1), 0);
    assert_int_equal(deliver(rig, 1, 1), 0);
    until(rig, true, rig->records[0] == 3);
    hides = false;
    until(rig, true, rig->records[1] == 3);
    until(rig, true, status_of(rig).reachable);
    assert_int_equal(status_of(rig).lost_messages, 0);
}

/* Silence is no answer, and a newest message before what was read is one. */
static void test_a_stream_that_was_made_anew_meanwhile_is_noticed(void **state) {
    struct rig *rig = start(state, "");
    join(rig);
    deliver_all(rig, 3);
    until(rig, true, have_read(rig, 3));
    rig->group = group_close(rig->group);
    delete_stream(rig, 1);
    open_writer(rig);
    join(rig);
    until(rig, true, strstr(status_of(rig).why, "nothing comes of the stream"));
    assert_int_equal(deliver(rig, 0, 1), 0);
    until(rig, true, rig->records[0] == 4);
    assert_int_equal(deliver(rig, 1, 1), 0);
    until(rig, true, strstr(status_of(rig).why, "ahead of the journal"));
    assert_int_equal(rig->records[1], 3);
}

/* The queue by which members are counted is made anew by somebody, while a stream is waited for. */
static void test_who_is_counted_no_more_joins_again(void **state) {
    struct rig *rig = start(state, "");
    char name[TEXT_MAX];
    join(rig);
    deliver_all(rig, 1);
    until(rig, true, have_read(rig, 1));
    rig->group = group_close(rig->group);
    delete_stream(rig, 1);
    open_writer(rig);
    join(rig);
    until(rig, true, strstr(status_of(rig).why, "nothing comes of the stream"));
    for (unsigned i = 2; i < 6; i++) {
        os_sleep_ns(rig->os, 1200 * MS_NS); /* so that a stream is looked at first, mostly */
        struct link *l = spoiler_of(rig);
        delete_queue(l, name_in_log(rig, "-workers", name));
        assert_int_equal(count_workers(rig, l), 0);
        until(rig, true, count_workers(rig, spoiler_of(rig)) == 1);
        assert_int_equal(deliver(rig, 0, 1), 0);
        until(rig, true, rig->records[0] == i);
    }
}

static void test_what_is_dropped_before_it_was_read_is_lost(void **state) {
    struct rig *rig = start(state, "&max-bytes=16384&segment-bytes=4096");
    for (unsigned i = 0; i < MESSAGES; i++) /* of a chunk each: segments are of whole ones */
        assert_int_equal(deliver_sized(rig, 1, 1, PAYLOAD_MAX), 0);
    join(rig);
    until(rig, true, rig->records[1] + status_of(rig).lost_messages >= MESSAGES);
    assert_in_range(rig->records[1], 1, MESSAGES / 2);
    assert_true(status_of(rig).lost_messages < 2 * MESSAGES); /* a segment takes an offset too */
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(deliver_sized(rig, 0, 1, PAYLOAD_MAX), 0);
    uint64_t lost = status_of(rig).lost_messages;
    until(rig, true, rig->records[0] == 3); /* over the ends of segments */
    assert_int_equal(status_of(rig).lost_messages, lost);
}

/* Also what was read already, of a store that is down; and though others are empty. */
static void test_the_lag_is_what_is_not_applied(void **state) {
    struct rig *rig = start(state, "");
    join(rig);
    assert_int_equal(deliver(rig, 2, 10), 0);
    until(rig, false, rig->records[2] == 10);
    until(rig, false, status_of(rig).lag_messages == 10);
    for (unsigned i = 0; i < 15; i++)
        assert_int_equal(deliver(rig, 2, 1), 0);
    uint64_t until_ns = os_monotonic_ns(rig->os) + PATIENCE_MS * MS_NS;
    while (status_of(rig).lag_messages < 25 && os_monotonic_ns(rig->os) < until_ns)
        (void)group_hold(rig->group, 2, 20);
    assert_int_equal(status_of(rig).lag_messages, 25);
}

/* ---- Queues ---- */

/* A store that numbers whatever comes, and hears of warnings. */
struct numbering {
    uint64_t session;
    uint64_t next;
    const uint64_t *numbers; /* of the messages that come, instead; 0 behind the last */
    unsigned warnings;
    char warning[LOG_WHY_MAX];
};

static int give_numbers(void *numbering, unsigned partition UNUSED, struct group_numbers *numbers) {
    struct numbering *all = numbering;
    if (numbers->n == 0)
        numbers->session = ++all->session;
    for (size_t i = 0; i < numbers->n; i++)
        numbers->offsets[i] = all->numbers && *all->numbers ? *all->numbers++ : all->next++;
    return 0;
}

static void hear(void *numbering, const char *sentence) {
    struct numbering *all = numbering;
    all->warnings++;
    snprintf(all->warning, sizeof all->warning, "%s", sentence);
}

/* Reads for a while, from where it was; says how many. */
static unsigned read_queues(struct rig *rig, struct shared_member *member, uint64_t *sought,
                            uint64_t from) {
    struct shared_delivery d;
    unsigned n = 0;
    for (unsigned p = 0; p < PARTITIONS; p++)
        if (member->generation[p] && member->generation[p] != sought[p] &&
            member->ops->seek(member, p, false, &(uint64_t){from}) == 0)
            sought[p] = member->generation[p];
    for (; member->ops->next(member, 20, &d) == 0; n++)
        member->ops->release(&d);
    probe(rig);
    return n;
}

/* Whoever reads it says so, and whoever makes it anew. */
static void test_a_queue_that_is_removed_is_no_secret(void **state) {
    struct rig *rig = start(state, "&queues=quorum");
    struct numbering reader = {.next = 1}, writer = {0};
    struct log_options options = options_of(rig);
    struct shared_member *member;
    uint64_t sought[PARTITIONS] = {0};
    char name[TEXT_MAX];
    options.warn = hear;
    options.context = &writer;
    rig->driver->writer->close(rig->writer);
    assert_int_equal(rig->driver->writer->open(rig->os, &options, &rig->writer), 0);
    options.context = &reader;
    assert_int_equal(rig->driver->member->join(rig->os, &options, &member), 0);
    member->number = give_numbers;
    member->context = &reader;
    assert_int_equal(deliver(rig, 1, 2), 0);
    unsigned n = 0;
    until(rig, true, (n += read_queues(rig, member, sought, 1)) == 2);
    assert_int_equal(writer.warnings + reader.warnings, 0);
    delete_queue(spoiler_of(rig), name_in_log(rig, "-q1", name));
    until(rig, true, (n += read_queues(rig, member, sought, 1), reader.warnings > 0));
    assert_non_null(strstr(reader.warning, name));
    assert_true(member->generation[0] && member->generation[0] == sought[0]);
    assert_int_equal(deliver(rig, 1, 1), LOG_E_UNKNOWN);
    assert_int_equal(deliver(rig, 1, 3), 0);
    assert_int_equal(writer.warnings, 1);
    assert_non_null(strstr(writer.warning, name));
    until(rig, true, (n += read_queues(rig, member, sought, 1)) >= 5);
    assert_int_equal(reader.warnings, 1);
    member->ops->leave(member);
}

/* When its one record was written. */
static uint64_t stamp_of(const struct shared_delivery *d) {
    CLEANUP(buffer_deinit) struct buffer records = BUFFER_INIT;
    assert_true(shared_message_load(d->bytes, d->offset, &records));
    return ((const struct journal_record *)(const void *)records.data)->wall_us;
}

/* As when a session before this one had them in another order: a message's number is the one that
 * it had then, and by numbers is what the store needs. One that is missing may come yet. */
static void test_what_comes_in_another_order_is_given_on_by_its_number(void **state) {
    static const uint64_t numbers[] = {2, 1, 4, 3, 5, 8, 7, 0};
    static const struct {
        uint64_t number;
        unsigned written;
    } wanted[] = {{1, 1}, {2, 0}, {3, 3}, {4, 2}, {5, 4}, {7, 6}, {8, 5}};
    struct rig *rig = start(state, "&queues=quorum");
    struct numbering store = {.numbers = numbers};
    const struct log_options options = options_of(rig);
    struct shared_member *member;
    struct shared_delivery d;
    uint64_t sought[PARTITIONS] = {0}, first = 0;
    unsigned n = 0;
    assert_int_equal(rig->driver->member->join(rig->os, &options, &member), 0);
    member->number = give_numbers;
    member->context = &store;
    until(rig, true, (read_queues(rig, member, sought, 1), sought[1] > 0));
    assert_int_equal(deliver(rig, 1, ARRAY_LENGTH(wanted)), 0);
    for (uint64_t end_ns = os_monotonic_ns(rig->os) + PATIENCE_MS * MS_NS;
         n < ARRAY_LENGTH(wanted) && os_monotonic_ns(rig->os) < end_ns;) {
        if (member->ops->next(member, 20, &d))
            continue;
        first = n == 0 ? stamp_of(&d) - wanted[0].written : first;
        assert_int_equal(d.offset, wanted[n].number);
        assert_int_equal(stamp_of(&d), first + wanted[n].written);
        member->ops->release(&d);
        n++;
        const struct shared_position done = {.partition = 1, .offset = d.offset + 1};
        member->ops->commit(member, &done, 1); /* else no more comes */
    }
    assert_int_equal(n, ARRAY_LENGTH(wanted));
    member->ops->leave(member);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_memory_that_runs_out_in_the_middle_hides_nothing,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_stream_that_is_gone_stops_no_other, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_stream_that_is_there_again_is_gone_no_more, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_stream_that_was_made_anew_meanwhile_is_noticed,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_who_is_counted_no_more_joins_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_dropped_before_it_was_read_is_lost, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_queue_that_is_removed_is_no_secret, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_comes_in_another_order_is_given_on_by_its_number,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_lag_is_what_is_not_applied, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
