/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lanes of a store whose points another server keeps (points/sink.h): what lane_apply does to rows
 * is done by sending.
 *
 *   records ─▶ cut where collection, operation or ordering change ─▶ sent, and answered ─▶
 *        ok       each has its effect on letters and position
 *        reject   of one record: it is the bad one; of more: the first half is tried by itself, and
 *                 so on, until the bad one stands alone
 *        retry    again later, perhaps with fewer
 *        down     again later
 *
 * One thread a lane, one sending at a time: the records of a point go out in order, and one that is
 * not answered goes out again before any later one. After a crash those above the persisted
 * position go out again, in order too: what the server ends up with is the same.
 *
 * A collection that is being dropped is missing on the server before the catalog says so:
 * `dropping` tells that from one that somebody else took away.
 */
#include "points/local/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef MILLRACE_TINY
enum { BATCH_RECORDS_MAX = 8, BATCH_BYTES_MAX = 1 << 10 };
#else
enum { BATCH_RECORDS_MAX = 512, BATCH_BYTES_MAX = 1 << 20 };
#endif
enum { SETTLE_LOOK_NS = 1000000 };
static const uint64_t TURN_NS = UINT64_C(5000000000);

struct forward {
    size_t limit; /* records in the next batch; halved by trouble, doubled by success */
    struct point_record points[BATCH_RECORDS_MAX];
    struct points_sink_answer answer; /* the newest; its sentence is the verdict's reason */
};

void lane_forward_deinit(struct lane *lane) {
    free(lane->forward);
}

static enum work_outcome say(struct forward *f, enum work_outcome outcome, const char *sentence) {
    if (sentence != f->answer.sentence)
        (void)snprintf(f->answer.sentence, sizeof f->answer.sentence, "%s", sentence);
    return outcome;
}

/* The letters that rejections become are counted by the same budget as points are. */
static enum work_outcome reject(struct lane *lane, const char *reason) {
    if (budget_spent(lane->store->options.budget, BUDGET_POINTS))
        return say(lane->forward, WORK_RETRY, "no memory is left for dead letters");
    return say(lane->forward, WORK_REJECT, reason);
}

/* ---- One sending ---- */

/* What a rejected batch means for the lane. WORK_OK: it is to be tried again, smaller. */
static enum work_outcome judge_rejection(struct lane *lane, struct points_collection *c, size_t n) {
    struct forward *f = lane->forward;
    if (f->answer.unknown_collection) {
        if (atomic_load(&c->dropping) > 0)
            return say(f, WORK_RETRY, "the collection is being dropped");
        if (atomic_load(&c->dropped)) /* meanwhile: its records are found to be of no use */
            return WORK_OK;
    }
    if (n == 1)
        return reject(lane, f->answer.sentence);
    f->limit = n / 2;
    return WORK_OK;
}

static enum work_outcome deliver(struct lane *lane, struct points_collection *c, size_t n,
                                 bool *ret_sent) {
    struct forward *f = lane->forward;
    const struct points_sink *sink = lane->store->options.sink;
    const struct points_sink_batch batch = {.collection = c,
                                            .op = f->points[0].op,
                                            .ordering = f->points[0].ordering,
                                            .points = f->points,
                                            .n = n};
    f->answer = (struct points_sink_answer){.outcome = WORK_OK};
    if (sink->send(sink->context, &batch, &f->answer))
        return say(f, WORK_RETRY, "out of memory");
    *ret_sent = f->answer.outcome == WORK_OK;
    if (f->answer.outcome == WORK_REJECT)
        return judge_rejection(lane, c, n);
    if (f->answer.too_much)
        f->limit = n > 1 ? n / 2 : 1;
    else if (*ret_sent && f->limit < BATCH_RECORDS_MAX)
        f->limit = f->limit < BATCH_RECORDS_MAX / 2 ? 2 * f->limit : BATCH_RECORDS_MAX;
    return f->answer.outcome;
}

/* WORK_RETRY: there was no memory, and what was sent goes out again. */
static enum work_outcome pass(struct lane *lane, const struct journal_record *from, lsn_t letter,
                              bool writes) {
    if (lane_reserve_marks(lane))
        return say(lane->forward, WORK_RETRY, "out of memory");
    mutex_lock(&lane->lock);
    lane_pass_record(lane, from, letter, writes);
    mutex_unlock(&lane->lock);
    atomic_fetch_add_explicit(&lane->store->dirty_bytes, from->payload.size, memory_order_relaxed);
    return WORK_OK;
}

/* ---- Batches ---- */

/* Decodes what goes to the server; WORK_OK unless the record can never go there. */
static enum work_outcome decode(struct lane *lane, struct bytes payload,
                                struct point_record *ret_record) {
    if (!point_record_decode(payload, ret_record))
        return reject(lane, "not a point record of a version known here");
    if (ret_record->op != POINT_UPSERT && ret_record->op != POINT_DELETE)
        return reject(lane, "a control record among those of a lane");
    return WORK_OK;
}

static bool fits(const struct points_collection *c, const struct point_record *record) {
    return record->op == POINT_DELETE || lane_vectors_fit(&c->config, record);
}

/* How many of the records go with the first, which is decoded. */
static size_t gather(struct forward *f, const struct points_collection *c,
                     const struct journal_record *const *records, size_t n) {
    size_t bytes = records[0]->payload.size, i = 1;
    for (; i < n && i < f->limit; i++) {
        struct point_record *record = &f->points[i];
        bytes += records[i]->payload.size;
        if ((records[i]->flags & JOURNAL_LETTER) || bytes > BATCH_BYTES_MAX ||
            !point_record_decode(records[i]->payload, record) || record->op != f->points[0].op ||
            record->incarnation != f->points[0].incarnation ||
            record->ordering != f->points[0].ordering || !fits(c, record))
            break;
    }
    return i;
}

/* Sends the first record of those given, and what can go with it. */
static enum work_outcome forward_batch(struct lane *lane, struct points_collection *c,
                                       const struct journal_record *const *records, size_t n,
                                       lsn_t letter, size_t *ret_done) {
    struct forward *f = lane->forward;
    bool sent = false;
    if (!fits(c, &f->points[0]))
        return reject(lane, "the vectors do not fit the collection's configuration");
    size_t together = gather(f, c, records, n);
    enum work_outcome outcome = deliver(lane, c, together, &sent);
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
    struct forward *f = lane->forward;
    enum work_outcome outcome = decode(lane, payload, &f->points[0]);
    if (outcome != WORK_OK)
        return outcome;
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
        return say(lane->forward, WORK_REJECT, work_letter_unknown);
    if (!work_letters_find(&lane->store->letters, letter.letter, from->key_hash, &changed))
        return say(lane->forward, WORK_REJECT, work_letter_gone);
    if (letter.op == WORK_LETTER_REPLAY && changed && !letter.force)
        return say(lane->forward, WORK_REJECT, work_letter_changed);
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
    if (lane->forward)
        return 0;
    lane->forward = calloc(1, sizeof *lane->forward);
    if (!lane->forward)
        return error_origin(-ENOMEM);
    lane->forward->limit = BATCH_RECORDS_MAX;
    return 0;
}

/* A slow server answers one after the other: the worker must see meanwhile that it goes on. */
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
            os_monotonic_ns(lane->store->os) - begun_ns >= TURN_NS)
            outcome = say(lane->forward, WORK_RETRY, "the server is slow: the rest comes next");
    }
    *ret_verdict = (struct work_verdict){
        .outcome = outcome, .applied = applied, .reason = lane->forward->answer.sentence};
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
