/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fault model of the simulated disk, as a table: each scenario prepares a disk, lets the power
 * go (or kills, or fails a sync), and says which outcome it found. Over all seeds the outcomes must
 * be exactly those of its row: none that cannot happen, and every one that can.
 */
#include "os/test_sim.h"

enum { SEEDS = 400 };

static enum outcome all_synced(struct sim *s) {
    put(s, "f", 'n', true);
    sync_directory(s, "/");
    return cut_and_look(s, "f");
}

static enum outcome entry_not_synced(struct sim *s) {
    put(s, "f", 'n', true);
    return cut_and_look(s, "f");
}

static enum outcome contents_not_synced(struct sim *s) {
    put(s, "f", 'n', false);
    sync_directory(s, "/");
    return cut_and_look(s, "f");
}

static enum outcome overwrite_not_synced(struct sim *s) {
    put_old(s);
    put(s, "f", 'n', false);
    return cut_and_look(s, "f");
}

static enum outcome overwrite_synced(struct sim *s) {
    put_old(s);
    put(s, "f", 'n', true);
    return cut_and_look(s, "f");
}

/* What was synced in a sector survives a later write to another part of it. */
static enum outcome append_in_a_sector(struct sim *s) {
    struct os_file *file = open_new(s, "f");
    fill(s, file, 'o', BLOCK / 2, 0);
    ok(os_sync(sim_os(s), file));
    sync_directory(s, "/");
    fill(s, file, 'n', BLOCK / 2, BLOCK / 2);
    os_close(sim_os(s), file);
    sim_power_cut(s);
    struct buffer b = BUFFER_INIT;
    ok(os_load(sim_os(s), "f", BLOCK, &b));
    assert_true(b.size >= BLOCK / 2);
    enum outcome outcome = classify(b.data, BLOCK / 2);
    buffer_deinit(&b);
    return outcome;
}

static enum outcome sector_beside(struct sim *s) {
    put_old(s);
    struct os_file *file = open_new(s, "f");
    fill(s, file, 'n', BLOCK, BLOCK);
    os_close(sim_os(s), file);
    return cut_and_look(s, "f");
}

static enum outcome size_grown(struct sim *s) {
    put_old(s);
    struct os_file *file = open_new(s, "f");
    fill(s, file, 'n', 3 * BLOCK, BLOCK);
    os_close(sim_os(s), file);
    sim_power_cut(s);
    uint64_t size = 0;
    file = open_new(s, "f");
    ok(os_size(sim_os(s), file, &size));
    os_close(sim_os(s), file);
    assert_true(size >= BLOCK && size <= 4 * BLOCK);
    return size == BLOCK ? OLD : size == 4 * BLOCK ? NEW : SHORT;
}

static void truncate_to(struct sim *s, uint64_t size, bool synced) {
    struct os_file *file = open_new(s, "f");
    ok(os_truncate(sim_os(s), file, size));
    if (synced)
        ok(os_sync(sim_os(s), file));
    os_close(sim_os(s), file);
}

/* What was beyond the size that a cut left does not come back as the file grows. */
static enum outcome grown_after_a_cut(struct sim *s) {
    put(s, "f", 'n', false);
    sync_directory(s, "/");
    if (cut_and_look(s, "f") != EMPTY)
        return ABSENT;
    truncate_to(s, BLOCK, false);
    return look(s, "f");
}

static enum outcome truncate_not_synced(struct sim *s) {
    put_old(s);
    truncate_to(s, 0, false);
    return cut_and_look(s, "f");
}

static enum outcome truncate_synced(struct sim *s) {
    put_old(s);
    truncate_to(s, 0, true);
    return cut_and_look(s, "f");
}

static enum outcome truncate_and_grow_again(struct sim *s) {
    put_old(s);
    truncate_to(s, 0, false);
    truncate_to(s, BLOCK, true);
    return cut_and_look(s, "f");
}

/* The right way to replace a file. */
static enum outcome replace(struct sim *s) {
    put_old(s);
    put(s, "f.new", 'n', true);
    ok(os_rename(sim_os(s), "f.new", "f"));
    return cut_and_look(s, "f");
}

static enum outcome replace_synced(struct sim *s) {
    put_old(s);
    put(s, "f.new", 'n', true);
    ok(os_rename(sim_os(s), "f.new", "f"));
    sync_directory(s, "/");
    return cut_and_look(s, "f");
}

/* The wrong way: the contents were not synced before the rename. */
static enum outcome replace_with_unsynced(struct sim *s) {
    put_old(s);
    put(s, "f.new", 'n', false);
    ok(os_rename(sim_os(s), "f.new", "f"));
    return cut_and_look(s, "f");
}

static enum outcome rename_is_one_operation(struct sim *s) {
    put_old(s);
    ok(os_rename(sim_os(s), "f", "g"));
    return cut_and_look_for_two(s, "f", "g");
}

static enum outcome unlink_not_synced(struct sim *s) {
    put_old(s);
    ok(os_unlink(sim_os(s), "f"));
    return cut_and_look(s, "f");
}

static enum outcome unlink_synced(struct sim *s) {
    put_old(s);
    ok(os_unlink(sim_os(s), "f"));
    sync_directory(s, "/");
    return cut_and_look(s, "f");
}

static enum outcome order_in_a_directory(struct sim *s) {
    put(s, "a", 'n', true);
    put(s, "b", 'n', true);
    return cut_and_look_for_two(s, "a", "b");
}

static enum outcome no_order_between_directories(struct sim *s) {
    make_two_directories(s);
    put(s, "d/a", 'n', true);
    put(s, "e/b", 'n', true);
    return cut_and_look_for_two(s, "d/a", "e/b");
}

static void move_between_directories(struct sim *s) {
    make_two_directories(s);
    put(s, "d/a", 'n', true);
    sync_directory(s, "d");
    ok(os_rename(sim_os(s), "d/a", "e/a"));
}

static enum outcome move_not_synced(struct sim *s) {
    move_between_directories(s);
    return cut_and_look_for_two(s, "d/a", "e/a");
}

static enum outcome move_synced_at_its_source(struct sim *s) {
    move_between_directories(s);
    sync_directory(s, "d");
    return cut_and_look_for_two(s, "d/a", "e/a");
}

static enum outcome move_synced_at_its_target(struct sim *s) {
    move_between_directories(s);
    sync_directory(s, "e");
    return cut_and_look_for_two(s, "d/a", "e/a");
}

/* Syncing the target of a move takes with it what came before in its source, not what came after.
 */
static enum outcome move_takes_what_came_before(struct sim *s) {
    make_two_directories(s);
    put(s, "d/a", 'n', true);
    put(s, "d/b", 'n', true);
    ok(os_rename(sim_os(s), "d/b", "e/b"));
    put(s, "d/c", 'n', true);
    sync_directory(s, "e");
    enum outcome outcome = cut_and_look_for_two(s, "d/a", "d/c");
    assert_true(exists(s, "e/b"));
    return outcome;
}

static enum outcome directory_not_synced(struct sim *s) {
    ok(os_mkdir(sim_os(s), "d"));
    put(s, "d/f", 'n', true);
    sync_directory(s, "d");
    return cut_and_look(s, "d/f");
}

static enum outcome directory_moved(struct sim *s) {
    make_two_directories(s);
    put(s, "d/a", 'n', true);
    sync_directory(s, "d");
    ok(os_rename(sim_os(s), "d", "e/d"));
    return cut_and_look_for_two(s, "d/a", "e/d/a");
}

static void move_directories_into_each_other(struct sim *s) {
    struct os *os = sim_os(s);
    ok(os_make_path(os, "p/d"));
    ok(os_make_path(os, "q/e"));
    ok(os_rename(os, "p/d", "q/e/d"));
    ok(os_rename(os, "q/e/d", "p/d"));
    ok(os_rename(os, "q/e", "p/d/e"));
}

/* Two of the moves, without the third, would tie two directories into each other. */
static enum outcome cut_and_look_for_directories(struct sim *s) {
    struct os *os = sim_os(s);
    sim_power_cut(s);
    if (os_sync_directory(os, "p/d/e") == 0)
        return NEW;
    if (os_sync_directory(os, "q/e/d") == 0)
        return SECOND;
    bool both = os_sync_directory(os, "p/d") == 0 && os_sync_directory(os, "q/e") == 0;
    return both ? OLD : ABSENT;
}

static enum outcome directories_moved(struct sim *s) {
    move_directories_into_each_other(s);
    return cut_and_look_for_directories(s);
}

static enum outcome directories_moved_and_synced(struct sim *s) {
    move_directories_into_each_other(s);
    sync_directory(s, "p/d");
    return cut_and_look_for_directories(s);
}

static void fail_next_sync(struct sim *s, struct os_file *file) {
    sim_set_faults(s, &(struct sim_faults){.fail_at = 1, .fail_error = -EIO});
    assert_int_equal(os_sync(sim_os(s), file), -EIO);
    assert_true(sim_faulted(s));
    sim_set_faults(s, NULL);
}

/* An overwrite whose sync failed; the file is open. */
static struct os_file *overwrite_and_fail(struct sim *s) {
    put_old(s);
    struct os_file *file = open_new(s, "f");
    fill(s, file, 'n', BLOCK, 0);
    fail_next_sync(s, file);
    return file;
}

static enum outcome failed_sync_repeated(struct sim *s) {
    struct os_file *file = overwrite_and_fail(s);
    ok(os_sync(sim_os(s), file)); /* it lies, as the kernel does */
    os_close(sim_os(s), file);
    return cut_and_look(s, "f");
}

static enum outcome failed_sync_then_read(struct sim *s) {
    os_close(sim_os(s), overwrite_and_fail(s));
    return look(s, "f");
}

/* New in memory, and yet not on the disk: what a recovery must not be fooled by. */
static enum outcome failed_sync_killed_read_and_cut(struct sim *s) {
    os_close(sim_os(s), overwrite_and_fail(s));
    sim_kill(s);
    enum outcome before = look(s, "f");
    put(s, "g", 'n', true); /* its sync says nothing about f */
    enum outcome after = cut_and_look(s, "f");
    return before == NEW ? after : before;
}

/* Whether contents that a read still found after a failed sync were there later. */
static enum outcome compare(enum outcome before, enum outcome after) {
    return before != NEW ? ABSENT : after == NEW ? FIRST : SECOND;
}

static enum outcome failed_sync_read_and_cut(struct sim *s) {
    os_close(sim_os(s), overwrite_and_fail(s));
    enum outcome before = look(s, "f");
    return compare(before, cut_and_look(s, "f"));
}

static enum outcome failed_sync_read_and_killed(struct sim *s) {
    os_close(sim_os(s), overwrite_and_fail(s));
    enum outcome before = look(s, "f");
    sim_kill(s);
    return compare(before, look(s, "f"));
}

static enum outcome failed_sync_written_again(struct sim *s) {
    struct os_file *file = overwrite_and_fail(s);
    fill(s, file, 'n', BLOCK, 0);
    ok(os_sync(sim_os(s), file));
    os_close(sim_os(s), file);
    return cut_and_look(s, "f");
}

static enum outcome killed(struct sim *s) {
    put_old(s);
    put(s, "f", 'n', false);
    sim_kill(s);
    return look(s, "f");
}

static enum outcome killed_and_cut(struct sim *s) {
    put_old(s);
    put(s, "f", 'n', false);
    sim_kill(s);
    return cut_and_look(s, "f");
}

static enum outcome cut_twice(struct sim *s) {
    put(s, "f", 'n', true);
    enum outcome once = cut_and_look(s, "f");
    assert_int_equal(cut_and_look(s, "f"), once); /* what is there after a cut is durable */
    return once;
}

static enum outcome cut_in_a_clone(struct sim *s) {
    put_old(s);
    put(s, "f", 'n', false);
    struct sim *clone = NULL;
    uint64_t seed;
    ok(os_random(sim_os(s), &seed, sizeof seed));
    ok(sim_clone(s, seed, &clone));
    enum outcome outcome = cut_and_look(clone, "f");
    sim_free(clone);
    assert_int_equal(look(s, "f"), NEW); /* the original has not noticed */
    return outcome;
}

static enum outcome crashed(struct sim *s) {
    put_old(s);
    struct os *os = sim_os(s);
    struct os_file *file = open_new(s, "f");
    sim_set_faults(s, &(struct sim_faults){.crash_at = 2});
    fill(s, file, 'n', BLOCK, 0);
    size_t n;
    assert_int_equal(os_sync(os, file), -EIO);
    assert_int_equal(os_write(os, file, "x", 1, 0, &n), -EIO);
    assert_int_equal(os_unlink(os, "f"), -EIO);
    assert_int_equal(os_read(os, file, &(char){0}, 1, 0, &n), -EIO);
    assert_true(sim_faulted(s));
    os_close(os, file);
    return cut_and_look(s, "f");
}

/* A call after the crash changes nothing, and a failed sync is one too. */
static enum outcome crashed_and_killed(struct sim *s) {
    put_old(s);
    struct os_file *file = open_new(s, "f");
    fill(s, file, 'n', BLOCK, 0);
    sim_set_faults(s, &(struct sim_faults){.crash_at = 1});
    assert_int_equal(os_sync(sim_os(s), file), -EIO);
    os_close(sim_os(s), file);
    sim_kill(s);
    return look(s, "f");
}

#define ROW(scenario, outcomes)                                                                    \
    { #scenario, scenario, outcomes }
static const struct {
    const char *name;
    enum outcome (*run)(struct sim *s);
    unsigned outcomes;
} rows[] = {
    ROW(all_synced, NEW),
    ROW(entry_not_synced, NEW | ABSENT),
    ROW(contents_not_synced, EMPTY | SHORT | NEW | ZERO | TORN),
    ROW(overwrite_not_synced, ANY_SECTOR),
    ROW(overwrite_synced, NEW),
    ROW(append_in_a_sector, OLD),
    ROW(sector_beside, OLD),
    ROW(size_grown, OLD | SHORT | NEW),
    ROW(grown_after_a_cut, ZERO | ABSENT),
    ROW(truncate_not_synced, OLD | EMPTY | ZERO | TORN),
    ROW(truncate_synced, EMPTY),
    ROW(truncate_and_grow_again, ZERO),
    ROW(replace, OLD | NEW),
    ROW(replace_synced, NEW),
    ROW(replace_with_unsynced, OLD | EMPTY | SHORT | NEW | ZERO | TORN),
    ROW(rename_is_one_operation, FIRST | SECOND),
    ROW(unlink_not_synced, OLD | ABSENT),
    ROW(unlink_synced, ABSENT),
    ROW(order_in_a_directory, ABSENT | FIRST | BOTH),
    ROW(no_order_between_directories, ABSENT | FIRST | SECOND | BOTH),
    ROW(move_not_synced, FIRST | SECOND),
    ROW(move_synced_at_its_source, SECOND),
    ROW(move_synced_at_its_target, SECOND),
    ROW(move_takes_what_came_before, FIRST | BOTH),
    ROW(directory_not_synced, ABSENT | NEW),
    ROW(directory_moved, FIRST | SECOND),
    ROW(directories_moved, OLD | SECOND | NEW),
    ROW(directories_moved_and_synced, NEW),
    ROW(failed_sync_repeated, ANY_SECTOR),
    ROW(failed_sync_then_read, ANY_SECTOR),
    ROW(failed_sync_killed_read_and_cut, ANY_SECTOR),
    ROW(failed_sync_read_and_cut, ABSENT | FIRST | SECOND),
    ROW(failed_sync_read_and_killed, ABSENT | FIRST | SECOND),
    ROW(failed_sync_written_again, NEW),
    ROW(killed, NEW),
    ROW(killed_and_cut, ANY_SECTOR),
    ROW(cut_twice, NEW | ABSENT),
    ROW(cut_in_a_clone, ANY_SECTOR),
    ROW(crashed, ANY_SECTOR),
    ROW(crashed_and_killed, NEW),
};

static void test_fault_model(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
        unsigned found = 0;
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
            struct sim *s = NULL;
            ok(sim_new(seed, &s));
            unsigned outcome = rows[i].run(s);
            if (outcome & ~rows[i].outcomes)
                fail_msg("%s: seed %u gave outcome %u", rows[i].name, (unsigned)seed, outcome);
            found |= outcome;
            sim_free(s);
        }
        if (found != rows[i].outcomes)
            fail_msg("%s: found outcomes %u of %u", rows[i].name, found, rows[i].outcomes);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_fault_model)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
