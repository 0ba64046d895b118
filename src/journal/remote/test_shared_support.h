/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of single drivers of shared journals have in common: a log of a test's own on the
 * engine of MILLRACE_TEST_JOURNAL, who writes it, and a group of one that reads it for a store that
 * is an array. Included by tests only.
 */
#ifndef MILLRACE_JOURNAL_REMOTE_TEST_SHARED_SUPPORT_H
#define MILLRACE_JOURNAL_REMOTE_TEST_SHARED_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "journal/remote/shared.h"

#include <stdio.h>
#include <stdlib.h>

#define MS_NS UINT64_C(1000000)
#define NAME "events"
enum {
    TIMEOUT_MS = 5000,
    PATIENCE_MS = 60000,
    TEXT_MAX = 2048,
    SALT = 0x5a17,
    PAYLOAD_MAX = 4000,
    MESSAGES_MAX = 40,
};

struct rig {
    struct os *os; /* NULL: no engine was named */
    const struct shared_driver *driver;
    char text[TEXT_MAX];
    struct service_url url;
    struct shared_writer *writer;
    struct group *group;
    lsn_t positions[GROUP_PARTITIONS_MAX]; /* that the store has persisted */
    unsigned records[GROUP_PARTITIONS_MAX];
    unsigned read; /* of all partitions */
};

static inline struct log_options options_of(struct rig *rig) {
    return (struct log_options){.url = &rig->url, .name = NAME, .timeout_ms = TIMEOUT_MS};
}

/* Another process. */
static inline void open_writer(struct rig *rig) {
    const struct log_options options = options_of(rig);
    if (rig->writer)
        rig->driver->writer->close(rig->writer);
    if (rig->driver->writer->open(rig->os, &options, &rig->writer))
        fail_msg("%s", rig->writer->why);
}

/* more: further parameters, as "&max-bytes=…". Without an engine the test is skipped. */
static inline void rig_open(struct rig *rig, const char *more) {
    const char *form = getenv("MILLRACE_TEST_JOURNAL"), *why;
    uint64_t number;
    if (!form)
        skip();
    const char *at = strstr(form, "LOG");
    assert_non_null(at);
    rig->os = os_real();
    assert_int_equal(os_random(rig->os, &number, sizeof number), 0);
    snprintf(rig->text, sizeof rig->text, "%.*s%016llx%s%s", (int)(at - form), form,
             (unsigned long long)number, at + 3, more);
    assert_true(service_url_parse(rig->text, &rig->url, &why));
    rig->driver = shared_driver_find(&rig->url);
    open_writer(rig);
}

static inline void rig_close(struct rig *rig) {
    rig->group = group_close(rig->group);
    if (rig->writer)
        rig->driver->writer->close(rig->writer);
    rig->writer = NULL;
}

/* The name of something of the log: "-0" is the first partition's. */
static inline const char *name_in_log(struct rig *rig, const char *what, char out[TEXT_MAX]) {
    snprintf(out, TEXT_MAX, "%.1000s" NAME "%.100s", service_url_parameter(&rig->url, "prefix"),
             what);
    return out;
}

/* ---- Writing ---- */

/* Of one record; no two are alike. */
static inline void make_message(struct shared_message *m, unsigned partition, size_t size) {
    static const uint8_t payload[PAYLOAD_MAX];
    static uint64_t n;
    assert_true(size <= sizeof payload);
    const struct frame frame = {
        .wall_us = ++n, .kind = JOURNAL_KIND_EVENTS, .payload = bytes_of(payload, size)};
    *m = (struct shared_message){.partition = partition, .n = 1};
    shared_message_begin(&m->bytes);
    uint8_t *at = buffer_reserve(&m->bytes, frame_bytes(size));
    assert_non_null(at);
    frame_store(at, SALT, &frame, frame_payload_crc(SALT, frame.payload));
    m->bytes.size += frame_bytes(size);
    shared_message_end(&m->bytes, SALT, 1);
    assert_int_equal(buffer_check(&m->bytes), 0);
}

/* What it says comes from the next call too. */
static inline void probe(struct rig *rig) {
    (void)!rig->driver->writer->probe(rig->writer, TIMEOUT_MS);
}

/* As the committer does: a connection that was lost meanwhile is noticed before, and memory that
 * ran out is no reason to give up. Ends the messages. */
static inline int deliver_messages(struct rig *rig, struct shared_message *messages, unsigned n) {
    int r;
    probe(rig);
    do
        r = rig->driver->writer->deliver(rig->writer, messages, n);
    while (r < 0);
    for (unsigned i = 0; i < n; i++)
        buffer_deinit(&messages[i].bytes);
    return r;
}

/* ---- Reading ---- */

static inline int answer_position(void *context, unsigned partition, lsn_t *ret_lsn) {
    const struct rig *rig = context;
    *ret_lsn = rig->positions[partition];
    return 0;
}

static inline struct group_options options_of_group(struct rig *rig) {
    return (struct group_options){.url = &rig->url,
                                  .name = NAME,
                                  .timeout_ms = TIMEOUT_MS,
                                  .position = answer_position,
                                  .context = rig};
}

/* Another process begins where the store is. */
static inline void join(struct rig *rig) {
    char why[GROUP_WHY_MAX];
    const struct group_options options = options_of_group(rig);
    rig->group = group_close(rig->group);
    if (group_open(rig->os, &options, &rig->group, why))
        fail_msg("%s", why);
}

static inline void read_once(struct rig *rig, bool persists) {
    struct group_batch batch;
    probe(rig);
    if (!rig->group || group_read(rig->group, 50, &batch))
        return;
    rig->records[batch.partition] += (unsigned)batch.n;
    rig->read += (unsigned)batch.n;
    if (!persists)
        return;
    rig->positions[batch.partition] = batch.records[batch.n - 1].lsn;
    group_persisted(rig->group, batch.partition, rig->positions[batch.partition]);
}

static inline struct group_status status_of(struct rig *rig) {
    struct group_status status;
    group_status(rig->group, &status);
    return status;
}

/* Reads until it is so. */
#define until(rig, persists, what)                                                                 \
    do {                                                                                           \
        uint64_t until_ = os_monotonic_ns((rig)->os) + PATIENCE_MS * MS_NS;                        \
        while (!(what) && os_monotonic_ns((rig)->os) < until_)                                     \
            read_once(rig, persists);                                                              \
        assert_true(what);                                                                         \
    } while (0)

#endif
