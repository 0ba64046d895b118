/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of event records: round trips, known bytes, whatever a disk may make of them. */
#include "events/test_support.h"

#include "base/hash.h"
#include "base/time_text.h"

static struct event_tag a_tag(void) {
    return (struct event_tag){.time_ms = 1647951300000,
                              .cookie = BYTES_LITERAL("cookie/1 \"%\0\xc3\xa9"),
                              .device = EVENT_TV,
                              .action = EVENT_BUY,
                              .ids[EVENT_COLLECTION_COUNTRY] = 1,
                              .ids[EVENT_COLLECTION_ORIGIN] = 2,
                              .ids[EVENT_COLLECTION_BRAND] = INT32_MAX,
                              .ids[EVENT_COLLECTION_CATEGORY] = 4,
                              .measure = INT32_MIN,
                              .product_is_text = true,
                              .product_text = BYTES_LITERAL("p7")};
}

static void expect_tag(const struct event_tag *a, const struct event_tag *b) {
    assert_true(a->time_ms == b->time_ms && bytes_equal(a->cookie, b->cookie));
    assert_int_equal(a->device, b->device);
    assert_int_equal(a->action, b->action);
    assert_int_equal(a->ids[EVENT_COLLECTION_COUNTRY], b->ids[EVENT_COLLECTION_COUNTRY]);
    assert_int_equal(a->ids[EVENT_COLLECTION_ORIGIN], b->ids[EVENT_COLLECTION_ORIGIN]);
    assert_int_equal(a->ids[EVENT_COLLECTION_BRAND], b->ids[EVENT_COLLECTION_BRAND]);
    assert_int_equal(a->ids[EVENT_COLLECTION_CATEGORY], b->ids[EVENT_COLLECTION_CATEGORY]);
    assert_int_equal(a->measure, b->measure);
    assert_int_equal(a->product_is_text, b->product_is_text);
    if (a->product_is_text)
        assert_true(bytes_equal(a->product_text, b->product_text));
    else
        assert_true(a->product_number == b->product_number);
}

static void expect_round_trip(const struct event_tag *tag, bool late) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    struct event_record record;
    event_record_encode_tag(&out, tag, late);
    assert_true(event_record_decode(buffer_bytes(&out), &record));
    assert_int_equal(record.op, EVENT_TAG);
    assert_int_equal(record.late, late);
    expect_tag(&record.tag, tag);
}

static void test_tags(void **state UNUSED) {
    static uint8_t longest[EVENT_TEXT_MAX];
    struct event_tag tag = a_tag();
    expect_round_trip(&tag, false);
    expect_round_trip(&tag, true);
    tag.product_text = BYTES_LITERAL("");
    tag.measure = INT32_MAX;
    tag.time_ms = TIME_TEXT_FIRST_MS;
    expect_round_trip(&tag, true);
    tag.product_is_text = false;
    tag.product_number = INT64_MIN;
    tag.time_ms = TIME_TEXT_LAST_MS;
    expect_round_trip(&tag, false);
    tag.cookie = tag.product_text = bytes_of(longest, sizeof longest);
    tag.product_is_text = true;
    expect_round_trip(&tag, false);
}

/* What stands in journals that exist. */
static void test_bytes_of_version_1(void **state UNUSED) {
    static const uint8_t wanted[] = {
        1,    1,   2,   0x21,             /* version, op, flags, kinds */
        2,    0,   0,   0,    2, 0, 0, 0, /* sizes */
        0xfe, 255, 255, 255,              /* price */
    };
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    struct event_tag tag = a_tag();
    tag.cookie = BYTES_LITERAL("ab");
    tag.measure = -2;
    event_record_encode_tag(&out, &tag, false);
    assert_int_equal(out.size, EVENT_RECORD_HEADER + 4);
    assert_memory_equal(out.data, wanted, sizeof wanted);
    assert_true(load_u64(out.data + 16) == 1647951300000);
    assert_int_equal(load_u32(out.data + EVENT_RECORD_IDS), 1);
    assert_int_equal(load_u32(out.data + EVENT_RECORD_IDS + 12), 4);
    assert_memory_equal(out.data + EVENT_RECORD_HEADER, "abp7", 4);
}

static void test_others(void **state UNUSED) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    struct event_record record;
    event_record_encode_erase(&out, text_of("c"));
    assert_true(event_record_decode(buffer_bytes(&out), &record));
    assert_int_equal(record.op, EVENT_ERASE);
    assert_true(bytes_equal(record.tag.cookie, text_of("c")));
    buffer_clear(&out);
    event_record_encode_element(&out, text_of("brand"), 7, text_of(""));
    assert_true(event_record_decode(buffer_bytes(&out), &record));
    assert_int_equal(record.op, EVENT_ELEMENT);
    assert_int_equal(record.id, 7);
    assert_true(bytes_equal(record.collection, text_of("brand")) && record.element.size == 0);
    buffer_clear(&out);
    event_record_encode_once(&out, text_of("body"));
    assert_true(event_record_decode(buffer_bytes(&out), &record));
    assert_int_equal(record.op, EVENT_ONCE);
    assert_true(bytes_equal(record.body, text_of("body")));
}

/* Of a tag with its texts; those by collection. */
static struct event_tag a_full_tag(struct bytes texts[EVENT_COLLECTIONS_FIXED]) {
    struct event_tag tag = a_tag();
    memset(tag.ids, 0, sizeof tag.ids);
    for (size_t c = 0; c < EVENT_COLLECTIONS_FIXED; c++)
        texts[c] = bytes_of("texts", c);
    return tag;
}

static void expect_texts(const struct event_record *record,
                         const struct bytes texts[EVENT_COLLECTIONS_FIXED]) {
    for (size_t c = 1; c < EVENT_COLLECTIONS_FIXED; c++)
        assert_true(bytes_equal(record->texts[c], texts[c]));
}

static void test_full_tags(void **state UNUSED) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    static uint8_t longest[EVENT_TEXT_MAX];
    struct bytes texts[EVENT_COLLECTIONS_FIXED];
    struct event_record record;
    struct event_tag tag = a_full_tag(texts);
    for (int turn = 0; turn < 2; turn++) {
        buffer_clear(&out);
        event_record_encode_full_tag(&out, &tag, texts);
        assert_true(event_record_decode(buffer_bytes(&out), &record));
        assert_int_equal(record.op, EVENT_FULL_TAG);
        expect_tag(&record.tag, &tag);
        expect_texts(&record, texts);
        assert_false(event_record_decode_kept(buffer_bytes(&out), &record));
        tag.product_is_text = false;
        texts[EVENT_COLLECTION_BRAND] = texts[EVENT_COLLECTION_ORIGIN] =
            bytes_of(longest, sizeof longest);
    }
    buffer_clear(&out);
    tag.cookie = (struct bytes){0};
    event_record_encode_full_tag(&out, &tag, texts);
    assert_false(event_record_decode(buffer_bytes(&out), &record));
    assert_true(event_record_decode_kept(buffer_bytes(&out), &record));
    expect_tag(&record.tag, &tag);
    expect_texts(&record, texts);
}

/* What stands in journals, and in clusters, that exist. */
static void test_a_tag_with_a_key(void **state UNUSED) {
    static const uint8_t wanted[] = {1, 6, 0, 0}; /* version, op */
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    const struct bytes body = BYTES_LITERAL("sixteen of a key8 of one");
    struct bytes texts[EVENT_COLLECTIONS_FIXED];
    struct event_record record;
    struct event_tag tag = a_full_tag(texts);
    event_record_encode_once_head(&out, body, 258);
    assert_false(event_record_decode(buffer_bytes(&out), &record));
    event_record_encode_full_tag(&out, &tag, texts);
    assert_memory_equal(out.data, wanted, sizeof wanted);
    assert_memory_equal(out.data + 28, "\2\1\0\0\1\5", 6);
    assert_true(event_record_decode(buffer_bytes(&out), &record));
    assert_int_equal(record.op, EVENT_FULL_TAG);
    assert_true(bytes_equal(record.body, body));
    assert_int_equal(record.index, 258);
    expect_tag(&record.tag, &tag);
    expect_texts(&record, texts);
    out.data[33] = EVENT_ERASE; /* of nothing else */
    assert_false(event_record_decode(buffer_bytes(&out), &record));
}

static void test_bytes_of_a_full_tag(void **state UNUSED) {
    static const uint8_t wanted[] = {
        1,    5,   2,   0x21,             /* version, op, flags, kinds */
        1,    0,   0,   0,    2, 0, 0, 0, /* sizes */
        0xfe, 255, 255, 255,              /* price */
    };
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    struct bytes texts[EVENT_COLLECTIONS_FIXED];
    struct event_tag tag = a_full_tag(texts);
    tag.cookie = BYTES_LITERAL("c");
    tag.measure = -2;
    event_record_encode_full_tag(&out, &tag, texts);
    assert_memory_equal(out.data, wanted, sizeof wanted);
    assert_true(load_u64(out.data + 16) == 1647951300000);
    assert_memory_equal(out.data + 24, "\1\0\2\0\3\0\4\0cp7ttetextext", 8 + 1 + 2 + 10);
    assert_int_equal(out.size, 32 + 1 + 2 + 10);
}

/* A changed byte of a tag's record: refused or not. */
static bool decodes_with(size_t at, uint8_t value) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    struct event_record record;
    struct event_tag tag = a_tag();
    event_record_encode_tag(&out, &tag, false);
    out.data[at] = value;
    return event_record_decode(buffer_bytes(&out), &record);
}

static void test_refused(void **state UNUSED) {
    assert_true(decodes_with(0, 1));
    assert_false(decodes_with(0, 2)); /* version */
    assert_false(decodes_with(1, 0)); /* op */
    assert_false(decodes_with(1, 9));
    assert_false(decodes_with(2, 6));    /* flags */
    assert_false(decodes_with(3, 0x02)); /* action */
    assert_false(decodes_with(3, 0x30)); /* device */
    assert_false(decodes_with(4, 0));    /* sizes */
    assert_false(decodes_with(8, 3));
    assert_false(decodes_with(23, 0x7f)); /* the year */
    for (size_t i = 0; i < 4; i++)        /* no id is 0 */
        assert_true(i == 2 || !decodes_with(EVENT_RECORD_IDS + 4 * i, 0));
}

/* Cut anywhere and with any byte changed: decoded within the bytes, or refused. */
static void expect_bounded(struct buffer out) {
    for (size_t size = 0; size < out.size; size++) {
        struct event_record record;
        uint8_t *exact = malloc(size ? size : 1);
        assert_non_null(exact);
        memcpy(exact, out.data, size);
        assert_false(event_record_decode(bytes_of(exact, size), &record));
        free(exact);
    }
    for (uint64_t i = 0; i < 20000; i++) {
        struct event_record record;
        uint64_t chance = hash64_u64(i);
        uint8_t *at = out.data + chance % EVENT_RECORD_HEADER;
        uint8_t kept = *at;
        *at = (uint8_t)(chance >> 32);
        if (event_record_decode(buffer_bytes(&out), &record) && record.op == EVENT_TAG)
            assert_true(record.tag.cookie.data + record.tag.cookie.size <= out.data + out.size);
        *at = kept;
    }
}

static void test_damaged(void **state UNUSED) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    struct bytes texts[EVENT_COLLECTIONS_FIXED];
    struct event_tag tag = a_tag();
    event_record_encode_tag(&out, &tag, true);
    expect_bounded(out);
    buffer_clear(&out);
    tag = a_full_tag(texts);
    event_record_encode_full_tag(&out, &tag, texts);
    expect_bounded(out);
    buffer_clear(&out);
    event_record_encode_once_head(&out, BYTES_LITERAL("sixteen of a key8 of one"), 1);
    event_record_encode_full_tag(&out, &tag, texts);
    expect_bounded(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tags),
        cmocka_unit_test(test_bytes_of_version_1),
        cmocka_unit_test(test_full_tags),
        cmocka_unit_test(test_a_tag_with_a_key),
        cmocka_unit_test(test_bytes_of_a_full_tag),
        cmocka_unit_test(test_others),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
