/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flipped bytes: what is read is right, or -EBADMSG; never wrong data. And values whose bytes are
 * not what they should be, below RocksDB's checksums.
 */
#include "events/local/columns.h"
#include "events/local/tags.h"
#include "events/local/test_fixture.h"

enum { FLIPS = 24 };

/* ---- Files ---- */
struct found_file {
    const char *directory;
    char path[OS_PATH_MAX];
};

static void remember_table(void *context, const char *name) {
    struct found_file *found = context;
    size_t length = strlen(name);
    if (length > 4 && strcmp(name + length - 4, ".sst") == 0)
        assert_int_equal(os_path_join(found->path, found->directory, "%s", name), 0);
}

static void flip(struct fixture *f, uint64_t where) {
    char directory[OS_PATH_MAX];
    struct found_file found = {.directory = directory};
    struct os_file *file;
    uint64_t size;
    uint8_t byte;
    size_t n;
    assert_int_equal(os_path_join(directory, f->directory, "rocksdb"), 0);
    assert_int_equal(os_list(f->os, directory, remember_table, &found), 0);
    assert_int_equal(os_open(f->os, found.path, OS_OPEN_WRITE, &file), 0);
    assert_int_equal(os_size(f->os, file, &size), 0);
    assert_int_equal(os_read(f->os, file, &byte, 1, where % size, &n), 0);
    byte ^= 0x20;
    assert_int_equal(os_write(f->os, file, &byte, 1, where % size, &n), 0);
    os_close(f->os, file);
}

/* The answer is the model's, or damage was found. Returns whether. */
static bool profile_or_damage(struct fixture *f, unsigned cookie) {
    CLEANUP(arena_deinit) struct arena arena = ARENA_INIT(16 << 20);
    struct event_profile profile = {.arena = &arena};
    int r = events_store_profile(f->store, cookie_text(cookie), INT64_MIN, INT64_MAX,
                                 EVENT_PROFILE_KEEP, &profile);
    if (r == 0)
        check_profile(f, cookie, INT64_MIN, INT64_MAX, EVENT_PROFILE_KEEP);
    else
        assert_int_equal(r, -EBADMSG);
    return r != 0;
}

static bool aggregate_or_damage(struct fixture *f, unsigned origin) {
    struct event_aggregate out[EVENT_RANGE_MINUTES_MAX];
    const struct event_aggregate_query q = {.first_minute = TEST_MINUTE,
                                            .minutes = EVENT_RANGE_MINUTES_MAX,
                                            .ids[EVENT_FILTER_ORIGIN] = origin};
    int r = events_store_aggregate(f->store, &q, out);
    if (r == 0)
        check_aggregate(f, &q);
    else
        assert_int_equal(r, -EBADMSG);
    return r != 0;
}

static bool is_damaged(struct fixture *f) {
    struct events_store_report found;
    bool damaged = false;
    assert_int_equal(events_store_verify(f->os, f->directory, NULL, NULL, &found), 0);
    int r = fixture_open(f);
    if (r != 0) {
        assert_int_equal(r, -EPROTO);
        assert_true(found.damages > 0);
        fixture_close(f);
        return true;
    }
    for (unsigned i = 0; i < COOKIES; i++)
        damaged |= profile_or_damage(f, i);
    for (unsigned i = 1; i <= ORIGINS; i++)
        damaged |= aggregate_or_damage(f, i);
    fixture_close(f);
    if (damaged)
        assert_true(found.damages > 0);
    return found.damages > 0;
}

static void test_flipped_bytes(void **state) {
    (void)state;
    struct fixture f;
    unsigned found = 0;
    fixture_init(&f, 1, 2);
    f.options.hot_bytes_max = 1 << 20;
    assert_int_equal(fixture_open(&f), 0);
    for (unsigned i = 0; i < 1500; i++)
        log_tag(&f, some_cookie(&f), some_tag(&f), false);
    apply_all(&f);
    assert_int_equal(events_store_checkpoint(f.store, NULL), 0);
    fixture_close(&f);
    assert_false(is_damaged(&f));
    for (unsigned i = 0; i < FLIPS; i++) {
        uint64_t where = rng_next(&f.rng);
        flip(&f, where);
        found += is_damaged(&f);
        flip(&f, where);
    }
    assert_false(is_damaged(&f));
    print_message("%u of %u flips found\n", found, FLIPS);
    assert_true(found > FLIPS / 2);
    fixture_deinit(&f);
}

/* ---- Values ---- */
/* Any bytes at all are decoded within their bounds, for the sanitizers. */
static void test_any_bytes(void **state) {
    (void)state;
    struct rng rng = {7};
    struct event_tag tag = {.time_ms = 5,
                            .ids[EVENT_COLLECTION_COUNTRY] = 1,
                            .ids[EVENT_COLLECTION_ORIGIN] = 300,
                            .ids[EVENT_COLLECTION_BRAND] = 1,
                            .ids[EVENT_COLLECTION_CATEGORY] = 2};
    for (unsigned round = 0; round < 20000; round++) {
        CLEANUP(buffer_deinit) struct buffer value = BUFFER_INIT, merged = BUFFER_INIT;
        uint8_t encoded[TAG_BYTES_MAX];
        size_t size = tag_encode(encoded, &tag, 0);
        tag_value_begin(&value);
        tag_run_begin(&value, (uint32_t[]){1, 0}, size);
        buffer_append(&value, encoded, size);
        value.data[rng_below(&rng, (unsigned)value.size)] = (uint8_t)rng_next(&rng);
        value.size -= rng_below(&rng, 3);
        uint8_t *exact = malloc(value.size);
        assert_non_null(exact);
        memcpy(exact, value.data, value.size);
        struct bytes view = bytes_of(exact, value.size);
        struct tag_index index = {0};
        int r = tag_index_add_value(&index, view);
        assert_true(r == 0 || r == -EBADMSG);
        tag_index_deinit(&index);
        assert_int_equal(tag_values_merge((struct bytes[]){view, view}, 2, &merged), 0);
        buffer_clear(&merged);
        assert_int_equal(columns_merge((struct bytes[]){view, view}, 2, &merged), 0);
        free(exact);
    }
}

/* Damage stays damage, however often it is merged, and is not returned as data. */
static void test_damage_is_not_forgotten(void **state) {
    (void)state;
    CLEANUP(buffer_deinit) struct buffer good = BUFFER_INIT, one = BUFFER_INIT, two = BUFFER_INIT;
    struct bytes bad = BYTES_LITERAL("\x01\xff\xff");
    struct tag_index index = {0};
    struct columns c;
    size_t at = 0;
    int error;
    tag_value_begin(&good);
    assert_int_equal(tag_values_merge((struct bytes[]){buffer_bytes(&good), bad}, 2, &one), 0);
    assert_int_equal(
        tag_values_merge((struct bytes[]){buffer_bytes(&one), buffer_bytes(&good)}, 2, &two), 0);
    assert_int_equal(tag_index_add_value(&index, buffer_bytes(&two)), -EBADMSG);
    tag_index_deinit(&index);
    buffer_clear(&one);
    assert_int_equal(columns_merge(&bad, 1, &one), 0);
    assert_false(columns_next(buffer_bytes(&one), &at, &c, &error));
    assert_int_equal(error, -EBADMSG);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flipped_bytes),
        cmocka_unit_test(test_any_bytes),
        cmocka_unit_test(test_damage_is_not_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
