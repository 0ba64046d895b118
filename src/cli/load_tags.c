/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source: tags in their order, a profile query behind every tenth, an aggregate query behind
 * every thousandth. Thread i of n has the tags i, i + n, i + 2n, …, so each thread knows alone what
 * it sent.
 *
 * A tag whose answer was lost is never sent again, as it would count twice: it stays among what may
 * show, and is no longer among what must.
 */
#include "cli/load_tags.h"

#include "base/hash.h"
#include "base/time_text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

enum {
    TAGS_A_PROFILE = 10,
    TAGS_AN_AGGREGATE = 1000,
    PARSE_MAX_BYTES = 8 << 20,
};

static struct tag_worker *worker_of(struct load_worker *w) {
    return (struct tag_worker *)w;
}

/* ---- The source ---- */

static bool two_digits(const char *at, int64_t *ret) {
    if (at[0] < '0' || at[0] > '9' || at[1] < '0' || at[1] > '9')
        return false;
    *ret = (at[0] - '0') * 10 + (at[1] - '0');
    return true;
}

/* Days from 1970 to a date of the Gregorian calendar, whose years begin in March here. */
static int64_t days_of(int64_t year, int64_t month, int64_t day) {
    year -= month <= 2;
    int64_t of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    return year * 365 + year / 4 - year / 100 + year / 400 + of_year - 719468;
}

/* "2022-03-22T12:00:00"; whatever does not come out as it went in is not a time. */
static bool parse_start(const char *text, int64_t *ret_ms) {
    static const int places[] = {0, 2, 5, 8, 11, 14, 17};
    int64_t parts[ARRAY_LENGTH(places)];
    char back[TAG_NAME_MAX];
    if (strlen(text) != strlen("2022-03-22T12:00:00"))
        return false;
    for (size_t i = 0; i < ARRAY_LENGTH(places); i++)
        if (!two_digits(text + places[i], &parts[i]))
            return false;
    int64_t days = days_of(parts[0] * 100 + parts[1], parts[2], parts[3]);
    int64_t ms = (((days * 24 + parts[4]) * 60 + parts[5]) * 60 + parts[6]) * 1000;
    if (ms < 0)
        return false;
    tag_datetime(ms, false, back);
    if (strcmp(back, text) != 0)
        return false;
    *ret_ms = ms - ms % TAG_MINUTE_MS;
    return true;
}

int tag_source_init(struct tag_source *source, struct os *os, const char *start) {
    uint32_t random;
    int r = os_random(os, &random, sizeof random);
    if (r)
        return error_fold(r);
    if (!parse_start(start, &source->start_ms))
        return TAGS_E_START;
    if (source->heavy >= source->cookies)
        return TAGS_E_HEAVY;
    source->base.ops = &tag_ops;
    source->mix = hash64_u64(source->base.seed);
    source->every = source->cookies / TAG_OWN_COOKIES_MAX + 1;
    snprintf(source->run, sizeof source->run, "%08" PRIx32, random);
    return 0;
}

void tag_source_deinit(struct tag_source *source) {
    free(source->before);
}

/* ---- Workers ---- */

static void worker_deinit(struct load_worker *base) {
    struct tag_worker *w = worker_of(base);
    tag_model_deinit(&w->model);
    json_parser_free(w->parser);
    json_parser_free(w->expected_parser);
    buffer_deinit(&w->answer);
    buffer_deinit(&w->expected);
    buffer_deinit(&w->found);
}

static int worker_init(struct load_worker *base) {
    struct tag_worker *w = worker_of(base);
    w->source = (const struct tag_source *)base->plan->source;
    w->random = hash64_u64(w->source->mix ^ (base->index + 1));
    tag_pieces_init(&w->pieces, w->source, base->index);
    int r = tag_model_init(&w->model, w->source);
    if (!r)
        r = json_parser_new(PARSE_MAX_BYTES, &w->parser);
    if (!r)
        r = json_parser_new(PARSE_MAX_BYTES, &w->expected_parser);
    if (r)
        worker_deinit(base);
    return r ? error_trace(r) : 0;
}

/* ---- What comes next ---- */

/* Of the thread's own tags. */
static uint64_t count_of(const struct tag_worker *w) {
    return (w->source->base.count + w->base.n - 1 - w->base.index) / w->base.n;
}

static uint64_t number_of(const struct tag_worker *w, uint64_t place) {
    return place * w->base.n + w->base.index;
}

static enum tag_kind next_kind(const struct tag_worker *w) {
    if (w->source->queries && w->aggregates < w->tags / TAGS_AN_AGGREGATE)
        return TAG_KIND_AGGREGATES;
    if (w->source->queries && w->profiles < w->tags / TAGS_A_PROFILE)
        return TAG_KIND_PROFILES;
    return TAG_KIND_TAGS;
}

/* A query is due with the tag it stands behind. */
static uint64_t due(const struct load_worker *base) {
    const struct tag_worker *w = (const struct tag_worker *)base;
    uint64_t rate = w->source->base.rate;
    uint64_t place = w->tags - (next_kind(w) != TAG_KIND_TAGS);
    if (rate == 0 || place >= count_of(w))
        return 0;
    return (uint64_t)((double)number_of(w, place) * 1e9 / (double)rate);
}

/* The thread's next tags into the body. False when memory is out, or there are no more. */
static bool take_tags(struct tag_worker *w, struct load_request *request) {
    const struct load_source *source = &w->source->base;
    struct tag_question *q = request->question;
    uint64_t left = count_of(w) - w->tags;
    request->items = left < source->batch ? left : source->batch;
    q->first = w->tags;
    for (uint64_t i = 0; i < request->items; i++) {
        struct tag tag;
        tag_draw(w->source, number_of(w, q->first + i), &tag);
        if (tag_model_sent(&w->model, &tag))
            return false;
        tag_append(&w->pieces, &tag, &request->text);
        if (source->batch > 1)
            buffer_append_u8(&request->text, '\n');
    }
    w->tags += request->items;
    bool batch = source->batch > 1;
    request->content_type = batch ? "application/x-ndjson" : "application/json";
    request->repeatable = false;
    snprintf(request->path, sizeof request->path, "%s", batch ? "/user_tags/batch" : "/user_tags");
    return request->items > 0;
}

static void take_query(struct tag_worker *w, struct load_request *request) {
    struct tag_question *q = request->question;
    request->items = 0;
    request->repeatable = true;
    request->content_type = "application/json";
    if (request->kind == TAG_KIND_AGGREGATES) {
        w->aggregates++;
        aggregate_ask(w, &q->aggregate);
        aggregate_path(w, &q->aggregate, request->path);
    } else {
        w->profiles++;
        profile_ask(w, &q->profile);
        profile_path(w, &q->profile, request->path);
    }
}

static bool take(struct load_worker *base, struct load_request *request) {
    struct tag_worker *w = worker_of(base);
    request->method = "POST";
    request->kind = next_kind(w);
    request->timed = w->source->base.rate > 0;
    request->due_ns = due(base);
    if (request->kind == TAG_KIND_TAGS)
        return take_tags(w, request);
    take_query(w, request);
    return true;
}

/* ---- Answers ---- */

static void count_wrong(struct tag_worker *w, const struct load_request *request,
                        const char *wrong) {
    if (!wrong)
        return;
    if (!w->wrong[0])
        snprintf(w->wrong, sizeof w->wrong, "%.120s %s", request->path, wrong);
    atomic_fetch_add(&w->base.progress->wrong, 1);
}

/* "accepted" of a batch's answer. */
static bool all_accepted(struct tag_worker *w, const struct load_request *request,
                         const struct client_answer *answer) {
    struct json_value root;
    struct json_value value;
    uint64_t accepted;
    buffer_clear(&w->answer);
    buffer_append_bytes(&w->answer, answer->body);
    return buffer_reserve(&w->answer, JSON_PADDING) &&
           json_parse(w->parser, buffer_bytes(&w->answer), &root) == 0 &&
           json_find(root, "accepted", &value) && json_get_u64(value, &accepted) &&
           accepted == request->items;
}

static const char *tags_answered(struct tag_worker *w, struct load_request *request,
                                 const struct client_answer *answer) {
    const struct tag_question *q = request->question;
    uint64_t now_ns = os_monotonic_ns(w->base.plan->os);
    if (w->source->base.batch == 1 && answer->status != 204)
        return "a tag is answered otherwise than by 204";
    if (w->source->base.batch > 1 && !all_accepted(w, request, answer))
        return "a batch of good tags is not accepted whole";
    for (uint64_t i = 0; i < request->items; i++) {
        struct tag tag;
        tag_draw(w->source, number_of(w, q->first + i), &tag);
        tag_model_known(&w->model, &tag, now_ns);
    }
    return NULL;
}

static const char *answered(struct load_worker *base, struct load_request *request,
                            const struct client_answer *answer) {
    struct tag_worker *w = worker_of(base);
    const struct tag_question *q = request->question;
    if (request->kind == TAG_KIND_TAGS)
        return tags_answered(w, request, answer);
    if (answer->status != 200)
        return "a query is answered otherwise than by 200";
    if (request->kind == TAG_KIND_AGGREGATES) {
        w->checked_aggregates++;
        count_wrong(w, request, aggregate_check(w, &q->aggregate, answer->body));
    } else {
        w->checked_profiles += q->profile.tracked;
        count_wrong(w, request, profile_check(w, &q->profile, answer->body));
    }
    return NULL;
}

/* ---- What is told ---- */

struct tag_summary {
    uint64_t profiles;
    uint64_t aggregates;
    uint64_t stalest_ns;
    const char *wrong;
};

static struct tag_summary sum_up(const struct load_report *report) {
    const struct tag_source *source = (const struct tag_source *)report->plan->source;
    struct tag_summary s = {.wrong = source->wrong};
    for (unsigned i = load_workers(report->run); i-- > 0;) {
        const struct tag_worker *w = worker_of(load_worker_of(report->run, i));
        s.profiles += w->checked_profiles;
        s.aggregates += w->checked_aggregates;
        if (w->stalest_ns > s.stalest_ns)
            s.stalest_ns = w->stalest_ns;
        if (w->wrong[0])
            s.wrong = w->wrong;
    }
    return s;
}

static uint64_t late_of(const struct load_report *report) {
    uint64_t late = 0;
    for (unsigned i = 0; i < TAG_KINDS; i++)
        late += report->result->kinds[i].late;
    return late;
}

static void print(FILE *out, const struct load_report *report) {
    const struct tag_source *source = (const struct tag_source *)report->plan->source;
    struct tag_summary s = sum_up(report);
    uint64_t wrong = atomic_load(&report->progress->wrong);
    fprintf(out, "run           %s\n", source->run);
    fprintf(out, "checked       %" PRIu64 " profiles, %" PRIu64 " aggregates as it went\n",
            s.profiles, s.aggregates);
    fprintf(out, "              %" PRIu64 " profiles, %" PRIu64 " aggregates at the end\n",
            source->end_profiles, source->end_aggregates);
    fprintf(out, "not yet seen  %.1f ms behind its acknowledgement, the slowest tag\n",
            (double)s.stalest_ns * 1e-6);
    fprintf(out, "late          %" PRIu64 "\n", late_of(report));
    fprintf(out, "wrong         %" PRIu64 "%s%s\n", wrong, wrong ? "; the first: " : "",
            wrong ? s.wrong : "");
}

static void append_json(struct buffer *out, const struct load_report *report) {
    const struct tag_source *source = (const struct tag_source *)report->plan->source;
    struct tag_summary s = sum_up(report);
    buffer_append_format(out,
                         "\"run\":\"%s\",\"rate\":%" PRIu64 ",\"cookies\":%" PRIu64
                         ",\"heavy_cookies\":%" PRIu64 ",\"checked_profiles\":%" PRIu64
                         ",\"checked_aggregates\":%" PRIu64 ",\"checked_profiles_at_end\":%" PRIu64
                         ",\"checked_aggregates_at_end\":%" PRIu64 ",\"not_yet_seen_ms\":%.3f,"
                         "\"late\":%" PRIu64 ",\"wrong\":%" PRIu64 ",\"first_wrong\":",
                         source->run, source->base.rate, source->cookies, source->heavy, s.profiles,
                         s.aggregates, source->end_profiles, source->end_aggregates,
                         (double)s.stalest_ns * 1e-6, late_of(report),
                         atomic_load(&report->progress->wrong));
    json_append_cstring(out, s.wrong);
    buffer_append_u8(out, ',');
}

const struct load_ops tag_ops = {
    .name = "tags",
    .items = "tags",
    .kinds = {"tags", "profiles", "aggregates"},
    .n_kinds = TAG_KINDS,
    .worker_size = sizeof(struct tag_worker),
    .question_size = sizeof(struct tag_question),
    .begin = tags_begin,
    .worker_init = worker_init,
    .worker_deinit = worker_deinit,
    .due = due,
    .take = take,
    .answered = answered,
    .end = tags_end,
    .print = print,
    .append_json = append_json,
};
