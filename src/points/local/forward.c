/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lanes of a store whose points another server keeps: what lane_apply does to rows is done by
 * sending (points/sending.h), and what is in effect there moves the lane's position.
 *
 * After a crash the records above the persisted position go out again, in order: what the server
 * ends up with is the same.
 *
 * A collection that is being dropped is missing on the server before the catalog says so:
 * `dropping` tells that from one that somebody else took away.
 */
#include "points/local/internal.h"

#include <errno.h>
#include <stdlib.h>

enum { SETTLE_LOOK_NS = 1000000 };

void lane_forward_deinit(struct lane *lane) {
    free(lane->sending);
}

/* The letters that rejections become are counted by the same budget as points are. */
static enum work_outcome reject(struct lane *lane, const char *reason) {
    if (budget_spent(lane->store->options.budget, BUDGET_POINTS))
        return sending_say(lane->sending, WORK_RETRY, "no memory is left for dead letters");
    return sending_say(lane->sending, WORK_REJECT, reason);
}

/* ---- One sending ---- */

/* What a rejected batch means for the lane. WORK_OK: it is to be tried again, smaller. */
static enum work_outcome judge_rejection(struct lane *lane, struct points_collection *c, size_t n) {
    struct sending *f = lane->sending;
    if (f->answer.unknown_collection) {
        if (atomic_load(&c->dropping) > 0)
            return sending_say(f, WORK_RETRY, "the collection is being dropped");
        if (atomic_load(&c->dropped)) /* meanwhile: its records are found to be of no use */
            return WORK_OK;
    }
    enum work_outcome outcome = sending_narrow(f, n);
    return outcome == WORK_REJECT ? reject(lane, f->answer.sentence) : outcome;
}

/* WORK_RETRY: there was no memory, and what was sent goes out again. */
static enum work_outcome pass(struct lane *lane, const struct journal_record *from, lsn_t letter,
                              bool writes) {
    if (lane_reserve_marks(lane))
        return sending_say(lane->sending, WORK_RETRY, "out of memory");
    mutex_lock(&lane->lock);
    lane_pass_record(lane, from, letter, writes);
    mutex_unlock(&lane->lock);
    atomic_fetch_add_explicit(&lane->store->dirty_bytes, from->payload.size, memory_order_relaxed);
    return WORK_OK;
}

/* ---- Batches ---- */

/* Sends the first record of those given, and what can go with it. */
static enum work_outcome forward_batch(struct lane *lane, struct points_collection *c,
                                       const struct journal_record *const *records, size_t n,
                                       lsn_t letter, size_t *ret_done) {
    size_t together;
    enum work_outcome outcome =
        sending_try(lane->sending, lane->store->options.sink, c, records, n, 0, &together);
    bool sent = outcome == WORK_OK;
    if (outcome == WORK_REJECT)
        return judge_rejection(lane, c, together);
    while (sent && outcome == WORK_OK && *ret_done < together) {
        outcome = pass(lane, records[*ret_done], letter, true);
        *ret_done += outcome == WORK_OK;
    }
    return outcome;
}

/* The first record, whose payload is what is said here. */
static enum work_outcome forward_point(struct lane *lane, struct bytes payload,
                                       const struct journal_record *const *records, size_t n,
                                       lsn_t letter, size_t *ret_done) {
    struct points_store *s = lane->store;
    struct sending *f = lane->sending;
    enum work_outcome outcome = WORK_OK;
    const char *wrong = sending_decode(f, payload);
    if (wrong)
        return reject(lane, wrong);
    atomic_fetch_add(&lane->sendings, 1); /* before the catalog is asked: points_store_settle */
    struct points_collection *c =
        points_catalog_find_incarnation(s->catalog, f->points[0].incarnation);
    if (c) {
        outcome = forward_batch(lane, c, records, n, letter, ret_done);
        points_collection_unref(c);
    } else {
        atomic_fetch_add_explicit(&s->orphaned_records, 1, memory_order_relaxed);
        outcome = pass(lane, records[0], letter, false);
        *ret_done = outcome == WORK_OK;
    }
    atomic_fetch_add(&lane->sendings, 1);
    return outcome;
}

static enum work_outcome
forward_letter(struct lane *lane, const struct journal_record *const *records, size_t *ret_done) {
    const struct journal_record *from = records[0];
    struct work_letter_record letter;
    lsn_t changed = 0;
    if (!work_letter_decode(from->payload, &letter))
        return sending_say(lane->sending, WORK_REJECT, work_letter_unknown);
    if (!work_letters_find(&lane->store->letters, letter.letter, from->key_hash, &changed))
        return sending_say(lane->sending, WORK_REJECT, work_letter_gone);
    if (letter.op == WORK_LETTER_REPLAY && changed && !letter.force)
        return sending_say(lane->sending, WORK_REJECT, work_letter_changed);
    if (letter.op == WORK_LETTER_REPLAY)
        return forward_point(lane, letter.payload, records, 1, letter.letter, ret_done);
    enum work_outcome outcome = pass(lane, from, letter.letter, false);
    *ret_done = outcome == WORK_OK;
    return outcome;
}

/* Deals with the first of the records, and perhaps with some behind it. WORK_OK and none done: to
 * be tried again at once, smaller. */
static enum work_outcome forward_some(struct lane *lane,
                                      const struct journal_record *const *records, size_t n,
                                      size_t *ret_done) {
    const struct journal_record *from = records[0];
    *ret_done = 0;
    if (from->lsn <= lane->position) { /* moved by nobody else meanwhile */
        *ret_done = 1;
        return WORK_OK;
    }
    if (from->flags & JOURNAL_LETTER)
        return forward_letter(lane, records, ret_done);
    return forward_point(lane, from->payload, records, n, 0, ret_done);
}

static int forward_init(struct lane *lane) {
    if (lane->sending)
        return 0;
    lane->sending = calloc(1, sizeof *lane->sending);
    if (!lane->sending)
        return error_origin(-ENOMEM);
    sending_init(lane->sending);
    return 0;
}

int lane_forward(struct lane *lane, const struct journal_record *const *records, size_t n,
                 struct work_verdict *ret_verdict) {
    enum work_outcome outcome = WORK_OK;
    size_t applied = 0;
    uint64_t begun_ns = os_monotonic_ns(lane->store->os);
    int r = forward_init(lane);
    if (r)
        return error_trace(r);
    while (applied < n && outcome == WORK_OK) {
        size_t done = 0;
        outcome = forward_some(lane, records + applied, n - applied, &done);
        applied += done;
        if (outcome == WORK_OK && applied < n &&
            os_monotonic_ns(lane->store->os) - begun_ns >= SENDING_TURN_NS)
            outcome =
                sending_say(lane->sending, WORK_RETRY, "the server is slow: the rest comes next");
    }
    *ret_verdict = (struct work_verdict){
        .outcome = outcome, .applied = applied, .reason = lane->sending->answer.sentence};
    return 0;
}

/* ---- Around it ---- */

bool points_store_settle(struct points_store *s, uint64_t deadline_ns,
                         bool (*stopped)(const void *context), const void *context) {
    for (unsigned i = 0; i < s->n_lanes; i++) {
        uint64_t begun = atomic_load(&s->lanes[i].sendings);
        while (begun % 2 && atomic_load(&s->lanes[i].sendings) == begun) {
            if (os_monotonic_ns(s->os) >= deadline_ns || stopped(context))
                return false;
            os_sleep_ns(s->os, SETTLE_LOOK_NS);
        }
    }
    return true;
}

static int replay_batch(struct points_store *s, const struct journal_batch *batch) {
    for (size_t i = 0; i < batch->n; i++) {
        const struct journal_record *record = &batch->records[i];
        if (record->kind != JOURNAL_KIND_POINTS || !(record->flags & JOURNAL_CONTROL))
            continue;
        int r = points_store_work_ops.control(s, record);
        if (r)
            return error_trace(r);
    }
    return 0;
}

int points_store_replay_controls(struct points_store *s, struct journal *j,
                                 void (*progress)(void *context, lsn_t at, lsn_t end),
                                 void *context) {
    struct journal_cursor *cursor;
    struct journal_batch *batch;
    lsn_t lowest = UINT64_MAX;
    for (unsigned i = 0; i < s->n_lanes; i++)
        lowest = s->lanes[i].position < lowest ? s->lanes[i].position : lowest;
    int r = journal_cursor_new(j, lowest + 1, &cursor);
    if (r)
        return error_trace(r);
    while ((r = journal_read(cursor, &batch)) == 0) {
        r = replay_batch(s, batch);
        progress(context, batch->next_lsn - 1, journal_durable(j));
        journal_batch_unref(batch);
        if (r)
            break;
    }
    journal_cursor_free(cursor);
    return r == JOURNAL_E_END ? 0 : error_trace(r);
}
