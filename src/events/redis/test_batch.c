/* SPDX-License-Identifier: Apache-2.0 */
/* From records to commands: what goes to which bucket, combined, and again when a bucket has more.
 */
#include "events/test_support.h"

#include "events/redis/batch.h"
#include "events/redis/keys.h"

enum { COMMANDS_MAX = 32, ITEMS_MAX = 16 };

struct fixture {
    struct arena arena;
    struct scripts scripts;
    struct batch_item items[ITEMS_MAX];
    struct batch batch;
    struct redis_command commands[COMMANDS_MAX];
    size_t n_commands;
};

static int setup(void **state) {
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->arena = ARENA_INIT(1 << 20);
    f->batch =
        (struct batch){.arena = &f->arena, .prefix = "m", .lane = 11, .from = 5, .items = f->items};
    *state = f;
    return 0;
}

static int teardown(void **state) {
    struct fixture *f = *state;
    arena_deinit(&f->arena);
    free(f);
    return 0;
}

static void add(struct fixture *f, lsn_t lsn, enum event_op op, const char *cookie,
                const struct event_tag *tag, const char *origin) {
    struct batch_item *item = &f->items[f->batch.n++];
    *item = (struct batch_item){.lsn = lsn, .record = {.op = op, .tag = *tag}};
    item->record.tag.cookie = text_of(cookie);
    item->cookies = key_cookies_of(event_key_hash(item->record.tag.cookie));
    for (size_t c = 1; c < EVENT_COLLECTIONS_FIXED; c++)
        item->record.texts[c] = text_of("x");
    item->record.texts[EVENT_COLLECTION_ORIGIN] = text_of(origin);
    f->batch.last = lsn;
}

static void add_tag(struct fixture *f, lsn_t lsn, const char *cookie, enum event_action action,
                    int32_t measure, const char *origin) {
    const struct event_tag tag = {
        .time_ms = 60000 + (int64_t)lsn, .action = action, .measure = measure, .product_number = 7};
    add(f, lsn, EVENT_FULL_TAG, cookie, &tag, origin);
}

static void make(struct fixture *f) {
    f->n_commands = 0;
    for (size_t i = 0; i < f->batch.n_buckets; i++) {
        bool any = false;
        struct bucket *bucket = &f->batch.buckets[i];
        if (!bucket->done)
            assert_int_equal(
                batch_command(&f->batch, &f->scripts, bucket, &f->commands[f->n_commands], &any),
                0);
        f->n_commands += any;
    }
}

static void expect(const struct redis_command *command, size_t at, const char *text) {
    assert_true(at < command->n);
    assert_true(bytes_equal(command->arguments[at], text_of(text)));
}

/* ---- Cookies ---- */

static const char from_5[] = "00000000000000000005";

static void test_tags_of_a_cookie_are_one_command(void **state) {
    struct fixture *f = *state;
    struct event_record record;
    add_tag(f, 6, "c1", EVENT_VIEW, 1, "o");
    add_tag(f, 7, "c1", EVENT_BUY, 1, "o");
    add_tag(f, 9, "c1", EVENT_VIEW, 1, "o");
    assert_int_equal(batch_deal(&f->batch), 0);
    make(f);
    assert_int_equal(f->n_commands, 2); /* and one of the minute */
    const struct redis_command *c = &f->commands[0];
    assert_ptr_equal(c->script, &f->scripts.cookies);
    assert_int_equal(c->n_keys, 1 + EVENT_ACTIONS);
    const char *const wanted[] = {NULL,  NULL, NULL, "11", from_5, "00000000000000000009",
                                  "200", "2",  "0",  "2",  "60006"};
    for (size_t i = 3; i < ARRAY_LENGTH(wanted); i++)
        expect(c, i, wanted[i]);
    expect(c, 12, "60009"); /* its time; then the other list's */
    expect(c, 14, "1");
    expect(c, 15, "60007");
    assert_int_equal(c->n, 17);
    /* A member is the tag, after lane and lsn. */
    static const uint8_t place[] = {0, 0, 0, 11, 0, 0, 0, 0, 0, 0, 0, 9};
    assert_memory_equal(c->arguments[13].data, place, sizeof place);
    assert_true(event_record_decode_kept(
        bytes_of(c->arguments[13].data + sizeof place, c->arguments[13].size - sizeof place),
        &record));
    assert_true(record.tag.time_ms == 60009 && record.tag.cookie.size == 0);
    assert_true(bytes_equal(record.texts[EVENT_COLLECTION_ORIGIN], text_of("o")));
}

static void test_what_an_erasure_comes_after_is_left_out(void **state) {
    struct fixture *f = *state;
    const struct event_tag nothing = {.time_ms = 0};
    add_tag(f, 6, "c1", EVENT_VIEW, 1, "o");
    add(f, 7, EVENT_ERASE, "c1", &nothing, "");
    add_tag(f, 8, "c1", EVENT_BUY, 1, "o");
    add(f, 9, EVENT_ERASE, "c2", &nothing, "");
    assert_int_equal(batch_deal(&f->batch), 0);
    make(f);
    assert_int_equal(f->n_commands, 3);
    for (size_t i = 0; i < 2; i++) {
        const struct redis_command *c = &f->commands[i];
        bool first = bytes_equal(c->arguments[1], key_tags(&f->arena, "m", f->items[0].cookies,
                                                           EVENT_VIEW, text_of("c1")));
        expect(c, 8, "1");
        expect(c, 9, "0");
        expect(c, 10, first ? "1" : "0");
        assert_int_equal(c->n, first ? 13 : 11);
    }
    /* It stays in the aggregates: they name nobody. */
    assert_ptr_equal(f->commands[2].script, &f->scripts.minute);
}

/* ---- A minute ---- */

static void expect_aggregate(const struct redis_command *c, const char *origin, uint64_t count,
                             int64_t sum) {
    CLEANUP(buffer_deinit) struct buffer field = BUFFER_INIT;
    bool filtered[EVENT_FILTERS] = {0};
    struct bytes values[EVENT_FILTERS] = {0};
    filtered[EVENT_FILTER_ORIGIN] = origin;
    values[EVENT_FILTER_ORIGIN] = text_of(origin ? origin : "");
    key_append_combination(&field, EVENT_BUY, filtered, values);
    for (size_t i = 5; i < c->n; i += 2)
        if (bytes_equal(c->arguments[i], buffer_bytes(&field))) {
            assert_int_equal(c->arguments[i + 1].size, KEY_AGGREGATE_BYTES);
            assert_true(load_u64(c->arguments[i + 1].data) == count);
            assert_true((int64_t)load_u64(c->arguments[i + 1].data + 8) == sum);
            return;
        }
    fail_msg("the combination is not there");
}

static void test_a_minute_is_summed_before_it_is_sent(void **state) {
    struct fixture *f = *state;
    add_tag(f, 6, "c1", EVENT_BUY, INT32_MIN, "o1");
    add_tag(f, 7, "c2", EVENT_BUY, INT32_MIN, "o1");
    add_tag(f, 8, "c3", EVENT_BUY, 5, "o2");
    assert_int_equal(batch_deal(&f->batch), 0);
    make(f);
    const struct redis_command *c = &f->commands[f->n_commands - 1];
    assert_ptr_equal(c->script, &f->scripts.minute);
    assert_true(bytes_equal(c->key, text_of("m:{m:1:3}"))); /* lane 11 of 8 shards */
    expect(c, 1, "p11");
    expect(c, 2, from_5);
    expect(c, 3, "00000000000000000008");
    expect(c, 4, "90000");
    assert_int_equal(c->n, 5 + 2 * (4 + 2 * 4)); /* without an origin, and with each */
    expect_aggregate(c, NULL, 3, 2 * (int64_t)INT32_MIN + 5);
    expect_aggregate(c, "o1", 2, 2 * (int64_t)INT32_MIN);
    expect_aggregate(c, "o2", 1, 5);
}

/* ---- Answers ---- */

static bool answer(struct bucket *bucket, const char *position) {
    char text[POSITION_DIGITS + 1];
    redisReply reply = {.type = REDIS_REPLY_INTEGER, .integer = 1};
    if (position) {
        reply = (redisReply){.type = REDIS_REPLY_STRING, .str = text, .len = strlen(position)};
        memcpy(text, position, reply.len + 1);
    }
    return batch_answered(bucket, &reply);
}

static void test_what_a_bucket_has_is_not_sent_again(void **state) {
    struct fixture *f = *state;
    add_tag(f, 6, "c1", EVENT_BUY, 1, "o1");
    add_tag(f, 8, "c1", EVENT_BUY, 2, "o1");
    assert_int_equal(batch_deal(&f->batch), 0);
    make(f);
    assert_int_equal(f->n_commands, 2);
    struct bucket *cookies = &f->batch.buckets[0], *minute = &f->batch.buckets[1];
    assert_true(answer(cookies, NULL));
    assert_true(answer(minute, "00000000000000000006"));
    make(f);
    assert_int_equal(f->n_commands, 1);
    expect(&f->commands[0], 2, "00000000000000000006");
    expect(&f->commands[0], 3, "00000000000000000008");
    expect_aggregate(&f->commands[0], NULL, 1, 2);
    assert_false(answer(minute, "00000000000000000006")); /* that was asked for */
    assert_false(answer(minute, "6"));
    assert_false(answer(minute, "0000000000000000000x"));
    assert_true(answer(minute, "18446744073709551615"));
    make(f);
    assert_int_equal(f->n_commands, 0);
    assert_true(minute->done);
}

static void test_positions(void **state) {
    struct fixture *f = *state;
    static const lsn_t some[] = {0, 1, 9007199254740993, UINT64_MAX};
    lsn_t found;
    for (size_t i = 0; i < ARRAY_LENGTH(some); i++) {
        struct bytes text = key_position(&f->arena, some[i]);
        assert_true(key_position_read(text, &found) && found == some[i]);
    }
    assert_false(key_position_read(text_of("18446744073709551616"), &found));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_tags_of_a_cookie_are_one_command, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_an_erasure_comes_after_is_left_out, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_minute_is_summed_before_it_is_sent, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_a_bucket_has_is_not_sent_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_positions, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
