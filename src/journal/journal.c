/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal as its users see it: opening and closing, appending, waiting, state, consumers.
 *
 * Appending: the payloads' checksums are computed first, without the lock; under it a group gets
 * its lsns and is copied into the window, and the committer is woken if it sleeps. While it works,
 * appending makes no system call.
 */
#include "journal/journal.h"

#include "journal/core.h"
#include "journal/group.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define MIB UINT64_C(1048576)

/* ---- opening and closing ---- */

static uint64_t or_default(uint64_t value, uint64_t instead) {
    return value ? value : instead;
}

static struct journal_options with_defaults(const struct journal_options *options) {
    struct journal_options o = *options;
    o.window_bytes = or_default(o.window_bytes, 32 * MIB);
    o.pending_bytes_max = or_default(o.pending_bytes_max, 64 * MIB);
    for (size_t kind = 0; kind < JOURNAL_KINDS; kind++)
        o.pin_bytes_max[kind] = or_default(o.pin_bytes_max[kind], 8192 * MIB);
    o.sync_deadline_ms = or_default(o.sync_deadline_ms, 2000);
    o.call_timeout_ms = or_default(o.call_timeout_ms, 5000);
    return o;
}

static struct journal *journal_new(struct os *os, const char *directory,
                                   const struct journal_options *options) {
    struct journal *j = calloc(1, sizeof *j);
    if (!j)
        return NULL;
    j->os = os;
    j->directory = directory;
    j->options = with_defaults(options);
    j->window.budget = j->options.budget;
    j->engine = !options->url                         ? &journal_local
                : journal_url_is_shared(options->url) ? &journal_shared
                                                      : &journal_remote;
    mutex_init(&j->lock, LOCK_RANK_JOURNAL);
    condition_init(&j->wake);
    condition_init(&j->durable_moved);
    condition_init(&j->notified);
    return j;
}

static void consumers_free(struct journal_consumer *c) {
    while (c) {
        struct journal_consumer *next = c->next;
        free(c);
        c = next;
    }
}

/* Everything but the thread, which has ended or never began. */
static struct journal *journal_free(struct journal *j) {
    if (!j)
        return NULL;
    j->engine->close(j);
    window_deinit(&j->window);
    consumers_free(j->consumers);
    condition_deinit(&j->notified);
    condition_deinit(&j->durable_moved);
    condition_deinit(&j->wake);
    mutex_deinit(&j->lock);
    free(j);
    return NULL;
}

static void journal_freep(struct journal **j) {
    journal_free(*j);
}

/* What recovery found whole but not known to be on disk is written again before anybody sees the
 * journal. When the disk refuses, that is a state like any other: it heals later. */
static int journal_start(struct journal *j) {
    if (j->options.read_only)
        return 0;
    ignore_error(commit_all(j));
    j->engine->housekeep(j, false);
    if (j->options.no_thread)
        return 0;
    return error_trace(os_thread_start(j->os, "journal", commit_thread, j, &j->thread));
}

int journal_open(struct os *os, const char *directory, const struct journal_options *options,
                 struct journal **ret_journal, struct journal_recovery *ret_recovery) {
    struct journal_recovery found;
    struct journal *j CLEANUP(journal_freep) = journal_new(os, directory, options);
    if (!j)
        return error_origin(-ENOMEM);
    int r = j->engine->open(j, &found);
    if (r)
        return error_trace(r);
    if (j->next_lsn > atomic_load(&j->appended))
        atomic_store(&j->appended, j->next_lsn - 1);
    for (int kind = 0; kind < JOURNAL_KINDS; kind++)
        atomic_store(&j->newest[kind], j->next_lsn - 1); /* nobody has looked */
    r = journal_start(j);
    if (r)
        return error_fold(r);
    *ret_journal = j;
    if (ret_recovery)
        *ret_recovery = found;
    j = NULL;
    return 0;
}

struct journal *journal_close(struct journal *j) {
    if (!j)
        return NULL;
    mutex_lock(&j->lock);
    j->closing = true;
    condition_signal(&j->wake);
    mutex_unlock(&j->lock);
    os_thread_join(j->os, j->thread);
    if (!j->options.read_only) {
        ignore_error(commit_all(j)); /* what is refused now was never acknowledged */
        j->engine->finish(j);
    }
    return journal_free(j);
}

/* ---- appending ---- */

lsn_t journal_appended(const struct journal *j) {
    return atomic_load(&j->appended);
}

lsn_t journal_newest(const struct journal *j, enum journal_kind kind) {
    return atomic_load(&j->newest[kind]);
}

lsn_t journal_durable(const struct journal *j) {
    return atomic_load(&j->durable);
}

lsn_t journal_unknown(const struct journal *j) {
    return atomic_load(&j->unknown);
}

/* The payload's checksum waits in wall_us until the frame is written: the field is ours to set. */
static size_t group_measure(const struct journal *j, struct journal_record *records, size_t n) {
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++) {
        if (records[i].payload.size > JOURNAL_GROUP_MAX_BYTES)
            return SIZE_MAX;
        bytes += frame_bytes(records[i].payload.size);
        if (bytes > JOURNAL_GROUP_MAX_BYTES)
            return SIZE_MAX;
        records[i].wall_us = frame_payload_crc(j->salt, records[i].payload);
    }
    return bytes;
}

static uint64_t pinned_by(const struct journal *j, const struct journal_consumer *c) {
    uint64_t end = j->synced_stream + j->pending_bytes;
    return end > c->stream_at ? end - c->stream_at : 0;
}

static uint64_t pinned_ms(const struct journal_consumer *c, uint64_t now_ns) {
    return c->n_marks && now_ns > c->marks[0].ns ? (now_ns - c->marks[0].ns) / 1000000 : 0;
}

/* Remembers that the next record comes now, unless it was done lately. A consumer with no room for
 * another mark has been behind for as long as it may. */
static void mark_moment(struct journal_consumer *c, lsn_t lsn, uint64_t now_ns) {
    uint64_t max_ms = c->journal->options.pin_ms_max[c->kind];
    if (max_ms == 0 || c->n_marks == PIN_MARKS)
        return;
    if (c->n_marks && now_ns - c->marks[c->n_marks - 1].ns < max_ms * 1000000 / PIN_MARKS)
        return;
    c->marks[c->n_marks++] = (struct pin_mark){.lsn = lsn, .ns = now_ns};
}

/* The oldest record that is pinned came with the last mark that is not above it, or soon after. */
static void forget_moments(struct journal_consumer *c) {
    lsn_t oldest = c->persisted + 1;
    size_t gone = 0;
    while (gone + 1 < c->n_marks && c->marks[gone + 1].lsn <= oldest)
        gone++;
    if (oldest >= c->journal->next_lsn) /* nothing is */
        gone = c->n_marks;
    c->n_marks -= gone;
    memmove(c->marks, c->marks + gone, c->n_marks * sizeof c->marks[0]);
}

/* Control records (a collection dropped, a checkpoint) may go an eighth beyond the bounds. */
static bool kind_is_pinned(const struct journal *j, const struct journal_record *record,
                           uint64_t now_ns) {
    uint64_t max = j->options.pin_bytes_max[record->kind];
    uint64_t max_ms = j->options.pin_ms_max[record->kind];
    if (record->flags & JOURNAL_CONTROL) {
        max += max / 8;
        max_ms += max_ms / 8;
    }
    for (const struct journal_consumer *c = j->consumers; c; c = c->next)
        if (c->kind == record->kind &&
            (pinned_by(j, c) > max || (max_ms && pinned_ms(c, now_ns) > max_ms)))
            return true;
    return false;
}

static bool any_pinned(const struct journal *j, const struct journal_record *records, size_t n) {
    unsigned seen = 0; /* kind and control bit: the answer is the same for all alike */
    uint64_t now_ns = os_monotonic_ns(j->os);
    for (size_t i = 0; i < n; i++) {
        unsigned like = 1u << (2 * records[i].kind + (records[i].flags & JOURNAL_CONTROL));
        if (!(seen & like) && kind_is_pinned(j, &records[i], now_ns))
            return true;
        seen |= like;
    }
    return false;
}

static bool is_hanging(const struct journal *j) {
    uint64_t started = atomic_load(&j->io_started_ns);
    uint64_t now = started ? os_monotonic_ns(j->os) : 0;
    return now > started && now - started > j->options.sync_deadline_ms * UINT64_C(1000000);
}

bool journal_makes_room(const struct journal_record *records, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!(records[i].flags & (JOURNAL_CONTROL | JOURNAL_DELETES)))
            return false;
    return true;
}

static int append_check(const struct journal *j, const struct journal_record *records, size_t n,
                        size_t bytes) {
    if (j->options.read_only || j->closing || atomic_load(&j->refusing) || is_hanging(j) ||
        j->engine->refuses(j, records, n))
        return JOURNAL_E_UNAVAILABLE;
    bool full =
        j->pending_bytes + bytes > j->options.pending_bytes_max ||
        (budget_spent(j->options.budget, BUDGET_JOURNAL) && !journal_makes_room(records, n));
    if (j->pending_bytes > 0 && full)
        return JOURNAL_E_OVERLOAD;
    return any_pinned(j, records, n) ? JOURNAL_E_PINNED : 0;
}

static void group_store(struct journal *j, struct journal_record *records, size_t n, uint8_t *at) {
    uint64_t now_us = os_wall_us(j->os);
    for (size_t i = 0; i < n; i++) {
        struct journal_record *record = &records[i];
        uint32_t payload_crc = (uint32_t)record->wall_us;
        record->lsn = j->next_lsn++;
        record->wall_us = now_us;
        record->flags = (uint8_t)((record->flags & (JOURNAL_CONTROL | JOURNAL_LETTER)) |
                                  (i + 1 < n ? JOURNAL_MORE : 0));
        struct frame f = {.lsn = record->lsn,
                          .synced_lsn = j->synced_lsn,
                          .key_hash = record->key_hash,
                          .wall_us = now_us,
                          .payload = record->payload,
                          .kind = record->kind,
                          .flags = record->flags};
        frame_store(at, j->salt, &f, payload_crc);
        at += frame_bytes(record->payload.size);
    }
}

/* ret_wake: the committer sleeps, and waits for no more than this. It is woken when the lock is
 * free, as the lock is the first that it takes. */
static int append_locked(struct journal *j, struct journal_record *records, size_t n, size_t bytes,
                         bool *ret_wake) {
    uint8_t *at;
    int r = window_reserve(&j->window, bytes, &at);
    if (r)
        return error_trace(r);
    lsn_t first = j->next_lsn;
    uint64_t now_ns = os_monotonic_ns(j->os);
    for (struct journal_consumer *c = j->consumers; c; c = c->next)
        mark_moment(c, first, now_ns);
    group_store(j, records, n, at);
    window_extend(&j->window, bytes, first, j->next_lsn - 1);
    j->pending_bytes += bytes;
    j->groups++;
    j->stats.appended_records += n;
    j->stats.appended_bytes += bytes;
    for (size_t i = 0; i < n; i++) {
        atomic_store_explicit(&j->newest[records[i].kind], records[i].lsn, memory_order_relaxed);
        j->stats.kind_records[records[i].kind]++;
    }
    atomic_store(&j->appended, j->next_lsn - 1);
    *ret_wake = j->sleeping && j->groups >= j->groups_wake;
    j->sleeping = j->sleeping && !*ret_wake;
    return 0;
}

int journal_append(struct journal *j, struct journal_record *records, size_t n) {
    assert(n > 0);
    for (size_t i = 0; i < n; i++)
        assert(records[i].kind < JOURNAL_KINDS);
    size_t bytes = group_measure(j, records, n);
    if (bytes == SIZE_MAX)
        return JOURNAL_E_TOO_LARGE;
    bool wake = false;
    mutex_lock(&j->lock);
    int r = append_check(j, records, n, bytes);
    if (!r)
        r = append_locked(j, records, n, bytes, &wake);
    mutex_unlock(&j->lock);
    if (wake)
        condition_signal(&j->wake);
    return error_trace(r);
}

/* The gap begins a new block, and so a new segment: the lsns of a segment are consecutive. The
 * record is kept in memory even while the disk refuses. */
int journal_append_gap(struct journal *j, uint64_t gap) {
    uint8_t payload[16];
    struct journal_record record = {.kind = JOURNAL_KIND_JOURNAL,
                                    .payload = bytes_of(payload, sizeof payload)};
    bool wake = false;
    mutex_lock(&j->lock);
    lsn_t next_before = j->next_lsn;
    store_u64(payload, next_before);
    store_u64(payload + 8, gap);
    window_break(&j->window);
    j->next_lsn += gap;
    int r = append_locked(j, &record, 1, group_measure(j, &record, 1), &wake);
    if (r)
        j->next_lsn = next_before;
    mutex_unlock(&j->lock);
    if (wake)
        condition_signal(&j->wake);
    return error_trace(r);
}

int journal_advance(struct journal *j, lsn_t above, uint64_t *ret_gap) {
    lsn_t next = journal_appended(j) + 1;
    uint64_t gap = above >= next ? above - next + 1 : 0;
    int r = gap ? journal_append_gap(j, gap) : 0;
    if (r)
        return error_trace(r);
    *ret_gap = gap;
    return 0;
}

int journal_wait(struct journal *j, lsn_t lsn, uint64_t timeout_ms) {
    uint64_t deadline_ns = os_monotonic_ns(j->os) + timeout_ms * UINT64_C(1000000);
    bool in_time = true;
    mutex_lock(&j->lock);
    j->waiters++;
    while (in_time && journal_durable(j) < lsn)
        in_time = condition_wait_until(&j->durable_moved, &j->lock, deadline_ns);
    j->waiters--;
    mutex_unlock(&j->lock);
    bool known = !lsn || journal_unknown(j) < lsn;
    return journal_durable(j) >= lsn && known ? 0 : JOURNAL_E_TIMEOUT;
}

int journal_commit(struct journal *j) {
    assert(j->options.no_thread && !j->options.read_only);
    int r = commit_all(j);
    j->engine->housekeep(j, r == 0);
    return r > 0 ? JOURNAL_E_UNAVAILABLE : error_trace(r);
}

/* ---- listeners ---- */

void journal_listen(struct journal *j, struct journal_listener *listener) {
    mutex_lock(&j->lock);
    listener->next = j->listeners;
    j->listeners = listener;
    mutex_unlock(&j->lock);
}

void journal_unlisten(struct journal *j, struct journal_listener *listener) {
    mutex_lock(&j->lock);
    while (j->notifying)
        condition_wait(&j->notified, &j->lock);
    for (struct journal_listener **link = &j->listeners; *link; link = &(*link)->next) {
        if (*link == listener) {
            *link = listener->next;
            break;
        }
    }
    mutex_unlock(&j->lock);
}

void journal_observe(struct journal *j, struct journal_observer *observer) {
    mutex_lock(&j->lock);
    j->observer = observer;
    mutex_unlock(&j->lock);
}

/* ---- state ---- */

enum journal_state journal_state(const struct journal *j) {
    if (is_hanging(j))
        return JOURNAL_HANGING;
    return atomic_load(&j->refusing) || j->engine->complaint(j) ? JOURNAL_REFUSING : JOURNAL_OK;
}

const char *journal_identity(const struct journal *j) {
    return j->identity ? j->identity : "";
}

const char *journal_state_text(const struct journal *j) {
    if (is_hanging(j))
        return "A write or sync of the journal hangs";
    const char *complaint = j->engine->complaint(j);
    return complaint ? complaint : "";
}

void journal_stats(const struct journal *j, struct journal_stats *ret_stats) {
    struct journal *mutable = (struct journal *)(uintptr_t)j; /* only its locks are */
    mutex_lock(&mutable->lock);
    struct journal_stats stats = j->stats;
    stats.window_bytes = j->window.bytes;
    mutex_unlock(&mutable->lock);
    j->engine->stats(mutable, &stats);
    *ret_stats = stats;
}

/* ---- consumers ---- */

int journal_consumer_new(struct journal *j, const char *name, enum journal_kind kind,
                         lsn_t persisted, struct journal_consumer **ret_consumer) {
    struct journal_consumer *c = calloc(1, sizeof *c);
    if (!c)
        return error_origin(-ENOMEM);
    *c =
        (struct journal_consumer){.journal = j, .name = name, .kind = kind, .persisted = persisted};
    mutex_lock(&j->lock);
    c->stream_at = j->engine->stream_at(j, persisted);
    if (j->next_lsn > persisted + 1)
        mark_moment(c, persisted + 1, os_monotonic_ns(j->os));
    c->next = j->consumers;
    j->consumers = c;
    mutex_unlock(&j->lock);
    *ret_consumer = c;
    return 0;
}

/* The files are the committer's to touch: it is only told to. */
void journal_consumer_persisted(struct journal_consumer *c, lsn_t lsn) {
    struct journal *j = c->journal;
    mutex_lock(&j->lock);
    if (lsn > c->persisted) {
        c->persisted = lsn;
        c->stream_at = j->engine->stream_at(j, lsn);
        forget_moments(c);
        j->release_wanted = true;
        if (j->sleeping) {
            j->sleeping = false;
            condition_signal(&j->wake);
        }
    }
    mutex_unlock(&j->lock);
}

lsn_t journal_lowest_persisted(struct journal *j) {
    lsn_t lowest = UINT64_MAX;
    mutex_lock(&j->lock);
    if (!j->consumers)
        lowest = 0; /* nobody has persisted anything */
    for (const struct journal_consumer *c = j->consumers; c; c = c->next)
        if (c->persisted < lowest)
            lowest = c->persisted;
    j->release_wanted = false;
    mutex_unlock(&j->lock);
    return lowest;
}

uint64_t journal_consumer_pinned_bytes(const struct journal_consumer *c) {
    struct journal *j = c->journal;
    mutex_lock(&j->lock);
    uint64_t pinned = pinned_by(j, c);
    mutex_unlock(&j->lock);
    return pinned;
}

uint64_t journal_consumer_pinned_ms(const struct journal_consumer *c) {
    struct journal *j = c->journal;
    mutex_lock(&j->lock);
    uint64_t pinned = pinned_ms(c, os_monotonic_ns(j->os));
    mutex_unlock(&j->lock);
    return pinned;
}
