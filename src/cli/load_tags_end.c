/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Before and after the run. Without filters, aggregates count every tag: each minute and action of
 * the run's span must have grown by what was acknowledged, and by no more than what was sent. (So
 * two runs at a time need different starts.) That is waited for, as long as their number grows
 * within --visible-within; then the own cookies' profiles and
 * the own origins', brands' and categories' aggregates are asked for and must be exact.
 *
 * A run of more than TAG_SPAN_MINUTES of event time goes on past what aggregates keep: of it only
 * the own ones of the last minutes are checked.
 */
#include "cli/load_tags.h"

#include "cli/load_admin.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>

enum {
    WAIT_TURN_MS = 10,
    COMBINATIONS = 7, /* of filters, at least one */
};

/* What the exact checks at the end share. */
struct ending {
    struct admin *admin;
    struct load_report *report;
    struct tag_source *source;
    uint64_t deadline_ns; /* moved by progress */
};

static int64_t span_minutes(const struct tag_source *source) {
    uint64_t ms = source->base.count + 2 * (uint64_t)TAG_LATE_MS;
    return ms / TAG_MINUTE_MS < TAG_SPAN_MINUTES ? (int64_t)(ms / TAG_MINUTE_MS) + 1 : 0;
}

/* A question for all tags of an action in some minutes, from one after the span's start. */
static struct aggregate_question total_question(const struct tag_source *source, int64_t from,
                                                unsigned action) {
    int64_t left = span_minutes(source) - from;
    return (struct aggregate_question){.first_minute = tag_minute(source->start_ms) + from,
                                       .minutes = left < TAG_RANGE_MINUTES ? (unsigned)left
                                                                           : TAG_RANGE_MINUTES,
                                       .action = action,
                                       .origin = -1,
                                       .brand = -1,
                                       .category = -1};
}

static int ask_sums(struct admin *a, struct tag_worker *w, const struct aggregate_question *q,
                    struct tag_sum sums[TAG_RANGE_MINUTES]) {
    char path[LOAD_PATH_MAX];
    struct client_answer answer;
    aggregate_path(w, q, path);
    int r = admin_ask(a, "POST", path, bytes_of(NULL, 0), &answer);
    if (r)
        return r;
    if (answer.status != 200)
        return admin_unexpected(a, "asking for aggregates", &answer);
    const char *wrong = aggregate_read(w, q, answer.body, sums);
    return wrong ? admin_fail(a, "the answer to %.120s %s", path, wrong) : 0;
}

/* ---- Before ---- */

/* A worker that only asks. */
static int asker_init(struct tag_worker *w, const struct tag_source *source) {
    *w = (struct tag_worker){.source = source};
    return json_parser_new(1 << 20, &w->parser);
}

static void asker_deinit(struct tag_worker *w) {
    json_parser_free(w->parser);
    buffer_deinit(&w->answer);
}

static int count_before(struct admin *a, struct tag_source *source, struct tag_worker *w) {
    int64_t span = span_minutes(source);
    for (int64_t from = 0; from < span; from += TAG_RANGE_MINUTES)
        for (unsigned action = 0; action < TAG_ACTIONS; action++) {
            struct tag_sum sums[TAG_RANGE_MINUTES] = {{0}};
            struct aggregate_question q = total_question(source, from, action);
            int r = ask_sums(a, w, &q, sums);
            if (r)
                return r;
            for (unsigned i = 0; i < q.minutes; i++)
                source->before[from + i][action] = sums[i];
        }
    return 0;
}

int tags_begin(struct admin *a) {
    struct tag_source *source = (struct tag_source *)a->plan->source;
    struct tag_worker w;
    if (span_minutes(source) == 0)
        return 0;
    source->before = calloc((size_t)span_minutes(source), sizeof *source->before);
    if (!source->before || asker_init(&w, source))
        return admin_fail(a, "out of memory");
    int r = count_before(a, source, &w);
    asker_deinit(&w);
    return r;
}

/* ---- After ---- */

static struct tag_worker *worker_at(const struct ending *e, unsigned index) {
    return (struct tag_worker *)load_worker_of(e->report->run, index);
}

static void progress_made(struct ending *e) {
    e->deadline_ns = os_monotonic_ns(e->report->plan->os) + e->source->visible_ns;
}

/* Waits a turn; false when it has taken too long. */
static bool wait_more(struct ending *e) {
    os_sleep_ns(e->report->plan->os, (uint64_t)WAIT_TURN_MS * 1000000);
    return os_monotonic_ns(e->report->plan->os) < e->deadline_ns;
}

static void PRINTF_LIKE(2, 3) count_wrong(struct ending *e, const char *format, ...) {
    va_list args;
    struct load_progress *progress = worker_at(e, 0)->base.progress;
    va_start(args, format);
    if (!e->source->wrong[0])
        vsnprintf(e->source->wrong, sizeof e->source->wrong, format, args);
    va_end(args);
    atomic_fetch_add(&progress->wrong, 1);
}

/* What all threads sent and know of a minute, above what was there before. */
static struct tag_cell total_of(const struct ending *e, int64_t from, unsigned action) {
    struct tag_sum before = e->source->before[from][action];
    struct tag_cell total = {.sent = before, .known = before};
    for (unsigned i = 0; i < load_workers(e->report->run); i++) {
        const struct tag_minute *minute =
            tag_model_minute(&worker_at(e, i)->model, tag_minute(e->source->start_ms) + from);
        if (!minute)
            continue;
        total.sent.count += minute->sent[action].count;
        total.sent.sum += minute->sent[action].sum;
        total.known.count += minute->known[action].count;
        total.known.sum += minute->known[action].sum;
    }
    return total;
}

static bool within(struct tag_sum found, const struct tag_cell *right) {
    return found.count >= right->known.count && found.count <= right->sent.count &&
           found.sum >= right->known.sum && found.sum <= right->sent.sum;
}

static void judge(struct ending *e, int64_t minute, unsigned action, const char *of,
                  struct tag_sum found, const struct tag_cell *right) {
    char bucket[TAG_NAME_MAX];
    if (within(found, right))
        return;
    tag_datetime(minute * TAG_MINUTE_MS, false, bucket);
    count_wrong(e,
                "at the end %s holds %" PRIu64 " %s tags%s with a sum of %" PRIu64 "; %" PRIu64
                " with %" PRIu64 " were acknowledged, %" PRIu64 " with %" PRIu64 " sent",
                bucket, found.count, tag_action_names[action], of, found.sum, right->known.count,
                right->known.sum, right->sent.count, right->sent.sum);
}

/* Waits until some minutes hold as many tags as were acknowledged, and judges what they hold. */
static int end_totals(struct ending *e, int64_t from, unsigned action) {
    struct aggregate_question q = total_question(e->source, from, action);
    struct tag_cell right[TAG_RANGE_MINUTES];
    struct tag_sum sums[TAG_RANGE_MINUTES] = {{0}};
    uint64_t before = UINT64_MAX; /* the first look is none */
    bool reached;
    for (unsigned i = 0; i < q.minutes; i++)
        right[i] = total_of(e, from + i, action);
    do {
        uint64_t seen = 0;
        int r = ask_sums(e->admin, worker_at(e, 0), &q, sums);
        if (r)
            return r;
        reached = true;
        for (unsigned i = 0; i < q.minutes; i++) {
            seen += sums[i].count;
            reached = reached && sums[i].count >= right[i].known.count;
        }
        if (seen > before)
            progress_made(e);
        before = seen;
    } while (!reached && wait_more(e));
    e->source->end_aggregates++;
    for (unsigned i = 0; i < q.minutes; i++)
        judge(e, q.first_minute + i, action, "", sums[i], &right[i]);
    return 0;
}

static int end_all_totals(struct ending *e) {
    int64_t span = span_minutes(e->source);
    /* The last minutes first: they are waited for longest. */
    for (int64_t from = (span - 1) / TAG_RANGE_MINUTES * TAG_RANGE_MINUTES; from >= 0;
         from -= TAG_RANGE_MINUTES)
        for (unsigned action = 0; action < TAG_ACTIONS; action++) {
            int r = end_totals(e, from, action);
            if (r)
                return r;
        }
    return 0;
}

/* Own origins, brands and categories: every combination of filters over some minutes. */
static int end_own(struct ending *e, struct tag_worker *w, int64_t first_minute, unsigned filters) {
    uint64_t random = tag_random(w);
    struct tag_sum sums[TAG_RANGE_MINUTES] = {{0}};
    struct aggregate_question q = {
        .first_minute = first_minute,
        .minutes = TAG_RANGE_MINUTES,
        .action = random & 1,
        .sum_first = random >> 1 & 1,
        .origin = filters & 1 ? (int)((random >> 8) % TAG_OWN_ORIGINS) : -1,
        .brand = filters & 2 ? (int)((random >> 16) % TAG_OWN_BRANDS) : -1,
        .category = filters & 4 ? (int)((random >> 24) % TAG_OWN_CATEGORIES) : -1};
    int r = ask_sums(e->admin, w, &q, sums);
    if (r)
        return r;
    e->source->end_aggregates++;
    for (unsigned i = 0; i < q.minutes; i++) {
        struct tag_cell right = aggregate_expect(w, &q, first_minute + i);
        judge(e, first_minute + i, q.action, " of own names", sums[i], &right);
    }
    return 0;
}

static int end_all_own(struct ending *e, struct tag_worker *w) {
    int64_t newest = tag_minute(w->model.newest_ms);
    int64_t first = tag_minute(e->source->start_ms);
    if (newest - TAG_SPAN_MINUTES > first)
        first = newest - TAG_SPAN_MINUTES;
    for (; first <= newest; first += TAG_RANGE_MINUTES)
        for (unsigned filters = 1; filters <= COMBINATIONS; filters++) {
            int r = end_own(e, w, first, filters);
            if (r)
                return r;
        }
    return 0;
}

/* One own cookie: exact, once it is visible. */
static int end_profile(struct ending *e, struct tag_worker *w, uint32_t cookie) {
    struct profile_question q = {.rank = cookie * e->source->every,
                                 .tracked = true,
                                 .from_ms = e->source->start_ms,
                                 .to_ms = w->model.newest_ms + 1,
                                 .limit = TAG_KEEP,
                                 .asked_ns = UINT64_MAX - 1};
    char path[LOAD_PATH_MAX];
    const char *wrong;
    profile_path(w, &q, path);
    do {
        struct client_answer answer;
        int r = admin_ask(e->admin, "POST", path, bytes_of(NULL, 0), &answer);
        if (r)
            return r;
        if (answer.status != 200)
            return admin_unexpected(e->admin, "asking for a profile", &answer);
        wrong = profile_check(w, &q, answer.body);
    } while (wrong && wait_more(e));
    e->source->end_profiles++;
    if (wrong)
        count_wrong(e, "at the end %.120s %s", path, wrong);
    return 0;
}

static int end_worker(struct ending *e, struct tag_worker *w) {
    if (w->tags == 0)
        return 0;
    int r = end_all_own(e, w);
    for (uint32_t cookie = 0; !r && cookie < w->model.n_lists; cookie++)
        r = end_profile(e, w, cookie);
    return r;
}

int tags_end(struct admin *a, struct load_report *report) {
    struct ending e = {
        .admin = a, .report = report, .source = (struct tag_source *)a->plan->source};
    progress_made(&e);
    int r = e.source->before ? end_all_totals(&e) : 0;
    if (!r)
        report->applied_s = load_seconds(report->progress, os_monotonic_ns(report->plan->os));
    progress_made(&e);
    for (unsigned i = 0; !r && i < load_workers(report->run); i++)
        r = end_worker(&e, worker_at(&e, i));
    return r;
}
