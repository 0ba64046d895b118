/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages of a shared journal: what was put in comes out, and nothing else does.
 */
#include "journal/remote/shared.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

enum { SALT = 0x5a17, RECORDS = 3 };

static void append_frame(struct buffer *out, uint64_t key, const char *payload) {
    const struct frame f = {.lsn = 7,
                            .key_hash = key,
                            .wall_us = 1000 + key,
                            .kind = JOURNAL_KIND_EVENTS,
                            .flags = JOURNAL_MORE | JOURNAL_CONTROL,
                            .payload = bytes_of_string(payload)};
    size_t size = frame_bytes(f.payload.size);
    uint8_t *at = buffer_reserve(out, size);
    assert_non_null(at);
    frame_store(at, SALT, &f, frame_payload_crc(SALT, f.payload));
    out->size += size;
}

static void make_message(struct buffer *out) {
    static const char *const payloads[RECORDS] = {"one", "", "a third, which is longer"};
    shared_message_begin(out);
    for (unsigned i = 0; i < RECORDS; i++)
        append_frame(out, i, payloads[i]);
    shared_message_end(out, SALT, RECORDS);
    assert_int_equal(buffer_check(out), 0);
}

static void test_records_come_out_as_they_went_in(void **state UNUSED) {
    CLEANUP(buffer_deinit) struct buffer message = BUFFER_INIT;
    CLEANUP(buffer_deinit) struct buffer records = BUFFER_INIT;
    make_message(&message);
    assert_true(shared_message_load(buffer_bytes(&message), 41, &records));
    assert_int_equal(records.size, RECORDS * sizeof(struct journal_record));
    const struct journal_record *r = (const void *)records.data;
    for (unsigned i = 0; i < RECORDS; i++) {
        assert_int_equal(r[i].lsn, shared_lsn(41, i));
        assert_int_equal(r[i].key_hash, i);
        assert_int_equal(r[i].wall_us, 1000 + i);
        assert_int_equal(r[i].kind, JOURNAL_KIND_EVENTS);
        assert_int_equal(r[i].flags, JOURNAL_CONTROL); /* groups end with their message */
    }
    assert_true(bytes_equal(r[0].payload, BYTES_LITERAL("one")));
    assert_int_equal(r[1].payload.size, 0);
    assert_true(bytes_equal(r[2].payload, BYTES_LITERAL("a third, which is longer")));
}

static void test_lsns_grow_with_the_place(void **state UNUSED) {
    assert_true(shared_lsn(0, 0) > 0);
    assert_true(shared_lsn(0, (1 << SHARED_INDEX_BITS) - 1) < shared_lsn(1, 0));
    assert_int_equal(shared_offset(shared_lsn(12, 34)), 12);
    assert_int_equal(shared_offset(0), 0);
}

/* Every frame and the head are summed, so no byte can change, and none be missing or be more. */
static void test_damage_is_noticed(void **state UNUSED) {
    CLEANUP(buffer_deinit) struct buffer message = BUFFER_INIT;
    CLEANUP(buffer_deinit) struct buffer records = BUFFER_INIT;
    make_message(&message);
    for (size_t i = 0; i < message.size; i++) {
        message.data[i] ^= 0x10;
        bool padding = shared_message_load(buffer_bytes(&message), 0, &records);
        message.data[i] ^= 0x10;
        if (!padding)
            assert_int_equal(records.size, 0);
        else /* the zeros behind a payload mean nothing */
            assert_int_equal(message.data[i], 0);
        buffer_clear(&records);
        assert_false(shared_message_load(bytes_of(message.data, i), 0, &records));
    }
    buffer_append_u8(&message, 0);
    assert_false(shared_message_load(buffer_bytes(&message), 0, &records));
    assert_int_equal(records.size, 0);
}

static bool parse(const char *text, struct service_url *url) {
    const char *why;
    return service_url_parse(text, url, &why);
}

/* One scheme has two drivers, whose journals no store takes for each other. */
static void test_queues_are_another_driver(void **state UNUSED) {
    char streams[GROUP_SOURCE_MAX], queues[GROUP_SOURCE_MAX], why[LOG_WHY_MAX];
    struct service_url url;
    assert_true(parse("amqp://one/?partitions=3&max-bytes=5000000", &url));
    assert_ptr_equal(shared_driver_find(&url), &shared_rabbitmq);
    journal_url_source(&url, "events", streams);
    assert_true(parse("amqps://one/?queues=quorum&partitions=3", &url));
    assert_ptr_equal(shared_driver_find(&url), &shared_rabbitmq_queues);
    assert_int_equal(journal_url_partitions(&url), 3);
    assert_false(journal_url_keeps_positions(&url));
    assert_int_equal(shared_check_url(&url, why), 0);
    journal_url_source(&url, "events", queues);
    assert_string_not_equal(streams, queues);
}

static void test_what_queues_do_not_know_is_refused(void **state UNUSED) {
    static const struct {
        const char *url, *why;
    } wrong[] = {{"amqp://one/?partitions=3&queues=classic", "queues"},
                 {"amqp://one/?partitions=3&queues=quorum&max-bytes=5000000", "max-bytes"},
                 {"kafka://one/?partitions=3&queues=quorum", "queues"}};
    char why[LOG_WHY_MAX];
    struct service_url url;
    for (size_t i = 0; i < ARRAY_LENGTH(wrong); i++) {
        assert_true(parse(wrong[i].url, &url));
        assert_int_equal(shared_check_url(&url, why), LOG_E_REFUSED);
        assert_non_null(strstr(why, wrong[i].why));
    }
    assert_true(parse("amqp://one/?queues=quorum", &url));
    assert_false(journal_url_is_shared(&url));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records_come_out_as_they_went_in),
        cmocka_unit_test(test_lsns_grow_with_the_place),
        cmocka_unit_test(test_damage_is_noticed),
        cmocka_unit_test(test_queues_are_another_driver),
        cmocka_unit_test(test_what_queues_do_not_know_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
