/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of the journal share: records whose payload can be recomputed from an id, reading
 * a journal to its end, a journal on a simulated disk. Included by tests only.
 */
#ifndef MILLRACE_JOURNAL_TEST_SUPPORT_H
#define MILLRACE_JOURNAL_TEST_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/hash.h"
#include "journal/journal.h"
#include "os/file.h"
#include "os/sim.h"

#include <stdio.h>
#include <stdlib.h>

#define DIRECTORY "journal"
enum { RECORD_BYTES_MAX = 1 << 20, RECORDS_READ_MAX = 1 << 16 };

/* Fills size bytes (at least 8) that say which record they are. */
static inline void record_fill(uint8_t *out, uint64_t id, size_t size) {
    store_u64(out, id);
    for (size_t i = 8; i < size; i++)
        out[i] = (uint8_t)(hash64_u64(id) >> (i % 8 * 8)) ^ (uint8_t)i;
}

/* True if the payload is what record_fill made for the id in it. */
static inline bool record_is_whole(struct bytes payload) {
    if (payload.size < 8)
        return false;
    uint64_t id = load_u64(payload.data);
    for (size_t i = 8; i < payload.size; i++)
        if (payload.data[i] != (uint8_t)((uint8_t)(hash64_u64(id) >> (i % 8 * 8)) ^ (uint8_t)i))
            return false;
    return true;
}

/* Appends a group of n records of that size with consecutive ids; returns journal_append's result
 * and the last lsn. */
static inline int append_group(struct journal *j, uint64_t first_id, size_t n, size_t size,
                               lsn_t *ret_last) {
    struct journal_record *records = calloc(n, sizeof *records);
    uint8_t *payloads = malloc(n * size);
    assert_non_null(records);
    assert_non_null(payloads);
    for (size_t i = 0; i < n; i++) {
        record_fill(payloads + i * size, first_id + i, size);
        records[i] = (struct journal_record){.key_hash = first_id + i,
                                             .kind = JOURNAL_KIND_EVENTS,
                                             .payload = bytes_of(payloads + i * size, size)};
    }
    int r = journal_append(j, records, n);
    if (!r && ret_last)
        *ret_last = records[n - 1].lsn;
    free(payloads);
    free(records);
    return r;
}

static inline lsn_t append_one(struct journal *j, uint64_t id, size_t size) {
    lsn_t lsn = 0;
    assert_int_equal(append_group(j, id, 1, size, &lsn), 0);
    return lsn;
}

/* What was read. */
struct seen {
    lsn_t lsn;
    uint64_t id;
    uint8_t kind;
    uint8_t flags;
};
struct reading {
    struct seen *seen;
    size_t n;
    size_t capacity;
};
#define READING_INIT ((struct reading){0})
static inline void reading_deinit(struct reading *r) {
    free(r->seen);
    *r = READING_INIT;
}

static inline void reading_add(struct reading *r, const struct journal_record *record) {
    if (r->n == r->capacity) {
        r->capacity = r->capacity ? 2 * r->capacity : 256;
        r->seen = realloc(r->seen, r->capacity * sizeof *r->seen);
        assert_non_null(r->seen);
    }
    bool own = record->kind == JOURNAL_KIND_JOURNAL;
    assert_true(own || record_is_whole(record->payload));
    r->seen[r->n++] = (struct seen){.lsn = record->lsn,
                                    .id = own ? 0 : load_u64(record->payload.data),
                                    .kind = record->kind,
                                    .flags = record->flags};
}

/* Reads on to the end; returns what the last journal_read did (JOURNAL_E_END when all is well). */
static inline int read_on(struct journal_cursor *c, struct reading *out) {
    struct journal_batch *b;
    int r;
    while ((r = journal_read(c, &b)) == 0) {
        for (size_t i = 0; i < b->n; i++) {
            if (out->n > 0)
                assert_true(b->records[i].lsn > out->seen[out->n - 1].lsn);
            reading_add(out, &b->records[i]);
        }
        journal_batch_unref(b);
    }
    return r;
}

static inline int read_from(struct journal *j, lsn_t from, struct reading *out) {
    struct journal_cursor *c;
    assert_int_equal(journal_cursor_new(j, from, &c), 0);
    int r = read_on(c, out);
    journal_cursor_free(c);
    return r;
}

/* A journal on a simulated disk, committing only when told to. */
struct bench {
    struct sim *sim;
    struct os *os;
    struct journal_options options;
    struct journal *j;
    struct journal_recovery found;
};

static inline void bench_open(struct bench *b) {
    assert_int_equal(journal_open(b->os, DIRECTORY, &b->options, &b->j, &b->found), 0);
}

static inline void bench_close(struct bench *b) {
    b->j = journal_close(b->j);
}

static inline void bench_reopen(struct bench *b) {
    bench_close(b);
    bench_open(b);
}

static inline struct bench bench_new(uint64_t seed) {
    struct bench b = {.options = {.sync = JOURNAL_SYNC_GROUP,
                                  .segment_bytes = 8 << 10,
                                  .window_bytes = 1,
                                  .no_thread = true}};
    assert_int_equal(sim_new(seed, &b.sim), 0);
    b.os = sim_os(b.sim);
    return b;
}

static inline void bench_free(struct bench *b) {
    bench_close(b);
    b->sim = sim_free(b->sim);
}

/* For calls that may fail here. */
static inline void ignore_result(int r) {
    (void)r;
}

/* How many files of the directory have a name that begins with prefix. */
struct counting {
    const char *prefix;
    size_t n;
};
static inline void count_name(void *context, const char *name) {
    struct counting *c = context;
    c->n += strncmp(name, c->prefix, strlen(c->prefix)) == 0;
}
static inline size_t count_files(struct os *os, const char *directory, const char *prefix) {
    struct counting c = {.prefix = prefix};
    int r = os_list(os, directory, count_name, &c);
    assert_true(r == 0 || r == OS_E_NOT_FOUND);
    return c.n;
}

#endif
