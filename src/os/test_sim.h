/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of the simulated system share: small files of one letter, and a look at what
 * became of them.
 */
#ifndef MILLRACE_OS_TEST_SIM_H
#define MILLRACE_OS_TEST_SIM_H

#include "os/file.h"
#include "os/sim.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { BLOCK = 512 };

/* Outcomes: of one sector of a file, or of which entries are there. */
enum outcome {
    ABSENT = 1,
    EMPTY = 2, /* a file without contents */
    OLD = 4,
    NEW = 8,
    ZERO = 16,
    TORN = 32,  /* part new, part old */
    SHORT = 64, /* a size on the way from the old to the new */
    FIRST = 128,
    SECOND = 256,
    BOTH = 512,
    ANY_SECTOR = OLD | NEW | ZERO | TORN,
};

static inline void ok(int r) {
    assert_int_equal(r, 0);
}

static inline struct os_file *open_new(struct sim *s, const char *path) {
    struct os_file *file = NULL;
    ok(os_open(sim_os(s), path, OS_OPEN_WRITE | OS_OPEN_CREATE, &file));
    return file;
}

static inline void fill(struct sim *s, struct os_file *file, char c, size_t size, uint64_t offset) {
    char data[4 * BLOCK];
    assert_true(size <= sizeof data);
    memset(data, c, size);
    ok(os_write_all(sim_os(s), file, data, size, offset));
}

/* path holds one sector of c; synced or not, closed. */
static inline void put(struct sim *s, const char *path, char c, bool synced) {
    struct os_file *file = open_new(s, path);
    fill(s, file, c, BLOCK, 0);
    if (synced)
        ok(os_sync(sim_os(s), file));
    os_close(sim_os(s), file);
}

static inline void sync_directory(struct sim *s, const char *path) {
    ok(os_sync_directory(sim_os(s), path));
}

/* A durable sector of 'o' at path "f". */
static inline void put_old(struct sim *s) {
    put(s, "f", 'o', true);
    sync_directory(s, "/");
}

static inline void make_two_directories(struct sim *s) {
    ok(os_mkdir(sim_os(s), "d"));
    ok(os_mkdir(sim_os(s), "e"));
    sync_directory(s, "/");
}

static inline bool exists(struct sim *s, const char *path) {
    struct os_file *file = NULL;
    int r = os_open(sim_os(s), path, OS_OPEN_READ, &file);
    os_close(sim_os(s), file);
    assert_true(r == 0 || r == OS_E_NOT_FOUND);
    return r == 0;
}

/* A sector of which 'o', 'n' and NUL are the old, the new and the zeroed bytes. */
static inline enum outcome classify(const uint8_t *data, size_t size) {
    size_t old = 0, new = 0, zero = 0;
    for (size_t i = 0; i < size; i++) {
        old += data[i] == 'o';
        new += data[i] == 'n';
        zero += data[i] == 0;
    }
    assert_int_equal(old + new + zero, size);
    if (old == size)
        return OLD;
    if (new == size)
        return NEW;
    return zero == size ? ZERO : TORN;
}

static inline enum outcome look(struct sim *s, const char *path) {
    struct buffer b = BUFFER_INIT;
    int r = os_load(sim_os(s), path, 1 << 20, &b);
    enum outcome outcome = ABSENT;
    if (r == 0)
        outcome = b.size == 0 ? EMPTY : b.size < BLOCK ? SHORT : classify(b.data, BLOCK);
    else
        assert_int_equal(r, OS_E_NOT_FOUND);
    buffer_deinit(&b);
    return outcome;
}

static inline enum outcome cut_and_look(struct sim *s, const char *path) {
    sim_power_cut(s);
    return look(s, path);
}

static inline enum outcome cut_and_look_for_two(struct sim *s, const char *first,
                                                const char *second) {
    sim_power_cut(s);
    bool one = exists(s, first);
    bool two = exists(s, second);
    return one && two ? BOTH : one ? FIRST : two ? SECOND : ABSENT;
}

#endif
