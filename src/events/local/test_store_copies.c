/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A byte flipped anywhere in any file of the store: it opens, or says what is damaged; nothing
 * wrong is answered, the dictionary's ids stay what they were, and where it opened it goes on.
 */
#include "events/local/internal.h"
#include "events/local/test_fixture.h"

enum { FLIPS_A_FILE = 4, FILES_MAX = 64, ELEMENTS = 900, LATER = 100 };

/* ---- Files ---- */
struct files {
    struct fixture *f;
    const char *directory;
    size_t n;
    char paths[FILES_MAX][OS_PATH_MAX];
};

/* What is read when the store is opened, or later. */
static void remember_file(void *context, const char *name) {
    struct files *files = context;
    size_t length = strlen(name);
    bool table = length > 4 && strcmp(name + length - 4, ".sst") == 0;
    if (table || strncmp(name, "MANIFEST", 8) == 0 || strcmp(name, "CURRENT") == 0 ||
        (length > 5 && strcmp(name + length - 5, ".copy") == 0))
        assert_int_equal(os_path_join(files->paths[files->n++], files->directory, "%s", name), 0);
    assert_true(files->n < FILES_MAX);
}

static void find_files(struct fixture *f, struct files *files) {
    char directory[OS_PATH_MAX];
    files->n = 0;
    files->directory = f->directory;
    assert_int_equal(os_list(f->os, f->directory, remember_file, files), 0);
    assert_int_equal(os_path_join(directory, f->directory, "rocksdb"), 0);
    files->directory = directory;
    assert_int_equal(os_list(f->os, directory, remember_file, files), 0);
}

static bool ends_with(const char *path, const char *end) {
    size_t length = strlen(path), n = strlen(end);
    return length >= n && strcmp(path + length - n, end) == 0;
}

static void copy_tree(const char *from, const char *to) {
    int status;
    pid_t child = fork();
    if (child == 0) {
        execlp("cp", "cp", "-a", "--", from, to, (char *)NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void flip(struct fixture *f, const char *path, uint64_t where) {
    struct os_file *file;
    uint64_t size;
    uint8_t byte;
    size_t n;
    assert_int_equal(os_open(f->os, path, OS_OPEN_WRITE, &file), 0);
    assert_int_equal(os_size(f->os, file, &size), 0);
    where %= size;
    assert_int_equal(os_read(f->os, file, &byte, 1, where, &n), 0);
    byte ^= 0x20;
    assert_int_equal(os_write(f->os, file, &byte, 1, where, &n), 0);
    os_close(f->os, file);
}

/* ---- A store with all there is, and what it must answer ---- */
static void text_of_element(unsigned i, char out[16]) {
    snprintf(out, 16, "element %u", i);
}

static void log_elements(struct fixture *f, unsigned from, unsigned to) {
    char text[16];
    for (unsigned i = from; i < to; i++) {
        text_of_element(i, text);
        log_element(f, "made", i + 1, text);
    }
}

static void log_key(struct fixture *f, unsigned i) {
    struct buffer body = BUFFER_INIT, payload = BUFFER_INIT;
    struct event_once_entry entry = {.wall_us = os_wall_us(f->os)};
    store_u64(entry.key, hash64_u64(i));
    event_once_encode(&body, &entry);
    event_record_encode_once(&payload, buffer_bytes(&body));
    log_append(f, &payload, load_u64(entry.key))->op = EVENT_ONCE;
    buffer_deinit(&body);
}

static void write_some(struct fixture *f) {
    for (unsigned i = 0; i < 300; i++) {
        log_tag(f, some_cookie(f), some_tag(f), false);
        log_key(f, (unsigned)f->n_log);
    }
    apply_all(f);
    assert_int_equal(events_store_checkpoint(f->store, NULL), 0);
}

static void make_store(struct fixture *f, char pristine[80]) {
    fixture_init(f, 3, 2);
    f->options.hot_bytes_max = 1 << 20;
    assert_int_equal(fixture_open(f), 0);
    for (unsigned part = 0; part < 3; part++) {
        log_elements(f, part * ELEMENTS / 3, (part + 1) * ELEMENTS / 3);
        write_some(f);
    }
    fixture_close(f);
    snprintf(pristine, 80, "%s.pristine", f->directory);
    copy_tree(f->directory, pristine);
}

static bool profiles_or_damage(struct fixture *f) {
    bool damaged = false;
    for (unsigned cookie = 0; cookie < COOKIES; cookie++) {
        CLEANUP(arena_deinit) struct arena arena = ARENA_INIT(16 << 20);
        struct event_profile profile = {.arena = &arena};
        int r = events_store_profile(f->store, cookie_text(cookie), INT64_MIN, INT64_MAX,
                                     EVENT_PROFILE_KEEP, &profile);
        if (r == 0)
            check_profile(f, cookie, INT64_MIN, INT64_MAX, EVENT_PROFILE_KEEP);
        else
            assert_int_equal(r, -EBADMSG);
        damaged |= r != 0;
    }
    return damaged;
}

static bool aggregates_or_damage(struct fixture *f) {
    bool damaged = false;
    for (unsigned origin = 0; origin <= ORIGINS; origin++) {
        struct event_aggregate out[EVENT_RANGE_MINUTES_MAX];
        const struct event_aggregate_query q = {.first_minute = TEST_MINUTE,
                                                .minutes = EVENT_RANGE_MINUTES_MAX,
                                                .ids[EVENT_FILTER_ORIGIN] = origin};
        int r = events_store_aggregate(f->store, &q, out);
        if (r == 0)
            check_aggregate(f, &q);
        else
            assert_int_equal(r, -EBADMSG);
        damaged |= r != 0;
    }
    return damaged;
}

/* Each has its id, or is lost, which a copy does not let happen; no id is another's. */
static void check_elements(struct fixture *f, unsigned n, bool copied) {
    char text[16];
    uint64_t lost = 0;
    uint32_t made = event_dictionary_collection(f->dictionary, bytes_of_string("made"));
    for (unsigned i = 0; i < n; i++) {
        text_of_element(i, text);
        uint32_t id = event_dictionary_find(f->dictionary, made, bytes_of_string(text), NULL);
        struct bytes back = event_dictionary_text(f->dictionary, made, i + 1);
        assert_true(id == i + 1 || id == 0);
        assert_true(id == 0 ? !back.data : bytes_equal(back, bytes_of_string(text)));
        lost += id == 0;
    }
    assert_true(lost == 0 || !copied);
    assert_true(event_dictionary_lost(f->dictionary) >= lost);
    assert_true(f->report.lost >= lost);
}

/* The store goes on; when it is opened again, nothing was counted twice. */
static void goes_on(struct fixture *f, bool copied) {
    struct events_store_stats stats;
    size_t before = f->n_log;
    log_elements(f, ELEMENTS, ELEMENTS + LATER);
    for (unsigned i = 0; i < LATER; i++)
        log_tag(f, some_cookie(f), some_tag(f), false);
    apply_all(f);
    assert_int_equal(events_store_checkpoint(f->store, NULL), 0);
    (void)profiles_or_damage(f);
    (void)aggregates_or_damage(f);
    check_elements(f, ELEMENTS + LATER, copied);
    fixture_close(f);
    assert_int_equal(fixture_open(f), 0);
    events_store_stats(f->store, &stats);
    assert_int_equal(stats.damages, f->report.damages);
    (void)profiles_or_damage(f);
    (void)aggregates_or_damage(f);
    check_elements(f, ELEMENTS + LATER, copied);
    for (size_t i = before; i < f->n_log; i++)
        free((void *)(uintptr_t)f->log[i].record.payload.data);
    f->n_log = before;
}

/* ---- Flipping ---- */
struct tally {
    unsigned opened, refused, damaged, mended, lost;
};

static void flip_and_open(struct fixture *f, const char *path, bool copied, struct tally *tally) {
    struct events_store_report found;
    flip(f, path, rng_next(&f->rng));
    assert_int_equal(events_store_verify(f->os, f->directory, NULL, NULL, &found), 0);
    int r = fixture_open(f);
    assert_true(r == 0 || r == -EPROTO);
    tally->refused += r != 0;
    bool damaged = r != 0;
    if (r == 0) {
        tally->opened++;
        tally->mended += f->report.mended > 0;
        tally->lost += event_dictionary_lost(f->dictionary) > 0;
        damaged = f->report.damages > 0;
        damaged |= profiles_or_damage(f);
        damaged |= aggregates_or_damage(f);
        tally->damaged += damaged;
        check_elements(f, ELEMENTS, copied);
        if (rng_below(&f->rng, 2))
            goes_on(f, copied);
    }
    /* A table has bytes that nobody reads: of its properties, and between its blocks. */
    assert_true(found.damages > 0 || (!damaged && ends_with(path, ".sst")));
    fixture_close(f);
}

static void put_back(struct fixture *f, const char *pristine) {
    remove_tree(f->directory);
    copy_tree(pristine, f->directory);
}

static void test_a_byte_flipped_anywhere(void **state) {
    (void)state;
    struct fixture f;
    struct files files = {.f = &f};
    unsigned mended = 0;
    char pristine[80];
    make_store(&f, pristine);
    find_files(&f, &files);
    assert_true(files.n >= 6);
    for (size_t i = 0; i < files.n; i++) {
        struct tally tally = {0};
        for (unsigned k = 0; k < FLIPS_A_FILE; k++) {
            put_back(&f, pristine);
            flip_and_open(&f, files.paths[i], true, &tally);
        }
        print_message("%s: %u opened, %u met damage, %u mended\n", strrchr(files.paths[i], '/') + 1,
                      tally.opened, tally.damaged, tally.mended);
        assert_int_equal(tally.opened, FLIPS_A_FILE);
        mended += tally.mended;
    }
    assert_true(mended > 0);
    remove_tree(pristine);
    fixture_deinit(&f);
}

static void remove_copy(struct fixture *f, const char *name) {
    char path[OS_PATH_MAX];
    assert_int_equal(os_path_join(path, f->directory, "%s", name), 0);
    assert_int_equal(os_unlink(f->os, path), 0);
}

/* Without a copy elements are lost, and the store opens all the same: their ids are left out. */
static void test_elements_without_a_copy(void **state) {
    (void)state;
    struct fixture f;
    struct files files = {.f = &f};
    struct tally tally = {0};
    char pristine[80];
    make_store(&f, pristine);
    find_files(&f, &files);
    for (size_t i = 0; i < files.n; i++)
        for (unsigned k = 0; k < FLIPS_A_FILE && ends_with(files.paths[i], ".sst"); k++) {
            put_back(&f, pristine);
            remove_copy(&f, "DICTIONARY.copy");
            flip_and_open(&f, files.paths[i], false, &tally);
        }
    assert_int_equal(tally.refused, 0);
    assert_true(tally.lost > 0);
    remove_tree(pristine);
    fixture_deinit(&f);
}

/* Without a copy of a damaged state nothing can be told: the start is refused, with a reason. */
static void test_a_state_without_a_copy(void **state) {
    (void)state;
    struct fixture f;
    struct files files = {.f = &f};
    struct tally tally = {0};
    char pristine[80];
    make_store(&f, pristine);
    find_files(&f, &files);
    for (size_t i = 0; i < files.n; i++)
        for (unsigned k = 0; k < FLIPS_A_FILE && ends_with(files.paths[i], ".sst"); k++) {
            put_back(&f, pristine);
            remove_copy(&f, "STATE.copy");
            flip_and_open(&f, files.paths[i], true, &tally);
        }
    assert_true(tally.refused > 0);
    assert_true(tally.opened > 0);
    remove_tree(pristine);
    fixture_deinit(&f);
}

/* A crash after the copy was written and before the ingest: the copy of the state before counts. */
static void test_a_crash_before_the_ingest(void **state) {
    (void)state;
    struct fixture f;
    struct files files = {.f = &f};
    struct tally tally = {0};
    char pristine[80], later[80], copy[OS_PATH_MAX];
    make_store(&f, pristine);
    find_files(&f, &files);
    size_t n = f.n_log;
    assert_int_equal(fixture_open(&f), 0);
    write_some(&f);
    fixture_close(&f);
    while (f.n_log > n)
        free((void *)(uintptr_t)f.log[--f.n_log].record.payload.data);
    snprintf(later, sizeof later, "%s.later", f.directory);
    assert_int_equal(os_path_join(copy, f.directory, "STATE.copy"), 0);
    copy_tree(copy, later);
    for (size_t i = 0; i < files.n; i++)
        for (unsigned k = 0; k < FLIPS_A_FILE && ends_with(files.paths[i], ".sst"); k++) {
            put_back(&f, pristine);
            copy_tree(later, copy);
            flip_and_open(&f, files.paths[i], true, &tally);
        }
    assert_int_equal(tally.refused, 0);
    assert_true(tally.mended > 0);
    remove_tree(pristine);
    remove_tree(later);
    fixture_deinit(&f);
}

/* The database is gone, or older than it was: it is not taken for a new one. */
static void test_a_lost_database(void **state) {
    (void)state;
    struct fixture f;
    char pristine[80], database[OS_PATH_MAX], earlier[OS_PATH_MAX];
    make_store(&f, pristine);
    assert_int_equal(os_path_join(database, f.directory, "rocksdb"), 0);
    assert_int_equal(os_path_join(earlier, pristine, "rocksdb"), 0);
    assert_int_equal(fixture_open(&f), 0);
    write_some(&f);
    write_some(&f);
    fixture_close(&f);
    remove_tree(database);
    copy_tree(earlier, database);
    assert_int_equal(fixture_open(&f), -EPROTO);
    fixture_close(&f);
    remove_tree(database);
    assert_int_equal(fixture_open(&f), -EPROTO);
    remove_tree(pristine);
    fixture_deinit(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_byte_flipped_anywhere),
        cmocka_unit_test(test_elements_without_a_copy),
        cmocka_unit_test(test_a_state_without_a_copy),
        cmocka_unit_test(test_a_crash_before_the_ingest),
        cmocka_unit_test(test_a_lost_database),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
