/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Applying by sending. The collection at work is decoded from a home once, and kept while the
 * records that follow have the same: one process writes runs of them.
 */
#include "points/shared.h"

#include "points/home.h"
#include "points/sending.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

struct points_shared {
    struct os *os;
    struct points_shared_options options;
    struct points_collection *at; /* of the record at work; NULL: none yet */
    uint64_t until_ns;
    bool puzzled; /* the sink both has the collection and has it not: nothing was taken since */
    _Atomic uint64_t orphaned;
    struct sending sending;
};

/* ---- Where a record belongs ---- */

/* -EPROTO: it is not of a version known here. */
static int collection_of(struct bytes home, struct points_collection **ret_collection) {
    struct bytes name;
    struct points_collection *c = calloc(1, sizeof *c);
    if (!c)
        return error_origin(-ENOMEM);
    if (!point_home_decode(home, &name, &c->config)) {
        free(c);
        return error_origin(-EPROTO);
    }
    memcpy(c->name, name.data, name.size);
    c->incarnation = point_home_incarnation(name);
    atomic_init(&c->references, 1);
    buffer_append_bytes(&c->home, home);
    int r = buffer_check(&c->home);
    if (r)
        points_collection_unref(c);
    else
        *ret_collection = c;
    return error_trace(r);
}

struct points_collection *points_shared_collection(struct bytes payload) {
    struct bytes home, record;
    struct points_collection *c = NULL;
    return point_home_split(payload, &home, &record) && collection_of(home, &c) == 0 ? c : NULL;
}

/* Sets s->at. */
static int go_to(struct points_shared *s, struct bytes home) {
    if (s->at && bytes_equal(home, buffer_bytes(&s->at->home)))
        return 0;
    s->at = points_collection_unref(s->at);
    return error_trace(collection_of(home, &s->at));
}

/* Sets s->at, and points[0]. WORK_REJECT: the record can never be sent. */
static enum work_outcome read_first(struct points_shared *s, struct bytes payload) {
    struct sending *f = &s->sending;
    struct bytes home, record;
    if (!point_home_split(payload, &home, &record))
        return sending_say(f, WORK_REJECT, "not a record of points that a shared journal has");
    int r = go_to(s, home);
    if (r == -ENOMEM)
        return sending_say(f, WORK_RETRY, "out of memory");
    if (r)
        return sending_say(f, WORK_REJECT,
                           "it does not say where it belongs in a version known here");
    const char *wrong = sending_decode(f, record);
    return wrong ? sending_say(f, WORK_REJECT, wrong) : WORK_OK;
}

/* ---- Applying ---- */

/* The sink has no such collection, it says. Who asks right after may hear otherwise: it came
 * between. WORK_OK: it is not there; WORK_REJECT: there is another reason. */
static enum work_outcome judge_missing(struct points_shared *s) {
    const struct points_sink *sink = s->options.sink;
    bool has = true;
    if (!sink->has || !sink->has(sink->context, s->at, &has))
        return sending_say(&s->sending, WORK_RETRY,
                           "Qdrant does not say whether it has the collection");
    if (!has)
        return WORK_OK;
    bool again = !s->puzzled;
    s->puzzled = true;
    return again ? WORK_RETRY : WORK_REJECT;
}

/* Deals with the first of the records, and perhaps with some behind it. WORK_OK and none done: to
 * be tried again at once, smaller. */
static enum work_outcome apply_some(struct points_shared *s,
                                    const struct journal_record *const *records, size_t n,
                                    size_t *ret_done) {
    struct sending *f = &s->sending;
    enum work_outcome outcome = read_first(s, records[0]->payload);
    size_t tried;
    if (outcome != WORK_OK)
        return outcome;
    if (os_monotonic_ns(s->os) >= s->until_ns)
        return sending_say(f, WORK_RETRY, "its partition may be another's by now");
    outcome = sending_try(f, s->options.sink, s->at, records, n, s->until_ns, &tried);
    if (outcome == WORK_REJECT && f->answer.unknown_collection) {
        outcome = judge_missing(s);
        if (outcome == WORK_OK)
            atomic_fetch_add_explicit(&s->orphaned, tried, memory_order_relaxed);
    }
    if (outcome == WORK_REJECT)
        return sending_narrow(f, tried);
    if (outcome == WORK_OK)
        *ret_done = tried;
    s->puzzled = s->puzzled && outcome != WORK_OK;
    return outcome;
}

static int apply(void *shared, unsigned lane UNUSED, const struct journal_record *const *records,
                 size_t n, struct work_verdict *ret_verdict) {
    struct points_shared *s = shared;
    enum work_outcome outcome = WORK_OK;
    size_t applied = 0;
    uint64_t begun_ns = os_monotonic_ns(s->os);
    while (applied < n && outcome == WORK_OK) {
        size_t done = 0;
        outcome = apply_some(s, records + applied, n - applied, &done);
        applied += done;
        if (outcome == WORK_OK && applied < n &&
            os_monotonic_ns(s->os) - begun_ns >= SENDING_TURN_NS)
            outcome = sending_say(&s->sending, WORK_RETRY, "the server is slow: the rest is next");
    }
    *ret_verdict = (struct work_verdict){
        .outcome = outcome, .applied = applied, .reason = s->sending.answer.sentence};
    return 0;
}

static int reject(void *shared, unsigned lane, const struct journal_record *record,
                  const char *reason) {
    struct points_shared *s = shared;
    return error_trace(kept_letters_keep(s->options.letters, lane, record, reason));
}

static int control(void *shared UNUSED, const struct journal_record *record UNUSED) {
    return 0; /* a shared journal has none */
}

static void passed(void *shared UNUSED, unsigned lane UNUSED, lsn_t lsn UNUSED) {
}

const struct work_store_ops points_shared_work_ops = {.name = "points",
                                                      .kind = JOURNAL_KIND_POINTS,
                                                      .apply = apply,
                                                      .control = control,
                                                      .reject = reject,
                                                      .passed = passed};

void points_shared_until(void *shared, uint64_t until_ns) {
    struct points_shared *s = shared;
    s->until_ns = until_ns;
}

uint64_t points_shared_orphaned(const struct points_shared *s) {
    return atomic_load_explicit(&s->orphaned, memory_order_relaxed);
}

/* ---- Life ---- */

int points_shared_new(struct os *os, const struct points_shared_options *options,
                      struct points_shared **ret_shared) {
    struct points_shared *s = calloc(1, sizeof *s);
    if (!s)
        return error_origin(-ENOMEM);
    s->os = os;
    s->options = *options;
    sending_init(&s->sending);
    *ret_shared = s;
    return 0;
}

struct points_shared *points_shared_free(struct points_shared *s) {
    if (!s)
        return NULL;
    points_collection_unref(s->at);
    free(s);
    return NULL;
}
