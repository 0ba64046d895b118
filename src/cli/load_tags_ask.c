/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions, and what is wrong with their answers. A tag is visible some time after its 204, so an
 * answer is wrong only if it shows a tag that was never sent, or that is another's, or twice, or
 * out of order, or outside what was asked for; or if it lacks one that was acknowledged more than
 * visible_ns before the question. A profile keeps the 200 newest of an action: one with 200 newer
 * ones that were sent may be gone.
 *
 * Which cookies are asked for: mostly as popular as they are written. One question in eight asks
 * for one of this run's own, whose answer is checked: a third of them for any, a third for the one
 * whose tag was acknowledged last, a third for the one whose tag has just come of the age at which
 * it must show.
 */
#include "cli/load_tags.h"

#include "base/hash.h"

#include <inttypes.h>
#include <stdarg.h>

enum {
    CHECKED_ONE_IN = 8,
    PART_ONE_IN = 8,    /* asks for some minutes, or fewer tags, instead of all */
    PART_MS = 600000,   /* how far back it looks */
    FILTERS = 8,        /* combinations */
    RECENT_MINUTES = 30 /* aggregates are asked for within the last so many */
};

uint64_t tag_random(struct tag_worker *w) {
    return hash64_u64(w->random++);
}

static const char *PRINTF_LIKE(2, 3) complain(struct tag_worker *w, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(w->complaint, sizeof w->complaint, format, args);
    va_end(args);
    return w->complaint;
}

/* The answer's text as JSON. */
static const char *parse(struct tag_worker *w, struct bytes text, struct json_value *ret) {
    buffer_clear(&w->answer);
    buffer_append_bytes(&w->answer, text);
    if (!buffer_reserve(&w->answer, JSON_PADDING))
        return "out of memory";
    int r = json_parse(w->parser, buffer_bytes(&w->answer), ret);
    return r > 0 ? json_error_text(r) : r ? "out of memory" : NULL;
}

/* ---- Which cookie ---- */

/* The own cookie whose tag was acknowledged last before until_ns; any when there is none. */
static uint64_t recent_cookie(const struct tag_model *m, uint64_t until_ns, uint64_t otherwise) {
    uint64_t oldest = m->n_recent > TAG_RECENT ? m->n_recent - TAG_RECENT : 0;
    for (uint64_t i = m->n_recent; i > oldest; i--)
        if (m->recent[(i - 1) % TAG_RECENT].known_ns <= until_ns)
            return m->recent[(i - 1) % TAG_RECENT].cookie;
    return otherwise;
}

static uint64_t choose_cookie(struct tag_worker *w, uint64_t now_ns) {
    uint64_t random = tag_random(w);
    uint64_t any = (random >> 16) % w->model.n_lists;
    struct tag like;
    if (random % CHECKED_ONE_IN != 0) {
        tag_draw(w->source, random, &like);
        return like.rank;
    }
    switch ((random >> 8) % 3) {
    case 0:
        any = recent_cookie(&w->model, now_ns, any);
        break;
    case 1:
        any = recent_cookie(&w->model, now_ns - w->source->visible_ns, any);
        break;
    default:
        break;
    }
    return any * w->source->every;
}

void profile_ask(struct tag_worker *w, struct profile_question *q) {
    uint64_t random = tag_random(w);
    uint64_t now_ns = os_monotonic_ns(w->base.plan->os);
    int64_t to_ms = w->model.newest_ms + TAG_MINUTE_MS;
    *q = (struct profile_question){.rank = choose_cookie(w, now_ns),
                                   .from_ms = w->source->start_ms,
                                   .to_ms =
                                       to_ms > w->source->start_ms ? to_ms : w->source->start_ms,
                                   .limit = TAG_KEEP,
                                   .asked_ns = now_ns,
                                   .visible_ns = w->source->visible_ns};
    q->tracked = q->rank % w->source->every == 0;
    if (random % PART_ONE_IN == 0)
        q->limit = (unsigned)((random >> 8) % TAG_KEEP);
    if ((random >> 16) % PART_ONE_IN == 0) {
        int64_t from_ms = q->to_ms - (int64_t)((random >> 24) % PART_MS);
        q->to_ms -= (int64_t)((random >> 44) % TAG_MINUTE_MS);
        q->from_ms = from_ms < q->to_ms ? from_ms : q->to_ms;
    }
}

void profile_path(const struct tag_worker *w, const struct profile_question *q,
                  char out[LOAD_PATH_MAX]) {
    char cookie[TAG_NAME_MAX];
    char from[TAG_NAME_MAX];
    char to[TAG_NAME_MAX];
    tag_cookie_name(w->source, w->base.index, q->rank, cookie);
    tag_datetime(q->from_ms, true, from);
    tag_datetime(q->to_ms, true, to);
    snprintf(out, LOAD_PATH_MAX, "/user_profiles/%s?time_range=%s_%s&limit=%u", cookie, from, to,
             q->limit);
}

/* ---- Profiles ---- */

static const char *const list_names[TAG_ACTIONS] = {"views", "buys"};

/* One action's list of an answer: the numbers and times of its tags, newest first. */
struct shown {
    unsigned n;
    uint64_t numbers[TAG_KEEP];
    int64_t times_ms[TAG_KEEP];
};

/* All that expected says, found says too; found may say more. */
static bool says_all(struct json_value expected, struct json_value found) {
    struct json_iterator it = json_iterate(expected);
    struct bytes key;
    struct json_value value;
    struct json_value other;
    struct bytes a;
    struct bytes b;
    int64_t i;
    int64_t k;
    while (json_next(&it, &key, &value)) {
        char name[TAG_NAME_MAX];
        snprintf(name, sizeof name, "%.*s", (int)key.size, (const char *)key.data);
        if (!json_find(found, name, &other))
            return false;
        bool same = json_type_of(value) == JSON_OBJECT ? says_all(value, other)
                    : json_get_string(value, &a)
                        ? json_get_string(other, &b) && bytes_equal(a, b)
                        : json_get_i64(value, &i) && json_get_i64(other, &k) && i == k;
        if (!same)
            return false;
    }
    return true;
}

/* It may be the same text; else its members stand in another order. */
static bool is_tag(struct tag_worker *w, const struct tag *tag, struct json_value found) {
    struct json_value expected;
    buffer_clear(&w->expected);
    buffer_clear(&w->found);
    tag_append(&w->pieces, tag, &w->expected);
    json_append_value(&w->found, found);
    if (buffer_check(&w->expected) || buffer_check(&w->found))
        return false;
    if (bytes_equal(buffer_bytes(&w->expected), buffer_bytes(&w->found)))
        return true;
    return buffer_reserve(&w->expected, JSON_PADDING) &&
           json_parse(w->expected_parser, buffer_bytes(&w->expected), &expected) == 0 &&
           says_all(expected, found);
}

/* The tag of that number, if this thread has sent it. */
static bool draw_sent(const struct tag_worker *w, struct bytes digits, struct tag *ret_tag) {
    uint64_t number = 0;
    if (digits.size == 0 || digits.size > 18)
        return false;
    for (size_t i = 0; i < digits.size; i++) {
        if (digits.data[i] < '0' || digits.data[i] > '9')
            return false;
        number = number * 10 + (uint64_t)(digits.data[i] - '0');
    }
    if (number % w->base.n != w->base.index || number / w->base.n >= w->tags)
        return false;
    tag_draw(w->source, number, ret_tag);
    return true;
}

/* The tag that product_id names. */
static bool draw_shown(const struct tag_worker *w, struct json_value found, struct tag *ret_tag) {
    struct json_value value;
    struct bytes text;
    return json_find(found, "product_info", &value) && json_find(value, "product_id", &value) &&
           json_get_string(value, &text) && draw_sent(w, text, ret_tag);
}

/* Takes one tag of a list, which shows it as it was sent, after the others. */
static const char *take_shown(struct tag_worker *w, const struct profile_question *q,
                              unsigned action, const struct tag *tag, struct shown *shown) {
    if (tag->action != action)
        return complain(w, "shows tag %" PRIu64 " among the wrong action", tag->number);
    if (tag->time_ms < q->from_ms || tag->time_ms >= q->to_ms)
        return complain(w, "shows tag %" PRIu64 ", which is outside the range", tag->number);
    if (shown->n > 0 && shown->times_ms[shown->n - 1] < tag->time_ms)
        return complain(w, "shows tag %" PRIu64 " behind an older one", tag->number);
    for (unsigned i = shown->n; i > 0 && shown->times_ms[i - 1] == tag->time_ms; i--)
        if (shown->numbers[i - 1] == tag->number)
            return complain(w, "shows tag %" PRIu64 " twice", tag->number);
    if (shown->n >= q->limit)
        return complain(w, "shows more tags than the limit of %u", q->limit);
    shown->numbers[shown->n] = tag->number;
    shown->times_ms[shown->n++] = tag->time_ms;
    return NULL;
}

static const char *take_value(struct tag_worker *w, const struct profile_question *q,
                              unsigned action, struct json_value found, struct shown *shown) {
    struct tag tag;
    if (!draw_shown(w, found, &tag) || tag.rank != q->rank)
        return "shows a tag that was never sent to it";
    if (!is_tag(w, &tag, found))
        return complain(w, "shows tag %" PRIu64 " with other contents than it was sent with",
                        tag.number);
    return take_shown(w, q, action, &tag, shown);
}

static bool shows(const struct shown *shown, const struct known_tag *tag) {
    for (unsigned i = 0; i < shown->n && shown->times_ms[i] >= tag->time_ms; i++)
        if (shown->numbers[i] == tag->number)
            return true;
    return false;
}

/* Looks for acknowledged tags that are missing. */
static const char *find_missing(struct tag_worker *w, const struct profile_question *q,
                                unsigned action, const struct shown *shown) {
    const struct known_list *list = &w->model.lists[q->rank / w->source->every][action];
    uint32_t first = list->n > TAG_KEEP ? list->n - TAG_KEEP : 0; /* older ones may be gone */
    for (uint32_t i = list->n; i > first; i--) {
        const struct known_tag *tag = &list->tags[i - 1];
        bool asked = tag->time_ms >= q->from_ms && tag->time_ms < q->to_ms;
        bool crowded_out = shown->n == q->limit &&
                           (q->limit == 0 || shown->times_ms[shown->n - 1] >= tag->time_ms);
        if (!asked || crowded_out || tag->known_ns > q->asked_ns || shows(shown, tag))
            continue;
        uint64_t age_ns = q->asked_ns - tag->known_ns;
        if (age_ns >= q->visible_ns)
            return complain(w, "lacks tag %" PRIu64 ", acknowledged %.1f ms before it was asked",
                            tag->number, (double)age_ns * 1e-6);
        if (age_ns > w->stalest_ns)
            w->stalest_ns = age_ns;
    }
    return NULL;
}

static const char *check_list(struct tag_worker *w, const struct profile_question *q,
                              unsigned action, struct json_value profile) {
    struct shown shown = {0};
    struct json_value value;
    const char *wrong = NULL;
    if (!json_find(profile, list_names[action], &value) || json_type_of(value) != JSON_ARRAY)
        return complain(w, "has no list \"%s\"", list_names[action]);
    struct json_iterator it = json_iterate(value);
    while (!wrong && json_next(&it, NULL, &value))
        wrong = take_value(w, q, action, value, &shown);
    return wrong ? wrong : find_missing(w, q, action, &shown);
}

static const char *check_json(struct tag_worker *w, const struct profile_question *q,
                              struct bytes answer) {
    struct json_value profile;
    struct json_value cookie;
    struct bytes text;
    char name[TAG_NAME_MAX];
    const char *wrong = parse(w, answer, &profile);
    if (wrong)
        return wrong;
    tag_cookie_name(w->source, w->base.index, q->rank, name);
    if (!json_find(profile, "cookie", &cookie) || !json_get_string(cookie, &text) ||
        !bytes_equal(text, bytes_of_string(name)))
        return "is of another cookie";
    for (unsigned action = 0; action < TAG_ACTIONS && !wrong; action++)
        wrong = check_list(w, q, action, profile);
    return wrong;
}

/* ---- Profiles, as we would write them ---- */

static bool skip(struct bytes *rest, struct bytes text) {
    if (rest->size < text.size || memcmp(rest->data, text.data, text.size) != 0)
        return false;
    *rest = bytes_of(rest->data + text.size, rest->size - text.size);
    return true;
}

/* The next tag, if it is to the letter as it was sent. */
static bool skip_tag(struct tag_worker *w, const struct profile_question *q, struct bytes *rest,
                     struct tag *ret_tag) {
    static const char name[] = "\"product_id\":\"";
    struct tag tag;
    const uint8_t *at = memmem(rest->data, rest->size, name, sizeof name - 1);
    const uint8_t *from = at ? at + sizeof name - 1 : NULL;
    const uint8_t *to = from ? memchr(from, '"', (size_t)(rest->data + rest->size - from)) : NULL;
    if (!to || !draw_sent(w, bytes_of(from, (size_t)(to - from)), &tag) || tag.rank != q->rank)
        return false;
    buffer_clear(&w->expected);
    tag_append(&w->pieces, &tag, &w->expected);
    if (buffer_check(&w->expected) || !skip(rest, buffer_bytes(&w->expected)))
        return false;
    *ret_tag = tag;
    return true;
}

/* A list with its name. False: it is not to the letter as we would write it. */
static bool skip_list(struct tag_worker *w, const struct profile_question *q, unsigned action,
                      struct bytes *rest, struct shown *shown, const char **ret_wrong) {
    const char *wrong = NULL;
    char text[TAG_NAME_MAX];
    struct tag tag;
    snprintf(text, sizeof text, ",\"%s\":[", list_names[action]);
    if (!skip(rest, bytes_of_string(text)))
        return false;
    while (!wrong && !skip(rest, BYTES_LITERAL("]"))) {
        if ((shown->n > 0 && !skip(rest, BYTES_LITERAL(","))) || !skip_tag(w, q, rest, &tag))
            return false;
        wrong = take_shown(w, q, action, &tag, shown);
    }
    *ret_wrong = wrong ? wrong : find_missing(w, q, action, shown);
    return true;
}

/* An answer that is to the letter as we would write it needs no parser, which would be a tenth of
 * the generator's work. False: it is not, which is no fault. */
static bool check_text(struct tag_worker *w, const struct profile_question *q, struct bytes rest,
                       const char **ret_wrong) {
    char text[2 * TAG_NAME_MAX];
    char name[TAG_NAME_MAX];
    const char *wrong = NULL;
    tag_cookie_name(w->source, w->base.index, q->rank, name);
    snprintf(text, sizeof text, "{\"cookie\":\"%s\"", name);
    if (!skip(&rest, bytes_of_string(text)))
        return false;
    for (unsigned action = 0; action < TAG_ACTIONS && !wrong; action++) {
        struct shown shown = {0};
        if (!skip_list(w, q, action, &rest, &shown, &wrong))
            return false;
    }
    *ret_wrong = wrong;
    return wrong || (skip(&rest, BYTES_LITERAL("}")) && rest.size == 0);
}

const char *profile_check(struct tag_worker *w, const struct profile_question *q,
                          struct bytes answer) {
    const char *wrong;
    if (!q->tracked)
        return answer.size > 2 && answer.data[0] == '{' ? NULL : "is not an object";
    return check_text(w, q, answer, &wrong) ? wrong : check_json(w, q, answer);
}

/* ---- Aggregates ---- */

/* A number below n, or -1. */
static int filter(bool by, uint64_t random, unsigned n) {
    return by ? (int)(random % n) : -1;
}

void aggregate_ask(struct tag_worker *w, struct aggregate_question *q) {
    uint64_t random = tag_random(w);
    uint64_t filters = random % FILTERS;
    int64_t start = tag_minute(w->source->start_ms);
    int64_t newest = tag_minute(w->model.newest_ms);
    int64_t back = (int64_t)((random >> 16) % RECENT_MINUTES);
    *q = (struct aggregate_question){.first_minute = newest - back > start ? newest - back : start,
                                     .minutes = 1 + (unsigned)((random >> 24) % TAG_RANGE_MINUTES),
                                     .action = random >> 32 & 1,
                                     .sum_first = random >> 33 & 1,
                                     .origin = filter(filters & 1, random >> 36, TAG_OWN_ORIGINS),
                                     .brand = filter(filters & 2, random >> 40, TAG_OWN_BRANDS),
                                     .category =
                                         filter(filters & 4, random >> 44, TAG_OWN_CATEGORIES)};
    tag_model_age(&w->model, os_monotonic_ns(w->base.plan->os));
    for (unsigned i = 0; i < q->minutes; i++)
        q->least[i] = aggregate_expect(w, q, q->first_minute + i).aged;
}

static bool has_filter(const struct aggregate_question *q) {
    return q->origin >= 0 || q->brand >= 0 || q->category >= 0;
}

static void append_filter(const struct tag_worker *w, const char *parameter, enum tag_own what,
                          int value, struct buffer *out) {
    char name[TAG_NAME_MAX];
    if (value < 0)
        return;
    tag_own_name(w->source, w->base.index, what, (unsigned)value, name);
    buffer_append_format(out, "&%s=%s", parameter, name);
}

void aggregate_path(const struct tag_worker *w, const struct aggregate_question *q,
                    char out[LOAD_PATH_MAX]) {
    struct buffer path CLEANUP(buffer_deinit) = BUFFER_INIT;
    char from[TAG_NAME_MAX];
    char to[TAG_NAME_MAX];
    tag_datetime(q->first_minute * TAG_MINUTE_MS, false, from);
    tag_datetime((q->first_minute + q->minutes) * TAG_MINUTE_MS, false, to);
    buffer_append_format(&path,
                         "/aggregates?time_range=%s_%s&action=%s&aggregates=%s&aggregates=%s", from,
                         to, tag_action_names[q->action], q->sum_first ? "SUM_PRICE" : "COUNT",
                         q->sum_first ? "COUNT" : "SUM_PRICE");
    append_filter(w, "origin", TAG_OWN_ORIGIN, q->origin, &path);
    append_filter(w, "brand_id", TAG_OWN_BRAND, q->brand, &path);
    append_filter(w, "category_id", TAG_OWN_CATEGORY, q->category, &path);
    snprintf(out, LOAD_PATH_MAX, "%.*s", (int)path.size, (const char *)path.data);
}

static void add_sum(struct tag_sum *to, const struct tag_sum *from) {
    to->count += from->count;
    to->sum += from->sum;
}

static bool passes(int by, unsigned value) {
    return by < 0 || (unsigned)by == value;
}

struct tag_cell aggregate_expect(const struct tag_worker *w, const struct aggregate_question *q,
                                 int64_t minute) {
    struct tag_cell all = {0};
    const struct tag_minute *slot = tag_model_minute(&w->model, minute);
    if (!slot || !has_filter(q))
        return all;
    for (unsigned o = 0; o < TAG_OWN_ORIGINS; o++)
        for (unsigned b = 0; b < TAG_OWN_BRANDS; b++)
            for (unsigned c = 0; c < TAG_OWN_CATEGORIES; c++) {
                const struct tag_cell *cell = &slot->cells[q->action][o][b][c];
                if (!passes(q->origin, o) || !passes(q->brand, b) || !passes(q->category, c))
                    continue;
                add_sum(&all.sent, &cell->sent);
                add_sum(&all.known, &cell->known);
                add_sum(&all.aged, &cell->aged);
            }
    return all;
}

/* The cells that come before the values, or the columns' names; as many as ret_n says. */
static void lead_cells(const struct tag_worker *w, const struct aggregate_question *q,
                       const char *bucket, char out[5][TAG_NAME_MAX], unsigned *ret_n) {
    unsigned n = 0;
    snprintf(out[n++], TAG_NAME_MAX, "%s", bucket ? bucket : "1m_bucket");
    snprintf(out[n++], TAG_NAME_MAX, "%s", bucket ? tag_action_names[q->action] : "action");
    static const char *const names[] = {"origin", "brand_id", "category_id"};
    const int filters[] = {q->origin, q->brand, q->category};
    for (unsigned i = 0; i < 3; i++) {
        if (filters[i] < 0)
            continue;
        if (bucket)
            tag_own_name(w->source, w->base.index, (enum tag_own)i, (unsigned)filters[i], out[n++]);
        else
            snprintf(out[n++], TAG_NAME_MAX, "%s", names[i]);
    }
    *ret_n = n;
}

/* Takes the next string of a row. */
static bool next_text(struct json_iterator *it, struct bytes *ret) {
    struct json_value value;
    return json_next(it, NULL, &value) && json_get_string(value, ret);
}

static bool leads_with(struct json_iterator *it, char cells[5][TAG_NAME_MAX], unsigned n) {
    struct bytes text;
    for (unsigned i = 0; i < n; i++)
        if (!next_text(it, &text) || !bytes_equal(text, bytes_of_string(cells[i])))
            return false;
    return true;
}

static bool next_number(struct json_iterator *it, uint64_t *ret) {
    struct bytes text;
    uint64_t number = 0;
    if (!next_text(it, &text) || text.size == 0 || text.size > 19)
        return false;
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        number = number * 10 + (uint64_t)(text.data[i] - '0');
    }
    *ret = number;
    return true;
}

static const char *read_columns(const struct tag_worker *w, const struct aggregate_question *q,
                                struct json_value root) {
    char cells[5][TAG_NAME_MAX];
    unsigned n;
    struct json_value columns;
    struct bytes first;
    struct bytes second;
    struct json_value more;
    lead_cells(w, q, NULL, cells, &n);
    if (!json_find(root, "columns", &columns))
        return "has no columns";
    struct json_iterator it = json_iterate(columns);
    if (!leads_with(&it, cells, n) || !next_text(&it, &first) || !next_text(&it, &second) ||
        json_next(&it, NULL, &more) ||
        !bytes_equal(first, q->sum_first ? BYTES_LITERAL("sum_price") : BYTES_LITERAL("count")) ||
        !bytes_equal(second, q->sum_first ? BYTES_LITERAL("count") : BYTES_LITERAL("sum_price")))
        return "has other columns than asked for";
    return NULL;
}

static const char *read_row(struct tag_worker *w, const struct aggregate_question *q,
                            int64_t minute, struct json_value row, struct tag_sum *ret_sum) {
    char bucket[TAG_NAME_MAX];
    char cells[5][TAG_NAME_MAX];
    unsigned n;
    struct json_value more;
    struct tag_sum sum;
    tag_datetime(minute * TAG_MINUTE_MS, false, bucket);
    lead_cells(w, q, bucket, cells, &n);
    struct json_iterator it = json_iterate(row);
    if (!leads_with(&it, cells, n))
        return complain(w, "has a wrong row for %s", bucket);
    bool read = q->sum_first ? next_number(&it, &sum.sum) && next_number(&it, &sum.count)
                             : next_number(&it, &sum.count) && next_number(&it, &sum.sum);
    if (!read || json_next(&it, NULL, &more))
        return complain(w, "has other values than two strings of digits for %s", bucket);
    *ret_sum = sum;
    return NULL;
}

const char *aggregate_read(struct tag_worker *w, const struct aggregate_question *q,
                           struct bytes answer, struct tag_sum ret_sums[TAG_RANGE_MINUTES]) {
    struct json_value root;
    struct json_value rows;
    struct json_value row;
    const char *wrong = parse(w, answer, &root);
    if (!wrong)
        wrong = read_columns(w, q, root);
    if (wrong)
        return wrong;
    if (!json_find(root, "rows", &rows) || json_size(rows) != q->minutes)
        return complain(w, "does not have one row for each of %u minutes", q->minutes);
    struct json_iterator it = json_iterate(rows);
    for (unsigned i = 0; !wrong && json_next(&it, NULL, &row); i++)
        wrong = read_row(w, q, q->first_minute + i, row, &ret_sums[i]);
    return wrong;
}

const char *aggregate_check(struct tag_worker *w, const struct aggregate_question *q,
                            struct bytes answer) {
    struct tag_sum found[TAG_RANGE_MINUTES];
    const char *wrong = aggregate_read(w, q, answer, found);
    for (unsigned i = 0; !wrong && has_filter(q) && i < q->minutes; i++) {
        struct tag_sum most = aggregate_expect(w, q, q->first_minute + i).sent;
        struct tag_sum least = q->least[i];
        if (found[i].count < least.count || found[i].count > most.count ||
            found[i].sum < least.sum || found[i].sum > most.sum)
            wrong = complain(
                w,
                "counts %" PRIu64 " with a sum of %" PRIu64 " in minute %u of the "
                "range, where %" PRIu64 " to %" PRIu64 " with %" PRIu64 " to %" PRIu64 " are right",
                found[i].count, found[i].sum, i, least.count, most.count, least.sum, most.sum);
    }
    return wrong;
}
