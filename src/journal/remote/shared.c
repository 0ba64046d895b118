/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine of a journal that many processes write: what was appended is divided among the
 * partitions by key, a message or a few each, and durable once all of them are. A group of records
 * is so divided too: after a crash a part of it may be there, which nobody was told is.
 *
 * Nothing is read here: cursors find nothing, and there are no consumers (group.c reads).
 */
#include "journal/remote/shared.h"

#include "base/hash.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define PROBE_NS UINT64_C(1000000000)
enum {
    PROBE_TIMEOUT_MS = 1500, /* who writes meanwhile waits for it */
    MESSAGES_MAX = GROUP_PARTITIONS_MAX + 2 * (JOURNAL_GROUP_MAX_BYTES / SHARED_MESSAGE_BYTES_MAX)
};

struct shared {
    struct shared_writer *writer;
    unsigned partitions;
    /* The commit at work; it stays until it is delivered. */
    struct shared_message messages[MESSAGES_MAX];
    size_t n_messages;
    struct chunk chunk;
    uint64_t probe_ns; /* when to look next whether the engine is there */
    struct shared_message *open[GROUP_PARTITIONS_MAX]; /* of each partition, that which is filled */
    const char *_Atomic complaint;
    char complaints[2][LOG_WHY_MAX]; /* the last two: a reader may still have the one before */
    unsigned n_complaints;
};

/* ---- opening ---- */

static int refuse(const struct journal *j, const char *why, int r) {
    if (j->options.tell)
        j->options.tell(j->options.tell_context, why);
    return r == LOG_E_UNAVAILABLE ? JOURNAL_E_UNAVAILABLE : JOURNAL_E_REFUSED;
}

static int shared_open(struct journal *j, struct journal_recovery *ret_recovery) {
    const struct log_options options = {.url = j->options.url,
                                        .name = j->options.name,
                                        .timeout_ms = j->options.call_timeout_ms,
                                        .existing = j->options.existing,
                                        .warn = j->options.tell,
                                        .context = j->options.tell_context};
    struct shared *s = j->shared = calloc(1, sizeof *s);
    if (!s)
        return error_origin(-ENOMEM);
    int r = os_random(j->os, &j->salt, sizeof j->salt);
    if (r)
        return error_fold(r);
    char why[LOG_WHY_MAX];
    r = shared_check_url(options.url, why);
    if (r)
        return refuse(j, why, r);
    s->partitions = journal_url_partitions(options.url);
    r = shared_driver_find(options.url)->writer->open(j->os, &options, &s->writer);
    if (r < 0)
        return error_fold(r);
    if (r)
        return refuse(j, s->writer->why, r);
    s->probe_ns = os_monotonic_ns(j->os) + PROBE_NS;
    j->identity = s->writer->identity;
    j->next_lsn = 1;
    *ret_recovery = (struct journal_recovery){.first_lsn = 1, .next_lsn = 1};
    return 0;
}

static void shared_close(struct journal *j) {
    struct shared *s = j->shared;
    if (!s)
        return;
    if (s->writer)
        s->writer->ops->close(s->writer);
    for (size_t i = 0; i < MESSAGES_MAX; i++)
        buffer_deinit(&s->messages[i].bytes);
    free(s);
    j->shared = NULL;
}

/* ---- cutting ---- */

static unsigned partition_of(const struct shared *s, uint64_t key_hash) {
    return (unsigned)(((hash64_u64(key_hash) >> 32) * s->partitions) >> 32);
}

/* The message of the partition that has room for so many bytes. */
static struct shared_message *message_for(struct shared *s, unsigned partition, size_t bytes) {
    struct shared_message *m = s->open[partition];
    if (m && m->bytes.size + bytes <= SHARED_MESSAGE_BYTES_MAX)
        return m;
    assert(s->n_messages < MESSAGES_MAX);
    m = &s->messages[s->n_messages++];
    buffer_clear(&m->bytes);
    *m = (struct shared_message){.partition = partition, .bytes = m->bytes};
    shared_message_begin(&m->bytes);
    s->open[partition] = m;
    return m;
}

/* Divides a chunk; -ENOMEM: nothing was begun. */
static int divide(struct journal *j) {
    struct shared *s = j->shared;
    const struct chunk *c = &s->chunk;
    memset(s->open, 0, sizeof s->open);
    s->n_messages = 0;
    for (size_t at = 0, bytes; at < c->bytes; at += bytes) {
        struct frame f;
        frame_load(c->data + at, &f);
        bytes = frame_bytes(f.payload.size);
        struct shared_message *m = message_for(s, partition_of(s, f.key_hash), bytes);
        buffer_append(&m->bytes, c->data + at, bytes);
        m->n++;
    }
    int r = 0;
    for (size_t i = 0; i < s->n_messages && !r; i++) {
        r = buffer_check(&s->messages[i].bytes);
        if (!r)
            shared_message_end(&s->messages[i].bytes, j->salt, s->messages[i].n);
    }
    if (r)
        s->n_messages = 0;
    return error_trace(r);
}

/* Whole groups, as many as one commit should cover. */
static int take_chunk(struct journal *j) {
    struct shared *s = j->shared;
    bool some = commit_unwritten(j, &s->chunk);
    assert(some && "the committer looked");
    (void)some;
    return error_trace(divide(j));
}

/* ---- the commit ---- */

static void complain(struct shared *s) {
    const char *why = s->writer->why, *known = atomic_load(&s->complaint);
    if (known && strcmp(known, why) == 0)
        return;
    char *text = s->complaints[s->n_complaints++ % ARRAY_LENGTH(s->complaints)];
    snprintf(text, LOG_WHY_MAX, "%s", why);
    atomic_store(&s->complaint, text);
}

/* Some, all or none of the commit at work is there, or will be. It is settled as if it were, and
 * never sent again; who waits for it is told so (journal_unknown). */
static void give_up(struct journal *j) {
    mutex_lock(&j->lock);
    j->stats.sync_failures++;
    mutex_unlock(&j->lock);
    atomic_store(&j->unknown, j->shared->chunk.last_lsn);
}

/* What comes next need not end like that: nothing is taken before the engine has answered. */
static void distrust(struct journal *j, int r) {
    complain(j->shared);
    j->shared->probe_ns = 0;
    atomic_store(&j->refusing, r);
}

static void settle(struct journal *j, uint64_t start_ns) {
    struct shared *s = j->shared;
    struct commit c = {.sync_ns = os_monotonic_ns(j->os) - start_ns,
                       .bytes = s->chunk.bytes,
                       .records = s->chunk.last_lsn - s->chunk.first_lsn + 1};
    commit_written(j, s->chunk.bytes);
    s->n_messages = 0;
    commit_settle(j, s->chunk.last_lsn, s->chunk.bytes);
    commit_publish(j, s->chunk.last_lsn, &c);
    s->probe_ns = os_monotonic_ns(j->os) + PROBE_NS;
}

static int shared_commit(struct journal *j) {
    struct shared *s = j->shared;
    uint64_t start = os_monotonic_ns(j->os);
    int r = s->n_messages ? 0 : take_chunk(j);
    if (r)
        return error_trace(r);
    commit_io_begin(j);
    r = s->writer->ops->deliver(s->writer, s->messages, s->n_messages);
    commit_io_end(j);
    if (r == LOG_E_UNKNOWN)
        give_up(j);
    else if (r) {
        complain(j->shared);
        commit_refused(j, r);
        return error_trace(r);
    }
    settle(j, start);
    if (r)
        distrust(j, r);
    return 0;
}

/* ---- while nothing is written ---- */

/* That an engine is away is to be known before somebody writes, as nothing was sent then. Once it
 * is known nobody waits for its answer, which may take longer. */
static void probe(struct journal *j) {
    struct shared *s = j->shared;
    bool refusing = atomic_load(&j->refusing);
    uint64_t timeout_ms = refusing ? j->options.call_timeout_ms : PROBE_TIMEOUT_MS;
    int r = s->writer->ops->probe(s->writer, timeout_ms);
    s->probe_ns = os_monotonic_ns(j->os) + (r ? COMMIT_RETRY_NS : PROBE_NS);
    if (r > 0)
        complain(s);
    if (r >= 0)
        atomic_store(&j->refusing, r);
}

static bool shared_housekeep(struct journal *j, bool idle) {
    if (idle && os_monotonic_ns(j->os) >= j->shared->probe_ns)
        probe(j);
    return atomic_load(&j->refusing);
}

/* ---- the rest of the table ---- */

static void shared_finish(struct journal *j UNUSED) {
}

/* A record has to fit into a message. */
static bool shared_refuses(const struct journal *j UNUSED, const struct journal_record *records,
                           size_t n) {
    for (size_t i = 0; i < n; i++)
        if (SHARED_HEAD_BYTES + frame_bytes(records[i].payload.size) > SHARED_MESSAGE_BYTES_MAX)
            return true;
    return false;
}

static const char *shared_complaint(const struct journal *j) {
    return atomic_load(&j->refusing) ? atomic_load(&j->shared->complaint) : NULL;
}

static uint64_t shared_stream_at(struct journal *j UNUSED, lsn_t lsn UNUSED) {
    return 0;
}

static void shared_stats(struct journal *j UNUSED, struct journal_stats *stats UNUSED) {
}

static bool shared_holds(struct journal *j UNUSED, lsn_t lsn UNUSED) {
    return false;
}

static int shared_read(struct journal_cursor *c UNUSED, struct journal_batch **ret UNUSED) {
    return JOURNAL_E_END;
}

static void shared_leave(struct journal_cursor *c UNUSED) {
}

const struct journal_engine journal_shared = {
    .open = shared_open,
    .close = shared_close,
    .commit = shared_commit,
    .housekeep = shared_housekeep,
    .finish = shared_finish,
    .refuses = shared_refuses,
    .complaint = shared_complaint,
    .stream_at = shared_stream_at,
    .stats = shared_stats,
    .holds = shared_holds,
    .read = shared_read,
    .leave = shared_leave,
};
